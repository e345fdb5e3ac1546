/*
 * pku.c - protection keys of user pages (SDM vol. 3, 4.6.2): PKRU, CR4.PKE, the PK bit of page
 * faults.
 */
#include "paging.h"

static uint8_t frame[4][4096] __attribute__((aligned(4096)));
#define KEY(n) ((uint64_t)(n) << 59)
enum { AD = 1, WD = 2 };

static void wrpkru(uint32_t v)
{
    asm volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory");
}

static uint32_t rdpkru(void)
{
    uint32_t v, edx;
    asm volatile("rdpkru" : "=a"(v), "=d"(edx) : "c"(0));
    CHECK_EQ(edx, 0);
    return v;
}

static uint8_t *page;

static void begin(unsigned key)
{
    paging_reset();
    frame[0][0] = 0xc3;
    page = map_page(WINDOW, phys(frame[0]), 1, PG_ALL | KEY(key));
    write_cr4(read_cr4() | CR4_PKE);
    wrpkru(0);
}

static void end(void)
{
    wrpkru(0);
    write_cr4(read_cr4() & ~CR4_PKE);
}

TEST(each_key_has_two_bits)
{
    REQUIRE(HAS_PKU());
    for (unsigned key = 1; key < 16; key++) { /* the guest's own pages have key 0 */
        begin(key);
        CHECK_NO_TRAP(try_write(page, 0xc3));
        wrpkru(AD << 2 * key);
        CHECK_EQ(rdpkru(), (uint32_t)AD << 2 * key);
        CHECK_PF(try_read(page), (word)page, PF_P | PF_PK, SYMBOL(read_here));
        CHECK_PF(try_write(page, 1), (word)page, PF_P | PF_PK | PF_W, SYMBOL(write_here));
        wrpkru(WD << 2 * key);
        CHECK_NO_TRAP(try_read(page));
        CHECK_PF(try_write(page, 1), (word)page, PF_P | PF_PK | PF_W, SYMBOL(write_here));
        wrpkru(~(3u << 2 * key) & ~3u); /* all others forbidden */
        CHECK_NO_TRAP(try_write(page, 0xc3));
        end();
    }
}

TEST(user_accesses)
{
    REQUIRE(HAS_PKU());
    begin(5);
    wrpkru(AD << 10);
    CHECK_PF(try_user(user_read_, page), (word)page, PF_P | PF_PK | PF_U, SYMBOL(user_read_here));
    CHECK_PF(try_user(user_write_, page), (word)page, PF_P | PF_PK | PF_U | PF_W,
             SYMBOL(user_write_here));
    wrpkru(WD << 10);
    CHECK_NO_TRAP(try_user(user_read_, page));
    CHECK_PF(try_user(user_write_, page), (word)page, PF_P | PF_PK | PF_U | PF_W,
             SYMBOL(user_write_here));
    CHECK_EQ(*entry_of(WINDOW, 1) & PG_D, 0);
    end();
}

/* Keys are for data: instructions are fetched all the same. */
TEST(fetches_are_free)
{
    REQUIRE(HAS_PKU());
    begin(7);
    wrpkru(3u << 14);
    CHECK_NO_TRAP(try_call(page));
    CHECK_NO_TRAP(try_user(user_call_, page));
    end();
}

/* WD binds the supervisor only with CR0.WP; AD always. */
TEST(write_disable_and_wp)
{
    REQUIRE(HAS_PKU());
    begin(9);
    word cr0 = read_cr0();
    wrpkru(WD << 18);
    write_cr0(cr0 & ~CR0_WP);
    CHECK_NO_TRAP(try_write(page, 0xc3));
    CHECK_PF(try_user(user_write_, page), (word)page, PF_P | PF_PK | PF_U | PF_W,
             SYMBOL(user_write_here));
    wrpkru(AD << 18);
    CHECK_PF(try_write(page, 1), (word)page, PF_P | PF_PK | PF_W, SYMBOL(write_here));
    write_cr0(cr0);
    end();
}

/* Supervisor pages have no keys; nor does anything without CR4.PKE. */
TEST(where_keys_do_not_count)
{
    REQUIRE(HAS_PKU());
    begin(3);
    wrpkru(3u << 6);
    write_cr4(read_cr4() & ~CR4_PKE);
    CHECK_NO_TRAP(try_write(page, 0xc3));
    write_cr4(read_cr4() | CR4_PKE);
    CHECK_PF(try_read(page), (word)page, PF_P | PF_PK, SYMBOL(read_here));
    for (unsigned level = 1; level <= 4; level++) {
        *entry_of(WINDOW, level) &= ~PG_U;
        flush_all();
        CHECK_NO_TRAP(try_write(page, 0xc3));
        *entry_of(WINDOW, level) |= PG_U;
        flush_all();
        CHECK_PF(try_read(page), (word)page, PF_P | PF_PK, SYMBOL(read_here));
    }
    end();
}

/* The key is the leaf's: of a 2-MiB page in its PDE; in the entries above it is ignored. */
TEST(the_key_is_the_leafs)
{
    REQUIRE(HAS_PKU());
    begin(0);
    *entry_of(WINDOW, 2) |= KEY(4);
    *entry_of(WINDOW, 4) |= KEY(4);
    flush_all();
    wrpkru(3u << 8);
    CHECK_NO_TRAP(try_write(page, 0xc3));
    uint8_t *big = map_page(WINDOW + 0x200000, FREE_RAM, 2, PG_ALL | KEY(4));
    CHECK_PF(try_read(big + 0x12345), (word)big + 0x12345, PF_P | PF_PK, SYMBOL(read_here));
    if (HAS_GBPAGES()) {
        big = map_page(WINDOW + 0x40000000, 0, 3, PG_ALL | KEY(4));
        CHECK_PF(try_read(big + 5), (word)big + 5, PF_P | PF_PK, SYMBOL(read_here));
    }
    end();
}

/* PK is set when the key forbids the access, also when something else does (SDM 4.7). */
TEST(two_reasons_at_once)
{
    REQUIRE(HAS_PKU());
    begin(2);
    wrpkru(WD << 4);
    *entry_of(WINDOW, 1) &= ~PG_W;
    invlpg(page);
    CHECK_PF(try_user(user_write_, page), (word)page, PF_P | PF_PK | PF_U | PF_W,
             SYMBOL(user_write_here));
    wrpkru(0);
    CHECK_PF(try_user(user_write_, page), (word)page, PF_P | PF_U | PF_W, SYMBOL(user_write_here));
    wrpkru(AD << 4);
    *entry_of(WINDOW, 1) &= ~PG_P;
    invlpg(page);
    CHECK_PF(try_read(page), (word)page, 0, SYMBOL(read_here));
    end();
}

/* The stores of a page-crossing access meet two keys. */
TEST(crossing_into_a_page_with_another_key)
{
    REQUIRE(HAS_PKU());
    begin(1);
    map_page(WINDOW + PAGE, phys(frame[1]), 1, PG_ALL | KEY(2));
    wrpkru(WD << 4);
    memset(frame[0] + 4090, 0xee, 6);
    struct trap t = CATCH(asm volatile(LABEL(crossing_here) "movq $0, (%0)" ::"r"(page + PAGE - 4)
                                       : "memory"));
    CHECK_PF(t, WINDOW + PAGE, PF_P | PF_PK | PF_W, SYMBOL(crossing_here));
    CHECK_EQ(frame[0][4095], 0xee);
    end();
}

#define CHECK_TRAP(t, number, at)                                                                  \
    do {                                                                                           \
        struct trap t_ = (t);                                                                      \
        CHECK_EQ(t_.vector, number);                                                               \
        CHECK_EQ(t_.rip, at);                                                                      \
    } while (0)

ALONE struct trap odd_rdpkru(word rcx)
{
    return CATCH(asm volatile(LABEL(rdpkru_here) "rdpkru" ::"c"(rcx) : "rax", "rdx"));
}
ALONE struct trap odd_wrpkru(word rcx, word rdx)
{
    return CATCH(asm volatile(LABEL(wrpkru_here) "wrpkru" ::"c"(rcx), "d"(rdx), "a"(0)));
}

TEST(the_instructions)
{
    REQUIRE(HAS_PKU());
    CHECK_TRAP(odd_rdpkru(0), VECTOR_UD, SYMBOL(rdpkru_here)); /* CR4.PKE is clear */
    CHECK_TRAP(odd_wrpkru(0, 0), VECTOR_UD, SYMBOL(wrpkru_here));
    CHECK_EQ(cpu_has(7, REG_ECX, 4), 0); /* OSPKE mirrors it */
    begin(0);
    CHECK_EQ(cpu_has(7, REG_ECX, 4), 1);
    CHECK_TRAP(odd_rdpkru(1), VECTOR_GP, SYMBOL(rdpkru_here));
    CHECK_TRAP(odd_wrpkru(1, 0), VECTOR_GP, SYMBOL(wrpkru_here));
    CHECK_TRAP(odd_wrpkru(0, 1), VECTOR_GP, SYMBOL(wrpkru_here));
    CHECK_NO_TRAP(odd_rdpkru(1ull << 32)); /* ECX, not RCX */
    CHECK_NO_TRAP(odd_wrpkru(1ull << 32, 1ull << 32));
    end();
}

static word user_wrpkru(word v)
{
    asm volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory");
    return *(volatile uint8_t *)WINDOW;
}

TEST(the_user_may_write_pkru)
{
    REQUIRE(HAS_PKU());
    begin(6);
    wrpkru(3u << 12);
    CHECK_EQ(call_user(user_wrpkru, 0), 0xc3);
    CHECK_EQ(rdpkru(), 0);
    end();
}

/* Code that only can be executed is stepped through like any other: RF between iterations of REP
 * (SDM vol. 3, 17.3.1.1), and DEBUGCTL.BTF (17.4.3). */
static volatile word step_rip[8], step_flags[8];
static volatile unsigned steps;
static bool on_step(struct frame *f)
{
    step_rip[steps & 7] = f->rip;
    step_flags[steps++ & 7] = f->rflags;
    return true;
}
/* The code begins with a POPF that sets TF, and ends with one that clears it and `jmp *%rbx`. */
ALONE void step_through(const uint8_t *code, unsigned len)
{
    static uint8_t bytes[8];
    word to = (word)bytes, count = 3;
    memcpy(frame[0], code, len);
    steps = 0;
    asm volatile("pushfq\n pushfq\n orq $0x100, (%%rsp)\n leaq 1f(%%rip), %%rbx\n jmp *%2\n 1:"
                 : "+D"(to), "+c"(count)
                 : "r"(page), "a"(0)
                 : "rbx", "memory", "cc");
}
TEST(steps_through_what_cannot_be_read)
{
    static const uint8_t rep[] = {0x9d, 0xf3, 0xaa, 0x9d, 0xff, 0xe3};
    static const uint8_t branch[] = {0x9d, 0x90, 0xeb, 1, 0x90, 0x9d, 0xff, 0xe3};
    enum { MSR_DEBUGCTL = 0x1d9, BTF = 2 };
    REQUIRE(HAS_PKU());
    trap_handlers[1] = on_step;
    begin(1);
    wrpkru(AD << 2);
    step_through(rep, sizeof rep);
    CHECK_EQ(steps, 4);
    CHECK_EQ(step_flags[0] & FLAG_RF, FLAG_RF);
    CHECK_EQ(step_flags[1] & FLAG_RF, FLAG_RF);
    CHECK_EQ(step_flags[2] & FLAG_RF, 0);
    wrmsr(MSR_DEBUGCTL, BTF);
    step_through(branch, sizeof branch);
    wrmsr(MSR_DEBUGCTL, 0);
    CHECK_EQ(step_rip[0], (word)page + 5); /* the NOP makes no trap */
    CHECK_EQ(steps, 2);
    end();
    trap_handlers[1] = 0;
}

const struct test guest_tests[] = {T(each_key_has_two_bits),
                                   T(user_accesses),
                                   T(fetches_are_free),
                                   T(write_disable_and_wp),
                                   T(where_keys_do_not_count),
                                   T(the_key_is_the_leafs),
                                   T(two_reasons_at_once),
                                   T(crossing_into_a_page_with_another_key),
                                   T(the_instructions),
                                   T(the_user_may_write_pkru),
                                   T(steps_through_what_cannot_be_read),
                                   {0, 0}};
