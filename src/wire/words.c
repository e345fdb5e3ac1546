/*
 * words.c - the words of the control socket: the enumerators of protect.h in lower case.
 */
#include "internal/wire.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* In the order of the enumerations; the tests compare them with protect.h. */
const char *const wire_subjects[] = {"owner",  "other-user", "kernel",   "walker", "event",
                                     "device", "host",       "debugger", NULL};
const char *const wire_actions[] = {"deny",       "upcall",   "ask-host", "substitute", "skip",
                                    "allow-once", "deferred", "allow",    NULL};
const char *const wire_notify[] = {"quiet", "interrupt", "preimage", "host", "pause", "stop", NULL};
const char *const wire_region_flags[] = {"pin", "physical", NULL};
const char *const wire_faults[] = {"page", "general", NULL};
const char *const wire_grants[] = {"users",    "kernel",  "devices", "host",
                                   "physical", "observe", "control", NULL};
const char *const wire_seals[] = {"weaken", "remove", "rebind", NULL};
const char *const wire_event_types[] = {"none",     "access",  "moved", "pinned",
                                        "unmapped", "timeout", NULL};
const char *const wire_event_flags[] = {"hidden", "has-gva", "preimage", "value", NULL};
const char *const wire_verdicts[] = {"retry", "let", "drop", "give", "refuse", "set", NULL};
const char *const wire_kinds[] = {"free", "user", "supervisor", "host", NULL};
const char *const wire_statuses[] = {
#define X(name, text) #name,
    PROTECT_STATUSES(X)
#undef X
        NULL};

_Static_assert(sizeof(wire_subjects) / sizeof(char *) == PROTECT_SUBJECTS + 1, "a word each");
_Static_assert(sizeof(wire_actions) / sizeof(char *) == PROTECT_ACTIONS + 1, "a word each");
_Static_assert(sizeof(wire_verdicts) / sizeof(char *) == PROTECT_VERDICTS + 1, "a word each");
_Static_assert(1u << (sizeof(wire_notify) / sizeof(char *) - 1) == PROTECT_NOTIFY_ALL + 1, "bits");
_Static_assert(1u << (sizeof(wire_grants) / sizeof(char *) - 1) == PROTECT_GRANT_ALL + 1, "bits");
_Static_assert(1u << (sizeof(wire_seals) / sizeof(char *) - 1) == PROTECT_SEAL_ALL + 1, "bits");

int wire_word(const char *const *words, const char *word)
{
    for (int i = 0; words[i]; i++)
        if (strcasecmp(words[i], word) == 0)
            return i;
    return -1;
}

const char *wire_word_of(const char *const *words, uint64_t index)
{
    for (uint64_t i = 0; words[i]; i++)
        if (i == index)
            return words[i];
    return NULL;
}

const char *wire_status_text(unsigned status)
{
    static const char *const texts[] = {
#define X(name, text) text,
        PROTECT_STATUSES(X)
#undef X
    };
    return status < PROTECT_STATUS_COUNT ? texts[status] : "unknown status";
}

bool wire_fail(struct wire_error *err, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    for (char *c = err->text; *c; c++) /* what a client wrote may be anything */
        if ((unsigned char)*c < ' ' || (unsigned char)*c >= 0x7f)
            *c = '?';
    return false;
}
