/*
 * c_runtime.h - what the rooms of c_kind.py have in common: a hash of all results, and numbers that
 * look random but are the same in each run. The program defines SEED before.
 */
#define _GNU_SOURCE
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef uint32_t u32;
typedef uint64_t u64;
#define NOINLINE __attribute__((noinline, noclone))

static u64 hash = 1, state = SEED;

static NOINLINE void mix(u64 v)
{
    hash = (hash ^ v) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
}

static NOINLINE u64 next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static void mix_bytes(const void *p, size_t n)
{
    const unsigned char *c = p;
    while (n--)
        mix(*c++);
}

/* Which NaN it is depends on the order that the compiler has chosen for operands. */
static void mix_double(double d)
{
    u64 v;
    if (d != d)
        d = 0;
    memcpy(&v, &d, 8);
    mix(v);
}
