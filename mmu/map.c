/*
 * map.c - the guest-physical map: overlapping regions, resolved into a flat sorted table.
 *
 * MMIO lies over ROM, ROM over RAM, and of two equals the later one lies on top. Whenever a region
 * comes or goes the whole table is computed again (there are a few dozen ranges) and published in
 * place under a sequence count: a reader that saw the count odd, or different afterwards, looks
 * again. So readers take no lock and nothing a guest does, such as moving a BAR for ever, leaves
 * old tables behind. The words are atomic because readers do race with the writer; the count tells
 * them that what they got is torn, before they use it.
 */
#include "map.h"
#include "internal/ahead.h"
#include "internal/error.h"
#include "mail.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- Readers -------------------------------------------------------------------------------- */

static void copy_range(const struct flat_range *from, struct phys_range *to)
{
    to->start = atomic_load_explicit(&from->start, memory_order_acquire);
    to->end = atomic_load_explicit(&from->end, memory_order_acquire);
    to->kind = (enum region_kind)atomic_load_explicit(&from->kind, memory_order_acquire);
    to->block = atomic_load_explicit(&from->block, memory_order_acquire);
    to->ram_offset = atomic_load_explicit(&from->ram_offset, memory_order_acquire);
    to->region = atomic_load_explicit(&from->region, memory_order_acquire);
}

/* The first range that ends after gpa, or `count`. */
static unsigned first_after(const struct flat_table *table, unsigned count, uint64_t gpa)
{
    unsigned lo = 0, hi = count;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (atomic_load_explicit(&table->range[mid].end, memory_order_acquire) > gpa)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static void find_in(const struct flat_table *table, uint64_t gpa, struct phys_range *range)
{
    unsigned count = atomic_load_explicit(&table->count, memory_order_acquire);
    unsigned i = first_after(table, count, gpa);
    range->mapped = false;
    range->start = 0;
    range->end = UINT64_MAX;
    range->block = NULL;
    range->region = NULL;
    if (i > 0)
        range->start = atomic_load_explicit(&table->range[i - 1].end, memory_order_acquire);
    if (i == count)
        return;
    uint64_t start = atomic_load_explicit(&table->range[i].start, memory_order_acquire);
    if (gpa < start) {
        range->end = start;
        return;
    }
    copy_range(&table->range[i], range);
    range->mapped = true;
}

void phys_find_slow(struct phys_map *map, uint64_t gpa, struct phys_range *range)
{
    for (;;) {
        uint32_t sequence = atomic_load_explicit(&map->sequence, memory_order_acquire);
        if (!(sequence & 1)) {
            find_in(atomic_load_explicit(&map->table, memory_order_acquire), gpa, range);
            range->sequence = sequence;
            if (atomic_load_explicit(&map->sequence, memory_order_acquire) == sequence)
                return;
        }
        sched_yield();
    }
}

unsigned phys_frame_gpas(struct phys_map *map, uint32_t number, uint64_t *gpas, unsigned max)
{
    unsigned n = 0;
    struct phys_range range = PHYS_RANGE_INIT;
    for (uint64_t gpa = 0; n < max; gpa = range.end) {
        phys_find(map, gpa, &range);
        if (range_is_memory(&range)) {
            uint32_t first = range_frame_number(&range, range.start);
            uint32_t last = range_frame_number(&range, range.end - 1);
            if (number >= first && number <= last)
                gpas[n++] = (range.start & PAGE_MASK) + ((uint64_t)(number - first) << PAGE_SHIFT);
        }
        if (range.end == UINT64_MAX)
            break;
    }
    return n;
}

void *phys_hva(struct phys_map *map, uint64_t gpa, uint64_t *len)
{
    struct phys_range range = PHYS_RANGE_INIT;
    phys_find(map, gpa, &range);
    if (!range_is_memory(&range))
        return NULL;
    if (len)
        *len = range.end - gpa;
    return range_hva(&range, gpa);
}

_Atomic uint32_t *phys_frame_attr(struct phys_map *map, uint64_t gpa)
{
    struct phys_range range = PHYS_RANGE_INIT;
    phys_find(map, gpa, &range);
    return range_is_memory(&range) ? &range_frame(&range, gpa)->attr : NULL;
}

/* ---- Resolving ------------------------------------------------------------------------------ */

static bool lies_over(const struct region *a, const struct region *b)
{
    return a->kind != b->kind ? a->kind > b->kind : a->order > b->order;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static struct region *top_region(const struct phys_map *map, uint64_t gpa)
{
    struct region *top = NULL;
    for (unsigned i = 0; i < map->region_count; i++) {
        struct region *r = map->regions[i];
        if (r && !r->hidden && gpa >= r->gpa && gpa - r->gpa < r->size &&
            (!top || lies_over(r, top)))
            top = r;
    }
    return top;
}

/* A plain copy of the table to be; the caller publishes it. At most 2 * regions ranges. */
struct plain_range {
    uint64_t start, end;
    struct region *region;
};

static unsigned resolve(const struct phys_map *map, uint64_t *edges, struct plain_range *out)
{
    unsigned edge_count = 0, n = 0;
    for (unsigned i = 0; i < map->region_count; i++)
        if (map->regions[i]) {
            edges[edge_count++] = map->regions[i]->gpa;
            edges[edge_count++] = map->regions[i]->gpa + map->regions[i]->size;
        }
    qsort(edges, edge_count, sizeof edges[0], compare_u64);
    for (unsigned i = 0; i + 1 < edge_count; i++) {
        struct region *top = edges[i] < edges[i + 1] ? top_region(map, edges[i]) : NULL;
        if (!top)
            continue;
        if (n > 0 && out[n - 1].region == top && out[n - 1].end == edges[i])
            out[n - 1].end = edges[i + 1];
        else
            out[n++] = (struct plain_range){edges[i], edges[i + 1], top};
    }
    return n;
}

static bool any_alias(const struct plain_range *range, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        for (unsigned j = 0; j < i; j++) {
            struct region *a = range[i].region, *b = range[j].region;
            if (a->kind == REGION_MMIO || a->block != b->block)
                continue;
            uint64_t a0 = a->ram_offset + (range[i].start - a->gpa);
            uint64_t b0 = b->ram_offset + (range[j].start - b->gpa);
            if (a0 < b0 + (range[j].end - range[j].start) &&
                b0 < a0 + (range[i].end - range[i].start))
                return true;
        }
    return false;
}

static void store_range(struct flat_range *to, const struct plain_range *from)
{
    struct region *r = from->region;
    uint64_t offset = r->ram_offset + (from->start - r->gpa);
    atomic_store_explicit(&to->start, from->start, memory_order_release);
    atomic_store_explicit(&to->end, from->end, memory_order_release);
    atomic_store_explicit(&to->kind, r->kind, memory_order_release);
    atomic_store_explicit(&to->block, r->block, memory_order_release);
    atomic_store_explicit(&to->ram_offset, offset, memory_order_release);
    atomic_store_explicit(&to->region, r, memory_order_release);
}

/* Resolves and publishes. Called with map->lock held. False: out of memory, nothing changed. */
static bool publish_locked(struct phys_map *map)
{
    unsigned most = 2 * map->region_count + 1;
    uint64_t *edges = malloc(most * sizeof *edges);
    struct plain_range *plain = malloc(most * sizeof *plain);
    struct flat_table *table = atomic_load(&map->table), *bigger = NULL;
    if (most > table->capacity) {
        bigger = calloc(1, sizeof *bigger + 2 * most * sizeof bigger->range[0]);
        if (bigger) {
            bigger->capacity = 2 * most;
            bigger->older = table;
        }
    }
    bool ok = edges && plain && (bigger || most <= table->capacity);
    if (ok) {
        unsigned count = resolve(map, edges, plain);
        atomic_store(&map->aliased, any_alias(plain, count));
        if (bigger)
            table = bigger;
        atomic_fetch_add(&map->sequence, 1);
        for (unsigned i = 0; i < count; i++)
            store_range(&table->range[i], &plain[i]);
        atomic_store_explicit(&table->count, count, memory_order_release);
        atomic_store_explicit(&map->table, table, memory_order_release);
        atomic_fetch_add(&map->sequence, 1);
    }
    free(edges);
    free(plain);
    return ok;
}

/* ---- Changes -------------------------------------------------------------------------------- */

/* Blocks are keyed by guest-physical address, so code whose address now shows something else is
 * stale even though its bytes are as they were. `old` is a range as it was before the change.
 * Called with map->lock held. */
static void code_moved(struct phys_map *map, const struct phys_range *old, uint64_t start,
                       uint64_t end)
{
    struct phys_range now = PHYS_RANGE_INIT;
    for (uint64_t gpa = start & PAGE_MASK; gpa < end; gpa += PAGE_SIZE) {
        uint64_t at = gpa < start ? start : gpa;
        struct frame *frame = range_frame(old, at);
        unsigned code_by = atomic_load(&frame->code_by);
        phys_find(map, at, &now);
        if (!code_by || (range_is_memory(&now) && range_frame(&now, at) == frame))
            continue;
        atomic_store(&frame->code_by, 0); /* mail_read_code() does the rest */
        for (unsigned i = 0; i < MMU_MAX_CPUS; i++)
            if (code_by & (1u << i))
                mail_code(map, i, gpa, range_frame_number(old, at));
    }
}

/* The ranges of [gpa, gpa + size) before a change, for code_moved() after it. */
struct before {
    struct phys_range *range;
    unsigned count;
};

static struct before ranges_of(struct phys_map *map, uint64_t gpa, uint64_t size)
{
    struct before b = {malloc(sizeof(struct phys_range) * (2 * map->region_count + 1)), 0};
    struct phys_range range = PHYS_RANGE_INIT;
    if (!b.range)
        return b;
    for (uint64_t at = gpa; at < gpa + size; at = range.end) {
        phys_find(map, at, &range);
        if (range_is_memory(&range))
            b.range[b.count++] = range;
    }
    return b;
}

static void tell_vcpus(struct phys_map *map, struct before *before, uint64_t gpa, uint64_t size)
{
    for (unsigned i = 0; i < MMU_MAX_CPUS; i++)
        if (atomic_load(&map->cpus[i]))
            mail_flush(map, i);
    for (unsigned i = 0; i < before->count; i++) {
        struct phys_range *old = &before->range[i];
        uint64_t start = old->start > gpa ? old->start : gpa;
        uint64_t end = old->end < gpa + size ? old->end : gpa + size;
        code_moved(map, old, start, end);
    }
}

static bool grow_regions(struct phys_map *map)
{
    if (map->region_count < map->region_room)
        return true;
    unsigned room = map->region_room ? 2 * map->region_room : 32;
    struct region **more = realloc(map->regions, room * sizeof *more);
    if (!more)
        return false;
    map->regions = more;
    map->region_room = room;
    return true;
}

static int free_handle(const struct phys_map *map)
{
    for (unsigned i = 0; i < map->region_count; i++)
        if (!map->regions[i])
            return (int)i;
    return (int)map->region_count;
}

/* Puts a region in and publishes. Called with map->lock held. Returns the handle or -1. */
static int insert_locked(struct phys_map *map, const struct region *region)
{
    struct region *copy = malloc(sizeof *copy);
    if (!copy || !grow_regions(map)) {
        free(copy);
        return -1;
    }
    *copy = *region;
    copy->order = map->next_order++;
    int handle = free_handle(map);
    map->regions[handle] = copy;
    if (handle == (int)map->region_count)
        map->region_count++;
    if (publish_locked(map))
        return handle;
    map->regions[handle] = NULL;
    free(copy);
    return -1;
}

static int add_region(struct phys_map *map, const struct region *region, struct error *err)
{
    if (region->size == 0 || region->gpa + region->size < region->gpa) {
        error_set(err, "memory region %s: size %#llx at %#llx is empty or wraps", region->name,
                  (unsigned long long)region->size, (unsigned long long)region->gpa);
        return -1;
    }
    pthread_mutex_lock(&map->lock);
    struct before before = ranges_of(map, region->gpa, region->size);
    int handle = insert_locked(map, region);
    if (handle >= 0)
        tell_vcpus(map, &before, region->gpa, region->size);
    pthread_mutex_unlock(&map->lock);
    free(before.range);
    if (handle < 0)
        error_set(err, "memory region %s: out of host memory", region->name);
    else if (LOG_ON(map->log, LOG_PAGE))
        phys_dump(map, map->log->out);
    return handle;
}

static bool check_pages(uint64_t gpa, uint64_t size, const char *name, struct error *err)
{
    if ((gpa | size) & ~PAGE_MASK)
        return error_set(err, "memory region %s: %#llx bytes at %#llx are not whole pages", name,
                         (unsigned long long)size, (unsigned long long)gpa);
    return true;
}

int phys_add_memory(struct phys_map *map, const struct phys_memory *m, struct error *err)
{
    if (!check_pages(m->gpa | m->offset, m->size, m->name, err))
        return -1;
    if (m->offset > m->block->size || m->size > m->block->size - m->offset) {
        error_set(err, "memory region %s reaches beyond its block", m->name);
        return -1;
    }
    const struct region r = {.gpa = m->gpa,
                             .size = m->size,
                             .kind = m->block->kind,
                             .name = m->name,
                             .block = m->block,
                             .ram_offset = m->offset,
                             .ops = m->block->kind == REGION_ROM ? m->rom_ops : NULL,
                             .opaque = m->opaque,
                             .hidden = m->hidden};
    return add_region(map, &r, err);
}

int phys_map_block(struct phys_map *map, uint64_t gpa, uint64_t size, struct ram_block *block,
                   uint64_t offset, const char *name, struct error *err)
{
    const struct phys_memory memory = {
        .gpa = gpa, .size = size, .block = block, .offset = offset, .name = name};
    return phys_add_memory(map, &memory, err);
}

bool phys_add_ram(struct phys_map *map, uint64_t gpa, uint64_t size, struct ram_block *block,
                  uint64_t ram_offset, const char *name, struct error *err)
{
    return phys_map_block(map, gpa, size, block, ram_offset, name, err) >= 0;
}

int phys_add_mmio(struct phys_map *map, uint64_t gpa, uint64_t size, const struct io_ops *ops,
                  void *opaque, const char *name, struct error *err)
{
    const struct region r = {
        .gpa = gpa, .size = size, .kind = REGION_MMIO, .name = name, .ops = ops, .opaque = opaque};
    return add_region(map, &r, err);
}

/* ---- Switches -------------------------------------------------------------------------------- */

/* A store that has been let through already may still land: as on a board, where it was posted. */
static void set_read_only(const struct region *region, bool read_only)
{
    struct frame *frame = &region->block->frames[region->ram_offset >> PAGE_SHIFT];
    for (uint64_t i = 0; i < region->size >> PAGE_SHIFT; i++)
        if (read_only)
            atomic_fetch_or(&frame[i].attr, FRAME_ROM);
        else
            atomic_fetch_and(&frame[i].attr, ~(uint32_t)FRAME_ROM);
}

/* Takes what a region is to be, gives what it was. */
static void exchange_switch(struct phys_map *map, struct phys_switch *s)
{
    struct region *region = map->regions[s->handle];
    const struct phys_switch was = {s->handle, !region->hidden, region->read_only};
    region->hidden = !s->visible;
    if (region->kind == REGION_RAM && region->read_only != s->read_only) {
        region->read_only = s->read_only;
        set_read_only(region, s->read_only);
    }
    *s = was;
}

bool phys_switch(struct phys_map *map, struct phys_switch *switches, unsigned count)
{
    uint64_t lo = UINT64_MAX, hi = 0;
    pthread_mutex_lock(&map->lock);
    for (unsigned i = 0; i < count; i++) {
        const struct region *region = map->regions[switches[i].handle];
        lo = region->gpa < lo ? region->gpa : lo;
        hi = region->gpa + region->size > hi ? region->gpa + region->size : hi;
    }
    struct before before = ranges_of(map, lo, hi - lo);
    for (unsigned i = 0; i < count; i++)
        exchange_switch(map, &switches[i]);
    bool ok = before.range && publish_locked(map);
    if (ok)
        tell_vcpus(map, &before, lo, hi - lo);
    for (unsigned i = 0; i < count && !ok; i++)
        exchange_switch(map, &switches[i]);
    pthread_mutex_unlock(&map->lock);
    free(before.range);
    if (ok && LOG_ON(map->log, LOG_PAGE))
        phys_dump(map, map->log->out);
    return ok;
}

/* The machine lock keeps the region alive for whoever is inside one of its callbacks. When there is
 * no memory for a new table the region stays: harmless, and the guest cannot tell. */
void phys_remove(struct phys_map *map, int handle)
{
    pthread_mutex_lock(map->machine_lock);
    pthread_mutex_lock(&map->lock);
    struct region *region =
        handle >= 0 && handle < (int)map->region_count ? map->regions[handle] : NULL;
    if (region) {
        struct before before = ranges_of(map, region->gpa, region->size);
        map->regions[handle] = NULL;
        if (publish_locked(map)) {
            tell_vcpus(map, &before, region->gpa, region->size);
            free(region);
        } else {
            map->regions[handle] = region;
        }
        free(before.range);
    }
    pthread_mutex_unlock(&map->lock);
    pthread_mutex_unlock(map->machine_lock);
    if (region && LOG_ON(map->log, LOG_PAGE))
        phys_dump(map, map->log->out);
}

/* ---- Life ----------------------------------------------------------------------------------- */

struct phys_map *phys_new(pthread_mutex_t *machine_lock, struct log *log)
{
    struct phys_map *map = calloc(1, sizeof *map);
    struct flat_table *table = calloc(1, sizeof *table + 64 * sizeof table->range[0]);
    if (!map || !table || !(map->ahead = ahead_new())) {
        free(map);
        free(table);
        return NULL;
    }
    table->capacity = 64;
    atomic_init(&map->table, table);
    map->machine_lock = machine_lock;
    map->quiet.out = stderr;
    map->log = log ? log : &map->quiet;
    pthread_mutex_init(&map->lock, NULL);
    pthread_mutex_init(&map->loan_lock, NULL);
    pthread_cond_init(&map->loan_ended, NULL);
    return map;
}

void phys_free(struct phys_map *map)
{
    if (!map)
        return;
    struct flat_table *table = atomic_load(&map->table);
    while (table) {
        struct flat_table *older = table->older;
        free(table);
        table = older;
    }
    struct ram_block *block = atomic_load(&map->blocks);
    while (block) {
        struct ram_block *next = block->next;
        ram_block_free(map, block);
        block = next;
    }
    for (unsigned i = 0; i < map->region_count; i++)
        free(map->regions[i]);
    free(map->regions);
    ahead_free(map->ahead);
    pthread_mutex_destroy(&map->lock);
    pthread_mutex_destroy(&map->loan_lock);
    pthread_cond_destroy(&map->loan_ended);
    free(map);
}

struct ahead *phys_ahead(struct phys_map *map)
{
    return map->ahead;
}

void phys_dump(struct phys_map *map, FILE *out)
{
    static const char *const kinds[] = {"ram ", "rom ", "mmio"};
    pthread_mutex_lock(&map->lock);
    struct flat_table *table = atomic_load(&map->table);
    unsigned count = atomic_load(&table->count);
    for (unsigned i = 0; i < count; i++) {
        struct phys_range r = PHYS_RANGE_INIT;
        copy_range(&table->range[i], &r);
        fprintf(out, "%016llx-%016llx %s %s\n", (unsigned long long)r.start,
                (unsigned long long)(r.end - 1), kinds[r.kind], r.region->name);
    }
    pthread_mutex_unlock(&map->lock);
}
