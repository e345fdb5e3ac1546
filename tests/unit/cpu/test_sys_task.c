/*
 * test_sys_task.c - task switches in all directions, 32- and 16-bit (cpu/sys/task.c, tss.c), and
 * ports under the I/O permission bitmap (portio.c).
 */
#include "sys_fixture.h"

/* TSS2: a ring-0 task at `eip`. */
static void put_task(uint32_t eip, uint32_t flags)
{
    static const uint16_t segs[6] = {SEL_DATA, SEL_CODE32, SEL_DATA, SEL_DATA, 0, 0};

    memset(fx.ram + TSS2, 0, 0x68);
    put(TSS2 + 0x20, eip, 4);
    put(TSS2 + 0x24, flags, 4);
    for (unsigned i = 0; i < 8; i++)
        put(TSS2 + 0x28 + 4 * i, 0x1000 + i, 4);
    put(TSS2 + 0x38, STACK_IST1, 4);
    for (unsigned i = 0; i < 6; i++)
        put(TSS2 + 0x48 + 4 * i, segs[i], 2);
}

static unsigned tss_type(unsigned sel)
{
    return get_mem(GDT + sel + 5, 1) & 15;
}

START_TEST(jmp_task)
{
    enter_prot(0);
    put_task(CODE + 0x100, 2);
    put_code(CODE + 0x100, "e6 f4");
    fx.cpu->gpr[RBX] = 0x77;
    run("ea 00 00 00 00 78 00");
    ck_assert_uint_eq(fx.cpu->rip, CODE + 0x102);
    ck_assert_uint_eq(fx.cpu->tr.selector, SEL_TSS2);
    ck_assert_uint_eq(fx.cpu->gpr[RBX], 0x1003);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK_IST1);
    ck_assert_uint_eq(get_mem(TSS + 0x20, 4), CODE + 7);
    ck_assert_uint_eq(get_mem(TSS + 0x34, 4), 0x77);
    ck_assert_uint_eq(get_mem(TSS + 0x4c, 2), SEL_CODE32);
    ck_assert_uint_eq(tss_type(SEL_TSS), SYS_TSS32);
    ck_assert_uint_eq(tss_type(SEL_TSS2), SYS_TSS32_BUSY);
    ck_assert(!(fx.cpu->rflags & RFLAGS_NT));
    ck_assert(fx.cpu->cr0 & CR0_TS);
}
END_TEST

START_TEST(call_task_and_return)
{
    enter_prot(0);
    put_task(CODE + 0x100, 2);
    put_code(CODE + 0x100, "e6 f4 cf");
    run("9a 00 00 00 00 80 00 e6 f4"); /* through the task gate */
    ck_assert_uint_eq(fx.cpu->rip, CODE + 0x102);
    ck_assert(fx.cpu->rflags & RFLAGS_NT);
    ck_assert_uint_eq(get_mem(TSS2, 2), SEL_TSS);
    ck_assert_uint_eq(tss_type(SEL_TSS), SYS_TSS32_BUSY);
    run_at(fx.cpu->rip); /* IRET */
    ck_assert_uint_eq(fx.cpu->rip, CODE + 9);
    ck_assert_uint_eq(fx.cpu->tr.selector, SEL_TSS);
    ck_assert_uint_eq(tss_type(SEL_TSS2), SYS_TSS32);
    ck_assert(!(get_mem(TSS2 + 0x24, 4) & RFLAGS_NT));
    ck_assert_uint_eq(get_mem(TSS2 + 0x20, 4), CODE + 0x103);
}
END_TEST

START_TEST(task_checks)
{
    enter_prot(0); /* busy */
    put(GDT + SEL_TSS2, descriptor(TSS2, 0x67, 0x8b), 8);
    run("ea 00 00 00 00 78 00");
    expect_error(VECTOR_GP, SEL_TSS2, 4);
    enter_prot(0); /* too small: #TS in the old task */
    put(GDT + SEL_TSS2, descriptor(TSS2, 0x66, 0x89), 8);
    run("ea 00 00 00 00 78 00");
    expect_error(VECTOR_TS, SEL_TSS2, 4);
    ck_assert_uint_eq(fx.cpu->tr.selector, SEL_TSS);
    enter_prot(3); /* DPL 0 from CPL 3 */
    run("ea 00 00 00 00 78 00");
    expect_error(VECTOR_GP, SEL_TSS2, 4);
    enter_prot(0); /* a bad SS: in the new task, whose EIP is saved */
    put_task(CODE + 0x100, 2);
    put(TSS2 + 0x50, SEL_CODE32, 2);
    put_gate32(VECTOR_TS, SEL_TASK_GATE, 0, 0);
    put(GDT + SEL_RO, descriptor(TSS + 0x100, 0x67, 0x89), 8);
    memcpy(fx.ram + TSS + 0x100, fx.ram + TSS2, 0x68);
    put(TSS + 0x100 + 0x50, SEL_DATA, 2);
    put(TSS + 0x100 + 0x20, HANDLERS + VECTOR_TS * 16, 4);
    put_gate32(VECTOR_TS, SEL_RO, 0, 0x85);
    run("ea 00 00 00 00 78 00");
    expect(VECTOR_TS);
    ck_assert_uint_eq(frame(0, 4), SEL_CODE32);
    ck_assert_uint_eq(get_mem(TSS2 + 0x20, 4), CODE + 0x100);
    ck_assert_uint_eq(get_mem(TSS + 0x100, 2), SEL_TSS2);
}
END_TEST

START_TEST(debug_trap_bit)
{
    enter_prot(0);
    put_task(CODE + 0x100, 2);
    put(TSS2 + 0x64, 1, 2);
    put_code(CODE + 0x100, "90");
    run("ea 00 00 00 00 78 00");
    expect(VECTOR_DB);
    ck_assert_uint_eq(frame(0, 4), CODE + 0x100);
    ck_assert_uint_eq(fx.cpu->dr[6], DR6_ONES | DR6_BT);
}
END_TEST

START_TEST(task16)
{
    static const uint16_t segs[4] = {SEL_DATA, SEL_CODE16, SEL_DATA16, SEL_DATA};

    enter_prot(0);
    memset(fx.ram + TSS2, 0, 0x68);
    put(GDT + SEL_TSS2, descriptor(TSS2, 0x2b, 0x81), 8);
    put(TSS2 + 0x0e, 0x1100, 2);
    put(TSS2 + 0x10, 2, 2);
    put(TSS2 + 0x12, 0xabcd, 2);
    put(TSS2 + 0x1a, 0x4000, 2);
    for (unsigned i = 0; i < 4; i++)
        put(TSS2 + 0x22 + 2 * i, segs[i], 2);
    put_code(0x1100, "e6 f4 cf");
    run("9a 00 00 00 00 78 00 e6 f4");
    ck_assert_uint_eq(fx.cpu->rip, 0x1102);
    ck_assert_uint_eq(fx.cpu->gpr[RAX], 0xabcd);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], 0x4000);
    ck_assert_uint_eq(fx.cpu->seg[SEG_FS].attr & SEG_ATTR_P, 0);
    run_at(fx.cpu->rip);
    ck_assert_uint_eq(fx.cpu->rip, CODE + 9);
    ck_assert_uint_eq(get_mem(TSS2 + 0x0e, 2), 0x1103);
}
END_TEST

START_TEST(fault_through_task_gate)
{
    enter_prot(0);
    put_task(HANDLERS + VECTOR_GP * 16, 2);
    put_gate32(VECTOR_GP, SEL_TSS2, 0, 0x85);
    fx.cpu->gpr[RAX] = 0x200;
    run("8e d8"); /* MOV DS, a selector beyond the GDT */
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(0, 4), 0x200);
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK_IST1 - 4);
    ck_assert_uint_eq(get_mem(TSS + 0x20, 4), CODE);
    ck_assert_uint_eq(get_mem(TSS + 0x24, 4), RFLAGS_FIXED | RFLAGS_RF);
}
END_TEST

/* ---- Ports ----------------------------------------------------------------------------------- */

START_TEST(io_bitmap)
{
    enter_prot(3);
    fx.ram[TSS + 0x68 + 0xf4 / 8] = 0xef; /* F4h allowed, F5h not */
    run("e6 f4");
    expect(-1);
    enter_prot(3);
    fx.ram[TSS + 0x68 + 0xf4 / 8] = 0xef;
    run("66 e7 f4"); /* a word needs both bits */
    expect_error(VECTOR_GP, 0, 4);
    enter_prot(3);
    fx.ram[TSS + 0x68 + 0xf4 / 8] = 0xef;
    fx.cpu->tr.limit = 0x68 + 0xf4 / 8; /* both bytes of the bitmap must be there */
    run("e6 f4");
    expect_error(VECTOR_GP, 0, 4);
    enter_prot(3);
    cpu_set_rflags(fx.cpu, RFLAGS_IOPL);
    run("e4 f4 e6 f4");
    ck_assert_uint_eq(fx.cpu->gpr[RAX], 0x5a);
}
END_TEST

START_TEST(string_io)
{
    enter_long(0);
    fx.cpu->gpr[RCX] = 3;
    fx.cpu->gpr[RDX] = 0xf4;
    fx.cpu->gpr[RDI] = DATA;
    run("f3 6c");
    expect(-1);
    ck_assert_uint_eq(get_mem(DATA, 4), 0x5a5a5a);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 0);
    ck_assert_uint_eq(fx.cpu->gpr[RDI], DATA + 3);
    enter_long(0); /* OUTS of words, downwards; each iteration ends in the stop port */
    put(DATA, 0x1111222233334444, 8);
    cpu_set_rflags(fx.cpu, RFLAGS_DF);
    fx.cpu->gpr[RCX] = 2;
    fx.cpu->gpr[RDX] = 0xf4;
    fx.cpu->gpr[RSI] = DATA + 2;
    fx.port_writes = 0;
    run("f3 66 6f 90");
    ck_assert_uint_eq(fx.port_value, 0x3333);
    ck_assert_uint_eq(fx.cpu->rip, CODE);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 1);
    run_at(fx.cpu->rip);
    ck_assert_uint_eq(fx.port_value, 0x4444);
    ck_assert_uint_eq(fx.cpu->rip, CODE + 3);
    ck_assert_uint_eq(fx.port_writes, 2);
    enter_long(0); /* the destination is checked before the port is read */
    fx.cpu->gpr[RDX] = 0xf4;
    fx.cpu->gpr[RDI] = 0x400000;
    run("6c");
    expect_error(VECTOR_PF, 2, 8);
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("task");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, jmp_task);
    tcase_add_test(c, call_task_and_return);
    tcase_add_test(c, task_checks);
    tcase_add_test(c, debug_trap_bit);
    tcase_add_test(c, task16);
    tcase_add_test(c, fault_through_task_gate);
    tcase_add_test(c, io_bitmap);
    tcase_add_test(c, string_io);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_task", add);
}
