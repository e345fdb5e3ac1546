/*
 * workloads.c - the workloads of `./dev bench workloads`: one static program, run natively and in
 * guests.
 *
 *     workloads list              the names
 *     workloads NAME...           runs them; a line "NAME NANOSECONDS CHECKSUM" for each
 *
 * A workload is a function here, or a program of Debian's that lies beside this one in the same
 * root folder; of such a program the time from fork to exit is taken and the checksum is that of
 * its output. Times are CLOCK_MONOTONIC's. Each runs in a child process, so that one that dies
 * costs only itself
 * ("NAME failed STATUS"). Checksums must agree on every machine.
 */
#define _GNU_SOURCE
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t rng_state;

static uint32_t rng(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static _Noreturn void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Memory with every page touched, so that a workload that is not about page faults has none. */
static void *memory(size_t size)
{
    void *p =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED)
        die("mmap");
    return p;
}

static uint64_t fnv(uint64_t hash, const void *data, size_t size)
{
    for (const uint8_t *p = data; size--; p++)
        hash = (hash ^ *p) * 0x100000001b3ull;
    return hash;
}
static const uint64_t FNV_BEGIN = 0xcbf29ce484222325ull;

/* ---- Integer: hash, sort, tree
 * ------------------------------------------------------------------- */

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* One block as in SHA-256 (FIPS 180-4, 6.2.2), with constants of the caller's. */
static void sha256_block(uint32_t h[8], const uint8_t *data, const uint32_t k[64])
{
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)data[4 * i] << 24 | data[4 * i + 1] << 16 | data[4 * i + 2] << 8 |
               data[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] +
               (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, h, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t t1 = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                      ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        uint32_t t2 = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                      ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        v[7] = v[6], v[6] = v[5], v[5] = v[4], v[4] = v[3] + t1;
        v[3] = v[2], v[2] = v[1], v[1] = v[0], v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += v[i];
}

/* SHA-256's block function over 16 MiB, then 1.5 million insertions into a hash table of 4 MiB. */
static uint64_t hash(void)
{
    enum { SIZE = 16 << 20, SLOTS = 1 << 19, KEYS = 300000 };
    uint8_t *data = memory(SIZE);
    uint64_t(*slots) = memory(SLOTS * sizeof(*slots));
    uint32_t k[64], state[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    for (unsigned i = 0; i < SIZE; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 24);
    for (unsigned i = 0; i < 64; i++)
        k[i] = rng() * 2 + 1;
    for (unsigned i = 0; i < SIZE; i += 64)
        sha256_block(state, data + i, k);
    for (unsigned i = 0; i < 5 * KEYS; i++) {
        uint64_t key = rng() % KEYS + 1;
        unsigned at = (uint32_t)key * 2654435761u >> 13;
        while (slots[at] && slots[at] >> 32 != key)
            at = (at + 1) % SLOTS;
        slots[at] = key << 32 | ((uint32_t)slots[at] + 1);
    }
    return fnv(fnv(FNV_BEGIN, state, sizeof(state)), slots, SLOTS * sizeof(*slots) / 16);
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

struct node {
    struct node *left, *right;
    uint32_t key;
};

/* qsort() of 600 000 integers; 150 000 nodes put into a binary tree and looked up. */
static uint64_t sort_tree(void)
{
    enum { N = 600000, NODES = 150000 };
    int *values = memory(N * sizeof(*values));
    struct node *pool = memory(NODES * sizeof(*pool)), *root = NULL;
    for (unsigned i = 0; i < N; i++)
        values[i] = (int)rng();
    qsort(values, N, sizeof(int), compare_ints);
    for (unsigned i = 0; i < NODES; i++) {
        struct node **at = &root;
        pool[i].key = rng();
        while (*at)
            at = pool[i].key < (*at)->key ? &(*at)->left : &(*at)->right;
        *at = &pool[i];
    }
    uint64_t found = 0;
    for (unsigned i = 0; i < NODES; i++) {
        uint32_t key = i & 1 ? pool[i].key : rng();
        const struct node *n = root;
        while (n && n->key != key)
            n = key < n->key ? n->left : n->right;
        found += n != NULL;
    }
    return fnv(found, values, N * sizeof(*values));
}

/* ---- Floating point, vectors, memory
 * --------------------------------------------------------------- */

struct body {
    double x[3], v[3], mass;
};

/* Five bodies pulling at each other, and points of the Mandelbrot set: scalar double precision. */
static uint64_t floating(void)
{
    struct body bodies[5];
    for (unsigned i = 0; i < 5; i++)
        for (unsigned d = 0; d < 3; d++) {
            bodies[i].x[d] = (double)(rng() % 2000) / 100 - 10;
            bodies[i].v[d] = (double)(rng() % 2000) / 1000 - 1;
            bodies[i].mass = 1 + i;
        }
    for (unsigned step = 0; step < 1500000; step++) {
        for (unsigned i = 0; i < 5; i++)
            for (unsigned j = i + 1; j < 5; j++) {
                double r[3], square = 0.01;
                for (unsigned d = 0; d < 3; d++) {
                    r[d] = bodies[i].x[d] - bodies[j].x[d];
                    square += r[d] * r[d];
                }
                double pull = 0.0001 / (square * sqrt(square));
                for (unsigned d = 0; d < 3; d++) {
                    bodies[i].v[d] -= r[d] * bodies[j].mass * pull;
                    bodies[j].v[d] += r[d] * bodies[i].mass * pull;
                }
            }
        for (unsigned i = 0; i < 5; i++)
            for (unsigned d = 0; d < 3; d++)
                bodies[i].x[d] += 0.0001 * bodies[i].v[d];
    }
    uint64_t inside = 0;
    for (int i = 0; i < 240; i++)
        for (int j = 0; j < 200; j++) {
            double cx = i / 80.0 - 2, cy = j / 100.0 - 1, x = 0, y = 0;
            unsigned n = 0;
            for (; n < 500 && x * x + y * y < 4; n++) {
                double t = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = t;
            }
            inside += n;
        }
    return fnv(inside, bodies, sizeof(bodies));
}

/* Product of float matrices with AVX2 and FMA, by small integers that every order of adding gets
 * exact; then saturating bytes. */
__attribute__((target("avx2,fma"))) static uint64_t matrix(void)
{
    enum { N = 384, ROUNDS = 6 };
    float *a = memory(N * N * sizeof(float)), *b = memory(N * N * sizeof(float)),
          *c = memory(N * N * sizeof(float));
    for (unsigned i = 0; i < N * N; i++)
        a[i] = (float)(rng() % 16), b[i] = (float)(rng() % 16);
    for (unsigned round = 0; round < ROUNDS; round++)
        for (unsigned i = 0; i < N; i++)
            for (unsigned j = 0; j < N; j += 32) {
                __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(),
                                 _mm256_setzero_ps()};
                for (unsigned k = 0; k < N; k++) {
                    __m256 x = _mm256_broadcast_ss(&a[i * N + k]);
                    for (unsigned n = 0; n < 4; n++)
                        sum[n] = _mm256_fmadd_ps(x, _mm256_loadu_ps(&b[k * N + j + 8 * n]), sum[n]);
                }
                for (unsigned n = 0; n < 4; n++)
                    _mm256_storeu_ps(&c[i * N + j + 8 * n], sum[n]);
            }
    __m256i total = _mm256_setzero_si256(), *bytes = (__m256i *)c;
    for (unsigned round = 0; round < 40; round++)
        for (unsigned i = 0; i < N * N / 8; i++) {
            __m256i v = _mm256_loadu_si256(&bytes[i]);
            total = _mm256_add_epi64(total, _mm256_sad_epu8(_mm256_subs_epu8(v, total), v));
        }
    return fnv(fnv(FNV_BEGIN, c, N * N * sizeof(float)), &total, sizeof(total));
}

/* The C library's memcpy(), memset() and memmove() over 8 MiB (the variants that the processor's
 * CPUID makes it choose), then many short ones. */
static uint64_t copy(void)
{
    enum { SIZE = 8 << 20 };
    uint8_t *a = memory(SIZE), *b = memory(SIZE);
    for (unsigned i = 0; i < SIZE; i++)
        a[i] = (uint8_t)(i * 2654435761u >> 24);
    for (unsigned round = 0; round < 40; round++) {
        memcpy(b, a, SIZE);
        memmove(a + 64, a, SIZE - 64);
        memset(b + round * 4096, (int)round, 4096);
    }
    for (unsigned i = 0; i < 4000000; i++)
        memcpy(b + (i * 61 & 0xffff), a + (i * 127 & 0xffff), 16 + (i & 127));
    uint64_t sum = FNV_BEGIN;
    for (unsigned i = 0; i < SIZE; i += 4096)
        sum = fnv(fnv(sum, a + i, 8), b + i, 8);
    return sum;
}

/* ---- The operating system
 * ----------------------------------------------------------------------------- */

/* fork(), exec of this same program, which ends at once, and the wait for it. */
static uint64_t fork_exec(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < 250; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            execl("/bin/workloads", "workloads", "end", NULL);
            _exit(99);
        }
        if (child < 0 || waitpid(child, &status, 0) != child)
            die("fork");
        sum = sum * 31 + (uint64_t)WEXITSTATUS(status);
    }
    return sum;
}

/* A byte to and fro between two processes. */
static uint64_t ping_pong(void)
{
    enum { ROUNDS = 10000 };
    int there[2], back[2];
    uint64_t sum = 0;
    if (pipe(there) || pipe(back))
        die("pipe");
    pid_t child = fork();
    if (child < 0)
        die("fork");
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint8_t byte = (uint8_t)i;
        if (child == 0) {
            if (read(there[0], &byte, 1) != 1)
                _exit(1);
            byte = (uint8_t)(byte * 3 + 1);
            if (write(back[1], &byte, 1) != 1)
                _exit(1);
        } else {
            if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1)
                die("pipe");
            sum = sum * 31 + byte;
        }
    }
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    return sum;
}

/* The first write to each of 8192 pages of 4 KiB, eight times. */
static uint64_t page_faults(void)
{
    enum { SIZE = 32 << 20 };
    uint64_t sum = 0;
    for (unsigned round = 0; round < 8; round++) {
        uint8_t *p = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            die("mmap");
        madvise(p, SIZE, MADV_NOHUGEPAGE); /* fails where there are none: as well */
        for (unsigned i = 0; i < SIZE; i += 4096)
            p[i] = (uint8_t)(i >> 12);
        for (unsigned i = 0; i < SIZE; i += 4096)
            sum = sum * 31 + p[i];
        munmap(p, SIZE);
    }
    return sum;
}

/* mmap() of 16 pages, a write to two of them, mprotect(), a read, munmap(). */
static uint64_t maps(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < 10000; i++) {
        uint8_t *p =
            mmap(NULL, 16 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            die("mmap");
        p[0] = (uint8_t)i;
        p[4096 * (i % 15 + 1)] = (uint8_t)(i >> 8);
        if (mprotect(p, 16 * 4096, PROT_READ))
            die("mprotect");
        sum = sum * 31 + p[0] + p[4096 * (i % 15 + 1)];
        munmap(p, 16 * 4096);
    }
    return sum;
}

static uint64_t system_calls(void)
{
    uint64_t same = 0;
    long parent = syscall(SYS_getppid);
    for (unsigned i = 0; i < 800000; i++)
        same += syscall(SYS_getppid) == parent;
    return same;
}

/* ---- Two processors
 * ------------------------------------------------------------------------------------ */

enum { PIECES = 64 };
static uint64_t pieces[PIECES];
static unsigned next_piece;

/* Takes pieces of the work until none is left: a sort and a hash of memory of its own. */
static void *take_pieces(void *unused)
{
    enum { N = 20000 };
    int *values = malloc(N * sizeof(*values));
    if (!values)
        die("malloc");
    for (unsigned piece; (piece = __atomic_fetch_add(&next_piece, 1, __ATOMIC_RELAXED)) < PIECES;) {
        uint64_t x = piece;
        for (unsigned i = 0; i < N; i++) {
            x = x * 6364136223846793005ull + 1442695040888963407ull;
            values[i] = (int)(x >> 33);
        }
        qsort(values, N, sizeof(*values), compare_ints);
        pieces[piece] = fnv(piece, values, N * sizeof(*values));
    }
    free(values);
    return unused;
}

static uint64_t parallel(unsigned threads)
{
    pthread_t thread[2];
    for (unsigned i = 1; i < threads; i++)
        if (pthread_create(&thread[i], NULL, take_pieces, NULL))
            die("pthread_create");
    take_pieces(NULL);
    for (unsigned i = 1; i < threads; i++)
        pthread_join(thread[i], NULL);
    return fnv(FNV_BEGIN, pieces, sizeof(pieces));
}

static uint64_t one_thread(void)
{
    return parallel(1);
}
static uint64_t two_threads(void)
{
    return parallel(2);
}

/* ---- Programs of Debian's
 * -------------------------------------------------------------------------------- */

/* Runs it; the checksum is that of its output, all of which is read. */
static uint64_t program(char *const argv[])
{
    int out[2], status;
    uint64_t sum = FNV_BEGIN;
    static uint8_t buffer[1 << 16];
    if (pipe(out))
        die("pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(out[1], 1);
        close(out[0]);
        close(out[1]);
        execve(argv[0], argv, (char *const[]){"LC_ALL=C", "HOME=/", NULL});
        die(argv[0]);
    }
    close(out[1]);
    for (ssize_t n; (n = read(out[0], buffer, sizeof(buffer))) > 0;)
        sum = fnv(sum, buffer, (size_t)n);
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
        fprintf(stderr, "%s: status %x\n", argv[0], (unsigned)status);
        exit(1);
    }
    return sum;
}

#define DATA "/data/"
static const struct {
    const char *name;
    uint64_t (*run)(void);
    char *const *argv; /* instead of `run` */
} workloads[] = {
#define PROGRAM(...)                                                                               \
    NULL, (char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }
    {"compile", PROGRAM("/bin/cc1", "-quiet", "-O2", "-fpreprocessed", DATA "source.i", "-o", "-")},
    {"gzip", PROGRAM("/bin/gzip", "-6", "-n", "-c", DATA "bytes")},
    {"xz", PROGRAM("/bin/xz", "-1", "-T1", "-c", DATA "bytes")},
    {"hash", hash, NULL},
    {"sort-tree", sort_tree, NULL},
    {"perl", PROGRAM("/bin/perl", DATA "work.pl")},
    {"sqlite", PROGRAM("/bin/sqlite3", "-batch", ":memory:", ".read " DATA "work.sql")},
    {"float", floating, NULL},
    {"matrix", matrix, NULL},
    {"copy", copy, NULL},
    {"fork-exec", fork_exec, NULL},
    {"pipe", ping_pong, NULL},
    {"page-faults", page_faults, NULL},
    {"mmap", maps, NULL},
    {"syscalls", system_calls, NULL},
    {"one-thread", one_thread, NULL},
    {"two-threads", two_threads, NULL},
};
enum { COUNT = sizeof(workloads) / sizeof(workloads[0]) };

static void run(unsigned i)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        rng_state = i;
        uint64_t start = now();
        uint64_t sum = workloads[i].run ? workloads[i].run() : program(workloads[i].argv);
        uint64_t end = now();
        printf("%s %llu %llx\n", workloads[i].name, (unsigned long long)(end - start),
               (unsigned long long)sum);
        fflush(stdout);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        die("fork");
    if (status != 0)
        printf("%s failed %x\n", workloads[i].name, (unsigned)status);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "end") == 0)
        return 7;
    for (unsigned i = 0; i < COUNT && argc == 2 && strcmp(argv[1], "list") == 0; i++)
        puts(workloads[i].name);
    for (int a = 1; a < argc; a++)
        for (unsigned i = 0; i < COUNT; i++)
            if (strcmp(argv[a], workloads[i].name) == 0)
                run(i);
    return 0;
}
