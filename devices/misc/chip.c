/*
 * chip.c - memory for the chips of include/internal/chips.h.
 */
#include "internal/chips.h"
#include <stdio.h>
#include <stdlib.h>

void *chip_alloc(size_t size)
{
    void *chip = calloc(1, size);
    if (!chip) {
        perror("bailey: chip");
        abort();
    }
    return chip;
}
