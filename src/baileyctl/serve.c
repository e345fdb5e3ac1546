/*
 * serve.c - answers questions by running a program for each: it finds the event as JSON on its
 * standard input and the main facts in its environment, and prints a verdict.
 *
 * The program has as long as the question; then it is killed, with what it started, and the access
 * is refused, as it is for a verdict that is none.
 */
#include "baileyctl.h"
#include "internal/wire.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct answer {
    enum protect_verdict verdict;
    uint64_t value;
};

/* ---- What the program is told ---------------------------------------------------------------- */

static void tell_number(const char *name, const char *format, uint64_t value)
{
    char text[32];
    snprintf(text, sizeof(text), format, value);
    setenv(name, text, 1);
}

static void tell_symbol(const struct program *p, const char *name, uint64_t address)
{
    char text[256] = "";
    uint64_t offset;
    const char *symbol = p->symbols ? bctl_symbol_at(p->symbols, address, &offset) : NULL;
    if (symbol)
        snprintf(text, sizeof(text), "%s+0x%" PRIx64, symbol, offset);
    setenv(name, text, 1);
}

static void tell(const struct program *p, const struct bctl_message *m)
{
    const struct protect_event *e = &m->event;
    const char *subject = wire_word_of(wire_subjects, e->subject);
    char access[4] = "";
    unsigned n = 0;
    for (unsigned i = 0; i < 3; i++)
        if (e->access >> i & 1)
            access[n++] = "rwx"[i];
    access[n] = 0;
    setenv("BAILEY_ACCESS", access, 1);
    setenv("BAILEY_SUBJECT", subject ? subject : "", 1);
    setenv("BAILEY_SOCKET", p->set.socket, 1);
    tell_number("BAILEY_CONTEXT", "%" PRIu64, m->context);
    tell_number("BAILEY_REGION", "%" PRIu64, e->region);
    tell_number("BAILEY_COOKIE", "0x%" PRIx64, e->cookie);
    tell_number("BAILEY_CPU", "%" PRIu64, e->vcpu);
    tell_number("BAILEY_CR3", "0x%" PRIx64, e->cr3);
    tell_number("BAILEY_LENGTH", "%" PRIu64, e->length);
    tell_number("BAILEY_VALUE", "0x%" PRIx64, e->value[0]);
    tell_number("BAILEY_ADDRESS", "0x%" PRIx64, e->gva);
    tell_number("BAILEY_RIP", "0x%" PRIx64, e->rip);
    tell_symbol(p, "BAILEY_ADDRESS_SYMBOL", e->gva);
    tell_symbol(p, "BAILEY_RIP_SYMBOL", e->rip);
}

/* ---- Running it ------------------------------------------------------------------------------ */

/* In the child. The event goes to it by a pipe whose buffer holds a line of any event. */
static void become(const struct program *p, const struct bctl_message *m, int in, int out)
{
    setpgid(0, 0);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    tell(p, m);
    execvp(p->set.operand[0], p->set.operand);
    fprintf(stderr, "baileyctl: could not run '%s': %s\n", p->set.operand[0], strerror(errno));
    _exit(127);
}

static pid_t start(const struct program *p, const struct bctl_message *m, int *output)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    pid_t child = -1;
    if (pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0) {
        fcntl(in[1], F_SETFL, O_NONBLOCK);
        if (dprintf(in[1], "%s\n", m->json) > 0)
            child = fork();
        if (child == 0)
            become(p, m, in[0], out[1]);
        if (child > 0)
            setpgid(child, child); /* here, too: whoever comes first */
    }
    close(in[0]);
    close(in[1]);
    close(out[1]);
    *output = out[0];
    return child;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The first line of what the program prints; false: the time is up. */
static bool read_verdict(int fd, int64_t deadline, char *text, size_t size)
{
    size_t len = 0;
    while (len + 1 < size && !memchr(text, '\n', len)) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int64_t left = deadline - now_ms();
        int ready = left > 0 ? poll(&poll_fd, 1, (int)left) : 0;
        if (ready < 0 && errno == EINTR)
            continue;
        if (ready <= 0)
            return false;
        ssize_t n = read(fd, text + len, size - 1 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    text[len] = 0;
    text[strcspn(text, "\n")] = 0;
    return true;
}

static bool parse_verdict(const char *text, struct answer *answer)
{
    char word[16] = "", number[24] = "";
    int fields = sscanf(text, " %15s %23s", word, number);
    int verdict = wire_word(wire_verdicts, word);
    if (fields < 1 || verdict < 0 || verdict == PROTECT_SET ||
        (fields > 1 && !parse_number(number, &answer->value)))
        return false;
    answer->verdict = (enum protect_verdict)verdict;
    return true;
}

static void complain(const struct program *p, const char *what, const char *text)
{
    fprintf(stderr, "baileyctl: %s %s%s; refused\n", p->set.operand[0], what, text);
}

/* Runs the program as far as its verdict. Returns the child, or -1. */
static pid_t decide(const struct program *p, const struct bctl_message *m, int64_t deadline,
                    struct answer *answer)
{
    char text[128] = "";
    int output;
    *answer = (struct answer){.verdict = PROTECT_REFUSE};
    pid_t child = start(p, m, &output);
    if (child < 0)
        complain(p, "could not be started", "");
    else if (!read_verdict(output, deadline, text, sizeof(text)))
        complain(p, "took too long", "");
    else if (!parse_verdict(text, answer))
        complain(p, "gave no verdict but: ", text);
    if (output >= 0)
        close(output);
    return child;
}

/* What it still has to do after its verdict, it may do until its time is up. */
static void finish(pid_t child, int64_t deadline)
{
    bool gone = false;
    while (!gone && now_ms() < deadline) {
        gone = waitpid(child, NULL, WNOHANG) != 0;
        if (!gone)
            poll(NULL, 0, 1);
    }
    kill(-child, SIGKILL);
    if (!gone)
        waitpid(child, NULL, 0);
}

/* When the connection is lost meanwhile, bctl_next() says how. */
static void answer_one(struct program *p, const struct bctl_message *m)
{
    struct answer answer;
    int64_t deadline = now_ms() + m->timeout_ms;
    pid_t child = decide(p, m, deadline, &answer);
    bctl_answer(p->ctl, m->token, answer.verdict, answer.value, &p->error);
    if (child > 0)
        finish(child, deadline);
}

int run_serve(struct program *p)
{
    unsigned context = p->set.context;
    signal(SIGPIPE, SIG_IGN);
    if (!p->set.has_context)
        return fail_use("serve needs --context N: whose questions?");
    if (!bctl_handle_of(p->ctl, context, p->set.timeout_ms, &p->error))
        return fail_error(p);
    for (;;) {
        struct bctl_message message;
        enum bctl_next next = bctl_next(p->ctl, -1, &message, &p->error);
        if (next == BCTL_ENDED)
            return EXIT_DONE;
        if (next == BCTL_FAILED)
            return fail_error(p);
        if (next == BCTL_MESSAGE && message.type == BCTL_ASK)
            answer_one(p, &message);
    }
}
