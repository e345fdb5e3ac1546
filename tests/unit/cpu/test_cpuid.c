/*
 * test_cpuid.c - CPU models, features by name, CPUID leaves (cpu/sys/models.c, cpuid.c).
 */
#include "sys_fixture.h"

enum { EAX, EBX, ECX, EDX };

static bool has(const struct cpu_model *model, enum model_word word, unsigned bit)
{
    return model->word[word] >> bit & 1;
}

static const struct cpu_model *parse(const char *spec)
{
    struct error err = {""};
    const struct cpu_model *model = cpu_model_parse(spec, &err);

    ck_assert_msg(model != NULL, "%s: %s", spec, err.msg);
    return model;
}

static void refused(const char *spec, const char *a, const char *b)
{
    struct error err = {""};

    ck_assert_msg(cpu_model_parse(spec, &err) == NULL, "%s was accepted", spec);
    ck_assert_msg(strstr(err.msg, a) && strstr(err.msg, b), "%s: %s", spec, err.msg);
    ck_assert(strchr(err.msg, '\n') == NULL);
}

START_TEST(unknown_names)
{
    refused("quemu64", "quemu64", "qemu64");
    refused("x86-64-v4", "x86-64-v4", "x86-64-v");
    refused("max,+pcidd", "pcidd", "pcid");
    refused("max,-avx-512", "avx-512", "avx");
    refused("max,smep=maybe", "smep", "on or off");
}
END_TEST

START_TEST(options)
{
    const struct cpu_model *m = parse("max");

    ck_assert(has(m, MODEL_7_EBX, 7) && has(m, MODEL_1_ECX, 17) && has(m, MODEL_7_EBX, 20));
    cpu_model_free(m);
    m = parse("max,-smep,-pcid,smap=off");
    ck_assert(!has(m, MODEL_7_EBX, 7) && !has(m, MODEL_1_ECX, 17) && !has(m, MODEL_7_EBX, 20));
    cpu_model_free(m);
    m = parse("qemu64,+smep,umip=on,+tsc_deadline");
    ck_assert(has(m, MODEL_7_EBX, 7) && has(m, MODEL_7_ECX, 2) && has(m, MODEL_1_ECX, 24));
    ck_assert(!has(m, MODEL_1_ECX, 28)); /* no AVX */
    cpu_model_free(m);
    m = parse("max,-xsave"); /* takes AVX and PKU with it */
    ck_assert(!has(m, MODEL_1_ECX, 28) && !has(m, MODEL_7_EBX, 5) && !has(m, MODEL_7_ECX, 3) &&
              !has(m, MODEL_D1_EAX, 0));
    cpu_model_free(m);
}
END_TEST

START_TEST(row_features_follow)
{
    const struct cpu_model *m = parse("max,-popcnt");
    struct insn_features f;

    cpu_model_features(m, &f);
    ck_assert(!(f.bits[FEAT_POPCNT / 64] >> FEAT_POPCNT % 64 & 1));
    ck_assert(f.bits[FEAT_SSE2 / 64] >> FEAT_SSE2 % 64 & 1);
    ck_assert(f.bits[0] & 1 << FEAT_BASE);
    ck_assert(!(f.bits[FEAT_MONITOR / 64] >> FEAT_MONITOR % 64 & 1));
    cpu_model_free(m);
}
END_TEST

/* One vendor, the same for CPUID, the rows and the x87: FDP and selectors (leaf 7, EBX bits 6 and
 * 13) are kept as Intel's processors keep them or AMD's, which have 80000008h, EBX bit 2 instead.
 */
START_TEST(one_vendor)
{
    uint32_t r[4];

    fixture_setup();
    bool amd = cpu_is_amd(fx.cpu);
    ck_assert(insn_has_feature(&fx.cpu->features, FEAT_INTEL) != amd);
    cpu_cpuid(fx.cpu, 0, 0, r);
    ck_assert_int_eq(memcmp(&r[EBX], amd ? "Auth" : "Genu", 4), 0);
    cpu_cpuid(fx.cpu, 7, 0, r);
    ck_assert_uint_eq(r[EBX] & (1 << 6 | 1 << 13), amd ? 0 : 1 << 6 | 1 << 13);
    cpu_cpuid(fx.cpu, 0x80000008, 0, r);
    ck_assert_uint_eq(r[EBX] >> 2 & 1, amd);
    cpu_cpuid(fx.cpu, 0x80000001, 0, r);
    ck_assert_uint_eq(r[ECX] >> 4 & 1, insn_has_feature(&fx.cpu->features, FEAT_CR8LEGACY));
    ck_assert_uint_eq(r[ECX] >> 7 & 1, insn_has_feature(&fx.cpu->features, FEAT_MISALIGNSSE));
    ck_assert(amd || !(r[ECX] & (1 << 4 | 1 << 7)));
    fixture_teardown();
}
END_TEST

/* What a kernel need not spend its time against: nothing here speculates with a guest's data, and
 * VERW would clear nothing. AMD APM vol. 3, CPUID Fn8000_0021. */
START_TEST(immune)
{
    uint32_t r[4];

    fixture_setup();
    if (cpu_is_amd(fx.cpu)) {
        cpu_cpuid(fx.cpu, 0x80000021, 0, r);
        ck_assert_uint_eq(r[EAX] >> 29 & 3, 3); /* SRSO_NO, SRSO_USER_KERNEL_NO */
        ck_assert_uint_eq(r[ECX] >> 1 & 3, 3);  /* TSA_SQ_NO, TSA_L1_NO */
    }
    fixture_teardown();
}
END_TEST

START_TEST(never_offered)
{
    uint32_t r[4];

    fixture_setup();
    cpu_cpuid(fx.cpu, 1, 0, r);
    ck_assert_uint_eq(r[ECX] & (1 << 3 | 1 << 5 | 1 << 15), 0); /* MONITOR, VMX, PDCM */
    cpu_cpuid(fx.cpu, 7, 0, r);
    ck_assert_uint_eq(r[EBX] & (1 << 2 | 1 << 4 | 1 << 11 | 1 << 14 | 1 << 16),
                      0);                              /* SGX, HLE, RTM, MPX, AVX512F */
    ck_assert_uint_eq(r[ECX] & (1 << 7 | 1 << 16), 0); /* CET, LA57 */
    cpu_cpuid(fx.cpu, 0xa, 0, r);
    ck_assert_uint_eq(r[EAX] | r[EBX] | r[ECX] | r[EDX], 0);
    fixture_teardown();
}
END_TEST

START_TEST(dynamic_bits)
{
    uint32_t r[4];

    fixture_setup();
    cpu_cpuid(fx.cpu, 1, 0, r);
    ck_assert(!(r[ECX] >> 27 & 1));
    ck_assert_uint_eq(r[EAX], fx.cpu->model->signature);
    enter_long(0);
    sys_set_cr4(fx.cpu, fx.cpu->cr4 | CR4_OSXSAVE | CR4_PKE);
    cpu_cpuid(fx.cpu, 1, 0, r);
    ck_assert(r[ECX] >> 27 & 1);
    cpu_cpuid(fx.cpu, 7, 0, r);
    ck_assert(r[ECX] >> 4 & 1);
    cpu_cpuid(fx.cpu, 0x80000001, 0, r);
    ck_assert(r[EDX] >> 11 & 1); /* SYSCALL */
    if (!cpu_is_amd(fx.cpu)) {
        set_segment(SEG_CS, SEL_CODE32);
        cpu_mode_update(fx.cpu);
        cpu_cpuid(fx.cpu, 0x80000001, 0, r);
        ck_assert(!(r[EDX] >> 11 & 1));
    }
    fixture_teardown();
}
END_TEST

START_TEST(xsave_sizes)
{
    uint32_t r[4];

    fixture_setup();
    cpu_cpuid(fx.cpu, 0xd, 0, r);
    ck_assert_uint_eq(r[EBX], 576);
    if (r[EAX] & 4) {
        ck_assert_uint_eq(r[EAX], 0x207);
        ck_assert_uint_eq(r[ECX], 2696);
        sys_set_xcr0(fx.cpu, 7);
        cpu_cpuid(fx.cpu, 0xd, 0, r);
        ck_assert_uint_eq(r[EBX], 832);
        sys_set_xcr0(fx.cpu, 0x207);
        cpu_cpuid(fx.cpu, 0xd, 0, r);
        ck_assert_uint_eq(r[EBX], 2696);
        cpu_cpuid(fx.cpu, 0xd, 1, r);
        ck_assert_uint_eq(r[EBX], 840);
        cpu_cpuid(fx.cpu, 0xd, 2, r);
        ck_assert_uint_eq(r[EAX], 256);
        ck_assert_uint_eq(r[EBX], 576);
    }
    fixture_teardown();
}
END_TEST

START_TEST(identification)
{
    uint32_t r[4], last[4];
    char text[49] = "";

    fixture_setup();
    cpu_cpuid(fx.cpu, 0x40000000, 0, r);
    ck_assert_int_eq(memcmp(&r[EBX], "BaileyBailey", 12), 0);
    for (unsigned i = 0; i < 3; i++)
        cpu_cpuid(fx.cpu, 0x80000002 + i, 0, (uint32_t *)(void *)(text + 16 * i));
    ck_assert_str_eq(text, "Bailey virtual CPU (max)");
    cpu_cpuid(fx.cpu, 0x15, 0, r);
    if (!cpu_is_amd(fx.cpu)) {
        ck_assert_uint_eq(r[ECX], 1000000000);
        ck_assert_uint_eq(r[EAX], r[EBX]);
        cpu_cpuid(fx.cpu, 0x16, 0, last); /* beyond the last: the highest basic leaf */
        cpu_cpuid(fx.cpu, 0x12345678, 0, r);
        ck_assert_int_eq(memcmp(r, last, sizeof r), 0);
    }
    cpu_cpuid(fx.cpu, 0x80000008, 0, r);
    ck_assert_uint_eq(r[EAX] & 0xff, fx.cpu->model->maxphyaddr);
    fixture_teardown();
}
END_TEST

START_TEST(topology)
{
    uint32_t r[4];

    fixture_setup();
    ((struct cpu_model *)fx.cpu->model)->vcpus = 6;
    fx.cpu->index = 5;
    cpu_cpuid(fx.cpu, 1, 0, r);
    ck_assert_uint_eq(r[EBX] >> 24, 5);
    ck_assert_uint_eq(r[EBX] >> 16 & 0xff, 8);
    ck_assert(r[EDX] >> 28 & 1);
    cpu_cpuid(fx.cpu, 0xb, 0, r);
    ck_assert_uint_eq(r[EAX] | r[ECX] << 16 | r[EBX] << 4, 0x100 << 16 | 1 << 4);
    cpu_cpuid(fx.cpu, 0xb, 1, r);
    ck_assert_uint_eq(r[EAX], 3);
    ck_assert_uint_eq(r[EBX], 6);
    ck_assert_uint_eq(r[ECX], 0x201);
    ck_assert_uint_eq(r[EDX], 5);
    cpu_cpuid(fx.cpu, 0xb, 2, r);
    ck_assert_uint_eq(r[EBX], 0);
    ck_assert_uint_eq(r[ECX], 2);
    fx.cpu->index = 0;
    fixture_teardown();
}
END_TEST

START_TEST(models_run)
{
    static const char *const names[] = {"qemu64", "x86-64-v2"};

    for (unsigned i = 0; i < 2; i++) {
        fixture_setup_model(names[i]);
        enter_long(0);
        run("c5 fc 28 c1"); /* no AVX there */
        expect(VECTOR_UD);
        fixture_teardown();
    }
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("cpuid");
    tcase_add_test(c, unknown_names);
    tcase_add_test(c, options);
    tcase_add_test(c, row_features_follow);
    tcase_add_test(c, one_vendor);
    tcase_add_test(c, immune);
    tcase_add_test(c, never_offered);
    tcase_add_test(c, dynamic_bits);
    tcase_add_test(c, xsave_sizes);
    tcase_add_test(c, identification);
    tcase_add_test(c, topology);
    tcase_add_test(c, models_run);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("cpuid", add);
}
