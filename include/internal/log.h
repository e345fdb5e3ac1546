/*
 * log.h - what `-d` switches on. One log per machine; no global state.
 *
 *     LOG(m->log, LOG_INT, "vector %#x error %#x rip %#llx", ...);
 *
 * A category that is off costs one load and one branch.
 */
#ifndef INTERNAL_LOG_H
#define INTERNAL_LOG_H

#include <stdint.h>
#include <stdio.h>

/* One list for the enum, the option parser and the help text: name on the command line, meaning. */
#define LOG_CATEGORIES(X)                                                                          \
    X(INT, "int", "interrupts and exceptions, with the CPU state they meet")                       \
    X(IN_ASM, "in_asm", "guest instructions of each block when it is first decoded")               \
    X(OUT_ASM, "out_asm", "host instructions of each region when it is translated")                \
    X(JIT_PROFILE, "jit-profile", "at the end: hottest functions, misses, exits, all counters")    \
    X(CPU, "cpu", "CPU state before each block")                                                   \
    X(CPU_RESET, "cpu_reset", "CPU state at each reset")                                           \
    X(MMU, "mmu", "page walks that end in a fault, view fills and drops")                          \
    X(GUEST_ERRORS, "guest_errors", "what a guest does that hardware leaves undefined")            \
    X(UNIMP, "unimp", "guest requests for what this machine lacks")                                \
    X(EXEC, "exec", "each block as it is entered")                                                 \
    X(DEVICE, "device", "register accesses of devices")                                            \
    X(PAGE, "page", "the physical memory map when it changes")

enum log_category {
#define X(id, name, help) LOG_##id##_BIT,
    LOG_CATEGORIES(X)
#undef X
        LOG_CATEGORY_COUNT
};
enum {
#define X(id, name, help) LOG_##id = 1 << LOG_##id##_BIT,
    LOG_CATEGORIES(X)
#undef X
};

struct log {
    uint32_t mask; /* OR of LOG_* */
    FILE *out;     /* stderr unless -D */
};

/* Parses "int,mmu" (QEMU's -d syntax; "help" is the caller's affair) into *mask. Returns NULL when
 * all is known, else a pointer into `items` at the first unknown item. */
const char *log_parse(const char *items, uint32_t *mask);

void log_printf(struct log *log, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define LOG_ON(log, category) __builtin_expect(((log)->mask & (category)) != 0, 0)
#define LOG(log, category, ...)                                                                    \
    do {                                                                                           \
        if (LOG_ON(log, category))                                                                 \
            log_printf(log, __VA_ARGS__);                                                          \
    } while (0)

#endif
