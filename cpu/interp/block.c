/*
 * block.c - finding, decoding, invalidating blocks (block.h).
 */
#include "cpu/interp/block.h"
#include "cpu/interp/vec.h"
#include "cpu/mem_internal.h"
#include "internal/error.h"
#include "internal/log.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Hashes -------------------------------------------------------------------------------------
 */

static struct block **hash_chain(struct block_cache *cache, uint64_t gpa, uint32_t mode)
{
    uint64_t h = (gpa ^ (uint64_t)mode << 40) * 0x9e3779b97f4a7c15ull;
    return &cache->hash[h >> 40 & (HASH_BUCKETS - 1)];
}

static struct block *hash_find(struct block_cache *cache, uint64_t gpa, uint32_t mode)
{
    struct block *b = *hash_chain(cache, gpa, mode);
    while (b && (b->gpa != gpa || b->mode != mode))
        b = b->hash_next;
    return b;
}

static struct block_frame **frame_chain(struct block_cache *cache, uint64_t gpa)
{
    uint64_t h = (gpa >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull;
    return &cache->frames[h >> 40 & (FRAME_BUCKETS - 1)];
}

static struct block_frame *frame_find(struct block_cache *cache, uint64_t gpa)
{
    struct block_frame *f = *frame_chain(cache, gpa);
    while (f && f->gpa != (gpa & PAGE_MASK))
        f = f->next;
    return f;
}

/* ---- The arena ------------------------------------------------------------------------------- */

void *block_alloc(struct block_cache *cache, size_t size)
{
    void *p = cache->arena + cache->used;
    cache->used += (size + 31) & ~(size_t)31;
    return p;
}

static void clear_pcs(struct block_cache *cache)
{
    for (unsigned i = 0; i < PC_ENTRIES; i++)
        cache->pcs.entry[i] = (struct pc_entry){.pc = PC_NONE};
}

void block_flush(struct cpu *cpu)
{
    struct block_cache *cache = cpu->blocks;
    for (unsigned i = 0; i < FRAME_BUCKETS; i++) {
        struct block_frame *f = cache->frames[i];
        cache->frames[i] = 0;
        for (; f; f = f->next)
            if (!jit_has_frame(cpu, f->gpa))
                mmu_code_gone(&cpu->mmu, f->gpa);
    }
    cache->empty = 0;
    clear_pcs(cache);
    memset(cache->hash, 0, sizeof(cache->hash));
    cache->used = 0;
    cache->flushes++;
}

bool block_has_frame(const struct cpu *cpu, uint64_t gpa)
{
    const struct block_frame *f = frame_find(cpu->blocks, gpa);
    return f && f->blocks;
}

static void make_room(struct cpu *cpu)
{
    if (cpu->blocks->used + BLOCK_MAX_BYTES > ARENA_SIZE)
        block_flush(cpu);
}

static void insert(struct block_cache *cache, struct block *b)
{
    struct block **chain = hash_chain(cache, b->gpa, b->mode);
    b->hash_next = *chain;
    *chain = b;
    struct block_frame *f = frame_find(cache, b->gpa);
    if (!f) {
        struct block_frame **frames = frame_chain(cache, b->gpa);
        f = block_alloc(cache, sizeof(*f));
        *f = (struct block_frame){.gpa = b->gpa & PAGE_MASK, .next = *frames};
        *frames = f;
    }
    b->frame = f;
    b->frame_next = f->blocks;
    f->blocks = b;
}

void block_sweep(struct cpu *cpu)
{
    struct block_cache *cache = cpu->blocks;
    struct block_frame *f = cache->empty;
    cache->empty = 0;
    for (; f; f = f->next_empty) {
        f->queued = false;
        if (f->blocks)
            continue;
        struct block_frame **p = frame_chain(cache, f->gpa);
        while (*p != f)
            p = &(*p)->next;
        *p = f->next;
        if (!jit_has_frame(cpu, f->gpa))
            mmu_code_gone(&cpu->mmu, f->gpa);
    }
}

/* ---- Invalidation ---------------------------------------------------------------------------- */

static void unlink_from_frame(struct block_frame *f, const struct block *stale)
{
    for (struct block **p = &f->blocks; *p;) {
        struct block *b = *p;
        if (b == stale) {
            *p = b->frame_next;
            continue;
        }
        for (unsigned way = 0; b->link && way < 2; way++)
            if (b->link->to[way] == stale->uops)
                b->link->to[way] = 0;
        p = &b->frame_next;
    }
}

static void take_out(struct block_cache *cache, struct block *b)
{
    struct block **p = hash_chain(cache, b->gpa, b->mode);
    while (*p != b)
        p = &(*p)->hash_next;
    *p = b->hash_next;
    unlink_from_frame(b->frame, b);
    b->stale = true;
    for (unsigned i = 0; i < b->uops_count; i++) {
        unsigned flags = b->uops[i].flags;
        b->uops[i].fn = uop_stale;
        if (flags & UOP_DATA)
            i++;
    }
    cache->stale++;
}

static void stale_in_frame(struct block_cache *cache, struct block_frame *f, uint64_t gpa,
                           uint64_t len)
{
    struct block *next;
    for (struct block *b = f->blocks; b; b = next) {
        next = b->frame_next;
        if (b->gpa < gpa + len && gpa < b->gpa + b->len)
            take_out(cache, b);
    }
    if (!f->blocks && !f->queued) {
        f->queued = true;
        f->next_empty = cache->empty;
        cache->empty = f;
    }
}

void interp_code_stale(struct cpu *cpu, uint64_t gpa, uint64_t len)
{
    struct block_cache *cache = cpu->blocks;
    if (!cache)
        return;
    if (len > PAGE_SIZE * FRAME_BUCKETS) { /* more pages than there are chains: go by these */
        for (unsigned i = 0; i < FRAME_BUCKETS; i++)
            for (struct block_frame *f = cache->frames[i]; f; f = f->next)
                stale_in_frame(cache, f, gpa, len);
        return;
    }
    for (uint64_t page = gpa & PAGE_MASK; page < gpa + len; page += PAGE_SIZE) {
        struct block_frame *f = frame_find(cache, page);
        if (f)
            stale_in_frame(cache, f, gpa, len);
    }
}

/* ---- Decoding -------------------------------------------------------------------------------- */

static unsigned code_size(uint32_t mode)
{
    return mode & MODE_CODE64 ? 64 : mode & MODE_CODE32 ? 32 : 16;
}

/* Decodes up to a block's end from a copy of its bytes; how many instructions are whole and valid.
 */
static unsigned decode_run(struct cpu *cpu, const uint8_t *bytes, unsigned avail,
                           struct insn insns[BLOCK_MAX_INSNS], unsigned *len)
{
    unsigned count = 0;
    *len = 0;
    while (count < BLOCK_MAX_INSNS) {
        struct insn *insn = &insns[count];
        if (insn_decode(bytes + *len, avail - *len, code_size(cpu->mode), !(cpu->mode & MODE_PROT),
                        &cpu->features, insn) != DECODE_OK)
            break;
        *len += insn->len;
        count++;
        if (insn->row->attr & INSN_END)
            break;
    }
    return count;
}

static void log_block(struct cpu *cpu, const struct insn *insns, unsigned count)
{
    uint64_t rip = cpu->rip;
    log_printf(cpu->log, "----------------\nIN: cpu%u %04x:%016llx\n", cpu->index,
               cpu->seg[SEG_CS].selector, (unsigned long long)rip);
    for (unsigned i = 0; i < count; i++) {
        char text[128];
        insn_disassemble(insns[i].bytes, insns[i].len, insns[i].code, rip, text, sizeof(text));
        log_printf(cpu->log, "0x%08llx:  %s\n", (unsigned long long)rip, text);
        rip += insns[i].len;
    }
    log_printf(cpu->log, "\n");
}

enum { COPY_MAX = 512 }; /* bytes of code looked at for one block */

/* Decodes and registers the block at x->gpa. The MMU is told of it before the bytes count: who
 * writes to them from then on is heard, and what was written before shows in the second reading.
 * That call may wait for other vCPUs, so the caller looks everything up again. False: not a whole
 * valid instruction. */
static bool build(struct cpu *cpu, const struct mmu_xlat *x, unsigned avail)
{
    struct insn insns[BLOCK_MAX_INSNS];
    uint8_t bytes[COPY_MAX], again[COPY_MAX];
    unsigned len, count;
    if (avail > COPY_MAX)
        avail = COPY_MAX;
    mem_host_read(bytes, x->hva, avail);
    count = decode_run(cpu, bytes, avail, insns, &len);
    if (count == 0)
        return false;
    uint32_t mode = cpu->mode;
    mmu_code_added(&cpu->mmu, x->gpa, len);
    mem_host_read(again, x->hva, len);
    if (memcmp(bytes, again, len) || hash_find(cpu->blocks, x->gpa, mode))
        return true; /* try again */
    if (LOG_ON(cpu->log, LOG_IN_ASM))
        log_block(cpu, insns, count);
    struct block *b = block_lower(cpu, insns, count);
    b->gpa = x->gpa;
    b->mode = mode;
    b->len = (uint16_t)len;
    insert(cpu->blocks, b);
    cpu->blocks->decoded++;
    return true;
}

/* Where limits count, a block may only be entered when all of it is below the limit. */
static bool fits(const struct cpu *cpu, const struct block *b, unsigned avail)
{
    return cpu->mode & MODE_CODE64 || b->len <= avail;
}

static void remember(struct cpu *cpu, struct block *b)
{
    if (cpu->jit || !(cpu->mode & (MODE_CODE64 | MODE_FLAT)) || LOG_ON(cpu->log, LOG_EXEC | LOG_CPU))
        return;
    *pc_slot(cpu, cpu->rip) = (struct pc_entry){
        .pc = cpu->rip, .generation = cpu->mmu.exec_generation, .uops = b->uops, .mode = cpu->mode};
}

struct block *block_find(struct cpu *cpu)
{
    struct block_cache *cache = cpu->blocks;
    block_sweep(cpu);
    make_room(cpu);
    /* A guest that writes to its code all the time gets each instruction decoded by itself. */
    for (unsigned tries = 0; tries < 4; tries++) {
        struct mmu_xlat x;
        unsigned avail = mem_fetch_page(cpu, cpu->rip, &x);
        if (x.ruled)
            return 0; /* each instruction is asked about by itself */
        struct block *b = hash_find(cache, x.gpa, cpu->mode);
        if (b) {
            if (!fits(cpu, b, avail))
                return 0;
            remember(cpu, b);
            return b;
        }
        if (!x.hva || !build(cpu, &x, avail))
            return 0;
    }
    return 0;
}

/* ---- Life ------------------------------------------------------------------------------------ */

bool interp_init(struct cpu *cpu, struct error *err)
{
    struct block_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return error_set(err, "no memory for the block cache");
    cache->arena = mmap(0, ARENA_SIZE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cache->arena == MAP_FAILED) {
        free(cache);
        return error_set(err, "no address space for the block cache");
    }
    clear_pcs(cache);
    cpu->blocks = cache;
    if (vector_engine_init(cpu, err))
        return true;
    munmap(cache->arena, ARENA_SIZE);
    free(cache);
    cpu->blocks = 0;
    return false;
}

void interp_fini(struct cpu *cpu)
{
    if (!cpu->blocks)
        return;
    vector_engine_fini(cpu);
    munmap(cpu->blocks->arena, ARENA_SIZE);
    free(cpu->blocks);
    cpu->blocks = 0;
}
