/*
 * fields.c - reading and writing described fields. See include/internal/fields.h.
 */
#include "internal/fields.h"
#include <string.h>

size_t field_element_size(enum field_type type)
{
    return FIELD_SIZE_OF(type);
}

uint64_t field_get(const struct field *field, const void *state, size_t index)
{
    size_t size = field_element_size(field->type);
    uint64_t value = 0; /* little-endian host: the low bytes */
    memcpy(&value, (const char *)state + field->offset + index * size, size);
    return value;
}

void field_set(const struct field *field, void *state, size_t index, uint64_t value)
{
    size_t size = field_element_size(field->type);
    memcpy((char *)state + field->offset + index * size, &value, size);
}
