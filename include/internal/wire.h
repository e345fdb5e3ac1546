/*
 * wire.h - the descriptors of include/bailey/protect.h as JSON, both ways: what the control socket
 * and its clients say to each other. docs/socket.md is the description for people.
 *
 * One table of fields per structure serves encoding and decoding, so a field that is added to the
 * ABI is one row here. Nothing but protect.h and jansson is needed: the client library is made of
 * this, too.
 *
 * Numbers may be JSON integers or strings, "0x…" or decimal (JSON's integers end at 2^63 - 1).
 * Words, such as "kernel", may be replaced by their numbers, also by numbers that mean nothing: it
 * is the rules' business to refuse those, with a status of the interface.
 */
#ifndef INTERNAL_WIRE_H
#define INTERNAL_WIRE_H

#include "bailey/protect.h"
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_LINE_MAX = 1 << 20,  /* bytes of a line, newline included, either way */
    WIRE_DATA_MAX = 64 << 10, /* bytes of memory read or written at once */
    WIRE_PROTOCOL = 1,        /* in the greeting; grows when old clients would misunderstand */
};

/* What is wrong with a message, for people. */
struct wire_error {
    char text[160];
};
bool wire_fail(struct wire_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- Words (words.c) ------------------------------------------------------------------------- */

/* Lists end with NULL; the index is the number, or the bit. */
extern const char *const wire_subjects[],
    *const wire_actions[], *const wire_notify[],
                               *const wire_region_flags[],
                                   *const wire_faults[],
                                       *const wire_grants[],
                                           *const wire_seals[],
                                               *const wire_event_types[],
                                                   *const wire_event_flags[],
                                                       *const wire_verdicts[],
                                                           *const wire_kinds[],
                                                               *const wire_statuses[];

/* The index of a word, -1: none. */
int wire_word(const char *const *words, const char *word);
/* The word, or NULL when there are not so many. */
const char *wire_word_of(const char *const *words, uint64_t index);
/* "done" for PROTECT_OK and so on. */
const char *wire_status_text(unsigned status);

/* ---- Values (codec.c) ------------------------------------------------------------------------ */

/* All decoders return false with *err set, which then names `name`. Those for bits take a list of
 * words, one word, or a number. */
bool wire_number(const json_t *value, const char *name, uint64_t max, uint64_t *out,
                 struct wire_error *err);
bool wire_choice(const json_t *value, const char *name, const char *const *words, uint64_t max,
                 uint64_t *out, struct wire_error *err);
bool wire_bits(const json_t *value, const char *name, const char *const *words, uint64_t max,
               uint64_t *out, struct wire_error *err);
json_t *wire_hex(uint64_t value);     /* "0x…" */
json_t *wire_decimal(uint64_t value); /* an integer, or "0x…" from 2^63 on */
json_t *wire_choice_json(const char *const *words, uint64_t value);
json_t *wire_bits_json(const char *const *words, uint64_t value);

/* Bytes as hexadecimal digits; decoding: at most `max`, *len says how many. */
json_t *wire_bytes_json(const void *bytes, size_t len);
bool wire_bytes(const json_t *value, const char *name, void *out, size_t max, size_t *len,
                struct wire_error *err);

/* Fails when the object has a member that `names` (ending with NULL) lacks. */
bool wire_only(const json_t *object, const char *const *names, struct wire_error *err);

/* ---- Structures (layout.c) ------------------------------------------------------------------- */

enum wire_type {
    WIRE_DECIMAL, /* number, shown as an integer */
    WIRE_HEX,     /* number, shown as "0x…" */
    WIRE_CHOICE,  /* index into `words` */
    WIRE_BITS,    /* set of bits named by `words` */
    WIRE_ACCESS,  /* enum protect_access bits: letters of "rwx" */
    WIRE_NESTED,  /* a structure of its own, `layout` */
};

struct wire_layout;
struct wire_field {
    const char *name; /* NULL ends the table */
    enum wire_type type;
    uint16_t offset;
    uint8_t size;            /* bytes of one element */
    uint8_t count;           /* elements; 0: not an array */
    bool required;           /* decoding without it fails; else the field keeps its value */
    bool hidden;             /* decoded when there, but not shown when zero: reserved fields */
    const char *const *keys; /* of an array: it is an object with these members */
    const char *const *words;
    const struct wire_layout *layout;
};

struct wire_layout {
    const char *name;
    size_t size;
    const struct wire_field *fields;
};

extern const struct wire_layout wire_region, wire_rule, wire_handler, wire_query, wire_event,
    wire_statistics;

/* Members that the layout lacks: refused in what a client asks for, so that a slip is noticed;
 * passed over in what a newer server says. */
enum wire_unknown { WIRE_STRICT, WIRE_LENIENT };
/* Fields that are not in the object keep what *to holds. */
bool wire_decode(const json_t *object, const struct wire_layout *layout, enum wire_unknown unknown,
                 void *to, struct wire_error *err);
json_t *wire_encode(const struct wire_layout *layout, const void *from);

/* ---- Commands (command.c) -------------------------------------------------------------------- */

/* How an operation's arguments look. */
enum wire_shape {
    WIRE_PLAIN,  /* none */
    WIRE_ARRAY,  /* arg[0]: address of an array, arg[1]: elements */
    WIRE_RANGE,  /* arg[0]: first region, arg[1]: count */
    WIRE_SEALS,  /* arg[0]: bits */
    WIRE_IN,     /* arg[0]: address of a structure, or 0 */
    WIRE_IN_OUT, /* the same, filled in */
    WIRE_OUT,    /* the same, only filled in */
};

struct wire_op {
    const char *name; /* "add-regions" */
    enum wire_shape shape;
    const char *field; /* the member that holds the argument */
    const struct wire_layout *layout;
};
/* NULL: no such operation. */
const struct wire_op *wire_op(unsigned op);
unsigned wire_op_number(const char *name); /* 0: none */

/* A command with the memory its addresses point into. */
struct wire_command {
    struct protect_command command;
    void *memory;
    size_t size;
};

/* From a request; leaves alone the members that are not the command's own: see wire_command_keys.
 * Free with wire_command_free() in either case. */
bool wire_command_decode(const json_t *request, struct wire_command *command,
                         struct wire_error *err);
void wire_command_free(struct wire_command *command);
/* Whether [address, address + len) lies in the command's memory; its place there. */
void *wire_command_memory(const struct wire_command *command, uint64_t address, size_t len);
/* Members that wire_command_decode() reads, ending with NULL. */
extern const char *const wire_command_keys[];

/* The request for a command whose addresses are this program's own. */
json_t *wire_command_encode(const struct protect_command *command);

/* Puts status, element, result and what was filled in into the reply. */
void wire_reply_encode(const struct protect_command *command, json_t *reply);
/* Takes them out of it, to where the command's addresses point. */
bool wire_reply_decode(const json_t *reply, struct protect_command *command,
                       struct wire_error *err);

#endif
