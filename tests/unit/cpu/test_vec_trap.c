/*
 * test_vec_trap.c - unmasked SIMD exceptions: the flags that go with them, and the SIGFPE that they
 * are on the way, beside other handlers, other threads and a blocked signal.
 */
#include "tests/unit/cpu/vec_guest.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

static struct guest *g;

static void setup(void)
{
    g = guest_new();
}
static void teardown(void)
{
    guest_free(g);
}

static uint32_t host_mxcsr(void)
{
    uint32_t value;
    __asm__ volatile("stmxcsr %0" : "=m"(value));
    return value;
}

/* Runs the instruction with these exceptions unmasked; it has to raise #XM. Returns MXCSR's flags.
 */
static uint32_t flags_of(struct guest *guest, const char *hex, uint32_t unmasked)
{
    uint32_t control = MXCSR_INIT & ~(unmasked << MXCSR_MASK_SHIFT);
    guest->cpu->mxcsr = control;
    ck_assert_int_eq(guest_run(guest, hex), VECTOR_XM);
    ck_assert_uint_eq(guest->cpu->mxcsr & ~MXCSR_FLAGS, control);
    ck_assert_uint_eq(host_mxcsr() & ~MXCSR_FLAGS, MXCSR_INIT);
    return guest->cpu->mxcsr & MXCSR_FLAGS;
}

#define LARGE 0x1p127f

/* ---- Flags ----------------------------------------------------------------------------------- */

/* SDM vol. 1, 4.9.1.4 and 4.9.1.5: with an unmasked #O or #U, PE says whether the result was
 * inexact before its exponent was cut. Masked, both would be inexact. */
START_TEST(test_precision_beside_unmasked_overflow_and_underflow)
{
    set_floats(&g->cpu->ymm[1], LARGE, 0, 0, 0);
    set_floats(&g->cpu->ymm[2], 2, 0, 0, 0);
    ck_assert_uint_eq(flags_of(g, "f3 0f 59 ca", MXCSR_OE), MXCSR_OE); /* mulss: 2^128, exact */
    set_floats(&g->cpu->ymm[1], 0x1.fffffep127f, 0, 0, 0);
    set_floats(&g->cpu->ymm[2], 0x1.fffffep0f, 0, 0, 0);
    ck_assert_uint_eq(flags_of(g, "f3 0f 59 ca", MXCSR_OE), MXCSR_OE | MXCSR_PE);
    set_floats(&g->cpu->ymm[1], 0x1.000002p-126f, 0, 0, 0);
    set_floats(&g->cpu->ymm[2], 0.5, 0, 0, 0);
    ck_assert_uint_eq(flags_of(g, "f3 0f 59 ca", MXCSR_UE), MXCSR_UE); /* would lose a bit masked */
    set_floats(&g->cpu->ymm[2], 0x1.fffffep-2f, 0, 0, 0);
    ck_assert_uint_eq(flags_of(g, "f3 0f 59 ca", MXCSR_UE), MXCSR_UE | MXCSR_PE);
}
END_TEST

/* SDM vol. 2, DPPS: each multiplication and addition has its exceptions by itself. Masked, the
 * products would be infinities of opposite signs, and their sum invalid. */
START_TEST(test_dot_product_stops_at_its_first_exception)
{
    set_floats(&g->cpu->ymm[1], LARGE, LARGE, 0, 0);
    set_floats(&g->cpu->ymm[2], 2, -2, 0, 0);
    union vreg before = g->cpu->ymm[1];
    ck_assert_uint_eq(flags_of(g, "66 0f 3a 40 ca ff", MXCSR_OE), MXCSR_OE); /* dpps */
    ck_assert(!memcmp(&before, &g->cpu->ymm[1], 32));
    g->cpu->mxcsr = MXCSR_INIT;
    ck_assert_int_eq(guest_run(g, "66 0f 3a 40 ca ff"), COMPLETED);
    ck_assert_uint_eq(g->cpu->mxcsr & MXCSR_FLAGS, MXCSR_OE | MXCSR_IE | MXCSR_PE);
}
END_TEST

/* Flags from before stay, and do not count as raised. */
START_TEST(test_earlier_flags_stay)
{
    set_floats(&g->cpu->ymm[1], 1, 1, 1, 1);
    set_floats(&g->cpu->ymm[2], 0, 1, 1, 1);
    uint32_t control = MXCSR_INIT & ~((MXCSR_ZE | MXCSR_UE) << MXCSR_MASK_SHIFT);
    g->cpu->mxcsr = control | MXCSR_UE | MXCSR_PE;
    ck_assert_int_eq(guest_run(g, "0f 5e ca"), VECTOR_XM); /* divps */
    ck_assert_uint_eq(g->cpu->mxcsr, control | MXCSR_UE | MXCSR_PE | MXCSR_ZE);
    set_floats(&g->cpu->ymm[2], 1, 1, 1, 1);
    g->cpu->mxcsr = control | MXCSR_ZE;
    ck_assert_int_eq(guest_run(g, "0f 5e ca"), COMPLETED);
    ck_assert_uint_eq(g->cpu->mxcsr, control | MXCSR_ZE);
}
END_TEST

/* In all shapes of stubs: general register, flags, memory, MMX, VEX. */
START_TEST(test_every_shape_of_stub)
{
    static const char *const shapes[] = {
        "f3 0f 2d ca",       /* cvtss2si ecx, xmm2 */
        "0f 2f ca",          /* comiss xmm1, xmm2 */
        "0f 5c 08",          /* subps xmm1, [rax] */
        "0f 2d ca",          /* cvtps2pi mm1, xmm2 */
        "c5 f4 58 d2",       /* vaddps ymm2, ymm1, ymm2 */
        "c4 e3 71 40 d2 ff", /* vdpps xmm2, xmm1, xmm2, 255 */
    };
    const uint32_t signalling = 0x7fa00000;
    g->cpu->gpr[RAX] = DATA;
    g->cpu->gpr[RCX] = 7;
    memcpy(g->ram + DATA, &signalling, 4);
    set_floats(&g->cpu->ymm[1], 1, 1, 1, 1);
    g->cpu->ymm[2].d[0] = signalling;
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        if (i >= 4 && !__builtin_cpu_supports("avx")) {
            printf("skip  %s: the host has no AVX\n", shapes[i]);
            continue;
        }
        ck_assert_msg(flags_of(g, shapes[i], MXCSR_IE) == MXCSR_IE, "%s", shapes[i]);
    }
    ck_assert_uint_eq(g->cpu->gpr[RCX], 7);
}
END_TEST

/* ---- Signals --------------------------------------------------------------------------------- */

static void divide_by_zero(struct guest *guest)
{
    set_floats(&guest->cpu->ymm[1], 1, 1, 1, 1);
    set_floats(&guest->cpu->ymm[2], 0, 1, 1, 1);
    ck_assert_uint_eq(flags_of(guest, "0f 5e ca", MXCSR_ZE), MXCSR_ZE);
}

START_TEST(test_blocked_signal)
{
    sigset_t fpe, now;
    sigemptyset(&fpe);
    sigaddset(&fpe, SIGFPE);
    pthread_sigmask(SIG_BLOCK, &fpe, NULL);
    divide_by_zero(g);
    pthread_sigmask(SIG_SETMASK, NULL, &now);
    ck_assert(sigismember(&now, SIGFPE));
}
END_TEST

static volatile sig_atomic_t others;

/* Of a program that makes 1 of every division by zero: DIV's divisor is in RCX. */
static void repair_division(int number, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    (void)number, (void)info;
    others++;
    uc->uc_mcontext.gregs[REG_RCX] = 1;
}

static void own_handler(void)
{
    struct sigaction action = {.sa_sigaction = repair_division, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGFPE, &action, NULL);
}

static unsigned host_division_by_zero(void)
{
    unsigned quotient = 6, remainder = 0, divisor = 0;
    __asm__ volatile("div %%ecx" : "+a"(quotient), "+d"(remainder), "+c"(divisor));
    return quotient;
}

START_TEST(test_others_signals_are_passed_on)
{
    own_handler();
    divide_by_zero(g); /* installs ours over it */
    ck_assert_int_eq(others, 0);
    ck_assert_uint_eq(host_division_by_zero(), 6);
    ck_assert_int_eq(others, 1);
    divide_by_zero(g);
    ck_assert_int_eq(others, 1);
}
END_TEST

/* A program's handler that came later keeps its place; then PE is estimated, the rest is right. */
START_TEST(test_handler_in_our_place)
{
    divide_by_zero(g);
    own_handler();
    divide_by_zero(g);
    ck_assert_int_eq(others, 0);
    ck_assert_uint_eq(host_division_by_zero(), 6);
    ck_assert_int_eq(others, 1);
}
END_TEST

START_TEST(test_default_action_still_ends_the_process)
{
    signal(SIGFPE, SIG_DFL); /* sanitizers have a handler */
    divide_by_zero(g);
    host_division_by_zero();
}
END_TEST

static void *many_exceptions(void *opaque)
{
    struct guest *own = opaque;
    for (unsigned i = 0; i < 2000; i++)
        divide_by_zero(own);
    return NULL;
}

START_TEST(test_two_machines_in_two_threads)
{
    struct guest *other = guest_new();
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, many_exceptions, other), 0);
    many_exceptions(g);
    pthread_join(thread, NULL);
    guest_free(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vec_trap");
    TCase *tc = tcase_create("vec_trap");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_precision_beside_unmasked_overflow_and_underflow);
    tcase_add_test(tc, test_dot_product_stops_at_its_first_exception);
    tcase_add_test(tc, test_earlier_flags_stay);
    tcase_add_test(tc, test_every_shape_of_stub);
    tcase_add_test(tc, test_blocked_signal);
    tcase_add_test(tc, test_others_signals_are_passed_on);
    tcase_add_test(tc, test_handler_in_our_place);
    tcase_add_test_raise_signal(tc, test_default_action_still_ends_the_process, SIGFPE);
    tcase_add_test(tc, test_two_machines_in_two_threads);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
