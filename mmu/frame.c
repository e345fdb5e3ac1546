/*
 * frame.c - RAM blocks and what is known of each of their frames.
 *
 * The attribute word decides whether a store may go by a view. Two parties race for it: a vCPU that
 * wants a writable view entry, and one that has found out that stores matter (code was decoded
 * there, the frame is a traced page table). Both change the SAME word by an atomic
 * read-modify-write: the first sets its WRITABLE_BY bit and looks whether a slow-write attribute is
 * there; the second sets the attribute and looks who may write. Whichever comes second sees the
 * first (DESIGN section 5, "Frames"):
 *
 *      vCPU 1: wants W                       vCPU 0: has decoded code
 *      old = attr |= WRITABLE_BY(1)          old = attr |= CODE
 *      CODE in old? then no W, bit off       WRITABLE_BY(1) in old? then stop 1, take W away
 *
 * A store on the slow path is ordered the same way: bytes first, then a locked read of the word.
 */
#include "internal/error.h"
#include "internal/rules.h"
#include "mail.h"
#include "map.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- Blocks --------------------------------------------------------------------------------- */

static void *reserve(uint64_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void describe_failure(uint64_t size, struct error *err)
{
    if (size >= 1ull << 30)
        error_set(err, "cannot allocate %.4g GiB of guest RAM: %s", (double)size / (1ull << 30),
                  strerror(errno));
    else
        error_set(err, "cannot allocate %llu KiB of guest RAM: %s",
                  (unsigned long long)(size >> 10), strerror(errno));
}

/* Links the block in and numbers its frames. False: 2^32 - 1 frames are all there can be. */
static bool enlist(struct phys_map *map, struct ram_block *block)
{
    uint64_t frames = block->size >> PAGE_SHIFT;
    pthread_mutex_lock(&map->lock);
    bool ok = frames < FRAME_NONE - map->frames;
    if (ok) {
        block->first_frame = map->frames;
        map->frames += (uint32_t)frames;
        block->next = atomic_load(&map->blocks);
        atomic_store(&map->blocks, block);
    }
    pthread_mutex_unlock(&map->lock);
    return ok;
}

struct ram_block *ram_block_new(struct phys_map *map, uint64_t size, enum region_kind kind,
                                struct error *err)
{
    if (size == 0 || (size & ~PAGE_MASK)) {
        error_set(err, "guest RAM of %llu bytes is not a whole number of pages",
                  (unsigned long long)size);
        return NULL;
    }
    struct ram_block *block = calloc(1, sizeof *block);
    if (!block) {
        error_set(err, "out of host memory");
        return NULL;
    }
    uint64_t frames = size >> PAGE_SHIFT;
    block->size = size;
    block->kind = kind;
    block->base = reserve(size);
    block->frames = block->base ? reserve(frames * sizeof *block->frames) : NULL;
    if (!block->frames || !touch_init(block) || !enlist(map, block)) {
        describe_failure(size, err);
        ram_block_free(map, block);
        return NULL;
    }
    madvise(block->base, size, MADV_HUGEPAGE);
    for (uint64_t i = 0; kind == REGION_ROM && i < frames; i++)
        atomic_init(&block->frames[i].attr, FRAME_ROM);
    return block;
}

void ram_block_free(struct phys_map *map, struct ram_block *block)
{
    touch_fini(map, block);
    if (block->base)
        munmap(block->base, block->size);
    if (block->frames)
        munmap(block->frames, (block->size >> PAGE_SHIFT) * sizeof *block->frames);
    free(block);
}

struct ram_block *phys_ram_new(struct phys_map *map, uint64_t size, struct error *err)
{
    return ram_block_new(map, size, REGION_RAM, err);
}

struct ram_block *phys_rom_new(struct phys_map *map, uint64_t size, const void *bytes, size_t len,
                               struct error *err)
{
    if (len > size) {
        error_set(err, "%zu bytes do not fit in a ROM of %#llx", len, (unsigned long long)size);
        return NULL;
    }
    struct ram_block *block = ram_block_new(map, size, REGION_ROM, err);
    if (block && len)
        memcpy(block->base, bytes, len);
    return block;
}

uint8_t *phys_block_bytes(struct ram_block *block)
{
    return block->base;
}

struct ram_block *block_by_number(struct phys_map *map, uint32_t number)
{
    struct ram_block *block = atomic_load_explicit(&map->blocks, memory_order_acquire);
    while (block && number - block->first_frame >= block->size >> PAGE_SHIFT)
        block = block->next;
    return block;
}

struct frame *frame_by_number(struct phys_map *map, uint32_t number)
{
    struct ram_block *block = block_by_number(map, number);
    return block ? block_frame(block, number) : NULL;
}

/* ---- Who may write -------------------------------------------------------------------------- */

static uint32_t writable_by(unsigned vcpu)
{
    return 1u << (FRAME_WRITABLE_BY_SHIFT + vcpu);
}

bool frame_grant_write(struct frame *frame, unsigned vcpu)
{
    uint32_t attr = atomic_load(&frame->attr);
    if (attr & FRAME_SLOW_WRITE)
        return false;
    if (attr & writable_by(vcpu))
        return true;
    attr = atomic_fetch_or(&frame->attr, writable_by(vcpu));
    if (!(attr & FRAME_SLOW_WRITE))
        return true;
    atomic_fetch_and(&frame->attr, ~writable_by(vcpu));
    return false;
}

void frame_revoked(struct frame *frame, unsigned vcpu)
{
    atomic_fetch_and(&frame->attr, ~writable_by(vcpu));
}

bool frame_may_write(struct frame *frame, unsigned vcpu)
{
    return atomic_load(&frame->attr) & writable_by(vcpu);
}

unsigned frame_other_writers(struct frame *frame, unsigned vcpu)
{
    return (atomic_load(&frame->attr) >> FRAME_WRITABLE_BY_SHIFT) & ~(1u << vcpu);
}

bool frame_written_unseen(struct frame *frame, unsigned vcpu)
{
    return frame_other_writers(frame, vcpu) || (atomic_load(&frame->attr) & FRAME_LENT_WRITE);
}

/* ---- Code and tables ------------------------------------------------------------------------ */

uint64_t frame_granules(uint64_t offset, uint64_t len)
{
    unsigned first = (unsigned)(offset >> CODE_GRANULE_SHIFT);
    unsigned last = (unsigned)((offset + len - 1) >> CODE_GRANULE_SHIFT);
    return (~0ull << first) & (~0ull >> (63 - last));
}

void frame_code_added(struct phys_map *map, struct frame *frame, unsigned vcpu, uint64_t granules)
{
    pthread_mutex_lock(&map->lock);
    atomic_fetch_or(&frame->code_by, (uint16_t)(1u << vcpu));
    atomic_fetch_or(&frame->code_granules, granules);
    atomic_fetch_or(&frame->attr, FRAME_CODE);
    pthread_mutex_unlock(&map->lock);
}

void frame_code_gone(struct phys_map *map, struct frame *frame, unsigned vcpu)
{
    pthread_mutex_lock(&map->lock);
    uint16_t left = atomic_load(&frame->code_by) & (uint16_t) ~(1u << vcpu);
    atomic_store(&frame->code_by, left);
    if (!left) {
        atomic_store(&frame->code_granules, 0);
        atomic_fetch_and(&frame->attr, ~(uint32_t)FRAME_CODE);
    }
    pthread_mutex_unlock(&map->lock);
}

void frame_trace_begin(struct phys_map *map, struct frame *frame, unsigned vcpu)
{
    pthread_mutex_lock(&map->lock);
    atomic_fetch_or(&frame->table_by, (uint16_t)(1u << vcpu));
    atomic_fetch_or(&frame->attr, FRAME_TABLE);
    pthread_mutex_unlock(&map->lock);
}

void frame_trace_end(struct phys_map *map, struct frame *frame, unsigned vcpu)
{
    pthread_mutex_lock(&map->lock);
    uint16_t left = atomic_load(&frame->table_by) & (uint16_t) ~(1u << vcpu);
    atomic_store(&frame->table_by, left);
    if (!left)
        atomic_fetch_and(&frame->attr, ~(uint32_t)FRAME_TABLE);
    pthread_mutex_unlock(&map->lock);
}

/* ---- Telling -------------------------------------------------------------------------------- */

/* The vCPU whose thread this is, or MMU_MAX_CPUS. */
static unsigned storing_vcpu(const struct phys_map *map, const struct access *access)
{
    switch (access->initiator) {
    case INITIATOR_VCPU_USER:
    case INITIATOR_VCPU_KERNEL:
    case INITIATOR_WALKER:
    case INITIATOR_EVENT:
        return access->vcpu < MMU_MAX_CPUS && atomic_load(&map->cpus[access->vcpu]) ? access->vcpu
                                                                                    : MMU_MAX_CPUS;
    default:
        return MMU_MAX_CPUS;
    }
}

/* Forgets that the vCPU has code there, until it says so again: one letter in its box is enough. */
static bool claim_code(struct phys_map *map, struct frame *frame, unsigned vcpu)
{
    pthread_mutex_lock(&map->lock);
    uint16_t code_by = atomic_load(&frame->code_by);
    atomic_store(&frame->code_by, code_by & (uint16_t) ~(1u << vcpu));
    pthread_mutex_unlock(&map->lock);
    return code_by & (1u << vcpu);
}

/* The storing vCPU is told the bytes; others lose all they have decoded of the frame. */
static void tell_code(struct phys_map *map, struct frame *frame, uint32_t number, unsigned own,
                      unsigned vcpu, uint64_t gpa, uint64_t len)
{
    uint64_t alias[8] = {gpa};
    unsigned count = 1;
    if (atomic_load_explicit(&map->aliased, memory_order_relaxed))
        count = phys_frame_gpas(map, number, alias, 8);
    if (vcpu != own && !claim_code(map, frame, vcpu))
        return;
    for (unsigned i = 0; i < count; i++) {
        uint64_t page = alias[i] & PAGE_MASK;
        if (vcpu == own)
            mail_own_code(map, vcpu, page | (gpa & ~PAGE_MASK), len);
        else
            mail_code(map, vcpu, page, number);
    }
}

void frame_forget_code(struct phys_map *map, uint32_t number)
{
    struct frame *frame = frame_by_number(map, number);
    uint64_t gpa;
    if (!atomic_load(&frame->code_by) || !phys_frame_gpas(map, number, &gpa, 1))
        return;
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++)
        if (atomic_load(&frame->code_by) & (1u << i))
            tell_code(map, frame, number, MMU_MAX_CPUS, i, gpa & PAGE_MASK, PAGE_SIZE);
}

void frame_written(struct phys_map *map, const struct access *access,
                   const struct phys_range *range, uint64_t gpa, uint64_t len)
{
    struct frame *frame = range_frame(range, gpa);
    uint32_t number = range_frame_number(range, gpa), offset = gpa & ~PAGE_MASK;
    unsigned own = storing_vcpu(map, access);
    unsigned code_by = 0, table_by = 0;
    if (atomic_load(&frame->code_granules) & frame_granules(offset, len))
        code_by = atomic_load(&frame->code_by);
    /* Setting A or D takes nothing away from what was derived from the entry. */
    if (access->initiator != INITIATOR_WALKER)
        table_by = atomic_load(&frame->table_by);
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++) {
        if (table_by & (1u << i))
            mail_table(map, i, i == own, number, offset, (uint32_t)len);
        if (code_by & (1u << i))
            tell_code(map, frame, number, own, i, gpa, len);
    }
}

bool phys_block_ruled(const struct ram_block *block, uint64_t offset, uint64_t len)
{
    for (uint64_t i = offset >> PAGE_SHIFT; len && i <= (offset + len - 1) >> PAGE_SHIFT; i++)
        if (atomic_load(&block->frames[i].attr) & (FRAME_RULED | FRAME_RULED_CODE))
            return true;
    return false;
}

/* A frame that shows nowhere has neither code nor tables: they went when it was hidden. */
void phys_block_written(struct phys_map *map, struct ram_block *block, uint64_t offset,
                        uint64_t len)
{
    static const struct access access = {.initiator = INITIATOR_DMA};
    struct phys_range range = PHYS_RANGE_INIT;
    for (uint64_t end = offset + len, n; offset < end; offset += n) {
        struct frame *frame = &block->frames[offset >> PAGE_SHIFT];
        uint64_t gpa;
        n = PAGE_SIZE - (offset & ~PAGE_MASK);
        if (n > end - offset)
            n = end - offset;
        uint32_t attr = atomic_fetch_or(&frame->attr, 0);
        if (!(attr & (FRAME_CODE | FRAME_TABLE | FRAME_RULED_TABLE)) ||
            !phys_frame_gpas(map, block->first_frame + (uint32_t)(offset >> PAGE_SHIFT), &gpa, 1))
            continue;
        gpa |= offset & ~PAGE_MASK;
        phys_find(map, gpa, &range);
        if (!range_is_memory(&range) || range_frame(&range, gpa) != frame)
            continue;
        if (attr & (FRAME_CODE | FRAME_TABLE))
            frame_written(map, &access, &range, gpa, n);
        if (attr & FRAME_RULED_TABLE)
            rules_table_dirty(phys_rules(map), gpa, n);
    }
}
