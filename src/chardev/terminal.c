/*
 * terminal.c - raw mode, and the way back on every exit path.
 *
 * A terminal belongs to the user's session, not to this process: its modes outlive us, so they are
 * put back by close, exit(), every signal that ends or stops the process, and made raw again when
 * it continues (termios(3), POSIX.1-2017 section 11). This is the one piece of global state in the
 * program that a signal handler needs.
 *
 * stdout must not block a vCPU. O_NONBLOCK belongs to the open file description, which we share
 * with the shell; so stdout is opened anew through /proc where that works, and only otherwise
 * (another user's terminal, a socket) the shared flag is set, and put back with the modes.
 */
#include "terminal.h"
#include "internal/chardev.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

static struct {
    atomic_flag claimed;
    struct termios cooked, raw;
    volatile sig_atomic_t have_modes; /* stdin is a terminal and `cooked` is what it was */
    volatile sig_atomic_t is_raw;
    volatile sig_atomic_t stopping; /* on_stop() has given the default action its turn */
    volatile sig_atomic_t flags_changed; /* stdout's O_NONBLOCK was set by us */
    int flags;
    int out;
} terminal = {.claimed = ATOMIC_FLAG_INIT, .out = -1};

/* Signals that end the process when nobody handles them (signal(7)). Those that somebody handles
 * already, or that are ignored (nohup), are left alone. Not SIGPIPE, which chardev_open() ignores,
 * nor SIGPROF, which the profiler wants to find unused. */
static const int fatal_signals[] = {
    SIGHUP, SIGINT,  SIGQUIT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS, SIGILL, SIGFPE,    SIGTRAP,
    SIGSYS, SIGALRM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ, SIGIO,  SIGPWR, SIGVTALRM, SIGSTKFLT};

/* tcsetattr() from a background job would stop the process. A terminal that does not control us
 * (-1) knows no jobs of ours. */
static bool in_foreground(void)
{
    pid_t group = tcgetpgrp(STDIN_FILENO);
    return group < 0 || group == getpgrp();
}

/* The terminal and what is known of it change together: a signal in between would leave it raw. */
static void block_signals(sigset_t *before)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, before);
}

static void make_raw(void)
{
    sigset_t before;
    block_signals(&before);
    if (terminal.have_modes && in_foreground()) {
        terminal.is_raw = 1; /* first: another thread may be the one that handles the signal */
        if (tcsetattr(STDIN_FILENO, TCSANOW, &terminal.raw) != 0)
            terminal.is_raw = 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void chardev_terminal_restore(void)
{
    int saved = errno;
    sigset_t before;
    block_signals(&before);
    if (terminal.is_raw && in_foreground())
        tcsetattr(STDIN_FILENO, TCSANOW, &terminal.cooked);
    terminal.is_raw = 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (terminal.flags_changed)
        fcntl(STDOUT_FILENO, F_SETFL, terminal.flags);
    errno = saved;
}

/* ---- Signals ----------------------------------------------------------------------------------
 */

static void set_handler(int number, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

/* Does the default action now, which is blocked while its handler runs. */
static void default_action(int number)
{
    sigset_t set;
    set_handler(number, SIG_DFL, 0);
    raise(number);
    sigemptyset(&set);
    sigaddset(&set, number);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void on_fatal(int number)
{
    chardev_terminal_restore();
    default_action(number);
}

static void on_continue(int number);

static void on_stop(int number)
{
    int saved = errno;
    chardev_terminal_restore();
    terminal.stopping = 1;
    default_action(number);
    if (terminal.stopping) /* nobody to continue it: it has not stopped */
        on_continue(SIGCONT);
    errno = saved;
}

static void on_continue(int number)
{
    int saved = errno;
    (void)number;
    if (terminal.stopping) /* the next stop may come before on_stop() goes on */
        set_handler(SIGTSTP, on_stop, SA_RESTART);
    terminal.stopping = 0;
    if (terminal.flags_changed)
        fcntl(STDOUT_FILENO, F_SETFL, terminal.flags | O_NONBLOCK);
    make_raw();
    errno = saved;
}

static bool is_default(int number)
{
    struct sigaction old;
    return sigaction(number, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
           old.sa_handler == SIG_DFL;
}

static bool is_ours(int number, void (*handler)(int))
{
    struct sigaction old;
    return sigaction(number, NULL, &old) == 0 && !(old.sa_flags & SA_SIGINFO) &&
           old.sa_handler == handler;
}

static void install_handlers(void)
{
    static bool exit_handler;
    if (!exit_handler)
        exit_handler = atexit(chardev_terminal_restore) == 0;
    for (unsigned i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++)
        if (is_default(fatal_signals[i]))
            set_handler(fatal_signals[i], on_fatal, 0);
    if (is_default(SIGTSTP))
        set_handler(SIGTSTP, on_stop, SA_RESTART);
    if (is_default(SIGCONT))
        set_handler(SIGCONT, on_continue, SA_RESTART);
}

static void remove_handlers(void)
{
    for (unsigned i = 0; i < sizeof(fatal_signals) / sizeof(fatal_signals[0]); i++)
        if (is_ours(fatal_signals[i], on_fatal))
            set_handler(fatal_signals[i], SIG_DFL, 0);
    if (is_ours(SIGTSTP, on_stop))
        set_handler(SIGTSTP, SIG_DFL, 0);
    if (is_ours(SIGCONT, on_continue))
        set_handler(SIGCONT, SIG_DFL, 0);
}

/* ---- Claim and release ------------------------------------------------------------------------
 */

/* Every byte as typed and at once. Output processing stays: programs in the guest that print bare
 * newlines before a console driver runs would otherwise walk off to the right. */
static void compute_raw(enum terminal_keys keys)
{
    struct termios *raw = &terminal.raw;
    *raw = terminal.cooked;
    raw->c_iflag &= ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw->c_oflag |= OPOST;
    raw->c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
    if (keys == TERMINAL_BYTES)
        raw->c_lflag &= ~(tcflag_t)ISIG;
    raw->c_cflag = (raw->c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw->c_cc[VMIN] = 1;
    raw->c_cc[VTIME] = 0;
}

/* stdout as a descriptor that never blocks; -1 when there is no stdout. */
static int open_stdout(void)
{
    struct stat st;
    int flags = fcntl(STDOUT_FILENO, F_GETFL);
    if (flags < 0 || fstat(STDOUT_FILENO, &st) < 0)
        return -1;
    /* Files never block, and a second description would have a file position of its own. */
    if (S_ISREG(st.st_mode) || (flags & O_NONBLOCK))
        return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    int fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    terminal.flags = flags;
    terminal.flags_changed = fcntl(STDOUT_FILENO, F_SETFL, flags | O_NONBLOCK) == 0;
    return fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
}

bool terminal_claim(enum terminal_keys keys, int *out, struct error *err)
{
    if (atomic_flag_test_and_set(&terminal.claimed))
        return error_set(err, "stdio is in use already by another device");
    terminal.have_modes = tcgetattr(STDIN_FILENO, &terminal.cooked) == 0;
    if (terminal.have_modes)
        compute_raw(keys);
    terminal.out = open_stdout();
    if (terminal.have_modes || terminal.flags_changed)
        install_handlers();
    make_raw();
    *out = terminal.out;
    return true;
}

void terminal_release(void)
{
    chardev_terminal_restore();
    remove_handlers();
    if (terminal.out >= 0)
        close(terminal.out);
    terminal.out = -1;
    terminal.have_modes = 0;
    terminal.flags_changed = 0;
    atomic_flag_clear(&terminal.claimed);
}
