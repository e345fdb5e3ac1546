/*
 * aml.h - a small writer of ACPI machine language (ACPI 6.5, chapter 20), for the DSDT.
 *
 *     aml_open_device(&a, "COM1");
 *     aml_name_eisaid(&a, "_HID", "PNP0501");
 *     aml_close(&a);
 *
 * Every open is balanced by a close, which fills in the package length. Whatever does not fit sets
 * `full`; the caller looks at that once, at the end.
 */
#ifndef FIRMWARE_AML_H
#define FIRMWARE_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 8

struct aml {
    uint8_t *bytes;
    size_t len, room;
    bool full;
    unsigned depth;
    size_t open[AML_DEPTH]; /* where each open object's package length will go */
};

void aml_byte(struct aml *a, uint8_t byte);
void aml_little(struct aml *a, uint64_t value, unsigned bytes);
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_namestring(struct aml *a, const char *path); /* "\\_SB.PCI0", "_HID" */

void aml_open_scope(struct aml *a, const char *path);
void aml_open_device(struct aml *a, const char *name);
void aml_open_package(struct aml *a, unsigned elements);
void aml_close(struct aml *a);

/* OperationRegion(NAME, space, offset, length); Field(REGION) of bytes, to be closed. */
enum aml_region_space { AML_PCI_CONFIG = 2 };
void aml_region(struct aml *a, const char *name, enum aml_region_space space, uint64_t offset,
                uint64_t len);
void aml_open_field(struct aml *a, const char *region);
void aml_field_byte(struct aml *a, const char *name);

/* Methods: serialized, since they make names. What an operator takes follows it. */
void aml_open_method(struct aml *a, const char *name, unsigned arguments);
void aml_open_if(struct aml *a);                              /* the condition follows */
void aml_and(struct aml *a, const char *name, uint64_t mask); /* And(NAME, mask) */
void aml_return(struct aml *a);                               /* the value follows */
void aml_store(struct aml *a);                                /* source, target */
void aml_dword_field(struct aml *a);                          /* buffer, offset, name */
void aml_argument0(struct aml *a);

/* Name(NAME, ...): the object follows. */
void aml_name(struct aml *a, const char *name);
void aml_name_integer(struct aml *a, const char *name, uint64_t value);
void aml_name_string(struct aml *a, const char *name, const char *text);
/* A compressed EISA id, such as "PNP0501" (ACPI 6.5, 19.6.37). */
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* Name(_CRS, ResourceTemplate ...): descriptors are collected first (ACPI 6.5, 6.4). */
struct aml_resources {
    uint8_t bytes[256];
    struct aml a;
};
enum aml_space { AML_MEMORY = 0, AML_IO = 1, AML_BUS = 2 };

void aml_resources_init(struct aml_resources *r);
void aml_port(struct aml_resources *r, uint16_t base, uint8_t count);
void aml_irq(struct aml_resources *r, unsigned irq);
void aml_dma(struct aml_resources *r, unsigned channel); /* of bytes */
/* Level-triggered, active high, shared: any one of `count`. */
void aml_interrupts(struct aml_resources *r, const uint8_t *irqs, unsigned count);
/* Registers of the device's own, below 4 GiB. */
void aml_memory(struct aml_resources *r, uint32_t base, uint32_t size);
/* A window that a bridge passes on, [min, max] inclusive, in a descriptor of 2, 4 or 8 bytes. */
void aml_window(struct aml_resources *r, enum aml_space space, unsigned width, uint64_t min,
                uint64_t max);
void aml_name_resources(struct aml *a, const char *name, struct aml_resources *r);

#endif
