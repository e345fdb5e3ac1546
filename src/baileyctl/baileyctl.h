/*
 * baileyctl.h - the program's settings and what its files do for each other.
 */
#ifndef BAILEYCTL_H
#define BAILEYCTL_H

#include "bailey/ctl.h"
#include <stdio.h>

/* Exit statuses, docs/baileyctl.1. */
enum { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_WRONG_USE = 2, EXIT_NO_MACHINE = 3 };

/* The command line. */
struct settings {
    const char *socket, *symbols_file;
    int64_t slide;
    bool json, physical, raw;
    bool force;         /* eject, change */
    const char *format; /* change; NULL: what the contents say */
    /* protect */
    uint32_t subjects; /* bits by enum protect_subject */
    uint8_t deny, action, fault;
    uint32_t notify;
    uint64_t value, cookie;
    bool pin, watch;
    /* where */
    bool has_cr3, has_context;
    uint64_t cr3, session;
    unsigned vcpu, context, timeout_ms;
    /* operands behind the command's name */
    int count;
    char **operand;
};

struct program {
    struct settings set;
    struct bctl *ctl;
    struct bctl_symbols *symbols; /* NULL: none given */
    struct bctl_error error;
};

struct command {
    const char *name, *operands, *help;
    int least, most; /* operands */
    int (*run)(struct program *p);
};

/* main.c: messages of one line on standard error; return the status. */
int fail_use(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* p->error, from the library. */
int fail_error(const struct program *p);
/* Loads the symbols, if some were given; false with p->error. */
bool load_symbols(struct program *p);

/* options.c: 0, or an exit status. */
int parse_options(struct settings *set, int argc, char **argv);
void print_options(FILE *out);
bool parse_number(const char *text, uint64_t *out);
/* A comma-separated list of words of wire.h as bits; false: one is none of them. */
bool parse_bits(const char *text, const char *const *words, uint32_t *bits);

/* main.c: has a request carried out whose reply is no more than that; NULL: fails. */
int carry_out(struct program *p, json_t *request);
/* A file as the machine knows it, which may have another working directory: in `path`; false: there
 * is no such name. */
bool absolute_path(const char *file, char *path, size_t size);

/* address.c */
/* NUMBER, SYMBOL or SYMBOL+NUMBER; *size: of the symbol, or 0. False with p->error. */
bool parse_address(struct program *p, const char *text, uint64_t *address, uint64_t *size);
/* " <symbol+0x12>", or nothing. */
void print_symbol(FILE *out, const struct program *p, uint64_t address);

/* show.c */
int run_list(struct program *p);
int run_status(struct program *p);
int run_counters(struct program *p);
void print_message(FILE *out, const struct program *p, const struct bctl_message *m);

/* commands.c */
int run_protect(struct program *p);
int run_watch(struct program *p);
int run_seal(struct program *p);
int run_grant(struct program *p);
int run_revoke(struct program *p);
int run_destroy(struct program *p);
int run_pause(struct program *p);
int run_continue(struct program *p);
int run_stop(struct program *p);
int run_read(struct program *p);
int run_write(struct program *p);
/* Prints messages until the machine ends. */
int watch(struct program *p);

/* screen.c */
int run_screendump(struct program *p);
int run_screen(struct program *p);
int run_sendkey(struct program *p);

/* medium.c */
int run_eject(struct program *p);
int run_change(struct program *p);

/* serve.c */
int run_serve(struct program *p);

#endif
