/*
 * deliver_long.c - exception and interrupt delivery in IA-32e mode: 16-byte gates, IST, RSP aligned
 * to 16, SS:RSP always pushed (SDM vol. 3, 6.14; vol. 2, INT n).
 */
#include "cpu/sys/internal.h"

/* Error code that names an IDT entry. EXT is added by exception.c. */
static uint32_t idt_error(uint8_t vector)
{
    return vector * 8u + 2;
}

static void read_gate(struct cpu *cpu, const struct event *event, struct desc_ref *gate)
{
    uint32_t offset = event->vector * 16u;
    uint16_t attr;

    if (offset + 15 > cpu->idtr.limit)
        cpu_raise_error(cpu, VECTOR_GP, idt_error(event->vector));
    gate->lin = cpu->idtr.base + offset;
    mem_sys_read(cpu, gate->lin, &gate->low, 8, true);
    mem_sys_read(cpu, gate->lin + 8, &gate->high, 8, true);
    attr = desc_attr(gate->low);
    if (attr_system_type(attr) != SYS_INT32 && attr_system_type(attr) != SYS_TRAP32)
        cpu_raise_error(cpu, VECTOR_GP, idt_error(event->vector));
    if (event->kind == EVENT_SOFTWARE && attr_dpl(attr) < cpu->cpl)
        cpu_raise_error(cpu, VECTOR_GP, idt_error(event->vector));
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, idt_error(event->vector));
}

/* The handler's code segment: 64-bit, not less privileged than we are. Returns the new CPL. */
static unsigned check_code_segment(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    uint32_t error = selector & ~3u;
    uint16_t attr;

    if (selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (!desc_read(cpu, selector, true, ref))
        cpu_raise_error(cpu, VECTOR_GP, error);
    attr = desc_attr(ref->low);
    if (!attr_is_code(attr) || attr_dpl(attr) > cpu->cpl)
        cpu_raise_error(cpu, VECTOR_GP, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
    if (!(attr & SEG_ATTR_L) || attr & SEG_ATTR_DB)
        cpu_raise_error(cpu, VECTOR_GP, error);
    return attr_is_conforming(attr) ? cpu->cpl : attr_dpl(attr);
}

void deliver_long(struct cpu *cpu, const struct event *event)
{
    struct desc_ref gate, code;
    uint16_t selector;
    unsigned cpl, ist, count = 5;
    uint64_t rip, frame[6], keep;
    struct stack stack = {.mask = ~0ull, .flat64 = true, .event = true};

    read_gate(cpu, event, &gate);
    selector = gate_selector(gate.low);
    cpl = check_code_segment(cpu, selector, &code);
    ist = gate.low >> 32 & 7;
    stack.cpl = cpl;
    stack.sp = ist || cpl < cpu->cpl ? tss_stack64(cpu, cpl, ist, true) : cpu->gpr[RSP];
    stack.sp &= ~15ull;
    rip = gate_offset32(gate.low) | gate.high << 32;
    if (!is_canonical(rip))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    frame[0] = cpu->seg[SEG_SS].selector;
    frame[1] = cpu->gpr[RSP];
    frame[2] = event->rflags;
    frame[3] = cpu->seg[SEG_CS].selector;
    frame[4] = event->rip;
    if (event->has_error)
        frame[count++] = event->error;
    desc_set_accessed(cpu, &code, true);
    stack_push(cpu, &stack, frame, count, 8);

    /* Nothing below can fail. */
    cpu->gpr[RSP] = stack.sp;
    if (cpl < cpu->cpl)
        cpu->seg[SEG_SS] = segment_null((uint16_t)cpl);
    cpu->seg[SEG_CS] = segment_from_descriptor((uint16_t)((selector & ~3u) | cpl), code.low);
    cpu->cpl = (uint8_t)cpl;
    cpu->next_rip = rip;
    keep = ~(uint64_t)(RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM);
    if (attr_system_type(desc_attr(gate.low)) == SYS_INT32)
        keep &= ~(uint64_t)RFLAGS_IF;
    cpu->rflags = (cpu_rflags(cpu) & keep) | RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
    sys_cpl_update(cpu);
}
