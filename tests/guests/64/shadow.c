/*
 * shadow.c - when an interrupt that is pending comes: shadows of STI and MOV SS, POPF, IRET, CR8,
 * HLT, and between iterations of REP (SDM vol. 3, 6.8, 10.8.6; vol. 2, STI, HLT).
 */
#include "context.h"
#include "machine.h"

enum { SELF = 0x51 };

static volatile unsigned interrupts;
static struct frame at;
static bool on_self(struct frame *f)
{
    interrupts++;
    at = *f;
    apic_write(APIC_EOI, 0);
    return true;
}

/* One interrupt pending, IF = 0. */
static void pend(void)
{
    asm volatile("cli; mov %0, %%cr8; mov %1, %%ss" ::"r"(0ul), "r"(SEL_DATA));
    apic_quiet();
    trap_handlers[SELF] = on_self;
    interrupts = 0;
    apic_write(APIC_ICR, 0x44000 | SELF);
}
#define CHECK_AT(label)                                                                            \
    do {                                                                                           \
        CHECK_EQ(interrupts, 1);                                                                   \
        CHECK_EQ(at.rip, SYMBOL(label));                                                           \
        CHECK_EQ(at.rflags &(F_IF | F_RF), F_IF);                                                  \
    } while (0)

/* ---- STI ------------------------------------------------------------------------------------- */

TEST(consecutive_sti)
{
    pend();
    asm volatile("sti; sti\n" LABEL(sti_sti) "nop; nop; cli");
    CHECK_AT(sti_sti); /* the second one has no shadow */
}

/* The instruction in the shadow faults: the fault comes first, with IF = 1 in its image. */
TEST(fault_in_the_shadow)
{
    pend();
    struct trap t = CATCH(asm volatile("sti\n" LABEL(sti_ud) "ud2"));
    CHECK_TRAP(t, V_UD, 0, SYMBOL(sti_ud));
    CHECK_EQ(t.rflags & F_IF, F_IF);
    CHECK_EQ(interrupts, 0);
    asm volatile("sti; nop\n" LABEL(after_ud) "nop; cli");
    CHECK_AT(after_ud);
}

/* INT n in the shadow runs, and its handler has IF = 0. */
static unsigned seen_by_int;
static bool on_int(struct frame *f)
{
    for (unsigned i = 0; i < 10; i++)
        asm volatile("nop");
    seen_by_int = interrupts;
    return true;
}
TEST(int_in_the_shadow)
{
    pend();
    trap_handlers[0x60] = on_int;
    seen_by_int = 9;
    asm volatile("sti; int $0x60\n" LABEL(sti_int) "nop; cli");
    CHECK_EQ(seen_by_int, 0);
    CHECK_AT(sti_int); /* as soon as the IRET has brought IF back */
}

/* ---- No shadow ------------------------------------------------------------------------------- */

TEST(popf_has_no_shadow)
{
    pend();
    asm volatile("pushf; orl $0x200, (%%rsp); popf\n" LABEL(after_popf) "nop; nop; cli" ::
                     : "memory", "cc");
    CHECK_AT(after_popf);
}

TEST(iret_has_no_shadow)
{
    pend();
    asm volatile("mov %%rsp, %%rax; pushq %0; push %%rax; pushf; orl $0x200, (%%rsp); pushq %1;"
                 "pushq $iret_target; iretq\n" LABEL(iret_target) "nop; nop; cli" ::"i"(SEL_DATA),
                 "i"(SEL_CODE)
                 : "rax", "memory", "cc");
    CHECK_AT(iret_target);
}

/* ---- MOV SS ---------------------------------------------------------------------------------- */

TEST(mov_ss)
{
    pend();
    asm volatile("sti; mov %0, %%ss; nop\n" LABEL(ss_1) "nop; cli" ::"r"(SEL_DATA));
    CHECK_AT(ss_1);
    pend();
    asm volatile("sti; mov %0, %%ss; cli" ::"r"(SEL_DATA));
    CHECK_EQ(interrupts, 0);
    asm volatile("sti; nop; nop; cli");
    CHECK_EQ(interrupts, 1);
}

/* Of several in a row only the first is sure to hold interrupts off (6.8.3). */
TEST(mov_ss_again_and_again)
{
    pend();
    asm volatile("sti; mov %0, %%ss; mov %0, %%ss; mov %0, %%ss; mov %0, %%ss\n" LABEL(
        ss_many) "nop\n" LABEL(ss_many_end) "nop; cli" ::"r"(SEL_DATA));
    CHECK_EQ(interrupts, 1);
    CHECK(at.rip < SYMBOL(ss_many_end));
}

/* LSS has no shadow. */
TEST(lss)
{
    static struct __attribute__((packed)) {
        uint32_t esp;
        uint16_t ss;
    } pointer;
    pend();
    pointer.ss = SEL_DATA;
    asm volatile("mov %%rsp, %%rax; mov %%eax, %0; sti; lss %0, %%esp\n" LABEL(
                     lss_1) "nop; nop; cli; mov %%rax, %%rsp"
                 : "+m"(pointer)::"rax", "memory");
    CHECK_AT(lss_1);
}

/* POP SS, which only compatibility code has. */
asm(".code32\n" LABEL(c_pop_ss) "push %ss; sti; pop %ss; nop\n" LABEL(
    c_pop_ss_1) "nop; cli; int $0x62\n.code64");
TEST(pop_ss)
{
    pend();
    struct trap t = RUN(context_at(SYMBOL(c_pop_ss), SEL_CODE32, SEL_DATA));
    CHECK_EQ(t.vector, 0x62);
    CHECK_AT(c_pop_ss_1);
    CHECK_EQ(at.cs, SEL_CODE32);
}

/* ---- CR8 ------------------------------------------------------------------------------------- */

TEST(cr8_lets_it_in)
{
    pend();
    let_in();
    asm volatile("mov %0, %%cr8" ::"r"(5ul)); /* class 5 itself is held */
    interrupts = 0;
    apic_write(APIC_ICR, 0x44000 | SELF);
    asm volatile("sti; nop; nop");
    CHECK_EQ(interrupts, 0);
    asm volatile("mov %0, %%cr8\n" LABEL(after_cr8) "nop; nop; cli" ::"r"(4ul));
    CHECK_AT(after_cr8);
    word cr8;
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    CHECK_EQ(cr8, 4);
    CHECK_EQ(apic_read(APIC_TPR), 0x40); /* CR8 is TPR's upper half */
    apic_write(APIC_TPR, 0x7f);
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    CHECK_EQ(cr8, 7);
    asm volatile("mov %0, %%cr8" ::"r"(0ul));
    CHECK_EQ(apic_read(APIC_TPR), 0);
}

/* ---- HLT ------------------------------------------------------------------------------------- */

TEST(hlt_saves_the_next_rip)
{
    pend();
    asm volatile("sti; hlt\n" LABEL(after_hlt) "cli");
    CHECK_AT(after_hlt);
}

/* IF = 1 and something already pending: HLT is not even begun. */
TEST(pending_before_hlt)
{
    pend();
    asm volatile("pushf; orl $0x200, (%%rsp); popf\n" LABEL(hlt_here) "cli" ::: "memory", "cc");
    CHECK_AT(hlt_here);
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, SELF);
    interrupts = 0;
    apic_write(APIC_INITIAL, 1000);
    asm volatile("sti; hlt\n" LABEL(timer_hlt) "cli");
    CHECK_AT(timer_hlt);
}

/* Each HLT waits for an interrupt of its own. */
TEST(hlt_once_per_interrupt)
{
    pend();
    asm volatile("sti; hlt; cli");
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, SELF);
    interrupts = 0;
    for (unsigned i = 1; i <= 5; i++) {
        apic_write(APIC_INITIAL, 100000); /* one at a time, however slowly we come here */
        asm volatile("sti; hlt; cli");
        CHECK_EQ(interrupts, i);
    }
    apic_quiet();
    let_in();
}

/* ---- REP ------------------------------------------------------------------------------------- */

/* Between iterations: the saved RIP is the instruction's, RF is set, and the registers say how far
 * it is (17.3.1.1). It goes on from there. REP may stand behind other prefixes; a REX that is not
 * the last one means nothing. */
#define INTERRUPTED_REP(label, prefixes)                                                           \
    for (unsigned tries = 0;; tries++) {                                                           \
        word rsi, rcx;                                                                             \
        begin_rep();                                                                               \
        asm volatile("sti; cld\n" LABEL(label) prefixes "lodsb; cli"                               \
                     : "=S"(rsi), "=c"(rcx)                                                        \
                     : "0"(0x1000000ul), "1"((word)COUNT)                                          \
                     : "rax", "memory");                                                           \
        if (at.rcx == COUNT && tries < 50) /* not even begun */                                    \
            continue;                                                                              \
        check_rep(SYMBOL(label), rsi, rcx);                                                        \
        break;                                                                                     \
    }

enum { COUNT = 0x1800000 }; /* of 24 MiB, which takes far longer than the timer */

static void begin_rep(void)
{
    pend();
    let_in();
    apic_write(APIC_DIVIDE, 0xb);
    apic_write(APIC_LVT_TIMER, SELF);
    interrupts = 0;
    apic_write(APIC_INITIAL, 100000);
}
static void check_rep(word rip, word rsi, word rcx)
{
    CHECK_EQ(interrupts, 1);
    CHECK_EQ(at.rip, rip);
    CHECK_EQ(at.rflags & F_RF, F_RF);
    CHECK(at.rcx > 0 && at.rcx < COUNT);
    CHECK_EQ(at.rsi - 0x1000000, COUNT - at.rcx);
    CHECK_EQ(rcx, 0);
    CHECK_EQ(rsi, 0x1000000ul + COUNT);
}

TEST(between_iterations_of_rep)
{
    INTERRUPTED_REP(rep_lods, "rep ");
    INTERRUPTED_REP(ds_rep_lods, ".byte 0x3e, 0xf3; ");
    INTERRUPTED_REP(rex_repne_lods, ".byte 0x48, 0xf2; ");
    INTERRUPTED_REP(many_rep_lods, ".byte 0x26, 0x67, 0x4f, 0x2e, 0xf3, 0x40; ");
}

const struct test guest_tests[] = {T(consecutive_sti),
                                   T(fault_in_the_shadow),
                                   T(int_in_the_shadow),
                                   T(popf_has_no_shadow),
                                   T(iret_has_no_shadow),
                                   T(mov_ss),
                                   T(mov_ss_again_and_again),
                                   T(lss),
                                   T(pop_ss),
                                   T(cr8_lets_it_in),
                                   T(hlt_saves_the_next_rip),
                                   T(pending_before_hlt),
                                   T(hlt_once_per_interrupt),
                                   T(between_iterations_of_rep),
                                   {0, 0}};
