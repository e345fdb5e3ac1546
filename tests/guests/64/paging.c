/*
 * paging.c - 4-level paging: page sizes, rights, accessed and dirty flags, reserved bits, page
 * faults and what they report (SDM vol. 3, 4.5-4.8).
 */
#include "paging.h"

static uint8_t frame[4][4096] __attribute__((aligned(4096)));
static const uint8_t RET = 0xc3;

TEST(page_sizes_translate)
{
    paging_reset();
    frame[0][0x123] = 0x11;
    CHECK_EQ(map_page(WINDOW, phys(frame[0]), 1, PG_ALL)[0x123], 0x11);
    *(uint8_t *)(FREE_RAM + 0x1ffff0) = 0x22;
    CHECK_EQ(map_page(WINDOW + 0x200000, FREE_RAM, 2, PG_ALL)[0x1ffff0], 0x22);
    *(uint8_t *)(FREE_RAM + 0x345678) = 0x33;
    if (HAS_GBPAGES())
        CHECK_EQ(map_page(WINDOW + 0x40000000, 0, 3, PG_ALL)[FREE_RAM + 0x345678], 0x33);
    /* The topmost page of the lower half, and the lowest of the upper half. */
    uint64_t saved = boot_pml4[255], upper = boot_pml4[256];
    CHECK_EQ(map_page(0x7ffffffff000, phys(frame[0]), 1, PG_ALL)[0x123], 0x11);
    CHECK_EQ(map_page(0xffff800000000000, phys(frame[0]), 1, PG_ALL)[0x123], 0x11);
    boot_pml4[255] = saved;
    boot_pml4[256] = upper;
    flush_all();
}

TEST(not_present_at_each_level)
{
    for (unsigned level = 1; level <= 4; level++) {
        paging_reset();
        uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
        *entry_of((word)p, level) &= ~PG_P;
        flush_all();
        CHECK_PF(try_read(p + 0x234), (word)p + 0x234, 0, SYMBOL(read_here));
        CHECK_PF(try_write(p + 0x234, 1), (word)p + 0x234, PF_W, SYMBOL(write_here));
        CHECK_PF(try_call(p), (word)p, PF_I, (word)p);
        CHECK_PF(try_user(user_read_, p), (word)p, PF_U, SYMBOL(user_read_here));
        CHECK_PF(try_user(user_write_, p), (word)p, PF_U | PF_W, SYMBOL(user_write_here));
        CHECK_PF(try_user(user_call_, p), (word)p, PF_U | PF_I, (word)p);
    }
}

/* Rights are those of all levels together. */
TEST(user_bit_at_each_level)
{
    for (unsigned level = 1; level <= 4; level++) {
        paging_reset();
        uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
        *p = RET;
        CHECK_NO_TRAP(try_user(user_read_, p));
        *entry_of((word)p, level) &= ~PG_U;
        flush_all();
        CHECK_PF(try_user(user_read_, p), (word)p, PF_P | PF_U, SYMBOL(user_read_here));
        CHECK_PF(try_user(user_write_, p), (word)p, PF_P | PF_U | PF_W, SYMBOL(user_write_here));
        CHECK_PF(try_user(user_call_, p), (word)p, PF_P | PF_U | PF_I, (word)p);
        CHECK_EQ(frame[0][0], RET);
        CHECK_NO_TRAP(try_read(p));
        CHECK_NO_TRAP(try_write(p, RET));
        CHECK_NO_TRAP(try_call(p));
    }
}

TEST(write_bit_at_each_level_and_wp)
{
    word cr0 = read_cr0();
    for (unsigned level = 1; level <= 4; level++) {
        paging_reset();
        uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
        *p = 0x77;
        *entry_of((word)p, level) &= ~PG_W;
        flush_all();
        CHECK_PF(try_write(p, 1), (word)p, PF_P | PF_W, SYMBOL(write_here));
        CHECK_NO_TRAP(try_read(p));
        /* without WP the supervisor may write, the user still not; no flush in between */
        write_cr0(cr0 & ~CR0_WP);
        CHECK_NO_TRAP(try_write(p, 0x78));
        CHECK_PF(try_user(user_write_, p), (word)p, PF_P | PF_W | PF_U, SYMBOL(user_write_here));
        CHECK_NO_TRAP(try_user(user_read_, p));
        write_cr0(cr0);
        CHECK_PF(try_write(p, 2), (word)p, PF_P | PF_W, SYMBOL(write_here));
        CHECK_EQ(frame[0][0], 0x78);
    }
}

TEST(nx_at_each_level)
{
    for (unsigned level = 1; level <= 4; level++) {
        paging_reset();
        uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
        *p = RET;
        CHECK_NO_TRAP(try_call(p));
        *entry_of((word)p, level) |= PG_NX;
        flush_all();
        CHECK_PF(try_call(p), (word)p, PF_P | PF_I, (word)p);
        CHECK_PF(try_user(user_call_, p), (word)p, PF_P | PF_U | PF_I, (word)p);
        CHECK_NO_TRAP(try_read(p));
        CHECK_NO_TRAP(try_write(p, RET));
    }
}

/* Without EFER.NXE bit 63 is reserved, and error codes have no I. */
TEST(nxe_off)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL | PG_NX);
    CHECK_NO_TRAP(try_read(p));
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
    CHECK_PF(try_read(p), (word)p, PF_P | PF_RSVD, SYMBOL(read_here));
    CHECK_PF(try_call(p), (word)p, PF_P | PF_RSVD, (word)p);
    CHECK_PF(try_call(p + PAGE), (word)p + PAGE, 0, (word)p + PAGE);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    CHECK_NO_TRAP(try_read(p));
    CHECK_PF(try_call(p), (word)p, PF_P | PF_I, (word)p);
}

TEST(reserved_bits_at_each_level)
{
    unsigned width = physical_bits();
    for (unsigned level = 1; level <= 4; level++) {
        for (unsigned bit = width; bit < 52; bit++) {
            paging_reset();
            uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
            *entry_of((word)p, level) |= 1ull << bit;
            flush_all();
            CHECK_PF(try_read(p), (word)p, PF_P | PF_RSVD, SYMBOL(read_here));
            CHECK_PF(try_write(p, 1), (word)p, PF_P | PF_RSVD | PF_W, SYMBOL(write_here));
            CHECK_PF(try_call(p), (word)p, PF_P | PF_RSVD | PF_I, (word)p);
            CHECK_PF(try_user(user_read_, p), (word)p, PF_P | PF_RSVD | PF_U,
                     SYMBOL(user_read_here));
        }
    }
    paging_reset();
    uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
    *entry_of((word)p, 4) |= PG_PS;
    flush_all();
    CHECK_PF(try_read(p), (word)p, PF_P | PF_RSVD, SYMBOL(read_here));
    for (unsigned bit = 13; bit < 21; bit++) {
        paging_reset();
        p = map_page(WINDOW, FREE_RAM | 1ull << bit, 2, PG_ALL);
        CHECK_PF(try_read(p), (word)p, PF_P | PF_RSVD, SYMBOL(read_here));
    }
    for (unsigned bit = 13; bit < 30; bit++) {
        paging_reset();
        p = map_page(WINDOW, 1ull << bit, 3, PG_ALL);
        CHECK_PF(try_read(p), (word)p, PF_P | PF_RSVD, SYMBOL(read_here));
    }
}

/* Bits 52-62 and 9-11 are the system's own; keys (59-62) mean nothing without CR4.PKE. */
TEST(ignored_bits_are_ignored)
{
    for (unsigned level = 1; level <= 4; level++) {
        paging_reset();
        uint8_t *p = map_page(WINDOW + 0x5000, phys(frame[0]), 1, PG_ALL);
        *entry_of((word)p, level) |= 0x7ff0000000000e00ull | (level == 1 ? PG_G : 0);
        flush_all();
        CHECK_NO_TRAP(try_read(p));
        CHECK_NO_TRAP(try_user(user_write_, p));
    }
}

TEST(accessed_and_dirty)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    word a = (word)p;
    CHECK_NO_TRAP(try_read(p));
    for (unsigned level = 1; level <= 4; level++)
        CHECK_EQ(*entry_of(a, level) & (PG_A | PG_D), PG_A);
    /* a translation cached as clean must still set D */
    CHECK_NO_TRAP(try_write(p, 1));
    CHECK_EQ(*entry_of(a, 1) & (PG_A | PG_D), PG_A | PG_D);
    for (unsigned level = 2; level <= 4; level++)
        CHECK_EQ(*entry_of(a, level) & (PG_A | PG_D), PG_A);
    /* and again, when software has cleared it */
    *entry_of(a, 1) &= ~(PG_A | PG_D);
    invlpg(p);
    CHECK_NO_TRAP(try_read(p));
    CHECK_EQ(*entry_of(a, 1) & (PG_A | PG_D), PG_A);
    CHECK_NO_TRAP(try_write(p, 1));
    CHECK_EQ(*entry_of(a, 1) & (PG_A | PG_D), PG_A | PG_D);
    /* fetches */
    frame[1][0] = RET;
    p = map_page(WINDOW + PAGE, phys(frame[1]), 1, PG_ALL);
    CHECK_NO_TRAP(try_call(p));
    CHECK_EQ(*entry_of((word)p, 1) & (PG_A | PG_D), PG_A);
}

TEST(accessed_and_dirty_of_large_pages)
{
    for (unsigned level = 2; level <= (HAS_GBPAGES() ? 3 : 2); level++) {
        paging_reset();
        uint8_t *p = map_page(WINDOW, 0, level, PG_ALL) + (phys(frame[0]) & 0x1fffff);
        if (level == 2)
            p = map_page(WINDOW, phys(frame[0]) & ~0x1fffffull, 2, PG_ALL) +
                (phys(frame[0]) & 0x1fffff);
        CHECK_NO_TRAP(try_read(p));
        CHECK_EQ(*entry_of((word)p, level) & (PG_A | PG_D), PG_A);
        CHECK_NO_TRAP(try_write(p, 0x99));
        CHECK_EQ(*entry_of((word)p, level) & (PG_A | PG_D), PG_A | PG_D);
        CHECK_EQ(frame[0][0], 0x99);
    }
}

TEST(faults_do_not_set_dirty)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_P | PG_U);
    CHECK_PF(try_write(p, 1), (word)p, PF_P | PF_W, SYMBOL(write_here));
    CHECK_EQ(*entry_of((word)p, 1) & PG_D, 0);
    map_page(WINDOW, phys(frame[0]), 1, PG_P | PG_W);
    CHECK_PF(try_user(user_write_, p), (word)p, PF_P | PF_W | PF_U, SYMBOL(user_write_here));
    CHECK_EQ(*entry_of((word)p, 1) & PG_D, 0);
    /* without WP, a write to a read-only page that succeeds does */
    map_page(WINDOW, phys(frame[0]), 1, PG_P);
    word cr0 = read_cr0();
    write_cr0(cr0 & ~CR0_WP);
    CHECK_NO_TRAP(try_write(p, 1));
    write_cr0(cr0);
    CHECK_EQ(*entry_of((word)p, 1) & PG_D, PG_D);
}

/* CMPXCHG writes its operand back when the comparison fails. */
ALONE struct trap failing_cmpxchg(volatile uint32_t *p)
{
    return CATCH(asm volatile(LABEL(cmpxchg_here) "lock cmpxchg %2, (%0)" ::"r"(p), "a"(~*p), "r"(5)
                              : "memory", "cc"));
}

TEST(read_modify_write_needs_write)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_P | PG_U);
    frame[0][8] = 3;
    CHECK_PF(failing_cmpxchg((uint32_t *)(p + 8)), (word)p + 8, PF_P | PF_W, SYMBOL(cmpxchg_here));
    map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    CHECK_NO_TRAP(failing_cmpxchg((uint32_t *)(p + 8)));
    CHECK_EQ(frame[0][8], 3);
    CHECK_EQ(*entry_of((word)p, 1) & PG_D, PG_D);
    /* BTS of a set bit, ADD of nothing: they write all the same; TEST and BT do not */
    map_page(WINDOW, phys(frame[0]), 1, PG_P | PG_U);
    struct trap t = CATCH(asm volatile(LABEL(add_here) "addb $0, (%0)" ::"r"(p) : "memory", "cc"));
    CHECK_PF(t, (word)p, PF_P | PF_W, SYMBOL(add_here));
    t = CATCH(asm volatile(LABEL(bts_here) "bts %q1, (%0)" ::"r"(p), "r"(64) : "memory", "cc"));
    CHECK_PF(t, (word)p + 8, PF_P | PF_W, SYMBOL(bts_here));
    t = CATCH(asm volatile("bt %q1, (%0)\n testb $1, (%0)" ::"r"(p), "r"(64) : "memory", "cc"));
    CHECK_NO_TRAP(t);
}

/* ---- Page-crossing accesses: CR2 is on the page that faulted, and nothing is committed ---------- */

ALONE struct trap write8(volatile void *p, uint64_t v)
{
    return CATCH(asm volatile(LABEL(write8_here) "movq %1, (%0)" ::"r"(p), "r"(v) : "memory"));
}
ALONE struct trap add8(volatile void *p, uint64_t v)
{
    return CATCH(asm volatile(LABEL(add8_here) "addq %1, (%0)" ::"r"(p), "r"(v) : "memory", "cc"));
}
ALONE struct trap xadd8(volatile void *p, uint64_t v)
{
    return CATCH(
        asm volatile(LABEL(xadd8_here) "lock xaddq %1, (%0)" ::"r"(p), "r"(v) : "memory", "cc"));
}
ALONE struct trap write16(volatile void *p)
{
    return CATCH(asm volatile(LABEL(write16_here) "movups %%xmm0, (%0)" ::"r"(p) : "memory"));
}
ALONE struct trap movs8(volatile void *p, const void *from)
{
    return CATCH(asm volatile(LABEL(movs8_here) "movsq" ::"D"(p), "S"(from) : "memory"));
}
ALONE struct trap read8(volatile void *p)
{
    return CATCH(
        asm volatile("mov $0x1234, %%eax\n" LABEL(read8_here) "movq (%0), %%rax" ::"r"(p) : "rax"));
}

TEST(crossing_into_a_missing_page)
{
    static const uint64_t source = 0x8877665544332211;
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL), *at = p + PAGE - 3;
    word second = (word)p + PAGE;
    memset(frame[0], 0xee, 4096);
    for (unsigned i = 0; i < 2; i++) { /* missing, then read-only */
        word code = PF_W | (i ? PF_P : 0);
        CHECK_PF(write8(at, 0), second, code, SYMBOL(write8_here));
        CHECK_PF(add8(at, 1), second, code, SYMBOL(add8_here));
        CHECK_PF(xadd8(at, 1), second, code, SYMBOL(xadd8_here));
        CHECK_PF(write16(at), second, code, SYMBOL(write16_here));
        struct trap t = movs8(at, &source);
        CHECK_PF(t, second, code, SYMBOL(movs8_here));
        CHECK_EQ(t.frame.rdi, at);
        CHECK_EQ(t.frame.rsi, &source);
        for (unsigned n = 0; n < 3; n++)
            CHECK_EQ(at[n], 0xee);
        if (!i) {
            t = read8(at);
            CHECK_PF(t, second, 0, SYMBOL(read8_here));
            CHECK_EQ(t.frame.rax, 0x1234);
        }
        map_page(second, phys(frame[1]), 1, PG_P | PG_U);
    }
    /* and the other way round: the first page misses, CR2 is the operand's address */
    map_page(second, phys(frame[1]), 1, PG_ALL);
    *entry_of((word)p, 1) = 0;
    invlpg(p);
    memset(frame[1], 0xee, 16);
    CHECK_PF(write8(at, 0), (word)at, PF_W, SYMBOL(write8_here));
    CHECK_PF(add8(at, 0), (word)at, PF_W, SYMBOL(add8_here));
    CHECK_PF(write16(at), (word)at, PF_W, SYMBOL(write16_here));
    CHECK_EQ(frame[1][0], 0xee);
}

/* The two halves may be far apart in physical memory. */
TEST(crossing_between_distant_frames)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[2]), 1, PG_ALL);
    map_page(WINDOW + PAGE, phys(frame[0]), 1, PG_ALL);
    CHECK_NO_TRAP(write8(p + PAGE - 3, 0x8877665544332211));
    CHECK_EQ(frame[2][4093], 0x11);
    CHECK_EQ(frame[2][4095], 0x33);
    CHECK_EQ(frame[0][0], 0x44);
    CHECK_EQ(frame[0][4], 0x88);
    CHECK_NO_TRAP(xadd8(p + PAGE - 3, 0x100000000000000));
    CHECK_EQ(frame[0][4], 0x89);
    CHECK_EQ(*(volatile uint64_t *)(p + PAGE - 3), 0x8977665544332211);
    CHECK_EQ(*entry_of(WINDOW, 1) & *entry_of(WINDOW + PAGE, 1) & PG_D, PG_D);
}

/* Code: the fault is on the second page, the saved RIP is the instruction's first byte. */
TEST(instruction_crosses_into_a_bad_page)
{
    static const uint8_t mov_ret[] = {0xb8, 1, 2, 3, 4, 0xc3};
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL), *at = p + PAGE - 2;
    memcpy(frame[0] + 4094, mov_ret, 2);
    memcpy(frame[1], mov_ret + 2, 4);
    CHECK_PF(try_call(at), (word)p + PAGE, PF_I, (word)at);
    map_page(WINDOW + PAGE, phys(frame[1]), 1, PG_ALL | PG_NX);
    CHECK_PF(try_call(at), (word)p + PAGE, PF_P | PF_I, (word)at);
    map_page(WINDOW + PAGE, phys(frame[1]), 1, PG_ALL);
    CHECK_NO_TRAP(try_call(at));
    CHECK_EQ(((word(*)(void))(word)at)() & 0xffffffff, 0x04030201);
}

/* Running off the end of a page: only when the next instruction is reached. */
TEST(code_runs_into_a_missing_page)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL), *at = p + PAGE - 3;
    memcpy(frame[0] + 4093, "\xff\xc0\x90", 3); /* inc %eax; nop */
    struct trap t =
        CATCH(asm volatile("xor %%eax, %%eax; call *%0" ::"r"(at) : "rax", "rcx", "memory"));
    CHECK_PF(t, (word)p + PAGE, PF_I, (word)p + PAGE);
    CHECK_EQ(t.frame.rax, 1);
    /* a RET as the last byte does not touch the next page */
    frame[0][4095] = RET;
    CHECK_NO_TRAP(try_call(at));
}

/* ---- The stack --------------------------------------------------------------------------------- */

static uint8_t pf_stack[4096] __attribute__((aligned(16)));

/* #PF on a stack of its own (IST1), for tests that fault on theirs. */
static void pf_on_ist(bool on)
{
    *(word *)(tss + 9) = (word)pf_stack + sizeof(pf_stack);
    set_gate(14, (word)trap_stubs + 16 * 14, SEL_CODE, 14, 0, on);
}

TEST(stack_faults_commit_nothing)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW + PAGE, phys(frame[0]), 1, PG_ALL);
    static word top;
    top = (word)p + 4; /* a push goes half into the missing page below */
    memset(frame[0], 0xee, 16);
    pf_on_ist(true);
    struct trap t = CATCH(asm volatile("mov %0, %%rsp\n" LABEL(push_here) "push $-1" ::"r"(top)));
    CHECK_PF(t, top - 8, PF_W, SYMBOL(push_here));
    CHECK_EQ(t.rsp, top);
    CHECK_EQ(frame[0][0], 0xee);
    t = CATCH(asm volatile("mov %0, %%rsp\n" LABEL(call_here) "call guest_exit" ::"r"(top)));
    CHECK_PF(t, top - 8, PF_W, SYMBOL(call_here));
    CHECK_EQ(t.rsp, top);
    /* POP to memory that faults leaves RSP; its operand may use RSP, after the increment */
    top = (word)p + PAGE - 8;
    t = CATCH(asm volatile("mov %0, %%rsp\n" LABEL(pop_here) "popq (%%rsp)" ::"r"(top)));
    CHECK_PF(t, top + 8, PF_W, SYMBOL(pop_here));
    CHECK_EQ(t.rsp, top);
    /* ENTER checks that the new frame can be written; LEAVE reads through RBP */
    t = CATCH(asm volatile("mov %0, %%rsp\n mov %1, %%rbp\n" LABEL(leave_here)
                           "leave" ::"r"(top), "r"(WINDOW)));
    CHECK_PF(t, WINDOW, 0, SYMBOL(leave_here));
    CHECK_EQ(t.rsp, top);
    CHECK_EQ(t.frame.rbp, WINDOW);
    pf_on_ist(false);
}

/* ---- Repeated string instructions stop where the fault is -------------------------------------- */

TEST(rep_movs_stops_at_the_fault)
{
    paging_reset();
    uint8_t *p = map_page(WINDOW, phys(frame[0]), 1, PG_ALL), *to = p + PAGE - 100;
    memset(frame[1], 0xab, 4096);
    memset(frame[0], 0, 4096);
    struct trap t = CATCH(asm volatile(LABEL(rep_here) "rep movsb" ::"D"(to), "S"(frame[1]),
                                       "c"(1000)
                                       : "memory"));
    CHECK_PF(t, (word)p + PAGE, PF_W, SYMBOL(rep_here));
    CHECK_EQ(t.frame.rcx, 900);
    CHECK_EQ(t.frame.rdi, (word)p + PAGE);
    CHECK_EQ(t.frame.rsi, (word)frame[1] + 100);
    CHECK_EQ(frame[0][4095], 0xab);
    CHECK_EQ(frame[0][3996], 0xab);
    CHECK_EQ(frame[0][3995], 0);
    /* downwards, eight bytes at a time */
    to = p + PAGE - 8;
    p = map_page(WINDOW, 0, 1, 0);
    uint8_t *q = map_page(WINDOW + PAGE, phys(frame[0]), 1, PG_ALL);
    t = CATCH(asm volatile("std\n" LABEL(rep8_here) "rep stosq\n cld" ::"D"(q + 40), "a"(1), "c"(9)
                           : "memory"));
    CHECK_PF(t, (word)q - 8, PF_W, SYMBOL(rep8_here));
    CHECK_EQ(t.frame.rcx, 3);
    CHECK_EQ(t.frame.rdi, (word)q - 8);
    CHECK_EQ(t.rflags & 0x400, 0x400);
    CHECK_EQ(*(uint64_t *)frame[0], 1);
}

/* A fault during the delivery of a trap reports the address, too: IDT on a missing page. */
TEST(idt_on_a_missing_page)
{
    static struct idt_entry copy[256] __attribute__((aligned(4096)));
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } there = {4095, WINDOW}, back = {sizeof(idt) - 1, (word)idt};
    paging_reset();
    memcpy(copy, idt, sizeof(copy));
    map_page(WINDOW, phys(copy), 1, PG_ALL);
    asm volatile("lidt %0" ::"m"(there));
    struct trap t = CATCH(asm volatile("ud2"));
    CHECK_EQ(t.vector, VECTOR_UD);
    /* descriptors of vectors 0-15 come from the page that is there; INT 0xf0 needs the next one */
    there.base = WINDOW + PAGE - 256;
    memcpy((uint8_t *)copy + 4096 - 256, idt, 256);
    asm volatile("lidt %0" ::"m"(there));
    t = CATCH(asm volatile(LABEL(int_here) "int $0x20"));
    asm volatile("lidt %0" ::"m"(back));
    CHECK_PF(t, WINDOW + PAGE + 256, 0, SYMBOL(int_here));
}

const struct test guest_tests[] = {T(page_sizes_translate),
                                   T(not_present_at_each_level),
                                   T(user_bit_at_each_level),
                                   T(write_bit_at_each_level_and_wp),
                                   T(nx_at_each_level),
                                   T(nxe_off),
                                   T(reserved_bits_at_each_level),
                                   T(ignored_bits_are_ignored),
                                   T(accessed_and_dirty),
                                   T(accessed_and_dirty_of_large_pages),
                                   T(faults_do_not_set_dirty),
                                   T(read_modify_write_needs_write),
                                   T(crossing_into_a_missing_page),
                                   T(crossing_between_distant_frames),
                                   T(instruction_crosses_into_a_bad_page),
                                   T(code_runs_into_a_missing_page),
                                   T(stack_faults_commit_nothing),
                                   T(rep_movs_stops_at_the_fault),
                                   T(idt_on_a_missing_page),
                                   {0, 0}};
