/*
 * bench.h - a board for one chip: manual time, ports, memory windows, probes on its lines.
 *
 * The port space, the MMIO map and the timers are small fakes defined here, under the names of the
 * real ones, so that a test of a chip needs nothing else: time moves only in bench_advance(), which
 * fires the timers in order, each at its own deadline.
 */
#ifndef TESTS_UNIT_DEVICES_BENCH_H
#define TESTS_UNIT_DEVICES_BENCH_H

#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/event.h"
#include "internal/log.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_CLAIMS = 32, BENCH_TIMERS = 32 };

struct bench_claim {
    uint64_t base, size;
    const struct io_ops *ops;
    void *opaque;
};

static struct bench {
    struct board board;
    struct log log;
    pthread_mutex_t lock;
    struct bench_claim ports[BENCH_CLAIMS], mmio[BENCH_CLAIMS];
    struct timer *timers[BENCH_TIMERS];
    uint64_t now;
    unsigned shutdowns;
    enum board_event shutdown_what;
    int shutdown_status;
} bench;

/* ---- The fakes ------------------------------------------------------------------------------- */

static int bench_claim(struct bench_claim *table, struct bench_claim claim)
{
    for (int i = 1; i < BENCH_CLAIMS; i++)
        if (!table[i].ops) {
            table[i] = claim;
            return i;
        }
    abort();
}

int io_add(struct io_space *space, uint16_t base, unsigned count, const struct io_ops *ops,
           void *opaque, const char *name)
{
    (void)space, (void)name;
    return bench_claim(bench.ports, (struct bench_claim){base, count, ops, opaque});
}

void io_remove(struct io_space *space, int handle)
{
    (void)space;
    bench.ports[handle].ops = NULL;
}

int phys_add_mmio(struct phys_map *map, uint64_t gpa, uint64_t size, const struct io_ops *ops,
                  void *opaque, const char *name, struct error *err)
{
    (void)map, (void)name, (void)err;
    return bench_claim(bench.mmio, (struct bench_claim){gpa, size, ops, opaque});
}

void phys_remove(struct phys_map *map, int handle)
{
    (void)map;
    bench.mmio[handle].ops = NULL;
}

/* At once: the bench has one thread. */
void event_post(struct event_queue *queue, event_fn *fn, void *opaque)
{
    (void)queue;
    fn(opaque);
}

void timer_init(struct timer *timer, struct event_queue *queue, event_fn *fn, void *opaque)
{
    *timer = (struct timer){.queue = queue, .fn = fn, .opaque = opaque};
}

void timer_cancel(struct timer *timer)
{
    if (timer->heap)
        bench.timers[timer->heap] = NULL;
    timer->heap = 0;
}

void timer_arm(struct timer *timer, uint64_t deadline)
{
    timer_cancel(timer);
    timer->deadline = deadline;
    for (uint32_t i = 1; i < BENCH_TIMERS && !timer->heap; i++)
        if (!bench.timers[i]) {
            bench.timers[i] = timer;
            timer->heap = i;
        }
}

bool timer_armed(const struct timer *timer)
{
    return timer->heap != 0;
}

static void bench_shutdown(void *machine, enum board_event what, int status)
{
    (void)machine;
    bench.shutdowns++;
    bench.shutdown_what = what;
    bench.shutdown_status = status;
}

/* ---- Set-up and time ------------------------------------------------------------------------- */

static struct board *bench_setup(void)
{
    pthread_mutexattr_t attr;
    clock_free(bench.board.clock); /* of an earlier board of the same test */
    memset(&bench, 0, sizeof(bench));
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&bench.lock, &attr);
    bench.log.out = stderr;
    bench.board = (struct board){
        .clock = clock_new(),
        .lock = &bench.lock,
        .log = &bench.log,
        .shutdown = bench_shutdown,
    };
    clock_set_manual(bench.board.clock, 0);
    return &bench.board;
}

/* Moves time on by `ns`; returns how many timers fired. */
static inline unsigned bench_advance(uint64_t ns)
{
    uint64_t target = bench.now + ns;
    for (unsigned fired = 0;; fired++) {
        struct timer *next = NULL;
        for (unsigned i = 1; i < BENCH_TIMERS; i++) {
            struct timer *t = bench.timers[i];
            if (t && t->deadline <= target && (!next || t->deadline < next->deadline))
                next = t;
        }
        uint64_t at = next ? next->deadline : target;
        bench.now = at > bench.now ? at : bench.now;
        clock_set_manual(bench.board.clock, bench.now);
        if (!next)
            return fired;
        timer_cancel(next);
        next->fn(next->opaque);
    }
}

/* Time goes on, but no timer fires: the I/O thread is late. */
static inline void bench_be_late(uint64_t ns)
{
    bench.now += ns;
    clock_set_manual(bench.board.clock, bench.now);
}

static inline void bench_destroy(void *chip)
{
    chip_device(chip)->destroy(chip_device(chip));
}
static inline void bench_reset(void *chip)
{
    chip_device(chip)->reset(chip_device(chip));
}

/* ---- The guest's side ------------------------------------------------------------------------ */

static struct access bench_access = {.initiator = INITIATOR_VCPU_KERNEL};

/* The one claim that holds the address. */
static struct bench_claim *bench_find(struct bench_claim *table, uint64_t address)
{
    for (unsigned i = 1; i < BENCH_CLAIMS; i++)
        if (table[i].ops && address - table[i].base < table[i].size)
            return &table[i];
    return NULL;
}

static inline uint32_t in_sized(uint16_t port, unsigned size)
{
    struct bench_claim *c = bench_find(bench.ports, port);
    if (!c)
        return UINT32_MAX >> (32 - 8 * size);
    ck_assert(size <= c->ops->max);
    return (uint32_t)c->ops->read(c->opaque, &bench_access, port - c->base, size);
}

static inline void out_sized(uint16_t port, unsigned size, uint32_t value)
{
    struct bench_claim *c = bench_find(bench.ports, port);
    ck_assert(!c || size <= c->ops->max);
    if (c)
        c->ops->write(c->opaque, &bench_access, port - c->base, size, value);
}

static inline uint8_t in8(uint16_t port)
{
    return (uint8_t)in_sized(port, 1);
}
static inline void out8(uint16_t port, uint8_t value)
{
    out_sized(port, 1, value);
}

static inline uint32_t mmio_read(uint64_t gpa)
{
    struct bench_claim *c = bench_find(bench.mmio, gpa);
    ck_assert_ptr_nonnull(c);
    return (uint32_t)c->ops->read(c->opaque, &bench_access, gpa - c->base, 4);
}

static inline void mmio_write(uint64_t gpa, uint32_t value)
{
    struct bench_claim *c = bench_find(bench.mmio, gpa);
    ck_assert_ptr_nonnull(c);
    c->ops->write(c->opaque, &bench_access, gpa - c->base, 4, value);
}

/* ---- A probe on a line, and a CPU behind a local APIC ---------------------------------------- */

struct probe {
    bool level;
    unsigned rises;
};

static inline void probe_set(void *opaque, unsigned pin, bool level)
{
    struct probe *p = opaque;
    (void)pin;
    p->rises += level && !p->level;
    p->level = level;
}

static inline struct irq_line probe_line(struct probe *p)
{
    return (struct irq_line){.set = probe_set, .opaque = p};
}

struct fake_cpu {
    uint32_t requests;
    unsigned nmis, inits, smis, sipis;
    uint8_t sipi_vector;
};

static inline void fake_cpu_raise(void *opaque, uint32_t requests)
{
    struct fake_cpu *cpu = opaque;
    cpu->requests |= requests;
    cpu->nmis += (requests & CPU_REQ_NMI) != 0;
    cpu->inits += (requests & CPU_REQ_INIT) != 0;
    cpu->smis += (requests & CPU_REQ_SMI) != 0;
}

static inline void fake_cpu_lower(void *opaque, uint32_t requests)
{
    ((struct fake_cpu *)opaque)->requests &= ~requests;
}

static inline void fake_cpu_sipi(void *opaque, uint8_t vector)
{
    struct fake_cpu *cpu = opaque;
    cpu->sipis++;
    cpu->sipi_vector = vector;
}

static inline struct lapic_config fake_cpu_config(struct fake_cpu *cpu, unsigned index)
{
    return (struct lapic_config){
        .index = index,
        .bsp = index == 0,
        .x2apic = true,
        .tsc_deadline = true,
        .cpu = {cpu, fake_cpu_raise, fake_cpu_lower, fake_cpu_sipi},
    };
}

static inline bool fake_cpu_interrupted(const struct fake_cpu *cpu)
{
    return cpu->requests & CPU_REQ_INTR;
}

/* Runs the tests of one file: an array of TTest pointers. */
static inline int bench_main(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
#define BENCH_MAIN(name, ...)                                                                      \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return bench_main(name, tests, sizeof(tests) / sizeof(tests[0]));                          \
    }

#endif
