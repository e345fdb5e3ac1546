/*
 * thunk.c - the way into translated code and the ways out: made once per cache, at its beginning.
 *
 * enter() is a C function: it saves what the System V ABI wants saved, begins the stack of open
 * calls (branch.c), loads guest registers and jumps. All exits store the guest registers again,
 * drop that stack and return from it. slow() is called by translated code; it has C execute one
 * instruction and returns behind it, goes to another region, or leaves for good.
 *
 * Vector registers and MXCSR are loaded by the first region that uses any (vec_in()) and stored on
 * the way to C: kernels, which use none, pay for none. (STMXCSR alone takes as long as all the rest
 * of a way out.)
 */
#include "cpu/interp/vec.h"
#include "cpu/jit/build.h"
#include "cpu/sys/internal.h"

/* The guest registers that have a host register. */
static const uint8_t in_registers[] = {RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R12, R13};
/* What C functions keep for their callers, in the order of pushing (System V ABI, 3.2.1). */
static const uint8_t callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static void store_list(struct emit *e, const uint8_t *regs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        emit_cpu_store(e, abi_host(regs[i]), CPU_GPR(regs[i]));
}

static void load_list(struct emit *e, const uint8_t *regs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        emit_cpu_load(e, abi_host(regs[i]), CPU_GPR(regs[i]));
}

static void load_registers(struct emit *e)
{
    load_list(e, in_registers, sizeof in_registers);
}

static void store_registers(struct emit *e)
{
    store_list(e, in_registers, sizeof in_registers);
}

/* VMOVUPS ymm or MOVUPS xmm between a register and its home. */
static void move_vector(struct emit *e, unsigned reg, bool wide, bool store)
{
    unsigned opcode = store ? OP_0F_MOVUPS_STORE : OP_0F_MOVUPS_LOAD;
    if (wide)
        emit_cpu_ymm(e, opcode, reg);
    else
        emit_cpu_0f(e, 4, opcode, reg, CPU_YMM(reg));
}

static void move_vectors(struct emit *e, bool wide, bool store)
{
    for (unsigned reg = 0; reg < 16; reg++)
        move_vector(e, reg, wide, store);
}

static void set_vec_home(struct emit *e, uint32_t value)
{
    emit_cpu_imm32(e, OP_STORE_IMM, 0, CPU_AT(jx.vec_home), value);
}

/* STMXCSR and LDMXCSR [mxcsr]; by SDM vol. 2 the digits of 0F AE. */
static void move_mxcsr(struct emit *e, bool store)
{
    enum { LDMXCSR = 2, STMXCSR };
    emit_cpu_0f(e, 4, OP_0F_GRP15, store ? STMXCSR : LDMXCSR, CPU_AT(jx.mxcsr));
}

/* The guest's, as it is now; C does not mind its sticky flags, but its rounding. EFLAGS are lost.
 */
static void mxcsr_to_c(struct emit *e)
{
    static const uint8_t push_init[] = {0x68, MXCSR_INIT & 0xff, MXCSR_INIT >> 8, 0, 0},
                         ldmxcsr_rsp[] = {0x0f, 0xae, 0x14, 0x24};
    move_mxcsr(e, true);
    emit_cpu_imm32(e, OP_GRP3, GRP3_TEST, CPU_AT(jx.mxcsr), MXCSR_RC | MXCSR_FTZ | MXCSR_DAZ);
    uint8_t *plain = emit_jcc_later(e, CC_E);
    emit_bytes(e, push_init, sizeof push_init);
    emit_bytes(e, ldmxcsr_rsp, sizeof ldmxcsr_rsp);
    emit_rm(e, 8, OP_LEA, RSP, RSP, 8);
    emit_patch32(plain, e->shift, emit_here(e));
}

/* To their homes, if they are in registers; EFLAGS are lost. C must not pay for dirty upper halves.
 */
static void vectors_to_c(const struct jit *jit, struct emit *e)
{
    emit_cpu_imm8(e, OP_GRP1_IMM8, GRP1_CMP, CPU_AT(jx.vec_home), 0);
    uint8_t *home = emit_jcc_later(e, CC_NE);
    move_vectors(e, jit->host_avx, true);
    if (jit->host_avx)
        emit_vzeroupper(e);
    mxcsr_to_c(e);
    set_vec_home(e, 1);
    emit_patch32(home, e->shift, emit_here(e));
}

/* XMM0 = all upper halves together; then ZF says whether they are 0. */
static void test_upper_halves(struct emit *e)
{
    static const uint8_t vptest_xmm0[] = {0xc4, 0xe2, 0x79, 0x17, 0xc0};
    for (unsigned reg = 0; reg < 16; reg++) /* ORPS needs alignment: ymm[] has it */
        emit_cpu_0f(e, 4, reg == 0 ? OP_0F_MOVUPS_LOAD : OP_0F_ORPS, 0, CPU_YMM(reg) + 16);
    emit_bytes(e, vptest_xmm0, sizeof vptest_xmm0);
}

/* Into registers; EFLAGS are lost. Upper halves that are 0 are made so by VZEROUPPER: else SSE code
 * would pay for merging with them (Intel's optimisation manual, 15.3; likewise AMD's). */
static void vectors_from_c(const struct jit *jit, struct emit *e)
{
    uint8_t *wide = NULL;
    move_mxcsr(e, false);
    set_vec_home(e, 0);
    if (jit->host_avx) {
        test_upper_halves(e);
        wide = emit_jcc_later(e, CC_NE);
        emit_vzeroupper(e);
    }
    move_vectors(e, false, false);
    if (!wide)
        return;
    uint8_t *done = emit_jmp_later(e);
    emit_patch32(wide, e->shift, emit_here(e));
    move_vectors(e, true, false);
    emit_patch32(done, e->shift, emit_here(e));
}

/* Called where EFLAGS count; changes R11 only. */
static const uint8_t *make_vec_in(const struct jit *jit, struct emit *e)
{
    const uint8_t *at = emit_here(e);
    emit_mov(e, 8, SCRATCH2, RAX);
    emit_flags_to_ax(e);
    vectors_from_c(jit, e);
    emit_flags_from_ax(e);
    emit_mov(e, 8, RAX, SCRATCH2);
    emit_ret(e);
    return at;
}

/* Below what C functions keep stands one call that is always open, and returns to address 0. */
static void make_enter(const struct jit *jit, struct emit *e, const uint8_t *to_zero)
{
    for (unsigned i = 0; i < sizeof callee_saved; i++)
        emit_push(e, callee_saved[i]);
    emit_rip(e, 8, OP_LEA, HOST_CPU, (const uint8_t *)jit->cpu + CPU_NEAR);
    emit_mov(e, 8, RAX, RSP);
    emit_ri(e, 8, GRP1_AND, RSP, -CALLS_BYTES);
    emit_push(e, RAX);
    emit_push(e, RAX);
    emit_mov_imm32(e, RAX, 0);
    emit_push(e, RAX);
    emit_rip(e, 8, OP_LEA, RAX, to_zero);
    emit_push(e, RAX);
    emit_cpu_store(e, RSP, CPU_AT(jx.stack));
    emit_mov(e, 8, SCRATCH1, RSI);
    load_registers(e);
    emit_jmp_reg(e, SCRATCH1);
}

/* Returns from enter(); eax says why. */
static const uint8_t *make_return(struct emit *e)
{
    const uint8_t *at = emit_here(e);
    emit_cpu_load(e, RSP, CPU_AT(jx.stack));
    emit_rm(e, 8, OP_LOAD, RSP, RSP, 2 * 8);
    for (unsigned i = sizeof callee_saved; i-- > 0;)
        emit_pop(e, callee_saved[i]);
    emit_ret(e);
    return at;
}

static const uint8_t *make_exit_gate(const struct jit *jit, struct emit *e, const uint8_t *to_c)
{
    const uint8_t *at = emit_here(e);
    store_registers(e);
    vectors_to_c(jit, e);
    emit_mov_imm32(e, RAX, JIT_EXIT_GATE);
    emit_jmp(e, to_c);
    return at;
}

static const uint8_t *make_exit(const struct jit *jit, struct emit *e, enum jit_exit why,
                                int32_t r10_to, const uint8_t *to_c)
{
    unsigned r10_size = why == JIT_EXIT_EDGE ? 8 : 4;
    const uint8_t *at = emit_here(e);
    emit_cpu(e, r10_size, OP_STORE, SCRATCH1, r10_to);
    store_registers(e);
    vectors_to_c(jit, e);
    emit_mov_imm32(e, RAX, why);
    emit_jmp(e, to_c);
    return at;
}

/* From a thunk that is called: the stack is off by the return address. */
static void call_with_cpu(struct emit *e, const void *fn)
{
    static const uint8_t call_rax[] = {0xff, 0xd0};
    emit_cpu_load(e, RDI, CPU_AT(jx.self));
    emit_ri(e, 8, GRP1_SUB, RSP, 8);
    emit_mov_imm64(e, RAX, (uint64_t)(uintptr_t)fn);
    emit_bytes(e, call_rax, sizeof call_rax);
    emit_ri(e, 8, GRP1_ADD, RSP, 8);
}

/* As make_exit(), from where flags are in EFLAGS: ways out are many, and each would store them. */
static const uint8_t *make_exit_host(struct emit *e, const void *exit)
{
    const uint8_t *at = emit_here(e);
    emit_mov(e, 8, SCRATCH2, SCRATCH1);
    flags_emit_store(e);
    emit_mov(e, 8, SCRATCH1, SCRATCH2);
    emit_jmp(e, exit);
    return at;
}

static const uint8_t *make_slow(const struct jit *jit, struct emit *e, unsigned homes,
                                const uint8_t *to_c)
{
    const uint8_t *at = emit_here(e);
    store_registers(e);
    vectors_to_c(jit, e);
    emit_mov(e, 4, RSI, SCRATCH1);
    emit_rm(e, 8, OP_LEA, RAX, RSP, 8); /* above the return address into the region */
    emit_cpu_store(e, RAX, CPU_AT(jx.sp));
    call_with_cpu(e, jit_slow);
    emit_ri(e, 8, GRP1_CMP, RAX, 1); /* JIT_BACK */
    uint8_t *elsewhere = emit_jcc_later(e, CC_NE);
    if (homes & JIT_X87)
        call_with_cpu(e, jit_x87_in);
    if (homes & JIT_VECTORS)
        vectors_from_c(jit, e);
    flags_emit_load(e);
    load_registers(e);
    emit_ret(e);
    emit_patch32(elsewhere, e->shift, emit_here(e));
    uint8_t *left = emit_jcc_later(e, CC_B);
    emit_cpu_load(e, RSP, CPU_AT(jx.sp));
    emit_mov(e, 8, SCRATCH1, RAX);
    load_registers(e);
    emit_jmp_reg(e, SCRATCH1);
    emit_patch32(left, e->shift, emit_here(e));
    emit_mov_imm32(e, RAX, JIT_EXIT_LEFT);
    emit_jmp(e, to_c);
    return at;
}

/* clock_piece_at() in RAX; the jump that is taken where it says no. */
static uint8_t *emit_piece_at(struct emit *e)
{
    static const uint8_t rdtsc[] = {0x0f, 0x31};
    emit_bytes(e, rdtsc, sizeof rdtsc);
    emit_shift(e, 8, SHIFT_DIGIT_SHL, RDX, 32);
    emit_rr(e, 8, OP_OR_LOAD, RAX, RDX);
    emit_cpu(e, 8, OP_SUB_LOAD, RAX, CPU_AT(jx.tsc.start));
    emit_cpu(e, 8, OP_CMP_LOAD, RAX, CPU_AT(jx.tsc.length));
    uint8_t *over = emit_jcc_later(e, CC_AE);
    emit_cpu_0f(e, 8, OP_0F_IMUL, RAX, CPU_AT(jx.tsc.mult));
    emit_shift(e, 8, SHIFT_DIGIT_SHR, RAX, 32);
    emit_cpu(e, 8, OP_ADD_LOAD, RAX, CPU_AT(jx.tsc.base));
    return over;
}

/* RAX and RDX become the two halves of what sys_tsc() returns. When the piece is over this is
 * called: it is any C function, so vectors must be at home; guest registers that C keeps stay. */
static const uint8_t *make_tsc(struct emit *e)
{
    static const uint8_t saved[] = {RCX, RSI, RDI, R8, R9};
    static const uint8_t clc = 0xf8, stc = 0xf9;
    const uint8_t *at = emit_here(e);
    emit_mov(e, 8, SCRATCH1, RAX);
    emit_mov(e, 8, SCRATCH2, RDX);
    uint8_t *over = emit_piece_at(e);
    emit_cpu(e, 8, OP_ADD_LOAD, RAX, CPU_AT(tsc_offset));
    const uint8_t *split = emit_here(e);
    emit_mov(e, 8, RDX, RAX);
    emit_shift(e, 8, SHIFT_DIGIT_SHR, RDX, 32);
    emit_mov(e, 4, RAX, RAX);
    emit8(e, clc);
    emit_ret(e);
    emit_patch32(over, e->shift, emit_here(e));
    emit_cpu_imm8(e, OP_GRP1_IMM8, GRP1_CMP, CPU_AT(jx.vec_home), 0);
    uint8_t *vectors = emit_jcc_later(e, CC_E);
    store_list(e, saved, sizeof saved);
    call_with_cpu(e, sys_tsc);
    load_list(e, saved, sizeof saved);
    emit_jmp(e, split);
    emit_patch32(vectors, e->shift, emit_here(e));
    emit_mov(e, 8, RAX, SCRATCH1);
    emit_mov(e, 8, RDX, SCRATCH2);
    emit8(e, stc);
    emit_ret(e);
    return at;
}

/* Calls a function that leaves vectors alone, with R10: so only what C functions may change is
 * moved, and RSP. R10 = what it returns; ZF = 1: that is 0. */
static void call_plain(struct emit *e, const void *fn)
{
    static const uint8_t caller_saved[] = {RAX, RCX, RDX, RSP, RSI, RDI, R8, R9};
    store_list(e, caller_saved, sizeof caller_saved);
    emit_mov(e, 8, RSI, SCRATCH1);
    call_with_cpu(e, fn);
    emit_mov(e, 8, SCRATCH1, RAX);
    load_list(e, caller_saved, sizeof caller_saved);
    emit_rr(e, 8, OP_TEST, SCRATCH1, SCRATCH1);
}

/* Called where EFLAGS count, with the guest's RCX in R10; changes R11 only. */
static const uint8_t *make_x87_in(struct emit *e)
{
    static const uint8_t pushfq = 0x9c, popfq = 0x9d;
    const uint8_t *at = emit_here(e);
    emit8(e, pushfq);
    emit_push(e, SCRATCH1);
    call_plain(e, jit_x87_in);
    emit_pop(e, SCRATCH1);
    emit8(e, popfq);
    emit_ret(e);
    return at;
}

static const uint8_t *make_plain(struct emit *e, const void *fn)
{
    const uint8_t *at = emit_here(e);
    call_plain(e, fn);
    emit_ret(e);
    return at;
}

/* A function of gates.c. */
static const uint8_t *make_gate(struct emit *e, jit_gate_fn *fn)
{
    const uint8_t *at = emit_here(e);
    call_plain(e, fn);
    uint8_t *done = emit_jcc_later(e, CC_NE);
    emit_ret(e);
    emit_patch32(done, e->shift, emit_here(e));
    emit_cpu_load(e, RSP, CPU_AT(jx.stack)); /* open calls return to regions of this mode */
    emit_jmp_reg(e, SCRATCH1);
    return at;
}

/* To where the edge is looked at again, or out. Flags are stored on such ways. */
static const uint8_t *make_again_edge(const struct jit *jit, struct emit *e)
{
    const uint8_t *at = emit_here(e);
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.edge));
    call_plain(e, jit_again_edge);
    uint8_t *no = emit_jcc_later(e, CC_E);
    emit_jmp_reg(e, SCRATCH1);
    emit_patch32(no, e->shift, emit_here(e));
    emit_cpu_load(e, SCRATCH1, CPU_AT(jx.edge));
    emit_jmp(e, jit->thunks.exit_edge);
    return at;
}

/* Called, like slow; does not return where the code goes on without it. */
static const uint8_t *make_group(struct emit *e, const void *slow)
{
    const uint8_t *at = emit_here(e);
    emit_cpu(e, 4, OP_STORE, SCRATCH1, CPU_AT(jx.exit_off));
    call_plain(e, jit_again_group);
    uint8_t *no = emit_jcc_later(e, CC_E);
    emit_mov(e, 8, SCRATCH2, SCRATCH1);
    emit_cpu_load(e, SCRATCH1, CPU_AT(jx.jump));
    emit_rm(e, 8, OP_LEA, RSP, RSP, 8);
    emit_jmp_reg(e, SCRATCH2);
    emit_patch32(no, e->shift, emit_here(e));
    emit_cpu(e, 4, OP_LOAD, SCRATCH1, CPU_AT(jx.exit_off));
    emit_jmp(e, slow);
    return at;
}

/* Where the call that is always open returns to: guest address 0, which a guest may name. */
static const uint8_t *make_to_zero(const struct jit *jit, struct emit *e)
{
    const uint8_t *at = emit_here(e);
    emit_mov_imm32(e, SCRATCH1, 0);
    emit_cpu_store(e, SCRATCH1, CPU_AT(jx.page_va));
    emit_jmp(e, jit->thunks.exit_poll);
    return at;
}

/* The other one of the pair; then, if one of them is for the target, what C says of that. */
static const uint8_t *make_other_place(struct emit *e)
{
    const int32_t pc = (int32_t)offsetof(struct jit_pc, pc);
    const uint8_t *at = emit_here(e);
    emit_ri(e, 8, GRP1_XOR, SCRATCH2, sizeof(struct jit_pc));
    emit_rm(e, 8, OP_CMP_LOAD, SCRATCH1, SCRATCH2, pc);
    uint8_t *not_other = emit_jcc_later(e, CC_NE);
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, (int32_t)offsetof(struct jit_pc, generation));
    emit_cpu(e, 8, OP_CMP_LOAD, SCRATCH1, CPU_AT(mmu.exec_generation));
    uint8_t *local = emit_jcc_later(e, CC_E);
    emit_cpu(e, 8, OP_CMP_LOAD, SCRATCH1, CPU_AT(mmu.global_generation));
    uint8_t *global = emit_jcc_later(e, CC_E);
    emit_rm(e, 8, OP_LOAD, SCRATCH1, SCRATCH2, pc);
    uint8_t *outdated = emit_jmp_later(e);
    emit_patch32(not_other, e->shift, emit_here(e));
    emit_ri(e, 8, GRP1_XOR, SCRATCH2, sizeof(struct jit_pc));
    emit_rm(e, 8, OP_CMP_LOAD, SCRATCH1, SCRATCH2, pc);
    uint8_t *none = emit_jcc_later(e, CC_NE);
    emit_patch32(outdated, e->shift, emit_here(e));
    call_plain(e, jit_again_target);
    emit_mov(e, 8, SCRATCH2, SCRATCH1); /* leaves ZF alone */
    uint8_t *found = emit_jcc_later(e, CC_NE);
    emit_rr(e, 8, OP_TEST, RSP, RSP); /* ZF = 0 */
    emit_ret(e);
    emit_patch32(found, e->shift, emit_here(e));
    emit_rr(e, 8, OP_CMP_LOAD, SCRATCH1, SCRATCH1); /* ZF = 1 */
    emit_patch32(local, e->shift, emit_here(e));
    emit_patch32(global, e->shift, emit_here(e));
    emit_patch32(none, e->shift, emit_here(e));
    emit_ret(e);
    return at;
}

/* Frames are 16 bytes: where the host goes on, and the guest's return address. It sees RSP 8 lower.
 */
static const uint8_t *make_find_call(struct emit *e)
{
    enum { LOOKED_AT = 8, FRAME = 16 };
    uint8_t *over[2 * LOOKED_AT];
    unsigned n = 0;
    const uint8_t *at = emit_here(e);
    emit_rm(e, 8, OP_LEA, SCRATCH2, RSP, 8);
    for (unsigned i = 0; i < LOOKED_AT; i++) {
        emit_cpu(e, 8, OP_CMP_LOAD, SCRATCH2, CPU_AT(jx.stack));
        over[n++] = emit_jcc_later(e, CC_E);
        emit_rm(e, 8, OP_LEA, SCRATCH2, SCRATCH2, FRAME);
        emit_rm(e, 8, OP_CMP_LOAD, SCRATCH1, SCRATCH2, 8);
        over[n++] = emit_jcc_later(e, CC_E);
    }
    emit_ret(e); /* ZF = 0 */
    for (unsigned i = 0; i < n; i += 2)
        emit_patch32(over[i], e->shift, emit_here(e));
    emit_rr(e, 8, OP_TEST, RSP, RSP); /* ZF = 0 */
    for (unsigned i = 1; i < n; i += 2)
        emit_patch32(over[i], e->shift, emit_here(e));
    emit_ret(e);
    return at;
}

void jit_make_thunks(struct jit *jit)
{
    struct emit e = jit_emit(jit, jit->code_write);
    const uint8_t *to_c = make_return(&e);
    jit->thunks.exit_edge = make_exit(jit, &e, JIT_EXIT_EDGE, CPU_AT(jx.edge), to_c);
    jit->thunks.exit_poll = make_exit(jit, &e, JIT_EXIT_POLL, CPU_AT(jx.exit_off), to_c);
    jit->thunks.exit_edge_host = make_exit_host(&e, jit->thunks.exit_edge);
    jit->thunks.exit_poll_host = make_exit_host(&e, jit->thunks.exit_poll);
    jit->thunks.exit_here = make_exit(jit, &e, JIT_EXIT_HERE, CPU_AT(jx.exit_off), to_c);
    for (unsigned homes = 0; homes < JIT_HOMES; homes++) {
        jit->thunks.slow[homes] = make_slow(jit, &e, homes, to_c);
        jit->thunks.group[homes] = make_group(&e, jit->thunks.slow[homes]);
    }
    jit->thunks.again_edge = make_again_edge(jit, &e);
    jit->thunks.vec_in = make_vec_in(jit, &e);
    jit->thunks.x87_in = make_x87_in(&e);
    jit->thunks.exit_gate = make_exit_gate(jit, &e, to_c);
    jit->thunks.gate[GATE_SYSCALL] = make_gate(&e, jit_gate_syscall);
    jit->thunks.gate[GATE_SYSRET] = make_gate(&e, jit_gate_sysret);
    jit->thunks.gate[GATE_IRET] = make_gate(&e, jit_gate_iret);
    jit->thunks.pages = make_plain(&e, jit_pages);
    jit->thunks.gather = make_plain(&e, jit_gather);
    jit->thunks.tsc = make_tsc(&e);
    jit->thunks.other_place = make_other_place(&e);
    jit->thunks.find_call = make_find_call(&e);
    const uint8_t *to_zero = make_to_zero(jit, &e), *enter = emit_here(&e);
    make_enter(jit, &e, to_zero);
    memcpy(&jit->thunks.enter, &enter, sizeof enter);
    last_make_thunks(jit, &e);
    jit->body.begin = (size_t)(e.p - jit->code_write + 63) & ~(size_t)63;
}
