/*
 * test_chardev.c - src/chardev: bytes in both directions through pipes and pseudo-terminals, the
 * escapes, and that the user gets the terminal back however the process ends.
 *
 * Each test runs in a process of its own (Check forks), so that it may replace stdin and stdout.
 */
#include "internal/chardev.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lock;
static struct clock *machine_clock;
static struct event_queue *queue;

/* A front end that takes `room` bytes at a time. */
static struct {
    uint8_t bytes[1 << 16];
    size_t len, room;
    size_t want; /* quit the loop when that many bytes are there */
    unsigned quits, breaks, writables;
} guest;

static size_t can_receive(void *opaque)
{
    (void)opaque;
    return guest.room;
}

static void receive(void *opaque, const uint8_t *bytes, size_t len)
{
    (void)opaque;
    ck_assert_uint_le(len, guest.room);
    memcpy(guest.bytes + guest.len, bytes, len);
    guest.len += len;
    guest.room -= len;
    if (guest.want && guest.len >= guest.want)
        event_loop_quit(queue);
}

static void writable(void *opaque)
{
    (void)opaque;
    guest.writables++;
}

static void line_break(void *opaque)
{
    (void)opaque;
    guest.breaks++;
}

static void quit(void *opaque)
{
    (void)opaque;
    guest.quits++;
    event_loop_quit(queue);
}

static void stop_loop(void *opaque)
{
    (void)opaque;
    event_loop_quit(queue);
}

static const struct chardev_hooks hooks = {.quit = quit};
static const struct chardev_front front = {
    .can_receive = can_receive, .receive = receive, .writable = writable, .line_break = line_break};

static void setup(void)
{
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
    machine_clock = clock_new();
    queue = event_queue_new(machine_clock, &lock);
    memset(&guest, 0, sizeof(guest));
    guest.room = sizeof(guest.bytes);
}

static void teardown(void)
{
    event_queue_free(queue);
    clock_free(machine_clock);
}

static struct chardev *open_chardev(const char *spec)
{
    struct error err = {""};
    struct chardev *chr = chardev_open(spec, queue, &hooks, &err);
    ck_assert_msg(chr != NULL, "%s", err.msg);
    chardev_connect(chr, &front);
    return chr;
}

/* stdin and stdout become pipes; the other ends are returned. */
static void use_pipes(int *to_stdin, int *from_stdout)
{
    int in[2], out[2];
    ck_assert_int_eq(pipe2(in, O_CLOEXEC), 0);
    ck_assert_int_eq(pipe2(out, O_CLOEXEC), 0);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[0]);
    close(out[1]);
    *to_stdin = in[1];
    *from_stdout = out[0];
}

/* stdin and stdout become a terminal; its master side is returned. */
static int use_terminal(void)
{
    int master, slave;
    ck_assert_int_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
    dup2(slave, 0);
    dup2(slave, 1);
    close(slave);
    return master;
}

static void send_bytes(int fd, const void *bytes, size_t len)
{
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
}

/* Lets the loop run until `guest.want` bytes have come. */
static void run_until(size_t want)
{
    guest.want = want;
    if (guest.len < want)
        event_loop_run(queue);
    ck_assert_uint_ge(guest.len, want);
}

/* What has been written to the other end so far. */
static size_t read_available(int fd, char *buf, size_t size)
{
    size_t len = 0;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    while (len < size - 1 && poll(&p, 1, 0) == 1 && (p.revents & POLLIN)) {
        ssize_t n = read(fd, buf + len, size - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    buf[len] = 0;
    return len;
}

/* ---- Input ------------------------------------------------------------------------------------
 */

START_TEST(piped_input_reaches_the_guest)
{
    int in, out;
    use_pipes(&in, &out);
    struct chardev *chr = open_chardev("stdio");
    send_bytes(in, "hello \x01x\0\xff", 10);
    run_until(10);
    ck_assert_int_eq(memcmp(guest.bytes, "hello \x01x\0\xff", 10), 0); /* no escapes here */
    ck_assert_uint_eq(guest.quits, 0);
    chardev_close(chr);
}
END_TEST

START_TEST(input_waits_for_the_guest)
{
    enum { TOTAL = 30000 }; /* more than all our buffers, less than a pipe */
    static uint8_t data[TOTAL];
    int in, out;
    use_pipes(&in, &out);
    guest.room = 1;
    struct chardev *chr = open_chardev("stdio");
    for (int i = 0; i < TOTAL; i++)
        data[i] = (uint8_t)(i * 31 + i / 256);
    send_bytes(in, data, TOTAL);
    run_until(1);
    for (int turn = 0; turn < 100; turn++)
        event_poll(queue);
    ck_assert_uint_eq(guest.len, 1); /* and not a byte more than it had room for */
    while (guest.len < TOTAL) {
        guest.room = 100;
        chardev_accept_input(chr);
        run_until(guest.len + 100 < TOTAL ? guest.len + 100 : TOTAL);
    }
    ck_assert_int_eq(memcmp(guest.bytes, data, TOTAL), 0);
    chardev_close(chr);
}
END_TEST

/* After the end of the input the loop sleeps; it does not spin on a readable descriptor. */
static void expect_idle(void)
{
    struct timer timer;
    struct rusage before, after;
    timer_init(&timer, queue, stop_loop, NULL);
    timer_arm(&timer, clock_now(machine_clock) + 300000000);
    getrusage(RUSAGE_SELF, &before);
    event_loop_run(queue);
    getrusage(RUSAGE_SELF, &after);
    long ms = (after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000 +
              (after.ru_utime.tv_usec - before.ru_utime.tv_usec) / 1000 +
              (after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000 +
              (after.ru_stime.tv_usec - before.ru_stime.tv_usec) / 1000;
    ck_assert_int_lt(ms, 100);
}

START_TEST(end_of_a_pipe_is_quiet)
{
    int in, out;
    use_pipes(&in, &out);
    struct chardev *chr = open_chardev("mon:stdio");
    send_bytes(in, "bye", 3);
    close(in);
    run_until(3);
    expect_idle();
    ck_assert_uint_eq(guest.quits, 0);
    ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"still here", 10), 10);
    char buf[32];
    read_available(out, buf, sizeof(buf));
    ck_assert_str_eq(buf, "still here");
    chardev_close(chr);
}
END_TEST

START_TEST(full_input_is_quiet)
{
    static uint8_t data[20000];
    int in, out;
    use_pipes(&in, &out);
    guest.room = 0;
    struct chardev *chr = open_chardev("stdio");
    send_bytes(in, data, sizeof(data));
    expect_idle();
    ck_assert_uint_eq(guest.len, 0);
    chardev_close(chr);
}
END_TEST

START_TEST(a_file_as_stdin)
{
    char name[] = "/tmp/bailey-test-XXXXXX";
    int out[2], fd = mkstemp(name);
    unlink(name);
    ck_assert_int_eq(pipe(out), 0);
    send_bytes(fd, "from a file\n", 12);
    lseek(fd, 0, SEEK_SET);
    dup2(fd, 0);
    dup2(out[1], 1);
    struct chardev *chr = open_chardev("stdio");
    run_until(12);
    ck_assert_int_eq(memcmp(guest.bytes, "from a file\n", 12), 0);
    expect_idle();
    chardev_close(chr);
}
END_TEST

START_TEST(no_stdin_at_all)
{
    int in, out;
    use_pipes(&in, &out);
    close(0);
    struct chardev *chr = open_chardev("mon:stdio");
    expect_idle();
    ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"ok", 2), 2);
    chardev_close(chr);
}
END_TEST

/* ---- Escapes ----------------------------------------------------------------------------------
 */

static const struct {
    const char *typed, *guest, *shown;
    unsigned quits, breaks;
} escapes[] = {
    {"plain", "plain", "", 0, 0},
    {"a\x01\x01z", "a\x01z", "", 0, 0},
    {"a\x01xz", "az", "terminated", 1, 0},
    {"a\x01hz", "az", "Ctrl-A x", 0, 0},
    {"a\x01?z", "az", "Ctrl-A x", 0, 0},
    {"a\x01\x63z", "az", "no monitor", 0, 0},
    {"a\x01\x62z", "az", "", 0, 1},
    {"a\x01qz", "az", "", 0, 0},
    {"\x03\x1a\x1c z", "\x03\x1a\x1c z", "", 0, 0},
};

START_TEST(escape)
{
    const char *typed = escapes[_i].typed, *expected = escapes[_i].guest;
    char shown[1024];
    int in, out;
    use_pipes(&in, &out);
    struct chardev *chr = open_chardev("mon:stdio");
    for (size_t i = 0; typed[i]; i++) { /* byte by byte: the prefix is remembered */
        send_bytes(in, typed + i, 1);
        event_poll(queue);
        event_poll(queue);
    }
    if (guest.quits)
        guest.quits = 1;
    ck_assert_uint_eq(guest.len, strlen(expected));
    ck_assert_int_eq(memcmp(guest.bytes, expected, strlen(expected)), 0);
    ck_assert_uint_eq(guest.quits, escapes[_i].quits);
    ck_assert_uint_eq(guest.breaks, escapes[_i].breaks);
    read_available(out, shown, sizeof(shown));
    ck_assert_msg(strstr(shown, escapes[_i].shown) != NULL, "'%s'", shown);
    if (!*escapes[_i].shown)
        ck_assert_str_eq(shown, "");
    chardev_close(chr);
}
END_TEST

START_TEST(quit_works_when_the_guest_does_not_listen)
{
    int in, out;
    use_pipes(&in, &out);
    guest.room = 0;
    struct chardev *chr = open_chardev("mon:stdio");
    send_bytes(in, "are you there?\x01x", 16);
    event_loop_run(queue);
    ck_assert_uint_eq(guest.quits, 1);
    chardev_close(chr);
}
END_TEST

/* ---- Output -----------------------------------------------------------------------------------
 */

/* Writes counting bytes until the back end takes no more; returns how many it took. */
static size_t fill(struct chardev *chr)
{
    size_t total = 0;
    for (;;) {
        uint8_t chunk[1000];
        for (size_t i = 0; i < sizeof(chunk); i++)
            chunk[i] = (uint8_t)((total + i) % 251);
        size_t n = chardev_write(chr, chunk, sizeof(chunk));
        total += n;
        if (n < sizeof(chunk))
            return total;
        ck_assert_uint_lt(total, 16 << 20);
    }
}

struct reader {
    int fd;
    size_t len;
    bool ok;
};

static void *read_all(void *opaque)
{
    struct reader *reader = opaque;
    uint8_t buf[4096];
    ssize_t n;
    reader->ok = true;
    while ((n = read(reader->fd, buf, sizeof(buf))) > 0)
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != (uint8_t)(reader->len++ % 251))
                reader->ok = false;
    return NULL;
}

START_TEST(slow_reader_loses_nothing)
{
    int in, out;
    use_pipes(&in, &out);
    struct reader reader = {.fd = out};
    struct chardev *chr = open_chardev("stdio");
    size_t total = fill(chr);
    ck_assert_uint_eq(guest.writables, 0);
    uint8_t more = (uint8_t)(total % 251);
    ck_assert_uint_eq(chardev_write(chr, &more, 1), 0); /* full is full */
    pthread_t thread;
    pthread_create(&thread, NULL, read_all, &reader);
    while (!guest.writables)
        event_poll(queue);
    ck_assert_uint_eq(chardev_write(chr, &more, 1), 1);
    chardev_close(chr);
    close(1);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(reader.len, total + 1);
    ck_assert(reader.ok);
    ck_assert_uint_eq(guest.writables, 1);
}
END_TEST

START_TEST(close_drains)
{
    int in, out;
    use_pipes(&in, &out);
    struct reader reader = {.fd = out};
    struct chardev *chr = open_chardev("stdio");
    size_t total = fill(chr);
    pthread_t thread;
    pthread_create(&thread, NULL, read_all, &reader);
    chardev_close(chr);
    close(1);
    pthread_join(thread, NULL);
    ck_assert_uint_eq(reader.len, total);
    ck_assert(reader.ok);
}
END_TEST

START_TEST(close_does_not_wait_for_ever)
{
    struct timespec before, after;
    int in, out;
    use_pipes(&in, &out);
    struct chardev *chr = open_chardev("stdio");
    fill(chr);
    clock_gettime(CLOCK_MONOTONIC, &before);
    chardev_close(chr);
    clock_gettime(CLOCK_MONOTONIC, &after);
    ck_assert_int_lt(after.tv_sec - before.tv_sec, 10);
}
END_TEST

START_TEST(closed_reader_is_no_catastrophe)
{
    int in, out;
    use_pipes(&in, &out);
    struct chardev *chr = open_chardev("stdio");
    close(out);
    for (int i = 0; i < 3; i++)
        ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"lost", 4), 4);
    chardev_close(chr);
}
END_TEST

START_TEST(stdout_stays_blocking_for_others)
{
    int in, out;
    use_pipes(&in, &out);
    int flags = fcntl(1, F_GETFL);
    struct chardev *chr = open_chardev("stdio");
    if (access("/proc/self/fd", X_OK) == 0)
        ck_assert_int_eq(fcntl(1, F_GETFL), flags);
    chardev_close(chr);
    ck_assert_int_eq(fcntl(1, F_GETFL), flags);
}
END_TEST

START_TEST(files_and_null)
{
    char name[] = "/tmp/bailey-test-XXXXXX", spec[64], buf[32];
    int fd = mkstemp(name);
    send_bytes(fd, "old contents", 12);
    snprintf(spec, sizeof(spec), "file:%s", name);
    struct chardev *chr = open_chardev(spec);
    ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"one ", 4), 4);
    ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"two", 3), 3);
    ck_assert_int_eq(pread(fd, buf, sizeof(buf), 0), 7);
    ck_assert_int_eq(memcmp(buf, "one two", 7), 0);
    chardev_close(chr);
    unlink(name);
    chr = open_chardev("null");
    ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"gone", 4), 4);
    chardev_close(chr);
}
END_TEST

START_TEST(bad_specs_are_named)
{
    static const char *const specs[][2] = {
        {"telnet:localhost:4444", "telnet:localhost:4444"},
        {"mon:null", "mon:null"},
        {"file:", "path"},
        {"file:/nonexistent/log", "/nonexistent/log"},
        {"", "back end"},
    };
    for (unsigned i = 0; i < sizeof(specs) / sizeof(specs[0]); i++) {
        struct error err = {""};
        ck_assert_ptr_null(chardev_open(specs[i][0], queue, &hooks, &err));
        ck_assert_msg(strstr(err.msg, specs[i][1]) != NULL, "'%s'", err.msg);
    }
    int in, out;
    use_pipes(&in, &out);
    struct error err = {""};
    struct chardev *chr = open_chardev("stdio");
    ck_assert_ptr_null(chardev_open("mon:stdio", queue, &hooks, &err));
    ck_assert_msg(strstr(err.msg, "in use") != NULL, "'%s'", err.msg);
    chardev_close(chr);
    chardev_close(open_chardev("stdio")); /* free again */
}
END_TEST

/* ---- Terminals --------------------------------------------------------------------------------
 */

static bool same_modes(const struct termios *a, const struct termios *b)
{
    return a->c_iflag == b->c_iflag && a->c_oflag == b->c_oflag && a->c_cflag == b->c_cflag &&
           a->c_lflag == b->c_lflag && !memcmp(a->c_cc, b->c_cc, sizeof(a->c_cc));
}

START_TEST(raw_mode_and_back)
{
    static const struct {
        const char *spec;
        bool signals;
    } cases[] = {{"mon:stdio", false}, {"stdio", true}, {"stdio,signal=off", false}};
    struct termios before, during, after;
    use_terminal();
    tcgetattr(0, &before);
    struct chardev *chr = open_chardev(cases[_i].spec);
    tcgetattr(0, &during);
    ck_assert_uint_eq(during.c_lflag & (ECHO | ICANON | IEXTEN), 0);
    ck_assert_uint_eq(during.c_iflag & (ICRNL | IXON), 0);
    ck_assert((during.c_lflag & ISIG) == (cases[_i].signals ? ISIG : 0u));
    chardev_terminal_restore();
    tcgetattr(0, &after);
    ck_assert(same_modes(&before, &after));
    chardev_close(chr);
    tcgetattr(0, &after);
    ck_assert(same_modes(&before, &after));
}
END_TEST

START_TEST(control_c_is_a_byte)
{
    int master = use_terminal();
    struct chardev *chr = open_chardev("mon:stdio");
    send_bytes(master, "\x03\r\x1a\x11", 4);
    run_until(4);
    ck_assert_int_eq(memcmp(guest.bytes, "\x03\r\x1a\x11", 4), 0);
    ck_assert_uint_eq(chardev_write(chr, (const uint8_t *)"out", 3), 3);
    char buf[16];
    struct pollfd p = {.fd = master, .events = POLLIN};
    ck_assert_int_eq(poll(&p, 1, 5000), 1);
    read_available(master, buf, sizeof(buf));
    ck_assert_str_eq(buf, "out"); /* and no echo */
    chardev_close(chr);
}
END_TEST

START_TEST(hang_up_is_quiet)
{
    int master = use_terminal();
    signal(SIGHUP, SIG_IGN);
    struct chardev *chr = open_chardev("mon:stdio");
    close(master);
    expect_idle();
    chardev_close(chr);
}
END_TEST

static const int endings[] = {0,       SIGTERM, SIGINT,  SIGHUP,  SIGQUIT, SIGABRT,   SIGSEGV,
                              SIGBUS,  SIGILL,  SIGFPE,  SIGTRAP, SIGSYS,  SIGALRM,   SIGUSR1,
                              SIGUSR2, SIGXCPU, SIGXFSZ, SIGIO,   SIGPWR,  SIGVTALRM, SIGSTKFLT};

/* A child with the terminal raw, which waits until something ends it. 0: it calls exit(). */
static pid_t start_child(int signal_number)
{
    int ready[2];
    char byte;
    ck_assert_int_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct error err;
        for (size_t i = 1; i < sizeof(endings) / sizeof(endings[0]); i++)
            signal(endings[i], SIG_DFL); /* Check and the sanitizers have handlers */
        if (!chardev_open("mon:stdio", queue, &hooks, &err))
            _exit(99);
        if (write(ready[1], "r", 1) != 1)
            _exit(98);
        if (signal_number == 0)
            exit(0);
        for (;;)
            pause();
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

START_TEST(terminal_survives_the_end)
{
    struct termios before, during, after;
    int status;
    use_terminal();
    tcgetattr(0, &before);
    pid_t pid = start_child(endings[_i]);
    tcgetattr(0, &during);
    if (endings[_i]) {
        ck_assert_uint_eq(during.c_lflag & ICANON, 0); /* or the test shows nothing */
        kill(pid, endings[_i]);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (endings[_i])
        ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == endings[_i]);
    else
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tcgetattr(0, &after);
    ck_assert(same_modes(&before, &after));
}
END_TEST

START_TEST(stop_and_continue)
{
    struct termios before, now;
    int status;
    use_terminal();
    tcgetattr(0, &before);
    pid_t pid = start_child(SIGTSTP);
    for (int round = 0; round < 2; round++) {
        kill(pid, SIGTSTP);
        ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
        ck_assert(WIFSTOPPED(status));
        tcgetattr(0, &now);
        ck_assert(same_modes(&before, &now));
        kill(pid, SIGCONT);
        do /* the child makes it raw in its own time; the test's time limit ends this */
            tcgetattr(0, &now);
        while (now.c_lflag & ICANON);
    }
    kill(pid, SIGTERM);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    tcgetattr(0, &now);
    ck_assert(same_modes(&before, &now));
}
END_TEST

/* Somebody else's handler is not replaced. */
START_TEST(other_handlers_stay)
{
    struct sigaction after;
    use_terminal();
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_DFL);
    struct chardev *chr = open_chardev("mon:stdio");
    sigaction(SIGTERM, NULL, &after);
    ck_assert(after.sa_handler == SIG_IGN);
    sigaction(SIGINT, NULL, &after);
    ck_assert(after.sa_handler != SIG_DFL);
    chardev_close(chr);
    sigaction(SIGINT, NULL, &after);
    ck_assert(after.sa_handler == SIG_DFL);
}
END_TEST

static bool pipes_end_us(void)
{
    struct sigaction now;
    sigaction(SIGPIPE, NULL, &now);
    return now.sa_handler == SIG_DFL;
}

/* The program that has the machine in it may want to end by `| head`, before and after. */
START_TEST(broken_pipes_are_ignored_while_there_is_output)
{
    signal(SIGPIPE, SIG_DFL);
    struct chardev *null = open_chardev("null");
    ck_assert(pipes_end_us());
    struct chardev *one = open_chardev("file:/dev/null"), *two = open_chardev("file:/dev/null");
    chardev_close(one);
    ck_assert(!pipes_end_us());
    chardev_close(two);
    ck_assert(pipes_end_us());
    chardev_close(null);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

int main(void)
{
    Suite *suite = suite_create("chardev");
    TCase *tc = tcase_create("chardev");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_set_timeout(tc, 30);
    tcase_add_test(tc, piped_input_reaches_the_guest);
    tcase_add_test(tc, input_waits_for_the_guest);
    tcase_add_test(tc, end_of_a_pipe_is_quiet);
    tcase_add_test(tc, full_input_is_quiet);
    tcase_add_test(tc, a_file_as_stdin);
    tcase_add_test(tc, no_stdin_at_all);
    tcase_add_loop_test(tc, escape, 0, COUNT(escapes));
    tcase_add_test(tc, quit_works_when_the_guest_does_not_listen);
    tcase_add_test(tc, slow_reader_loses_nothing);
    tcase_add_test(tc, close_drains);
    tcase_add_test(tc, close_does_not_wait_for_ever);
    tcase_add_test(tc, closed_reader_is_no_catastrophe);
    tcase_add_test(tc, stdout_stays_blocking_for_others);
    tcase_add_test(tc, files_and_null);
    tcase_add_test(tc, bad_specs_are_named);
    tcase_add_loop_test(tc, raw_mode_and_back, 0, 3);
    tcase_add_test(tc, control_c_is_a_byte);
    tcase_add_test(tc, hang_up_is_quiet);
    tcase_add_loop_test(tc, terminal_survives_the_end, 0, COUNT(endings));
    tcase_add_test(tc, stop_and_continue);
    tcase_add_test(tc, broken_pipes_are_ignored_while_there_is_output);
    tcase_add_test(tc, other_handlers_stay);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
