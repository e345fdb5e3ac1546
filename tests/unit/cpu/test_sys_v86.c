/*
 * test_sys_v86.c - virtual-8086 mode, VME and PVI (cpu/sys/iret.c, int.c, flagsys.c, deliver_*.c).
 */
#include "sys_fixture.h"

/* IRETD from ring 0 to CODE:0 with these flags. */
static void enter_v86(uint32_t flags, uint32_t cr4)
{
    uint32_t items[9] = {0,     CODE >> 4, flags | RFLAGS_VM, 0x8000, 0x111, 0x222, 0x333,
                         0x444, 0x555};

    enter_prot(0);
    sys_set_cr4(fx.cpu, cr4);
    fx.cpu->gpr[RSP] = STACK_IST1;
    memcpy(fx.ram + STACK_IST1, items, sizeof items);
    put_code(CODE + 0x800, "cf");
}

static void run_v86(const char *hex)
{
    unsigned n = put_code(CODE, hex);
    put_code(CODE + n, "f4");
    run_at(CODE + 0x800);
}

START_TEST(entry_and_fault_frame)
{
    enter_v86(RFLAGS_IF, 0);
    run_v86("90");
    expect(VECTOR_GP); /* HLT */
    ck_assert_uint_eq(fx.cpu->gpr[RSP], STACK0 - 40);
    ck_assert_uint_eq(frame(0, 4), 0);
    ck_assert_uint_eq(frame(1, 4), 1);
    ck_assert_uint_eq(frame(2, 4), CODE >> 4);
    ck_assert_uint_eq(frame(3, 4), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
    ck_assert_uint_eq(frame(4, 4), 0x8000);
    ck_assert_uint_eq(frame(5, 4), 0x111); /* SS */
    ck_assert_uint_eq(frame(6, 4), 0x222); /* ES */
    ck_assert_uint_eq(frame(7, 4), 0x333); /* DS */
    ck_assert_uint_eq(frame(8, 4), 0x444); /* FS */
    ck_assert_uint_eq(frame(9, 4), 0x555); /* GS */
    ck_assert_uint_eq(fx.cpu->seg[SEG_DS].attr, 0);
    ck_assert(!(fx.cpu->rflags & RFLAGS_VM));
    put((uint32_t)fx.cpu->gpr[RSP] + 4, 0, 4); /* and back, past the error code */
    fx.cpu->gpr[RSP] += 4;
    put_code(CODE, "8c d8 8c e3 f4"); /* MOV AX, DS; MOV BX, FS */
    run_at(CODE + 0x800);
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xffff, 0x333);
    ck_assert_uint_eq(fx.cpu->gpr[RBX] & 0xffff, 0x444);
}
END_TEST

START_TEST(iopl_sensitive)
{
    static const char *const insns[] = {"fa", "fb", "9c", "9d", "cd 20", "cf"};

    for (unsigned i = 0; i < 6; i++) {
        enter_v86(0, 0);
        run_v86(insns[i]);
        expect(VECTOR_GP);
        ck_assert_uint_eq(frame(1, 4), 0);
    }
    enter_v86(RFLAGS_IOPL,
              0); /* IOPL 3: CLI works; INT n goes through the IDT, whose gate has DPL 0 */
    run_v86("fb fa cd 20");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(0, 4), 0x20 * 8 + 2);
    enter_v86(RFLAGS_IOPL, 0);
    put_gate32(0x20, SEL_CODE32, HANDLERS + 0x200, 0xee);
    run_v86("cd 20");
    expect(0x20);
    ck_assert_uint_eq(frame(0, 4), 2);
    enter_v86(0, 0); /* INT3 is not sensitive */
    put_gate32(VECTOR_BP, SEL_CODE32, HANDLERS + VECTOR_BP * 16, 0xee);
    run_v86("cc");
    expect(VECTOR_BP);
    enter_v86(0, 0); /* the handler's segment must have DPL 0 */
    put_gate32(VECTOR_GP, SEL_CODE32_3, HANDLERS, 0x8e);
    put_gate32(VECTOR_DF, SEL_CODE32, HANDLERS + VECTOR_DF * 16, 0x8e);
    run_v86("");
    expect(VECTOR_DF);
}
END_TEST

START_TEST(vme_virtual_if)
{
    enter_v86(RFLAGS_IF, CR4_VME);
    run_v86("fb 9c 58"); /* STI; PUSHF; POP AX */
    expect(VECTOR_GP);
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xffff, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_IOPL);
    ck_assert(frame(3, 4) & RFLAGS_VIF);
    enter_v86(RFLAGS_IF | RFLAGS_VIP, CR4_VME); /* VIP: STI is #GP */
    run_v86("90 fb");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), 1);
    enter_v86(RFLAGS_IF | RFLAGS_VIF, CR4_VME);
    run_v86("68 02 00 9d"); /* PUSH 2; POPF: VIF off, IF as it was */
    ck_assert_uint_eq(frame(1, 4), 4);
    ck_assert_uint_eq(frame(3, 4), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_VM | RFLAGS_RF);
}
END_TEST

START_TEST(vme_redirection)
{
    enter_v86(RFLAGS_IF | RFLAGS_VIF, CR4_VME);
    put(TSS + 0x66, 0x88, 2); /* redirection bitmap at 68h */
    memset(fx.ram + TSS + 0x68, 0, 32);
    put(0x21 * 4, (CODE >> 4) << 16 | 0x100, 4);
    put_code(CODE + 0x100,
             "9c 59 58 58 58 f4"); /* PUSHF; POP CX; POP AX, AX, AX: the flags image */
    run_v86("cd 21");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), 0x105);
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xffff, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_IOPL);
    ck_assert_uint_eq(fx.cpu->gpr[RCX] & RFLAGS_IF, 0); /* VIF is off in the handler */
    enter_v86(RFLAGS_IF, CR4_VME);                      /* the bit is set: #GP as ever */
    put(TSS + 0x66, 0x88, 2);
    memset(fx.ram + TSS + 0x68, 0, 32);
    fx.ram[TSS + 0x68 + 0x21 / 8] = 1 << 1;
    run_v86("cd 21");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), 0);
}
END_TEST

START_TEST(pvi)
{
    enter_prot(3);
    sys_set_cr4(fx.cpu, CR4_PVI);
    cpu_set_rflags(fx.cpu, RFLAGS_IF);
    run("fb 0f 0b");
    expect(VECTOR_UD);
    ck_assert(frame(2, 4) & RFLAGS_VIF);
    enter_prot(3);
    run("fb");
    expect_error(VECTOR_GP, 0, 4);
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("v86");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, entry_and_fault_frame);
    tcase_add_test(c, iopl_sensitive);
    tcase_add_test(c, vme_virtual_if);
    tcase_add_test(c, vme_redirection);
    tcase_add_test(c, pvi);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_v86", add);
}
