/*
 * profile.h - the translator's side of -d jit-profile and -perfmap: what the hooks in run.c,
 * translate.c, branch.c and cache.c call, and what is kept of it.
 *
 * Time is sampled: a timer of the thread's CPU time sends SIGPROF to the thread itself, whose
 * handler looks where the host's RIP is. In generated code, a table of marks (host address, offset
 * in the guest's page) gives the guest instruction, since cpu->jx.page_va says which page; in C,
 * `phase` says what C is doing, and cpu->rip for which guest instruction. All else is counted where
 * it happens. One per vCPU, touched by its thread only until that has ended.
 */
#ifndef CPU_JIT_PROFILE_H
#define CPU_JIT_PROFILE_H

#include "cpu/jit/jit.h"
#include <stdio.h>
#include <time.h>

/* ---- What is kept ---------------------------------------------------------------------------- */

#define PROFILE_PHASES(X)                                                                          \
    X(TRANSLATED, "translated code")                                                               \
    X(THUNK, "ways into translated code and out of it")                                            \
    X(LOOP, "finding and linking regions")                                                         \
    X(TRANSLATING, "translating")                                                                  \
    X(SITE, "C for instructions in translated code (sites)")                                       \
    X(INTERPRETER, "interpreting cold code")                                                       \
    X(CLOCK, "this profile's own looking at the clock")                                            \
    X(OTHER, "interrupts, exceptions, requests, halts")
enum profile_phase {
#define X(id, text) PHASE_##id,
    PROFILE_PHASES(X)
#undef X
        PHASE_COUNT
};

/* Why translated code was left; the sum is jit->counters.enters. */
#define PROFILE_EXITS(X)                                                                           \
    X(EDGE, "unlinked edge inside the page")                                                       \
    X(EDGE_PAGE, "unlinked edge to another page, or linked for another address")                   \
    X(EDGE_OLD, "edge to another page, mapping changed since it was linked")                       \
    X(TARGET, "indirect target not found")                                                         \
    X(GATE, "system call or return whose target was not found")                                    \
    X(BRANCH, "branch that has no translation")                                                    \
    X(ELSEWHERE, "instruction by C that goes elsewhere, or is not finished")                       \
    X(STALE, "code has changed")                                                                   \
    X(MAPPING, "mapping changed")                                                                  \
    X(MODE, "mode changed")                                                                        \
    X(INTERRUPT, "poll: interrupt")                                                                \
    X(STEP, "interrupt shadow, or single steps")                                                   \
    X(HELD, "host addresses that the region holds have become wrong")                              \
    X(HALT, "halt")                                                                                \
    X(REQUEST, "poll: other request")                                                              \
    X(EXCEPTION, "exception")
enum profile_exit {
#define X(id, text) LEFT_##id,
    PROFILE_EXITS(X)
#undef X
        LEFT_COUNT
};

/* Why C executed an instruction at a site. */
#define PROFILE_MISSES(X)                                                                          \
    X(FILL, "fill")     /* the page was not in the view, or not with this permission */            \
    X(OTHER, "other")   /* a device, a page's end, a page with code, traced, or ruled */           \
    X(TARGET, "target") /* an indirect branch whose target was not in the table */                 \
    X(FAULT, "fault")   /* it raised an exception */                                               \
    X(SLOW, "slow")     /* it has no translation */
enum profile_miss {
#define X(id, text) MISS_##id,
    PROFILE_MISSES(X)
#undef X
        MISS_COUNT
};

/* Guest code from here on, up to the next mark, is at `off` of its page. */
struct profile_mark {
    uint32_t at; /* from jit->code; rising */
    uint16_t off;
};

/* Those of one zone of the cache. */
struct profile_marks {
    struct profile_mark *mark;
    size_t count, room;
};

struct profile_sample {
    uint64_t rip;
    uint32_t count; /* 0: free */
    bool user;
};

struct profile_site {
    uint64_t rip;
    uint64_t count[MISS_COUNT];
    uint8_t bytes[15], len; /* len 0: free */
    uint8_t code;           /* 32, 64 */
    bool user, always;      /* always: it has no translation */
};

enum { PROFILE_SAMPLES = 1 << 15, PROFILE_SITES = 1 << 15, PROFILE_PROBES = 32 };

struct profile_cpu {
    struct profile *profile;
    struct cpu *cpu;
    struct jit *jit;
    volatile uint8_t phase; /* enum profile_phase */
    timer_t timer;
    bool has_timer;
    struct profile_marks marks[2]; /* jit->body, jit->cold */
    uint64_t phases[PHASE_COUNT], samples, samples_lost;
    struct profile_sample *sample; /* hashed by rip */
    struct profile_site *site;     /* likewise */
    uint64_t sites_lost;
    uint64_t exits[LEFT_COUNT];
    size_t code_peak;
    uint64_t translating;  /* ns of CPU time, less what looking at the clock takes */
    uint64_t translate_at; /* when it began */
    uint64_t attempts;     /* with those that made no region */
    uint64_t cpu_time;     /* ns, of the thread */
    uint64_t lstar;        /* the last one that was not 0 */
    /* The site at which C is: NULL: none. */
    const struct jit_site *at;
    uint64_t fills, exec_generation, global_generation;
};

struct symbols;
struct profile {
    struct log *log;
    bool report;
    FILE *map; /* perfmap.c; NULL: none */
    struct symbols *symbols;
    uint64_t entry; /* of entry_SYSCALL_64 in the symbols; 0: they are not Linux's */
    uint64_t lstar; /* that the symbols have been moved for */
    uint64_t started;
    uint64_t clock_cost; /* ns of CPU time */
    struct profile_cpu *cpu[64];
    unsigned cpus;
};

/* The name of a guest address, "name+0x12" or "0x1234", into `text`. */
void profile_name(const struct profile *p, uint64_t rip, char *text, size_t size);
/* Linux moves itself (KASLR): the symbols follow, by where its system call entry is. */
void profile_follow(struct profile *p, uint64_t lstar);
uint64_t profile_clock(clockid_t clock); /* ns */

/* ---- perfmap.c ------------------------------------------------------------------------------- */

bool perfmap_open(struct profile *p, struct error *err);
/* Maps the cache so that perf asks the map about it, and names the thunks. */
bool perfmap_take(struct profile_cpu *p, struct error *err);
void perfmap_region(struct profile_cpu *p, const uint8_t *code, size_t size);

/* ---- Hooks ----------------------------------------------------------------------------------- */

void profile_note_mark(struct profile_cpu *p, const uint8_t *at, uint16_t off);
void profile_note_flush(struct profile_cpu *p);
void profile_note_region(struct profile_cpu *p, const uint8_t *code, size_t size);
void profile_note_translation(struct profile_cpu *p, bool begins);
void profile_note_run(struct profile_cpu *p);
void profile_note_exit(struct profile_cpu *p, enum jit_exit why);
void profile_note_site(struct profile_cpu *p, const struct jit_site *site);
void profile_note_site_over(struct profile_cpu *p, bool leaves);

static inline bool profile_is_on(const struct jit *jit)
{
    return __builtin_expect(jit->profile != NULL, 0);
}
/* The code from `at` (running address) on is for the guest instruction at `off` of its page. */
static inline void profile_mark(struct jit *jit, const uint8_t *at, uint16_t off)
{
    if (profile_is_on(jit))
        profile_note_mark(jit->profile, at, off);
}
/* Before the cache is emptied. */
static inline void profile_flush(struct jit *jit)
{
    if (profile_is_on(jit))
        profile_note_flush(jit->profile);
}
/* A part of the region at cpu->rip, which has been translated. */
static inline void profile_region(struct jit *jit, const uint8_t *code, size_t size)
{
    if (profile_is_on(jit))
        profile_note_region(jit->profile, code, size);
}
static inline void profile_translation(struct jit *jit, bool begins)
{
    if (profile_is_on(jit))
        profile_note_translation(jit->profile, begins);
}
/* The engine's loop begins. */
static inline void profile_run(struct jit *jit)
{
    if (profile_is_on(jit))
        profile_note_run(jit->profile);
}
static inline void profile_phase(struct jit *jit, enum profile_phase phase)
{
    if (profile_is_on(jit))
        jit->profile->phase = (uint8_t)phase;
}
/* Translated code has come back. */
static inline void profile_exit(struct jit *jit, enum jit_exit why)
{
    if (profile_is_on(jit))
        profile_note_exit(jit->profile, why);
}
/* C executes the instruction at a site, for which cpu->rip is right; it has done so. */
static inline void profile_site(struct jit *jit, const struct jit_site *site)
{
    if (profile_is_on(jit))
        profile_note_site(jit->profile, site);
}
static inline void profile_site_over(struct jit *jit, bool leaves)
{
    if (profile_is_on(jit))
        profile_note_site_over(jit->profile, leaves);
}

#endif
