/*
 * protect.c - the protection device in its machine: rules, doors, vCPUs and what a rule may ask of
 * the machine (pausing, stopping) are connected here.
 */
#include "internal/door.h"
#include "pc.h"
#include <stdio.h>

enum { STATUS_REFUSED = 3, PROTECT_DEVFN = PCI_DEVFN(31, 0) }; /* out of the way of -device */

static void port_caller(void *opaque, unsigned vcpu, struct rules_caller *caller)
{
    struct machine *m = opaque;
    cpu_rules_caller(m->vcpu[vcpu].cpu, caller);
}

static enum protect_status port_resume(void *opaque, unsigned vcpu, unsigned context,
                                       uint64_t value)
{
    struct machine *m = opaque;
    return cpu_upcall_resume(m->vcpu[vcpu].cpu, context, value);
}

/* Any thread, no lock of the rules held; the device wants the machine lock. */
static void on_interrupt(void *opaque, unsigned context)
{
    struct machine *m = opaque;
    pthread_mutex_lock(&m->lock);
    protect_interrupt(m->protect, context);
    pthread_mutex_unlock(&m->lock);
}

static void on_pause(void *opaque, const char *report)
{
    fprintf(stderr, "bailey: %s; paused\n", report);
    machine_pause(opaque);
}

static void on_stop(void *opaque, const char *report)
{
    fprintf(stderr, "bailey: %s; stopped\n", report);
    machine_wish(opaque, WISH_REFUSED, STATUS_REFUSED);
}

/* The TSC of vCPU 0, in any thread. */
static uint64_t guest_time(void *opaque)
{
    const struct machine *m = opaque;
    const struct cpu *cpu = m->vcpu[0].cpu;
    return clock_now(m->clock) + __atomic_load_n(&cpu->tsc_offset, __ATOMIC_RELAXED);
}

bool protect_build(struct machine *m, struct error *err)
{
    if (!m->config->protect)
        return true;
    m->rules = rules_new(m->map, m->exclusive, m->clock, &m->log, err);
    if (!m->rules)
        return false;
    const struct protect_config config = {
        .rules = m->rules,
        .port = {.opaque = m, .caller = port_caller, .resume = port_resume},
        .vcpus = m->vcpu_count,
    };
    m->protect = protect_create(m->pci, PROTECT_DEVFN, &config, err);
    if (!pc_own(m, m->protect, err))
        return false;
    m->firmware.protect = PROTECT_ADMIN_ADDRESS;
    m->firmware.protect_end = PROTECT_DOOR_ADDRESS(PROTECT_DOORS);
    const struct rules_hooks hooks = {.opaque = m,
                                      .interrupt = on_interrupt,
                                      .pause = on_pause,
                                      .stop = on_stop,
                                      .time = guest_time};
    rules_set_hooks(m->rules, &hooks);
    return true;
}
