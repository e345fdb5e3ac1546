/*
 * protect_door.c - the door of the protection device as real instructions meet it: through PCI and
 * at its fixed address, by every kind of store, from other address spaces, and from two processors
 * at once (include/bailey/protect.h).
 *
 * guest options: -smp 2
 */
#include "bailey/protect.h"
#include "machine.h"
#include "paging.h"
#include "pci.h"

enum { DEVFN = 31 << 3, VECTOR = 0x51 };

typedef volatile struct protect_door door_t;
#define DOOR(n) ((door_t *)PROTECT_DOOR_ADDRESS(n))
static volatile struct protect_admin *const admin =
    (volatile struct protect_admin *)PROTECT_ADMIN_ADDRESS;

/* Fills slot 0 but for the operation's number, which is returned. */
static void fill(door_t *door, unsigned op, uint64_t session, uint64_t a0, uint64_t a1)
{
    volatile struct protect_command *c = &door->command[0];
    *(volatile uint64_t *)c = op;
    c->session = session;
    c->arg[0] = a0;
    c->arg[1] = a1;
    c->arg[2] = c->arg[3] = 0;
}

static uint32_t command(door_t *door, unsigned op, uint64_t session, uint64_t a0, uint64_t a1)
{
    fill(door, op, session, a0, a1);
    door->doorbell = 0;
    return door->command[0].status;
}

static uint64_t bind(door_t *door)
{
    CHECK_EQ(command(door, PROTECT_OP_BIND, 0, 0, 0), PROTECT_OK);
    return door->command[0].result;
}

static void unbind(door_t *door, uint64_t session)
{
    CHECK_EQ(command(door, PROTECT_OP_UNBIND, session, 0, 0), PROTECT_OK);
    CHECK_EQ(door->state, PROTECT_DOOR_FREE);
}

/* ---- Where it is ----------------------------------------------------------------------------- */

TEST(through_pci)
{
    CHECK_EQ(pci_read32(DEVFN, PCI_ID), 0x0b411b36);
    CHECK_EQ(pci_read32(DEVFN, PCI_REVISION) >> 8, 0x088000);
    door_t *bar = (door_t *)pci_bar(DEVFN, 2);
    volatile struct protect_admin *page = (volatile struct protect_admin *)pci_bar(DEVFN, 0);
    CHECK_EQ(page->id, PROTECT_ID);
    CHECK_EQ(page->doors_address, PROTECT_DOORS_ADDRESS);
    for (unsigned n = 0; n < PROTECT_DOORS; n++)
        CHECK_EQ(bar[n].index, n);
    uint64_t session = bind(&bar[63]); /* bound there, used here */
    CHECK(session != 0);
    CHECK_EQ(DOOR(63)->state, PROTECT_DOOR_SUPERVISOR);
    CHECK_EQ(command(DOOR(63), PROTECT_OP_BIND, 0, 0, 0), PROTECT_BUSY);
    unbind(DOOR(63), session);
    CHECK_EQ(DOOR(63)->command[0].session, 0); /* nothing of it is left */
}

/* ---- Stores ---------------------------------------------------------------------------------- */

static struct protect_statistics statistics __attribute__((aligned(64)));

static void ring_mov(volatile uint64_t *bell)
{
    *bell = 0;
}
static void ring_mov32(volatile uint64_t *bell)
{
    *(volatile uint32_t *)bell = 0;
}
static void ring_xchg(volatile uint64_t *bell)
{
    uint64_t v = 0;
    asm volatile("xchg %0, %1" : "+r"(v), "+m"(*bell));
    CHECK_EQ(v, 0);
}
static void ring_lock_and(volatile uint64_t *bell)
{
    asm volatile("lock andq $0, %0" : "+m"(*bell));
}
static void ring_cmpxchg(volatile uint64_t *bell)
{
    uint64_t old = 0;
    asm volatile("lock cmpxchgq %2, %1" : "+a"(old), "+m"(*bell) : "r"(0ull));
}
static void ring_cmpxchg16b(volatile uint64_t *bell) /* doorbell and resume */
{
    uint64_t lo = 0, hi = 0;
    asm volatile("lock cmpxchg16b %2"
                 : "+a"(lo), "+d"(hi), "+m"(*(volatile __int128 *)bell)
                 : "b"(0ull), "c"(0ull));
}
static void ring_stosq(volatile uint64_t *bell)
{
    asm volatile("stosq" : "+D"(bell) : "a"(0ull) : "memory");
}
static void ring_movsq(volatile uint64_t *bell)
{
    static const uint64_t zero;
    const void *from = &zero;
    asm volatile("movsq" : "+D"(bell), "+S"(from)::"memory");
}
static void ring_push(volatile uint64_t *bell)
{
    asm volatile("mov %%rsp, %%rax; lea 8(%0), %%rsp; pushq $0; mov %%rax, %%rsp" ::"r"(bell)
                 : "rax", "memory");
}
static void ring_pop(volatile uint64_t *bell)
{
    asm volatile("pushq $0; popq %0" : "=m"(*bell));
}
static void ring_setcc(volatile uint64_t *bell) /* one byte: no bell */
{
    asm volatile("cmp %%eax, %%eax; setne %0" : "=m"(*(volatile uint8_t *)bell)::"cc");
}
static void ring_mov16(volatile uint64_t *bell)
{
    *(volatile uint16_t *)bell = 0;
}
static void ring_beside(volatile uint64_t *bell) /* unaligned */
{
    *(volatile uint64_t *)((volatile char *)bell - 1) = 0;
}
static void ring_high(volatile uint64_t *bell)
{
    ((volatile uint32_t *)bell)[1] = 0;
}

/* Each executes the command exactly once, before the next instruction; the last four never. A
 * locked store of 16 bytes ends at `resume`, which is one thing only: refused, since upcalls are resumed from CPL 3. */
TEST(every_kind_of_store_rings)
{
    static void (*const rings[])(volatile uint64_t *) = {
        ring_mov,   ring_mov32,  ring_xchg, ring_lock_and,  ring_cmpxchg,
        ring_stosq, ring_movsq,  ring_push, ring_pop,       ring_setcc,
        ring_mov16, ring_beside, ring_high, ring_cmpxchg16b};
    enum { RINGS = sizeof(rings) / sizeof(rings[0]), GOOD = 9 };
    uint64_t session = bind(DOOR(0)), commands = 1;
    for (unsigned i = 0; i < RINGS; i++) {
        memset(&statistics, 0xee, sizeof(statistics));
        fill(DOOR(0), PROTECT_OP_STATISTICS, session, (word)&statistics, 0);
        rings[i](&DOOR(0)->doorbell);
        CHECK_EQ(statistics.commands, i < GOOD ? commands++ : 0xeeeeeeeeeeeeeeee);
    }
    CHECK_EQ(DOOR(0)->resume_status, PROTECT_WRONG_CALLER);
    unbind(DOOR(0), session);
}

/* ---- Who is calling -------------------------------------------------------------------------- */

static uint64_t other_pml4[512] __attribute__((aligned(4096)));
static uint64_t user_session;

static word bind_there(word n)
{
    fill(DOOR(n), PROTECT_OP_BIND, 0, 0, 0);
    DOOR(n)->doorbell = 0;
    user_session = DOOR(n)->command[0].result;
    return DOOR(n)->command[0].status;
}
static word unbind_there(word n)
{
    return command(DOOR(n), PROTECT_OP_UNBIND, user_session, 0, 0);
}
/* With everything that a stranger can know, even the session. */
static word meddle(word n)
{
    volatile uint64_t *at = (volatile uint64_t *)DOOR(n);
    word seen = 0;
    for (unsigned i = 2; i < PROTECT_DOOR_SIZE / 8; i++)
        if (i < 128 || i >= 256 || i % 8 != 6) /* statuses are WRONG_CALLER */
            seen |= at[i];
    unbind_there(n);
    DOOR(n)->event_tail = 0;
    DOOR(n)->masked = 1;
    DOOR(n)->resume = 0x100;
    return seen | (DOOR(n)->command[0].status != PROTECT_WRONG_CALLER);
}

TEST(others_see_and_change_nothing)
{
    memcpy(other_pml4, boot_pml4, 4096);
    CHECK_EQ(call_user(bind_there, 4), PROTECT_OK);
    CHECK_EQ(DOOR(4)->state, PROTECT_DOOR_USER);
    CHECK_EQ(meddle(4), 0); /* CPL 0 in the same address space */
    write_cr3((word)other_pml4);
    CHECK_EQ(call_user(meddle, 4), 0); /* CPL 3 in another */
    CHECK_EQ(call_user(bind_there, 5), PROTECT_OK);
    CHECK_EQ(call_user(unbind_there, 5), PROTECT_OK);
    write_cr3((word)boot_pml4);
    CHECK_EQ(DOOR(4)->state, PROTECT_DOOR_USER);
    uint64_t session = bind(DOOR(6)); /* and the other way round */
    user_session = session;
    CHECK_EQ(call_user(meddle, 6), 0);
    unbind(DOOR(6), session);
    CHECK_EQ(call_user(bind_there, 4), PROTECT_BUSY); /* its owner again */
}

/* The owner's context counts INT 80h, too, the 32-bit way into Linux. */
static bool return_at_once(struct frame *f)
{
    return true;
}
static word count_int80(word n)
{
    word status = command(DOOR(n), PROTECT_OP_STATISTICS, user_session, (word)&statistics, 0);
    word before = statistics.system_calls;
    asm volatile("int $0x80; int $0x80; int $0x81; int $0x80");
    status |= command(DOOR(n), PROTECT_OP_STATISTICS, user_session, (word)&statistics, 0);
    return status ? ~0ul : statistics.system_calls - before;
}
TEST(system_calls_by_int_80h)
{
    for (unsigned v = 0x80; v <= 0x81; v++) {
        set_gate(v, (word)trap_stubs + 16 * v, SEL_CODE, 14, 3, 0);
        trap_handlers[v] = return_at_once;
    }
    CHECK_EQ(call_user(bind_there, 5), PROTECT_OK);
    CHECK_EQ(call_user(count_int80, 5), 3);
    CHECK_EQ(call_user(unbind_there, 5), PROTECT_OK);
}

TEST(administration)
{
    CHECK_EQ(DOOR(4)->state, PROTECT_DOOR_USER); /* from the last test; its session is forgotten */
    admin->grant = 4 | PROTECT_GRANT_KERNEL << 8;
    CHECK_EQ(admin->grant, PROTECT_OK);
    admin->grant = 4 | 1 << 15;
    CHECK_EQ(admin->grant, PROTECT_BAD_RESERVED);
    admin->destroy = 4;
    CHECK_EQ(admin->destroy, PROTECT_OK);
    CHECK_EQ(DOOR(4)->state, PROTECT_DOOR_FREE);
    admin->destroy = 4;
    CHECK_EQ(admin->destroy, PROTECT_NOT_BOUND);
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static uint8_t watched[64] __attribute__((aligned(64)));
static struct protect_region region;
static struct protect_rule rule;

TEST(an_event_interrupts)
{
    enum { DOOR_NUMBER = 18, MSIX_VECTOR = 2 };
    door_t *door = DOOR(DOOR_NUMBER);
    unsigned cap = pci_read8(DEVFN, 0x34);
    volatile uint32_t *table = (volatile uint32_t *)pci_bar(DEVFN, 4);
    apic_quiet();
    count_hits(VECTOR, VECTOR, apic_eoi);
    table[4 * MSIX_VECTOR] = 0xfee00000;
    table[4 * MSIX_VECTOR + 1] = 0;
    table[4 * MSIX_VECTOR + 2] = VECTOR;
    table[4 * MSIX_VECTOR + 3] = 0;
    pci_write16(DEVFN, PCI_COMMAND, pci_read16(DEVFN, PCI_COMMAND) | 4);
    pci_write16(DEVFN, cap + 2, 0x8000);
    uint64_t session = bind(door);
    region = (struct protect_region){.base = (word)watched, .length = 64, .cookie = 0x77};
    CHECK_EQ(command(door, PROTECT_OP_ADD_REGIONS, session, (word)&region, 1), PROTECT_OK);
    rule = (struct protect_rule)PROTECT_RULE_DEFAULT((uint32_t)door->command[0].result, 1,
                                                     PROTECT_READ, PROTECT_ALLOW);
    rule.notify = PROTECT_NOTIFY_INTERRUPT;
    CHECK_EQ(command(door, PROTECT_OP_SET_RULES, session, (word)&rule, 1), PROTECT_OK);
    *(volatile uint8_t *)watched = 1;
    let_in();
    CHECK_EQ(hits[VECTOR], 1);
    for (unsigned i = 0; i < 40; i++) /* the ring has 32 */
        *(volatile uint8_t *)(watched + i) = 2;
    let_in();
    CHECK(hits[VECTOR] > 1);
    CHECK_EQ(door->event_head, 32);
    CHECK_EQ(door->event_lost, 9);
    CHECK_EQ(door->event[31].sequence, 32);
    CHECK_EQ(door->event[31].gva, (word)watched + 30);
    door->event_tail = 33;
    CHECK_EQ(door->event_tail, 0);
    door->event_tail = 32;
    CHECK_EQ(door->event_tail, 32);
    door->event_tail = 31; /* what has been read stays read */
    CHECK_EQ(door->event_tail, 32);
    *(volatile uint8_t *)watched = 3;
    CHECK_EQ(door->event_head, 33);
    CHECK_EQ(door->event[0].sequence, 33);
    CHECK_EQ(door->event[0].cookie, 0x77);
    pci_write16(DEVFN, cap + 2, 0);
    unbind(door, session);
}

/* ---- Two processors -------------------------------------------------------------------------- */

enum { ROUNDS = 100 };
static volatile uint32_t arrived, winners, wrong;

/* Both processors pass together; called with 1, 2, 3 ... */
static void meet(uint32_t number)
{
    __atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST);
    while (arrived < 2 * number)
        asm volatile("pause");
}

/* A door of one's own, by locked and plain stores, and then one that both want: this processor's
 * slot there is `id`. */
static void contend(unsigned id)
{
    door_t *own = DOOR(8 + id), *door = DOOR(7);
    volatile struct protect_command *slot = &door->command[id];
    for (uint32_t i = 0; i < ROUNDS; i++) {
        fill(own, PROTECT_OP_BIND, 0, 0, 0);
        (i & 1 ? ring_lock_and : ring_xchg)(&own->doorbell);
        uint64_t session = own->command[0].result;
        if (own->command[0].status != PROTECT_OK || !session ||
            command(own, PROTECT_OP_UNBIND, session, 0, 0) != PROTECT_OK)
            wrong = 1;
        meet(3 * i + 1);
        *(volatile uint64_t *)slot = PROTECT_OP_BIND;
        door->doorbell = id;
        session = slot->status == PROTECT_OK ? slot->result : 0;
        if (session)
            __atomic_add_fetch(&winners, 1, __ATOMIC_SEQ_CST);
        meet(3 * i + 2);
        if (winners != i + 1)
            wrong = 2;
        slot->session = session;
        *(volatile uint64_t *)slot = PROTECT_OP_UNBIND;
        if (session)
            door->doorbell = id;
        if (session && slot->status != PROTECT_OK)
            wrong = 3;
        meet(3 * i + 3);
    }
}

TEST(two_processors_ring)
{
    unsigned before = cpus_done;
    CHECK(start_cpu(1, contend));
    contend(0);
    while (cpus_done == before)
        asm volatile("pause");
    CHECK_EQ(wrong, 0);
    CHECK_EQ(winners, ROUNDS);
    CHECK_EQ(DOOR(7)->state | DOOR(8)->state | DOOR(9)->state, PROTECT_DOOR_FREE);
}

const struct test guest_tests[] = {T(through_pci),
                                   T(every_kind_of_store_rings),
                                   T(system_calls_by_int_80h),
                                   T(others_see_and_change_nothing),
                                   T(administration),
                                   T(an_event_interrupts),
                                   T(two_processors_ring),
                                   {0, 0}};
