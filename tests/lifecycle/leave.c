/*
 * leave.c - the end of a process is the end of its context, however it goes, and whoever gets its
 * address-space root afterwards gets nothing with it.
 */
#include "life.h"
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* What a process that is about to go tells the others. */
struct note {
    uint32_t door;
    uint64_t session, root, frame;
};

/* The root that the device sees in this process's stores: in the event of an access of its own. */
static uint64_t own_root(struct bailey_door *door)
{
    struct protect_event event;
    uint8_t *page = life_pages(1);
    life_protect(door, page, PAGE, life_rule(0, PROTECT_ALLOW));
    life_drain(door);
    *(volatile uint8_t *)page = 1;
    CHECK(life_event(door, PROTECT_EVENT_ACCESS, page, &event));
    CHECK_SAME(event.subject, PROTECT_OWNER);
    return event.cr3 & ~0xfffull;
}

/* Binds, protects, leaves a note; the context is alive when this returns. */
static void move_in(struct note *note)
{
    struct bailey_door door;
    life_open(&door, 0);
    uint8_t *pages = life_pages(8);
    life_protect(&door, pages, 8 * PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    CHECK_REFUSES(pages + PAGE + 1);
    note->frame = life_frame(pages);
    note->root = own_root(&door);
    note->session = door.session;
    note->door = door.index;
}

static void expect_nothing_left(const struct note *note)
{
    volatile struct protect_admin *admin = life_admin();
    CHECK(note->session);
    CHECK_SAME(life_doors()[note->door].state, PROTECT_DOOR_FREE);
    CHECK_SAME(admin->regions, 0);
    CHECK_SAME(admin->ruled_pages, 0);
}

static void leave_normally(void *opaque)
{
    move_in(opaque);
}

static void normal_exit(void)
{
    struct note *note = life_shared(sizeof(*note));
    CHECK_CHILD(leave_normally, note);
    expect_nothing_left(note);
}

static void be_killed(void *opaque)
{
    move_in(opaque);
    raise(SIGKILL);
}

static void killed(void)
{
    struct note *note = life_shared(sizeof(*note));
    int status = life_child(be_killed, note);
    CHECK(WIFSIGNALED(status));
    CHECK_SAME(WTERMSIG(status), SIGKILL);
    expect_nothing_left(note);
}

/* A page fault that nobody catches, at the protected page itself. */
static void die_of_own_rule(void *opaque)
{
    struct note *note = opaque;
    struct bailey_door door;
    signal(SIGSEGV, SIG_DFL);
    life_open(&door, 0);
    uint8_t *page = life_pages(1);
    life_protect(&door, page, PAGE, life_rule(0, PROTECT_DENY));
    note->session = door.session;
    note->door = door.index;
    *(volatile uint8_t *)page = 1;
}

static void refused_to_death(void)
{
    struct note *note = life_shared(sizeof(*note));
    int status = life_child(die_of_own_rule, note);
    CHECK(WIFSIGNALED(status));
    CHECK_SAME(WTERMSIG(status), SIGSEGV);
    expect_nothing_left(note);
}

static void become_true(void *opaque)
{
    move_in(opaque);
    execl("/bin/busybox", "true", (char *)NULL);
    _exit(99);
}

static void exec_into_another(void)
{
    struct note *note = life_shared(sizeof(*note));
    CHECK_CHILD(become_true, note);
    expect_nothing_left(note);
}

/* The same process goes on, with another address space: asked while it lives. */
static void become_sleeper(void *opaque)
{
    move_in(opaque);
    execl("/bin/sleep", "sleep", "60", (char *)NULL);
    _exit(99);
}

static void exec_is_the_end_at_once(void)
{
    struct note *note = life_shared(sizeof(*note));
    pid_t pid = fork();
    if (pid == 0)
        become_sleeper(note);
    char path[64], name[32] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    while (strncmp(name, "sleep", 5)) {
        FILE *f = fopen(path, "r");
        CHECK(f && fgets(name, sizeof(name), f));
        fclose(f);
    }
    /* comm changes before the old address space goes: its maps say when that has happened */
    bool old = true;
    while (old) {
        char line[256];
        old = false;
        snprintf(path, sizeof(path), "/proc/%d/maps", pid);
        FILE *f = fopen(path, "r");
        CHECK(f);
        bool any = false;
        while (fgets(line, sizeof(line), f)) {
            any = true;
            old |= strstr(line, "resource2") != NULL;
        }
        fclose(f);
        old |= !any;
    }
    expect_nothing_left(note);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void door_unmapped(void)
{
    struct bailey_door door;
    life_open(&door, 0);
    struct note note = {.door = door.index, .session = door.session};
    uint8_t *page = life_pages(1);
    life_protect(&door, page, PAGE, life_rule(0, PROTECT_DENY));
    CHECK_REFUSES(page);
    struct bailey_door lost = door;
    CHECK(munmap((void *)(uintptr_t)lost.regs, PROTECT_DOOR_SIZE) == 0);
    expect_nothing_left(&note);
    CHECK_SAME(life_write(page, 7).signal, 0);
    CHECK_SAME(*page, 7);
}

/* ---- The same root again ------------------------------------------------------------------------
 */

struct heir {
    const struct note *note;
    bool *same;
};

/* A new process tries the old session, and sees whether it has the old root. */
static void inherit(void *opaque)
{
    const struct heir *heir = opaque;
    volatile struct protect_door *old = &life_doors()[heir->note->door];
    CHECK_SAME(old->state, PROTECT_DOOR_FREE);
    /* the session at the free door, before anybody binds it again */
    struct bailey_door forged = {.regs = old, .session = heir->note->session};
    CHECK_SAME(bailey_command(&forged, PROTECT_OP_REMOVE_REGIONS, 0, 1, NULL), PROTECT_NOT_BOUND);
    uint8_t *page = life_pages(1);
    struct bailey_door door;
    life_open(&door, 0);
    CHECK_SAME(door.index, heir->note->door); /* the first free one */
    CHECK(door.session != heir->note->session);
    *heir->same = own_root(&door) == heir->note->root;
    life_protect(&door, page, PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    forged.regs = door.regs;
    CHECK_SAME(bailey_command(&forged, PROTECT_OP_UNBIND, 0, 0, NULL), PROTECT_WRONG_SESSION);
    CHECK_REFUSES(page);
    CHECK_OK(
        bailey_command(&door, PROTECT_OP_UNBIND, 0, 0, NULL)); /* the next heir wants this door */
}

/*
 * The kernel gives roots from lists of free pages, one per processor and last in, first out. An
 * heir that ended would put its own root on top, for the next one to take, and the old root could
 * stay below for ever: so all heirs stay until one has it, born on all processors in turn. False:
 * none got it, the kernel has found another use for that page.
 */
static bool root_comes_back(void (*leave)(void *))
{
    enum { HEIRS = 600 };
    struct note *note = life_shared(sizeof(*note));
    bool *same = life_shared(sizeof(*same));
    pid_t heirs[HEIRS];
    unsigned born = 0;
    bool well = true;
    life_child(leave, note);
    while (well && !*same && born < HEIRS) {
        cpu_set_t here;
        CPU_ZERO(&here);
        CPU_SET(born % (unsigned)sysconf(_SC_NPROCESSORS_ONLN), &here);
        CHECK(sched_setaffinity(0, sizeof(here), &here) == 0);
        int done[2];
        CHECK(pipe(done) == 0);
        fflush(stdout);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            inherit(&(struct heir){note, same});
            CHECK(write(done[1], "", 1) == 1);
            for (;;)
                pause();
        }
        heirs[born++] = pid;
        close(done[1]);
        char byte;
        well = read(done[0], &byte, 1) == 1; /* no byte: it has ended, with a line that says why */
        close(done[0]);
    }
    for (unsigned i = 0; i < born; i++) {
        kill(heirs[i], SIGKILL);
        waitpid(heirs[i], NULL, 0);
    }
    CHECK(well);
    if (*same)
        printf("  the root came back in process %u\n", born);
    return *same;
}

static void root_reused(void (*leave)(void *))
{
    enum { TRIES = 5 };
    for (unsigned i = 0; i < TRIES; i++)
        if (root_comes_back(leave))
            return;
    life_fail(__FILE__, __LINE__, "no new process got the root of one that left");
}

static void root_reused_after_exit(void)
{
    root_reused(leave_normally);
}
static void root_reused_after_kill(void)
{
    root_reused(be_killed);
}

/* ---- Many ---------------------------------------------------------------------------------------
 */

static void come_and_go(void *opaque)
{
    uint32_t *rounds = opaque;
    struct bailey_door door;
    life_open(&door, 0);
    CHECK_SAME(door.index, 0); /* all others have given theirs back */
    uint8_t *pages = life_pages(4);
    life_protect(&door, pages, 2 * PAGE, life_rule(PROTECT_READ, PROTECT_DENY));
    life_protect(&door, pages + 2 * PAGE + 100, 200, life_rule(0, PROTECT_DENY));
    CHECK_REFUSES(pages);
    CHECK_REFUSES(pages + 2 * PAGE + 299);
    CHECK_SAME(life_write(pages + 2 * PAGE + 300, 1).signal, 0);
    ++*rounds;
    switch (*rounds % 3) {
    case 0:
        _exit(0);
    case 1:
        raise(SIGKILL);
        break;
    default:
        execl("/bin/busybox", "true", (char *)NULL);
    }
}

static void two_hundred_processes(void)
{
    uint32_t *rounds = life_shared(sizeof(*rounds));
    volatile struct protect_admin *admin = life_admin();
    uint64_t denied = admin->total.denied, commands = admin->total.commands;
    for (unsigned i = 0; i < 200; i++) {
        life_child(come_and_go, rounds);
        CHECK_SAME(*rounds, i + 1);
        CHECK_SAME(admin->regions, 0);
        CHECK_SAME(admin->ruled_pages, 0);
    }
    /* what they did is in the totals: 2 refusals, and BIND and 2 times ADD_REGIONS and SET_RULES */
    CHECK_SAME(admin->total.denied - denied, 400);
    CHECK_SAME(admin->total.commands - commands, 1000);
}

static const struct life_test tests[] = {
    {"normal_exit", normal_exit},
    {"killed", killed},
    {"refused_to_death", refused_to_death},
    {"exec_into_another", exec_into_another},
    {"exec_is_the_end_at_once", exec_is_the_end_at_once},
    {"door_unmapped", door_unmapped},
    {"root_reused_after_exit", root_reused_after_exit},
    {"root_reused_after_kill", root_reused_after_kill},
    {"two_hundred_processes", two_hundred_processes},
};
LIFE_MAIN(tests)
