/*
 * translate.c - makes one region: decodes, looks ahead, and has each instruction translated.
 *
 * A region runs on behind a Jcc that is not taken; it ends with any other branch, at the page's
 * end, or when it is long enough.
 */
#include "cpu/interp/execute.h"
#include "cpu/jit/build.h"
#include "insn_exec.h"
#include "internal/log.h"
#include <stdlib.h>

/* ---- Decoding -------------------------------------------------------------------------------- */

/* In lockstep also behind what the interpreter cannot run without effect. */
static bool ends_region(const struct build *b, const struct insn *insn)
{
    uint32_t attr = insn->row->attr;
    if (b->jit->lockstep && (attr & (INSN_SYSTEM | INSN_CPL0 | INSN_RAND | INSN_END)))
        return insn->row->exec != EXEC_jcc;
    return (attr & INSN_BRANCH) && insn->row->exec != EXEC_jcc;
}

/* Fills b->insn; how many bytes they have. */
static unsigned decode(struct build *b, uint64_t gpa, const uint8_t *bytes, unsigned avail)
{
    unsigned len = 0;
    while (b->count < REGION_MAX_INSNS) {
        struct insn *insn = &b->insn[b->count];
        if (insn_decode(bytes + len, avail - len, b->code64 ? 64 : 32, false, &b->cpu->features,
                        insn) != DECODE_OK)
            break;
        b->off[b->count++] = (uint16_t)((gpa & ~PAGE_MASK) + len);
        len += insn->len;
        if (ends_region(b, insn))
            break;
    }
    b->after = (uint16_t)((gpa & ~PAGE_MASK) + len);
    return len;
}

/* Vectors that the copied instructions name. */
static void find_vectors(struct build *b)
{
    bool zeroes = false;
    for (unsigned i = 0; i < b->count; i++) {
        const struct insn *insn = &b->insn[i];
        if (special_zeroes_upper(b, insn))
            zeroes = b->vec_wide = true;
        if (!copy_is_allowed(b, insn))
            continue;
        copy_vectors(b->jit, insn, &b->vec_used, &b->vec_written);
        b->vec_wide |= insn->vex && (insn->row->attr & INSN_AVX);
    }
    if (zeroes)
        b->vec_written = b->vec_used;
}

/* ---- One instruction ------------------------------------------------------------------------- */

/* False: the region ends here. C may execute anything in the middle of a region: what changes the
 * mode or the mapping makes it leave (jit_slow()). */
static bool translate_one(struct build *b)
{
    if (build_insn(b)->row->attr & INSN_BRANCH) {
        enum branch_result result = branch_translate(b);
        if (result == BRANCH_NOT)
            site_call(b);
        return result == BRANCH_GOES_ON;
    }
    if (!copy_insn(b) && !special_translate(b))
        site_call(b);
    return true;
}

/* ---- The region ------------------------------------------------------------------------------ */

/* For the cold code of one more instruction, and all that cold code has itself. */
static bool has_room(const struct build *b)
{
    return b->colds + 8 <= COLD_MAX - REGION_MAX_INSNS * 2;
}

static void emit_region(struct build *b)
{
    struct emit *e = &b->e;
    bool goes_on = true;
    b->region->entry = emit_here(e);
    vec_load_all(b);
    b->body = emit_here(e);
    b->flags = (struct flags_state){.memory = true};
    for (b->i = 0; goes_on && b->i < b->count && has_room(b); b->i++)
        goes_on = translate_one(b);
    b->region->count = (uint8_t)b->i;
    if (goes_on) {
        int32_t next = b->i < b->count ? b->off[b->i] : b->after;
        b->i--;
        branch_edge(b, next);
    }
    emit_cold(b);
    b->region->stale_exit = emit_here(e);
    emit_mov_imm32(e, SCRATCH1, b->off[0]);
    emit_jmp(e, b->jit->thunks.exit_here);
}

/* The guest's instructions, and the host's for all of them. */
static void log_region(const struct build *b, const uint8_t *code, size_t size)
{
    struct log *log = b->cpu->log;
    char text[128];
    uint64_t running = (uint64_t)(uintptr_t)(code + b->e.shift);
    log_printf(log, "----------------\nIN: cpu%u physical %#llx\n", b->cpu->index,
               (unsigned long long)b->region->gpa);
    for (unsigned i = 0; i < b->count; i++) {
        insn_disassemble(b->insn[i].bytes, b->insn[i].len, b->insn[i].code, b->off[i], text,
                         sizeof text);
        log_printf(log, "  %03x:  %s\n", b->off[i], text);
    }
    log_printf(log, "OUT: %zu bytes\n", size);
    for (size_t at = 0; at < size;) {
        unsigned n = insn_disassemble(code + at, size - at, 64, running + at, text, sizeof text);
        log_printf(log, "  %#llx:  %s\n", (unsigned long long)(running + at), text);
        at += n ? n : 1;
    }
}

struct jit_region *jit_translate(struct jit *jit, uint64_t gpa, const uint8_t *bytes,
                                 unsigned avail)
{
    struct cpu *cpu = jit->cpu;
    struct build *b = jit->build;
    memset(b, 0, offsetof(struct build, insn));
    b->jit = jit;
    b->cpu = cpu;
    b->mode = jit_mode(cpu);
    b->code64 = cpu->mode & MODE_CODE64;
    b->width = b->code64 ? 8 : 4;
    unsigned len = decode(b, gpa, bytes, avail);
    if (b->count == 0)
        return NULL;
    jit_make_room(jit);
    b->e =
        (struct emit){.p = jit->code_write + jit->code_used, .shift = jit->code - jit->code_write};
    uint8_t *begin = b->e.p;
    b->region = jit_data(jit, sizeof *b->region + len);
    *b->region = (struct jit_region){.gpa = gpa, .mode = b->mode, .len = (uint16_t)len};
    memcpy(b->region->bytes, bytes, len);
    find_vectors(b);
    flags_liveness(b);
    emit_region(b);
    size_t size = (size_t)(b->e.p - begin);
    if (size > REGION_MAX_CODE)
        abort(); /* the bound is wrong: memory has been overwritten */
    jit->code_used += (size + 15) & ~(size_t)15;
    if (LOG_ON(cpu->log, LOG_OUT_ASM))
        log_region(b, begin, size);
    jit->counters.regions++;
    jit->counters.insns += b->region->count;
    jit->counters.code_bytes += size;
    return b->region;
}
