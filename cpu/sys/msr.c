/*
 * msr.c - one table of model-specific registers (SDM vol. 4; AMD APM vol. 2, appendix A).
 *
 * A row is a range of MSRs with a reader and a writer; most are a field of struct cpu with a mask
 * of writable bits. A register without a row is #GP(0), logged under -d unimp. Registers that exist
 * only on one vendor's processors say so; those that operating systems touch without asking CPUID,
 * and whose features we lack, read as zero.
 */
#include "cpu/sys/internal.h"
#include <stddef.h>
#include <string.h>

struct row {
    uint32_t first, last;
    uint8_t vendors;
    uint16_t field;    /* offset in struct cpu, for read_field and write_field */
    uint64_t writable; /* other bits: #GP when set */
    bool (*read)(struct cpu *cpu, const struct row *row, uint32_t msr, uint64_t *value);
    bool (*write)(struct cpu *cpu, const struct row *row, uint32_t msr, uint64_t value);
};
enum { INTEL = 1 << VENDOR_INTEL, AMD = 1 << VENDOR_AMD, BOTH = INTEL | AMD };

typedef uint64_t u64;
#define FIELD(name) offsetof(struct cpu, name)

/* ---- Fields ---------------------------------------------------------------------------------- */

static u64 *field(struct cpu *cpu, const struct row *row, uint32_t msr)
{
    return (u64 *)((char *)cpu + row->field) + (msr - row->first);
}

static bool read_field(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    *value = *field(cpu, row, msr);
    return true;
}

static bool write_field(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    if (value & ~row->writable)
        return false;
    *field(cpu, row, msr) = value;
    return true;
}

static bool write_canonical(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    if (!is_canonical(value))
        return false;
    *field(cpu, row, msr) = value;
    return true;
}

/* `writable` is the constant that such a register shows. */
static bool read_constant(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)cpu;
    (void)msr;
    *value = row->writable;
    return true;
}

static bool ignore_write(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)cpu;
    (void)row;
    (void)msr;
    (void)value;
    return true;
}

/* ---- Modes ----------------------------------------------------------------------------------- */

#define EFER_AIBRSE (1u << 21)

static bool write_efer(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    u64 bits = EFER_LMA | EFER_SCE;

    (void)row;
    (void)msr;
    if (model_has(cpu, MODEL_X1_EDX, 29))
        bits |= EFER_LME;
    if (model_has(cpu, MODEL_X1_EDX, 20))
        bits |= EFER_NXE;
    if (model_has(cpu, MODEL_X21_EAX, 8))
        bits |= EFER_AIBRSE;
    if (value & ~bits || (cpu->cr0 & CR0_PG && (value ^ cpu->efer) & EFER_LME))
        return false;
    cpu->efer = (value & ~(u64)EFER_LMA) | (cpu->efer & EFER_LMA);
    sys_paging_update(cpu);
    return true;
}

static bool read_segment_base(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    *value = cpu->seg[msr == row->first ? SEG_FS : SEG_GS].base;
    return true;
}

static bool write_segment_base(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    unsigned seg = msr == row->first ? SEG_FS : SEG_GS;

    if (!is_canonical(value))
        return false;
    cpu->seg[seg].base = cpu->seg_base[seg] = value;
    return true;
}

static bool has_xsaves(struct cpu *cpu)
{
    return model_has(cpu, MODEL_D1_EAX, 3);
}

static bool write_xss(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)row;
    (void)msr;
    return has_xsaves(cpu) && value == 0; /* no supervisor component exists */
}

static bool read_xss(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)row;
    (void)msr;
    *value = cpu->msr_xss;
    return has_xsaves(cpu);
}

/* ---- Time and the local APIC ----------------------------------------------------------------- */

static bool read_tsc(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)row;
    (void)msr;
    *value = sys_tsc(cpu);
    return true;
}

/* IA32_TSC_ADJUST moves along with whatever moves the TSC (SDM vol. 3, 17.17.3). */
static bool write_tsc(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    u64 delta = value - sys_tsc(cpu);

    (void)row;
    (void)msr;
    cpu->msr_tsc_adjust += delta;
    sys_set_tsc_offset(cpu, cpu->tsc_offset + delta);
    return true;
}

static bool read_tsc_adjust(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    return model_has(cpu, MODEL_7_EBX, 1) && read_field(cpu, row, msr, value);
}

static bool write_tsc_adjust(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    u64 delta = value - cpu->msr_tsc_adjust;

    (void)row;
    (void)msr;
    if (!model_has(cpu, MODEL_7_EBX, 1))
        return false;
    cpu->msr_tsc_adjust = value;
    sys_set_tsc_offset(cpu, cpu->tsc_offset + delta);
    return true;
}

/* IA32_TSC_AUX is there for RDTSCP or RDPID. */
static bool has_tsc_aux(const struct cpu *cpu)
{
    return model_has(cpu, MODEL_X1_EDX, 27) || model_has(cpu, MODEL_7_ECX, 22);
}

static bool read_tsc_aux(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    return has_tsc_aux(cpu) && read_field(cpu, row, msr, value);
}

static bool write_tsc_aux(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    return has_tsc_aux(cpu) && write_field(cpu, row, msr, value);
}

/* The APIC's deadline is in clock time: TSC less this CPU's offset. 0 stays 0 (disarmed). */
static bool read_deadline(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)row;
    if (!cpu->lapic.read_msr || !cpu->lapic.read_msr(cpu->lapic.lapic, msr, value))
        return false;
    if (*value)
        *value += cpu->tsc_offset;
    return true;
}

static bool write_deadline(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)row;
    if (value) {
        u64 moved = value - cpu->tsc_offset;
        bool past = value <= sys_tsc(cpu) && (moved == 0 || moved > value);

        value = past ? 1 : moved;
    }
    return cpu->lapic.write_msr && cpu->lapic.write_msr(cpu->lapic.lapic, msr, value);
}

static bool read_apic_base(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)row;
    (void)msr;
    if (cpu->lapic.read_base)
        *value = cpu->lapic.read_base(cpu->lapic.lapic);
    else
        *value = 0xfee00000 | (cpu->bsp ? 1u << 8 : 0); /* no APIC attached: disabled */
    return true;
}

static bool write_apic_base(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    u64 old;

    if (value >> cpu->model->maxphyaddr)
        return false;
    if (cpu->lapic.write_base)
        return cpu->lapic.write_base(cpu->lapic.lapic, value);
    return read_apic_base(cpu, row, msr, &old) && value == old;
}

static bool read_x2apic(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)row;
    return cpu->lapic.read_msr && cpu->lapic.read_msr(cpu->lapic.lapic, msr, value);
}

static bool write_x2apic(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)row;
    return cpu->lapic.write_msr && cpu->lapic.write_msr(cpu->lapic.lapic, msr, value);
}

/* ---- Memory types: stored, without effect ---------------------------------------------------- */

/* UC, WC, WT, WP, WB; and UC- in the PAT. */
static bool is_memory_type(unsigned type, bool pat)
{
    return type == 0 || type == 1 || (type >= 4 && type <= 6) || (pat && type == 7);
}

static bool all_memory_types(u64 value, bool pat)
{
    for (unsigned i = 0; i < 64; i += 8) {
        if (!is_memory_type(value >> i & 0xff, pat))
            return false;
    }
    return true;
}

static bool write_pat(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)row;
    (void)msr;
    if (!all_memory_types(value, true))
        return false;
    cpu->msr_pat = value;
    return true;
}

static bool read_mtrr_phys(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    unsigned n = (msr - row->first) / 2;

    *value = msr & 1 ? cpu->msr_mtrr_mask[n] : cpu->msr_mtrr_base[n];
    return true;
}

static bool write_mtrr_phys(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    unsigned n = (msr - row->first) / 2;

    if (value >> cpu->model->maxphyaddr)
        return false;
    if (msr & 1) {
        if (value & 0x7ff)
            return false;
        cpu->msr_mtrr_mask[n] = value;
    } else {
        if (value & 0xf00 || !is_memory_type(value & 0xff, false))
            return false;
        cpu->msr_mtrr_base[n] = value;
    }
    return true;
}

static bool write_mtrr_fixed(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    if (!all_memory_types(value, false))
        return false;
    *field(cpu, row, msr) = value;
    return true;
}

static bool write_mtrr_def_type(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    if (!is_memory_type(value & 0xff, false))
        return false;
    return write_field(cpu, row, msr, value);
}

/* ---- Identification, speculation ------------------------------------------------------------- */

enum {
    MISC_ENABLE_FIXED = 1 << 11 | 1 << 12 /* no BTS, no PEBS */,
    MISC_ENABLE_LIMIT_CPUID = 1 << 22
};

static bool write_misc_enable(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)msr;
    if (value & ~(row->writable | MISC_ENABLE_FIXED))
        return false;
    cpu->msr_misc_enable = (value & row->writable) | MISC_ENABLE_FIXED;
    return true;
}

static bool has_spec_ctrl(const struct cpu *cpu)
{
    return model_has(cpu, MODEL_7_EDX, 26) || model_has(cpu, MODEL_X8_EBX, 14);
}

/* IBRS, STIBP, SSBD and, where CPUID shows it, BHI_DIS_S can be set; there is no speculation that
 * they could restrict. Guests that find BHI_DIS_S leave out the loop that clears branch history in
 * software. */
static bool read_spec_ctrl(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    return has_spec_ctrl(cpu) && read_field(cpu, row, msr, value);
}

static bool write_spec_ctrl(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    uint64_t bhi_dis_s = model_has(cpu, MODEL_72_EDX, 4) ? 1 << 10 : 0;

    if (!has_spec_ctrl(cpu) || value & ~(row->writable | bhi_dis_s))
        return false;
    *field(cpu, row, msr) = value;
    return true;
}

static bool write_pred_cmd(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    (void)row;
    (void)msr;
    return has_spec_ctrl(cpu) && !(value & ~1ull);
}

static bool read_arch_capabilities(struct cpu *cpu, const struct row *row, uint32_t msr, u64 *value)
{
    (void)row;
    (void)msr;
    *value = cpu_arch_capabilities(cpu);
    return model_has(cpu, MODEL_7_EDX, 29);
}

/* Bit 0 locks the register; firmware, or we in its place, has locked it without VMX. */
static bool write_feature_control(struct cpu *cpu, const struct row *row, uint32_t msr, u64 value)
{
    if (cpu->msr_feature_control & 1)
        return false;
    return write_field(cpu, row, msr, value);
}

/* LBR, BTF; the trace bits that no feature backs are refused. */
enum { DEBUGCTL_WRITABLE = 3 };

/* ---- The table ------------------------------------------------------------------------------- */

#define PLAIN(msr, vendors, name, mask)                                                            \
    {                                                                                              \
        msr, msr, vendors, FIELD(name), mask, read_field, write_field                              \
    }
#define CONSTANT(from, to, vendors, value, writer)                                                 \
    {                                                                                              \
        from, to, vendors, 0, value, read_constant, writer                                         \
    }
#define CUSTOM(msr, vendors, name, mask, reader, writer)                                           \
    {                                                                                              \
        msr, msr, vendors, FIELD(name), mask, reader, writer                                       \
    }

static const struct row rows[] = {
    CONSTANT(0x00, 0x01, BOTH, 0, ignore_write), /* P5_MC_ADDR, P5_MC_TYPE */
    CUSTOM(0x10, BOTH, tsc_offset, 0, read_tsc, write_tsc),
    CONSTANT(0x17, 0x17, INTEL, 0, NULL), /* PLATFORM_ID */
    CUSTOM(0x1b, BOTH, index, 0, read_apic_base, write_apic_base),
    CONSTANT(0x2a, 0x2a, INTEL, 0, ignore_write), /* EBL_CR_POWERON */
    CONSTANT(0x34, 0x34, INTEL, 0, NULL),         /* SMI_COUNT */
    CUSTOM(0x3a, INTEL, msr_feature_control, 1, read_field, write_feature_control),
    CUSTOM(0x3b, BOTH, msr_tsc_adjust, 0, read_tsc_adjust, write_tsc_adjust),
    CUSTOM(0x48, BOTH, msr_spec_ctrl, 7, read_spec_ctrl, write_spec_ctrl),
    CUSTOM(0x49, BOTH, index, 0, NULL, write_pred_cmd),
    CUSTOM(0x79, INTEL, index, 0, NULL, ignore_write),     /* BIOS_UPDT_TRIG */
    CONSTANT(0x8b, 0x8b, INTEL, 1ull << 32, ignore_write), /* BIOS_SIGN_ID: microcode revision */
    CONSTANT(0x8b, 0x8b, AMD, 0x01000065, ignore_write),   /* PATCH_LEVEL */
    CONSTANT(0xce, 0xce, INTEL, 10 << 8, NULL),            /* PLATFORM_INFO: 10 x 100 MHz */
    CONSTANT(0xfe, 0xfe, BOTH, 0x508, NULL),               /* MTRRCAP: WC, fixed, 8 variable */
    CUSTOM(0x10a, BOTH, index, 0, read_arch_capabilities, NULL),
    PLAIN(0x174, BOTH, msr_sysenter_cs, 0xffffffff),
    CUSTOM(0x175, BOTH, msr_sysenter_esp, 0, read_field, write_canonical),
    CUSTOM(0x176, BOTH, msr_sysenter_eip, 0, read_field, write_canonical),
    CONSTANT(0x179, 0x179, BOTH, 0, NULL), /* MCG_CAP: no banks, no MCG_CTL */
    PLAIN(0x17a, BOTH, msr_mcg_status, 7),
    CONSTANT(0x198, 0x198, INTEL, 10 << 8, NULL),         /* PERF_STATUS */
    CONSTANT(0x199, 0x199, INTEL, 10 << 8, ignore_write), /* PERF_CTL */
    CUSTOM(0x1a0, INTEL, msr_misc_enable, 1 | MISC_ENABLE_LIMIT_CPUID, read_field,
           write_misc_enable),
    PLAIN(0x1d9, BOTH, msr_debugctl, DEBUGCTL_WRITABLE),
    CONSTANT(0x1db, 0x1de, BOTH, 0, ignore_write), /* last branch and exception records */
    {0x200, 0x20f, BOTH, 0, 0, read_mtrr_phys, write_mtrr_phys},
    {0x250, 0x250, BOTH, FIELD(msr_mtrr_fixed[0]), 0, read_field, write_mtrr_fixed},
    {0x258, 0x259, BOTH, FIELD(msr_mtrr_fixed[1]), 0, read_field, write_mtrr_fixed},
    {0x268, 0x26f, BOTH, FIELD(msr_mtrr_fixed[3]), 0, read_field, write_mtrr_fixed},
    CUSTOM(0x277, BOTH, msr_pat, 0, read_field, write_pat),
    CUSTOM(0x2ff, BOTH, msr_mtrr_def_type, 0xcff, read_field, write_mtrr_def_type),
    CUSTOM(0x6e0, BOTH, index, 0, read_deadline, write_deadline),
    {0x800, 0x8ff, BOTH, 0, 0, read_x2apic, write_x2apic},
    CUSTOM(0xda0, BOTH, msr_xss, 0, read_xss, write_xss),
    CUSTOM(0xc0000080, BOTH, efer, 0, read_field, write_efer),
    PLAIN(0xc0000081, BOTH, msr_star, ~0ull),
    CUSTOM(0xc0000082, BOTH, msr_lstar, 0, read_field, write_canonical),
    CUSTOM(0xc0000083, BOTH, msr_cstar, 0, read_field, write_canonical),
    PLAIN(0xc0000084, BOTH, msr_sfmask, 0xffffffff),
    {0xc0000100, 0xc0000101, BOTH, 0, 0, read_segment_base, write_segment_base},
    CUSTOM(0xc0000102, BOTH, msr_kernel_gs_base, 0, read_field, write_canonical),
    CUSTOM(0xc0000103, BOTH, msr_tsc_aux, 0xffffffff, read_tsc_aux, write_tsc_aux),
    /* AMD's, which kernels read by family without further questions. */
    CONSTANT(0xc0010010, 0xc0010010, AMD, 0, ignore_write),       /* SYSCFG */
    CONSTANT(0xc0010015, 0xc0010015, AMD, 1 << 24, ignore_write), /* HWCR: TscFreqSel */
    CONSTANT(0xc001001a, 0xc001001a, AMD, 0, ignore_write),       /* TOP_MEM */
    CONSTANT(0xc001001d, 0xc001001d, AMD, 0, ignore_write),       /* TOP_MEM2 */
    CONSTANT(0xc001001f, 0xc001001f, AMD, 0, ignore_write),       /* NB_CFG */
    CONSTANT(0xc0010055, 0xc0010055, AMD, 0, ignore_write),       /* INT_PENDING */
    CONSTANT(0xc0010058, 0xc0010058, AMD, 0, ignore_write),       /* MMIO configuration base */
    CONSTANT(0xc0010061, 0xc0010063, AMD, 0, ignore_write), /* P-state limit, control, status */
    CONSTANT(0xc0010114, 0xc0010114, AMD, 1 << 4, ignore_write), /* VM_CR: SVM disabled */
    CONSTANT(0xc0011020, 0xc0011023, AMD, 0, ignore_write),      /* LS, IC, DC, BU configuration */
    CONSTANT(0xc0011029, 0xc0011029, AMD, 2, ignore_write),      /* DE_CFG: LFENCE serialises */
    CONSTANT(0xc001102a, 0xc001102a, AMD, 0, ignore_write),      /* BU_CFG2 */
};

static const struct row *find(const struct cpu *cpu, uint32_t msr)
{
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *row = &rows[i];

        if (msr >= row->first && msr <= row->last && row->vendors >> cpu->model->vendor & 1)
            return row;
    }
    return NULL;
}

bool msr_read(struct cpu *cpu, uint32_t msr, uint64_t *value)
{
    const struct row *row = find(cpu, msr);

    if (row && row->read && row->read(cpu, row, msr, value))
        return true;
    LOG(cpu->log, LOG_UNIMP, "cpu%u: RDMSR %#x refused\n", cpu->index, msr);
    return false;
}

bool msr_write(struct cpu *cpu, uint32_t msr, uint64_t value)
{
    const struct row *row = find(cpu, msr);

    if (row && row->write && row->write(cpu, row, msr, value))
        return true;
    LOG(cpu->log, LOG_UNIMP, "cpu%u: WRMSR %#x <- %#llx refused\n", cpu->index, msr,
        (unsigned long long)value);
    return false;
}

void msr_reset(struct cpu *cpu, bool init)
{
    if (init)
        return; /* INIT leaves all MSRs but EFER (cpu.c) and IA32_APIC_BASE.BSP as they are */
    cpu->msr_star = cpu->msr_lstar = cpu->msr_cstar = cpu->msr_sfmask = 0;
    cpu->msr_kernel_gs_base = cpu->msr_tsc_aux = 0;
    cpu->msr_sysenter_cs = cpu->msr_sysenter_esp = cpu->msr_sysenter_eip = 0;
    cpu->msr_pat = 0x0007040600070406;
    cpu->msr_misc_enable = MISC_ENABLE_FIXED | 1;
    cpu->msr_spec_ctrl = cpu->msr_xss = cpu->msr_mcg_status = cpu->msr_debugctl = 0;
    cpu->msr_feature_control = 1;
    cpu->msr_tsc_adjust = 0;
    cpu->msr_mtrr_def_type = 0;
    memset(cpu->msr_mtrr_fixed, 0, sizeof cpu->msr_mtrr_fixed);
    memset(cpu->msr_mtrr_base, 0, sizeof cpu->msr_mtrr_base);
    memset(cpu->msr_mtrr_mask, 0, sizeof cpu->msr_mtrr_mask);
}
