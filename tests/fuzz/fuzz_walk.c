/*
 * fuzz_walk.c - the walk and the views on arbitrary page tables in a small RAM, with MMIO and a
 * hole.
 *
 * The input is a script: paging registers, then commands that store anywhere (tables included),
 * access, invalidate, switch and trace. Whatever it says, a walk's record must agree with itself, a
 * fill must never show host memory outside guest RAM, and nothing may hang. AddressSanitizer
 * watches the rest.
 */
#include "internal/mmu.h"
#include "tests/fuzz/script.h"
#include <stdlib.h>
#include <string.h>

enum { RAM = 64 << 10, STEPS = 400 };

/* ---- The machine -------------------------------------------------------------------------------
 */

struct machine {
    pthread_mutex_t lock;
    struct phys_map *map;
    struct ram_block *ram;
    struct mmu_cpu mmu;
};

static uint64_t chip_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)opaque, (void)access;
    return offset * 0x0101010101010101ull + size;
}
static const struct io_ops chip = {chip_read, NULL, 4, 4};

static void machine_init(struct machine *m)
{
    struct mmu_cpu_hooks hooks = {0};
    struct error *none = NULL;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&m->lock, &attr);
    m->map = phys_new(&m->lock, NULL);
    m->ram = phys_ram_new(m->map, RAM, none);
    require(phys_add_ram(m->map, 0, RAM, m->ram, 0, "ram", none));
    require(phys_add_mmio(m->map, 0x9080, 0x100, &chip, NULL, "chip", none) >= 0);
    require(mmu_cpu_init(&m->mmu, m->map, NULL, 0, &hooks, NULL, none));
}

static void machine_free(struct machine *m)
{
    mmu_cpu_fini(&m->mmu);
    phys_free(m->map);
    pthread_mutex_destroy(&m->lock);
}

/* Only what MOV to a control register would accept; the bits are the manual's. */
static struct paging random_paging(struct script *s)
{
    struct paging p = {.cr0 = 0x11, .maxphyaddr = 32, .a20 = true};
    unsigned bits = (unsigned)take(s, 3);
    p.cr0 |= bits & 15 ? 1u << 31 : 0;
    p.cr0 |= bits & 16 ? 1u << 16 : 0;
    p.cr4 =
        (bits >> 5 & 1) << 4 | (bits >> 6 & 1) << 5 | (bits >> 7 & 1) << 7 | (bits >> 8 & 7) << 20;
    p.maxphyaddr = (uint8_t)(32 + (bits >> 16 & 15) + (bits >> 20 & 3));
    p.nx = true;
    p.gib_pages = bits >> 11 & 1;
    p.a20 = (bits & 0x7000) != 0;
    p.efer = bits >> 15 & 1 ? 1 << 11 : 0;
    if (p.cr4 & (1 << 5) && bits & 0x1000) {
        p.efer |= 1 << 10; /* 4-level */
        p.cr4 |= bits & 0x2000 ? 1 << 17 : 0;
    } else {
        p.cr4 &= ~(1ull << 22);
    }
    p.cr3 = take(s, 2) & 0xfff8;
    p.pkru = (uint32_t)take(s, 1) * 0x01010101u;
    for (unsigned i = 0; i < 4; i++)
        p.pdpte[i] = take(s, 2) & 0xf001;
    return p;
}

/* ---- What must hold -------------------------------------------------------------------------- */

static void check_walk(const struct paging *p, const struct walk *w, bool ok, enum access_kind kind,
                       enum mmu_priv priv)
{
    require(ok == (w->fault == WALK_OK));
    require(w->levels <= 4);
    for (unsigned i = 0; i < w->levels; i++) {
        require(w->level[i].size == 4 || w->level[i].size == 8);
        require((w->level[i].gpa & (w->level[i].size - 1u)) == 0);
        require(i == 0 || w->level[i].level == w->level[i - 1].level - 1);
        require(i + 1u == w->levels || (w->level[i].entry & 1));
    }
    require(p->a20 || !(w->gpa & 1 << 20));
    if (!ok) {
        require(w->levels > 0 && w->fault_level == w->level[w->levels - 1].level);
        require(!(w->error_code & 1) == (w->fault == WALK_NOT_PRESENT));
        require(!(w->error_code & 2) == (kind != ACCESS_WRITE));
        require(!(w->error_code & 4) == (priv != MMU_USER));
        require(!(w->error_code & 8) == (w->fault != WALK_RESERVED));
        return;
    }
    require(w->gpa < 1ull << 52);
    uint64_t page = 1ull << w->page_shift;
    if (p->a20)
        require(((w->gpa ^ w->gva) & (page - 1)) == 0);
    require(priv != MMU_USER || w->user);
    require(kind != ACCESS_EXEC || !w->nx);
    require(kind != ACCESS_WRITE || w->writable || (priv != MMU_USER && !(p->cr0 & 1 << 16)));
}

/* A host address that a fill gave out: inside RAM, and the byte that the guest address means. */
static void check_host(struct machine *m, const void *hva, uint64_t gpa)
{
    uint8_t *ram = phys_hva(m->map, 0, NULL);
    require((const uint8_t *)hva >= ram && (const uint8_t *)hva < ram + RAM);
    require((const uint8_t *)hva == ram + gpa);
    require(gpa >> 12 != 9); /* a chip lies over part of that page */
}

static void check_view_tables(struct machine *m)
{
    uint8_t *ram = phys_hva(m->map, 0, NULL);
    for (unsigned priv = 0; priv < MMU_PRIVS; priv++) {
        const struct view_fast *f = &m->mmu.fast[priv];
        for (uint64_t i = 0; i <= f->mask >> 5; i++) {
            const struct view_entry *e = &f->table[i];
            if (!view_tag_allows(e->tag_read, i) && !view_tag_allows(e->tag_write, i))
                continue;
            const uint8_t *host = e->page;
            uint64_t gva = view_tag_allows(e->tag_read, i) ? e->tag_read : e->tag_write;
            require((const uint8_t *)(uintptr_t)(gva + e->delta) == host);
            require(host >= ram && host + PAGE_SIZE <= ram + RAM);
        }
    }
}

/* ---- Commands -------------------------------------------------------------------------------- */

static uint64_t random_gva(struct machine *m, struct script *s)
{
    const struct paging *p = &m->mmu.paging;
    uint64_t gva = take(s, 1) << 12 | (take(s, 1) << 21 & 0xffffffff) | (take(s, 1) & 0xff8);
    if (!(p->efer & 1 << 10))
        return gva & 0xffffffff;
    gva |= take(s, 1) << 39;
    return (uint64_t)((int64_t)(gva << 16) >> 16);
}

static void one_access(struct machine *m, struct script *s, const struct access *access)
{
    uint64_t gva = random_gva(m, s), choice = take(s, 1);
    enum access_kind kind = 1u << choice % 3;
    enum mmu_priv priv = choice / 3 % MMU_PRIVS;
    struct mmu_xlat x;
    struct walk peek;
    bool ok = mmu_walk(m->map, &m->mmu.paging, access, gva, kind, priv, true, &peek);
    check_walk(&m->mmu.paging, &peek, ok, kind, priv);
    if (mmu_translate(&m->mmu, access, gva, kind, priv, &x) == MMU_FAULT) {
        check_walk(&m->mmu.paging, &x.walk, false, kind, priv);
        return;
    }
    if (x.hva)
        check_host(m, x.hva, x.gpa);
    void *hit = mmu_view_lookup(&m->mmu, priv, gva, 1, kind);
    require(kind == ACCESS_EXEC || hit == x.hva); /* fetches have no tag */
    uint64_t value = take(s, 4) * 0x1001;
    if (kind == ACCESS_WRITE && hit && !(gva & 7))
        memcpy(hit, &value, 8);
    else if (kind == ACCESS_WRITE)
        phys_write(m->map, access, x.gpa, &value, 8);
}

static void one_step(struct machine *m, struct script *s)
{
    struct access access = {.initiator = INITIATOR_VCPU_KERNEL};
    struct access dma = {.initiator = INITIATOR_DMA};
    struct paging p;
    uint64_t where, value;
    switch (take(s, 1) % 10) {
    case 0:
    case 1: /* a table entry: mostly present, pointing into RAM */
        where = take(s, 2) & 0xfff8;
        value = take(s, 2) | take(s, 1) << 12 | take(s, 1) << 36 | take(s, 1) << 56;
        phys_write(m->map, take(s, 1) & 1 ? &access : &dma, where, &value, 8);
        break;
    case 2:
        mmu_invlpg(&m->mmu, random_gva(m, s));
        break;
    case 3:
        mmu_invpcid(&m->mmu, take(s, 1) & 3, take(s, 1) & 3, random_gva(m, s));
        break;
    case 4:
    case 5:
        value = take(s, 1);
        p = m->mmu.paging;
        mmu_set_cr3(&m->mmu, (value << 12 & 0x7000) | (p.cr4 & 1 << 17 ? value >> 6 : 0), value & 8,
                    NULL);
        break;
    case 6:
        if (take(s, 1) < 16) {
            p = random_paging(s);
            mmu_paging_changed(&m->mmu, &p);
        }
        mmu_service(&m->mmu);
        break;
    case 7:
        mmu_code_added(&m->mmu, take(s, 2), 1 + take(s, 1));
        break;
    case 8:
        where = take(s, 2);
        if (where & 1)
            mmu_code_gone(&m->mmu, where);
        break;
    default:
        for (unsigned i = 0; i < 4; i++)
            one_access(m, s, &access);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data, data + size};
    struct machine m;
    machine_init(&m);
    struct paging p = random_paging(&s);
    mmu_paging_changed(&m.mmu, &p);
    for (unsigned i = 0; i < STEPS && s.at < s.end; i++)
        one_step(&m, &s);
    check_view_tables(&m);
    machine_free(&m);
    return 0;
}
