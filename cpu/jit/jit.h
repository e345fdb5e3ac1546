/*
 * jit.h - the translator's data: regions, what they are made of, and the cache that holds them.
 *
 * A *region* is the translation of basic blocks in one guest-physical page for one mode: those that
 * its first instruction leads to and that have been met. It is entered at its beginning only, and
 * left by its *edges*: the ways out whose target is known, which are linked to other regions; by
 * indirect branches; and, before any instruction, to C. An instruction that crosses the page's end
 * is a region by itself: it checks, like an edge to another page, that the page behind is the same.
 * A *site* is an instruction that C can take over: on a view miss, a fault, a device, a store to
 * code. C then executes the whole instruction by the interpreter, and comes back behind it.
 *
 * One cache per vCPU, used by its thread only: nothing here is locked. A region that has become
 * stale keeps its memory, and its first instruction becomes a jump that leaves (or leads to the
 * region that took its place): so nobody who still points at it need be found. When the cache is
 * full, it is emptied as a whole.
 *
 *     cpu/jit/translate.c   one region: from decoded instructions to code
 *     cpu/jit/copy.c        copying an instruction with other registers and a host address
 *     cpu/jit/lookup.c      guest address -> host address, inline
 *     cpu/jit/last.c        the same, in the page that was found last
 *     cpu/jit/flags.c       where the arithmetic flags are
 *     cpu/jit/special.c     stack, division, DF
 *     cpu/jit/string.c      MOVS to SCAS, REP MOVS, REP STOS
 *     cpu/jit/bits.c        BT to BTC beyond their operand
 *     cpu/jit/system.c      system instructions in place
 *     cpu/jit/gates.c       SYSCALL, SYSRET, IRET: by C that leaves vectors alone
 *     cpu/jit/x87.c         x87 and MMX, by the host's registers
 *     cpu/jit/gather.c      gathers, by C that leaves vectors alone
 *     cpu/jit/branch.c      edges, calls, returns, indirect branches
 *     cpu/jit/cache.c       finding, linking, invalidating regions
 *     cpu/jit/thunk.c       into translated code and out of it
 *     cpu/jit/run.c         the engine's loop, and what C does for a site
 *     cpu/jit/profile.c     looking into all that
 */
#ifndef CPU_JIT_JIT_H
#define CPU_JIT_JIT_H

#include "cpu/jit/abi.h"
#include "cpu/jit/emit.h"
#include "internal/cpu.h"

enum {
    REGION_MAX_INSNS = 128,
    REGION_MAX_CODE = 128 * 1024, /* upper bound of one region's host code in each zone */
    REGION_FRAMES = 1 << 14,
    MARK_ENTRIES = 1 << 15,
    PLACES_FIRST = 16, /* a power of two; PLACES_FIRST_SHIFT says which part of a page */
    PLACES_FIRST_SHIFT = 8,
    PLACES_STEP = 3, /* log2 of the bytes for a place, unless there are more places than that */
    JIT_PCS = 1 << 16, /* most are never touched */
    INSN_MAX_BYTES = 15,
    JIT_PC_TABLES = 16,
    JIT_RECENT = 4,
};

/* Beyond MODE_*, a region's key says: MXCSR masks all exceptions (and MM is clear); the kernel has
 * AC set, so that it may touch user pages in spite of SMAP; the x87's control word masks all
 * exceptions. */
#define JIT_MODE_MASKED (1u << 31)
#define JIT_MODE_AC     (1u << 30)
#define JIT_MODE_X87    (1u << 29)

/* ---- Sites and edges ------------------------------------------------------------------------- */

/* How C finds the flags at a site: in cpu->jx.flags, or from what produced them. */
enum flags_from {
    FLAGS_MEMORY,
    FLAGS_ADD,   /* a = a + b was the last: a holds the result */
    FLAGS_SUB,   /* a = a - b */
    FLAGS_CMP,   /* a - b, no result */
    FLAGS_LOGIC, /* a is the result of AND, OR, XOR */
    FLAGS_TEST,  /* a & b, no result */
    FLAGS_UCOMI, /* a and b, of vectors, compared as UCOMISS and UCOMISD do */
};
/* Not a register: what a comparison has found in memory, or a register had that is lost, in
 * cpu->jx.kept. And vector registers. */
enum { REG_KEPT = REG_NONE + 1, REG_VECTOR = 32 };
/* In the high byte of cpu->jx.flags, whose bit 3 no stored flags have: see the description. */
enum { FLAGS_ELSEWHERE = 0xff };
struct flags_desc {
    uint8_t from : 4;   /* enum flags_from */
    uint8_t either : 1; /* if cpu->jx.flags says FLAGS_ELSEWHERE; else they are there */
    uint8_t size;       /* bytes: 1, 2, 4, 8 */
    uint8_t a, b;       /* guest registers, REG_KEPT, REG_VECTOR + n; b == REG_NONE: imm */
    int32_t imm;
};
/* What the flags can be computed from behind an instruction; `kept`: its operand in memory is in
 * cpu->jx.kept. .from == FLAGS_MEMORY: nothing. */
struct flags_desc flags_describe(const struct insn *insn, bool kept);

struct jit_region;

/* What C executes at a site. */
struct jit_ready {
    struct insn insn;
    const void *prepared; /* execute_insn() */
    bool move;            /* for move_execute() */
};

/* STAC and CLAC: where the code goes on in the other mode, and that mode's table of addresses. */
struct jit_switch {
    const void *code; /* NULL: not found yet */
    struct jit_pcs *pcs;
};

struct jit_site {
    struct jit_region *region;
    struct jit_ready *ready; /* NULL: has not been needed yet */
    struct flags_desc flags;
    uint16_t off; /* of the instruction, from the page's beginning */
    uint8_t len;
    bool branch : 1; /* no way back */
    bool keeps : 1; /* no way back without the operand in memory in jx.kept */
    /* There is no way back either if host addresses may have become wrong (held.c). */
    bool holds : 1;
    bool always : 1;   /* there is no translation: C executes it each time */
    bool switches : 1; /* a struct jit_switch lies behind it */
    /* Another site that C executes each time lies behind it, and that one's call behind its own. */
    bool chained : 1;
    /* Of addresses that it begins: index of cpu->jx.held[]; -1: none. A struct jit_group lies
     * behind it. */
    int8_t group;
};
_Static_assert(sizeof(struct jit_site) == 32, "there are a hundred thousands of them");

/* Of the code that has C execute an instruction always. */
enum { SITE_CALL_BYTES = 11 };

/* What a site that begins a group of accesses (held.c) has behind it. */
struct jit_group {
    const void *begun;    /* where the code goes on with the address in R10 */
    uint16_t span;        /* bytes */
    uint8_t kind;         /* enum access_kind */
    bool relative;        /* the address is host less guest address */
    bool in_loop;         /* the site is */
    bool rounds;          /* it covers accesses of several rounds of the loop */
    uint8_t times;        /* that it has failed to cover its accesses, */
    uint32_t since, page; /* since when, and where the last time (held.c) */
};
static inline struct jit_group *site_group(struct jit_site *site)
{
    return (struct jit_group *)(site + 1);
}

/* Of a site that switches: where to. */
static inline struct jit_switch *site_switch(struct jit_site *site)
{
    return (struct jit_switch *)(site + 1);
}

enum { DATA_ALIGN = 8 };

struct jit_edge {
    struct jit_region *region;
    uint8_t *patch; /* in-page: the displacement of the jump (written address) */
    int32_t target; /* from the page's beginning; may lie outside it */
    bool host;      /* in-page: flags are in EFLAGS on this way */
    /* The target of an edge to another page, as found last; for this page_va and generation (as in
     * struct jit_pc). In-page, there is no memory behind these. */
    uint64_t va, generation;
    const void *code;
    const struct jit_region *to; /* whose code that is; NULL: not found yet, or asked each time */
    const uint8_t *retry;        /* where the code looks at these */
};
enum { EDGE_IN_PAGE_BYTES = offsetof(struct jit_edge, va) };

/* ---- Regions --------------------------------------------------------------------------------- */

struct jit_frame;

/* An instruction in the page: where it begins, and how many bytes it has. */
struct jit_piece {
    uint16_t off : PAGE_SHIFT, len : 16 - PAGE_SHIFT;
};
_Static_assert(INSN_MAX_BYTES < 1 << (16 - PAGE_SHIFT), "len");

struct jit_region {
    uint64_t gpa;     /* of its first instruction */
    uint32_t mode;    /* jit_mode() */
    uint16_t lo, len; /* the part of the page that its instructions lie in */
    uint16_t count;   /* instructions */
    bool stale;
    uint32_t reach; /* where it leads to by itself is nearer to the page than this, in bytes */
    /* Running addresses: where it begins when flags are in cpu->jx.flags, and when they are in
     * EFLAGS; the same for leaving before the first instruction. */
    const uint8_t *entry, *entry_host;
    const uint8_t *stale_exit, *stale_exit_host;
    struct jit_region *place_next, *frame_next;
    struct jit_frame *frame;
    /* Of a region that crosses the page's end: what stands for it in the other page's frame, and
     * the other way round; and its check. */
    struct jit_region *tail, *head;
    struct jit_edge *cross;
    /* The instructions, and others that were looked at; behind them their bytes. */
    const struct jit_piece *piece;
    const uint8_t *bytes;
};

/* The physical address of an offset in the region's page. */
static inline uint64_t region_gpa(const struct jit_region *region, int64_t off)
{
    return (region->gpa & PAGE_MASK) + (uint64_t)off;
}

/* The guest code at an offset of the page, where one of the instructions is. */
static inline const uint8_t *region_code(const struct jit_region *region, unsigned off)
{
    const uint8_t *bytes = region->bytes;
    for (const struct jit_piece *p = region->piece; p->off != off; p++)
        bytes += p->len;
    return bytes;
}

/* An offset in a page where code has been met: how often, and what was made of it. */
struct jit_place {
    uint16_t off; /* PLACE_FREE: none */
    uint8_t heat;
    uint32_t regions; /* one for each mode; in units of DATA_ALIGN from jit->data on. 0: none */
};
enum { PLACE_FREE = PAGE_SIZE };

/* A guest page where code has been met. */
struct jit_frame {
    uint64_t gpa;
    struct jit_frame *next;
    /* Its places, PAGE_SIZE >> shift of them, half of which are free: that of an offset is at off
     * >> PLACES_STEP, modulo their number, or behind it. Neighbours share a cache line; and code
     * that lies in one piece does not crowd a part of them. */
    struct jit_place *place;
    uint16_t places;
    uint8_t shift;
    bool queued;
    /* Addresses that are not canonical are beyond the reach of all its regions (jit_may_run()): the
     * farthest of these, and the nearest that such addresses have been to the page. */
    uint32_t reach, slack;
    struct jit_region *regions;   /* those that are not stale */
    struct jit_frame *next_empty; /* see jit_sweep() */
};

/* Regions by virtual address, for indirect branches; one table per mode. An address has two places:
 * its own, and the other one of the pair (jit_pc_other()), where it goes when another address takes
 * its own. 32 bytes: code shifts by 5. */
struct jit_pc {
    uint64_t pc, generation; /* exec_generation, or global_generation for a global page */
    const void *code;
    const struct jit_region *region;
};
_Static_assert(sizeof(struct jit_pc) == 32, "emitted code shifts by 5");
struct jit_pcs {
    struct jit_pc entry[JIT_PCS]; /* first: cpu->jx.pcs points here */
    alignas(64) uint32_t mode;    /* 0: free */
    uint64_t used_at;             /* for LRU */
};

/* What goes from one privilege level to another by a function of gates.c. */
enum jit_gate { GATE_SYSCALL, GATE_SYSRET, GATE_IRET, JIT_GATES };

/* Guest registers that a region has in the host's beside the general ones. */
enum { JIT_VECTORS = 1, JIT_X87 = 2, JIT_HOMES = 4 };

struct jit_thunks {
    int (*enter)(struct cpu *cpu, const void *code); /* enum jit_exit */
    const void *exit_edge;                           /* R10: the edge */
    const void *again_edge;                          /* likewise, if jit_again_edge() says no */
    const void *exit_poll, *exit_here;               /* R10: offset of the instruction */
    const void *exit_edge_host, *exit_poll_host;     /* the same with flags in EFLAGS */
    /* Called; R10: the site's offset in `data`. For a region that has JIT_VECTORS, JIT_X87. */
    const void *slow[JIT_HOMES];
    const void *group[JIT_HOMES]; /* likewise, if jit_again_group() says no */
    const void *vec_in;                              /* called: vectors into registers */
    const void *x87_in;                              /* called: the x87's likewise */
    const void *last[MMU_PRIVS][2][VIEW_LASTS];      /* called: last.c; reads and writes */
    const void *exit_gate;                           /* JIT_EXIT_GATE */
    /* Called; R10: offset of the next instruction. Comes back when C has to execute it. */
    const void *gate[JIT_GATES];
    /* Called; R10: what jit_pages() is to do. ZF = 1: C has to do the rest. Changes R10. */
    const void *pages;
    const void *gather; /* likewise jit_gather() */
    /* Called: EDX:EAX = the time-stamp counter, CF = 0. CF = 1: C has to execute it. Changes R10,
     * R11. */
    const void *tsc;
    /* Called with the place of the target in R10 in R11, which is for another one or outdated. ZF =
     * 1: R11 is a place that is for it, here and now. Changes R10, R11. */
    const void *other_place;
    /* Called: looks for an open call, behind the last one, that returns to R10. ZF = 1: R11 is what
     * RSP is to be. Changes R11. */
    const void *find_call;
};

/* How a row's operands are encoded (copy.c). */
enum field { FIELD_NONE, FIELD_GPR, FIELD_VEC };
struct jit_row {
    uint8_t reg, rm, vvvv, opcode;    /* enum field of ModRM.reg, ModRM.rm, VEX.vvvv, opcode + r */
    uint8_t reg_op, rm_op, opcode_op; /* which of insn->op[] a general register there is */
    uint8_t is4;                      /* FIELD_VEC when bits 7:4 of the immediate name a register */
    uint8_t prefix;                   /* mandatory 66h, F2h, F3h; 0: none */
    bool wig;                         /* VEX.W is ignored, so in 32-bit code it must be 0 here */
    bool copy;                        /* may be copied */
    bool vectors; /* it names vector registers, or uses MXCSR, whatever ModRM.rm is */
    uint8_t escape; /* bytes before the opcode that name its map */
};

/* One list of counters: profile_counters() shows them. */
#define JIT_COUNTERS(X)                                                                            \
    X(regions) X(insns) X(code_bytes) X(stale) X(flushes) X(links) X(enters) X(slow) X(cold)
struct jit_counters {
#define X(name) uint64_t name;
    JIT_COUNTERS(X)
#undef X
};

/* What XSAVE makes of the x87 (SDM vol. 1, 13.4). */
struct jit_x87_image {
    alignas(64) uint16_t fcw;
    uint16_t fsw, ftw, fop; /* ftw: a bit for each physical register */
    uint64_t fip, fdp;
    uint32_t mxcsr[2];
    uint8_t st[8][16];
    uint8_t vectors[352];
    uint64_t xstate_bv, header[7];
};
_Static_assert(sizeof(struct jit_x87_image) == 576, "XSAVE");

struct build;

/* A part of the code: offsets. */
struct jit_zone {
    size_t begin, used, end;
    size_t asked; /* the host has been asked for memory up to there */
};

/* What the group of accesses that begins at an address may cover; less when one has failed often.
 */
enum grouping {
    GROUP_ROUNDS, /* accesses of several rounds of a loop (unroll.c) */
    GROUP_ROUND,  /* of one */
    GROUP_NONE    /* there is none */
};

struct jit {
    struct cpu *cpu;
    struct jit_pcs *pcs;                /* JIT_PC_TABLES of them */
    struct jit_pcs *recent[JIT_RECENT]; /* those that were asked for last, by jit_recent() */
    uint64_t pcs_asked;
    struct jit_frame *frames[REGION_FRAMES];
    struct jit_frame *last;  /* that was looked for; NULL: none */
    struct jit_frame *empty; /* frames that have lost all their regions */
    uint8_t grouping[MARK_ENTRIES]; /* enum grouping, by a hash of the address */
    /* By the same: the access there looks at no last page, since it is another one too often. */
    bool scattered[MARK_ENTRIES];
    struct jit_thunks thunks;
    struct jit_row *rows; /* by insn_row.id */
    /* One reservation: struct cpu, code (running mapping), data, so that code reaches all by RIP.
     */
    uint8_t *code, *code_write, *data;
    size_t code_size;
    /* What regions mostly run, close together; behind it, what they seldom do. */
    struct jit_zone body, cold;
    size_t data_size, data_used, data_asked;
    struct build *build;         /* room for the region that is being made */
    struct lockstep *lockstep;   /* NULL: translated code runs alone */
    struct profile_cpu *profile; /* profile.h; NULL: nobody looks */
    struct jit_counters counters;
    /* rules_users_word(), rules_deferred_word(); or of a 0 where there are no rules. */
    const _Atomic unsigned *rules_users, *rules_deferred;
    struct jit_x87_image x87_image;
    bool host_avx, host_bmi2; /* with the first also XSAVE */
    bool interpret; /* what comes next, after JIT_EXIT_LEFT */
    /* Where cpu->rip's code lies, when find() has just found out that it is cold; NULL: not so. */
    const uint8_t *cold_code;
    unsigned cold_avail;
    uint8_t hot; /* times that code is interpreted before it is translated */
};

/* Where the marks of an address are. */
static inline unsigned jit_mark_index(uint64_t gpa)
{
    return (gpa * 0x9e3779b97f4a7c15ull) >> 40 & (MARK_ENTRIES - 1);
}

static inline struct emit jit_emit(const struct jit *jit, uint8_t *at)
{
    return (struct emit){at, jit->code - jit->code_write};
}

/* Bytes, with the thunks. */
static inline size_t jit_code_used(const struct jit *jit)
{
    return jit->body.used + (jit->cold.used - jit->cold.begin);
}

/* AX as LAHF and SETO AL leave it. */
static inline uint16_t jit_pack_flags(uint64_t rflags)
{
    return (uint16_t)((rflags & 0xd5) << 8 | (rflags & FLAG_OF ? 1 : 0));
}
static inline uint64_t jit_unpack_flags(uint16_t flags)
{
    return (flags >> 8 & 0xd5) | (flags & 1 ? FLAG_OF : 0);
}

/* An address in code of the present width. */
static inline uint64_t jit_wrap(const struct cpu *cpu, uint64_t rip)
{
    return cpu->mode & MODE_CODE64 ? rip : (uint32_t)rip;
}

/* What a region of this vCPU's present state must have been made for. */
static inline uint32_t jit_mode(const struct cpu *cpu)
{
    enum { MASKS = 0x3f << 7, MM = 1 << 17, X87_MASKS = 0x3f };
    bool masked = (cpu->mxcsr & (MASKS | MM)) == MASKS;
    return cpu->mode | (masked ? JIT_MODE_MASKED : 0) |
           (cpu->priv == MMU_SUPERVISOR_AC ? JIT_MODE_AC : 0) |
           ((cpu->x87.fcw & X87_MASKS) == X87_MASKS ? JIT_MODE_X87 : 0);
}

/* A kernel and its programs take turns, with and without AC: to each its own. */
static inline struct jit_pcs **jit_recent(struct jit *jit, uint32_t mode)
{
    return &jit->recent[(mode & MODE_USER ? 1 : 0) + (mode & JIT_MODE_AC ? 2 : 0)];
}

/* Bytes from the page of rip to the nearest address on its way out that is not canonical. */
static inline uint32_t jit_slack_at(uint64_t rip)
{
    uint64_t page = rip & PAGE_MASK, hole = 1ull << 47;
    uint64_t slack = page < hole ? hole - page : page + hole;
    return slack < UINT32_MAX ? (uint32_t)slack : UINT32_MAX;
}

/* The region, and so all that it is linked to in its page, may run at rip: no branch leads from
 * there to an address that is not canonical. The interpreter runs it else. */
static inline bool jit_may_run(const struct jit_region *region, uint64_t rip)
{
    struct jit_frame *f = region->frame;
    uint32_t slack = region->mode & MODE_CODE64 ? jit_slack_at(rip) : UINT32_MAX;
    if (f->reach > slack)
        return false;
    f->slack = slack < f->slack ? slack : f->slack;
    return true;
}

/* ---- cache.c --------------------------------------------------------------------------------- */

/* Room for one more region and its data, by emptying the cache if need be. */
void jit_make_room(struct jit *jit);
void *jit_data(struct jit *jit, size_t size);
/* Gives back what was asked for last, from `end` on. */
void jit_data_trim(struct jit *jit, const void *end);
/* What is known of an address; NULL: nothing. */
struct jit_place *jit_place_find(struct jit *jit, uint64_t gpa);
/* The same, remembered from now on; there must be room. */
struct jit_place *jit_place_add(struct jit *jit, uint64_t gpa);
/* The region there for this mode, or NULL. */
struct jit_region *jit_place_region(struct jit *jit, const struct jit_place *place, uint32_t mode);
/* A stale one that is still remembered. */
const struct jit_region *jit_place_stale(struct jit *jit, uint64_t gpa, uint32_t mode);
/* Makes it known; takes the place of a stale one with the same key. */
void jit_insert(struct jit *jit, struct jit_region *region);
/* A new region, not inserted yet, would make that wrong for others; so the cache has been emptied.
 */
bool jit_outreaches(struct jit *jit, const struct jit_region *region);
void jit_link(struct jit *jit, struct jit_edge *edge, const struct jit_region *to);
/* It is to be made anew. */
void jit_make_stale(struct jit *jit, struct jit_region *region);
/* Tells the MMU of frames that have no code any more, so that stores there are fast again. Not from
 * inside its callbacks. */
void jit_sweep(struct jit *jit);
/* The table for regions of this mode. */
struct jit_pcs *jit_pcs_seek(struct jit *jit, uint32_t mode);
static inline struct jit_pcs *jit_pcs_for(struct jit *jit, uint32_t mode)
{
    struct jit_pcs *recent = *jit_recent(jit, mode);
    return recent->mode == mode ? recent : jit_pcs_seek(jit, mode);
}
static inline struct jit_pc *jit_pc_slot(struct jit_pcs *pcs, uint64_t pc)
{
    return &pcs->entry[pc & (JIT_PCS - 1)];
}
static inline struct jit_pc *jit_pc_other(struct jit_pc *slot)
{
    return (struct jit_pc *)((uintptr_t)slot ^ sizeof *slot); /* the table is aligned to 64 */
}
/* What an edge to another page has found: for this page_va, under the generation. */
static inline void jit_remember(struct jit_edge *edge, uint64_t va, uint64_t generation,
                                const struct jit_region *to)
{
    edge->va = va;
    edge->generation = generation;
    edge->code = to->entry;
    edge->to = to;
}
/* What has been found under the generation holds here and now. */
static inline bool jit_is_current(const struct cpu *cpu, uint64_t generation)
{
    return generation == cpu->mmu.exec_generation || generation == cpu->mmu.global_generation;
}
/* An entry for the address that is current; or one that is not; or where it would have to be. */
static inline struct jit_pc *jit_pc_find(const struct cpu *cpu, struct jit_pcs *pcs, uint64_t pc)
{
    struct jit_pc *slot = jit_pc_slot(pcs, pc), *other = jit_pc_other(slot);
    if (slot->pc == pc && jit_is_current(cpu, slot->generation))
        return slot;
    return other->pc == pc && (slot->pc != pc || jit_is_current(cpu, other->generation)) ? other
                                                                                         : slot;
}
/* Processes of one program have the same addresses: what another one has found stays in the other
 * place, unless this one wants something there. */
static inline void jit_pc_insert(const struct cpu *cpu, struct jit_pcs *pcs,
                                 const struct jit_pc *entry)
{
    struct jit_pc *slot = jit_pc_find(cpu, pcs, entry->pc), *other = jit_pc_other(slot);
    if (slot->pc != entry->pc ||
        (slot->generation != entry->generation && !jit_is_current(cpu, other->generation)))
        *other = *slot;
    *slot = *entry;
}
/* After code that may have run was changed through its other mapping (SDM vol. 3, 8.1.3). */
void jit_serialise(void);

/* ---- thunk.c, copy.c, translate.c ------------------------------------------------------------ */

void jit_make_thunks(struct jit *jit);
void jit_build_init(struct build *b);
bool jit_rows_init(struct jit *jit);
/* Translates at cpu->rip; `page` is the guest page around gpa, and `behind`, if not NULL, the one
 * behind. Others may write to them: each instruction's bytes are read once, and compared by the
 * caller. NULL: the first instruction is not for the translator; *more: since its end lies in the
 * page behind. */
struct jit_region *jit_translate(struct jit *jit, uint64_t gpa, const uint8_t *page,
                                 const uint8_t *behind, bool *more);
/* Up to INSN_MAX_BYTES bytes at an offset of the page, which may go on in the page behind. */
void read_code(uint8_t *bytes, const uint8_t *page, const uint8_t *behind, unsigned off,
               unsigned len);

/* run.c, called by translated code: executes the instruction at the site. NULL: leave, cpu->rip
 * says where to go on; JIT_BACK: go on behind the site; else where to go on: a region's entry. */
const void *jit_slow(struct cpu *cpu, uint32_t site_offset);
#define JIT_BACK ((const void *)1)

/* ---- last.c ---------------------------------------------------------------------------------- */

void last_make_thunks(struct jit *jit, struct emit *e);
/* C executes the access at the site because the budget of cpu->jx.watch is spent. */
void last_watch(struct jit *jit, struct jit_site *site);

/* ---- held.c ---------------------------------------------------------------------------------- */

/* C has made the access at a site that begins a group, so the page is at hand: keeps the address
 * for those that follow. False: not all of them can be made so. */
bool held_again(struct jit *jit, struct jit_site *site);

/* ---- gates.c --------------------------------------------------------------------------------- */

/* Called by thunks.gate[] with guest registers in cpu->gpr[], those that C functions keep for their
 * callers excepted: does the whole instruction if that is simple. NULL: nothing has been done; else
 * the code to go on at. */
typedef const void *jit_gate_fn(struct cpu *cpu, uint32_t next_off);
jit_gate_fn jit_gate_syscall, jit_gate_sysret, jit_gate_iret;

/* ---- again.c --------------------------------------------------------------------------------- */

/* Called by thunks, like a gate. The edge leads where it did: where the code looks at it again.
 * NULL: C has to look. */
const void *jit_again_edge(struct cpu *cpu, struct jit_edge *edge);
/* A place in the present table that is for the target; NULL: there is none, or C has to look. */
struct jit_pc *jit_again_target(struct cpu *cpu, uint64_t pc);
/* The host address of [lin, lin + span), a page at most, if the view has it in one piece. */
void *jit_group_address(const struct cpu *cpu, uint64_t lin, unsigned span, enum access_kind kind);
/* The group at the site, its linear address in jx.jump, can be had in one piece: that becomes its
 * host address, or less the linear one, if it is relative. Returns where the code goes on. */
const void *jit_again_group(struct cpu *cpu, uint32_t site_offset);

/* ---- x87_home.c ------------------------------------------------------------------------------ */

/* The x87's registers from cpu->x87 into the host's, and back. */
void jit_x87_in(struct cpu *cpu);
void jit_x87_out(struct cpu *cpu);
/* Before C does anything. */
static inline void jit_x87_settle(struct cpu *cpu)
{
    if (!cpu->jx.x87_home)
        jit_x87_out(cpu);
}

/* ---- pages.c --------------------------------------------------------------------------------- */

/* Called by thunks.pages, like a gate: REP MOVS or REP STOS with DF = 0 and 64-bit addresses, of
 * elements of `what` & JIT_PAGES_SIZE bytes, as far as the view allows. 0: RCX are left. */
enum { JIT_PAGES_SIZE = 0xf, JIT_PAGES_MOVS = 0x10 };
uint64_t jit_pages(struct cpu *cpu, uint32_t what);

/* ---- gather.c -------------------------------------------------------------------------------- */

/* Called by thunks.gather, like a gate: the gather that `what` describes. 0: C has to do it. */
uint64_t jit_gather(struct cpu *cpu, uint32_t what);

/* ---- lockstep.c ------------------------------------------------------------------------------ */

bool lockstep_init(struct jit *jit);
/* Runs the region at cpu->rip by the interpreter, without effect. */
void lockstep_prepare(struct cpu *cpu, const struct jit_region *region);
/* Runs it as translated; exceptions are compared on their way out. */
enum jit_exit lockstep_enter(struct cpu *cpu, const void *code);
/* The state after it. */
void lockstep_compare(struct cpu *cpu, enum jit_exit why);

#endif
