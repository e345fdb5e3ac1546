/*
 * exclusive.c - sections in which every other vCPU is parked. See include/internal/exclusive.h.
 *
 * One lock, two counts. `owner` is the vCPU inside a section (or -1); `active` counts the vCPUs
 * that are in guest. A section may begin when nobody owns one and the initiator is the only active
 * vCPU. An initiator that finds another owner parks like everybody else (leaves the active count),
 * so two initiators cannot wait for each other. The owner itself may begin again: a locked access
 * that goes to a device (cpu/mem_locked.c) is in a section already when the device wants one.
 */
#include "internal/exclusive.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct exclusive {
    pthread_mutex_t lock;
    pthread_cond_t parked;   /* active went down */
    pthread_cond_t released; /* owner became -1 */
    unsigned vcpus;
    unsigned active;
    int owner;
    unsigned depth; /* sections that the owner has begun inside its first */
    _Atomic int wanted; /* sections that want to begin or are on: what polls look at */
    void (*ask)(void *cpu);
    void *cpu[];
};

struct exclusive *exclusive_new(unsigned vcpus, void (*ask)(void *cpu))
{
    struct exclusive *x = calloc(1, sizeof(*x) + vcpus * sizeof(x->cpu[0]));
    if (!x)
        return NULL;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->parked, NULL);
    pthread_cond_init(&x->released, NULL);
    x->vcpus = vcpus;
    x->owner = -1;
    x->ask = ask;
    return x;
}

void exclusive_free(struct exclusive *x)
{
    if (!x)
        return;
    pthread_cond_destroy(&x->released);
    pthread_cond_destroy(&x->parked);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

void exclusive_set_cpu(struct exclusive *x, unsigned vcpu, void *cpu)
{
    x->cpu[vcpu] = cpu;
}

bool exclusive_alone(const struct exclusive *x)
{
    return x->vcpus == 1;
}

static void wait_for_no_owner_locked(struct exclusive *x)
{
    while (x->owner >= 0)
        pthread_cond_wait(&x->released, &x->lock);
}

void exclusive_enter(struct exclusive *x, unsigned vcpu)
{
    (void)vcpu;
    pthread_mutex_lock(&x->lock);
    wait_for_no_owner_locked(x);
    x->active++;
    pthread_mutex_unlock(&x->lock);
}

void exclusive_leave(struct exclusive *x, unsigned vcpu)
{
    (void)vcpu;
    pthread_mutex_lock(&x->lock);
    x->active--;
    pthread_cond_broadcast(&x->parked);
    pthread_mutex_unlock(&x->lock);
}

void exclusive_poll(struct exclusive *x, unsigned vcpu)
{
    if (!atomic_load(&x->wanted))
        return;
    exclusive_leave(x, vcpu);
    exclusive_enter(x, vcpu);
}

void exclusive_begin(struct exclusive *x, unsigned vcpu)
{
    if (exclusive_alone(x))
        return;
    pthread_mutex_lock(&x->lock);
    if (x->owner == (int)vcpu) {
        x->depth++;
        pthread_mutex_unlock(&x->lock);
        return;
    }
    atomic_fetch_add(&x->wanted, 1);
    if (x->owner >= 0) { /* park until that section is over, then compete again */
        x->active--;
        pthread_cond_broadcast(&x->parked);
        wait_for_no_owner_locked(x);
        x->active++;
    }
    x->owner = (int)vcpu; /* from here on nobody enters */
    for (unsigned i = 0; i < x->vcpus; i++)
        if (i != vcpu && x->cpu[i])
            x->ask(x->cpu[i]);
    while (x->active > 1)
        pthread_cond_wait(&x->parked, &x->lock);
    pthread_mutex_unlock(&x->lock);
}

void exclusive_end(struct exclusive *x, unsigned vcpu)
{
    (void)vcpu;
    if (exclusive_alone(x))
        return;
    pthread_mutex_lock(&x->lock);
    if (x->depth > 0) {
        x->depth--;
    } else {
        x->owner = -1;
        atomic_fetch_sub(&x->wanted, 1);
        pthread_cond_broadcast(&x->released);
    }
    pthread_mutex_unlock(&x->lock);
}
