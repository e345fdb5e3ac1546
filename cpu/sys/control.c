/*
 * control.c - CR0, CR2, CR3, CR4, CR8, EFER's part in mode changes, XCR0 (SDM vol.
 * 3, 2.5, 2.6, 4.1, 9.8.5).
 */
#include "cpu/guard.h"
#include "cpu/sys/internal.h"

#define CR0_WRITABLE 0xe005002full /* and ET, which is always 1 */

static _Noreturn void refuse(struct cpu *cpu)
{
    cpu_raise_error(cpu, VECTOR_GP, 0);
}

static uint64_t phys_reserved(const struct cpu *cpu)
{
    return ~((1ull << cpu->model->maxphyaddr) - 1);
}

static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LME);
}

/* Loads the four PDPTEs of PAE paging; a present one with a reserved bit is #GP (SDM vol.
 * 3, 4.4.1). */
static void read_pdptes(struct cpu *cpu, uint64_t cr3, uint64_t pdpte[4])
{
    const uint64_t reserved = phys_reserved(cpu) | 0x1e6;
    struct access access = cpu_access(cpu);
    uint64_t gpa = cr3 & 0xffffffe0;

    access.initiator = INITIATOR_WALKER;
    if (cpu->a20_masked)
        gpa &= ~(1ull << 20);
    if (phys_read(cpu->map, &access, gpa, pdpte, 32) != PHYS_OK)
        refuse(cpu);
    for (unsigned i = 0; i < 4; i++) {
        if (pdpte[i] & 1 && pdpte[i] & reserved)
            refuse(cpu);
    }
}

/* ... and what the MMU and the protection rules make of them. Under guard the instruction may still
 * be undone: guard_commit() tells the rules then. */
static void load_pdptes(struct cpu *cpu, uint64_t cr3, bool no_flush, const uint64_t pdpte[4])
{
    struct rules *rules = phys_rules(cpu->map);

    mmu_set_cr3(&cpu->mmu, cr3, no_flush, pdpte);
    if (rules && !guard_active(cpu))
        rules_pdptes_loaded(rules, cpu->index, &cpu->mmu.paging);
}

/* ---- CR0 ------------------------------------------------------------------------------------- */

/* Entering IA-32e mode (SDM vol. 3, 9.8.5): PAE on, CS not 64-bit, TR not a 16-bit TSS. */
static void check_long_entry(struct cpu *cpu)
{
    unsigned tss = attr_system_type(cpu->tr.attr);

    if (!(cpu->cr4 & CR4_PAE) || cpu->seg[SEG_CS].attr & SEG_ATTR_L || tss == SYS_TSS16 ||
        tss == SYS_TSS16_BUSY)
        refuse(cpu);
}

void sys_set_cr0(struct cpu *cpu, uint64_t value)
{
    uint64_t old = cpu->cr0, efer = cpu->efer, changed, pdpte[4];
    bool reload;

    if (value >> 32 || (value & CR0_PG && !(value & CR0_PE)) ||
        (value & CR0_NW && !(value & CR0_CD)))
        refuse(cpu);
    value = (value & CR0_WRITABLE) | CR0_ET;
    changed = value ^ old;
    if (changed & CR0_PG && value & CR0_PG && efer & EFER_LME) {
        check_long_entry(cpu);
        efer |= EFER_LMA;
    } else if (changed & CR0_PG && !(value & CR0_PG)) {
        if (in_code64(cpu) || cpu->cr4 & CR4_PCIDE)
            refuse(cpu);
        efer &= ~(uint64_t)EFER_LMA;
    }
    reload = changed & (CR0_PG | CR0_CD | CR0_NW) && pae_paging(value, cpu->cr4, efer);
    if (reload)
        read_pdptes(cpu, cpu->cr3, pdpte);
    cpu->cr0 = value;
    cpu->efer = efer;
    if (changed & (CR0_PG | CR0_WP | CR0_PE))
        sys_paging_update(cpu);
    else
        cpu_mode_update(cpu);
    cpu->mmu.paging.cr0 = value; /* TS and the like mean nothing to the MMU */
    if (reload)
        load_pdptes(cpu, cpu->cr3, false, pdpte);
}

/* ---- CR3 ------------------------------------------------------------------------------------- */

void sys_set_cr3(struct cpu *cpu, uint64_t value)
{
    bool no_flush = false;
    uint64_t pdpte[4];

    if (in_long(cpu)) {
        if (cpu->cr4 & CR4_PCIDE) {
            no_flush = value >> 63;
            value &= ~(1ull << 63);
        }
        if (value & phys_reserved(cpu))
            refuse(cpu);
    }
    if (pae_paging(cpu->cr0, cpu->cr4, cpu->efer)) {
        read_pdptes(cpu, value, pdpte);
        cpu->cr3 = value;
        load_pdptes(cpu, value, no_flush, pdpte);
    } else {
        cpu->cr3 = value;
        mmu_set_cr3(&cpu->mmu, value, no_flush, NULL);
    }
}

/* ---- CR4 ------------------------------------------------------------------------------------- */

/* The bits that exist: those whose CPUID features do. */
static uint64_t cr4_supported(const struct cpu *cpu)
{
    static const struct {
        uint8_t word, bit;
        uint32_t cr4;
    } gated[] = {
        {MODEL_1_EDX, 1, CR4_VME | CR4_PVI},
        {MODEL_1_EDX, 4, CR4_TSD},
        {MODEL_1_EDX, 2, CR4_DE},
        {MODEL_1_EDX, 3, CR4_PSE},
        {MODEL_1_EDX, 6, CR4_PAE},
        {MODEL_1_EDX, 7, CR4_MCE},
        {MODEL_1_EDX, 13, CR4_PGE},
        {MODEL_1_EDX, 24, CR4_OSFXSR},
        {MODEL_1_EDX, 25, CR4_OSXMMEXCPT},
        {MODEL_7_ECX, 2, CR4_UMIP},
        {MODEL_7_EBX, 0, CR4_FSGSBASE},
        {MODEL_1_ECX, 17, CR4_PCIDE},
        {MODEL_1_ECX, 26, CR4_OSXSAVE},
        {MODEL_7_EBX, 7, CR4_SMEP},
        {MODEL_7_EBX, 20, CR4_SMAP},
        {MODEL_7_ECX, 3, CR4_PKE},
    };
    uint64_t bits = CR4_PCE;

    for (unsigned i = 0; i < sizeof gated / sizeof gated[0]; i++) {
        if (model_has(cpu, gated[i].word, gated[i].bit))
            bits |= gated[i].cr4;
    }
    return bits;
}

void sys_set_cr4(struct cpu *cpu, uint64_t value)
{
    uint64_t changed = cpu->cr4 ^ value, pdpte[4];
    bool reload;

    if (value & ~cr4_supported(cpu))
        refuse(cpu);
    if (in_long(cpu) && !(value & CR4_PAE))
        refuse(cpu);
    if (changed & value & CR4_PCIDE && (!in_long(cpu) || cpu->cr3 & 0xfff))
        refuse(cpu);
    reload = changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP) &&
             pae_paging(cpu->cr0, value, cpu->efer);
    if (reload)
        read_pdptes(cpu, cpu->cr3, pdpte);
    cpu->cr4 = value;
    sys_paging_update(cpu);
    if (reload)
        load_pdptes(cpu, cpu->cr3, false, pdpte);
}

/* ---- XCR0 ------------------------------------------------------------------------------------ */

void sys_set_xcr0(struct cpu *cpu, uint64_t value)
{
    if (!(value & 1) || value & ~cpu_xcr0_supported(cpu) || (value & 6) == 4)
        refuse(cpu);
    cpu->xcr0 = value;
    cpu_mode_update(cpu);
}

void sys_xsetbv(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        cpu_raise(cpu, VECTOR_UD);
    require_cpl0(cpu);
    if ((uint32_t)cpu->gpr[RCX] != 0)
        refuse(cpu);
    sys_set_xcr0(cpu, cpu->gpr[RDX] << 32 | (uint32_t)cpu->gpr[RAX]);
}

/* ECX = 1 (XINUSE AND XCR0): every component counts as in use. */
void sys_xgetbv(struct cpu *cpu, const struct insn *insn)
{
    uint32_t index = (uint32_t)cpu->gpr[RCX];

    (void)insn;
    if (!(cpu->cr4 & CR4_OSXSAVE))
        cpu_raise(cpu, VECTOR_UD);
    if (index > 1 || (index == 1 && !model_has(cpu, MODEL_D1_EAX, 2)))
        refuse(cpu);
    cpu->gpr[RAX] = (uint32_t)cpu->xcr0;
    cpu->gpr[RDX] = cpu->xcr0 >> 32;
}

/* ---- MOV CR, and what else touches CR0 ------------------------------------------------------- */

static uint64_t read_cr8(struct cpu *cpu)
{
    return cpu->lapic.read_cr8 ? cpu->lapic.read_cr8(cpu->lapic.lapic) : 0;
}

static void write_cr8(struct cpu *cpu, uint64_t value)
{
    if (value & ~0xfull)
        refuse(cpu);
    if (cpu->lapic.write_cr8)
        cpu->lapic.write_cr8(cpu->lapic.lapic, (uint8_t)value);
}

static unsigned cr_number(struct cpu *cpu, const struct insn *insn, unsigned n)
{
    unsigned cr = insn->op[n].reg;

    if (cr == 1 || (cr > 4 && cr != 8))
        cpu_raise(cpu, VECTOR_UD);
    require_cpl0(cpu);
    return cr;
}

void sys_mov_from_cr(struct cpu *cpu, const struct insn *insn)
{
    unsigned cr = cr_number(cpu, insn, 1);
    uint64_t value;

    switch (cr) {
    case 0:
        value = cpu->cr0;
        break;
    case 2:
        value = cpu->cr2;
        break;
    case 3:
        value = cpu->cr3;
        break;
    case 4:
        value = cpu->cr4;
        break;
    default:
        value = read_cr8(cpu);
    }
    opnd_set_gpr(cpu, insn->op[0].reg, in_code64(cpu) ? 8 : 4, value);
}

void sys_mov_to_cr(struct cpu *cpu, const struct insn *insn)
{
    unsigned cr = cr_number(cpu, insn, 0);
    uint64_t value = opnd_gpr(cpu, insn->op[1].reg, in_code64(cpu) ? 8 : 4);

    switch (cr) {
    case 0:
        sys_set_cr0(cpu, value);
        break;
    case 2:
        cpu->cr2 = value;
        break;
    case 3:
        sys_set_cr3(cpu, value);
        break;
    case 4:
        sys_set_cr4(cpu, value);
        break;
    default:
        write_cr8(cpu, value);
    }
}

void sys_clts(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    require_cpl0(cpu);
    cpu->cr0 &= ~(uint64_t)CR0_TS;
    cpu->mmu.paging.cr0 = cpu->cr0;
    cpu_mode_update(cpu);
}

/* PE can be set but not cleared. */
void sys_lmsw(struct cpu *cpu, const struct insn *insn)
{
    uint64_t value;

    require_cpl0(cpu);
    value = opnd_read(cpu, insn, 0) & 0xf;
    sys_set_cr0(cpu, (cpu->cr0 & ~0xeull) | value);
}

void sys_smsw(struct cpu *cpu, const struct insn *insn)
{
    require_umip(cpu);
    if (insn->op[0].kind == OPND_GPR) {
        opnd_set_gpr(cpu, insn->op[0].reg, insn->opsize, cpu->cr0);
    } else {
        uint64_t lin = mem_operand(cpu, insn, 2, ACCESS_WRITE);
        uint16_t msw = (uint16_t)cpu->cr0;

        mem_write(cpu, insn->mem.seg, lin, &msw, 2);
    }
}
