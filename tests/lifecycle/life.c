/*
 * life.c - see life.h.
 */
#include "life.h"
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum { SECONDS = 100 }; /* for one test, on a slow host */

_Noreturn void life_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    const char *name = strrchr(file, '/');
    printf("  %s:%d: ", name ? name + 1 : file, line);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    fflush(stdout);
    _exit(1);
}

/* ---- The device ---------------------------------------------------------------------------------
 */

void life_open(struct bailey_door *door, uint32_t grants)
{
    int status = bailey_linux_open(door);
    if (status != PROTECT_OK)
        life_fail(__FILE__, __LINE__, "no door: %s", bailey_status_text(status));
    if (grants)
        CHECK_OK(bailey_linux_grant(door, grants));
}

struct protect_rule life_rule(uint8_t allow, enum protect_action action)
{
    struct protect_rule rule = PROTECT_RULE_DEFAULT(0, 1, allow, (uint8_t)action);
    return rule;
}

uint32_t life_protect(struct bailey_door *door, const volatile void *at, size_t length,
                      struct protect_rule rule)
{
    uint32_t region;
    CHECK_OK(bailey_protect(door, at, length, &rule, &region));
    return region;
}

/* A BAR of the device, whatever its place on the bus is. */
static volatile void *map_bar(const char *resource, size_t bytes)
{
    char path[128];
    for (unsigned device = 0; device < 32; device++) {
        unsigned vendor = 0, id = 0;
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/0000:00:%02x.0/vendor", device);
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%x", &vendor) != 1)
            vendor = 0;
        if (file)
            fclose(file);
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/0000:00:%02x.0/device", device);
        file = fopen(path, "r");
        if (!file || fscanf(file, "%x", &id) != 1)
            id = 0;
        if (file)
            fclose(file);
        if (vendor != PROTECT_PCI_VENDOR || id != PROTECT_PCI_DEVICE)
            continue;
        snprintf(path, sizeof(path), "/sys/bus/pci/devices/0000:00:%02x.0/%s", device, resource);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        void *at =
            fd < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        if (at != MAP_FAILED)
            return at;
    }
    life_fail(__FILE__, __LINE__, "cannot map %s", resource);
}

volatile struct protect_door *life_doors(void)
{
    return map_bar("resource2", PROTECT_DOORS * sizeof(struct protect_door));
}

volatile struct protect_admin *life_admin(void)
{
    return map_bar("resource0", PROTECT_ADMIN_SIZE);
}

bool life_event(struct bailey_door *door, unsigned type, const volatile void *page,
                struct protect_event *event)
{
    while (bailey_event_next(door, event))
        if ((!type || event->type == type) &&
            (!page || (event->home & -(uint64_t)PAGE) == ((uintptr_t)page & -(uint64_t)PAGE)))
            return true;
    return false;
}

void life_drain(struct bailey_door *door)
{
    struct protect_event event;
    while (bailey_event_next(door, &event))
        ;
}

/* ---- Memory -------------------------------------------------------------------------------------
 */

uint8_t *life_pages(unsigned count)
{
    size_t bytes = (size_t)count * PAGE;
    uint8_t *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    bailey_touch(at, bytes, BAILEY_TOUCH_WRITE);
    return at;
}

void *life_shared(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    return at;
}

static uint64_t entry_of(const char *file, uint64_t index)
{
    uint64_t entry = 0;
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    if (pread(fd, &entry, sizeof(entry), (off_t)(index * sizeof(entry))) != sizeof(entry))
        entry = 0;
    close(fd);
    return entry;
}

uint64_t life_frame(const volatile void *at)
{
    const uint64_t present = 1ull << 63, number = (1ull << 55) - 1;
    uint64_t entry = entry_of("/proc/self/pagemap", (uintptr_t)at / PAGE);
    return entry & present ? entry & number : 0;
}

bool life_frame_is_huge(const volatile void *at)
{
    enum { KPF_THP = 22 };
    uint64_t frame = life_frame(at);
    return frame && entry_of("/proc/kpageflags", frame) >> KPF_THP & 1;
}

/* ---- Faults -------------------------------------------------------------------------------------
 */

static _Thread_local sigjmp_buf *way_out;
static _Thread_local struct caught caught;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    const ucontext_t *u = context;
    if (!way_out) {
        printf("  unexpected signal %d at %p, rip %#llx\n", signal, info->si_addr,
               u->uc_mcontext.gregs[REG_RIP]);
        fflush(stdout);
        _exit(1);
    }
    caught = (struct caught){signal, info->si_code, info->si_addr,
                             (uint64_t)u->uc_mcontext.gregs[REG_ERR]};
    siglongjmp(*way_out, 1);
}

static void catch_signals(void)
{
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP};
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
}

struct caught life_try(void (*fn)(void *), void *opaque)
{
    sigjmp_buf here, *outer = way_out;
    caught = (struct caught){0};
    if (!sigsetjmp(here, 1)) {
        way_out = &here;
        fn(opaque);
    }
    way_out = outer;
    return caught;
}

struct store {
    volatile uint8_t *at;
    uint8_t value;
};

static void store(void *opaque)
{
    const struct store *s = opaque;
    *s->at = s->value;
}

struct caught life_write(volatile void *at, uint8_t value)
{
    struct store s = {at, value};
    return life_try(store, &s);
}

static void load(void *opaque)
{
    (void)*(volatile uint8_t *)opaque;
}

struct caught life_read(const volatile void *at)
{
    return life_try(load, (void *)(uintptr_t)at);
}

/* ---- Processes ----------------------------------------------------------------------------------
 */

int life_child(void (*fn)(void *), void *opaque)
{
    int status = -1;
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(SECONDS);
        fn(opaque);
        fflush(stdout);
        _exit(0);
    }
    CHECK_SAME(waitpid(pid, &status, 0), pid);
    return status;
}

uint64_t life_nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool life_set(const char *file, const char *text)
{
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return ok;
}

long life_value(const char *file, const char *key)
{
    char line[256];
    long value = -1;
    FILE *f = fopen(file, "r");
    CHECK(f);
    while (value < 0 && fgets(line, sizeof(line), f))
        if (!strncmp(line, key, strlen(key)))
            value = strtol(line + strlen(key) + strspn(line + strlen(key), ": "), NULL, 10);
    fclose(f);
    return value;
}

/* ---- Running ------------------------------------------------------------------------------------
 */

/* What the device still holds when nobody is there any more; NULL: nothing. */
static const char *left_behind(void)
{
    static volatile struct protect_door *doors;
    static volatile struct protect_admin *admin;
    static char text[96];
    if (!doors) {
        doors = life_doors();
        admin = life_admin();
    }
    for (unsigned n = 0; n < PROTECT_DOORS; n++) {
        snprintf(text, sizeof(text), "door %u is not free", n);
        if (doors[n].state != PROTECT_DOOR_FREE)
            return text;
    }
    snprintf(text, sizeof(text), "%llu regions, %llu ruled pages are left",
             (unsigned long long)admin->regions, (unsigned long long)admin->ruled_pages);
    return admin->regions || admin->ruled_pages ? text : NULL;
}

static void run_one(void *opaque)
{
    const struct life_test *test = opaque;
    catch_signals();
    test->run();
}

int life_main(const struct life_test *tests, size_t count, char **names)
{
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        bool wanted = !*names;
        for (char **name = names; *name; name++)
            wanted |= !strcmp(*name, tests[i].name);
        if (!wanted)
            continue;
        struct life_test test = tests[i];
        int status = life_child(run_one, &test);
        const char *left = left_behind();
        if (left)
            printf("  %s\n", left);
        if (status && WIFSIGNALED(status))
            printf("  ended by signal %d\n", WTERMSIG(status));
        printf("%s %s\n", status || left ? "FAIL" : "ok", test.name);
        fflush(stdout);
        failed += status || left;
    }
    return failed != 0;
}
