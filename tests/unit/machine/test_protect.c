/*
 * test_protect.c - what protection rules do to a whole machine, through the public interface: a
 * real-mode program binds the first door and breaks its own rule.
 */
#include "bailey/bailey.h"
#include "bailey/protect.h"
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reaches the door through a data segment of 4 GiB, with the tables that image_of() puts behind it;
 * ends by isa-debug-exit with the status of the command that was refused, or with 21h. */
static const uint8_t code[] = {
    0xfa,                                              /* cli */
    0x66, 0x0f, 0x01, 0x16, 0xc0, 0x7c,                /* lgdtl [7cc0h] */
    0x0f, 0x20, 0xc0,                                  /* mov eax, cr0 */
    0x0c, 0x01,                                        /* or al, 1 */
    0x0f, 0x22, 0xc0,                                  /* mov cr0, eax */
    0xbb, 0x08, 0x00,                                  /* mov bx, 8 */
    0x8e, 0xdb,                                        /* mov ds, bx */
    0x24, 0xfe,                                        /* and al, feh */
    0x0f, 0x22, 0xc0,                                  /* mov cr0, eax */
    0x66, 0xbf, 0x00, 0x04, 0xf1, 0xfe,                /* mov edi, fef10400h: slot 0 of door 0 */
    0xb0, 0x01,                                        /* mov al, BIND */
    0xe8, 0x54, 0x00,                                  /* call order */
    0x67, 0x66, 0x8b, 0x47, 0x38,                      /* mov eax, [edi+38h]: the session */
    0x67, 0x66, 0x89, 0x47, 0x08,                      /* mov [edi+8], eax */
    0x67, 0x66, 0x8b, 0x47, 0x3c,                      /* mov eax, [edi+3ch] */
    0x67, 0x66, 0x89, 0x47, 0x0c,                      /* mov [edi+0ch], eax */
    0x67, 0x66, 0xc7, 0x47, 0x10, 0xe0, 0x7c, 0,    0, /* mov dword [edi+10h], 7ce0h */
    0x67, 0x66, 0xc7, 0x47, 0x18, 0x01, 0x00, 0,    0, /* mov dword [edi+18h], 1 */
    0xb0, 0x03,                                        /* mov al, ADD_REGIONS */
    0xe8, 0x29, 0x00,                                  /* call order */
    0x67, 0x66, 0xc7, 0x47, 0x10, 0x00, 0x7d, 0,    0, /* mov dword [edi+10h], 7d00h */
    0xb0, 0x05,                                        /* mov al, SET_RULES */
    0xe8, 0x1b, 0x00,                                  /* call order */
    0xfe, 0x06, 0x00, 0x06,                            /* inc byte [600h]: against the rule */
    0xfe, 0x06, 0x04, 0x06,                            /* inc byte [604h] */
    0x80, 0x3e, 0x04, 0x06, 0x02,                      /* cmp byte [604h], 2 */
    0x73, 0x07,                                        /* jae done */
    0xba, 0xf9, 0x0c,                                  /* mov dx, 0cf9h: the first time, reset */
    0xb0, 0x06,                                        /* mov al, 6 */
    0xee,                                              /* out dx, al */
    0xf4,                                              /* hlt */
    0xb0, 0x21,                                        /* done: mov al, 21h */
    0xe6, 0xf4,                                        /* out f4h, al */
    0xf4,                                              /* hlt */
    0x66, 0x0f, 0xb6, 0xc0,                            /* order: movzx eax, al */
    0x67, 0x66, 0x89, 0x07,                            /* mov [edi], eax */
    0x67, 0x66, 0xc7, 0x87, 0x40, 0xfc, 0xff, 0xff,    /* mov dword [edi-3c0h], 0: the doorbell */
    0,    0,    0,    0,                               /* */
    0x67, 0x66, 0x8b, 0x47, 0x30,                      /* mov eax, [edi+30h]: the status */
    0x66, 0x85, 0xc0,                                  /* test eax, eax */
    0x75, 0xdf,                                        /* jnz out */
    0xc3,                                              /* ret */
};
enum { GDTR_AT = 0xc0, GDT_AT = 0xc8, REGION_AT = 0xe0, RULE_AT = 0x100, IMAGE = 0x200 };

/* The program, with a rule that lets its owner's stores to [600h] happen and then does `notify`. */
static void image_of(uint32_t notify, uint8_t image[IMAGE])
{
    const uint8_t gdtr[] = {15, 0, 0xc8, 0x7c, 0, 0};
    const uint64_t gdt[] = {0, 0x00cf93000000ffff};
    const struct protect_region region = {.base = 0x600, .length = 1, .flags = PROTECT_PHYSICAL};
    struct protect_rule rule =
        PROTECT_RULE_DEFAULT(0, 1, PROTECT_READ | PROTECT_EXEC, PROTECT_ALLOW);
    rule.notify = notify;
    memset(image, 0, IMAGE);
    memcpy(image, code, sizeof(code));
    memcpy(image + GDTR_AT, gdtr, sizeof(gdtr));
    memcpy(image + GDT_AT, gdt, sizeof(gdt));
    memcpy(image + REGION_AT, &region, sizeof(region));
    memcpy(image + RULE_AT, &rule, sizeof(rule));
}

static struct bailey_error error;

static struct bailey *make(uint32_t notify, const char *board)
{
    char name[] = "/tmp/bailey-test-XXXXXX";
    uint8_t image[IMAGE];
    image_of(notify, image);
    int fd = mkstemp(name);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, image, IMAGE), IMAGE);
    close(fd);
    const char *argv[] = {"-kernel",  name,  "-m",         "4",
                          "-machine", board, "-device",    "isa-debug-exit,iobase=0xf4,iosize=1",
                          "-smp",     "2",   "-nodefaults"};
    struct bailey *m = bailey_new(11, argv, NULL, &error);
    unlink(name);
    ck_assert_msg(m != NULL, "%s", error.text);
    return m;
}

static uint8_t byte_at(struct bailey *m, uint64_t address)
{
    uint8_t byte;
    ck_assert(bailey_read(m, address, &byte, 1));
    return byte;
}

/* Standard error goes to a file from now on (each test has a process of its own). */
static FILE *catch_stderr(void)
{
    FILE *file = tmpfile();
    ck_assert_ptr_nonnull(file);
    ck_assert_int_ge(dup2(fileno(file), STDERR_FILENO), 0);
    return file;
}

static void expect_one_line(FILE *file, const char *what, const char *end)
{
    char line[512], more[8];
    rewind(file);
    ck_assert_ptr_nonnull(fgets(line, sizeof(line), file));
    ck_assert_msg(strncmp(line, "bailey: ", 8) == 0, "%s", line);
    ck_assert_msg(strstr(line, "context 0") && strstr(line, what) && strstr(line, end), "%s", line);
    ck_assert_ptr_null(fgets(more, sizeof(more), file));
}

START_TEST(a_rule_stops_the_machine)
{
    FILE *caught = catch_stderr();
    struct bailey *m = make(PROTECT_NOTIFY_STOP, "pc");
    ck_assert_int_eq(bailey_run(m, &error), BAILEY_REFUSED);
    ck_assert_int_eq(bailey_status(m), 3);
    ck_assert_uint_eq(byte_at(m, 0x600), 1); /* the rule let it happen */
    bailey_free(m);
    expect_one_line(caught, "0x600", "stopped\n");
}
END_TEST

static void *runner(void *opaque)
{
    struct bailey_error mine;
    return (void *)(intptr_t)bailey_run(opaque, &mine);
}

START_TEST(a_rule_pauses_the_machine)
{
    FILE *caught = catch_stderr();
    struct bailey *m = make(PROTECT_NOTIFY_PAUSE, "pc");
    pthread_t thread;
    void *end;
    uint8_t once = 1;
    ck_assert(bailey_write(m, 0x604, &once, 1)); /* no reset, please */
    ck_assert_int_eq(pthread_create(&thread, NULL, runner, m), 0);
    while (!bailey_paused(m))
        usleep(1000);
    expect_one_line(caught, "0x600", "paused\n");
    ck_assert_uint_eq(byte_at(m, 0x600), 1);
    ck_assert_int_eq(pthread_tryjoin_np(thread, NULL), EBUSY);
    bailey_resume(m);
    ck_assert_int_eq(pthread_join(thread, &end), 0);
    ck_assert_int_eq((int)(intptr_t)end, BAILEY_EXITED);
    ck_assert_int_eq(bailey_status(m), 0x43);
    bailey_free(m);
}
END_TEST

/* The second start finds the door free, else BIND would be refused. */
START_TEST(a_reset_ends_all_contexts)
{
    struct bailey *m = make(0, "pc");
    ck_assert_int_eq(bailey_run(m, &error), BAILEY_EXITED);
    ck_assert_int_eq(bailey_status(m), 0x43);
    ck_assert_uint_eq(byte_at(m, 0x604), 2);
    bailey_free(m);
}
END_TEST

/* With protect=off the addresses are nobody's: the status reads as ones. */
START_TEST(the_device_is_there_unless_it_is_off)
{
    static const char *const boards[] = {"pc", "pc,protect=on", "pc,protect=off"};
    for (unsigned i = 0; i < 3; i++) {
        struct bailey *m = make(0, boards[i]);
        uint32_t id = 0, door = 0;
        ck_assert(bailey_read(m, PROTECT_ADMIN_ADDRESS, &id, 4));
        ck_assert(bailey_read(m, PROTECT_DOOR_ADDRESS(63), &door, 4));
        ck_assert_uint_eq(id, i < 2 ? PROTECT_ID : 0xffffffff);
        ck_assert_uint_eq(door, id);
        ck_assert_int_eq(bailey_run(m, &error), BAILEY_EXITED);
        ck_assert_int_eq(bailey_status(m), i < 2 ? 0x43 : 0x1ff);
        bailey_free(m);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protect");
    TCase *t = tcase_create("protect");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, a_rule_stops_the_machine);
    tcase_add_test(t, a_rule_pauses_the_machine);
    tcase_add_test(t, a_reset_ends_all_contexts);
    tcase_add_test(t, the_device_is_there_unless_it_is_off);
    suite_add_tcase(suite, t);
    SRunner *sr = srunner_create(suite);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
