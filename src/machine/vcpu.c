/*
 * vcpu.c - one host thread per virtual CPU, and how they are paused and let go together.
 *
 * A thread is either inside cpu_run() (counted in vcpus_running) or waits here for run_state.
 * Pausing sets the state first and CPU_REQ_STOP second, so a thread that has just passed the check
 * leaves cpu_run() at once; a stop request that nobody needed only costs one turn of the loop.
 */
#include "internal/thread.h"
#include "pc.h"
#include <string.h>

static void ask_for_safepoint(void *cpu)
{
    cpu_request(cpu, CPU_REQ_EXCLUSIVE);
}

/* A triple fault: a PC's chipset answers the CPU's shutdown cycle with a reset. */
static void on_shutdown(void *opaque, struct cpu *cpu)
{
    struct machine *m = opaque;
    LOG(&m->log, LOG_INT | LOG_CPU_RESET, "cpu%u: shutdown (triple fault)\n", cpu->index);
    machine_wish(m, WISH_RESET, 0);
}

/* Before the first vCPU. */
static bool make_profile(struct machine *m, struct error *err)
{
    const struct profile_config config = {
        .log = &m->log,
        .report = LOG_ON(&m->log, LOG_JIT_PROFILE),
        .perfmap = m->config->perfmap,
        .symbols = m->config->symbols,
        .kernel = m->config->kernel,
    };
    if (config.report || config.perfmap)
        m->profile = profile_new(&config, err);
    return m->profile || !(config.report || config.perfmap);
}

bool vcpus_create(struct machine *m, struct error *err)
{
    if (!make_profile(m, err))
        return false;
    m->exclusive = exclusive_new(m->config->cpus, ask_for_safepoint);
    if (!m->exclusive)
        return error_set(err, "no host memory for the processors");
    for (unsigned i = 0; i < m->config->cpus; i++) {
        const struct cpu_config config = {
            .index = i,
            .model = m->config->cpu_model,
            .vcpus = m->config->cpus,
            .map = m->map,
            .io = m->io,
            .clock = m->clock,
            .exclusive = m->exclusive,
            .log = &m->log,
            .jit_cache =
                m->config->accel != ACCEL_INTERP ? m->config->jit_cache / m->config->cpus : 0,
            .lockstep = m->config->accel == ACCEL_LOCKSTEP,
            .jit_hot = (uint8_t)m->config->jit_hot,
            .machine = m,
            .on_shutdown = on_shutdown,
        };
        struct cpu *cpu = cpu_new(&config, err);
        if (!cpu)
            return false;
        m->vcpu[i] = (struct vcpu){.machine = m, .cpu = cpu};
        m->vcpu_count = i + 1;
        exclusive_set_cpu(m->exclusive, i, cpu);
        if (m->profile && !profile_add(m->profile, cpu, err))
            return false;
    }
    return true;
}

static void *vcpu_main(void *opaque)
{
    struct vcpu *vcpu = opaque;
    struct machine *m = vcpu->machine;
    profile_thread_begin(vcpu->cpu);
    pthread_mutex_lock(&m->run_lock);
    for (;;) {
        while (m->run_state == RUN_PAUSED)
            pthread_cond_wait(&m->run_changed, &m->run_lock);
        if (m->run_state == RUN_QUIT)
            break;
        m->vcpus_running++;
        pthread_mutex_unlock(&m->run_lock);
        cpu_run(vcpu->cpu);
        pthread_mutex_lock(&m->run_lock);
        m->vcpus_running--;
        pthread_cond_broadcast(&m->run_changed);
    }
    pthread_mutex_unlock(&m->run_lock);
    profile_thread_end(vcpu->cpu);
    return NULL;
}

bool vcpus_start_threads(struct machine *m, struct error *err)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < m->vcpu_count; i++) {
        int error = thread_start(&m->vcpu[i].thread, vcpu_main, &m->vcpu[i]);
        if (error)
            ok =
                error_set(err, "could not start a thread for processor %u: %s", i, strerror(error));
        m->vcpu[i].started = ok;
    }
    return ok;
}

static void set_state(struct machine *m, enum run_state state)
{
    pthread_mutex_lock(&m->run_lock);
    m->run_state = state;
    pthread_cond_broadcast(&m->run_changed);
    pthread_mutex_unlock(&m->run_lock);
}

void vcpus_kick(struct machine *m)
{
    for (unsigned i = 0; i < m->vcpu_count; i++)
        cpu_request(m->vcpu[i].cpu, CPU_REQ_STOP);
}

void vcpus_resume(struct machine *m)
{
    set_state(m, RUN_RUNNING);
}

void vcpus_pause(struct machine *m)
{
    set_state(m, RUN_PAUSED);
    vcpus_kick(m);
    pthread_mutex_lock(&m->run_lock);
    while (m->vcpus_running)
        pthread_cond_wait(&m->run_changed, &m->run_lock);
    pthread_mutex_unlock(&m->run_lock);
}

void vcpus_quit(struct machine *m)
{
    set_state(m, RUN_QUIT);
    vcpus_kick(m);
    for (unsigned i = 0; i < m->vcpu_count; i++) {
        if (m->vcpu[i].started)
            pthread_join(m->vcpu[i].thread, NULL);
        m->vcpu[i].started = false;
    }
}

void vcpus_free(struct machine *m)
{
    for (unsigned i = 0; i < m->vcpu_count; i++)
        cpu_free(m->vcpu[i].cpu);
    m->vcpu_count = 0;
    profile_free(m->profile);
    m->profile = NULL;
    exclusive_free(m->exclusive);
    m->exclusive = NULL;
}
