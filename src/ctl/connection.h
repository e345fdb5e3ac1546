/*
 * connection.h - what the files of the client library share.
 */
#ifndef CTL_CONNECTION_H
#define CTL_CONNECTION_H

#include "bailey/ctl.h"
#include "internal/wire.h"

enum { CTL_PUSHED_MAX = 4096 /* messages that came while a reply was waited for */ };

struct pushed {
    struct pushed *next;
    json_t *json;
    char *line;
};

struct bctl {
    int fd;
    char *in;
    size_t in_len, in_size;
    json_int_t last_id;
    struct pushed *first, **last; /* oldest first */
    unsigned pushed_count;
    uint64_t dropped; /* events that found CTL_PUSHED_MAX there */
    char *line;       /* what bctl_next() gave out last */
    bool ended;       /* the server said that it closes, in good order */
    unsigned context;
    uint64_t session;
    unsigned vcpu;
    bool has_cr3;
    uint64_t cr3;
};

bool ctl_fail(struct bctl_error *error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The connection is of no more use. */
bool ctl_lose(struct bctl_error *error, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

enum ctl_receive { CTL_LINE, CTL_TIMEOUT, CTL_CLOSED, CTL_FAILED };
/* The next line as JSON, and as text if `line` is not NULL (to be freed). */
enum ctl_receive ctl_receive(struct bctl *ctl, int timeout_ms, json_t **json, char **line,
                             struct bctl_error *error);
/* Whether this is the server's last word, "closed"; then *error says why. */
bool ctl_goodbye(struct bctl *ctl, const json_t *json, struct bctl_error *error);

#endif
