/*
 * vec_guest.h - one CPU and some memory for the tests of the vector room: instructions run through
 * their semantic functions, without the interpreter around them.
 *
 * Long mode, identity-mapped: CODE_AT and DATA to DATA_END are there, the page at DATA_END is not.
 * One .c file per test program includes it.
 */
#ifndef TESTS_CPU_VEC_GUEST_H
#define TESTS_CPU_VEC_GUEST_H

#include "cpu/interp/vec.h"
#include "cpu/interp/vec_internal.h"
#include "cpu/interp/x87.h"
#include "internal/error.h"
#include "internal/phys.h"

#include <check.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { PML4 = 0x1000, PDPT = 0x2000, PD = 0x3000, PT = 0x4000, RAM_SIZE = 0x20000 };
enum { CODE_AT = 0x8000, DATA = 0x10000, DATA_END = 0x13000 };
enum { COMPLETED = -1, NO_DECODE = -2 };

struct guest {
    pthread_mutex_t lock;
    struct phys_map *map;
    struct cpu *cpu;
    uint8_t *ram;
};

static void guest_stale(void *cpu, uint64_t gpa, uint64_t len)
{
    (void)cpu, (void)gpa, (void)len;
}
static void guest_kick(void *cpu)
{
    (void)cpu;
}

static inline void guest_table(struct guest *g, uint64_t gpa, unsigned index, uint64_t entry)
{
    memcpy(g->ram + gpa + 8 * index, &entry, 8);
}

static inline void guest_paging(struct guest *g)
{
    guest_table(g, PML4, 0, PDPT | 7);
    guest_table(g, PDPT, 0, PD | 7);
    guest_table(g, PD, 0, PT | 7);
    for (unsigned at = 0; at < RAM_SIZE; at += PAGE_SIZE)
        guest_table(g, PT, at / PAGE_SIZE, at == DATA_END ? 0 : at | 0x67);
    struct cpu *cpu = g->cpu;
    cpu->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_MP;
    cpu->cr3 = PML4;
    cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE;
    cpu->efer = EFER_LME | EFER_LMA;
    cpu->xcr0 = XSTATE_X87 | XSTATE_SSE | XSTATE_AVX;
    struct paging paging = {.cr0 = cpu->cr0,
                            .cr3 = cpu->cr3,
                            .cr4 = cpu->cr4,
                            .efer = cpu->efer,
                            .maxphyaddr = 40,
                            .a20 = true};
    mmu_paging_changed(&cpu->mmu, &paging);
    mmu_set_cr3(&cpu->mmu, PML4, false, NULL);
}

static inline void guest_reset(struct guest *g)
{
    struct cpu *cpu = g->cpu;
    memset(cpu->gpr, 0, sizeof(cpu->gpr));
    memset(cpu->ymm, 0, sizeof(cpu->ymm));
    memset(cpu->x87.st, 0, sizeof(cpu->x87.st));
    x87_init(&cpu->x87);
    cpu->mxcsr = MXCSR_INIT;
    cpu->rflags = RFLAGS_FIXED;
    cpu->cc_op = CC_RFLAGS;
    cpu->mode = MODE_PROT | MODE_LONG | MODE_CODE64 | MODE_OSFXSR | MODE_AVX | MODE_OSXMMEXCPT;
    memset(g->ram + DATA, 0, DATA_END - DATA);
}

/* An Intel or an AMD processor that has everything; MXCSR.MM, which the stubs need of the host, is
 * not among it. */
static inline void guest_set_vendor(struct guest *g, unsigned vendor)
{
    struct insn_features *f = &g->cpu->features;
    unsigned other = vendor == FEAT_AMD ? FEAT_INTEL : FEAT_AMD;
    memset(f, 0xff, sizeof(*f));
    f->bits[other / 64] &= ~(1ull << other % 64);
    f->bits[FEAT_MISALIGNSSE / 64] &= ~(1ull << FEAT_MISALIGNSSE % 64);
}

static inline struct guest *guest_new(void)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct error err = {{0}};
    uint64_t len;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&g->lock, &attr);
    g->map = phys_new(&g->lock, NULL);
    struct ram_block *block = phys_ram_new(g->map, RAM_SIZE, &err);
    ck_assert_msg(block && phys_add_ram(g->map, 0, RAM_SIZE, block, 0, "ram", &err), "%s", err.msg);
    g->ram = phys_hva(g->map, 0, &len);
    g->cpu = aligned_alloc(64, (sizeof(*g->cpu) + 63) & ~(size_t)63);
    memset(g->cpu, 0, sizeof(*g->cpu));
    guest_set_vendor(g, FEAT_INTEL);
    struct mmu_cpu_hooks hooks = {g->cpu, guest_stale, guest_kick};
    ck_assert(mmu_cpu_init(&g->cpu->mmu, g->map, NULL, 0, &hooks, NULL, &err));
    ck_assert_msg(vector_engine_init(g->cpu, &err), "%s", err.msg);
    guest_paging(g);
    guest_reset(g);
    return g;
}

static inline void guest_free(struct guest *g)
{
    vector_engine_fini(g->cpu);
    mmu_cpu_fini(&g->cpu->mmu);
    phys_free(g->map);
    free(g->cpu);
    free(g);
}

typedef void guest_exec(struct cpu *, const struct insn *);

static inline guest_exec *guest_function(unsigned exec)
{
#define X(name) [EXEC_##name] = name,
    static guest_exec *const table[EXEC_COUNT] = {INSN_GENERIC_EXECS(X)};
#undef X
    return table[exec];
}

/* Executes a decoded instruction; returns the vector it raised, or COMPLETED. */
static inline int guest_execute(struct guest *g, const struct insn *insn)
{
    struct cpu *cpu = g->cpu;
    sigjmp_buf unwind;
    cpu->rip = CODE_AT;
    cpu->next_rip = CODE_AT + insn->len;
    cpu->unwind = &unwind;
    if (sigsetjmp(unwind, 0))
        return cpu->exception.vector;
    if (insn->row->exec == EXEC_vec_host)
        vec_run(cpu, insn, vec_prepare(cpu, insn));
    else
        guest_function(insn->row->exec)(cpu, insn);
    return COMPLETED;
}

/* The same from bytes as text: "0f 58 ca". */
static inline int guest_run(struct guest *g, const char *hex)
{
    uint8_t bytes[15] = {0};
    struct insn insn;
    char *end;
    for (unsigned i = 0; i < sizeof(bytes) && *hex; i++, hex = end) {
        bytes[i] = (uint8_t)strtoul(hex, &end, 16);
        while (*end == ' ')
            end++;
    }
    if (insn_decode(bytes, sizeof(bytes), 64, false, &g->cpu->features, &insn) != DECODE_OK)
        return NO_DECODE;
    return guest_execute(g, &insn);
}

static inline void set_floats(union vreg *reg, float f0, float f1, float f2, float f3)
{
    const float f[4] = {f0, f1, f2, f3};
    memcpy(reg, f, 16);
}

#endif
