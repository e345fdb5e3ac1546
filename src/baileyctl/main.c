/*
 * main.c - the program baileyctl: a machine's control socket from the command line.
 */
#include "baileyctl.h"
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static const struct command commands[] = {
    {"status", "", "say whether the machine runs", 0, 0, run_status},
    {"counters", "", "what the translator and the MMU have counted", 0, 0, run_counters},
    {"list", "[CONTEXT]", "contexts and their counters, or one context's regions", 0, 1, run_list},
    {"protect", "ADDRESS [LENGTH|END]", "protect memory; the rule stays until destroy or a reset",
     1, 2, run_protect},
    {"watch", "", "print events until the machine ends", 0, 0, run_watch},
    {"serve", "PROGRAM [ARG]...", "run PROGRAM for each question; it prints the verdict", 1,
     1 << 20, run_serve},
    {"seal", "CONTEXT SESSION SEALS", "weaken, remove, rebind: not possible any more", 3, 3,
     run_seal},
    {"grant", "DOOR GRANTS", "let a guest's context restrict others, too", 2, 2, run_grant},
    {"revoke", "DOOR GRANTS", "take grants away", 2, 2, run_revoke},
    {"destroy", "CONTEXT", "end a context with all its rules", 1, 1, run_destroy},
    {"read", "ADDRESS LENGTH", "show guest memory", 2, 2, run_read},
    {"write", "ADDRESS BYTES", "change guest memory; BYTES are hexadecimal digits", 2, 2,
     run_write},
    {"screendump", "FILE", "the display's picture as a PNG file", 1, 1, run_screendump},
    {"screen", "", "the characters on the display, in a text mode", 0, 0, run_screen},
    {"sendkey", "KEYS [MS]", "press keys together, as ctrl-alt-delete (100 ms)", 1, 2, run_sendkey},
    {"eject", "DRIVE", "take out what is in a CD-ROM or floppy drive: ide1-cd0, floppy0", 1, 1,
     run_eject},
    {"change", "DRIVE FILE", "put an image into it", 2, 2, run_change},
    {"pause", "", "stop the processors", 0, 0, run_pause},
    {"continue", "", "let them go on", 0, 0, run_continue},
    {"stop", "", "end the machine", 0, 0, run_stop},
};

int fail_use(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("baileyctl: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("; see baileyctl --help\n", stderr);
    va_end(ap);
    return EXIT_WRONG_USE;
}

int fail_error(const struct program *p)
{
    fprintf(stderr, "baileyctl: %s\n", p->error.text);
    return p->error.lost ? EXIT_NO_MACHINE : EXIT_REFUSED;
}

int carry_out(struct program *p, json_t *request)
{
    if (!request)
        return fail_use("an operand is not UTF-8");
    json_t *reply = bctl_request(p->ctl, request, &p->error);
    bool ok = reply && bctl_check(reply, &p->error);
    json_decref(reply);
    return ok ? EXIT_DONE : fail_error(p);
}

bool absolute_path(const char *file, char *path, size_t size)
{
    char here[PATH_MAX];
    if (*file == '/')
        return snprintf(path, size, "%s", file) < (int)size;
    return getcwd(here, sizeof(here)) && snprintf(path, size, "%s/%s", here, file) < (int)size;
}

/* Also of what was written earlier: what fflush() could not write is not tried again. */
static bool output_is_whole(void)
{
    return fflush(stdout) == 0 && !ferror(stdout);
}

static int help(void)
{
    puts("usage: baileyctl --socket PATH [OPTION]... COMMAND [OPERAND]...\n\n"
         "Protects and watches the memory of a running machine, which was started with\n"
         "bailey -protect socket=PATH. An ADDRESS is a number, SYMBOL or SYMBOL+NUMBER.\n\n"
         "Commands:");
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        char left[64];
        snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].operands);
        printf("  %-28s %s\n", left, commands[i].help);
    }
    puts("\nOptions:");
    print_options(stdout);
    puts(
        "\nExit status: 0 done; 1 the machine refused, or something failed; 2 the command line is\n"
        "wrong; 3 there is no machine at the socket, or the connection broke.");
    return output_is_whole() ? EXIT_DONE : EXIT_REFUSED;
}

static int version(void)
{
    puts("baileyctl " BAILEY_VERSION);
    return output_is_whole() ? EXIT_DONE : EXIT_REFUSED;
}

static bool asked(int argc, char **argv, const char *option)
{
    /* Only before a PROGRAM's own arguments could begin. */
    for (int i = 1; i < argc && strcmp(argv[i], "serve") != 0; i++)
        if (strcmp(argv[i], option) == 0)
            return true;
    return false;
}

static const struct command *find_command(const char *name)
{
    for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

bool load_symbols(struct program *p)
{
    if (!p->set.symbols_file)
        return true;
    p->symbols = bctl_symbols_open(p->set.symbols_file, &p->error);
    if (p->symbols)
        bctl_symbols_slide(p->symbols, p->set.slide);
    return p->symbols != NULL;
}

static int connect_and_run(struct program *p, const struct command *command)
{
    if (!load_symbols(p))
        return fail_error(p);
    p->ctl = bctl_open(p->set.socket, &p->error);
    if (!p->ctl)
        return fail_error(p);
    bctl_space(p->ctl, p->set.vcpu, p->set.has_cr3 ? &p->set.cr3 : NULL);
    int status = command->run(p);
    if (!output_is_whole() && status == EXIT_DONE) {
        fputs("baileyctl: could not write to standard output\n", stderr);
        status = EXIT_REFUSED;
    }
    return status;
}

int main(int argc, char **argv)
{
    struct program p = {0};
    if (argc < 2 || asked(argc, argv, "--help") || asked(argc, argv, "-h"))
        return argc < 2 ? fail_use("no command") : help();
    if (asked(argc, argv, "--version"))
        return version();
    int status = parse_options(&p.set, argc, argv);
    if (status)
        return status;
    if (p.set.count == 0)
        return fail_use("no command");
    const struct command *command = find_command(p.set.operand[0]);
    if (!command)
        return fail_use("there is no command '%s'", p.set.operand[0]);
    p.set.operand++;
    p.set.count--;
    if (p.set.count < command->least || p.set.count > command->most)
        return fail_use("usage: %s %s", command->name, command->operands);
    if (!p.set.socket)
        return fail_use("--socket is missing, and so is $BAILEY_SOCKET");
    status = connect_and_run(&p, command);
    bctl_close(p.ctl);
    bctl_symbols_free(p.symbols);
    return status;
}
