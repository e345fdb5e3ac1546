/*
 * jit_code.c - self-modifying code, against a translator that works on runs of instructions and
 * links them: the run that is being executed, those it leads to, and what stands beside them (SDM
 * vol. 3, 9.1.3, 12.6). Every store and the code it changes go by the same linear address, unless a
 * test says otherwise.
 */
#include "pieces.h"

typedef unsigned fn(unsigned a, unsigned b);
#define CALL(p, a, b) (((fn *)(word)(p))(a, b))

static void serialise(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
}

/* ---- The run that is being executed -----------------------------------------------------------
 */

/* mov byte [next + far], dil, followed by `far` bytes of NOPs, then MOV EAX, imm32 */
static word store_ahead(unsigned nops)
{
    pieces_begin();
    word start = pieces_here();
    const uint8_t store[] = {0x40, 0x88, 0x3d, (uint8_t)(nops + 1), 0, 0, 0};
    put_bytes(store, sizeof store);
    while (nops--)
        put(PIECE("nop"));
    put(PIECE("mov eax, 0x01020300; ret"));
    return start;
}

TEST(ahead)
{
    for (unsigned nops = 0; nops < 70; nops = nops < 4 ? nops + 1 : nops * 2 + 1) {
        word p = store_ahead(nops);
        for (unsigned i = 0; i < 40; i++)
            CHECK_EQ(CALL(p, i * 7 & 0xff, 0), 0x01020300 | (i * 7 & 0xff));
    }
}

/* A loop that changes an instruction behind the store, which the next round executes. */
TEST(behind)
{
    pieces_begin();
    word p = pieces_here();
    put(PIECE("xor eax, eax; mov ecx, 50; 2: add eax, 0x11111111; inc byte ptr [rip+2b+1]; dec "
              "ecx; jnz 2b; ret"));
    unsigned want = 0;
    for (unsigned round = 0, immediate = 0x11; round < 20; round++) {
        want = 0;
        for (unsigned i = 0; i < 50; i++, immediate = (immediate + 1) & 0xff)
            want += 0x11111100 | immediate;
        CHECK_EQ(CALL(p, 0, 0), want);
    }
}

/* The store's own instruction: its displacement changes, so it stores elsewhere the next time. */
TEST(itself)
{
    static volatile uint32_t cell[4];
    pieces_begin();
    word p = pieces_here();
    put(PIECE("mov eax, 4; 1: mov dword ptr [rsi], 1; add [rip+1b+2], eax; ret"));
    /* the immediate grows by 4 in each round */
    for (unsigned i = 0; i < 50; i++) {
        asm volatile("call *%0" ::"r"(p), "S"(&cell[0]) : "rax", "memory", "cc");
        CHECK_EQ(cell[0], 1 + 4 * i);
    }
}

/* Flags live through a store that makes the run stale, both ways of the branch. */
TEST(flags_across_the_store)
{
    pieces_begin();
    word p = pieces_here();
    put(PIECE("cmp edi, esi; mov byte ptr [rip+1f+1], 7; jb 3f; 1: mov eax, 1; adc eax, 0; ret; "
              "3: mov eax, 100; sbb eax, 0; ret"));
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(CALL(p, i, 25), i < 25 ? 99 : 7);
        *(volatile uint8_t *)(p) = *(volatile uint8_t *)(p); /* stale once more */
    }
}

/* ---- Other runs --------------------------------------------------------------------------------
 */

/* Caller and callee far enough apart to lie in one page, or in different ones, so that they are
 * linked in either way; the callee changes in length and effect. */
static void change_linked(unsigned distance)
{
    pieces_at = 0;
    pieces_begin();
    uint8_t *from = pieces_room, *to = pieces_room + distance;
    put(PIECE("mov eax, edi; jmp 1f; 1: add eax, 1"));
    const int32_t jump = (int32_t)(to - (from + pieces_at + 5));
    put(PIECE(".byte 0xe9"));
    put_bytes(&jump, 4);
    for (unsigned i = 0; i < 120; i++) {
        switch (i % 5) {
        case 0:
            memcpy(to, "\x83\xc0\x05\xc3", 4); /* add eax, 5 */
            break;
        case 1:
            memcpy(to, "\xff\xc0\xc3", 3); /* inc eax */
            break;
        case 2:
            memcpy(to, "\x8d\x84\x36\x00\x01\x00\x00\xc3", 8); /* lea eax, [rsi+rsi+256] */
            break;
        case 3:
            memcpy(to, "\xeb\x02\x90\x90\xf7\xd8\xc3", 7); /* jmp over; neg eax */
            break;
        case 4:
            to[0] = 0xc3;
            break;
        }
        const unsigned x = i + 1, y = 3 * i;
        const unsigned want[] = {x + 5, x + 1, 2 * y + 256, 0 - x, x};
        for (unsigned again = 0; again < 3; again++)
            CHECK_EQ(CALL(from, i, y), want[i % 5]);
    }
}

TEST(a_linked_run)
{
    change_linked(128);
    change_linked(2048);
    change_linked(4096 + 64);
    change_linked(3 * 4096 - 2); /* and it crosses a page itself */
}

/* Runs that begin at every byte of the same instructions, so that all are stale at once. */
TEST(overlapping_runs)
{
    pieces_begin_sized(256);
    uint8_t *p = pieces_room + pieces_at;
    memset(p, 0x90, 64);
    memcpy(p + 64, "\xb8\0\0\0\0\xc3", 6);
    pieces_at += 70;
    for (unsigned i = 0; i < 256; i++) {
        p[65] = (uint8_t)i;
        for (unsigned at = i & 3; at < 64; at += 4)
            CHECK_EQ(CALL(p + at, 0, 0), i);
        p[i & 63] = i & 1 ? 0x90 : 0xf8; /* NOP, CLC */
    }
}

/* A chain of runs, each of which changes the next before it jumps there. */
TEST(a_chain)
{
    enum { LINKS = 40, APART = 600 };
    pieces_at = 0;
    for (unsigned i = 0; i < LINKS; i++) {
        pieces_at = i * APART;
        pieces_start = pieces_at;
        /* lea ecx, [rax+imm8] is what changes */
        put(PIECE("lea eax, [rax+5]; mov edx, edi; add edx, eax"));
        const int32_t to = APART - (int32_t)(pieces_at - i * APART);
        const uint8_t store[] = {0x88, 0x15}; /* mov [rip+...], dl */
        if (i + 1 < LINKS) {
            const int32_t at = to + 2 - 6, jump = to - 6 - 5;
            put_bytes(store, 2);
            put_bytes(&at, 4);
            put_bytes("\xe9", 1);
            put_bytes(&jump, 4);
        } else {
            put(PIECE("ret"));
        }
    }
    for (unsigned round = 0; round < 60; round++) {
        unsigned want = round * 3 + 5; /* the first immediate stays */
        for (unsigned i = 1; i < LINKS; i++)
            want += (unsigned)(int)(int8_t)(want + round);
        unsigned got = round * 3;
        asm volatile("call *%1"
                     : "+a"(got)
                     : "r"(pieces_room), "D"(round)
                     : "rdx", "rcx", "memory", "cc");
        CHECK_EQ(got, want);
    }
}

/* ---- Pages -------------------------------------------------------------------------------------
 */

/* A loop whose one instruction lies in two pages, changed from within the loop in either. */
TEST(an_instruction_in_two_pages)
{
    for (unsigned in_first = 1; in_first < 5; in_first++) {
        uint8_t *border = pieces_room + 8 * 4096, *p = border - in_first;
        /* mov eax, imm32 at p; then add r8d, eax; inc byte [r9]; dec ecx; jnz p; ret */
        memset(border - 16, 0x90, 32);
        memcpy(p, "\xb8\x10\x20\x30\x40\x41\x01\xc0\x41\xfe\x01\xff\xc9\x75\xf1\xc3", 16);
        for (unsigned byte = 1; byte < 5; byte++) {
            memcpy(p + 1, "\x10\x20\x30\x40", 4);
            unsigned sum = 0, n = 30, want = 0;
            for (unsigned i = 0; i < n; i++)
                want += 0x40302010 + (i << 8 * (byte - 1));
            register word r8 asm("r8") = sum;
            register word r9 asm("r9") = (word)(p + byte);
            asm volatile("call *%3" : "+r"(r8), "+r"(r9), "+c"(n) : "r"(p) : "rax", "memory", "cc");
            CHECK_EQ((unsigned)r8, want);
        }
    }
}

/* An instruction's second half is in a page that goes, comes back as another one, and may not be
 * executed; its first half stays as it is. */
TEST(the_other_half)
{
    static uint8_t frames[3 * 4096] __attribute__((aligned(4096)));
    uint8_t *const at = (uint8_t *)0x7100000000;
    static const uint8_t mov_eax[] = {0xb8, 1};
    paging_reset();
    memset(frames, 0x90, sizeof frames);
    memcpy(frames + 4096 - 4, "\x38\xca", 2); /* cmp dl, cl */
    memcpy(frames + 4096 - 2, mov_eax, 2);
    for (unsigned k = 1; k < 3; k++)
        memcpy(frames + k * 4096, (const uint8_t[]){(uint8_t)k, 0, (uint8_t)k, 0xc3}, 4);
    map_page((word)at, phys(frames), 1, PG_P | PG_W);
    for (unsigned i = 0; i < 60; i++) {
        unsigned k = 1 + i % 2;
        bool gone = i % 5 == 4;
        map_page((word)at + 4096, phys(frames + k * 4096), 1, gone ? 0 : PG_P | PG_W);
        volatile unsigned got = 0;
        unsigned carry = i >> 1 & 1;
        struct trap t = CATCH({
            unsigned eax;
            asm volatile("call *%1"
                         : "=a"(eax)
                         : "r"(at + 4096 - 4), "d"(1 - carry), "c"(1)
                         : "memory", "cc");
            got = eax;
        });
        CHECK_EQ(t.vector, gone ? 14 : NO_TRAP);
        if (gone) {
            CHECK_EQ(t.cr2, (word)at + 4096);
            CHECK_EQ(t.rip, (word)at + 4096 - 2);
            CHECK_EQ(t.rflags & 1, carry);
        } else {
            CHECK_EQ(got, 1 | k << 8 | k << 24);
        }
        if (i == 40)
            frames[4096 - 1] = 1; /* a store to the first half */
    }
    /* one first half at two addresses, each with its own second half */
    uint8_t *const other = at + 0x10000000;
    map_page((word)other, phys(frames), 1, PG_P | PG_W);
    map_page((word)at + 4096, phys(frames + 4096), 1, PG_P | PG_W);
    map_page((word)other + 4096, phys(frames + 8192), 1, PG_P | PG_W);
    for (unsigned i = 0; i < 300; i++) {
        CHECK_EQ(CALL(at + 4096 - 4, 0, 0), 0x01000101);
        CHECK_EQ(CALL(other + 4096 - 4, 0, 0), 0x02000201);
    }
}

/* Data and stack in the same line as code: every store is next to what runs. */
TEST(data_within_the_line)
{
    pieces_at = (pieces_at + 63) & ~63u;
    pieces_begin();
    pieces_at = pieces_start = (pieces_at + 63) & ~63u;
    volatile uint32_t *line = (uint32_t *)pieces_here();
    line[0] = line[1] = 0;
    pieces_at += 8;
    word p = pieces_here();
    put(PIECE("2: inc dword ptr [rip+2b-8]; add dword ptr [rip+2b-4], 2; mov [rip+4f], ecx; "
              "dec ecx; jnz 2b; ret; 4: .long 0, 0"));
    for (unsigned i = 1; i <= 20; i++) {
        unsigned n = 100;
        asm volatile("call *%1" : "+c"(n) : "r"(p) : "memory", "cc");
        CHECK_EQ(line[0], 100 * i);
        CHECK_EQ(line[1], 200 * i);
    }
    /* the stack ends right before the code */
    pieces_begin();
    pieces_at += 64;
    pieces_start = pieces_at;
    struct context c = kernel_context();
    c.rsp = pieces_here();
    c.rax = 11;
    c.rcx = 40;
    put(PIECE(
        "2: push rax; push rcx; pop rbx; pop rdx; call 1f; jmp 3f; 1: ret; 3: dec ecx; jnz 2b"));
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rdx, 11);
    CHECK_EQ(t.frame.rbx, 1);
}

/* The stack pointer leads into code: what PUSH and CALL write is executed. */
TEST(pushed_code)
{
    static const uint8_t master[] = {0xb8, 1, 2, 3, 4, 0xc3, 0x90, 0x90}; /* mov eax, imm32; ret */
    for (unsigned i = 0; i < 100; i++) {
        uint64_t code;
        memcpy(&code, master, 8);
        code += (uint64_t)i << 8;
        unsigned got;
        asm volatile("push %1; call *%%rsp; add $8, %%rsp"
                     : "=a"(got)
                     : "r"(code)
                     : "memory", "cc");
        CHECK_EQ(got, 0x04030201 + i);
    }
}

/* ---- Two addresses of one page -----------------------------------------------------------------
 */

/* The same frame at two addresses: what is relative to RIP differs, and so do return addresses. */
TEST(aliases)
{
    paging_reset();
    pieces_begin_sized(4096);
    pieces_at = pieces_start = (pieces_at + 0xfff) & ~0xfffu;
    uint8_t *page = pieces_room + pieces_at, *one = (uint8_t *)WINDOW,
            *two = (uint8_t *)WINDOW + 0x10000000;
    put(PIECE(
        "lea rax, [rip+1f]; 1: call 2f; 2: pop rcx; jmp 3f; nop; 3: xor edx, edx; 4: add edx, "
        "[rip+5f]; cmp edx, 50; jb 4b; ret; 5: .long 1"));
    map_page((word)one, phys(page), 1, PG_ALL);
    map_page((word)two, phys(page), 1, PG_ALL);
    map_page((word)one + PAGE, FREE_RAM, 1, PG_ALL);
    map_page((word)two + PAGE, FREE_RAM + PAGE, 1, PG_ALL);
    for (unsigned i = 0; i < 200; i++) {
        uint8_t *p = i % 3 == 0 ? one : i % 3 == 1 ? two : page;
        word rip, pushed, sum;
        asm volatile("call *%3" : "=a"(rip), "=c"(pushed), "=d"(sum) : "r"(p) : "memory", "cc");
        CHECK_EQ(rip, (word)p + 7);
        CHECK_EQ(pushed, (word)p + 12);
        CHECK(sum >= 50);
    }
    /* data over the page's end is that of each address's own next page */
    memcpy(page + 64, "\x8b\x05\xfa\x0f\x00\x00\xc3", 7); /* mov eax, [rip+0xffa] */
    *(uint32_t *)(FREE_RAM + 64) = 111;
    *(uint32_t *)(FREE_RAM + PAGE + 64) = 222;
    for (unsigned i = 0; i < 50; i++) {
        CHECK_EQ(CALL(one + 64, 0, 0), 111);
        CHECK_EQ(CALL(two + 64, 0, 0), 222);
    }
    /* changed through one, run through the other */
    for (unsigned i = 0; i < 50; i++) {
        memcpy(one + 128, "\xb8\0\0\0\0\xc3", 6);
        one[129] = (uint8_t)i;
        serialise();
        CHECK_EQ(CALL(two + 128, 0, 0), i);
        two[130] = 1;
        serialise();
        CHECK_EQ(CALL(one + 128, 0, 0), 0x100 + i);
    }
}

/* A jump out of the page leads where each address's own neighbour is, though it is one frame. */
TEST(neighbours_of_aliases)
{
    paging_reset();
    uint8_t *page = pieces_room, *one = (uint8_t *)WINDOW, *two = (uint8_t *)WINDOW + 0x10000000;
    memcpy(page + 0xff0, "\xb8\x01\x00\x00\x00\xe9\x06\x00\x00\x00", 10); /* jmp to 0x1000 */
    memset(page + 0xffa, 0x90, 6);
    page[0xff6] = 6;
    for (unsigned i = 0; i < 2; i++)
        memcpy((void *)(FREE_RAM + i * PAGE), i ? "\x83\xc0\x14\xc3" : "\x83\xc0\x0a\xc3", 4);
    map_page((word)one, phys(page), 1, PG_ALL);
    map_page((word)two, phys(page), 1, PG_ALL);
    map_page((word)one + PAGE, FREE_RAM, 1, PG_ALL);
    map_page((word)two + PAGE, FREE_RAM + PAGE, 1, PG_ALL);
    for (unsigned i = 0; i < 100; i++) {
        CHECK_EQ(CALL(one + 0xff0, 0, 0), 11);
        CHECK_EQ(CALL(two + 0xff0, 0, 0), 21);
    }
    /* the neighbour is another frame from now on */
    for (unsigned i = 0; i < 50; i++) {
        map_page((word)one + PAGE, FREE_RAM + (i & 1) * PAGE, 1, PG_ALL);
        CHECK_EQ(CALL(one + 0xff0, 0, 0), i & 1 ? 21 : 11);
    }
}

/* Two pieces of a page, the second known by itself before the first one leads to it, with a flag that
 * it asks for: then the second is changed. It is a loop, of one round, or it is none. */
static void flag_into_changed_code(bool loop)
{
    pieces_begin();
    word second = pieces_here();
    if (loop)
        put(PIECE("2: setb al; movzx eax, al; add eax, 0x100; dec ecx; jnz 2b; ret"));
    else
        put(PIECE("setb al; movzx eax, al; add eax, 0x100; ret"));
    word first = pieces_here();
    put(PIECE("mov ecx, 1; cmp edi, esi; jne 1f; mov eax, 7; ret; 1:"));
    const uint8_t jump[] = {0xe9};
    uint32_t back = (uint32_t)(second - (pieces_here() + 5));
    put_bytes(jump, 1);
    put_bytes(&back, 4);
    volatile uint8_t *added = (volatile uint8_t *)second + 7; /* 01h of the immediate */
    CHECK_EQ(*added, 0);
    for (unsigned i = 0; i < 60; i++) {
        word rcx = 1;
        asm volatile("call *%1" : "+c"(rcx) : "r"(second) : "rax", "memory", "cc");
        for (unsigned n = 0; n < 3; n++)
            CALL(first, 1, 2); /* the way there is made */
        *added = (uint8_t)(i & 0x7f);
        CHECK_EQ(CALL(first, i & 1, 2), (0x100 | (i & 0x7f)) + 1);
        CHECK_EQ(CALL(first, 5, i & 3), (0x100 | (i & 0x7f)));
        CHECK_EQ(CALL(first, 5, 5), 7);
    }
}
TEST(a_flag_into_changed_code)
{
    flag_into_changed_code(false);
    flag_into_changed_code(true);
}

const struct test guest_tests[] = {T(a_flag_into_changed_code),
                                   T(ahead),
                                   T(behind),
                                   T(itself),
                                   T(flags_across_the_store),
                                   T(a_linked_run),
                                   T(overlapping_runs),
                                   T(a_chain),
                                   T(an_instruction_in_two_pages),
                                   T(the_other_half),
                                   T(data_within_the_line),
                                   T(pushed_code),
                                   T(aliases),
                                   T(neighbours_of_aliases),
                                   {0, 0}};
