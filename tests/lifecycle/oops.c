/*
 * oops.c - accesses that the kernel makes through its own mapping of all memory, with no way out
 * when they are refused: an oops, which ends the process that asked for them, at once. The kernel
 * keeps the locks that it held then, so each of these has a machine of its own and nothing is asked
 * of that machine afterwards; the driver reads the kernel's report.
 */
#include "life.h"
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static uint8_t *secret;

static void read_mem_file(pid_t pid)
{
    char path[64], buffer[64];
    snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    int fd = open(path, O_RDONLY);
    pread(fd, buffer, sizeof(buffer), (off_t)(uintptr_t)secret) == 1 ? (void)0 : (void)0;
}

static void write_mem_file(pid_t pid)
{
    char path[64], buffer[64] = "overwritten";
    snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    int fd = open(path, O_RDWR);
    pwrite(fd, buffer, sizeof(buffer), (off_t)(uintptr_t)secret) == 1 ? (void)0 : (void)0;
}

int main(int argc, char **argv)
{
    struct bailey_door door;
    struct protect_event event;
    bool writes = argc > 1 && !strcmp(argv[1], "write");
    struct protect_rule rule = life_rule(PROTECT_ALL, PROTECT_ALLOW);
    rule.allow[PROTECT_KERNEL] = writes ? PROTECT_READ : PROTECT_WRITE;
    rule.action[PROTECT_KERNEL] = PROTECT_DENY;
    life_open(&door, PROTECT_GRANT_KERNEL);
    secret = life_pages(1);
    memset(secret, 'k', PAGE);
    life_protect(&door, secret, PAGE, rule);
    pid_t owner = getpid(), pid = fork();
    if (pid == 0) {
        (writes ? write_mem_file : read_mem_file)(owner);
        _exit(0);
    }
    int status = 0;
    CHECK_SAME(waitpid(pid, &status, 0), pid);
    bool told = life_event(&door, PROTECT_EVENT_ACCESS, secret, &event);
    printf("the one who asked ended by signal %d; event %d subject %u access %u; secret %c\n",
           WIFSIGNALED(status) ? WTERMSIG(status) : 0, told, event.subject, event.access,
           writes ? *(volatile uint8_t *)secret : 'k');
    fflush(stdout);
    sleep(600); /* this process cannot end any more: its memory's lock is held for ever */
}
