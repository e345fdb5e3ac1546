/*
 * report.c - what -d jit-profile prints when the machine has ended: all vCPUs together, the
 * counters of each.
 */
#include "cpu/jit/profile.h"
#include "internal/log.h"
#include "internal/profile.h"
#include "internal/symbols.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 20, NAME = 160 };

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? 100.0 * (double)part / (double)whole : 0;
}

static __attribute__((format(printf, 2, 3))) void put(const struct profile *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vfprintf(p->log->out, fmt, ap);
    va_end(ap);
}

static void put_row(const struct profile *p, uint64_t count, uint64_t whole, const char *text)
{
    put(p, "  %5.1f %% %10llu  %s\n", percent(count, whole), (unsigned long long)count, text);
}

/* A table of counts with texts, most frequent first; rows of 0 are left out. */
static void put_counts(const struct profile *p, const uint64_t *count, const char *const *text,
                       unsigned rows, uint64_t whole)
{
    uint64_t left[32];
    memcpy(left, count, rows * sizeof *count);
    for (unsigned n = 0; n < rows; n++) {
        unsigned most = 0;
        for (unsigned i = 1; i < rows; i++)
            if (left[i] > left[most])
                most = i;
        if (!left[most])
            return;
        put_row(p, left[most], whole, text[most]);
        left[most] = 0;
    }
}

/* ---- Functions ------------------------------------------------------------------------------- */

struct function {
    const char *name; /* NULL: a page without symbols */
    uint64_t page, count;
    bool user;
};

static int by_place(const void *left, const void *right)
{
    const struct function *a = left, *b = right;
    if (a->name != b->name)
        return (uintptr_t)a->name < (uintptr_t)b->name ? -1 : 1;
    if (a->page != b->page)
        return a->page < b->page ? -1 : 1;
    return a->user - b->user;
}

static int by_count(const void *left, const void *right)
{
    const struct function *a = left, *b = right;
    return a->count < b->count ? 1 : a->count > b->count ? -1 : by_place(left, right);
}

/* One for each address that has samples; then those of one place put together. */
static size_t collect(const struct profile *p, struct function *f)
{
    size_t n = 0, kept = 0;
    for (unsigned c = 0; c < p->cpus; c++)
        for (unsigned i = 0; i < PROFILE_SAMPLES; i++) {
            const struct profile_sample *s = &p->cpu[c]->sample[i];
            uint64_t offset;
            if (!s->count)
                continue;
            const char *name = p->symbols ? symbols_at(p->symbols, s->rip, &offset) : NULL;
            f[n++] = (struct function){name, name ? 0 : s->rip & PAGE_MASK, s->count, s->user};
        }
    qsort(f, n, sizeof *f, by_place);
    for (size_t i = 0; i < n; i++)
        if (kept && by_place(&f[kept - 1], &f[i]) == 0)
            f[kept - 1].count += f[i].count;
        else
            f[kept++] = f[i];
    qsort(f, kept, sizeof *f, by_count);
    return kept;
}

static void put_functions(const struct profile *p, uint64_t samples, uint64_t lost)
{
    struct function *f = calloc((size_t)p->cpus * PROFILE_SAMPLES, sizeof *f);
    size_t n = f ? collect(p, f) : 0;
    put(p, "hottest guest functions, and pages of which no symbol is known:\n");
    for (size_t i = 0; i < n && i < ROWS; i++) {
        char text[NAME];
        if (f[i].name)
            snprintf(text, sizeof text, "%s%s", f[i].user ? "user " : "", f[i].name);
        else
            snprintf(text, sizeof text, "%spage %#llx", f[i].user ? "user " : "",
                     (unsigned long long)f[i].page);
        put_row(p, f[i].count, samples, text);
    }
    if (lost)
        put_row(p, lost, samples, "at addresses for which there was no room");
    free(f);
}

/* ---- Sites ----------------------------------------------------------------------------------- */

struct place {
    const struct profile_site *site;
    uint64_t count;
    char mnemonic[24]; /* of those without translation */
};

static int by_hits(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    return a->count < b->count ? 1 : a->count > b->count ? -1 : 0;
}

static int by_mnemonic(const void *left, const void *right)
{
    const struct place *a = left, *b = right;
    int order = strcmp(a->mnemonic, b->mnemonic);
    return order ? order : by_hits(left, right);
}

/* Capstone lacks some instructions; the table has their names. */
static void disassemble(const struct profile *p, const struct profile_site *s, char *text,
                        size_t size)
{
    struct insn insn;
    if (insn_disassemble(s->bytes, s->len, s->code, s->rip, text, size) == 0 &&
        insn_decode(s->bytes, s->len, s->code, false, &p->cpu[0]->cpu->features, &insn) ==
            DECODE_OK)
        snprintf(text, size, "%s", insn.row->mnemonic);
}

/* "rep movsb" without operands. */
static void set_mnemonic(const struct profile *p, struct place *place)
{
    char text[NAME];
    disassemble(p, place->site, text, sizeof text);
    size_t len = strcspn(text, " ");
    if (!strncmp(text, "rep", 3) || !strncmp(text, "lock", 4))
        len += 1 + strcspn(text + len + !!text[len], " ");
    snprintf(place->mnemonic, sizeof place->mnemonic, "%.*s", (int)len, text);
}

/* The sites that have no translation, or those that have. */
static size_t collect_sites(const struct profile *p, struct place *place, bool always)
{
    size_t n = 0;
    for (unsigned c = 0; c < p->cpus; c++)
        for (unsigned i = 0; i < PROFILE_SITES; i++) {
            const struct profile_site *s = &p->cpu[c]->site[i];
            if (!s->len || s->always != always)
                continue;
            place[n] = (struct place){.site = s};
            for (unsigned why = 0; why < MISS_COUNT; why++)
                place[n].count += s->count[why];
            if (always)
                set_mnemonic(p, &place[n]);
            n++;
        }
    qsort(place, n, sizeof *place, always ? by_mnemonic : by_hits);
    return n;
}

static uint64_t sum(const struct place *place, size_t n)
{
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += place[i].count;
    return all;
}

static void describe(const struct profile *p, const struct profile_site *s, char *text, size_t size)
{
    char name[NAME], insn[NAME];
    uint64_t offset;
    bool named = p->symbols && symbols_at(p->symbols, s->rip, &offset);
    profile_name(p, s->rip, name, sizeof name);
    disassemble(p, s, insn, sizeof insn);
    snprintf(text, size, "%s%#llx%s%s: %s", s->user ? "user " : "", (unsigned long long)s->rip,
             named ? " " : "", named ? name : "", insn);
}

static void put_misses(const struct profile *p, struct place *place)
{
    static const char *const words[] = {
#define X(id, text) text,
        PROFILE_MISSES(X)
#undef X
    };
    size_t n = collect_sites(p, place, false);
    uint64_t all = sum(place, n), why[MISS_COUNT] = {0};
    for (size_t i = 0; i < n; i++)
        for (unsigned k = 0; k < MISS_COUNT; k++)
            why[k] += place[i].site->count[k];
    put(p, "lookups that missed: %llu at %zu sites\n", (unsigned long long)all, n);
    put_counts(p, why, words, MISS_COUNT, all);
    put(p, "hottest of these sites:\n");
    for (size_t i = 0; i < n && i < ROWS; i++) {
        char text[2 * NAME + 64], line[2 * NAME + 80];
        const struct profile_site *s = place[i].site;
        unsigned most = 0;
        for (unsigned k = 1; k < MISS_COUNT; k++)
            if (s->count[k] > s->count[most])
                most = k;
        describe(p, s, text, sizeof text);
        snprintf(line, sizeof line, "%-6s %s", words[most], text);
        put_row(p, place[i].count, all, line);
    }
}

/* By mnemonic, each with the hottest place where it stands. */
static void put_slow(const struct profile *p, struct place *place)
{
    size_t n = collect_sites(p, place, true), kept = 0;
    uint64_t all = sum(place, n);
    for (size_t i = 0; i < n; i++)
        if (kept && !strcmp(place[kept - 1].mnemonic, place[i].mnemonic))
            place[kept - 1].count += place[i].count;
        else
            place[kept++] = place[i];
    qsort(place, kept, sizeof *place, by_hits);
    put(p,
        "instructions without translation, executed by C: %llu at %zu sites; each with its "
        "hottest:\n",
        (unsigned long long)all, n);
    for (size_t i = 0; i < kept && i < ROWS; i++) {
        char text[2 * NAME + 64], line[2 * NAME + 100];
        describe(p, place[i].site, text, sizeof text);
        snprintf(line, sizeof line, "%-12s %s", place[i].mnemonic, text);
        put_row(p, place[i].count, all, line);
    }
}

static void put_sites(const struct profile *p, uint64_t lost)
{
    struct place *place = calloc((size_t)p->cpus * PROFILE_SITES, sizeof *place);
    if (!place)
        return;
    put_misses(p, place);
    put_slow(p, place);
    if (lost)
        put(p, "%llu more at sites for which there was no room\n", (unsigned long long)lost);
    free(place);
}

/* ---- Counters -------------------------------------------------------------------------------- */

struct line {
    const struct profile *profile;
    const char *group;
    unsigned index;
};

static void put_counter(void *opaque, const char *group, const char *name, uint64_t value)
{
    struct line *line = opaque;
    if (line->group != group)
        put(line->profile, "\ncpu%u %s:", line->index, group);
    line->group = group;
    put(line->profile, " %s %llu", name, (unsigned long long)value);
}

static void put_counters(const struct profile *p)
{
    put(p, "counters:");
    for (unsigned i = 0; i < p->cpus; i++) {
        struct line line = {p, NULL, i};
        profile_counters(p->cpu[i]->cpu, put_counter, &line);
    }
    put(p, "\n");
}

/* ---- The report ------------------------------------------------------------------------------ */

struct totals {
    struct jit_counters jit;
    uint64_t phases[PHASE_COUNT], samples, samples_lost, exits[LEFT_COUNT], sites_lost;
    uint64_t cpu_time, translating, attempts;
    size_t code_peak, code_size;
};

static struct totals add_up(const struct profile *p)
{
    struct totals t = {0};
    for (unsigned c = 0; c < p->cpus; c++) {
        const struct profile_cpu *cpu = p->cpu[c];
        for (unsigned i = 0; i < PHASE_COUNT; i++)
            t.phases[i] += cpu->phases[i];
        for (unsigned i = 0; i < LEFT_COUNT; i++)
            t.exits[i] += cpu->exits[i];
#define X(name) t.jit.name += cpu->jit->counters.name;
        JIT_COUNTERS(X)
#undef X
        t.samples += cpu->samples;
        t.samples_lost += cpu->samples_lost;
        t.sites_lost += cpu->sites_lost;
        t.cpu_time += cpu->cpu_time;
        t.translating += cpu->translating;
        t.attempts += cpu->attempts;
        t.code_peak += cpu->code_peak;
        t.code_size += cpu->jit->code_size;
    }
    return t;
}

static void put_time(const struct profile *p, const struct totals *t)
{
    static const char *const phases[] = {
#define X(id, text) text,
        PROFILE_PHASES(X)
#undef X
    };
    uint64_t wall = profile_clock(CLOCK_MONOTONIC) - p->started;
    put(p, "jit-profile: %u vCPUs, %.3f s of processor time in %.3f s, %llu samples\n", p->cpus,
        (double)t->cpu_time / 1e9, (double)wall / 1e9, (unsigned long long)t->samples);
    put_counts(p, t->phases, phases, PHASE_COUNT, t->samples);
    put(p,
        "translation: %.3f s, %.1f %% of the processor time; %llu regions of %.1f instructions, "
        "%.1f us and %.0f bytes each; %llu attempts made none\n",
        (double)t->translating / 1e9, percent(t->translating, t->cpu_time),
        (unsigned long long)t->jit.regions, percent(t->jit.insns, t->jit.regions) / 100,
        percent(t->translating, t->jit.regions) / 1e5,
        percent(t->jit.code_bytes, t->jit.regions) / 100,
        (unsigned long long)(t->attempts - t->jit.regions));
    put(p, "code cache: at most %zu of %zu bytes used, emptied %llu times; %llu regions stale\n",
        t->code_peak, t->code_size, (unsigned long long)t->jit.flushes,
        (unsigned long long)t->jit.stale);
}

static void put_exits(const struct profile *p, const struct totals *t)
{
    static const char *const exits[] = {
#define X(id, text) text,
        PROFILE_EXITS(X)
#undef X
    };
    uint64_t all = 0;
    for (unsigned i = 0; i < LEFT_COUNT; i++)
        all += t->exits[i];
    put(p, "exits from translated code: %llu of %llu entries\n", (unsigned long long)all,
        (unsigned long long)t->jit.enters);
    put_counts(p, t->exits, exits, LEFT_COUNT, all);
}

void profile_report(struct profile *p)
{
    if (!p->report)
        return;
    struct totals t = add_up(p);
    for (unsigned i = 0; i < p->cpus; i++)
        profile_follow(p, p->cpu[i]->lstar);
    flockfile(p->log->out);
    put_time(p, &t);
    put_functions(p, t.samples, t.samples_lost);
    put_exits(p, &t);
    put_sites(p, t.sites_lost);
    put_counters(p);
    fflush(p->log->out);
    funlockfile(p->log->out);
}
