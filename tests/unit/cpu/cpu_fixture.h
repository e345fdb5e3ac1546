/*
 * cpu_fixture.h - a vCPU with a little memory, for unit tests that execute guest code.
 *
 *     struct cpu_fixture f;
 *     fixture_init(&f, FIXTURE_LONG64);
 *     static const uint8_t code[] = {0x48, 0x01, 0xd8, 0xf4};    // add rax, rbx; hlt
 *     f.cpu->gpr[RAX] = 1;
 *     fixture_load(&f, FIXTURE_CODE, code, sizeof(code));
 *     ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
 *     fixture_fini(&f);
 *
 * RAM of 8 MiB is mapped at its own address: by 4-KiB pages below 2 MiB (fixture_pte() gives their
 * entries), by 2-MiB pages above. CPL 0, interrupts off, flat segments, no IDT: an exception ends
 * fixture_run(), which returns its vector and leaves the CPU as it was raised.
 */
#ifndef TESTS_CPU_FIXTURE_H
#define TESTS_CPU_FIXTURE_H

#include "internal/clock.h"
#include "internal/cpu.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/io.h"
#include "internal/log.h"
#include <check.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum fixture_mode {
    FIXTURE_LONG64, /* 64-bit code, 4-level paging */
    FIXTURE_FLAT32, /* 32-bit protected mode, flat, paging off */
    FIXTURE_REAL16,
};
enum {
    FIXTURE_RAM = 8 << 20,
    FIXTURE_CODE = 0x10000,
    FIXTURE_DATA = 0x20000,
    FIXTURE_STACK = 0x80000, /* initial rSP: grows down from here */
    FIXTURE_HALTED = -1,     /* of fixture_run(): HLT was executed */
};
enum {
    FIXTURE_PTE_P = 1,
    FIXTURE_PTE_W = 2,
    FIXTURE_PTE_U = 4,
    FIXTURE_PTE_AD = 0x60,
    FIXTURE_PTE_PS = 0x80
};

struct cpu_fixture {
    struct cpu *cpu;
    struct phys_map *map;
    struct io_space *io;
    struct clock *clock;
    struct exclusive *exclusive;
    pthread_mutex_t lock;
    struct log log;
    uint8_t *ram;
    sigjmp_buf unwind;
};

/* The page-table entry of a page below 2 MiB. After a change, invalidate: mmu_invlpg(). */
static inline uint64_t *fixture_pte(struct cpu_fixture *f, uint64_t gva)
{
    return (uint64_t *)(f->ram + 0x4000) + (gva >> 12);
}

static inline void fixture_tables_(struct cpu_fixture *f)
{
    const uint64_t flags = FIXTURE_PTE_P | FIXTURE_PTE_W | FIXTURE_PTE_AD;
    uint64_t *table = (uint64_t *)f->ram;
    table[0x1000 / 8] = 0x2000 | flags;
    table[0x2000 / 8] = 0x3000 | flags;
    table[0x3000 / 8] = 0x4000 | flags;
    for (uint64_t i = 0; i < 512; i++)
        table[0x4000 / 8 + i] = i << 12 | flags;
    for (uint64_t i = 1; i < FIXTURE_RAM >> 21; i++)
        table[0x3000 / 8 + i] = i << 21 | flags | FIXTURE_PTE_PS;
}

static inline void fixture_ask_(void *cpu)
{
    cpu_request(cpu, CPU_REQ_EXCLUSIVE);
}
static inline void fixture_shutdown_(void *machine, struct cpu *cpu)
{
    (void)machine;
    cpu_request(cpu, CPU_REQ_STOP);
}

static inline void fixture_segments_(struct cpu *cpu, enum fixture_mode mode)
{
    bool real = mode == FIXTURE_REAL16;
    for (unsigned i = 0; i < 6; i++) {
        unsigned big = real ? 0 : SEG_ATTR_DB | SEG_ATTR_G;
        cpu->seg[i] = (struct segment){.limit = real ? 0xffff : 0xffffffff,
                                       .selector = real ? 0 : 0x10,
                                       .attr = (uint16_t)(0x93 | big)};
    }
    if (real)
        return;
    cpu->seg[SEG_CS].selector = 8;
    cpu->seg[SEG_CS].attr = 0x9b | SEG_ATTR_G | (mode == FIXTURE_LONG64 ? SEG_ATTR_L : SEG_ATTR_DB);
}

/* Puts the CPU back to where fixture_init() left it; memory stays. */
static inline void fixture_reset(struct cpu_fixture *f, enum fixture_mode mode)
{
    struct cpu *cpu = f->cpu;
    cpu_reset(cpu, false);
    cpu->cr0 = CR0_ET | CR0_NE | (mode == FIXTURE_REAL16 ? 0 : CR0_PE | CR0_WP);
    cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT;
    if (mode == FIXTURE_LONG64) {
        cpu->cr0 |= CR0_PG;
        cpu->cr3 = 0x1000;
        cpu->cr4 |= CR4_PAE;
        cpu->efer = EFER_LME | EFER_LMA | EFER_NXE;
    }
    fixture_segments_(cpu, mode);
    struct paging paging = cpu->mmu.paging;
    paging.cr0 = cpu->cr0;
    paging.cr3 = cpu->cr3;
    paging.cr4 = cpu->cr4;
    paging.efer = cpu->efer;
    mmu_paging_changed(&cpu->mmu, &paging);
    if (mode == FIXTURE_LONG64)
        mmu_set_cr3(&cpu->mmu, cpu->cr3, false, NULL);
    cpu_set_rflags(cpu, RFLAGS_FIXED);
    cpu_mode_update(cpu);
    cpu->gpr[RSP] = mode == FIXTURE_REAL16 ? 0xf000 : FIXTURE_STACK;
    cpu->unwind = &f->unwind;
}

/* vCPU number `index` of `vcpus`, on the map of `first` when that is not NULL. */
static inline void fixture_init_smp(struct cpu_fixture *f, enum fixture_mode mode, unsigned index,
                                    unsigned vcpus, struct cpu_fixture *first)
{
    struct error err = {{0}};
    memset(f, 0, sizeof(*f));
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&f->lock, &attr);
    f->log.out = stderr;
    f->clock = clock_new();
    if (first) {
        f->map = first->map;
        f->io = first->io;
        f->exclusive = first->exclusive;
        f->ram = first->ram;
    } else {
        f->map = phys_new(&f->lock, &f->log);
        f->io = io_space_new(&f->lock, &f->log);
        f->exclusive = exclusive_new(vcpus, fixture_ask_);
        struct ram_block *block = phys_ram_new(f->map, FIXTURE_RAM, &err);
        ck_assert_msg(block && phys_add_ram(f->map, 0, FIXTURE_RAM, block, 0, "ram", &err), "%s",
                      err.msg);
        uint64_t len;
        f->ram = phys_hva(f->map, 0, &len);
        fixture_tables_(f);
    }
    struct cpu_config config = {
        .index = index,
        .model = "max",
        .vcpus = vcpus,
        .map = f->map,
        .io = f->io,
        .clock = f->clock,
        .exclusive = f->exclusive,
        .log = &f->log,
        .on_shutdown = fixture_shutdown_,
    };
    f->cpu = cpu_new(&config, &err);
    ck_assert_msg(f->cpu != NULL, "%s", err.msg);
    exclusive_set_cpu(f->exclusive, index, f->cpu);
    fixture_reset(f, mode);
    f->cpu->activity = CPU_RUNNING;
    cpu_mode_update(f->cpu);
}

static inline void fixture_init(struct cpu_fixture *f, enum fixture_mode mode)
{
    fixture_init_smp(f, mode, 0, 1, NULL);
}

static inline void fixture_fini_secondary(struct cpu_fixture *f)
{
    cpu_free(f->cpu);
    clock_free(f->clock);
    pthread_mutex_destroy(&f->lock);
}

static inline void fixture_fini(struct cpu_fixture *f)
{
    cpu_free(f->cpu);
    io_space_free(f->io);
    exclusive_free(f->exclusive);
    phys_free(f->map);
    clock_free(f->clock);
    pthread_mutex_destroy(&f->lock);
}

/* Writes guest memory through the choke point, so that decoded code notices. */
static inline void fixture_load(struct cpu_fixture *f, uint64_t gpa, const void *bytes, size_t len)
{
    static const struct access access = {.initiator = INITIATOR_LOADER};
    ck_assert_int_eq(phys_write(f->map, &access, gpa, bytes, len), PHYS_OK);
    mmu_service(&f->cpu->mmu);
}

/* Runs from rip until HLT (FIXTURE_HALTED) or an exception (its vector). */
static inline int fixture_run_as(struct cpu_fixture *f, uint64_t rip, bool single)
{
    struct cpu *cpu = f->cpu;
    cpu->rip = cpu->next_rip = rip;
    cpu->activity = CPU_RUNNING;
    cpu_mode_update(cpu);
    if (sigsetjmp(f->unwind, 0))
        return cpu->exception.vector;
    for (unsigned turns = 0; cpu->activity == CPU_RUNNING; turns++) {
        uint32_t due = atomic_load(&cpu->request) & cpu->attention;
        ck_assert_msg(turns < 100000000, "the code does not end");
        if (due & CPU_REQ_EXCLUSIVE) {
            cpu_withdraw(cpu, CPU_REQ_EXCLUSIVE);
            exclusive_poll(f->exclusive, cpu->index);
        }
        if (due & CPU_REQ_MMU) {
            cpu_withdraw(cpu, CPU_REQ_MMU);
            mmu_service(&cpu->mmu);
        }
        interp_run(cpu, single || (due & CPU_REQ_DEBUG));
        cpu->rip = cpu->next_rip;
    }
    return FIXTURE_HALTED;
}
static inline int fixture_run(struct cpu_fixture *f, uint64_t rip)
{
    return fixture_run_as(f, rip, false);
}
/* The same, one instruction at a time. */
static inline int fixture_step(struct cpu_fixture *f, uint64_t rip)
{
    return fixture_run_as(f, rip, true);
}

#endif
