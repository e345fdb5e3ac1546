/*
 * ctl.h - the client library of the control socket: protect the memory of a running guest from
 * another process, watch it, and decide what becomes of accesses.
 *
 *     struct bctl_error error;
 *     struct bctl *ctl = bctl_open("/run/vm.sock", &error);   // bailey -protect
 * socket=/run/vm.sock bctl_bind(ctl, false, &error); struct protect_region region = {.base =
 * 0xffffffff82345678, .length = 256}; struct protect_rule rule = PROTECT_RULE_DEFAULT(0, 1,
 * PROTECT_ALL, PROTECT_DENY); rule.allow[PROTECT_KERNEL] = PROTECT_READ;
 *     rule.action[PROTECT_KERNEL] = PROTECT_ASK_HOST;
 *     bctl_protect(ctl, &region, &rule, &error);
 *     bctl_handle(ctl, 0, &error);
 *     while (bctl_next(ctl, -1, &message, &error) == BCTL_MESSAGE)
 *         if (message.type == BCTL_ASK)
 *             bctl_answer(ctl, message.token, PROTECT_REFUSE, 0, &error);
 *
 * What goes over the socket is described in docs/socket.md. A connection belongs to one thread at a
 * time. Functions that return bool return false with a line in *error, which may not be NULL.
 * Needs <bailey/protect.h> and jansson; link with libbaileyctl.a and -ljansson.
 */
#ifndef BAILEY_CTL_H
#define BAILEY_CTL_H

#include "bailey/protect.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct bctl;
struct bctl_symbols;

struct bctl_error {
    char text[256]; /* one line without a newline */
    bool lost;      /* the connection is of no more use */
};

/* ---- Connection ----------------------------------------------------------------------------- */

/* NULL with *error: nobody listens, not allowed, another protocol. */
struct bctl *bctl_open(const char *path, struct bctl_error *error);
void bctl_close(struct bctl *ctl);   /* NULL is allowed */
int bctl_fd(const struct bctl *ctl); /* readable: bctl_next() may have something */

/* Sends any request of docs/socket.md (the reference becomes the library's) and waits for its
 * reply, to be given back with json_decref(). NULL: the connection failed. A status that is not OK
 * is a reply like any other; bctl_check() makes an error of it. */
json_t *bctl_request(struct bctl *ctl, json_t *request, struct bctl_error *error);
bool bctl_check(const json_t *reply, struct bctl_error *error);

/* ---- Commands ------------------------------------------------------------------------------- */

/* A context of one's own, which later commands mean. keep: it outlives the connection. */
bool bctl_bind(struct bctl *ctl, bool keep, struct bctl_error *error);
/* Goes on with a context that was kept. */
void bctl_use(struct bctl *ctl, unsigned context, uint64_t session);
unsigned bctl_context(const struct bctl *ctl); /* 0: none */
uint64_t bctl_session(const struct bctl *ctl);

/* The address space of contexts that are bound from now on, and of bctl_read() and bctl_write():
 * the one of this CR3, or, with cr3 = NULL (the default), the one that the vCPU is in at the
 * moment. */
void bctl_space(struct bctl *ctl, unsigned vcpu, const uint64_t *cr3);

/* Carries out a command as a door does: its addresses are this program's, status, element, result
 * and what is filled in come back. False: the connection failed, and status says nothing. */
bool bctl_command(struct bctl *ctl, struct protect_command *command, struct bctl_error *error);

/* Adds a region and sets its rule, or does neither. rule->region and ->count are filled in. */
bool bctl_protect(struct bctl *ctl, const struct protect_region *region, struct protect_rule *rule,
                  struct bctl_error *error);

bool bctl_grant(struct bctl *ctl, unsigned context, uint32_t grants, bool take,
                struct bctl_error *error);
bool bctl_destroy(struct bctl *ctl, unsigned context, struct bctl_error *error);

/* ---- Memory and the machine ------------------------------------------------------------------ */

enum bctl_address { BCTL_VIRTUAL, BCTL_PHYSICAL };
/* Any length; what one request can carry is done at once, more in pieces. */
bool bctl_read(struct bctl *ctl, enum bctl_address kind, uint64_t address, void *buffer,
               size_t length, struct bctl_error *error);
bool bctl_write(struct bctl *ctl, enum bctl_address kind, uint64_t address, const void *buffer,
                size_t length, struct bctl_error *error);

bool bctl_pause(struct bctl *ctl, struct bctl_error *error);
bool bctl_continue(struct bctl *ctl, struct bctl_error *error);
bool bctl_stop(struct bctl *ctl, struct bctl_error *error); /* the machine ends */

/* ---- Events and questions ---------------------------------------------------------------------
 */

/* Events of all host contexts, and of guest contexts whose rules say PROTECT_NOTIFY_HOST. */
bool bctl_subscribe(struct bctl *ctl, bool on, struct bctl_error *error);
/* This client answers PROTECT_ASK_HOST of its context; bctl_handle_of(): of any. A question that
 * is not answered within timeout_ms (0: the default) is a refusal. */
bool bctl_handle(struct bctl *ctl, unsigned timeout_ms, struct bctl_error *error);
bool bctl_handle_of(struct bctl *ctl, unsigned context, unsigned timeout_ms,
                    struct bctl_error *error);
/* `value` is for PROTECT_GIVE. False also when the question's time had run out. */
bool bctl_answer(struct bctl *ctl, uint64_t token, enum protect_verdict verdict, uint64_t value,
                 struct bctl_error *error);

enum bctl_type {
    BCTL_EVENT, /* context, event */
    BCTL_ASK,   /* context, event, token, timeout_ms: the vCPU waits for bctl_answer() */
    BCTL_LOST,  /* lost: so many events found a queue full */
    BCTL_STATE, /* state ("paused", "running", "reset"), text: why */
};

struct bctl_message {
    enum bctl_type type;
    unsigned context, timeout_ms;
    uint64_t token, lost;
    struct protect_event event;
    char state[16], text[256];
    const char *json; /* the line as it came; until the next call with this connection */
};

enum bctl_next { BCTL_MESSAGE, BCTL_TIMEOUT, BCTL_ENDED /* the machine has ended */, BCTL_FAILED };
/* timeout_ms: -1: as long as it takes; 0: only what is there. */
enum bctl_next bctl_next(struct bctl *ctl, int timeout_ms, struct bctl_message *message,
                         struct bctl_error *error);

/* ---- Symbols ----------------------------------------------------------------------------------
 */

/* From a System.map, a copy of /proc/kallsyms, or an ELF file with symbols. */
struct bctl_symbols *bctl_symbols_open(const char *path, struct bctl_error *error);
void bctl_symbols_free(struct bctl_symbols *symbols); /* NULL is allowed */
/* Where the running kernel is, less where the file says: KASLR's doing. */
void bctl_symbols_slide(struct bctl_symbols *symbols, int64_t slide);
/* *size may be 0: not known. */
bool bctl_symbol_find(const struct bctl_symbols *symbols, const char *name, uint64_t *address,
                      uint64_t *size);
/* The symbol that the address lies in; NULL: none. */
const char *bctl_symbol_at(const struct bctl_symbols *symbols, uint64_t address, uint64_t *offset);

#ifdef __cplusplus
}
#endif
#endif
