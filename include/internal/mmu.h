/*
 * mmu.h - virtual memory: the walk, the views (the shadow), and how they are kept exact.
 *
 * The walk (walk.c) reads the guest's page tables as SDM vol. 3, ch. 4 says and returns a record of
 * every step. A view (view.c) is what engines use: per vCPU, per address space and per privilege
 * index, a hashed table from guest virtual page to host address with separate read, write and
 * fetch validity, derived from the walk and from the frame's attributes. An engine's fast path is
 * mmu_view_lookup(); everything else is mmu_translate().
 */
#ifndef INTERNAL_MMU_H
#define INTERNAL_MMU_H

#include "internal/access.h"
#include "internal/phys.h"
#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>

struct exclusive;

/* ---- What the walk needs to know of the CPU ---------------------------------------------- */

/* Copies of the CPU's paging registers, always current: cpu/sys calls mmu_paging_changed() or
 * mmu_set_cr3() when it changes one. */
struct paging {
    uint64_t cr0, cr3, cr4, efer;
    uint32_t pkru;
    uint8_t maxphyaddr; /* CPUID 80000008h EAX[7:0] */
    bool nx, gib_pages; /* CPUID: NX, 1-GiB pages */
    bool a20;           /* the A20 line: false forces bit 20 of every vCPU address to 0 */
    uint64_t pdpte[4];  /* PAE: loaded by MOV CR3, not re-read by walks (SDM 4.4.1) */
};

/* A privilege index chooses the table of a view. */
enum mmu_priv {
    MMU_SUPERVISOR,    /* CPL < 3 with EFLAGS.AC = 0, and every implicit supervisor access */
    MMU_USER,          /* CPL = 3 */
    MMU_SUPERVISOR_AC, /* CPL < 3, explicit access with EFLAGS.AC = 1: SMAP lets it through */
    MMU_PRIVS
};

/* ---- The walk ------------------------------------------------------------------------------ */

enum walk_fault {
    WALK_OK = 0,
    WALK_NOT_PRESENT,
    WALK_RESERVED,
    WALK_WRITE,   /* R/W = 0 */
    WALK_USER,    /* U/S = 0 for a user access */
    WALK_NX,      /* XD = 1 for a fetch */
    WALK_SMEP,    /* supervisor fetch from a user page */
    WALK_SMAP,    /* supervisor data access to a user page */
    WALK_PKEY,    /* PKRU */
    WALK_REFUSED, /* a protection rule refused the walker its entry */
};

struct walk_level {
    uint64_t gpa;   /* of the entry */
    uint64_t entry; /* as read, before A/D were set */
    uint8_t level;  /* 4 = PML4E, 3 = PDPTE, 2 = PDE, 1 = PTE */
    uint8_t size;   /* of the entry: 4 or 8 */
};

struct walk {
    uint64_t gva, gpa;
    uint8_t levels; /* valid in `level`, root first; 0 with paging off */
    struct walk_level level[4];
    uint8_t page_shift;                     /* 12, 21, 22 or 30: source page; 12 with paging off */
    bool writable, user, nx, global, dirty; /* combined over the levels; dirty of the leaf */
    uint8_t pkey, pat;                      /* pat: PAT, PCD, PWT index of the leaf */
    enum walk_fault fault;                  /* which rule decided */
    uint8_t fault_level;                    /* at which level */
    uint32_t error_code;                    /* for #PF (SDM 4.7) */
};

/* Walks for one access. `kind` is one ACCESS_* bit (a read-modify-write walks as a write). Sets A
 * and D as the access requires, by compare-and-exchange, unless `peek` (debugger, dumps). Returns
 * true when the access may proceed. Canonicality is the caller's check. */
bool mmu_walk(struct phys_map *map, const struct paging *paging, const struct access *access,
              uint64_t gva, enum access_kind kind, enum mmu_priv priv, bool peek,
              struct walk *walk);

/* ---- Views --------------------------------------------------------------------------------- */

/* 32 bytes; generated code knows this layout. A tag is the page's address when the access kind is
 * valid by the fast path, else view_no_tag(). */
struct view_entry {
    uint64_t tag_read, tag_write;
    uint64_t delta; /* host address less guest address */
    void *page;     /* host address of the page */
};
_Static_assert(sizeof(struct view_entry) == 32, "generated code shifts by 5");
/* The tag for reads or for writes. */
static inline uint64_t view_tag(const struct view_entry *entry, enum access_kind kind)
{
    return kind & ACCESS_WRITE ? entry->tag_write : entry->tag_read;
}
/*
 * What a tag of slot `index` is when it allows nothing: the address of a page that belongs to the
 * slot next but one. An address that is looked up in this slot lies neither in that page nor just
 * before it, so that both ways of looking miss: comparing the page of the access's last byte with
 * the tag, and comparing the address less the tag with the size of a page. Tables have at least
 * four slots.
 */
static inline uint64_t view_no_tag(uint64_t index)
{
    return ((index & 3) ^ 2) << PAGE_SHIFT;
}
static inline bool view_tag_allows(uint64_t tag, uint64_t index)
{
    return (tag >> PAGE_SHIFT & 3) == (index & 3);
}

/* The part of a view's table that fast paths read: the current one of each privilege index lies in
 * struct mmu_cpu. `mask` is (entries - 1) << 5: ready to AND with (gva >> 7) for a byte offset. */
struct view_fast {
    struct view_entry *table;
    uint64_t mask;
};

/*
 * The page that accesses of one kind found last: what a register points to, it often points to
 * again. A copy of a view's entry, which goes when that goes. An access of up to VIEW_LAST_BYTES at
 * gva is at gva + delta when gva - page is below the limit for its size and kind, which is 0 where
 * it may not be made so. A limit for several sizes is that of the largest: so that what goes
 * through memory piece by piece fails at most once at the end of each page, there are three.
 */
enum view_last_size { VIEW_LAST_8, VIEW_LAST_2, VIEW_LAST_32, VIEW_LAST_SIZES };
enum { VIEW_LAST_BYTES = 32 };
struct view_last {
    uint64_t page, delta;
    uint64_t limit[VIEW_LAST_SIZES][2]; /* for reads, for writes */
};
_Static_assert(sizeof(struct view_last) == 64, "never in two cache lines");
static inline enum view_last_size view_last_size(unsigned size)
{
    return size <= 2 ? VIEW_LAST_2 : size <= 8 ? VIEW_LAST_8 : VIEW_LAST_32;
}
static inline uint64_t view_last_limit(enum view_last_size size)
{
    unsigned bytes = size == VIEW_LAST_2 ? 2 : size == VIEW_LAST_8 ? 8 : VIEW_LAST_BYTES;
    return PAGE_SIZE - bytes + 1;
}
/* How many of them there are for each privilege index; what each is for, generated code decides. */
enum { VIEW_LASTS = 28 };

struct mmu_cpu_private;

/* One vCPU's memory management. Owned by its thread; mail from others comes by mmu_service(). */
struct mmu_cpu {
    struct view_fast fast[MMU_PRIVS]; /* of the current address space; generated code reads these */
    /* A number that changes whenever any fetch permission that was valid in the current address
     * space may have become invalid, and when the address space changes (then to that space's own
     * number). Virtual-PC caches are tagged with it: equal number = same translations. */
    uint64_t exec_generation;
    /* The same for fetches from global pages, whatever the address space: it changes when one of
     * them may have become invalid, and stays when the address space changes. The two numbers are
     * never equal. */
    uint64_t global_generation;
    alignas(64) struct view_last last[VIEW_LASTS][MMU_PRIVS]; /* of the current address space */
    uint32_t last_used[MMU_PRIVS]; /* a bit for each that may have a limit other than 0 */
    /* How often a permission of the fast path has been taken away: host addresses that are kept are
     * good while it stays. */
    uint64_t taken;
    struct paging paging;
    struct phys_map *map;
    unsigned vcpu;
    struct mmu_cpu_private *priv;
};
_Static_assert(VIEW_LASTS <= 32, "a bit each");

/* Callbacks into the CPU, given once. */
struct mmu_cpu_hooks {
    void *cpu;
    /* Decoded or translated code in [gpa, gpa + len) of this CPU is stale. The page-aligned frame
     * is FRAME_CODE. Runs in the CPU's own thread, at a store of its own or in mmu_service(). */
    void (*code_stale)(void *cpu, uint64_t gpa, uint64_t len);
    /* Make this CPU call mmu_service() before its next block. Any thread. */
    void (*kick)(void *cpu);
};

bool mmu_cpu_init(struct mmu_cpu *mmu, struct phys_map *map, struct exclusive *exclusive,
                  unsigned vcpu, const struct mmu_cpu_hooks *hooks, struct log *log,
                  struct error *err);
void mmu_cpu_fini(struct mmu_cpu *mmu);

/* The fast path: the host address for an access of `size` bytes at gva, or NULL: call the slow
 * path. An access that crosses a page never hits, so that there is exactly one page to check. */
static inline void *mmu_view_lookup(const struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva,
                                    unsigned size, enum access_kind kind)
{
    if (kind == ACCESS_EXEC)
        return 0; /* fetches have no tag: mmu_view_code() */
    const struct view_fast *fast = &mmu->fast[priv];
    const struct view_entry *e =
        (const struct view_entry *)((char *)fast->table + ((gva >> (PAGE_SHIFT - 5)) & fast->mask));
    if (__builtin_expect(view_tag(e, kind) != ((gva + size - 1) & PAGE_MASK), 0))
        return 0;
    return (char *)e->page + (gva & ~PAGE_MASK);
}

/* Where the guest's tables have been found to allow this kind of access, and still do, the page of
 * gva gets its tag for it, as if such an access had been made: that a page has been read shows what
 * stores to it may do. No walk, so nothing that the guest sees. False: it has none, or not here. */
bool mmu_view_grant(struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva, enum access_kind kind);

/* The host address of the code at gva, up to the page's end, where fetches from it have been found
 * to be allowed and still are; NULL: nobody knows. */
const uint8_t *mmu_view_code(const struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva);

/* Where fetches from gva have been found to be allowed and still are: its guest-physical address,
 * and the number under which that holds on (mmu->exec_generation, or global_generation). False:
 * nobody knows. Changes nothing, and leaves the host's vector registers alone. */
bool mmu_fetch_known(const struct mmu_cpu *mmu, enum mmu_priv priv, uint64_t gva, uint64_t *gpa,
                     uint64_t *generation);

/* Is the k-th last page the one of gva, and an access of that size not too close to its end? It
 * need not hit: the view may lack the page, or the permission. */
static inline bool mmu_last_matches(const struct mmu_cpu *mmu, enum mmu_priv priv, unsigned k,
                                    uint64_t gva, unsigned size)
{
    return gva - mmu->last[k][priv].page < view_last_limit(view_last_size(size));
}
/* It becomes the page of gva; accesses hit if the view has that. */
void mmu_last_fill(struct mmu_cpu *mmu, enum mmu_priv priv, unsigned k, uint64_t gva);

enum mmu_result {
    MMU_OK,
    MMU_FAULT, /* walk.fault, walk.error_code: the caller raises #PF */
};

struct mmu_xlat {
    uint64_t gpa;
    /* Direct host address, when the access may be done there without phys_*: RAM (for writes: a
     * frame without FRAME_SLOW_WRITE). Else NULL: use phys_read()/phys_write() with gpa. */
    void *hva;
    bool ruled;  /* a protection rule may have a say in this kind of access to the frame, or follows
                    it as a page table: ask before it is made. hva is NULL then. */
    bool global; /* the translation is that of a global page */
    struct walk walk; /* always filled when the result is MMU_FAULT, and after a miss */
};

/* The slow path for one access inside one page: view lookup, else walk (A/D set), fill, result.
 * `gva` must be canonical (long mode) or below 4 GiB (else). After MMU_OK with hva the entry is in
 * the view, unless the page is watched. */
enum mmu_result mmu_translate(struct mmu_cpu *mmu, const struct access *access, uint64_t gva,
                              enum access_kind kind, enum mmu_priv priv, struct mmu_xlat *out);

/* MOV CR0/CR4/EFER/PKRU and the like: compares old with new and drops what SDM 4.10.4 says (and
 * what the views derive from: WP, SMEP, SMAP, NXE, PKE, PGE, PCIDE, PG, PAE ...). Sets fast[]. */
void mmu_paging_changed(struct mmu_cpu *mmu, const struct paging *paging);
/* MOV CR3 (value without bit 63, which is `no_flush`). With CR4.PCIDE = 0 non-global entries go,
 * unless every table frame behind them is traced and so already exact. PAE: pdpte[] must be loaded
 * into `pdpte` by the caller first (NULL otherwise). */
void mmu_set_cr3(struct mmu_cpu *mmu, uint64_t cr3, bool no_flush, const uint64_t pdpte[4]);
void mmu_invlpg(struct mmu_cpu *mmu, uint64_t gva);
/* INVPCID (SDM vol. 2): type 0 address, 1 single context, 2 all with globals, 3 all without. */
void mmu_invpcid(struct mmu_cpu *mmu, unsigned type, uint16_t pcid, uint64_t gva);
void mmu_flush_all(struct mmu_cpu *mmu); /* globals too */

/* Pages that overlap [lo, hi) of the linear address space never get fast entries: the data
 * breakpoints of DR0-DR3. count <= 4; replaces the previous list. */
struct mmu_range {
    uint64_t lo, hi;
};
void mmu_set_watch(struct mmu_cpu *mmu, const struct mmu_range *ranges, unsigned count);

/* ---- Code frames --------------------------------------------------------------------------- */

/* This CPU has decoded [gpa, gpa + len), inside one frame: from now on stores there, by anybody,
 * end in code_stale(). Revokes write permission of other vCPUs' views (exclusive section) the first
 * time, so the caller must be at a safepoint: what it looked up before may be gone.
 * Sub-page granules of 64 bytes keep data next to code fast enough. */
void mmu_code_added(struct mmu_cpu *mmu, uint64_t gpa, uint64_t len);
/* This CPU has no decoded code left in that frame. */
void mmu_code_gone(struct mmu_cpu *mmu, uint64_t frame_gpa);

/* Off: every lookup misses until it is turned on again, also when the views change meanwhile. */
void mmu_fast_paths(struct mmu_cpu *mmu, bool on);

/* Does what other threads asked of this vCPU (drops, code invalidation, trace hits). */
void mmu_service(struct mmu_cpu *mmu);
/* Its part about code, within an instruction that others may have been let in before: when the code
 * around it is stale by now, that instruction is the last one of its block. */
void mmu_service_code(struct mmu_cpu *mmu);

/* For tests: entries in any view of this vCPU that show the frame with any validity. */
unsigned mmu_count_entries_of_frame(struct mmu_cpu *mmu, uint64_t frame_gpa);

/* One list of counters, for `info` and the tests. */
#define MMU_COUNTERS(X)                                                                            \
    X(walks)                                                                                       \
    X(fills)                                                                                       \
    X(faults)                                                                                      \
    X(view_switches) X(views_made) X(views_evicted) X(invlpg) X(flushes) X(trace_hits)             \
        X(traced_frames) X(code_writes) X(code_stale) X(revokes) X(resizes) X(drop_steps)
struct mmu_counters {
#define X(name) uint64_t name;
    MMU_COUNTERS(X)
#undef X
};
const struct mmu_counters *mmu_counters(const struct mmu_cpu *mmu);

#endif
