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
    if (!c->kernel) {
        size_t len;
        const void *bytes = firmware_demo(&len);
        m->image = boot_image_from_memory("the built-in demo", bytes, len, NULL, err);
        return m->image != NULL;
    }
    const struct boot_source source = {
        .kernel = c->kernel, .initrd = c->initrd, .append = c->append, .limit = c->ram_size};
    m->image = boot_image_open(&source, err);
    return m->image != NULL;
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

bool boot_load(struct machine *m, struct error *err)
{
    struct boot_entry entry;
    struct boot_platform platform = {.map = m->map, .memory = &m->memory};
    if (!firmware_install(m->map, &m->firmware, &platform.rsdp, err) ||
        !boot_image_load(m->image, &platform, &entry, err))
        return false;
    enter(m->vcpu[0].cpu, &entry);
    return true;
}
