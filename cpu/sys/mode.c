/*
 * mode.c - what follows from CR0, CR4, EFER, XCR0, CPL, segments and RFLAGS: cpu->mode, cpu->priv,
 * cpu->seg_base and cpu->attention.
 *
 * Whoever changes one of the sources calls the matching function here before the next instruction.
 * `mode` is part of a block's key, so it says nothing that the block's code does not depend on.
 */
#include "cpu/sys/internal.h"
#include "internal/rules.h"
#include <stdatomic.h>

/* Requests that matter in every state. */
#define ALWAYS                                                                                     \
    (CPU_REQ_SMI | CPU_REQ_INIT | CPU_REQ_SIPI | CPU_REQ_EXCLUSIVE | CPU_REQ_MMU | CPU_REQ_STOP |  \
     CPU_REQ_RESET)

/*
 * CPU_REQ_DEBUG is always set in `request`; its bit in `attention`, which only the owner writes,
 * says whether the careful loop is needed. So entering and leaving it costs no atomic operation.
 *
 * NMI waits behind MOV SS but not behind STI (SDM vol. 3, 6.8.3; vol. 2, STI).
 */
void sys_attention_update(struct cpu *cpu)
{
    uint32_t attention = ALWAYS;

    if (cpu->activity == CPU_RUNNING || cpu->activity == CPU_HALTED) {
        if (cpu->rflags & RFLAGS_IF && !cpu->shadow)
            attention |= CPU_REQ_INTR;
    }
    if (cpu->activity != CPU_WAIT_SIPI && !cpu->nmi_blocked && !(cpu->shadow & SHADOW_MOVSS))
        attention |= CPU_REQ_NMI;
    if (cpu->rflags & (RFLAGS_TF | RFLAGS_RF) || cpu->shadow || cpu->debug_pending ||
        cpu->code_breakpoints || cpu->data_breakpoints || cpu->activity != CPU_RUNNING)
        attention |= CPU_REQ_DEBUG;
    if (cpu->cpl == 3)
        attention |= CPU_REQ_UPCALL;
    cpu->attention = attention;
}

static void update_flag_dependents(struct cpu *cpu)
{
    bool ac = cpu->rflags & RFLAGS_AC;

    cpu->priv = cpu->cpl == 3 ? MMU_USER : ac ? MMU_SUPERVISOR_AC : MMU_SUPERVISOR;
    if (ac && cpu->cpl == 3 && cpu->cr0 & CR0_AM)
        cpu->mode |= MODE_ALIGN;
    else
        cpu->mode &= ~MODE_ALIGN;
    sys_attention_update(cpu);
}

void cpu_set_rflags(struct cpu *cpu, uint64_t rflags)
{
    uint64_t changed = cpu->rflags ^ rflags;

    cpu->rflags = (rflags & RFLAGS_ALL) | RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
    if (changed & RFLAGS_VM)
        cpu_mode_update(cpu);
    else
        update_flag_dependents(cpu);
}

/* Everything may be accessed through it. */
static bool is_open(const struct segment *seg, bool code)
{
    const unsigned need = SEG_ATTR_P | SEG_ATTR_S | TYPE_WRITABLE; /* readable, for code */

    if (seg->limit != 0xffffffff || (seg->attr & need) != need)
        return false;
    return code || !(seg->attr & (TYPE_CODE | TYPE_EXPAND_DOWN));
}

static bool is_flat(const struct segment *seg, bool code)
{
    return seg->base == 0 && is_open(seg, code);
}

static uint32_t segment_mode(const struct cpu *cpu)
{
    const struct segment *cs = &cpu->seg[SEG_CS];
    uint32_t mode = 0;

    if (cpu->efer & EFER_LMA && cs->attr & SEG_ATTR_L)
        return MODE_CODE64 | MODE_FLAT | MODE_STACK32;
    if (cs->attr & SEG_ATTR_DB)
        mode |= MODE_CODE32;
    if (cpu->seg[SEG_SS].attr & SEG_ATTR_DB)
        mode |= MODE_STACK32;
    if (is_flat(cs, true) && is_flat(&cpu->seg[SEG_SS], false) &&
        is_flat(&cpu->seg[SEG_DS], false) && is_flat(&cpu->seg[SEG_ES], false))
        mode |= MODE_FLAT | (is_open(&cpu->seg[SEG_FS], false) ? MODE_FS : 0) |
                (is_open(&cpu->seg[SEG_GS], false) ? MODE_GS : 0);
    return mode;
}

void cpu_mode_update(struct cpu *cpu)
{
    uint32_t mode = segment_mode(cpu);
    bool code64 = mode & MODE_CODE64;

    if (cpu->cr0 & CR0_PE)
        mode |= cpu->rflags & RFLAGS_VM ? MODE_V86 : MODE_PROT;
    if (cpu->efer & EFER_LMA)
        mode |= MODE_LONG;
    if (cpu->cpl == 3)
        mode |= MODE_USER;
    if (cpu->cr0 & CR0_TS)
        mode |= MODE_TS;
    if (cpu->cr0 & CR0_EM)
        mode |= MODE_EM;
    if (cpu->cr0 & CR0_MP)
        mode |= MODE_MP;
    if (cpu->cr4 & CR4_OSFXSR)
        mode |= MODE_OSFXSR;
    if (cpu->cr4 & CR4_OSXMMEXCPT)
        mode |= MODE_OSXMMEXCPT;
    if (cpu->cr4 & CR4_OSXSAVE && (cpu->xcr0 & 6) == 6)
        mode |= MODE_AVX;
    cpu->mode = mode;
    for (unsigned i = 0; i < 6; i++)
        cpu->seg_base[i] = code64 && i != SEG_FS && i != SEG_GS ? 0 : cpu->seg[i].base;
    cpu->seg_base[SEG_NONE] = 0;
    update_flag_dependents(cpu);
    sys_look_for_upcalls(cpu);
}

void sys_cpl_update(struct cpu *cpu)
{
    const uint32_t others = MODE_PROT | MODE_V86 | MODE_LONG | MODE_TS | MODE_EM | MODE_MP |
                            MODE_OSFXSR | MODE_OSXMMEXCPT | MODE_AVX;
    uint32_t mode = segment_mode(cpu);

    if (!(mode & cpu->mode & MODE_CODE64)) {
        cpu_mode_update(cpu);
        return;
    }
    cpu->mode = mode | (cpu->mode & others) | (cpu->cpl == 3 ? MODE_USER : 0);
    cpu->seg_base[SEG_FS] = cpu->seg[SEG_FS].base;
    cpu->seg_base[SEG_GS] = cpu->seg[SEG_GS].base;
    update_flag_dependents(cpu);
    sys_look_for_upcalls(cpu);
}

void sys_look_for_upcalls(struct cpu *cpu)
{
    const struct rules *rules = cpu->cpl == 3 ? phys_rules(cpu->map) : NULL;

    if (rules && rules_deferred_waiting(rules))
        atomic_fetch_or(&cpu->request, CPU_REQ_UPCALL);
}

void sys_paging_update(struct cpu *cpu)
{
    struct paging paging = cpu->mmu.paging;

    paging.cr0 = cpu->cr0;
    paging.cr3 = cpu->cr3;
    paging.cr4 = cpu->cr4;
    paging.efer = cpu->efer;
    paging.pkru = cpu->pkru;
    paging.a20 = !cpu->a20_masked;
    paging.maxphyaddr = cpu->model->maxphyaddr;
    paging.nx = model_has(cpu, MODEL_X1_EDX, 20);
    paging.gib_pages = model_has(cpu, MODEL_X1_EDX, 26);
    mmu_paging_changed(&cpu->mmu, &paging);
    cpu_mode_update(cpu);
}

void sys_set_pkru(struct cpu *cpu, uint32_t pkru)
{
    if (cpu->pkru == pkru)
        return;
    cpu->pkru = pkru;
    sys_paging_update(cpu);
}
