/*
 * thunk.c - the way into translated code and the ways out: made once per cache, at its beginning.
 *
 * enter() is a C function: it saves what the System V ABI wants saved, loads guest registers and
 * jumps. All exits store the guest registers again and return from it. slow() is called by
 * translated code; it has C execute one instruction and returns behind it, or leaves for good.
 */
#include "cpu/jit/build.h"

/* The guest registers that have a host register. */
static const uint8_t in_registers[] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI,
                                       RDI, R8,  R9,  R12, R13, R14};
/* What C functions keep for their callers, in the order of pushing (System V ABI, 3.2.1). */
static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static void load_registers(struct emit *e)
{
    for (unsigned i = 0; i < sizeof in_registers; i++)
        emit_gs_load(e, abi_host(in_registers[i]), CPU_GPR(in_registers[i]));
}

static void store_registers(struct emit *e)
{
    for (unsigned i = 0; i < sizeof in_registers; i++)
        emit_gs_store(e, abi_host(in_registers[i]), CPU_GPR(in_registers[i]));
}

/* C code must not pay for dirty upper halves. */
static void vectors_to_c(const struct jit *jit, struct emit *e)
{
    if (jit->host_avx)
        emit_vzeroupper(e);
}

static void push(struct emit *e, unsigned reg)
{
    emit_rex(e, 4, 0, 0, reg);
    emit8(e, 0x50 | (reg & 7));
}

static void pop(struct emit *e, unsigned reg)
{
    emit_rex(e, 4, 0, 0, reg);
    emit8(e, 0x58 | (reg & 7));
}

static void make_enter(struct emit *e)
{
    static const uint8_t jmp_r10[] = {0x41, 0xff, 0xe2};
    for (unsigned i = 0; i < sizeof callee_saved; i++)
        push(e, callee_saved[i]);
    emit_ri(e, 8, GRP1_SUB, RSP, 8); /* aligned: six pushes and the return address are 56 bytes */
    emit_mov(e, 8, SCRATCH1, RSI);
    load_registers(e);
    emit_bytes(e, jmp_r10, sizeof jmp_r10);
}

/* Returns from enter(); eax says why. */
static const uint8_t *make_return(struct emit *e)
{
    const uint8_t *at = emit_here(e);
    emit_ri(e, 8, GRP1_ADD, RSP, 8);
    for (unsigned i = sizeof callee_saved; i-- > 0;)
        pop(e, callee_saved[i]);
    emit8(e, 0xc3);
    return at;
}

static const uint8_t *make_exit(const struct jit *jit, struct emit *e, enum jit_exit why,
                                int32_t r10_to, const uint8_t *to_c)
{
    const uint8_t *at = emit_here(e);
    emit_gs_store(e, SCRATCH1, r10_to);
    store_registers(e);
    vectors_to_c(jit, e);
    emit_mov_imm32(e, RAX, why);
    emit_jmp(e, to_c);
    return at;
}

static const uint8_t *make_slow(const struct jit *jit, struct emit *e, const uint8_t *to_c)
{
    static const uint8_t call_rax[] = {0xff, 0xd0}, ret[] = {0xc3};
    const uint8_t *at = emit_here(e);
    store_registers(e);
    vectors_to_c(jit, e);
    emit_gs_load(e, RDI, CPU_AT(jx.self));
    emit_mov(e, 4, RSI, SCRATCH1);
    emit_ri(e, 8, GRP1_SUB, RSP, 8);
    emit_mov_imm64(e, RAX, (uint64_t)(uintptr_t)jit_slow);
    emit_bytes(e, call_rax, sizeof call_rax);
    emit_ri(e, 8, GRP1_ADD, RSP, 8);
    emit_rr(e, 4, OP_TEST, RAX, RAX);
    uint8_t *left = emit_jcc_later(e, CC_NE);
    flags_emit_load(e);
    load_registers(e);
    emit_bytes(e, ret, sizeof ret);
    emit_patch32(left, e->shift, emit_here(e));
    emit_ri(e, 8, GRP1_ADD, RSP, 8); /* the return address into the region */
    emit_mov_imm32(e, RAX, JIT_EXIT_LEFT);
    emit_jmp(e, to_c);
    return at;
}

void jit_make_thunks(struct jit *jit)
{
    struct emit e = {.p = jit->code_write, .shift = jit->code - jit->code_write};
    const uint8_t *enter = emit_here(&e);
    make_enter(&e);
    const uint8_t *to_c = make_return(&e);
    jit->thunks.exit_edge = make_exit(jit, &e, JIT_EXIT_EDGE, CPU_AT(jx.edge), to_c);
    jit->thunks.exit_poll = make_exit(jit, &e, JIT_EXIT_POLL, CPU_AT(jx.edge), to_c);
    jit->thunks.exit_here = make_exit(jit, &e, JIT_EXIT_HERE, CPU_AT(jx.exit_off), to_c);
    jit->thunks.slow = make_slow(jit, &e, to_c);
    memcpy(&jit->thunks.enter, &enter, sizeof enter);
    jit->code_used = jit->code_kept = (size_t)(e.p - jit->code_write + 63) & ~(size_t)63;
}
