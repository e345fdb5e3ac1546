/*
 * test_sys_far.c - far transfers, call gates, IRET, system calls (cpu/sys/far.c, iret.c,
 * syscall.c).
 */
#include "sys_fixture.h"

static void put_call_gate32(uint16_t sel, uint32_t offset, unsigned params, unsigned attr)
{
    put(GDT + SEL_GATE,
        (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)attr << 40 |
            (uint64_t)(offset >> 16) << 48,
        8);
    put(GDT + SEL_GATE + 8, 0, 8);
}

/* ---- Protected mode ----------------------------------------------------------------------------
 */

START_TEST(jmp_far_direct)
{
    enter_prot(0);
    put_code(CODE + 0x100, "e6 f4");
    run("ea 00 01 02 00 08 00"); /* JMP 08h:20100h */
    ck_assert_uint_eq(fx.cpu->rip, CODE + 0x102);
    enter_prot(0);
    run("ea 00 01 02 00 00 00"); /* null */
    expect_error(VECTOR_GP, 0, 4);
    enter_prot(0);
    run("ea 00 01 02 00 10 00"); /* data */
    expect_error(VECTOR_GP, SEL_DATA, 4);
    enter_prot(0);
    run("ea 00 01 02 00 1b 00"); /* DPL 3 from CPL 0 */
    expect_error(VECTOR_GP, SEL_CODE32_3 & ~3u, 4);
    enter_prot(0);
    run("ea 00 01 02 00 00 02"); /* beyond the GDT */
    expect_error(VECTOR_GP, 0x200, 4);
    enter_prot(0);
    run("ea 00 01 02 00 58 00"); /* 16-bit code: offset above the limit */
    expect_error(VECTOR_GP, 0, 4);
    enter_prot(3);
    put_code(CODE + 0x100, "8c c8 0f a2 f4");
    run("ea 00 01 02 00 70 00"); /* conforming: stays at CPL 3, and RPL becomes CPL */
    expect(VECTOR_GP);           /* HLT */
    ck_assert_uint_eq(frame(2, 4), SEL_CONFORMING | 3);
}
END_TEST

START_TEST(call_and_ret_same_level)
{
    enter_prot(0);
    put_code(CODE + 0x100, "cb"); /* RETF */
    run("9a 00 01 02 00 08 00 90");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->rip, CODE + 10);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 0x1000);
    ck_assert_uint_eq(get_mem(STACK0 - 0x1004, 4), SEL_CODE32);
    ck_assert_uint_eq(get_mem(STACK0 - 0x1008, 4), CODE + 7);
    enter_prot(0);
    put_code(0x1000, "66 ca 04 00"); /* 16-bit frame; releases 4 */
    fx.cpu->gpr[RSP] -= 4;
    put_code(0x1100, "66 9a 00 10 08 00 e6 f4");
    run_at(0x1100);
    ck_assert_uint_eq(fx.cpu->rip, 0x1108);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 0x1000);
}
END_TEST

START_TEST(call_gate_to_ring0)
{
    enter_prot(3);
    put_call_gate32(SEL_CODE32, CODE + 0x100, 2, 0xec);
    put_code(CODE + 0x100, "e6 f4 ca 08 00");
    put_code(CODE, "6a 11 6a 22 9a 00 00 00 00 4b 00 e6 f4"); /* PUSH 11h; PUSH 22h; CALL gate */
    run_at(CODE);
    ck_assert_uint_eq(fx.cpu->cpl, 0);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 24);
    ck_assert_uint_eq(frame(0, 4), CODE + 11);
    ck_assert_uint_eq(frame(1, 4), SEL_CODE32_3);
    ck_assert_uint_eq(frame(2, 4), 0x22);
    ck_assert_uint_eq(frame(3, 4), 0x11);
    ck_assert_uint_eq(frame(4, 4), STACK3 - 8);
    ck_assert_uint_eq(frame(5, 4), SEL_DATA_3);
    /* RETF 8 drops the parameters from both stacks, and what ring 3 may not have. */
    set_segment(SEG_FS, SEL_DATA);
    cpu_mode_update(fx.cpu);
    run_at(fx.cpu->rip);
    expect(VECTOR_GP); /* OUT at CPL 3 */
    ck_assert_uint_eq(frame(1, 4), CODE + 11);
    ck_assert_uint_eq(frame(4, 4), STACK3);
    ck_assert_uint_eq(fx.cpu->seg[SEG_FS].selector, 0);
    ck_assert_uint_eq(fx.cpu->seg[SEG_DS].selector, SEL_DATA_3);
}
END_TEST

START_TEST(call_gate_checks)
{
    enter_prot(3);
    put_call_gate32(SEL_CODE32, CODE + 0x100, 0, 0x8c); /* gate DPL 0 */
    run("9a 00 00 00 00 4b 00");
    expect_error(VECTOR_GP, SEL_GATE, 4);
    enter_prot(3);
    put_call_gate32(SEL_CODE32, CODE + 0x100, 0, 0x6c); /* absent */
    run("9a 00 00 00 00 4b 00");
    expect_error(VECTOR_NP, SEL_GATE, 4);
    enter_prot(3);
    put_call_gate32(SEL_DATA, CODE + 0x100, 0, 0xec);
    run("9a 00 00 00 00 4b 00");
    expect_error(VECTOR_GP, SEL_DATA, 4);
    enter_prot(3); /* JMP may not change the privilege */
    put_call_gate32(SEL_CODE32, CODE + 0x100, 0, 0xec);
    run("ea 00 00 00 00 4b 00");
    expect_error(VECTOR_GP, SEL_CODE32, 4);
    enter_prot(3); /* no inner stack in the TSS: #TS, whose handler is reached at CPL 3 */
    fx.cpu->tr.limit = 7;
    put_gate32(VECTOR_TS, SEL_CONFORMING, HANDLERS + VECTOR_TS * 16, 0x8e);
    cpu_set_rflags(fx.cpu, RFLAGS_IOPL);
    put_call_gate32(SEL_CODE32, CODE + 0x100, 0, 0xec);
    run("9a 00 00 00 00 4b 00");
    expect_error(VECTOR_TS, SEL_TSS, 4);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK3 - 16);
}
END_TEST

/* ---- Long mode ------------------------------------------------------------------------------- */

START_TEST(long_call_gate)
{
    enter_long(3);
    put_call_gate32(SEL_CODE64, CODE + 0x100, 0, 0xec);
    put_code(CODE + 0x100, "e6 f4 48 cb");
    put(DATA, 0, 4);
    put(DATA + 4, SEL_GATE | 3, 2);
    fx.cpu->gpr[RBX] = DATA;
    run("ff 1b"); /* CALL FAR [RBX] */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 32);
    ck_assert_uint_eq(frame(0, 8), CODE + 2);
    ck_assert_uint_eq(frame(1, 8), SEL_CODE64_3);
    ck_assert_uint_eq(frame(2, 8), STACK3);
    ck_assert_uint_eq(frame(3, 8), SEL_DATA_3);
    ck_assert_uint_eq(fx.cpu->seg[SEG_SS].selector, 0);
    run_at(fx.cpu->rip); /* RETFQ */
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(4, 8), STACK3);
    enter_long(3);
    put_call_gate32(SEL_CODE32, CODE + 0x100, 0, 0xec); /* must be 64-bit code */
    put(DATA + 4, SEL_GATE | 3, 2);
    fx.cpu->gpr[RBX] = DATA;
    run("ff 1b");
    expect_error(VECTOR_GP, SEL_CODE32, 8);
}
END_TEST

static void push64(uint64_t value)
{
    fx.cpu->gpr[RSP] -= 8;
    put(fx.cpu->gpr[RSP], value, 8);
}

static void iretq_frame(uint64_t ss, uint64_t rsp, uint64_t flags, uint64_t cs, uint64_t rip)
{
    push64(ss);
    push64(rsp);
    push64(flags);
    push64(cs);
    push64(rip);
}

/* With REX.W Intel takes an offset of 64 bits, AMD of 32 (APM vol. 3, JMP Far, LFS); what CALL
 * pushes has 64 bits on both. */
START_TEST(far_pointers_with_rex_w)
{
    for (unsigned amd = 0; amd < 2; amd++) {
        for (unsigned form = 0; form < 3; form++) {
            enter_long(0);
            fx.cpu->features.bits[FEAT_AMD / 64] &= ~(1ull << FEAT_AMD % 64);
            fx.cpu->features.bits[FEAT_AMD / 64] |= (uint64_t)amd << FEAT_AMD % 64;
            uint64_t offset = form == 2 ? 0x1122334455667788 : CODE + 0x100;
            unsigned size = amd ? 4 : 8;
            put(DATA, offset, 8);
            put(DATA + size, form == 2 ? SEL_DATA : SEL_CODE64, 2);
            fx.cpu->gpr[RBX] = DATA;
            put_code(CODE + 0x100, "e6 f4");
            run(form == 0 ? "48 ff 2b" : form == 1 ? "48 ff 1b" : "48 0f b4 03");
            if (form == 2)
                ck_assert_uint_eq(fx.cpu->gpr[RAX], amd ? 0x55667788 : offset);
            else
                ck_assert_uint_eq(fx.cpu->rip, CODE + 0x102);
            if (form == 1)
                ck_assert_uint_eq(get_mem(fx.cpu->gpr[RSP] + 8, 8), SEL_CODE64);
        }
    }
}
END_TEST

START_TEST(iretq)
{
    enter_long(0); /* to compatibility mode at CPL 3 */
    iretq_frame(SEL_DATA_3, 0x1234567800000ff0, RFLAGS_IF | RFLAGS_IOPL, SEL_CODE32_3,
                CODE + 0x100);
    put_code(CODE + 0x100, "48 f4"); /* 32-bit code: DEC EAX; HLT */
    fx.cpu->gpr[RAX] = 5;
    run("48 cf");
    expect(VECTOR_GP);
    ck_assert_uint_eq(fx.cpu->gpr[RAX], 4);
    ck_assert_uint_eq(frame(1, 8), CODE + 0x101);
    ck_assert_uint_eq(frame(4, 8), 0xff0);
    ck_assert_uint_eq(frame(3, 8), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_RF);
    enter_long(0); /* a null SS is right for CPL 0 only */
    iretq_frame(0, STACK0, 2, SEL_CODE64, CODE + 0x100);
    put_code(CODE + 0x100, "e6 f4");
    run("48 cf");
    expect(-1);
    enter_long(0);
    iretq_frame(3, STACK3, 2, SEL_CODE64_3, CODE + 0x100);
    run("48 cf");
    expect_error(VECTOR_GP, 0, 8);
    ck_assert_uint_eq(fx.cpu->seg[SEG_CS].selector, SEL_CODE64);
    enter_long(0); /* RIP not canonical: #GP here, not there */
    iretq_frame(SEL_DATA_3, STACK3, 2, SEL_CODE64_3, 1ull << 47);
    run("48 cf");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(0);
    cpu_set_rflags(fx.cpu, RFLAGS_NT);
    run("48 cf");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(0); /* SS checks name SS */
    iretq_frame(SEL_RO | 3, STACK3, 2, SEL_CODE64_3, CODE);
    run("48 cf");
    expect_error(VECTOR_GP, SEL_RO, 8);
    enter_long(0); /* CS absent names CS */
    put(GDT + SEL_ABSENT, descriptor(0, 0xfffff, 0x207b), 8);
    iretq_frame(SEL_DATA_3, STACK3, 2, SEL_ABSENT | 3, CODE);
    run("48 cf");
    expect_error(VECTOR_NP, SEL_ABSENT, 8);
}
END_TEST

START_TEST(iret_flags_by_privilege)
{
    enter_prot(3); /* CPL 3, IOPL 0: IF and IOPL stay */
    cpu_set_rflags(fx.cpu, RFLAGS_IF);
    put(STACK3 - 12, CODE + 0x100, 4);
    put(STACK3 - 8, SEL_CODE32_3, 4);
    put(STACK3 - 4, RFLAGS_IOPL | RFLAGS_AC | FLAG_CF, 4);
    fx.cpu->gpr[RSP] = STACK3 - 12;
    put_code(CODE + 0x100, "f4");
    run("cf");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), CODE + 0x100);
    ck_assert_uint_eq(frame(3, 4), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_AC | FLAG_CF | RFLAGS_RF);
}
END_TEST

START_TEST(sysenter_and_sysexit)
{
    if (cpu_is_amd(fx.cpu))
        return; /* #UD in long mode there */
    enter_long(3);
    msr_write(fx.cpu, 0x174, SEL_CODE64);
    msr_write(fx.cpu, 0x175, STACK0);
    msr_write(fx.cpu, 0x176, CODE + 0x100);
    put_code(CODE + 0x100, "e6 f4 48 0f 35");
    run("0f 34");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->cpl, 0);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0);
    ck_assert_uint_eq(fx.cpu->seg[SEG_SS].selector, SEL_CODE64 + 8);
    fx.cpu->gpr[RDX] = CODE + 0x200;
    fx.cpu->gpr[RCX] = STACK3;
    put_code(CODE + 0x200, "f4");
    run_at(fx.cpu->rip);
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 8), CODE + 0x200);
    ck_assert_uint_eq(frame(2, 8), (SEL_CODE64 + 32) | 3);
    ck_assert_uint_eq(frame(5, 8), (SEL_CODE64 + 40) | 3);
    enter_long(3);
    msr_write(fx.cpu, 0x174, 0);
    run("0f 34");
    expect_error(VECTOR_GP, 0, 8);
}
END_TEST

START_TEST(sysret_checks)
{
    enter_long(0);
    msr_write(fx.cpu, 0xc0000081, (uint64_t)0x23 << 48);
    fx.cpu->gpr[RCX] = 1ull << 47;
    fx.cpu->gpr[R11] = RFLAGS_IF;
    run("48 0f 07");
    expect(VECTOR_GP);
    if (!cpu_is_amd(fx.cpu))
        ck_assert_uint_eq(frame(2, 8), SEL_CODE64); /* at CPL 0 */
    enter_long(3);
    run("48 0f 07");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(0);
    msr_write(fx.cpu, 0xc0000080, EFER_LME);
    run("48 0f 07");
    expect(VECTOR_UD);
    enter_long(0); /* to 32-bit code */
    msr_write(fx.cpu, 0xc0000081, (uint64_t)(SEL_CODE32_3) << 48);
    fx.cpu->gpr[RCX] = CODE + 0x100;
    fx.cpu->gpr[R11] = RFLAGS_IF | RFLAGS_VM;
    put_code(CODE + 0x100, "48 f4");
    run("0f 07");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 8), CODE + 0x101);
    ck_assert_uint_eq(frame(2, 8), SEL_CODE32_3);
}
END_TEST

START_TEST(swapgs)
{
    enter_long(0);
    msr_write(fx.cpu, 0xc0000101, 0x1111);
    msr_write(fx.cpu, 0xc0000102, DATA);
    put(DATA + 8, 0x55aa, 8);
    run("0f 01 f8 65 48 8b 04 25 08 00 00 00"); /* SWAPGS; MOV RAX, GS:[8] */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RAX], 0x55aa);
    ck_assert_uint_eq(fx.cpu->msr_kernel_gs_base, 0x1111);
    enter_long(3);
    run("0f 01 f8");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(3);
    fx.cpu->gpr[RAX] = DATA;
    run("f3 48 0f ae d8 f3 48 0f ae cb 0f 0b"); /* WRGSBASE RAX; RDGSBASE RBX */
    expect(VECTOR_UD);
    ck_assert_uint_eq(fx.cpu->gpr[RBX], DATA);
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("far");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, jmp_far_direct);
    tcase_add_test(c, call_and_ret_same_level);
    tcase_add_test(c, call_gate_to_ring0);
    tcase_add_test(c, call_gate_checks);
    tcase_add_test(c, long_call_gate);
    tcase_add_test(c, far_pointers_with_rex_w);
    tcase_add_test(c, iretq);
    tcase_add_test(c, iret_flags_by_privilege);
    tcase_add_test(c, sysenter_and_sysexit);
    tcase_add_test(c, sysret_checks);
    tcase_add_test(c, swapgs);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_far", add);
}
