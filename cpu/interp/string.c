/*
 * string.c - MOVS, STOS, LODS, CMPS, SCAS, alone and repeated (plain.h).
 *
 * SDM vol. 2, REP. Registers are committed after each iteration, so a fault in the middle leaves
 * those of the iterations that are done. Forward and backward runs inside one page on either side,
 * but of LODS, go at once where the view has both. After each page, and after so many single
 * iterations, the instruction lets go for interrupts: next_rip is then still its own address.
 */
#include "cpu/interp/block.h"
#include "cpu/interp/int_ops.h"
#include "cpu/interp/plain.h"
#include "cpu/mem_inline.h"
#include "cpu/opnd.h"
#include <string.h>

/* Iterations before others get their turn, when they go one by one. */
enum { PATIENCE = 4096 };

struct string_op {
    struct cpu *cpu;
    const struct insn *insn;
    unsigned size;
    unsigned src_seg;
    uint64_t step; /* size, or its negative with DF */
};

static struct string_op string_op(struct cpu *cpu, const struct insn *insn)
{
    struct string_op s = {.cpu = cpu, .insn = insn, .src_seg = insn->mem.seg};
    for (unsigned n = 0; n < insn->opnds; n++)
        if (insn->op[n].kind == OPND_STR_SRC || insn->op[n].kind == OPND_STR_DST)
            s.size = insn->op[n].size;
    s.step = cpu->rflags & RFLAGS_DF ? -(uint64_t)s.size : s.size;
    return s;
}

static uint64_t source(const struct string_op *s, unsigned size)
{
    return mem_linear(s->cpu, s->src_seg, opnd_gpr(s->cpu, RSI, s->insn->adsize), size,
                      ACCESS_READ);
}
static uint64_t destination(const struct string_op *s, unsigned size, unsigned kind)
{
    return mem_linear(s->cpu, SEG_ES, opnd_gpr(s->cpu, RDI, s->insn->adsize), size, kind);
}

/* An index register moves by `count` elements; 16-bit ones keep their upper part, 32-bit ones clear
 * it. */
static void advance(const struct string_op *s, unsigned reg, uint64_t count)
{
    uint64_t v = s->cpu->gpr[reg] + s->step * count;
    opnd_set_gpr(s->cpu, reg, s->insn->adsize, v);
}

/* ---- One iteration of each ------------------------------------------------------------------- */

typedef void iterate_fn(const struct string_op *s);

static uint64_t load_source(const struct string_op *s)
{
    return mem_load(s->cpu, s->src_seg, source(s, s->size), s->size);
}

static void movs(const struct string_op *s)
{
    uint64_t v = load_source(s);
    mem_store(s->cpu, SEG_ES, destination(s, s->size, ACCESS_WRITE), v, s->size);
    advance(s, RSI, 1);
    advance(s, RDI, 1);
}
static void stos(const struct string_op *s)
{
    mem_store(s->cpu, SEG_ES, destination(s, s->size, ACCESS_WRITE), s->cpu->gpr[RAX], s->size);
    advance(s, RDI, 1);
}
static void lods(const struct string_op *s)
{
    uint64_t v = load_source(s);
    opnd_set_gpr(s->cpu, RAX, s->size, v);
    advance(s, RSI, 1);
}
static void cmps(const struct string_op *s)
{
    /* Intel's processors read the second operand first, AMD's the first, which shows when both
     * would fault. */
    bool in_order = cpu_is_amd(s->cpu);
    uint64_t a = in_order ? load_source(s) : 0;
    uint64_t b = mem_load(s->cpu, SEG_ES, destination(s, s->size, ACCESS_READ), s->size);
    if (!in_order)
        a = load_source(s);
    op_sub(s->cpu, a, b, s->size);
    advance(s, RSI, 1);
    advance(s, RDI, 1);
}
static void scas(const struct string_op *s)
{
    uint64_t b = mem_load(s->cpu, SEG_ES, destination(s, s->size, ACCESS_READ), s->size);
    op_sub(s->cpu, opnd_gpr(s->cpu, RAX, s->size), b, s->size);
    advance(s, RDI, 1);
}

/* ---- Whole runs ------------------------------------------------------------------------------ */

/* Elements from `lin` on, in the direction of travel, that lie wholly in its page. */
static uint64_t run_in_page(const struct string_op *s, uint64_t lin)
{
    uint64_t at = lin & (PAGE_SIZE - 1);
    if (s->step == s->size)
        return (PAGE_SIZE - at) / s->size;
    return at + s->size <= PAGE_SIZE ? at / s->size + 1 : 0;
}

/* The lowest address of `count` elements that begin at lin. */
static uint64_t run_start(const struct string_op *s, uint64_t lin, uint64_t count)
{
    return s->step == s->size ? lin : lin - (count - 1) * s->size;
}

/* Segments whose offsets are linear addresses without further checks, and do not wrap inside a run.
 */
static bool runs_allowed(const struct string_op *s)
{
    if (s->cpu->blocks->single || s->cpu->mode & MODE_ALIGN)
        return false;
    return (s->cpu->mode & MODE_CODE64) && s->insn->adsize == 8
               ? true
               : (s->cpu->mode & MODE_FLAT) && s->insn->adsize == 4 && s->src_seg < SEG_FS;
}

/* Where runs are allowed. What is not canonical or not mapped is not in the view, so nothing is
 * raised here and the order of faults is that of the single iterations. */
static uint64_t flat_address(const struct string_op *s, unsigned reg, unsigned seg)
{
    return opnd_gpr(s->cpu, reg, s->insn->adsize) + s->cpu->seg_base[seg];
}

/* Copies element by element in the order of travel, for overlaps that are seen: REP MOVSB as a
 * fill. */
static void copy_elements(const struct string_op *s, char *to, const char *from, uint64_t count)
{
    int64_t step = (int64_t)s->step;
    for (; count; count--, to += step, from += step)
        mem_host_store(to, mem_host_load(from, s->size), s->size);
}

MEM_RACY static inline void host_move(void *to, const void *from, size_t len)
{
    memmove(to, from, len);
}

/* Of `count` elements at both addresses, those that lie in one page each. */
static uint64_t run_in_pages(const struct string_op *s, uint64_t from, uint64_t to, uint64_t count)
{
    uint64_t n = run_in_page(s, from), m = run_in_page(s, to);
    n = n < m ? n : m;
    return n < count ? n : count;
}

/* How far the first of `n` elements, in the direction of travel, is from the lowest one. */
static uint64_t first_offset(const struct string_op *s, uint64_t n)
{
    return s->step == s->size ? 0 : (n - 1) * s->size;
}

/* How many elements were moved at once; 0: none, go one by one. */
static uint64_t movs_run(const struct string_op *s, uint64_t count)
{
    struct cpu *cpu = s->cpu;
    uint64_t from = flat_address(s, RSI, s->src_seg), to = flat_address(s, RDI, SEG_ES);
    uint64_t n = run_in_pages(s, from, to, count);
    if (n < 2)
        return 0;
    uint64_t len = n * s->size;
    char *src = mem_hit(cpu, run_start(s, from, n), 1, ACCESS_READ);
    char *dst = mem_hit(cpu, run_start(s, to, n), 1, ACCESS_WRITE);
    if (!src || !dst)
        return 0;
    /* What is read later must not have been written by this run; else the order is seen. */
    bool forward = s->step == s->size;
    bool seen = forward ? dst > src && dst < src + len : dst < src && src < dst + len;
    if (seen) {
        uint64_t back = first_offset(s, n);
        copy_elements(s, dst + back, src + back, n);
    } else {
        host_move(dst, src, len);
    }
    advance(s, RSI, n);
    advance(s, RDI, n);
    return n;
}

MEM_RACY static inline void host_fill(char *to, uint64_t value, unsigned size, uint64_t count)
{
    if (size == 1 || value == 0) {
        memset(to, (int)(value & 0xff), count * size);
        return;
    }
    for (; count; count--, to += size)
        memcpy(to, &value, size);
}

static uint64_t stos_run(const struct string_op *s, uint64_t count)
{
    uint64_t to = flat_address(s, RDI, SEG_ES), n = run_in_page(s, to);
    n = n < count ? n : count;
    char *dst = n ? mem_hit(s->cpu, run_start(s, to, n), 1, ACCESS_WRITE) : 0;
    if (!dst)
        return 0;
    host_fill(dst, opnd_gpr(s->cpu, RAX, s->size), s->size, n);
    advance(s, RDI, n);
    return n;
}

/* Elements of `size` bytes at a and at b, in steps of `step` bytes, or at a and a value: how many
 * come before the first one that differs, or that is equal. */
MEM_RACY static inline uint64_t alike(const char *a, const char *b, unsigned size, int64_t step,
                                      uint64_t count, bool equal)
{
    uint64_t n = 0, x, y;
    if (equal && step > 0)
        for (; (count - n) * size >= sizeof x; n += sizeof x / size) {
            memcpy(&x, a + n * size, sizeof x);
            memcpy(&y, b + n * size, sizeof y);
            if (x != y)
                break;
        }
    for (a += (int64_t)n * step, b += (int64_t)n * step; n < count; n++, a += step, b += step)
        if ((mem_host_load(a, size) == mem_host_load(b, size)) != equal)
            break;
    return n;
}
MEM_RACY static inline uint64_t alike_value(const char *a, uint64_t value, unsigned size,
                                            int64_t step, uint64_t count, bool equal)
{
    uint64_t n = 0;
    if (!equal && size == 1 && step > 0) {
        const char *found = memchr(a, (int)(value & 0xff), count);
        return found ? (uint64_t)(found - a) : count;
    }
    for (; n < count; n++, a += step)
        if ((mem_host_load(a, size) == value) != equal)
            break;
    return n;
}

/* The last one that is compared, which ends the run or may end the instruction, gives the flags. */
static uint64_t cmps_run(const struct string_op *s, uint64_t count)
{
    struct cpu *cpu = s->cpu;
    uint64_t from = flat_address(s, RSI, s->src_seg), to = flat_address(s, RDI, SEG_ES);
    uint64_t n = run_in_pages(s, from, to, count);
    int64_t step = (int64_t)s->step;
    const char *a = n ? mem_hit(cpu, run_start(s, from, n), 1, ACCESS_READ) : NULL;
    const char *b = n ? mem_hit(cpu, run_start(s, to, n), 1, ACCESS_READ) : NULL;
    if (!a || !b)
        return 0;
    a += first_offset(s, n);
    b += first_offset(s, n);
    uint64_t last = alike(a, b, s->size, step, n - 1, s->insn->rep == 0xf3);
    op_sub(cpu, mem_host_load(a + (int64_t)last * step, s->size),
           mem_host_load(b + (int64_t)last * step, s->size), s->size);
    advance(s, RSI, last + 1);
    advance(s, RDI, last + 1);
    return last + 1;
}

static uint64_t scas_run(const struct string_op *s, uint64_t count)
{
    struct cpu *cpu = s->cpu;
    uint64_t to = flat_address(s, RDI, SEG_ES), n = run_in_page(s, to);
    uint64_t value = opnd_gpr(cpu, RAX, s->size);
    int64_t step = (int64_t)s->step;
    n = n < count ? n : count;
    const char *b = n ? mem_hit(cpu, run_start(s, to, n), 1, ACCESS_READ) : NULL;
    if (!b)
        return 0;
    b += first_offset(s, n);
    uint64_t last = alike_value(b, value, s->size, step, n - 1, s->insn->rep == 0xf3);
    op_sub(cpu, value, mem_host_load(b + (int64_t)last * step, s->size), s->size);
    advance(s, RDI, last + 1);
    return last + 1;
}

/* ---- REP ------------------------------------------------------------------------------------- */

typedef uint64_t run_fn(const struct string_op *s, uint64_t count);

static void set_count(const struct string_op *s, uint64_t count)
{
    opnd_set_gpr(s->cpu, RCX, s->insn->adsize, count);
}

/* Conditions of REPE and REPNE; others go on until rCX is 0. */
static bool ends_early(const struct string_op *s)
{
    if (!(s->insn->row->attr & INSN_REPCC))
        return false;
    return cc_zero(s->cpu) != (s->insn->rep == 0xf3);
}

static void repeat(struct cpu *cpu, const struct insn *insn, iterate_fn *iterate, run_fn *run)
{
    struct string_op s = string_op(cpu, insn);
    if (!insn->rep) {
        iterate(&s);
        return;
    }
    uint64_t self = cpu->rip, count = opnd_gpr(cpu, RCX, insn->adsize);
    if (count == 0)
        return;
    bool runs = run && runs_allowed(&s);
    /* A fault in a later iteration, an interrupt and a single step show the flags from before the
     * instruction on Intel's processors (SDM vol. 2, REP), those of the iteration before on AMD's.
     */
    bool rewinds = (insn->row->attr & INSN_REPCC) && !cpu_is_amd(cpu);
    struct cc_state before = cc_save(cpu);
    for (unsigned patience = PATIENCE;;) {
        uint64_t done = runs ? run(&s, count) : 0;
        if (done == 0) {
            iterate(&s);
            done = 1;
        }
        count -= done;
        set_count(&s, count);
        if (count == 0 || ends_early(&s))
            return;
        if (rewinds)
            cc_restore(cpu, &before);
        if (cpu->blocks->single || interp_attention(cpu) || --patience == 0) {
            cpu->next_rip = self;
            return;
        }
    }
}

void plain_movs(struct cpu *cpu, const struct insn *insn)
{
    repeat(cpu, insn, movs, movs_run);
}
void plain_stos(struct cpu *cpu, const struct insn *insn)
{
    /* Seen on processors: with REP and 32-bit addresses RDI is cut before anything can fault. */
    if (insn->rep && insn->adsize == 4)
        cpu->gpr[RDI] = (uint32_t)cpu->gpr[RDI];
    repeat(cpu, insn, stos, stos_run);
}
void plain_lods(struct cpu *cpu, const struct insn *insn)
{
    repeat(cpu, insn, lods, 0);
}
void plain_cmps(struct cpu *cpu, const struct insn *insn)
{
    repeat(cpu, insn, cmps, cmps_run);
}
void plain_scas(struct cpu *cpu, const struct insn *insn)
{
    repeat(cpu, insn, scas, scas_run);
}
