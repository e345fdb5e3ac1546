/*
 * jit_loops.c - loops that never leave translated code are interrupted all the same, soon and
 * again, with the state that they have then.
 */
#include "machine.h"
#include "pieces.h"

enum { V = 0x60, OFTEN = 20 };
static volatile unsigned ticks;
static volatile word lowest, highest, out;
static volatile bool strayed;

/* Each time a little later: a host that is slow may take longer than the first time for a whole
 * interrupt, and then the guest comes no further between two of them. */
static void arm(void)
{
    apic_write(APIC_INITIAL, 20000 * (ticks + 1));
}

/* Each interrupt must find the loop; after OFTEN of them it ends. */
static bool tick(struct frame *f)
{
    apic_write(APIC_EOI, 0);
    if (f->rip < lowest || f->rip > highest)
        strayed = true;
    if (++ticks == OFTEN) {
        apic_write(APIC_LVT_TIMER, APIC_MASKED | V);
        f->rip = out;
    } else {
        arm();
    }
    return true;
}

static struct trap interrupted(struct context c, word begin, word end)
{
    apic_quiet();
    apic_write(APIC_DIVIDE, 0xb);
    trap_handlers[V] = tick;
    ticks = 0, strayed = false;
    lowest = begin, highest = end;
    out = pieces_here();
    c.rflags |= F_IF;
    apic_write(APIC_LVT_TIMER, V);
    arm();
    struct trap t = pieces_run(&c);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | V);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(ticks, OFTEN);
    CHECK(!strayed);
    return t;
}

#define LOOP(text, check)                                                                          \
    do {                                                                                           \
        struct context c = kernel_context();                                                       \
        c.rcx = 1000000000000, c.rsi = 3;                                                          \
        pieces_begin();                                                                            \
        word begin = pieces_here();                                                                \
        put(PIECE(text));                                                                          \
        struct trap t = interrupted(c, begin, pieces_here());                                      \
        (void)t;                                                                                   \
        check;                                                                                     \
    } while (0)

TEST(loops_of_every_kind)
{
    LOOP("1: jmp 1b", );
    LOOP("1: inc rax; jmp 1b", CHECK(t.frame.rax > 0));
    LOOP("1: add rax, 2; dec rcx; jnz 1b; ud2", CHECK_EQ(t.frame.rax & 1, 0));
    LOOP("1: test rsi, rsi; jnz 1b; ud2", CHECK_EQ(t.frame.rsi, 3));
    LOOP("1: loop 1b; ud2", CHECK(t.frame.rcx < 1000000000000));
    LOOP("1: jmp 2f; nop; 2: jmp 3f; nop; 3: jmp 1b", );
    LOOP("lea rdx, [rip+1f]; 1: jmp rdx", );
    LOOP("lea rdx, [rip+1f]; 1: push rdx; ret", );
    LOOP("1: call 2f; jmp 1b; 2: ret", );
    LOOP("1: call 2f; 2: pop rax; jmp 1b", );
    LOOP("lea rdx, [rip+2f]; 1: call rdx; inc r15; jmp 1b; 2: ret", );
    LOOP("lea rdx, [rip+1f]; push rdx; 1: jmp [rsp]", );
    LOOP("1: inc r10; add r11, 1; adc r15, 0; jmp 1b", CHECK_EQ(t.frame.r10 - t.frame.r11 <= 1, 1));
    LOOP("1: movd xmm0, ecx; paddd xmm1, xmm0; dec rcx; jnz 1b; ud2", );
    LOOP("1: pause; jmp 1b", );
    LOOP("1: jz 3f; jmp 1b; 3: ud2", );
    LOOP("1: cmp rsi, 3; je 2f; ud2; 2: cmp rsi, 4; jne 1b; ud2", );
}

/* Where an inner loop is always entered it polls for the outer one; where it may be left out, it
 * cannot. */
TEST(loops_in_loops)
{
    LOOP("1: mov edx, 3; 2: dec edx; jnz 2b; dec rcx; jnz 1b; ud2", CHECK(t.frame.rdx <= 3));
    LOOP("1: xor edx, edx; jmp 3f; 2: dec edx; jnz 2b; 3: test edx, edx; jnz 2b; jmp 1b", );
    LOOP("1: test rdx, rdx; jz 3f; 2: dec rdx; jnz 2b; 3: xor edx, edx; jmp 1b", );
    LOOP("1: cmp rsi, 3; jne 4f; 2: cmp rsi, 4; jne 1b; 4: mov edx, 2; 3: dec edx; jnz 3b; jmp 2b",
         CHECK_EQ(t.frame.rsi, 3));
    LOOP("1: mov edx, 2; 2: mov ebx, 2; 3: dec ebx; jnz 3b; dec edx; jnz 2b; mov edx, 2; "
         "4: dec edx; jnz 4b; jmp 1b",
         CHECK(t.frame.rbx <= 2));
    LOOP("1: xor rsi, 1; jz 2f; test rsi, 1; jz 1b; jmp 1b; 2: ud2", CHECK(t.frame.rsi - 2 < 2));
}

/* Both ways to the branch that leads back have made the same comparison. */
TEST(a_way_back_where_ways_meet)
{
    LOOP("1: mov rdx, [rsp]; add r10, 1; test r10b, 1; jz 3f; cmp rax, 5; 2: jne 1b; ud2; "
         "3: lea r11, [r11+1]; cmp rax, 5; jmp 2b",
         CHECK(t.frame.r10 / 2 - t.frame.r11 <= 1));
    LOOP("1: mov rdx, [rsp]; add r10, 1; test r10b, 1; jz 3f; cmp eax, ecx; 2: jne 1b; ud2; "
         "3: lea r11, [r11+1]; cmp eax, ecx; jmp 2b",
         CHECK(t.frame.r10 / 2 - t.frame.r11 <= 1));
}

static void call_with(word code, word rsi, word rdi)
{
    asm volatile("call *%0" ::"r"(code), "S"(rsi), "D"(rdi) : "r8", "r10", "memory", "cc");
}

/* Three blocks that were met in such an order that one region has the last and then the first of
 * them, so that no way in it leads backwards as it stands, and another one has the second. */
TEST(a_loop_of_two_regions)
{
    enum { SECOND = 6, THIRD = 12 };
    struct context c = kernel_context();
    pieces_begin();
    word begin = pieces_here();
    put(PIECE("1: inc r8; jmp 2f; nop; 2: test rsi, rsi; jnz 3f; ret; 3: inc r10; test rdi, rdi; "
              "jnz 1b; ret"));
    for (unsigned i = 0; i < 3; i++)
        call_with(begin + SECOND, 0, 0);
    for (unsigned i = 0; i < 4; i++)
        call_with(begin + THIRD, 0, 1);
    c.rsi = c.rdi = 1;
    struct trap t = interrupted(c, begin, pieces_here());
    CHECK(t.frame.r8 - t.frame.r10 <= 1 && t.frame.r10 > 0);
}

/* The second of two blocks has its region first, so that its Jcc leads back to another one. */
TEST(a_conditional_way_back_to_another_region)
{
    enum { SECOND = 6 };
    struct context c = kernel_context();
    pieces_begin();
    word begin = pieces_here();
    put(PIECE("1: inc r8; jmp 2f; nop; 2: inc r10; test rdi, rdi; jnz 1b; ret"));
    for (unsigned i = 0; i < 4; i++)
        call_with(begin + SECOND, 0, 0);
    c.rdi = 1;
    struct trap t = interrupted(c, begin, pieces_here());
    CHECK(t.frame.r8 - t.frame.r10 <= 1 && t.frame.r10 > 0);
}

/* Two pages that jump to each other. */
TEST(a_loop_through_two_pages)
{
    pieces_at = 0;
    pieces_start = 0;
    uint8_t *one = pieces_room, *two = pieces_room + 2 * 4096 + 128;
    const int32_t there = (int32_t)(two - (one + 8)), back = (int32_t)(one - (two + 8));
    memcpy(one, "\x48\xff\xc0\xe9", 4); /* inc rax; jmp */
    memcpy(one + 4, &there, 4);
    memcpy(two, "\x48\xff\xc3\xe9", 4); /* inc rbx; jmp */
    memcpy(two + 4, &back, 4);
    pieces_at = 64;
    struct trap t = interrupted(kernel_context(), (word)one, (word)two + 16);
    CHECK(t.frame.rax - t.frame.rbx <= 1 && t.frame.rbx > 0);
}

/* An interrupt shows the flags of where it comes, whatever produced them. */
static volatile unsigned flags_bad, flags_seen;
static volatile bool flags_everywhere; /* not only where the loop begins */
static bool look_at_flags(struct frame *f)
{
    /* the loop keeps RBX = RAX + 1 at the compare */
    unsigned arith = f->rflags & F_ARITH;
    flags_seen++;
    if ((flags_everywhere ? f->rip >= lowest : f->rip == lowest) &&
        arith != 1 + 0x10 + 0x80 + 4) /* 0 - 1 */
        flags_bad++;
    return tick(f);
}

static void flags_in(struct piece loop, bool everywhere)
{
    static uint32_t zero;
    flags_everywhere = everywhere;
    struct context c = kernel_context();
    c.rdi = (word)&zero;
    pieces_begin();
    put(PIECE("xor eax, eax; mov ebx, 1; cmp eax, ebx"));
    word begin = pieces_here();
    put(loop);
    flags_bad = flags_seen = 0;
    apic_quiet();
    apic_write(APIC_DIVIDE, 0xb);
    trap_handlers[V] = look_at_flags;
    ticks = 0, lowest = begin, highest = pieces_here(), out = pieces_here(), strayed = false;
    c.rflags |= F_IF;
    apic_write(APIC_LVT_TIMER, V);
    arm();
    struct trap t = pieces_run(&c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(flags_bad, 0);
    CHECK_EQ(flags_seen, OFTEN);
    if (everywhere)
        CHECK_EQ(t.rflags & F_ARITH, 0x95);
}

TEST(flags_at_interrupts)
{
    flags_in(PIECE("1: mov rdx, [rsp]; mov [rsp-8], rdx; lea r10, [r10+1]; jmp 2f; 2: mov rcx, "
                   "r10; jmp 1b"),
             true);
}

/* They are written and wanted again in each round; what interrupts comes where it begins. */
TEST(flags_at_interrupts_between_rounds)
{
    flags_in(PIECE("1: mov rdx, [rsp]; add r10, 1; cmp eax, ebx; jne 1b"), false);
    flags_in(PIECE("1: mov rdx, [rsp]; add r10, 1; mov rcx, [rsp]; cmp eax, ebx; jmp 1b"), false);
    flags_in(PIECE("1: mov rdx, [rsp]; add r10, 1; cmp eax, 1; jb 1b"), false);
    flags_in(PIECE("1: mov rdx, [rsp]; add r10, 1; mov r11, rax; sub r11, rbx; jb 1b"), false);
    flags_in(PIECE("1: mov rdx, [rsp]; add r10, 1; cmp [rdi], ebx; jb 1b"), false);
}

const struct test guest_tests[] = {T(loops_of_every_kind),
                                   T(loops_in_loops),
                                   T(a_way_back_where_ways_meet),
                                   T(a_loop_of_two_regions),
                                   T(a_conditional_way_back_to_another_region),
                                   T(a_loop_through_two_pages),
                                   T(flags_at_interrupts),
                                   T(flags_at_interrupts_between_rounds),
                                   {0, 0}};
