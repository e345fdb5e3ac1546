/*
 * exclusive.h - stop every other vCPU at a safepoint, do something to what they share, go on.
 *
 * Used for LOCK accesses that cross a cache line, for revoking write permission from views of other
 * vCPUs, and for protection rules. The initiator holds no lock while it waits, and serves others'
 * requests; so two initiators never wait for each other.
 *
 * A vCPU thread is "in guest" between exclusive_enter() and exclusive_leave(); outside (halted,
 * stopped, not yet started) it counts as parked. In guest it must call exclusive_poll() at each
 * safepoint at which its CPU_REQ_EXCLUSIVE bit is set. Never begin a section while holding the
 * machine lock: another vCPU may be waiting for that lock and is then not at a safepoint.
 */
#ifndef INTERNAL_EXCLUSIVE_H
#define INTERNAL_EXCLUSIVE_H

#include <stdbool.h>
#include <stdint.h>

struct exclusive;

/* `ask(cpu)` must make that vCPU reach a safepoint soon (set CPU_REQ_EXCLUSIVE). */
struct exclusive *exclusive_new(unsigned vcpus, void (*ask)(void *cpu));
void exclusive_free(struct exclusive *x);
void exclusive_set_cpu(struct exclusive *x, unsigned vcpu, void *cpu);

void exclusive_enter(struct exclusive *x, unsigned vcpu); /* waits while a section is on */
void exclusive_leave(struct exclusive *x, unsigned vcpu);
void exclusive_poll(struct exclusive *x, unsigned vcpu); /* parks while a section is on */

/* From an in-guest vCPU thread. On return all other vCPUs are parked. May itself park first, if
 * another section is on: state that was looked up before must be looked up again. The vCPU whose
 * section is on may begin another inside it; each has its end. */
void exclusive_begin(struct exclusive *x, unsigned vcpu);
void exclusive_end(struct exclusive *x, unsigned vcpu);
/* True when only this vCPU exists, so that sections cost nothing. */
bool exclusive_alone(const struct exclusive *x);

#endif
