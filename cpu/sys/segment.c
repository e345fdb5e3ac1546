/*
 * segment.c - descriptors in memory, and loading segment registers (SDM vol. 3, 3.4, 5.5; vol. 2,
 * MOV).
 *
 * Real mode keeps the limit and D/B that a register had before ("unreal" mode); only base, presence
 * and the writable-data type are made new. Virtual-8086 mode sets everything.
 */
#include "cpu/sys/internal.h"

/* ---- Descriptors ----------------------------------------------------------------------------- */

static bool table_find(const struct cpu *cpu, uint16_t selector, unsigned size, uint64_t *lin)
{
    uint32_t offset = selector & ~7u;

    if (selector & 4) {
        if (!(cpu->ldtr.attr & SEG_ATTR_P) || offset + size - 1 > cpu->ldtr.limit)
            return false;
        *lin = cpu->ldtr.base + offset;
    } else {
        if (offset + size - 1 > cpu->gdtr.limit)
            return false;
        *lin = cpu->gdtr.base + offset;
    }
    if (!in_long(cpu))
        *lin = (uint32_t)*lin;
    return true;
}

bool desc_read(struct cpu *cpu, uint16_t selector, bool event, struct desc_ref *ref)
{
    ref->high = 0;
    if (!table_find(cpu, selector, 8, &ref->lin))
        return false;
    mem_sys_read(cpu, ref->lin, &ref->low, 8, event);
    return true;
}

bool desc_read16(struct cpu *cpu, uint16_t selector, bool event, struct desc_ref *ref)
{
    if (!table_find(cpu, selector, 16, &ref->lin))
        return false;
    mem_sys_read(cpu, ref->lin, &ref->low, 8, event);
    mem_sys_read(cpu, ref->lin + 8, &ref->high, 8, event);
    return true;
}

/* Only the access byte is written: the rest may be changing under us. */
static void write_access_byte(struct cpu *cpu, struct desc_ref *ref, uint64_t low, bool event)
{
    uint8_t byte = (uint8_t)(low >> 40);

    if (low == ref->low)
        return;
    mem_sys_write(cpu, ref->lin + 5, &byte, 1, event);
    ref->low = low;
}

void desc_set_accessed(struct cpu *cpu, struct desc_ref *ref, bool event)
{
    write_access_byte(cpu, ref, ref->low | (uint64_t)TYPE_ACCESSED << 40, event);
}

void desc_set_busy(struct cpu *cpu, struct desc_ref *ref, bool busy, bool event)
{
    uint64_t bit = 2ull << 40;

    write_access_byte(cpu, ref, busy ? ref->low | bit : ref->low & ~bit, event);
}

bool segment_contains(const struct segment *seg, uint32_t offset, uint32_t size)
{
    uint32_t last = offset + size - 1;

    if ((seg->attr & (SEG_ATTR_S | TYPE_CODE | TYPE_EXPAND_DOWN)) ==
        (SEG_ATTR_S | TYPE_EXPAND_DOWN)) {
        uint32_t top = seg->attr & SEG_ATTR_DB ? 0xffffffff : 0xffff;

        return offset > seg->limit && last >= offset && last <= top;
    }
    return last >= offset && last <= seg->limit;
}

/* ---- Loading --------------------------------------------------------------------------------- */

struct segment segment_null(uint16_t selector)
{
    return (struct segment){.selector = selector};
}

void sys_set_real_segment(struct cpu *cpu, unsigned seg, uint16_t selector)
{
    struct segment *s = &cpu->seg[seg];

    s->selector = selector;
    s->base = (uint64_t)selector << 4;
    if (cpu->rflags & RFLAGS_VM) {
        s->limit = 0xffff;
        s->attr = ATTR_V86;
    } else {
        s->attr = (s->attr & (SEG_ATTR_DB | SEG_ATTR_G)) | ATTR_REAL_MODE;
    }
}

void segment_check_stack(struct cpu *cpu, uint16_t selector, unsigned cpl, enum vector vector,
                         bool event, struct desc_ref *ref)
{
    uint32_t error = selector & ~3u;
    uint16_t attr;

    if (selector_is_null(selector))
        cpu_raise_error(cpu, vector, 0);
    if (!desc_read(cpu, selector, event, ref))
        cpu_raise_error(cpu, vector, error);
    attr = desc_attr(ref->low);
    if ((selector & 3u) != cpl || !attr_is_writable_data(attr) || attr_dpl(attr) != cpl)
        cpu_raise_error(cpu, vector, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_SS, error);
}

/* Data segments and readable code; not SS. */
static void check_data_segment(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    uint32_t error = selector & ~3u;
    uint16_t attr;

    if (!desc_read(cpu, selector, false, ref))
        cpu_raise_error(cpu, VECTOR_GP, error);
    attr = desc_attr(ref->low);
    if (!attr_is_readable(attr))
        cpu_raise_error(cpu, VECTOR_GP, error);
    if (!attr_is_conforming(attr) &&
        (attr_dpl(attr) < (selector & 3u) || attr_dpl(attr) < cpu->cpl))
        cpu_raise_error(cpu, VECTOR_GP, error);
    if (!(attr & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, error);
}

void sys_load_segment(struct cpu *cpu, unsigned seg, uint16_t selector)
{
    struct desc_ref ref;

    if (!in_prot(cpu)) {
        sys_set_real_segment(cpu, seg, selector);
    } else if (selector_is_null(selector)) {
        /* A null SS is legal in 64-bit code at CPL 0-2 with RPL = CPL. */
        if (seg == SEG_SS && (!in_code64(cpu) || cpu->cpl == 3 || (selector & 3u) != cpu->cpl))
            cpu_raise_error(cpu, VECTOR_GP, 0);
        cpu->seg[seg] = segment_null(selector);
    } else {
        if (seg == SEG_SS)
            segment_check_stack(cpu, selector, cpu->cpl, VECTOR_GP, false, &ref);
        else
            check_data_segment(cpu, selector, &ref);
        desc_set_accessed(cpu, &ref, false);
        cpu->seg[seg] = segment_from_descriptor(selector, ref.low);
    }
    cpu_mode_update(cpu);
}

void segments_drop_inner(struct cpu *cpu, unsigned cpl)
{
    static const uint8_t which[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};

    for (unsigned i = 0; i < sizeof which; i++) {
        struct segment *seg = &cpu->seg[which[i]];

        /* A null selector becomes 0; a base that FS and GS have by MSR stays. */
        if (selector_is_null(seg->selector))
            seg->selector = 0;
        else if (seg->attr & SEG_ATTR_P && attr_dpl(seg->attr) < cpl &&
                 !attr_is_conforming(seg->attr))
            *seg = segment_null(0);
    }
}

/* ---- Instructions ---------------------------------------------------------------------------- */

/* MOV SS and POP SS hold interrupts, NMI and debug traps off for one instruction; a second one in a
 * row does not extend that (SDM vol. 3, 6.8.3). */
static void shadow_after_ss(struct cpu *cpu)
{
    if (!(cpu->shadow & SHADOW_MOVSS))
        cpu->shadow |= SHADOW_MOVSS | SHADOW_FRESH;
    sys_attention_update(cpu);
}

void sys_mov_to_sreg(struct cpu *cpu, const struct insn *insn)
{
    unsigned seg = insn->op[0].reg;
    uint16_t selector;

    if (seg == SEG_CS || seg > SEG_GS)
        cpu_raise(cpu, VECTOR_UD);
    selector = (uint16_t)opnd_read(cpu, insn, 1);
    sys_load_segment(cpu, seg, selector);
    if (seg == SEG_SS)
        shadow_after_ss(cpu);
}

/* A register gets all of its operand size, memory always 16 bits. */
void sys_mov_from_sreg(struct cpu *cpu, const struct insn *insn)
{
    unsigned seg = insn->op[1].reg;
    uint16_t selector;

    if (seg > SEG_GS)
        cpu_raise(cpu, VECTOR_UD);
    selector = cpu->seg[seg].selector;
    if (insn->op[0].kind == OPND_GPR) {
        opnd_set_gpr(cpu, insn->op[0].reg, insn->opsize, selector);
    } else {
        uint64_t lin = mem_operand(cpu, insn, 2, ACCESS_WRITE);

        mem_write(cpu, insn->mem.seg, lin, &selector, 2);
    }
}

/* With a 32-bit operand Intel's processors write only the low half of the slot. */
void sys_push_sreg(struct cpu *cpu, const struct insn *insn)
{
    uint64_t mask = sys_stack_mask(cpu), sp = cpu->gpr[RSP] - insn->opsize, value;
    unsigned size = insn->opsize == 4 && !cpu_is_amd(cpu) ? 2 : insn->opsize;
    uint64_t lin = mem_linear(cpu, SEG_SS, sp & mask, size, ACCESS_WRITE);

    value = cpu->seg[insn->op[0].reg].selector;
    mem_write(cpu, SEG_SS, lin, &value, size);
    cpu->gpr[RSP] = stack_merge(cpu->gpr[RSP], sp, mask);
}

void sys_pop_sreg(struct cpu *cpu, const struct insn *insn)
{
    uint64_t mask = sys_stack_mask(cpu), rsp = cpu->gpr[RSP];
    uint64_t lin = mem_linear(cpu, SEG_SS, rsp & mask, insn->opsize == 8 ? 8 : 2, ACCESS_READ);
    unsigned seg = insn->op[0].reg;
    uint16_t selector;

    mem_read(cpu, SEG_SS, lin, &selector, 2);
    /* RSP moves by the old SS.B; nothing raises any more once the segment is loaded. */
    sys_load_segment(cpu, seg, selector);
    cpu->gpr[RSP] = stack_merge(rsp, rsp + insn->opsize, mask);
    if (seg == SEG_SS)
        shadow_after_ss(cpu);
}

/* LDS, LES, LFS, LGS, LSS: offset first, selector behind it. */
void sys_load_far(struct cpu *cpu, const struct insn *insn)
{
    unsigned size = insn->op[1].size - 2u; /* the offset's */
    uint64_t offset = 0;
    uint16_t selector;
    uint8_t bytes[10];

    mem_read_far_pointer(cpu, insn, bytes, size);
    __builtin_memcpy(&offset, bytes, size);
    __builtin_memcpy(&selector, bytes + size, 2);
    sys_load_segment(cpu, insn->row->exec_arg, selector);
    opnd_set_gpr(cpu, insn->op[0].reg, size, offset);
}
