/*
 * native.c - runs one instruction on the host's CPU, with every register under control.
 *
 * The way in is a signal: its handler replaces the whole saved context (general registers, flags,
 * code segment, extended state) by the case's and returns into the instruction. The way out is the
 * next signal: an INT3 behind the instruction, or whatever fault it raises; its handler copies the
 * context out and puts the first one back. 16-bit code uses LDT segments, 32-bit code the kernel's
 * compatibility segments.
 */
#include "oracle.h"
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { USER_CS64 = 0x33, USER_CS32 = 0x23, USER_DS = 0x2b };
enum { LDT_CODE16 = 0, LDT_DATA16 = 1 }; /* entries */
#define LDT_SELECTOR(entry) ((entry) << 3 | 7)
enum { XSAVE_HEADER = 512, XSAVE_YMM_HIGH = 576 };

static bool have_ldt;
static bool have_avx;
static char signal_stack[65536];
static const struct oracle_case *volatile current; /* read by the signal handlers */
static struct oracle_outcome *volatile result;
static const struct oracle_case *last; /* for the report of a crash of our own */
static ucontext_t saved;
static uint8_t saved_fp[16384];
static uint32_t saved_fp_size;

/* The order of the saved context's registers, by x86 number. */
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static uint16_t load16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, 2);
    return v;
}

/* The size of the signal frame's extended state (its software-reserved bytes, kernel ABI). */
static uint32_t frame_fp_size(const uint8_t *fp)
{
    uint32_t magic, size;
    memcpy(&magic, fp + 464, 4);
    memcpy(&size, fp + 468, 4);
    return magic == 0x46505853 ? size : 512;
}

static void put_state(ucontext_t *uc, const struct oracle_case *c)
{
    const struct oracle_state *s = &c->state;
    for (int i = 0; i < 16; i++)
        uc->uc_mcontext.gregs[greg_of[i]] = (greg_t)s->gpr[i];
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)s->rip;
    uc->uc_mcontext.gregs[REG_EFL] = (greg_t)s->rflags;
    uint64_t cs = c->code == 64 ? USER_CS64 : c->code == 32 ? USER_CS32 : LDT_SELECTOR(LDT_CODE16);
    uint64_t ss = c->code == 16 ? LDT_SELECTOR(LDT_DATA16) : USER_DS;
    uc->uc_mcontext.gregs[REG_CSGSFS] = (greg_t)(cs | ss << 48);
    uc->uc_flags |= 2 | 4; /* UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
    memcpy(fp, &s->fcw, 2);
    memcpy(fp + 2, &s->fsw, 2);
    fp[4] = s->ftw;
    fp[5] = 0;
    memcpy(fp + 6, &s->fop, 2);
    memcpy(fp + 8, &s->fip, 8);
    memcpy(fp + 16, &s->fdp, 8);
    memcpy(fp + 24, &s->mxcsr, 4);
    for (int i = 0; i < 8; i++)
        memcpy(fp + 32 + 16 * i, s->st[i], 10);
    for (int i = 0; i < 16; i++)
        memcpy(fp + 160 + 16 * i, s->ymm[i].b, 16);
    if (have_avx) {
        uint64_t bv;
        memcpy(&bv, fp + XSAVE_HEADER, 8);
        bv |= 7;
        memcpy(fp + XSAVE_HEADER, &bv, 8);
        for (int i = 0; i < 16; i++)
            memcpy(fp + XSAVE_YMM_HIGH + 16 * i, s->ymm[i].b + 16, 16);
    }
}

static void get_state(const ucontext_t *uc, struct oracle_state *s)
{
    memset(s, 0, sizeof(*s));
    for (int i = 0; i < 16; i++)
        s->gpr[i] = (uint64_t)uc->uc_mcontext.gregs[greg_of[i]];
    s->rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    s->rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
    uint64_t bv = 3;
    if (have_avx)
        memcpy(&bv, fp + XSAVE_HEADER, 8);
    s->fcw = 0x37f; /* the initial state, where XSTATE_BV says that it was not saved */
    if (bv & 1) {
        s->fcw = load16(fp);
        s->fsw = load16(fp + 2);
        s->ftw = fp[4];
        s->fop = load16(fp + 6);
        memcpy(&s->fip, fp + 8, 8);
        memcpy(&s->fdp, fp + 16, 8);
        for (int i = 0; i < 8; i++)
            memcpy(s->st[i], fp + 32 + 16 * i, 10);
    }
    memcpy(&s->mxcsr, fp + 24, 4);
    for (int i = 0; i < 16; i++) {
        if (bv & 2)
            memcpy(s->ymm[i].b, fp + 160 + 16 * i, 16);
        if (have_avx && (bv & 4))
            memcpy(s->ymm[i].b + 16, fp + XSAVE_YMM_HIGH + 16 * i, 16);
    }
}

/* Entered on purpose: swap the case in. */
static void on_enter(int sig, siginfo_t *info, void *context)
{
    (void)sig;
    (void)info;
    ucontext_t *uc = context;
    const uint8_t *fp = (const uint8_t *)uc->uc_mcontext.fpregs;
    saved = *uc;
    saved_fp_size = frame_fp_size(fp);
    memcpy(saved_fp, fp, saved_fp_size);
    put_state(uc, current);
}

/* The instruction is over: take the state, swap ourselves back in. */
static void on_leave(int sig, siginfo_t *info, void *context)
{
    (void)info;
    ucontext_t *uc = context;
    if (!current || !result) {
        fprintf(stderr, "oracle: signal %d outside a case at %#llx, after %u-bit %s %s\n", sig,
                (unsigned long long)uc->uc_mcontext.gregs[REG_RIP], last->code, last->row->mnemonic,
                last->row->encoding); /* the process ends anyway */
        _exit(3);
    }
    get_state(uc, &result->state);
    result->vector = (int)uc->uc_mcontext.gregs[REG_TRAPNO];
    result->error_code = (uint32_t)uc->uc_mcontext.gregs[REG_ERR];
    result->cr2 = result->vector == 14 ? (uint64_t)uc->uc_mcontext.gregs[REG_CR2] : 0;
    if (sig == SIGTRAP && result->vector == 3) {
        result->vector = -1;
        result->error_code = 0;
        result->state.rip -= 1;
    }
    result = NULL;
    uint8_t *fp = (uint8_t *)uc->uc_mcontext.fpregs;
    memcpy(fp, saved_fp, saved_fp_size);
    memcpy(uc->uc_mcontext.gregs, saved.uc_mcontext.gregs, sizeof(saved.uc_mcontext.gregs));
    uc->uc_flags = saved.uc_flags;
}

static bool map_arena(void)
{
    void *all = mmap((void *)ARENA, ARENA_SIZE, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (all != (void *)ARENA) {
        perror("oracle: the arena's addresses are taken");
        return false;
    }
    if (mprotect((void *)CODE_PAGE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC) ||
        mprotect((void *)DATA_START, DATA_SIZE, PROT_READ | PROT_WRITE)) {
        perror("oracle: mprotect");
        return false;
    }
    return true;
}

static bool set_ldt(unsigned entry, unsigned contents)
{
    struct user_desc d = {.entry_number = entry,
                          .base_addr = ARENA,
                          .limit = ARENA_SIZE - 1,
                          .contents = contents,
                          .useable = 1};
    return syscall(SYS_modify_ldt, 1, &d, sizeof(d)) == 0;
}

bool native_init(void)
{
    unsigned a, b, c, d;
    have_avx = __get_cpuid(1, &a, &b, &c, &d) && (c & bit_AVX) && (c & bit_OSXSAVE);
    have_ldt = set_ldt(LDT_CODE16, MODIFY_LDT_CONTENTS_CODE) &&
               set_ldt(LDT_DATA16, MODIFY_LDT_CONTENTS_DATA);
    stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)};
    struct sigaction enter = {.sa_sigaction = on_enter, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct sigaction leave = {.sa_sigaction = on_leave, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    if (!map_arena() || sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &enter, NULL))
        return false;
    static const int ends[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
        if (sigaction(ends[i], &leave, NULL))
            return false;
    return true;
}

bool native_has_code(unsigned code)
{
    return code != 16 || have_ldt;
}

/* 64-bit code ignores DS and ES, so they may stay loaded. */
static void load_data_segments(unsigned code)
{
    unsigned selector = code == 16 ? LDT_SELECTOR(LDT_DATA16) : USER_DS;
    __asm__ volatile("movl %0, %%ds; movl %0, %%es" ::"r"(selector));
}

void native_run(const struct oracle_case *c, struct oracle_outcome *outcome)
{
    memset((void *)CODE_PAGE, 0xcc, 0x1000);
    memcpy((void *)((c->code == 16 ? ARENA : 0) + c->state.rip), c->bytes, c->len);
    memcpy((void *)DATA_START, c->data, DATA_SIZE);
    load_data_segments(c->code);
    current = last = c;
    result = outcome;
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
    current = NULL;
    memcpy(outcome->data, (void *)DATA_START, DATA_SIZE);
}
