/*
 * deliver_prot.c - exception and interrupt delivery in protected and virtual-8086 mode: 16- and
 * 32-bit interrupt and trap gates, stack switch, task gates (SDM vol. 3, 6.12, 20.3; vol. 2, INT
 * n).
 */
#include "cpu/sys/internal.h"

static uint32_t idt_error(uint8_t vector)
{
    return vector * 8u + 2;
}

static uint64_t read_gate(struct cpu *cpu, const struct event *event)
{
    uint32_t offset = event->vector * 8u;
    uint64_t gate;
    uint16_t attr;

    if (offset + 7 > cpu->idtr.limit)
        cpu_raise_error(cpu, VECTOR_GP, idt_error(event->vector));
    mem_sys_read(cpu, (uint32_t)(cpu->idtr.base + offset), &gate, 8, true);
    attr = desc_attr(gate);
    switch (attr_system_type(attr)) {
    case SYS_TASK_GATE:
    case SYS_INT16:
    case SYS_TRAP16:
    case SYS_INT32:
    case SYS_TRAP32:
        break;
    default:
        cpu_raise_error(cpu, VECTOR_GP, idt_error(event->vector));
    }
    if (event->kind == EVENT_SOFTWARE && attr_dpl(attr) < cpu->cpl)
        cpu_raise_error(cpu, VECTOR_GP, idt_error(event->vector));
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, idt_error(event->vector));
    return gate;
}

/* The TSS must be in the GDT, and not busy. */
static void through_task_gate(struct cpu *cpu, const struct event *event, uint64_t gate)
{
    uint16_t selector = gate_selector(gate);
    struct desc_ref ref;
    unsigned type;

    if (selector & 4 || selector_is_null(selector) || !desc_read(cpu, selector, true, &ref))
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    type = attr_system_type(desc_attr(ref.low));
    if (type != SYS_TSS16 && type != SYS_TSS32)
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    if (!(desc_attr(ref.low) & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, selector & ~3u);
    /* The flags image is what the old TSS gets. */
    cpu->rflags = event->rflags;
    cpu->cc_op = CC_RFLAGS;
    task_switch(cpu, selector, &ref, TASK_GATE_EVENT, event->rip, event->has_error, event->error);
}

/* Returns the new CPL. */
static unsigned check_code_segment(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    uint32_t error = selector & ~3u;
    uint16_t attr;
    unsigned cpl;

    if (selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (!desc_read(cpu, selector, true, ref))
        cpu_raise_error(cpu, VECTOR_GP, error);
    attr = desc_attr(ref->low);
    if (!attr_is_code(attr) || attr_dpl(attr) > cpu->cpl)
        cpu_raise_error(cpu, VECTOR_GP, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
    cpl = attr_is_conforming(attr) ? cpu->cpl : attr_dpl(attr);
    if (in_v86(cpu) && cpl != 0)
        cpu_raise_error(cpu, VECTOR_GP, error);
    return cpl;
}

/* The stack of the inner level, out of the TSS. */
static struct stack inner_stack(struct cpu *cpu, unsigned cpl)
{
    struct stack stack = {.event = true, .cpl = cpl};
    struct desc_ref ref;
    uint16_t selector;

    tss_inner_stack(cpu, cpl, true, &selector, &stack.sp);
    segment_check_stack(cpu, selector, cpl, VECTOR_TS, true, &ref);
    desc_set_accessed(cpu, &ref, true);
    stack.ss = segment_from_descriptor(selector, ref.low);
    stack.mask = stack.ss.attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;
    stack.error = selector & ~3u;
    return stack;
}

static unsigned build_frame(struct cpu *cpu, const struct event *event, bool inner,
                            uint64_t frame[10])
{
    unsigned n = 0;

    if (in_v86(cpu)) {
        frame[n++] = cpu->seg[SEG_GS].selector;
        frame[n++] = cpu->seg[SEG_FS].selector;
        frame[n++] = cpu->seg[SEG_DS].selector;
        frame[n++] = cpu->seg[SEG_ES].selector;
    }
    if (inner) {
        frame[n++] = cpu->seg[SEG_SS].selector;
        frame[n++] = cpu->gpr[RSP];
    }
    frame[n++] = event->rflags;
    frame[n++] = cpu->seg[SEG_CS].selector;
    frame[n++] = event->rip;
    if (event->has_error)
        frame[n++] = event->error;
    return n;
}

void deliver_prot(struct cpu *cpu, const struct event *event)
{
    uint64_t gate = read_gate(cpu, event), frame[10], keep;
    unsigned type = attr_system_type(desc_attr(gate)), cpl, count;
    bool wide = type == SYS_INT32 || type == SYS_TRAP32, inner;
    struct segment cs;
    struct desc_ref code;
    struct stack stack;
    uint32_t eip = wide ? gate_offset32(gate) : gate & 0xffff;

    if (type == SYS_TASK_GATE) {
        through_task_gate(cpu, event, gate);
        return;
    }
    cpl = check_code_segment(cpu, gate_selector(gate), &code);
    inner = cpl < cpu->cpl;
    if (inner) {
        stack = inner_stack(cpu, cpl);
    } else {
        stack = stack_current(cpu);
        stack.event = true;
    }
    cs = segment_from_descriptor((uint16_t)((gate_selector(gate) & ~3u) | cpl), code.low);
    if (eip > cs.limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    count = build_frame(cpu, event, inner, frame);
    desc_set_accessed(cpu, &code, true);
    cs.attr |= TYPE_ACCESSED;
    stack_push(cpu, &stack, frame, count, wide ? 4 : 2);

    /* Nothing below can fail. */
    if (in_v86(cpu)) {
        cpu->seg[SEG_GS] = cpu->seg[SEG_FS] = segment_null(0);
        cpu->seg[SEG_DS] = cpu->seg[SEG_ES] = segment_null(0);
    }
    cpu->gpr[RSP] = stack_merge(cpu->gpr[RSP], stack.sp, stack.mask);
    cpu->seg[SEG_SS] = stack.ss;
    cpu->seg[SEG_CS] = cs;
    cpu->cpl = (uint8_t)cpl;
    cpu->next_rip = eip;
    keep = ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
    if (type == SYS_INT16 || type == SYS_INT32)
        keep &= ~(uint64_t)RFLAGS_IF;
    cpu->rflags = (cpu_rflags(cpu) & keep) | RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
    cpu_mode_update(cpu);
}
