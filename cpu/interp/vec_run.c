/*
 * vec_run.c - executes vec_host rows through their stubs, with MXCSR and SIMD exceptions.
 *
 * Stubs run with all exceptions masked and the guest's rounding, FTZ and DAZ; what was raised is
 * read from the host's MXCSR. Only an exception that the guest has unmasked is raised on the host
 * as well (vec_trap.c). SIMD floating-point exceptions: SDM vol. 1, 11.5.
 */
#include "cpu/interp/vec_internal.h"
#include "cpu/mem_internal.h"

/* ---- Memory ---------------------------------------------------------------------------------- */

/* MXCSR.MM lifts the demand from instructions that compute, not from moves. */
static bool must_be_aligned(const struct cpu *cpu, const struct insn *insn)
{
    uint32_t attr = insn->row->attr;
    if (attr & INSN_ALIGN_INTEL)
        return !cpu_is_amd(cpu);
    bool move = insn->row->exec == EXEC_vec_load || insn->row->exec == EXEC_vec_store;
    return (attr & INSN_ALIGN) && (move || !(cpu->mxcsr & MXCSR_MM));
}

static uint64_t operand_address(struct cpu *cpu, const struct insn *insn, unsigned size,
                                enum access_kind kind)
{
    uint64_t lin = mem_operand(cpu, insn, size, kind);
    if ((lin & (size - 1)) && must_be_aligned(cpu, insn))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (size == 10) /* m80 (SDM vol. 3, table 6-7) */
        mem_check_alignment(cpu, lin, 8);
    return lin;
}

static void read_slowly(struct cpu *cpu, const struct insn *insn, void *buf, unsigned size)
{
    uint64_t lin = operand_address(cpu, insn, size, ACCESS_READ);
    if ((insn->row->attr & INSN_LOW8) && (cpu->mxcsr & MXCSR_MM)) {
        memset((char *)buf + 8, 0, size - 8);
        size = 8;
    }
    mem_read(cpu, insn->mem.seg, lin, buf, size);
}

void vec_read_mem(struct cpu *cpu, const struct insn *insn, void *buf, unsigned size)
{
    void *p = vec_hit(cpu, insn, size, ACCESS_READ);
    if (__builtin_expect(p != NULL, 1))
        mem_host_read_wide(buf, p, size);
    else
        read_slowly(cpu, insn, buf, size);
}

void vec_write_mem(struct cpu *cpu, const struct insn *insn, const void *buf, unsigned size)
{
    void *p = vec_hit(cpu, insn, size, ACCESS_WRITE);
    if (__builtin_expect(p != NULL, 1))
        mem_host_write_wide(p, buf, size);
    else
        mem_write(cpu, insn->mem.seg, operand_address(cpu, insn, size, ACCESS_WRITE), buf, size);
}

uint64_t vec_read_scalar(struct cpu *cpu, const struct insn *insn, unsigned size)
{
    void *p = vec_hit(cpu, insn, size, ACCESS_READ);
    if (__builtin_expect(p != NULL, 1))
        return mem_host_load(p, size);
    uint64_t value = 0;
    mem_read(cpu, insn->mem.seg, operand_address(cpu, insn, size, ACCESS_READ), &value, size);
    return value;
}

void vec_write_scalar(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned size)
{
    void *p = vec_hit(cpu, insn, size, ACCESS_WRITE);
    if (__builtin_expect(p != NULL, 1))
        mem_host_store(p, value, size);
    else
        mem_write(cpu, insn->mem.seg, operand_address(cpu, insn, size, ACCESS_WRITE), &value, size);
}

void vec_prove_store(struct cpu *cpu, const struct insn *insn, unsigned size)
{
    if (cpu_is_amd(cpu) && !vec_hit(cpu, insn, size, ACCESS_WRITE))
        mem_probe_write(cpu, insn->mem.seg, operand_address(cpu, insn, size, ACCESS_WRITE), size);
}

/* ---- MXCSR ----------------------------------------------------------------------------------- */

/* Everything is masked, as nearly always. The host's MXCSR is the guest's while the stub runs and,
 * with default rounding, stays so afterwards: C code does not mind sticky flags, and the next
 * instruction finds it as it wants it. */
static uint64_t run_masked(struct cpu *cpu, const struct vec_stub *stub,
                           const struct vec_call *call, uint32_t *mxcsr)
{
    uint32_t want = cpu->mxcsr;
    if (vec_host_mxcsr() != want)
        vec_set_host_mxcsr(want);
    uint64_t result = vec_call_stub(stub, call);
    *mxcsr = vec_host_mxcsr();
    if (want & (MXCSR_RC | MXCSR_FTZ | MXCSR_DAZ))
        vec_set_host_mxcsr(MXCSR_INIT);
    return result;
}

/* Runs the stub and returns the exception flags that it raises, nothing else masked or sticky. */
static uint32_t raised_with(const struct vec_stub *stub, const struct vec_call *call,
                            uint32_t control, uint64_t *result)
{
    vec_set_host_mxcsr(MXCSR_MASKS | control);
    *result = vec_call_stub(stub, call);
    uint32_t raised = vec_host_mxcsr() & MXCSR_FLAGS;
    vec_set_host_mxcsr(MXCSR_INIT);
    return raised;
}

/* The flags that a masked run raises, all that can be had of an unmasked one: whether it raises
 * something is right, and nearly always what. */
static uint32_t masked_flags(const struct vec_stub *stub, const struct vec_call *call,
                             uint32_t control, uint32_t unmasked, uint64_t *result)
{
    /* An unmasked #U disables FTZ and happens for every tiny result, exact ones too (SDM vol. 1,
     * 11.5.2.5). Exact tiny results raise nothing while masked, but FTZ flushes and flags them. */
    if (!(unmasked & MXCSR_UE))
        return raised_with(stub, call, control, result);
    alignas(32) union vreg other = {{0}};
    struct vec_call again = *call;
    uint64_t ignored;
    again.out = &other;
    return raised_with(stub, call, control & ~MXCSR_FTZ, result) |
           (raised_with(stub, &again, control | MXCSR_FTZ, &ignored) & MXCSR_UE);
}

/* Exceptions found before the computation (#I, #D, #Z) end it: then the flags of the later ones
 * (#O, #U, #P) are not set (SDM vol. 1, 11.5.3). */
static uint32_t estimated_flags(uint32_t raised, uint32_t unmasked)
{
    const uint32_t before = MXCSR_IE | MXCSR_DE | MXCSR_ZE;
    return raised & unmasked & before ? raised & before : raised;
}

/* Some exceptions are unmasked. If one of them happens, the instruction has no result, MXCSR gets
 * the flags and #XM (or #UD) is raised. */
static uint64_t run_unmasked(struct cpu *cpu, const struct vec_stub *stub,
                             const struct vec_call *call, uint32_t *mxcsr)
{
    uint32_t guest = cpu->mxcsr, control = guest & (MXCSR_RC | MXCSR_DAZ | MXCSR_FTZ);
    uint32_t unmasked = ~(guest >> MXCSR_MASK_SHIFT) & MXCSR_FLAGS;
    alignas(32) union vreg out = {{0}};
    struct vec_call temporary = *call;
    temporary.out = &out;
    uint64_t result;
    uint32_t raised = masked_flags(stub, &temporary, control, unmasked, &result);
    if (raised & unmasked) {
        uint32_t exact = guest & ~(uint32_t)MXCSR_FLAGS;
        enum vec_trap_end end = vec_trap(stub, &temporary, &exact, &result);
        raised = end == TRAP_UNAVAILABLE ? estimated_flags(raised, unmasked) : exact & MXCSR_FLAGS;
        if (end != TRAP_COMPLETED) {
            cpu->mxcsr = guest | raised;
            cpu_raise(cpu, cpu->mode & MODE_OSXMMEXCPT ? VECTOR_XM : VECTOR_UD);
        }
    }
    if (stub->dest != DEST_NONE && stub->dest != DEST_GPR)
        memcpy(call->out, &out, stub->out_size);
    *mxcsr = guest | raised;
    return result;
}

static inline uint64_t run(struct cpu *cpu, const struct vec_stub *stub,
                           const struct vec_call *call, uint32_t *mxcsr)
{
    if (!stub->mxcsr)
        return vec_call_stub(stub, call);
    if ((cpu->mxcsr & MXCSR_MASKS) == MXCSR_MASKS)
        return run_masked(cpu, stub, call, mxcsr);
    return run_unmasked(cpu, stub, call, mxcsr);
}

/* ---- Operands -------------------------------------------------------------------------------- */

/* The guest's register in struct cpu. */
static inline void *register_of(struct cpu *cpu, const struct opnd *op)
{
    switch (op->kind) {
    case OPND_GPR:
        return &cpu->gpr[op->reg];
    case OPND_MMX: /* after x87_enter_mmx() */
        return cpu->x87.st[op->reg];
    default:
        return &cpu->ymm[op->reg];
    }
}

/* An operand is in an MMX register: only then does the instruction enter MMX state (CVTPI2PD with a
 * memory operand does not). */
static bool uses_mmx(const struct insn *insn)
{
    for (unsigned n = 0; n < insn->opnds; n++) {
        if (insn->op[n].kind == OPND_MMX)
            return true;
    }
    return false;
}

void vec_run(struct cpu *cpu, const struct insn *insn, const void *prepared)
{
    const struct vec_stub *stub = prepared ? prepared : vec_stub_get(cpu, insn);
    alignas(32) union vreg memory, result = {{0}};
    struct vec_call call = {.out = &result};
    const struct opnd *rm = stub->rm >= 0 ? &insn->op[stub->rm] : NULL;
    bool to_memory = stub->dest == DEST_RM && rm->kind == OPND_MEM;

    if (rm && rm->kind == OPND_MEM) {
        if (rm->access & OPND_R)
            vec_read_mem(cpu, insn, &memory, rm->size);
        if (to_memory)
            vec_prove_store(cpu, insn, rm->size);
        call.rm = &memory;
    }
    if (stub->mmx &&
        uses_mmx(insn)) /* the last memory access is over; a SIMD exception finds it done */
        x87_enter_mmx(&cpu->x87);
    if (rm && rm->kind != OPND_MEM)
        call.rm = register_of(cpu, rm);
    if (stub->v >= 0)
        call.v = register_of(cpu, &insn->op[stub->v]);
    if (stub->h >= 0)
        call.h = register_of(cpu, &insn->op[stub->h]);
    if (stub->l >= 0)
        call.l = register_of(cpu, &insn->op[stub->l]);
    if (stub->dest != DEST_NONE && stub->dest != DEST_GPR && !to_memory)
        call.out = register_of(cpu, &insn->op[stub->dest_op]);

    uint32_t mxcsr = cpu->mxcsr;
    uint64_t value = run(cpu, stub, &call, &mxcsr);
    cpu->mxcsr = mxcsr; /* sticky, and set also when the store faults */
    if (to_memory)
        vec_write_mem(cpu, insn, &result, rm->size);
    if (stub->dest == DEST_GPR)
        opnd_set_gpr(cpu, insn->op[stub->dest_op].reg, insn->op[stub->dest_op].size, value);
    else if (stub->flags)
        cpu_set_arith(cpu, (uint32_t)value & FLAGS_ARITH);
    else if (stub->mmx && stub->out_size == 8)
        memset(cpu->x87.st[insn->op[stub->dest_op].reg] + 8, 0xff, 2);
}

void vec_host(struct cpu *cpu, const struct insn *insn)
{
    vec_run(cpu, insn, vec_stub_get(cpu, insn));
}

/* PCMPESTRM, PCMPESTRI, PCMPISTRM, PCMPISTRI (SDM vol. 2, 4.1). */
void vec_pcmpstr(struct cpu *cpu, const struct insn *insn)
{
    alignas(32) union vreg buf;
    const union vreg *second = vec_source(cpu, insn, 1, &buf);
    const struct vec_stub *stub = vec_stub_get(cpu, insn);
    uint64_t result = stub->code(&cpu->ymm[insn->op[0].reg], second, NULL, cpu->gpr, &cpu->ymm[0]);
    if (insn->row->exec_arg & 1)
        opnd_set_gpr(cpu, RCX, 4, result >> 32);
    cpu_set_arith(cpu, (uint32_t)result & FLAGS_ARITH);
}
