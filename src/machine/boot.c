/*
 * boot.c - from power-on to the guest's first instruction: firmware tables, the boot image, and the
 * state in which the bootstrap processor starts.
 */
#include "pc.h"
#include <string.h>

/* Segment attributes as struct segment has them (descriptor bits 8-23, moved down by 8). */
enum {
    ATTR_CODE32 = 0xc09b, /* G, D, P, DPL 0, code, readable, accessed */
    ATTR_CODE64 = 0xa09b, /* G, L */
    ATTR_DATA = 0xc093,
    ATTR_TSS = 0x008b,
    ATTR_REAL_CODE = 0x009b,
    ATTR_REAL_DATA = 0x0093,
};

bool boot_open(struct machine *m, struct error *err)
{
    const struct machine_config *c = m->config;
    bool bios = bios_wanted(c);
    if (!c->kernel && bios)
        return bios_open(m, err);
    if (!c->kernel) {
        size_t len;
        const void *bytes = firmware_demo(&len);
        m->image = boot_image_from_memory("the built-in demo", bytes, len, NULL, err);
        return m->image != NULL;
    }
    const struct boot_source source = {
        .kernel = c->kernel, .initrd = c->initrd, .append = c->append, .limit = c->ram_size};
    m->image = boot_image_open(&source, err);
    if (!m->image)
        return false;
    return !(bios || boot_image_calls_bios(m->image)) || bios_open(m, err);
}

static void set_segments(struct cpu *cpu, const struct boot_entry *entry)
{
    const struct segment data = {.limit = 0xffffffff, .selector = BOOT_SEL_DATA, .attr = ATTR_DATA};
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[i] = data;
    cpu->seg[SEG_CS].selector = BOOT_SEL_CODE;
    cpu->seg[SEG_CS].attr = entry->mode == BOOT_FLAT64 ? ATTR_CODE64 : ATTR_CODE32;
    cpu->tr = (struct segment){.limit = 0x67, .selector = BOOT_SEL_TSS, .attr = ATTR_TSS};
    cpu->gdtr = (struct table_register){.base = entry->gdt, .limit = entry->gdt_limit};
    cpu->idtr =
        (struct table_register){0}; /* no interrupt is deliverable: what arrives shuts down */
}

static void set_real_segments(struct cpu *cpu)
{
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[i] = (struct segment){.limit = 0xffff, .attr = ATTR_REAL_DATA};
    cpu->seg[SEG_CS].attr = ATTR_REAL_CODE;
    cpu->idtr = (struct table_register){.limit = 0x3ff};
}

/* The rest of the CPU is as after a reset. */
static void enter(struct cpu *cpu, const struct boot_entry *entry)
{
    cpu->gpr[RAX] = entry->rax;
    cpu->gpr[RBX] = entry->rbx;
    cpu->gpr[RDX] = entry->rdx;
    cpu->gpr[RSI] = entry->rsi;
    cpu->gpr[RSP] = entry->rsp;
    cpu->rip = cpu->next_rip = entry->rip;
    cpu->cr0 = CR0_ET; /* caches on, as a BIOS leaves them */
    if (entry->mode == BOOT_REAL16) {
        set_real_segments(cpu);
    } else {
        set_segments(cpu, entry);
        cpu->cr0 |= CR0_PE;
    }
    if (entry->mode == BOOT_FLAT64) {
        cpu->cr0 |= CR0_PG;
        cpu->cr3 = entry->cr3;
        cpu->cr4 |= CR4_PAE;
        cpu->efer |= EFER_LME | EFER_LMA;
    }
    struct paging paging = cpu->mmu.paging;
    paging.cr0 = cpu->cr0;
    paging.cr3 = cpu->cr3;
    paging.cr4 = cpu->cr4;
    paging.efer = cpu->efer;
    mmu_paging_changed(&cpu->mmu, &paging);
    cpu_mode_update(cpu);
}

/* Memory types as a BIOS leaves them on every processor: write-back, but for the VGA and option ROM
 * area and the PCI hole (SDM vol. 3, 12.11.2). The hole ends at 4 GiB and its size is a power of
 * two. */
static void set_memory_types(struct cpu *cpu, uint64_t pci_hole)
{
    enum {
        UNCACHED = 0,
        WRITE_BACK = 6,
        FIXED_ENABLE = 1 << 10,
        ENABLE = 1 << 11,
        VALID = 1 << 11
    };
    const uint64_t all_write_back = 0x0606060606060606;
    uint32_t address[4];
    cpu_cpuid(cpu, 0x80000008, 0, address);
    uint64_t hole = (1ull << 32) - pci_hole, width = 1ull << (address[0] & 0xff);
    cpu->msr_mtrr_fixed[0] = all_write_back; /* 0 - 7FFFFh */
    cpu->msr_mtrr_fixed[1] = all_write_back; /* 80000h - 9FFFFh */
    for (unsigned i = 2; i < 7; i++)         /* A0000h - DFFFFh */
        cpu->msr_mtrr_fixed[i] = 0;
    for (unsigned i = 7; i < 11; i++) /* E0000h - FFFFFh */
        cpu->msr_mtrr_fixed[i] = all_write_back;
    cpu->msr_mtrr_base[0] = pci_hole | UNCACHED;
    cpu->msr_mtrr_mask[0] = ((width - hole) & ~0xfffull) | VALID;
    cpu->msr_mtrr_def_type = WRITE_BACK | FIXED_ENABLE | ENABLE;
}

bool boot_load(struct machine *m, struct error *err)
{
    struct boot_entry entry;
    struct boot_platform platform = {
        .map = m->map, .memory = &m->memory, .text_mode = m->firmware.has_vga};
    if (m->bios_boot) {
        bios_reset(m);
        return true; /* the processor is where a reset puts it */
    }
    if (!firmware_install(m->map, &m->firmware, &platform.rsdp, err) ||
        !boot_image_load(m->image, &platform, &entry, err))
        return false;
    for (unsigned i = 0; i < m->vcpu_count; i++)
        set_memory_types(m->vcpu[i].cpu, m->firmware.pci_hole);
    enter(m->vcpu[0].cpu, &entry);
    return true;
}
