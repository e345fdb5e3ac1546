/*
 * flash.h - parallel NOR flash that holds firmware and its variables (-pflash, -drive if=pflash).
 */
#ifndef INTERNAL_FLASH_H
#define INTERNAL_FLASH_H

#include "internal/device.h"

struct blockdev;
struct error;
struct flash;

enum { FLASH_SECTOR = 4096 };

/* A chip of the image's size, a multiple of FLASH_SECTOR, mapped so that it ends at `end`. What
 * is programmed or erased is written to the image at once. */
struct flash *flash_new(struct board *board, struct blockdev *image, uint64_t end,
                        struct error *err);
/* Its bytes, for whoever shows them elsewhere (the BIOS below 1 MiB), and where it begins. */
struct ram_block *flash_block(struct flash *flash);
uint64_t flash_base(const struct flash *flash);

#endif
