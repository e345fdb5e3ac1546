/*
 * profile.h - looking into the translator: what -d jit-profile counts, samples and reports, and the
 * map of generated code that -perfmap writes for perf.
 *
 *     profile_new() -> profile_add() for each vCPU -> threads run, each between
 *     profile_thread_begin() and _end() -> profile_report() -> profile_free()
 *
 * A machine without these options has no struct profile, and pays nothing but a test of a pointer
 * where translated code has come back to C anyway.
 */
#ifndef INTERNAL_PROFILE_H
#define INTERNAL_PROFILE_H

#include <stdbool.h>
#include <stdint.h>

struct cpu;
struct error;
struct log;
struct profile;

struct profile_config {
    struct log *log;     /* where the report goes */
    bool report;         /* -d jit-profile */
    bool perfmap;        /* -perfmap */
    const char *symbols; /* a file that must have symbols (internal/symbols.h); NULL: none given */
    const char *kernel;  /* else this file's, if it has some; may be NULL */
};

/* NULL: *err says why. SIGPROF is the profile's from then on: it drives the samples. */
struct profile *profile_new(const struct profile_config *config, struct error *err);
/* A vCPU with a translator that has not run yet. */
bool profile_add(struct profile *profile, struct cpu *cpu, struct error *err);
/* In the vCPU's thread, around all that it runs. Without a profile they do nothing. */
void profile_thread_begin(struct cpu *cpu);
void profile_thread_end(struct cpu *cpu);
/* When no vCPU thread is left. */
void profile_report(struct profile *profile);
void profile_free(struct profile *profile); /* NULL is allowed; the CPUs may be gone */

/* All counters of the translator and of the MMU, for whoever wants to show them. The vCPU stands
 * still. */
typedef void profile_counter(void *opaque, const char *group, const char *name, uint64_t value);
void profile_counters(const struct cpu *cpu, profile_counter *put, void *opaque);

#endif
