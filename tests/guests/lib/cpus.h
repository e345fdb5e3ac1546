/*
 * cpus.h - all processors of a machine at the disposal of a test: each other one serves orders
 * (what its task priority is, whether it spins or halts) and counts the interrupts that it gets.
 */
#ifndef GUEST_CPUS_H
#define GUEST_CPUS_H

#include "machine.h"

enum { MAX_CPUS = 8, WAKE_VECTOR = 0xee, NMI_VECTOR = 2 };

/* How many there are: CMOS byte 5Fh, where the firmware of this board finds it. */
UNUSED_OK unsigned cpu_count(void)
{
    outb(0x70, 0x5f);
    return inb(0x71) + 1u;
}

UNUSED_OK unsigned this_cpu(void)
{
    return apic_read(APIC_ID) >> 24;
}

static volatile unsigned hits_on[MAX_CPUS][256];

UNUSED_OK bool count_hit_here(struct frame *f)
{
    __atomic_add_fetch(&hits_on[this_cpu()][f->vector], 1, __ATOMIC_SEQ_CST);
    if (f->vector != NMI_VECTOR && f->vector != 0xff)
        apic_write(APIC_EOI, 0);
    return true;
}

/* From now on vectors 30h-FFh and NMI count, from zero, on every processor. */
UNUSED_OK void count_hits_on_all(void)
{
    for (unsigned v = 0; v < 256; v++) {
        if (v == NMI_VECTOR || v >= 0x30)
            trap_handlers[v] = v == 0xf0 ? trap_handlers[v] : count_hit_here;
        for (unsigned c = 0; c < MAX_CPUS; c++)
            hits_on[c][v] = 0;
    }
}

/* ---- Interprocessor interrupts ------------------------------------------------------------------
 */

UNUSED_OK void send(unsigned dest, uint32_t low)
{
    apic_write(APIC_ICR_HIGH, dest << 24);
    apic_write(APIC_ICR, low);
    while (apic_read(APIC_ICR) & 0x1000)
        asm volatile("pause");
}

/* ---- Orders ------------------------------------------------------------------------------------
 */

enum order {
    SPIN,     /* interrupts on */
    DEAF,     /* spins with interrupts off */
    HALT,     /* STI, HLT, again and again */
    CLI_HALT, /* HLT with interrupts off; ends by NMI */
    APIC_OFF, /* spins with its local APIC software-disabled */
};
static volatile struct {
    unsigned order, tpr, ldr, dfr, given, taken;
    volatile unsigned long rounds; /* grows as long as it runs */
} cpu_state[MAX_CPUS];

static void serve(unsigned id)
{
    for (;;) {
        unsigned given = cpu_state[id].given, order = cpu_state[id].order;
        asm volatile("cli");
        apic_write(APIC_SVR, order == APIC_OFF ? 0xff : 0x1ff);
        apic_write(APIC_TPR, cpu_state[id].tpr);
        apic_write(APIC_DFR, cpu_state[id].dfr);
        apic_write(APIC_LDR, cpu_state[id].ldr);
        cpu_state[id].taken = given;
        while (cpu_state[id].given == given) {
            cpu_state[id].rounds++;
            if (order == HALT)
                asm volatile("sti; hlt; cli" ::: "memory");
            else if (order == CLI_HALT)
                asm volatile("cli; hlt" ::: "memory");
            else if (order == DEAF)
                asm volatile("pause" ::: "memory");
            else
                asm volatile("sti; pause; nop; cli" ::: "memory");
        }
    }
}

/* Has `id` taken what it was given last? A wait with an end. */
UNUSED_OK bool obeyed(unsigned id)
{
    for (uint64_t end = rdtsc() + FOREVER; rdtsc() < end;) {
        if (cpu_state[id].taken == cpu_state[id].given)
            return true;
        asm volatile("pause");
    }
    return false;
}

/* Does `id` stop, sooner or later: no rounds in 17 ms? */
UNUSED_OK bool stops(unsigned id)
{
    for (unsigned tries = 0; tries < 200; tries++) {
        unsigned long before = cpu_state[id].rounds;
        pit_wait(20000);
        if (cpu_state[id].rounds == before)
            return true;
    }
    return false;
}

UNUSED_OK void tell(unsigned id, enum order order, unsigned tpr)
{
    bool halts = cpu_state[id].given != 0 && cpu_state[id].order == HALT;
    cpu_state[id].order = order;
    cpu_state[id].tpr = tpr;
    cpu_state[id].given++;
    if (halts && id != this_cpu())
        send(id, WAKE_VECTOR);
}

/* All others run, halt for interrupts, and have logical id 1 << APIC id in the flat model; so does
 * this one. */
UNUSED_OK bool all_cpus_up(void)
{
    bool up = true;
    apic_quiet();
    count_hits_on_all();
    for (unsigned id = 0; id < cpu_count(); id++) {
        cpu_state[id].dfr = 0xffffffff;
        cpu_state[id].ldr = 1u << (24 + id);
        cpu_state[id].order = HALT;
        cpu_state[id].tpr = 0;
        cpu_state[id].given++;
        if (id != this_cpu())
            up = start_cpu(id, serve) && obeyed(id) && up;
    }
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 1u << (24 + this_cpu()));
    return up;
}

UNUSED_OK bool came(unsigned id, unsigned vector, unsigned n)
{
    for (uint64_t end = rdtsc() + FOREVER; hits_on[id][vector] < n && rdtsc() < end;) {
        if (id == this_cpu())
            let_in();
        asm volatile("pause");
    }
    return hits_on[id][vector] >= n;
}

/* Long enough for what is on its way: every other processor that can has gone round. One that halts
 * is woken for it; the wake-up outranks what else is pending, and HLT ends after the last handler.
 */
UNUSED_OK void settle(void)
{
    let_in();
    for (unsigned id = 0; id < cpu_count(); id++) {
        unsigned order = cpu_state[id].order;
        if (id == this_cpu() || order == CLI_HALT)
            continue;
        unsigned long before = cpu_state[id].rounds;
        if (order == HALT)
            send(id, WAKE_VECTOR);
        for (uint64_t end = rdtsc() + FOREVER;
             cpu_state[id].rounds < before + 2 && rdtsc() < end;) {
            if (order == HALT && cpu_state[id].rounds > before)
                break;
            asm volatile("pause");
        }
    }
    let_in();
}

/* Each processor in `mask` has had `vector` once, no other has; and the counts are zero again. */
#define CHECK_HIT(vector_, mask_)                                                                  \
    do {                                                                                           \
        unsigned v_ = (vector_), m_ = (mask_), got_mask_ = 0;                                      \
        for (unsigned c_ = 0; c_ < cpu_count(); c_++)                                              \
            if (m_ >> c_ & 1)                                                                      \
                CHECK(came(c_, v_, 1));                                                            \
        settle();                                                                                  \
        for (unsigned c_ = 0; c_ < cpu_count(); c_++) {                                            \
            got_mask_ |= (hits_on[c_][v_] != 0) << c_;                                             \
            CHECK(hits_on[c_][v_] <= 1);                                                           \
            hits_on[c_][v_] = 0;                                                                   \
        }                                                                                          \
        CHECK_EQ(got_mask_, m_);                                                                   \
    } while (0)

#endif
