/*
 * test_sys_deliver.c - exceptions and interrupts in every mode: vectors, error codes, frames,
 * flags, double and triple faults, shadows, NMI (cpu/sys/exception.c, deliver_*.c, int.c, run.c).
 */
#include "sys_fixture.h"

/* ---- Long mode ------------------------------------------------------------------------------- */

START_TEST(long_fault_frame)
{
    enter_long(0);
    fx.cpu->gpr[RSP] = 0x2fff3; /* the frame is aligned to 16 whatever RSP was */
    run("0f 0b");               /* UD2 */
    expect(VECTOR_UD);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], 0x2fff0 - 40);
    ck_assert_uint_eq(frame(0, 8), CODE);
    ck_assert_uint_eq(frame(1, 8), SEL_CODE64);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_RF); /* a fault */
    ck_assert_uint_eq(frame(3, 8), 0x2fff3);
    ck_assert_uint_eq(frame(4, 8), SEL_DATA);
}
END_TEST

START_TEST(long_ring3_uses_rsp0)
{
    enter_long(3);
    cpu_set_rflags(fx.cpu, RFLAGS_IF | FLAG_CF);
    run("f4"); /* HLT at CPL 3 */
    expect_error(VECTOR_GP, 0, 8);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 48);
    ck_assert_uint_eq(frame(2, 8), SEL_CODE64_3);
    ck_assert_uint_eq(frame(3, 8), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_RF | FLAG_CF);
    ck_assert_uint_eq(frame(4, 8), STACK3);
    ck_assert_uint_eq(frame(5, 8), SEL_DATA_3);
    ck_assert_uint_eq(fx.cpu->seg[SEG_SS].selector, 0);
    ck_assert_uint_eq(fx.cpu->cpl, 0);
    ck_assert(!(fx.cpu->rflags & RFLAGS_IF));
}
END_TEST

START_TEST(long_ist)
{
    enter_long(0);
    put_gate64(VECTOR_UD, SEL_CODE64, HANDLERS + VECTOR_UD * 16, 0x8f, 1); /* trap gate: IF stays */
    cpu_set_rflags(fx.cpu, RFLAGS_IF);
    run("0f 0b");
    expect(VECTOR_UD);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK_IST1 - 40);
    ck_assert(fx.cpu->rflags & RFLAGS_IF);
    ck_assert_uint_eq(fx.cpu->seg[SEG_SS].selector, SEL_DATA);
}
END_TEST

START_TEST(long_int_n)
{
    enter_long(3);
    put_gate64(0x80, SEL_CODE64, HANDLERS + 0x800, 0xee, 0);
    run("cd 80");
    expect(0x80);
    ck_assert_uint_eq(frame(0, 8), CODE + 2);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED); /* no RF: not a fault */
    enter_long(3);
    run("cd 81"); /* gate DPL 0 */
    expect_error(VECTOR_GP, 0x81 * 8 + 2, 8);
    enter_long(3);
    fx.cpu->idtr.limit = 0x80 * 16 + 14;
    run("cd 80");
    expect_error(VECTOR_GP, 0x80 * 8 + 2, 8);
    enter_long(0);
    put_gate64(0x80, SEL_CODE64, HANDLERS, 0x0e, 0);
    run("cd 80");
    expect_error(VECTOR_NP, 0x80 * 8 + 2, 8);
    enter_long(0);
    put_gate64(0x80, SEL_CODE32, HANDLERS, 0x8e, 0); /* not a 64-bit segment */
    run("cd 80");
    expect_error(VECTOR_GP, SEL_CODE32, 8);
}
END_TEST

START_TEST(page_fault)
{
    enter_long(0);
    run("48 a1 00 00 40 00 00 00 00 00"); /* MOV RAX, [400000h]: beyond the one 2-MiB page */
    expect_error(VECTOR_PF, 0, 8);
    ck_assert_uint_eq(fx.cpu->cr2, 0x400000);
    enter_long(3);
    run("48 a3 08 00 40 00 00 00 00 00");
    expect_error(VECTOR_PF, 6, 8);
    ck_assert_uint_eq(fx.cpu->cr2, 0x400008);
    enter_long(0);
    run("48 a1 00 00 00 00 00 00 00 80"); /* not canonical */
    expect_error(VECTOR_GP, 0, 8);
}
END_TEST

START_TEST(double_and_triple)
{
    /* #UD (benign) -> absent gate: #NP handled serially, with EXT */
    enter_long(0);
    put_gate64(VECTOR_UD, SEL_CODE64, HANDLERS, 0x0e, 0);
    run("0f 0b");
    expect_error(VECTOR_NP, VECTOR_UD * 8 + 2 + 1, 8);
    /* #GP -> absent gate: two contributory ones */
    enter_long(0);
    put_gate64(VECTOR_GP, SEL_CODE64, HANDLERS, 0x0e, 0);
    run("48 a1 00 00 00 00 00 00 00 80");
    expect_error(VECTOR_DF, 0, 8);
    /* #PF whose handler's stack faults, too */
    enter_long(3);
    put(TSS + 4, 0x500000, 8);
    put_gate64(VECTOR_DF, SEL_CODE64, HANDLERS + VECTOR_DF * 16, 0x8e, 1);
    run("48 a1 00 00 40 00 00 00 00 00");
    expect_error(VECTOR_DF, 0, 8);
    ck_assert_uint_eq(fx.cpu->cr2, 0x500000 - 8);
    /* ... and no way to deliver #DF */
    enter_long(3);
    put(TSS + 4, 0x500000, 8);
    run("48 a1 00 00 40 00 00 00 00 00");
    ck_assert(fx.shut_down);
    ck_assert_uint_eq(fx.cpu->activity, CPU_SHUTDOWN);
    ck_assert_uint_eq(fx.cpu->rip, CODE);
}
END_TEST

/* ---- Interrupts, shadows, NMI ------------------------------------------------------------------
 */

static void raise_intr(int vector)
{
    fx.pending_vector = vector;
    cpu_request(fx.cpu, CPU_REQ_INTR);
}

START_TEST(sti_shadow)
{
    enter_long(0);
    raise_intr(0x40);
    run("fb 90 90"); /* STI; NOP; NOP: after the first NOP */
    expect(0x40);
    ck_assert_uint_eq(frame(0, 8), CODE + 2);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_IF);
    enter_long(0);
    raise_intr(0x41);
    run("fb fa 90"); /* STI; CLI: never */
    expect(-1);
    cpu_withdraw(fx.cpu, CPU_REQ_INTR);
    enter_long(0);
    raise_intr(0x42);
    run("fb f4"); /* STI; HLT: wakes, behind HLT */
    expect(0x42);
    ck_assert_uint_eq(frame(0, 8), CODE + 2);
}
END_TEST

START_TEST(mov_ss_shadow)
{
    enter_long(0);
    fx.cpu->gpr[RAX] = SEL_DATA;
    raise_intr(0x43);
    run("fb 8e d0 90 90"); /* STI; MOV SS, EAX; NOP: each shadow covers the next instruction */
    expect(0x43);
    ck_assert_uint_eq(frame(0, 8), CODE + 4);
    enter_long(0);
    fx.cpu->gpr[RAX] = SEL_DATA;
    raise_intr(0x43);
    run("fb 8e d0 8e d0 90"); /* but two MOV SS in a row do not prolong it */
    expect(0x43);
    ck_assert_uint_eq(frame(0, 8), CODE + 5);
}
END_TEST

START_TEST(nmi)
{
    enter_long(0);
    put_code(CODE, "90 90 e6 f4");
    cpu_request(fx.cpu, CPU_REQ_NMI);
    fx.cpu->shadow = SHADOW_MOVSS;
    sys_attention_update(fx.cpu);
    run_at(CODE); /* MOV SS holds it off for the first NOP */
    expect(VECTOR_NMI);
    ck_assert_uint_eq(frame(0, 8), CODE + 1);
    ck_assert(fx.cpu->nmi_blocked);
    put_code(CODE + 0x100, "90 48 cf"); /* the next one waits for IRETQ */
    cpu_request(fx.cpu, CPU_REQ_NMI);
    run_at(CODE + 0x100);
    expect(VECTOR_NMI);
    ck_assert_uint_eq(frame(0, 8), CODE + 1);
}
END_TEST

START_TEST(external_error_has_ext)
{
    enter_long(0);
    cpu_set_rflags(fx.cpu, RFLAGS_IF);
    put_gate64(0x50, SEL_CODE64, HANDLERS, 0x0e, 0);
    raise_intr(0x50);
    run("90");
    expect(VECTOR_NP);
    ck_assert_uint_eq(frame(0, 8), 0x50 * 8 + 2 + 1);
}
END_TEST

/* ---- Protected mode -------------------------------------------------------------------------- */

START_TEST(prot_frames)
{
    enter_prot(3);
    run("f4");
    expect_error(VECTOR_GP, 0, 4);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 24);
    ck_assert_uint_eq(frame(2, 4), SEL_CODE32_3);
    ck_assert_uint_eq(frame(3, 4), RFLAGS_FIXED | RFLAGS_RF);
    ck_assert_uint_eq(frame(4, 4), STACK3);
    ck_assert_uint_eq(frame(5, 4), SEL_DATA_3);
    ck_assert_uint_eq(fx.cpu->seg[SEG_SS].selector, SEL_DATA);
    enter_prot(0); /* the same level: three items */
    run("0f 0b");
    expect(VECTOR_UD);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 0x1000 - 12);
    enter_prot(0); /* 16-bit gate */
    put_gate32(VECTOR_UD, SEL_CODE32, HANDLERS + VECTOR_UD * 16, 0x86);
    run("0f 0b");
    expect(VECTOR_UD);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 0x1000 - 6);
    ck_assert_uint_eq(frame(1, 2), SEL_CODE32);
}
END_TEST

START_TEST(prot_bad_inner_stack)
{
    enter_prot(3);
    put(TSS + 8, SEL_DATA_3, 4); /* RPL and DPL 3 for CPL 0; vector 10 must be taken without it */
    put_gate32(VECTOR_TS, SEL_TASK_GATE, 0, 0x85);
    put(TSS2 + 0x20, HANDLERS + VECTOR_TS * 16, 4);
    put(TSS2 + 0x24, 2, 4);
    put(TSS2 + 0x38, STACK_IST1, 4);
    put(TSS2 + 0x48, SEL_DATA, 4);
    put(TSS2 + 0x4c, SEL_CODE32, 4);
    put(TSS2 + 0x50, SEL_DATA, 4);
    put(TSS2 + 0x54, SEL_DATA, 4);
    put_gate32(VECTOR_TS, SEL_TSS2, 0, 0x85);
    run("0f 0b");
    expect(VECTOR_TS);
    ck_assert_uint_eq(frame(0, 4), (SEL_DATA_3 & ~3u) | 1); /* EXT: during #UD */
    ck_assert_uint_eq(get_mem(TSS2, 2), SEL_TSS);           /* back link */
    ck_assert_uint_eq(get_mem(TSS + 0x20, 4), CODE);
    ck_assert(fx.cpu->rflags & RFLAGS_NT);
    ck_assert(fx.cpu->cr0 & CR0_TS);
}
END_TEST

START_TEST(into_and_int3)
{
    enter_prot(0);
    cpu_set_rflags(fx.cpu, FLAG_OF);
    run("ce");
    expect(VECTOR_OF);
    ck_assert_uint_eq(frame(0, 4), CODE + 1);
    enter_prot(0);
    run("ce");
    expect(-1);
    enter_prot(3);
    put_gate32(VECTOR_BP, SEL_CODE32, HANDLERS + VECTOR_BP * 16, 0xee);
    run("cc");
    expect(VECTOR_BP);
    ck_assert_uint_eq(frame(0, 4), CODE + 1);
    enter_prot(3); /* ICEBP ignores the gate's DPL */
    run("f1");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 4), CODE + 1);
}
END_TEST

/* ---- Real mode ------------------------------------------------------------------------------- */

START_TEST(real_mode)
{
    enter_real();
    cpu_set_rflags(fx.cpu, RFLAGS_IF);
    run("cd 21");
    expect(0x21);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], 0x4000 - 6);
    ck_assert_uint_eq(frame(0, 2), 2);
    ck_assert_uint_eq(frame(1, 2), CODE >> 4);
    ck_assert_uint_eq(frame(2, 2), RFLAGS_FIXED | RFLAGS_IF);
    ck_assert(!(fx.cpu->rflags & RFLAGS_IF));
    enter_real();       /* #GP pushes no error code */
    run("66 a1 ff ff"); /* MOV EAX, [FFFFh] */
    expect(VECTOR_GP);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], 0x4000 - 6);
    ck_assert_uint_eq(frame(0, 2), 0);
    enter_real();
    fx.cpu->idtr.limit = 13 * 4 + 3; /* vector 21h is #GP */
    run("cd 21");
    expect(VECTOR_GP);
    enter_real();
    fx.cpu->idtr.limit = 3;
    run("cd 21");
    ck_assert(fx.shut_down);
}
END_TEST

START_TEST(unreal_limit_survives)
{
    enter_real();
    fx.cpu->seg[SEG_DS].limit = 0xffffffff;
    fx.cpu->seg[SEG_DS].attr |= SEG_ATTR_G;
    put(0x101234, 0xcafe, 2);
    /* MOV AX, 10h; MOV DS, AX; MOV EBX, 101134h; MOV AX, [EBX] */
    run("b8 10 00 8e d8 66 bb 34 11 10 00 67 8b 03");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xffff, 0xcafe);
    ck_assert_uint_eq(fx.cpu->seg[SEG_DS].limit, 0xffffffff);
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("deliver");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, long_fault_frame);
    tcase_add_test(c, long_ring3_uses_rsp0);
    tcase_add_test(c, long_ist);
    tcase_add_test(c, long_int_n);
    tcase_add_test(c, page_fault);
    tcase_add_test(c, double_and_triple);
    tcase_add_test(c, sti_shadow);
    tcase_add_test(c, mov_ss_shadow);
    tcase_add_test(c, nmi);
    tcase_add_test(c, external_error_has_ext);
    tcase_add_test(c, prot_frames);
    tcase_add_test(c, prot_bad_inner_stack);
    tcase_add_test(c, into_and_int3);
    tcase_add_test(c, real_mode);
    tcase_add_test(c, unreal_limit_survives);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_deliver", add);
}
