/*
 * test_sys_debug.c - single-step, hardware breakpoints, RF, GD (cpu/sys/debug.c, run.c).
 */
#include "sys_fixture.h"

static void set_dr(unsigned n, uint64_t address, uint64_t dr7)
{
    fx.cpu->dr[n] = address;
    fx.cpu->dr[7] = dr7 | DR7_ONES;
    debug_registers_changed(fx.cpu);
}

#define DR6_CLEAR ((uint64_t)DR6_ONES)

START_TEST(single_step)
{
    enter_long(0);
    cpu_set_rflags(fx.cpu, RFLAGS_TF);
    run("90 90");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 1);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_TF); /* a trap: RF stays 0 */
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_CLEAR | DR6_BS);
    ck_assert(!(fx.cpu->rflags & RFLAGS_TF));
}
END_TEST

START_TEST(popf_sets_tf_late)
{
    enter_long(0);
    fx.cpu->gpr[RAX] = 0x102;
    run("50 9d 90 90"); /* PUSH RAX; POPFQ; NOP: the trap is behind the NOP */
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 3);
}
END_TEST

START_TEST(step_special_cases)
{
    enter_long(0); /* MOV SS: no trap before the next instruction is through */
    cpu_set_rflags(fx.cpu, RFLAGS_TF);
    fx.cpu->gpr[RAX] = SEL_DATA;
    run("8e d0 90");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 3);
    enter_long(0); /* INT n: none at all */
    cpu_set_rflags(fx.cpu, RFLAGS_TF);
    run("cd 80");
    expect(0x80);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_TF);
    enter_long(0); /* a fault comes instead of the trap */
    cpu_set_rflags(fx.cpu, RFLAGS_TF);
    run("0f 0b");
    expect(VECTOR_UD);
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_CLEAR);
    enter_long(0); /* HLT wakes at once */
    cpu_set_rflags(fx.cpu, RFLAGS_TF);
    run("f4");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 1);
}
END_TEST

START_TEST(step_rep)
{
    enter_long(0);
    cpu_set_rflags(fx.cpu, RFLAGS_TF);
    fx.cpu->gpr[RCX] = 2;
    fx.cpu->gpr[RDI] = DATA;
    run("f3 aa"); /* REP STOSB: one iteration */
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_TF | RFLAGS_RF);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 1);
    fx.cpu->dr[6] = DR6_ONES;
    put_code(CODE + 0x100, "48 cf");
    run_at(CODE + 0x100); /* the last one */
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 2);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_TF);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 0);
}
END_TEST

START_TEST(syscall_and_tf)
{
    enter_long(3);
    msr_write(fx.cpu, 0xc0000081, (uint64_t)SEL_CODE64 << 32);
    msr_write(fx.cpu, 0xc0000082, CODE + 0x100);
    msr_write(fx.cpu, 0xc0000084, RFLAGS_TF | RFLAGS_IF);
    put_code(CODE + 0x100, "90 e6 f4");
    cpu_set_rflags(fx.cpu, RFLAGS_TF | RFLAGS_IF);
    run("0f 05");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[R11], RFLAGS_FIXED | RFLAGS_TF | RFLAGS_IF);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], CODE + 2);
    /* SYSRET to a program with TF traps before its first instruction. */
    msr_write(fx.cpu, 0xc0000081, (uint64_t)0x20 << 48 | (uint64_t)SEL_CODE64 << 32);
    put_code(CODE + 0x200, "48 0f 07");
    run_at(CODE + 0x200);
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 2);
    ck_assert_uint_eq(frame(1, 8), 0x33);
}
END_TEST

START_TEST(instruction_breakpoint)
{
    enter_long(0);
    set_dr(1, CODE + 1, 1 << 2 | 1);
    run("90 40 90 90");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 1);     /* a fault */
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED); /* whose image has RF = 0 */
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_CLEAR | 2);
    /* The handler sets RF in the image and goes on. */
    put((uint32_t)fx.cpu->gpr[RSP] + 16, RFLAGS_FIXED | RFLAGS_RF, 8);
    put_code(CODE + 0x100, "48 cf");
    run_at(CODE + 0x100);
    expect(-1);
    ck_assert(!(fx.cpu->rflags & RFLAGS_RF));
}
END_TEST

/* REP STOSB to its end, begun with RF = 1. */
static void repeat_with_rf(unsigned count)
{
    cpu_set_rflags(fx.cpu, RFLAGS_RF);
    fx.cpu->gpr[RCX] = count;
    fx.cpu->gpr[RDI] = DATA;
    run("f3 aa");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 0);
}

START_TEST(breakpoint_meets_rep_once)
{
    enter_long(0);
    set_dr(0, CODE, 1);
    repeat_with_rf(5);
}
END_TEST

static void note_care(void *opaque, const struct access *a, uint64_t offset, unsigned size,
                      uint64_t value)
{
    (void)a, (void)offset, (void)size, (void)value;
    *(unsigned *)opaque += (fx.cpu->attention & CPU_REQ_DEBUG) != 0;
}

/* A fault inside REP saves RF = 1 and IRET loads it; what is left of the instruction, say a copy of
 * a megabyte, must not go step by step for that. */
START_TEST(rf_costs_one_iteration)
{
    static const struct io_ops ops = {.write = note_care, .min = 1, .max = 1};
    struct error err = {""};
    unsigned careful = 0;
    enter_long(0);
    phys_add_mmio(fx.map, DATA, 0x1000, &ops, &careful, "watched", &err);
    repeat_with_rf(100);
    ck_assert_uint_eq(careful, 1);
}
END_TEST

START_TEST(data_breakpoint)
{
    enter_long(0);
    set_dr(0, DATA, 3 << 16 | 3 << 18 | 1); /* read or write, 4 bytes */
    fx.cpu->gpr[RBX] = DATA;
    run("8a 43 04 8a 43 03 90"); /* [DATA+4]: beside it; [DATA+3]: inside */
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 6);
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_CLEAR | 1);
    enter_long(0);
    set_dr(0, DATA, 1 << 16 | 3 << 18 | 1); /* writes only */
    fx.cpu->gpr[RBX] = DATA;
    run("8b 03 89 03 90");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 4);
    enter_long(0); /* MOV SS from watched memory: the trap waits for the next instruction */
    set_dr(0, DATA, 3 << 16 | 3 << 18 | 1);
    put(DATA, SEL_DATA, 2);
    fx.cpu->gpr[RBX] = DATA;
    run("8e 13 90 90");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 3);
}
END_TEST

START_TEST(io_breakpoint)
{
    enter_long(0);
    sys_set_cr4(fx.cpu, fx.cpu->cr4 | CR4_DE);
    set_dr(2, 0x1234, 2 << 24 | 1 << 26 | 1 << 4);
    fx.cpu->gpr[RDX] = 0x1235;
    run("ec 90");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE + 1);
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_CLEAR | 4);
}
END_TEST

START_TEST(general_detect_and_dr4)
{
    enter_long(0);
    set_dr(0, 0, DR7_GD);
    run("0f 21 c0"); /* MOV RAX, DR0 */
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 8), CODE);
    ck_assert_uint_eq(frame(2, 8), RFLAGS_FIXED | RFLAGS_RF);
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_CLEAR | DR6_BD);
    ck_assert(!(fx.cpu->dr[7] & DR7_GD));
    enter_long(0);
    run("0f 21 f0"); /* MOV RAX, DR6; DR4 is the same without CR4.DE */
    ck_assert_uint_eq(fx.cpu->gpr[RAX], DR6_ONES);
    run("0f 21 e0");
    ck_assert_uint_eq(fx.cpu->gpr[RAX], DR6_ONES);
    sys_set_cr4(fx.cpu, fx.cpu->cr4 | CR4_DE);
    run("0f 21 e0");
    expect(VECTOR_UD);
    enter_long(0);
    fx.cpu->gpr[RAX] = 1ull << 32;
    run("0f 23 f8"); /* MOV DR7, RAX */
    expect_error(VECTOR_GP, 0, 8);
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("debug");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, single_step);
    tcase_add_test(c, popf_sets_tf_late);
    tcase_add_test(c, step_special_cases);
    tcase_add_test(c, step_rep);
    tcase_add_test(c, syscall_and_tf);
    tcase_add_test(c, instruction_breakpoint);
    tcase_add_test(c, breakpoint_meets_rep_once);
    tcase_add_test(c, rf_costs_one_iteration);
    tcase_add_test(c, data_breakpoint);
    tcase_add_test(c, io_breakpoint);
    tcase_add_test(c, general_detect_and_dr4);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_debug", add);
}
