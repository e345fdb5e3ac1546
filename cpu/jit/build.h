/*
 * build.h - a region while it is being made: what the files of the translator pass around.
 */
#ifndef CPU_JIT_BUILD_H
#define CPU_JIT_BUILD_H

#include "cpu/jit/jit.h"
#include "insn_exec.h"

/* Where the arithmetic flags are at this point of the code; at least one of the three. */
struct flags_state {
    bool host;              /* in EFLAGS */
    bool memory;            /* in cpu->jx.flags */
    struct flags_desc desc; /* .from != FLAGS_MEMORY: can be computed from registers; .either: or
                             * are in cpu->jx.flags */
};

/* An access to look up. */
struct lookup {
    unsigned size;
    enum access_kind kind;
    unsigned aligned; /* to a multiple of it; 0: need not be */
    unsigned last;    /* which last page is looked at first (last.c); or LAST_NONE */
    bool relative;    /* R10 is to be host address less guest address: lookup_relative() */
    int32_t disp;     /* of the operand, if relative */
    bool stack;       /* relative to rSP, whatever the operand: lookup_words() */
};
enum { LAST_NONE = VIEW_LASTS };

/* The last x87 instruction, and the last with an operand in memory, whose pointers have not been
 * written (x87.c): index + 1, or 0. */
struct x87_due {
    uint8_t insn, operand;
};

/* Code that stands behind the region because it is seldom run. */
enum cold_kind {
    COLD_SLOW,  /* C executes an instruction */
    COLD_HERE,  /* leaves before an instruction, which C executes */
    COLD_POLL,  /* leaves before an instruction, since something wants attention */
    COLD_EDGE,  /* leaves by an edge that is not linked */
    COLD_SIDE,  /* goes to an offset: a Jcc that is taken, a block that comes later */
    COLD_RUN,   /* PUSHes or POPs that do not lie in one page, one by one */
    COLD_LAST,  /* an access that is not in the page found last */
    COLD_FULL,  /* CALL: too many calls are open, so they are forgotten */
    COLD_RET,   /* RET: not to where the last open call returns */
    COLD_PAGES, /* REP MOVS, REP STOS: not in one page */
    COLD_SPACE, /* an edge that holds under the less likely generation, if at all */
};
struct cold {
    uint8_t kind;   /* enum cold_kind */
    uint8_t index;  /* of the instruction; RUN: of the first */
    uint8_t length; /* RUN */
    int32_t off;    /* HERE, POLL: of the instruction; SIDE: of the target */
    unsigned jumps;
    uint8_t *jump[6];      /* displacements that lead here (written addresses) */
    const uint8_t *resume; /* SLOW, RUN, FULL, PAGES, SPACE: where it goes on (running address) */
    uint32_t site;         /* SLOW: offset in jit->data */
    /* SLOW of an indirect branch: the jumps by which it looks for its target in the other place,
     * and where it goes on. */
    uint8_t *other, *outdated;
    const uint8_t *found;
    /* RET: how it goes to C; PAGES: `slow` only; RUN: RET's, for which R10 is to be as well */
    struct cold *here, *slow;
    uint8_t what;             /* PAGES: for jit_pages() */
    uint8_t r11_guest;        /* SLOW: the homed register that R11 is to have where it resumes */
    bool group;               /* SLOW: it begins one, whose address is computed again */
    int32_t group_lo;         /* its displacement */
    const uint8_t *code;      /* where it is (running address), once it is emitted */
    struct jit_watch *watch;  /* LAST; NULL: it is not watched */
    struct x87_due x87_due;   /* SLOW: in front of it */
    struct held *in_r10;      /* SLOW: what R10 is to have where it resumes; NULL: anything */
    struct cold *otherwise;   /* LAST: what follows if the view has not got it either; SPACE */
    struct lookup lookup;     /* LAST */
    struct flags_state flags; /* RUN: before it; POLL, SIDE, EDGE: on the way here */
    struct jit_edge *edge;    /* EDGE */
};
enum { COLD_MAX = 7 * REGION_MAX_INSNS };

/* A host address that is kept over several accesses (held.c). */
enum { HELD_SLOTS = 4 };
struct held {
    bool valid, write;
    bool relative; /* cpu->jx.held[] is host address less guest address; else the address at `lo` */
    bool rounds;   /* accesses of several rounds of the loop are covered (unroll.c) */
    uint32_t key;   /* of the operand, by all but its displacement (held.c) */
    int32_t lo, hi; /* displacements that it covers */
};

/* No offset of an instruction: the branch itself says where it goes. */
enum { NEXT_NONE = INT32_MIN };

/* Where a block begins that something in the region leads to. */
struct label {
    struct held held[HELD_SLOTS]; /* `met`: on all ways so far */
    const uint8_t *code;          /* running address; NULL: not (yet) emitted */
    bool met;                 /* jumps lead there already: `flags` is what they have in common */
    struct flags_state flags; /* as they must be there; host and memory: nobody will look */
};

/* A loop whose rounds stand in a row (unroll.c). */
struct unrolled {
    uint8_t head, size, rounds; /* the first instruction; of a round; how many */
};
enum { UNROLLED_MAX = 8 };

struct build {
    struct jit *jit;
    struct cpu *cpu;
    struct emit e, cold_e; /* in the zones; while cold code is emitted, `e` is there */
    struct jit_region *region;
    const struct jit_region *before; /* the stale one that it replaces; NULL: none */
    uint32_t mode;
    bool code64;
    unsigned width; /* of addresses, and of what PUSH and CALL store: 8 or 4 bytes */
    unsigned count;
    unsigned i; /* the current instruction */
    struct flags_state flags;
    bool vectors; /* some instruction names vector registers */
    bool x87;     /* the x87's, or MMX's */
    struct x87_due x87_due;
    bool cross; /* there is one instruction only, which crosses the page's end */
    unsigned colds;
    struct held held[HELD_SLOTS];
    unsigned held_next;
    const struct held *in_r10; /* what is held is in R10, too, */
    const uint8_t *r10_until;  /* if no more code has been emitted (written address) */
    bool in_cold;              /* cold code is being emitted */
    unsigned r11_guest;        /* the homed register whose value R11 has, too, */
    const uint8_t *r11_until;  /* if no more code has been emitted (written address) */
    /* The last copied operation that names no memory and has no site, if no more code has been
     * emitted (written addresses). */
    const uint8_t *op_from, *op_until;
    /* The POPs before a RET, whose word lookup_words() has covered, if no more code has been
     * emitted (written address). */
    struct cold *ret_run;
    const uint8_t *ret_from;
    /* The last call of C for an instruction without translation: its site, and where it ends
     * (written address). */
    uint32_t call_site;
    const uint8_t *call_end;
    unsigned loops;
    struct unrolled unrolled[UNROLLED_MAX];
    /* -- not cleared for each region -- */
    struct insn insn[REGION_MAX_INSNS];
    /* A block begins there; the instruction itself or one behind it leads back there: the head of a
     * loop; it polls, which of the heads in each circle one does (polls.c). */
    bool leader[REGION_MAX_INSNS], head[REGION_MAX_INSNS], polls[REGION_MAX_INSNS];
    bool in_loop[REGION_MAX_INSNS]; /* a branch behind leads back to before it */
    struct label label[REGION_MAX_INSNS];
    uint8_t ways[REGION_MAX_INSNS];  /* in the region that lead to it */
    int16_t to[REGION_MAX_INSNS][2]; /* where it jumps in the region; -1 */
    uint8_t loop[REGION_MAX_INSNS];  /* it is part of that one of `unrolled`, + 1; 0: of none */
    uint8_t branch[REGION_MAX_INSNS]; /* enum branch */
    bool copies[REGION_MAX_INSNS];    /* copying comes into question (copy.c) */
    int8_t memory[REGION_MAX_INSNS];  /* which operand lies in memory; -1: none */
    /* Arithmetic flags: those it reads, and those that are not what they were behind it. */
    uint16_t reads[REGION_MAX_INSNS], kills[REGION_MAX_INSNS];
    bool quiet[REGION_MAX_INSNS];    /* nobody sees the state before it (flags.c) */
    uint16_t
        writes[REGION_MAX_INSNS];   /* general registers; all ones: it may be anything (held.c) */
    uint32_t group[REGION_MAX_INSNS]; /* the key of groups that its access may be in (held.c); 0 */
    bool more[REGION_MAX_INSNS];      /* another one that may be follows soon */
    uint16_t off[REGION_MAX_INSNS];   /* of each, from the page's beginning */
    /* The code goes on with the next one of the array (`flows`), or with the one at this offset,
     * which may be in other pages; or the branch says where. */
    bool flows[REGION_MAX_INSNS];
    int32_t next[REGION_MAX_INSNS];
    /* Flags before and after each instruction that are read before they are written again, or seen
     * by whoever can only be looking: faults, ways out. */
    uint16_t visible_before[REGION_MAX_INSNS], visible_after[REGION_MAX_INSNS];
    int16_t index_at[PAGE_SIZE]; /* of the instruction at an offset; -1: none, as between regions */
    struct cold cold[COLD_MAX];
    struct moved {
        struct insn insn[REGION_MAX_INSNS];
        uint16_t off[REGION_MAX_INSNS];
        int32_t next[REGION_MAX_INSNS];
        uint8_t branch[REGION_MAX_INSNS];
    } moved; /* on the way from one order to the other (order.c) */
};

/* What an instruction is to the flow of control. */
enum branch {
    BRANCH_NONE,
    BRANCH_CONDITIONAL, /* Jcc, LOOP and their like: to where it says, or on behind it */
    BRANCH_JUMP,        /* JMP to where it says */
    BRANCH_OTHER
};

/* For so many more pieces of cold code, and all that cold code has itself. */
static inline bool build_has_room(const struct build *b, unsigned colds)
{
    return b->colds + colds <= COLD_MAX - REGION_MAX_INSNS * 3;
}

static inline const struct insn *build_insn(const struct build *b)
{
    return &b->insn[b->i];
}

static inline enum branch branch_of(const struct insn *insn)
{
    if (!(insn->row->attr & INSN_BRANCH))
        return BRANCH_NONE;
    if (insn->op[0].kind != OPND_REL) /* INTO is conditional, too */
        return BRANCH_OTHER;
    return insn->row->attr & INSN_COND     ? BRANCH_CONDITIONAL
           : insn->row->exec == EXEC_jmp ? BRANCH_JUMP
                                           : BRANCH_OTHER;
}
static inline bool branch_is_direct(enum branch branch)
{
    return branch == BRANCH_CONDITIONAL || branch == BRANCH_JUMP;
}

/* The offset that its target has from the page's beginning. */
static inline int64_t build_branch_offset(const struct build *b, unsigned i)
{
    return b->off[i] + b->insn[i].len + b->insn[i].imm;
}

static inline bool build_in_page(int64_t off)
{
    return off >= 0 && off < (int64_t)PAGE_SIZE;
}

/* The round of its loop that instruction i is in; 0 where rounds do not stand in a row. */
static inline unsigned build_round(const struct build *b, unsigned i)
{
    const struct unrolled *loop = &b->unrolled[b->loop[i] ? b->loop[i] - 1 : 0];
    return b->loop[i] ? (i - loop->head) / loop->size : 0;
}

/* Are two instructions in different rounds of one loop? */
static inline bool build_is_other_round(const struct build *b, unsigned i, unsigned k)
{
    return b->loop[i] == b->loop[k] && build_round(b, i) != build_round(b, k);
}

/* Where a branch in one of several rounds leads, if `to` is what it is in the first. */
static inline int build_target_of_round(const struct build *b, unsigned from, int to)
{
    const struct unrolled *loop = &b->unrolled[b->loop[from] - 1];
    int head = loop->head, size = loop->size, round = (int)build_round(b, from);
    if (to == head)
        return round + 1 == loop->rounds ? head : head + (round + 1) * size;
    return to > head && to < head + size ? to + round * size : to;
}

/* The instruction in the region that a branch from instruction `from` to an offset goes to; -1: it
 * leaves. In lockstep all ways back leave, so that each way through a region has an end. */
static inline int build_target(const struct build *b, unsigned from, int32_t off)
{
    if (!build_in_page(off) || b->cross || (b->jit->lockstep && off <= b->off[from]))
        return -1;
    int to = b->index_at[off];
    return b->loop[from] ? build_target_of_round(b, from, to) : to;
}

/* Is the next instruction of the array the one that always follows, and comes from here only? */
static inline bool build_goes_on(const struct build *b, unsigned i)
{
    return b->flows[i] && i + 1 < b->count && !b->leader[i + 1];
}

/* Is the memory operand's segment one that has no base and no limit that matters? */
static inline bool build_easy_segment(const struct build *b, const struct insn *insn, bool write)
{
    if (b->code64)
        return true;
    if (insn->mem.seg >= SEG_FS)
        return b->mode & (insn->mem.seg == SEG_FS ? MODE_FS : MODE_GS);
    return insn->mem.seg != SEG_CS || !write;
}

/* Nothing is known of instruction i. */
static inline void build_clear(struct build *b, unsigned i)
{
    b->leader[i] = b->head[i] = b->in_loop[i] = b->flows[i] = false;
    b->label[i].code = NULL;
    b->label[i].met = false;
    b->label[i].flags = (struct flags_state){.host = false};
    b->ways[i] = 0;
    b->to[i][0] = b->to[i][1] = -1;
    b->loop[i] = 0;
    b->next[i] = NEXT_NONE;
}

/* Another way comes in here: what registers have got beside their own, and where the last operation
 * is, holds no more. */
static inline void build_joined(struct build *b)
{
    b->r10_until = b->r11_until = b->op_until = NULL;
}

/* ---- order.c ----------------------------------------------------------------------------------
 */

/* Orders what has been decoded. */
void order_blocks(struct build *b);

/* ---- unroll.c -------------------------------------------------------------------------------- */

/* Puts rounds of short loops in a row. */
void unroll_loops(struct build *b);

/* ---- polls.c --------------------------------------------------------------------------------- */

/* Of the loops' heads, those that poll. */
void polls_choose(struct build *b);

/* ---- flags.c --------------------------------------------------------------------------------- */

/* Before EFLAGS are lost to us: nothing of them that is still wanted may be. */
void flags_spill(struct build *b);
/* Have been lost. */
static inline void flags_clobbered(struct build *b)
{
    b->flags.host = false;
}
/* Both at once. */
static inline void flags_clobber(struct build *b)
{
    flags_spill(b);
    flags_clobbered(b);
}
/* Brings them into EFLAGS; changes R11, and R10 if flags_need_scratch() before anything is stored.
 */
void flags_load(struct build *b);
bool flags_need_scratch(const struct build *b);
/* Brings them into cpu->jx.flags, as every way out wants them; changes R10. EFLAGS stay if they
 * held the flags. */
void flags_store(struct build *b);
/* Emits it from EFLAGS, whatever the state; changes R10. */
void flags_emit_store(struct emit *e);
/* Emits loading them from cpu->jx.flags; RAX is lost. */
void flags_emit_load(struct emit *e);
/* The current instruction changes its operands; with `lookup`, EFLAGS will be lost before. */
void flags_before_changes(struct build *b, bool lookup);
void flags_after_changes(struct build *b);
/* The same for guest register `reg`. */
void flags_before_change(struct build *b, unsigned reg, bool lookup);
/* The same if a fault may come when it has changed already, and show the flags, though nobody behind
 * the instruction wants them. EFLAGS will be lost before. */
void flags_before_progress(struct build *b, unsigned reg);
/* The register of an operand as a description names it; REG_NONE: it is none. */
static inline unsigned flags_name(const struct opnd *o)
{
    bool vector = o->kind == OPND_XMM || o->kind == OPND_YMM;
    return vector                ? (unsigned)REG_VECTOR + o->reg
           : o->kind == OPND_GPR ? o->reg
                                 : (unsigned)REG_NONE;
}
void flags_after_change(struct build *b, unsigned reg);
/* The current instruction has left its flags in EFLAGS. */
void flags_produced(struct build *b, struct flags_desc desc);
/* From the current state to one that a label wants; changes R10, R11. */
void flags_convert(struct build *b, const struct flags_state *to);
/* Nothing has to be done for that. */
bool flags_fit(const struct flags_state *is, const struct flags_state *wanted);
/* Only that byte has to be written which says where they are: done. EFLAGS stay. */
bool flags_mark(struct build *b, const struct flags_state *to);
/* What two ways to a label have in common. */
void flags_meet(struct flags_state *all, const struct flags_state *way);
/* What flags at the head of a loop, instruction `head`, can be described by on the way back, for as
 * long as it takes; .from = FLAGS_MEMORY: by nothing. Only a guess. */
struct flags_desc flags_on_way_back(const struct build *b, unsigned head);
/* No lookup from this instruction to where the code goes back or elsewhere: EFLAGS are not lost. */
bool flags_stay(const struct build *b, unsigned i);
/* From this instruction on, flags are read or written before a lookup. */
bool flags_first(const struct build *b, unsigned i);
/* Liveness over the whole region. */
void flags_liveness(struct build *b);

/* ---- lookup.c -------------------------------------------------------------------------------- */

/* dest = the effective address of the current instruction's memory operand, without segment, cut
 * to the address size; changes R10, R11 and no flags. */
void lookup_effective(struct build *b, unsigned dest, unsigned width);
/* R10 = the host address of `size` bytes at the current instruction's memory operand; to a site
 * that executes the whole instruction when they are not to be had. Changes R11 and EFLAGS. With
 * `aligned`, also an address that is no multiple of it goes there. */
void lookup_operand(struct build *b, unsigned size, enum access_kind kind, unsigned aligned,
                    struct cold *site);
/* The same, but R10 = host address less guest address, so that the operand is R10 + its own
 * register; where that can be named (lookup_can_be_relative()). */
void lookup_relative(struct build *b, int64_t disp, unsigned size, enum access_kind kind,
                     unsigned aligned, struct cold *site);
bool lookup_can_be_relative(const struct build *b, const struct insn *insn);
/* The same with another displacement. */
void lookup_at(struct build *b, int64_t disp, unsigned size, enum access_kind kind,
               unsigned aligned, struct cold *site);
/* The same for all that a group covers; R10 = the host address of its beginning, or host address
 * less guest address, is kept. */
void lookup_group(struct build *b, const struct held *held, struct cold *site);
/* R10 = the linear address with a displacement; changes R11. */
void lookup_linear(struct build *b, int64_t disp);
/* dest = the linear address of a relative lookup for the current instruction. */
void lookup_relative_linear(struct build *b, const struct lookup *l, unsigned dest);
/* R10 += the base of the memory operand's segment. */
void lookup_add_segment(struct build *b);
/* R11 = R10 rotated right, but for bits of no account: a mask follows. */
void lookup_rotate(struct build *b, unsigned by);
/* The same for the linear address that is a host register + disp. */
void lookup_stack(struct build *b, unsigned host, int32_t disp, unsigned size,
                  enum access_kind kind, struct cold *site);
/* The same for what lies on the stack from rSP + disp on, but R10 = host address less rSP: its
 * words are what emit_word() names, by where rSP is then. */
void lookup_words(struct build *b, int32_t disp, unsigned size, enum access_kind kind,
                  struct cold *site);
/* The same for what POPs and the RET behind them take from [rSP]: each POP of 32-bit code clears the
 * upper half of RSP, so that goes now, where nothing can fault any more. */
void lookup_words_to_return(struct build *b, unsigned size, struct cold *site);
/* op reg, [rSP + disp] behind it */
void emit_word(struct build *b, unsigned opcode, unsigned reg, int32_t disp);

/* R11 = the view's entry that the page of linear address R10 would have, R10 = the offset in that
 * page; jumps, which are returned, when that entry does not allow the access. */
enum { HASHED_JUMPS = 2 };
unsigned lookup_hashed(struct build *b, const struct lookup *l, uint8_t *jump[HASHED_JUMPS]);

/* ---- last.c ---------------------------------------------------------------------------------- */

/* Which last page the current instruction's memory operand is looked for in; which one an access by
 * a host register alone is. */
unsigned last_of_operand(const struct build *b);
unsigned last_of_register(const struct build *b, unsigned host);
/* As lookup_operand(), from the linear address in R10 on. */
void last_lookup(struct build *b, const struct lookup *l, struct cold *otherwise);
void last_emit_cold(struct build *b, const struct cold *c);

/* ---- held.c ---------------------------------------------------------------------------------- */

/* Looks at all instructions of the region. */
void held_prepare(struct build *b);
/* What is held and covers the current instruction's memory operand; NULL: nothing. */
struct held *held_find(struct build *b, const struct opnd *mem, bool write);
/* Begins a group with it, if more accesses follow; NULL: none does. */
struct held *held_begin(struct build *b, const struct opnd *mem, bool write);
/* The current instruction has been translated: it may have changed registers. */
void held_after(struct build *b);
void held_forget(struct build *b);
/* Two ways meet. */
void held_meet(struct held *all, const struct held *way);
bool held_any(const struct build *b);
/* R10 = what is held. */
void held_load(struct build *b, const struct held *held);
/* The code emitted up to here leaves that in R10. */
static inline void held_is_in_r10(struct build *b, const struct held *held)
{
    b->in_r10 = held;
    b->r10_until = b->e.p;
}
static inline int32_t held_slot(const struct build *b, const struct held *held)
{
    return CPU_AT(jx.held) + 8 * (int32_t)(held - b->held);
}

/* ---- branch.c -------------------------------------------------------------------------------- */

struct cold *cold_new(struct build *b, enum cold_kind kind);
/* A site for the current instruction, reached by jumps that are added; code resumes where
 * site_resume() is called. */
struct cold *site_begin(struct build *b);
/* The same for `length` instructions from the current one on, which special_single() translates. */
struct cold *run_begin(struct build *b, unsigned length);
void site_resume(struct build *b, struct cold *site);
/* The same, keeping flags that are still wanted. */
static inline struct cold *site_begin_spilled(struct build *b)
{
    flags_spill(b);
    return site_begin(b);
}
static inline struct jit_site *site_record(const struct build *b, const struct cold *site)
{
    return (struct jit_site *)(b->jit->data + site->site);
}
/* The operand in memory is to be in jx.kept behind it. Where C cannot see to that, the code goes on
 * in another region. */
void site_keeps(struct build *b, struct cold *site);
static inline void cold_jump(struct cold *cold, uint8_t *at)
{
    cold->jump[cold->jumps++] = at;
}
/* Has C execute the current instruction, always. */
void site_call(struct build *b);
/* The current instruction is a branch. False, nothing emitted: C has to do it. */
bool branch_translate(struct build *b);
/* Behind the current instruction, to an offset of the page, inside the region or not. */
void branch_go(struct build *b, int32_t target);
/* At the beginning of a block that something later leads to: leaves when something wants attention.
 * EFLAGS stay. */
void branch_poll(struct build *b);
/* At the beginning of a region that crosses the page's end: leaves by an edge to itself when the
 * page behind may be another one. Changes R10, R11 and EFLAGS. */
void branch_cross(struct build *b);
void emit_cold(struct build *b);

/* ---- special.c ------------------------------------------------------------------------------- */

/* The instructions that are neither copied nor branches: stack, division, no operation. False:
 * nothing emitted. */
bool special_translate(struct build *b);
/* One instruction of those that make up a run: PUSH, POP or a move. */
void special_single(struct build *b);

/* ---- string.c, bits.c ------------------------------------------------------------------------ */

/* For special_translate(); the same result. */
bool string_translate(struct build *b);
bool bits_translate(struct build *b);

/* ---- x87.c ----------------------------------------------------------------------------------- */

/* A row of the x87 or of MMX that can be copied, where x87_may_copy() says so for the region. */
bool x87_row_copies(const struct insn_row *row);
bool x87_may_copy(const struct build *b);
/* Does the instruction want the x87's registers in the host's? */
bool x87_is_used(const struct build *b, const struct insn *insn);
/* Before and behind each instruction: what is due is written where it has to be. */
void x87_before(struct build *b);
void x87_after(struct build *b);
/* Writes it, or what is due; changes R10, R11 and no flags. */
void x87_emit_note(struct build *b, struct x87_due due);
void x87_emit_due(struct build *b);
/* FLDCW, LDMXCSR. False: nothing emitted. The latter is done in place, so vectors are to be in
 * registers. */
bool x87_control(struct build *b);
bool x87_loads_mxcsr(const struct build *b, const struct insn *insn);

/* ---- gather.c -------------------------------------------------------------------------------- */

/* For special_translate(); and whether it does so, for which vectors are to be in registers. */
bool gather_translate(struct build *b);
bool gather_is_direct(const struct build *b, const struct insn *insn);

/* ---- system.c -------------------------------------------------------------------------------- */

/* System instructions, where the common case is simple. False: nothing emitted. */
bool system_translate(struct build *b);
/* Likewise SYSCALL, SYSRET and IRET, which are branches. */
bool system_gate(struct build *b);
/* The present instruction is never reached but through an STI before it: nothing may come between.
 */
bool system_in_shadow(const struct build *b);

/* ---- copy.c ---------------------------------------------------------------------------------- */

/* Copies the current instruction with its operands redirected. False, nothing emitted: C has to
 * execute it. */
bool copy_insn(struct build *b);
/* Finds out, for all instructions of the region, whether copying comes into question in this mode,
 * and whether any names vector registers, or uses MXCSR. */
void copy_prepare(struct build *b);
static inline bool copy_may(const struct build *b, const struct insn *insn)
{
    return b->copies[insn - b->insn];
}
/* The memory operand of an instruction that can be copied and that needs no alignment; or NULL. */
const struct opnd *copy_memory_operand(const struct build *b, const struct insn *insn);
/* Loads or stores a homed register. */
static inline void homed_load(struct build *b, unsigned scratch, unsigned guest)
{
    bool in_r11 = b->r11_until == b->e.p && b->r11_guest == guest;
    if (!in_r11)
        emit_cpu_load(&b->e, scratch, CPU_GPR(guest));
    else if (scratch != SCRATCH2)
        emit_mov(&b->e, 8, scratch, SCRATCH2);
}
/* The code emitted up to here leaves it in R11, too; REG_NONE: none. */
static inline void homed_is_in_r11(struct build *b, unsigned guest)
{
    b->r11_guest = guest;
    b->r11_until = b->e.p;
}
static inline void homed_store(struct build *b, unsigned scratch, unsigned guest)
{
    emit_cpu_store(&b->e, scratch, CPU_GPR(guest));
}
/* The host register that holds a guest register's value: its own, or `scratch`, loaded. */
static inline unsigned guest_value(struct build *b, unsigned guest, unsigned scratch)
{
    if (!abi_is_homed(guest))
        return abi_host(guest);
    homed_load(b, scratch, guest);
    return scratch;
}
/* The host register that is to get its new value; then guest_written(). */
static inline unsigned guest_target(unsigned guest, unsigned scratch)
{
    return abi_is_homed(guest) ? scratch : abi_host(guest);
}
static inline void guest_written(struct build *b, unsigned guest, unsigned from)
{
    if (abi_is_homed(guest))
        homed_store(b, from, guest);
}

#endif
