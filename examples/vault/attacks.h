/*
 * attacks.h - five ways to read another program's memory.
 *
 * Each runs in a child process as root and knows everything: whose memory, at which address, in
 * which file. None of them is a bug: it is how Linux is meant to work.
 */
#ifndef ATTACKS_H
#define ATTACKS_H

#include <stddef.h>
#include <sys/types.h>

struct target {
    pid_t pid;
    int memfd;         /* the victim's descriptor of its memory; the page is the file's first one */
    const char *page;  /* in the victim */
    size_t at, length; /* the secret in the page */
    const char *disk;  /* a disk to write to */
};

struct attack {
    const char *name;
    /* 0 and `length` bytes in `loot`, or an errno. */
    int (*run)(const struct target *target, char *loot);
};

enum { ATTACKS = 5 };
extern const struct attack attacks[ATTACKS];

#endif
