/*
 * isolation.c - no guest value reaches host memory outside guest RAM (docs/isolation.md): random
 * code in a processor of its own, with addresses chosen to defeat an inline lookup that is nearly
 * right.
 *
 * Each round makes a short run of instructions with memory operands of every kind, in random places
 * of address space: pages that are mapped and their edges, pages of other rights, addresses that
 * share a view's slot with them, those that equal or precede an invalid tag (view_no_tag()), the
 * edges of the canonical halves and of the 64 bits, and host addresses, as they are and as
 * differences from what a view holds. It runs at CPL 3, at CPL 0 and at CPL 0 with AC set under
 * SMAP, first by the interpreter and then by translated code; as 64-bit code or as 32-bit code of
 * compatibility mode, whose registers have upper halves that a far JMP has left in them.
 *
 *   - Reads: what the translated code has read must be what the interpreter has read.
 *   - Writes: guest RAM must be what the interpreter's has become; canaries must be what they were.
 *   - Guest RAM lies between pages that nobody may touch, as does struct cpu; and canaries lie
 * where guest addresses are host addresses. Touching one of the former ends the program by SIGSEGV,
 *     which is a failure.
 *
 * usage: isolation [--rounds N] [--seed S]
 */
#include "cpu/jit/jit.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/io.h"
#include "internal/log.h"
#include "internal/phys.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { PML4 = 0x1000, TABLES = 0x2000, CODE = 0x20000, DATA = 0x40000, DATA_PAGES = 16 };
enum { RAM_SIZE = 0x200000, UD2_0 = 0x0f, UD2_1 = 0x0b, MOST_VALUES = 256 };
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40 };
#define CODE_AT 0x10000000ull
#define PTE_NX  (1ull << 63)

static pthread_mutex_t machine_lock;
static struct phys_map *map;
static struct cpu *cpu;
static struct log log_off;
static uint8_t *ram;
/* Of this round. */
static bool code64;   /* else 32-bit code, in which there is no REX */
static bool good;     /* registers hold good addresses, mostly */
static bool has_loop; /* which RCX counts */

/* ---- Chance
 * -------------------------------------------------------------------------------------- */

static uint64_t seed = 1;
static uint64_t rnd(void) /* xorshift64* (Vigna) */
{
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return seed * 2685821657736338717ull;
}
static unsigned below(unsigned n)
{
    return (unsigned)(rnd() >> 33) % n;
}

/* ---- The guest's address space
 * ------------------------------------------------------------------- */

/* Where data pages are mapped: both halves, their edges, neighbours, and alone. */
static const struct {
    uint64_t at;
    unsigned rights;
} page[] = {
    {0x0, PTE_W | PTE_U},
    {0x1000, PTE_U},
    {0x400000, PTE_W | PTE_U},
    {0x401000, PTE_W | PTE_U},
    {0x402000, PTE_U},
    {0x404000, PTE_W},
    {0x7ffffffff000, PTE_W | PTE_U},
    {0x7fffffffd000, PTE_U},
    {0xffff800000000000, PTE_W},
    {0xffff800000002000, PTE_W | PTE_U},
    {0xfffffffffffff000, PTE_W},
    {0xffffffffffffd000, PTE_W | PTE_U},
    {CODE_AT + 0x1000, PTE_W | PTE_U},
    {0x80000000, PTE_W | PTE_U},
    {0xfffff000, PTE_W | PTE_U},
    {0x100000000, PTE_W},
};
enum { PAGES = sizeof page / sizeof page[0] };
_Static_assert(PAGES <= (int)DATA_PAGES, "a frame each");
static unsigned tables;

static uint64_t *entry_of(uint64_t gva)
{
    uint64_t table = PML4;
    for (unsigned level = 4;; level--) {
        uint64_t *e = (uint64_t *)(ram + table) + (gva >> (12 + 9 * (level - 1)) & 511);
        if (level == 1)
            return e;
        if (!*e)
            *e = (TABLES + PAGE_SIZE * tables++) | PTE_P | PTE_W | PTE_U | PTE_A;
        table = *e & 0xffffff000;
    }
}

static void map_at(uint64_t gva, uint64_t gpa, uint64_t rights)
{
    *entry_of(gva) = gpa | rights | PTE_P | PTE_A | PTE_D;
}

static void map_all(void)
{
    /* Code that wrote itself, or data that ran, might be any instruction. */
    map_at(CODE_AT, CODE, PTE_U);
    for (unsigned i = 0; i < PAGES; i++)
        map_at(page[i].at, DATA + PAGE_SIZE * i, page[i].rights | PTE_NX);
}

/* ---- Canaries
 * ------------------------------------------------------------------------------------ */

enum { CANARIES = 16 };
static struct {
    uint8_t *at;
    size_t size;
} canary[CANARIES];
static unsigned canaries;

/* Where a guest address would be a host address, if nobody translated it. */
static void put_canary(uint64_t at, size_t size)
{
    void *want = (void *)(uintptr_t)at; /* page 0 is the host's own */
    void *p = mmap(want, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (p != want)
        return;
    memset(p, 0xca, size);
    canary[canaries].at = p;
    canary[canaries++].size = size;
}

static bool canaries_live(void)
{
    for (unsigned i = 0; i < canaries; i++)
        for (size_t n = 0; n < canary[i].size; n++)
            if (canary[i].at[n] != 0xca)
                return false;
    return true;
}

/* Nobody may touch what lies next to the mapping, unless something else lies there already. */
static void guard_around(uint8_t *at, size_t size)
{
    uint8_t *const side[] = {at - 16 * PAGE_SIZE, at + size};
    for (unsigned i = 0; i < 2; i++)
        mmap(side[i], 16 * PAGE_SIZE, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
}

/* ---- The processor
 * ------------------------------------------------------------------------------- */

static void no_shutdown(void *machine, struct cpu *c)
{
    (void)machine, (void)c;
    abort();
}
static void no_ask(void *c)
{
    (void)c;
}

static struct io_space *io;
static struct clock *clk;
static struct exclusive *exclusive;

static bool make_machine(void)
{
    struct error err = {{0}};
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&machine_lock, &attr);
    log_off.out = stderr;
    map = phys_new(&machine_lock, &log_off);
    struct ram_block *block = phys_ram_new(map, RAM_SIZE, &err);
    uint64_t len;
    if (!block || !phys_add_ram(map, 0, RAM_SIZE, block, 0, "ram", &err))
        goto fail;
    ram = phys_hva(map, 0, &len);
    guard_around(ram, RAM_SIZE);
    map_all();
    const struct cpu_config config = {.jit_cache = 2 << 20,
                                      .model = "max",
                                      .vcpus = 1,
                                      .map = map,
                                      .io = io = io_space_new(&machine_lock, &log_off),
                                      .clock = clk = clock_new(),
                                      .exclusive = exclusive = exclusive_new(1, no_ask),
                                      .log = &log_off,
                                      .on_shutdown = no_shutdown};
    cpu = cpu_new(&config, &err);
    if (!cpu)
        goto fail;
    guard_around(cpu->jit->code, cpu->jit->code_size + cpu->jit->data_size);
    guard_around(cpu->jit->code_write, cpu->jit->code_size);
    return true;
fail:
    fprintf(stderr, "isolation: %s\n", err.msg);
    return false;
}

static void free_machine(void)
{
    cpu_free(cpu);
    exclusive_free(exclusive);
    clock_free(clk);
    io_space_free(io);
    phys_free(map);
}

enum who { USER, SUPERVISOR, SUPERVISOR_AC };

static void enter_mode(enum who who)
{
    cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG;
    cpu->cr3 = PML4;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_SMAP;
    cpu->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    cpu->xcr0 = 7;
    cpu->cpl = who == USER ? 3 : 0;
    for (unsigned i = 0; i < 6; i++)
        cpu->seg[i] = (struct segment){.limit = 0xffffffff,
                                       .attr = who == USER ? 0xf3 | SEG_ATTR_DB | SEG_ATTR_G
                                                           : 0x93 | SEG_ATTR_DB | SEG_ATTR_G,
                                       .selector = who == USER ? 0x2b : 0x10};
    cpu->seg[SEG_CS].attr =
        (uint16_t)((who == USER ? 0xfb : 0x9b) | SEG_ATTR_G | (code64 ? SEG_ATTR_L : SEG_ATTR_DB));
    cpu->seg[SEG_CS].selector = who == USER ? 0x33 : 0x18;
    struct paging paging = cpu->mmu.paging;
    paging.cr0 = cpu->cr0;
    paging.cr3 = cpu->cr3;
    paging.cr4 = cpu->cr4;
    paging.efer = cpu->efer;
    mmu_paging_changed(&cpu->mmu, &paging);
    cpu_set_rflags(cpu, 2 | (who == SUPERVISOR_AC ? 1u << 18 : 0));
    cpu_mode_update(cpu);
}

/* ---- Addresses
 * ----------------------------------------------------------------------------------- */

/* Some place that everybody may write to, mostly with room on both sides: what goes through it does
 * not end at the first access. */
static uint64_t good_address(void)
{
    static const uint64_t base[] = {0x400000, 0x401000, CODE_AT + 0x1000, 0x80000000};
    uint64_t at = base[below(4)];
    return below(4) ? at + 256 + below(PAGE_SIZE - 512) : at + PAGE_SIZE - below(96);
}

/* Some place that a lookup may take for another. */
static uint64_t evil_address(void)
{
    static const int64_t edge[] = {0,    1,    7,    8,    15,   31, 2048, 4064,
                                   4080, 4088, 4092, 4095, 4096, -1, -8,   -32};
    uint64_t at = page[below(PAGES)].at, host = (uint64_t)(uintptr_t)ram + DATA;
    uint64_t off = (uint64_t)edge[below(sizeof edge / sizeof edge[0])];
    switch (below(12)) {
    case 0:
    case 1:
    case 2:
        return at + off;
    case 3: /* the same slot of a view of any size */
        return at + off + (1ull << (20 + below(44))) * (below(3) + 1);
    case 4: /* where invalid tags point, and before it */
        return ((uint64_t)below(6) << 12) + off;
    case 5: /* the edges of the halves */
        return (below(2) ? 0x800000000000 : 0xffff800000000000) + off - below(2) * 4096;
    case 6: /* not canonical, and equal to a page but for that */
        return (at ^ 1ull << (47 + below(17))) + off;
    case 7: /* host addresses */
        return (below(2) ? (uint64_t)(uintptr_t)cpu : host) + off;
    case 8: /* what, added to a host page less a guest page, is the host address of something else
             */
        return (uint64_t)(uintptr_t)(below(2) ? (void *)cpu : cpu->jit->data) - host + at + off;
    case 9: /* beside guest RAM, likewise */
        return at - DATA - PAGE_SIZE * below(20) + off;
    case 10: /* wraps around */
        return 0 - off - below(64);
    default:
        return rnd() >> below(64);
    }
}

/* ---- Code
 * ---------------------------------------------------------------------------------------- */

static uint8_t code[512];
static unsigned code_len;

static void emit(unsigned byte)
{
    code[code_len++] = (uint8_t)byte;
}

static void rex(unsigned byte)
{
    if (code64)
        emit(byte);
}

/* Opcodes with ModRM whose flags, if any, are all defined. */
static const struct {
    uint8_t prefix, map, opcode, digit; /* digit 8: a general register; 9: a vector */
    uint8_t wide;                       /* REX.W may be set */
} ops[] = {
    {0, 0, 0x8b, 8, 1},       {0, 0, 0x89, 8, 1},       {0, 0, 0x8a, 8, 0},
    {0, 0, 0x88, 8, 0},       {0, 0, 0x01, 8, 1},       {0, 0, 0x03, 8, 1},
    {0, 0, 0x29, 8, 1},       {0, 0, 0x3b, 8, 1},       {0, 0, 0x87, 8, 1},
    {0x66, 0, 0x8b, 8, 0},    {0x66, 0, 0x89, 8, 0},    {0, 0x0f, 0xb6, 8, 1},
    {0, 0x0f, 0xb7, 8, 1},    {0, 0, 0x63, 8, 1},       {0, 0x0f, 0xc1, 8, 1},
    {0xf0, 0x0f, 0xc1, 8, 1}, {0xf0, 0, 0x01, 8, 1},    {0, 0x0f, 0x10, 9, 0},
    {0, 0x0f, 0x11, 9, 0},    {0, 0x0f, 0x28, 9, 0},    {0, 0x0f, 0x29, 9, 0},
    {0x66, 0x0f, 0xfe, 9, 0}, {0xf3, 0x0f, 0x7e, 9, 0}, {0x66, 0x0f, 0xd6, 9, 0},
    {0xf3, 0x0f, 0x6f, 9, 0}, {0, 0, 0xff, 6, 0},       {0, 0, 0x8f, 0, 0},
    {0, 0, 0xff, 0, 1},       {0, 0x0f, 0x44, 8, 1},    {0, 0x0f, 0x94, 0, 0},
    {0, 0, 0x38, 8, 0},       {0, 0x0f, 0xc7, 1, 1},    {0xf0, 0x0f, 0xc7, 1, 1},
};

static const uint8_t few[] = {3, 6, 7}; /* RBX, RSI, RDI */

/* The operand's registers are whatever the round has put into them. */
static void put_operand(unsigned reg, bool rip)
{
    unsigned base = below(8), index = below(8), form = rip ? 3 : good ? 2 * below(2) : below(3);
    int32_t disp = good || below(3) ? (int32_t)below(64) - 32 : (int32_t)rnd();
    if (good) { /* [base + disp], by few registers, so that accesses belong together */
        base = few[below(3)];
        index = 4;
    }
    if (form == 3) {
        emit((reg & 7) << 3 | 5);
    } else if (form == 0 && base != 4) {
        emit(0x80 | (reg & 7) << 3 | base);
    } else {
        emit(0x84 | (reg & 7) << 3);
        emit(below(4) << 6 | (form == 1 ? 4 : index) << 3 | base);
    }
    for (unsigned i = 0; i < 4; i++)
        emit((uint32_t)disp >> 8 * i & 0xff);
}

static void put_value(uint64_t v)
{
    for (unsigned i = 0; i < (code64 ? 8 : 4); i++)
        emit(v >> 8 * i & 0xff);
}

/* A string instruction between RSI and RDI, often repeated: by a count that ends in a page or
 * somewhere else, or whose product with the size is small again. */
static void put_string(void)
{
    static const uint8_t opcode[] = {0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xa6, 0xae};
    bool rep = below(4) && !has_loop;
    if (rep) {
        rex(0x48);
        emit(0xb9);
        put_value(below(2)   ? below(80)
                  : below(2) ? below(4200)
                             : ((uint64_t)below(3) << (60 + below(4))) + below(600));
    }
    if (!below(8))
        emit(below(2) ? 0xfd : 0xfc);
    if (!below(6))
        emit(0x66);
    if (rep)
        emit(0xf3);
    if (below(2))
        rex(0x48);
    emit(opcode[below(rep ? 4 : 8)]);
}

/* BT and its kind with RDX, which is not an address then, as the number; and flags that are
 * defined behind it. */
static void put_bits(void)
{
    static const uint8_t opcode[] = {0xa3, 0xab, 0xb3, 0xbb};
    unsigned op = below(4);
    if (below(2)) {
        rex(0x48);
        emit(0xba);
        put_value(rnd() >> below(64));
    }
    if (op && below(2))
        emit(0xf0);
    rex(0x40 | below(2) << 3);
    emit(0x0f);
    emit(opcode[op]);
    put_operand(2, false);
    emit(0x31); /* xor eax, eax */
    emit(0xc0);
}

static void put_push_or_pop(bool push, unsigned reg)
{
    if (reg & 8)
        rex(0x41);
    emit((push ? 0x50 : 0x58) | (reg & 7));
}

/* What shares a lookup: several PUSHes with moves among them, POPs with RET behind them; and what
 * else uses the stack. */
static void put_stack(void)
{
    bool push = below(2);
    for (unsigned n = below(5); n-- > 0;) {
        put_push_or_pop(push, below(16));
        if (push && !below(3)) { /* mov reg, reg */
            rex(0x40 | below(16));
            emit(0x89);
            emit(0xc0 | below(64));
        }
    }
    switch (below(6)) {
    case 0:
        emit(0xc3); /* ret */
        break;
    case 1:
        emit(0xc2); /* ret imm16 */
        emit(below(2) * 8);
        emit(0);
        break;
    case 2:
        emit(0xc9); /* leave */
        break;
    case 3:
        emit(0xc8); /* enter imm16, 0 */
        emit(below(256));
        emit(below(3));
        emit(0);
        break;
    case 4:
        emit(0xe8); /* call what follows */
        for (unsigned i = 0; i < 4; i++)
            emit(0);
        break;
    default:
        break;
    }
}

static void put_insn(void)
{
    unsigned kind = below(23), reg = below(16);
    static const uint8_t segment[] = {0x64, 0x65, 0x2e, 0x26};
    if (kind == 0) {
        put_push_or_pop(below(2), reg);
    } else if (kind >= 20) {
        put_stack();
    } else if (kind == 1) { /* to any register, RSP among them: what it becomes, others use */
        rex(0x48 | reg >> 3);
        emit(0xb8 | (reg & 7));
        put_value(good ? good_address() : evil_address());
    } else if (kind == 6) { /* add reg, imm8: through a page, or out of it */
        rex(0x48 | below(2));
        emit(0x83);
        emit(0xc0 | few[below(3)]);
        emit(below(2) ? 8 : below(256));
    } else if (kind == 4) {
        put_string();
    } else if (kind == 5) {
        put_bits();
    } else if (kind == 2) { /* indirect: CALL, JMP */
        rex(0x40 | below(8));
        emit(0xff);
        put_operand(below(2) ? 2 : 4, !below(4));
    } else if (kind == 3) { /* VMOVDQU, 256 bits */
        emit(0xc5);
        emit(0xfe);
        emit(below(2) ? 0x6f : 0x7f);
        put_operand(below(8), !below(4));
    } else {
        unsigned n = below(sizeof ops / sizeof ops[0]);
        if (!below(4))
            emit(segment[below(4)]);
        if (code64 && !below(8)) /* 16-bit operands are shorter, and C's */
            emit(0x67);
        if (ops[n].prefix)
            emit(ops[n].prefix);
        rex(0x40 | (ops[n].wide && below(2)) << 3 | (ops[n].digit >= 8 && reg & 8 ? 4 : 0) |
            below(4));
        if (ops[n].map)
            emit(ops[n].map);
        emit(ops[n].opcode);
        put_operand(ops[n].digit < 8 ? ops[n].digit : reg, !below(6));
    }
}

/* JNZ to an offset of the code */
static void put_branch_back(unsigned to)
{
    emit(0x0f);
    emit(0x85);
    int32_t back = (int32_t)to - (int32_t)(code_len + 4);
    for (unsigned i = 0; i < 4; i++)
        emit((uint32_t)back >> 8 * i & 0xff);
}

static void make_code(void)
{
    unsigned head;
    code_len = 0;
    if (has_loop) { /* mov ecx, count */
        emit(0xb9);
        for (unsigned i = 0, count = 1 + below(9); i < 4; i++)
            emit(count >> 8 * i & 0xff);
    }
    head = code_len;
    for (unsigned n = below(10) + 1; n-- > 0;) {
        put_insn();
        if (!below(8)) /* it begins in the middle */
            head = code_len;
    }
    if (has_loop) { /* dec ecx */
        emit(0xff);
        emit(0xc9);
        put_branch_back(head);
    } else if (below(2)) { /* never taken, but it looks like a loop (cpu/jit/last.c) */
        emit(0x31);        /* xor eax, eax */
        emit(0xc0);
        put_branch_back(head);
    }
    emit(UD2_0);
    emit(UD2_1);
}

/* ---- A round
 * ------------------------------------------------------------------------------------- */

struct state {
    uint64_t gpr[16], fs, gs;
    union vreg ymm[16];
};
struct outcome {
    struct state s;
    uint64_t rip, rflags, cr2;
    int vector;
    uint8_t data[DATA_PAGES * PAGE_SIZE];
};

static void make_state(struct state *s)
{
    for (unsigned i = 0; i < 16; i++)
        s->gpr[i] = good ? good_address() : evil_address();
    if (good && below(3))
        s->gpr[below(16)] = evil_address();
    if (!good && below(3))
        s->gpr[RSP] = page[below(PAGES)].at + 8 * below(513);
    s->fs = good ? 0 : evil_address();
    s->gs = good || below(2) ? 0 : evil_address();
    for (unsigned i = 0; i < 64; i++)
        s->ymm[i / 4].q[i % 4] = rnd();
}

/* False: it goes round and round, as RET and an indirect JMP may. */
static bool run(const struct state *s, enum who who, unsigned at, bool translated,
                struct outcome *o)
{
    enum { MOST_STEPS = 20000 };
    static sigjmp_buf unwind;
    struct jit *jit = cpu->jit;
    enter_mode(who);
    memcpy(cpu->gpr, s->gpr, sizeof cpu->gpr);
    memcpy(cpu->ymm, s->ymm, sizeof cpu->ymm);
    cpu->mxcsr = 0x1f80;
    cpu->x87 = (struct x87){.fcw = 0x37f, .ftw = 0xffff};
    cpu->seg[SEG_FS].base = cpu->seg_base[SEG_FS] = s->fs;
    cpu->seg[SEG_GS].base = cpu->seg_base[SEG_GS] = s->gs;
    cpu->rip = CODE_AT + at;
    cpu->activity = CPU_RUNNING;
    bool ended = true;
    if (!sigsetjmp(unwind, 0)) {
        cpu->unwind = &unwind;
        if (!translated)
            cpu->jit = NULL;
        /* Comes back when something wants attention; an exception ends it. */
        for (unsigned step = 0; translated || step < MOST_STEPS; step++) {
            if (translated)
                jit_run(cpu);
            else
                interp_run(cpu, true);
            cpu_withdraw(cpu, CPU_REQ_MMU);
            mmu_service(&cpu->mmu);
        }
        ended = false;
    }
    cpu->jit = jit;
    cpu->unwind = NULL;
    if (!ended)
        return false;
    memset(&o->s, 0, sizeof o->s);
    memcpy(o->s.gpr, cpu->gpr, sizeof cpu->gpr);
    memcpy(o->s.ymm, cpu->ymm, sizeof cpu->ymm);
    o->rip = cpu->rip;
    o->rflags = cpu_rflags(cpu);
    o->vector = cpu->exception.vector;
    o->cr2 = o->vector == VECTOR_PF ? cpu->cr2 : 0;
    memcpy(o->data, ram + DATA, sizeof o->data);
    return true;
}

static void write_ram(uint64_t gpa, const void *bytes, uint64_t len)
{
    static const struct access access = {.initiator = INITIATOR_HOST};
    phys_write(map, &access, gpa, bytes, len);
}

static unsigned endless; /* rounds */

static bool round_passes(uint64_t n)
{
    static struct outcome want, got;
    static uint8_t data[DATA_PAGES * PAGE_SIZE], code_page[PAGE_SIZE];
    struct state s;
    enum who who = (enum who)below(3);
    unsigned at = below(8) * 480;
    code64 = below(3);
    good = below(2);
    has_loop = good && below(2);
    make_state(&s);
    make_code();
    for (unsigned i = 0; i < sizeof data; i += 8) { /* addresses, to be loaded and used */
        uint64_t v = good ? good_address() : i % 4096 < 64 || i % 4096 >= 4032 ? evil_address() : 0;
        if (v)
            memcpy(data + i, &v, 8);
    }
    if (!below(64))
        mmu_set_cr3(&cpu->mmu, PML4, false, NULL);
    for (unsigned i = 0; i < PAGE_SIZE; i += 2)
        memcpy(code_page + i, "\x0f\x0b", 2); /* UD2 */
    memcpy(code_page + at, code, code_len);
    for (unsigned translated = 0; translated < 2; translated++) {
        write_ram(CODE, code_page, sizeof code_page);
        write_ram(DATA, data, sizeof data);
        cpu_withdraw(cpu, CPU_REQ_MMU);
        mmu_service(&cpu->mmu);
        if (!run(&s, who, at, translated, translated ? &got : &want)) {
            endless++;
            return true;
        }
    }
    if (!memcmp(&want, &got, sizeof want))
        return true;
    fprintf(stderr, "round %llu, %u-bit %s: interpreter %d at %#llx, translated %d at %#llx\n",
            (unsigned long long)n, code64 ? 64 : 32,
            who == USER         ? "user"
            : who == SUPERVISOR ? "supervisor"
                                : "AC",
            want.vector, (unsigned long long)want.rip, got.vector, (unsigned long long)got.rip);
    for (unsigned i = 0; i < 16; i++)
        if (want.s.gpr[i] != got.s.gpr[i])
            fprintf(stderr, "  register %u: was %#llx, interpreter %#llx, translated %#llx\n", i,
                    (unsigned long long)s.gpr[i], (unsigned long long)want.s.gpr[i],
                    (unsigned long long)got.s.gpr[i]);
    if (want.rflags != got.rflags)
        fprintf(stderr, "  flags %#llx, %#llx\n", (unsigned long long)want.rflags,
                (unsigned long long)got.rflags);
    if (memcmp(want.data, got.data, sizeof want.data))
        fprintf(stderr, "  guest RAM differs\n");
    for (unsigned off = 0, k = 0; k < 12 && off < code_len; k++) {
        char text[128];
        unsigned len = insn_disassemble(code + off, code_len - off, code64 ? 64 : 32,
                                        CODE_AT + at + off, text, sizeof text);
        fprintf(stderr, "  %#llx  %s\n", (unsigned long long)(CODE_AT + at + off), text);
        off += len ? len : 1;
    }
    return false;
}

int main(int argc, char **argv)
{
    uint64_t rounds = 20000;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--rounds"))
            rounds = strtoull(argv[i + 1], NULL, 0);
        else if (!strcmp(argv[i], "--seed"))
            seed = strtoull(argv[i + 1], NULL, 0) | 1;
    }
    for (unsigned i = 0; i < PAGES && canaries < CANARIES; i++)
        put_canary(page[i].at ? page[i].at : 0x10000, PAGE_SIZE);
    put_canary(CODE_AT, PAGE_SIZE);
    if (!make_machine())
        return 1;
    for (uint64_t n = 0; n < rounds; n++) {
        if (!round_passes(n))
            return 1;
        if (n % 256 == 0 && !canaries_live()) {
            fprintf(stderr, "host memory was written, in or before round %llu\n",
                    (unsigned long long)n);
            return 1;
        }
    }
    printf("%llu rounds (%u endless), %u canaries, %llu regions, %llu times through C\n",
           (unsigned long long)rounds, endless, canaries,
           (unsigned long long)cpu->jit->counters.regions,
           (unsigned long long)cpu->jit->counters.slow);
    bool live = canaries_live();
    free_machine();
    return live ? 0 : 1;
}
