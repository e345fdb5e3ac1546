/*
 * kernels.c - the integer kernels of `./dev bench`: one static program, run natively and in guests.
 *
 * Each kernel does a fixed amount of work, checks its result (a wrong machine must not look fast)
 * and prints "NAME NANOSECONDS CHECKSUM". `kernels SCALE` multiplies the work; the checksums do not
 * depend on it, because every round starts from the same state.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t rng_state;

static uint32_t rng(void)
{
    rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(rng_state >> 33);
}

static uint64_t sieve(void)
{
    enum { N = 400000 };
    static uint8_t composite[N];
    uint64_t sum = 0;
    memset(composite, 0, N);
    for (unsigned i = 2; i < N; i++) {
        if (composite[i])
            continue;
        sum += i;
        for (unsigned j = 2 * i; j < N; j += i)
            composite[j] = 1;
    }
    return sum;
}

static uint64_t crc(void)
{
    static uint32_t table[256];
    static uint8_t data[1 << 18];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++)
            c = c & 1 ? 0xedb88320 ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)rng();
    uint32_t c = ~0u;
    for (unsigned i = 0; i < sizeof(data); i++)
        c = table[(c ^ data[i]) & 255] ^ c >> 8;
    return ~c;
}

static int compare_ints(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static uint64_t sort(void)
{
    enum { N = 30000 };
    static int values[N];
    for (unsigned i = 0; i < N; i++)
        values[i] = (int)rng();
    qsort(values, N, sizeof(int), compare_ints);
    uint64_t sum = 0;
    for (unsigned i = 0; i < N; i++)
        sum = sum * 31 + (uint32_t)values[i];
    return sum;
}

static uint64_t hash(void)
{
    enum { SLOTS = 1 << 16, KEYS = 40000 };
    static struct {
        uint32_t key, count;
    } slots[SLOTS];
    memset(slots, 0, sizeof(slots));
    for (unsigned i = 0; i < 3 * KEYS; i++) {
        uint32_t key = rng() % KEYS + 1, at = key * 2654435761u >> 16;
        while (slots[at].key && slots[at].key != key)
            at = (at + 1) % SLOTS;
        slots[at].key = key;
        slots[at].count++;
    }
    uint64_t sum = 0;
    for (unsigned i = 0; i < SLOTS; i++)
        sum += (uint64_t)slots[i].key * slots[i].count;
    return sum;
}

static uint64_t matrix(void)
{
    enum { N = 96 };
    static uint32_t a[N][N], b[N][N], c[N][N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            a[i][j] = rng(), b[i][j] = rng(), c[i][j] = 0;
    for (int i = 0; i < N; i++)
        for (int k = 0; k < N; k++)
            for (int j = 0; j < N; j++)
                c[i][j] += a[i][k] * b[k][j];
    uint64_t sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            sum = sum * 3 + c[i][j];
    return sum;
}

static uint64_t fib_of(unsigned n)
{
    return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static uint64_t fib(void)
{
    return fib_of(27);
}

struct node {
    struct node *left, *right;
    uint32_t key;
};

static uint64_t tree(void)
{
    enum { N = 20000 };
    static struct node pool[N];
    struct node *root = NULL;
    for (unsigned i = 0; i < N; i++) {
        pool[i] = (struct node){NULL, NULL, rng()};
        struct node **at = &root;
        while (*at)
            at = pool[i].key < (*at)->key ? &(*at)->left : &(*at)->right;
        *at = &pool[i];
    }
    uint64_t found = 0;
    for (unsigned i = 0; i < N; i++) {
        uint32_t key = i & 1 ? pool[i].key : rng();
        const struct node *n = root;
        while (n && n->key != key)
            n = key < n->key ? n->left : n->right;
        found += n != NULL;
    }
    return found;
}

/* A byte-code loop with a switch: the shape of every small interpreter. */
static uint64_t bytecode(void)
{
    static const uint8_t program[] = {0, 1, 2, 3, 1, 4, 2, 5, 0, 3, 6};
    uint64_t a = 1, b = 2;
    for (uint32_t rounds = 0; rounds < 150000; rounds++)
        for (unsigned pc = 0; pc < sizeof(program); pc++)
            switch (program[pc]) {
            case 0:
                a += b;
                break;
            case 1:
                b ^= a << 3;
                break;
            case 2:
                a -= rounds;
                break;
            case 3:
                b = b >> 5 | b << 59;
                break;
            case 4:
                a *= 3;
                break;
            case 5:
                if (a & 1)
                    b++;
                break;
            default:
                a ^= b;
                break;
            }
    return a ^ b;
}

static uint64_t compress(void)
{
    enum { N = 1 << 17, HASH = 1 << 13 };
    static uint8_t text[N];
    static int last[HASH];
    for (unsigned i = 0; i < N; i++)
        text[i] = (uint8_t)(i % 97 < 60 && i > 100 ? text[i - 1 - rng() % 90] : 'a' + rng() % 20);
    memset(last, 0xff, sizeof(last));
    uint64_t matched = 0, literals = 0;
    for (unsigned i = 0; i + 8 < N;) {
        uint32_t word =
            text[i] | text[i + 1] << 8 | (uint32_t)text[i + 2] << 16 | (uint32_t)text[i + 3] << 24;
        unsigned slot = word * 2654435761u >> 19;
        int candidate = last[slot];
        unsigned length = 0;
        last[slot] = (int)i;
        if (candidate >= 0)
            while (i + length < N && length < 255 &&
                   text[(unsigned)candidate + length] == text[i + length])
                length++;
        matched += length;
        literals += length < 4;
        i += length < 4 ? 1 : length;
    }
    return matched << 20 ^ literals;
}

static uint64_t search(void)
{
    enum { N = 200000 };
    static char text[N];
    static const char needle[] = "abacabad";
    for (unsigned i = 0; i < N; i++)
        text[i] = (char)('a' + (rng() & 3));
    uint64_t hits = 0;
    for (unsigned i = 0; i + sizeof(needle) < N; i++) {
        unsigned j = 0;
        while (j < sizeof(needle) - 1 && text[i + j] == needle[j])
            j++;
        hits += j > 4 ? j : 0;
    }
    return hits;
}

static uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static uint64_t sha(void)
{
    uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                     0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (int block = 0; block < 1500; block++) {
        uint32_t w[64], v[8];
        for (int i = 0; i < 16; i++)
            w[i] = rng();
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] +
                   (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
        memcpy(v, h, sizeof(v));
        for (int i = 0; i < 64; i++) {
            uint32_t t1 = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                          ((v[4] & v[5]) ^ (~v[4] & v[6])) + w[i] + 0x428a2f98u * (uint32_t)(i + 1);
            uint32_t t2 = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                          ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 28);
            v[4] += t1;
            v[0] = t1 + t2;
        }
        for (int i = 0; i < 8; i++)
            h[i] += v[i];
    }
    return (uint64_t)h[0] << 32 | h[7];
}

/* Name, function, checksum (seen natively; a machine that gets another one is wrong). */
static const struct {
    const char *name;
    uint64_t (*run)(void);
} kernels[] = {
    {"sieve", sieve},       {"crc", crc},       {"sort", sort}, {"hash", hash},
    {"matrix", matrix},     {"fib", fib},       {"tree", tree}, {"bytecode", bytecode},
    {"compress", compress}, {"search", search}, {"sha", sha},
};

static uint64_t now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int main(int argc, char **argv)
{
    unsigned scale = argc > 1 ? (unsigned)atoi(argv[1]) : 1;
    for (unsigned k = 0; k < sizeof(kernels) / sizeof(kernels[0]); k++) {
        uint64_t checksum = 0;
        rng_state = k;
        kernels[k].run(); /* touches every page once, so that page faults are not measured */
        uint64_t start = now();
        for (unsigned i = 0; i < scale; i++) {
            rng_state = k;
            checksum = kernels[k].run();
        }
        printf("%s %llu %llx\n", kernels[k].name,
               (unsigned long long)((now() - start) / (scale ? scale : 1)),
               (unsigned long long)checksum);
        fflush(stdout);
    }
    return 0;
}
