/*
 * rooms_system.c - templates of c_kind.py: what programs do with their kernel, such as code that
 * changes, threads, page faults, debuggers and timers. Its form is that of rooms_language.c.
 */

/* room barrier: a write barrier out of mprotect() and SIGSEGV, division by zero, null pointers */
static char *guarded;
static volatile u32 faults;
static sigjmp_buf out;
static void opened(int s, siginfo_t *i, void *c)
{
    char *p = (char *)((uintptr_t)i->si_addr & ~4095ul);
    if (p < guarded || p >= guarded + 65536)
        siglongjmp(out, 2);
    faults++;
    mix((p - guarded) >> 12);
    mprotect(p, 4096, 3);
}
static void divided(int s, siginfo_t *i, void *c)
{
    mix(i->si_code);
    siglongjmp(out, 1);
}
static void barrier(void)
{
    guarded = mmap(NULL, 65536, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction a = {.sa_sigaction = opened, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &a, NULL);
    a.sa_sigaction = divided;
    sigaction(SIGFPE, &a, NULL);
    for (volatile int i = 0; i < NUMBER(2, 30); i++) {
        mprotect(guarded, 65536, i % 3 ? PROT_READ : 0);
        u64 s = 0;
        for (u32 k = 0; k < NUMBER(20, 900); k++) {
            u32 at = next_random() % 65528;
            u64 v;
            memcpy(&v, guarded + at, 8);
            v += k;
            memcpy(guarded + at, &v, 8);
            s += v;
        }
        mix(s);
        volatile int zero = 0, one = i + 1;
        int r = sigsetjmp(out, 1);
        if (!r) {
            volatile int q = one / (i & 1 ? zero : one);
            mix(q);
        } else
            mix(r + 10);
        if (!sigsetjmp(out, 1)) {
            volatile char *null = (char *)(uintptr_t)(i * 8);
            mix(*null);
        } else
            mix(99);
    }
    mix(faults);
    mix_bytes(guarded, 65536);
    munmap(guarded, 65536);
    signal(SIGSEGV, SIG_DFL);
    signal(SIGFPE, SIG_DFL);
}

/* room code: machine code made at run time, in five ways */
static u64 (*volatile made)(void);
static unsigned char *emit(unsigned char *p, u32 n)
{
    *p++ = 0xb8;
    u32 v = next_random();
    memcpy(p, &v, 4);
    p += 4;
    while (n--) {
        v = next_random();
        switch (next_random() % 6) {
        case 0:
            *p++ = 0x05;
            memcpy(p, &v, 4);
            p += 4;
            break;
        case 1:
            *p++ = 0x35;
            memcpy(p, &v, 4);
            p += 4;
            break;
        case 2:
            *p++ = 0xc1;
            *p++ = 0xc0;
            *p++ = v & 31;
            break;
        case 3:
            *p++ = 0x69;
            *p++ = 0xc0;
            v |= 1;
            memcpy(p, &v, 4);
            p += 4;
            break;
        case 4:
            *p++ = 0xa8;
            *p++ = v;
            *p++ = 0x74;
            *p++ = 5;
            *p++ = 0x2d;
            memcpy(p, &v, 4);
            p += 4;
            break;
        default:
            *p++ = 0xeb;
            *p++ = v & 7;
            for (u32 i = v & 7; i; i--)
                *p++ = 0xcc;
        }
    }
    *p++ = 0x31;
    *p++ = 0xd2;
    *p++ = 0xc3;
    return p;
}
static void code(void)
{
    int fd = memfd_create("x", 0);
    if (ftruncate(fd, 16384))
        return;
    int way = NUMBER(0, 4);
    unsigned char *x = mmap(NULL, 16384, 7, way == 2 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                            way == 2 ? fd : -1, 0),
                  *w = way == 2 ? mmap(NULL, 16384, 3, MAP_SHARED, fd, 0) : x;
    for (int i = 0; i < NUMBER(5, 300); i++) {
        u32 at = NUMBER(0, 1) ? next_random() % 12000 : 4096 - next_random() % 200;
        if (way == 1)
            mprotect(x, 16384, 3);
        unsigned char *end = emit(w + at, next_random() % NUMBER(2, 60));
        if (way == 1)
            mprotect(x, 16384, 5);
        if (way == 3 && !(i & 7)) {
            munmap(x, 16384);
            x = w = mmap(x, 16384, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            end = emit(w + at, 5);
        }
        if (way == 4 && !(i & 15)) {
            pid_t p = fork();
            if (!p) {
                emit(x + at, 9);
                made = (void *)(x + at);
                _exit((int)made() & 63);
            }
            int s;
            waitpid(p, &s, 0);
            mix(WIFEXITED(s));
        }
        made = (void *)(x + at);
        for (int k = 0; k < NUMBER(1, 6); k++) {
            mix((u32)made());
            if (way != 1) {
                w[at + 1]++;
                mix((u32)made());
            }
        }
        (void)end;
    }
    munmap(x, 16384);
    if (w != x)
        munmap(w, 16384);
    close(fd);
}

/* room threads: atomics, a mutex, waiting for one's turn */
static _Atomic u64 shared[4];
static _Atomic u32 turn;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static u64 plain, sums[4];
static __thread u64 own;
static NOINLINE u64 thread_work(u64 a, u64 b, u64 c)
{
    return EXPRESSION(a, b, c);
}
static void *thread(void *arg)
{
    u64 n = (uintptr_t)arg, a = n + 1, b = 3, c = 5;
    for (u32 i = 0; i < NUMBER(100, 4000); i++) {
        atomic_fetch_add(&shared[0], i * (n + 1));
        atomic_fetch_xor(&shared[1], (u64)i << n);
        u64 o = atomic_load(&shared[2]);
        while (!atomic_compare_exchange_weak(&shared[2], &o, o + n))
            ;
        a = thread_work(a, b, c);
        own += a;
        if (!(i % 16)) {
            pthread_mutex_lock(&mutex);
            plain += i;
            pthread_mutex_unlock(&mutex);
        }
        if (!(i % 512)) {
            while (atomic_load(&turn) % 3 != n % 3)
                sched_yield();
            shared[3] = shared[3] * 3 + n;
            atomic_fetch_add(&turn, 1);
        }
    }
    sums[n] = own;
    return NULL;
}
static void threads(void)
{
    pthread_t t[3];
    for (uintptr_t i = 0; i < 3; i++)
        pthread_create(&t[i], NULL, thread, (void *)i);
    for (int i = 0; i < 3; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < 4; i++)
        mix(shared[i]);
    mix(plain);
    mix(sums[0] ^ sums[1] * 3 ^ sums[2] * 5);
}

/* room contexts: swapcontext() */
static ucontext_t mainc, co[3];
static u32 togo;
static u64 passed;
static void routine(int n)
{
    u64 a = n, b = 1, c = 2;
    for (;;) {
        a = EXPRESSION(a, b, c);
        c = b + n;
        b = a;
        passed = passed * 7 + a;
        mix(passed);
        if (!togo--)
            break;
        swapcontext(&co[n], &co[(n + 1 + (a & 1)) % 3]);
    }
    setcontext(&mainc);
}
static void contexts(void)
{
    static char stacks[3][65536];
    togo = NUMBER(5, 500);
    for (int i = 0; i < 3; i++) {
        getcontext(&co[i]);
        co[i].uc_stack.ss_sp = stacks[i];
        co[i].uc_stack.ss_size = 65536;
        makecontext(&co[i], (void (*)(void))routine, 1, i);
    }
    swapcontext(&mainc, &co[0]);
    mix(passed);
}

/* room traced: a child under ptrace(): single steps, breakpoints, watchpoints */
static volatile u64 watched[4];
static u32 trace_rounds = NUMBER(3, 40);
static NOINLINE u64 traced_work(u64 a, u64 b, u64 c)
{
    watched[a & 3] = EXPRESSION(a, b, c);
    return watched[1] ^ EXPRESSION(a, b, c);
}
#ifdef __x86_64__
#define IP(r) (r).rip
#else
#define IP(r) (u32)(r).eip
#endif
static void traced(void)
{
    u64 seed = next_random();
    int way = NUMBER(0, 2);
    fflush(stdout);
    pid_t p = fork();
    if (!p) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        u64 a = seed, b = 3, c = 4;
        for (u32 i = 0; i < trace_rounds; i++) {
            a = traced_work(a, b, c);
            b += a;
            c ^= b;
        }
        _exit((int)(a & 63));
    }
    int s, n = 0;
    struct user_regs_struct r;
    waitpid(p, &s, 0);
    size_t dr = offsetof(struct user, u_debugreg);
    if (way != 2) {
        ptrace(PTRACE_POKEUSER, p, dr, (void *)traced_work);
        ptrace(PTRACE_POKEUSER, p, dr + sizeof(long), (void *)&watched[NUMBER(0, 3)]);
        ptrace(PTRACE_POKEUSER, p, dr + 7 * sizeof(long),
               (void *)(way == 0 ? 0x1ul : 0x00d0000dul));
    }
    while (n < 3000) {
        int step = way == 1 && n % 5;
        ptrace(step ? PTRACE_SINGLESTEP : way == 2 ? PTRACE_SINGLESTEP : PTRACE_CONT, p, 0, 0);
        waitpid(p, &s, 0);
        if (WIFEXITED(s)) {
            mix(WEXITSTATUS(s));
            break;
        }
        ptrace(PTRACE_GETREGS, p, 0, &r);
        uintptr_t at = IP(r) - (uintptr_t)traced_work;
        if (at < 4096) {
            mix(at);
            mix(ptrace(PTRACE_PEEKUSER, p, dr + 6 * sizeof(long), 0) & 0x400f);
        }
        n++;
    }
    mix(n > 0);
    if (n >= 3000) {
        kill(p, SIGKILL);
        waitpid(p, &s, 0);
    }
}

/* room remap: code in pages that are moved, dropped, shared after fork(), written by a debugger */
static u64 (*volatile mapped)(void);
static void put(unsigned char *p, u32 v)
{
    unsigned char c[9] = {0xb8, v, v >> 8, v >> 16, v >> 24, 0x31, 0xd2, 0xc3};
    memcpy(p, c, 9);
}
static void remap(void)
{
    unsigned char *a = mmap(NULL, 8 * 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                  *b = a + 4 * 4096;
    u32 off = next_random() % 4000;
    for (int i = 0; i < NUMBER(4, 120); i++) {
        unsigned char *x = a + (next_random() & 1) * 4096;
        put(x + off, i);
        mapped = (void *)(x + off);
        mix((u32)mapped());
        mix((u32)mapped());
        switch (next_random() % 6) {
        case 0:
            madvise(x, 4096, MADV_DONTNEED);
            mix(x[off]);
            put(x + off, i + 7);
            mix((u32)mapped());
            break;
        case 1:
            mremap(x, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, b);
            mapped = (void *)(b + off);
            mix((u32)mapped());
            mmap(x, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            put(x + off, i + 9);
            mapped = (void *)(x + off);
            mix((u32)mapped());
            put(b + off, i * 2);
            mapped = (void *)(b + off);
            mix((u32)mapped());
            break;
        case 2: {
            pid_t p = fork();
            if (!p) {
                for (int k = 0; k < 9; k++) {
                    put(x + off, k);
                    mapped();
                }
                _exit((int)mapped());
            }
            int s;
            put(x + off, 77 + i);
            mix((u32)mapped());
            waitpid(p, &s, 0);
            mix(WEXITSTATUS(s));
            mix((u32)mapped());
            break;
        }
        case 3: {
            pid_t p = fork();
            if (!p) {
                ptrace(PTRACE_TRACEME, 0, 0, 0);
                mapped();
                raise(SIGSTOP);
                _exit((int)mapped() & 127);
            }
            int s;
            waitpid(p, &s, 0);
            long w = 0;
            unsigned char c[5] = {0xb8, i, 0, 0, 0};
            memcpy(&w, x + off, sizeof(w));
            memcpy(&w, c, sizeof(w) < 5 ? 4 : 5);
            if (i & 1)
                ptrace(PTRACE_POKETEXT, p, x + off, w);
            else {
                struct iovec l = {c, 5}, r = {x + off, 5};
                process_vm_writev(p, &l, 1, &r, 1, 0);
            }
            ptrace(PTRACE_CONT, p, 0, 0);
            waitpid(p, &s, 0);
            mix(WEXITSTATUS(s));
            mix((u32)mapped());
            break;
        }
        case 4:
            mprotect(x, 4096, PROT_READ);
            mprotect(x, 4096, 7);
            mix((u32)mapped());
            x[off + 1] = i;
            mix((u32)mapped());
            break;
        default:
            memmove(a + 2 * 4096 + off, x + off, 9);
            mapped = (void *)(a + 2 * 4096 + off);
            mix((u32)mapped());
        }
    }
    munmap(a, 8 * 4096);
}

/* room alarms: a timer's handler that uses floating point, amid arithmetic */
static volatile u32 alarm_count;
static volatile double alarm_sum;
static void alarm_on(int s)
{
    alarm_count++;
    alarm_sum = alarm_sum * .5 + alarm_count / 3.0;
    long double l = alarm_sum;
    alarm_sum += (double)(l / 7);
}
static NOINLINE double alarm_work(double a, double b, double c, u64 *h)
{
    double d = REAL_EXPRESSION(a, b, c);
    *h = *h * 31 + (u64)(int64_t)(d > 1e15 || d < -1e15 || d != d ? 1 : d);
    return d > 1e200 || d < -1e200 || d != d ? 1.5 : d;
}
static void alarms(void)
{
    struct itimerval t = {{0, NUMBER(60, 900)}, {0, 100}}, o = {{0}};
    signal(SIGALRM, alarm_on);
    setitimer(ITIMER_REAL, &t, NULL);
    double a = 1, b = 2, c = 3;
    u64 h = 1, x = 1, y = 2, z = 3;
    long double q = 1;
    for (u32 i = 0; i < NUMBER(9999, 200000); i++) {
        a = alarm_work(b, c, a, &h);
        b = alarm_work(c, a, b, &h);
        c += .5;
        x = y * 3 + (z >> 1);
        y ^= x + (x < z);
        z += y - (x > y);
        q = q * .75L + (u32)x;
    }
    setitimer(ITIMER_REAL, &o, NULL);
    mix(h);
    mix_double(a);
    mix_double((double)q);
    mix(x ^ z);
    signal(SIGALRM, SIG_IGN);
}
