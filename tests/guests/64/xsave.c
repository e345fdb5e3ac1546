/*
 * xsave.c - XCR0 and the XSAVE family: sizes as CPUID 0Dh has them, headers, which components move,
 * what is refused (SDM vol. 1, chapter 13; vol. 2 under each name).
 */
#include "context.h"
#include "paging.h"

enum {
    CR0_TS = 1 << 3,
    CR4_OSXSAVE = 1 << 18,
    X87 = 1,
    SSE = 2,
    AVX = 4,
    PKRU = 1 << 9,
    LEGACY = 576
};

static uint8_t area[4096] __attribute__((aligned(64)));
static uint8_t other[4096] __attribute__((aligned(64)));
#define XSTATE_BV(a) (*(uint64_t *)((a) + 512))
#define XCOMP_BV(a)  (*(uint64_t *)((a) + 520))
#define MXCSR(a)     (*(uint32_t *)((a) + 24))
#define XMM(a, n)    ((uint64_t *)((a) + 160 + 16 * (n)))

static struct trap xsetbv(uint32_t index, uint64_t v)
{
    return CATCH(asm volatile(LABEL(do_xsetbv) "xsetbv" ::"c"(index), "a"((uint32_t)v),
                              "d"((uint32_t)(v >> 32))));
}
static uint64_t xgetbv(uint32_t index)
{
    uint32_t lo, hi;
    asm volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
    return (uint64_t)hi << 32 | lo;
}
static void leaf_d(uint32_t sub, uint32_t r[4])
{
    cpuid(0xd, sub, r);
}
static uint64_t supported(void)
{
    uint32_t r[4];
    leaf_d(0, r);
    return (uint64_t)r[REG_EDX] << 32 | r[REG_EAX];
}

#define HAS_XSAVE() cpu_has(1, REG_ECX, 26)
#define HAS_AVX()   cpu_has(1, REG_ECX, 28)
static bool has_d1(unsigned bit)
{
    uint32_t r[4];
    leaf_d(1, r);
    return r[REG_EAX] >> bit & 1;
}

static void set_up(void)
{
    write_cr0((read_cr0() | 2) & ~0xcul);
    write_cr4(read_cr4() | 0x600 | CR4_OSXSAVE);
    asm volatile("xsetbv" ::"c"(0), "a"((uint32_t)supported() & (X87 | SSE | AVX)), "d"(0));
}

/* ---- XCR0 ------------------------------------------------------------------------------------ */

asm(LABEL(user_xsetbv) "xsetbv");
TEST(xsetbv_rules)
{
    REQUIRE(HAS_XSAVE());
    set_up();
    uint64_t have = supported(), before = xgetbv(0);
    CHECK_EQ(have & (X87 | SSE), X87 | SSE);
    CHECK_TRAP(xsetbv(0, have & ~(uint64_t)X87), V_GP, 0, SYMBOL(do_xsetbv)); /* bit 0 must be 1 */
    CHECK_TRAP(xsetbv(0, 0), V_GP, 0, SYMBOL(do_xsetbv));
    if (have & AVX)
        CHECK_TRAP(xsetbv(0, X87 | AVX), V_GP, 0, SYMBOL(do_xsetbv)); /* AVX needs SSE */
    for (volatile unsigned bit = 3; bit < 64; bit++) {
        if (!(have >> bit & 1))
            CHECK_TRAP(xsetbv(0, have | 1ull << bit), V_GP, 0, SYMBOL(do_xsetbv));
    }
    for (volatile uint32_t index = 1; index < 5; index++)
        CHECK_TRAP(xsetbv(index, X87), V_GP, 0, SYMBOL(do_xsetbv));
    CHECK_EQ(xgetbv(0), before);
    CHECK_NO_TRAP(xsetbv(0, X87));
    CHECK_EQ(xgetbv(0), X87);
    CHECK_NO_TRAP(xsetbv(0, X87 | SSE));
    CHECK_EQ(xgetbv(0), X87 | SSE);
    if (HAS_AVX()) { /* without the component there is no AVX */
        struct trap t = CATCH(asm volatile(LABEL(no_avx) "vzeroupper"));
        CHECK_TRAP(t, V_UD, 0, SYMBOL(no_avx));
        set_up();
        CHECK_NO_TRAP(CATCH(asm volatile("vzeroupper")));
    }
    struct context c = context_user(SYMBOL(user_xsetbv));
    c.rax = X87 | SSE;
    c.rdx = 0;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_xsetbv));
    write_cr4(read_cr4() & ~(word)CR4_OSXSAVE);
    CHECK_TRAP(xsetbv(0, X87 | SSE), V_UD, 0, SYMBOL(do_xsetbv));
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(user_xsetbv)); /* found by decoding: before #GP */
    struct trap t = CATCH(asm volatile(LABEL(no_xgetbv) "xgetbv" ::"c"(0) : "rax", "rdx"));
    CHECK_TRAP(t, V_UD, 0, SYMBOL(no_xgetbv));
    t = CATCH(asm volatile(LABEL(no_xsave) "xsave %0" : "=m"(area) : "a"(7), "d"(0)));
    CHECK_TRAP(t, V_UD, 0, SYMBOL(no_xsave));
    set_up();
}

/* XGETBV with ECX = 1: the components of XCR0 that are in use; none other exists. */
TEST(xgetbv_indices)
{
    REQUIRE(HAS_XSAVE());
    set_up();
    struct trap t;
    if (has_d1(2)) {
        CHECK_EQ(xgetbv(1) & ~xgetbv(0), 0);
    } else {
        t = CATCH(asm volatile(LABEL(xgetbv_1) "xgetbv" ::"c"(1) : "rax", "rdx"));
        CHECK_TRAP(t, V_GP, 0, SYMBOL(xgetbv_1));
    }
    t = CATCH(asm volatile(LABEL(xgetbv_2) "xgetbv" ::"c"(2) : "rax", "rdx"));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(xgetbv_2));
}

/* ---- CPUID 0Dh ------------------------------------------------------------------------------- */

TEST(sizes)
{
    REQUIRE(HAS_XSAVE());
    uint32_t r[4], c[4], largest = LEGACY, packed = LEGACY;
    set_up();
    uint64_t have = supported();
    for (unsigned i = 2; i < 63; i++) {
        leaf_d(i, c);
        if (!(have >> i & 1)) {
            CHECK_EQ(c[REG_EAX] && !(c[REG_ECX] & 1), 0); /* not a user component */
            continue;
        }
        CHECK(c[REG_EBX] >= LEGACY);
        CHECK_EQ(c[REG_ECX] & 1, 0); /* in XCR0, not in IA32_XSS */
        if (c[REG_EBX] + c[REG_EAX] > largest)
            largest = c[REG_EBX] + c[REG_EAX];
    }
    leaf_d(0, r);
    CHECK_EQ(r[REG_ECX], largest);
    /* EBX follows XCR0. */
    CHECK_NO_TRAP(xsetbv(0, X87));
    leaf_d(0, r);
    CHECK_EQ(r[REG_EBX], LEGACY);
    CHECK_NO_TRAP(xsetbv(0, X87 | SSE));
    leaf_d(0, r);
    CHECK_EQ(r[REG_EBX], LEGACY);
    if (have & AVX) {
        leaf_d(2, c);
        CHECK_EQ(c[REG_EAX], 256); /* sixteen upper halves */
        CHECK_EQ(c[REG_EBX], LEGACY);
        CHECK_NO_TRAP(xsetbv(0, X87 | SSE | AVX));
        leaf_d(0, r);
        CHECK_EQ(r[REG_EBX], LEGACY + 256);
        packed += 256;
    }
    if (have & PKRU) {
        leaf_d(9, c);
        CHECK_EQ(c[REG_EAX], 8);
        uint64_t all = have & (X87 | SSE | AVX | PKRU);
        CHECK_NO_TRAP(xsetbv(0, all));
        leaf_d(0, r);
        CHECK_EQ(r[REG_EBX], c[REG_EBX] + 8);
        packed += 8;
    }
    if (has_d1(1)) {
        leaf_d(1, r);
        CHECK_EQ(r[REG_EBX], packed);
    }
    set_up();
}

/* ---- XSAVE, XRSTOR --------------------------------------------------------------------------- */

static const uint64_t pattern[4] __attribute__((aligned(32))) = {0x1111, 0x2222, 0x3333, 0x4444};

static void xsave(void *a, uint32_t mask)
{
    asm volatile("xsave64 (%0)" ::"r"(a), "a"(mask), "d"(0) : "memory");
}
static struct trap xrstor(void *a, uint32_t mask)
{
    return CATCH(asm volatile(LABEL(do_xrstor) "xrstor64 (%0)" ::"r"(a), "a"(mask), "d"(0)
                              : "memory"));
}
static void load_state(void)
{
    uint32_t mxcsr = 0x3f80;
    asm volatile("fninit; fld1; movups %0, %%xmm0; ldmxcsr %1" ::"m"(pattern[0]), "m"(mxcsr));
    if (HAS_AVX())
        asm volatile("vmovups (%0), %%ymm0" ::"r"(pattern));
}
static void fill(uint8_t *a)
{
    memset(a, 0xcc, 4096);
    memset(a + 512, 0, 64); /* the header */
}

/* Only what RFBM asks for is written; XSTATE_BV has just those bits renewed. */
TEST(xsave_writes_what_is_asked_for)
{
    REQUIRE(HAS_XSAVE());
    set_up();
    load_state();
    fill(area);
    xsave(area, SSE);
    CHECK_EQ(XSTATE_BV(area), SSE);
    CHECK_EQ(XCOMP_BV(area), 0);
    CHECK_EQ(area[0], 0xcc); /* FCW: not x87's turn */
    CHECK_EQ(area[32], 0xcc);
    CHECK_EQ(MXCSR(area), 0x3f80);
    CHECK_EQ(XMM(area, 0)[0], 0x1111);
    CHECK_EQ(XMM(area, 0)[1], 0x2222);
    CHECK_EQ(area[LEGACY], 0xcc);
    fill(area);
    XSTATE_BV(area) = SSE | 1ull << 40; /* bits beyond RFBM stay */
    xsave(area, X87);
    CHECK_EQ(XSTATE_BV(area), X87 | SSE | 1ull << 40);
    CHECK_EQ(*(uint16_t *)area, 0x37f);
    CHECK_EQ(XMM(area, 0)[0], 0xcccccccccccccccc);
    CHECK_EQ(MXCSR(area), 0xcccccccc);
    if (HAS_AVX()) {
        fill(area);
        xsave(area, AVX);
        CHECK_EQ(XSTATE_BV(area), AVX);
        CHECK_EQ(*(uint64_t *)(area + LEGACY), 0x3333);
        CHECK_EQ(*(uint64_t *)(area + LEGACY + 8), 0x4444);
        CHECK_EQ(XMM(area, 0)[0], 0xcccccccccccccccc);
        CHECK_EQ(MXCSR(area), 0x3f80); /* MXCSR goes with either (13.7) */
    }
    /* A mask beyond XCR0 is cut to it. */
    fill(area);
    asm volatile("xsave64 (%0)" ::"r"(area), "a"(~0u), "d"(~0u) : "memory");
    CHECK_EQ(XSTATE_BV(area) & ~xgetbv(0), 0);
}

/* XRSTOR: bits of RFBM that XSTATE_BV lacks mean the initial state; what RFBM lacks stays. */
TEST(xrstor_initialises)
{
    REQUIRE(HAS_XSAVE());
    uint64_t v[4] = {0};
    uint16_t cw = 0, sw;
    set_up();
    load_state();
    fill(area);
    xsave(area, X87 | SSE | AVX);
    XSTATE_BV(area) = 0;
    MXCSR(area) = 0x1f80;
    asm volatile("fnstcw %0" : "=m"(cw));
    cw = 0x27f;
    asm volatile("fldcw %0" ::"m"(cw));
    CHECK_NO_TRAP(xrstor(area, SSE));
    asm volatile("movups %%xmm0, %0" : "=m"(v[0]));
    CHECK_EQ(v[0], 0);
    asm volatile("fnstcw %0; fnstsw %1" : "=m"(cw), "=m"(sw));
    CHECK_EQ(cw, 0x27f); /* x87 was not asked for */
    CHECK_EQ(sw >> 11 & 7, 7);
    CHECK_NO_TRAP(xrstor(area, X87));
    asm volatile("fnstcw %0; fnstsw %1" : "=m"(cw), "=m"(sw));
    CHECK_EQ(cw, 0x37f);
    CHECK_EQ(sw, 0);
    if (HAS_AVX()) {
        load_state();
        CHECK_NO_TRAP(xrstor(area, AVX)); /* the upper halves only */
        asm volatile("vmovups %%ymm0, (%0)" ::"r"(v) : "memory");
        CHECK_EQ(v[0], 0x1111);
        CHECK_EQ(v[2] | v[3], 0);
    }
}

TEST(there_and_back)
{
    REQUIRE(HAS_XSAVE());
    uint64_t v[4] = {0};
    uint32_t mxcsr;
    set_up();
    load_state();
    fill(area);
    xsave(area, ~0u);
    asm volatile("fninit; xorps %%xmm0, %%xmm0; ldmxcsr %0" ::"m"((uint32_t){0x1f80}));
    CHECK_NO_TRAP(xrstor(area, ~0u));
    fill(other);
    xsave(other, ~0u);
    CHECK_EQ(memcmp(area, other, HAS_AVX() ? LEGACY + 256 : LEGACY), 0);
    asm volatile("movups %%xmm0, %0; stmxcsr %1" : "=m"(v[0]), "=m"(mxcsr));
    CHECK_EQ(v[0], 0x1111);
    CHECK_EQ(mxcsr, 0x3f80);
}

/* ---- What is refused ------------------------------------------------------------------------- */

TEST(refusals)
{
    REQUIRE(HAS_XSAVE());
    set_up();
    load_state();
    struct trap t =
        CATCH(asm volatile(LABEL(odd_xsave) "xsave64 (%0)" ::"r"(area + 32), "a"(3), "d"(0)
                           : "memory"));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(odd_xsave)); /* aligned to 64 */
    CHECK_TRAP(xrstor(area + 16, 3), V_GP, 0, SYMBOL(do_xrstor));
    fill(area);
    xsave(area, X87 | SSE);
    XSTATE_BV(area) |= 1ull << 62; /* not in XCR0 */
    CHECK_TRAP(xrstor(area, X87 | SSE), V_GP, 0, SYMBOL(do_xrstor));
    XSTATE_BV(area) = X87 | SSE;
    for (volatile unsigned at = 8; at < 24; at += 5) { /* bytes 23:8 of the header must be zero */
        area[512 + at] = 1;
        CHECK_TRAP(xrstor(area, X87 | SSE), V_GP, 0, SYMBOL(do_xrstor));
        area[512 + at] = 0;
    }
    MXCSR(area) = 0x10000;
    CHECK_TRAP(xrstor(area, SSE), V_GP, 0, SYMBOL(do_xrstor));
    CHECK_NO_TRAP(xrstor(area, X87)); /* MXCSR is not asked for */
    MXCSR(area) = 0x1f80;
    CHECK_NO_TRAP(xrstor(area, X87 | SSE));
    /* TS: #NM, as every instruction of these registers. */
    write_cr0(read_cr0() | 8);
    CHECK_TRAP(xrstor(area, SSE), V_NM, 0, SYMBOL(do_xrstor));
    asm volatile("clts");
}

/* ---- The compacted form ---------------------------------------------------------------------- */

TEST(xsavec)
{
    REQUIRE(HAS_XSAVE() && has_d1(1) && HAS_AVX());
    uint64_t v[4] = {0};
    set_up();
    load_state();
    fill(area); /* of the header XSAVEC writes the first 16 bytes only */
    asm volatile("xsavec64 (%0)" ::"r"(area), "a"(SSE | AVX), "d"(0) : "memory");
    CHECK_EQ(XCOMP_BV(area), 1ull << 63 | SSE | AVX);
    CHECK_EQ(XSTATE_BV(area), SSE | AVX); /* both are in use */
    CHECK_EQ(area[0], 0xcc);
    CHECK_EQ(XMM(area, 0)[0], 0x1111);
    CHECK_EQ(*(uint64_t *)(area + LEGACY), 0x3333);
    asm volatile("vxorps %ymm0, %ymm0, %ymm0");
    CHECK_NO_TRAP(xrstor(area, SSE | AVX)); /* XRSTOR takes either form */
    asm volatile("vmovups %%ymm0, (%0)" ::"r"(v) : "memory");
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(v[i], pattern[i]);
    /* A component in XSTATE_BV that is not in XCOMP_BV is refused, so is one of XCOMP_BV
     * that is not in XCR0, and anything in the rest of the header. */
    XSTATE_BV(area) |= X87;
    CHECK_TRAP(xrstor(area, SSE), V_GP, 0, SYMBOL(do_xrstor));
    XSTATE_BV(area) &= ~(uint64_t)X87;
    XCOMP_BV(area) |= 1ull << 40;
    CHECK_TRAP(xrstor(area, SSE), V_GP, 0, SYMBOL(do_xrstor));
    XCOMP_BV(area) &= ~(1ull << 40);
    area[512 + 16] = 1;
    CHECK_TRAP(xrstor(area, SSE), V_GP, 0, SYMBOL(do_xrstor));
    area[512 + 16] = 0;
    CHECK_NO_TRAP(xrstor(area, SSE));
}

asm(LABEL(user_xsaves) "xsaves64 (%rdi)\n" LABEL(user_xrstors) "xrstors64 (%rdi)");
TEST(xsaves)
{
    REQUIRE(HAS_XSAVE() && has_d1(3));
    set_up();
    load_state();
    memset(area, 0, 4096);
    asm volatile("xsaves64 (%0)" ::"r"(area), "a"(X87 | SSE), "d"(0) : "memory");
    CHECK_EQ(XCOMP_BV(area), 1ull << 63 | X87 | SSE);
    struct trap t = CATCH(asm volatile("xrstors64 (%0)" ::"r"(area), "a"(X87 | SSE), "d"(0)
                                       : "memory"));
    CHECK_NO_TRAP(t);
    /* XRSTORS takes the compacted form only. */
    XCOMP_BV(area) = 0;
    t = CATCH(
        asm volatile(LABEL(xrstors_standard) "xrstors64 (%0)" ::"r"(area), "a"(X87 | SSE), "d"(0)
                     : "memory"));
    CHECK_TRAP(t, V_GP, 0, SYMBOL(xrstors_standard));
    struct context c = context_user(SYMBOL(user_xsaves));
    c.rdi = (word)area;
    c.rax = X87 | SSE;
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_xsaves));
    c.rip = SYMBOL(user_xrstors);
    CHECK_TRAP(RUN(c), V_GP, 0, SYMBOL(user_xrstors));
    /* #NM, and #UD before it, come first (vol. 3, table 6-2). */
    write_cr0(read_cr0() | CR0_TS);
    CHECK_TRAP(RUN(c), V_NM, 0, SYMBOL(user_xrstors));
    write_cr4(read_cr4() & ~(word)CR4_OSXSAVE);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(user_xrstors));
    c.rip = SYMBOL(user_xsaves);
    CHECK_TRAP(RUN(c), V_UD, 0, SYMBOL(user_xsaves));
    set_up();
}

/* Across pages: the header is on the second, which is missing. Nothing has moved. */
TEST(page_faults)
{
    REQUIRE(HAS_XSAVE());
    static uint8_t page[4096] __attribute__((aligned(4096)));
    uint64_t v[2];
    set_up();
    load_state();
    map_page(WINDOW, (word)page, 1, PG_ALL);
    map_page(WINDOW + PAGE, 0, 1, 0);
    uint8_t *at = (uint8_t *)WINDOW + PAGE - 512;
    memset(page, 0xcc, sizeof page);
    struct trap t = CATCH(asm volatile(LABEL(xsave_hole) "xsave64 (%0)" ::"r"(at), "a"(3), "d"(0)
                                       : "memory"));
    CHECK_TRAP(t, V_PF, t.error & PF_W, SYMBOL(xsave_hole)); /* it reads and writes the header */
    CHECK_EQ(t.cr2 & ~0xfffull, WINDOW + PAGE);
    memset(page, 0, sizeof page);
    t = xrstor(at, 3);
    CHECK_TRAP(t, V_PF, 0, SYMBOL(do_xrstor));
    asm volatile("movups %%xmm0, %0" : "=m"(v[0]), "=m"(v[1]));
    CHECK_EQ(v[0], 0x1111);
    paging_reset();
}

/* An area in two pages that do not lie side by side, wherever the cut is: the same bytes are
 * written as in one page, and all of them are read. The second time both pages are known already.
 */
static void xsavec(void *a, uint32_t mask)
{
    asm volatile("xsavec64 (%0)" ::"r"(a), "a"(mask), "d"(0) : "memory");
}
static void xsaves(void *a, uint32_t mask)
{
    asm volatile("xsaves64 (%0)" ::"r"(a), "a"(mask), "d"(0) : "memory");
}
static void fxsave(void *a, uint32_t mask)
{
    asm volatile("fxsave64 (%0)" ::"r"(a) : "memory");
}
static struct trap fxrstor(void *a, uint32_t mask)
{
    return CATCH(asm volatile("fxrstor64 (%0)" ::"r"(a) : "memory"));
}
static struct trap xrstors(void *a, uint32_t mask)
{
    return CATCH(asm volatile("xrstors64 (%0)" ::"r"(a), "a"(mask), "d"(0) : "memory"));
}

static void load_much(void)
{
    static uint8_t much[4096] __attribute__((aligned(64)));
    memset(much, 0, sizeof much);
    for (unsigned i = 32; i < LEGACY + 256; i++)
        much[i] = i < 512 || i >= LEGACY ? (uint8_t)(i * 7 + i / 256 + 1) : 0;
    *(uint16_t *)much = 0x37f;
    much[4] = 0xff;
    MXCSR(much) = 0x1f80;
    XSTATE_BV(much) = X87 | SSE | (HAS_AVX() ? AVX : 0);
    CHECK_NO_TRAP(xrstor(much, X87 | SSE | AVX));
}
static void load_little(void)
{
    static uint8_t little[4096] __attribute__((aligned(64)));
    MXCSR(little) = 0x1f80;
    CHECK_NO_TRAP(xrstor(little, X87 | SSE | AVX));
}

static void check_across(void (*save)(void *, uint32_t), struct trap (*load)(void *, uint32_t))
{
    enum { MOST = 896 };
    static uint8_t frames[3][4096] __attribute__((aligned(4096)));
    uint8_t *end = (uint8_t *)WINDOW + PAGE;
    map_page(WINDOW, (word)frames[2], 1, PG_ALL);
    map_page(WINDOW + PAGE, (word)frames[0], 1, PG_ALL);
    load_much();
    fill(area);
    save(area, X87 | SSE | AVX);
    for (unsigned before = 0; before <= MOST; before += 64) {
        uint8_t *at = end - before;
        for (unsigned again = 0; again < 2; again++) {
            memset((uint8_t *)WINDOW, 0xcc, 2 * PAGE);
            memset(at + 512, 0, 64);
            if (!again) {
                invlpg((void *)WINDOW);
                invlpg((void *)(WINDOW + PAGE));
            }
            load_much();
            save(at, X87 | SSE | AVX);
            CHECK_EQ(memcmp(at, area, MOST), 0);
            for (uint8_t *p = (uint8_t *)WINDOW; p < end + PAGE; p++)
                if ((p < at || p >= at + MOST) && *p != 0xcc)
                    CHECK_EQ(*p, 0xcc);
            load_little();
            CHECK_NO_TRAP(load(at, X87 | SSE | AVX));
            fill(other);
            save(other, X87 | SSE | AVX);
            CHECK_EQ(memcmp(other, area, MOST), 0);
        }
    }
    paging_reset();
}

TEST(across_pages)
{
    REQUIRE(HAS_XSAVE());
    set_up();
    check_across(xsave, xrstor);
    check_across(fxsave, fxrstor);
    if (has_d1(1))
        check_across(xsavec, xrstor);
    if (has_d1(3))
        check_across(xsaves, xrstors);
}

const struct test guest_tests[] = {T(xsetbv_rules),
                                   T(xgetbv_indices),
                                   T(sizes),
                                   T(xsave_writes_what_is_asked_for),
                                   T(xrstor_initialises),
                                   T(there_and_back),
                                   T(refusals),
                                   T(xsavec),
                                   T(xsaves),
                                   T(page_faults),
                                   T(across_pages),
                                   {0, 0}};
