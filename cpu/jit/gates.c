/*
 * gates.c - the ways between a 64-bit kernel and its programs, in C that translated code calls
 * without putting vectors away: SYSCALL, SYSRET and IRET where everything is as usual.
 *
 * Each does what its semantic function in cpu/sys does, or nothing at all and says so: then the
 * site runs that function. What makes it unusual may change, so it is asked each time. Then the
 * target is looked up in the table of addresses of the new mode, as an indirect branch does; where
 * something wants attention, or there is no entry, the code leaves, with the instruction done.
 *
 * This file is compiled for general registers only (cpu/CMakeLists.txt). Nothing here may call a
 * function that is not, nor raise.
 *
 * In translated code TF, RF, VM, the shadow, debug_pending and MODE_ALIGN are 0, and CS is 64-bit:
 * else cpu->attention has CPU_REQ_DEBUG, or the mode is not eligible (run.c).
 */
#include "cpu/jit/jit.h"
#include "cpu/mem_inline.h"
#include "cpu/sys/flat.h"
#include "cpu/sys/internal.h"
#include <stdatomic.h>

/* ---- The state behind it --------------------------------------------------------------------- */

/* As sys_cpl_update() from 64-bit code to 64-bit code. `rflags` without TF and RF, and with AC for
 * CPL 0 only. */
static void commit(struct cpu *cpu, unsigned cpl, uint64_t rflags)
{
    uint32_t attention = cpu->attention & ~(uint32_t)(CPU_REQ_INTR | CPU_REQ_UPCALL);
    cpu->cpl = (uint8_t)cpl;
    cpu->rflags = (rflags & RFLAGS_ALL) | RFLAGS_FIXED;
    cpu->jx.flags = jit_pack_flags(rflags);
    cpu->mode = (cpu->mode & ~(uint32_t)MODE_USER) | (cpl == 3 ? MODE_USER : 0);
    cpu->priv = cpl == 3 ? MMU_USER : rflags & RFLAGS_AC ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
    cpu->attention =
        attention | (rflags & RFLAGS_IF ? CPU_REQ_INTR : 0) | (cpl == 3 ? CPU_REQ_UPCALL : 0);
}

/* All of RFLAGS; the arithmetic flags have been stored. */
static uint64_t flags_now(const struct cpu *cpu)
{
    return (cpu->rflags & ~(uint64_t)FLAGS_ARITH) | jit_unpack_flags(cpu->jx.flags);
}

static uint32_t due(const struct cpu *cpu)
{
    return atomic_load_explicit(&cpu->request, memory_order_relaxed) & cpu->attention;
}

/* The code to go on at. In lockstep the tables are empty. */
static const void *go(struct cpu *cpu, uint64_t rip)
{
    struct jit *jit = cpu->jit;
    uint32_t mode = jit_mode(cpu);
    struct jit_pcs *pcs = *jit_recent(jit, mode);
    const struct jit_pc *slot = jit_pc_find(cpu, pcs, rip);
    cpu->rip = rip;
    if (pcs->mode != mode || slot->pc != rip || due(cpu))
        return jit->thunks.exit_gate;
    cpu->jx.pcs = pcs;
    if (!jit_is_current(cpu, slot->generation) && !(slot = jit_again_target(cpu, rip)))
        return jit->thunks.exit_gate;
    cpu->jx.page_va = rip & PAGE_MASK;
    return slot->code;
}

static bool is_set(const _Atomic unsigned *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

/* ---- SYSCALL, SYSRET ------------------------------------------------------------------------- */

const void *jit_gate_syscall(struct cpu *cpu, uint32_t next_off)
{
    uint64_t flags = flags_now(cpu), after = flags & ~cpu->msr_sfmask;
    if (!(cpu->efer & EFER_SCE) || is_set(cpu->jit->rules_users))
        return NULL;
    cpu->gpr[RCX] = cpu->jx.page_va + next_off;
    cpu->gpr[R11] = flags;
    flat_enter_ring0(cpu, cpu->msr_star >> 32 & 0xffff, true);
    commit(cpu, 0, after);
    return go(cpu, cpu->msr_lstar);
}

const void *jit_gate_sysret(struct cpu *cpu, uint32_t next_off)
{
    uint64_t rip = cpu->gpr[RCX], flags = cpu->gpr[R11] & SYSRET_FLAGS;
    (void)next_off;
    if (!(cpu->efer & EFER_SCE) || flags & (RFLAGS_TF | RFLAGS_AC) || !is_canonical(rip) ||
        is_set(cpu->jit->rules_deferred))
        return NULL;
    flat_sysret(cpu, true);
    commit(cpu, 3, flags);
    return go(cpu, rip);
}

/* ---- IRET ------------------------------------------------------------------------------------ */

struct frame {
    uint64_t rip, cs, rflags, rsp, ss;
};

/* The descriptor that a selector names in the GDT, if it can be had. */
static bool find_descriptor(const struct cpu *cpu, uint16_t selector, uint64_t *d)
{
    uint32_t offset = selector & ~7u;
    if (selector & 4 || offset + 7 > cpu->gdtr.limit)
        return false;
    const void *p =
        mmu_view_lookup(&cpu->mmu, MMU_SUPERVISOR, cpu->gdtr.base + offset, 8, ACCESS_READ);
    if (!p)
        return false;
    *d = mem_host_load(p, 8);
    return true;
}

/* A 64-bit code segment for the CPL that the selector asks for, with nothing left to be done. */
static bool find_code(const struct cpu *cpu, uint16_t selector, struct segment *cs)
{
    const unsigned mask = SEG_ATTR_S | SEG_ATTR_P | TYPE_CODE | TYPE_CONFORMING | TYPE_ACCESSED |
                          SEG_ATTR_L | SEG_ATTR_DB,
                   wanted = SEG_ATTR_S | SEG_ATTR_P | TYPE_CODE | TYPE_ACCESSED | SEG_ATTR_L;
    uint64_t d;
    if (selector_is_null(selector) || !find_descriptor(cpu, selector, &d))
        return false;
    *cs = segment_from_descriptor(selector, d);
    return (cs->attr & mask) == wanted && attr_dpl(cs->attr) == (selector & 3u);
}

static bool find_stack(const struct cpu *cpu, uint16_t selector, unsigned cpl, struct segment *ss)
{
    const unsigned mask = SEG_ATTR_S | SEG_ATTR_P | TYPE_CODE | TYPE_WRITABLE | TYPE_ACCESSED,
                   wanted = SEG_ATTR_S | SEG_ATTR_P | TYPE_WRITABLE | TYPE_ACCESSED;
    uint64_t d;
    if ((selector & 3u) != cpl)
        return false;
    if (selector_is_null(selector)) {
        *ss = (struct segment){.selector = selector};
        return cpl != 3;
    }
    if (!find_descriptor(cpu, selector, &d))
        return false;
    *ss = segment_from_descriptor(selector, d);
    return (ss->attr & mask) == wanted && attr_dpl(ss->attr) == cpl;
}

/* A data segment that segments_drop_inner() would take away from a program. */
static bool holds_inner(const struct cpu *cpu)
{
    static const uint8_t which[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
    for (unsigned i = 0; i < sizeof which; i++) {
        unsigned attr = cpu->seg[which[i]].attr;
        uint16_t selector = cpu->seg[which[i]].selector;

        if (selector && selector_is_null(selector)) /* it becomes 0 */
            return true;
        if (attr & SEG_ATTR_P && attr_dpl(attr) < 3 && !attr_is_conforming(attr))
            return true;
    }
    return false;
}

/*
 * RF of the image is for instruction breakpoints, which there are none of here, and is over when
 * the next instruction begins: with nothing to come between, it need not be set. After faults it
 * always is, and setting it would mean a single step.
 */
const void *jit_gate_iret(struct cpu *cpu, uint32_t next_off)
{
    const uint64_t loadable = FLAGS_ARITH | RFLAGS_TF | RFLAGS_IF | RFLAGS_DF | RFLAGS_IOPL |
                              RFLAGS_NT | RFLAGS_AC | RFLAGS_VIF | RFLAGS_VIP | RFLAGS_ID;
    uint64_t rsp = cpu->gpr[RSP];
    (void)next_off;
    const void *p = mem_hit(cpu, rsp, sizeof(struct frame), ACCESS_READ);
    if (!p || cpu->nmi_blocked || cpu->rflags & RFLAGS_NT)
        return NULL;
    const struct frame f = {mem_host_load(p, 8), mem_host_load((const char *)p + 8, 8),
                            mem_host_load((const char *)p + 16, 8),
                            mem_host_load((const char *)p + 24, 8),
                            mem_host_load((const char *)p + 32, 8)};
    unsigned cpl = f.cs & 3;
    struct segment cs, ss;
    if ((cpl != 0 && cpl != 3) || f.rflags & RFLAGS_TF || !is_canonical(f.rip))
        return NULL;
    if (cpl == 3 && (f.rflags & RFLAGS_AC || is_set(cpu->jit->rules_deferred) || holds_inner(cpu)))
        return NULL;
    if (f.rflags & RFLAGS_RF &&
        atomic_load_explicit(&cpu->request, memory_order_relaxed) & ~(uint32_t)CPU_REQ_DEBUG)
        return NULL;
    if (!find_code(cpu, (uint16_t)f.cs, &cs) || !find_stack(cpu, (uint16_t)f.ss, cpl, &ss))
        return NULL;
    cpu->seg[SEG_CS] = cs;
    cpu->seg[SEG_SS] = ss;
    cpu->gpr[RSP] = f.rsp;
    commit(cpu, cpl, (cpu->rflags & ~loadable) | (f.rflags & loadable));
    return go(cpu, f.rip);
}
