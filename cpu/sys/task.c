/*
 * task.c - task switches between 16- and 32-bit TSSs (SDM vol. 3, 7.2, 7.3).
 *
 * Up to the commit point faults belong to the old task and leave it as it was. Behind it they
 * belong to the new one: cpu->rip is its EIP, and the segment registers that have not been checked
 * yet are unusable.
 */
#include "cpu/guard.h"
#include "cpu/sys/internal.h"
#include <string.h>

/* Both layouts as one table of offsets. General registers lie in the order of their numbers,
 * segment registers in the order of SEG_*. */
struct layout {
    uint8_t min_limit, width, cr3, ip, flags, gpr, seg, segs, ldt;
};
static const struct layout layout16 = {.min_limit = 0x2b,
                                       .width = 2,
                                       .ip = 0x0e,
                                       .flags = 0x10,
                                       .gpr = 0x12,
                                       .seg = 0x22,
                                       .segs = 4,
                                       .ldt = 0x2a};
static const struct layout layout32 = {.min_limit = 0x67,
                                       .width = 4,
                                       .cr3 = 0x1c,
                                       .ip = 0x20,
                                       .flags = 0x24,
                                       .gpr = 0x28,
                                       .seg = 0x48,
                                       .segs = 6,
                                       .ldt = 0x60};
enum { TSS_MAX = 0x68, TSS32_T = 0x64 };

static const struct layout *layout_of(uint16_t attr)
{
    return attr & 8 ? &layout32 : &layout16;
}

static uint32_t get(const uint8_t *tss, unsigned offset, unsigned width)
{
    uint32_t v = 0;

    memcpy(&v, tss + offset, width);
    return v;
}

/* ---- The old task ---------------------------------------------------------------------------- */

/* Proves that the dynamic fields can be stored. */
static void prepare_old(struct cpu *cpu, const struct layout *l)
{
    unsigned len = l->seg + l->segs * l->width - l->ip;

    mem_priv_probe_write(cpu, SEG_DS, (uint32_t)(cpu->tr.base + l->ip), len, MMU_SUPERVISOR);
}

/* Selectors are stored as they are, 16 bits: what lies between them is neither read nor written. */
static void save_old(struct cpu *cpu, const struct layout *l, uint64_t rip, uint64_t flags)
{
    uint8_t image[10 * 4];

    memcpy(image, &rip, l->width);
    memcpy(image + l->flags - l->ip, &flags, l->width);
    for (unsigned i = 0; i < 8; i++)
        memcpy(image + l->gpr - l->ip + i * l->width, &cpu->gpr[i], l->width);
    mem_sys_write(cpu, (uint32_t)(cpu->tr.base + l->ip), image, 10 * l->width, false);
    for (unsigned i = 0; i < l->segs; i++)
        mem_sys_write(cpu, (uint32_t)(cpu->tr.base + l->seg + i * l->width), &cpu->seg[i].selector,
                      2, false);
}

/* ---- The new task ---------------------------------------------------------------------------- */

static void load_ldt(struct cpu *cpu, uint16_t selector)
{
    struct desc_ref ref;
    uint16_t attr;

    if (selector_is_null(selector))
        return;
    if (selector & 4 || !desc_read(cpu, selector, false, &ref))
        cpu_raise_error(cpu, VECTOR_TS, selector & ~3u);
    attr = desc_attr(ref.low);
    if (attr_system_type(attr) != SYS_LDT || !(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_TS, selector & ~3u);
    cpu->ldtr = segment_from_descriptor(selector, ref.low);
}

static void load_cs(struct cpu *cpu)
{
    uint16_t selector = cpu->seg[SEG_CS].selector, attr;
    uint32_t error = selector & ~3u;
    struct desc_ref ref;

    if (selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_TS, 0);
    if (!desc_read(cpu, selector, false, &ref))
        cpu_raise_error(cpu, VECTOR_TS, error);
    attr = desc_attr(ref.low);
    if (!attr_is_code(attr) ||
        (attr_is_conforming(attr) ? attr_dpl(attr) > cpu->cpl : attr_dpl(attr) != cpu->cpl))
        cpu_raise_error(cpu, VECTOR_TS, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
    desc_set_accessed(cpu, &ref, false);
    cpu->seg[SEG_CS] = segment_from_descriptor(selector, ref.low);
}

static void load_ss(struct cpu *cpu)
{
    uint16_t selector = cpu->seg[SEG_SS].selector;
    struct desc_ref ref;

    segment_check_stack(cpu, selector, cpu->cpl, VECTOR_TS, false, &ref);
    desc_set_accessed(cpu, &ref, false);
    cpu->seg[SEG_SS] = segment_from_descriptor(selector, ref.low);
}

static void load_data(struct cpu *cpu, unsigned seg)
{
    uint16_t selector = cpu->seg[seg].selector, attr;
    uint32_t error = selector & ~3u;
    struct desc_ref ref;

    if (selector_is_null(selector))
        return;
    if (!desc_read(cpu, selector, false, &ref))
        cpu_raise_error(cpu, VECTOR_TS, error);
    attr = desc_attr(ref.low);
    if (!attr_is_readable(attr) ||
        (!attr_is_conforming(attr) &&
         (attr_dpl(attr) < cpu->cpl || attr_dpl(attr) < (selector & 3u))))
        cpu_raise_error(cpu, VECTOR_TS, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
    desc_set_accessed(cpu, &ref, false);
    cpu->seg[seg] = segment_from_descriptor(selector, ref.low);
}

static void load_segments(struct cpu *cpu)
{
    if (in_v86(cpu)) {
        for (unsigned i = 0; i < 6; i++)
            sys_set_real_segment(cpu, i, cpu->seg[i].selector);
        return;
    }
    load_cs(cpu);
    load_ss(cpu);
    cpu_mode_update(cpu); /* a fault from here on is pushed on this stack */
    load_data(cpu, SEG_DS);
    load_data(cpu, SEG_ES);
    load_data(cpu, SEG_FS);
    load_data(cpu, SEG_GS);
}

/* Registers and selectors; nothing is checked yet. */
static void load_registers(struct cpu *cpu, const struct layout *l, const uint8_t *tss, bool nested)
{
    uint64_t flags = get(tss, l->flags, l->width) | (nested ? RFLAGS_NT : 0);
    uint16_t cs = (uint16_t)get(tss, l->seg + SEG_CS * l->width, 2);

    for (unsigned i = 0; i < 8; i++)
        cpu->gpr[i] = get(tss, l->gpr + i * l->width, l->width);
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[i] = segment_null(i < l->segs ? (uint16_t)get(tss, l->seg + i * l->width, 2) : 0);
    cpu->ldtr = segment_null((uint16_t)get(tss, l->ldt, 2));
    cpu->rip = cpu->next_rip = get(tss, l->ip, l->width);
    cpu->cpl = flags & RFLAGS_VM ? 3 : cs & 3;
    cpu_set_rflags(cpu, flags);
    cpu_mode_update(cpu);
}

/* The local breakpoints do not outlive the task (SDM vol. 3, 17.2.4); the T flag traps before the
 * first instruction. */
static void debug_at_switch(struct cpu *cpu, bool trap)
{
    cpu->dr[7] &= ~0x155ull;
    debug_registers_changed(cpu);
    cpu->debug_pending &= ~DR6_BS;
    if (trap)
        cpu->debug_pending |= DR6_BT;
    sys_attention_update(cpu);
}

static void push_error(struct cpu *cpu, const struct layout *l, uint32_t error)
{
    struct stack stack = stack_current(cpu);
    uint64_t item = error;

    stack.event = true;
    stack_push(cpu, &stack, &item, 1, l->width);
    cpu->gpr[RSP] = stack.sp;
}

/* ---- The switch ------------------------------------------------------------------------------ */

void task_switch(struct cpu *cpu, uint16_t selector, struct desc_ref *ref, enum task_reason reason,
                 uint64_t return_rip, bool has_error, uint32_t error)
{
    const struct layout *from = layout_of(cpu->tr.attr), *to = layout_of(desc_attr(ref->low));
    uint8_t tss[TSS_MAX] = {0};
    bool nested = reason == TASK_CALL || reason == TASK_GATE_EVENT;
    uint16_t old = cpu->tr.selector;
    uint32_t base = desc_base(ref->low);
    uint64_t flags = cpu_rflags(cpu);
    struct desc_ref old_ref;

    guard_whole(cpu);
    /* Everything that may fault in the old task. */
    if (desc_limit(ref->low) < to->min_limit)
        cpu_raise_error(cpu, VECTOR_TS, selector & ~3u);
    mem_sys_read(cpu, base, tss, to->min_limit + 1 > 64 ? 64 : to->min_limit + 1, false);
    if (to->min_limit + 1 > 64)
        mem_sys_read(cpu, base + 64, tss + 64, to->min_limit + 1 - 64u, false);
    if (nested)
        mem_priv_probe_write(cpu, SEG_DS, base, 2, MMU_SUPERVISOR);
    prepare_old(cpu, from);
    if (!desc_read(cpu, old, false, &old_ref))
        cpu_raise_error(cpu, VECTOR_TS, old & ~3u);
    if (reason == TASK_JMP) /* so that the second of two writes cannot fail behind the first */
        mem_priv_probe_write(cpu, SEG_DS, ref->lin + 5, 1, MMU_SUPERVISOR);
    if (!nested)
        desc_set_busy(cpu, &old_ref, false, false);
    if (reason != TASK_IRET)
        desc_set_busy(cpu, ref, true, false);

    /* The commit point. */
    if (reason == TASK_IRET)
        flags &= ~(uint64_t)RFLAGS_NT;
    save_old(cpu, from, return_rip, flags);
    if (nested)
        mem_sys_write(cpu, base, &old, 2, false);
    guard_past(cpu);
    cpu->tr = segment_from_descriptor(selector, ref->low);
    cpu->tr.attr |= 2;
    cpu->cr0 |= CR0_TS;
    load_registers(cpu, to, tss, nested);
    debug_at_switch(cpu, to == &layout32 && tss[TSS32_T] & 1);
    if (to->cr3 && cpu->cr0 & CR0_PG)
        sys_set_cr3(cpu, get(tss, to->cr3, 4));
    load_ldt(cpu, cpu->ldtr.selector);
    load_segments(cpu);
    cpu_mode_update(cpu);
    if (cpu->next_rip > cpu->seg[SEG_CS].limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (has_error)
        push_error(cpu, to, error);
}
