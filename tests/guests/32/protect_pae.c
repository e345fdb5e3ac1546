/*
 * protect_pae.c - protection rules with PAE paging follow the page-directory-pointer registers: as
 * the processor does they wait for a load (SDM vol. 3, 4.4.1; include/bailey/protect.h).
 *
 * guest options: -serial null
 */
#include "door.h"
#include "legacy.h"

enum {
    HERE = 0x40000000, /* PDPTE 1: what the rules are about */
    RAM = 0x1000000,
    RAM2 = 0x1200000,
};
static uint64_t pdpt[4] __attribute__((aligned(32)));
static uint64_t pd[4][512] __attribute__((aligned(4096)));
static uint64_t other_pd[512] __attribute__((aligned(4096)));
static uint64_t session;
static uint32_t region;

static void load(void)
{
    write_cr3((word)pdpt);
}

/* HERE is RAM by one directory and RAM2 by the other. */
static void paging_on(void)
{
    for (unsigned i = 0; i < 4; i++) {
        pdpt[i] = (word)pd[i] | E_P;
        for (unsigned j = 0; j < 512; j++)
            pd[i][j] = ((uint64_t)i << 30 | j << 21) | E_ALL | E_PS;
    }
    memset(other_pd, 0, sizeof other_pd);
    pd[1][0] = RAM | E_ALL | E_PS;
    other_pd[0] = RAM2 | E_ALL | E_PS;
    write_cr4((read_cr4() | CR4_PAE) & ~(word)(CR4_PGE | CR4_SMEP));
    load();
    write_cr0(read_cr0() | CR0_PG | CR0_WP);
}
static void paging_off(void)
{
    write_cr0(read_cr0() & ~(word)(CR0_PG | CR0_WP));
    write_cr4(read_cr4() & ~(word)CR4_PAE);
}

static bool refused(uint32_t at)
{
    struct trap t = try_write(at);
    return t.vector == V_PF && t.error == (PF_P | PF_W | 1 << PROTECT_DEFAULT_MARKER);
}
static bool passes(uint32_t at)
{
    return try_write(at).vector == NO_TRAP;
}
static struct protect_event newest(void)
{
    return door_event(0, door_get(&DOOR(0)->event_head));
}

static void begin(uint32_t flags)
{
    paging_on();
    CHECK_EQ(door_command(0, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    session = door_result(0);
    region = door_add(0, session, HERE + 0x10, 8, flags, 1);
    struct protect_rule r = door_rule(region);
    r.allow[PROTECT_OWNER] = PROTECT_READ;
    r.action[PROTECT_OWNER] = PROTECT_DENY;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    CHECK(refused(HERE + 0x10));
    CHECK(refused(RAM + 0x10));
    CHECK(passes(RAM2 + 0x10));
}
static void end(void)
{
    CHECK_EQ(door_command(0, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
    paging_off();
}

/* The n-th load since `pdpt` changed is the first: by each instruction that makes one. */
static void by_cr3(void)
{
    load();
}
static void by_cr0(void)
{
    word cr0 = read_cr0();
    write_cr0(cr0 | CR0_CD);
    write_cr0(cr0);
}
static void by_cr4(void)
{
    word cr4 = read_cr4();
    write_cr4(cr4 | CR4_PGE);
    write_cr4(cr4);
}

static void moves_with_a_load(void (*loads)(void))
{
    begin(PROTECT_FOLLOW);
    pdpt[1] = (word)other_pd | E_P; /* in memory only: nothing has changed yet */
    CHECK(refused(RAM + 0x10));
    CHECK(passes(RAM2 + 0x10));
    loads();
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK_EQ(newest().region, region);
    CHECK_EQ(newest().gva, HERE);
    CHECK(refused(HERE + 0x10));
    CHECK(refused(RAM2 + 0x10));
    CHECK(passes(RAM + 0x10));
    /* The new directory is watched, and the old one no more. */
    uint64_t events = door_get(&DOOR(0)->event_head);
    pd[1][0] = 0;
    CHECK_EQ(door_get(&DOOR(0)->event_head), events);
    other_pd[0] = RAM | E_ALL | E_PS;
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK(refused(RAM + 0x10));
    CHECK(passes(RAM2 + 0x10));
    /* Away, and back. */
    pdpt[1] = 0;
    loads();
    CHECK_EQ(newest().type, PROTECT_EVENT_UNMAPPED);
    CHECK(passes(RAM + 0x10));
    pdpt[1] = (word)other_pd | E_P;
    loads();
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK(refused(RAM + 0x10));
    end();
}
TEST(moves_with_mov_cr3)
{
    moves_with_a_load(by_cr3);
}
TEST(moves_with_changes_of_cr0_and_cr4)
{
    moves_with_a_load(by_cr0);
    if (cpu_has(1, REG_EDX, 13))
        moves_with_a_load(by_cr4);
}

/* The instruction that loads is itself watched, so it is executed under guard. */
static uint8_t loader[4096] __attribute__((aligned(4096)));
TEST(moves_when_the_load_is_watched)
{
    memcpy(loader, "\x0f\x22\xd8\xc3", 4); /* mov %eax, %cr3; ret */
    begin(PROTECT_FOLLOW);
    struct protect_rule r = door_rule(door_add(0, session, (word)loader, 3, 0, 1));
    r.allow[PROTECT_OWNER] = 0;
    r.action[PROTECT_OWNER] = PROTECT_ALLOW;
    CHECK_EQ(door_set(0, session, &r), PROTECT_OK);
    uint64_t events = door_get(&DOOR(0)->event_head);
    pdpt[1] = (word)other_pd | E_P;
    asm volatile("call *%0" ::"r"(loader), "a"(pdpt) : "memory");
    CHECK_EQ(door_get(&DOOR(0)->event_head), events + 2);
    CHECK_EQ(door_event(0, events + 1).access, PROTECT_EXEC);
    CHECK_EQ(newest().type, PROTECT_EVENT_MOVED);
    CHECK(refused(RAM2 + 0x10));
    CHECK(passes(RAM + 0x10));
    end();
}

TEST(a_pinned_page_stays)
{
    begin(PROTECT_PIN);
    pdpt[1] = (word)other_pd | E_P;
    load();
    CHECK_EQ(newest().type, PROTECT_EVENT_PINNED);
    CHECK(refused(RAM + 0x10));
    CHECK(passes(RAM2 + 0x10));
    end();
}

/* Another root's registers are another address space's. */
TEST(another_root_changes_nothing)
{
    static uint64_t others[4] __attribute__((aligned(32)));
    begin(PROTECT_FOLLOW);
    uint64_t events = door_get(&DOOR(0)->event_head);
    memcpy(others, pdpt, sizeof others);
    others[1] = (word)other_pd | E_P;
    write_cr3((word)others);
    CHECK_EQ(door_get(&DOOR(0)->event_head), events);
    CHECK(refused(RAM + 0x10));
    CHECK(passes(HERE + 0x10)); /* RAM2 there */
    load();
    CHECK_EQ(door_get(&DOOR(0)->event_head), events + 1); /* the refusal's own */
    CHECK(refused(HERE + 0x10));
    end();
}

/* The door is mapped through a register, too: without it the context ends. */
static word user_bind(word x)
{
    return door_command(1, PROTECT_OP_BIND, 0, 0, 0);
}
TEST(a_door_that_is_gone_ends_the_context)
{
    paging_on();
    CHECK_EQ(call_user(user_bind, 0), PROTECT_OK);
    CHECK_EQ(DOOR(1)->state, PROTECT_DOOR_USER);
    load(); /* the same again: nothing happens */
    CHECK_EQ(DOOR(1)->state, PROTECT_DOOR_USER);
    pdpt[3] = 0;
    load();
    pdpt[3] = (word)pd[3] | E_P;
    load();
    CHECK_EQ(DOOR(1)->state, PROTECT_DOOR_FREE);
    paging_off();
}

const struct test guest_tests[] = {T(moves_with_mov_cr3),
                                   T(moves_with_changes_of_cr0_and_cr4),
                                   T(moves_when_the_load_is_watched),
                                   T(a_pinned_page_stays),
                                   T(another_root_changes_nothing),
                                   T(a_door_that_is_gone_ends_the_context),
                                   {0, 0}};
