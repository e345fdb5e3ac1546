/*
 * test_sys_msr.c - MSRs and the TSC (cpu/sys/msr.c, time.c).
 */
#include "sys_fixture.h"

static uint64_t value_of(uint32_t msr)
{
    uint64_t v = ~0ull;

    ck_assert_msg(msr_read(fx.cpu, msr, &v), "RDMSR %#x refused", msr);
    return v;
}

START_TEST(as_instructions)
{
    enter_long(0);
    fx.cpu->gpr[RCX] = 0xc0000082;
    fx.cpu->gpr[RDX] = 0xffffffff;
    fx.cpu->gpr[RAX] = 0xffffffff12345678; /* the upper half does not count */
    run("0f 30 31 c0 31 d2 0f 32");        /* WRMSR; XOR EAX; XOR EDX; RDMSR */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RAX], 0x12345678);
    ck_assert_uint_eq(fx.cpu->gpr[RDX], 0xffffffff);
    enter_long(0);
    fx.cpu->gpr[RCX] = 0xc0000082;
    fx.cpu->gpr[RDX] = 0x8000; /* not canonical */
    run("0f 30");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(0);
    fx.cpu->gpr[RCX] = 0x12345;
    run("0f 32");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(3);
    fx.cpu->gpr[RCX] = 0x10;
    run("0f 32");
    expect_error(VECTOR_GP, 0, 8);
}
END_TEST

START_TEST(reserved_bits)
{
    static const struct {
        uint32_t msr;
        uint64_t bad, good;
    } cases[] = {
        {0xc0000080, 1 << 9, EFER_SCE},
        {0x277, 0x0007040600070402, 0x0007040600070405},
        {0x2ff, 1 << 9, 0xc06},
        {0x2ff, 0xc02, 0xc06},
        {0x200, 0x102, 0x80000006},
        {0x201, 0x400, 0x800},
        {0x250, 0x0606060606060602, 0x0606060606060606},
        {0x48, 8, 1},
        {0x49, 2, 1},
        {0xc0000084, 1ull << 32, 0x47700},
        {0xc0000103, 1ull << 32, 7},
        {0x174, 1ull << 32, 0x10},
        {0x1d9, 1 << 6, 2},
        {0x17a, 8, 0},
        {0xc0000101, 1ull << 47, 0xffff800000000000},
        {0xda0, 1 << 8, 0},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (cases[i].msr == 0xda0 && !model_has(fx.cpu, MODEL_D1_EAX, 3))
            continue;
        ck_assert_msg(!msr_write(fx.cpu, cases[i].msr, cases[i].bad), "%#x bad", cases[i].msr);
        ck_assert_msg(msr_write(fx.cpu, cases[i].msr, cases[i].good), "%#x good", cases[i].msr);
        if (cases[i].msr != 0x49)
            ck_assert_uint_eq(value_of(cases[i].msr), cases[i].good);
    }
}
END_TEST

START_TEST(read_only_and_immunity)
{
    uint64_t v;

    ck_assert(!msr_write(fx.cpu, 0xfe, 0x508));
    ck_assert(!msr_write(fx.cpu, 0x10a, 0));
    ck_assert(!msr_write(fx.cpu, 0x179, 0));
    ck_assert(!msr_read(fx.cpu, 0x49, &v));
    ck_assert_uint_eq(value_of(0x10a) & 0x1ff, 0x17b); /* not RSBA, not TSX_CTRL */
    ck_assert_uint_eq(value_of(0x10a) >> 20 & 1, 1);
    if (!cpu_is_amd(fx.cpu))
        ck_assert(!msr_write(fx.cpu, 0x3a, 5)); /* locked */
}
END_TEST

START_TEST(tsc)
{
    uint64_t before = sys_tsc(fx.cpu);

    ck_assert(msr_write(fx.cpu, 0x10, before + 1000000000000));
    ck_assert_uint_ge(sys_tsc(fx.cpu), before + 1000000000000);
    ck_assert_uint_lt(sys_tsc(fx.cpu), before + 1100000000000);
    ck_assert_uint_le(value_of(0x3b), 1000000000000); /* TSC_ADJUST went along */
    ck_assert_uint_gt(value_of(0x3b), 900000000000);
    ck_assert(msr_write(fx.cpu, 0x3b, 0));
    ck_assert_uint_lt(sys_tsc(fx.cpu), before + 100000000000);
    enter_long(3);
    fx.cpu->cr4 |= CR4_TSD;
    run("0f 31");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(3);
    run("0f 31 0f 0b");
    expect(VECTOR_UD);
    enter_long(0);
    msr_write(fx.cpu, 0xc0000103, 0x42);
    run("0f 01 f9 f3 0f c7 fb"); /* RDTSCP; RDPID RBX */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 0x42);
    ck_assert_uint_eq(fx.cpu->gpr[RBX], 0x42);
}
END_TEST

static uint64_t apic_deadline;

static bool apic_read(void *lapic, uint32_t msr, uint64_t *v)
{
    (void)lapic;
    *v = apic_deadline;
    return msr == 0x6e0;
}
static bool apic_write(void *lapic, uint32_t msr, uint64_t v)
{
    (void)lapic;
    apic_deadline = v;
    return msr == 0x6e0;
}

START_TEST(deadline_follows_the_offset)
{
    uint64_t far = sys_tsc(fx.cpu) + 1000000000000;

    fx.cpu->lapic.read_msr = apic_read;
    fx.cpu->lapic.write_msr = apic_write;
    apic_deadline = 0;
    ck_assert(msr_write(fx.cpu, 0x3b, 5000));
    ck_assert(msr_write(fx.cpu, 0x6e0, far));
    ck_assert_uint_eq(apic_deadline, far - 5000);
    ck_assert_uint_eq(value_of(0x6e0), far);
    ck_assert(msr_write(fx.cpu, 0x3b, 7000)); /* the same TSC value comes earlier */
    ck_assert_uint_eq(apic_deadline, far - 7000);
    ck_assert(msr_write(fx.cpu, 0x6e0, 6000)); /* past */
    ck_assert_uint_eq(apic_deadline, 1);
    ck_assert(msr_write(fx.cpu, 0x6e0, 0));
    ck_assert_uint_eq(apic_deadline, 0);
    ck_assert(!msr_write(fx.cpu, 0x802, 0));
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("msr");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, as_instructions);
    tcase_add_test(c, reserved_bits);
    tcase_add_test(c, read_only_and_immunity);
    tcase_add_test(c, tsc);
    tcase_add_test(c, deadline_follows_the_offset);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_msr", add);
}
