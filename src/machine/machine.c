/*
 * machine.c - a machine's life: made, run until the guest or somebody else ends it, freed.
 *
 * The thread in machine_run() is the I/O thread. Whatever must stop the vCPUs (power-off, reset) is
 * only noted where it happens (machine_wish) and done here, between two runs of the event loop,
 * where no lock is held.
 */
#include "internal/clock.h"
#include "internal/phys.h"
#include "internal/rules.h"
#include "pc.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Wishes ---------------------------------------------------------------------------------- */

/* The vCPUs leave the guest at their next safepoint and stay out; the I/O thread takes it from
 * there. Called with run_lock held, which it releases. */
static void bring_to_a_halt(struct machine *m)
{
    if (m->run_state == RUN_RUNNING)
        m->run_state = RUN_PAUSED;
    pthread_mutex_unlock(&m->run_lock);
    vcpus_kick(m);
    event_loop_quit(m->queue);
}

void machine_wish(struct machine *m, enum wish wish, int status)
{
    pthread_mutex_lock(&m->run_lock);
    if (m->wish == WISH_NONE) {
        m->wish = wish;
        m->wish_status = status;
    }
    bring_to_a_halt(m);
    control_hush(m->control, true);
}

static void board_shutdown(void *opaque, enum board_event what, int status)
{
    static const enum wish wishes[] = {
        [BOARD_POWER_OFF] = WISH_POWER_OFF,
        [BOARD_RESET] = WISH_RESET,
        [BOARD_EXIT] = WISH_EXIT,
        [BOARD_PANIC] = WISH_PANIC,
    };
    machine_wish(opaque, wishes[what], status);
}

void machine_stop(struct machine *m)
{
    pthread_mutex_lock(&m->run_lock);
    m->stop_wanted = true;
    bring_to_a_halt(m);
    control_hush(m->control, true);
}

void machine_pause_because(struct machine *m, const char *report)
{
    pthread_mutex_lock(&m->run_lock);
    m->pause_wanted = true;
    snprintf(m->pause_report, sizeof(m->pause_report), "%s", report);
    bring_to_a_halt(m);
}

void machine_pause(struct machine *m)
{
    machine_pause_because(m, "");
}

void machine_resume(struct machine *m)
{
    pthread_mutex_lock(&m->run_lock);
    m->pause_wanted = false;
    pthread_mutex_unlock(&m->run_lock);
    event_loop_quit(m->queue); /* the I/O thread does it */
}

bool machine_paused(struct machine *m)
{
    pthread_mutex_lock(&m->run_lock);
    bool paused = m->paused;
    pthread_mutex_unlock(&m->run_lock);
    return paused;
}

/* ---- Making and freeing ---------------------------------------------------------------------- */

static bool make_lock(struct machine *m)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    bool ok = pthread_mutex_init(&m->lock, &attr) == 0 &&
              pthread_mutex_init(&m->run_lock, NULL) == 0 &&
              pthread_cond_init(&m->run_changed, NULL) == 0;
    pthread_mutexattr_destroy(&attr);
    return ok;
}

static bool open_log(struct machine *m, struct error *err)
{
    const char *path = m->config->log_file;
    m->log.mask = m->config->log_mask;
    m->log.out = stderr;
    if (!path)
        return true;
    FILE *file = fopen(path, "we");
    if (!file)
        return error_set(err, "could not open log file '%s': %s", path, strerror(errno));
    m->log.out = file;
    return true;
}

static bool make_services(struct machine *m, struct error *err)
{
    if (!open_log(m, err))
        return false;
    m->clock = clock_new();
    m->queue = m->clock ? event_queue_new(m->clock, &m->lock) : NULL;
    m->io = io_space_new(&m->lock, &m->log);
    m->map = phys_new(&m->lock, &m->log);
    if (!m->queue || !m->io || !m->map)
        return error_set(err, "no host memory or descriptors for the machine");
    clock_stop(m->clock);
    m->board = (struct board){
        .map = m->map,
        .io = m->io,
        .clock = m->clock,
        .queue = m->queue,
        .lock = &m->lock,
        .log = &m->log,
        .machine = m,
        .shutdown = board_shutdown,
    };
    return true;
}

/* Power-on, also after a reset: chips, then memory, then the processor. */
static bool power_on(struct machine *m, struct error *err)
{
    pthread_mutex_lock(&m->lock);
    bool ok = pc_reset(m, err) && boot_load(m, err);
    pthread_mutex_unlock(&m->lock);
    control_tell(m->control, "reset", NULL); /* at the first power-on nobody listens yet */
    return ok;
}

struct machine *machine_new(const struct machine_config *config, struct error *err)
{
    struct machine *m = calloc(1, sizeof(*m));
    if (!m || !make_lock(m)) {
        error_set(err, "no host memory for the machine");
        free(m);
        return NULL;
    }
    m->config = config;
    /* Files first: they are what fails most often, and the terminal is taken last. */
    if (make_services(m, err) && boot_open(m, err) && backends_open(m, err) && pc_build(m, err) &&
        power_on(m, err) && protect_listen(m, err))
        return m;
    machine_free(m);
    return NULL;
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    control_hush(m->control, true);
    vcpus_quit(m);
    control_free(m->control); /* its threads use all that follows */
    m->control = NULL;
    pc_destroy(m);
    vcpus_free(m);
    backends_close(m);
    boot_image_free(m->image);
    rules_free(m->rules);
    if (m->map)
        phys_free(m->map);
    if (m->io)
        io_space_free(m->io);
    event_queue_free(m->queue);
    clock_free(m->clock);
    if (m->log.out && m->log.out != stderr)
        fclose(m->log.out);
    pthread_cond_destroy(&m->run_changed);
    pthread_mutex_destroy(&m->run_lock);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

/* ---- Running --------------------------------------------------------------------------------- */

/* Takes the wish; a wanted stop is not taken but stays. True when either is there. */
static bool take_wish(struct machine *m, enum wish *wish, int *status, bool *stop)
{
    pthread_mutex_lock(&m->run_lock);
    *wish = m->wish;
    *status = m->wish_status;
    *stop = m->stop_wanted;
    m->wish = WISH_NONE;
    pthread_mutex_unlock(&m->run_lock);
    return *wish != WISH_NONE || *stop;
}

static void stand(struct machine *m)
{
    vcpus_pause(m);
    clock_stop(m->clock);
}

/* Lets the guest go or holds it, as is wanted now. A pause that is asked for just behind the look
 * makes the event loop return at once, and so leads to the next look. */
static void obey_pause(struct machine *m)
{
    char report[sizeof(m->pause_report)];
    pthread_mutex_lock(&m->run_lock);
    bool pause = m->pause_wanted, paused = m->paused;
    m->paused &= pause;
    pthread_mutex_unlock(&m->run_lock);
    if (!pause) {
        clock_start(m->clock);
        vcpus_resume(m);
        if (paused)
            control_tell(m->control, "running", NULL);
        return;
    }
    stand(m);
    pthread_mutex_lock(&m->run_lock);
    m->paused = m->pause_wanted;
    memcpy(report, m->pause_report, sizeof(report));
    pthread_mutex_unlock(&m->run_lock);
    if (!paused)
        control_tell(m->control, "paused", report);
}

/* The guest runs until somebody wishes something. */
static void run_guest(struct machine *m, enum wish *wish, int *status, bool *stop)
{
    control_hush(m->control, false); /* a wish that has come already ends the loop at once */
    while (!take_wish(m, wish, status, stop)) {
        obey_pause(m);
        event_loop_run(m->queue);
    }
    stand(m);
}

/* -no-shutdown: the machine stands still, but the terminal lives, until it is stopped. */
static enum machine_end stand_still(struct machine *m)
{
    enum wish wish;
    int status;
    bool stop = false;
    pthread_mutex_lock(&m->run_lock);
    m->paused = true; /* for good: nobody obeys machine_resume() any more */
    pthread_mutex_unlock(&m->run_lock);
    control_tell(m->control, "paused", "the guest has ended");
    while (!take_wish(m, &wish, &status, &stop) || !stop)
        event_loop_run(m->queue);
    return MACHINE_STOPPED;
}

static enum machine_end run_to_end(struct machine *m, int *status, struct error *err)
{
    enum wish wish;
    bool stop;
    int wish_status;
    for (;;) {
        run_guest(m, &wish, &wish_status, &stop);
        if (wish == WISH_EXIT || wish == WISH_REFUSED) {
            *status = wish_status;
            return wish == WISH_EXIT ? MACHINE_EXITED : MACHINE_REFUSED;
        }
        if (stop)
            return MACHINE_STOPPED;
        if (wish == WISH_RESET && !m->config->no_reboot) {
            if (power_on(m, err))
                continue;
            *status = 1;
            return MACHINE_FAILED;
        }
        if (m->config->no_shutdown && wish != WISH_RESET)
            return stand_still(m);
        return wish == WISH_RESET   ? MACHINE_RESET
               : wish == WISH_PANIC ? MACHINE_PANICKED
                                    : MACHINE_POWERED_OFF;
    }
}

enum machine_end machine_run(struct machine *m, int *status, struct error *err)
{
    *status = 0;
    if (!vcpus_start_threads(m, err)) {
        vcpus_quit(m);
        *status = 1;
        return MACHINE_FAILED;
    }
    enum machine_end end = run_to_end(m, status, err);
    vcpus_quit(m);
    if (m->profile)
        profile_report(m->profile);
    return end;
}

/* ---- From outside ---------------------------------------------------------------------------- */

static const struct access host_access = {.initiator = INITIATOR_HOST};

bool machine_read(struct machine *m, uint64_t gpa, void *buf, size_t len)
{
    return phys_read(m->map, &host_access, gpa, buf, len) == PHYS_OK;
}

bool machine_write(struct machine *m, uint64_t gpa, const void *buf, size_t len)
{
    return phys_write(m->map, &host_access, gpa, buf, len) == PHYS_OK;
}
