/*
 * worker.c - carries requests out, one after another, in a thread that holds no lock and may wait:
 * commands park the vCPUs, and pausing waits for all of them.
 *
 * Answers to asks do not come this way (server.c): what waits here may be waiting for one.
 */
#include "internal/error.h"
#include "internal/thread.h"
#include "ops.h"
#include "server.h"
#include <stdlib.h>
#include <string.h>

struct job {
    struct job *next;
    struct control_client *client;
    struct request request;
    char *refusal; /* NULL: the request is carried out */
    bool farewell;
    void (*done)(void *opaque, char *reply);
    void *opaque;
};

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *first, **last;
    bool quit;
};

static void do_job(struct job *job)
{
    char *reply = job->refusal;
    if (job->farewell)
        control_leave(job->client);
    else if (!reply)
        reply = op_run(job->client, &job->request);
    request_free(&job->request);
    job->done(job->opaque, reply);
    free(job);
}

static void *worker_main(void *opaque)
{
    struct worker *w = opaque;
    pthread_mutex_lock(&w->lock);
    while (!w->quit) {
        struct job *job = w->first;
        if (!job) {
            pthread_cond_wait(&w->changed, &w->lock);
            continue;
        }
        w->first = job->next;
        if (!w->first)
            w->last = &w->first;
        pthread_mutex_unlock(&w->lock);
        do_job(job);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

struct worker *worker_new(struct error *err)
{
    struct worker *w = calloc(1, sizeof(*w));
    if (w) {
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->changed, NULL);
        w->last = &w->first;
        if (thread_start(&w->thread, worker_main, w) == 0)
            return w;
    }
    free(w);
    error_set(err, "could not start a thread for the control socket");
    return NULL;
}

void worker_free(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    w->quit = true;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    while (w->first) {
        struct job *job = w->first;
        w->first = job->next;
        request_free(&job->request);
        free(job->refusal);
        free(job);
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static bool queue(struct worker *w, struct job *job)
{
    pthread_mutex_lock(&w->lock);
    *w->last = job;
    w->last = &job->next;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
    return true;
}

bool worker_request(struct worker *w, struct control_client *client, struct request *request,
                    char *refusal, void (*done)(void *opaque, char *reply), void *opaque)
{
    struct job *job = malloc(sizeof(*job));
    if (!job)
        return false;
    *job = (struct job){
        .client = client, .request = *request, .refusal = refusal, .done = done, .opaque = opaque};
    memset(request, 0, sizeof(*request));
    return queue(w, job);
}

bool worker_farewell(struct worker *w, struct control_client *client,
                     void (*done)(void *opaque, char *reply), void *opaque)
{
    struct job *job = malloc(sizeof(*job));
    if (!job)
        return false;
    *job = (struct job){.client = client, .farewell = true, .done = done, .opaque = opaque};
    return queue(w, job);
}
