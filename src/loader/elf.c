/*
 * elf.c - ELF kernels: segments at their physical addresses, and the PVH note, read with libelf.
 *
 * libelf checks the file's own tables against its size; that segments lie inside the file and
 * inside guest memory is checked here.
 */
#include "image.h"
#include <gelf.h>

#define XEN_ELFNOTE_PHYS32_ENTRY 18 /* xen/include/public/elfnote.h */

bool elf_probe(const struct file *file)
{
    const uint8_t *ident = file_get(file, 0, SELFMAG);
    return ident && memcmp(ident, ELFMAG, SELFMAG) == 0;
}

/* NULL with *err set when it is no x86 executable. */
static Elf *open_elf(const struct file *file, GElf_Ehdr *ehdr, struct error *err)
{
    elf_version(EV_CURRENT);
    /* libelf takes a non-const image but only reads it. */
    Elf *elf = elf_memory((char *)file->bytes, file->len);
    if (!elf || elf_kind(elf) != ELF_K_ELF || !gelf_getehdr(elf, ehdr)) {
        error_set(err, "broken ELF header: %s", elf ? elf_errmsg(-1) : "not recognised");
        elf_end(elf);
        return NULL;
    }
    if ((ehdr->e_machine != EM_386 && ehdr->e_machine != EM_X86_64) ||
        (ehdr->e_type != ET_EXEC && ehdr->e_type != ET_DYN) ||
        ehdr->e_ident[EI_DATA] != ELFDATA2LSB) {
        error_set(err, "not an x86 ELF executable (machine %u, type %u)", ehdr->e_machine,
                  ehdr->e_type);
        elf_end(elf);
        return NULL;
    }
    return elf;
}

static bool load_segment(const struct file *file, struct placer *placer, const GElf_Phdr *ph,
                         struct error *err)
{
    const uint8_t *bytes = file_get(file, ph->p_offset, ph->p_filesz);
    if (!bytes)
        return error_set(err, "truncated: a segment's %llu bytes at offset %llu lie beyond its end",
                         (unsigned long long)ph->p_filesz, (unsigned long long)ph->p_offset);
    if (ph->p_memsz < ph->p_filesz)
        return error_set(err, "broken ELF segment: smaller in memory than in the file");
    if (!place_at(placer, ph->p_paddr, ph->p_memsz, "an ELF segment", err))
        return false;
    guest_write(placer, ph->p_paddr, bytes, ph->p_filesz);
    guest_zero(placer, ph->p_paddr + ph->p_filesz, ph->p_memsz - ph->p_filesz);
    return true;
}

bool elf_load(const struct file *file, struct placer *placer, uint64_t *entry, struct error *err)
{
    GElf_Ehdr ehdr;
    Elf *elf = open_elf(file, &ehdr, err);
    size_t count;
    unsigned loaded = 0;
    bool ok = elf != NULL;

    if (ok && elf_getphdrnum(elf, &count) != 0)
        ok = error_set(err, "broken ELF program headers: %s", elf_errmsg(-1));
    *entry = ok ? ehdr.e_entry : 0;
    for (size_t i = 0; ok && i < count; i++) {
        GElf_Phdr ph;
        if (!gelf_getphdr(elf, (int)i, &ph)) {
            ok = error_set(err, "broken ELF program headers: %s", elf_errmsg(-1));
            break;
        }
        if (ph.p_type != PT_LOAD || ph.p_memsz == 0)
            continue;
        ok = load_segment(file, placer, &ph, err);
        /* The entry point may be a virtual address; the CPU starts without paging. */
        if (ok && ehdr.e_entry >= ph.p_vaddr && ehdr.e_entry - ph.p_vaddr < ph.p_memsz)
            *entry = ehdr.e_entry - ph.p_vaddr + ph.p_paddr;
        loaded++;
    }
    if (ok && loaded == 0)
        ok = error_set(err, "the ELF file has no segment to load");
    elf_end(elf);
    return ok;
}

/* Looks through one PT_NOTE segment. gelf_getnote() returns 0 at the end and at a broken note. */
static bool find_note(Elf *elf, const GElf_Phdr *ph, uint64_t *entry)
{
    Elf_Data *data = elf_getdata_rawchunk(elf, (int64_t)ph->p_offset, ph->p_filesz,
                                          ph->p_align == 8 ? ELF_T_NHDR8 : ELF_T_NHDR);
    GElf_Nhdr note;
    size_t next, name, desc, at = 0;
    while (data && (next = gelf_getnote(data, at, &note, &name, &desc)) > 0) {
        const uint8_t *base = data->d_buf;
        if (note.n_type == XEN_ELFNOTE_PHYS32_ENTRY && note.n_namesz == 4 &&
            memcmp(base + name, "Xen", 4) == 0 && (note.n_descsz == 4 || note.n_descsz == 8)) {
            *entry = note.n_descsz == 8 ? le64(base + desc) : le32(base + desc);
            return true;
        }
        at = next;
    }
    return false;
}

bool elf_pvh_entry(const struct file *file, uint64_t *entry, struct error *err)
{
    GElf_Ehdr ehdr;
    Elf *elf = open_elf(file, &ehdr, err);
    size_t count = 0;
    bool found = false;

    if (!elf)
        return false;
    if (elf_getphdrnum(elf, &count) != 0)
        count = 0;
    for (size_t i = 0; i < count && !found; i++) {
        GElf_Phdr ph;
        if (gelf_getphdr(elf, (int)i, &ph) && ph.p_type == PT_NOTE &&
            file_get(file, ph.p_offset, ph.p_filesz))
            found = find_note(elf, &ph, entry);
    }
    elf_end(elf);
    return found ||
           error_set(err, "this ELF file has neither a PVH note (XEN_ELFNOTE_PHYS32_ENTRY) "
                          "nor a multiboot header");
}
