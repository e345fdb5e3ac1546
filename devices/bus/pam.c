/*
 * pam.c - shadow RAM (pam.h). Intel 82441FX datasheet (290549), section 3.2.15.
 *
 *     register    59h         5Ah           5Bh           5Ch           5Dh           5Eh 5Fh 7:4
 * F0000-FFFFF C4000-C7FFF   CC000-CFFFF   D4000-D7FFF   DC000-DFFFF   E4000-E7FFF   EC000-EFFFF 3:0
 * -           C0000-C3FFF   C8000-CBFFF   D0000-D3FFF   D8000-DBFFF   E0000-E3FFF   E8000-EBFFF
 *
 * Of four bits the lowest, RE, sends reads to RAM and the next, WE, writes; what does not go there
 * goes to the ISA bus, where E0000h-FFFFFh is the system BIOS and the rest has nothing (option ROMs
 * are copied from PCI devices). A BIOS copies itself with WE alone: it runs in the ROM while the
 * RAM beneath is written.
 */
#include "pam.h"
#include "internal/error.h"
#include <string.h>

enum { PAM_READ = 1, PAM_WRITE = 2 };

#define KIB        1024u
#define BIOS_START 0xe0000u
#define BIOS_END   0x100000u

/* ---- Stores with WE alone -------------------------------------------------------------------- */

/* The RAM beneath is not in the map, so nobody has decoded code there or derived views from it. But
 * its frames keep their protection rules, which nobody has asked: the map shows something else. */
static void beneath_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                          uint64_t value)
{
    struct pam_segment *segment = opaque;
    struct ram_block *memory = segment->pam->memory;
    (void)access;
    if (segment->attributes & PAM_WRITE && !phys_block_ruled(memory, segment->gpa + offset, size))
        memcpy(phys_block_bytes(memory) + segment->gpa + offset, &value, size);
}

static uint64_t beneath_read(void *opaque, const struct access *access, uint64_t offset,
                             unsigned size)
{
    (void)opaque, (void)access, (void)offset, (void)size;
    return UINT64_MAX;
}

static const struct io_ops beneath_ops = {beneath_read, beneath_write, 1, 8};

/* ---- Regions --------------------------------------------------------------------------------- */

static bool add_rom(struct pam *pam, struct pam_segment *segment, struct ram_block *bios,
                    uint64_t bios_size, struct error *err)
{
    if (!bios || segment->gpa < BIOS_START || BIOS_END - segment->gpa > bios_size)
        return true;
    const struct phys_memory rom = {.gpa = segment->gpa,
                                    .size = segment->size,
                                    .block = bios,
                                    .offset = bios_size - (BIOS_END - segment->gpa),
                                    .name = "bios",
                                    .rom_ops = &beneath_ops,
                                    .opaque = segment};
    return (segment->rom = phys_add_memory(pam->map, &rom, err)) >= 0;
}

static bool add_segment(struct pam *pam, unsigned i, struct ram_block *bios, uint64_t bios_size,
                        struct error *err)
{
    struct pam_segment *segment = &pam->segments[i];
    *segment = (struct pam_segment){.pam = pam,
                                    .gpa = i ? 0xc0000 + (i - 1) * 16 * KIB : 0xf0000,
                                    .size = i ? 16 * KIB : 64 * KIB,
                                    .rom = -1,
                                    .write_only = -1};
    const struct phys_memory ram = {.gpa = segment->gpa,
                                    .size = segment->size,
                                    .block = pam->memory,
                                    .offset = segment->gpa,
                                    .name = "ram.shadow",
                                    .hidden = true};
    segment->ram = phys_add_memory(pam->map, &ram, err);
    if (segment->ram < 0 || !add_rom(pam, segment, bios, bios_size, err))
        return false;
    if (segment->rom >= 0)
        return true;
    segment->write_only = phys_add_mmio(pam->map, segment->gpa, segment->size, &beneath_ops,
                                        segment, "ram.write-only", err);
    if (segment->write_only < 0)
        return false;
    struct phys_switch hide = {.handle = segment->write_only};
    return phys_switch(pam->map, &hide, 1) || error_set(err, "no host memory for shadow RAM");
}

bool pam_init(struct pam *pam, struct phys_map *map, struct ram_block *ram, struct ram_block *bios,
              uint64_t bios_size, struct error *err)
{
    pam->map = map;
    pam->memory = ram;
    for (unsigned i = 0; i < PAM_SEGMENTS; i++)
        if (!add_segment(pam, i, bios, bios_size, err))
            return false;
    return pam->connected = true;
}

void pam_fini(struct pam *pam)
{
    for (unsigned i = 0; i < PAM_SEGMENTS && pam->connected; i++) {
        phys_remove(pam->map, pam->segments[i].ram);
        phys_remove(pam->map, pam->segments[i].rom);
        phys_remove(pam->map, pam->segments[i].write_only);
    }
    pam->connected = false;
}

/* ---- Registers ------------------------------------------------------------------------------- */

static uint8_t attributes(const uint8_t *registers, unsigned segment)
{
    unsigned nibble = segment ? segment + 1 : 1;
    return registers[nibble / 2] >> 4 * (nibble & 1) & (PAM_READ | PAM_WRITE);
}

void pam_update(struct pam *pam, const uint8_t *registers)
{
    struct phys_switch switches[3 * PAM_SEGMENTS];
    unsigned n = 0;
    for (unsigned i = 0; i < PAM_SEGMENTS && pam->connected; i++) {
        struct pam_segment *segment = &pam->segments[i];
        uint8_t now = attributes(registers, i);
        if (now == segment->attributes)
            continue;
        segment->attributes = now;
        bool read = now & PAM_READ, write = now & PAM_WRITE;
        switches[n++] = (struct phys_switch){segment->ram, read, !write};
        if (segment->rom >= 0)
            switches[n++] = (struct phys_switch){.handle = segment->rom, .visible = !read};
        else
            switches[n++] =
                (struct phys_switch){.handle = segment->write_only, .visible = write && !read};
    }
    if (n)
        phys_switch(pam->map, switches, n);
}
