/*
 * breakpoints.c - DR0-DR7: breakpoints of every length and kind on data, ports and instructions,
 * RF, and what MOV SS defers (SDM vol. 3, 17.2, 17.3.1, 6.8.3).
 */
#include "paging.h"
#include "trace.h"

enum { EXECUTE, WRITE, IO, ACCESS, CR4_DE = 1 << 3, DR7_GD = 1 << 13 };

static uint8_t area[64] __attribute__((aligned(64)));

/* Breakpoint `n` in DR7, by its global or local bit. */
static word enable(unsigned n, unsigned kind, unsigned len)
{
    static const unsigned code[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
    return 0x400 | 2ul << 2 * n | (word)(kind | code[len] << 2) << (16 + 4 * n);
}
static void set_dr(unsigned n, word address)
{
    switch (n) {
    case 0:
        write_dr0(address);
        break;
    case 1:
        write_dr1(address);
        break;
    case 2:
        write_dr2(address);
        break;
    default:
        write_dr3(address);
    }
}

static unsigned access_bytes(void *p, unsigned size, bool write)
{
    unsigned before = traps;
    word v = 0;
    switch (size) {
    case 1:
        if (write)
            asm volatile("movb %b1, (%0)" ::"r"(p), "r"(v) : "memory");
        else
            asm volatile("movb (%0), %%al" ::"r"(p) : "rax", "memory");
        break;
    case 2:
        if (write)
            asm volatile("movw %w1, (%0)" ::"r"(p), "r"(v) : "memory");
        else
            asm volatile("movw (%0), %%ax" ::"r"(p) : "rax", "memory");
        break;
    case 4:
        if (write)
            asm volatile("movl %k1, (%0)" ::"r"(p), "r"(v) : "memory");
        else
            asm volatile("movl (%0), %%eax" ::"r"(p) : "rax", "memory");
        break;
    default:
        if (write)
            asm volatile("movq %1, (%0)" ::"r"(p), "r"(v) : "memory");
        else
            asm volatile("movq (%0), %%rax" ::"r"(p) : "rax", "memory");
    }
    return traps - before;
}

/* ---- Data ------------------------------------------------------------------------------------ */

/* Every access of every size around a breakpoint of every length, in each register: a trap when a
 * byte of the one is a byte of the other; the low bits of the address do not count (17.2.5). */
TEST(every_length_against_every_access)
{
    for (unsigned n = 0; n < 4; n++) {
        for (unsigned len = 1; len <= 8; len *= 2) {
            for (unsigned kind = WRITE; kind <= ACCESS; kind += 2) {
                listen(false, false);
                set_dr(n, (word)area + 32 + (len - 1)); /* rounded down to its length */
                write_dr7(enable(n, kind, len));
                for (unsigned size = 1; size <= 8; size *= 2) {
                    for (unsigned at = 20; at < 45; at++) {
                        bool hit = at < 32 + len && at + size > 32;
                        unsigned writes = access_bytes(area + at, size, true);
                        unsigned reads = access_bytes(area + at, size, false);
                        if (writes != hit || reads != (hit && kind == ACCESS))
                            print("  DR%u length %u kind %u, %u bytes at %u\n", n, len, kind, size,
                                  at);
                        CHECK_EQ(writes, hit);
                        CHECK_EQ(reads, hit && kind == ACCESS);
                    }
                }
                write_dr7(0x400);
                CHECK_EQ(seen[0].dr6 & 0xe00f, 1u << n);
            }
        }
    }
}

TEST(not_enabled_is_no_breakpoint)
{
    listen(false, false);
    write_dr0((word)area);
    write_dr7(enable(0, WRITE, 4) & ~3ul);
    CHECK_EQ(access_bytes(area, 4, true), 0);
    write_dr7((enable(0, WRITE, 4) & ~3ul) | 1); /* L0 will do */
    CHECK_EQ(access_bytes(area, 4, true), 1);
    write_dr7(0x400);
}

TEST(several_at_once)
{
    listen(false, false);
    write_dr0((word)area);
    write_dr1((word)area + 4);
    write_dr2((word)area + 4);
    write_dr3((word)area + 32);
    write_dr7(enable(0, WRITE, 4) | enable(1, WRITE, 1) | enable(2, ACCESS, 4) |
              enable(3, WRITE, 4));
    CHECK_EQ(access_bytes(area, 8, true), 1);
    CHECK_EQ(seen[0].dr6 & 0xe00f, DR6_B0 | DR6_B1 | DR6_B2);
    write_dr7(0x400);
}

/* What writes without being a MOV. `rip` is behind the instruction. */
#define HIT(label, kind_, ...)                                                                     \
    do {                                                                                           \
        listen(false, false);                                                                      \
        write_dr2((word)area + 8);                                                                 \
        write_dr7(enable(2, kind_, 8));                                                            \
        __VA_ARGS__;                                                                               \
        write_dr7(0x400);                                                                          \
        CHECK_EQ(traps, 1);                                                                        \
        CHECK_DEBUG(0, label, DR6_B2);                                                             \
        CHECK_EQ(seen[0].rflags &F_RF, 0);                                                         \
    } while (0)

TEST(every_kind_of_store)
{
    word *p = (word *)(area + 8);
    HIT(bp_push, WRITE,
        asm volatile("mov %%rsp, %%rbx; lea 8(%0), %%rsp; push %%rax\n" LABEL(
                         bp_push) "nop; mov %%rbx, %%rsp" ::"r"(p)
                     : "rbx", "memory"));
    HIT(bp_call, WRITE,
        asm volatile("mov %%rsp, %%rbx; lea 8(%0), %%rsp; call 1f; nop; 1:\n" LABEL(
                         bp_call) "nop; mov %%rbx, %%rsp" ::"r"(p)
                     : "rbx", "memory"));
    HIT(bp_rmw, WRITE, asm volatile("incl (%0)\n" LABEL(bp_rmw) "nop" ::"r"(p) : "memory", "cc"));
    HIT(bp_lock, WRITE,
        asm volatile("lock incl (%0)\n" LABEL(bp_lock) "nop" ::"r"(p)
                     : "memory", "cc"));
    HIT(bp_xchg, WRITE,
        asm volatile("xchg %%rax, (%0)\n" LABEL(bp_xchg) "nop" ::"r"(p)
                     : "rax", "memory"));
    /* A failing CMPXCHG writes, too: the old value (vol. 2, CMPXCHG). */
    *p = 5;
    HIT(bp_cmpxchg, WRITE,
        asm volatile("lock cmpxchg %%rcx, (%0)\n" LABEL(bp_cmpxchg) "nop" ::"r"(p), "a"(6), "c"(7)
                     : "memory", "cc"));
    HIT(bp_cmpxchg16, WRITE,
        asm volatile("lock cmpxchg16b -8(%0)\n" LABEL(bp_cmpxchg16) "nop" ::"r"(p), "a"(6), "d"(9),
                     "b"(0), "c"(7)
                     : "memory", "cc"));
    HIT(bp_fxsave, WRITE, asm volatile("fstpt (%0)\n" LABEL(bp_fxsave) "nop" ::"r"(p) : "memory"));
    HIT(bp_movups, WRITE,
        asm volatile("movups %%xmm0, 4(%0)\n" LABEL(bp_movups) "nop" ::"r"(p)
                     : "memory"));
    HIT(bp_bts, WRITE,
        asm volatile("bts %1, -8(%0)\n" LABEL(bp_bts) "nop" ::"r"(p), "r"(64ul + 3)
                     : "memory", "cc"));
    HIT(bp_sgdt, WRITE, asm volatile("sgdt (%0)\n" LABEL(bp_sgdt) "nop" ::"r"(p) : "memory"));
    HIT(bp_pop, ACCESS,
        asm volatile("mov %%rsp, %%rbx; mov %0, %%rsp; pop %%rax\n" LABEL(
                         bp_pop) "nop; mov %%rbx, %%rsp" ::"r"(p)
                     : "rax", "rbx", "memory"));
    HIT(bp_test, ACCESS, asm volatile("testl $1, (%0)\n" LABEL(bp_test) "nop" ::"r"(p) : "cc"));
    HIT(bp_jmp, ACCESS, {
        *p = SYMBOL(bp_jmp);
        traps = 0;
        asm volatile("jmp *(%0)\n" LABEL(bp_jmp) "nop" ::"r"(p));
    });
}

/* Nothing is hit by what does not touch memory. */
TEST(no_access_no_hit)
{
    listen(false, false);
    write_dr0((word)area + 8);
    write_dr7(enable(0, ACCESS, 8));
    asm volatile("lea (%0), %%rax; nopl (%0); prefetcht0 (%0); invlpg (%0)" ::"r"(area + 8)
                 : "rax", "memory");
    write_dr7(0x400);
    CHECK_EQ(traps, 0);
}

/* A store that faults has hit nothing; restarted, it does. */
static bool map_it(struct frame *f)
{
    seen[63].dr6 = traps;
    map_page(WINDOW, (word)FREE_RAM, 1, PG_ALL);
    return true;
}
TEST(fault_before_the_breakpoint)
{
    listen(false, false);
    seen[63].dr6 = 99;
    trap_handlers[V_PF] = map_it;
    write_dr0(WINDOW + 8);
    write_dr7(enable(0, WRITE, 8));
    asm volatile("movl $1, 8(%0)\n" LABEL(bp_mapped) "nop" ::"r"(WINDOW) : "memory");
    write_dr7(0x400);
    trap_handlers[V_PF] = 0;
    CHECK_EQ(seen[63].dr6, 0);
    CHECK_EQ(traps, 1);
    CHECK_DEBUG(0, bp_mapped, DR6_B0);
    paging_reset();
}

/* Addresses are linear: the same frame elsewhere is another matter. */
TEST(breakpoints_are_linear)
{
    listen(false, false);
    map_page(WINDOW, (word)area & ~0xfffull, 1, PG_ALL);
    map_page(WINDOW + PAGE, (word)area & ~0xfffull, 1, PG_ALL);
    word off = (word)area & 0xfff;
    write_dr0(WINDOW + off);
    write_dr7(enable(0, WRITE, 4));
    CHECK_EQ(access_bytes((void *)(WINDOW + off), 4, true), 1);
    CHECK_EQ(access_bytes((void *)(WINDOW + PAGE + off), 4, true), 0);
    CHECK_EQ(access_bytes(area, 4, true), 0);
    write_dr7(0x400);
    paging_reset();
}

/* ---- REP ------------------------------------------------------------------------------------- */

/* The trap comes behind the iteration that hit, with RF set if others follow (17.3.1.1). */
TEST(in_the_middle_of_rep_movs)
{
    static const char from[] = "0123456789abcdef";
    listen(false, false);
    write_dr0((word)area + 5);
    write_dr7(enable(0, WRITE, 1));
    asm volatile(LABEL(bp_rep) "rep movsb\n" LABEL(bp_rep_end) "nop" ::"S"(from), "D"(area),
                 "c"(16ul)
                 : "memory");
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_DEBUG(0, bp_rep, DR6_B0);
    CHECK_EQ(seen[0].rcx, 10);
    CHECK_EQ(seen[0].rflags & F_RF, F_RF);
    CHECK_EQ(memcmp(area, from, 16), 0);
    write_dr0((word)area + 15); /* the last iteration */
    write_dr7(enable(0, WRITE, 1));
    asm volatile("rep movsb\n" LABEL(bp_rep_last) "nop" ::"S"(from), "D"(area), "c"(16ul)
                 : "memory");
    write_dr7(0x400);
    CHECK_DEBUG(1, bp_rep_last, DR6_B0);
    CHECK_EQ(seen[1].rcx, 0);
    CHECK_EQ(seen[1].rflags & F_RF, 0);
}

/* ---- MOV SS ---------------------------------------------------------------------------------- */

/* A breakpoint that MOV SS hits waits for one instruction; that one may even be an INT n, whose
 * handler the trap then interrupts at its first instruction (6.8.3). */
TEST(deferred_by_mov_ss)
{
    listen(false, false);
    uint16_t *ss = (uint16_t *)area;
    *ss = SEL_DATA;
    write_dr0((word)area);
    write_dr7(enable(0, ACCESS, 2));
    asm volatile("mov %0, %%ss\n" LABEL(bp_ss_0) "nop\n" LABEL(bp_ss_1) "nop" ::"m"(*ss));
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_DEBUG(0, bp_ss_1, DR6_B0);
}

static bool int_seen(struct frame *f)
{
    return true;
}
TEST(deferred_by_mov_ss_into_int_n)
{
    listen(false, false);
    uint16_t *ss = (uint16_t *)area;
    *ss = SEL_DATA;
    trap_handlers[0x60] = int_seen;
    write_dr0((word)area);
    write_dr7(enable(0, ACCESS, 2));
    asm volatile("mov %0, %%ss; int $0x60; nop" ::"m"(*ss));
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_EQ(seen[0].rip, (word)trap_stubs + 16 * 0x60);
    CHECK_EQ(seen[0].dr6 & 0xf, DR6_B0);
}

/* ---- Ports ----------------------------------------------------------------------------------- */

enum { PORT = 0x84 }; /* unused page registers of the DMA controllers: nothing happens */

static unsigned port_hits(uint16_t port, unsigned size, bool out)
{
    unsigned before = traps;
    if (size == 1)
        out ? outb(port, 0) : (void)inb(port);
    else if (size == 2)
        out ? outw(port, 0) : (void)inw(port);
    else
        out ? outl(port, 0) : (void)inl(port);
    return traps - before;
}

TEST(ports)
{
    REQUIRE(cpu_has(1, REG_EDX, 2));
    write_cr4(read_cr4() | CR4_DE);
    for (unsigned len = 1; len <= 4; len *= 2) {
        listen(false, false);
        write_dr3(PORT);
        write_dr7(enable(3, IO, len));
        for (unsigned size = 1; size <= 4; size *= 2) {
            for (unsigned at = PORT - 4; at < PORT + 8; at += size) {
                bool hit = at < PORT + len && at + size > PORT;
                CHECK_EQ(port_hits((uint16_t)at, size, true), hit);
                CHECK_EQ(port_hits((uint16_t)at, size, false), hit);
            }
        }
        write_dr7(0x400);
        CHECK_EQ(seen[0].dr6 & 0xe00f, DR6_B3);
    }
    /* A trap behind the instruction; memory at that address is not meant. */
    listen(false, false);
    write_dr3(PORT);
    write_dr7(enable(3, IO, 1));
    asm volatile("outb %%al, %0\n" LABEL(bp_out) "nop" ::"i"(PORT), "a"(0));
    access_bytes((void *)PORT, 1, false);
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_DEBUG(0, bp_out, DR6_B3);
    write_cr4(read_cr4() & ~(word)CR4_DE);
}

TEST(ports_of_rep_outs)
{
    REQUIRE(cpu_has(1, REG_EDX, 2));
    write_cr4(read_cr4() | CR4_DE);
    listen(false, false);
    write_dr3(PORT);
    write_dr7(enable(3, IO, 1));
    asm volatile(LABEL(bp_outs) "rep outsb\n" LABEL(bp_outs_end) "nop" ::"S"(area), "c"(3ul),
                 "d"(PORT)
                 : "memory");
    write_dr7(0x400);
    CHECK_EQ(traps, 3);
    for (unsigned i = 0; i < 3; i++) {
        CHECK_EQ(seen[i].rip, i < 2 ? SYMBOL(bp_outs) : SYMBOL(bp_outs_end));
        CHECK_EQ(seen[i].rcx, 2 - i);
    }
    write_cr4(read_cr4() & ~(word)CR4_DE);
}

/* ---- Instructions ---------------------------------------------------------------------------- */

/* Only an instruction's first byte, which may be a prefix, counts. */
TEST(first_byte)
{
    listen(false, true);
    write_dr0(SYMBOL(bp_code) + 1);
    write_dr7(enable(0, EXECUTE, 1));
    asm volatile(LABEL(bp_code) ".byte 0x66; nop; nop");
    CHECK_EQ(traps, 0);
    write_dr0(SYMBOL(bp_code_2));
    asm volatile(LABEL(bp_code_2) ".byte 0x66; nop; nop");
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_DEBUG(0, bp_code_2, DR6_B0);
    CHECK_EQ(seen[0].rflags & F_RF, 0);
}

/* The breakpoint comes before the instruction's own fault; with RF the fault comes alone, and its
 * image has RF, so that the restarted instruction does not stop again. */
static word ud_rflags;
static unsigned uds;
static bool on_ud(struct frame *f)
{
    ud_rflags = f->rflags;
    if (++uds == 3)
        f->rip += 2;
    return true;
}
TEST(before_the_fault_and_rf)
{
    listen(false, true);
    uds = 0;
    trap_handlers[V_UD] = on_ud;
    write_dr0(SYMBOL(bp_ud));
    write_dr7(enable(0, EXECUTE, 1));
    asm volatile(LABEL(bp_ud) "ud2");
    write_dr7(0x400);
    trap_handlers[V_UD] = 0;
    CHECK_EQ(traps, 1); /* once, although the UD2 is begun three times */
    CHECK_EQ(uds, 3);
    CHECK_EQ(ud_rflags & F_RF, F_RF);
}

/* RF lasts for one instruction: in a loop the breakpoint stops every time. */
TEST(every_time_around)
{
    listen(false, true);
    write_dr0(SYMBOL(bp_loop));
    write_dr7(enable(0, EXECUTE, 1));
    asm volatile("mov $3, %%ecx\n1:\n" LABEL(bp_loop) "nop; loop 1b" ::: "rcx");
    write_dr7(0x400);
    CHECK_EQ(traps, 3);
}

/* At a REP instruction it stops before the first iteration only. */
TEST(at_rep)
{
    listen(false, true);
    write_dr0(SYMBOL(bp_at_rep));
    write_dr7(enable(0, EXECUTE, 1));
    asm volatile(LABEL(bp_at_rep) "rep stosb" ::"D"(area), "c"(5ul), "a"(0) : "memory");
    write_dr7(0x400);
    CHECK_EQ(traps, 1);
    CHECK_EQ(seen[0].rcx, 5);
}

/* The instruction behind MOV SS, which holds #DB off, is not stopped at (17.3.1.1, 6.8.3). */
TEST(not_behind_mov_ss)
{
    listen(false, true);
    write_dr0(SYMBOL(bp_behind_ss));
    write_dr7(enable(0, EXECUTE, 1));
    asm volatile("mov %0, %%ss\n" LABEL(bp_behind_ss) "nop" ::"r"(SEL_DATA));
    write_dr7(0x400);
    CHECK_EQ(traps, 0);
}

/* The last bytes of the address space, whose end is 0. */
TEST(end_of_the_address_space)
{
    static uint8_t page[4096] __attribute__((aligned(4096)));
    const word last = ~0ul;
    word old = boot_pml4[511];
    paging_reset();
    uint8_t *p = map_page(-PAGE, phys(page), 1, PG_ALL) + PAGE - 16;
    for (volatile unsigned len = 1; len <= 8; len *= 2) {
        listen(false, false);
        write_dr0(last & ~(word)(len - 1));
        write_dr7(enable(0, WRITE, len));
        CHECK_EQ(access_bytes(p + 15, 1, true), 1);
        CHECK_EQ(access_bytes(p + 8, 8, true), 1);
        CHECK_EQ(access_bytes(p, 8, true), 0);
        CHECK_EQ(access_bytes(p + 7, 1, true), 0);
    }
    write_dr7(0x400);
    boot_pml4[511] = old;
    flush_all();
}

/* ---- The registers --------------------------------------------------------------------------- */

TEST(dr4_and_dr5)
{
    word v;
    listen(false, false);
    write_cr4(read_cr4() & ~(word)CR4_DE);
    asm volatile(".byte 0x0f, 0x21, 0xe0" : "=a"(v)); /* MOV RAX, DR4 */
    CHECK_EQ(v, read_dr6());
    asm volatile(".byte 0x0f, 0x21, 0xe8" : "=a"(v));
    CHECK_EQ(v, read_dr7());
    write_cr4(read_cr4() | CR4_DE);
    struct trap t = CATCH(asm volatile(LABEL(dr4_de) ".byte 0x0f, 0x21, 0xe0" ::: "rax"));
    CHECK_TRAP(t, V_UD, 0, SYMBOL(dr4_de));
    t = CATCH(asm volatile(LABEL(dr5_de) ".byte 0x0f, 0x23, 0xe8" ::"a"(0)));
    CHECK_TRAP(t, V_UD, 0, SYMBOL(dr5_de));
    static const uint8_t dr4[] = {0x0f, 0x21, 0xe0};
    CHECK_TRAP(RUN(context_user((word)dr4)), V_UD, 0, (word)dr4); /* before #GP */
    write_cr4(read_cr4() & ~(word)CR4_DE);
}

TEST(fixed_bits)
{
    listen(false, false);
    write_dr6(0);
    CHECK_EQ(read_dr6() & 0xffff0ff0 & ~0x10800ul, 0xfffe07f0);
    write_dr7(0);
    CHECK_EQ(read_dr7(), 0x400);
    write_dr7(0xffff0355); /* no GD */
    CHECK_EQ(read_dr7(), 0xffff0755);
    write_dr7(0x400);
    write_dr6(DR6_CLEAR);
    write_dr0(0x8000000000000000); /* not canonical: never matches, but can be written */
    CHECK_EQ(read_dr0(), 0x8000000000000000);
    write_dr0(0);
}

/* General detect: every MOV DR, also from DR7; it is a fault, and RF is set in its image. */
TEST(general_detect)
{
    listen(false, false);
    trap_handlers[V_DB] = 0;
    write_dr7(0x400 | DR7_GD);
    struct trap t = CATCH(asm volatile(LABEL(gd_write) "mov %0, %%dr3" ::"r"(0ul)));
    CHECK_TRAP(t, V_DB, 0, SYMBOL(gd_write));
    CHECK_EQ(t.dr6 & 0xe00f, DR6_BD);
    CHECK_EQ(t.rflags & F_RF, F_RF);
    write_dr6(DR6_CLEAR);
    write_dr7(0x400 | DR7_GD);
    t = CATCH(asm volatile(LABEL(gd_read) "mov %%dr7, %%rax" ::: "rax"));
    CHECK_TRAP(t, V_DB, 0, SYMBOL(gd_read));
    CHECK_EQ(t.dr6 & 0xe00f, DR6_BD);
    write_dr6(DR6_CLEAR);
    /* Any #DB clears GD on its way. */
    write_dr7(0x400 | DR7_GD);
    t = CATCH(asm volatile(STEP_ON "nop\n" LABEL(gd_step) "nop" ::: "memory", "cc"));
    CHECK_EQ(read_dr7() & DR7_GD, 0);
    CHECK_EQ(t.rip, SYMBOL(gd_step));
    write_dr6(DR6_CLEAR);
    /* INT1's, too. */
    write_dr7(0x400 | DR7_GD);
    t = CATCH(asm volatile(".byte 0xf1\n" LABEL(gd_int1) "nop"));
    CHECK_TRAP(t, V_DB, 0, SYMBOL(gd_int1));
    t = CATCH((void)read_dr7());
    CHECK_EQ(t.vector, NO_TRAP);
    write_dr6(DR6_CLEAR);
}

/* #GP comes before it. Its handler must get rid of GD before DR6 is read: by a #DB. */
static bool restart(struct frame *f)
{
    return true;
}
static bool drop_gd(struct frame *f)
{
    trap_handlers[V_DB] = restart;
    (void)read_dr0();
    return false;
}
asm(LABEL(user_mov_dr) "mov %dr0, %rax");
TEST(general_detect_is_for_cpl_0)
{
    trap_handlers[V_DB] = 0;
    trap_handlers[V_GP] = drop_gd;
    write_dr7(0x400 | DR7_GD);
    struct trap t = RUN(context_user(SYMBOL(user_mov_dr)));
    trap_handlers[V_GP] = 0;
    CHECK_TRAP(t, V_GP, 0, SYMBOL(user_mov_dr));
    CHECK_EQ(read_dr7() & DR7_GD, 0);
    write_dr6(DR6_CLEAR);
}

const struct test guest_tests[] = {T(every_length_against_every_access),
                                   T(not_enabled_is_no_breakpoint),
                                   T(several_at_once),
                                   T(every_kind_of_store),
                                   T(no_access_no_hit),
                                   T(fault_before_the_breakpoint),
                                   T(breakpoints_are_linear),
                                   T(in_the_middle_of_rep_movs),
                                   T(deferred_by_mov_ss),
                                   T(deferred_by_mov_ss_into_int_n),
                                   T(ports),
                                   T(ports_of_rep_outs),
                                   T(first_byte),
                                   T(before_the_fault_and_rf),
                                   T(every_time_around),
                                   T(at_rep),
                                   T(not_behind_mov_ss),
                                   T(end_of_the_address_space),
                                   T(dr4_and_dr5),
                                   T(fixed_bits),
                                   T(general_detect),
                                   T(general_detect_is_for_cpl_0),
                                   {0, 0}};
