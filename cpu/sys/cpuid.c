/*
 * cpuid.c - the CPUID leaves (SDM vol. 2, CPUID; AMD APM vol. 3, appendix E), made from the model's
 * words and from the state that some bits follow: CR4.OSXSAVE, CR4.PKE, IA32_APIC_BASE, XCR0, the
 * code size.
 */
#include "cpu/sys/internal.h"
#include "internal/clock.h"
#include <string.h>

enum { EAX, EBX, ECX, EDX };
enum {
    MAX_INTEL = 0x16,
    MAX_AMD = 0xd,
    HYPERVISOR = 0x40000000,
    HYPERVISOR_MAX = 0x40000010,
    EXTENDED = 0x80000000,
};
#define EXTENDED_MAX_INTEL 0x80000008u
#define EXTENDED_MAX_AMD   0x80000021u

/* The XSAVE area's layout in standard format; the compacted one packs in the same order. */
enum {
    XSAVE_LEGACY = 576,
    XSAVE_AVX_AT = 576,
    XSAVE_AVX_LEN = 256,
    XSAVE_PKRU_AT = 2688,
    XSAVE_PKRU_LEN = 8
};
enum { XCR0_X87 = 1, XCR0_SSE = 2, XCR0_AVX = 4, XCR0_PKRU = 1 << 9 };

/* IA32_ARCH_CAPABILITIES (SDM vol. 4, table 2-2). An interpreter does not speculate with guest
 * data, so all of these are true, and IBRS_ALL keeps guests from retpolines. */
uint64_t cpu_arch_capabilities(const struct cpu *cpu)
{
    const uint64_t immune = 1ull << 0     /* RDCL_NO */
                            | 1ull << 1   /* IBRS_ALL */
                            | 1ull << 3   /* SKIP_L1DFL_VMENTRY */
                            | 1ull << 4   /* SSB_NO */
                            | 1ull << 5   /* MDS_NO */
                            | 1ull << 6   /* IF_PSCHANGE_MC_NO */
                            | 1ull << 8   /* TAA_NO */
                            | 1ull << 13  /* SBDR_SSDP_NO */
                            | 1ull << 14  /* FBSDP_NO */
                            | 1ull << 15  /* PSDP_NO */
                            | 1ull << 20  /* BHI_NO */
                            | 1ull << 24  /* PBRSB_NO */
                            | 1ull << 26  /* GDS_NO */
                            | 1ull << 27  /* RFDS_NO */
                            | 1ull << 62; /* ITS_NO */

    return model_has(cpu, MODEL_7_EDX, 29) ? immune : 0;
}

uint64_t cpu_xcr0_supported(const struct cpu *cpu)
{
    uint64_t bits = XCR0_X87 | XCR0_SSE;

    if (!model_has(cpu, MODEL_1_ECX, 26))
        return XCR0_X87;
    if (model_has(cpu, MODEL_1_ECX, 28))
        bits |= XCR0_AVX;
    if (model_has(cpu, MODEL_7_ECX, 3))
        bits |= XCR0_PKRU;
    return bits;
}

static unsigned xsave_size(uint64_t xcr0, bool compacted)
{
    unsigned size = XSAVE_LEGACY;

    if (xcr0 & XCR0_AVX)
        size = XSAVE_AVX_AT + XSAVE_AVX_LEN;
    if (xcr0 & XCR0_PKRU)
        size = (compacted ? size : XSAVE_PKRU_AT) + XSAVE_PKRU_LEN;
    return size;
}

static unsigned log2_ceil(unsigned n)
{
    unsigned bits = 0;

    while (1u << bits < n)
        bits++;
    return bits;
}

/* ---- Basic leaves ---------------------------------------------------------------------------- */

static void put_vendor(const struct cpu *cpu, uint32_t regs[4])
{
    const char *vendor = cpu_is_amd(cpu) ? "AuthenticAMD" : "GenuineIntel";

    memcpy(&regs[EBX], vendor, 4);
    memcpy(&regs[EDX], vendor + 4, 4);
    memcpy(&regs[ECX], vendor + 8, 4);
}

static bool apic_enabled(const struct cpu *cpu)
{
    return !cpu->lapic.read_base || cpu->lapic.read_base(cpu->lapic.lapic) >> 11 & 1;
}

static uint32_t features_edx(const struct cpu *cpu)
{
    uint32_t edx = cpu->model->word[MODEL_1_EDX];

    if (!apic_enabled(cpu))
        edx &= ~(1u << 9);
    if (cpu->model->vcpus > 1)
        edx |= 1u << 28; /* HTT: more than one logical processor in the package */
    return edx;
}

static void leaf_1(const struct cpu *cpu, uint32_t regs[4])
{
    regs[EAX] = cpu->model->signature;
    regs[EBX] = cpu->index << 24 | (1u << log2_ceil(cpu->model->vcpus)) << 16 |
                8 << 8; /* CLFLUSH: 64 bytes */
    regs[ECX] = cpu->model->word[MODEL_1_ECX];
    if (cpu->cr4 & CR4_OSXSAVE)
        regs[ECX] |= 1u << 27;
    regs[EDX] = features_edx(cpu);
}

/* Deterministic cache parameters: what a program would tune itself to on any recent processor. */
static void leaf_4(const struct cpu *cpu, uint32_t subleaf, uint32_t regs[4])
{
    static const struct {
        uint8_t type, level, ways;
        uint16_t sets;
        bool shared;
    } caches[] = {
        {1, 1, 8, 64, false},    /* 32 KiB data */
        {2, 1, 8, 64, false},    /* 32 KiB instruction */
        {3, 2, 16, 1024, false}, /* 1 MiB */
        {3, 3, 16, 16384, true}, /* 16 MiB, of all */
    };
    unsigned ids = 1u << log2_ceil(cpu->model->vcpus);

    if (subleaf >= sizeof caches / sizeof caches[0])
        return;
    regs[EAX] = caches[subleaf].type | (uint32_t)caches[subleaf].level << 5 | 1 << 8 |
                (caches[subleaf].shared ? ids - 1 : 0) << 14 | (ids - 1) << 26;
    regs[EBX] = 63 | (caches[subleaf].ways - 1u) << 22;
    regs[ECX] = caches[subleaf].sets - 1u;
}

static void leaf_7(const struct cpu *cpu, uint32_t subleaf, uint32_t regs[4])
{
    if (subleaf == 2)
        regs[EDX] = cpu->model->word[MODEL_72_EDX];
    if (subleaf != 0)
        return;
    regs[EAX] = 2; /* the last subleaf */
    regs[EBX] = cpu->model->word[MODEL_7_EBX];
    if (!cpu_is_amd(cpu)) /* FDP_EXCPTN_ONLY and the deprecation of FCS and FDS: x87_note() */
        regs[EBX] |= 1u << 6 | 1u << 13;
    regs[ECX] = cpu->model->word[MODEL_7_ECX];
    if (cpu->cr4 & CR4_PKE)
        regs[ECX] |= 1u << 4;
    regs[EDX] = cpu->model->word[MODEL_7_EDX];
}

/* One thread per core, all cores in one package. */
static void leaf_b(const struct cpu *cpu, uint32_t subleaf, uint32_t regs[4])
{
    regs[ECX] = subleaf & 0xff;
    regs[EDX] = cpu->index;
    if (subleaf == 0) {
        regs[EBX] = 1;
        regs[ECX] |= 1 << 8;
    } else if (subleaf == 1) {
        regs[EAX] = log2_ceil(cpu->model->vcpus);
        regs[EBX] = cpu->model->vcpus;
        regs[ECX] |= 2 << 8;
    }
}

static void leaf_d(const struct cpu *cpu, uint32_t subleaf, uint32_t regs[4])
{
    uint64_t supported = cpu_xcr0_supported(cpu);

    if (!model_has(cpu, MODEL_1_ECX, 26))
        return;
    if (subleaf == 0) {
        regs[EAX] = (uint32_t)supported;
        regs[EBX] = xsave_size(cpu->xcr0, false);
        regs[ECX] = xsave_size(supported, false);
    } else if (subleaf == 1) {
        regs[EAX] = cpu->model->word[MODEL_D1_EAX];
        if (regs[EAX] & (1 << 1 | 1 << 3))
            regs[EBX] = xsave_size(cpu->xcr0 | cpu->msr_xss, true);
    } else if (subleaf == 2 && supported & XCR0_AVX) {
        regs[EAX] = XSAVE_AVX_LEN;
        regs[EBX] = XSAVE_AVX_AT;
    } else if (subleaf == 9 && supported & XCR0_PKRU) {
        regs[EAX] = XSAVE_PKRU_LEN;
        regs[EBX] = XSAVE_PKRU_AT;
    }
}

static void basic(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    switch (leaf) {
    case 0:
        regs[EAX] = cpu_is_amd(cpu) ? MAX_AMD : MAX_INTEL;
        if (cpu->msr_misc_enable >> 22 & 1)
            regs[EAX] = 2; /* "limit CPUID maxval" */
        put_vendor(cpu, regs);
        break;
    case 1:
        leaf_1(cpu, regs);
        break;
    case 2: /* "see leaf 4", 64-byte prefetch */
        if (!cpu_is_amd(cpu))
            regs[EAX] = 0x00f0ff01;
        break;
    case 4:
        if (!cpu_is_amd(cpu))
            leaf_4(cpu, subleaf, regs);
        break;
    case 6:
        regs[EAX] = cpu->model->word[MODEL_6_EAX];
        break;
    case 7:
        leaf_7(cpu, subleaf, regs);
        break;
    case 0xb:
        leaf_b(cpu, subleaf, regs);
        break;
    case 0xd:
        leaf_d(cpu, subleaf, regs);
        break;
    case 0x15: /* TSC = crystal * 1 / 1, and the APIC timer counts the crystal */
        regs[EAX] = regs[EBX] = 1;
        regs[ECX] = CLOCK_TSC_HZ;
        break;
    case 0x16: /* MHz: base, maximum, bus */
        regs[EAX] = regs[EBX] = CLOCK_TSC_HZ / 1000000;
        regs[ECX] = 100;
        break;
    }
}

/* ---- Hypervisor leaves ----------------------------------------------------------------------- */

static void hypervisor(uint32_t leaf, uint32_t regs[4])
{
    if (leaf == HYPERVISOR) {
        regs[EAX] = HYPERVISOR_MAX;
        memcpy(&regs[EBX], "BaileyBailey", 12);
    } else if (leaf == HYPERVISOR_MAX) {
        regs[EAX] = CLOCK_TSC_HZ / 1000; /* kHz of the TSC, and of the APIC timer's input */
        regs[EBX] = CLOCK_HZ / 1000;
    }
}

/* ---- Extended leaves ------------------------------------------------------------------------- */

static void leaf_x1(const struct cpu *cpu, uint32_t regs[4])
{
    const uint32_t shared = 0x0183f3ff; /* AMD repeats these of leaf 1 */

    regs[ECX] = cpu->model->word[MODEL_X1_ECX];
    regs[EDX] = cpu->model->word[MODEL_X1_EDX];
    if (cpu_is_amd(cpu)) {
        regs[EAX] = cpu->model->signature;
        regs[EDX] |= features_edx(cpu) & shared;
        if (cpu->model->vcpus > 1)
            regs[ECX] |= 1 << 1; /* CmpLegacy */
    } else if (!in_code64(cpu)) {
        regs[EDX] &= ~(1u << 11); /* Intel's SYSCALL exists in 64-bit code only */
    }
}

static void extended(const struct cpu *cpu, uint32_t leaf, uint32_t regs[4])
{
    unsigned vcpus = cpu->model->vcpus;

    switch (leaf) {
    case 0x80000000:
        regs[EAX] = cpu_is_amd(cpu) ? EXTENDED_MAX_AMD : EXTENDED_MAX_INTEL;
        if (cpu_is_amd(cpu))
            put_vendor(cpu, regs);
        break;
    case 0x80000001:
        leaf_x1(cpu, regs);
        break;
    case 0x80000002:
    case 0x80000003:
    case 0x80000004:
        memcpy(regs, cpu->model->name + (leaf - 0x80000002) * 16, 16);
        break;
    case 0x80000005: /* AMD's L1: 32 KiB, 8 ways, 64-byte lines */
        if (cpu_is_amd(cpu))
            regs[ECX] = regs[EDX] = 32 << 24 | 8 << 16 | 1 << 8 | 64;
        break;
    case 0x80000006: /* L2: 1 MiB, 16 ways (code 8) */
        regs[ECX] = 1024u << 16 | 8 << 12 | (cpu_is_amd(cpu) ? 1 << 8 : 0) | 64;
        if (cpu_is_amd(cpu))
            regs[EDX] = 32u << 18 | 8 << 12 | 1 << 8 | 64; /* L3: 16 MiB */
        break;
    case 0x80000007:
        regs[EDX] = cpu->model->word[MODEL_X7_EDX];
        break;
    case 0x80000008:
        regs[EAX] = cpu->model->maxphyaddr | 48 << 8;
        regs[EBX] = cpu->model->word[MODEL_X8_EBX];
        if (cpu_is_amd(cpu))
            regs[ECX] = log2_ceil(vcpus) << 12 | (vcpus - 1);
        break;
    case 0x80000021:
        regs[EAX] = cpu->model->word[MODEL_X21_EAX];
        regs[ECX] = cpu->model->word[MODEL_X21_ECX];
        break;
    }
}

/* Beyond the last leaf Intel's processors answer as for the highest basic one, AMD's with zeros. */
void cpu_cpuid(const struct cpu *cpu, uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    uint32_t max = cpu_is_amd(cpu) ? MAX_AMD : MAX_INTEL;

    memset(regs, 0, 4 * sizeof regs[0]);
    if (leaf <= max)
        basic(cpu, leaf, subleaf, regs);
    else if (leaf >= HYPERVISOR && leaf <= HYPERVISOR_MAX && model_has(cpu, MODEL_1_ECX, 31))
        hypervisor(leaf, regs);
    else if (leaf >= EXTENDED && leaf <= (cpu_is_amd(cpu) ? EXTENDED_MAX_AMD : EXTENDED_MAX_INTEL))
        extended(cpu, leaf, regs);
    else if (!cpu_is_amd(cpu))
        basic(cpu, max, subleaf, regs);
}
