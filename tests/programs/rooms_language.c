/*
 * rooms_language.c - templates of c_kind.py: what compilers make of C. It is not compiled as it
 * stands: a random program takes some of the rooms, which begin at a line with their name, and
 * calls the function of that name. Words in capitals with an argument list are filled in:
 * EXPRESSION(a, b, c) becomes an expression of these variables, NUMBER(1, 9) one of the numbers
 * between. Nothing is undefined, or depends on time or addresses.
 */

/* room machine: a switch as compilers turn into a table of jumps */
static NOINLINE u64 step(u64 a, u64 b, u64 c)
{
    switch (a % NUMBER(5, 40)) {
        CASES(a, b, c);
    default:
        return a ^ (c * 3 + b);
    }
}
static void machine(void)
{
    u64 a = next_random(), b = 1, c = 2;
    for (int i = 0; i < NUMBER(50, 3000); i++) {
        u64 n = step(a, b, c);
        c = b;
        b = a;
        a = n;
        if (!(i & 15))
            mix(a);
    }
    mix(a ^ b);
}

/* room calls: calls through a table */
FUNCTIONS();
static NOINLINE u64 (*const table[8])(u64, u64, u64) = {g0, g1, g2, g3, g4, g5, g6, g7};
static void calls(void)
{
    u64 a = next_random(), b = next_random(), c = 7;
    for (int i = 0; i < NUMBER(50, 4000); i++) {
        c = table[(a ^ i) & 7](a, b, c);
        b = table[c & 7](b, a, i);
        a += c;
    }
    mix(a);
    mix(b);
}

/* room recursion: structures by value, deep in the stack */
struct big {
    u64 v[NUMBER(1, 9)];
    char t[NUMBER(1, 30)];
};
static NOINLINE struct big down(struct big s, u32 n, u64 a)
{
    u64 b = s.v[0], c = n;
    if (!n) {
        s.t[0] ^= (char)a;
        return s;
    }
    s.v[0] += EXPRESSION(a, b, c);
    s = down(s, n - 1, EXPRESSION(a, b, c));
    if ((n & NUMBER(1, 255)) == 3)
        s = down(s, n / 8, b);
    s.v[0] ^= EXPRESSION(a, b, c);
    return s;
}
static void recursion(void)
{
    for (int i = 0; i < NUMBER(1, 12); i++) {
        struct big s;
        memset(&s, 0, sizeof(s));
        s.v[0] = next_random();
        s = down(s, NUMBER(1, 400) * (i % 3 + 1), next_random());
        mix_bytes(&s.v, sizeof(s.v));
        mix(s.t[0]);
    }
}

/* room jumps: longjmp() out of the depth */
static jmp_buf back[4];
static NOINLINE void deeper(u32 n, u64 a)
{
    u64 b = n, c = 5;
    mix(a);
    if (n == NUMBER(0, 3))
        longjmp(back[a & 3], (int)(a >> 2 & 7) + 1);
    deeper(n - 1, EXPRESSION(a, b, c));
    mix(n);
}
static void jumps(void)
{
    static volatile u32 count[4];
    volatile u64 a = next_random();
    for (volatile int i = 0; i < NUMBER(5, 200); i++) {
        int r0 = setjmp(back[0]);
        if (r0) {
            mix(r0);
            continue;
        }
        int r1 = setjmp(back[1]);
        if (r1) {
            mix(r1 * 3);
            a += r1;
            continue;
        }
        int r2 = setjmp(back[2]);
        if (r2) {
            count[2]++;
            a ^= r2;
            if (count[2] % 3)
                continue;
        }
        int r3 = setjmp(back[3]);
        if (r3 > 4) {
            mix(r3 * 7);
            continue;
        }
        a = a * 5 + next_random();
        deeper(NUMBER(4, 90), a);
    }
}

/* room varargs: arguments of all classes, and printf() */
static NOINLINE u64 many(const char *what, ...)
{
    va_list l, m;
    u64 h = 0;
    va_start(l, what);
    va_copy(m, l);
    for (int round = 0; round < 2; round++)
        for (const char *w = what; *w; w++)
            switch (*w) {
            case 'i':
                h = h * 31 + (u32)(round ? va_arg(m, int) : va_arg(l, int));
                break;
            case 'l':
                h = h * 33 ^ (round ? va_arg(m, u64) : va_arg(l, u64));
                break;
            case 'd': {
                double d = round ? va_arg(m, double) : va_arg(l, double);
                u64 v;
                memcpy(&v, &d, 8);
                h = h * 37 + v;
                break;
            }
            case 'L': {
                long double d = round ? va_arg(m, long double) : va_arg(l, long double);
                h = h * 41 + (u64)(int64_t)d;
                break;
            }
            }
    va_end(l);
    va_end(m);
    return h;
}
static void varargs(void)
{
    for (int i = 0; i < NUMBER(3, 300); i++) {
        u64 a = next_random(), b = next_random();
        char s[200];
        mix(many("ildLdiliLddl", (int)a, b, (double)(a >> 8) / 3, (long double)(b >> 9), 1.5, 77,
                 a ^ b, 6, -3.0L, 2.25, (double)i, b));
        snprintf(s, sizeof(s), "%d %llx %.NUMBER(1, 17)g %s %c %Lg %-9u|%+e", (int)a,
                 (unsigned long long)b, (double)(a >> 20) / 7.0, "text", 'a' + (int)(b % 26),
                 (long double)(u32)a / 3.0L, (u32)b, (double)b);
        mix_bytes(s, strlen(s));
    }
}

/* room floats: scalar floating point of three sizes */
static NOINLINE double fd(double a, double b, double c)
{
    double d = REAL_EXPRESSION(a, b, c);
    if (d > 1e200 || d < -1e200)
        d = 1 / d;
    return d;
}
static NOINLINE float ff(float a, float b, float c)
{
    float d = REAL_EXPRESSION(a, b, c);
    return d > 1e30f || d < -1e30f ? 0.5f : d;
}
static NOINLINE long double fl(long double a, long double b, long double c)
{
    long double d = REAL_EXPRESSION(a, b, c);
    return d > 1e2000L || d < -1e2000L ? 2 : d;
}
static void floats(void)
{
    double a = 1.5, b = (int)next_random(), c = 1e-3;
    float x = 1, y = 2, z = 3;
    long double p = 1, q = 3, s = 5;
    for (int i = 0; i < NUMBER(10, 3000); i++) {
        double n = fd(a, b, c);
        c = b;
        b = a;
        a = n != n ? i : n;
        mix_double(a);
        float m = ff(x, y, z);
        z = y;
        y = x;
        x = m != m ? i : m;
        mix_double(x);
        long double t = fl(p, q, s);
        s = q;
        q = p;
        p = t != t ? i : t;
        mix_double((double)p);
        mix((a < b) + 2 * (x >= y) + 4 * (p == q) + 8 * !!isnan(n) + 16 * (a <= c));
        if (fabs(a) < 1e9)
            mix((u64)(int64_t)a);
        if (fabsf(x) < 1e9f)
            mix((u32)(int)x);
        if (p < 1e15L && p > -1e15L)
            mix((u64)(int64_t)p);
        mix_double(sqrt(fabs(a)) + floor(b * .001) + (double)(u32)i +
                   (double)(int64_t)next_random());
    }
}

/* room vectors: vector types of the compiler's */
typedef LANE_TYPE() v1 __attribute__((vector_size(LANES_BYTES())));
typedef uint32_t v2 __attribute__((vector_size(16)));
typedef double v3 __attribute__((vector_size(32)));
typedef float v4 __attribute__((vector_size(16)));
typedef int64_t v5 __attribute__((vector_size(32)));
typedef uint8_t v6 __attribute__((vector_size(32)));
static NOINLINE v1 va(v1 a, v1 b, v1 c)
{
    return LANES_EXPRESSION(a, b, c);
}
static NOINLINE v2 vb(v2 a, v2 b, v2 c)
{
    return (LANES_EXPRESSION(a, b, c)) ^ (a << (b & 31)) ^ (v2)(a > c);
}
static NOINLINE v6 vc(v6 a, v6 b, v6 c)
{
    return (LANES_EXPRESSION(a, b, c)) ^ (a + (b << 1));
}
static void vectors(void)
{
    v1 a, b, c;
    v2 d, e, f;
    v3 g = {1, 2, 3, 4}, h = {5, 6, 7, 8};
    v4 k = {1, 2, 3, 4};
    v5 l;
    v6 m, n, o;
    unsigned char buffer[4200];
    for (unsigned i = 0; i < sizeof(buffer); i++)
        buffer[i] = next_random();
    for (int i = 0; i < NUMBER(10, 2000); i++) {
        unsigned char *q = buffer + next_random() % 4096;
        memcpy(&a, q, sizeof(a));
        memcpy(&b, q + NUMBER(0, 31), sizeof(b));
        memcpy(&c, buffer + i % 4000, sizeof(c));
        a = va(a, b, c);
        memcpy(q, &a, sizeof(a));
        memcpy(&d, q, 16);
        memcpy(&e, q + 3, 16);
        memcpy(&f, q + 7, 16);
        d = vb(d, e, f);
        memcpy(buffer + i % 4096, &d, 16);
        memcpy(&m, q, 32);
        memcpy(&n, q + 1, 32);
        memcpy(&o, q + 2, 32);
        m = vc(m, n, o);
        memcpy(q + 5, &m, 32);
        g = g * .5 + h;
        h = h - g * .25;
        l = g > h;
        k = k * 1.25f - (v4){1, 2, 3, 4};
        k[i & 3] = i;
        mix_bytes(&l, 32);
        mix_bytes(&d, 16);
        mix_double(g[i & 3]);
        mix_double(k[i & 3]);
    }
    mix_bytes(buffer, sizeof(buffer));
}

/* room fields: bit fields and members that are not aligned */
struct __attribute__((packed)) odd {
    u32 a : NUMBER(1, 31);
    int b : NUMBER(2, 32);
    u64 c : NUMBER(1, 60);
    unsigned char d;
    int64_t e : NUMBER(2, 63);
    uint16_t f;
    u32 g;
    u64 h;
    float k;
    double l;
};
static NOINLINE void work(struct odd *o, struct odd *p, u64 a, u64 b, u64 c)
{
    o->a = EXPRESSION(a, b, c);
    p->b = o->a + (u32)b;
    o->c += EXPRESSION(a, b, c);
    p->d ^= o->c;
    o->e = (int64_t)(EXPRESSION(a, b, c)) >> 2;
    p->f += o->e;
    o->g = p->h;
    p->h += o->g * 3 + o->b;
    o->k = (int)(b & 0xffff);
    p->l = o->k / 3;
}
static void fields(void)
{
    char buffer[NUMBER(200, 5000)];
    memset(buffer, 1, sizeof(buffer));
    for (int i = 0; i < NUMBER(10, 3000); i++) {
        work((struct odd *)(buffer + next_random() % (sizeof(buffer) - sizeof(struct odd))),
             (struct odd *)(buffer + next_random() % (sizeof(buffer) - sizeof(struct odd))),
             next_random(), i, next_random());
    }
    mix_bytes(buffer, sizeof(buffer));
}

/* room strings: the C library's string functions up to the edge of a page that may not be read */
static void strings(void)
{
    char *m = mmap(NULL, 12288, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *s = m, *e = m + 8192,
         t[9000];
    mprotect(e, 4096, PROT_NONE);
    for (int i = 0; i < 8192; i++)
        m[i] = 'a' + next_random() % 5;
    for (int i = 0; i < NUMBER(10, 500); i++) {
        size_t n = next_random() % NUMBER(2, 5000), k = next_random() % 300,
               j = next_random() % 3000;
        char c = 'a' + next_random() % 7;
        e[-1] = 0;
        switch (next_random() % 12) {
        case 0:
            memcpy(t, e - n, n);
            mix_bytes(t, n);
            break;
        case 1:
            memmove(s + j, s + j + k, n % 4000);
            break;
        case 2:
            memset(e - n, c, n);
            break;
        case 3:
            mix((u32)(memcmp(s + j, e - n % 4000, n % 4000) < 0));
            break;
        case 4:
            mix(strlen(e - n - 1));
            break;
        case 5: {
            char *f = strchr(e - n - 1, c);
            mix(f ? f - s : 1);
            break;
        }
        case 6: {
            char *f = memchr(e - n, c, n);
            mix(f ? f - s : 2);
            break;
        }
        case 7:
            mix((u32)(strcmp(e - n - 1, e - k - 1) < 0));
            break;
        case 8:
            strncpy(t, e - n - 1, n + 9);
            mix_bytes(t, n + 9);
            break;
        case 9: {
            char *f = strrchr(e - n - 1, c);
            mix(f ? f - s : 3);
            break;
        }
        case 10: {
            char w[3] = {c, 'a' + next_random() % 5, 0};
            char *f = strstr(e - n - 1, w);
            mix(f ? f - s : 4);
            mix(strspn(e - k - 1, "abc"));
            break;
        }
        default:
            __builtin_memcpy(s + j, e - 64, 64);
            s[j + k] = c;
            mix(atoi("12345") + strtoul("77abc", NULL, 16));
        }
    }
    mix_bytes(m, 8192);
    munmap(m, 12288);
}

/* room vm: an interpreter with computed gotos */
static void vm(void)
{
    static const void *const op[8] = {&&a0, &&a1, &&a2, &&a3, &&a4, &&a5, &&a6, &&a7};
    unsigned char program[64];
    u64 a = next_random(), b = 1, c = 9;
    u32 pc = 0, n = NUMBER(50, 9000);
    for (int i = 0; i < 64; i++)
        program[i] = next_random();
#define NEXT                                                                                       \
    do {                                                                                           \
        if (!n--)                                                                                  \
            goto end;                                                                              \
        goto *op[program[pc++ & 63] & 7];                                                          \
    } while (0)
    NEXT;
a0:
    a = EXPRESSION(a, b, c);
    NEXT;
a1:
    b = EXPRESSION(a, b, c);
    NEXT;
a2:
    c = EXPRESSION(a, b, c);
    NEXT;
a3:
    pc += a & 3;
    NEXT;
a4:
    if (a > b)
        pc -= 2;
    NEXT;
a5:
    program[c & 63] ^= a;
    NEXT;
a6:
    mix(a);
    NEXT;
a7 : {
    u64 t = a;
    a = b;
    b = c;
    c = t;
}
    NEXT;
end:
    mix(a ^ b ^ c);
}

/* room sorts: qsort() and malloc() */
static int order(const void *a, const void *b)
{
    u32 x = *(const u32 *)a, y = *(const u32 *)b;
    return x < y ? -1 : x > y;
}
static void sorts(void)
{
    static u32 list[NUMBER(10, 3000)];
    u32 n = sizeof(list) / 4;
    for (u32 i = 0; i < n; i++)
        list[i] = next_random() % NUMBER(5, 99999);
    qsort(list, n, 4, order);
    mix_bytes(list, sizeof(list));
    u64 *h = NULL;
    for (u32 i = 0; i < NUMBER(5, 300); i++) {
        u64 *p = malloc(8 + next_random() % 5000);
        *p = next_random();
        if (i & 1) {
            mix(h ? *h : 0);
            free(h);
            h = p;
        } else {
            p = realloc(p, 16 + next_random() % 9000);
            mix(*p);
            free(p);
        }
    }
    free(h);
}

/* room wide: division, overflow, bit counts */
static NOINLINE u64 divide(u64 a, u64 b, u64 c)
{
    u64 q = a / (b | 1), m = c % ((u32)b | 1), s = (u64)((int64_t)a / (int64_t)(b >> 33 | 1));
    return q ^ m ^ s ^ (u32)a / ((u32)c | 1) ^ (uint16_t)a % ((uint8_t)b | 1) ^
           (u64)((int)a % (int)((c >> 20 & 0xffff) | 1));
}
static void wide(void)
{
    u64 a = next_random(), b = next_random(), c = next_random(), o;
    for (int i = 0; i < NUMBER(20, 3000); i++) {
        a += divide(next_random() >> (next_random() & 63), next_random() >> (next_random() & 63),
                    next_random());
        mix(__builtin_add_overflow(a, b, &o));
        b = o;
        mix(__builtin_mul_overflow((int)a, (int)b, (int *)&o));
        mix(__builtin_popcountll(a) + __builtin_clzll(a | 1) + __builtin_ctz((u32)b | 16) +
            __builtin_parity((u32)c));
        c = __builtin_bswap64(a) ^ (a << (b & 63)) ^ (a >> (b & 31)) ^
            (u64)((int64_t)c >> (a & 63));
    }
    mix(a ^ b ^ c);
}
