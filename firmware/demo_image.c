/*
 * demo_image.c - gives out the built-in demo guest, which demo_image.S embeds.
 */
#include "internal/firmware.h"

extern const char firmware_demo_begin[], firmware_demo_end[];

const void *firmware_demo(size_t *len)
{
    *len = (size_t)(firmware_demo_end - firmware_demo_begin);
    return firmware_demo_begin;
}
