/*
 * text.c - statuses, subjects, actions and events in words, without a libc.
 */
#include "bailey_guest.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const char *bailey_status_text(int status)
{
    static const char *const texts[] = {
#define X(name, text) [PROTECT_##name] = text,
        PROTECT_STATUSES(X)
#undef X
    };
    if (status == BAILEY_NO_DEVICE)
        return "this machine has no protection device that this library knows";
    if (status == BAILEY_NO_PERMISSION)
        return "no permission to map the protection device";
    return status >= 0 && (unsigned)status < COUNT(texts) ? texts[status] : "unknown status";
}

const char *bailey_subject_text(unsigned subject)
{
    static const char *const texts[PROTECT_SUBJECTS] = {
        [PROTECT_OWNER] = "the owner",           [PROTECT_OTHER_USER] = "another process",
        [PROTECT_KERNEL] = "the kernel",         [PROTECT_WALKER] = "the page walker",
        [PROTECT_EVENT] = "event delivery",      [PROTECT_DEVICE] = "a device",
        [PROTECT_HOST] = "a client on the host", [PROTECT_DEBUGGER] = "the debugger",
    };
    return subject < PROTECT_SUBJECTS ? texts[subject] : "an unknown subject";
}

const char *bailey_action_text(unsigned action)
{
    static const char *const texts[PROTECT_ACTIONS] = {
        [PROTECT_DENY] = "refused",
        [PROTECT_UPCALL] = "handler asked",
        [PROTECT_ASK_HOST] = "host asked",
        [PROTECT_SUBSTITUTE] = "given something else",
        [PROTECT_SKIP] = "skipped",
        [PROTECT_ALLOW_ONCE] = "let through once",
        [PROTECT_DEFERRED] = "let through, handler asked later",
        [PROTECT_ALLOW] = "let through",
    };
    return action < PROTECT_ACTIONS ? texts[action] : "unknown action";
}

const char *bailey_access_text(unsigned access)
{
    static const char *const texts[8] = {
        "no access", "read",          "write",          "read and write",
        "execute",   "read, execute", "write, execute", "read, write and execute",
    };
    return texts[access & 7];
}

/* ---- Lines --------------------------------------------------------------------------------------
 */

struct line {
    char *buffer;
    size_t size, length;
};

static void put(struct line *line, const char *s)
{
    for (; *s; s++)
        if (line->length + 1 < line->size)
            line->buffer[line->length++] = *s;
}

static void put_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[24];
    unsigned n = sizeof(digits) - 1;
    digits[n] = 0;
    do
        digits[--n] = "0123456789abcdef"[value % base];
    while (value /= base);
    put(line, digits + n);
}

static void put_hex(struct line *line, const char *before, uint64_t value)
{
    put(line, before);
    put_number(line, value, 16);
}

static void put_decimal(struct line *line, const char *before, uint64_t value)
{
    put(line, before);
    put_number(line, value, 10);
}

static void put_two_digits(struct line *line, const char *before, unsigned value)
{
    put_hex(line, before, value >> 4 & 15);
    put_number(line, value & 15, 16);
}

/* PCI's notation: bus:device.function. */
static void put_device(struct line *line, uint16_t bdf)
{
    put_two_digits(line, " ", bdf >> 8);
    put_two_digits(line, ":", bdf >> 3 & 31);
    put_hex(line, ".", bdf & 7);
}

static void put_subject(struct line *line, const struct protect_event *event)
{
    put(line, bailey_subject_text(event->subject));
    if (event->subject == PROTECT_DEVICE) {
        put_device(line, event->device);
    } else if (event->subject < PROTECT_DEVICE) {
        put_decimal(line, " (vcpu ", event->vcpu);
        put_decimal(line, ", cpl ", event->cpl);
        if (!(event->flags & PROTECT_EVENT_HIDDEN))
            put_hex(line, ", rip ", event->rip);
        put(line, ")");
    }
}

static void put_access(struct line *line, const struct protect_event *event)
{
    put_subject(line, event);
    put(line, ": ");
    put(line, bailey_access_text(event->access));
    put_decimal(line, ", ", event->length);
    put(line, event->length == 1 ? " byte" : " bytes");
    put_hex(line, ", at ", event->home);
    if (event->flags & PROTECT_EVENT_HAS_GVA && event->gva != event->home)
        put_hex(line, " through ", event->gva);
    put(line, ": ");
    put(line, bailey_action_text(event->action));
}

size_t bailey_event_text(char *buffer, size_t size, const struct protect_event *event)
{
    struct line line = {buffer, size, 0};
    switch (event->type) {
    case PROTECT_EVENT_ACCESS:
        put_access(&line, event);
        break;
    case PROTECT_EVENT_MOVED:
        put_hex(&line, "the page at ", event->gva);
        put(&line, " has another frame now, protected as before");
        break;
    case PROTECT_EVENT_PINNED:
        put_hex(&line, "the page at ", event->gva);
        put(&line, " has another frame now, not protected");
        break;
    case PROTECT_EVENT_UNMAPPED:
        put_hex(&line, "the page at ", event->gva);
        put(&line, " has no frame now");
        break;
    case PROTECT_EVENT_TIMEOUT:
        put(&line, "the handler took too long");
        break;
    default:
        put(&line, "unknown event");
    }
    if (size)
        buffer[line.length] = 0;
    return line.length;
}
