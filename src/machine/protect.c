/*
 * protect.c - the protection device in its machine: rules, doors, vCPUs, clients outside, and what
 * a rule may ask of the machine (pausing, stopping) are connected here.
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

static void port_unmasked(void *opaque, unsigned vcpu)
{
    struct machine *m = opaque;
    cpu_upcall_look(m->vcpu[vcpu].cpu);
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
    machine_pause_because(opaque, report);
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

/* ---- Clients outside ------------------------------------------------------------------------- */

static void on_event(void *opaque, unsigned context, const struct protect_event *event,
                     uint32_t notify)
{
    struct machine *m = opaque;
    control_event(m->control, context, event, notify);
}

static bool on_can_ask(void *opaque, unsigned context)
{
    struct machine *m = opaque;
    return control_can_ask(m->control, context);
}

static bool on_ask(void *opaque, unsigned context, const struct protect_event *event,
                   unsigned timeout_ms, enum protect_verdict *verdict, uint64_t *value)
{
    struct machine *m = opaque;
    return control_ask(m->control, context, event, timeout_ms, verdict, value);
}

static void client_paging(void *opaque, unsigned vcpu, struct paging *paging)
{
    struct machine *m = opaque;
    *paging = m->vcpu[vcpu].cpu->mmu.paging;
}
static void client_pause(void *opaque)
{
    machine_pause(opaque);
}
static void client_resume(void *opaque)
{
    machine_resume(opaque);
}
static void client_stop(void *opaque)
{
    machine_stop(opaque);
}
static bool client_paused(void *opaque)
{
    return machine_paused(opaque);
}

static void client_counters(void *opaque, unsigned vcpu, control_counter *put, void *to)
{
    struct machine *m = opaque;
    profile_counters(m->vcpu[vcpu].cpu, put, to);
}

static bool build_control(struct machine *m, struct error *err)
{
    const struct control_machine machine = {
        .opaque = m,
        .vcpus = m->vcpu_count,
        .lock = &m->lock,
        .paging = client_paging,
        .pause = client_pause,
        .resume = client_resume,
        .stop = client_stop,
        .paused = client_paused,
        .counters = client_counters,
        .screendump = screen_dump,
        .screen = screen_text,
        .sendkey = screen_send_keys,
        .change = medium_change,
    };
    m->control = control_new(m->rules, m->map, &machine, err);
    return m->control != NULL;
}

bool protect_listen(struct machine *m, struct error *err)
{
    const char *path = m->config->protect_socket;
    return !path || control_listen(m->control, path, err) || error_prefix(err, "-protect");
}

/* ---- All of it ------------------------------------------------------------------------------- */

bool protect_build(struct machine *m, struct error *err)
{
    if (!m->config->protect)
        return true;
    m->rules = rules_new(m->map, m->exclusive, m->clock, &m->log, err);
    if (!m->rules || !build_control(m, err))
        return false;
    const struct protect_config config = {
        .rules = m->rules,
        .port = {.opaque = m,
                 .caller = port_caller,
                 .resume = port_resume,
                 .unmasked = port_unmasked},
        .vcpus = m->vcpu_count,
    };
    m->protect = protect_create(m->pci, PROTECT_DEVFN, &config, err);
    if (!pc_own(m, m->protect, err))
        return false;
    m->firmware.protect = PROTECT_ADMIN_ADDRESS;
    m->firmware.protect_end = PROTECT_DOOR_ADDRESS(PROTECT_DOORS);
    const struct rules_hooks hooks = {
        .opaque = m,
        .event = on_event,
        .interrupt = on_interrupt,
        .pause = on_pause,
        .stop = on_stop,
        .time = guest_time,
        .can_ask = on_can_ask,
        .ask = on_ask,
        .save_upcall = cpu_upcall_save,
        .restore_upcall = cpu_upcall_restore,
    };
    rules_set_hooks(m->rules, &hooks);
    return true;
}
