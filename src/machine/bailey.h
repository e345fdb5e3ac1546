/*
 * bailey.h - a machine as the public interface has it. Shared by bailey.c and embed_protect.c.
 */
#ifndef MACHINE_BAILEY_H
#define MACHINE_BAILEY_H

#include "bailey/bailey.h"
#include "internal/error.h"
#include "internal/machine.h"

struct bailey {
    struct machine_config config;
    struct machine *machine;
    int status;
};

/* `err` is looked at when the code says that something failed. */
void bailey_set_error(struct bailey_error *error, enum bailey_code code, const struct error *err);

#endif
