/*
 * fields.h - a device's state as a described list of fields.
 *
 * Save and restore, `info`, replay checksums and the teaching views all come from this list; no
 * struct is ever dumped raw. A field that a later version adds carries that version.
 *
 *     static const struct field pit_fields[] = {
 *         FIELD(struct pit, latch, FIELD_U16, 1),
 *         FIELD_ARRAY(struct pit, mode, FIELD_U8, 1),
 *     };
 *     static const struct state_desc pit_state = STATE_DESC("pit", 1, pit_fields);
 */
#ifndef INTERNAL_FIELDS_H
#define INTERNAL_FIELDS_H

#include <stddef.h>
#include <stdint.h>

enum field_type { FIELD_U8, FIELD_U16, FIELD_U32, FIELD_U64, FIELD_BYTES };

struct field {
    const char *name;
    enum field_type type;
    uint16_t version; /* first version of the state that has it */
    size_t offset;    /* in the state struct */
    size_t count;     /* elements; for FIELD_BYTES, bytes */
};

struct state_desc {
    const char *name;
    uint16_t version;
    const struct field *fields;
    size_t field_count;
};

/* sizeof the element must be the type's: checked at compile time by the division below. */
#define FIELD_SIZE_OF(type)                                                                        \
    ((type) == FIELD_U16 ? 2 : (type) == FIELD_U32 ? 4 : (type) == FIELD_U64 ? 8 : 1)
#define FIELD(st, member, type, version)                                                           \
    {                                                                                              \
#member, type, version, offsetof(st, member),                                              \
            1 / (sizeof(((st *)0)->member) == FIELD_SIZE_OF(type))                                 \
    }
#define FIELD_ARRAY(st, member, type, version)                                                     \
    {                                                                                              \
#member, type, version, offsetof(st, member),                                              \
            sizeof(((st *)0)->member) / FIELD_SIZE_OF(type)                                        \
    }
#define STATE_DESC(name, version, fields)                                                          \
    {                                                                                              \
        name, version, fields, sizeof(fields) / sizeof((fields)[0])                                \
    }

/* Bytes of one element. */
size_t field_element_size(enum field_type type);
/* Element `index` of a field as a number (a byte for FIELD_BYTES). */
uint64_t field_get(const struct field *field, const void *state, size_t index);
void field_set(const struct field *field, void *state, size_t index, uint64_t value);

#endif
