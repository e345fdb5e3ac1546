/*
 * tables.c - the descriptor-table and task registers, and the instructions that ask about a
 * selector (SDM vol. 2, LGDT, LLDT, LTR, LAR, LSL, VERR, ARPL ...).
 */
#include "cpu/sys/internal.h"
#include <string.h>

/* ---- GDTR, IDTR ------------------------------------------------------------------------------ */

/* 6 bytes, 10 in 64-bit code; a 16-bit operand size takes 24 bits of base. */
static void load_table(struct cpu *cpu, const struct insn *insn, struct table_register *table)
{
    unsigned base_size = in_code64(cpu) ? 8 : 4;
    uint8_t bytes[10];
    uint64_t base = 0;

    require_cpl0(cpu);
    mem_read(cpu, insn->mem.seg, mem_operand(cpu, insn, 2 + base_size, ACCESS_READ), bytes,
             2 + base_size);
    memcpy(&base, bytes + 2, base_size);
    if (!in_code64(cpu) && insn->opsize == 2)
        base &= 0xffffff;
    if (in_code64(cpu) && !is_canonical(base))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    memcpy(&table->limit, bytes, 2);
    table->base = base;
}

static void store_table(struct cpu *cpu, const struct insn *insn,
                        const struct table_register *table)
{
    unsigned base_size = in_code64(cpu) ? 8 : 4;
    uint8_t bytes[10];

    require_umip(cpu);
    memcpy(bytes, &table->limit, 2);
    memcpy(bytes + 2, &table->base, base_size);
    mem_write(cpu, insn->mem.seg, mem_operand(cpu, insn, 2 + base_size, ACCESS_WRITE), bytes,
              2 + base_size);
}

void sys_lgdt(struct cpu *cpu, const struct insn *insn)
{
    load_table(cpu, insn, &cpu->gdtr);
}

void sys_lidt(struct cpu *cpu, const struct insn *insn)
{
    load_table(cpu, insn, &cpu->idtr);
}

void sys_sgdt(struct cpu *cpu, const struct insn *insn)
{
    store_table(cpu, insn, &cpu->gdtr);
}

void sys_sidt(struct cpu *cpu, const struct insn *insn)
{
    store_table(cpu, insn, &cpu->idtr);
}

/* ---- LDTR, TR -------------------------------------------------------------------------------- */

static void require_prot(struct cpu *cpu)
{
    if (!in_prot(cpu))
        cpu_raise(cpu, VECTOR_UD);
}

/* The system descriptor that LLDT or LTR names; 16 bytes in IA-32e mode. */
static void read_system(struct cpu *cpu, uint16_t selector, struct desc_ref *ref)
{
    bool found = !(selector & 4);

    if (found)
        found = in_long(cpu) ? desc_read16(cpu, selector, false, ref)
                             : desc_read(cpu, selector, false, ref);
    if (!found)
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
}

static struct segment system_segment(struct cpu *cpu, uint16_t selector, const struct desc_ref *ref)
{
    struct segment s = segment_from_descriptor(selector, ref->low);

    if (in_long(cpu)) {
        s.base |= ref->high << 32;
        if (!is_canonical(s.base) || ref->high >> 40 & 0x1f)
            cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    }
    return s;
}

void sys_lldt(struct cpu *cpu, const struct insn *insn)
{
    struct desc_ref ref;
    struct segment ldt;
    uint16_t selector;

    require_prot(cpu);
    require_cpl0(cpu);
    selector = (uint16_t)opnd_read(cpu, insn, 0);
    if (selector_is_null(selector)) {
        cpu->ldtr = segment_null(selector);
        return;
    }
    read_system(cpu, selector, &ref);
    if (attr_system_type(desc_attr(ref.low)) != SYS_LDT)
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    if (!(desc_attr(ref.low) & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, selector & ~3u);
    ldt = system_segment(cpu, selector, &ref);
    cpu->ldtr = ldt;
}

void sys_ltr(struct cpu *cpu, const struct insn *insn)
{
    struct desc_ref ref;
    struct segment tss;
    uint16_t selector;
    unsigned type;

    require_prot(cpu);
    require_cpl0(cpu);
    selector = (uint16_t)opnd_read(cpu, insn, 0);
    if (selector_is_null(selector))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    read_system(cpu, selector, &ref);
    type = attr_system_type(desc_attr(ref.low));
    if (type != SYS_TSS32 && (type != SYS_TSS16 || in_long(cpu)))
        cpu_raise_error(cpu, VECTOR_GP, selector & ~3u);
    if (!(desc_attr(ref.low) & SEG_ATTR_P))
        cpu_raise_error(cpu, VECTOR_NP, selector & ~3u);
    tss = system_segment(cpu, selector, &ref);
    desc_set_busy(cpu, &ref, true, false);
    tss.attr |= 2;
    cpu->tr = tss;
}

/* A register gets all of its operand size, memory 16 bits. */
static void store_selector(struct cpu *cpu, const struct insn *insn, uint16_t selector)
{
    require_prot(cpu);
    require_umip(cpu);
    if (insn->op[0].kind == OPND_GPR)
        opnd_set_gpr(cpu, insn->op[0].reg, insn->opsize, selector);
    else
        mem_write(cpu, insn->mem.seg, mem_operand(cpu, insn, 2, ACCESS_WRITE), &selector, 2);
}

void sys_sldt(struct cpu *cpu, const struct insn *insn)
{
    store_selector(cpu, insn, cpu->ldtr.selector);
}

void sys_str(struct cpu *cpu, const struct insn *insn)
{
    store_selector(cpu, insn, cpu->tr.selector);
}

/* ---- Asking about a selector ----------------------------------------------------------------- */

static void set_zf(struct cpu *cpu, bool zf)
{
    cpu->rflags = zf ? cpu->rflags | FLAG_ZF : cpu->rflags & ~(uint64_t)FLAG_ZF;
}

/* Visible at this CPL and RPL: conforming code always, else DPL decides. */
static bool is_visible(struct cpu *cpu, uint16_t selector, uint16_t attr)
{
    return attr_is_conforming(attr) ||
           (attr_dpl(attr) >= cpu->cpl && attr_dpl(attr) >= (selector & 3u));
}

/* LAR and LSL accept these system types (SDM vol. 2, tables 3-53, 3-56); gates only LAR. */
static bool is_known_system(struct cpu *cpu, unsigned type, bool gates)
{
    uint32_t set = 1u << SYS_LDT | 1u << SYS_TSS32 | 1u << SYS_TSS32_BUSY;

    if (!in_long(cpu))
        set |= 1u << SYS_TSS16 | 1u << SYS_TSS16_BUSY;
    if (gates)
        set |= 1u << SYS_CALL32 | (in_long(cpu) ? 0 : 1u << SYS_CALL16 | 1u << SYS_TASK_GATE);
    return type < 16 && set >> type & 1;
}

static bool find_for_query(struct cpu *cpu, uint16_t selector, bool gates, struct desc_ref *ref)
{
    uint16_t attr;

    if (selector_is_null(selector) || !desc_read(cpu, selector, false, ref))
        return false;
    attr = desc_attr(ref->low);
    if (!(attr & SEG_ATTR_S)) {
        if (!is_known_system(cpu, attr_system_type(attr), gates))
            return false;
        if (in_long(cpu) && (!desc_read16(cpu, selector, false, ref) || ref->high >> 40 & 0x1f))
            return false;
    }
    return is_visible(cpu, selector, attr);
}

static uint16_t query_selector(struct cpu *cpu, const struct insn *insn, unsigned n)
{
    require_prot(cpu);
    return (uint16_t)opnd_read(cpu, insn, n);
}

void sys_lar(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = query_selector(cpu, insn, 1);
    struct desc_ref ref;
    bool found = find_for_query(cpu, selector, true, &ref);

    if (found)
        opnd_set_gpr(cpu, insn->op[0].reg, insn->opsize, ref.low >> 32 & 0x00ffff00);
    set_zf(cpu, found);
}

void sys_lsl(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = query_selector(cpu, insn, 1);
    struct desc_ref ref;
    bool found = find_for_query(cpu, selector, false, &ref);

    if (found)
        opnd_set_gpr(cpu, insn->op[0].reg, insn->opsize, desc_limit(ref.low));
    set_zf(cpu, found);
}

void sys_verr(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = query_selector(cpu, insn, 0);
    struct desc_ref ref;
    bool ok = !selector_is_null(selector) && desc_read(cpu, selector, false, &ref);

    ok =
        ok && attr_is_readable(desc_attr(ref.low)) && is_visible(cpu, selector, desc_attr(ref.low));
    set_zf(cpu, ok);
}

void sys_verw(struct cpu *cpu, const struct insn *insn)
{
    uint16_t selector = query_selector(cpu, insn, 0);
    struct desc_ref ref;
    bool ok = !selector_is_null(selector) && desc_read(cpu, selector, false, &ref);

    ok = ok && attr_is_writable_data(desc_attr(ref.low)) &&
         is_visible(cpu, selector, desc_attr(ref.low));
    set_zf(cpu, ok);
}

void sys_arpl(struct cpu *cpu, const struct insn *insn)
{
    uint16_t to = (uint16_t)cpu->gpr[insn->op[0].reg], from;
    bool adjust;

    require_prot(cpu);
    if (insn->has_mem) /* a plain read: what is not adjusted need not be writable */
        mem_read(cpu, insn->mem.seg, mem_operand(cpu, insn, 2, ACCESS_READ), &to, 2);
    from = (uint16_t)opnd_read(cpu, insn, 1);
    adjust = (to & 3) < (from & 3);
    if (adjust)
        opnd_write(cpu, insn, 0, (to & ~3u) | (from & 3u));
    set_zf(cpu, adjust);
}
