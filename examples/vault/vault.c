/*
 * vault.c - the vault example: a few bytes that only this program's own code may read, and who
 * tried.
 *
 * usage: vault [guarded|open|short [DISK]]      as root; DISK (default /dev/vda) is overwritten
 *
 * open: nothing is guarded. short: the first two attacks, and no names in the report.
 */
#include "attacks.h"
#include "bailey_guest.h"
#include "report.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096, SECRET_AT = 1000 };
static const char secret[] = "the combination is 38-12-57";
enum { LENGTH = sizeof(secret) - 1 };

static void die(const char *what, const char *why)
{
    fprintf(stderr, "vault: %s: %s\n", what, why);
    exit(2);
}

static void check(const char *what, int status)
{
    if (status != PROTECT_OK)
        die(what, bailey_status_text(status));
}

/* Only the owner's code may touch the bytes. Other processes are refused; the kernel reads
 * asterisks (a refusal would do as well, but some of its copies are not prepared for one); devices
 * and the host's debugger get an error. */
static void guard(struct bailey_door *door, const char *bytes)
{
    struct protect_rule rule = {
        .allow = {[PROTECT_OWNER] = PROTECT_READ | PROTECT_WRITE,
                  [PROTECT_WALKER] = PROTECT_ALL,
                  [PROTECT_EVENT] = PROTECT_ALL},
        .action = {[PROTECT_KERNEL] = PROTECT_SUBSTITUTE},
    };
    memset(&rule.value, '*', sizeof(rule.value));
    check("opening a door", bailey_linux_open(door));
    check("asking for grants",
          bailey_linux_grant(door, PROTECT_GRANT_ALL & ~PROTECT_GRANT_CONTROL));
    check("protecting the secret", bailey_protect(door, bytes, LENGTH, &rule, NULL));
}

/* ---- Attacks, each in a process of its own ------------------------------------------------------
 */

struct outcome { /* shared with the child */
    int error;
    char loot[LENGTH];
};

static void describe(const struct outcome *outcome, int status, const char *name)
{
    printf("%-32s", name);
    if (WIFSIGNALED(status))
        printf("killed: %s\n", strsignal(WTERMSIG(status)));
    else if (outcome->error)
        printf("%s\n", strerror(outcome->error));
    else
        printf("got \"%.*s\"\n", LENGTH, outcome->loot);
}

/* True when the attacker has the secret. */
static bool run_attack(const struct attack *attack, const struct target *target,
                       struct outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        outcome->error = attack->run(target, outcome->loot);
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    describe(outcome, status, attack->name);
    return memcmp(outcome->loot, secret, LENGTH) == 0;
}

/* ---- The victim ---------------------------------------------------------------------------------
 */

/* Its memory: shared, as that of a browser's or a database's processes is. */
static char *make_page(int *memfd)
{
    *memfd = memfd_create("vault", 0);
    if (*memfd < 0 || ftruncate(*memfd, PAGE) != 0)
        die("memfd", strerror(errno));
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, *memfd, 0);
    if (page == MAP_FAILED)
        die("mmap", strerror(errno));
    memset(page, '.', PAGE);
    memcpy(page + SECRET_AT, secret, LENGTH);
    return page;
}

/* How many of the attacks got the secret. */
static unsigned run_attacks(const struct target *target, unsigned count, struct bailey_door *door)
{
    struct outcome *outcome =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        die("mmap", strerror(errno));
    unsigned stolen = 0;
    for (unsigned n = 0; n < count; n++) {
        stolen += run_attack(&attacks[n], target, outcome);
        if (door)
            report_collect(door, n);
    }
    return stolen;
}

static void report(struct bailey_door *door, unsigned count)
{
    printf("who it was:\n");
    for (unsigned n = 0; n < count; n++) {
        printf("  %s\n", attacks[n].name);
        report_print(n);
    }
    printf("  (%llu events were lost)\n", (unsigned long long)bailey_events_lost(door));
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "guarded";
    bool is_open = strcmp(mode, "open") == 0, is_short = strcmp(mode, "short") == 0;
    if (!is_open && !is_short && strcmp(mode, "guarded") != 0)
        die("usage", "vault [guarded|open|short [DISK]]");
    unsigned count = is_short ? 2 : ATTACKS;
    struct bailey_door door;
    struct target target = {.pid = getpid(),
                            .at = SECRET_AT,
                            .length = LENGTH,
                            .disk = argc > 2 ? argv[2] : "/dev/vda"};
    target.page = make_page(&target.memfd);
    if (!is_open)
        guard(&door, target.page + SECRET_AT);
    printf("%u secret bytes, %s\n", (unsigned)LENGTH, is_open ? "not guarded" : "guarded");
    unsigned stolen = run_attacks(&target, count, is_open ? NULL : &door);
    bool intact = memcmp(target.page + SECRET_AT, secret, LENGTH) == 0;
    printf("%u of %u attacks got the secret; its owner reads it %s\n", stolen, count,
           intact ? "as ever" : "no more");
    if (is_open)
        return stolen == count ? 0 : 1;
    if (!is_short)
        report_names();
    report(&door, count);
    bailey_linux_close(&door);
    return stolen == 0 && intact ? 0 : 1;
}
