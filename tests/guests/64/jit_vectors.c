/*
 * jit_vectors.c - what a translator keeps in the host's vector registers and MXCSR: rounding modes
 * and masks that change between runs of instructions, #XM exactly, upper halves, gathers (SDM vol.
 * 1, 10.2.3, 14.1; vol. 2, VZEROUPPER); and SMAP's AC between user accesses.
 *
 * guest options: -cpu max
 */
#include "pieces.h"

enum { MXCSR_DEFAULT = 0x1f80, RC = 13, ZE = 4, IE = 1, PE = 0x20, MASKS = 0x1f80 };
static uint32_t mxcsr_cell[2];
static float one_third[4] __attribute__((aligned(16)));
static uint64_t room[64] __attribute__((aligned(64)));

static uint32_t mxcsr(void)
{
    uint32_t v;
    asm volatile("stmxcsr %0" : "=m"(v));
    return v;
}
static void set_mxcsr(uint32_t v)
{
    asm volatile("ldmxcsr %0" ::"m"(v));
}

/* 1/3 rounded to nearest, down, up, to zero; and -1/3. */
TEST(rounding_modes)
{
    static const uint32_t third[] = {0x3eaaaaab, 0x3eaaaaaa, 0x3eaaaaab, 0x3eaaaaaa},
                          minus[] = {0xbeaaaaab, 0xbeaaaaab, 0xbeaaaaaa, 0xbeaaaaaa};
    vectors_on();
    for (unsigned i = 0; i < 100; i++) {
        uint32_t got, neg, want_flags;
        set_mxcsr(MXCSR_DEFAULT | (i & 3) << RC);
        asm volatile(
            "movd %2, %%xmm0; movd %3, %%xmm1; movaps %%xmm0, %%xmm2; divss %%xmm1, %%xmm0;"
            "xorps %%xmm3, %%xmm3; subss %%xmm2, %%xmm3; divss %%xmm1, %%xmm3;"
            "movd %%xmm0, %0; movd %%xmm3, %1"
            : "=r"(got), "=r"(neg)
            : "r"(0x3f800000), "r"(0x40400000));
        want_flags = MXCSR_DEFAULT | (i & 3) << RC | PE;
        CHECK_EQ(got, third[i & 3]);
        CHECK_EQ(neg, minus[i & 3]);
        CHECK_EQ(mxcsr(), want_flags);
        /* the mode changes in the middle of the code */
        mxcsr_cell[0] = MXCSR_DEFAULT | 1 << RC, mxcsr_cell[1] = MXCSR_DEFAULT | 2 << RC;
        asm volatile("movd %2, %%xmm0; movd %3, %%xmm1; movaps %%xmm0, %%xmm2; ldmxcsr %4;"
                     "divss %%xmm1, %%xmm0; ldmxcsr %5; divss %%xmm1, %%xmm2; movd %%xmm0, %0;"
                     "movd %%xmm2, %1"
                     : "=r"(got), "=r"(neg)
                     : "r"(0x3f800000), "r"(0x40400000), "m"(mxcsr_cell[0]), "m"(mxcsr_cell[1]));
        CHECK_EQ(got, 0x3eaaaaaa);
        CHECK_EQ(neg, 0x3eaaaaab);
    }
    set_mxcsr(MXCSR_DEFAULT);
}

/* Unmasked, the instruction does not happen and #XM is its own; masked again, it goes on. */
TEST(unmasked_exceptions)
{
    vectors_on();
    for (unsigned i = 0; i < 60; i++) {
        bool unmasked = i % 3 == 1;
        struct context c = kernel_context();
        c.rdi = (word)room, c.rax = 0x3f800000;
        memset(room, 0, sizeof room);
        room[8] = unmasked ? MXCSR_DEFAULT & ~(ZE << 7u) : MXCSR_DEFAULT;
        pieces_begin();
        put(PIECE("ldmxcsr [rdi+64]; movd xmm0, eax; xorps xmm1, xmm1; mov ebx, 1; cmp ebx, 2"));
        word at = pieces_here();
        put(PIECE("divss xmm0, xmm1"));
        put(PIECE("mov ebx, 2; movd ecx, xmm0; stmxcsr [rdi+68]"));
        struct trap t = pieces_run(&c);
        if (unmasked) {
            CHECK_EQ(t.vector, V_XM);
            CHECK_EQ(t.rip, at);
            CHECK_EQ(t.frame.rbx, 1);
            CHECK_EQ(t.rflags & F_ARITH, 0x95);
            CHECK_EQ(mxcsr(), (MXCSR_DEFAULT & ~(ZE << 7u)) | ZE);
            uint32_t still;
            asm volatile("movd %%xmm0, %0" : "=r"(still));
            CHECK_EQ(still, 0x3f800000);
        } else {
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.frame.rcx, 0x7f800000);
            CHECK_EQ((uint32_t)(room[8] >> 32), MXCSR_DEFAULT | ZE);
        }
        set_mxcsr(MXCSR_DEFAULT);
    }
}

/* Flags that were set before stay set, through runs that use MXCSR and those that do not. */
TEST(sticky_flags)
{
    vectors_on();
    struct context c = kernel_context();
    c.rdi = (word)room, c.rcx = 100;
    room[0] = MXCSR_DEFAULT | IE;
    pieces_begin();
    put(PIECE(
        "ldmxcsr [rdi]; mov eax, 0x3f800000; movd xmm0, eax; mov eax, 0x40400000; movd xmm1, eax; "
        "1: paddd xmm5, xmm5; jmp 2f; 2: dec ecx; jnz 1b; divss xmm0, xmm1; call 3f; jmp 4f; "
        "3: ret; 4: stmxcsr [rdi+8]"));
    CHECK_EQ(pieces_run(&c).vector, V_BP);
    CHECK_EQ((uint32_t)room[1], MXCSR_DEFAULT | IE | PE);
    set_mxcsr(MXCSR_DEFAULT);
}

/* ---- Upper halves -------------------------------------------------------------------------------
 */

/* Legacy SSE keeps bits 255:128, VEX.128 clears them, VZEROUPPER clears all sixteen; in one run and
 * over several, and past loads that miss. */
TEST(upper_halves)
{
    if (!vectors_on()) {
        print("  skipped: no AVX\n");
        return;
    }
    static const struct {
        unsigned kept; /* bit n: the upper half of YMM n */
        const char *text;
    } want[] = {{3, "addps"}, {2, "vaddps"}, {0, "vzeroupper"}, {2, "vmovd"},
                {3, "jmp"},   {3, "load"},   {0, "vzeroall"}};
    for (unsigned i = 0; i < 7 * 8; i++) {
        unsigned k = i % 7;
        struct context c = kernel_context();
        c.rdi = (word)room, c.rsi = (word)one_third;
        for (unsigned n = 0; n < 16; n++)
            room[n] = 0x3f8000003f800000 + n;
        pieces_begin_sized(256);
        put(PIECE("vmovups ymm0, [rdi]; vmovups ymm1, [rdi+32]; vmovups ymm15, [rdi+64]"));
        put(k == 0   ? PIECE("addps xmm0, xmm1")
            : k == 1 ? PIECE("vaddps xmm0, xmm1, xmm1")
            : k == 2 ? PIECE("vzeroupper")
            : k == 3 ? PIECE("vmovd xmm0, ecx")
            : k == 4 ? PIECE("jmp 1f; 1: call 2f; jmp 3f; 2: paddd xmm0, xmm15; ret; 3: nop")
            : k == 5 ? PIECE("movss xmm0, [rsi]; movups [rdi+400], xmm1; cvtsi2sd xmm0, ecx")
                     : PIECE("vzeroall"));
        put(PIECE("jmp 1f; 1: vmovups [rdi+128], ymm0; vmovups [rdi+160], ymm1; vmovups [rdi+192], "
                  "ymm15"));
        CHECK_EQ(pieces_run(&c).vector, V_BP);
        for (unsigned n = 0; n < 2; n++)
            for (unsigned q = 2; q < 4; q++)
                if (room[16 + 4 * n + q] != (want[k].kept >> n & 1 ? room[4 * n + q] : 0)) {
                    print("  %s: ymm%u\n", want[k].text, n);
                    CHECK(false);
                }
        CHECK_EQ(room[24 + 2], k == 2 || k == 6 ? 0 : room[8 + 2]);
        CHECK_EQ(room[24], k == 6 ? 0 : room[8]);
    }
}

/* Vectors at a fault in the middle of a run are those of that moment. */
TEST(vectors_at_faults)
{
    vectors_on();
    paging_reset();
    for (unsigned i = 0; i < 20; i++) {
        struct context c = kernel_context();
        c.rdi = (word)room, c.rdx = WINDOW + 0x7000, c.rax = i;
        room[0] = 100 + i, room[1] = 200 + i;
        pieces_begin();
        put(PIECE("movups xmm4, [rdi]; movq xmm5, rax; paddq xmm4, xmm5"));
        word at = pieces_here();
        put(i & 1 ? PIECE("movups xmm4, [rdx]") : PIECE("addsd xmm4, [rdx]"));
        put(PIECE("pxor xmm4, xmm4"));
        struct trap t = pieces_run(&c);
        uint64_t v[2];
        asm volatile("movups %%xmm4, %0" : "=m"(v));
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.rip, at);
        CHECK_EQ(v[0], 100 + 2 * i);
        CHECK_EQ(v[1], 200 + i);
    }
}

/* An operand that wants alignment: #GP, and nothing has changed. */
TEST(misaligned)
{
    vectors_on();
    struct context c = kernel_context();
    c.rdi = (word)room + 8, c.rbx = 9;
    pieces_begin();
    put(PIECE("movups xmm0, [rdi]; cmp rbx, 10"));
    word at = pieces_here();
    put(PIECE("paddd xmm0, [rdi]; mov ebx, 1"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, V_GP);
    CHECK_EQ(t.rip, at);
    CHECK_EQ(t.frame.rbx, 9);
    CHECK_EQ(t.rflags & F_ARITH, 0x95);
}

/* ---- Gathers --------------------------------------------------------------------------------- */

static uint32_t number(unsigned at)
{
    return 0x01010101 * (at & 0xff) + (at >> 8);
}
/* What 4 or 8 bytes at an offset of the window should be. */
static uint64_t bytes_at(unsigned at, unsigned size)
{
    uint8_t b[8];
    for (unsigned i = 0; i < size; i++) {
        unsigned n = at + i;
        uint32_t v = number(n / 4);
        b[i] = (uint8_t)(v >> 8 * (n & 3));
    }
    uint64_t v = 0;
    memcpy(&v, b, size);
    return v;
}

/* Elements and indices of 4 and 8 bytes, selected or not, over the end of a page whose neighbour
 * lies elsewhere, and into one that is not there. */
TEST(gathers)
{
    enum { PAGES = 2 };
    if (!vectors_on()) {
        print("  skipped: no AVX\n");
        return;
    }
    paging_reset();
    for (unsigned n = 0; n < PAGES; n++) {
        uint32_t *page = (uint32_t *)(FREE_RAM + (PAGES - n) * PAGE);
        map_page(WINDOW + n * PAGE, (word)page, 1, PG_ALL);
        for (unsigned i = 0; i < PAGE / 4; i++)
            page[i] = number(n * (PAGE / 4) + i);
    }
    for (unsigned i = 0; i < 8 * 16; i++) {
        unsigned form = i & 7, variant = i >> 3;
        bool of_8 = form & 1, indices_of_8 = form & 2, wide = form & 4, absent = variant & 1,
             crosses = variant & 2;
        unsigned size = of_8 ? 8 : 4, count = (wide ? 32 : 16) / (of_8 || indices_of_8 ? 8 : 4);
        uint64_t index[8], want[8];
        unsigned fails = count;
        memset(room, 0, sizeof room);
        uint8_t *masks = (uint8_t *)room, *indices = (uint8_t *)(room + 4);
        for (unsigned n = 0; n < count; n++) {
            bool selected = !((variant >> 2 & 1) && n % 3 == 1);
            unsigned at = 16 + 100 * n + variant * 4;
            if (crosses && n == 1)
                at = PAGE - 4 - (of_8 ? 0 : -2) - 1;
            if (absent && n == count - 1)
                at = PAGES * PAGE + 8;
            index[n] = (uint64_t)at - 0x800; /* half of them negative */
            masks[(n + 1) * size - 1] = selected ? 0x80 : 0x7f;
            memcpy(indices + n * (indices_of_8 ? 8 : 4), &index[n], indices_of_8 ? 8 : 4);
            want[n] = selected ? (at < PAGES * PAGE ? bytes_at(at, size) : 0)
                               : 0x5555555555555555 & (of_8 ? ~0ull : 0xffffffff);
            if (selected && at >= PAGES * PAGE && fails == count)
                fails = n;
        }
        for (unsigned n = 8; n < 12; n++)
            room[n] = 0x5555555555555555;
        struct context c = kernel_context();
        c.rdi = (word)room, c.r14 = WINDOW + 0x700, c.rbx = 1;
        pieces_begin();
        put(PIECE(
            "vmovups ymm3, [rdi]; vmovups ymm12, [rdi+32]; vmovups ymm1, [rdi+64]; cmp ebx, 2"));
        word at = pieces_here();
        put(form == 0   ? PIECE("vpgatherdd xmm1, [r14+xmm12+256], xmm3")
            : form == 1 ? PIECE("vpgatherdq xmm1, [r14+xmm12+256], xmm3")
            : form == 2 ? PIECE("vgatherqps xmm1, [r14+xmm12+256], xmm3")
            : form == 3 ? PIECE("vpgatherqq xmm1, [r14+xmm12+256], xmm3")
            : form == 4 ? PIECE("vgatherdps ymm1, [r14+ymm12+256], ymm3")
            : form == 5 ? PIECE("vgatherdpd ymm1, [r14+xmm12+256], ymm3")
            : form == 6 ? PIECE("vpgatherqd xmm1, [r14+ymm12+256], xmm3")
                        : PIECE("vpgatherqq ymm1, [r14+ymm12+256], ymm3"));
        put(PIECE("mov ebx, 2"));
        struct trap t = pieces_run(&c);
        asm volatile("vmovups %%ymm1, (%0); vmovups %%ymm3, 32(%0)" ::"r"(room + 16) : "memory");
        CHECK_EQ(t.vector, fails < count ? VECTOR_PF : V_BP);
        CHECK_EQ(t.frame.rbx, fails < count ? 1 : 2);
        CHECK_EQ(t.rflags & F_ARITH, 0x95);
        if (fails < count) {
            CHECK_EQ(t.rip, at);
            CHECK_EQ(t.cr2, WINDOW + PAGES * PAGE + 8);
        }
        for (unsigned n = 0; n < fails; n++) {
            uint64_t got = 0, mask = 0;
            memcpy(&got, (uint8_t *)(room + 16) + n * size, size);
            memcpy(&mask, (uint8_t *)(room + 20) + n * size, size);
            CHECK_EQ(got, want[n]);
            CHECK_EQ(mask, 0);
        }
        if (fails == count) { /* the rest is 0 */
            for (unsigned n = count * size; n < 32; n++)
                CHECK_EQ(((uint8_t *)(room + 16))[n], 0);
            CHECK_EQ(room[20] | room[21] | room[22] | room[23], 0);
        }
    }
}

/* ---- AC under SMAP ------------------------------------------------------------------------------
 */

TEST(stac_and_clac_around_user_accesses)
{
    uint32_t r[4];
    cpuid(7, 0, r);
    if (!(r[REG_EBX] >> 20 & 1)) {
        print("  skipped: no SMAP\n");
        return;
    }
    paging_reset();
    volatile uint64_t *user = (volatile uint64_t *)map_page(WINDOW, FREE_RAM, 1, PG_ALL);
    /* the rest is the supervisor's */
    *user = 0;
    uint64_t saved[8];
    for (unsigned i = 0; i < 4; i++)
        saved[i] = boot_pdpt[i], boot_pdpt[i] &= ~PG_U;
    flush_all();
    write_cr4(read_cr4() | CR4_SMAP);
    for (unsigned i = 0; i < 60; i++) {
        struct context c = kernel_context();
        c.rdi = WINDOW, c.rsi = (word)room, c.rcx = 10;
        room[0] = 5;
        pieces_begin();
        put(PIECE(
            "1: mov rax, [rsi]; invlpg [rdi]; stac; add [rdi], rax; mov rbx, [rdi]; clac; mov "
            "[rsi+8], rbx; dec ecx; jnz 1b; cmp ecx, 1"));
        word at = pieces_here();
        put(i & 1 ? PIECE("mov rdx, [rdi]") : PIECE("mov [rdi], rdx"));
        struct trap t = pieces_run(&c);
        CHECK_EQ(t.vector, VECTOR_PF);
        CHECK_EQ(t.error, i & 1 ? PF_P : PF_P | PF_W);
        CHECK_EQ(t.rip, at);
        CHECK_EQ(t.rflags & FLAG_AC, 0);
        CHECK_EQ(t.rflags & F_ARITH, 0x95);
        CHECK_EQ(room[1], 50 * (i + 1));
    }
    write_cr4(read_cr4() & ~CR4_SMAP);
    for (unsigned i = 0; i < 4; i++)
        boot_pdpt[i] = saved[i];
    flush_all();
}

const struct test guest_tests[] = {T(rounding_modes),
                                   T(unmasked_exceptions),
                                   T(sticky_flags),
                                   T(upper_halves),
                                   T(vectors_at_faults),
                                   T(misaligned),
                                   T(gathers),
                                   T(stac_and_clac_around_user_accesses),
                                   {0, 0}};
