/*
 * map.h - what lies behind `struct phys_map`: regions, the flat table resolved from them, RAM
 * blocks and the words kept per guest frame. Private to mmu/.
 *
 * Readers (vCPUs, DMA) never take a lock to find out what is at an address: the flat table is read
 * under a sequence count and the answer is copied out. RAM blocks live as long as the map. A region
 * may vanish, so `range.region` is followed only with the machine lock held (phys.c, mmio_*).
 *
 * Lock order: machine lock, then map->lock, then one mailbox (mail.c). loan_lock comes last.
 */
#ifndef MMU_MAP_H
#define MMU_MAP_H

#include "internal/log.h"
#include "internal/phys.h"
#include <stdatomic.h>

struct ahead;
struct mmu_cpu;
struct rules;

enum {
    MMU_MAX_CPUS = 16, /* the width of frame.code_by and of FRAME_WRITABLE_BY */
    CODE_GRANULE_SHIFT = 6,
};
#define FRAME_NONE UINT32_MAX

/* What is known of one guest frame. 16 bytes per 4 KiB of RAM, reserved but untouched until used.
 */
struct frame {
    _Atomic uint32_t attr;     /* enum frame_attr, FRAME_WRITABLE_BY in the high half */
    _Atomic uint16_t code_by;  /* vCPUs that have decoded blocks here; changed under map->lock */
    _Atomic uint16_t table_by; /* vCPUs that trace it as a page table; likewise */
    _Atomic uint64_t code_granules; /* which 64-byte pieces hold code of any vCPU */
};
_Static_assert(sizeof(struct frame) == 16, "the memory overhead promised above");

/* Host memory behind RAM or ROM. Frames are numbered over all blocks of the map, so that one frame
 * has one number however many guest addresses show it. */
struct ram_block {
    uint8_t *base;
    uint64_t size;
    enum region_kind kind; /* RAM or ROM */
    struct frame *frames;
    uint32_t first_frame;
    _Atomic uint8_t *chunk; /* enum touch of each */
    unsigned chunks;
    _Atomic unsigned unused; /* asked for, and not written yet */
    struct ram_block *next; /* never changes once the block is in the list */
};

struct region {
    uint64_t gpa, size;
    enum region_kind kind;
    const char *name;
    struct ram_block *block; /* RAM and ROM */
    uint64_t ram_offset;
    const struct io_ops *ops; /* MMIO; ROM: who hears of stores to it, or NULL */
    void *opaque;
    bool hidden;    /* not in the flat table now */
    bool read_only; /* RAM that a switch made so: its frames have FRAME_ROM */
    unsigned order; /* the later of two equals lies on top */
};

/* One answer of the map: what [start, end) is. For a hole, `mapped` is false. */
struct phys_range {
    uint64_t start, end;
    bool mapped;
    enum region_kind kind;
    struct ram_block *block; /* RAM, ROM: the byte `start` is at block->base + ram_offset */
    uint64_t ram_offset;
    struct region *region; /* MMIO: follow only with the machine lock held */
    uint32_t sequence;     /* of the flat table it was read from; odd: never filled */
};

/* A range in the published table; words, because readers race with the writer (see map.c). */
struct flat_range {
    _Atomic uint64_t start, end, kind, ram_offset;
    _Atomic(struct ram_block *) block;
    _Atomic(struct region *) region;
};
struct flat_table {
    struct flat_table *older; /* outgrown, freed with the map; sizes double, so they stay few */
    unsigned capacity;
    _Atomic unsigned count;
    struct flat_range range[];
};

struct phys_map {
    pthread_mutex_t *machine_lock;
    struct log *log;
    struct log quiet; /* stands in for a log that the caller does not have */

    _Atomic uint32_t sequence; /* odd while the flat table is being rewritten */
    _Atomic(struct flat_table *) table;
    /* Slow stores that are visible or about to be, but whose letters (mail.h) may not be posted
     * yet. */
    _Atomic uint32_t stores;
    _Atomic(struct rules *) rules; /* NULL: no protection device */
    _Atomic bool aliased;          /* some frame shows at two guest addresses */
    /* What the write callback that runs now wants done behind its store; the machine lock. */
    phys_after_fn *after;
    void *after_opaque;
    _Atomic(struct ram_block *) blocks;
    struct ahead *ahead;

    pthread_mutex_t loan_lock;
    pthread_cond_t loan_ended;
    _Atomic unsigned loan_waiters;

    pthread_mutex_t lock;    /* what follows, and every change of frame.code_by and .table_by */
    struct region **regions; /* index = handle; NULL: removed */
    unsigned region_count, region_room, next_order;
    uint32_t frames;
    _Atomic(struct mmu_cpu *) cpus[MMU_MAX_CPUS];
};

/* ---- map.c ---------------------------------------------------------------------------------- */

/* What is at gpa. `range` doubles as a cache: when it already covers gpa and the map has not
 * changed since, nothing is looked up. Initialise it with PHYS_RANGE_INIT. */
#define PHYS_RANGE_INIT                                                                            \
    {                                                                                              \
        .sequence = 1                                                                              \
    }
void phys_find_slow(struct phys_map *map, uint64_t gpa, struct phys_range *range);
static inline void phys_find(struct phys_map *map, uint64_t gpa, struct phys_range *range)
{
    if (range->sequence != atomic_load_explicit(&map->sequence, memory_order_acquire) ||
        gpa < range->start || gpa >= range->end)
        phys_find_slow(map, gpa, range);
}

static inline bool range_is_memory(const struct phys_range *range)
{
    return range->mapped && range->kind != REGION_MMIO;
}
static inline uint64_t range_block_offset(const struct phys_range *range, uint64_t gpa)
{
    return range->ram_offset + (gpa - range->start);
}
static inline uint8_t *range_hva(const struct phys_range *range, uint64_t gpa)
{
    return range->block->base + range_block_offset(range, gpa);
}
static inline struct frame *range_frame(const struct phys_range *range, uint64_t gpa)
{
    return &range->block->frames[range_block_offset(range, gpa) >> PAGE_SHIFT];
}
static inline uint32_t range_frame_number(const struct phys_range *range, uint64_t gpa)
{
    return range->block->first_frame + (uint32_t)(range_block_offset(range, gpa) >> PAGE_SHIFT);
}
/* The guest addresses at which a frame shows, up to `max`; returns how many. */
unsigned phys_frame_gpas(struct phys_map *map, uint32_t number, uint64_t *gpas, unsigned max);

/* ---- phys.c --------------------------------------------------------------------------------- */

/* The page walker's read of one entry (4 or 8 bytes, aligned): phys_read() with the lookup cached.
 */
enum phys_result phys_read_entry(struct phys_map *map, const struct access *access,
                                 struct phys_range *range, uint64_t gpa, unsigned size,
                                 uint64_t *value);

/* ---- frame.c -------------------------------------------------------------------------------- */

struct ram_block *ram_block_new(struct phys_map *map, uint64_t size, enum region_kind kind,
                                struct error *err);
void ram_block_free(struct phys_map *map, struct ram_block *block);
/* Of the block that the frame lies in; NULL: no such frame. */
struct ram_block *block_by_number(struct phys_map *map, uint32_t number);
static inline struct frame *block_frame(const struct ram_block *block, uint32_t number)
{
    return &block->frames[number - block->first_frame];
}
struct frame *frame_by_number(struct phys_map *map, uint32_t number);

/* Leave for one vCPU to make writable view entries of the frame. False: stores must go slow. */
bool frame_grant_write(struct frame *frame, unsigned vcpu);
/* The vCPU has no writable entry of it left. */
void frame_revoked(struct frame *frame, unsigned vcpu);
/* Whether it may have some. */
bool frame_may_write(struct frame *frame, unsigned vcpu);
/* vCPUs other than `vcpu` that may hold writable entries, a bit each. */
unsigned frame_other_writers(struct frame *frame, unsigned vcpu);

/* Whether stores to it may go by unseen now: by other vCPUs' entries, or by a loan. */
bool frame_written_unseen(struct frame *frame, unsigned vcpu);

/* The vCPU has code in these granules, or none any more; is, or is no longer, tracing the frame. */
void frame_code_added(struct phys_map *map, struct frame *frame, unsigned vcpu, uint64_t granules);
void frame_code_gone(struct phys_map *map, struct frame *frame, unsigned vcpu);
/* What all vCPUs have decoded in the frame is stale from their next block on. */
void frame_forget_code(struct phys_map *map, uint32_t number);
void frame_trace_begin(struct phys_map *map, struct frame *frame, unsigned vcpu);
void frame_trace_end(struct phys_map *map, struct frame *frame, unsigned vcpu);
/* The 64-byte granules that [offset, offset + len) of a frame touches, a bit each. */
uint64_t frame_granules(uint64_t offset, uint64_t len);

/* Bytes of a CODE or TABLE frame have been stored (they are visible already): tells every vCPU
 * concerned, the storing one directly, the others by mail. */
void frame_written(struct phys_map *map, const struct access *access,
                   const struct phys_range *range, uint64_t gpa, uint64_t len);

/* ---- touch.c -------------------------------------------------------------------------------- */

/* Of a chunk: 2 MiB of host addresses, which the host clears at once where it has huge pages. */
enum { TOUCH_CHUNK_SHIFT = 21 };
enum touch { TOUCH_NEW, TOUCH_ASKED, TOUCH_WRITTEN };
/* Which of the block's a host address lies in. */
static inline unsigned touch_chunk(const struct ram_block *block, const uint8_t *host)
{
    return (unsigned)(((uintptr_t)host >> TOUCH_CHUNK_SHIFT) -
                      ((uintptr_t)block->base >> TOUCH_CHUNK_SHIFT));
}
bool touch_init(struct ram_block *block); /* base and size are set */
void touch_fini(struct phys_map *map, struct ram_block *block);
/* A vCPU is about to write to this host address of the block. */
void touch_first_write(struct phys_map *map, struct ram_block *block, unsigned chunk);
static inline void touch_write(struct phys_map *map, struct ram_block *block, const uint8_t *host)
{
    unsigned c = touch_chunk(block, host);
    if (atomic_load_explicit(&block->chunk[c], memory_order_relaxed) != TOUCH_WRITTEN)
        touch_first_write(map, block, c);
}

/* ---- loan.c --------------------------------------------------------------------------------- */

/* Waits until the frame has none of these marks (FRAME_LENT, FRAME_LENT_WRITE): not before the
 * caller has set the attribute that keeps new borrowers away. Any lock may be held that an image's
 * worker does not take: the machine lock, map->lock. */
void frame_await(struct phys_map *map, struct frame *frame, uint32_t mark);

/* ---- dispatch.c ----------------------------------------------------------------------------- */

/* One register access of 1, 2, 4 or 8 bytes, split or widened to what the device takes. The
 * machine lock is held. */
uint64_t io_dispatch_read(const struct io_ops *ops, void *opaque, const struct access *access,
                          uint64_t offset, unsigned size);
void io_dispatch_write(const struct io_ops *ops, void *opaque, const struct access *access,
                       uint64_t offset, unsigned size, uint64_t value);

#endif
