/*
 * vec_stub.c - makes the host code that executes one guest SIMD instruction, and caches it.
 *
 * The instruction is re-encoded in a canonical form, whatever registers the guest uses:
 *
 *     ModRM.reg   XMM1/YMM1/MM1, or EAX/RAX where it names a general register
 *     VEX.vvvv    XMM2/YMM2
 *     ModRM.rm    [RSI]: memory, or the guest's register in struct cpu (in both cases the value
 * lies there); XMM3/MM3 where the encoding allows only a register or the operand is written is4
 * XMM4/YMM4 XMM0        where an instruction has it as an implicit operand
 *
 * so there are few distinct ones, and hostile guests cannot fill memory with them: rows times forms
 * times immediates. The canonical bytes are also the key in the cache. A legacy SSE instruction
 * loads and stores 16 bytes, so that the upper halves in struct cpu stay; a VEX one stores the
 * whole register.
 *
 * Encoding: SDM vol. 2, 2.1-2.3. The stub is called as a C function (System V ABI).
 */
#include "cpu/insn/tables.h"
#include "cpu/interp/vec_internal.h"
#include "internal/error.h"

#include <stdlib.h>

enum { ARENA_SIZE = 16 << 20, SCRATCH_SIZE = 128 };
enum {
    IN_RCX = 1,
    IN_RDX = 2,
    IN_RSI = 6,
    IN_RDI = 7
}; /* host registers of vec_code's arguments */
enum { HOST_V = 1, HOST_H = 2, HOST_RM = 3, HOST_L = 4 };

/* ---- Emitting -------------------------------------------------------------------------------- */

struct code {
    uint8_t bytes[SCRATCH_SIZE];
    unsigned len;
};

static void emit(struct code *code, const uint8_t *bytes, unsigned len)
{
    memcpy(code->bytes + code->len, bytes, len);
    code->len += len;
}
#define EMIT(code, ...)                                                                            \
    emit(code, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

enum width { WIDTH_MMX, WIDTH_XMM, WIDTH_YMM };

/* MOVQ, MOVUPS or VMOVUPS from [base] (an argument register below R8). */
static void emit_load(struct code *code, enum width width, unsigned reg, unsigned base)
{
    uint8_t modrm = (uint8_t)(reg << 3 | base);
    if (width == WIDTH_MMX)
        EMIT(code, 0x0f, 0x6f, modrm);
    else if (width == WIDTH_XMM)
        EMIT(code, 0x0f, 0x10, modrm);
    else
        EMIT(code, 0xc5, 0xfc, 0x10, modrm);
}

/* The same to [R8]. */
static void emit_store(struct code *code, enum width width, unsigned reg)
{
    uint8_t modrm = (uint8_t)(reg << 3);
    if (width == WIDTH_MMX)
        EMIT(code, 0x41, 0x0f, 0x7f, modrm);
    else if (width == WIDTH_XMM)
        EMIT(code, 0x41, 0x0f, 0x11, modrm);
    else
        EMIT(code, 0xc4, 0xc1, 0x7c, 0x11, modrm);
}

/* ---- The canonical encoding ------------------------------------------------------------------ */

/* What an instruction needs of its stub, beyond struct vec_stub. */
struct plan {
    struct vec_stub stub;
    bool rm_register; /* XMM3 instead of [RSI] */
    bool gpr_reg;     /* ModRM.reg is a general register */
    bool digit;       /* ModRM.reg is part of the opcode */
    bool wide;        /* REX.W or VEX.W */
    bool xmm0;        /* implicit XMM0, read */
    int string;       /* PCMPxSTRx: 0 ESTRM, 1 ESTRI, 2 ISTRM, 3 ISTRI; -1: another */
};

/* Sorts one operand by where its encoding has it. */
static void plan_operand(struct plan *plan, const struct insn *insn, unsigned n, unsigned source)
{
    const struct opnd *op = &insn->op[n];
    bool written = op->access & OPND_W;
    enum vec_dest dest = DEST_NONE;
    switch (source) {
    case SRC_V:
    case SRC_P:
        plan->stub.v = (int8_t)n;
        plan->digit = false;
        dest = DEST_V;
        break;
    case SRC_G:
        plan->gpr_reg = true;
        plan->digit = false;
        plan->wide = op->size == 8;
        dest = DEST_GPR;
        break;
    case SRC_H:
        plan->stub.h = (int8_t)n;
        dest = DEST_H;
        break;
    case SRC_L:
        plan->stub.l = (int8_t)n;
        break;
    case SRC_XMM:
        plan->xmm0 = !written; /* PCMPxSTRM writes it */
        if (plan->xmm0)
            plan->stub.l = (int8_t)n;
        break;
    case SRC_E:
        plan->wide = op->size == 8;
        plan->stub.rm = (int8_t)n;
        break;
    case SRC_U:
    case SRC_N:
    case SRC_W:
    case SRC_Q:
    case SRC_M:
        plan->stub.rm = (int8_t)n;
        plan->rm_register = source == SRC_U || source == SRC_N || written;
        dest = DEST_RM;
        break;
    default:
        break; /* immediates */
    }
    if (written) {
        plan->stub.dest = (uint8_t)dest;
        plan->stub.dest_op = (uint8_t)n;
    }
}

static struct plan make_plan(const struct insn *insn)
{
    const struct insn_row *row = insn->row;
    const struct insn_shape *shape = &insn_shapes[row->id];
    struct plan plan = {
        .stub = {.v = -1, .rm = -1, .h = -1, .l = -1, .dest = DEST_NONE},
        .digit = true,
        .wide = insn->vex && insn->vex_w,
        .string = row->exec == EXEC_vec_pcmpstr ? (int)row->exec_arg : -1,
    };
    for (unsigned n = 0; n < insn->opnds; n++)
        plan_operand(&plan, insn, n, shape->op[n].source);
    plan.stub.mmx = row->attr & INSN_MMX;
    plan.stub.mxcsr = row->attr & INSN_MXCSR;
    plan.stub.flags = row->flags_written != 0;
    if (plan.string >= 0) /* REX.W: lengths in RAX, RDX instead of EAX, EDX */
        plan.wide = insn->code == 64 && (insn->vex ? insn->vex_w : (insn->rex & 8) != 0);
    return plan;
}

/* The canonical bytes of the instruction, into key. */
static void encode(struct plan *plan, const struct insn *insn)
{
    const struct insn_match *match = &insn_matches[insn->row->id];
    uint8_t prefix = match->allow[DIM_PREFIX]; /* one bit: none, 66, F3, F2 */
    uint8_t *out = plan->stub.key;
    unsigned map = match->map, len = 0;
    if (insn->vex) {
        unsigned pp = prefix == 1 ? 0 : prefix == 2 ? 1 : prefix == 4 ? 2 : 3;
        unsigned vvvv = plan->stub.h >= 0 ? HOST_H : 0;
        out[len++] = 0xc4;
        out[len++] = (uint8_t)(0xe0 | (map - MAP_VEX0F + 1));
        out[len++] = (uint8_t)(plan->wide << 7 | (~vvvv & 15) << 3 | insn->vex_l << 2 | pp);
    } else {
        if (prefix != 1)
            out[len++] = prefix == 2 ? 0x66 : prefix == 4 ? 0xf3 : 0xf2;
        if (plan->wide)
            out[len++] = 0x48;
        out[len++] = 0x0f;
        if (map != MAP_0F)
            out[len++] = map == MAP_0F38 ? 0x38 : 0x3a;
    }
    out[len++] = match->opcode;
    unsigned reg = plan->digit ? insn->modrm >> 3 & 7 : plan->gpr_reg ? 0 : HOST_V;
    out[len++] = (uint8_t)(plan->rm_register ? 0xc0 | reg << 3 | HOST_RM : reg << 3 | IN_RSI);
    if (plan->stub.l >= 0 && !plan->xmm0)
        out[len++] = HOST_L << 4;
    else if (insn->imm_size)
        out[len++] = (uint8_t)insn->imm;
    plan->stub.key_len = (uint8_t)len;
}

/* ---- The stub -------------------------------------------------------------------------------- */

static void emit_inputs(struct code *code, const struct plan *plan, enum width width)
{
    const struct vec_stub *stub = &plan->stub;
    bool mixed = stub->mmx && width == WIDTH_XMM; /* CVTPI2PS: XMM by reg, MMX by rm */
    if (stub->v >= 0)
        emit_load(code, width, HOST_V, IN_RDI);
    if (stub->h >= 0)
        emit_load(code, width, HOST_H, IN_RDX);
    if (stub->rm >= 0 && plan->rm_register)
        emit_load(code, mixed ? WIDTH_MMX : width, HOST_RM, IN_RSI);
    if (stub->l >= 0)
        emit_load(code, width, plan->xmm0 ? 0 : HOST_L, IN_RCX);
    if (plan->string == 0 || plan->string == 1) /* mov rax,[rcx]; mov rdx,[rcx+16]: cpu->gpr */
        EMIT(code, 0x48, 0x8b, 0x01, 0x48, 0x8b, 0x51, 0x10);
}

static void emit_outputs(struct code *code, const struct plan *plan, enum width width)
{
    const struct vec_stub *stub = &plan->stub;
    if (stub->flags)
        EMIT(code, 0x9c, 0x58); /* pushfq; pop rax */
    if (plan->string == 1 || plan->string == 3)
        EMIT(code, 0x48, 0xc1, 0xe1, 32, 0x48, 0x09, 0xc8); /* rax |= rcx << 32 */
    else if (plan->string >= 0)
        emit_store(code, width, 0);
    else if (stub->dest == DEST_V)
        emit_store(code, width, HOST_V);
    else if (stub->dest == DEST_H)
        emit_store(code, width, HOST_H);
    else if (stub->dest == DEST_RM)
        emit_store(code, width, HOST_RM);
    if (stub->mmx)
        EMIT(code, 0x0f, 0x77); /* emms: C code expects empty tags */
    if (width == WIDTH_YMM)
        EMIT(code, 0xc5, 0xf8, 0x77); /* vzeroupper */
    EMIT(code, 0xc3);
}

/* The registers' width: all of a stub's loads and stores have it, but for MMX with XMM. */
static enum width stub_width(const struct plan *plan, const struct insn *insn)
{
    if (insn->vex)
        return WIDTH_YMM;
    if (!plan->stub.mmx)
        return WIDTH_XMM;
    bool xmm_reg = plan->stub.v >= 0 && insn->op[plan->stub.v].kind == OPND_XMM;
    return xmm_reg ? WIDTH_XMM : WIDTH_MMX;
}

static void emit_stub(struct code *code, struct plan *plan, const struct insn *insn)
{
    enum width width = stub_width(plan, insn);
    emit_inputs(code, plan, width);
    plan->stub.insn_at = (uint8_t)code->len;
    emit(code, plan->stub.key, plan->stub.key_len);
    emit_outputs(code, plan, width);
    plan->stub.out_size = width == WIDTH_MMX ? 8 : width == WIDTH_XMM ? 16 : 32;
}

/* ---- The cache ------------------------------------------------------------------------------- */

static unsigned bucket_of(const struct vec_stub *stub)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (unsigned i = 0; i < stub->key_len; i++)
        hash = (hash ^ stub->key[i]) * 16777619u;
    return (hash ^ hash >> 16) % VEC_BUCKETS;
}

static const struct vec_stub *make_scratch(struct cpu *cpu, const struct plan *plan,
                                           const struct code *code)
{
    struct vector_engine *engine = cpu->vectors;
    if (!vec_arena_replace(&engine->arena, engine->scratch_code, code->bytes, code->len))
        cpu_raise(cpu, VECTOR_UD); /* the host's kernel took executable memory back */
    engine->scratch = plan->stub;
    engine->scratch.code = (vec_code *)(uintptr_t)engine->scratch_code;
    return &engine->scratch;
}

static const struct vec_stub *find_or_add(struct cpu *cpu, const struct insn *insn,
                                          struct plan *plan, struct code *code)
{
    struct vector_engine *engine = cpu->vectors;
    *plan = make_plan(insn);
    encode(plan, insn);
    struct vec_stub **bucket = &engine->buckets[bucket_of(&plan->stub)];
    for (struct vec_stub *s = *bucket; s; s = s->next) {
        if (s->key_len == plan->stub.key_len && !memcmp(s->key, plan->stub.key, s->key_len))
            return s;
    }
    emit_stub(code, plan, insn);
    struct vec_stub *stub = malloc(sizeof(*stub));
    const void *at = stub ? vec_arena_add(&engine->arena, code->bytes, code->len) : NULL;
    if (!at) {
        free(stub);
        return NULL;
    }
    *stub = plan->stub;
    stub->code = (vec_code *)(uintptr_t)at;
    stub->next = *bucket;
    *bucket = stub;
    engine->stubs++;
    return stub;
}

const void *vec_prepare(struct cpu *cpu, const struct insn *insn)
{
    struct plan plan;
    struct code code = {.len = 0};
    return find_or_add(cpu, insn, &plan, &code);
}

const struct vec_stub *vec_stub_get(struct cpu *cpu, const struct insn *insn)
{
    struct plan plan;
    struct code code = {.len = 0};
    const struct vec_stub *stub = find_or_add(cpu, insn, &plan, &code);
    return stub ? stub : make_scratch(cpu, &plan, &code);
}

/* ---- The engine ------------------------------------------------------------------------------ */

bool vector_engine_init(struct cpu *cpu, struct error *err)
{
    struct vector_engine *engine = aligned_alloc(64, sizeof(*engine));
    if (!engine)
        return error_set(err, "out of memory for the vector engine");
    memset(engine, 0, sizeof(*engine));
    if (!vec_arena_init(&engine->arena, ARENA_SIZE, err)) {
        free(engine);
        return false;
    }
    uint8_t blank[SCRATCH_SIZE];
    memset(blank, 0xcc, sizeof(blank));
    engine->scratch_code = vec_arena_add(&engine->arena, blank, sizeof(blank));
    cpu->vectors = engine;
    return true;
}

void vector_engine_fini(struct cpu *cpu)
{
    struct vector_engine *engine = cpu->vectors;
    if (!engine)
        return;
    for (unsigned i = 0; i < VEC_BUCKETS; i++) {
        for (struct vec_stub *s = engine->buckets[i], *next; s; s = next) {
            next = s->next;
            free(s);
        }
    }
    vec_arena_fini(&engine->arena);
    free(engine);
    cpu->vectors = NULL;
}
