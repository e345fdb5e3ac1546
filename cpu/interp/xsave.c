/*
 * xsave.c - FXSAVE, FXRSTOR, the XSAVE family, LDMXCSR and STMXCSR (SDM vol. 1, 10.5 and chapter
 * 13).
 *
 * State components: x87, SSE, AVX and PKRU, as XCR0 and the CPU model allow; there are none of
 * IA32_XSS. The pointers FIP and FDP are the guest's own; FCS and FDS are zero on Intel's
 * processors.
 */
#include "cpu/interp/vec_internal.h"
#include "cpu/interp/x87.h"
#include "cpu/sys/sys.h"

enum { LEGACY_SIZE = 512, XMM_OFFSET = 160, X87_ST_OFFSET = 32, MXCSR_OFFSET = 24 };
enum { XSAVE_ALIGNMENT = 64 };
enum { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT, XSAVE_SUPERVISOR }; /* exec_arg */
#define XCOMP_COMPACTED (1ull << 63)

/* ---- Areas in guest memory ------------------------------------------------------------------- */

/* A part of the area to be written. An area is proved writable part by part before the first byte
 * is stored: a fault in the middle must leave nothing behind. */
struct part {
    unsigned offset, size;
    const void *from;
};
struct area {
    struct cpu *cpu;
    unsigned seg;
    uint64_t lin;
    /* Where all of it is in pages of the view: [0, split) and the rest; or NULL. */
    uint8_t *host[2];
    unsigned split;
    struct part parts[8];
    unsigned count;
};

/* Kernels save and load an area at each switch between programs. With host addresses of all of it
 * no access has anything to ask, and there is nothing to be proved first. */
static void find_host(struct area *area, unsigned size, enum access_kind kind)
{
    struct cpu *cpu = area->cpu;
    unsigned room = (unsigned)(PAGE_SIZE - (area->lin & ~PAGE_MASK));
    uint8_t *first, *second;
    if (!(cpu->mode & MODE_CODE64) || (cpu->mode & MODE_ALIGN))
        return;
    first = second = mem_hit(cpu, area->lin, size < room ? size : room, kind);
    if (size > room)
        second = mem_hit(cpu, area->lin + room, size - room, kind);
    if (!first || !second)
        return;
    area->split = room;
    area->host[0] = first;
    area->host[1] = second;
}

/* Raises #GP(0) unless the area is aligned. `size` is only for the segment's limit; no more than
 * `most` bytes will be used. AMD's processors look at the alignment of an XSAVE area before
 * anything else. */
static void open_area(struct area *area, struct cpu *cpu, const struct insn *insn, unsigned size,
                      unsigned most, unsigned alignment, enum access_kind kind)
{
    uint64_t unchecked = cpu->seg_base[insn->mem.seg] + mem_effective(cpu, insn);
    area->cpu = cpu;
    area->seg = insn->mem.seg;
    area->count = 0;
    area->host[0] = NULL;
    if (alignment == XSAVE_ALIGNMENT && cpu_is_amd(cpu) && (unchecked & (alignment - 1)))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    area->lin = mem_operand(cpu, insn, size, kind);
    if (area->lin & (alignment - 1))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    find_host(area, most, kind);
}

/* The piece of [offset, offset + size) that is in one page. */
static unsigned host_size(const struct area *area, unsigned offset, unsigned size)
{
    unsigned room = area->split - offset;
    return offset < area->split && room < size ? room : size;
}
static uint8_t *host_at(const struct area *area, unsigned offset)
{
    return offset < area->split ? area->host[0] + offset : area->host[1] + (offset - area->split);
}

static void write_host(const struct area *area)
{
    for (unsigned i = 0; i < area->count; i++) {
        const struct part *part = &area->parts[i];
        for (unsigned at = 0, n; at < part->size; at += n) {
            n = host_size(area, part->offset + at, part->size - at);
            mem_host_write_wide(host_at(area, part->offset + at), (const uint8_t *)part->from + at,
                                n);
        }
    }
}

static void add_part(struct area *area, unsigned offset, const void *from, unsigned size)
{
    area->parts[area->count++] = (struct part){offset, size, from};
}

static unsigned chunk_size(unsigned left)
{
    return left < 64 ? left : 64;
}

static void write_parts(const struct area *area)
{
    struct cpu *cpu = area->cpu;
    if (area->host[0]) {
        write_host(area);
        return;
    }
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < area->count; i++) {
            const struct part *part = &area->parts[i];
            for (unsigned at = 0; at < part->size; at += 64) {
                uint64_t lin = x87_wrap(cpu, area->lin + part->offset + at);
                unsigned size = chunk_size(part->size - at);
                if (pass == 0)
                    mem_probe_write(cpu, area->seg, lin, size);
                else
                    mem_write(cpu, area->seg, lin, (const uint8_t *)part->from + at, size);
            }
        }
    }
}

static void read_part(const struct area *area, unsigned offset, void *to, unsigned size)
{
    for (unsigned at = 0, n; area->host[0] && at < size; at += n) {
        n = host_size(area, offset + at, size - at);
        mem_host_read_wide((uint8_t *)to + at, host_at(area, offset + at), n);
    }
    if (area->host[0])
        return;
    for (unsigned at = 0; at < size; at += 64)
        mem_read(area->cpu, area->seg, x87_wrap(area->cpu, area->lin + offset + at),
                 (uint8_t *)to + at, chunk_size(size - at));
}

/* ---- The legacy region ----------------------------------------------------------------------- */

static void put(uint8_t *image, unsigned at, uint64_t value, unsigned size)
{
    memcpy(image + at, &value, size);
}
static uint64_t get(const uint8_t *image, unsigned at, unsigned size)
{
    uint64_t value = 0;
    memcpy(&value, image + at, size);
    return value;
}

/* REX.W in 64-bit code: FIP and FDP have 64 bits and no selectors. */
static bool wide_pointers(const struct insn *insn)
{
    return insn->code == 64 && (insn->rex & 8);
}

static unsigned vector_registers(const struct insn *insn)
{
    return insn->code == 64 ? 16 : 8;
}

static void put_pointers(const struct x87 *x87, const struct insn *insn, uint8_t *image)
{
    put(image, 6, x87->fop, 2);
    put(image, 8, x87->fip, 8);
    put(image, 16, x87->fdp, 8);
    if (!wide_pointers(insn)) {
        put(image, 12, x87->fcs, 4);
        put(image, 20, x87->fds, 4);
    }
}

static void put_x87(const struct cpu *cpu, const struct insn *insn, uint8_t *image)
{
    const struct x87 *x87 = &cpu->x87;
    memset(image, 0, MXCSR_OFFSET);
    put(image, 0, x87->fcw, 2);
    put(image, 2, x87->fsw, 2);
    put(image, 4, x87_abridged_tags(x87->ftw), 2);
    if (x87_shows_pointers(cpu)) /* else the zeros stay */
        put_pointers(x87, insn, image);
    memcpy(image + X87_ST_OFFSET, x87->st, sizeof(x87->st));
    for (unsigned i = 0; i < 8; i++) /* 80 of 128 bits count */
        memset(image + X87_ST_OFFSET + 16 * i + 10, 0, 6);
}

/* AMD's processors make what they load into FIP and FDP canonical. */
static uint64_t pointer(const struct cpu *cpu, uint64_t value)
{
    return cpu_is_amd(cpu) ? (uint64_t)((int64_t)(value << 16) >> 16) : value;
}

static void get_x87(struct cpu *cpu, const struct insn *insn, const uint8_t *image)
{
    struct x87 *x87 = &cpu->x87;
    bool wide = wide_pointers(insn), selectors = !wide && cpu_is_amd(cpu);
    x87->fcw = (uint16_t)((get(image, 0, 2) & X87_FCW_VALID) | X87_FCW_ONES);
    x87->fsw = (uint16_t)get(image, 2, 2);
    x87->ftw = x87_tags_from_abridged(image[4]);
    x87->fop = (uint16_t)get(image, 6, 2) & 0x7ff;
    x87->fip = pointer(cpu, get(image, 8, wide ? 8 : 4));
    x87->fdp = pointer(cpu, get(image, 16, wide ? 8 : 4));
    x87->fcs = selectors ? (uint16_t)get(image, 12, 2) : 0;
    x87->fds = selectors ? (uint16_t)get(image, 20, 2) : 0;
    memcpy(x87->st, image + X87_ST_OFFSET, sizeof(x87->st));
    for (unsigned i = 0; i < 8; i++)
        memset(x87->st[i] + 10, 0, 6);
    x87_update_es(x87);
}

static void put_mxcsr(const struct cpu *cpu, uint8_t *image)
{
    put(image, MXCSR_OFFSET, cpu->mxcsr, 4);
    put(image, MXCSR_OFFSET + 4, mxcsr_valid(cpu), 4);
}

static uint32_t checked_mxcsr(struct cpu *cpu, uint64_t value)
{
    if (value & ~(uint64_t)mxcsr_valid(cpu))
        cpu_raise_error(cpu, VECTOR_GP, 0);
    return (uint32_t)value;
}

static void put_xmm(const struct cpu *cpu, unsigned count, uint8_t *image)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(image + XMM_OFFSET + 16 * i, &cpu->ymm[i], 16);
}

static void get_xmm(struct cpu *cpu, unsigned count, const uint8_t *image)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(&cpu->ymm[i], image + XMM_OFFSET + 16 * i, 16);
}

/* ---- FXSAVE ---------------------------------------------------------------------------------- */

static void check_fxsave(struct cpu *cpu)
{
    if (cpu->cr0 & (CR0_TS | CR0_EM))
        cpu_raise(cpu, VECTOR_NM);
}

void vec_fxsave(struct cpu *cpu, const struct insn *insn)
{
    struct area area;
    uint8_t image[LEGACY_SIZE]; /* what is stored of it is put there below */
    unsigned count = vector_registers(insn);
    check_fxsave(cpu);
    open_area(&area, cpu, insn, LEGACY_SIZE, LEGACY_SIZE, 16, ACCESS_WRITE);
    /* also what stays unwritten */
    for (unsigned at = 0; !area.host[0] && at < LEGACY_SIZE; at += 64)
        mem_probe_write(cpu, area.seg, x87_wrap(cpu, area.lin + at), 64);
    put_x87(cpu, insn, image);
    put_mxcsr(cpu, image);
    put_xmm(cpu, count, image);
    add_part(&area, 0, image, XMM_OFFSET + 16 * count);
    write_parts(&area);
}

void vec_fxrstor(struct cpu *cpu, const struct insn *insn)
{
    struct area area;
    uint8_t image[LEGACY_SIZE];
    check_fxsave(cpu);
    open_area(&area, cpu, insn, LEGACY_SIZE, LEGACY_SIZE, 16, ACCESS_READ);
    read_part(&area, 0, image, LEGACY_SIZE);
    cpu->mxcsr = checked_mxcsr(cpu, get(image, MXCSR_OFFSET, 4));
    get_x87(cpu, insn, image);
    get_xmm(cpu, vector_registers(insn), image);
}

/* ---- MXCSR ----------------------------------------------------------------------------------- */

void vec_ldmxcsr(struct cpu *cpu, const struct insn *insn)
{
    cpu->mxcsr = checked_mxcsr(cpu, opnd_read(cpu, insn, 0));
}

void vec_stmxcsr(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, cpu->mxcsr);
}

/* ---- XSAVE ----------------------------------------------------------------------------------- */

/* In the order of SDM vol. 3, table 6-2. */
static void check_xsave(struct cpu *cpu, bool supervisor)
{
    if (!(cpu->cr4 & CR4_OSXSAVE))
        cpu_raise(cpu, VECTOR_UD);
    if (cpu->cr0 & CR0_TS)
        cpu_raise(cpu, VECTOR_NM);
    if (supervisor && cpu->cpl != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

static bool zero_words(const void *from, size_t bytes)
{
    uint64_t all = 0, word;
    for (size_t i = 0; i < bytes; i += sizeof(word)) {
        memcpy(&word, (const uint8_t *)from + i, sizeof(word));
        all |= word;
    }
    return !all;
}

static bool x87_initial(const struct cpu *cpu)
{
    const struct x87 *x87 = &cpu->x87;
    bool pointers = x87_shows_pointers(cpu) && (x87->fop || x87->fip || x87->fdp);
    return x87->fcw == 0x37f && !x87->fsw && x87->ftw == 0xffff && !pointers &&
           zero_words(x87->st, sizeof(x87->st));
}

/* XINUSE: which components are not in their initial state (SDM vol. 1, 13.6). */
static uint64_t in_use(const struct cpu *cpu)
{
    uint64_t use = x87_initial(cpu) ? 0 : XSTATE_X87;
    uint64_t low = 0, high = 0;
    for (unsigned i = 0; i < 16; i++) {
        low |= cpu->ymm[i].q[0] | cpu->ymm[i].q[1];
        high |= cpu->ymm[i].q[2] | cpu->ymm[i].q[3];
    }
    use |= (low ? XSTATE_SSE : 0) | (high ? XSTATE_AVX : 0);
    return use | (cpu->pkru ? XSTATE_PKRU : 0);
}

/* EDX:EAX and XCR0. IA32_XSS has no bits here. */
static uint64_t requested(const struct cpu *cpu)
{
    return ((cpu->gpr[RDX] << 32) | (uint32_t)cpu->gpr[RAX]) & cpu->xcr0;
}

/* Where a component is; `format` is XCOMP_BV when compacted, else 0 (13.4.2, 13.4.3). */
static unsigned component_offset(uint64_t component, uint64_t format)
{
    if (component == XSTATE_AVX)
        return XSAVE_AVX_OFFSET;
    if (!(format & XCOMP_COMPACTED))
        return XSAVE_PKRU_OFFSET;
    return XSAVE_AVX_OFFSET + (format & XSTATE_AVX ? XSAVE_AVX_SIZE : 0);
}

/* The end of all components. */
static unsigned extent(bool compact)
{
    return (compact ? XSAVE_AVX_OFFSET + XSAVE_AVX_SIZE : XSAVE_PKRU_OFFSET) + XSAVE_PKRU_SIZE;
}

/* AMD's processors touch whole regions: legacy region and header whatever is asked for, before they
 * look at the header, and all of the AVX component where it is saved, also outside 64-bit code. */
static void touch(const struct area *area, unsigned from, unsigned to, enum access_kind kind)
{
    uint8_t ignored[64];
    struct cpu *cpu = area->cpu;
    if (area->host[0])
        return;
    for (unsigned at = from; cpu_is_amd(cpu) && at < to; at += sizeof(ignored)) {
        uint64_t lin = x87_wrap(cpu, area->lin + at);
        if (kind == ACCESS_WRITE)
            mem_probe_write(cpu, area->seg, lin, sizeof(ignored));
        else
            mem_read(cpu, area->seg, lin, ignored, sizeof(ignored));
    }
}

struct xsave_image {
    uint8_t legacy[LEGACY_SIZE];
    uint64_t header[2]; /* XSTATE_BV, XCOMP_BV */
    uint8_t avx[XSAVE_AVX_SIZE];
    uint64_t pkru;
};

/* Adds the components in `write` to what will be written. */
static void add_components(struct cpu *cpu, const struct insn *insn, struct xsave_image *image,
                           struct area *area, uint64_t write, bool mxcsr, uint64_t format)
{
    unsigned count = vector_registers(insn);
    if (write & XSTATE_X87) {
        put_x87(cpu, insn, image->legacy);
        add_part(area, 0, image->legacy, MXCSR_OFFSET);
    }
    if (mxcsr) { /* in ascending order: neighbouring parts are one access to the rules */
        put_mxcsr(cpu, image->legacy);
        add_part(area, MXCSR_OFFSET, image->legacy + MXCSR_OFFSET, 8);
    }
    if (write & XSTATE_X87)
        add_part(area, X87_ST_OFFSET, image->legacy + X87_ST_OFFSET, sizeof(cpu->x87.st));
    if (write & XSTATE_SSE) {
        put_xmm(cpu, count, image->legacy);
        add_part(area, XMM_OFFSET, image->legacy + XMM_OFFSET, 16 * count);
    }
    if (write & XSTATE_AVX) {
        for (unsigned i = 0; i < count; i++)
            memcpy(image->avx + 16 * i, cpu->ymm[i].b + 16, 16);
        touch(area, XSAVE_AVX_OFFSET, XSAVE_AVX_OFFSET + XSAVE_AVX_SIZE, ACCESS_WRITE);
        add_part(area, component_offset(XSTATE_AVX, format), image->avx, 16 * count);
    }
    if (write & XSTATE_PKRU) {
        image->pkru = cpu->pkru;
        add_part(area, component_offset(XSTATE_PKRU, format), &image->pkru, XSAVE_PKRU_SIZE);
    }
}

void vec_xsave(struct cpu *cpu, const struct insn *insn)
{
    unsigned kind = insn->row->exec_arg;
    bool compact = kind >= XSAVE_COMPACT;
    struct area area;
    struct xsave_image image; /* of components that are not saved it has nothing */
    check_xsave(cpu, kind == XSAVE_SUPERVISOR);
    open_area(&area, cpu, insn, XSAVE_AVX_OFFSET, extent(compact), XSAVE_ALIGNMENT, ACCESS_WRITE);
    touch(&area, 0, XSAVE_AVX_OFFSET, ACCESS_WRITE);
    uint64_t rfbm = requested(cpu), use = in_use(cpu) & rfbm, write = use;
    bool mxcsr = rfbm & (XSTATE_SSE | XSTATE_AVX);
    if (compact) {
        /* 13.10: here MXCSR counts as part of SSE. */
        if ((rfbm & XSTATE_SSE) && cpu->mxcsr != MXCSR_INIT)
            use |= XSTATE_SSE;
        write = use;
        mxcsr = use & XSTATE_SSE;
        image.header[0] = use;
        image.header[1] = rfbm | XCOMP_COMPACTED;
    } else {
        uint64_t old;
        if (!area.host[0])
            mem_probe_write(cpu, area.seg, x87_wrap(cpu, area.lin + XSAVE_HEADER), 8);
        read_part(&area, XSAVE_HEADER, &old, 8);
        image.header[0] = (old & ~rfbm) | use;
        image.header[1] = 0;
        if (kind == XSAVE_PLAIN)
            write = rfbm;
    }
    add_components(cpu, insn, &image, &area, write, mxcsr, image.header[1]);
    add_part(&area, XSAVE_HEADER, image.header, compact ? 16 : 8);
    write_parts(&area);
}

/* ---- XRSTOR ---------------------------------------------------------------------------------- */

/* The checks of 13.8 and 13.12; all of them before anything is loaded. */
static void check_header(struct cpu *cpu, const uint64_t header[8], bool supervisor)
{
    uint64_t bv = header[0], comp = header[1];
    bool can_compact = insn_has_feature(&cpu->features, FEAT_XSAVEC);
    bool good;
    if (comp & XCOMP_COMPACTED)
        good = (supervisor || can_compact) && !((comp & ~XCOMP_COMPACTED) & ~cpu->xcr0) &&
               !(bv & ~comp) && zero_words(header + 2, 48);
    else
        good = !supervisor && !comp && !header[2] && !(bv & ~cpu->xcr0);
    if (!good)
        cpu_raise_error(cpu, VECTOR_GP, 0);
}

static void set_avx(struct cpu *cpu, unsigned count, const uint8_t *avx)
{
    for (unsigned i = 0; i < count; i++)
        memcpy(cpu->ymm[i].b + 16, avx + 16 * i, 16);
}

static void init_x87(struct x87 *x87)
{
    x87_init(x87);
    memset(x87->st, 0, sizeof(x87->st));
}

void vec_xrstor(struct cpu *cpu, const struct insn *insn)
{
    bool supervisor = insn->row->exec_arg == XSAVE_SUPERVISOR;
    struct area area;
    struct xsave_image image;
    check_xsave(cpu, supervisor);
    open_area(&area, cpu, insn, XSAVE_AVX_OFFSET, extent(supervisor), XSAVE_ALIGNMENT, ACCESS_READ);
    touch(&area, 0, XSAVE_AVX_OFFSET, ACCESS_READ);
    uint64_t header[8], rfbm = requested(cpu);
    unsigned count = vector_registers(insn);
    read_part(&area, XSAVE_HEADER, header, sizeof(header));
    check_header(cpu, header, supervisor);
    uint64_t load = header[0] & rfbm;
    bool compacted = header[1] & XCOMP_COMPACTED;

    /* Everything is read before anything is committed. Absent components become zeros, which is
     * the initial state of all but the x87. */
    uint32_t mxcsr = cpu->mxcsr;
    if (load & XSTATE_X87)
        read_part(&area, 0, image.legacy, MXCSR_OFFSET);
    if (compacted ? load & XSTATE_SSE : rfbm & (XSTATE_SSE | XSTATE_AVX)) {
        read_part(&area, MXCSR_OFFSET, image.legacy + MXCSR_OFFSET, 4);
        mxcsr = checked_mxcsr(cpu, get(image.legacy, MXCSR_OFFSET, 4));
    } else if (compacted && (rfbm & XSTATE_SSE)) {
        mxcsr = MXCSR_INIT;
    }
    if (load & XSTATE_X87)
        read_part(&area, X87_ST_OFFSET, image.legacy + X87_ST_OFFSET, sizeof(cpu->x87.st));
    if (load & XSTATE_SSE)
        read_part(&area, XMM_OFFSET, image.legacy + XMM_OFFSET, 16 * count);
    else
        memset(image.legacy + XMM_OFFSET, 0, 16 * count);
    if (load & XSTATE_AVX)
        read_part(&area, component_offset(XSTATE_AVX, header[1]), image.avx, 16 * count);
    else
        memset(image.avx, 0, 16 * count);
    image.pkru = 0;
    if (load & XSTATE_PKRU)
        read_part(&area, component_offset(XSTATE_PKRU, header[1]), &image.pkru, XSAVE_PKRU_SIZE);

    cpu->mxcsr = mxcsr;
    if (load & XSTATE_X87)
        get_x87(cpu, insn, image.legacy);
    else if (rfbm & XSTATE_X87)
        init_x87(&cpu->x87);
    if (rfbm & XSTATE_SSE)
        get_xmm(cpu, count, image.legacy);
    if (rfbm & XSTATE_AVX)
        set_avx(cpu, count, image.avx);
    if (rfbm & XSTATE_PKRU)
        sys_set_pkru(cpu, (uint32_t)image.pkru);
}
