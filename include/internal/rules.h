/*
 * rules.h - the protection rules: contexts, regions, rules, and the question that every slow access
 * asks. Implemented by mmu/rules/; the meaning of everything here is in include/bailey/protect.h.
 *
 * Who calls what:
 *   - the door (devices/misc/protect_door.c) and the socket (src/control) carry out commands, by
 *     rules_execute(), between rules_change_begin() and _end();
 *   - cpu/guard.c and mmu/phys.c judge accesses, by rules_touches() and rules_judge();
 *   - cpu/upcall.c makes upcalls out of verdicts.
 *
 * Locking. Tables change only between rules_change_begin() and rules_change_end(): every vCPU is
 * parked and the machine lock is held. So a vCPU in guest reads them without a lock, and everybody
 * else (DMA, clients) with the machine lock. Event rings, tokens and counters have a lock of their
 * own.
 */
#ifndef INTERNAL_RULES_H
#define INTERNAL_RULES_H

#include "bailey/protect.h"
#include "internal/access.h"
#include "internal/mmu.h"
#include <stdbool.h>
#include <stddef.h>

struct clock;
struct exclusive;
struct error;
struct log;
struct rules;
struct state_desc;

/* Context number = door number; host clients get numbers behind the doors. */
enum { RULES_HOST_CONTEXTS = 16, RULES_CONTEXTS = PROTECT_DOORS + RULES_HOST_CONTEXTS };
enum rules_kind { RULES_FREE, RULES_USER, RULES_SUPERVISOR, RULES_HOST };

/* Saving and restoring: one record after another, each with what describes it. put() takes one,
 * get() fills one in, zeroed before; the bytes in between are theirs. False: it could not. */
typedef bool rules_record_fn(void *opaque, const struct state_desc *desc, void *record);

/* What the rest of the machine does for the rules. All may be NULL. */
struct rules_hooks {
    void *opaque;
    /* An event has been appended to the context (any thread; rules' own lock is not held). */
    void (*event)(void *opaque, unsigned context, const struct protect_event *event,
                  uint32_t notify);
    /* PROTECT_NOTIFY_INTERRUPT: raise the door's vector. Any thread. */
    void (*interrupt)(void *opaque, unsigned context);
    /* PROTECT_NOTIFY_PAUSE and _STOP, with a line that says who did what. Any thread. */
    void (*pause)(void *opaque, const char *report);
    void (*stop)(void *opaque, const char *report);
    /* The guest's time for events: TSC of vCPU 0. */
    uint64_t (*time)(void *opaque);
    /* Whether a client handles the context's PROTECT_ASK_HOST now; none: PROTECT_DENY. */
    bool (*can_ask)(void *opaque, unsigned context);
    /* PROTECT_ASK_HOST: waits up to timeout_ms for a client's answer. False: none came. */
    bool (*ask)(void *opaque, unsigned context, const struct protect_event *event,
                unsigned timeout_ms, enum protect_verdict *verdict, uint64_t *value);
    /* The state of a live token (rules_token_issue) as records, and back: what free() takes, or
     * NULL. */
    bool (*save_upcall)(const void *state, rules_record_fn *put, void *opaque);
    void *(*restore_upcall)(rules_record_fn *get, void *opaque);
};

struct rules *rules_new(struct phys_map *map, struct exclusive *exclusive, struct clock *clock,
                        struct log *log, struct error *err);
/* The rules of a map; NULL: it has none. */
struct rules *phys_rules(const struct phys_map *map);
void rules_free(struct rules *rules);
void rules_set_hooks(struct rules *rules, const struct rules_hooks *hooks);
/* Machine reset: zeroes the bytes of contexts sealed against removal, then drops everything. No
 * vCPU runs. */
void rules_reset(struct rules *rules);

/* ---- Commands -------------------------------------------------------------------------------- */

/* Who gives a command, and how its arrays are reached. */
struct rules_caller {
    uint64_t door_gva;    /* USER: address of the door that the command came through */
    enum rules_kind kind; /* USER: from CPL 3; SUPERVISOR: from CPL 0-2; HOST */
    const struct paging
        *paging; /* of the calling vCPU; HOST: of a vCPU to look addresses up with */
    void *opaque;
    /* Copy between the caller's memory and ours; false: not mapped for the caller. */
    bool (*copy_in)(void *opaque, uint64_t address, void *to, size_t len);
    bool (*copy_out)(void *opaque, uint64_t address, const void *from, size_t len);
};

/* Parks all vCPUs and takes the machine lock. `vcpu`: the calling vCPU, in guest; -1: another
 * thread, which holds no lock of the machine. */
void rules_change_begin(struct rules *rules, int vcpu);
void rules_change_end(struct rules *rules, int vcpu);

/* Validates and carries out one command in a context, between change_begin and change_end; fills in
 * command->status, element and result. */
void rules_execute(struct rules *rules, unsigned context, struct protect_command *command,
                   const struct rules_caller *caller);

/* The admin page. */
enum protect_status rules_grant(struct rules *rules, unsigned context, uint32_t grants, bool take);
enum protect_status rules_destroy(struct rules *rules, unsigned context);

/* What a door's registers show. Machine lock held. */
struct rules_context_info {
    enum rules_kind kind;
    uint32_t grants, seals;
    uint64_t session, root; /* root: CR3 without PCID; USER */
    uint64_t root_mask;     /* the bits of CR3 that it is */
    uint64_t regions;
    uint64_t event_head, event_tail, event_lost, upcall_depth;
    bool masked;
    struct protect_handler handler;
    struct protect_statistics statistics;
};
void rules_context_info(struct rules *rules, unsigned context, struct rules_context_info *info);
/* Whose a context is, which its door asks about each access. Machine lock held. */
struct rules_owner {
    enum rules_kind kind;
    uint64_t session, root, root_mask; /* as in struct rules_context_info */
};
void rules_context_owner(const struct rules *rules, unsigned context, struct rules_owner *owner);
void rules_totals(struct rules *rules, uint64_t *regions, uint64_t *ruled_pages,
                  struct protect_statistics *total);
/* Slot of the ring. */
void rules_read_event(struct rules *rules, unsigned context, unsigned slot,
                      struct protect_event *event);
/* False: beyond the head or behind the present tail; nothing changes. */
bool rules_set_event_tail(struct rules *rules, unsigned context, uint64_t tail);
void rules_set_masked(struct rules *rules, unsigned context, bool masked);
/* For listings: the region with the lowest id >= *id, *id becomes its id. False: no more. */
bool rules_next_region(struct rules *rules, unsigned context, uint32_t *id,
                       struct protect_query *query);

/* ---- Judging --------------------------------------------------------------------------------- */

/* A set of contexts. */
struct rules_set {
    uint64_t bits[(RULES_CONTEXTS + 63) / 64];
};
static inline void rules_set_add(struct rules_set *set, unsigned context)
{
    set->bits[context / 64] |= 1ull << context % 64;
}
static inline bool rules_set_has(const struct rules_set *set, unsigned context)
{
    return set->bits[context / 64] >> context % 64 & 1;
}

struct rules_verdict;

/* One access, translated, all of its bytes. At most two pieces, each inside one page, for vCPUs;
 * DMA and clients have one piece of any length. */
struct rules_check {
    const struct access *access;
    uint8_t kind; /* PROTECT_READ, _WRITE, _EXEC bits */
    bool has_gva;
    uint64_t gva;
    unsigned pieces;
    struct {
        uint64_t gpa, len;
    } piece[2];
    const void *value;  /* the bytes read or to be written; NULL: not known */
    bool nobody_to_ask; /* UPCALL and ASK_HOST mean DENY */
    /* UPCALL and ASK_HOST, before anybody is told: false, it means DENY. May raise. NULL: nothing
     * to prepare. */
    bool (*prepare)(void *opaque, const struct rules_verdict *verdict);
    void *opaque; /* of prepare() */
    /* When the access is judged once more, since one context has decided and others have not: who
     * has decided, and who has been told already. */
    struct rules_set decided, told;
};

struct rules_verdict {
    enum protect_action action; /* PROTECT_ALLOW also when nobody objected */
    bool objected;
    unsigned context; /* whose rule won */
    uint32_t region;
    uint64_t cookie, gva, home,
        offset; /* lowest violated byte; offset: from the start of the access */
    uint8_t subject, fault, marker;
    uint64_t value;  /* for PROTECT_SUBSTITUTE */
    uint32_t notify; /* of all who objected */
    struct rules_set objectors;
    uint8_t preimage[16];
    struct protect_event event; /* as the winner's context was told it */
};

/* Whether any rule has a say about any of these bytes, for any subject and kind of access in
 * `kind`. Cheap: a look at the frame's attributes, then at its list. */
bool rules_touches(struct rules *rules, const struct access *access, uint64_t gpa, uint64_t len,
                   uint8_t kind);
/* Judges the access, appends the events, does the notifications. */
void rules_judge(struct rules *rules, const struct rules_check *check,
                 struct rules_verdict *verdict);
/* Changes whenever rules may have changed: what was judged before is worth nothing then. */
uint64_t rules_generation(const struct rules *rules);
/* PROTECT_ASK_HOST: waits for the answer of the client that handles the verdict's context, in no
 * lock and out of the guest. False: there is none, or not in time. */
bool rules_ask(struct rules *rules, const struct rules_verdict *verdict,
               enum protect_verdict *answer, uint64_t *value);
/* mask[n] = 1 for each byte of the access that a rule of the context keeps from this subject: those
 * of rules that only watch are not meant. */
void rules_mask(struct rules *rules, const struct rules_check *check, unsigned context,
                uint8_t *mask);

/* A store to a frame whose entries map regions: moves the rules. Between change_begin and _end,
 * after the bytes are visible. */
/* Is it such a frame? */
bool rules_follows(struct rules *rules, const struct access *access, uint64_t gpa);
void rules_table_written(struct rules *rules, uint64_t gpa, uint64_t len);
/* PAE paging: the vCPU has loaded its page-directory-pointer registers; contexts of that root
 * follow them. In its thread, when nothing can undo the load any more. */
void rules_pdptes_loaded(struct rules *rules, unsigned vcpu, const struct paging *paging);
/* rules_table_written() for a store by somebody who cannot park the vCPUs (DMA): noted, done by
 * rules_service().
 */
void rules_table_dirty(struct rules *rules, uint64_t gpa, uint64_t len);
/* What rules_table_dirty() has noted. In a vCPU's thread, between instructions (mmu_service()). */
void rules_service(struct rules *rules, unsigned vcpu);

/* ---- Upcalls --------------------------------------------------------------------------------- */

/* Takes a token for an upcall of the context, to be redeemed once. `state` (owned by the caller's
 * module; freed by rules through free()) is given back by redeem. 0: none left, or too deep.
 * *stack: top of the stack to use, 0: the thread's own. */
uint64_t rules_token_issue(struct rules *rules, unsigned context, void *state, uint64_t *stack,
                           unsigned *depth);
/* The token's state, which the caller now owns; NULL: no such token of this context (also when its
 * time has run out). */
void *rules_token_redeem(struct rules *rules, unsigned context, uint64_t token);
/* Takes an upcall back that did not come about; gives the state back likewise. */
void *rules_token_cancel(struct rules *rules, unsigned context, uint64_t token);
/* A deferred event that waits for the owner, oldest first; false: none. */
bool rules_take_deferred(struct rules *rules, unsigned context, struct protect_event *event);
/* The context bound to this root that has deferred upcalls waiting and may take one now, or -1. */
int rules_deferred_due(struct rules *rules, uint64_t cr3);
/* Whether any context has one waiting: cheap. */
bool rules_deferred_waiting(const struct rules *rules);
/* Where the context's handler begins; 0: it has none. */
uint64_t rules_handler(struct rules *rules, unsigned context);

/* Statistics of the owner's address space; cheap without user contexts. */
void rules_count_page_fault(struct rules *rules, uint64_t cr3);
void rules_count_system_call(struct rules *rules, uint64_t cr3);
/* Translated code looks for itself: while the one is 0 nothing is counted, while the other is 0 no
 * deferred upcall waits. */
const _Atomic unsigned *rules_users_word(const struct rules *rules);
const _Atomic unsigned *rules_deferred_word(const struct rules *rules);

const char *rules_status_text(enum protect_status status);

/* ---- Saving (mmu/rules/state.c) -------------------------------------------------------------- */

/* Everything: contexts with their seals, regions and the frames that they have, rules, events,
 * deferred and live upcalls. Between rules_change_begin() and _end(). */
bool rules_save(struct rules *rules, rules_record_fn *put, void *opaque);
/* In the place of what there is now, which is not zeroed even where it is sealed: memory and clock
 * have been restored already. Refuses what rules_save() cannot have said; then there is no context
 * at all. Between rules_change_begin() and _end(). */
bool rules_restore(struct rules *rules, rules_record_fn *get, void *opaque, struct error *err);

#endif
