/*
 * lab.h - what the tests of image formats share: a folder of their own, qemu-img as the second
 * opinion, and a disk in memory that an image must equal.
 */
#ifndef TEST_BLOCK_LAB_H
#define TEST_BLOCK_LAB_H

#include "internal/error.h"
#include "src/block/image.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char lab_dir[64];

/* The quick suite has no time for more than a taste; BAILEY_LONG_TESTS=1 is the whole meal. */
static inline bool lab_long(void)
{
    return getenv("BAILEY_LONG_TESTS") != NULL;
}

static inline int lab_vrun(const char *fmt, va_list args)
{
    char command[2048], line[2200];
    vsnprintf(command, sizeof(command), fmt, args);
    snprintf(line, sizeof(line), "cd %s && { %s; } >log 2>&1", lab_dir, command);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* In the folder; the exit status. */
__attribute__((format(printf, 1, 2))) static inline int lab_status(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int status = lab_vrun(fmt, args);
    va_end(args);
    return status;
}

static inline void lab_log(char *text, size_t size)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/log", lab_dir);
    FILE *f = fopen(path, "r");
    text[f ? fread(text, 1, size - 1, f) : 0] = 0;
    if (f)
        fclose(f);
}

/* Must succeed. */
__attribute__((format(printf, 1, 2))) static inline void lab_run(const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    int status = lab_vrun(fmt, args);
    va_end(args);
    lab_log(text, sizeof(text));
    ck_assert_msg(status == 0, "'%s' ended with %d: %s", fmt, status, text);
}

static inline void lab_setup(void)
{
    strcpy(lab_dir, "/dev/shm/bailey-lab-XXXXXX"); /* in memory, if that can be had */
    if (!mkdtemp(lab_dir)) {
        strcpy(lab_dir, "/tmp/bailey-lab-XXXXXX");
        ck_assert_ptr_nonnull(mkdtemp(lab_dir));
    }
    ck_assert_msg(system("command -v qemu-img >/dev/null") == 0,
                  "qemu-img is missing (Debian's package qemu-utils)");
}

static inline void lab_teardown(void)
{
    char line[80];
    snprintf(line, sizeof(line), "rm -rf %s", lab_dir);
    ck_assert_int_eq(system(line), 0);
}

static inline const char *lab_path(const char *name)
{
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof(path[0]), "%s/%s", lab_dir, name);
    return p;
}

static inline struct image *lab_open_with(const char *name, const struct image_options *with,
                                          struct error *err)
{
    struct image_options options = *with;
    options.path = lab_path(name);
    return image_open(&options, err);
}

static inline struct image *lab_open(const char *name, bool write)
{
    struct error err = {""};
    const struct image_options options = {.write = write, .unmap = true};
    struct image *image = lab_open_with(name, &options, &err);
    ck_assert_msg(image != NULL, "%s", err.msg);
    return image;
}

static inline int lab_read(struct image *image, void *to, uint64_t offset, uint64_t len)
{
    const struct iovec iov = {to, len};
    return image->ops->read(image, (struct span){&iov, 1, 0}, offset, len);
}

static inline int lab_write(struct image *image, const void *from, uint64_t offset, uint64_t len)
{
    const struct iovec iov = {(void *)(uintptr_t)from, len};
    return image->ops->write(image, (struct span){&iov, 1, 0}, offset, len);
}

static inline void lab_patch(const char *name, uint64_t offset, const void *bytes, size_t len)
{
    int fd = open(lab_path(name), O_RDWR | O_CREAT, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pwrite(fd, bytes, len, (off_t)offset), (int)len);
    close(fd);
}

static inline uint64_t lab_peek(const char *name, uint64_t offset, unsigned bytes)
{
    uint8_t b[8] = {0};
    uint64_t value = 0;
    int fd = open(lab_path(name), O_RDONLY);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(pread(fd, b, bytes, (off_t)offset), (int)bytes);
    close(fd);
    for (unsigned i = 0; i < bytes; i++)
        value = value << 8 | b[i];
    return value;
}

static inline uint64_t lab_random(uint64_t *state)
{
    *state ^= *state << 13; /* xorshift64 */
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

/* The image equals `size` bytes of memory. */
static inline void lab_expect(struct image *image, const uint8_t *model, uint64_t size)
{
    uint8_t *all = malloc(size);
    ck_assert_int_eq(lab_read(image, all, 0, size), 0);
    for (uint64_t at = 0; at < size; at += 512)
        ck_assert_msg(!memcmp(all + at, model + at, 512), "sector %llu differs",
                      (unsigned long long)(at / 512));
    free(all);
}

/* qemu-img, which opens it by itself, sees the same. */
static inline void lab_expect_qemu(const char *name, const char *options, const uint8_t *model,
                                   uint64_t size)
{
    uint8_t *all = malloc(size);
    lab_run("qemu-img convert %s -O raw %s seen.raw", options, name);
    int fd = open(lab_path("seen.raw"), O_RDONLY);
    ck_assert_int_eq(pread(fd, all, size, 0), (int)size);
    close(fd);
    for (uint64_t at = 0; at < size; at += 512)
        ck_assert_msg(!memcmp(all + at, model + at, 512), "sector %llu differs in qemu-img's eyes",
                      (unsigned long long)(at / 512));
    free(all);
}

#endif
