/*
 * odd.c - single things that programs do, each many times: `./dev bench odd`. Nobody's whole
 * program is like that, but what is slow here is slow somewhere. One static program, run natively
 * and in guests.
 *
 *     odd            runs all; a line "NAME PICOSECONDS" for each, of one operation
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { PAGE = 4096, LARGE = 320 << 20, SMALL = 64 << 20, TEXT = 1 << 16 };
static char *large; /* LARGE bytes, all touched */
static char text[TEXT + 64] __attribute__((aligned(64)));
static uint8_t *code; /* writable and executable */
static volatile uint64_t sink;
static volatile double real;
static volatile long double wide;

static uint64_t rng(void)
{
    static uint64_t x = 88172645463325252;
    x ^= x << 13;
    x ^= x >> 7;
    return x ^= x << 17;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

static void random_reads(long n, size_t size)
{
    uint64_t sum = 0;
    while (n--)
        sum += (uint64_t)large[rng() % size & ~7ull];
    sink = sum;
}
static void random_320_mib(long n)
{
    random_reads(n, LARGE);
}
static void random_64_mib(long n)
{
    random_reads(n, SMALL);
}
static void page_by_page(long n)
{
    for (size_t at = 0; n--; at = (at + PAGE) % LARGE)
        large[at + 64]++;
}
static void across_pages(long n)
{
    uint64_t sum = 0;
    while (n--)
        sum += *(volatile uint64_t *)(large + (n & 1023) * PAGE + PAGE - 4);
    sink = sum;
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static void x87_multiply_add(long n)
{
    long double x = 1;
    while (n--)
        x = x * 1.0000001L + 0.5L;
    wide = x;
}
static void x87_divide(long n)
{
    long double x = 1e9L;
    while (n--)
        x /= 1.0000001L;
    wide = x;
}
static void x87_remainder(long n)
{
    long double x = 0;
    for (; n; n--)
        x += fmodl((long double)n * 1234.5L, 7.1L);
    wide = x;
}
static void x87_logarithm(long n)
{
    long double x = 0;
    for (; n; n--)
        x += logl((long double)n);
    wide = x;
}
static void mmx_add(long n)
{
    static uint64_t bytes = 0x0102030405060708;
    while (n--)
        __asm__ volatile("movq %0, %%mm0; paddb %%mm0, %%mm0; movq %%mm0, %0" : "+m"(bytes));
    __asm__ volatile("emms");
}
static void sine(long n)
{
    double x = 0;
    for (; n; n--)
        x += sin((double)n * 0.001);
    real = x;
}
static void power(long n)
{
    double x = 0;
    for (; n; n--)
        x += pow((double)n * 0.001, 1.7);
    real = x;
}
static void print_double(long n)
{
    char out[64];
    for (; n; n--)
        sink += (unsigned)snprintf(out, sizeof out, "%.10f", (double)n * 1.1);
}
static void read_double(long n)
{
    while (n--)
        real = strtod("12345.6789e10", NULL);
}
static void divide_64(long n)
{
    uint64_t sum = 0;
    for (; n; n--)
        sum += 1000000000000000000ull / ((uint64_t)n | 1);
    sink = sum;
}

/* ---- Control --------------------------------------------------------------------------------- */

static int plus(int x)
{
    return x + 1;
}
static int times(int x)
{
    return x * 3;
}
static int either(int x)
{
    return x ^ 5;
}
static int minus(int x)
{
    return x - 7;
}
static int (*volatile function[4])(int) = {plus, times, either, minus};

static void indirect_calls(long n)
{
    int x = 1;
    while (n--)
        x = function[rng() & 3](x);
    sink = (unsigned)x;
}
static __attribute__((noinline)) int deeper(int n)
{
    volatile int left = n;
    return left ? deeper(left - 1) + left : 0;
}
static void recursion(long n) /* 2000 calls deep */
{
    for (n /= 2000; n > 0; n--)
        sink = (unsigned)deeper(2000);
}
static void long_jumps(long n)
{
    jmp_buf back;
    volatile long left = n;
    setjmp(back);
    if (left-- > 0)
        longjmp(back, 1);
}

/* ---- Code that changes ----------------------------------------------------------------------- */

static const uint8_t mov_ret[] = {0xb8, 1, 0, 0, 0, 0xc3};

static uint64_t call(const uint8_t *at)
{
    return (uint64_t)((int (*)(void))(uintptr_t)at)();
}
static void data_beside_code(long n)
{
    memcpy(code, mov_ret, sizeof mov_ret);
    for (; n; n--) {
        *(volatile int *)(code + 128) = (int)n;
        sink += call(code);
    }
}
static void code_rewritten(long n)
{
    memcpy(code, mov_ret, sizeof mov_ret);
    for (; n; n--) {
        *(volatile int *)(code + 1) = (int)n;
        sink += call(code);
    }
}
static void code_made(long n)
{
    for (; n; n--) {
        uint8_t *at = code + (n * 16 & 0xfff0);
        memcpy(at, mov_ret, sizeof mov_ret);
        sink += call(at);
    }
}

/* ---- Instructions ---------------------------------------------------------------------------- */

#define REPEAT(n, ...)                                                                             \
    while (n--)                                                                                    \
    __asm__ volatile(__VA_ARGS__)

static void rep_scasb(long n) /* 64 KiB */
{
    for (n /= TEXT; n > 0; n--) {
        const char *p = text;
        long left = -1;
        __asm__ volatile("repne scasb" : "+D"(p), "+c"(left) : "a"(0) : "memory", "cc");
    }
}
static void rep_cmpsb(long n)
{
    for (n /= TEXT; n > 0; n--) {
        const char *p = text, *q = text;
        long left = TEXT - 1;
        __asm__ volatile("repe cmpsb" : "+D"(p), "+S"(q), "+c"(left) : : "memory", "cc");
    }
}
static void rep_movsb(long n) /* 64 bytes */
{
    while (n--) {
        char *p = large, *q = text;
        long left = 64;
        __asm__ volatile("rep movsb" : "+D"(p), "+S"(q), "+c"(left) : : "memory");
    }
}
static void lock_add(long n)
{
    static uint64_t word;
    REPEAT(n, "lock addq $1, %0" : "+m"(word) : : "cc");
}
static void xlat(long n)
{
    REPEAT(n, "mov $5, %%al; xlatb" : : "b"(text) : "rax", "memory");
}
static void push_flags(long n)
{
    REPEAT(n, "sub $128, %%rsp; pushfq; popfq; add $128, %%rsp" : : : "cc", "memory");
}
static void enter_leave(long n)
{
    REPEAT(n, "sub $128, %%rsp; enter $32, $0; leave; add $128, %%rsp" : : : "cc", "memory");
}
static void cpuid(long n)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    while (n--)
        __cpuid_count(0, 0, a, b, c, d);
    sink = a + b + c + d;
}
static void time_stamp(long n)
{
    while (n--)
        sink += __rdtsc();
}
static void mxcsr(long n)
{
    unsigned word;
    REPEAT(n, "stmxcsr %0; ldmxcsr %0" : "=m"(word));
}
static void fxsave(long n)
{
    static char image[512] __attribute__((aligned(16)));
    REPEAT(n, "fxsave %0; fxrstor %0" : "+m"(image));
}
static void aesenc(long n)
{
    REPEAT(n, "aesenc %%xmm1, %%xmm0" : : : "xmm0");
}
__attribute__((target("avx2"))) static void gather(long n)
{
    const __m256i index = _mm256_setr_epi32(0, 5000, 10, 15000, 20, 9000, 30, 12000);
    __m256i sum = _mm256_setzero_si256();
    while (n--)
        sum =
            _mm256_add_epi32(sum, _mm256_i32gather_epi32((const int *)large + (n & 255), index, 4));
    sink += (unsigned)_mm256_extract_epi32(sum, 0);
}
static void crc32(long n)
{
    REPEAT(n, "crc32q %%rax, %%rbx" : : : "rbx");
}

/* ---- Kernel ---------------------------------------------------------------------------------- */

static sigjmp_buf recovered;
static int *volatile nowhere = (int *)8;
static void on_signal(int number)
{
    sink += (unsigned)number;
}
static void on_fault(int number)
{
    siglongjmp(recovered, number);
}
static void get_time(long n)
{
    while (n--)
        real = seconds();
}
static void signals(long n)
{
    signal(SIGUSR1, on_signal);
    while (n--)
        raise(SIGUSR1);
}
static void faults(long n)
{
    volatile long left = n;
    signal(SIGSEGV, on_fault);
    while (left-- > 0)
        if (!sigsetjmp(recovered, 1))
            *nowhere = 1;
}
static void protect_page(long n)
{
    while (n--) {
        *large = 1;
        mprotect(large, PAGE, PROT_READ);
        sink += (uint64_t)*large;
        mprotect(large, PAGE, PROT_READ | PROT_WRITE);
    }
}
static void yield(long n)
{
    while (n--)
        sched_yield();
}
static void fork_wait(long n)
{
    while (n--) {
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        waitpid(child, NULL, 0);
    }
}

/* ---- All ------------------------------------------------------------------------------------- */

static const struct odd {
    const char *name;
    void (*run)(long n);
    long times;
} all[] = {
#define ODD(name, times)                                                                           \
    {                                                                                              \
#name, name, times                                                                         \
    }
    ODD(random_320_mib, 2000000),
    ODD(random_64_mib, 2000000),
    ODD(page_by_page, 300000),
    ODD(across_pages, 2000000),
    ODD(x87_multiply_add, 2000000),
    ODD(x87_divide, 1000000),
    ODD(x87_remainder, 500000),
    ODD(x87_logarithm, 200000),
    ODD(mmx_add, 1000000),
    ODD(sine, 1000000),
    ODD(power, 500000),
    ODD(print_double, 100000),
    ODD(read_double, 200000),
    ODD(divide_64, 3000000),
    ODD(indirect_calls, 3000000),
    ODD(recursion, 4000000),
    ODD(long_jumps, 2000000),
    ODD(data_beside_code, 100000),
    ODD(code_rewritten, 30000),
    ODD(code_made, 30000),
    ODD(rep_scasb, 1 << 26),
    ODD(rep_cmpsb, 1 << 26),
    ODD(rep_movsb, 1000000),
    ODD(lock_add, 3000000),
    ODD(xlat, 1000000),
    ODD(push_flags, 1000000),
    ODD(enter_leave, 1000000),
    ODD(cpuid, 30000),
    ODD(time_stamp, 1000000),
    ODD(mxcsr, 1000000),
    ODD(fxsave, 50000),
    ODD(aesenc, 3000000),
    ODD(gather, 1000000),
    ODD(crc32, 3000000),
    ODD(get_time, 300000),
    ODD(signals, 20000),
    ODD(faults, 10000),
    ODD(protect_page, 20000),
    ODD(yield, 100000),
    ODD(fork_wait, 200),
};

int main(void)
{
    large = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    code = mmap(NULL, TEXT, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (large == MAP_FAILED || code == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    memset(large, 'a', LARGE);
    memset(text, 'a', TEXT - 1);
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++) {
        double begin = seconds();
        all[i].run(all[i].times);
        printf("%s %.0f\n", all[i].name, (seconds() - begin) / (double)all[i].times * 1e12);
        fflush(stdout);
    }
    return 0;
}
