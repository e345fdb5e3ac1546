/*
 * report.c - says what was wrong, where, and whose code did it; without allocating anything.
 */
#include "heap.h"
#include <link.h>
#include <string.h>
#include <unistd.h>

/* ---- Text ---------------------------------------------------------------------------------------
 */

void report_text(const char *text)
{
    ssize_t ignored = write(STDERR_FILENO, text, strlen(text));
    (void)ignored;
}

struct line {
    char text[400];
    size_t length;
};

static void put(struct line *line, const char *text)
{
    for (; *text && line->length < sizeof(line->text) - 1; text++)
        line->text[line->length++] = *text;
    line->text[line->length] = 0;
}

static void put_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[24];
    unsigned n = sizeof(digits) - 1;
    digits[n] = 0;
    do
        digits[--n] = "0123456789abcdef"[value % base];
    while (value /= base);
    put(line, digits + n);
}

static void put_bytes(struct line *line, uint64_t count)
{
    put_number(line, count, 10);
    put(line, count == 1 ? " byte" : " bytes");
}

/* ---- Modules: the program and its libraries -----------------------------------------------------
 */

enum { MODULES = 32 };
static struct module {
    uint64_t base, start, end; /* load address; executable segment */
    const char *name;
    bool libc;
} modules[MODULES];
static unsigned module_count;

static int add_module(struct dl_phdr_info *info, size_t size, void *opaque)
{
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *name = !*info->dlpi_name ? "program" : slash ? slash + 1 : info->dlpi_name;
    (void)size;
    (void)opaque;
    for (unsigned n = 0; n < info->dlpi_phnum && module_count < MODULES; n++) {
        const ElfW(Phdr) *segment = &info->dlpi_phdr[n];
        if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
            continue;
        uint64_t start = info->dlpi_addr + segment->p_vaddr;
        modules[module_count++] =
            (struct module){info->dlpi_addr, start, start + segment->p_memsz, name,
                            !strncmp(name, "libc.so", 7) || !strncmp(name, "ld-linux", 8)};
    }
    return 0;
}

/* When the loader has put everything in place; what faults before that has an address only. */
static __attribute__((constructor)) void find_modules(void)
{
    dl_iterate_phdr(add_module, NULL);
}

static const struct module *module_of(uint64_t rip)
{
    for (unsigned n = 0; n < module_count; n++)
        if (rip >= modules[n].start && rip < modules[n].end)
            return &modules[n];
    return NULL;
}

bool in_libc(uint64_t rip)
{
    const struct module *module = module_of(rip);
    return module && module->libc;
}

/* program+0x1189, which addr2line takes */
static void put_code(struct line *line, uint64_t rip)
{
    const struct module *module = module_of(rip);
    if (module) {
        put(line, module->name);
        put(line, "+");
    }
    put(line, "0x");
    put_number(line, rip - (module ? module->base : 0), 16);
}

/* ---- Reports ------------------------------------------------------------------------------------
 */

/* The block whose slot begins where this one's ends. */
static const struct block *block_behind(const struct block *block)
{
    for (uint32_t n = 1; n < block_count(); n++)
        if (block_at(n)->state != BLOCK_UNUSED && block_at(n)->slot == block->slot + block->space)
            return block_at(n);
    return NULL;
}

static void put_block(struct line *line, const struct block *block)
{
    put(line, "a block of ");
    put_bytes(line, block->size);
    put(line, ", allocated by ");
    put_code(line, (uintptr_t)block->allocated_by);
    if (block->state == BLOCK_FREED) {
        put(line, ", freed by ");
        put_code(line, (uintptr_t)block->freed_by);
    }
    put(line, "\n");
}

/* "3 bytes behind a block ...": of the two blocks beside a zone, the nearer. */
static void put_place(struct line *line, const struct block *block, enum zone_kind zone,
                      uint64_t first, uint64_t last)
{
    uint64_t start = (uintptr_t)block->start;
    const struct block *behind = zone == ZONE_BEHIND ? block_behind(block) : NULL;
    if (zone == ZONE_FREED) {
        put_number(line, first - start, 10);
        put(line, " into ");
    } else if (zone == ZONE_FRONT) {
        put_number(line, start - first, 10);
        put(line, " before ");
    } else if (behind && (uintptr_t)behind->start - last <= first - (start + block->size)) {
        put_number(line, (uintptr_t)behind->start - first, 10);
        put(line, " before ");
        block = behind;
    } else {
        put_number(line, first - (start + block->size), 10);
        put(line, " behind ");
    }
    put_block(line, block);
}

void report_access(const struct block *block, enum zone_kind zone, const char *what,
                   uint64_t address, uint32_t length, uint64_t rip, bool kernel)
{
    struct line line = {.length = 0};
    put(&line, "heap: ");
    put(&line, what);
    put(&line, " of ");
    put_bytes(&line, length);
    put(&line, " by ");
    if (kernel)
        put(&line, "a system call");
    else
        put_code(&line, rip);
    put(&line, ", ");
    put_place(&line, block, zone, address, address + length);
    report_text(line.text);
}

void report_free(const void *pointer, const struct block *block, const void *caller)
{
    struct line line = {.length = 0};
    put(&line, "heap: free of 0x");
    put_number(&line, (uintptr_t)pointer, 16);
    put(&line, " by ");
    put_code(&line, (uintptr_t)caller);
    put(&line, ", ");
    if (block)
        put_block(&line, block);
    else
        put(&line, "which is no block\n");
    report_text(line.text);
}
