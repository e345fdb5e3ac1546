/*
 * far.c - far JMP, CALL and RET: direct, through call gates and to tasks (SDM vol. 3, 5.8; vol. 2,
 * CALL, JMP, RET).
 *
 * Each function checks everything, stores what has to be stored, and only then commits.
 */
#include "cpu/sys/internal.h"
#include <string.h>

void far_commit(struct cpu *cpu, const struct far_target *target, unsigned cpl)
{
    cpu->seg[SEG_CS] = target->cs;
    cpu->seg[SEG_CS].selector = (uint16_t)((target->cs.selector & ~3u) | cpl);
    cpu->next_rip = target->rip;
    cpu->cpl = (uint8_t)cpl;
    sys_cpl_update(cpu);
}

/* ---- The operand ----------------------------------------------------------------------------- */

struct far_pointer {
    uint16_t selector;
    uint64_t offset;
};

static struct far_pointer read_operand(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[0].size - 2u; /* the offset's: on AMD's processors 4 at most */
    struct far_pointer p = {0};
    uint8_t bytes[10];

    if (insn->op[0].kind == OPND_FAR) {
        p.selector = (uint16_t)insn->imm2;
        p.offset = size == 2 ? (uint16_t)insn->imm : (uint32_t)insn->imm;
        return p;
    }
    mem_read_far_pointer(cpu, insn, bytes, size);
    memcpy(&p.offset, bytes, size);
    memcpy(&p.selector, bytes + size, 2);
    return p;
}

/* ---- Checks ---------------------------------------------------------------------------------- */

/* RIP within the limit or canonical, L and D not both; raises #GP. */
static struct far_target make_target(struct cpu *cpu, uint16_t selector, const struct desc_ref *ref,
                                     uint64_t rip)
{
    struct far_target target = {.cs = segment_from_descriptor(selector, ref->low), .rip = rip};
    bool code64 = in_long(cpu) && target.cs.attr & SEG_ATTR_L;

    if (code64 && target.cs.attr & SEG_ATTR_DB)
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    if (code64 ? !is_canonical(rip) : rip > target.cs.limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    return target;
}

/* A code segment named by the instruction itself: the privilege stays. */
static void check_direct(struct cpu *cpu, uint16_t selector, const struct desc_ref *ref)
{
    uint16_t attr = desc_attr(ref->low);
    uint32_t error = selector & ~3u;

    if (attr_is_conforming(attr) ? attr_dpl(attr) > cpu->cpl
                                 : (selector & 3u) > cpu->cpl || attr_dpl(attr) != cpu->cpl)
        cpu_raise_error(cpu, VECTOR_GP, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
}

/* DPL and presence of a gate or TSS that the instruction names. */
static void check_system(struct cpu *cpu, uint16_t selector, uint16_t attr)
{
    if (attr_dpl(attr) < cpu->cpl || attr_dpl(attr) < (selector & 3u))
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, selector & ~3u);
}

struct call_gate {
    uint16_t selector; /* of the code segment */
    uint64_t offset;
    unsigned params, size; /* of the frame's items: 2, 4 or 8 */
    struct desc_ref code;
};

/* `inwards`: CALL, which may go to a more privileged level. */
static struct call_gate read_call_gate(struct cpu *cpu, uint16_t selector, struct desc_ref *ref,
                                       bool inwards)
{
    uint16_t attr = desc_attr(ref->low), code;
    struct call_gate gate = {.params = ref->low >> 32 & 31};

    check_system(cpu, selector, attr);
    gate.selector = gate_selector(ref->low);
    gate.offset = gate_offset32(ref->low);
    gate.size = 4;
    if (in_long(cpu)) {
        if (!desc_read16(cpu, selector, false, ref) || ref->high >> 40 & 0x1f)
            cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
        gate.offset |= ref->high << 32;
        gate.size = 8;
        gate.params = 0;
    } else if (attr_system_type(attr) == SYS_CALL16) {
        gate.offset &= 0xffff;
        gate.size = 2;
    }
    if (selector_is_null(gate.selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (!desc_read(cpu, gate.selector, false, &gate.code))
        cpu_raise_error(cpu, VECTOR_GP, gate.selector & ~3u);
    code = desc_attr(gate.code.low);
    if (!attr_is_code(code) || attr_dpl(code) > cpu->cpl ||
        (!inwards && !attr_is_conforming(code) && attr_dpl(code) != cpu->cpl) ||
        (in_long(cpu) && (!(code & SEG_ATTR_L) || code & SEG_ATTR_DB)))
        cpu_raise_error(cpu, VECTOR_GP, gate.selector & ~3u);
    if (!(code & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, gate.selector & ~3u);
    return gate;
}

/* A TSS or task gate as the target of JMP or CALL. */
static void to_task(struct cpu *cpu, uint16_t selector, struct desc_ref *ref,
                    enum task_reason reason)
{
    uint16_t attr = desc_attr(ref->low);

    check_system(cpu, selector, attr);
    if (attr_system_type(attr) == SYS_TASK_GATE) {
        selector = gate_selector(ref->low);
        if (selector & 4 || selector_is_null(selector) || !desc_read(cpu, selector, false, ref))
            cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
        attr = desc_attr(ref->low);
        if (attr_system_type(attr) != SYS_TSS16 && attr_system_type(attr) != SYS_TSS32)
            cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
        if (!(attr & SEG_ATTR_P))
            cpu_raise_error(cpu, VECTOR_NP, selector & ~3u);
    }
    task_switch(cpu, selector, ref, reason, cpu->next_rip, false, 0);
}

enum far_kind { FAR_CODE, FAR_CALL_GATE, FAR_TASK };

/* Reads the descriptor that a far JMP or CALL names; raises #GP for what cannot be one. */
static enum far_kind classify(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    uint16_t attr;

    if (selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (!desc_read(cpu, selector, false, ref))
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    attr = desc_attr(ref->low);
    if (attr_is_code(attr))
        return FAR_CODE;
    switch (attr_system_type(attr)) {
    case SYS_CALL32:
        return FAR_CALL_GATE;
    case SYS_CALL16:
        if (!in_long(cpu))
            return FAR_CALL_GATE;
        break;
    case SYS_TSS16:
    case SYS_TSS32:
        if (!in_long(cpu) && !(selector & 4)) /* only in the GDT (SDM vol. 3, 7.2.2) */
            return FAR_TASK;
        break;
    case SYS_TASK_GATE:
        if (!in_long(cpu))
            return FAR_TASK;
        break;
    }
    cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
}

/* ---- JMP ------------------------------------------------------------------------------------- */

static void real_jump(struct cpu *cpu, const struct far_pointer *p)
{
    if (p->offset > cpu->seg[SEG_CS].limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    sys_set_real_segment(cpu, SEG_CS, p->selector);
    cpu->next_rip = p->offset;
    cpu_mode_update(cpu);
}

static void jump_through_gate(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    struct call_gate gate = read_call_gate(cpu, selector, ref, false);
    struct far_target target;

    desc_set_accessed(cpu, &gate.code, false);
    target = make_target(cpu, gate.selector, &gate.code, gate.offset);
    far_commit(cpu, &target, cpu->cpl);
}

void sys_jmp_far(struct cpu *cpu, const struct insn *insn)
{
    struct far_pointer p = read_operand(cpu, insn);
    struct far_target target;
    struct desc_ref ref;

    if (!in_prot(cpu)) {
        real_jump(cpu, &p);
        return;
    }
    switch (classify(cpu, p.selector, &ref)) {
    case FAR_CODE:
        check_direct(cpu, p.selector, &ref);
        target = make_target(cpu, p.selector, &ref, p.offset);
        desc_set_accessed(cpu, &ref, false);
        target.cs.attr |= TYPE_ACCESSED;
        far_commit(cpu, &target, cpu->cpl);
        break;
    case FAR_CALL_GATE:
        jump_through_gate(cpu, p.selector, &ref);
        break;
    case FAR_TASK:
        to_task(cpu, p.selector, &ref, TASK_JMP);
        break;
    }
}

/* ---- CALL ------------------------------------------------------------------------------------ */

/* Pushes CS:RIP on the current stack; RSP is the caller's to commit. */
static struct stack push_return(struct cpu *cpu, unsigned size)
{
    uint64_t frame[2] = {cpu->seg[SEG_CS].selector, cpu->next_rip};
    struct stack stack = stack_current(cpu);

    stack_push(cpu, &stack, frame, 2, size);
    return stack;
}

static void real_call(struct cpu *cpu, const struct far_pointer *p, unsigned size)
{
    struct stack stack;

    if (p->offset > cpu->seg[SEG_CS].limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    stack = push_return(cpu, size);
    cpu->gpr[RSP] = stack.sp;
    real_jump(cpu, p);
}

static void call_same_level(struct cpu *cpu, uint16_t selector, struct desc_ref *ref,
                            uint64_t offset, unsigned size)
{
    struct far_target target = make_target(cpu, selector, ref, offset);
    struct stack stack;

    desc_set_accessed(cpu, ref, false);
    target.cs.attr |= TYPE_ACCESSED;
    stack = push_return(cpu, size);
    cpu->gpr[RSP] = stack.sp;
    far_commit(cpu, &target, cpu->cpl);
}

/* The stack of the more privileged level. */
static struct stack inner_stack(struct cpu *cpu, unsigned cpl)
{
    struct stack stack = {.cpl = cpl};
    struct desc_ref ref;
    uint16_t selector;

    if (in_long(cpu)) {
        stack.sp = tss_stack64(cpu, cpl, 0, false);
        stack.mask = ~0ull;
        stack.flat64 = true;
        stack.ss = segment_null((uint16_t)cpl);
        return stack;
    }
    tss_inner_stack(cpu, cpl, false, &selector, &stack.sp);
    segment_check_stack(cpu, selector, cpl, VECTOR_TS, false, &ref);
    desc_set_accessed(cpu, &ref, false);
    stack.ss = segment_from_descriptor(selector, ref.low);
    stack.mask = stack.ss.attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
    stack.error = selector & ~3u;
    return stack;
}

static void call_inner_level(struct cpu *cpu, struct call_gate *gate)
{
    unsigned cpl = attr_dpl(desc_attr(gate->code.low)), n = 0;
    struct stack stack = inner_stack(cpu, cpl);
    uint64_t frame[31 + 4], sp = cpu->gpr[RSP];
    struct far_target target;

    frame[n++] = cpu->seg[SEG_SS].selector;
    frame[n++] = sp;
    n += gate->params;
    for (unsigned i = 0; i < gate->params; i++)
        frame[n - 1 - i] = stack_pop(cpu, &sp, gate->size);
    frame[n++] = cpu->seg[SEG_CS].selector;
    frame[n++] = cpu->next_rip;
    target = make_target(cpu, gate->selector, &gate->code, gate->offset);
    desc_set_accessed(cpu, &gate->code, false);
    target.cs.attr |= TYPE_ACCESSED;
    stack_push(cpu, &stack, frame, n, gate->size);
    cpu->gpr[RSP] = stack_merge(cpu->gpr[RSP], stack.sp, stack.mask);
    cpu->seg[SEG_SS] = stack.ss;
    far_commit(cpu, &target, cpl);
}

static void call_through_gate(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    struct call_gate gate = read_call_gate(cpu, selector, ref, true);
    uint16_t attr = desc_attr(gate.code.low);

    if (!attr_is_conforming(attr) && attr_dpl(attr) < cpu->cpl)
        call_inner_level(cpu, &gate);
    else
        call_same_level(cpu, gate.selector, &gate.code, gate.offset, gate.size);
}

void sys_call_far(struct cpu *cpu, const struct insn *insn)
{
    struct far_pointer p = read_operand(cpu, insn);
    struct desc_ref ref;

    if (!in_prot(cpu)) {
        real_call(cpu, &p, insn->opsize);
        return;
    }
    switch (classify(cpu, p.selector, &ref)) {
    case FAR_CODE:
        check_direct(cpu, p.selector, &ref);
        call_same_level(cpu, p.selector, &ref, p.offset, insn->opsize);
        break;
    case FAR_CALL_GATE:
        call_through_gate(cpu, p.selector, &ref);
        break;
    case FAR_TASK:
        to_task(cpu, p.selector, &ref, TASK_CALL);
        break;
    }
}

/* ---- RET ------------------------------------------------------------------------------------- */

struct far_target far_check_return(struct cpu *cpu, uint16_t selector, uint64_t rip)
{
    uint32_t error = selector & ~3u;
    unsigned rpl = selector & 3u;
    struct far_target target;
    struct desc_ref ref;
    uint16_t attr;

    if (selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (!desc_read(cpu, selector, false, &ref))
        cpu_raise_error(cpu, VECTOR_GP, error);
    attr = desc_attr(ref.low);
    if (!attr_is_code(attr) || rpl < cpu->cpl ||
        (attr_is_conforming(attr) ? attr_dpl(attr) > rpl : attr_dpl(attr) != rpl))
        cpu_raise_error(cpu, VECTOR_GP, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
    target = make_target(cpu, selector, &ref, rip);
    desc_set_accessed(cpu, &ref, false);
    target.cs.attr |= TYPE_ACCESSED;
    return target;
}

struct segment far_check_return_stack(struct cpu *cpu, uint16_t selector,
                                      const struct far_target *target)
{
    unsigned cpl = target->cs.selector & 3u;
    struct desc_ref ref;

    if (selector_is_null(selector)) {
        if (!in_long(cpu) || !(target->cs.attr & SEG_ATTR_L) || cpl == 3 || (selector & 3u) != cpl)
            cpu_raise_error(cpu, VECTOR_GP, 0);
        return segment_null(selector);
    }
    segment_check_stack(cpu, selector, cpl, VECTOR_GP, false, &ref);
    desc_set_accessed(cpu, &ref, false);
    return segment_from_descriptor(selector, ref.low);
}

uint64_t far_return_mask(struct cpu *cpu, const struct far_target *target, const struct segment *ss)
{
    if (in_long(cpu) && target->cs.attr & SEG_ATTR_L)
        return ~0ull;
    return ss->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
}

/* To an outer level: SS:SP lie behind the parameters, and both stacks drop those. */
static void return_outer(struct cpu *cpu, const struct far_target *target, uint64_t sp,
                         unsigned release, unsigned size)
{
    unsigned cpl = target->cs.selector & 3u;
    uint64_t new_sp, mask;
    uint16_t selector;
    struct segment ss;

    sp = stack_merge(sp, sp + release, sys_stack_mask(cpu));
    new_sp = stack_pop(cpu, &sp, size);
    selector = (uint16_t)stack_pop(cpu, &sp, size);
    ss = far_check_return_stack(cpu, selector, target);
    mask = far_return_mask(cpu, target, &ss);
    cpu->gpr[RSP] = stack_merge(stack_merge(cpu->gpr[RSP], new_sp, mask), new_sp + release, mask);
    cpu->seg[SEG_SS] = ss;
    segments_drop_inner(cpu, cpl);
    far_commit(cpu, target, cpl);
}

void sys_ret_far(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->opsize, release = insn->imm_size ? (uint16_t)insn->imm : 0;
    uint64_t sp = cpu->gpr[RSP], rip = stack_pop(cpu, &sp, size);
    struct far_pointer p = {.selector = (uint16_t)stack_pop(cpu, &sp, size), .offset = rip};
    struct far_target target;

    if (!in_prot(cpu)) {
        real_jump(cpu, &p);
        cpu->gpr[RSP] = stack_merge(sp, sp + release, sys_stack_mask(cpu));
        return;
    }
    target = far_check_return(cpu, p.selector, rip);
    if ((p.selector & 3u) > cpu->cpl) {
        return_outer(cpu, &target, sp, release, size);
        return;
    }
    cpu->gpr[RSP] = stack_merge(sp, sp + release, sys_stack_mask(cpu));
    far_commit(cpu, &target, cpu->cpl);
}
