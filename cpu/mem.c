/*
 * mem.c - guest memory as instructions see it (mem.h): segmentation, and the slow path of accesses.
 *
 * SDM vol. 3, ch. 3 (segmentation), 5.3 (limit checks), 4.1 (paging), 17.2 (debug registers); vol.
 * 1, 3.3.7.1 (canonical addressing).
 */
#include "cpu/mem.h"
#include "cpu/guard.h"
#include "cpu/mem_inline.h"
#include "cpu/mem_internal.h"
#include <stdatomic.h>

#define PAGE_OFFSET(lin) ((lin) & (PAGE_SIZE - 1))

/* ---- Segmentation ------------------------------------------------------------------------------
 */

static _Noreturn void raise_segment(struct cpu *cpu, unsigned seg)
{
    cpu_raise_error(cpu, seg == SEG_SS ? VECTOR_SS : VECTOR_GP, 0);
}

/* Does the segment allow the access at all: presence and type (protected mode only; in real and
 * virtual-8086 mode segments are always read/write data). */
static bool segment_allows(const struct segment *s, unsigned kind)
{
    unsigned type = s->attr & SEG_ATTR_TYPE;
    bool code = type & 8, readable_or_writable = type & 2;
    if (!(s->attr & SEG_ATTR_P))
        return false; /* a null selector was loaded */
    if (kind & ACCESS_WRITE)
        return !code && readable_or_writable;
    return !code || readable_or_writable;
}

static bool within_limit(const struct segment *s, uint64_t offset, unsigned size)
{
    uint64_t last = offset + (size ? size - 1 : 0);
    bool expand_down = (s->attr & 0xc) == 4;
    /* With 4 GiB, what crosses the end may or may not fault (SDM vol. 3, 5.3): it wraps, as in the
     * flat segments of the fast paths. */
    if (!expand_down)
        return last <= s->limit || (s->limit == 0xffffffff && offset <= s->limit);
    return offset > s->limit && last <= (s->attr & SEG_ATTR_DB ? 0xffffffffu : 0xffffu);
}

uint64_t mem_linear(struct cpu *cpu, unsigned seg, uint64_t offset, unsigned size, unsigned kind)
{
    if (cpu->mode & MODE_CODE64) {
        uint64_t lin = offset + cpu->seg_base[seg];
        if (!is_canonical(lin) || !is_canonical(lin + (size ? size - 1 : 0)))
            raise_segment(cpu, seg);
        return lin;
    }
    if (seg == SEG_NONE)
        return (uint32_t)offset;
    const struct segment *s = &cpu->seg[seg];
    if ((cpu->mode & MODE_PROT) && !segment_allows(s, kind))
        raise_segment(cpu, seg);
    if (!within_limit(s, offset, size))
        raise_segment(cpu, seg);
    return (uint32_t)(s->base + offset);
}

static uint64_t base_or_index(const struct cpu *cpu, unsigned reg)
{
    return reg == REG_NONE ? 0 : cpu->gpr[reg];
}

uint64_t mem_effective(struct cpu *cpu, const struct insn *insn)
{
    const struct insn_mem *m = &insn->mem;
    uint64_t ea = m->disp;
    ea += m->base == REG_PC ? cpu->rip + insn->len : base_or_index(cpu, m->base);
    if (!m->vsib)
        ea += base_or_index(cpu, m->index) << m->scale;
    return insn->adsize == 8 ? ea : insn->adsize == 4 ? (uint32_t)ea : (uint16_t)ea;
}

uint64_t mem_operand(struct cpu *cpu, const struct insn *insn, unsigned size, unsigned kind)
{
    return mem_linear(cpu, insn->mem.seg, mem_effective(cpu, insn), size, kind);
}

uint64_t mem_operand_behind(struct cpu *cpu, const struct insn *insn, unsigned first, unsigned size,
                            unsigned kind)
{
    uint64_t ea = mem_effective(cpu, insn) + first;

    if (insn->adsize != 8)
        ea = insn->adsize == 4 ? (uint32_t)ea : (uint16_t)ea;
    return mem_linear(cpu, insn->mem.seg, ea, size, kind);
}

/* ---- Checks before an access ----------------------------------------------------------------- */

struct access mem_access(const struct cpu *cpu, enum mmu_priv priv)
{
    return (struct access){
        .initiator = priv == MMU_USER ? INITIATOR_VCPU_USER : INITIATOR_VCPU_KERNEL,
        .vcpu = (uint16_t)cpu->index,
        .cpl = cpu->cpl,
        .cr3 = cpu->cr3,
        .rip = cpu->rip,
    };
}

/* Linear addresses wrap at 4 GiB outside 64-bit code, except those of system tables above it in
 * long mode; in long mode they must be canonical. */
static void check_linear(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    if ((cpu->mode & MODE_LONG) && (!is_canonical(lin) || !is_canonical(lin + size - 1)))
        raise_segment(cpu, seg);
}

static uint64_t wrap_linear(const struct cpu *cpu, uint64_t lin)
{
    return cpu->mode & MODE_LONG ? lin : (uint32_t)lin;
}

/* The address of the page behind the one that `lin` is in. */
static uint64_t next_page(const struct cpu *cpu, uint64_t lin)
{
    uint64_t next = (lin & PAGE_MASK) + PAGE_SIZE;
    return cpu->mode & MODE_CODE64 || lin > 0xffffffff ? next : (uint32_t)next;
}

void mem_check_alignment(struct cpu *cpu, uint64_t lin, unsigned size)
{
    bool natural = size == 2 || size == 4 || size == 8;
    if ((cpu->mode & MODE_ALIGN) && natural && (lin & (size - 1)))
        cpu_raise_error(cpu, VECTOR_AC, 0);
}

/* DR7.R/W and LEN of breakpoint n: SDM vol. 3, 17.2.4. Breakpoints are traps, so this comes after
 * the access; the run loop looks at debug_pending when the instruction is over. */
void mem_check_breakpoints(struct cpu *cpu, uint64_t lin, unsigned size, unsigned kind)
{
    if (!cpu->data_breakpoints)
        return;
    static const uint8_t lengths[4] = {1, 2, 8, 4};
    for (unsigned n = 0; n < 4; n++) {
        unsigned control = (cpu->dr[7] >> (16 + 4 * n)) & 0xf, rw = control & 3;
        if (!((cpu->dr[7] >> (2 * n)) & 3) || (rw != 1 && rw != 3))
            continue;
        if (rw == 1 && !(kind & ACCESS_WRITE))
            continue;
        uint64_t len = lengths[control >> 2], at = cpu->dr[n] & ~(len - 1);
        if (lin - at < len || at - lin < size) { /* either may end at 2^64 */
            cpu->debug_pending |= 1u << n;
            cpu->attention |= CPU_REQ_DEBUG;
            atomic_fetch_or_explicit(&cpu->request, CPU_REQ_DEBUG, memory_order_relaxed);
        }
    }
}

void mem_translate(struct cpu *cpu, const struct access *access, uint64_t lin,
                   enum access_kind kind, enum mmu_priv priv, struct mmu_xlat *x)
{
    if (mmu_translate(&cpu->mmu, access, lin, kind, priv, x) != MMU_OK)
        cpu_raise_page_fault(cpu, lin, x->walk.error_code);
}

/* ---- Accesses -------------------------------------------------------------------------------- */

/* The pieces of an access that are each inside one page: one or two. */
struct span {
    struct mmu_xlat x[2];
    uint64_t lin[2];
    unsigned size[2], count;
};

/* Translates all of [lin, lin + size) for `kind`, raising what there is to raise. */
static void translate_span(struct cpu *cpu, const struct access *access, uint64_t lin,
                           unsigned size, enum access_kind kind, enum mmu_priv priv, struct span *s)
{
    unsigned first = (unsigned)(PAGE_SIZE - PAGE_OFFSET(lin));
    s->lin[0] = lin;
    s->count = first < size ? 2 : 1;
    s->size[0] = s->count == 2 ? first : size;
    mem_translate(cpu, access, lin, kind, priv, &s->x[0]);
    if (s->count == 1)
        return;
    s->lin[1] = next_page(cpu, lin);
    s->size[1] = size - first;
    mem_translate(cpu, access, s->lin[1], kind, priv, &s->x[1]);
    /* Filling the second page may have waited for other vCPUs, who may have made the first one's
     * frame slow to write; asking again is a view hit, and does not wait. */
    mem_translate(cpu, access, lin, kind, priv, &s->x[0]);
}

static unsigned span_pieces(const struct span *s, struct guard_piece piece[2])
{
    for (unsigned i = 0; i < s->count; i++)
        piece[i] = (struct guard_piece){s->x[i].gpa, s->size[i]};
    return s->count;
}

/* Where protection rules may have a say: has the instruction run under guard when they do. */
static void ask_rules(struct cpu *cpu, const struct access *access, const struct span *s,
                      unsigned kind)
{
    for (unsigned i = 0; i < s->count; i++)
        if (s->x[i].ruled && guard_wanted(cpu, access, s->x[i].gpa, s->size[i], kind))
            guard_trap(cpu);
}

static void span_read(struct cpu *cpu, struct access *access, const struct span *s, void *buf,
                      enum mmu_priv priv)
{
    struct guard_piece piece[2];
    if (guard_active(cpu)) {
        guard_read(cpu, access, piece, span_pieces(s, piece), priv, buf);
        return;
    }
    ask_rules(cpu, access, s, ACCESS_READ);
    access->judged = true;
    for (unsigned i = 0; i < s->count; i++) {
        const struct mmu_xlat *x = &s->x[i];
        if (x->hva)
            mem_host_read_wide(buf, x->hva, s->size[i]);
        else
            phys_read(cpu->map, access, x->gpa, buf, s->size[i]);
        buf = (char *)buf + s->size[i];
    }
}

static void span_write(struct cpu *cpu, struct access *access, const struct span *s,
                       const void *buf, enum mmu_priv priv)
{
    struct guard_piece piece[2];
    if (guard_active(cpu)) {
        guard_write(cpu, access, piece, span_pieces(s, piece), priv, buf);
        return;
    }
    ask_rules(cpu, access, s, ACCESS_WRITE);
    access->judged = true;
    for (unsigned i = 0; i < s->count; i++) {
        const struct mmu_xlat *x = &s->x[i];
        if (x->hva)
            mem_host_write_wide(x->hva, buf, s->size[i]);
        else
            phys_write(cpu->map, access, x->gpa, buf, s->size[i]);
        buf = (const char *)buf + s->size[i];
    }
}

static void read_as(struct cpu *cpu, struct access *access, unsigned seg, uint64_t lin, void *buf,
                    unsigned size, enum mmu_priv priv)
{
    struct span s;
    check_linear(cpu, seg, lin, size);
    access->gva = lin;
    translate_span(cpu, access, lin, size, ACCESS_READ, priv, &s);
    span_read(cpu, access, &s, buf, priv);
    mem_check_breakpoints(cpu, lin, size, ACCESS_READ);
}

static void write_as(struct cpu *cpu, struct access *access, unsigned seg, uint64_t lin,
                     const void *buf, unsigned size, enum mmu_priv priv)
{
    struct span s;
    check_linear(cpu, seg, lin, size);
    access->gva = lin;
    translate_span(cpu, access, lin, size, ACCESS_WRITE, priv, &s);
    span_write(cpu, access, &s, buf, priv);
    mem_check_breakpoints(cpu, lin, size, ACCESS_WRITE);
}

void mem_read_unaligned(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned size)
{
    void *p = mem_hit(cpu, lin, size, ACCESS_READ);
    if (p) {
        mem_host_read_wide(buf, p, size);
        return;
    }
    struct access access = mem_access(cpu, cpu->priv);
    read_as(cpu, &access, seg, lin, buf, size, cpu->priv);
}

void mem_write_unaligned(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf,
                         unsigned size)
{
    void *p = mem_hit(cpu, lin, size, ACCESS_WRITE);
    if (p) {
        mem_host_write_wide(p, buf, size);
        return;
    }
    struct access access = mem_access(cpu, cpu->priv);
    write_as(cpu, &access, seg, lin, buf, size, cpu->priv);
}

void mem_read(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned size)
{
    mem_check_alignment(cpu, lin, size);
    mem_read_unaligned(cpu, seg, lin, buf, size);
}

void mem_write(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned size)
{
    mem_check_alignment(cpu, lin, size);
    mem_write_unaligned(cpu, seg, lin, buf, size);
}

void mem_read_far_pointer(struct cpu *cpu, const struct insn *insn, void *buf, unsigned size)
{
    uint64_t lin = mem_operand(cpu, insn, size, ACCESS_READ);
    unsigned seg = insn->mem.seg;

    /* Seen on processors: the selector is checked when the offset has been read. */
    mem_read(cpu, seg, lin, buf, size);
    lin = mem_operand_behind(cpu, insn, size, 2, ACCESS_READ);
    mem_read_unaligned(cpu, seg, lin, (char *)buf + size, 2);
}

static void probe_write_as(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                           enum mmu_priv priv)
{
    if (mmu_view_lookup(&cpu->mmu, priv, lin, size, ACCESS_WRITE))
        return;
    struct access access = mem_access(cpu, priv);
    struct guard_piece piece[2];
    struct span s;
    check_linear(cpu, seg, lin, size);
    access.gva = lin;
    translate_span(cpu, &access, lin, size, ACCESS_WRITE, priv, &s);
    if (guard_active(cpu))
        guard_probe(cpu, &access, piece, span_pieces(&s, piece), priv);
    else
        ask_rules(cpu, &access, &s, ACCESS_WRITE);
}

void mem_probe_write_unaligned(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    probe_write_as(cpu, seg, lin, size, cpu->priv);
}

void mem_probe_write(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    mem_check_alignment(cpu, lin, size);
    probe_write_as(cpu, seg, lin, size, cpu->priv);
}

/* ---- With another privilege ------------------------------------------------------------------ */

static struct access system_access(const struct cpu *cpu, bool event)
{
    struct access access = mem_access(cpu, MMU_SUPERVISOR); /* also for MMU_SUPERVISOR_AC */
    if (event)
        access.initiator = INITIATOR_EVENT;
    return access;
}

void mem_sys_read(struct cpu *cpu, uint64_t lin, void *buf, unsigned size, bool event)
{
    const void *p =
        mmu_view_lookup(&cpu->mmu, MMU_SUPERVISOR, wrap_linear(cpu, lin), size, ACCESS_READ);
    if (p) {
        mem_host_read_wide(buf, p, size);
        return;
    }
    struct access access = system_access(cpu, event);
    read_as(cpu, &access, SEG_NONE, wrap_linear(cpu, lin), buf, size, MMU_SUPERVISOR);
}

static void system_write(struct cpu *cpu, uint64_t lin, const void *buf, unsigned size, bool event,
                         enum mmu_priv priv)
{
    void *p = mmu_view_lookup(&cpu->mmu, priv, wrap_linear(cpu, lin), size, ACCESS_WRITE);
    if (p) {
        mem_host_write_wide(p, buf, size);
        return;
    }
    struct access access = system_access(cpu, event);
    write_as(cpu, &access, SEG_NONE, wrap_linear(cpu, lin), buf, size, priv);
}

void mem_sys_write(struct cpu *cpu, uint64_t lin, const void *buf, unsigned size, bool event)
{
    system_write(cpu, lin, buf, size, event, MMU_SUPERVISOR);
}

void mem_event_push(struct cpu *cpu, uint64_t lin, const void *buf, unsigned size,
                    enum mmu_priv priv)
{
    system_write(cpu, lin, buf, size, true, priv);
}

void mem_priv_read(struct cpu *cpu, unsigned seg, uint64_t lin, void *buf, unsigned size,
                   enum mmu_priv priv)
{
    struct access access = mem_access(cpu, priv);
    read_as(cpu, &access, seg, lin, buf, size, priv);
}

void mem_priv_write(struct cpu *cpu, unsigned seg, uint64_t lin, const void *buf, unsigned size,
                    enum mmu_priv priv)
{
    struct access access = mem_access(cpu, priv);
    write_as(cpu, &access, seg, lin, buf, size, priv);
}

void mem_priv_probe_write(struct cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                          enum mmu_priv priv)
{
    probe_write_as(cpu, seg, lin, size, priv);
}

/* ---- Code ------------------------------------------------------------------------------------ */

unsigned mem_fetch_page(struct cpu *cpu, uint64_t rip, struct mmu_xlat *x)
{
    uint64_t lin = rip, avail = PAGE_SIZE;
    if (cpu->mode & MODE_CODE64) {
        if (!is_canonical(rip))
            cpu_raise_error(cpu, VECTOR_GP, 0);
    } else {
        uint64_t limit = cpu->seg[SEG_CS].limit;
        if (rip > limit)
            cpu_raise_error(cpu, VECTOR_GP, 0);
        avail = limit - rip + 1;
        lin = (uint32_t)(cpu->seg[SEG_CS].base + rip);
    }
    enum mmu_priv priv = mem_cpl_priv(cpu);
    struct access access = mem_access(cpu, priv);
    mem_translate(cpu, &access, lin, ACCESS_EXEC, priv, x);
    uint64_t in_page = PAGE_SIZE - PAGE_OFFSET(lin);
    return (unsigned)(avail < in_page ? avail : in_page);
}

unsigned mem_fetch(struct cpu *cpu, uint64_t rip, uint8_t *buf, unsigned want, uint64_t *gpa)
{
    struct mmu_xlat x;
    unsigned avail = mem_fetch_page(cpu, rip, &x);
    unsigned n = want < avail ? want : avail;
    *gpa = x.gpa;
    cpu->fetch_ruled |= x.ruled; /* for execute_step(), which knows how many bytes are executed */
    if (x.hva) {
        mem_host_read_wide(buf, x.hva, n);
        return n;
    }
    struct access access = mem_access(cpu, mem_cpl_priv(cpu));
    access.judged = true;
    phys_read(cpu->map, &access, x.gpa, buf, n);
    return n;
}

/* ---- Without raising ------------------------------------------------------------------------- */

bool mem_peek(struct cpu *cpu, uint64_t lin, void *buf, size_t len)
{
    struct access access = mem_access(cpu, MMU_SUPERVISOR_AC);
    struct paging paging = cpu->mmu.paging;
    access.initiator = INITIATOR_DEBUGGER;
    access.judged = true; /* our own look at the guest */
    paging.pkru = 0;      /* at code, mostly, and keys are for data (SDM vol. 3, 4.6.2) */
    while (len) {
        struct walk walk;
        lin = wrap_linear(cpu, lin);
        if ((cpu->mode & MODE_LONG) && !is_canonical(lin))
            return false;
        if (!mmu_walk(cpu->map, &paging, &access, lin, ACCESS_READ, MMU_SUPERVISOR_AC, true, &walk))
            return false;
        size_t in_page = PAGE_SIZE - PAGE_OFFSET(lin), n = len < in_page ? len : in_page;
        if (phys_read(cpu->map, &access, walk.gpa, buf, n) != PHYS_OK)
            return false;
        lin += n;
        buf = (char *)buf + n;
        len -= n;
    }
    return true;
}
