/*
 * elf.c - the symbol table of an ELF file, of either class (ELF specification 1.2, System V
 * ABI for x86-64). Every offset in the file is checked: it may be anybody's.
 */
#include "table.h"
#include <elf.h>
#include <string.h>

bool symbols_is_elf(const struct symbols *s)
{
    return s->len >= EI_NIDENT && memcmp(s->bytes, ELFMAG, SELFMAG) == 0;
}

/* `len` bytes at an offset of the file; NULL: not all of them are there. */
static const char *bytes_at(const struct symbols *s, uint64_t offset, uint64_t len)
{
    return offset <= s->len && len <= s->len - offset ? s->bytes + offset : NULL;
}

/* What of a section header matters here. */
struct section {
    uint32_t type, link;
    uint64_t offset, size;
};

struct elf {
    const struct symbols *file;
    bool wide; /* ELFCLASS64 */
    uint64_t headers;
    unsigned header_size, count;
};

static bool open_elf(const struct symbols *s, struct elf *elf)
{
    Elf32_Ehdr e32;
    Elf64_Ehdr e64;
    *elf = (struct elf){.file = s, .wide = s->bytes[EI_CLASS] == ELFCLASS64};
    if (s->bytes[EI_DATA] != ELFDATA2LSB)
        return false;
    if (elf->wide && s->len >= sizeof(e64)) {
        memcpy(&e64, s->bytes, sizeof(e64));
        elf->headers = e64.e_shoff;
        elf->header_size = e64.e_shentsize;
        elf->count = e64.e_shnum;
        return elf->header_size >= sizeof(Elf64_Shdr);
    }
    if (!elf->wide && s->len >= sizeof(e32)) {
        memcpy(&e32, s->bytes, sizeof(e32));
        elf->headers = e32.e_shoff;
        elf->header_size = e32.e_shentsize;
        elf->count = e32.e_shnum;
        return elf->header_size >= sizeof(Elf32_Shdr);
    }
    return false;
}

static bool get_section(const struct elf *elf, unsigned i, struct section *section)
{
    const char *at =
        i < elf->count
            ? bytes_at(elf->file, elf->headers + (uint64_t)i * elf->header_size, elf->header_size)
            : NULL;
    if (!at)
        return false;
    if (elf->wide) {
        Elf64_Shdr h;
        memcpy(&h, at, sizeof(h));
        *section = (struct section){h.sh_type, h.sh_link, h.sh_offset, h.sh_size};
    } else {
        Elf32_Shdr h;
        memcpy(&h, at, sizeof(h));
        *section = (struct section){h.sh_type, h.sh_link, h.sh_offset, h.sh_size};
    }
    return true;
}

static Elf64_Sym symbol_at(const struct elf *elf, const char *table, uint64_t i)
{
    Elf64_Sym wide;
    Elf32_Sym narrow;
    if (elf->wide) {
        memcpy(&wide, table + i * sizeof(wide), sizeof(wide));
        return wide;
    }
    memcpy(&narrow, table + i * sizeof(narrow), sizeof(narrow));
    return (Elf64_Sym){.st_name = narrow.st_name,
                       .st_value = narrow.st_value,
                       .st_size = narrow.st_size,
                       .st_info = narrow.st_info,
                       .st_shndx = narrow.st_shndx};
}

static bool read_table(struct symbols *s, const struct elf *elf, const struct section *table,
                       const struct section *names)
{
    uint64_t size = elf->wide ? sizeof(Elf64_Sym) : sizeof(Elf32_Sym);
    const char *symbols = bytes_at(s, table->offset, table->size);
    const char *strings = bytes_at(s, names->offset, names->size);
    if (!symbols || !strings || names->size == 0 || strings[names->size - 1])
        return true; /* nothing usable */
    for (uint64_t i = 0; i < table->size / size; i++) {
        Elf64_Sym symbol = symbol_at(elf, symbols, i);
        unsigned type = ELF64_ST_TYPE(symbol.st_info);
        if (symbol.st_shndx == SHN_UNDEF || symbol.st_name >= names->size ||
            !strings[symbol.st_name] || type == STT_SECTION || type == STT_FILE)
            continue;
        if (!symbols_add(s, symbol.st_value, symbol.st_size, strings + symbol.st_name))
            return false;
    }
    return true;
}

bool symbols_read_elf(struct symbols *s, const char *path)
{
    struct elf elf;
    struct section table, names;
    if (!open_elf(s, &elf))
        return symbols_fail(s, "'%s' is not an ELF file that can be read here", path);
    for (unsigned i = 0; i < elf.count && get_section(&elf, i, &table); i++)
        if (table.type == SHT_SYMTAB && get_section(&elf, table.link, &names) &&
            !read_table(s, &elf, &table, &names))
            return symbols_fail(s, "no memory for the symbols of '%s'", path);
    return s->count || symbols_fail(s, "'%s' has no symbol table", path);
}
