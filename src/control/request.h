/*
 * request.h - one line from a client, taken apart. Nothing here touches the machine.
 */
#ifndef CONTROL_REQUEST_H
#define CONTROL_REQUEST_H

#include "internal/control.h"
#include "internal/wire.h"

enum request_op {
    REQUEST_COMMAND, /* an operation of protect.h */
    REQUEST_LIST,
    REQUEST_EVENTS,
    REQUEST_GRANT,
    REQUEST_DESTROY,
    REQUEST_SUBSCRIBE,
    REQUEST_HANDLE,
    REQUEST_ANSWER,
    REQUEST_READ,
    REQUEST_WRITE,
    REQUEST_PAUSE,
    REQUEST_CONTINUE,
    REQUEST_STOP,
    REQUEST_STATUS,
    REQUEST_COUNTERS,
    REQUEST_SCREENDUMP,
    REQUEST_SCREEN,
    REQUEST_SENDKEY,
    REQUEST_EJECT,
    REQUEST_CHANGE,
};

enum { REQUEST_LIST_MAX = 1000 /* regions in one reply */ };

struct request {
    json_t *id; /* the client's own; NULL: none */
    enum request_op op;
    bool has_context;
    unsigned context;
    struct control_space space;
    struct wire_command command; /* COMMAND */
    bool keep;                   /* COMMAND, bind */
    uint32_t first, count;       /* LIST: regions from this id on, at most so many */
    bool has_acknowledge;        /* EVENTS */
    uint64_t acknowledge;
    uint64_t session; /* EVENTS */
    uint32_t grants;  /* GRANT */
    bool take;
    enum control_watch watch; /* SUBSCRIBE */
    bool on;                  /* HANDLE */
    unsigned timeout_ms;
    uint64_t token; /* ANSWER */
    unsigned verdict;
    uint64_t value;
    bool physical; /* READ, WRITE */
    uint64_t address;
    size_t length;
    uint8_t *data;    /* WRITE */
    char *text;       /* SCREENDUMP, CHANGE: the file; SENDKEY: the keys */
    unsigned hold_ms; /* SENDKEY */
    char *drive;      /* EJECT, CHANGE */
    char *format;     /* CHANGE: or NULL */
    bool force;       /* EJECT, CHANGE */
};

/* What is wrong with a line, beside the statuses of protect.h. */
enum request_problem { REQUEST_FINE, REQUEST_BAD_JSON, REQUEST_BAD };

/* `line` without its newline. Free with request_free() whatever comes of it: a bad request may have
 * an id. */
enum request_problem request_parse(const char *line, size_t len, struct request *request,
                                   struct wire_error *err);
void request_free(struct request *request);

#endif
