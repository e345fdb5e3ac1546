/*
 * guest.h - a small guest memory for the loaders' tests, and files to load into it.
 */
#ifndef TESTS_LOADER_GUEST_H
#define TESTS_LOADER_GUEST_H

#include "internal/error.h"
#include "internal/loader.h"
#include "internal/log.h"
#include "internal/phys.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB      (1ull << 20)
#define RAM_SIZE (64 * MIB)
#define RSDP     0xe1230ull

struct guest {
    pthread_mutex_t lock;
    struct log log;
    struct phys_map *map;
    struct memory_map memory;
    struct boot_platform platform;
    struct boot_entry entry;
    struct error err;
};

static inline void guest_open(struct guest *g)
{
    memset(g, 0, sizeof(*g));
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&g->lock, &attr);
    g->log.out = stderr;
    g->map = phys_new(&g->lock, &g->log);
    struct ram_block *ram = phys_ram_new(g->map, RAM_SIZE, &g->err);
    ck_assert_ptr_nonnull(ram);
    ck_assert(phys_add_ram(g->map, 0, 0xa0000, ram, 0, "low", &g->err));
    ck_assert(phys_add_ram(g->map, 0xe0000, RAM_SIZE - 0xe0000, ram, 0xe0000, "high", &g->err));
    g->memory = (struct memory_map){.count = 4,
                                    .range = {{0, FIRMWARE_EBDA, MEMORY_USABLE},
                                              {FIRMWARE_EBDA, 0x400, MEMORY_RESERVED},
                                              {FIRMWARE_AREA, 0x20000, MEMORY_RESERVED},
                                              {MIB, RAM_SIZE - MIB, MEMORY_USABLE}}};
    g->platform = (struct boot_platform){.map = g->map, .memory = &g->memory, .rsdp = RSDP};
}

static inline void guest_close(struct guest *g)
{
    phys_free(g->map);
}

static inline void guest_read(struct guest *g, uint64_t gpa, void *buf, size_t len)
{
    static const struct access access = {.initiator = INITIATOR_DEBUGGER};
    ck_assert_int_eq(phys_read(g->map, &access, gpa, buf, len), PHYS_OK);
}
static inline uint32_t guest32(struct guest *g, uint64_t gpa)
{
    uint32_t v;
    guest_read(g, gpa, &v, sizeof(v));
    return v;
}
static inline uint64_t guest64(struct guest *g, uint64_t gpa)
{
    uint64_t v;
    guest_read(g, gpa, &v, sizeof(v));
    return v;
}
static inline void guest_fill(struct guest *g, uint64_t gpa, uint8_t byte, size_t len)
{
    static const struct access access = {.initiator = INITIATOR_DEBUGGER};
    uint8_t *buf = malloc(len);
    memset(buf, byte, len);
    phys_write(g->map, &access, gpa, buf, len);
    free(buf);
}
/* The guest's string at gpa equals text. */
static inline void guest_expect_string(struct guest *g, uint64_t gpa, const char *text)
{
    char buf[512];
    ck_assert_uint_lt(strlen(text), sizeof(buf));
    guest_read(g, gpa, buf, strlen(text) + 1);
    ck_assert_str_eq(buf, text);
}
static inline void guest_expect_bytes(struct guest *g, uint64_t gpa, const void *bytes, size_t len)
{
    uint8_t *buf = malloc(len);
    guest_read(g, gpa, buf, len);
    ck_assert_mem_eq(buf, bytes, len);
    free(buf);
}

/* Loads bytes as a kernel; true when it could be loaded. */
static inline bool load_bytes(struct guest *g, const void *bytes, size_t len, const char *append)
{
    struct boot_image *image = boot_image_from_memory("test", bytes, len, append, &g->err);
    ck_assert_ptr_nonnull(image);
    bool ok = boot_image_load(image, &g->platform, &g->entry, &g->err);
    boot_image_free(image);
    return ok;
}

/* A temporary file with these bytes; the name is to be unlinked and freed. */
static inline char *make_file(const void *bytes, size_t len)
{
    char name[] = "/tmp/bailey-test-XXXXXX";
    int fd = mkstemp(name);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
    return strdup(name);
}
static inline void drop_file(char *name)
{
    unlink(name);
    free(name);
}

static inline void set16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}
static inline void set32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static inline void set64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

/* A deterministic stream of numbers for mutations. */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}
/* Loads thousands of damaged copies of an image: none may crash or write outside RAM, whatever else
 * happens. What is damaged: single bytes, whole fields, the length. Returns how many were refused.
 */
static inline unsigned load_mutations(const uint8_t *image, size_t len, size_t header,
                                      unsigned rounds)
{
    static const uint32_t nasty[] = {0,          1,       0x7fffffff, 0x80000000,   0xffffffff,
                                     0xfffff000, 0xa0000, 0x100000,   RAM_SIZE - 1, RAM_SIZE};
    uint32_t state = 12345;
    unsigned refused = 0;
    struct guest g;
    guest_open(&g);
    for (unsigned i = 0; i < rounds; i++) {
        uint8_t *copy = malloc(len); /* of its exact size, for the address sanitizer */
        size_t n = i % 4 == 0 ? next_random(&state) % len + 1 : len;
        memcpy(copy, image, len);
        for (unsigned k = 0; k <= i % 3; k++) {
            size_t at = next_random(&state) % (header - 4);
            uint32_t v = nasty[next_random(&state) % 10];
            if (next_random(&state) & 1)
                memcpy(copy + at / 4 * 4, &v, 4);
            else
                copy[at] = (uint8_t)next_random(&state);
        }
        uint8_t *exact = malloc(n);
        memcpy(exact, copy, n);
        refused += !load_bytes(&g, exact, n, "");
        free(exact);
        free(copy);
    }
    guest_close(&g);
    return refused;
}

static inline int run_cases(const char *name, void (*add)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, 120);
    add(tcase);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
