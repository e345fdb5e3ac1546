/*
 * test_vec.c - vector instructions: every row runs, C and host agree, registers above the result,
 * MXCSR and SIMD exceptions, alignment. How each instruction computes is the oracle's
 * (tests/oracle).
 */
#include "tests/unit/cpu/vec_guest.h"

#include "cpu/insn/tables.h"

static struct guest *g;

static void setup(void)
{
    g = guest_new();
}
static void teardown(void)
{
    guest_free(g);
}

/* ---- Every row ------------------------------------------------------------------------------- */

/* Any encoding of a row: registers by number, or memory at [RAX]; RAX is DATA. */
static bool encode_row(unsigned id, unsigned reg, unsigned vvvv, unsigned rm, bool memory,
                       struct insn *insn)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};
    const struct insn_match *m = &insn_matches[id];
    const struct insn_shape *shape = &insn_shapes[id];
    uint8_t b[15] = {0};
    unsigned n = 0, pp = (unsigned)__builtin_ctz(m->allow[DIM_PREFIX]);
    unsigned w = m->allow[DIM_W] == 2, length = m->allow[DIM_L] == 2;
    if (!(m->allow[DIM_MOD] & (memory ? 1 : 2)))
        return false;
    if (m->allow[DIM_REG] != 0xff) /* an opcode extension */
        reg = (unsigned)__builtin_ctz(m->allow[DIM_REG]);
    if (m->allow[DIM_RM] != 0xff)
        rm = (unsigned)__builtin_ctz(m->allow[DIM_RM]);
    if (memory)
        rm = 0;
    if (m->map >= MAP_VEX0F) {
        b[n++] = 0xc4;
        b[n++] =
            (uint8_t)((reg & 8 ? 0 : 0x80) | 0x40 | (rm & 8 ? 0 : 0x20) | (m->map - MAP_VEX0F + 1));
        if (!(shape->flags & SHAPE_VVVV))
            vvvv = 0;
        b[n++] = (uint8_t)(w << 7 | (~vvvv & 15) << 3 | length << 2 | pp);
    } else {
        if (pp && m->map != MAP_X87)
            b[n++] = prefixes[pp];
        b[n++] = (uint8_t)(0x40 | w << 3 | (reg & 8) >> 1 | (rm & 8) >> 3);
        if (m->map == MAP_0F || m->map == MAP_0F38 || m->map == MAP_0F3A)
            b[n++] = 0x0f;
        if (m->map == MAP_0F38 || m->map == MAP_0F3A)
            b[n++] = m->map == MAP_0F38 ? 0x38 : 0x3a;
    }
    b[n++] = m->opcode;
    if (shape->flags & SHAPE_MODRM) {
        bool vsib = false;
        for (unsigned i = 0; i < shape->opnds; i++)
            vsib |= shape->op[i].source == SRC_MX || shape->op[i].source == SRC_MY;
        b[n++] = (uint8_t)((memory ? 0 : 0xc0) | (reg & 7) << 3 | (vsib ? 4 : rm & 7));
        if (vsib)
            b[n++] = 5 << 3; /* [RAX + XMM5] */
    }
    b[n] = 0x21; /* an immediate, if there is one */
    return insn_decode(b, sizeof(b), 64, false, NULL, insn) == DECODE_OK && insn->row->id == id;
}

static bool is_vector_row(const struct insn_row *row)
{
    return (row->attr & (INSN_SSE | INSN_AVX | INSN_MMX | INSN_X87)) != 0;
}

/* The host lacks what the row needs: nothing to be tested here. */
static bool host_has(unsigned feature)
{
    switch (feature) {
    case FEAT_AVX:
        return __builtin_cpu_supports("avx");
    case FEAT_AVX2:
        return __builtin_cpu_supports("avx2");
    case FEAT_FMA:
        return __builtin_cpu_supports("fma");
    case FEAT_F16C:
    case FEAT_SHA:
    case FEAT_VAES:
    case FEAT_VPCLMUL:
    case FEAT_GFNI: {
        static const struct {
            uint8_t feature, leaf, reg, bit;
        } table[] = {{FEAT_F16C, 1, 2, 29},
                     {FEAT_SHA, 7, 1, 29},
                     {FEAT_VAES, 7, 2, 9},
                     {FEAT_GFNI, 7, 2, 8},
                     {FEAT_VPCLMUL, 7, 2, 10}};
        for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
            unsigned r[4] = {table[i].leaf, 0, 0, 0};
            __asm__("cpuid" : "+a"(r[0]), "=b"(r[1]), "+c"(r[2]), "=d"(r[3]));
            if (table[i].feature == feature)
                return r[table[i].reg] >> table[i].bit & 1;
        }
        return false;
    }
    default:
        return true;
    }
}

static void fill(void)
{
    guest_reset(g);
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < 8; j++)
            g->cpu->ymm[i].d[j] = 0x3f800000 + 0x01234567 * (i + 1) * (j + 3);
    for (unsigned i = 0; i < 64; i++)
        g->ram[DATA + i] = (uint8_t)(0x3b + 29 * i);
    g->cpu->gpr[RAX] = DATA;
    g->cpu->gpr[RDI] = DATA;
    memset(&g->cpu->ymm[5], 0, 32);
}

START_TEST(test_every_row_runs)
{
    unsigned ran = 0;
    for (unsigned id = 0; id < insn_row_count; id++) {
        const struct insn_row *row = &insn_rows[id];
        if (!is_vector_row(row) || !host_has(row->feature) || (row->attr & INSN_NO64))
            continue;
        bool any = false;
        for (unsigned form = 0; form < 4; form++) {
            struct insn insn;
            if (!encode_row(id, form & 1 ? 9 : 1, 10, form & 1 ? 12 : 2, form & 2, &insn))
                continue;
            fill();
            if (row->exec == EXEC_x87_fldenv || row->exec == EXEC_x87_frstor ||
                row->exec == EXEC_vec_ldmxcsr)
                memset(g->ram + DATA, 0, 256);
            int vector = guest_execute(g, &insn);
            ck_assert_msg(vector == COMPLETED, "%s %s, form %u: vector %d", row->mnemonic,
                          row->encoding, form, vector);
            any = true;
        }
        ck_assert_msg(any, "%s %s has no encoding", row->mnemonic, row->encoding);
        ran++;
    }
    ck_assert_uint_gt(ran, 400);
}
END_TEST

/* The functions in C against the host's own instruction. */
START_TEST(test_c_agrees_with_host)
{
    static const uint16_t execs[] = {
        EXEC_vec_and,       EXEC_vec_andn,      EXEC_vec_or,        EXEC_vec_xor,
        EXEC_vec_paddb,     EXEC_vec_paddw,     EXEC_vec_paddd,     EXEC_vec_paddq,
        EXEC_vec_psubb,     EXEC_vec_psubw,     EXEC_vec_psubd,     EXEC_vec_psubq,
        EXEC_vec_pcmpeqb,   EXEC_vec_pcmpeqw,   EXEC_vec_pcmpeqd,   EXEC_vec_pminub,
        EXEC_vec_punpcklbw, EXEC_vec_punpcklwd, EXEC_vec_punpckldq, EXEC_vec_punpcklqdq,
        EXEC_vec_pshufd,    EXEC_vec_pmovmskb};
    unsigned compared = 0;
    for (unsigned id = 0; id < insn_row_count; id++) {
        bool wanted = false;
        for (unsigned i = 0; i < sizeof(execs) / sizeof(execs[0]); i++)
            wanted |= insn_rows[id].exec == execs[i];
        struct insn insn;
        if (!wanted || !host_has(insn_rows[id].feature))
            continue;
        for (unsigned form = 0; form < 2; form++) {
            if (!encode_row(id, 3, 4, 6, form, &insn))
                continue;
            fill();
            g->cpu->ymm[6] = g->cpu->ymm[4];
            g->cpu->ymm[6].b[3] ^= 0x40;
            ck_assert_int_eq(guest_execute(g, &insn), COMPLETED);
            union vreg c = g->cpu->ymm[3];
            uint64_t mask = g->cpu->gpr[3];
            fill();
            g->cpu->ymm[6] = g->cpu->ymm[4];
            g->cpu->ymm[6].b[3] ^= 0x40;
            vec_run(g->cpu, &insn, vec_prepare(g->cpu, &insn));
            ck_assert_msg(!memcmp(&c, &g->cpu->ymm[3], 32) && mask == g->cpu->gpr[3],
                          "%s %s differs", insn.row->mnemonic, insn.row->encoding);
            compared++;
        }
    }
    ck_assert_uint_ge(compared, 40);
}
END_TEST

/* ---- Registers ------------------------------------------------------------------------------- */

START_TEST(test_upper_half)
{
    union vreg ones;
    memset(&ones, 0xff, 32);
    g->cpu->ymm[1] = ones;
    ck_assert_int_eq(guest_run(g, "0f 58 ca"), COMPLETED); /* addps xmm1, xmm2 */
    ck_assert_uint_eq(g->cpu->ymm[1].q[2], ~0ull);
    ck_assert_uint_eq(g->cpu->ymm[1].q[3], ~0ull);
    if (!host_has(FEAT_AVX))
        return;
    g->cpu->ymm[1] = ones;
    ck_assert_int_eq(guest_run(g, "c5 e8 58 cb"), COMPLETED); /* vaddps xmm1, xmm2, xmm3 */
    ck_assert_uint_eq(g->cpu->ymm[1].q[2] | g->cpu->ymm[1].q[3], 0);
    g->cpu->ymm[9] = ones;
    ck_assert_int_eq(guest_run(g, "c4 41 78 28 ca"), COMPLETED); /* vmovaps xmm9, xmm10 */
    ck_assert_uint_eq(g->cpu->ymm[9].q[0] | g->cpu->ymm[9].q[3], 0);
}
END_TEST

START_TEST(test_cache_is_shared_by_registers)
{
    ck_assert_int_eq(guest_run(g, "0f 58 ca"), COMPLETED);
    unsigned stubs = g->cpu->vectors->stubs;
    ck_assert_int_eq(guest_run(g, "45 0f 58 ca"), COMPLETED); /* addps xmm9, xmm10 */
    g->cpu->gpr[RAX] = DATA;
    ck_assert_int_eq(guest_run(g, "0f 58 00"), COMPLETED); /* addps xmm0, [rax] */
    ck_assert_uint_eq(g->cpu->vectors->stubs, stubs);
    ck_assert_int_eq(guest_run(g, "0f 59 ca"), COMPLETED);
    ck_assert_uint_eq(g->cpu->vectors->stubs, stubs + 1);
}
END_TEST

/* A full arena is no error: stubs are then made each time. */
START_TEST(test_full_arena)
{
    struct vec_arena *arena = &g->cpu->vectors->arena;
    arena->used = arena->size;
    for (unsigned i = 0; i < 3; i++) {
        set_floats(&g->cpu->ymm[1], 1, 2, 3, 4);
        set_floats(&g->cpu->ymm[2], 10, 20, 30, 40);
        ck_assert_int_eq(guest_run(g, "0f 58 ca"), COMPLETED); /* addps */
        ck_assert_int_eq(guest_run(g, "0f 5c ca"), COMPLETED); /* subps */
        ck_assert_uint_eq(g->cpu->ymm[1].d[0], 0x3f800000);
        ck_assert_uint_eq(g->cpu->ymm[1].d[3], 0x40800000);
    }
    ck_assert_int_eq(guest_run(g, "d9 e8"), COMPLETED); /* fld1 */
    ck_assert_uint_eq(g->cpu->x87.st[0][9], 0x3f);
}
END_TEST

/* ---- MXCSR ----------------------------------------------------------------------------------- */

static uint32_t host_mxcsr(void)
{
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}

START_TEST(test_rounding_and_flags)
{
    set_floats(&g->cpu->ymm[1], 1, 1, 1, 1);
    set_floats(&g->cpu->ymm[2], 3, 3, 3, 3);
    g->cpu->mxcsr = MXCSR_INIT | 2 << 13;                  /* towards +infinity */
    ck_assert_int_eq(guest_run(g, "0f 5e ca"), COMPLETED); /* divps */
    ck_assert_uint_eq(g->cpu->ymm[1].d[0], 0x3eaaaaab);
    ck_assert_uint_eq(g->cpu->mxcsr, MXCSR_INIT | 2 << 13 | MXCSR_PE);
    ck_assert_uint_eq(host_mxcsr() & ~MXCSR_FLAGS, MXCSR_INIT);
    set_floats(&g->cpu->ymm[1], 1, 1, 1, 1);
    g->cpu->mxcsr = MXCSR_INIT | 3 << 13; /* towards zero */
    ck_assert_int_eq(guest_run(g, "0f 5e ca"), COMPLETED);
    ck_assert_uint_eq(g->cpu->ymm[1].d[0], 0x3eaaaaaa);
}
END_TEST

START_TEST(test_flags_of_host_do_not_leak)
{
    __asm__ volatile("ldmxcsr %0" : : "m"((uint32_t){MXCSR_INIT | MXCSR_IE | MXCSR_ZE}));
    set_floats(&g->cpu->ymm[1], 1, 1, 1, 1);
    set_floats(&g->cpu->ymm[2], 2, 2, 2, 2);
    ck_assert_int_eq(guest_run(g, "0f 58 ca"), COMPLETED);
    ck_assert_uint_eq(g->cpu->mxcsr, MXCSR_INIT);
}
END_TEST

START_TEST(test_unmasked_exception)
{
    set_floats(&g->cpu->ymm[1], 1, 1, 1, 1);
    set_floats(&g->cpu->ymm[2], 0, 3, 3, 3);
    union vreg before = g->cpu->ymm[1];
    g->cpu->mxcsr = MXCSR_INIT & ~(MXCSR_ZE << MXCSR_MASK_SHIFT);
    uint32_t control = g->cpu->mxcsr;
    ck_assert_int_eq(guest_run(g, "0f 5e ca"), VECTOR_XM);
    ck_assert(!memcmp(&before, &g->cpu->ymm[1], 32));
    /* #Z is found before the computation: the other elements' #P is not reported. */
    ck_assert_uint_eq(g->cpu->mxcsr, control | MXCSR_ZE);
    g->cpu->mxcsr = control;
    g->cpu->mode &= ~MODE_OSXMMEXCPT;
    ck_assert_int_eq(guest_run(g, "0f 5e ca"), VECTOR_UD);
    ck_assert_uint_eq(host_mxcsr() & ~MXCSR_FLAGS, MXCSR_INIT);
}
END_TEST

/* Unmasked underflow happens for tiny results that are exact. */
START_TEST(test_unmasked_exact_underflow)
{
    g->cpu->ymm[1].d[0] = 0x00800000; /* the smallest normal number */
    g->cpu->ymm[2].d[0] = 0x3f000000; /* 0.5 */
    uint32_t control = MXCSR_INIT & ~MXCSR_UM;
    g->cpu->mxcsr = control;
    ck_assert_int_eq(guest_run(g, "f3 0f 59 ca"), VECTOR_XM); /* mulss */
    ck_assert_uint_eq(g->cpu->mxcsr & MXCSR_FLAGS, MXCSR_UE);
    g->cpu->mxcsr = MXCSR_INIT;
    ck_assert_int_eq(guest_run(g, "f3 0f 59 ca"), COMPLETED);
    ck_assert_uint_eq(g->cpu->mxcsr, MXCSR_INIT);
    ck_assert_uint_eq(g->cpu->ymm[1].d[0], 0x00400000);
}
END_TEST

START_TEST(test_ldmxcsr_reserved)
{
    uint32_t value = 0x11f80;
    g->cpu->gpr[RAX] = DATA;
    memcpy(g->ram + DATA, &value, 4);
    ck_assert_int_eq(guest_run(g, "0f ae 10"), VECTOR_GP);
    ck_assert_uint_eq(g->cpu->mxcsr, MXCSR_INIT);
}
END_TEST

/* ---- Memory ---------------------------------------------------------------------------------- */

START_TEST(test_alignment)
{
    g->cpu->gpr[RAX] = DATA + 8;
    ck_assert_int_eq(guest_run(g, "0f 28 08"), VECTOR_GP); /* movaps */
    ck_assert_int_eq(guest_run(g, "0f 29 08"), VECTOR_GP);
    ck_assert_int_eq(guest_run(g, "0f 58 08"), VECTOR_GP);          /* addps */
    ck_assert_int_eq(guest_run(g, "66 0f fe 08"), VECTOR_GP);       /* paddd */
    ck_assert_int_eq(guest_run(g, "0f 10 08"), COMPLETED);          /* movups */
    ck_assert_int_eq(guest_run(g, "f3 0f 58 08"), COMPLETED);       /* addss */
    ck_assert_int_eq(guest_run(g, "66 0f 3a 63 08 00"), COMPLETED); /* pcmpistri */
    if (!host_has(FEAT_AVX))
        return;
    ck_assert_int_eq(guest_run(g, "c5 f0 58 08"), COMPLETED); /* vaddps */
    ck_assert_int_eq(guest_run(g, "c5 f8 28 08"), VECTOR_GP); /* vmovaps */
    g->cpu->gpr[RAX] = DATA + 16;
    ck_assert_int_eq(guest_run(g, "c5 fc 28 08"), VECTOR_GP); /* vmovaps ymm: 32 bytes */
    ck_assert_int_eq(guest_run(g, "c5 f8 28 08"), COMPLETED);
}
END_TEST

START_TEST(test_fault_commits_nothing)
{
    g->cpu->gpr[RAX] = DATA_END - 8;
    g->cpu->ymm[1].q[0] = 7;
    union vreg before = g->cpu->ymm[1];
    ck_assert_int_eq(guest_run(g, "0f 10 08"), VECTOR_PF);
    ck_assert(!memcmp(&before, &g->cpu->ymm[1], 32));
    ck_assert_int_eq(guest_run(g, "0f 11 08"), VECTOR_PF); /* a store that crosses into the hole */
    ck_assert_uint_eq(g->ram[DATA_END - 8], 0);
}
END_TEST

START_TEST(test_masked_moves)
{
    if (!host_has(FEAT_AVX))
        return;
    /* Elements 0 and 1 are on the last mapped page, 2 and 3 are not and not selected. */
    g->cpu->gpr[RAX] = DATA_END - 8;
    for (unsigned i = 0; i < 4; i++)
        g->cpu->ymm[3].d[i] = 0x11111111 * (i + 1);
    g->cpu->ymm[2].d[1] = 0x80000000;
    ck_assert_int_eq(guest_run(g, "c4 e2 69 2e 18"), COMPLETED); /* vmaskmovps [rax], xmm2, xmm3 */
    ck_assert_uint_eq(g->ram[DATA_END - 8], 0);
    ck_assert_uint_eq(g->ram[DATA_END - 4], 0x22);
    ck_assert_int_eq(guest_run(g, "c4 e2 69 2c 18"), COMPLETED); /* vmaskmovps xmm3, xmm2, [rax] */
    ck_assert_uint_eq(g->cpu->ymm[3].d[0], 0);
    ck_assert_uint_eq(g->cpu->ymm[3].d[1], 0x22222222);
    ck_assert_uint_eq(g->cpu->ymm[3].d[2], 0);
    g->cpu->ymm[2].d[2] = 0x80000000;
    ck_assert_int_eq(guest_run(g, "c4 e2 69 2c 18"), VECTOR_PF);
    g->ram[DATA_END - 4] = 0;
    ck_assert_int_eq(guest_run(g, "c4 e2 69 2e 18"), VECTOR_PF);
    ck_assert_uint_eq(g->ram[DATA_END - 4], 0); /* the good element neither */
}
END_TEST

START_TEST(test_gather_resumes)
{
    if (!host_has(FEAT_AVX2))
        return;
    g->cpu->gpr[RAX] = DATA;
    for (unsigned i = 0; i < 4; i++) {
        g->cpu->ymm[5].d[i] = 4 * i;
        g->cpu->ymm[2].d[i] = 0x80000000;
        g->cpu->ymm[1].d[i] = 0xcccccccc;
        memset(g->ram + DATA + 4 * i, (int)(0x10 + i), 4);
    }
    g->cpu->ymm[5].d[2] = DATA_END - DATA;
    ck_assert_int_eq(guest_run(g, "c4 e2 69 90 0c 28"),
                     VECTOR_PF); /* vpgatherdd xmm1,[rax+xmm5],xmm2 */
    ck_assert_uint_eq(g->cpu->ymm[1].d[1], 0x11111111);
    ck_assert_uint_eq(g->cpu->ymm[1].d[2], 0xcccccccc);
    ck_assert_uint_eq(g->cpu->ymm[2].q[0], 0);
    ck_assert_uint_eq(g->cpu->ymm[2].d[2], 0xffffffff);
    memset(g->ram + DATA, 0x99, 8); /* is not fetched again */
    g->cpu->ymm[5].d[2] = 12;
    ck_assert_int_eq(guest_run(g, "c4 e2 69 90 0c 28"), COMPLETED);
    ck_assert_uint_eq(g->cpu->ymm[1].d[0], 0x10101010);
    ck_assert_uint_eq(g->cpu->ymm[1].d[2], 0x13131313);
    ck_assert_uint_eq(g->cpu->ymm[2].q[0] | g->cpu->ymm[2].q[1], 0);
    /* Mask = destination: #UD, whoever finds it. */
    ck_assert_int_ne(guest_run(g, "c4 e2 69 90 14 28"), COMPLETED);
}
END_TEST

/* ---- Flags and general registers ------------------------------------------------------------- */

START_TEST(test_flags)
{
    set_floats(&g->cpu->ymm[1], 1, 0, 0, 0);
    set_floats(&g->cpu->ymm[2], 2, 0, 0, 0);
    g->cpu->rflags |= FLAG_OF | FLAG_SF | FLAG_AF | RFLAGS_DF;
    ck_assert_int_eq(guest_run(g, "0f 2f ca"), COMPLETED); /* comiss: less */
    ck_assert_uint_eq(g->cpu->rflags, RFLAGS_FIXED | RFLAGS_DF | FLAG_CF);
    g->cpu->ymm[2].d[0] = 0x7fc00000;
    ck_assert_int_eq(guest_run(g, "0f 2e ca"), COMPLETED); /* ucomiss: unordered */
    ck_assert_uint_eq(g->cpu->rflags & FLAGS_ARITH, FLAG_CF | FLAG_PF | FLAG_ZF);
    ck_assert_uint_eq(g->cpu->mxcsr, MXCSR_INIT);
    /* pcmpistri xmm1, xmm2, equal each: index in ECX, upper half zeroed */
    memcpy(&g->cpu->ymm[1], "abcdefghijklmnop", 16);
    memcpy(&g->cpu->ymm[2], "abcXefghijklmnop", 16);
    g->cpu->gpr[RCX] = ~0ull;
    ck_assert_int_eq(guest_run(g, "66 0f 3a 63 ca 18"), COMPLETED); /* negated */
    ck_assert_uint_eq(g->cpu->gpr[RCX], 3);
    ck_assert_uint_eq(g->cpu->rflags & FLAG_CF, FLAG_CF);
}
END_TEST

START_TEST(test_general_registers)
{
    g->cpu->gpr[R9] = 0xfffffffffffffff9;                        /* -7 */
    ck_assert_int_eq(guest_run(g, "f2 4d 0f 2a d1"), COMPLETED); /* cvtsi2sd xmm10, r9 */
    ck_assert_uint_eq(g->cpu->ymm[10].q[0], 0xc01c000000000000);
    ck_assert_int_eq(guest_run(g, "f2 45 0f 2c fa"), COMPLETED); /* cvttsd2si r15d, xmm10 */
    ck_assert_uint_eq(g->cpu->gpr[R15], 0xfffffff9);
    ck_assert_int_eq(guest_run(g, "f2 4d 0f 2c fa"), COMPLETED); /* r15 */
    ck_assert_uint_eq(g->cpu->gpr[R15], 0xfffffffffffffff9);
    ck_assert_int_eq(guest_run(g, "66 41 0f 3a 16 d2 01"), COMPLETED); /* pextrd r10d, xmm2, 1 */
    ck_assert_uint_eq(g->cpu->gpr[R10], 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vec");
    TCase *tc = tcase_create("vec");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_every_row_runs);
    tcase_add_test(tc, test_c_agrees_with_host);
    tcase_add_test(tc, test_upper_half);
    tcase_add_test(tc, test_cache_is_shared_by_registers);
    tcase_add_test(tc, test_full_arena);
    tcase_add_test(tc, test_rounding_and_flags);
    tcase_add_test(tc, test_flags_of_host_do_not_leak);
    tcase_add_test(tc, test_unmasked_exception);
    tcase_add_test(tc, test_unmasked_exact_underflow);
    tcase_add_test(tc, test_ldmxcsr_reserved);
    tcase_add_test(tc, test_alignment);
    tcase_add_test(tc, test_fault_commits_nothing);
    tcase_add_test(tc, test_masked_moves);
    tcase_add_test(tc, test_gather_resumes);
    tcase_add_test(tc, test_flags);
    tcase_add_test(tc, test_general_registers);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
