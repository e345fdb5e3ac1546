/*
 * real.h - runs real-mode code until the first interrupt or exception (32-bit guests; real.S).
 *
 *     CODE16(divide, "xor %cx, %cx; div %cx");
 *     struct real_trap t = RUN16(divide, real_default());
 *
 * The code is copied to segment REAL_CODE, its beginning at offset 0; the stack is
 * REAL_STACK:1000h. Every vector of the interrupt table ends the run, INT3 (CC) included. Included
 * once per guest.
 */
#ifndef GUEST_REAL_H
#define GUEST_REAL_H

#include "code.h"
#include "context.h"

enum {
    REAL_MONITOR = 0x1000,
    REAL_CODE = 0x2000, /* segments: 20000h, 30000h, 40000h */
    REAL_STACK = 0x3000,
    REAL_DATA = 0x4000,
};

struct real_regs {
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t eip, cs, eflags, ss, ds, es, fs, gs;
};
/* How a run ended: the registers in the handler (cs and eip not among them), and what was pushed.
 */
struct real_trap {
    unsigned vector;
    uint16_t ip, cs, flags;
    struct real_regs regs;
};

extern char real_monitor[], real_monitor_end[], real_way_in[], real_stubs[], real_state[];
void real_switch(unsigned code, unsigned data, unsigned stack);

/* The segments that hidden parts come from: 64 KiB. */
enum { REAL_SEL_CODE = FREE(19), REAL_SEL_DATA = FREE(20) };

static struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint32_t base;
} real_idtr = {0x3ff, 0};
static uint32_t *const ivt = (uint32_t *)0;

static inline struct real_regs real_default(void)
{
    return (struct real_regs){.esp = 0x1000,
                              .cs = REAL_CODE,
                              .ss = REAL_STACK,
                              .ds = REAL_DATA,
                              .es = REAL_DATA,
                              .eflags = 2};
}

static inline uint32_t real_low(const char *label)
{
    return REAL_MONITOR + (uint32_t)(label - real_monitor);
}

/* `data` is what DS, ES, FS and GS were loaded with before: real mode keeps limits. */
static __attribute__((noinline, unused)) struct real_trap real_run_limits(struct real_regs regs,
                                                                          unsigned data)
{
    struct table_pointer idtr;
    struct real_trap t = {0};
    volatile struct real_regs *state = (struct real_regs *)real_low(real_state);

    memcpy((void *)REAL_MONITOR, real_monitor, (size_t)(real_monitor_end - real_monitor));
    asm volatile("" ::"r"(ivt) : "memory");
    for (unsigned v = 0; v < 256; v++)
        asm volatile("movl %1, (%0)" ::"r"(v * 4), "r"(real_low(real_stubs) + 16 * v) : "memory");
    gdt[REAL_SEL_CODE / 8] = descriptor(0, 0xffff, D_CODE);
    gdt[REAL_SEL_DATA / 8] = descriptor(0, 0xffff, D_DATA);
    *state = regs;
    asm volatile("sidt %0; lidt %1" : "=m"(idtr) : "m"(real_idtr));
    real_switch(REAL_SEL_CODE, data, REAL_SEL_DATA);
    asm volatile("lidt %0" ::"m"(idtr));
    t.regs = *state;
    t.vector = *(volatile uint8_t *)(state + 1);
    const volatile uint16_t *frame =
        (const volatile uint16_t *)((t.regs.ss << 4) + (t.regs.esp & 0xffff));
    t.ip = frame[0];
    t.cs = frame[1];
    t.flags = frame[2];
    return t;
}
static __attribute__((unused)) struct real_trap real_run(struct real_regs regs)
{
    return real_run_limits(regs, REAL_SEL_DATA);
}
#define RUN16(name, regs)                                                                          \
    ({                                                                                             \
        PLACE16(name, REAL_CODE << 4);                                                             \
        real_run(regs);                                                                            \
    })

#endif
