/*
 * trace.h - notes every #DB and goes on: for guests about single-stepping and breakpoints. Included
 * once per guest.
 */
#ifndef GUEST_TRACE_H
#define GUEST_TRACE_H

#include "context.h"

enum { DR6_B0 = 1, DR6_B1 = 2, DR6_B2 = 4, DR6_B3 = 8, DR6_BD = 1 << 13, DR6_BS = 1 << 14 };
#define DR6_CLEAR 0xffff0ff0ul

static struct {
    word rip, dr6, rflags, cs, rcx;
} seen[64];
static volatile unsigned traps;
static volatile bool step_on; /* false: the handler clears TF in the image */
static volatile bool skip_rf; /* true: it sets RF, so that an instruction breakpoint lets go */

static bool note_debug(struct frame *f)
{
    if (traps < 64) {
        seen[traps].rip = f->rip;
        seen[traps].dr6 = read_dr6();
        seen[traps].rflags = f->rflags;
        seen[traps].cs = f->cs;
        seen[traps].rcx = f->rcx;
    }
    traps++;
    if (!step_on)
        f->rflags &= ~(word)F_TF;
    if (skip_rf)
        f->rflags |= F_RF;
    write_dr6(DR6_CLEAR);
    return true;
}

static void listen(bool steps, bool rf)
{
    /* On a stack of its own (IST7): what is stepped through may have none, or a watched one. */
    static char stack[4096] __attribute__((aligned(16)));
    word top = (word)(stack + sizeof stack);
    memcpy((char *)tss + 0x54, &top, 8);
    set_gate(V_DB, (word)trap_stubs + 16 * V_DB, SEL_CODE, 14, 0, 7);
    write_dr7(0x400);
    write_dr6(DR6_CLEAR);
    for (unsigned i = 0; i < 64; i++)
        seen[i].rip = seen[i].dr6 = 0;
    traps = 0;
    step_on = steps;
    skip_rf = rf;
    trap_handlers[V_DB] = note_debug;
}

/* TF on and off around what is to be stepped through: the first trap is behind the first
 * instruction after STEP_ON; the three of STEP_OFF are trapped, too. */
#define STEP_ON  "pushf; orl $0x100, (%%rsp); popf\n"
#define STEP_OFF "pushf; andl $~0x100, (%%rsp); popf\n"
enum { STEP_OFF_TRAPS = 3 };

#define CHECK_DEBUG(n, label, bits)                                                                \
    do {                                                                                           \
        CHECK_EQ(seen[n].rip, SYMBOL(label));                                                      \
        CHECK_EQ(seen[n].dr6 & 0xe00f, bits);                                                      \
    } while (0)

#endif
