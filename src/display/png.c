/*
 * png.c - a picture as a PNG file (W3C, Portable Network Graphics, second edition), by libpng.
 *
 * The file appears whole or not at all: it is written beside its place and then renamed. Only its
 * owner may read it.
 */
#include "internal/display.h"
#include "internal/error.h"
#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* libpng's own message goes into the error, not to standard error. */
static void on_error(png_structp png, png_const_charp message)
{
    error_set(png_get_error_ptr(png), "%s", message);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static void write_rows(png_structp png, const struct display_picture *picture, uint8_t *row)
{
    for (unsigned y = 0; y < picture->height; y++) {
        const uint32_t *from = picture->pixels + (size_t)y * picture->width;
        for (unsigned x = 0; x < picture->width; x++) {
            row[3 * x] = (uint8_t)(from[x] >> 16);
            row[3 * x + 1] = (uint8_t)(from[x] >> 8);
            row[3 * x + 2] = (uint8_t)from[x];
        }
        png_write_row(png, row);
    }
}

static bool write_png(const struct display_picture *picture, FILE *out, uint8_t *row,
                      struct error *err)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, err, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info) {
        png_destroy_write_struct(&png, NULL);
        return error_set(err, "no memory for a PNG file");
    }
    if (setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    png_init_io(png, out);
    png_set_IHDR(png, info, picture->width, picture->height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    write_rows(png, picture, row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return true;
}

static bool write_file(const struct display_picture *picture, const char *path, FILE *out,
                       struct error *err)
{
    uint8_t *row = malloc(3 * (size_t)picture->width + 1);
    bool ok = row ? write_png(picture, out, row, err) : error_set(err, "no memory for a PNG file");
    free(row);
    if (fclose(out) != 0 && ok)
        ok = error_set(err, "%s", strerror(errno));
    return ok || error_prefix(err, "%s", path);
}

bool display_write_png(const struct display_picture *picture, const char *path, struct error *err)
{
    char beside[4096];
    if ((size_t)snprintf(beside, sizeof(beside), "%s.XXXXXX", path) >= sizeof(beside))
        return error_set(err, "a file's name of more than %zu bytes", sizeof(beside) - 8);
    int fd = mkstemp(beside);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!out)
        return error_set(err, "%s: %s", path, strerror(errno));
    if (!write_file(picture, path, out, err)) {
        unlink(beside);
        return false;
    }
    if (rename(beside, path) == 0)
        return true;
    error_set(err, "%s: %s", path, strerror(errno));
    unlink(beside);
    return false;
}
