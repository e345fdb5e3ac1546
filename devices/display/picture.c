/*
 * picture.c - a picture that its owner keeps, and what of it has changed (display.h).
 */
#include "internal/display.h"
#include "internal/error.h"
#include <stdlib.h>
#include <string.h>

bool display_resize(struct display_picture *picture, unsigned width, unsigned height,
                    struct error *err)
{
    picture->first = picture->end = 0;
    if (picture->width == width && picture->height == height && picture->pixels)
        return true;
    size_t count = (size_t)width * height;
    if (count > picture->room || !picture->pixels) {
        uint32_t *pixels = malloc((count ? count : 1) * sizeof(*pixels));
        if (!pixels)
            return error_set(err, "no memory for a picture of %u x %u", width, height);
        free(picture->pixels);
        picture->pixels = pixels;
        picture->room = count;
    }
    memset(picture->pixels, 0, count * sizeof(*picture->pixels));
    picture->width = width;
    picture->height = height;
    picture->end = height;
    return true;
}

void display_put_row(struct display_picture *picture, unsigned y, const uint32_t *row)
{
    uint32_t *to = picture->pixels + (size_t)y * picture->width;
    size_t bytes = picture->width * sizeof(*row);
    if (memcmp(to, row, bytes) == 0)
        return;
    memcpy(to, row, bytes);
    if (picture->first == picture->end)
        picture->first = picture->end = y;
    if (y < picture->first)
        picture->first = y;
    if (y >= picture->end)
        picture->end = y + 1;
}

void display_free_picture(struct display_picture *picture)
{
    free(picture->pixels);
    *picture = (struct display_picture){0};
}
