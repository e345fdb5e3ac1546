/*
 * host.c - the host CPU as arbiter of length and validity.
 *
 * An instruction's first k bytes are put at the very end of an executable page that nothing
 * follows. Executing them tells: a fetch fault at the next page means that the CPU wants more than
 * k bytes, SIGILL that they are undefined, anything else (the single-step trap, a fault of the
 * memory operand) that k bytes were enough. The smallest such k is the length.
 *
 * It is made safe thus: it happens in a child with a time limit; all registers hold a non-canonical
 * value, so that memory operands and the stack fault; the page lies far from everything else, so
 * that RIP-relative and absolute operands do; FS points nowhere; TF stops after one instruction;
 * INT, SYSCALL and SYSENTER are left out. The signal handler itself moves on to the next probe by
 * editing the context to which it returns. 32-bit code runs in the kernel's compatibility segment,
 * 16-bit code in a segment of the LDT.
 */
#include "decode_check.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE         4096u
#define FAR_AWAY     0x200000000000ull /* code page for 64-bit code */
#define LOW          0x40000000ull     /* for 16- and 32-bit code */
#define NOWHERE      0x300000000000ull /* FS base while probing */
#define NONCANONICAL 0x0bad00000bad0000ull

/* The child's state; a signal handler needs it, so it is global (and the child's alone). */
static struct {
    struct host_case *cases;
    unsigned count;
    volatile unsigned *current; /* shared with the parent: where to go on after a crash */
    unsigned given;             /* k of the running probe */
    uint8_t *alias[2];          /* writable views of the two code pages: far, low */
    unsigned long fs_base;
    bool have16;
} probe;

static bool is_unsafe(const struct test_string *string)
{
    unsigned i = 0;
    while (i < STRING_BYTES - 2) {
        uint8_t byte = string->bytes[i];
        bool rex = string->code == 64 && (byte & 0xf0) == 0x40;
        bool prefix = byte == 0x26 || byte == 0x2e || byte == 0x36 || byte == 0x3e ||
                      (byte >= 0x64 && byte <= 0x67) || byte == 0xf0 || byte == 0xf2 ||
                      byte == 0xf3;
        if (!rex && !prefix)
            break;
        i++;
    }
    const uint8_t *op = string->bytes + i;
    return op[0] == 0xcd || (op[0] == 0x0f && (op[1] == 0x05 || op[1] == 0x34));
}

/* Puts the first `given` bytes of the current case at the end of its page and aims the context
 * there. */
static void aim(ucontext_t *context)
{
    const struct test_string *string = &probe.cases[*probe.current].string;
    bool wide = string->code == 64;
    unsigned offset = PAGE - probe.given;
    uint8_t *alias = probe.alias[!wide];
    memset(alias, 0xcc, PAGE);
    memcpy(alias + offset, string->bytes, probe.given);

    greg_t *regs = context->uc_mcontext.gregs;
    for (int i = REG_R8; i <= REG_RSP; i++) /* R8-R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP */
        regs[i] = (greg_t)NONCANONICAL;
    uint64_t base = wide ? FAR_AWAY : string->code == 32 ? LOW : 0;
    uint64_t cs = wide ? 0x33 : string->code == 32 ? 0x23 : 7;
    regs[REG_RIP] = (greg_t)(base + offset);
    regs[REG_EFL] = 0x102; /* TF */
    regs[REG_CSGSFS] =
        (greg_t)(((uint64_t)regs[REG_CSGSFS] & 0x0000ffffffff0000ull) | cs | 0x2bull << 48);
    context->uc_mcontext.fpregs->cwd = 0x37f;
    context->uc_mcontext.fpregs->mxcsr = 0x1f80;
    syscall(SYS_arch_prctl, ARCH_SET_FS, NOWHERE);
}

/* The next case that can be tried; ends the child after the last. */
static void next_case(void)
{
    for (;; ++*probe.current) {
        if (*probe.current == probe.count)
            _exit(0);
        const struct test_string *string = &probe.cases[*probe.current].string;
        if (!is_unsafe(string) && (string->code != 16 || probe.have16))
            break;
    }
    probe.given = 1;
}

static void decided(enum host_verdict verdict)
{
    struct host_case *now = &probe.cases[*probe.current];
    now->verdict = verdict;
    now->len = (uint8_t)probe.given;
    ++*probe.current;
    next_case();
}

__attribute__((no_sanitize("address"))) static void on_signal(int number, siginfo_t *info,
                                                              void *opaque)
{
    ucontext_t *context = opaque;
    const greg_t *regs = context->uc_mcontext.gregs;
    (void)info;
    syscall(SYS_arch_prctl, ARCH_SET_FS, probe.fs_base);
    bool wide = probe.cases[*probe.current].string.code == 64;
    uint64_t next_page = (wide ? FAR_AWAY : LOW) + PAGE;
    bool fetch = number == SIGSEGV && regs[REG_TRAPNO] == 14 && (regs[REG_ERR] & 0x10) &&
                 (uint64_t)regs[REG_CR2] == next_page &&
                 (uint64_t)regs[REG_RIP] % PAGE == PAGE - probe.given;
    if (probe.given == 0) /* the kick-off */
        next_case();
    else if (fetch && probe.given == 15)
        decided(HOST_LONG);
    else if (fetch)
        probe.given++;
    else if (number == SIGILL)
        decided(HOST_UD);
    else if (probe.given == 15 && regs[REG_TRAPNO] == 13)
        decided(HOST_UNKNOWN); /* too long, or 15 bytes with a fault of their own */
    else
        decided(HOST_VALID);
    aim(context);
}

/* A page of code at `address`, nothing behind it, and a writable view of it. */
static uint8_t *map_code(uint64_t address)
{
    int fd = memfd_create("probe", 0);
    if (fd < 0 || ftruncate(fd, PAGE) != 0)
        return MAP_FAILED;
    uint8_t *alias = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *reserved = mmap((void *)(uintptr_t)address, 2 * PAGE, PROT_NONE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    void *code = MAP_FAILED;
    if (reserved == (void *)(uintptr_t)address)
        code = mmap(reserved, PAGE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0);
    close(fd);
    return code == MAP_FAILED ? MAP_FAILED : alias;
}

static bool make_segment16(void)
{
    struct user_desc desc = {.entry_number = 0,
                             .base_addr = LOW,
                             .limit = 0x1fff,
                             .contents = 2, /* code */
                             .seg_not_present = 0};
    return syscall(SYS_modify_ldt, 1, &desc, sizeof(desc)) == 0;
}

/* In the child; does not return. */
static void run_probes(void)
{
    static uint8_t stack[65536];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction action = {.sa_sigaction = on_signal,
                               .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    struct itimerval limit = {.it_value = {.tv_sec = 20}};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    probe.alias[0] = map_code(FAR_AWAY);
    probe.alias[1] = map_code(LOW);
    if (probe.alias[0] == MAP_FAILED || probe.alias[1] == MAP_FAILED)
        _exit(3);
    probe.have16 = make_segment16();
    syscall(SYS_arch_prctl, ARCH_GET_FS, &probe.fs_base);
    sigaltstack(&alternate, NULL);
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
    for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &action, NULL);
    setitimer(ITIMER_REAL, &limit, NULL); /* SIGALRM ends the child */
    probe.given = 0;
    raise(SIGTRAP);
    _exit(4);
}

void host_decide(struct host_case *cases, unsigned count)
{
    size_t size = count * sizeof(*cases) + sizeof(unsigned);
    uint8_t *shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return;
    probe.cases = (struct host_case *)(void *)(shared + sizeof(unsigned));
    probe.current = (volatile unsigned *)(void *)shared;
    probe.count = count;
    memcpy(probe.cases, cases, count * sizeof(*cases));
    *probe.current = 0;
    fflush(NULL);
    while (*probe.current < count) {
        pid_t child = fork();
        if (child == 0)
            run_probes();
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) < 0)
            break;
        if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
            break; /* the host does not allow the set-up: everything stays unknown */
        if (WIFEXITED(status))
            break;
        ++*probe.current; /* this one killed it */
    }
    memcpy(cases, probe.cases, count * sizeof(*cases));
    munmap(shared, size);
}

/* ---- Features of the host ----------------------------------------------------------------------
 */

bool host_has_feature(unsigned feature)
{
    static const struct {
        uint8_t feature;
        uint32_t leaf, sub;
        uint8_t reg, bit; /* reg: 0 EAX, 1 EBX, 2 ECX, 3 EDX */
    } bits[] = {
        {FEAT_SSE3, 1, 0, 2, 0},
        {FEAT_PCLMUL, 1, 0, 2, 1},
        {FEAT_SSSE3, 1, 0, 2, 9},
        {FEAT_FMA, 1, 0, 2, 12},
        {FEAT_CX16, 1, 0, 2, 13},
        {FEAT_SSE4_1, 1, 0, 2, 19},
        {FEAT_SSE4_2, 1, 0, 2, 20},
        {FEAT_MOVBE, 1, 0, 2, 22},
        {FEAT_POPCNT, 1, 0, 2, 23},
        {FEAT_AESNI, 1, 0, 2, 25},
        {FEAT_XSAVE, 1, 0, 2, 27},
        {FEAT_AVX, 1, 0, 2, 28},
        {FEAT_F16C, 1, 0, 2, 29},
        {FEAT_RDRAND, 1, 0, 2, 30},
        {FEAT_FSGSBASE, 7, 0, 1, 0},
        {FEAT_BMI1, 7, 0, 1, 3},
        {FEAT_AVX2, 7, 0, 1, 5},
        {FEAT_BMI2, 7, 0, 1, 8},
        {FEAT_INVPCID, 7, 0, 1, 10},
        {FEAT_RDSEED, 7, 0, 1, 18},
        {FEAT_ADX, 7, 0, 1, 19},
        {FEAT_CLFLUSHOPT, 7, 0, 1, 23},
        {FEAT_CLWB, 7, 0, 1, 24},
        {FEAT_SHA, 7, 0, 1, 29},
        {FEAT_PKU, 7, 0, 2, 4},
        {FEAT_GFNI, 7, 0, 2, 8},
        {FEAT_VAES, 7, 0, 2, 9},
        {FEAT_VPCLMUL, 7, 0, 2, 10},
        {FEAT_RDPID, 7, 0, 2, 22},
        {FEAT_MOVDIRI, 7, 0, 2, 27},
        {FEAT_MOVDIR64B, 7, 0, 2, 28},
        {FEAT_SERIALIZE, 7, 0, 3, 14},
        {FEAT_XSAVEOPT, 13, 1, 0, 0},
        {FEAT_XSAVEC, 13, 1, 0, 1},
        {FEAT_XSAVES, 13, 1, 0, 3},
        {FEAT_LAHF64, 0x80000001, 0, 2, 0},
        {FEAT_LZCNT, 0x80000001, 0, 2, 5},
        {FEAT_RDTSCP, 0x80000001, 0, 3, 27},
    };
    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        uint32_t regs[4] = {0};
        if (bits[i].feature != feature)
            continue;
        return __get_cpuid_count(bits[i].leaf, bits[i].sub, &regs[0], &regs[1], &regs[2],
                                 &regs[3]) &&
               (regs[bits[i].reg] >> bits[i].bit & 1);
    }
    return true; /* part of every x86-64 CPU */
}

const struct insn_features *host_features(void)
{
    static struct insn_features amd;
    uint32_t max, ebx = 0, ecx = 0, edx = 0;
    __get_cpuid(0, &max, &ebx, &ecx, &edx);
    if (ebx != signature_AMD_ebx)
        return NULL;
    memset(&amd, 0xff, sizeof(amd));
    amd.bits[FEAT_INTEL / 64] &= ~(1ull << FEAT_INTEL % 64);
    return &amd;
}
