/*
 * restore.h - saved states that nobody has checked, for fuzz targets of devices.
 */
#ifndef TESTS_FUZZ_RESTORE_H
#define TESTS_FUZZ_RESTORE_H

#include "internal/device.h"
#include "tests/fuzz/script.h"

/* Some fields of a saved state are something else, and the device is to live with it. */
static inline void restore(struct device *dev, struct script *s)
{
    const struct state_desc *state = dev->state;
    for (unsigned i = 0, n = (unsigned)take(s, 1) % 8; i < n; i++) {
        const struct field *field = &state->fields[take(s, 2) % state->field_count];
        field_set(field, dev, take(s, 2) % field->count, take(s, 4));
    }
    if (dev->restored)
        dev->restored(dev);
}

#endif
