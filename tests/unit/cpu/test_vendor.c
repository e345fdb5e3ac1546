/*
 * test_vendor.c - what Intel's and AMD's processors do differently in user code: each test runs
 * once as either, on whatever host. The oracle compares the same with the host's own.
 *
 * Where the manuals leave it open, the comment says what was seen; else SDM vol. 2 and APM vol. 3
 * under the instruction's name.
 */
#include "cpu/interp/vec.h"
#include "cpu/interp/x87.h"
#include "cpu_fixture.h"

static struct cpu_fixture f;
static bool amd;

/* A page that is not there, behind and before ones that are. */
enum { HOLE = FIXTURE_DATA + 0x1000 };

static void set_feature(unsigned feature, bool on)
{
    uint64_t bit = 1ull << feature % 64, *word = &f.cpu->features.bits[feature / 64];
    *word = on ? *word | bit : *word & ~bit;
}

/* _i of a loop test: 0 Intel, 1 AMD. What only AMD's processors have comes and goes with it. */
static void begin(int vendor, enum fixture_mode mode)
{
    fixture_init(&f, mode);
    amd = vendor;
    set_feature(FEAT_INTEL, !amd);
    set_feature(FEAT_AMD, amd);
    set_feature(FEAT_CR8LEGACY, amd);
    set_feature(FEAT_MISALIGNSSE, amd);
    x87_init(&f.cpu->x87);
    if (mode != FIXTURE_LONG64)
        return;
    *fixture_pte(&f, HOLE) = 0;
    mmu_invlpg(&f.cpu->mmu, HOLE);
    f.cpu->cr4 |= CR4_OSXSAVE;
    f.cpu->xcr0 = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX;
    cpu_mode_update(f.cpu);
}
static void end(void)
{
    fixture_fini(&f);
}

#define PUT(at, ...)                                                                               \
    do {                                                                                           \
        static const uint8_t code[] = {__VA_ARGS__};                                               \
        fixture_load(&f, at, code, sizeof(code));                                                  \
    } while (0)
#define CODE(...) PUT(FIXTURE_CODE, __VA_ARGS__)
#define RUN()     fixture_run(&f, FIXTURE_CODE)

static bool missing(unsigned feature, const char *name)
{
    if (insn_has_feature(&f.cpu->features, feature))
        return false;
    printf("skip  %s: the host lacks it\n", name);
    return true;
}

static uint64_t at(uint64_t gpa, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, f.ram + gpa, size);
    return value;
}

/* ---- Integer code ---------------------------------------------------------------------------- */

/* APM vol. 3, JMP Near: an operand-size prefix makes RIP 16 bits in 64-bit code, too. */
START_TEST(near_jump_with_operand_size_prefix)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x66, 0xe9, 0xfc, 0x5f, 0, 0);
    PUT(0x6000, 0xf4);                    /* 16-bit displacement from 10004h, cut to 16 bits */
    PUT(FIXTURE_CODE + 6 + 0x5ffc, 0xf4); /* 32-bit displacement from 10006h */
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->rip, amd ? 0x6001 : FIXTURE_CODE + 6 + 0x5ffd);
    end();
}
END_TEST

START_TEST(near_branch_not_taken_keeps_rip)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x66, 0x74, 0x10, 0xf4); /* je, ZF = 0 */
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 4);
    end();
}
END_TEST

START_TEST(near_call_and_return_with_operand_size_prefix)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x66, 0xff, 0xd0); /* call ax, or rax */
    PUT(0x6000, 0xf4);
    f.cpu->gpr[RAX] = 0x6000;
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(FIXTURE_STACK - f.cpu->gpr[RSP], amd ? 2 : 8);
    ck_assert_uint_eq(at(f.cpu->gpr[RSP], amd ? 2 : 8), amd ? 3 : FIXTURE_CODE + 3);
    PUT(0x6000, 0x66, 0xc3);
    PUT(amd ? 3 : FIXTURE_CODE + 3, 0xf4);
    ck_assert_int_eq(fixture_run(&f, 0x6000), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RSP], FIXTURE_STACK);
    end();
}
END_TEST

/* The source at the last two bytes of a page: AMD reads four. */
START_TEST(movsxd_with_16_bit_operands)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x66, 0x63, 0x03, 0xf4); /* movsxd ax, [rbx] */
    f.cpu->gpr[RBX] = HOLE - 2;
    f.cpu->gpr[RAX] = 0x1111111111111111;
    memset(f.ram + HOLE - 2, 0x88, 2);
    ck_assert_int_eq(RUN(), amd ? VECTOR_PF : FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], amd ? 0x1111111111111111 : 0x1111111111118888);
    f.cpu->gpr[RBX] = HOLE - 4;
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 0x1111111111110000);
    end();
}
END_TEST

START_TEST(pause_with_rex_b)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xf3, 0x41, 0x90, 0xf4);
    f.cpu->gpr[RAX] = 1;
    f.cpu->gpr[R8] = 2;
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], amd ? 2 : 1);
    end();
}
END_TEST

/* Undefined by both manuals; seen: Intel shifts through dst:src:dst, AMD through dst:src:src. */
START_TEST(double_shifts_of_16_bits_by_more)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x66, 0x0f, 0xa4, 0xd8, 20, 0x66, 0x0f, 0xac, 0xd9, 20, 0xf4); /* shld ax; shrd cx */
    f.cpu->gpr[RAX] = f.cpu->gpr[RCX] = 0x1234;
    f.cpu->gpr[RBX] = 0x9abc;
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX],
                      amd ? 0xabc9 : 0xabc1); /* 1234 9|abc 9abc, 1234 9|abc 1234 */
    ck_assert_uint_eq(f.cpu->gpr[RCX],
                      amd ? 0xc9ab : 0x49ab); /* 9abc 9ab|c 1234, 1234 9ab|c 1234 */
    end();
}
END_TEST

START_TEST(compare_strings_where_both_fault)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xa6);
    f.cpu->gpr[RSI] = HOLE + 1;
    f.cpu->gpr[RDI] = HOLE + 2;
    ck_assert_int_eq(RUN(), VECTOR_PF);
    ck_assert_uint_eq(f.cpu->cr2, amd ? HOLE + 1 : HOLE + 2);
    end();
}
END_TEST

/* SDM vol. 2, REP: a fault restores EFLAGS; AMD leaves those of the last comparison. */
START_TEST(flags_of_a_faulting_repeated_scan)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xf2, 0xae); /* repne scasb */
    f.cpu->gpr[RDI] = HOLE - 1;
    f.cpu->gpr[RCX] = 5;
    f.cpu->gpr[RAX] = 0;
    f.ram[HOLE - 1] = 1; /* 0 - 1: CF, AF, SF, PF */
    cpu_set_rflags(f.cpu, RFLAGS_FIXED | FLAG_OF | FLAG_ZF);
    ck_assert_int_eq(RUN(), VECTOR_PF);
    ck_assert_uint_eq(f.cpu->gpr[RCX], 4);
    ck_assert_uint_eq(cpu_rflags(f.cpu) & FLAGS_ARITH,
                      amd ? FLAG_CF | FLAG_AF | FLAG_SF | FLAG_PF : FLAG_OF | FLAG_ZF);
    end();
}
END_TEST

/* Below the lower bound, with the upper one on a page that is not there. In compatibility mode. */
START_TEST(bound_reads_its_upper_bound)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x62, 0x03); /* bound eax, [ebx] */
    f.cpu->seg[SEG_CS].attr = 0x9b | SEG_ATTR_G | SEG_ATTR_DB;
    f.cpu->gpr[RAX] = 0;
    f.cpu->gpr[RBX] = HOLE - 4;
    f.ram[HOLE - 4] = f.ram[HOLE - 8] = 1;
    ck_assert_int_eq(RUN(), amd ? VECTOR_PF : VECTOR_BR);
    f.cpu->gpr[RBX] = HOLE - 8;
    ck_assert_int_eq(RUN(), VECTOR_BR);
    end();
}
END_TEST

/* APM vol. 3, MOV CRn: LOCK MOV CR0 is MOV CR8. */
START_TEST(lock_mov_cr0)
{
    begin(_i, FIXTURE_FLAT32);
    CODE(0xf0, 0x0f, 0x20, 0xc0, 0xf4);
    f.cpu->gpr[RAX] = 7;
    ck_assert_int_eq(RUN(), amd ? FIXTURE_HALTED : VECTOR_UD);
    ck_assert_uint_eq(f.cpu->gpr[RAX], amd ? 0 : 7);
    end();
}
END_TEST

/* ---- Stores that fault ----------------------------------------------------------------------- */

/* Seen: Intel has set TOP = 0 when MOVQ m64, mm faults, AMD nothing. */
START_TEST(mmx_store_faults)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xd9, 0xe8, 0x0f, 0x7f, 0x03); /* fld1; movq [rbx], mm0 */
    f.cpu->gpr[RBX] = HOLE;
    ck_assert_int_eq(RUN(), VECTOR_PF);
    ck_assert_uint_eq(x87_top(&f.cpu->x87), amd ? 7 : 0);
    end();
}
END_TEST

/* An unmasked #I keeps Intel's FST from storing; AMD's finds the fault of the store first. */
START_TEST(x87_store_with_exception_and_fault)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xdd, 0x13, 0xf4); /* fst qword [rbx], of an empty register */
    f.cpu->gpr[RBX] = HOLE;
    f.cpu->x87.fcw = 0x37e;
    ck_assert_int_eq(RUN(), amd ? VECTOR_PF : FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->x87.fsw & X87_IE, amd ? 0 : X87_IE);
    end();
}
END_TEST

START_TEST(vcvtps2ph_store_faults)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xc4, 0xe3, 0x79, 0x1d, 0x0b, 0); /* vcvtps2ph [rbx], xmm1, 0 */
    f.cpu->gpr[RBX] = HOLE;
    f.cpu->ymm[1].d[0] = 0x7f7fffff; /* too large: #O, #P */
    if (!missing(FEAT_F16C, "F16C")) {
        ck_assert_int_eq(RUN(), VECTOR_PF);
        ck_assert_uint_eq(f.cpu->mxcsr, MXCSR_INIT | (amd ? 0 : MXCSR_OE | MXCSR_PE));
    }
    end();
}
END_TEST

/* ---- Vectors --------------------------------------------------------------------------------- */

/* A gather whose third of four elements faults; the second is not selected. */
START_TEST(gather_that_faults)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xc4, 0xe2, 0x69, 0x90, 0x0c, 0x2b); /* vpgatherdd xmm1, [rbx + xmm5], xmm2 */
    f.cpu->gpr[RBX] = FIXTURE_DATA;
    static const uint32_t index[4] = {0, 4, HOLE - FIXTURE_DATA, 12};
    static const uint32_t mask[4] = {0x80000000, 0x12345678, 0x87654321, 0x0fffffff};
    memcpy(&f.cpu->ymm[5], index, sizeof(index));
    memcpy(&f.cpu->ymm[2], mask, sizeof(mask));
    f.cpu->ymm[1].q[2] = f.cpu->ymm[2].q[2] = 0x77;
    if (!missing(FEAT_AVX2, "AVX2")) {
        ck_assert_int_eq(RUN(), VECTOR_PF);
        ck_assert_uint_eq(f.cpu->ymm[2].q[0], 0);
        ck_assert_uint_eq(f.cpu->ymm[2].d[2], amd ? 0x87654321 : 0xffffffff);
        ck_assert_uint_eq(f.cpu->ymm[2].d[3], amd ? 0x0fffffff : 0);
        ck_assert_uint_eq(f.cpu->ymm[1].q[2], amd ? 0x77 : 0);
        ck_assert_uint_eq(f.cpu->ymm[2].q[2], amd ? 0x77 : 0);
    }
    end();
}
END_TEST

/* The SHA instructions demand alignment on Intel's processors only. */
START_TEST(sha_operand_alignment)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x0f, 0x38, 0xc9, 0x0b, 0xf4); /* sha1msg1 xmm1, [rbx] */
    f.cpu->gpr[RBX] = FIXTURE_DATA + 1;
    if (!missing(FEAT_SHA, "SHA"))
        ck_assert_int_eq(RUN(), amd ? FIXTURE_HALTED : VECTOR_GP);
    end();
}
END_TEST

/* APM vol. 1, 4.2.2 (MXCSR.MM): not for moves. POR is done in C: the host need not have the bit. */
START_TEST(misaligned_exception_mask)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x0f, 0xae, 0x13, 0x66, 0x0f, 0xeb, 0x4b, 0x11, 0xf4); /* ldmxcsr; por xmm1, [rbx + 17] */
    f.cpu->gpr[RBX] = FIXTURE_DATA;
    uint32_t value = MXCSR_INIT | MXCSR_MM;
    memcpy(f.ram + FIXTURE_DATA, &value, 4);
    memset(f.ram + FIXTURE_DATA + 17, 0x5a, 16);
    ck_assert_int_eq(RUN(), amd ? FIXTURE_HALTED : VECTOR_GP);
    ck_assert_uint_eq(f.cpu->mxcsr, amd ? value : MXCSR_INIT);
    ck_assert_uint_eq(f.cpu->ymm[1].q[1], amd ? 0x5a5a5a5a5a5a5a5a : 0);
    CODE(0x66, 0x0f, 0x6f, 0x4b, 0x11); /* movdqa xmm1, [rbx + 17] */
    ck_assert_int_eq(RUN(), VECTOR_GP);
    end();
}
END_TEST

/* ---- x87 pointers ---------------------------------------------------------------------------- */

enum { ENV = FIXTURE_DATA + 0x100, AREA = FIXTURE_DATA + 0x200 };

/* FNSTENV after FLD m64: Intel's note FIP alone, with selectors of zero; AMD's everything. FXSAVE
 * on AMD's shows none of it while no exception is pending (APM vol. 2, 11.4.4). */
START_TEST(pointers_of_masked_instructions)
{
    begin(_i, FIXTURE_LONG64);
    /* fld qword [rbx]; fld1; fnstenv [rcx]; fldenv [rcx]; fxsave [rdx]; hlt */
    CODE(0xdd, 0x03, 0xd9, 0xe8, 0xd9, 0x31, 0xd9, 0x21, 0x0f, 0xae, 0x02, 0xf4);
    f.cpu->gpr[RBX] = FIXTURE_DATA;
    f.cpu->gpr[RCX] = ENV;
    f.cpu->gpr[RDX] = AREA;
    memset(f.ram + AREA, 0xcc, 512);
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(at(ENV + 12, 4), FIXTURE_CODE + 2);
    ck_assert_uint_eq(at(ENV + 16, 2), amd ? 8 : 0);            /* FCS */
    ck_assert_uint_eq(at(ENV + 18, 2), amd ? 0x1e8 : 0);        /* FOP: D9 E8 */
    ck_assert_uint_eq(at(ENV + 20, 4), amd ? FIXTURE_DATA : 0); /* FDP, of the load */
    ck_assert_uint_eq(at(ENV + 24, 2), amd ? 0x10 : 0);         /* FDS */
    ck_assert_uint_eq(at(AREA + 6, 2), 0);
    ck_assert_uint_eq(at(AREA + 8, 4), amd ? 0 : FIXTURE_CODE + 2);
    ck_assert_uint_eq(at(AREA + 12, 4), 0);
    ck_assert_uint_eq(at(AREA + 16, 8), 0);
    end();
}
END_TEST

/* With an exception pending both show them; AMD's with selectors. FXRSTOR takes them back. */
START_TEST(pointers_of_a_pending_exception)
{
    begin(_i, FIXTURE_LONG64);
    /* fld1; fdiv qword [rbx]; fxsave [rdx]; fxrstor [rdx]; fnstenv [rcx]; hlt */
    CODE(0xd9, 0xe8, 0xdc, 0x33, 0x0f, 0xae, 0x02, 0x0f, 0xae, 0x0a, 0xd9, 0x31, 0xf4);
    f.cpu->gpr[RBX] = FIXTURE_DATA;
    f.cpu->gpr[RCX] = ENV;
    f.cpu->gpr[RDX] = AREA;
    f.cpu->x87.fcw = 0x37b; /* #Z unmasked */
    ck_assert_int_eq(RUN(), FIXTURE_HALTED);
    ck_assert_uint_eq(at(AREA + 2, 2) & X87_ES, X87_ES);
    ck_assert_uint_eq(at(AREA + 6, 2), 0x433); /* DC 33 */
    ck_assert_uint_eq(at(AREA + 8, 4), FIXTURE_CODE + 2);
    ck_assert_uint_eq(at(AREA + 12, 4), amd ? 8 : 0);
    ck_assert_uint_eq(at(AREA + 16, 4), FIXTURE_DATA);
    ck_assert_uint_eq(at(AREA + 20, 4), amd ? 0x10 : 0);
    ck_assert_uint_eq(at(ENV + 12, 4), FIXTURE_CODE + 2);
    ck_assert_uint_eq(at(ENV + 16, 2), amd ? 8 : 0);
    ck_assert_uint_eq(at(ENV + 20, 4), FIXTURE_DATA);
    end();
}
END_TEST

/* The x87 is in its initial state again although FNOP left its address. */
START_TEST(pointers_do_not_count_as_used_state)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0xd9, 0xd0, 0x0f, 0xae, 0x23, 0xf4); /* fnop; xsave [rbx] */
    f.cpu->gpr[RBX] = AREA;
    f.cpu->gpr[RAX] = XSTATE_X87;
    x87_init(&f.cpu->x87);
    memset(f.cpu->x87.st, 0, sizeof(f.cpu->x87.st));
    memset(f.ram + AREA, 0, 1024);
    if (!missing(FEAT_XSAVE, "XSAVE")) {
        ck_assert_int_eq(RUN(), FIXTURE_HALTED);
        ck_assert_uint_eq(at(AREA + 512, 8), amd ? 0 : XSTATE_X87);
    }
    end();
}
END_TEST

/* Asked for nothing, Intel's XSAVE touches the header alone, AMD's the legacy region too. */
START_TEST(xsave_of_nothing)
{
    begin(_i, FIXTURE_LONG64);
    CODE(0x0f, 0xae, 0x23, 0xf4);
    f.cpu->gpr[RBX] = HOLE + 0x1000 - 512;
    f.cpu->gpr[RAX] = 0;
    if (!missing(FEAT_XSAVE, "XSAVE"))
        ck_assert_int_eq(RUN(), amd ? VECTOR_PF : FIXTURE_HALTED);
    end();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vendor");
    TCase *tests = tcase_create("vendor");
    tcase_add_loop_test(tests, near_jump_with_operand_size_prefix, 0, 2);
    tcase_add_loop_test(tests, near_branch_not_taken_keeps_rip, 0, 2);
    tcase_add_loop_test(tests, near_call_and_return_with_operand_size_prefix, 0, 2);
    tcase_add_loop_test(tests, movsxd_with_16_bit_operands, 0, 2);
    tcase_add_loop_test(tests, pause_with_rex_b, 0, 2);
    tcase_add_loop_test(tests, double_shifts_of_16_bits_by_more, 0, 2);
    tcase_add_loop_test(tests, compare_strings_where_both_fault, 0, 2);
    tcase_add_loop_test(tests, flags_of_a_faulting_repeated_scan, 0, 2);
    tcase_add_loop_test(tests, bound_reads_its_upper_bound, 0, 2);
    tcase_add_loop_test(tests, lock_mov_cr0, 0, 2);
    tcase_add_loop_test(tests, mmx_store_faults, 0, 2);
    tcase_add_loop_test(tests, x87_store_with_exception_and_fault, 0, 2);
    tcase_add_loop_test(tests, vcvtps2ph_store_faults, 0, 2);
    tcase_add_loop_test(tests, gather_that_faults, 0, 2);
    tcase_add_loop_test(tests, sha_operand_alignment, 0, 2);
    tcase_add_loop_test(tests, misaligned_exception_mask, 0, 2);
    tcase_add_loop_test(tests, pointers_of_masked_instructions, 0, 2);
    tcase_add_loop_test(tests, pointers_of_a_pending_exception, 0, 2);
    tcase_add_loop_test(tests, pointers_do_not_count_as_used_state, 0, 2);
    tcase_add_loop_test(tests, xsave_of_nothing, 0, 2);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
