/*
 * medium.c - baileyctl's commands for CD-ROM and floppy drives.
 */
#include "baileyctl.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>

int run_eject(struct program *p)
{
    return carry_out(p, json_pack("{sssssb}", "op", "eject", "drive", p->set.operand[0], "force",
                                  (int)p->set.force));
}

int run_change(struct program *p)
{
    const char *file = p->set.operand[1];
    char path[2 * PATH_MAX];
    if (strncmp(file, "nbd", 3) == 0 && strchr(file, ':'))
        snprintf(path, sizeof(path), "%s", file);
    else if (!absolute_path(file, path, sizeof(path)))
        return fail_use("the working directory has no name");
    return carry_out(p,
                     json_pack("{sssssssbss*}", "op", "change", "drive", p->set.operand[0], "file",
                               path, "force", (int)p->set.force, "format", p->set.format));
}
