/*
 * bailey.c - the public interface (include/bailey/bailey.h) over options and machine.
 */
#include "bailey.h"
#include "internal/chardev.h"
#include "internal/error.h"
#include "internal/machine.h"
#include <stdlib.h>
#include <string.h>

void bailey_set_error(struct bailey_error *error, enum bailey_code code, const struct error *err)
{
    memset(error, 0, sizeof(*error));
    error->code = code;
    if (err)
        memcpy(error->text, err->msg, sizeof(error->text));
    _Static_assert(sizeof(error->text) == sizeof(err->msg), "messages fit");
}

const char *machine_version(void)
{
    return "Bailey " BAILEY_VERSION " (translator, interpreter, Capstone disassembly, ELF kernels, "
           "qcow2 images"
#ifdef BAILEY_LIBNBD
           ", network disks and foreign images by libnbd"
#endif
           ")";
}

const char *bailey_version(void)
{
    return machine_version();
}

static enum bailey_code make(struct bailey *b, unsigned argc, const char *const *argv, FILE *info,
                             struct error *err)
{
    switch (options_parse(&b->config, argc, argv, info, err)) {
    case OPTIONS_INFORMED:
        return BAILEY_INFORMED;
    case OPTIONS_WRONG:
        return BAILEY_USAGE;
    case OPTIONS_OK:
        break;
    }
    b->machine = machine_new(&b->config, err);
    return b->machine ? BAILEY_OK : BAILEY_FAILED;
}

struct bailey *bailey_new(unsigned argc, const char *const *argv, FILE *info,
                          struct bailey_error *error)
{
    struct error err = {{0}};
    struct bailey *b = calloc(1, sizeof(*b));
    FILE *out = info ? info : fopen("/dev/null", "we");
    enum bailey_code code = BAILEY_FAILED;
    if (b && out)
        code = make(b, argc, argv, out, &err);
    else
        error_set(&err, "no host memory or descriptors for the machine");
    if (out && out != info)
        fclose(out);
    bailey_set_error(error, code, code == BAILEY_USAGE || code == BAILEY_FAILED ? &err : NULL);
    if (code == BAILEY_OK)
        return b;
    bailey_free(b);
    return NULL;
}

enum bailey_end bailey_run(struct bailey *b, struct bailey_error *error)
{
    static const enum bailey_end ends[] = {
        [MACHINE_POWERED_OFF] = BAILEY_POWERED_OFF, [MACHINE_RESET] = BAILEY_RESET,
        [MACHINE_EXITED] = BAILEY_EXITED,           [MACHINE_PANICKED] = BAILEY_PANICKED,
        [MACHINE_STOPPED] = BAILEY_STOPPED,         [MACHINE_FAILED] = BAILEY_ERROR,
        [MACHINE_REFUSED] = BAILEY_REFUSED,
    };
    struct error err = {{0}};
    enum machine_end end = machine_run(b->machine, &b->status, &err);
    bailey_set_error(error, end == MACHINE_FAILED ? BAILEY_FAILED : BAILEY_OK,
                     end == MACHINE_FAILED ? &err : NULL);
    return ends[end];
}

void bailey_stop(struct bailey *b)
{
    machine_stop(b->machine);
}

void bailey_pause(struct bailey *b)
{
    machine_pause(b->machine);
}

void bailey_resume(struct bailey *b)
{
    machine_resume(b->machine);
}

bool bailey_paused(struct bailey *b)
{
    return machine_paused(b->machine);
}

int bailey_status(const struct bailey *b)
{
    return b->status;
}

bool bailey_read(struct bailey *b, uint64_t address, void *buffer, size_t length)
{
    return machine_read(b->machine, address, buffer, length);
}

bool bailey_write(struct bailey *b, uint64_t address, const void *buffer, size_t length)
{
    return machine_write(b->machine, address, buffer, length);
}

void bailey_free(struct bailey *b)
{
    if (!b)
        return;
    machine_free(b->machine);
    machine_config_free(&b->config);
    free(b);
}

void bailey_restore_terminal(void)
{
    chardev_terminal_restore();
}
