/*
 * translate.c - makes one region: finds its blocks, looks ahead, and has each instruction
 * translated.
 *
 * A region begins with one instruction and goes on with those that it leads to in its page: behind
 * a Jcc, at its target, at the target of a JMP. A block that has not been met yet is left out, and
 * so is one that has a region already: the way there is an edge. Blocks are put into the order
 * of the ways through them (order.c); where none follows, code jumps to the block's label, or
 * leaves.
 */
#include "cpu/jit/build.h"
#include "cpu/jit/profile.h"
#include "cpu/mem_inline.h"
#include "internal/log.h"
#include <stdlib.h>

/* ---- Decoding -------------------------------------------------------------------------------- */

/* In lockstep also behind what the interpreter cannot run without effect. */
static bool ends_in_lockstep(const struct build *b, const struct insn *insn)
{
    return b->jit->lockstep && !(insn->row->attr & INSN_BRANCH) &&
           (insn->row->attr & (INSN_SYSTEM | INSN_CPL0 | INSN_RAND | INSN_END));
}

/* A JMP, Jcc or LOOP whose target is in the instruction, and that branch.c translates. */
static bool is_direct(const struct build *b, unsigned i)
{
    const struct insn *insn = &b->insn[i];
    return branch_is_direct(b->branch[i]) && insn->opsize == b->width && insn->adsize != 2;
}

/* What is made anew keeps its blocks together, though some have got a region of their own
 * meanwhile: else a loop would fall to pieces. */
static bool was_part(const struct build *b, int64_t off)
{
    for (unsigned i = 0; b->before && i < b->before->count; i++)
        if (b->before->piece[i].off == off)
            return true;
    return false;
}

/* Should the block at this offset, where the last instruction leads, become a part of the region?
 */
static bool is_wanted(const struct build *b, int64_t off)
{
    if (!build_in_page(off) || (b->jit->lockstep && off <= b->off[b->count - 1]))
        return false;
    const struct jit_place *place = jit_place_find(b->jit, region_gpa(b->region, off));
    if (!place)
        return b->jit->hot == 0;
    return !jit_place_region(b->jit, place, b->mode) || was_part(b, off);
}

/* Offsets at which blocks are still to be decoded. */
struct queue {
    uint16_t off[REGION_MAX_INSNS];
    unsigned head, tail;
};

/* The guest code at hand. */
struct code {
    const uint8_t *page, *behind; /* behind: NULL, or the page behind */
    bool more;                    /* an instruction's end lies behind them */
};

void read_code(uint8_t *bytes, const uint8_t *page, const uint8_t *behind, unsigned off,
               unsigned len)
{
    unsigned here = len < PAGE_SIZE - off ? len : (unsigned)PAGE_SIZE - off;
    mem_host_read(bytes, page + off, here);
    if (here < len)
        mem_host_read(bytes + here, behind, len - here);
}

static bool append(struct build *b, struct code *code, int32_t off)
{
    struct insn *insn = &b->insn[b->count];
    uint8_t bytes[16];
    unsigned len = INSN_MAX_BYTES, left = (unsigned)((int32_t)PAGE_SIZE - off);
    if (left >= sizeof bytes) { /* two loads */
        mem_host_read(bytes, code->page + off, sizeof bytes);
    } else {
        if (!code->behind && left < len)
            len = left;
        read_code(bytes, code->page, code->behind, (unsigned)off, len);
    }
    enum decode_result result =
        insn_decode(bytes, len, b->code64 ? 64 : 32, false, &b->cpu->features, insn);
    code->more = result == DECODE_MORE;
    if (result != DECODE_OK)
        return false;
    build_clear(b, b->count);
    b->branch[b->count] = (uint8_t)branch_of(insn);
    b->index_at[off] = (int16_t)b->count;
    b->off[b->count++] = (uint16_t)off;
    return true;
}

/* Where the code goes on behind the last instruction, or NEXT_NONE; *on: it should be decoded. */
static int32_t next_offset(struct build *b, struct queue *q, bool *on)
{
    const unsigned last = b->count - 1;
    const struct insn *insn = &b->insn[last];
    int32_t end = b->off[last] + insn->len;
    int64_t target = build_branch_offset(b, last);
    *on = true;
    if (b->branch[last] == BRANCH_NONE) {
        *on = !ends_in_lockstep(b, insn);
        return end;
    }
    if (!is_direct(b, last) || target != (int32_t)target)
        return NEXT_NONE;
    if (b->branch[last] == BRANCH_CONDITIONAL) {
        if (is_wanted(b, target) && q->tail < REGION_MAX_INSNS)
            q->off[q->tail++] = (uint16_t)target;
        target = end;
    }
    *on = is_wanted(b, target);
    return (int32_t)target;
}

/* From an offset on until it meets what there is already, or must not go on. */
static void decode_blocks(struct build *b, struct code *code, struct queue *q, int32_t off)
{
    bool on = true;
    for (bool first = true; on && build_in_page(off) && b->index_at[off] < 0; first = false) {
        if (b->count == REGION_MAX_INSNS || !append(b, code, off))
            return;
        if (!first)
            b->flows[b->count - 2] = true;
        off = b->next[b->count - 1] = next_offset(b, q, &on);
        on &= !b->cross;
    }
}

static void decode(struct build *b, uint64_t gpa, struct code *code)
{
    struct queue q = {.tail = 0};
    bool more;
    decode_blocks(b, code, &q, (int32_t)(gpa & ~PAGE_MASK));
    more = code->more;
    while (q.head < q.tail && b->count < REGION_MAX_INSNS && !b->cross)
        decode_blocks(b, code, &q, q.off[q.head++]);
    code->more = more;
    if (q.head > 0)
        order_blocks(b);
    unroll_loops(b);
}

/* ---- Looking ahead --------------------------------------------------------------------------- */

static void mark_loop(struct build *b, unsigned from, int64_t off)
{
    if (build_in_page(off) && !b->cross && b->index_at[off] >= 0)
        for (unsigned i = (unsigned)b->index_at[off]; i <= from; i++)
            b->in_loop[i] = true;
}

static void mark_target(struct build *b, unsigned from, unsigned n, int64_t off)
{
    int to = build_target(b, from, (int32_t)off);
    mark_loop(b, from, off);
    if (off != (int32_t)off || to < 0)
        return;
    b->to[from][n] = (int16_t)to;
    b->ways[to]++;
    b->leader[to] = true;
    b->head[to] |= (unsigned)to <= from;
}

static void mark_blocks(struct build *b)
{
    b->leader[0] = true;
    for (unsigned i = 0; i < b->count; i++) {
        const struct insn *insn = &b->insn[i];
        if (b->branch[i] == BRANCH_CONDITIONAL && is_direct(b, i))
            mark_target(b, i, 0, build_branch_offset(b, i));
        if (b->flows[i])
            b->ways[i + 1]++;
        else if (b->next[i] != NEXT_NONE)
            mark_target(b, i, 1, b->next[i]);
        if (!(insn->row->attr & (INSN_X87 | INSN_MMX | INSN_SSE | INSN_AVX)))
            continue;
        b->vectors |= x87_loads_mxcsr(b, insn) || gather_is_direct(b, insn);
        b->x87 |= x87_is_used(b, insn);
    }
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

/* Vectors, or the x87's registers, into the host's, if they are not there; EFLAGS stay. */
static void emit_in(struct build *b, int32_t home, const void *thunk)
{
    struct emit *e = &b->e;
    emit_mov(e, 8, SCRATCH1, RCX);
    emit_cpu(e, 4, OP_LOAD, RCX, home);
    emit_jrcxz(e, CALL_BYTES);
    emit_call(e, thunk);
    emit_mov(e, 8, RCX, SCRATCH1);
}

static void emit_homes_in(struct build *b)
{
    if (b->vectors)
        emit_in(b, CPU_AT(jx.vec_home), b->jit->thunks.vec_in);
    if (b->x87)
        emit_in(b, CPU_AT(jx.x87_home), b->jit->thunks.x87_in);
}

static const struct flags_state in_host = {.host = true}, in_memory = {.memory = true},
                                dead = {.host = true, .memory = true};

/* The region's beginning, as others come to it: with flags in EFLAGS, or in cpu->jx.flags. A loop
 * in which they stay in EFLAGS wants them there. What is redirected when the region becomes stale
 * is 5 bytes long. */
static void emit_entries(struct build *b)
{
    static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
    struct emit *e = &b->e;
    bool visible = b->visible_before[0] != 0, loop = b->head[0] && flags_stay(b, 0);
    const uint8_t *host = emit_here(e);
    if (visible && loop) {
        uint8_t *over = emit_jmp_later(e); /* over what loads them */
        b->region->entry = emit_here(e);
        b->flags = in_memory;
        flags_load(b);
        emit_patch32(over, e->shift, emit_here(e));
    } else {
        if (visible)
            flags_emit_store(e);
        else
            emit_bytes(e, nop5, sizeof nop5);
        b->region->entry = emit_here(e);
    }
    b->region->entry_host = host;
    if (b->cross)
        branch_cross(b);
    emit_homes_in(b);
    b->flags = !visible ? dead : loop ? in_host : in_memory;
}

/* At the head of a loop, when the way back has not been emitted; `falls`: another has, which leads
 * here. */
static void begin_loop(struct build *b, bool falls)
{
    struct flags_state head = in_host;
    if (!flags_stay(b, b->i)) {
        head = (struct flags_state){.desc = flags_on_way_back(b, b->i)};
        if (head.desc.from == FLAGS_MEMORY)
            head = flags_first(b, b->i) ? in_host : in_memory;
    }
    if (falls)
        flags_convert(b, &head);
    b->flags = head;
}

/* Where ways meet that have all been emitted; `falls`: one of them falls into the block. */
static void meet(struct build *b, bool falls)
{
    const struct label *label = &b->label[b->i];
    struct flags_state all = falls ? b->flags : label->flags;
    if (label->met)
        flags_meet(&all, &label->flags);
    if (all.host && all.memory)
        all.host = false;
    if (!all.host && !all.memory && all.desc.from == FLAGS_MEMORY) { /* nothing */
        bool memory = falls && b->flags.memory;
        if (falls && !memory)
            flags_load(b);
        all = memory ? in_memory : in_host;
    }
    b->flags = all;
}

/* What is held when the block begins; at the head of a loop nothing, for C may have been called. */
static void meet_held(struct build *b, bool falls)
{
    const struct label *label = &b->label[b->i];
    build_joined(b);
    if (b->i == 0 || b->head[b->i] || (!falls && !label->met))
        held_forget(b);
    else if (!falls)
        memcpy(b->held, label->held, sizeof b->held);
    else if (label->met)
        held_meet(b->held, label->held);
}

/* Decides how flags come to the block, and what is held. */
static void begin_block(struct build *b)
{
    unsigned i = b->i;
    bool falls = i > 0 && b->flows[i - 1];
    meet_held(b, falls);
    if (i == 0)
        emit_entries(b);
    if (!b->visible_before[i])
        b->flags = dead;
    else if (b->head[i])
        begin_loop(b, i == 0 || falls);
    else if (i > 0)
        meet(b, falls);
    b->label[i].code = emit_here(&b->e);
    b->label[i].flags = b->flags;
    if (b->polls[i])
        branch_poll(b);
}

/* C may execute anything in the middle of a region: what changes the mode or the mapping makes it
 * leave (jit_slow()). */
static void translate_one(struct build *b)
{
    bool branch = b->branch[b->i] != BRANCH_NONE;
    unsigned first = b->i, last;
    profile_mark(b->jit, emit_here(&b->e), b->off[b->i]);
    if (b->leader[b->i])
        begin_block(b);
    if (b->x87)
        x87_before(b);
    if (branch ? !branch_translate(b) : !copy_insn(b) && !special_translate(b))
        site_call(b);
    for (last = b->i, b->i = first; b->i <= last; b->i++)
        held_after(b); /* a run of PUSHes has moved it */
    b->i = last;
    if (b->x87)
        x87_after(b);
    if (!b->flows[b->i] && b->next[b->i] != NEXT_NONE)
        branch_go(b, b->next[b->i]);
}

/* ---- The region ------------------------------------------------------------------------------ */

static void emit_region(struct build *b)
{
    struct emit *e = &b->e, body;
    for (b->i = 0; b->i < b->count && build_has_room(b, 8); b->i++)
        translate_one(b);
    b->region->count = (uint16_t)b->i;
    if (b->flows[b->i - 1]) {
        b->i--;
        x87_emit_due(b);
        branch_go(b, b->next[b->i]);
    }
    body = *e;
    *e = b->cold_e;
    emit_cold(b);
    b->region->stale_exit_host = emit_here(e); /* to be made anew */
    emit_mov_imm32(e, SCRATCH1, b->off[0]);
    emit_jmp(e, b->jit->thunks.exit_poll_host);
    b->region->stale_exit = emit_here(e);
    emit_mov_imm32(e, SCRATCH1, b->off[0]);
    emit_jmp(e, b->jit->thunks.exit_poll);
    b->cold_e = *e;
    *e = body;
}

static void log_guest(const struct build *b)
{
    struct log *log = b->cpu->log;
    char text[128];
    log_printf(log, "----------------\nIN: cpu%u physical %#llx\n", b->cpu->index,
               (unsigned long long)b->region->gpa);
    for (unsigned i = 0; i < b->count; i++) {
        insn_disassemble(b->insn[i].bytes, b->insn[i].len, b->insn[i].code, b->off[i], text,
                         sizeof text);
        log_printf(log, "  %03x:  %s\n", b->off[i], text);
    }
}

static void log_host(const struct build *b, const uint8_t *code, size_t size)
{
    struct log *log = b->cpu->log;
    char text[128];
    uint64_t running = (uint64_t)(uintptr_t)(code + b->e.shift);
    log_printf(log, "OUT: %zu bytes\n", size);
    for (size_t at = 0; at < size;) {
        unsigned n = insn_disassemble(code + at, size - at, 64, running + at, text, sizeof text);
        log_printf(log, "  %#llx:  %s\n", (unsigned long long)(running + at), text);
        at += n ? n : 1;
    }
}

/* How far from the page the code goes on without asking where that is: jit_may_run(). */
static uint32_t reach(const struct build *b)
{
    int64_t most = PAGE_SIZE + INSN_MAX_BYTES;
    for (unsigned i = 0; i < b->count; i++) {
        int64_t off = b->insn[i].op[0].kind == OPND_REL ? build_branch_offset(b, i) : 0;
        off = off < 0 ? -off : off;
        most = off > most ? off : most;
    }
    return (uint32_t)most + 1;
}

/* Keeps the guest code that the region was made from. */
static void keep_code(struct build *b)
{
    struct jit_region *region = b->region;
    struct jit_piece *piece = jit_data(b->jit, (sizeof *piece + INSN_MAX_BYTES) * b->count);
    uint8_t *bytes = (uint8_t *)(piece + b->count);
    unsigned lo = PAGE_SIZE, hi = 0;
    region->piece = piece;
    region->bytes = bytes;
    for (unsigned i = 0; i < b->count; i++) {
        unsigned len = b->insn[i].len, end = b->off[i] + len;
        lo = b->off[i] < lo ? b->off[i] : lo;
        hi = end > hi ? end : hi;
        piece[i].off = b->off[i] & (PAGE_SIZE - 1);
        piece[i].len = len & INSN_MAX_BYTES;
        memcpy(bytes, b->insn[i].bytes, INSN_MAX_BYTES); /* the next one begins in it */
        bytes += len;
    }
    region->lo = (uint16_t)lo;
    region->len = (uint16_t)(hi - lo);
    jit_data_trim(b->jit, bytes);
}

static void begin(struct build *b, struct jit *jit, uint64_t gpa)
{
    struct cpu *cpu = jit->cpu;
    memset(b, 0, offsetof(struct build, insn));
    b->jit = jit;
    b->cpu = cpu;
    b->mode = jit_mode(cpu);
    b->code64 = cpu->mode & MODE_CODE64;
    b->width = b->code64 ? 8 : 4;
    jit_make_room(jit);
    b->region = jit_data(jit, sizeof *b->region);
    *b->region = (struct jit_region){.gpa = gpa, .mode = b->mode};
    b->before = jit_place_stale(jit, gpa, b->mode);
    b->e = jit_emit(jit, jit->code_write + jit->body.used);
    b->cold_e = jit_emit(jit, jit->code_write + jit->cold.used);
}

/* Bytes emitted, which now belong to the zone. */
static size_t take(struct jit_zone *zone, const uint8_t *from, const uint8_t *to)
{
    size_t size = (size_t)(to - from);
    if (size > REGION_MAX_CODE)
        abort(); /* the bound is wrong: memory has been overwritten */
    zone->used += (size + 15) & ~(size_t)15;
    return size;
}

static void count(struct jit *jit, const struct jit_region *region, size_t size)
{
    jit->counters.regions++;
    jit->counters.insns += region->count;
    jit->counters.code_bytes += size;
}

struct jit_region *jit_translate(struct jit *jit, uint64_t gpa, const uint8_t *page,
                                 const uint8_t *behind, bool *more)
{
    struct build *b = jit->build;
    struct code code = {page, behind, false};
    begin(b, jit, gpa);
    b->cross = behind;
    decode(b, gpa, &code);
    *more = code.more;
    if (b->count == 0) {
        jit_data_trim(jit, b->region);
        return NULL;
    }
    keep_code(b);
    b->region->reach = reach(b);
    uint8_t *body = b->e.p, *cold = b->cold_e.p;
    copy_prepare(b);
    mark_blocks(b);
    polls_choose(b);
    held_prepare(b);
    flags_liveness(b);
    emit_region(b);
    for (unsigned i = 0; i < b->count; i++)
        b->index_at[b->off[i]] = -1;
    size_t size = take(&jit->body, body, b->e.p), cold_size = take(&jit->cold, cold, b->cold_e.p);
    if (LOG_ON(jit->cpu->log, LOG_OUT_ASM)) {
        log_guest(b);
        log_host(b, body, size);
        log_host(b, cold, cold_size);
    }
    profile_region(jit, body + b->e.shift, size);
    profile_region(jit, cold + b->e.shift, cold_size);
    count(jit, b->region, size + cold_size);
    return b->region;
}

void jit_build_init(struct build *b)
{
    memset(b->index_at, 0xff, sizeof b->index_at);
}
