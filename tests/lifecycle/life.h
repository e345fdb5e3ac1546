/*
 * life.h - what the life-cycle programs share: a table of named tests, each run in a process of its
 * own, and the few things that all of them do (open a door, protect, look at frames, catch faults).
 *
 * After each test every door must be free again and the device must hold no region and no ruled
 * page: a process that is gone has left nothing behind, however it went.
 */
#ifndef LIFE_H
#define LIFE_H

#include "bailey_guest.h"
#include <stdio.h>
#include <sys/types.h>

enum { PAGE = 4096 };

struct life_test {
    const char *name;
    void (*run)(void);
};
/* main() of every program: runs the tests named in argv, all without names; prints "ok NAME" or
 * "FAIL NAME". */
int life_main(const struct life_test *tests, size_t count, char **names);
#define LIFE_MAIN(tests)                                                                           \
    int main(int argc, char **argv)                                                                \
    {                                                                                              \
        (void)argc;                                                                                \
        return life_main(tests, sizeof(tests) / sizeof(tests[0]), argv + 1);                       \
    }

/* Ends the test (its process) with a line that says why. */
_Noreturn void life_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : life_fail(__FILE__, __LINE__, "not true: %s", #condition))
#define CHECK_SAME(a, b)                                                                           \
    do {                                                                                           \
        unsigned long long a_ = (unsigned long long)(a), b_ = (unsigned long long)(b);             \
        if (a_ != b_)                                                                              \
            life_fail(__FILE__, __LINE__, "%s is %#llx, %s is %#llx", #a, a_, #b, b_);             \
    } while (0)
/* enum protect_status */
#define CHECK_OK(status)                                                                           \
    do {                                                                                           \
        int s_ = (int)(status);                                                                    \
        if (s_ != PROTECT_OK)                                                                      \
            life_fail(__FILE__, __LINE__, "%s: %s", #status, bailey_status_text(s_));              \
    } while (0)

/* ---- The device ---------------------------------------------------------------------------------
 */

/* Binds a door with these grants; ends the test when that fails. */
void life_open(struct bailey_door *door, uint32_t grants);
/* The rule that lets the owner do `allow`, and all others everything. */
struct protect_rule life_rule(uint8_t allow, enum protect_action action);
uint32_t life_protect(struct bailey_door *door, const volatile void *at, size_t length,
                      struct protect_rule rule);
/* Doors and admin page, mapped by this process. */
volatile struct protect_door *life_doors(void);
volatile struct protect_admin *life_admin(void);
/* The next event of this type that is about this page (type, page = 0: any); false: none is left.
 */
bool life_event(struct bailey_door *door, unsigned type, const volatile void *page,
                struct protect_event *event);
void life_drain(struct bailey_door *door);

/* ---- Memory -------------------------------------------------------------------------------------
 */

/* Anonymous private pages of 4 KiB (never huge ones), each written to. */
uint8_t *life_pages(unsigned count);
/* Memory that all children share. */
void *life_shared(size_t bytes);
/* The page's frame number by /proc/PID/pagemap; 0: none. A witness other than the device. */
uint64_t life_frame(const volatile void *at);
bool life_frame_is_huge(const volatile void *at); /* part of a huge page, by /proc/kpageflags */

/* ---- Faults -------------------------------------------------------------------------------------
 */

struct caught {
    int signal; /* 0: it went through */
    int code;
    void *address;
    uint64_t error; /* the page fault's error code, as the kernel hands it on */
};
struct caught life_try(void (*fn)(void *), void *opaque);
struct caught life_write(volatile void *at, uint8_t value);
struct caught life_read(const volatile void *at);
/* The write is refused with SIGSEGV and si_addr = at, and the byte is as before. */
#define CHECK_REFUSES(at)                                                                          \
    do {                                                                                           \
        struct caught c_ = life_write((at), 0xee);                                                 \
        CHECK_SAME(c_.signal, SIGSEGV);                                                            \
        CHECK_SAME(c_.address, (at));                                                              \
    } while (0)

/* ---- Processes ----------------------------------------------------------------------------------
 */

/* Runs fn in a child; its wait status. */
int life_child(void (*fn)(void *), void *opaque);
/* The same; it must end well. */
#define CHECK_CHILD(fn, opaque)                                                                    \
    do {                                                                                           \
        int st_ = life_child((fn), (opaque));                                                      \
        CHECK_SAME(st_, 0);                                                                        \
    } while (0)
uint64_t life_nanoseconds(void);
/* Writes a word to a file of /proc or /sys; false with errno. */
bool life_set(const char *file, const char *text);
/* The number behind `key` in a file of /proc. */
long life_value(const char *file, const char *key);

#endif
