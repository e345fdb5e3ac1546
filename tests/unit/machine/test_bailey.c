/*
 * test_bailey.c - whole machines through the public interface: small real-mode programs that end in
 * every way a machine can end.
 */
#include "bailey/bailey.h"
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct bailey_error error;

/* A temporary file with these bytes. */
static void make_file(char name[32], const void *bytes, size_t len)
{
    strcpy(name, "/tmp/bailey-test-XXXXXX");
    int fd = mkstemp(name);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, bytes, len), (ssize_t)len);
    close(fd);
}

/* A machine that runs the program, with more arguments. */
static struct bailey *make(const void *program, size_t len, const char *const *more)
{
    char name[32];
    const char *argv[32] = {"-kernel", name, "-m", "4", "-nodefaults"};
    unsigned argc = 5;
    make_file(name, program, len);
    while (more && *more)
        argv[argc++] = *more++;
    struct bailey *m = bailey_new(argc, argv, NULL, &error);
    unlink(name);
    ck_assert_msg(m != NULL, "%s", error.text);
    return m;
}

static enum bailey_end run(const void *program, size_t len, const char *const *more, int *status)
{
    struct bailey *m = make(program, len, more);
    enum bailey_end end = bailey_run(m, &error);
    *status = bailey_status(m);
    bailey_free(m);
    return end;
}

#define ARGS(...)  ((const char *const[]){__VA_ARGS__, NULL})
#define DEBUG_EXIT "-device", "isa-debug-exit,iobase=0xf4,iosize=1"

/* mov al, N; out 0f4h, al; hlt */
#define EXIT_WITH(n) 0xb0, n, 0xe6, 0xf4, 0xf4

START_TEST(ends_by_debug_exit)
{
    static const uint8_t program[] = {EXIT_WITH(0x21)};
    int status;
    ck_assert_int_eq(run(program, sizeof(program), ARGS(DEBUG_EXIT), &status), BAILEY_EXITED);
    ck_assert_int_eq(status, 0x43);
}
END_TEST

START_TEST(ends_by_power_off)
{
    static const uint8_t program[] = {0xba, 0x04, 0x06,  /* mov dx, 604h */
                                      0xb8, 0x00, 0x20,  /* mov ax, 2000h: SLP_EN, type 0 */
                                      0xef, 0xeb, 0xfe}; /* out dx, ax; jmp $ */
    int status = 7;
    ck_assert_int_eq(run(program, sizeof(program), NULL, &status), BAILEY_POWERED_OFF);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(ends_by_triple_fault)
{
    static const uint8_t program[] = {
        0x0f, 0x01, 0x1e, 0x10,       0x7c, /* lidt [7c10h]: limit 0 */
        0xcc, 0xeb, 0xfe, [0x10] = 0, 0,    0, 0, 0, 0};
    int status = 7;
    ck_assert_int_eq(run(program, sizeof(program), ARGS("-no-reboot"), &status), BAILEY_RESET);
    ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(ends_by_panic)
{
    static const uint8_t program[] = {0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xeb, 0xfe};
    int status = 7;
    ck_assert_int_eq(run(program, sizeof(program), ARGS("-device", "pvpanic"), &status),
                     BAILEY_PANICKED);
    ck_assert_int_eq(status, 0);
}
END_TEST

/* Counts its starts at 500h, spoils itself and resets by CF9h until the third. */
static const uint8_t three_starts[] = {
    0xfe,         0x06, 0x00, 0x05,       /* inc byte [500h] */
    0x80,         0x3e, 0x00, 0x05, 0x03, /* cmp byte [500h], 3 */
    0x74,         0x0d,                   /* je done */
    0xc6,         0x06, 0x00, 0x7c, 0xf4, /* mov byte [7c00h], hlt */
    0xba,         0xf9, 0x0c,             /* mov dx, 0cf9h */
    0xb0,         0x06,                   /* mov al, 6 */
    0xee,         0xeb, 0xfe,             /* out dx, al; jmp $ */
    EXIT_WITH(3),
};

START_TEST(a_reset_starts_again_from_the_image)
{
    int status;
    ck_assert_int_eq(run(three_starts, sizeof(three_starts), ARGS(DEBUG_EXIT), &status),
                     BAILEY_EXITED);
    ck_assert_int_eq(status, 7);
    ck_assert_int_eq(
        run(three_starts, sizeof(three_starts), ARGS(DEBUG_EXIT, "-no-reboot"), &status),
        BAILEY_RESET);
}
END_TEST

static void *runner(void *opaque)
{
    struct bailey_error mine;
    return (void *)(intptr_t)bailey_run(opaque, &mine);
}

static enum bailey_end finish(pthread_t thread)
{
    void *result;
    ck_assert_int_eq(pthread_join(thread, &result), 0);
    return (enum bailey_end)(intptr_t)result;
}

START_TEST(stops_from_another_thread)
{
    static const uint8_t loops[4] = {0xeb, 0xfe}, halts[4] = {0xfa, 0xf4, 0xeb, 0xfd};
    const uint8_t *const programs[] = {loops, halts};
    for (unsigned i = 0; i < 2; i++) {
        pthread_t thread;
        struct bailey *m = make(programs[i], 4, ARGS("-smp", "3"));
        ck_assert_int_eq(pthread_create(&thread, NULL, runner, m), 0);
        usleep(20000); /* so that it has begun, mostly; either way it must stop */
        bailey_stop(m);
        ck_assert_int_eq(finish(thread), BAILEY_STOPPED);
        ck_assert_int_eq(bailey_status(m), 0);
        bailey_free(m);
    }
}
END_TEST

START_TEST(stops_before_it_runs)
{
    static const uint8_t loops[] = {0xeb, 0xfe};
    struct bailey *m = make(loops, sizeof(loops), NULL);
    bailey_stop(m);
    ck_assert_int_eq(bailey_run(m, &error), BAILEY_STOPPED);
    bailey_free(m);
    bailey_free(make(loops, sizeof(loops), NULL)); /* never run at all */
    bailey_free(NULL);
}
END_TEST

START_TEST(no_shutdown_waits_for_a_stop)
{
    static const uint8_t program[] = {0xc6, 0x06, 0x00, 0x06, 0x01, /* mov byte [600h], 1 */
                                      0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xeb, 0xfe};
    pthread_t thread;
    uint8_t byte = 0;
    struct bailey *m = make(program, sizeof(program), ARGS("-no-shutdown"));
    ck_assert_int_eq(pthread_create(&thread, NULL, runner, m), 0);
    while (!byte)
        ck_assert(bailey_read(m, 0x600, &byte, 1));
    while (!bailey_paused(m)) /* the test's time limit ends this */
        usleep(1000);
    bailey_resume(m); /* to where? */
    ck_assert(bailey_paused(m));
    ck_assert_int_eq(pthread_tryjoin_np(thread, NULL), EBUSY);
    bailey_stop(m);
    ck_assert_int_eq(finish(thread), BAILEY_STOPPED);
    bailey_free(m);
}
END_TEST

/* Counts at [600h]. */
static const uint8_t counts[] = {0x66, 0xff, 0x06, 0x00, 0x06, 0xeb, 0xf9}; /* inc dword; jmp */

static uint32_t counter(struct bailey *m)
{
    uint32_t value;
    ck_assert(bailey_read(m, 0x600, &value, 4));
    return value;
}

START_TEST(pauses_and_resumes)
{
    pthread_t thread;
    struct bailey *m = make(counts, sizeof(counts), ARGS("-smp", "2"));
    uint32_t before;
    ck_assert(!bailey_paused(m));
    bailey_pause(m); /* before it runs: the guest does not begin */
    ck_assert_int_eq(pthread_create(&thread, NULL, runner, m), 0);
    for (unsigned i = 0; i < 20; i++) {
        while (!bailey_paused(m))
            ;
        before = counter(m);
        ck_assert(i > 0 || before == 0);
        usleep(1000);
        ck_assert_uint_eq(counter(m), before);
        bailey_resume(m);
        while (counter(m) == before)
            ;
        ck_assert(!bailey_paused(m));
        bailey_pause(m);
        bailey_pause(m); /* one resume ends both */
    }
    bailey_stop(m); /* ends a paused machine too */
    ck_assert_int_eq(finish(thread), BAILEY_STOPPED);
    bailey_free(m);
}
END_TEST

/* In 32-bit code, so that it is translated: counts in [600h] for how often IA32_TSC was not before
 * what RDTSC had said; exits when it was. */
static const uint8_t compares_clocks[] = {
    0xfa,                                                 /* cli */
    0x0f,          0x01, 0x16, 0x58, 0x7c,                /* lgdt [7c58h] */
    0x0f,          0x20, 0xc0,                            /* mov eax, cr0 */
    0x0c,          0x01,                                  /* or al, 1 */
    0x0f,          0x22, 0xc0,                            /* mov cr0, eax */
    0xea,          0x13, 0x7c, 0x08, 0x00,                /* jmp 8:7c13h */
    0x66,          0xb8, 0x10, 0x00,                      /* mov ax, 10h */
    0x8e,          0xd8, 0x8e, 0xc0, 0x8e, 0xd0,          /* mov ds, ax; mov es, ax; mov ss, ax */
    0x0f,          0xae, 0xe8,                            /* 7c1dh: lfence */
    0x0f,          0x31,                                  /* rdtsc */
    0x89,          0xc3, 0x89, 0xd6,                      /* mov ebx, eax; mov esi, edx */
    0xb9,          0x10, 0x00, 0x00, 0x00,                /* mov ecx, 10h */
    0x0f,          0x32,                                  /* rdmsr */
    0x29,          0xd8, 0x19, 0xf2,                      /* sub eax, ebx; sbb edx, esi */
    0x72,          0x08,                                  /* jb 7c3bh */
    0xff,          0x05, 0x00, 0x06, 0x00, 0x00,          /* inc dword [600h] */
    0xeb,          0xe2,                                  /* jmp 7c1dh */
    EXIT_WITH(1),                                         /* 7c3bh */
    [0x48] = 0xff, 0xff, 0,    0,    0,    0x9b, 0xcf, 0, /* 7c48h: 32-bit code */
    [0x50] = 0xff, 0xff, 0,    0,    0,    0x93, 0xcf, 0, /* data */
    [0x58] = 0x17, 0x00, 0x40, 0x7c, 0,    0};            /* the table begins at 7c40h */

/* The time that a machine has stood does not show, neither to C nor to translated code. */
START_TEST(the_tsc_stands_while_it_is_paused)
{
    pthread_t thread;
    struct bailey *m = make(compares_clocks, sizeof(compares_clocks), ARGS(DEBUG_EXIT));
    ck_assert_int_eq(pthread_create(&thread, NULL, runner, m), 0);
    usleep(50000); /* the host's TSC is known by then */
    for (unsigned i = 0; i < 30; i++) {
        uint32_t before = counter(m);
        for (unsigned ms = 0; counter(m) == before; ms++) {
            ck_assert_uint_lt(ms, 3000); /* or it has ended */
            usleep(1000);
        }
        bailey_pause(m);
        while (!bailey_paused(m))
            ;
        usleep(2000);
        bailey_resume(m);
    }
    bailey_stop(m);
    ck_assert_int_eq(finish(thread), BAILEY_STOPPED);
    bailey_free(m);
}
END_TEST

/* Waits until [600h] is not zero, then exits with it. */
static const uint8_t waits_for_host[] = {
    0xa0, 0x00, 0x06,       /* mov al, [600h] */
    0x84, 0xc0, 0x74, 0xf9, /* test al, al; jz */
    0xe6, 0xf4, 0xf4,
};

START_TEST(the_host_reads_and_writes_memory)
{
    pthread_t thread;
    uint8_t byte = 0x15, code[sizeof(waits_for_host)], nothing;
    struct bailey *m = make(waits_for_host, sizeof(waits_for_host), ARGS(DEBUG_EXIT));
    ck_assert_int_eq(pthread_create(&thread, NULL, runner, m), 0);
    ck_assert(bailey_read(m, 0x7c00, code, sizeof(code)));
    ck_assert_mem_eq(code, waits_for_host, sizeof(code));
    ck_assert(bailey_read(m, 0xb0000000, &nothing, 1));
    ck_assert_uint_eq(nothing, 0xff);
    ck_assert(bailey_write(m, 0x600, &byte, 1));
    ck_assert_int_eq(finish(thread), BAILEY_EXITED);
    ck_assert_int_eq(bailey_status(m), 0x2b);
    bailey_free(m);
}
END_TEST

START_TEST(several_machines_run_at_once)
{
    enum { MACHINES = 4 };
    pthread_t thread[MACHINES];
    struct bailey *m[MACHINES];
    for (unsigned i = 0; i < MACHINES; i++) {
        m[i] = make(waits_for_host, sizeof(waits_for_host), ARGS(DEBUG_EXIT, "-smp", "2"));
        ck_assert_int_eq(pthread_create(&thread[i], NULL, runner, m[i]), 0);
    }
    for (unsigned i = MACHINES; i-- > 0;) {
        uint8_t byte = (uint8_t)(i + 1);
        ck_assert(bailey_write(m[i], 0x600, &byte, 1));
        ck_assert_int_eq(finish(thread[i]), BAILEY_EXITED);
        ck_assert_int_eq(bailey_status(m[i]), (int)(2 * (i + 1) + 1));
        bailey_free(m[i]);
    }
}
END_TEST

START_TEST(output_reaches_files)
{
    static const uint8_t program[] = {0xb0,        'D',  0xe6, 0xe9,            /* out 0e9h, 'D' */
                                      0xba,        0xf8, 0x03, 0xb0, 'S', 0xee, /* out 3f8h, 'S' */
                                      EXIT_WITH(0)};
    char debugcon[48] = "file:", serial[48] = "file:", byte;
    int status;
    make_file(debugcon + 5, "", 0);
    make_file(serial + 5, "", 0);
    ck_assert_int_eq(run(program, sizeof(program),
                         ARGS(DEBUG_EXIT, "-debugcon", debugcon, "-serial", serial), &status),
                     BAILEY_EXITED);
    const char *const files[] = {debugcon + 5, serial + 5};
    for (unsigned i = 0; i < 2; i++) {
        FILE *f = fopen(files[i], "r");
        ck_assert_ptr_nonnull(f);
        ck_assert_uint_eq(fread(&byte, 1, 1, f), 1);
        ck_assert_int_eq(byte, "DS"[i]);
        fclose(f);
        unlink(files[i]);
    }
}
END_TEST

/* Reads a date from the RTC: exits with the day of the month, in BCD. */
START_TEST(the_clock_starts_where_it_is_told)
{
    static const uint8_t program[] = {0xb0, 0x07, 0xe6, 0x70, 0xe4, 0x71, 0xe6, 0xf4, 0xf4};
    int status;
    ck_assert_int_eq(run(program, sizeof(program),
                         ARGS(DEBUG_EXIT, "-rtc", "base=2024-02-29T12:00:00"), &status),
                     BAILEY_EXITED);
    ck_assert_int_eq(status, 0x29 * 2 + 1);
}
END_TEST

START_TEST(failures_say_why)
{
    static const struct {
        const char *argv[4];
        unsigned argc;
        enum bailey_code code;
        const char *text;
    } cases[] = {
        {{"-kernel", "/nonexistent"},
         2,
         BAILEY_FAILED,
         "could not open kernel '/nonexistent': No such file or directory"},
        {{"-m", "900T", "-nodefaults"}, 3, BAILEY_FAILED, "but this host has only"},
        {{"-m", "1", "-nodefaults"}, 3, BAILEY_FAILED, "does not lie in the guest's memory"},
        {{"-hda", "/nonexistent", "-nodefaults"}, 3, BAILEY_FAILED, "/nonexistent"},
        {{"-D", "/nonexistent/log", "-nodefaults"}, 3, BAILEY_FAILED, "could not open log file"},
        {{"-serial", "file:/nonexistent/x"}, 2, BAILEY_FAILED, "/nonexistent/x"},
        {{"-bogus"}, 1, BAILEY_USAGE, "-bogus: unknown option"},
        {{"-help"}, 1, BAILEY_INFORMED, ""},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_ptr_null(bailey_new(cases[i].argc, cases[i].argv, NULL, &error));
        ck_assert_int_eq(error.code, cases[i].code);
        ck_assert_msg(strstr(error.text, cases[i].text) != NULL, "%s", error.text);
        ck_assert_ptr_null(strchr(error.text, '\n'));
    }
}
END_TEST

START_TEST(damaged_images_are_refused)
{
    char name[32];
    make_file(name, "QFI\xfb and so on", 14);
    const char *argv[] = {"-hda", name, "-nodefaults"};
    ck_assert_ptr_null(bailey_new(3, argv, NULL, &error));
    ck_assert_ptr_nonnull(strstr(error.text, name));
    unlink(name);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bailey");
    TCase *t = tcase_create("bailey");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, ends_by_debug_exit);
    tcase_add_test(t, ends_by_power_off);
    tcase_add_test(t, ends_by_triple_fault);
    tcase_add_test(t, ends_by_panic);
    tcase_add_test(t, a_reset_starts_again_from_the_image);
    tcase_add_test(t, stops_from_another_thread);
    tcase_add_test(t, stops_before_it_runs);
    tcase_add_test(t, no_shutdown_waits_for_a_stop);
    tcase_add_test(t, pauses_and_resumes);
    tcase_add_test(t, the_tsc_stands_while_it_is_paused);
    tcase_add_test(t, the_host_reads_and_writes_memory);
    tcase_add_test(t, several_machines_run_at_once);
    tcase_add_test(t, output_reaches_files);
    tcase_add_test(t, the_clock_starts_where_it_is_told);
    tcase_add_test(t, failures_say_why);
    tcase_add_test(t, damaged_images_are_refused);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
