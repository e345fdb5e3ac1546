/*
 * Unit tests of cpu/insn: the decoder's rules one by one, the tables, the disassembler.
 *
 * What is decoded at all, lengths and explicit operands are compared with two other decoders and
 * the host CPU in tests/decode; here are the rules that those cannot see: features, modes,
 * incomplete bytes, implicit operands, offsets, sizes.
 */
#include "cpu/insn/tables.h"
#include "insn_exec.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- Helpers --------------------------------------------------------------------------------- */

static struct insn insn; /* of the last decode() */

/* Decodes hexadecimal text. */
static enum decode_result decode_as(const char *hex, unsigned code, bool real,
                                    const struct insn_features *features)
{
    uint8_t bytes[32];
    unsigned count = 0;
    for (char *end; *hex; hex = end) {
        bytes[count++] = (uint8_t)strtoul(hex, &end, 16);
        while (*end == ' ')
            end++;
    }
    return insn_decode(bytes, count, code, real, features, &insn);
}

static enum decode_result decode(const char *hex, unsigned code)
{
    return decode_as(hex, code, false, NULL);
}

#define ASSERT_OK(hex, code, name, length)                                                         \
    do {                                                                                           \
        ck_assert_msg(decode(hex, code) == DECODE_OK, "%s in %u-bit code", hex, code);             \
        ck_assert_str_eq(insn.row->mnemonic, name);                                                \
        ck_assert_uint_eq(insn.len, length);                                                       \
    } while (0)
#define ASSERT_UD(hex, code)                                                                       \
    ck_assert_msg(decode(hex, code) == DECODE_UD, "%s in %u-bit code is not #UD", hex, code)
#define ASSERT_OP(n, k, r, s)                                                                      \
    do {                                                                                           \
        ck_assert_uint_eq(insn.op[n].kind, k);                                                     \
        ck_assert_uint_eq(insn.op[n].reg, r);                                                      \
        ck_assert_uint_eq(insn.op[n].size, s);                                                     \
    } while (0)

static struct insn_features without(unsigned feature)
{
    struct insn_features features;
    memset(&features, 0xff, sizeof(features));
    features.bits[FEAT_AMD / 64] &= ~(1ull << (FEAT_AMD % 64));
    features.bits[feature / 64] &= ~(1ull << (feature % 64));
    return features;
}

/* An AMD processor that has everything. */
static struct insn_features amd(void)
{
    struct insn_features features;
    memset(&features, 0xff, sizeof(features));
    features.bits[FEAT_INTEL / 64] &= ~(1ull << (FEAT_INTEL % 64));
    return features;
}

/* ---- Prefixes -------------------------------------------------------------------------------- */

START_TEST(rex_counts_only_directly_before_the_opcode)
{
    ASSERT_OK("48 01 d8", 64, "add", 3);
    ASSERT_OP(0, OPND_GPR, 0, 8);
    ck_assert_uint_eq(insn.rex, 0x48);
    ASSERT_OK("48 66 01 d8", 64, "add", 4); /* 66 behind REX: REX is dropped */
    ASSERT_OP(0, OPND_GPR, 0, 2);
    ck_assert_uint_eq(insn.rex, 0);
    ASSERT_OK("41 48 01 d8", 64, "add", 4); /* the last of two */
    ASSERT_OP(0, OPND_GPR, 0, 8);
    ASSERT_OK("66 48 01 d8", 64, "add", 4); /* REX.W wins over 66 */
    ASSERT_OP(0, OPND_GPR, 0, 8);
    ASSERT_OK("48", 32, "dec", 1);
}
END_TEST

START_TEST(byte_registers_with_and_without_rex)
{
    ASSERT_OK("88 e7", 64, "mov", 2);
    ASSERT_OP(0, OPND_GPR8H, 3, 1); /* BH */
    ASSERT_OP(1, OPND_GPR8H, 0, 1); /* AH */
    ASSERT_OK("40 88 e7", 64, "mov", 3);
    ASSERT_OP(0, OPND_GPR, 7, 1); /* DIL */
    ASSERT_OP(1, OPND_GPR, 4, 1); /* SPL */
    ASSERT_OK("b4 01", 64, "mov", 2);
    ASSERT_OP(0, OPND_GPR8H, 0, 1);
}
END_TEST

START_TEST(last_prefix_of_a_group_wins)
{
    ASSERT_OK("f2 f3 a4", 32, "movs", 3);
    ck_assert_uint_eq(insn.rep, 0xf3);
    ASSERT_OK("f3 f2 0f 58 c1", 64, "addsd", 5);
    ASSERT_OK("f2 f3 0f 58 c1", 64, "addss", 5);
    ASSERT_OK("f3 66 0f 58 c1", 64, "addss", 5); /* F2 and F3 win over 66 in any order */
    ASSERT_OK("2e 64 8b 00", 32, "mov", 4);
    ck_assert_uint_eq(insn.mem.seg, SEG_FS);
    ASSERT_OK("64 2e 8b 00", 32, "mov", 4);
    ck_assert_uint_eq(insn.mem.seg, SEG_CS);
    ASSERT_OK("64 2e 8b 00", 64, "mov", 4); /* CS is as if absent in 64-bit code */
    ck_assert_uint_eq(insn.mem.seg, SEG_FS);
}
END_TEST

START_TEST(default_segments)
{
    ASSERT_OK("8b 45 00", 32, "mov", 3);
    ck_assert_uint_eq(insn.mem.seg, SEG_SS); /* [ebp] */
    ASSERT_OK("8b 04 24", 64, "mov", 3);
    ck_assert_uint_eq(insn.mem.seg, SEG_SS); /* [rsp] */
    ASSERT_OK("41 8b 45 00", 64, "mov", 4);
    ck_assert_uint_eq(insn.mem.seg, SEG_DS); /* [r13] */
    ASSERT_OK("8b 04 6d 00 00 00 00", 32, "mov", 7);
    ck_assert_uint_eq(insn.mem.seg, SEG_DS); /* [ebp*2] */
    ASSERT_OK("8b 02", 16, "mov", 2);
    ck_assert_uint_eq(insn.mem.seg, SEG_SS); /* [bp+si] */
    ASSERT_OK("26 a4", 16, "movs", 2);
    ck_assert_uint_eq(insn.mem.seg, SEG_ES);
    ASSERT_OK("3e 8b 45 00", 64, "mov", 4);
    ck_assert_uint_eq(insn.mem.seg, SEG_SS);
}
END_TEST

START_TEST(lock_needs_a_legal_row_and_memory)
{
    ASSERT_OK("f0 01 18", 32, "add", 3);
    ck_assert(insn.lock);
    ASSERT_UD("f0 01 d8", 32); /* register destination */
    ASSERT_UD("f0 03 18", 32); /* memory is the source */
    ASSERT_UD("f0 39 18", 32); /* CMP does not write */
    ASSERT_UD("f0 90", 32);
    ASSERT_UD("f0 a4", 32);
    ASSERT_UD("f0 0f 20 c0", 32); /* not CR8: that is AMD's */
    ASSERT_OK("f0 0f c7 08", 32, "cmpxchg8b", 4);
    ASSERT_OK("f0 0f ba 28 01", 32, "bts", 5);
    ASSERT_UD("f0 0f ba 20 01", 32); /* BT */
}
END_TEST

/* ---- Length ---------------------------------------------------------------------------------- */

START_TEST(fifteen_bytes_and_no_more)
{
    ASSERT_OK("66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", 64, "nop", 15);
    ck_assert_int_eq(decode("66 66 66 66 66 66 66 66 66 66 66 66 66 66 66 90", 64), DECODE_LONG);
    ck_assert_int_eq(decode("66 66 66 66 66 66 66 66 66 66 66 66 66 66 66", 64), DECODE_LONG);
    ck_assert_int_eq(decode("66 66 66 66 66 66 66 66 66 66 66 66 66 66", 64), DECODE_MORE);
    /* 11 prefixes + 01 + ModRM + disp32 would be 17 */
    ck_assert_int_eq(decode("2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 2e 01 05 00 00 00", 32), DECODE_LONG);
}
END_TEST

START_TEST(incomplete_bytes_ask_for_more)
{
    static const struct {
        const char *hex;
        unsigned code, len;
    } cases[] = {{"48 b8 01 02 03 04 05 06 07 08", 64, 10},
                 {"c7 84 24 01 02 03 04 05 06 07 08", 32, 11},
                 {"66 f2 0f 38 f1 44 88 7f", 64, 8},
                 {"c4 e2 79 18 44 88 7f", 64, 7},
                 {"c5 f8 58 c1", 32, 4},
                 {"9a 01 02 03 04 05 06", 32, 7},
                 {"c8 01 02 03", 16, 4},
                 {"c4 e3 79 4a c1 20", 64, 6}};
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_int_eq(decode(cases[i].hex, cases[i].code), DECODE_OK);
        ck_assert_uint_eq(insn.len, cases[i].len);
        uint8_t bytes[15];
        memcpy(bytes, insn.bytes, sizeof(bytes));
        for (unsigned avail = 0; avail < cases[i].len; avail++) {
            struct insn cut;
            ck_assert_int_eq(insn_decode(bytes, avail, cases[i].code, false, NULL, &cut),
                             DECODE_MORE);
        }
        ck_assert_int_eq(insn_decode(bytes, cases[i].len, cases[i].code, false, NULL, &insn),
                         DECODE_OK);
    }
}
END_TEST

START_TEST(undefined_is_known_as_early_as_possible)
{
    ck_assert_int_eq(decode("0f 04", 64), DECODE_UD);
    ck_assert_uint_eq(insn.len, 2);
    ck_assert_int_eq(decode("62", 64), DECODE_UD);
    ck_assert_int_eq(decode("62", 32), DECODE_MORE); /* BOUND */
    ck_assert_int_eq(decode("0f", 32), DECODE_MORE);
}
END_TEST

/* ---- Sizes ----------------------------------------------------------------------------------- */

START_TEST(operand_size_of_stack_and_branches)
{
    ASSERT_OK("50", 64, "push", 1);
    ASSERT_OP(0, OPND_GPR, 0, 8);
    ASSERT_OK("66 50", 64, "push", 2);
    ASSERT_OP(0, OPND_GPR, 0, 2);
    ASSERT_OK("e8 01 02 03 04", 64, "call", 5);
    ck_assert_uint_eq(insn.opsize, 8);
    ASSERT_OK("66 e8 01 02 03 04", 64, "call", 6); /* Intel ignores 66 */
    ck_assert_uint_eq(insn.opsize, 8);
    ck_assert_int_eq(insn.imm, 0x04030201);
    ASSERT_OK("66 e8 fe ff", 32, "call", 4);
    ck_assert_uint_eq(insn.opsize, 2);
    ck_assert_int_eq(insn.imm, -2);
    ASSERT_OK("66 ff d0", 64, "call", 3);
    ASSERT_OP(0, OPND_GPR, 0, 8);
    ASSERT_OK("6a ff", 64, "push", 2);
    ck_assert_int_eq(insn.imm, -1);
    ck_assert_uint_eq(insn.opsize, 8);
    ASSERT_OK("cf", 64, "iret", 1);
    ck_assert_uint_eq(insn.opsize, 4);
    ASSERT_OK("0f 22 d8", 16, "mov", 3);
    ASSERT_OP(1, OPND_GPR, 0, 4); /* control registers: 32 bits even in 16-bit code */
    ASSERT_OK("0f 22 d8", 64, "mov", 3);
    ASSERT_OP(1, OPND_GPR, 0, 8);
}
END_TEST

START_TEST(addresses)
{
    ASSERT_OK("67 8b 00", 16, "mov", 3);
    ck_assert_uint_eq(insn.adsize, 4);
    ck_assert_uint_eq(insn.mem.base, 0);
    ASSERT_OK("8b 40 ff", 16, "mov", 3); /* [bx+si-1] */
    ck_assert_uint_eq(insn.mem.base, 3);
    ck_assert_uint_eq(insn.mem.index, 6);
    ck_assert_int_eq(insn.mem.disp, -1);
    ASSERT_OK("8b 0e 34 f2", 16, "mov", 4);
    ck_assert_uint_eq(insn.mem.base, REG_NONE);
    ASSERT_OK("8b 05 fc ff ff ff", 64, "mov", 6);
    ck_assert_uint_eq(insn.mem.base, REG_PC);
    ck_assert_int_eq(insn.mem.disp, -4);
    ASSERT_OK("8b 04 25 00 00 00 80", 64, "mov", 7);
    ck_assert_uint_eq(insn.mem.base, REG_NONE);
    ck_assert_uint_eq(insn.mem.index, REG_NONE);
    ck_assert_int_eq(insn.mem.disp, INT32_MIN);
    ASSERT_OK("42 8b 04 e0", 64, "mov", 4); /* index 12 is R12, not "none" */
    ck_assert_uint_eq(insn.mem.index, 12);
    ck_assert_uint_eq(insn.mem.scale, 3);
    ASSERT_OK("a1 01 02 03 04 05 06 07 f8", 64, "mov", 9);
    ck_assert_int_eq(insn.mem.disp, (int64_t)0xf807060504030201ull);
    ck_assert_uint_eq(insn.off_disp, 1);
    ASSERT_OK("67 a1 01 02 03 f4", 64, "mov", 6);
    ck_assert_int_eq(insn.mem.disp, 0xf4030201);
    ASSERT_OK("a1 01 f2", 16, "mov", 3);
    ck_assert_int_eq(insn.mem.disp, 0xf201);
}
END_TEST

START_TEST(immediates_and_offsets)
{
    ASSERT_OK("c8 34 12 85", 32, "enter", 4);
    ck_assert_int_eq(insn.imm, 0x1234);
    ck_assert_int_eq(insn.imm2, 0x85);
    ck_assert_uint_eq(insn.imm_size, 3);
    ASSERT_OK("9a 78 56 34 f2 cd ab", 32, "call", 7);
    ASSERT_OP(0, OPND_FAR, 0, 6);
    ck_assert_int_eq(insn.imm, 0xf2345678);
    ck_assert_int_eq(insn.imm2, 0xabcd);
    ASSERT_OK("ea 78 f6 cd ab", 16, "jmp", 5);
    ck_assert_int_eq(insn.imm, 0xf678);
    ASSERT_OK("66 81 84 24 44 33 22 11 88 f7", 32, "add", 10);
    ck_assert_uint_eq(insn.off_opcode, 1);
    ck_assert_uint_eq(insn.off_modrm, 2);
    ck_assert_uint_eq(insn.off_disp, 4);
    ck_assert_uint_eq(insn.disp_size, 4);
    ck_assert_uint_eq(insn.off_imm, 8);
    ck_assert_uint_eq(insn.imm_size, 2);
    ck_assert_int_eq(insn.imm, (int16_t)0xf788);
    ASSERT_OK("83 c0 80", 64, "add", 3);
    ck_assert_int_eq(insn.imm, -128);
    ASSERT_OK("04 80", 64, "add", 2);
    ck_assert_int_eq(insn.imm, 0x80);
    ASSERT_OK("48 c7 c0 00 00 00 80", 64, "mov", 7);
    ck_assert_int_eq(insn.imm, INT32_MIN);
}
END_TEST

/* ---- What does not exist --------------------------------------------------------------------- */

START_TEST(registers_that_do_not_exist)
{
    ASSERT_OK("0f 20 c0", 64, "mov", 3);
    ASSERT_UD("0f 20 c8", 64);              /* CR1 */
    ASSERT_UD("0f 20 e8", 64);              /* CR5 */
    ASSERT_OK("44 0f 20 c0", 64, "mov", 4); /* CR8 */
    ASSERT_UD("44 0f 20 c8", 64);           /* CR9 */
    ASSERT_UD("44 0f 21 c0", 64);           /* DR8 */
    ASSERT_OK("0f 21 e0", 64, "mov", 3);    /* DR4: CR4.DE decides later */
    ASSERT_OK("0f 20 00", 32, "mov", 3);    /* mod is ignored */
    ASSERT_OP(0, OPND_GPR, 0, 4);
    ck_assert(!insn.has_mem);
    ASSERT_UD("8e c8", 32); /* MOV CS */
    ASSERT_OK("8c c8", 32, "mov", 2);
    ASSERT_UD("8c f0", 32); /* segment 6 */
    ASSERT_UD("8e f8", 32);
    ASSERT_OK("44 8e d8", 64, "mov", 3); /* REX.R does not reach segment registers */
    ASSERT_OP(0, OPND_SEG, SEG_DS, 2);
}
END_TEST

START_TEST(modes)
{
    static const char *const not64[] = {"06",       "27",
                                        "37",       "60",
                                        "61",       "9a 0 0 0 0 0 0",
                                        "ce",       "d4 0a",
                                        "d6",       "ea 0 0 0 0 0 0",
                                        "82 c0 01", "c4 00 00",
                                        "62 00"};
    for (unsigned i = 0; i < sizeof(not64) / sizeof(not64[0]); i++) {
        ASSERT_UD(not64[i], 64);
        ck_assert_int_eq(decode(not64[i], 32), DECODE_OK);
    }
    ASSERT_OK("63 c8", 32, "arpl", 2);
    ASSERT_OK("63 c8", 64, "movsxd", 2);
    ck_assert_int_eq(decode_as("63 c8", 16, true, NULL), DECODE_UD);
    ck_assert_int_eq(decode_as("0f 00 c0", 16, true, NULL), DECODE_UD); /* SLDT */
    ck_assert_int_eq(decode_as("0f 01 c0", 16, true, NULL), DECODE_UD); /* no VMX */
    ck_assert_int_eq(decode_as("0f 20 c0", 16, true, NULL), DECODE_OK);
    ASSERT_UD("0f 01 f8", 32);          /* SWAPGS */
    ASSERT_UD("f3 0f ae c0", 32);       /* RDFSBASE */
    ASSERT_UD("62 f1 7c 48 58 c1", 32); /* EVEX */
    ASSERT_UD("62 f1 7c 48 58 c1", 64);
    ASSERT_UD("8f e9 78 01 c8", 64); /* XOP */
    ASSERT_UD("0f 0f c1 9e", 32);    /* 3DNow! */
}
END_TEST

START_TEST(vex_rules)
{
    ASSERT_OK("c5 f0 58 c2", 64, "vaddps", 4);
    ASSERT_OP(0, OPND_XMM, 0, 16);
    ASSERT_OP(1, OPND_XMM, 1, 16);
    ASSERT_OP(2, OPND_XMM, 2, 16);
    ASSERT_OK("c5 f4 58 c2", 32, "vaddps", 4);
    ASSERT_OP(0, OPND_YMM, 0, 32);
    ASSERT_OK("c5 00", 32, "lds", 2);
    ASSERT_OK("c4 00", 16, "les", 2);
    ck_assert_int_eq(decode_as("c5 f0 58 c2", 16, true, NULL), DECODE_UD);
    ck_assert_int_eq(decode_as("c5 00", 16, true, NULL), DECODE_OK);
    ASSERT_UD("66 c5 f0 58 c2", 64);
    ASSERT_UD("f2 c5 f0 58 c2", 64);
    ASSERT_UD("f3 c5 f0 58 c2", 32);
    ASSERT_UD("f0 c5 f0 58 c2", 64);
    ASSERT_UD("48 c5 f0 58 c2", 64);
    ASSERT_OK("48 2e c5 f0 58 c2", 64, "vaddps", 6); /* this REX is not in force */
    ASSERT_UD("c5 f0 28 c2", 64);                    /* VMOVAPS: vvvv must be 1111b */
    ASSERT_OK("c5 f8 28 c2", 64, "vmovaps", 4);
    ASSERT_UD("c4 e0 70 58 c2", 64); /* map 0 */
    ASSERT_UD("c4 e4 70 58 c2", 64); /* map 4 */
    ASSERT_OK("c4 41 30 58 c2", 64, "vaddps", 5);
    ASSERT_OP(0, OPND_XMM, 8, 16);
    ASSERT_OP(1, OPND_XMM, 9, 16);
    ASSERT_OP(2, OPND_XMM, 10, 16);
    ASSERT_OK("c4 e3 79 4a c1 f0", 32, "vblendvps", 6); /* is4: bit 7 is ignored */
    ASSERT_OP(3, OPND_XMM, 7, 16);
    ASSERT_OK("c4 e3 79 4a c1 f0", 64, "vblendvps", 6);
    ASSERT_OP(3, OPND_XMM, 15, 16);
    ASSERT_OK("c4 e1 30 58 c2", 32, "vaddps", 5); /* and so is the top bit of vvvv */
    ASSERT_OP(1, OPND_XMM, 1, 16);
    ASSERT_OK("c4 e2 f8 f2 c3", 32, "andn", 5); /* W is ignored outside 64-bit code */
    ASSERT_OP(0, OPND_GPR, 0, 4);
    ASSERT_OK("c4 e2 f8 f2 c3", 64, "andn", 5);
    ASSERT_OP(0, OPND_GPR, 0, 8);
}
END_TEST

START_TEST(gathers_need_three_registers)
{
    ASSERT_OK("c4 e2 71 90 04 90", 64, "vpgatherdd", 6);
    ck_assert(insn.mem.vsib);
    ck_assert_uint_eq(insn.mem.index, 2);
    ASSERT_UD("c4 e2 79 90 04 90", 64);                  /* mask = destination */
    ASSERT_UD("c4 e2 71 90 04 80", 64);                  /* index = destination */
    ASSERT_UD("c4 e2 69 90 04 90", 64);                  /* index = mask */
    ASSERT_UD("c4 e2 71 90 00", 64);                     /* no SIB */
    ASSERT_UD("67 c4 e2 71 90 04 90", 32);               /* 16-bit addressing has none */
    ASSERT_OK("c4 e2 71 90 04 a0", 64, "vpgatherdd", 6); /* index 4 exists here */
    ck_assert_uint_eq(insn.mem.index, 4);
}
END_TEST

/* ---- Features -------------------------------------------------------------------------------- */

START_TEST(features_gate_rows)
{
    static const struct {
        const char *hex, *with, *fallback; /* NULL: #UD */
        unsigned feature;
    } cases[] = {
        {"f3 0f bc c1", "tzcnt", "bsf", FEAT_BMI1},
        {"f3 0f bd c1", "lzcnt", "bsr", FEAT_LZCNT},
        {"f3 0f b8 c1", "popcnt", NULL, FEAT_POPCNT},
        {"0f 18 08", "prefetcht0", "nop", FEAT_SSE},
        {"0f 0d 08", "prefetchw", "nop", FEAT_PREFETCHW},
        {"c5 f0 58 c2", "vaddps", NULL, FEAT_AVX},
        {"9f", "lahf", NULL, FEAT_LAHF64},
        {"0f 05", "syscall", NULL, FEAT_SYSCALL},
        {"48 0f c7 08", "cmpxchg16b", NULL, FEAT_CX16},
        {"0f c7 08", "cmpxchg8b", NULL, FEAT_CX8},
        {"0f 44 c1", "cmove", NULL, FEAT_CMOV},
        {"0f 38 f0 00", "movbe", NULL, FEAT_MOVBE},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct insn_features features = without(cases[i].feature);
        ASSERT_OK(cases[i].hex, 64, cases[i].with, insn.len);
        enum decode_result result = decode_as(cases[i].hex, 64, false, &features);
        if (cases[i].fallback) {
            ck_assert_int_eq(result, DECODE_OK);
            ck_assert_str_eq(insn.row->mnemonic, cases[i].fallback);
        } else {
            ck_assert_int_eq(result, DECODE_UD);
        }
    }
    ASSERT_OK("f3 0f 1e fa", 64, "nop", 4); /* ENDBR64 */
    ASSERT_OK("f3 0f bc c1", 16, "tzcnt", 4);
}
END_TEST

/* One byte string, two meanings: SDM vol. 2 and APM vol. 3 under each name. A NULL name is #UD. */
START_TEST(vendors_differ)
{
    static const struct {
        const char *hex;
        unsigned code;
        const char *intel, *amd;
        uint8_t intel_len, amd_len, intel_opsize, amd_opsize;
    } cases[] = {
        /* 66 and near branches in 64-bit code: AMD's rel16 and 16-bit RIP */
        {"66 e8 00 00 00 00", 64, "call", "call", 6, 4, 8, 2},
        {"66 e9 00 00 00 00", 64, "jmp", "jmp", 6, 4, 8, 2},
        {"66 0f 84 00 00 00 00", 64, "je", "je", 7, 5, 8, 2},
        {"66 74 00", 64, "je", "je", 3, 3, 8, 2},
        {"66 c3", 64, "ret", "ret", 2, 2, 8, 2},
        {"66 ff e0", 64, "jmp", "jmp", 3, 3, 8, 2},
        {"66 48 e9 00 00 00 00", 64, "jmp", "jmp", 7, 7, 8, 8}, /* REX.W wins */
        {"66 e9 00 00 00 00", 32, "jmp", "jmp", 4, 4, 2, 2},
        {"0f 0d c0", 64, "nop", NULL, 3, 0, 0, 0},
        {"0f 0d c0", 32, "nop", NULL, 3, 0, 0, 0},
        {"0f 0d 00", 64, "nop", "nop", 3, 3, 4, 4},
        {"f3 41 90", 64, "pause", "xchg", 3, 3, 4, 4},
        {"f3 90", 64, "pause", "pause", 2, 2, 4, 4},
        {"c4 e3 f9 16 c0 00", 32, "vpextrd", NULL, 6, 0, 0, 0},
        {"c4 e3 f9 22 c0 00", 32, "vpinsrd", NULL, 6, 0, 0, 0},
        {"c4 e3 f9 16 c0 00", 64, "vpextrq", "vpextrq", 6, 6, 8, 8},
        {"c4 e3 79 16 c0 00", 32, "vpextrd", "vpextrd", 6, 6, 4, 4},
        {"f0 0f 22 c0", 64, NULL, "mov", 0, 4, 0, 8}, /* LOCK MOV CR0: MOV CR8 */
        {"f0 0f 20 c0", 32, NULL, "mov", 0, 4, 0, 4},
        {"f0 0f 20 d0", 32, NULL, NULL, 0, 0, 0, 0},    /* CR10 */
        {"f0 44 0f 20 c0", 64, NULL, NULL, 0, 0, 0, 0}, /* CR16 */
        {"0f ff c0", 64, "ud0", "ud0", 3, 2, 4, 4},
        {"0f b9 c0", 64, "ud1", "ud1", 3, 2, 4, 4},
    };
    const struct insn_features amd_features = amd();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (unsigned vendor = 0; vendor < 2; vendor++) {
            const char *name = vendor ? cases[i].amd : cases[i].intel;
            enum decode_result result =
                decode_as(cases[i].hex, cases[i].code, false, vendor ? &amd_features : NULL);
            ck_assert_msg(result == (name ? DECODE_OK : DECODE_UD), "%s as %s", cases[i].hex,
                          vendor ? "AMD" : "Intel");
            if (!name)
                continue;
            ck_assert_str_eq(insn.row->mnemonic, name);
            ck_assert_uint_eq(insn.len, vendor ? cases[i].amd_len : cases[i].intel_len);
            unsigned opsize = vendor ? cases[i].amd_opsize : cases[i].intel_opsize;
            ck_assert_msg(!opsize || insn.opsize == opsize, "%s: operand size %u", cases[i].hex,
                          insn.opsize);
        }
    }
}
END_TEST

/* Sizes of operands in memory, and registers, that depend on the vendor. */
START_TEST(vendors_differ_in_operands)
{
    const struct insn_features amd_features = amd();
    ASSERT_OK("66 63 00", 64, "movsxd", 3);
    ASSERT_OP(1, OPND_MEM, 0, 2);
    ck_assert_int_eq(decode_as("66 63 00", 64, false, &amd_features), DECODE_OK);
    ASSERT_OP(0, OPND_GPR, 0, 2);
    ASSERT_OP(1, OPND_MEM, 0, 4);
    ASSERT_OK("48 ff 28", 64, "jmp", 3); /* far, m16:64 */
    ASSERT_OP(0, OPND_MEM, 0, 10);
    ck_assert_int_eq(decode_as("48 ff 28", 64, false, &amd_features), DECODE_OK);
    ASSERT_OP(0, OPND_MEM, 0, 6);
    ASSERT_OK("48 0f b4 00", 64, "lfs", 4);
    ASSERT_OP(1, OPND_MEM, 0, 10);
    ck_assert_int_eq(decode_as("48 0f b4 00", 64, false, &amd_features), DECODE_OK);
    ASSERT_OP(1, OPND_MEM, 0, 6);
    ck_assert_int_eq(decode_as("f0 0f 20 c0", 32, false, &amd_features), DECODE_OK);
    ASSERT_OP(1, OPND_CR, 8, 4);
}
END_TEST

/* ---- Rows ------------------------------------------------------------------------------------ */

START_TEST(one_opcode_many_meanings)
{
    ASSERT_OK("90", 64, "nop", 1);
    ASSERT_OK("48 90", 64, "nop", 2);
    ASSERT_OK("41 90", 64, "xchg", 2);
    ASSERT_OP(0, OPND_GPR, 8, 4);
    ASSERT_OK("f3 90", 64, "pause", 2);
    ASSERT_OK("f3 41 90", 64, "pause", 3);
    ASSERT_OK("f2 90", 64, "nop", 2);
    ASSERT_OK("93", 64, "xchg", 1);
    ASSERT_OP(0, OPND_GPR, 3, 4);
    ASSERT_OK("f2 66 0f 38 f1 c1", 64, "crc32", 6);
    ASSERT_OP(0, OPND_GPR, 0, 4);
    ASSERT_OP(1, OPND_GPR, 1, 2);
    ASSERT_OK("66 0f 38 f1 00", 64, "movbe", 5);
    ASSERT_OP(0, OPND_MEM, 0, 2);
    ASSERT_UD("f3 0f 38 f1 00", 64);
    ASSERT_OK("66 0f c7 f0", 64, "rdrand", 4);
    ASSERT_OP(0, OPND_GPR, 0, 2);
    ASSERT_OK("f3 0f c7 f8", 64, "rdpid", 4);
    ASSERT_OP(0, OPND_GPR, 0, 8);
    ASSERT_OK("0f ae e8", 64, "lfence", 3);
    ASSERT_UD("66 0f ae e8", 64);
    ASSERT_OK("0f 84 00 00 00 00", 32, "je", 6);
    ck_assert_uint_eq(insn.row->exec_arg, 4);
    ck_assert_uint_eq(insn.row->flags_read, FLAG_ZF);
    ASSERT_OK("7f 00", 32, "jg", 2);
    ck_assert_uint_eq(insn.row->flags_read, FLAG_ZF | FLAG_SF | FLAG_OF);
    ASSERT_OK("d0 f0", 32, "sal", 2);
    ck_assert_uint_eq(insn.row->exec, EXEC_shl);
    ASSERT_OK("f6 c8 01", 32, "test", 3);
}
END_TEST

START_TEST(implicit_operands_are_listed)
{
    ASSERT_OK("f7 e1", 64, "mul", 2);
    ck_assert_uint_eq(insn.opnds, 3);
    ASSERT_OP(1, OPND_GPR, 0, 4);
    ck_assert_uint_eq(insn.op[1].access, OPND_RW);
    ck_assert_uint_eq(insn.op[1].implicit, 2);
    ASSERT_OP(2, OPND_GPR, 2, 4);
    ck_assert_uint_eq(insn.op[2].access, OPND_W);
    ASSERT_OK("d3 e0", 64, "shl", 2);
    ASSERT_OP(1, OPND_GPR, 1, 1);
    ck_assert_uint_eq(insn.op[1].implicit, 1);
    ASSERT_OK("d7", 32, "xlat", 1);
    ASSERT_OP(1, OPND_MEM, 0, 1);
    ck_assert_uint_eq(insn.mem.base, 3);
    ASSERT_OK("64 d7", 32, "xlat", 2);
    ck_assert_uint_eq(insn.mem.seg, SEG_FS);
    ASSERT_OK("67 e3 00", 64, "jcxz", 3);
    ASSERT_OP(1, OPND_GPR, 1, 4);
    ASSERT_OK("c9", 64, "leave", 1);
    ASSERT_OP(0, OPND_GPR, 5, 8);
    ASSERT_OK("f0 48 0f c7 08", 64, "cmpxchg16b", 5);
    ASSERT_OP(0, OPND_MEM, 0, 16);
    ck_assert_uint_eq(insn.opnds, 5);
}
END_TEST

START_TEST(every_row_is_well_formed)
{
    for (unsigned i = 0; i < insn_row_count; i++) {
        const struct insn_row *row = &insn_rows[i];
        ck_assert_uint_eq(row->id, i);
        ck_assert_uint_lt(row->exec, EXEC_COUNT);
        ck_assert_uint_lt(row->feature, FEAT_COUNT);
        ck_assert_uint_lt(row->map, MAP_COUNT);
        ck_assert_uint_eq(row->flags_undefined & ~row->flags_written, 0);
        ck_assert_msg(!(row->attr & INSN_COND) || (row->attr & INSN_BRANCH), "%s", row->encoding);
        ck_assert_msg(!(row->attr & INSN_BRANCH) || (row->attr & INSN_END), "%s", row->encoding);
        /* Nothing that could leak or change the host may be copied by the translator. */
        ck_assert_msg(!(row->attr & INSN_PASS) || !(row->attr & (INSN_SYSTEM | INSN_BRANCH)),
                      "%s %s", row->mnemonic, row->encoding);
        ck_assert_msg(!(row->attr & INSN_PASS) || !(row->attr & INSN_NO64), "%s %s", row->mnemonic,
                      row->encoding);
    }
}
END_TEST

START_TEST(operands_keep_their_row_order)
{
    /* The semantic functions rely on it: destination first. */
    ASSERT_OK("00 d8", 32, "add", 2);
    ck_assert_uint_eq(insn.op[0].access, OPND_RW);
    ck_assert_uint_eq(insn.op[1].access, OPND_R);
    ASSERT_OK("8d 04 08", 32, "lea", 3);
    ASSERT_OP(1, OPND_MEM, 0, 0);
    ck_assert_uint_eq(insn.op[1].access, 0);
}
END_TEST

/* ---- Text ------------------------------------------------------------------------------------ */

START_TEST(disassembly)
{
    static const uint8_t add[] = {0x48, 0x01, 0xd8, 0x90};
    static const uint8_t jump[] = {0xeb, 0x10};
    static const uint8_t bad[] = {0x0f, 0x04, 0, 0};
    char text[64];
    ck_assert_uint_eq(insn_disassemble(add, sizeof(add), 64, 0, text, sizeof(text)), 3);
    ck_assert_str_eq(text, "add rax, rbx");
    ck_assert_uint_eq(insn_disassemble(jump, sizeof(jump), 32, 0x1000, text, sizeof(text)), 2);
    ck_assert_str_eq(text, "jmp 0x1012");
    ck_assert_uint_eq(insn_disassemble(bad, sizeof(bad), 64, 0, text, sizeof(text)), 0);
    ck_assert_str_eq(text, "(bad)");
    ck_assert_uint_eq(insn_disassemble(add, 2, 64, 0, text, 4), 0);
    ck_assert_str_eq(text, "(ba");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("decode");
    TCase *tests = tcase_create("decode");
    tcase_add_test(tests, rex_counts_only_directly_before_the_opcode);
    tcase_add_test(tests, byte_registers_with_and_without_rex);
    tcase_add_test(tests, last_prefix_of_a_group_wins);
    tcase_add_test(tests, default_segments);
    tcase_add_test(tests, lock_needs_a_legal_row_and_memory);
    tcase_add_test(tests, fifteen_bytes_and_no_more);
    tcase_add_test(tests, incomplete_bytes_ask_for_more);
    tcase_add_test(tests, undefined_is_known_as_early_as_possible);
    tcase_add_test(tests, operand_size_of_stack_and_branches);
    tcase_add_test(tests, addresses);
    tcase_add_test(tests, immediates_and_offsets);
    tcase_add_test(tests, registers_that_do_not_exist);
    tcase_add_test(tests, modes);
    tcase_add_test(tests, vex_rules);
    tcase_add_test(tests, gathers_need_three_registers);
    tcase_add_test(tests, features_gate_rows);
    tcase_add_test(tests, vendors_differ);
    tcase_add_test(tests, vendors_differ_in_operands);
    tcase_add_test(tests, one_opcode_many_meanings);
    tcase_add_test(tests, implicit_operands_are_listed);
    tcase_add_test(tests, every_row_is_well_formed);
    tcase_add_test(tests, operands_keep_their_row_order);
    tcase_add_test(tests, disassembly);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
