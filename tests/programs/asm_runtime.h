/*
 * asm_runtime.h - runs random functions in a small arena and hashes all that signal handlers see:
 * registers, flags that are defined, x87, vectors. `VERBOSE=1` in the environment prints each,
 * `VERBOSE=2` also the vectors.
 */
#define _GNU_SOURCE
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

/* The arena is where no heap of brk() comes, which begins up to a gibibyte behind the program. */
#define ARENA      0x60000000ul
#define ARENA_SIZE 0x10000ul
#define STACK      0x70000000ul
enum { MOST_EVENTS = 6000, MOST_TRACES = 40 }; /* MOST_TRACES: single steps in a row */
#ifdef __x86_64__
enum { PC = REG_RIP, GPRS = 16, FIRST_GPR = 0, FX = 0, VECTORS = 16 };
#else
enum { PC = REG_EIP, GPRS = 8, FIRST_GPR = REG_EDI, FX = 112, VECTORS = 8 };
#endif

/* An instruction: where it is, where to go on when it faults, which flags are undefined before. */
struct fix {
    uintptr_t at, to, undefined;
};
extern const struct fix __start_fixes[], __stop_fixes[];
extern void enter(void (*function)(void), const uintptr_t *registers);
extern void (*const functions[])(void);

static uint64_t hash, events, traces;
static int verbose;

static void mix(uint64_t v)
{
    hash = (hash ^ v) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
}
static void mix_bytes(const void *p, size_t n)
{
    for (uint64_t v; n >= 8; n -= 8, p = (const char *)p + 8)
        memcpy(&v, p, 8), mix(v);
}

static const struct fix *find_fix(uintptr_t at)
{
    const struct fix *low = __start_fixes, *high = __stop_fixes;
    while (low < high) {
        const struct fix *middle = low + (high - low) / 2;
        if (middle->at == at)
            return middle;
        if (middle->at < at)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* x87, MXCSR and vectors of a signal frame, whose parts are there only when they are not in their
 * initial state. `fx` is an FXSAVE area with the header and the AVX part of XSAVE behind it (SDM
 * vol. 1, 13.4). */
static void mix_vectors(const uint8_t *fx)
{
    static const uint8_t zero[16 * 16];
    uint64_t present, pointers[2] = {0};
    uint16_t control = 0x37f, status = 0, opcode = 0;
    uint32_t mxcsr;
    uint8_t tags = 0;
    memcpy(&present, fx + 512, 8);
    memcpy(&mxcsr, fx + 24, 4);
    if (present & 1) {
        memcpy(&control, fx, 2), memcpy(&status, fx + 2, 2), memcpy(&tags, fx + 4, 1);
        memcpy(&opcode, fx + 6, 2), memcpy(pointers, fx + 8, 16);
    }
    mix(control | status << 16 | (uint64_t)tags << 32);
    mix(pointers[0]), mix(pointers[1]), mix(opcode), mix(mxcsr);
    if (verbose)
        printf("  cw %x sw %x tags %x mxcsr %x ip %llx dp %llx op %x", control, status, tags, mxcsr,
               (unsigned long long)pointers[0], (unsigned long long)pointers[1], opcode);
    for (int i = 0; i < 8; i++) {
        uint64_t low = 0;
        uint16_t top = 0;
        if (present & 1)
            memcpy(&low, fx + 32 + 16 * i, 8), memcpy(&top, fx + 40 + 16 * i, 2);
        mix(low), mix(top);
        if (verbose)
            printf(" %04x:%016llx", top, (unsigned long long)low);
    }
    const uint8_t *xmm = present & 2 ? fx + 160 : zero, *high = present & 4 ? fx + 576 : zero;
    mix_bytes(xmm, 16 * VECTORS), mix_bytes(high, 16 * VECTORS);
    if (verbose)
        printf(" h %llx\n", (unsigned long long)hash);
    for (int i = 0; verbose > 1 && i < VECTORS; i++) {
        uint64_t v[4];
        memcpy(v, xmm + 16 * i, 16), memcpy(v + 2, high + 16 * i, 16);
        printf("  %d: %016llx%016llx%016llx%016llx\n", i, (unsigned long long)v[3],
               (unsigned long long)v[2], (unsigned long long)v[1], (unsigned long long)v[0]);
    }
}

/* What a page fault's CR2 says that the manual defines: for VMASKMOV and gathers, which have a VEX
 * prefix, the page, but not which byte. */
static uintptr_t fault_address(const ucontext_t *context)
{
#ifdef __x86_64__
    uintptr_t cr2 = (uintptr_t)context->uc_mcontext.gregs[REG_CR2];
#else
    uintptr_t cr2 = context->uc_mcontext.cr2;
#endif
    if (context->uc_mcontext.gregs[REG_TRAPNO] != 14)
        return 0;
    return *(const uint8_t *)context->uc_mcontext.gregs[PC] == 0xc4 ? cr2 & ~0xffful : cr2;
}

static void end(int status)
{
    fflush(stdout);
    _exit(status);
}

static void handler(int signal, siginfo_t *info, void *context)
{
    greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
#ifdef __x86_64__
    __asm__ volatile("pushf; andl $~0x40000, (%%rsp); popf" ::: "memory", "cc"); /* AC */
#else
    __asm__ volatile("pushf; andl $~0x40000, (%%esp); popf" ::: "memory", "cc");
#endif
    const struct fix *fix = find_fix((uintptr_t)g[PC]);
    int trace = signal == SIGTRAP && g[REG_TRAPNO] == 1;
    if (trace && !fix) { /* out of the random code */
        g[REG_EFL] &= ~0x100;
        return;
    }
    if (!fix) {
        printf("signal %d at %lx, no fix\n", signal, (long)g[PC]);
        end(1);
    }
    uintptr_t flags = (uintptr_t)g[REG_EFL] & (0x40400 | (0x8d5 & ~fix->undefined));
    uintptr_t cr2 = fault_address(context);
    mix((unsigned)signal), mix((uintptr_t)g[PC]), mix(flags), mix(cr2);
    mix((uint64_t)g[REG_TRAPNO] << 32 | (uint32_t)g[REG_ERR]);
    for (int i = 0; i < GPRS; i++)
        mix((uintptr_t)g[FIRST_GPR + i]);
    if (verbose) {
        printf("%llu: signal %d pc %lx trap %ld err %lx cr2 %lx flags %lx h %llx:",
               (unsigned long long)events, signal, (long)g[PC], (long)g[REG_TRAPNO],
               (long)g[REG_ERR], (long)cr2, (long)flags, (unsigned long long)hash);
        for (int i = 0; i < GPRS; i++)
            printf(" %lx", (long)g[FIRST_GPR + i]);
        printf("\n");
    }
    mix_vectors((const uint8_t *)((ucontext_t *)context)->uc_mcontext.fpregs + FX);
    if (++events > MOST_EVENTS) {
        printf("many events: %016llx\n", (unsigned long long)hash);
        end(0);
    }
    if (!trace)
        g[PC] = fix->to;
    else if (++traces >= MOST_TRACES)
        traces = 0, g[REG_EFL] &= ~0x100;
}

/* It is there to interrupt. */
static void alarmed(int signal) {}

static uint64_t random_state;
static uint64_t next_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Pages of the arena: 3 and 11 are not there, 7 is read-only. */
static void map_arena(void)
{
    const int private = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS;
    mmap((void *)(ARENA - 0x100000), 0x210000, PROT_NONE, private | MAP_NORESERVE, -1, 0);
    mprotect((void *)ARENA, 0x3000, PROT_READ | PROT_WRITE);
    mprotect((void *)(ARENA + 0x4000), 0x7000, PROT_READ | PROT_WRITE);
    mprotect((void *)(ARENA + 0xc000), 0x4000, PROT_READ | PROT_WRITE);
    mmap((void *)STACK, 0x20000, PROT_READ | PROT_WRITE, private, -1, 0);
    memset((void *)STACK, 0, 0x20000);
}

/* Integers of all magnitudes, floats and doubles. */
static uint64_t next_value(void)
{
    uint64_t kind = next_random(), value = next_random();
    float floats[2] = {(int)(value & 0xffff) - 0x8000, (int)(value >> 16 & 0xff) / 16.0f};
    double number = (int)value / 256.0;
    switch (kind & 3) {
    case 0:
        return value;
    case 1:
        memcpy(&value, floats, 8);
        return value;
    case 2:
        return value >> (kind >> 8 & 63);
    default:
        memcpy(&value, &number, 8);
        return value;
    }
}

static void fill_arena(void)
{
    mprotect((void *)(ARENA + 0x7000), 0x1000, PROT_READ | PROT_WRITE);
    for (uintptr_t at = ARENA; at < ARENA + ARENA_SIZE; at += 8)
        if ((at & 0xf000) != 0x3000 && (at & 0xf000) != 0xb000) {
            uint64_t value = next_value();
            memcpy((void *)at, &value, 8);
        }
    mprotect((void *)(ARENA + 0x7000), 0x1000, PROT_READ);
}

/* The segment that addresses with GS (64 bits) or FS (32 bits) are in. */
static void set_segment(void)
{
#ifdef __x86_64__
    syscall(SYS_arch_prctl, ARCH_SET_GS, ARENA + 0x1000);
#else
    struct user_desc segment = {
        .entry_number = -1, .base_addr = ARENA + 0x1000, .limit = 0xfffff, .seg_32bit = 1};
    segment.limit_in_pages = segment.useable = 1;
    syscall(SYS_set_thread_area, &segment);
    __asm__ volatile("mov %0, %%fs" : : "r"(segment.entry_number * 8 + 3));
#endif
}

static void catch_signals(unsigned microseconds)
{
    static char alternative[1 << 18];
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    stack_t stack = {.ss_sp = alternative, .ss_size = sizeof(alternative)};
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    sigaltstack(&stack, NULL);
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++)
        sigaction(signals[i], &action, NULL);
    action.sa_handler = alarmed, action.sa_flags = SA_ONSTACK | SA_RESTART;
    sigaction(SIGALRM, &action, NULL);
    if (microseconds)
        setitimer(ITIMER_REAL, &timer, NULL);
}

/* Calls the functions so many times; a timer interrupts them at any time. */
static int run(uint64_t seed, unsigned rounds, unsigned microseconds)
{
    verbose = getenv("VERBOSE") ? atoi(getenv("VERBOSE")) : 0;
    random_state = seed * 0x9e3779b97f4a7c15u | 1;
    map_arena();
    set_segment();
    catch_signals(microseconds);
    for (unsigned round = 0; round < rounds; round++) {
        uintptr_t registers[16];
        if (round % 4 == 0)
            fill_arena();
        for (unsigned i = 0; i < 16; i++)
            registers[i] = (uintptr_t)(next_random() >> (next_random() & 63));
        for (unsigned i = 0; functions[i]; i++)
            enter(functions[i], registers);
        mix_bytes((void *)ARENA, 0x3000), mix_bytes((void *)(ARENA + 0x4000), 0x7000);
        mix_bytes((void *)(ARENA + 0xc000), 0x4000);
        printf("%u: %016llx after %llu events\n", round, (unsigned long long)hash,
               (unsigned long long)events);
    }
    return 0;
}
