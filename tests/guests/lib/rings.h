/*
 * rings.h - code segments and stacks for every privilege level (32-bit guests), and the usual end
 * of a piece of code there: INT3, whose gate is open to all.
 *
 *     rings_setup();
 *     struct context c = context_ring((word)code, 1);
 *     struct trap t = RUN(c);
 *     CHECK_EQ(t.vector, V_BP);     // ran through
 *
 * Uses FREE(15) to FREE(18). Included once per guest.
 */
#ifndef GUEST_RINGS_H
#define GUEST_RINGS_H

#include "code.h"
#include "context.h"

#define FLAT        (D_BIG | D_PAGES)
#define ATTR_DPL(n) ((n) << 5)

static inline unsigned ring_code(unsigned n)
{
    return n == 0 ? SEL_CODE : n == 3 ? SEL_UCODE : FREE(14 + n) | n;
}
static inline unsigned ring_data(unsigned n)
{
    return n == 0 ? SEL_DATA : n == 3 ? SEL_UDATA : FREE(16 + n) | n;
}

static char ring_stack[3][4096] __attribute__((aligned(16), unused));

/* Descriptors, the inner stacks of rings 1 and 2 in the TSS, the gate of INT3, no LDT. */
static __attribute__((unused)) void rings_setup(void)
{
    for (unsigned n = 1; n < 3; n++) {
        gdt[ring_code(n) / 8] = descriptor(0, 0xfffff, D_CODE | FLAT | ATTR_DPL(n));
        gdt[ring_data(n) / 8] = descriptor(0, 0xfffff, D_DATA | FLAT | ATTR_DPL(n));
        tss[1 + 2 * n] = (word)ring_stack[n] + sizeof(ring_stack[n]);
        tss[2 + 2 * n] = ring_data(n);
    }
    set_gate(V_BP, (word)trap_stubs + 16 * V_BP, SEL_CODE, 14, 3, 0);
    asm volatile("lldt %w0" ::"r"(0) : "memory"); /* a reset leaves one at 0 that is present */
}

static inline struct context context_ring(word rip, unsigned n)
{
    return context_at(rip, ring_code(n), ring_data(n));
}

/* An LDT with room for four descriptors; selector LDT_ENTRY(n). */
static uint64_t ldt[4];
#define LDT_ENTRY(n) (8 * (n) + 4)
static __attribute__((unused)) void ldt_setup(unsigned selector)
{
    gdt[selector / 8] = descriptor((word)ldt, sizeof(ldt) - 1, D_LDT);
    asm volatile("lldt %w0" ::"r"(selector) : "memory");
}

#endif
