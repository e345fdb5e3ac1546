/*
 * io.h - register callbacks of devices, and the port space.
 */
#ifndef INTERNAL_IO_H
#define INTERNAL_IO_H

#include "internal/access.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct error;
struct log;

/*
 * A region of registers. `offset` counts from the region's start. Accesses outside [min, max] bytes
 * are split or widened by the caller of the callback (a read wider than max becomes several; one
 * narrower than min reads min and shifts); both are powers of two, 0 means 1 and 8. Accesses that
 * cross the region's end are split there. Called with the machine lock held.
 */
struct io_ops {
    uint64_t (*read)(void *opaque, const struct access *access, uint64_t offset, unsigned size);
    void (*write)(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                  uint64_t value);
    uint8_t min, max;
};

/* The 64-Ki port space. A port nobody claimed reads all ones and ignores writes. */
struct io_space;

struct io_space *io_space_new(pthread_mutex_t *machine_lock, struct log *log);
void io_space_free(struct io_space *space);
/* Claims ports [base, base + count). Later claims win over earlier ones where they overlap (PCI
 * BARs over fixed ports never do on a sane guest). Returns a handle for io_remove(). */
int io_add(struct io_space *space, uint16_t base, unsigned count, const struct io_ops *ops,
           void *opaque, const char *name);
void io_remove(struct io_space *space, int handle);
/* size 1, 2 or 4; take the machine lock. */
uint32_t io_read(struct io_space *space, const struct access *access, uint16_t port, unsigned size);
void io_write(struct io_space *space, const struct access *access, uint16_t port, unsigned size,
              uint32_t value);

#endif
