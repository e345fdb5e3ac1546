/*
 * elf_file.h - builds small ELF files of either class for the loaders' tests.
 */
#ifndef TESTS_LOADER_ELF_FILE_H
#define TESTS_LOADER_ELF_FILE_H

#include "guest.h"
#include <elf.h>

enum {
    ELF_LOAD = 0x200000,
    ELF_ENTRY = 0x40,
    ELF_BYTES = 0x800,
    ELF_BSS = 0x1000,
    ELF_CODE_AT = 0x1000
};
#define ELF_VIRTUAL                                                                                \
    0xffffffff80000000ull /* where the segment is linked (64-bit: the upper half)                  \
                           */

/* One PT_LOAD of ELF_BYTES bytes at physical ELF_LOAD with ELF_BSS more of bss, and, if `pvh`, a
 * note that names ELF_LOAD + ELF_ENTRY. File offset of the segment: ELF_CODE_AT. */
static inline uint8_t *make_elf(unsigned bits, bool pvh, size_t *len)
{
    uint8_t *f = calloc(1, ELF_CODE_AT + ELF_BYTES);
    unsigned phnum = pvh ? 2 : 1, note_at = 0x200;
    memcpy(f, ELFMAG, SELFMAG);
    f[EI_CLASS] = bits == 64 ? ELFCLASS64 : ELFCLASS32;
    f[EI_DATA] = ELFDATA2LSB;
    f[EI_VERSION] = EV_CURRENT;
    if (bits == 64) {
        Elf64_Ehdr *e = (Elf64_Ehdr *)f;
        Elf64_Phdr *p = (Elf64_Phdr *)(f + sizeof(*e));
        e->e_type = ET_EXEC, e->e_machine = EM_X86_64, e->e_version = EV_CURRENT;
        e->e_entry = ELF_VIRTUAL + ELF_ENTRY;
        e->e_phoff = sizeof(*e), e->e_ehsize = sizeof(*e), e->e_phentsize = sizeof(*p);
        e->e_phnum = (Elf64_Half)phnum;
        p[0] = (Elf64_Phdr){.p_type = PT_LOAD,
                            .p_offset = ELF_CODE_AT,
                            .p_vaddr = ELF_VIRTUAL,
                            .p_paddr = ELF_LOAD,
                            .p_filesz = ELF_BYTES,
                            .p_memsz = ELF_BYTES + ELF_BSS,
                            .p_align = 0x1000};
        if (pvh)
            p[1] =
                (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = note_at, .p_filesz = 20, .p_align = 4};
    } else {
        Elf32_Ehdr *e = (Elf32_Ehdr *)f;
        Elf32_Phdr *p = (Elf32_Phdr *)(f + sizeof(*e));
        e->e_type = ET_EXEC, e->e_machine = EM_386, e->e_version = EV_CURRENT;
        e->e_entry = ELF_LOAD + ELF_ENTRY;
        e->e_phoff = sizeof(*e), e->e_ehsize = sizeof(*e), e->e_phentsize = sizeof(*p);
        e->e_phnum = (Elf32_Half)phnum;
        p[0] = (Elf32_Phdr){.p_type = PT_LOAD,
                            .p_offset = ELF_CODE_AT,
                            .p_vaddr = ELF_LOAD,
                            .p_paddr = ELF_LOAD,
                            .p_filesz = ELF_BYTES,
                            .p_memsz = ELF_BYTES + ELF_BSS,
                            .p_align = 0x1000};
        if (pvh)
            p[1] =
                (Elf32_Phdr){.p_type = PT_NOTE, .p_offset = note_at, .p_filesz = 20, .p_align = 4};
    }
    if (pvh) {
        set32(f + note_at, 4), set32(f + note_at + 4, 4), set32(f + note_at + 8, 18);
        memcpy(f + note_at + 12, "Xen", 4);
        set32(f + note_at + 16, ELF_LOAD + ELF_ENTRY);
    }
    for (unsigned i = 0; i < ELF_BYTES; i++)
        f[ELF_CODE_AT + i] = (uint8_t)(i * 3 + 5);
    *len = ELF_CODE_AT + ELF_BYTES;
    return f;
}

#endif
