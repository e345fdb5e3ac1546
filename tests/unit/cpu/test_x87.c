/*
 * test_x87.c - x87 state that the oracle does not reach: pending exceptions, environments in all
 * formats, pointers, MMX aliasing, FXSAVE and the XSAVE family.
 */
#include "tests/unit/cpu/vec_guest.h"

static struct guest *g;

static void setup(void)
{
    g = guest_new();
    g->cpu->gpr[RAX] = DATA;
}
static void teardown(void)
{
    guest_free(g);
}

static void put(unsigned at, uint64_t value, unsigned size)
{
    memcpy(g->ram + DATA + at, &value, size);
}
static uint64_t get(unsigned at, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, g->ram + DATA + at, size);
    return value;
}
static void set_double(unsigned at, double d)
{
    memcpy(g->ram + DATA + at, &d, 8);
}

static void ok(const char *hex)
{
    int vector = guest_run(g, hex);
    ck_assert_msg(vector == COMPLETED, "%s: vector %d", hex, vector);
}

/* ---- Arithmetic and exceptions --------------------------------------------------------------- */

START_TEST(test_stack)
{
    set_double(0, 1.5);
    ok("dd 00"); /* fld qword [rax] */
    ok("d9 e8"); /* fld1 */
    ck_assert_uint_eq(x87_top(&g->cpu->x87), 6);
    ck_assert_uint_eq(g->cpu->x87.ftw, 0x0fff);
    ok("d8 c1"); /* fadd st0, st1 */
    ok("dd 18"); /* fstp qword [rax] */
    double sum;
    memcpy(&sum, g->ram + DATA, 8);
    ck_assert_double_eq(sum, 2.5);
    ok("dd d8"); /* fstp st0 */
    ck_assert_uint_eq(g->cpu->x87.fsw & 0x3fff, 0);
    ck_assert_uint_eq(g->cpu->x87.ftw, 0xffff);
    ok("d9 c0"); /* fld st0: stack underflow, masked: a NaN */
    ck_assert_uint_eq(g->cpu->x87.fsw & (X87_IE | X87_SF | X87_ES), X87_IE | X87_SF);
    ck_assert_uint_eq(g->cpu->x87.st[0][9], 0xff);
}
END_TEST

/* An unmasked exception is not raised here: it stays pending in FSW. */
START_TEST(test_pending_exception)
{
    g->cpu->x87.fcw = 0x37f & ~X87_ZE;
    ok("d9 e8");
    ok("d9 ee");
    uint8_t st[8][16];
    memcpy(st, g->cpu->x87.st, sizeof(st));
    ok("de f9"); /* fdivp: 1 / 0 */
    ck_assert_uint_eq(g->cpu->x87.fsw & 0x80ff, X87_B | X87_ES | X87_ZE);
    ck_assert(!memcmp(st, g->cpu->x87.st, 32)); /* operands stay, no pop */
    ck_assert_uint_eq(x87_top(&g->cpu->x87), 6);
    ck_assert_uint_eq(g->cpu->x87.fip, CODE_AT);
    ck_assert_uint_eq(g->cpu->x87.fop, 0x6f9);
    ok("db e2"); /* fnclex */
    ck_assert_uint_eq(g->cpu->x87.fsw & 0x80ff, 0);
    /* FLDCW that unmasks what is flagged makes it pending. */
    g->cpu->x87.fcw = 0x37f;
    ok("d8 f1"); /* fdiv st0, st1: 0 / 1 */
    g->cpu->x87.fsw |= X87_PE;
    put(0, 0x35f, 2);
    ok("d9 28");
    ck_assert_uint_eq(g->cpu->x87.fsw & X87_ES, X87_ES);
}
END_TEST

/* With an unmasked overflow FST stores nothing; masked it stores infinity. */
START_TEST(test_store_with_exception)
{
    set_double(0, 1e300);
    ok("dd 00");
    put(0, 0x1111111111111111, 8);
    g->cpu->x87.fcw = 0x37f & ~X87_OE;
    ok("d9 18"); /* fstp dword [rax] */
    ck_assert_uint_eq(get(0, 8), 0x1111111111111111);
    ck_assert_uint_eq(g->cpu->x87.fsw & (X87_OE | X87_ES), X87_OE | X87_ES);
    ck_assert_uint_eq(x87_top(&g->cpu->x87), 7);
    ok("db e2");
    g->cpu->x87.fcw = 0x37f;
    ok("d9 18");
    ck_assert_uint_eq(get(0, 8), 0x111111117f800000);
    ck_assert_uint_eq(x87_top(&g->cpu->x87), 0);
}
END_TEST

START_TEST(test_store_fault_is_restartable)
{
    ok("d9 e8");
    struct x87 before = g->cpu->x87;
    g->cpu->gpr[RAX] = DATA_END;
    ck_assert_int_eq(guest_run(g, "dd 18"), VECTOR_PF);
    ck_assert(!memcmp(&before, &g->cpu->x87, sizeof(before)));
}
END_TEST

/* The host's own FPU is as C expects it after every instruction. */
START_TEST(test_host_state)
{
    uint8_t env[28];
    g->cpu->x87.fcw = 0x27f & ~X87_ZE;
    ok("d9 e8");
    ok("d9 ee");
    ok("de f9"); /* pending #Z in the guest */
    ok("d9 eb");
    __asm__ volatile("fnstenv %0" : "=m"(env));
    ck_assert_uint_eq(env[0] | env[1] << 8, 0x37f);
    ck_assert_uint_eq(env[4] | env[5] << 8, 0);
    ck_assert_uint_eq(env[8] | env[9] << 8, 0xffff);
    __asm__ volatile("fninit");
}
END_TEST

/* ---- Environments ---------------------------------------------------------------------------- */

static void distinct_environment(void)
{
    struct x87 *x = &g->cpu->x87;
    ok("d9 ee"); /* +0: tag 01 */
    ok("d9 e8"); /* 1: tag 00 */
    x->fip = 0x12345678;
    x->fdp = 0x9abcdef0;
    x->fop = 0x345;
}

START_TEST(test_environment_32)
{
    distinct_environment();
    ok("d9 30"); /* fnstenv, 28 bytes */
    ck_assert_uint_eq(get(0, 4), 0xffff037f);
    ck_assert_uint_eq(get(4, 4), 0xffff3000);
    ck_assert_uint_eq(get(8, 4), 0xffff4fff); /* register 7: zero, 6: valid */
    ck_assert_uint_eq(get(12, 4), 0x12345678);
    ck_assert_uint_eq(get(16, 4), 0x3450000);
    ck_assert_uint_eq(get(20, 4), 0x9abcdef0);
    ck_assert_uint_eq(get(24, 4), 0xffff0000);
    ok("db e3"); /* fninit */
    ck_assert_uint_eq(g->cpu->x87.ftw, 0xffff);
    ok("d9 20"); /* fldenv */
    ck_assert_uint_eq(x87_top(&g->cpu->x87), 6);
    ck_assert_uint_eq(x87_full_tags(&g->cpu->x87), 0x4fff);
    ck_assert_uint_eq(g->cpu->x87.st[0][9], 0x3f); /* registers did not move */
    ck_assert_uint_eq(g->cpu->x87.fip, 0x12345678);
    ck_assert_uint_eq(g->cpu->x87.fop, 0x345);
}
END_TEST

START_TEST(test_environment_16_and_real)
{
    distinct_environment();
    ok("66 d9 30"); /* 14 bytes, protected */
    ck_assert_uint_eq(get(4, 2), 0x4fff);
    ck_assert_uint_eq(get(6, 2), 0x5678);
    ck_assert_uint_eq(get(8, 2), 0);
    ck_assert_uint_eq(get(10, 2), 0xdef0);
    ck_assert_uint_eq(get(14, 4), 0);
    g->cpu->x87.fip = 0xabcde;
    g->cpu->mode &= ~MODE_PROT;
    ok("66 d9 30"); /* 14 bytes, real: IP 19:16 with the opcode */
    ck_assert_uint_eq(get(6, 2), 0xbcde);
    ck_assert_uint_eq(get(8, 2), 0xa345);
    ok("d9 30"); /* 28 bytes, real */
    ck_assert_uint_eq(get(12, 4) & 0xffff, 0xbcde);
    ck_assert_uint_eq(get(16, 4), 0xa345);
    g->cpu->x87.fip = 0;
    ok("d9 20");
    ck_assert_uint_eq(g->cpu->x87.fip, 0xabcde);
}
END_TEST

START_TEST(test_fnsave_frstor)
{
    distinct_environment();
    struct x87 before = g->cpu->x87;
    ok("dd 30"); /* fnsave */
    ck_assert_uint_eq(g->cpu->x87.ftw, 0xffff);
    ck_assert_uint_eq(g->cpu->x87.fip, 0);
    ok("dd 20"); /* frstor */
    ck_assert(!memcmp(&before, &g->cpu->x87, sizeof(before)));
}
END_TEST

/* ---- MMX ------------------------------------------------------------------------------------- */

START_TEST(test_mmx_aliases_physical_registers)
{
    ok("d9 e8"); /* 1.0 in physical register 7 */
    g->cpu->gpr[RCX] = 0x1122334455667788;
    ok("48 0f 6e d9"); /* movq mm3, rcx */
    ck_assert_uint_eq(x87_top(&g->cpu->x87), 0);
    ck_assert_uint_eq(g->cpu->x87.ftw, 0);
    ck_assert_uint_eq(g->cpu->x87.st[7][7], 0x80); /* mm7 is that 1.0's mantissa */
    ck_assert_uint_eq(g->cpu->x87.st[3][0], 0x88);
    ck_assert_uint_eq(g->cpu->x87.st[3][9], 0xff);
    ok("0f fc db"); /* paddb mm3, mm3 */
    ck_assert_uint_eq(g->cpu->x87.st[3][0], 0x10);
    ck_assert_uint_eq(g->cpu->x87.st[3][8], 0xff);
    ok("0f 77"); /* emms */
    ck_assert_uint_eq(g->cpu->x87.ftw, 0xffff);
}
END_TEST

START_TEST(test_mmx_load_fault_changes_nothing)
{
    ok("d9 e8");
    struct x87 before = g->cpu->x87;
    g->cpu->gpr[RAX] = DATA_END;
    ck_assert_int_eq(guest_run(g, "0f fc 00"), VECTOR_PF); /* paddb mm0, [rax] */
    ck_assert(!memcmp(&before, &g->cpu->x87, sizeof(before)));
}
END_TEST

/* ---- FXSAVE and XSAVE ------------------------------------------------------------------------ */

START_TEST(test_fxsave)
{
    memset(g->ram + DATA, 0xcc, 512);
    distinct_environment();
    g->cpu->x87.fip = 0x123456789a;
    g->cpu->ymm[15].q[0] = 77;
    ok("48 0f ae 00"); /* fxsave64 */
    ck_assert_uint_eq(get(0, 2), 0x37f);
    ck_assert_uint_eq(get(4, 2), 0xc0);
    ck_assert_uint_eq(get(8, 8), 0x123456789a);
    ck_assert_uint_eq(get(28, 4), 0xffff);
    ck_assert_uint_eq(get(32 + 8, 2), 0x3fff);
    ck_assert_uint_eq(get(160 + 15 * 16, 8), 77);
    ck_assert_uint_eq(get(464, 1), 0xcc); /* available to software */
    struct x87 before = g->cpu->x87;
    ok("db e3");
    g->cpu->ymm[15].q[0] = 0;
    ok("48 0f ae 08");
    ck_assert(!memcmp(&before, &g->cpu->x87, sizeof(before)));
    ck_assert_uint_eq(g->cpu->ymm[15].q[0], 77);
    put(24, 0x10000, 4); /* a reserved bit of MXCSR */
    g->cpu->ymm[15].q[0] = 5;
    ck_assert_int_eq(guest_run(g, "48 0f ae 08"), VECTOR_GP);
    ck_assert_uint_eq(g->cpu->ymm[15].q[0], 5);
    g->cpu->gpr[RAX] = DATA + 8;
    ck_assert_int_eq(guest_run(g, "0f ae 00"), VECTOR_GP);
}
END_TEST

START_TEST(test_xsave_headers)
{
    g->cpu->gpr[RCX] = DATA;
    g->cpu->gpr[RAX] = 7;
    put(512, 1ull << 63, 8); /* XSTATE_BV bits that are not asked for stay */
    g->cpu->ymm[3].q[3] = 9;
    ok("0f ae 21"); /* xsave [rcx] */
    ck_assert_uint_eq(get(512, 8), 1ull << 63 | XSTATE_AVX);
    ck_assert_uint_eq(get(576 + 3 * 16 + 8, 8), 9);
    ck_assert_uint_eq(get(0, 2), 0x37f); /* written although it is initial */
    memset(g->ram + DATA, 0xcc, 1024);
    ok("0f c7 21"); /* xsavec */
    ck_assert_uint_eq(get(512, 8), XSTATE_AVX);
    ck_assert_uint_eq(get(520, 8), 1ull << 63 | 7);
    ck_assert_uint_eq(get(0, 2), 0xcccc);
    ck_assert_uint_eq(get(24, 4), 0xcccccccc);
    g->cpu->mxcsr = 0x1fa0; /* counts as SSE state here */
    ok("0f c7 21");
    ck_assert_uint_eq(get(512, 8), XSTATE_AVX | XSTATE_SSE);
    ck_assert_uint_eq(get(24, 4), 0x1fa0);
    g->cpu->gpr[RCX] = DATA + 32;
    ck_assert_int_eq(guest_run(g, "0f ae 21"), VECTOR_GP);
    g->cpu->cr4 &= ~CR4_OSXSAVE;
    ck_assert_int_eq(guest_run(g, "0f ae 21"), VECTOR_UD);
}
END_TEST

START_TEST(test_xrstor)
{
    g->cpu->gpr[RCX] = DATA;
    g->cpu->gpr[RAX] = 7;
    g->cpu->ymm[1].q[0] = 1;
    g->cpu->ymm[1].q[2] = 2;
    ok("d9 e8");
    memset(g->ram + DATA, 0, 1024);
    put(24, 0x1fbf, 4);
    put(512, XSTATE_SSE, 8); /* x87 and AVX: initial */
    put(160 + 16, 42, 8);
    ok("0f ae 29"); /* xrstor [rcx] */
    ck_assert_uint_eq(g->cpu->ymm[1].q[0], 42);
    ck_assert_uint_eq(g->cpu->ymm[1].q[2], 0);
    ck_assert_uint_eq(g->cpu->x87.ftw, 0xffff);
    ck_assert_uint_eq(g->cpu->x87.st[0][9] | g->cpu->x87.st[7][9], 0);
    ck_assert_uint_eq(g->cpu->mxcsr, 0x1fbf);
    /* Only what EDX:EAX names changes. */
    g->cpu->gpr[RAX] = XSTATE_AVX;
    put(160 + 16, 43, 8);
    ok("0f ae 29");
    ck_assert_uint_eq(g->cpu->ymm[1].q[0], 42);
}
END_TEST

START_TEST(test_xrstor_faults)
{
    g->cpu->gpr[RCX] = DATA;
    g->cpu->gpr[RAX] = 7;
    put(24, MXCSR_INIT, 4);
    put(512, 1 << 5, 8); /* a component that XCR0 lacks */
    ck_assert_int_eq(guest_run(g, "0f ae 29"), VECTOR_GP);
    put(512, 0, 8);
    put(520, 1, 8); /* XCOMP_BV without bit 63 */
    ck_assert_int_eq(guest_run(g, "0f ae 29"), VECTOR_GP);
    put(520, 1ull << 63 | 3, 8);
    put(512, 4, 8); /* in XSTATE_BV and not in XCOMP_BV */
    ck_assert_int_eq(guest_run(g, "0f ae 29"), VECTOR_GP);
    put(512, 0, 8);
    put(528, 1, 8); /* reserved bytes of the header */
    ck_assert_int_eq(guest_run(g, "0f ae 29"), VECTOR_GP);
    put(528, 0, 8);
    ok("0f ae 29");
    put(520, 0, 8);
    ck_assert_int_eq(guest_run(g, "0f c7 19"), VECTOR_GP); /* xrstors: only compacted */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("x87");
    TCase *tc = tcase_create("x87");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_stack);
    tcase_add_test(tc, test_pending_exception);
    tcase_add_test(tc, test_store_with_exception);
    tcase_add_test(tc, test_store_fault_is_restartable);
    tcase_add_test(tc, test_host_state);
    tcase_add_test(tc, test_environment_32);
    tcase_add_test(tc, test_environment_16_and_real);
    tcase_add_test(tc, test_fnsave_frstor);
    tcase_add_test(tc, test_mmx_aliases_physical_registers);
    tcase_add_test(tc, test_mmx_load_fault_changes_nothing);
    tcase_add_test(tc, test_fxsave);
    tcase_add_test(tc, test_xsave_headers);
    tcase_add_test(tc, test_xrstor);
    tcase_add_test(tc, test_xrstor_faults);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
