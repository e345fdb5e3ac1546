/*
 * profile.c - counts and samples what the translator does (profile.h).
 */
#include "cpu/jit/profile.h"
#include "cpu/interp/interp.h"
#include "internal/error.h"
#include "internal/log.h"
#include "internal/profile.h"
#include "internal/symbols.h"
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

uint64_t profile_clock(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Where a guest address has its first place in a table. */
static size_t slot_of(uint64_t rip, unsigned i, size_t slots)
{
    return ((rip * 0x9e3779b97f4a7c15ull >> 32) + i) & (slots - 1);
}

/* ---- Samples --------------------------------------------------------------------------------- */

static struct profile_marks *marks_of(struct profile_cpu *p, size_t at)
{
    return &p->marks[at >= p->jit->cold.begin];
}

/* The guest instruction that the code at this offset is for; false: none. */
static bool find_mark(struct profile_cpu *p, size_t at, uint16_t *off)
{
    const struct profile_marks *m = marks_of(p, at);
    size_t low = 0, high = m->count;
    while (low < high) { /* the first one above */
        size_t middle = low + (high - low) / 2;
        if (m->mark[middle].at <= at)
            low = middle + 1;
        else
            high = middle;
    }
    if (low)
        *off = m->mark[low - 1].off;
    return low > 0;
}

static void add_sample(struct profile_cpu *p, uint64_t rip)
{
    bool user = p->cpu->cpl == 3;
    for (unsigned i = 0; i < PROFILE_PROBES; i++) {
        struct profile_sample *s = &p->sample[slot_of(rip, i, PROFILE_SAMPLES)];
        if (s->count && (s->rip != rip || s->user != user))
            continue;
        s->rip = rip;
        s->user = user;
        s->count++;
        return;
    }
    p->samples_lost++;
}

/* In the middle of anything that the vCPU's thread does: reads what that thread writes, and writes
 * only what nobody else does before the thread has ended. */
static void on_sample(int number, siginfo_t *info, void *context)
{
    const ucontext_t *u = context;
    struct profile_cpu *p = info->si_value.sival_ptr;
    (void)number;
    if (info->si_code != SI_TIMER) /* not ours */
        return;
    size_t at = (size_t)((const uint8_t *)u->uc_mcontext.gregs[REG_RIP] - p->jit->code);
    unsigned phase = p->phase;
    uint64_t rip = p->cpu->rip;
    uint16_t off;
    if (at < p->jit->body.begin) {
        phase = PHASE_THUNK;
    } else if (at < p->jit->code_size && find_mark(p, at, &off)) {
        phase = PHASE_TRANSLATED;
        rip = p->cpu->jx.page_va + off;
    }
    p->phases[phase]++;
    p->samples++;
    add_sample(p, rip);
}

static bool take_signal(struct error *err)
{
    struct sigaction action = {.sa_sigaction = on_sample, .sa_flags = SA_SIGINFO | SA_RESTART};
    struct sigaction before;
    sigaction(SIGPROF, NULL, &before);
    if (before.sa_handler != SIG_DFL && before.sa_sigaction != on_sample)
        return error_set(err,
                         "-d jit-profile: SIGPROF is in use by something else in this program");
    sigaction(SIGPROF, &action, NULL);
    return true;
}

/* Every millisecond of CPU time, or at each tick of the host's kernel (CONFIG_HZ) if that is
 * longer. */
static void start_timer(struct profile_cpu *p)
{
    const struct itimerspec each = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    sigset_t set;
    event._sigev_un._tid = gettid();
    event.sigev_value.sival_ptr = p;
    p->has_timer = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &p->timer) == 0 &&
                   timer_settime(p->timer, 0, &each, NULL) == 0;
    sigemptyset(&set);
    sigaddset(&set, SIGPROF);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void profile_thread_begin(struct cpu *cpu)
{
    struct profile_cpu *p = cpu->jit ? cpu->jit->profile : NULL;
    if (p && p->profile->report)
        start_timer(p);
}

void profile_thread_end(struct cpu *cpu)
{
    struct profile_cpu *p = cpu->jit ? cpu->jit->profile : NULL;
    if (!p)
        return;
    if (p->has_timer)
        timer_delete(p->timer);
    p->has_timer = false;
    profile_note_run(p);
    p->cpu_time = profile_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* ---- Translation ----------------------------------------------------------------------------- */

/* Code that is made again at an address takes the place of what was there. A sample may come
 * between any two stores. */
void profile_note_mark(struct profile_cpu *p, const uint8_t *at, uint16_t off)
{
    uint32_t offset = (uint32_t)(at - p->jit->code);
    struct profile_marks *m = marks_of(p, offset);
    while (m->count && m->mark[m->count - 1].at >= offset)
        m->count--;
    if (m->count == m->room) {
        size_t room = m->room ? 2 * m->room : 1 << 16;
        struct profile_mark *bigger = malloc(room * sizeof *bigger), *old = m->mark;
        if (!bigger)
            return; /* what comes is taken for what was */
        if (m->count)
            memcpy(bigger, old, m->count * sizeof *bigger);
        m->mark = bigger;
        m->room = room;
        atomic_signal_fence(memory_order_seq_cst);
        free(old);
    }
    m->mark[m->count] = (struct profile_mark){offset, off};
    atomic_signal_fence(memory_order_seq_cst);
    m->count++;
}

static void note_peak(struct profile_cpu *p)
{
    size_t used = jit_code_used(p->jit);
    if (used > p->code_peak)
        p->code_peak = used;
}

void profile_note_flush(struct profile_cpu *p)
{
    note_peak(p);
    p->marks[0].count = p->marks[1].count = 0;
}

void profile_note_region(struct profile_cpu *p, const uint8_t *code, size_t size)
{
    note_peak(p);
    if (p->cpu->msr_lstar)
        p->lstar = p->cpu->msr_lstar;
    if (p->profile->map)
        perfmap_region(p, code, size);
}

void profile_note_translation(struct profile_cpu *p, bool begins)
{
    p->phase = PHASE_CLOCK;
    uint64_t now = profile_clock(CLOCK_THREAD_CPUTIME_ID);
    p->phase = begins ? PHASE_TRANSLATING : PHASE_LOOP;
    p->attempts += begins;
    if (begins)
        p->translate_at = now;
    else if (now - p->translate_at > p->profile->clock_cost)
        p->translating += now - p->translate_at - p->profile->clock_cost;
}

/* ---- Sites ----------------------------------------------------------------------------------- */

static const uint8_t *site_bytes(const struct jit_site *site)
{
    return region_code(site->region, site->off);
}

static void add_site(struct profile_cpu *p, uint64_t rip, const struct jit_site *site,
                     enum profile_miss why)
{
    const uint8_t *bytes = site_bytes(site);
    for (unsigned i = 0; i < PROFILE_PROBES; i++) {
        struct profile_site *s = &p->site[slot_of(rip, i, PROFILE_SITES)];
        if (s->len && (s->rip != rip || s->len != site->len || memcmp(s->bytes, bytes, s->len)))
            continue;
        if (!s->len) {
            memcpy(s->bytes, bytes, site->len);
            s->len = site->len;
            s->rip = rip;
            s->code = p->cpu->mode & MODE_CODE64 ? 64 : 32;
            s->user = site->region->mode & MODE_USER;
            s->always = site->always;
        }
        s->count[why]++;
        return;
    }
    p->sites_lost++;
}

void profile_note_site(struct profile_cpu *p, const struct jit_site *site)
{
    p->phase = PHASE_SITE;
    p->at = site;
    p->fills = mmu_counters(&p->cpu->mmu)->fills;
    p->exec_generation = p->cpu->mmu.exec_generation;
    p->global_generation = p->cpu->mmu.global_generation;
}

static uint64_t site_rip(const struct profile_cpu *p)
{
    uint64_t rip = p->cpu->jx.page_va + p->at->off;
    return p->at->region->mode & MODE_CODE64 ? rip : (uint32_t)rip;
}

static enum profile_miss why_missed(const struct profile_cpu *p)
{
    if (p->at->always)
        return MISS_SLOW;
    if (mmu_counters(&p->cpu->mmu)->fills != p->fills)
        return MISS_FILL;
    return p->at->branch ? MISS_TARGET : MISS_OTHER;
}

static enum profile_exit why_asked(const struct cpu *cpu)
{
    uint32_t due = atomic_load_explicit(&cpu->request, memory_order_relaxed) & cpu->attention;
    return due & CPU_REQ_INTR ? LEFT_INTERRUPT : due & CPU_REQ_DEBUG ? LEFT_STEP : LEFT_REQUEST;
}

/* In the order of jit_slow()'s questions. */
static enum profile_exit why_left(const struct profile_cpu *p, enum profile_miss miss)
{
    const struct cpu *cpu = p->cpu;
    const struct jit_site *site = p->at;
    uint64_t next = site_rip(p) + site->len;
    if (site->branch)
        return miss == MISS_SLOW ? LEFT_BRANCH : LEFT_TARGET;
    if (site->region->stale)
        return LEFT_STALE;
    if (jit_mode(cpu) != site->region->mode)
        return LEFT_MODE;
    if (p->exec_generation != cpu->mmu.exec_generation ||
        p->global_generation != cpu->mmu.global_generation)
        return LEFT_MAPPING;
    if (cpu->rip != (cpu->mode & MODE_CODE64 ? next : (uint32_t)next))
        return LEFT_ELSEWHERE;
    if (cpu->activity != CPU_RUNNING)
        return LEFT_HALT;
    return interp_attention(cpu) ? why_asked(cpu) : LEFT_HELD;
}

void profile_note_site_over(struct profile_cpu *p, bool leaves)
{
    enum profile_miss miss = why_missed(p);
    add_site(p, site_rip(p), p->at, miss);
    if (leaves)
        p->exits[why_left(p, miss)]++;
    p->at = NULL;
    p->phase = PHASE_LOOP; /* the rest of the way is a thunk's */
}

/* What C did at a site has not come back: an exception. */
void profile_note_run(struct profile_cpu *p)
{
    if (p->at) {
        add_site(p, site_rip(p), p->at, MISS_FAULT);
        p->exits[LEFT_EXCEPTION]++;
    }
    p->at = NULL;
    p->phase = PHASE_LOOP;
}

/* ---- Exits ----------------------------------------------------------------------------------- */

static enum profile_exit why_at_edge(const struct cpu *cpu)
{
    const struct jit_edge *edge = cpu->jx.edge;
    if (edge->patch)
        return LEFT_EDGE;
    return edge->va == cpu->jx.page_va ? LEFT_EDGE_OLD : LEFT_EDGE_PAGE;
}

void profile_note_exit(struct profile_cpu *p, enum jit_exit why)
{
    struct cpu *cpu = p->cpu;
    p->phase = PHASE_LOOP;
    if (why == JIT_EXIT_LEFT) /* profile_note_site_over() has counted it */
        return;
    if (why == JIT_EXIT_EDGE)
        p->exits[why_at_edge(cpu)]++;
    else if (interp_attention(cpu) || atomic_load(&cpu->jx.kick))
        p->exits[why_asked(cpu)]++;
    else if (why == JIT_EXIT_GATE)
        p->exits[LEFT_GATE]++;
    else
        p->exits[LEFT_STALE]++;
}

/* ---- Names ----------------------------------------------------------------------------------- */

void profile_follow(struct profile *p, uint64_t lstar)
{
    if (!p->entry || !lstar || lstar == p->lstar)
        return;
    p->lstar = lstar;
    symbols_slide(p->symbols, (int64_t)(lstar - p->entry));
}

void profile_name(const struct profile *p, uint64_t rip, char *text, size_t size)
{
    uint64_t offset;
    const char *name = p->symbols ? symbols_at(p->symbols, rip, &offset) : NULL;
    if (name && offset)
        snprintf(text, size, "%s+%#llx", name, (unsigned long long)offset);
    else if (name)
        snprintf(text, size, "%s", name);
    else
        snprintf(text, size, "%#llx", (unsigned long long)rip);
}

static bool open_symbols(struct profile *p, const struct profile_config *config, struct error *err)
{
    char why[256];
    uint64_t size;
    const char *path = config->symbols ? config->symbols : config->kernel;
    if (!path)
        return true;
    p->symbols = symbols_open(path, why, sizeof why);
    if (!p->symbols)
        return !config->symbols || error_set(err, "-d symbols: %s", why);
    if (!symbols_find(p->symbols, "entry_SYSCALL_64", &p->entry, &size))
        p->entry = 0;
    return true;
}

/* A translation takes microseconds, and this clock is a system call. */
static uint64_t measure_clock(void)
{
    enum { TIMES = 256 };
    uint64_t begin = profile_clock(CLOCK_THREAD_CPUTIME_ID), end = begin;
    for (unsigned i = 0; i < TIMES; i++)
        end = profile_clock(CLOCK_THREAD_CPUTIME_ID);
    return (end - begin) / TIMES;
}

/* ---- Life ------------------------------------------------------------------------------------ */

struct profile *profile_new(const struct profile_config *config, struct error *err)
{
    struct profile *p = calloc(1, sizeof *p);
    if (!p) {
        error_set(err, "no memory for the profile");
        return NULL;
    }
    p->log = config->log;
    p->report = config->report;
    p->started = profile_clock(CLOCK_MONOTONIC);
    p->clock_cost = measure_clock();
    if (open_symbols(p, config, err) && (!config->report || take_signal(err)) &&
        (!config->perfmap || perfmap_open(p, err)))
        return p;
    profile_free(p);
    return NULL;
}

bool profile_add(struct profile *profile, struct cpu *cpu, struct error *err)
{
    enum { CPUS = sizeof profile->cpu / sizeof profile->cpu[0] };
    struct profile_cpu *p = profile->cpus < CPUS ? calloc(1, sizeof *p) : NULL;
    if (!p)
        return error_set(err, "no memory for the profile");
    profile->cpu[profile->cpus++] = p;
    *p =
        (struct profile_cpu){.profile = profile, .cpu = cpu, .jit = cpu->jit, .phase = PHASE_OTHER};
    p->sample = calloc(PROFILE_SAMPLES, sizeof *p->sample);
    p->site = calloc(PROFILE_SITES, sizeof *p->site);
    if (!p->sample || !p->site)
        return error_set(err, "no memory for the profile");
    if (profile->map && !perfmap_take(p, err))
        return false;
    cpu->jit->profile = p;
    return true;
}

void profile_free(struct profile *p)
{
    if (!p)
        return;
    for (unsigned i = 0; i < p->cpus; i++) {
        free(p->cpu[i]->marks[0].mark);
        free(p->cpu[i]->marks[1].mark);
        free(p->cpu[i]->sample);
        free(p->cpu[i]->site);
        free(p->cpu[i]);
    }
    if (p->map)
        fclose(p->map);
    symbols_free(p->symbols);
    free(p);
}

void profile_counters(const struct cpu *cpu, profile_counter *put, void *opaque)
{
    const struct mmu_counters *mmu = mmu_counters(&cpu->mmu);
    const struct jit *jit = cpu->jit;
    if (jit) {
#define X(name) put(opaque, "jit", #name, jit->counters.name);
        JIT_COUNTERS(X)
#undef X
        put(opaque, "jit", "cache_used", jit_code_used(jit));
        put(opaque, "jit", "cache_size", jit->code_size);
        put(opaque, "jit", "data_used", jit->data_used);
        put(opaque, "jit", "data_size", jit->data_size);
    }
#define X(name) put(opaque, "mmu", #name, mmu->name);
    MMU_COUNTERS(X)
#undef X
}
