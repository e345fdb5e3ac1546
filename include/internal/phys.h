/*
 * phys.h - guest-physical memory: the map, the frames, and the single choke point.
 *
 * Every access that is not a view hit (view.h) goes through ONE pair, phys_read() and phys_write().
 * Protection, dirty tracking and code invalidation live there and nowhere else.
 */
#ifndef INTERNAL_PHYS_H
#define INTERNAL_PHYS_H

#include "internal/access.h"
#include "internal/io.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

struct ahead;
struct error;
struct log;
struct phys_map;

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ull
#define PAGE_MASK  (~(PAGE_SIZE - 1))

/* For functions that touch guest memory by plain loads and stores: ThreadSanitizer looks away, since
 * races between guest threads are the guest's own. */
#if defined(__SANITIZE_THREAD__)
#define MEM_RACY __attribute__((no_sanitize_thread))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEM_RACY __attribute__((no_sanitize("thread")))
#endif
#endif
#ifndef MEM_RACY
#define MEM_RACY __attribute__((always_inline))
#endif
/* Units of such accesses, at any alignment. */
typedef uint16_t __attribute__((aligned(1), may_alias)) mem_u16;
typedef uint32_t __attribute__((aligned(1), may_alias)) mem_u32;
typedef uint64_t __attribute__((aligned(1), may_alias)) mem_u64;
typedef uint64_t __attribute__((vector_size(16), aligned(1), may_alias)) mem_u128;

enum phys_result {
    PHYS_OK = 0,
    PHYS_REFUSED, /* a protection rule refused the access; nothing was transferred */
};

enum region_kind { REGION_RAM, REGION_ROM, REGION_MMIO };

/* Attributes of a guest frame (RAM and ROM only), one atomic word each. The low half says why a
 * store may not go by the fast path; the high half says which vCPUs may hold a writable view entry
 * (set before the entry is made, so that whoever sets CODE or TABLE knows whom to ask). */
enum frame_attr {
    FRAME_ROM = 1 << 0,
    FRAME_CODE = 1 << 1,  /* some vCPU has decoded blocks here */
    FRAME_TABLE = 1 << 2, /* a page table that views derive from */
    FRAME_RULED = 1 << 3, /* a protection rule forbids something to somebody in it */
    FRAME_WATCHED = 1 << 4,
    FRAME_DIRTY_LOG = 1 << 5,
    FRAME_RULED_READ = 1 << 6, /* some code may not load, store, fetch some bytes of it */
    FRAME_RULED_WRITE = 1 << 7,
    FRAME_RULED_EXEC = 1 << 8,
    FRAME_RULED_TABLE = 1 << 9, /* a page table that maps protected regions */
    FRAME_LENT = 1 << 10,       /* the host's kernel reads or writes it now (mmu/loan.c) */
    FRAME_LENT_WRITE = 1 << 11, /* it writes */
    FRAME_RULED_CODE = FRAME_RULED_READ | FRAME_RULED_WRITE | FRAME_RULED_EXEC,
    /* RULED_READ too: the fast path of a read-modify-write asks for the right to write only. */
    FRAME_SLOW_WRITE = FRAME_ROM | FRAME_CODE | FRAME_TABLE | FRAME_WATCHED | FRAME_DIRTY_LOG |
                       FRAME_RULED_READ | FRAME_RULED_WRITE | FRAME_RULED_TABLE,
    FRAME_WRITABLE_BY_SHIFT = 16, /* + vCPU index, 0-15 */
};

struct phys_map *phys_new(pthread_mutex_t *machine_lock, struct log *log);
void phys_free(struct phys_map *map);
/* The machine's thread that gets host memory ahead. */
struct ahead *phys_ahead(struct phys_map *map);

/* All sizes and addresses are multiples of the page size. RAM is anonymous memory, zeroed, with
 * huge pages advised. `ram_offset` bytes into one RAM block: so the two halves around the PCI hole
 * are two regions of one block. */
struct ram_block;
struct ram_block *phys_ram_new(struct phys_map *map, uint64_t size, struct error *err);
bool phys_add_ram(struct phys_map *map, uint64_t gpa, uint64_t size, struct ram_block *block,
                  uint64_t ram_offset, const char *name, struct error *err);
/* Memory that comes and goes: a device's own RAM or ROM, which a BAR shows and moves. The block is
 * made once and lives as long as the map; showing it returns a handle for phys_remove(), or -1 with
 * *err. What hides it later keeps its contents. ROM begins with the bytes given, and zeroes; it
 * lies over RAM, and the guest's stores to it are ignored. */
struct ram_block *phys_rom_new(struct phys_map *map, uint64_t size, const void *bytes, size_t len,
                               struct error *err);
int phys_map_block(struct phys_map *map, uint64_t gpa, uint64_t size, struct ram_block *block,
                   uint64_t offset, const char *name, struct error *err);
/* The device's own way to the bytes of its block, shown or not. After it has changed some of them:
 * tells whoever has decoded code or traced page tables there. */
uint8_t *phys_block_bytes(struct ram_block *block);
void phys_block_written(struct phys_map *map, struct ram_block *block, uint64_t offset,
                        uint64_t len);
/* Does some rule protect bytes of these frames? What a guest asks a chip to change in memory that
 * is not shown reaches no other check: such a change is to be left undone. */
bool phys_block_ruled(const struct ram_block *block, uint64_t offset, uint64_t len);
/* Returns a handle (>= 0) or -1 with *err. MMIO regions lie over RAM where they overlap. */
int phys_add_mmio(struct phys_map *map, uint64_t gpa, uint64_t size, const struct io_ops *ops,
                  void *opaque, const char *name, struct error *err);
/* BARs move: both drop every view entry that showed the region, on all vCPUs, before they return
 * or, from a thread that is no vCPU, before that vCPU executes its next block. */
void phys_remove(struct phys_map *map, int handle);

/* Memory that chips switch (PAM) or program (flash): as phys_map_block(), with a handle for
 * phys_switch() too. */
struct phys_memory {
    uint64_t gpa, size;
    struct ram_block *block;
    uint64_t offset; /* of gpa in the block */
    const char *name;
    bool hidden; /* begins so */
    /* ROM only, may be NULL: `write` is called for each store, which changes nothing by itself. */
    const struct io_ops *rom_ops;
    void *opaque;
};
int phys_add_memory(struct phys_map *map, const struct phys_memory *memory, struct error *err);

/* Any regions with handles: `visible` or as if they were not there; read_only makes RAM ignore
 * stores. All change at once, in the way of phys_remove(). False: there was no host memory for a
 * new table, and nothing changed; else `switches` holds what they were. With the machine lock held.
 */
struct phys_switch {
    int handle;
    bool visible, read_only;
};
bool phys_switch(struct phys_map *map, struct phys_switch *switches, unsigned count);

/* The host address of RAM or ROM at gpa, with *len bytes after it in the same region; NULL for
 * MMIO and holes. For the walker's and the loaders' convenience: no rules, no tracking; writers use
 * phys_write(). */
void *phys_hva(struct phys_map *map, uint64_t gpa, uint64_t *len);
_Atomic uint32_t *phys_frame_attr(struct phys_map *map, uint64_t gpa); /* NULL: not RAM or ROM */

/* The choke point. Any length, may cross regions; unmapped bytes read as all ones and writes to
 * them vanish (logged as guest_errors). MMIO callbacks run with the machine lock, taken here.
 * RAM accesses of 1, 2, 4 or 8 aligned bytes are single-copy atomic. */
enum phys_result phys_read(struct phys_map *map, const struct access *access, uint64_t gpa,
                           void *buf, size_t len);
enum phys_result phys_write(struct phys_map *map, const struct access *access, uint64_t gpa,
                            const void *buf, size_t len);
/* For a device's write callback: have fn(opaque, access) called in the storing thread as soon as
 * the store has let go of the machine lock, before its instruction retires. There it may park the
 * other vCPUs, or abandon the instruction. Only for stores by an instruction (INITIATOR_VCPU_*):
 * others have no such moment, and false is returned. */
typedef void phys_after_fn(void *opaque, const struct access *access);
bool phys_after_store(struct phys_map *map, const struct access *access, phys_after_fn *fn,
                      void *opaque);
/* Atomic compare-and-exchange of 4 or 8 aligned bytes in RAM: the page walker's A/D update. On a
 * difference *expected gets the present value and *exchanged is false. */
enum phys_result phys_cmpxchg(struct phys_map *map, const struct access *access, uint64_t gpa,
                              unsigned size, uint64_t *expected, uint64_t desired, bool *exchanged);

/* ---- Lending: DMA that the host's kernel does by itself, without a copy ----
 *
 *     loan = phys_loan_new(map, true, 2);
 *     if (phys_loan_add(loan, gpa, 8192))     the guest's frames, host memory in loan->iov
 *         preadv(fd, loan->iov, loan->count, offset);
 *     phys_loan_end(loan);
 *
 * Only whole frames of which nobody has to hear are lent: no rule protects a byte of them and, if
 * they are to be written, they are RAM without decoded code or traced tables. Else the device
 * copies, by phys_read() and phys_write(). Who is about to protect such a frame or to decode code
 * in it waits for the loan's end, which therefore must not wait for the guest or the machine lock:
 * lend only to what ends by itself. Before a device promises that it leaves memory alone (a reset),
 * its loans have ended.
 */
struct phys_loan {
    struct phys_map *map;
    bool to_memory; /* the host writes guest memory */
    unsigned count, room;
    struct frame **frames; /* the first of each piece; behind iov */
    struct iovec iov[];
};
/* NULL: no host memory for it. At most `pieces` pieces; frames that follow each other in host
 * memory make one. */
struct phys_loan *phys_loan_new(struct phys_map *map, bool to_memory, unsigned pieces);
/* False: not to be lent. What was added before has to be given back all the same. */
bool phys_loan_add(struct phys_loan *loan, uint64_t gpa, uint64_t len);
/* Gives everything back and frees it; in any thread. NULL is fine. */
void phys_loan_end(struct phys_loan *loan);

/* Lists the map through `print` for the monitor and -d page. */
void phys_dump(struct phys_map *map, FILE *out);

#endif
