/*
 * cache.c - where regions are kept: memory, finding, linking, invalidating (jit.h).
 *
 * Code is written through one mapping of a memfd and runs in another: no page is ever writable and
 * executable through one mapping.
 */
#include "cpu/interp/block.h"
#include "cpu/jit/build.h"
#include "cpu/jit/profile.h"
#include "internal/ahead.h"
#include "internal/error.h"
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- Memory ---------------------------------------------------------------------------------- */

void *jit_data(struct jit *jit, size_t size)
{
    void *p = jit->data + jit->data_used;
    jit->data_used = (jit->data_used + size + DATA_ALIGN - 1) & ~(size_t)(DATA_ALIGN - 1);
    if (jit->data_used > jit->data_size)
        abort(); /* nobody has made room: memory would be overwritten */
    return p;
}

void jit_data_trim(struct jit *jit, const void *end)
{
    jit->data_used = (size_t)((const uint8_t *)end - jit->data);
    jit_data(jit, 0); /* aligns it */
}

static void flush(struct jit *jit);

static void empty_zones(struct jit *jit)
{
    jit->body.used = jit->body.begin;
    jit->body.end = jit->cold.begin = jit->cold.used = jit->code_size / 2;
    jit->cold.end = jit->code_size;
    jit->data_used = DATA_ALIGN; /* 0 is nothing's (struct jit_place) */
}

/* The host gives memory page by page as it is touched, at the price of an exception each time, two
 * for code, which has two mappings: it is asked for before (ahead.h). Returns how many bytes behind
 * *asked are to be asked for now. */
static size_t ask_now(size_t *asked, size_t begin, size_t used, size_t end)
{
    enum { STEP = 512 * 1024, SOON = 1024 * 1024 };
    if (*asked < begin)
        *asked = begin & PAGE_MASK;
    if (used + SOON <= *asked || *asked >= end)
        return 0;
    return STEP < end - *asked ? STEP : end - *asked;
}

static void ask_zone(struct jit *jit, struct jit_zone *z)
{
    struct ahead *ahead = phys_ahead(jit->cpu->map);
    for (size_t n; (n = ask_now(&z->asked, z->begin, z->used, z->end)); z->asked += n) {
        ahead_ask(ahead, jit->code_write + z->asked, n, AHEAD_WRITE_SOON);
        ahead_ask(ahead, jit->code + z->asked, n, AHEAD_READ_SOON);
    }
}

static void ask_data(struct jit *jit)
{
    struct ahead *ahead = phys_ahead(jit->cpu->map);
    for (size_t n; (n = ask_now(&jit->data_asked, 0, jit->data_used, jit->data_size));
         jit->data_asked += n)
        ahead_ask(ahead, jit->data + jit->data_asked, n, AHEAD_WRITE_SOON);
}

void jit_make_room(struct jit *jit)
{
    enum { REGION_MAX_DATA = 160 * 1024 };
    ask_zone(jit, &jit->body);
    ask_zone(jit, &jit->cold);
    ask_data(jit);
    if (jit->body.used + REGION_MAX_CODE > jit->body.end ||
        jit->cold.used + REGION_MAX_CODE > jit->cold.end ||
        jit->data_used + REGION_MAX_DATA > jit->data_size)
        flush(jit);
}

/* Of struct cpu, with an inaccessible page behind it. */
enum { CPU_BYTES = ((sizeof(struct cpu) + PAGE_SIZE - 1) & ~(size_t)(PAGE_SIZE - 1)) + PAGE_SIZE };

struct cpu *jit_cpu_new(uint64_t cache_size)
{
    cache_size &= PAGE_MASK;
    struct cpu *cpu = mmap(NULL, CPU_BYTES + cache_size, PROT_NONE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cpu == MAP_FAILED)
        return NULL;
    if (mprotect(cpu, CPU_BYTES - PAGE_SIZE, PROT_READ | PROT_WRITE) != 0) {
        munmap(cpu, CPU_BYTES + cache_size);
        return NULL;
    }
    cpu->jit_room = cache_size;
    return cpu;
}

void jit_cpu_free(struct cpu *cpu)
{
    munmap(cpu, CPU_BYTES + cpu->jit_room);
}

/* Takes the room behind struct cpu. */
static bool map_code(struct jit *jit, struct error *err)
{
    size_t total = jit->code_size + jit->data_size;
    uint8_t *both = (uint8_t *)jit->cpu + CPU_BYTES;
    int fd = memfd_create("bailey-jit", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)jit->code_size) != 0)
        goto fail;
    jit->code = both;
    jit->data = both + jit->code_size;
    void *run = mmap(both, jit->code_size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
    void *data = mmap(jit->data, jit->data_size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    void *write = mmap(NULL, jit->code_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (run == MAP_FAILED || data == MAP_FAILED || write == MAP_FAILED)
        goto fail;
    jit->code_write = write;
    jit->cpu->jit_room -= total;
    close(fd);
    return true;
fail:
    jit->code = NULL;
    error_set(err,
              "no executable memory for translated code: %s (-accel interp needs none; a security "
              "policy that forbids it must exempt this program)",
              strerror(errno));
    if (fd >= 0)
        close(fd);
    return false;
}

/* ---- Finding --------------------------------------------------------------------------------- */

static struct jit_frame **frame_chain(struct jit *jit, uint64_t gpa)
{
    uint64_t h = (gpa >> PAGE_SHIFT) * 0x9e3779b97f4a7c15ull;
    return &jit->frames[h >> 40 & (REGION_FRAMES - 1)];
}

/* Mostly that of the last time. */
static struct jit_frame *frame_find(struct jit *jit, uint64_t gpa)
{
    struct jit_frame *f = jit->last;
    if (f && f->gpa == (gpa & PAGE_MASK))
        return f;
    f = *frame_chain(jit, gpa);
    while (f && f->gpa != (gpa & PAGE_MASK))
        f = f->next;
    if (f)
        jit->last = f;
    return f;
}

static struct jit_place *new_places(struct jit *jit, unsigned count)
{
    struct jit_place *place = jit_data(jit, count * sizeof *place);
    for (unsigned i = 0; i < count; i++)
        place[i].off = PLACE_FREE;
    return place;
}

static struct jit_frame *frame_add(struct jit *jit, uint64_t gpa)
{
    struct jit_frame *f = frame_find(jit, gpa), **chain = frame_chain(jit, gpa);
    if (f)
        return f;
    f = jit_data(jit, sizeof *f);
    *f = (struct jit_frame){.gpa = gpa & PAGE_MASK,
                            .next = *chain,
                            .place = new_places(jit, PLACES_FIRST),
                            .slack = UINT32_MAX,
                            .shift = PLACES_FIRST_SHIFT};
    return *chain = f;
}

/* That of the offset, or where it would be. */
static struct jit_place *place_slot(const struct jit_frame *f, unsigned off)
{
    unsigned mask = (unsigned)(PAGE_SIZE >> f->shift) - 1;
    unsigned i = off >> (f->shift < PLACES_STEP ? f->shift : PLACES_STEP) & mask;
    while (f->place[i].off != off && f->place[i].off != PLACE_FREE)
        i = (i + 1) & mask;
    return &f->place[i];
}

/* Twice as many; the memory of the others is not missed. */
static void grow(struct jit *jit, struct jit_frame *f)
{
    const struct jit_place *old = f->place;
    unsigned count = PAGE_SIZE >> f->shift--;
    f->place = new_places(jit, 2 * count);
    for (unsigned i = 0; i < count; i++)
        if (old[i].off != PLACE_FREE)
            *place_slot(f, old[i].off) = old[i];
}

struct jit_place *jit_place_find(struct jit *jit, uint64_t gpa)
{
    const struct jit_frame *f = frame_find(jit, gpa);
    struct jit_place *place = f ? place_slot(f, gpa & ~PAGE_MASK) : NULL;
    return place && place->off != PLACE_FREE ? place : NULL;
}

struct jit_place *jit_place_add(struct jit *jit, uint64_t gpa)
{
    struct jit_frame *f = frame_add(jit, gpa);
    struct jit_place *place = place_slot(f, gpa & ~PAGE_MASK);
    if (place->off != PLACE_FREE)
        return place;
    if (f->shift && ++f->places > (PAGE_SIZE >> f->shift) / 2) {
        grow(jit, f);
        place = place_slot(f, gpa & ~PAGE_MASK);
    }
    *place = (struct jit_place){.off = gpa & ~PAGE_MASK};
    return place;
}

static struct jit_region *first_region(struct jit *jit, const struct jit_place *place)
{
    return place->regions ? (struct jit_region *)(jit->data + (size_t)place->regions * DATA_ALIGN)
                          : NULL;
}

static void set_first_region(struct jit *jit, struct jit_place *place,
                             const struct jit_region *region)
{
    place->regions =
        region ? (uint32_t)((size_t)((const uint8_t *)region - jit->data) / DATA_ALIGN) : 0;
}

static struct jit_region *region_of_mode(struct jit *jit, const struct jit_place *place,
                                         uint32_t mode)
{
    struct jit_region *r = first_region(jit, place);
    while (r && r->mode != mode)
        r = r->place_next;
    return r;
}

struct jit_region *jit_place_region(struct jit *jit, const struct jit_place *place, uint32_t mode)
{
    struct jit_region *r = region_of_mode(jit, place, mode);
    return r && !r->stale ? r : NULL;
}

const struct jit_region *jit_place_stale(struct jit *jit, uint64_t gpa, uint32_t mode)
{
    const struct jit_place *place = jit_place_find(jit, gpa);
    const struct jit_region *r = place ? region_of_mode(jit, place, mode) : NULL;
    return r && r->stale ? r : NULL;
}

bool jit_has_frame(const struct cpu *cpu, uint64_t gpa)
{
    struct jit_frame *f = cpu->jit ? frame_find(cpu->jit, gpa) : NULL;
    return f && f->regions;
}

struct jit_pcs *jit_pcs_seek(struct jit *jit, uint32_t mode)
{
    struct jit_pcs *oldest = jit->pcs;
    jit->pcs_asked++;
    for (unsigned i = 0; i < JIT_PC_TABLES; i++) {
        struct jit_pcs *pcs = &jit->pcs[i];
        if (pcs->mode == mode) {
            pcs->used_at = jit->pcs_asked;
            return *jit_recent(jit, mode) = pcs;
        }
        if (pcs->used_at < oldest->used_at)
            oldest = pcs;
    }
    memset(oldest->entry, 0x80, sizeof oldest->entry); /* no address, since not canonical */
    oldest->mode = mode;
    oldest->used_at = jit->pcs_asked;
    return *jit_recent(jit, mode) = oldest;
}

/* ---- Linking --------------------------------------------------------------------------------- */

/* IRET is a serialising instruction (SDM vol. 3, 8.3) that no hypervisor intercepts. */
void jit_serialise(void)
{
    __asm__ volatile("mov %%rsp, %%rax\n\t"
                     "lea -128(%%rsp), %%rsp\n\t" /* below what the compiler may use */
                     "mov %%ss, %%ecx\n\t"
                     "push %%rcx\n\t"
                     "push %%rax\n\t"
                     "pushfq\n\t"
                     "mov %%cs, %%ecx\n\t"
                     "push %%rcx\n\t"
                     "lea 1f(%%rip), %%rcx\n\t"
                     "push %%rcx\n\t"
                     "iretq\n"
                     "1:"
                     :
                     :
                     : "rax", "rcx", "memory", "cc");
}

static uint8_t *written(const struct jit *jit, const uint8_t *running)
{
    return jit->code_write + (running - jit->code);
}

/* What is at `from` becomes a jump: it is at least that long. */
static void redirect(struct jit *jit, const uint8_t *from, const uint8_t *to)
{
    uint8_t *at = written(jit, from);
    int32_t d = (int32_t)(to - (from + 5));
    at[0] = 0xe9;
    memcpy(at + 1, &d, 4);
}

void jit_link(struct jit *jit, struct jit_edge *edge, const struct jit_region *to)
{
    emit_patch32(edge->patch, jit->code - jit->code_write, edge->host ? to->entry_host : to->entry);
    jit_serialise();
    jit->counters.links++;
}

static void insert_in_frame(struct jit *jit, struct jit_region *region)
{
    struct jit_frame *f = frame_add(jit, region->gpa);
    region->frame = f;
    f->reach = region->reach > f->reach ? region->reach : f->reach;
    region->frame_next = f->regions;
    f->regions = region;
}

void jit_insert(struct jit *jit, struct jit_region *region)
{
    struct jit_place *place = jit_place_add(jit, region->gpa);
    struct jit_region *first = first_region(jit, place);
    for (struct jit_region **p = &first; *p; p = &(*p)->place_next)
        if ((*p)->mode == region->mode) {
            redirect(jit, (*p)->entry, region->entry); /* whoever still goes there comes here */
            redirect(jit, (*p)->entry_host, region->entry_host);
            jit_serialise();
            *p = (*p)->place_next;
            break;
        }
    region->place_next = first;
    set_first_region(jit, place, region);
    insert_in_frame(jit, region);
    if (region->tail)
        insert_in_frame(jit, region->tail);
}

/* ---- Invalidation ---------------------------------------------------------------------------- */

/* It may stay in the list of its frame, as one that crosses the page's end does in one of the two.
 */
void jit_make_stale(struct jit *jit, struct jit_region *r)
{
    if (r->stale)
        return;
    r->stale = true;
    redirect(jit, r->entry, r->stale_exit);
    redirect(jit, r->entry_host, r->stale_exit_host);
    jit_serialise();
    jit->counters.stale++;
}

static void stale_in_frame(struct jit *jit, struct jit_frame *f, uint64_t gpa, uint64_t len)
{
    for (struct jit_region **p = &f->regions; *p;) {
        struct jit_region *r = *p;
        uint64_t begin = f->gpa + r->lo;
        if (begin >= gpa + len || gpa >= begin + r->len) {
            p = &r->frame_next;
            continue;
        }
        *p = r->frame_next;
        jit_make_stale(jit, r->head ? r->head : r);
    }
    if (!f->regions && !f->queued) {
        f->queued = true;
        f->next_empty = jit->empty;
        jit->empty = f;
    }
}

void jit_sweep(struct jit *jit)
{
    struct jit_frame *f = jit->empty;
    jit->empty = NULL;
    for (; f; f = f->next_empty) {
        f->queued = false;
        if (!f->regions && !block_has_frame(jit->cpu, f->gpa))
            mmu_code_gone(&jit->cpu->mmu, f->gpa);
    }
}

void jit_code_stale(struct cpu *cpu, uint64_t gpa, uint64_t len)
{
    struct jit *jit = cpu->jit;
    if (!jit)
        return;
    if (len > PAGE_SIZE * REGION_FRAMES) { /* more pages than there are chains: go by these */
        for (unsigned i = 0; i < REGION_FRAMES; i++)
            for (struct jit_frame *f = jit->frames[i]; f; f = f->next)
                stale_in_frame(jit, f, gpa, len);
        return;
    }
    for (uint64_t page = gpa & PAGE_MASK; page < gpa + len; page += PAGE_SIZE) {
        struct jit_frame *f = frame_find(jit, page);
        if (f)
            stale_in_frame(jit, f, gpa, len);
    }
}

/* Everything goes; no region is running. */
static void flush(struct jit *jit)
{
    profile_flush(jit);
    for (unsigned i = 0; i < REGION_FRAMES; i++) {
        struct jit_frame *f = jit->frames[i];
        jit->frames[i] = NULL;
        for (; f; f = f->next)
            if ((f->regions || f->queued) && !block_has_frame(jit->cpu, f->gpa))
                mmu_code_gone(&jit->cpu->mmu, f->gpa);
    }
    jit->empty = jit->last = NULL;
    for (unsigned i = 0; i < JIT_PC_TABLES; i++)
        jit->pcs[i].mode = 0;
    empty_zones(jit);
    jit->counters.flushes++;
    jit_serialise();
}

/* ---- The end of the address space --------------------------------------------------------------
 *
 * A near branch to an address that is not canonical raises #GP at the branch (SDM vol. 2, JMP,
 * CALL, Jcc), and no edge looks at that. A region may run at many addresses, and jumps in its page
 * are made without asking: so it is asked when one comes to the page, of all regions there
 * together. Libraries and the vDSO often lie in the last gigabytes before the hole.
 */

bool jit_outreaches(struct jit *jit, const struct jit_region *region)
{
    const struct jit_frame *f = frame_find(jit, region->gpa);
    if (!f || region->reach <= f->slack)
        return false;
    flush(jit);
    return true;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static void ask_host(struct jit *jit)
{
    unsigned a, b, c, d;
    jit->host_avx = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_OSXSAVE) && (c & bit_AVX);
    jit->host_bmi2 = jit->host_avx && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_BMI2);
}

bool jit_init(struct cpu *cpu, uint64_t cache_size, uint8_t hot, bool lockstep, struct error *err)
{
    struct jit *jit = aligned_alloc(alignof(struct jit), sizeof *jit);
    if (!jit)
        return error_set(err, "no memory for the translator");
    memset(jit, 0, sizeof *jit);
    jit->cpu = cpu;
    jit->hot = hot;
    ask_host(jit);
    jit->data_size = (cache_size / 2) & PAGE_MASK;
    jit->code_size = (cache_size - jit->data_size) & PAGE_MASK;
    jit->pcs = aligned_alloc(64, JIT_PC_TABLES * sizeof *jit->pcs);
    jit->build = malloc(sizeof *jit->build);
    if (!jit->pcs || !jit->build || !jit_rows_init(jit) || (lockstep && !lockstep_init(jit))) {
        error_set(err, "no memory for the translator");
        goto fail;
    }
    if (!map_code(jit, err))
        goto fail;
    jit_build_init(jit->build);
    for (unsigned i = 0; i < JIT_PC_TABLES; i++)
        jit->pcs[i].mode = 0, jit->pcs[i].used_at = 0;
    for (unsigned i = 0; i < JIT_RECENT; i++)
        jit->recent[i] = jit->pcs;
    jit_make_thunks(jit);
    empty_zones(jit);
    cpu->jx.self = cpu;
    cpu->jx.vec_home = cpu->jx.x87_home = 1;
    cpu->jit = jit;
    return true;
fail:
    free(jit->lockstep);
    free(jit->rows);
    free(jit->build);
    free(jit->pcs);
    free(jit);
    return false;
}

void jit_fini(struct cpu *cpu)
{
    struct jit *jit = cpu->jit;
    if (!jit)
        return;
    ahead_forget(phys_ahead(cpu->map), jit->code, jit->code_size + jit->data_size);
    ahead_forget(phys_ahead(cpu->map), jit->code_write, jit->code_size);
    munmap(jit->code, jit->code_size + jit->data_size);
    munmap(jit->code_write, jit->code_size);
    free(jit->lockstep);
    free(jit->rows);
    free(jit->build);
    free(jit->pcs);
    free(jit);
    cpu->jit = NULL;
}
