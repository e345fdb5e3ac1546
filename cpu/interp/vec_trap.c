/*
 * vec_trap.c - lets the host raise an unmasked SIMD exception in a stub, and takes its MXCSR.
 *
 * Which flags a processor sets beside the exception that it raises is not to be had from a masked
 * run: PE goes with an unmasked overflow or underflow by the result before it is cut to the
 * exponent's range, and DPPS and DPPD stop between their steps (SDM vol. 1, 4.9.1.5, 11.5.2; vol.
 * 2, DPPS). So the instruction runs once more with the guest's own masks. The kernel makes SIGFPE
 * of the exception; the handler notes MXCSR, masks everything and goes on behind the instruction by
 * editing the context. Only vec_run.c comes here, when it knows already that there will be one.
 *
 * There is one handler for the process. It takes what the thread that it interrupts has announced,
 * down to the address of the instruction, and passes everything else on to whoever was there
 * before.
 */
#include "cpu/interp/vec_internal.h"

#include <pthread.h>
#include <signal.h>
#include <ucontext.h>

struct trap {
    uintptr_t insn; /* the one instruction that may raise */
    unsigned len;
    volatile uint32_t mxcsr;
    volatile sig_atomic_t raised;
};
/* What the signal handler needs: this thread's trap, NULL outside of it; the action before ours. */
static _Thread_local struct trap *volatile armed __attribute__((tls_model("initial-exec")));
static struct sigaction earlier;

/* An action that ends the process takes our place, and the signal comes again. */
static void pass_on(int number, siginfo_t *info, void *context)
{
    bool plain = !(earlier.sa_flags & SA_SIGINFO);
    bool ends = (earlier.sa_flags & SA_RESETHAND) ||
                (plain && (earlier.sa_handler == SIG_DFL || earlier.sa_handler == SIG_IGN));
    if (ends) {
        sigaction(number, &earlier, NULL);
        if (info->si_code <= 0) /* sent, not raised by an instruction that would do it again */
            raise(number);
    } else if (plain) {
        earlier.sa_handler(number);
    } else {
        earlier.sa_sigaction(number, info, context);
    }
}

static void on_signal(int number, siginfo_t *info, void *context)
{
    struct trap *trap = armed;
    ucontext_t *uc = context;
    if (!trap || (uintptr_t)uc->uc_mcontext.gregs[REG_RIP] != trap->insn) {
        pass_on(number, info, context);
        return;
    }
    trap->mxcsr = uc->uc_mcontext.fpregs->mxcsr;
    trap->raised = 1;
    uc->uc_mcontext.fpregs->mxcsr = MXCSR_INIT;
    uc->uc_mcontext.gregs[REG_RIP] += trap->len;
}

static void install(void)
{
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGFPE, NULL, &earlier); /* to be there before the first signal is */
    sigaction(SIGFPE, &action, NULL);
}

/* The program that we are a part of may have put a handler of its own in the place of ours. */
static bool installed(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct sigaction now;
    pthread_once(&once, install);
    return sigaction(SIGFPE, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
           now.sa_sigaction == on_signal;
}

static uint64_t run(const struct vec_stub *stub, const struct vec_call *call, struct trap *trap,
                    uint32_t *mxcsr)
{
    sigset_t fpe, before;
    sigemptyset(&fpe);
    sigaddset(&fpe, SIGFPE);
    pthread_sigmask(SIG_UNBLOCK, &fpe, &before); /* blocked, it would end the process */
    armed = trap;
    vec_set_host_mxcsr(*mxcsr);
    uint64_t result = vec_call_stub(stub, call);
    *mxcsr = trap->raised ? trap->mxcsr : vec_host_mxcsr();
    vec_set_host_mxcsr(MXCSR_INIT);
    armed = NULL;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return result;
}

enum vec_trap_end vec_trap(const struct vec_stub *stub, const struct vec_call *call,
                           uint32_t *mxcsr, uint64_t *result)
{
    struct trap trap = {.insn = (uintptr_t)stub->code + stub->insn_at, .len = stub->key_len};
    if (!installed())
        return TRAP_UNAVAILABLE;
    *result = run(stub, call, &trap, mxcsr);
    return trap.raised ? TRAP_RAISED : TRAP_COMPLETED;
}
