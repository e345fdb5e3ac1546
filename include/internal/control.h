/*
 * control.h - programs outside the machine that protect its memory, watch it and decide for it.
 *
 * A *client* is a connection to the control socket (docs/socket.md) or a part of the program that
 * embeds the machine (include/bailey/bailey.h). Both carry out the commands of bailey/protect.h in
 * contexts of their own, are told of events, and may be asked what becomes of an access
 * (PROTECT_ASK_HOST).
 *
 * Threads. Guest threads only ever leave messages in a client's bounded queue, and wait for an
 * answer no longer than the stated time. Everything a client asks for is done by threads that hold
 * no lock of the machine: parking the vCPUs may take a while.
 */
#ifndef INTERNAL_CONTROL_H
#define INTERNAL_CONTROL_H

#include "bailey/protect.h"
#include "internal/mmu.h"
#include "internal/rules.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct control;
struct control_client;

enum {
    CONTROL_CLIENTS = 32,      /* at once */
    CONTROL_QUEUE = 1024,      /* events that wait for one client; more are counted as lost */
    CONTROL_TIMEOUT_MS = 1000, /* of an answer, where nobody says otherwise */
    CONTROL_TIMEOUT_MAX = 60000,
};

typedef void control_counter(void *opaque, const char *group, const char *name, uint64_t value);

/* What the machine does for its clients; any thread, no lock of the machine held. */
struct control_machine {
    void *opaque;
    unsigned vcpus;
    pthread_mutex_t *lock; /* the machine lock */
    /* The paging registers of a vCPU, while all are parked. */
    void (*paging)(void *opaque, unsigned vcpu, struct paging *paging);
    void (*pause)(void *opaque); /* paused() says when it has happened */
    void (*resume)(void *opaque);
    void (*stop)(void *opaque); /* the machine ends soon */
    bool (*paused)(void *opaque);
    /* Gives `put` the counters of a vCPU, group by group, while all are parked. */
    void (*counters)(void *opaque, unsigned vcpu, control_counter *put, void *to);
    /* The display as a PNG file, its characters, and keys by QEMU's names, as "ctrl-alt-delete".
     * NULL, all three: the machine has neither display nor keyboard. */
    bool (*screendump)(void *opaque, const char *path, struct error *err);
    bool (*screen)(void *opaque, FILE *out, struct error *err);
    bool (*sendkey)(void *opaque, const char *keys, unsigned hold_ms, struct error *err);
    /* Puts an image into a CD-ROM or floppy drive; `file` NULL: takes out what is in it. NULL:
     * there are no such drives. */
    bool (*change)(void *opaque, const char *drive, const char *file, const char *format,
                   bool force, struct error *err);
};

struct control *control_new(struct rules *rules, struct phys_map *map,
                            const struct control_machine *machine, struct error *err);
void control_free(struct control *control);
/* Opens the socket, mode 0600, and serves it until control_free(). */
bool control_listen(struct control *control, const char *path, struct error *err);

/* While it is hushed nobody waits for an answer: asks that wait, and new ones, end at once without
 * one. So a machine that ends or is reset does not wait for its clients. Any thread; `control` may
 * be NULL. */
void control_hush(struct control *control, bool hush);
/* Tells all clients that the machine has been paused, goes on, was reset ("paused", "running",
 * "reset"), and in a line why; `report` may be NULL, and so may `control`. Any thread. */
void control_tell(struct control *control, const char *state, const char *report);

/* For struct rules_hooks, with the control as `opaque`. */
void control_event(void *control, unsigned context, const struct protect_event *event,
                   uint32_t notify);
bool control_can_ask(void *control, unsigned context);
bool control_ask(void *control, unsigned context, const struct protect_event *event,
                 unsigned timeout_ms, enum protect_verdict *verdict, uint64_t *value);

/* ---- Clients (client.c) ---------------------------------------------------------------------- */

enum control_message_type { CONTROL_EVENT, CONTROL_ASK, CONTROL_LOST, CONTROL_STATE };

struct control_message {
    enum control_message_type type;
    unsigned context;           /* EVENT, ASK */
    struct protect_event event; /* EVENT, ASK */
    uint64_t token;             /* ASK */
    unsigned timeout_ms;        /* ASK */
    uint64_t lost;              /* LOST: events since the last LOST */
    char text[256];             /* STATE: why */
    char state[16];
};

/* wake(opaque) is called, from any thread and with a lock held, when there is a message: it may
 * only signal. NULL: CONTROL_CLIENTS are there already. */
struct control_client *control_join(struct control *control, void (*wake)(void *opaque),
                                    void *opaque);
/* Ends the client's contexts but for those that it keeps, or sealed against removal. */
void control_leave(struct control_client *client);

/* The client will give no answers any more: it handles nothing, at once, though control_leave() may
 * have to wait for what it still wants done. */
void control_retire(struct control_client *client);

/* The next message: asks first, then events in order, with what was lost in its place, then the
 * state. False: none. */
bool control_take(struct control_client *client, struct control_message *message);

/* Which events the client gets: those of host contexts, and of others whose rules say
 * PROTECT_NOTIFY_HOST; CONTROL_OWN: of its own contexts only. */
enum control_watch { CONTROL_NONE, CONTROL_OWN, CONTROL_ALL };
void control_subscribe(struct control_client *client, enum control_watch watch);
/* The client answers for a context, or, with on = false, no longer. timeout_ms: 0: the time that
 * the context's own handler has, or the default. */
enum protect_status control_handle(struct control_client *client, unsigned context, bool on,
                                   unsigned timeout_ms);
enum protect_status control_answer(struct control_client *client, uint64_t token,
                                   enum protect_verdict verdict, uint64_t value);
/* A client that let an ask time out is not waited for again until it answers one (however late) or
 * calls this: so one time-out is all that a dead client costs. If it never took the ask, taking
 * something is enough. */
void control_alive(struct control_client *client);

/* An address space: which one a context's virtual addresses belong to is decided by BIND. */
struct control_space {
    unsigned vcpu; /* whose paging mode, and whose present CR3 unless there is one here */
    bool has_cr3;
    uint64_t cr3;
};

/* Carries out one command; `caller` reaches its arrays (kind and paging are filled in). BIND
 * chooses a context and puts it into *context; its address space is arg[0] or, if that is 0,
 * `space`. Other commands are refused when `space` names a CR3 that is not their context's. A
 * session of 0 stands for the client's own. */
void control_execute(struct control_client *client, unsigned *context,
                     struct protect_command *command, struct rules_caller *caller,
                     const struct control_space *space);
/* The context of a client that has just this one (the lowest of several); false: it has none. */
bool control_context(struct control_client *client, unsigned *context);
/* A context of the client's outlives it from now on. */
void control_keep(struct control_client *client, unsigned context);

/* What the admin page does. */
enum protect_status control_grant(struct control *control, unsigned context, uint32_t grants,
                                  bool take);
enum protect_status control_destroy(struct control *control, unsigned context);

/* RAM, as INITIATOR_HOST, so that rules are heard; `space` NULL: a physical address. Refused: *done
 * bytes, whole pages, have been transferred; else all or none. */
enum control_result { CONTROL_OK, CONTROL_REFUSED, CONTROL_NOT_MEMORY, CONTROL_NOT_MAPPED };
enum control_result control_memory(struct control *control, const struct control_space *space,
                                   uint64_t address, void *buf, size_t len, bool write,
                                   size_t *done);

#endif
