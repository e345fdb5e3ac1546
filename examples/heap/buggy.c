/*
 * buggy.c - a program with the usual mistakes, one for each argument. It knows nothing of Bailey.
 *
 * usage: buggy overrun|underrun|read-overrun|use-after-free|double-free|system-call|in-child|none
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

/* Volatile, or the compiler would find the mistakes, or use its right to do anything about them. */
static char *volatile text;
static volatile char sink;

static NOINLINE void overrun(void)
{
    for (unsigned n = 0; n <= 13; n++) /* <, it should be */
        text[n] = 'x';
}

static NOINLINE void underrun(void)
{
    text[-1] = 'x';
}

static NOINLINE void read_overrun(void)
{
    sink = text[13];
}

static NOINLINE void use_after_free(void)
{
    free(text);
    text[5] = 'x';
}

static NOINLINE void double_free(void)
{
    free(text);
    free(text);
    sink = 0; /* no tail call, so that the report names this function */
}

static NOINLINE void system_call(void)
{
    int pipes[2];
    char longer[20] = "nineteen characters";
    if (pipe(pipes) != 0 || write(pipes[1], longer, sizeof(longer)) != sizeof(longer))
        exit(2);
    ssize_t n = read(pipes[0], text, sizeof(longer)); /* too many for `text` */
    printf("read() returned %zd\n", n);
}

/* An overrun of its parent's block. */
static NOINLINE void in_child(void)
{
    pid_t child = fork();
    if (child == 0) {
        char *volatile more = malloc(3);
        text[13] = 'x';
        _exit(more == NULL);
    }
    waitpid(child, NULL, 0);
    text[12] = '!'; /* and no mistake of the parent's */
}

static NOINLINE void none(void)
{
    char line[200];
    snprintf(line, sizeof(line), "%s, %zu characters", text, strlen(text));
    char *copy = strdup(line);
    puts(copy);
    free(copy);
    free(text);
}

static const struct {
    const char *name;
    void (*make)(void);
} mistakes[] = {
    {"overrun", overrun},           {"underrun", underrun},
    {"read-overrun", read_overrun}, {"use-after-free", use_after_free},
    {"double-free", double_free},   {"system-call", system_call},
    {"in-child", in_child},         {"none", none},
};

int main(int argc, char **argv)
{
    for (unsigned n = 0; argc > 1 && n < sizeof(mistakes) / sizeof(mistakes[0]); n++) {
        if (strcmp(argv[1], mistakes[n].name) != 0)
            continue;
        free(malloc(500));
        text = malloc(13);
        strcpy(text, "twelve chars");
        mistakes[n].make();
        printf("%s: the program goes on\n", argv[1]);
        return 0;
    }
    fprintf(stderr, "usage: buggy MISTAKE\n");
    return 2;
}
