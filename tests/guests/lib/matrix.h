/*
 * matrix.h - the protection matrix: every row of matrix_rows.h, in every alignment, with every byte
 * position protected, forbidden in every way, for a subject and with each action that it may have.
 *
 * What an instruction must leave behind is not written down: it is what the same instruction leaves
 * without rules, on memory as the rule shows it. So a run consists of
 *
 *     reference   unprotected, on the operand as it is, or with the protected bytes replaced
 *     case        protected: the same registers and memory, but for what the rule keeps back; and
 *                 one event for each access that it objects to, with all fields
 *
 * A guest includes this, says which subjects it plays (struct stage), and calls matrix_run().
 */
#ifndef GUEST_MATRIX_H
#define GUEST_MATRIX_H

#include "context.h"
#include "matrix_code.h"

/* ---- Who plays ----------------------------------------------------------------------------------
 */

struct stage {
    const char *name;
    const struct row *rows;
    unsigned code_size, cpl, cs, data; /* of the instruction */
    word code_base;                    /* of its code segment */
    unsigned door;
    uint64_t session;
    uint8_t subject;
    bool by_user;  /* commands are given at CPL 3 */
    bool handler;  /* the context has a handler: UPCALL instead of the actions that need none */
    bool hidden;   /* another subject's: no RIP, no values */
    bool physical; /* events have physical addresses */
    bool no_stack; /* RSP cannot be chosen */
};

static bool matrix_thorough; /* every action for every position, not one of them in turn */
static unsigned matrix_cases;
static bool have[XSAVEC + 1];
static uint8_t vendor;

/* Three pages; the operand lies in the second, or across the end of it. */
static uint8_t arena[3 * 4096] __attribute__((aligned(4096)));
static uint8_t scratch[1024] __attribute__((aligned(64)));
static uint8_t pristine[3 * 4096];

static uint8_t pattern(unsigned i)
{
    return (uint8_t)(i * 37 + 11 + (i >> 3));
}

/* ---- Vector registers ---------------------------------------------------------------------------
 */

static uint8_t vectors_first[1024] __attribute__((aligned(64)));
static uint8_t vectors_now[1024] __attribute__((aligned(64)));

static void vectors_save(uint8_t *to)
{
    if (have[AVX2])
        asm volatile("xsave (%0)" ::"r"(to), "a"(7), "d"(0) : "memory");
    else
        asm volatile("fxsave (%0)" ::"r"(to) : "memory");
}
static void vectors_load(const uint8_t *from)
{
    if (have[AVX2])
        asm volatile("xrstor (%0)" ::"r"(from), "a"(7), "d"(0) : "memory");
    else
        asm volatile("fxrstor (%0)" ::"r"(from) : "memory");
}

static void vectors_init(void)
{
    uint32_t r[4];
    uint32_t *xmm = (uint32_t *)(vectors_first + 160);
    static const uint32_t mask[4] = {0, 0x80808080, 0x80808080, 0}; /* bytes 4-11, elements 1, 2 */
    static const uint32_t index[4] = {0, 2, 6, 9};
    write_cr4(read_cr4() | 0x200); /* OSFXSR */
    static const uint64_t qmask[4] = {1ull << 63, 1ull << 63, 0, 1ull << 63};
    static const uint64_t qindex[4] = {1, 3, 5, 7};
    vendor = is_amd() ? AMD : INTEL;
    cpuid(1, 0, r);
    bool avx = r[2] >> 28 & 1;
    cpuid(7, 0, r);
    have[ANY] = have[SSE] = true;
    have[AVX2] = have[XSAVE] = avx && r[1] >> 5 & 1; /* one set of registers for all of them */
    if (have[AVX2]) {
        cpuid(0xd, 1, r);
        have[XSAVEOPT] = r[0] & 1;
        have[XSAVEC] = r[0] & 2;
        write_cr4(read_cr4() | 1u << 18); /* OSXSAVE */
        asm volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
    }
    asm volatile("fninit; fld1; fldpi");
    vectors_save(vectors_first);
    for (unsigned i = 0; i < 4 * 8; i++)
        xmm[i] = i * 0x01020304u + 0x3f800000u;
    memcpy(xmm + 4 * 7, mask, 16);
    memcpy(xmm + 4 * 6, index, 16);
    memcpy(xmm + 4 * 5, qindex, 16);
    memcpy(xmm + 4 * 4, qmask, 16);
    /* MM7 is ST(1), 1.0: its byte 7 is the only one with the top bit. */
    if (have[AVX2]) {
        ((uint32_t *)vectors_first)[128] = 7; /* XSTATE_BV */
        for (unsigned i = 0; i < 4 * 6; i++)
            ((uint32_t *)(vectors_first + 576))[i] = i * 0x01010101u + 7;
        memset(vectors_first + 576 + 16 * 6, 0, 32); /* no elements above */
        memcpy(vectors_first + 576 + 16 * 5, qindex + 2, 16);
        memcpy(vectors_first + 576 + 16 * 4, qmask + 2, 16);
    }
    for (unsigned i = 0; i < sizeof arena; i++)
        pristine[i] = pattern(i);
}

/* ---- One run ------------------------------------------------------------------------------------
 */

struct outcome {
    word vector, error, rip, cr2, flags;
    word reg[8];                       /* AX, CX, DX, BX, SP, BP, SI, DI */
    uint8_t operand[OPERAND_MAX + 16]; /* from 8 bytes before the operand on */
    uint32_t vectors[208];
};

static unsigned row_length(const struct row *row)
{
    unsigned n = 1;
    for (unsigned i = 0; i < MAX_ACCESSES && row->access[i].kind; i++) {
        unsigned end = row->access[i].offset + row->access[i].length;
        n = end > n ? end : n;
    }
    return n;
}

/* How many bytes of the operand are prepared and looked at. */
static unsigned row_space(const struct row *row)
{
    return row_length(row) > 64 ? OPERAND_MAX : 64;
}

static void get_outcome(struct outcome *o, const struct trap *t, const struct row *row, word at,
                        unsigned cpl)
{
    const struct frame *f = &t->frame;
    o->vector = t->vector;
    o->error = t->error;
    o->rip = t->rip;
    o->cr2 = t->vector == V_PF ? t->cr2 : 0;
    o->flags = t->rflags & 0xcd5; /* less RF, which tells faults from traps */
    o->reg[0] = f->rax, o->reg[1] = f->rcx, o->reg[2] = f->rdx, o->reg[3] = f->rbx;
    o->reg[4] = sizeof(word) == 8 || cpl == 3 ? t->rsp : 0;
    o->reg[5] = f->rbp, o->reg[6] = f->rsi, o->reg[7] = f->rdi;
    memcpy(o->operand, (void *)(at - 8), row_space(row) + 16);
    if (row->vector) {
        vectors_save(vectors_now);
        memcpy(o->vectors, vectors_now, sizeof o->vectors);
    }
}

static word point(uint16_t at, word operand, unsigned otherwise)
{
    return at ? operand + (at - AT(0)) : (word)scratch + otherwise;
}

static struct context context_for(const struct stage *s, const struct row *row, word at,
                                  uint32_t cx)
{
    struct context c = context_at((word)row->code - s->code_base, s->cs, s->data);
    c.rflags |= F_IOPL3 | 0x41; /* IN and OUT at CPL 3; CF, ZF */
    c.rax = row->ax ? row->ax : 0x44332200;
    c.rcx = cx;
    c.rdx = 0x80; /* a port where nothing happens */
    c.rbx = at;
    c.rsi = point(row->si, at, 0x40);
    c.rdi = point(row->di, at, 0x80);
    c.rbp = point(row->bp, at, 0x100);
    if (row->sp)
        c.rsp = point(row->sp, at, 0);
    return c;
}

/* All registers empty, and a control word that is not FNINIT's. */
static void x87_state(const struct stage *s, uint8_t *to)
{
    unsigned step = s->code_size == 16 ? 2 : 4;
    static const uint16_t words[3] = {0x27f, 0, 0xffff};
    for (unsigned i = 0; i < 3; i++)
        memcpy(to + i * step, &words[i], 2);
}

static void fill_operand(const struct stage *s, const struct row *row, word at, uint8_t *to)
{
    uint32_t v[4] = {0, 0, 0, 0};
    uint32_t next = (uint32_t)((word)row->end - s->code_base);
    uint64_t frame[5] = {next, s->cs, 2, at + 0x40, s->data};
    unsigned n = 0, item = s->code_size / 8;
    memcpy(to, pristine + (at - (word)arena), row_space(row));
    switch (row->memory) {
    case SELECTOR:
        v[0] = s->data, n = 2;
        break;
    case FAR_SELECTOR:
        v[0] = 0x11223344, v[1] = s->data, n = 6;
        break;
    case LIKE_RAX:
        v[0] = 0x44332200, n = 4;
        break;
    case LIKE_RDX_RAX:
        v[0] = 0x44332200, v[1] = 0x80, n = 8;
        break;
    case LIKE_RDX_RAX_64:
        v[0] = 0x44332200, v[2] = 0x80, n = 16;
        break;
    case NEXT:
        v[0] = next, n = item;
        break;
    case ZERO:
        n = 10;
        break;
    case MACHINE_STATUS:
        v[0] = (uint32_t)read_cr0() & 0xffff, n = 2;
        break;
    case CONTROL_WORD:
        v[0] = 0x27f, n = 2;
        break;
    case MXCSR:
        v[0] = 0x1f80, n = 4;
        break;
    case BOUNDS:
        v[0] = 0x11111111, v[1] = 0x77777777, n = 8;
        break;
    case FAR_POINTER:
        memcpy(to, &next, s->code_size == 16 ? 2 : 4);
        memcpy(to + (s->code_size == 16 ? 2 : 4), &s->cs, 2);
        break;
    case FAR_NEXT:
    case IRET_FRAME:
        for (unsigned i = 0; i < 5; i++)
            memcpy(to + i * item, &frame[i], item);
        break;
    case X87_STATE:
        x87_state(s, to);
        break;
    case VECTORS:
        memcpy(to, vectors_first, OPERAND_MAX);
        for (unsigned i = 160; i < 160 + 16 * 8; i++)
            to[i] ^= 0x5a;
        break;
    }
    if (n)
        memcpy(to, v, n);
}

static void forbid(void);
static void allow_again(void);

/* Runs the row's instruction on `operand`. The neighbourhood is put in order before. */
static __attribute__((noinline)) void run_row(const struct stage *s, const struct row *row, word at,
                                              const uint8_t *operand, uint32_t cx,
                                              struct outcome *o)
{
    memcpy((void *)(at - 64), pristine + (at - 64 - (word)arena), 64);
    memcpy((void *)at, operand, row_space(row));
    memset(scratch, 0x5c, 512);
    if (row->far) {
        uint32_t next = (uint32_t)((word)row->end - s->code_base);
        unsigned size = s->code_size == 16 ? 2 : 4;
        memcpy(scratch + 0x40, &next, size);
        memcpy(scratch + 0x40 + size, &s->cs, 2);
    }
    if (row->vector)
        vectors_load(vectors_first);
    forbid();
    struct trap t = RUN(context_for(s, row, at, cx));
    allow_again();
    get_outcome(o, &t, row, at, s->cpl);
}

/* ---- What must come of it -----------------------------------------------------------------------
 */

struct matrix_case {
    const struct stage *stage;
    const struct row *row;
    word at; /* the operand */
    uint32_t region;
    word base;
    unsigned length; /* of the region */
    unsigned forbidden, action;
    bool general, preimage;       /* how it is denied; what is asked for */
    unsigned verdict;             /* of an upcall */
    uint8_t operand[OPERAND_MAX]; /* as it was */
    struct outcome plain;         /* unprotected */
    struct outcome replaced[2];   /* protected bytes read as zeros, as the rule's value */
    bool have_replaced;
};
#define SUBSTITUTE_VALUE 0xf8e7d6c5b4a39281ull

/* The first byte of access i that the region has; -1. */
static int first_violated(const struct matrix_case *c, unsigned i)
{
    const struct row_access *a = &c->row->access[i];
    word lo = c->at + a->offset, hi = lo + a->length;
    word from = lo > c->base ? lo : c->base;
    word to = hi < c->base + c->length ? hi : c->base + c->length;
    return (a->kind & c->forbidden) && from < to ? (int)(from - lo) : -1;
}
static bool violated(const struct matrix_case *c, unsigned byte)
{
    for (unsigned i = 0; i < MAX_ACCESSES && c->row->access[i].kind; i++) {
        const struct row_access *a = &c->row->access[i];
        word p = c->at + byte;
        if ((a->kind & c->forbidden) && byte >= a->offset && byte < a->offset + a->length &&
            p >= c->base && p < c->base + c->length)
            return true;
    }
    return false;
}

/* What becomes of the action for an access that is judged. */
enum fate { COMPLETES, REFUSED, READS_ZEROS, READS_VALUE };
static enum fate fate_of(const struct matrix_case *c, unsigned *action, unsigned already)
{
    *action = c->action;
    switch (c->action) {
    case PROTECT_DENY:
        return REFUSED;
    case PROTECT_SKIP:
        return READS_ZEROS;
    case PROTECT_SUBSTITUTE:
        return READS_VALUE;
    case PROTECT_ALLOW_ONCE:
        if (already)
            *action = PROTECT_DENY;
        return already ? REFUSED : COMPLETES;
    case PROTECT_UPCALL:
        return c->verdict == PROTECT_LET    ? COMPLETES
               : c->verdict == PROTECT_DROP ? READS_ZEROS
               : c->verdict == PROTECT_GIVE ? READS_VALUE
                                            : REFUSED;
    case PROTECT_ASK_HOST: /* there is nobody outside */
        *action = PROTECT_DENY;
        return REFUSED;
    default:
        return COMPLETES;
    }
}

static unsigned matrix_wrong;
static void wrong(const struct matrix_case *c, const char *what, uint64_t got, uint64_t want)
{
    static const char *const actions[] = {"deny", "upcall",     "ask",      "substitute",
                                          "skip", "allow once", "deferred", "allow"};
    static const struct row *last;
    static unsigned times;
    times = c->row == last ? times + 1 : 0;
    last = c->row;
    matrix_wrong++;
    if (times > 4)
        return;
    print("  %s, code %u, %s at +%x, bytes %d for %u, forbids %x, %s (verdict %u): %s is %llx, not "
          "%llx\n",
          c->stage->name, c->stage->code_size, c->row->name, (unsigned)(c->at - (word)arena),
          (int)(c->base - c->at), c->length, c->forbidden, actions[c->action], c->verdict, what,
          (unsigned long long)got, (unsigned long long)want);
}
#define EXPECT(c, what, got, want)                                                                 \
    do {                                                                                           \
        uint64_t got_ = (got), want_ = (want);                                                     \
        if (got_ != want_)                                                                         \
            wrong(c, what, got_, want_);                                                           \
    } while (0)

/* ---- Events, read by whom they belong to --------------------------------------------------------
 */

static struct protect_event told[PROTECT_EVENTS];
static uint64_t told_head;
static word read_events(word door)
{
    uint64_t from = told_head;
    told_head = door_get(&DOOR(door)->event_head);
    for (uint64_t n = from + 1; n <= told_head && n <= from + PROTECT_EVENTS; n++)
        told[(n - 1) % PROTECT_EVENTS] = door_event((unsigned)door, n);
    door_put(&DOOR(door)->event_tail, told_head);
    return 0;
}
static void hear(const struct stage *s)
{
    if (s->by_user)
        call_user(read_events, s->door);
    else
        read_events(s->door);
}

static void load16(const uint8_t *from, unsigned n, uint64_t to[2])
{
    to[0] = to[1] = 0;
    memcpy(to, from, n < 16 ? n : 16);
}

/* Of n bytes from `byte` on, which is the region's, those that are its in the same page. */
static unsigned own_bytes(const struct matrix_case *c, word byte, unsigned n)
{
    word region = c->base + c->length - byte, page = 4096 - byte % 4096;
    n = n < region ? n : (unsigned)region;
    return n < page ? n : (unsigned)page;
}

static void check_event(const struct matrix_case *c, uint64_t sequence, unsigned i, unsigned action)
{
    const struct stage *s = c->stage;
    const struct row_access *a = &c->row->access[i];
    struct protect_event e = told[(sequence - 1) % PROTECT_EVENTS];
    unsigned off = (unsigned)first_violated(c, i);
    word byte = c->at + a->offset + off;
    uint64_t v[2];
    EXPECT(c, "sequence", e.sequence, sequence);
    EXPECT(c, "type", e.type, PROTECT_EVENT_ACCESS);
    EXPECT(c, "access", e.access, a->kind);
    EXPECT(c, "subject", e.subject, s->subject);
    EXPECT(c, "action", e.action, action);
    EXPECT(c, "vcpu", e.vcpu, 0);
    EXPECT(c, "region", e.region, c->region);
    EXPECT(c, "length", e.length, a->length);
    EXPECT(c, "cookie", e.cookie, 0xc00c1e00 + c->length);
    EXPECT(c, "home", e.home, byte);
    EXPECT(c, "gpa", e.gpa, s->physical ? byte : 0);
    EXPECT(c, "device", e.device, 0);
    EXPECT(c, "cpl", e.cpl, s->cpl);
    EXPECT(c, "time", e.time != 0, 1);
    bool preimage = c->preimage && a->kind & W;
    if (preimage) {
        load16(c->operand + a->offset + off,
               s->hidden ? own_bytes(c, byte, a->length - off) : a->length - off, v);
        EXPECT(c, "preimage", e.preimage[0], v[0]);
        EXPECT(c, "preimage above", e.preimage[1], v[1]);
    }
    unsigned flags = (preimage ? PROTECT_EVENT_PREIMAGE : 0) |
                     (s->hidden ? PROTECT_EVENT_HIDDEN : PROTECT_EVENT_HAS_GVA);
    if (!s->hidden && !c->row->no_value)
        flags |= PROTECT_EVENT_VALUE;
    EXPECT(c, "flags", c->row->no_value ? e.flags & ~PROTECT_EVENT_VALUE : e.flags, flags);
    EXPECT(c, "gva", e.gva, s->hidden ? 0 : byte);
    EXPECT(c, "rip", e.rip, s->hidden ? 0 : (word)c->row->code - s->code_base);
    EXPECT(c, "cr3", e.cr3, s->hidden ? 0 : read_cr3());
    if (c->row->no_value)
        return;
    const uint8_t *bytes = a->kind & W ? c->plain.operand + 8 : c->operand;
    load16(bytes + a->offset + off, a->length - off, v);
    EXPECT(c, "value", e.value[0], s->hidden ? 0 : v[0]);
    EXPECT(c, "value above", e.value[1], s->hidden ? 0 : v[1]);
}

/* The state that a refused instruction leaves: as before it, but for iterations that are done. */
static void refused_state(struct matrix_case *c, unsigned iteration, struct outcome *want)
{
    const struct row *row = c->row;
    struct context first = context_for(c->stage, row, c->at, row->cx);
    if (iteration) {
        run_row(c->stage, row, c->at, c->operand, iteration, want);
        want->reg[1] += row->cx - iteration;
        /* Intel's processors take the flags of a comparison back to where the instruction began. */
        if (vendor == INTEL)
            want->flags = first.rflags & 0xcd5;
    } else {
        *want = c->plain;
        want->flags = first.rflags & 0xcd5;
        want->reg[0] = first.rax, want->reg[1] = first.rcx, want->reg[2] = first.rdx;
        want->reg[3] = first.rbx, want->reg[5] = first.rbp;
        want->reg[4] = sizeof(word) == 8 || c->stage->cpl == 3 ? first.rsp : 0;
        want->reg[6] = first.rsi, want->reg[7] = first.rdi;
        memcpy(want->operand, pristine + (c->at - 8 - (word)arena), 8);
        memcpy(want->operand + 8, c->operand, row_space(row));
        memcpy(want->vectors, vectors_first, sizeof want->vectors);
    }
    want->rip = (word)row->code - c->stage->code_base;
}

static void check_outcome(const struct matrix_case *c, const struct outcome *o,
                          const struct outcome *want)
{
    static const char *const names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    EXPECT(c, "vector", o->vector, want->vector);
    EXPECT(c, "error code", o->error, want->error);
    EXPECT(c, "rip behind", o->rip, want->rip);
    EXPECT(c, "cr2", o->cr2, want->cr2);
    bool refused = want->vector == V_PF || want->vector == V_GP;
    word defined = refused ? ~(word)0 : ~(word)c->row->undefined;
    EXPECT(c, "flags", o->flags & defined, want->flags & defined);
    bool partial = c->row->partial & vendor && refused;
    for (unsigned i = 0; i < 8 && !partial; i++)
        EXPECT(c, names[i], o->reg[i], want->reg[i]);
    for (unsigned i = 0; i < 8 + row_length(c->row) + 8; i++)
        if (o->operand[i] != want->operand[i]) {
            wrong(c, "memory", o->operand[i], want->operand[i]);
            break;
        }
    for (unsigned i = 0; c->row->vector && !partial && i < sizeof o->vectors / 4; i++)
        if (o->vectors[i] != want->vectors[i] && !(i >= 116 && i < 144)) { /* software's; header */
            wrong(c, "vector state", o->vectors[i], want->vectors[i]);
            break;
        }
}

/* ---- One case -----------------------------------------------------------------------------------
 */

struct upcall_seen {
    unsigned count;
    struct protect_frame frame;
};
static struct upcall_seen upcall_seen;
static unsigned upcall_verdict;

static void check_frame(const struct matrix_case *c, unsigned i)
{
    const struct protect_frame *f = &upcall_seen.frame;
    const struct row_access *a = &c->row->access[i];
    unsigned off = (unsigned)first_violated(c, i);
    word byte = c->at + a->offset + off;
    struct context first = context_for(c->stage, c->row, c->at, c->row->cx);
    uint64_t v[2];
    EXPECT(c, "frame size", f->size, sizeof *f);
    EXPECT(c, "frame version", f->version, PROTECT_VERSION);
    EXPECT(c, "frame cookie", f->cookie, 0xc00c1e00 + c->length);
    EXPECT(c, "frame region", f->region, c->region);
    EXPECT(c, "frame length", f->length, a->length);
    EXPECT(c, "frame access", f->access, a->kind);
    EXPECT(c, "frame subject", f->subject, c->stage->subject);
    EXPECT(c, "frame deferred", f->deferred, 0);
    EXPECT(c, "frame instruction length", f->instruction_length,
           (unsigned)(c->row->end - c->row->code));
    EXPECT(c, "frame instruction", memcmp(f->instruction, c->row->code, f->instruction_length), 0);
    EXPECT(c, "frame depth", f->depth, 1);
    EXPECT(c, "frame gva", f->gva, byte);
    EXPECT(c, "frame home", f->home, byte);
    if (!c->row->no_value) {
        const uint8_t *bytes = a->kind & W ? c->plain.operand + 8 : c->operand;
        load16(bytes + a->offset + off, a->length - off, v);
        EXPECT(c, "frame value", f->value[0], v[0]);
        EXPECT(c, "frame value above", f->value[1], v[1]);
    }
    if (a->kind & W) {
        load16(c->operand + a->offset + off, a->length - off, v);
        EXPECT(c, "frame preimage", f->preimage[0], v[0]);
        EXPECT(c, "frame preimage above", f->preimage[1], v[1]);
    }
    if (!c->row->rep) {
        EXPECT(c, "frame rax", f->gpr[0], first.rax);
        EXPECT(c, "frame rcx", f->gpr[1], first.rcx);
        EXPECT(c, "frame rsp", f->gpr[4], first.rsp);
        EXPECT(c, "frame rsi", f->gpr[6], first.rsi);
        EXPECT(c, "frame rdi", f->gpr[7], first.rdi);
        EXPECT(c, "frame rflags", f->rflags & ~(uint64_t)0x10002, first.rflags & ~(word)2);
    }
    EXPECT(c, "frame rip", f->rip, (word)c->row->code - c->stage->code_base);
}

/* Walks through the accesses as the rule sees them: checks their events, or counts them. Returns
 * the state that must be behind them. */
static void expect(struct matrix_case *c, uint64_t head, struct outcome *want, unsigned *events)
{
    unsigned n = 0;
    uint64_t sequence = head;
    *want = c->plain;
    for (unsigned i = 0; i < MAX_ACCESSES && c->row->access[i].kind; i++) {
        unsigned action;
        if (first_violated(c, i) < 0)
            continue;
        enum fate fate = fate_of(c, &action, n);
        n++;
        if (sequence)
            check_event(c, sequence++, i, action);
        if (fate == REFUSED) {
            bool page = !c->general;
            refused_state(c, c->row->rep ? i : 0, want);
            want->vector = page ? V_PF : V_GP;
            want->error = page ? 1u | (c->row->access[i].kind & W ? 2u : 0) |
                                     (c->stage->cpl == 3 ? 4u : 0) | 1u << PROTECT_DEFAULT_MARKER
                               : 0;
            want->cr2 = page ? c->at + c->row->access[i].offset + (word)first_violated(c, i) : 0;
            break;
        }
        if (fate != COMPLETES)
            *want = c->replaced[fate == READS_VALUE];
    }
    *events = n;
}

static void set_rule(struct matrix_case *c);

/* The case that is running. Before and after the instruction nothing is protected, so that we can
 * prepare and look. */
static struct matrix_case *running;
static void forbid(void)
{
    if (running)
        set_rule(running);
}
static void allow_again(void)
{
    struct matrix_case *c = running;
    running = NULL;
    if (!c)
        return;
    unsigned action = c->action, forbidden = c->forbidden;
    c->action = PROTECT_ALLOW;
    c->forbidden = 0;
    set_rule(c);
    c->action = action;
    c->forbidden = forbidden;
}

static void run_case(struct matrix_case *c)
{
    struct outcome got, want;
    unsigned events;
    matrix_cases++;
    hear(c->stage);
    uint64_t before = told_head;
    upcall_seen.count = 0;
    upcall_verdict = c->verdict;
    running = c;
    run_row(c->stage, c->row, c->at, c->operand, c->row->cx, &got);
    hear(c->stage);
    uint64_t head = told_head;
    struct upcall_seen calls = upcall_seen;
    expect(c, 0, &want, &events);
    upcall_seen = calls;
    EXPECT(c, "number of events", head - before, events);
    if (head - before == events)
        expect(c, before + 1, &want, &events);
    if (c->action == PROTECT_UPCALL) {
        EXPECT(c, "number of upcalls", calls.count, events);
        for (unsigned i = 0; calls.count == 1 && events == 1 && i < MAX_ACCESSES; i++)
            if (c->row->access[i].kind && first_violated(c, i) >= 0) {
                check_frame(c, i);
                break;
            }
    }
    check_outcome(c, &got, &want);
}

/* ---- Commands, by whom the context belongs to ---------------------------------------------------
 */

static struct {
    unsigned door, op;
    uint64_t session, a0, a1;
} order;
static word give_order(word unused)
{
    (void)unused;
    return door_command(order.door, order.op, order.session, order.a0, order.a1);
}
static uint32_t stage_command(const struct stage *s, unsigned op, uint64_t a0, uint64_t a1)
{
    order.door = s->door, order.op = op, order.session = s->session, order.a0 = a0, order.a1 = a1;
    return (uint32_t)(s->by_user ? call_user(give_order, 0) : give_order(0));
}
static word get_result(word door)
{
    return (word)door_result((unsigned)door);
}

static void set_rule(struct matrix_case *c)
{
    static struct protect_rule rule;
    unsigned subject = c->stage->subject;
    rule = door_rule(c->region);
    rule.allow[subject] = (uint8_t)(PROTECT_ALL & ~c->forbidden);
    rule.action[subject] = (uint8_t)c->action;
    rule.fault = c->general ? PROTECT_FAULT_GENERAL : PROTECT_FAULT_PAGE;
    rule.value = SUBSTITUTE_VALUE;
    rule.notify = c->preimage ? PROTECT_NOTIFY_PREIMAGE : 0;
    EXPECT(c, "status of SET_RULES", stage_command(c->stage, PROTECT_OP_SET_RULES, (word)&rule, 1),
           PROTECT_OK);
}

/* ---- All of them --------------------------------------------------------------------------------
 */

/* The outcome with the protected bytes read as they would be, and not written. */
static void run_replaced(struct matrix_case *c, unsigned which)
{
    uint8_t operand[OPERAND_MAX];
    struct outcome *o = &c->replaced[which];
    memcpy(operand, c->operand, row_space(c->row));
    for (unsigned i = 0; i < row_length(c->row); i++)
        if (violated(c, i))
            operand[i] = which ? (uint8_t)(SUBSTITUTE_VALUE >> 8 * ((c->at + i) & 7)) : 0;
    run_row(c->stage, c->row, c->at, operand, c->row->cx, o);
    for (unsigned i = 0; i < row_length(c->row); i++)
        if (violated(c, i))
            o->operand[8 + i] = c->operand[i];
}

static bool reads_decide_control(const struct row *row)
{
    return row->memory != PATTERN && row->memory != BOUNDS && row->memory != LIKE_RAX &&
           row->memory != LIKE_RDX_RAX && row->memory != LIKE_RDX_RAX_64;
}

static void actions(struct matrix_case *c)
{
    static const uint8_t without[] = {PROTECT_DENY,       PROTECT_SUBSTITUTE, PROTECT_SKIP,
                                      PROTECT_ALLOW_ONCE, PROTECT_DEFERRED,   PROTECT_ALLOW,
                                      PROTECT_ASK_HOST,   PROTECT_DENY};
    static const uint8_t verdicts[] = {PROTECT_LET, PROTECT_DROP, PROTECT_GIVE, PROTECT_REFUSE};
    static unsigned turn;
    const uint8_t *list = c->stage->handler ? verdicts : without;
    unsigned count = c->stage->handler ? sizeof verdicts : sizeof without;
    for (unsigned i = 0; i < count; i++) {
        if (!matrix_thorough && i != turn % count)
            continue;
        c->action = c->stage->handler ? PROTECT_UPCALL : list[i];
        c->verdict = c->stage->handler ? list[i] : 0;
        c->general = i == count - 1 && !c->stage->handler;
        c->preimage = !(i & 1);
        bool replaces = c->action == PROTECT_SUBSTITUTE || c->action == PROTECT_SKIP ||
                        c->verdict == PROTECT_DROP || c->verdict == PROTECT_GIVE;
        if (replaces && reads_decide_control(c->row))
            continue;
        if (replaces && !c->have_replaced) {
            run_replaced(c, 0);
            run_replaced(c, 1);
            c->have_replaced = true;
        }
        run_case(c);
    }
    turn++;
}

/* Bytes `from` for `length`, counted from the operand. */
static void position(struct matrix_case *c, int from, unsigned length)
{
    static struct protect_region region;
    c->base = c->at + (word)from;
    c->length = length;
    region =
        (struct protect_region){.base = c->base, .length = length, .cookie = 0xc00c1e00 + length};
    EXPECT(c, "status of ADD_REGIONS",
           stage_command(c->stage, PROTECT_OP_ADD_REGIONS, (word)&region, 1), PROTECT_OK);
    c->region = c->stage->by_user ? (uint32_t)call_user(get_result, c->stage->door)
                                  : (uint32_t)door_result(c->stage->door);
    for (c->forbidden = 1; c->forbidden <= RW; c->forbidden++) {
        c->have_replaced = false;
        actions(c);
    }
    EXPECT(c, "status of REMOVE_REGIONS",
           stage_command(c->stage, PROTECT_OP_REMOVE_REGIONS, c->region, 1), PROTECT_OK);
}

static void positions(struct matrix_case *c)
{
    unsigned length = row_length(c->row), last = ~0u;
    for (unsigned i = 0; i < MAX_ACCESSES && (i == 0 || c->row->access[i].kind); i++) {
        const struct row_access *a = &c->row->access[i];
        position(c, a->offset, 1);
        if (a->length > 1)
            position(c, a->offset + a->length - 1, 1);
        if (a->length > 4 && a->length != last)
            position(c, a->offset + a->length / 2, 2);
        last = a->length;
    }
    position(c, 0, length);
    position(c, -1, 1);                       /* just before */
    position(c, (int)length, 1);              /* just behind */
    position(c, -24, 24 + row_space(c->row)); /* the neighbourhood, too */
}

static void one_row(const struct stage *s, const struct row *row)
{
    static struct matrix_case c;
    unsigned length = row_length(row), step = row->align ? row->align : 1;
    unsigned back = length > 1 ? (length / 2 + step - 1) / step * step : 0;
    word page = (word)arena + 4096;
    const word at[] = {page + 0x200, row->align ? 0 : page + 0x303, page + 4096 - back};
    for (unsigned i = 0; i < 3; i++) {
        if (!at[i] || (i == 2 && back == 0) || (i == 2 && back >= length))
            continue;
        c = (struct matrix_case){.stage = s, .row = row, .at = at[i]};
        fill_operand(s, row, at[i], c.operand);
        memcpy(pristine + (at[i] - (word)arena), c.operand, row_space(row));
        run_row(s, row, at[i], c.operand, row->cx, &c.plain);
        positions(&c);
        for (unsigned n = 0; n < OPERAND_MAX; n++)
            pristine[at[i] - (word)arena + n] = pattern((unsigned)(at[i] - (word)arena) + n);
    }
}

static void matrix_run(const struct stage *s)
{
    told_head = 0;
    hear(s);
    for (const struct row *row = s->rows; row->name; row++) {
        if (!have[row->vector] || (row->vendor && row->vendor != vendor) || (row->cpl0 && s->cpl) ||
            ((row->sp || row->bp) && s->no_stack))
            continue;
        one_row(s, row);
    }
    CHECK_EQ(matrix_wrong, 0);
    matrix_wrong = 0;
}

#endif
