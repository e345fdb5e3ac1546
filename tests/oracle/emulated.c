/*
 * emulated.c - runs one instruction in Bailey, in the state in which native.c runs it on the host:
 * CPL 3 under long mode, the arena mapped at the same linear addresses with the same permissions.
 */
#include "internal/clock.h"
#include "internal/cpu.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/io.h"
#include "internal/log.h"
#include "internal/phys.h"
#include "oracle.h"
#include <stdlib.h>
#include <string.h>

/* Guest-physical layout: page tables, then the arena's frames. */
enum { HLT = 0xf4 };
enum { PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, PT = 0x4000, RAM_SIZE = 0x200000 };
#define ARENA_GPA 0x100000ull
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40 };
#define PTE_NX (1ull << 63)

static pthread_mutex_t machine_lock;
static struct phys_map *map;
static struct cpu *cpu;
static struct log log_off = {0, NULL};
static uint8_t *ram;

static void put64(uint64_t gpa, uint64_t value)
{
    memcpy(ram + gpa, &value, 8);
}

static void build_tables(void)
{
    put64(PML4, PDPT | PTE_P | PTE_W | PTE_U);
    put64(PDPT, PD | PTE_P | PTE_W | PTE_U);
    put64(PD + 8 * (ARENA >> 21 & 511), PT | PTE_P | PTE_W | PTE_U);
    for (uint64_t at = ARENA; at < ARENA + ARENA_SIZE; at += PAGE_SIZE) {
        uint64_t pte = 0;
        if (at == CODE_PAGE)
            pte = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D;
        else if (at >= DATA_START && at < DATA_END)
            pte = PTE_P | PTE_W | PTE_U | PTE_A | PTE_D | PTE_NX;
        put64(PT + 8 * (at >> PAGE_SHIFT & 511), pte ? pte | (ARENA_GPA + (at - ARENA)) : 0);
    }
}

static void no_shutdown(void *machine, struct cpu *c)
{
    (void)machine;
    (void)c;
    fprintf(stderr, "oracle: triple fault\n");
    abort();
}

static void no_ask(void *c)
{
    (void)c;
}

static void set_segments(unsigned code)
{
    bool small = code == 16;
    for (unsigned i = 0; i < 6; i++) {
        struct segment *s = &cpu->seg[i];
        s->base = small ? ARENA : 0;
        s->limit = small ? ARENA_SIZE - 1 : 0xffffffff;
        s->attr = 0xf3 | (small ? 0 : SEG_ATTR_DB | SEG_ATTR_G);
        s->selector = small ? 0xf : 0x2b;
    }
    for (unsigned i = SEG_FS; i <= SEG_GS; i++)
        cpu->seg[i] = (struct segment){0, 0, 0, 0};
    struct segment *cs = &cpu->seg[SEG_CS];
    cs->selector = code == 64 ? 0x33 : code == 32 ? 0x23 : 7;
    cs->attr = code == 64   ? 0xfb | SEG_ATTR_L | SEG_ATTR_G
               : code == 32 ? 0xfb | SEG_ATTR_DB | SEG_ATTR_G
                            : 0xfb;
    if (code == 64) /* as a 64-bit process has them */
        cpu->seg[SEG_DS].attr = cpu->seg[SEG_ES].attr = cpu->seg[SEG_SS].attr;
}

bool emulated_init(void)
{
    struct error err = {{0}};
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&machine_lock, &attr);
    log_off.out = stderr;
    map = phys_new(&machine_lock, &log_off);
    struct ram_block *block = phys_ram_new(map, RAM_SIZE, &err);
    if (!block || !phys_add_ram(map, 0, RAM_SIZE, block, 0, "ram", &err)) {
        fprintf(stderr, "oracle: %s\n", err.msg);
        return false;
    }
    uint64_t len;
    ram = phys_hva(map, 0, &len);
    build_tables();
    struct cpu_config config = {
        .jit_cache = 4 << 20, /* small, so that it is emptied often */
        .index = 0,
        .model = "max",
        .vcpus = 1,
        .map = map,
        .io = io_space_new(&machine_lock, &log_off),
        .clock = clock_new(),
        .exclusive = exclusive_new(1, no_ask),
        .log = &log_off,
        .on_shutdown = no_shutdown,
    };
    cpu = cpu_new(&config, &err);
    if (!cpu) {
        fprintf(stderr, "oracle: %s\n", err.msg);
        return false;
    }
    cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
    cpu->cr3 = PML4;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_UMIP;
    cpu->efer = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    cpu->xcr0 = 7;
    cpu->cpl = 3;
    cpu->tr.limit = 0; /* no I/O permission map: as the host's process, no ports */
    struct paging paging = cpu->mmu.paging;
    paging.cr0 = cpu->cr0;
    paging.cr3 = cpu->cr3;
    paging.cr4 = cpu->cr4;
    paging.efer = cpu->efer;
    mmu_paging_changed(&cpu->mmu, &paging);
    mmu_set_cr3(&cpu->mmu, PML4, false, NULL);
    return true;
}

const struct insn_features *emulated_features(void)
{
    return &cpu->features;
}

/* ---- State in and out ------------------------------------------------------------------------ */

/* FXSAVE's one bit a register to the full tag word (SDM vol. 1, 8.1.7). */
static uint16_t full_tags(const struct oracle_state *s)
{
    uint16_t tags = 0;
    for (unsigned physical = 0; physical < 8; physical++) {
        const uint8_t *st = s->st[(physical - (s->fsw >> 11)) & 7];
        uint64_t mantissa;
        uint16_t exponent;
        memcpy(&mantissa, st, 8);
        memcpy(&exponent, st + 8, 2);
        exponent &= 0x7fff;
        unsigned tag = 2;
        if (!(s->ftw >> physical & 1))
            tag = 3;
        else if (!exponent && !mantissa)
            tag = 1;
        else if (exponent && exponent != 0x7fff && mantissa >> 63)
            tag = 0;
        tags |= (uint16_t)(tag << 2 * physical);
    }
    return tags;
}

static void put_state(const struct oracle_case *c)
{
    const struct oracle_state *s = &c->state;
    memcpy(cpu->gpr, s->gpr, sizeof(s->gpr));
    cpu->rip = s->rip;
    memcpy(cpu->ymm, s->ymm, sizeof(s->ymm));
    cpu->mxcsr = s->mxcsr;
    cpu->x87.fcw = s->fcw;
    cpu->x87.fsw = s->fsw;
    cpu->x87.ftw = full_tags(s);
    cpu->x87.fop = s->fop;
    cpu->x87.fip = s->fip;
    cpu->x87.fdp = s->fdp;
    cpu->x87.fcs = cpu->x87.fds = 0; /* the host's kernel restores 64-bit pointers */
    for (int i = 0; i < 8; i++)
        memcpy(cpu->x87.st[i], s->st[i], 10);
    set_segments(c->code);
    cpu->shadow = 0;
    cpu->debug_pending = 0;
    cpu->activity = CPU_RUNNING;
    cpu_set_rflags(cpu, s->rflags);
    cpu_mode_update(cpu);
}

static void get_state(struct oracle_state *s)
{
    memset(s, 0, sizeof(*s));
    memcpy(s->gpr, cpu->gpr, sizeof(s->gpr));
    s->rip = cpu->rip;
    s->rflags = cpu_rflags(cpu);
    memcpy(s->ymm, cpu->ymm, sizeof(s->ymm));
    s->mxcsr = cpu->mxcsr;
    s->fcw = cpu->x87.fcw;
    s->fsw = cpu->x87.fsw;
    s->fop = cpu->x87.fop;
    s->fip = cpu->x87.fip;
    s->fdp = cpu->x87.fdp;
    for (unsigned i = 0; i < 8; i++) {
        s->ftw |= (uint8_t)(((cpu->x87.ftw >> 2 * i & 3) != 3) << i);
        memcpy(s->st[i], cpu->x87.st[i], 10);
    }
}

static void put_code(const struct oracle_case *c)
{
    static const struct access access = {.initiator = INITIATOR_HOST};
    uint64_t linear = c->state.rip + (c->code == 16 ? ARENA : 0);
    static uint8_t filling[PAGE_SIZE];
    memset(filling, HLT, sizeof(filling));
    phys_write(map, &access, ARENA_GPA + (CODE_PAGE - ARENA), filling, sizeof(filling));
    phys_write(map, &access, ARENA_GPA + (linear - ARENA), c->bytes, c->len);
    cpu_withdraw(cpu, CPU_REQ_MMU);
    mmu_service(&cpu->mmu);
}

/* A block ends at the first HLT: #GP(0) at CPL 3, at an address that is not the instruction's own.
 */
static bool ended_at_hlt(const struct oracle_case *c)
{
    uint64_t linear = cpu->rip + (c->code == 16 ? ARENA : 0);
    return cpu->exception.vector == VECTOR_GP && cpu->rip != c->state.rip &&
           linear - CODE_PAGE < PAGE_SIZE && ram[ARENA_GPA + (linear - ARENA)] == HLT;
}

static void run_stepped(const struct oracle_case *c)
{
    bool repeats = c->insn.rep && (c->row->attr & (INSN_REP | INSN_REPCC));
    do
        interp_run(cpu, true);
    while (repeats && cpu->rip == c->state.rip);
}

/* Until it raises; others come back when something wants attention. */
static void run(const struct oracle_case *c, enum run_way way)
{
    if (way == RUN_STEP) {
        run_stepped(c);
        return;
    }
    for (;;) {
        if (way == RUN_JIT && cpu->jit)
            jit_run(cpu);
        else
            interp_run(cpu, false);
    }
}

/* False: it raised; the last HLT does that, too. */
static bool runs_through(const struct oracle_case *c, enum run_way way)
{
    sigjmp_buf unwind;
    struct jit *jit = cpu->jit;
    bool raised = sigsetjmp(unwind, 0) != 0;
    if (!raised) {
        cpu->unwind = &unwind;
        if (way != RUN_JIT)
            cpu->jit = NULL;
        run(c, way);
    }
    cpu->unwind = NULL;
    cpu->jit = jit;
    return !raised || (way != RUN_STEP && ended_at_hlt(c));
}

void emulated_run(const struct oracle_case *c, struct oracle_outcome *outcome, enum run_way way)
{
    put_code(c);
    memcpy(ram + ARENA_GPA + (DATA_START - ARENA), c->data, DATA_SIZE);
    put_state(c);
    outcome->vector = -1;
    outcome->error_code = 0;
    outcome->cr2 = 0;
    if (!runs_through(c, way)) {
        outcome->vector = cpu->exception.vector;
        outcome->error_code = cpu->exception.has_error ? cpu->exception.error_code : 0;
        outcome->cr2 = outcome->vector == VECTOR_PF ? cpu->cr2 : 0;
    }
    get_state(&outcome->state);
    memcpy(outcome->data, ram + ARENA_GPA + (DATA_START - ARENA), DATA_SIZE);
}
