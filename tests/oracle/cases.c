/*
 * cases.c - random cases for a row: bytes, registers, memory; and which rows cannot be compared.
 *
 * Registers and memory are random, drawn from values that sit on edges. Then the registers that
 * form addresses are bent so that the instruction touches the arena: mostly mapped data, sometimes
 * across the edge of what is mapped. Branch targets are bent into the code page.
 */
#include "insn_exec.h"
#include "oracle.h"
#include <string.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };
enum { SEG_LIMIT16 = 0xffff };

/* ---- What cannot be compared ----------------------------------------------------------------- */

static const struct {
    uint16_t exec;
    const char *why;
} excluded[] = {
    {EXEC_sys_int, "the host's interrupt gates differ"},
    {EXEC_sys_int3, "INT3 is how the host run ends"},
    {EXEC_sys_int1, "INT1 is a debug trap to the host's kernel"},
    {EXEC_sys_into, "delivered inside the instruction, through the host's gates"},
    {EXEC_sys_iret, "far transfer: the host's descriptor tables differ"},
    {EXEC_sys_call_far, "far transfer: the host's descriptor tables differ"},
    {EXEC_sys_jmp_far, "far transfer: the host's descriptor tables differ"},
    {EXEC_sys_ret_far, "far transfer: the host's descriptor tables differ"},
    {EXEC_sys_mov_to_sreg, "segment load: the host's descriptor tables differ"},
    {EXEC_sys_pop_sreg, "segment load: the host's descriptor tables differ"},
    {EXEC_sys_load_far, "segment load: the host's descriptor tables differ"},
    {EXEC_sys_lar, "the host's descriptor tables differ"},
    {EXEC_sys_lsl, "the host's descriptor tables differ"},
    {EXEC_sys_verr, "the host's descriptor tables differ"},
    {EXEC_sys_verw, "the host's descriptor tables differ"},
    {EXEC_sys_sgdt, "the host's kernel emulates it under UMIP"},
    {EXEC_sys_sidt, "the host's kernel emulates it under UMIP"},
    {EXEC_sys_sldt, "the host's kernel emulates it under UMIP"},
    {EXEC_sys_str, "the host's kernel emulates it under UMIP"},
    {EXEC_sys_smsw, "the host's kernel emulates it under UMIP"},
    {EXEC_sys_syscall, "a system call of the host"},
    {EXEC_sys_sysenter, "a system call of the host"},
    {EXEC_sys_rdfsbase, "FS is the host's thread pointer"},
    {EXEC_sys_wrfsbase, "FS is the host's thread pointer"},
    {EXEC_sys_rdpkru, "PKRU is the host's"},
    {EXEC_sys_wrpkru, "PKRU is the host's"},
    {EXEC_sys_xgetbv, "XCR0 is the host's"},
    {EXEC_sys_rdtsc, "the time differs"},
    {EXEC_sys_rdtscp, "the time differs"},
    {EXEC_sys_rdpid, "TSC_AUX is the host's"},
    {EXEC_sys_rdpmc, "performance counters are the host's"},
    {EXEC_sys_cpuid, "CPUID is the model's"},
    {EXEC_sys_monitor, "not advertised"},
    {EXEC_sys_mwait, "not advertised"},
    {EXEC_sys_in, "the host's kernel may grant ports"},
    {EXEC_sys_out, "the host's kernel may grant ports"},
    {EXEC_sys_serialize, "not on every host"},
};

const char *case_excluded(const struct insn_row *row)
{
    if (!insn_has_feature(emulated_features(), row->feature))
        return row->feature == FEAT_INTEL || row->feature == FEAT_AMD
                   ? "the other vendor's"
                   : "the host lacks the feature, so the guest's CPU does not announce it";
    if (row->attr & INSN_RAND)
        return "its result is not a function of the state";
    for (unsigned i = 0; i < sizeof(excluded) / sizeof(excluded[0]); i++)
        if (excluded[i].exec == row->exec)
            return excluded[i].why;
    return NULL;
}

/* ---- Values ---------------------------------------------------------------------------------- */

static uint64_t random_integer(struct rng *rng)
{
    static const uint64_t edges[] = {0,
                                     1,
                                     2,
                                     0x7f,
                                     0x80,
                                     0xff,
                                     0x7fff,
                                     0x8000,
                                     0xffff,
                                     0x7fffffff,
                                     0x80000000,
                                     0xffffffff,
                                     0x7fffffffffffffff,
                                     0x8000000000000000,
                                     ~0ull,
                                     ~0ull - 1};
    switch (rng_below(rng, 4)) {
    case 0:
        return edges[rng_below(rng, sizeof(edges) / sizeof(edges[0]))];
    case 1:
        return rng_next(rng) >> rng_below(rng, 64);
    case 2:
        return (uint64_t)((int64_t)rng_next(rng) >> rng_below(rng, 64));
    default:
        return rng_next(rng);
    }
}

static uint32_t random_float(struct rng *rng)
{
    static const uint32_t edges[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                     0xff800000, 0x7fc00000, 0x7fa00001, 1,          0x807fffff,
                                     0x00800000, 0x7f7fffff, 0x4b000000, 0x4f000000, 0xcf000000,
                                     0x3f000000, 0x5f000000};
    if (rng_below(rng, 3) == 0)
        return edges[rng_below(rng, sizeof(edges) / sizeof(edges[0]))];
    uint32_t r = (uint32_t)rng_next(rng);
    if (rng_below(rng, 2)) /* near 1, so that sums and products stay finite and inexact */
        r = (r & 0x807fffff) | (uint32_t)(0x78 + rng_below(rng, 16)) << 23;
    return r;
}

static uint64_t random_double(struct rng *rng)
{
    static const uint64_t edges[] = {0,
                                     1ull << 63,
                                     0x3ff0000000000000,
                                     0xbff0000000000000,
                                     0x7ff0000000000000,
                                     0xfff0000000000000,
                                     0x7ff8000000000000,
                                     0x7ff4000000000001,
                                     1,
                                     0x800fffffffffffff,
                                     0x0010000000000000,
                                     0x7fefffffffffffff,
                                     0x41e0000000000000,
                                     0xc1e0000000000000,
                                     0x43e0000000000000,
                                     0x3fe0000000000000,
                                     0x47efffffe0000000};
    if (rng_below(rng, 3) == 0)
        return edges[rng_below(rng, sizeof(edges) / sizeof(edges[0]))];
    uint64_t r = rng_next(rng);
    if (rng_below(rng, 2))
        r = (r & 0x800fffffffffffff) | (0x3f0 + rng_below(rng, 32)) << 52;
    return r;
}

/* 16 bytes in one of the shapes that instructions look for. */
static void random_lane(struct rng *rng, uint8_t *out)
{
    uint64_t q[2];
    uint32_t d[4];
    switch (rng_below(rng, 4)) {
    case 0:
        for (int i = 0; i < 4; i++)
            d[i] = random_float(rng);
        memcpy(out, d, 16);
        break;
    case 1:
        q[0] = random_double(rng);
        q[1] = random_double(rng);
        memcpy(out, q, 16);
        break;
    default:
        q[0] = random_integer(rng);
        q[1] = random_integer(rng);
        memcpy(out, q, 16);
    }
}

static void random_x87(struct rng *rng, uint8_t st[10])
{
    uint64_t mantissa = rng_next(rng) | 1ull << 63;
    uint16_t exponent = (uint16_t)(0x3fff - 40 + rng_below(rng, 80));
    switch (rng_below(rng, 8)) {
    case 0:
        mantissa = 0;
        exponent = 0;
        break;
    case 1: /* infinities and NaNs */
        exponent = 0x7fff;
        mantissa = rng_below(rng, 2) ? 1ull << 63 : mantissa;
        break;
    case 2: /* denormals, pseudo-denormals */
        exponent = 0;
        mantissa = rng_next(rng);
        break;
    case 3: /* anything, unnormals included */
        exponent = (uint16_t)rng_next(rng);
        mantissa = rng_next(rng);
        break;
    case 4: /* integers */
        exponent = (uint16_t)(0x3fff + rng_below(rng, 66));
        mantissa = 1ull << 63 | rng_next(rng) << 40;
        break;
    default:
        break;
    }
    exponent = (uint16_t)((exponent & 0x7fff) | rng_below(rng, 2) << 15);
    memcpy(st, &mantissa, 8);
    memcpy(st + 8, &exponent, 2);
}

static void random_state(struct oracle_case *c, struct rng *rng)
{
    struct oracle_state *s = &c->state;
    memset(s, 0, sizeof(*s));
    unsigned gprs = c->code == 64 ? 16 : 8;
    for (unsigned i = 0; i < gprs; i++) {
        s->gpr[i] = random_integer(rng);
        if (c->code != 64)
            s->gpr[i] &= 0xffffffff;
    }
    unsigned vectors = gprs;
    for (unsigned i = 0; i < vectors; i++) {
        random_lane(rng, s->ymm[i].b);
        random_lane(rng, s->ymm[i].b + 16);
    }
    s->rflags = 0x202 | (rng_next(rng) & FLAGS_ARITH);
    s->mxcsr = 0x1f80;
    if (rng_below(rng,
                  2)) { /* rounding, FTZ, DAZ, MM, old status; now and then unmasked exceptions */
        bool has_mm = insn_has_feature(emulated_features(), FEAT_MISALIGNSSE);
        s->mxcsr = (uint32_t)(rng_next(rng) & (has_mm ? 0x2e07f : 0xe07f)) | 0x1f80;
    }
    if (rng_below(rng, 8) == 0)
        s->mxcsr &= ~(uint32_t)(rng_next(rng) & 0x1f80);
    static const uint16_t precision[3] = {0, 2, 3};
    s->fcw = (uint16_t)(0x7f | precision[rng_below(rng, 3)] << 8 | rng_below(rng, 4) << 10);
    if (rng_below(rng, 8) == 0)
        s->fcw &= (uint16_t) ~(rng_next(rng) & 0x3f);
    s->fcw |= 0x40;
    bool is_mmx = c->row->attr & INSN_MMX;
    s->fsw = (uint16_t)(rng_next(rng) & (is_mmx ? 0x3800 : 0x7f00));
    s->fsw = (uint16_t)(s->fsw & ~0x80u);
    s->ftw = rng_below(rng, 2) ? 0xff : (uint8_t)rng_next(rng);
    if (insn_has_feature(emulated_features(), FEAT_AMD)) { /* Intel's differ among themselves */
        s->fop = (uint16_t)(rng_next(rng) & 0x7ff);
        s->fip = rng_next(rng) >> 17;
        s->fdp = rng_next(rng) >> 17;
    }
    for (int i = 0; i < 8; i++)
        random_x87(rng, s->st[i]);
    for (unsigned i = 0; i < DATA_SIZE; i += 16) /* cheap: mostly what the registers hold */
        memcpy(c->data + i, s->ymm[(i / 16 * 7 + i / 512) % vectors].b + (i & 16), 16);
    for (int i = 0; i < 64; i++) {
        random_lane(rng, c->data + 16 * rng_below(rng, DATA_SIZE / 16));
        random_x87(rng, c->data + 8 * rng_below(rng, DATA_SIZE / 8 - 1));
    }
}

/* ---- Addresses ------------------------------------------------------------------------------- */

/* A linear address for an access of `size` bytes; 16-bit code gets offsets into the arena instead.
 */
static uint64_t random_target(const struct oracle_case *c, unsigned size, struct rng *rng)
{
    uint64_t at = DATA_START + 1024 + rng_below(rng, DATA_SIZE - 4096);
    switch (rng_below(rng, 16)) {
    case 0: /* across the last mapped byte */
        at = DATA_END - size + rng_below(rng, 2 * size + 1);
        break;
    case 1: /* before the first */
        at = DATA_START - rng_below(rng, 2 * size + 1);
        break;
    case 2: /* across a page */
        at = DATA_START + 0x3000 - rng_below(rng, size + 1);
        break;
    case 3:
    case 4:
    case 5: /* anywhere */
        break;
    default:
        at &= ~63ull;
    }
    return c->code == 16 ? at - ARENA : at;
}

/* An XSAVE area that the edge of what is mapped cuts between or in its regions. Which of them
 * Intel's processors touch has not been compared. */
static bool is_xsave_area(const struct insn_row *row)
{
    return insn_has_feature(emulated_features(), FEAT_AMD) &&
           (row->exec == EXEC_vec_xsave || row->exec == EXEC_vec_xrstor);
}
static uint64_t xsave_target(const struct oracle_case *c, struct rng *rng)
{
    uint64_t edge = rng_below(rng, 2) ? DATA_START : DATA_END;
    uint64_t at = edge - 64 * rng_below(rng, 14);
    return c->code == 16 ? at - ARENA : at;
}

static void patch_disp(struct oracle_case *c, uint64_t value)
{
    memcpy(c->bytes + c->insn.off_disp, &value, c->insn.disp_size);
}

static unsigned memory_size(const struct insn *insn)
{
    unsigned size = 0;
    for (unsigned i = 0; i < insn->opnds; i++)
        if (insn->op[i].kind == OPND_MEM && insn->op[i].size > size)
            size = insn->op[i].size;
    return size ? size : 8;
}

/* Bends base, index or displacement so that the operand lies at a random target. */
static bool bend_memory(struct oracle_case *c, struct rng *rng)
{
    struct insn *insn = &c->insn;
    const struct insn_mem *m = &insn->mem;
    uint64_t target = is_xsave_area(insn->row) && rng_below(rng, 2)
                          ? xsave_target(c, rng)
                          : random_target(c, memory_size(insn), rng);
    uint64_t *gpr = c->state.gpr;
    if (m->vsib) {
        if (m->base >= 16 || m->base == REG_NONE)
            return false;
        gpr[m->base] = target - (uint64_t)m->disp;
        for (int i = 0; i < 8; i++) { /* small elements, good for 32- and 64-bit indices alike */
            uint32_t small = (uint32_t)rng_below(rng, 256);
            memcpy(c->state.ymm[m->index & 15].b + 4 * i, &small, 4);
            if (i & 1)
                memset(c->state.ymm[m->index & 15].b + 4 * i, 0, 4);
        }
        return true;
    }
    bool has_base = m->base != REG_NONE && m->base != REG_PC;
    bool has_index = m->index != REG_NONE;
    if (m->base == REG_PC) {
        if (insn->disp_size != 4)
            return false;
        patch_disp(c, target - (c->state.rip + insn->len));
        return true;
    }
    if (has_base && m->base != m->index) {
        uint64_t index = has_index ? gpr[m->index] << m->scale : 0;
        gpr[m->base] = target - index - (uint64_t)m->disp;
        if (c->code != 64)
            gpr[m->base] &= 0xffffffff;
        else if (insn->adsize == 4 && rng_below(rng, 2))
            gpr[m->base] |= rng_next(rng) << 32; /* bits that the address size drops */
        else if (insn->adsize == 4)
            gpr[m->base] &= 0xffffffff;
        return true;
    }
    if (insn->disp_size < 2 || (insn->disp_size == 2 && c->code != 16))
        return false;
    if (has_index)
        gpr[m->index] = 0;
    patch_disp(c, target);
    return true;
}

static void set_register(struct oracle_case *c, unsigned reg, uint64_t value)
{
    c->state.gpr[reg] = value;
}

static bool is_bit_test(const struct insn_row *row)
{
    return row->exec == EXEC_bt || row->exec == EXEC_bts || row->exec == EXEC_btr ||
           row->exec == EXEC_btc;
}

/* Registers that an instruction uses as addresses without a ModRM byte. */
static void bend_implicit(struct oracle_case *c, struct rng *rng)
{
    const struct insn *insn = &c->insn;
    const struct insn_row *row = insn->row;
    unsigned strings = 0;
    for (unsigned i = 0; i < insn->opnds; i++) {
        unsigned kind = insn->op[i].kind;
        if (kind == OPND_STR_SRC)
            set_register(c, RSI, random_target(c, 64, rng));
        if (kind == OPND_STR_DST)
            set_register(c, RDI, random_target(c, 64, rng));
        strings += kind == OPND_STR_SRC || kind == OPND_STR_DST;
    }
    if (strings) {
        if (rng_below(rng, 2))
            c->state.rflags |= FLAG_DF;
        if (strings == 2 && rng_below(rng, 2)) /* overlapping moves */
            c->state.gpr[RDI] = c->state.gpr[RSI] + rng_below(rng, 33) - 16;
        c->state.gpr[RCX] = rng_below(rng, rng_below(rng, 4) ? 20 : 1200);
    }
    if (is_bit_test(row))
        if (insn->has_mem && insn->op[1].kind == OPND_GPR) /* a bit offset moves the address */
            c->state.gpr[insn->op[1].reg] = rng_below(rng, 4096) - 2048;
    static const uint16_t stack[] = {EXEC_push,      EXEC_pop,          EXEC_call,
                                     EXEC_ret,       EXEC_leave,        EXEC_gen_enter,
                                     EXEC_gen_pusha, EXEC_gen_popa,     EXEC_sys_pushf,
                                     EXEC_sys_popf,  EXEC_sys_push_sreg};
    for (unsigned i = 0; i < sizeof(stack) / sizeof(stack[0]); i++)
        if (stack[i] == row->exec) {
            set_register(c, RSP, random_target(c, 64, rng));
            set_register(c, RBP, random_target(c, 64, rng));
        }
    if (row->exec == EXEC_gen_xlat)
        set_register(c, RBX, random_target(c, 1, rng) - (c->state.gpr[RAX] & 0xff));
}

/* A place in the code page that holds nothing but INT3s. */
static uint64_t random_code_target(const struct oracle_case *c, struct rng *rng)
{
    uint64_t page = c->code == 16 ? CODE_PAGE - ARENA : CODE_PAGE;
    return page + 0x800 + rng_below(rng, 0x700);
}

/* Where memory operands or the stack hold a branch target, writes it there. */
static void put_data(struct oracle_case *c, uint64_t address, uint64_t value)
{
    if (c->code == 16)
        address += ARENA;
    if (address >= DATA_START && address <= DATA_END - 8)
        memcpy(c->data + (address - DATA_START), &value, 8);
}

static uint64_t effective_address(const struct oracle_case *c)
{
    const struct insn_mem *m = &c->insn.mem;
    uint64_t ea = (uint64_t)m->disp;
    if (m->base == REG_PC)
        ea += c->state.rip + c->len;
    else if (m->base != REG_NONE)
        ea += c->state.gpr[m->base];
    if (m->index != REG_NONE)
        ea += c->state.gpr[m->index] << m->scale;
    unsigned bits = 8 * c->insn.adsize;
    return bits == 64 ? ea : ea & ((1ull << bits) - 1);
}

static bool bend_branch(struct oracle_case *c, struct rng *rng)
{
    struct insn *insn = &c->insn;
    uint64_t target = random_code_target(c, rng);
    switch (insn->op[0].kind) {
    case OPND_REL:
        if (insn->imm_size == 1) {
            c->bytes[insn->off_imm] &= 0x7f; /* forward, past the instruction's own bytes */
        } else {
            uint64_t rel = target - (c->state.rip + insn->len);
            memcpy(c->bytes + insn->off_imm, &rel, insn->imm_size);
        }
        break;
    case OPND_GPR:
        if (!insn->op[0].implicit) /* not the stack pointer of RET */
            c->state.gpr[insn->op[0].reg] = target;
        break;
    case OPND_MEM:
        put_data(c, effective_address(c), target);
        break;
    default:
        break;
    }
    if (insn->row->attr & INSN_RET)
        put_data(c, c->state.gpr[RSP], target);
    return true;
}

/* POPF may not switch on what the host run stands on: TF, AC, NT. */
static void tame_popf(struct oracle_case *c)
{
    uint64_t at = c->state.gpr[RSP] + (c->code == 16 ? ARENA : 0);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t byte = at + i - DATA_START;
        if (byte < DATA_SIZE)
            c->data[byte] &= i == 1 ? (uint8_t)~0x41 : i == 2 ? (uint8_t)~0x05 : 0xff;
    }
}

static bool decode_again(struct oracle_case *c)
{
    return insn_decode(c->bytes, sizeof(c->bytes), c->code, false, emulated_features(), &c->insn) ==
               DECODE_OK &&
           c->insn.row == c->row;
}

static bool try_case(struct oracle_case *c, struct rng *rng)
{
    if (!encode_random(c->row, c->code, rng, c->bytes) || !decode_again(c))
        return false;
    if (c->insn.mem.seg == SEG_FS || c->insn.mem.seg == SEG_GS)
        return false; /* the host's thread pointer; null in 32-bit code */
    if (is_bit_test(c->row) && c->insn.has_mem && c->insn.op[1].kind == OPND_GPR &&
        (c->insn.op[1].reg == c->insn.mem.base || c->insn.op[1].reg == c->insn.mem.index))
        return false; /* an address as bit offset leads into the code, which the two sides fill
                         differently */
    c->len = c->insn.len;
    random_state(c, rng);
    uint64_t page = c->code == 16 ? CODE_PAGE - ARENA : CODE_PAGE;
    c->state.rip = page + 0x100 + rng_below(rng, 0x200);
    bend_implicit(c, rng);
    if (c->insn.has_mem && c->insn.mem.seg != SEG_NONE && !bend_memory(c, rng))
        return false;
    if ((c->insn.row->attr & INSN_BRANCH) && !bend_branch(c, rng))
        return false;
    if (c->row->exec == EXEC_sys_popf)
        tame_popf(c);
    if (c->row->exec == EXEC_gen_enter) /* up to 31 levels read behind RBP */
        c->bytes[c->insn.off_imm + 1] &= 3;
    if (c->row->exec == EXEC_vec_xsave || c->row->exec == EXEC_vec_xrstor) {
        const struct insn_mem *m = &c->insn.mem;
        if (m->base == RAX || m->base == RDX || m->index == RAX || m->index == RDX)
            return false;      /* an address that would lead anywhere */
        c->state.gpr[RDX] = 0; /* only components that both sides have */
        c->state.gpr[RAX] &= 7;
    }
    return decode_again(c) && c->insn.len == c->len;
}

bool case_make(struct oracle_case *c, const struct insn_row *row, unsigned code, struct rng *rng)
{
    c->row = row;
    c->code = code;
    for (int tries = 0; tries < 200; tries++)
        if (try_case(c, rng))
            return true;
    return false;
}
