/*
 * screen.c - baileyctl's commands for display and keyboard.
 */
#include "baileyctl.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* The machine writes the file. */
int run_screendump(struct program *p)
{
    char path[2 * PATH_MAX];
    if (!absolute_path(p->set.operand[0], path, sizeof(path)))
        return fail_use("the working directory has no name");
    return carry_out(p, json_pack("{ssss}", "op", "screendump", "file", path));
}

int run_screen(struct program *p)
{
    json_t *reply = bctl_request(p->ctl, json_pack("{ss}", "op", "screen"), &p->error), *line;
    bool ok = reply && bctl_check(reply, &p->error);
    size_t i;
    if (ok)
        json_array_foreach (json_object_get(reply, "lines"), i, line)
            puts(json_string_value(line) ? json_string_value(line) : "");
    json_decref(reply);
    return ok ? EXIT_DONE : fail_error(p);
}

int run_sendkey(struct program *p)
{
    uint64_t hold = 0;
    const char *keys = p->set.operand[0];
    if (p->set.count > 1 && (!parse_number(p->set.operand[1], &hold) || hold > INT_MAX))
        return fail_use("'%s' is no number of milliseconds", p->set.operand[1]);
    return carry_out(p, json_pack("{sssssi}", "op", "sendkey", "keys", keys, "hold_ms", (int)hold));
}
