/*
 * screen.c - baileyctl's commands for display and keyboard.
 */
#include "baileyctl.h"
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int carry_out(struct program *p, json_t *request)
{
    json_t *reply = bctl_request(p->ctl, request, &p->error);
    bool ok = reply && bctl_check(reply, &p->error);
    json_decref(reply);
    return ok ? EXIT_DONE : fail_error(p);
}

/* The machine writes the file; it is told where this program would have. */
int run_screendump(struct program *p)
{
    char path[2 * PATH_MAX], here[PATH_MAX];
    const char *file = p->set.operand[0];
    if (*file == '/')
        snprintf(path, sizeof(path), "%s", file);
    else if (!getcwd(here, sizeof(here)))
        return fail_use("the working directory has no name");
    else
        snprintf(path, sizeof(path), "%s/%s", here, file);
    json_t *request = json_pack("{ssss}", "op", "screendump", "file", path);
    return request ? carry_out(p, request) : fail_use("'%s' is not UTF-8", file);
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
    json_t *request = json_pack("{sssssi}", "op", "sendkey", "keys", keys, "hold_ms", (int)hold);
    return request ? carry_out(p, request) : fail_use("'%s' is not UTF-8", keys);
}
