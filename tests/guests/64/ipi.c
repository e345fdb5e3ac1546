/*
 * ipi.c - interprocessor interrupts between four and eight processors: every form of destination,
 * lowest priority, NMI, halted and deaf receivers (SDM vol. 3, 11.6).
 *
 * guest options: -smp 4
 * guest options: -smp 8
 */
#include "cpus.h"

enum { V = 0x51 };
enum { LOGICAL = 0x800, SELF = 0x40000, ALL = 0x80000, OTHERS = 0xc0000 };
enum { LOWEST = 0x100, NMI = 0x400 };

static unsigned everybody(void)
{
    return (1u << cpu_count()) - 1;
}

static volatile uint32_t seen_id[MAX_CPUS], seen_cpuid[MAX_CPUS], seen_base[MAX_CPUS];

static void who(unsigned id)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    seen_cpuid[id] = r[1] >> 24;
    seen_id[id] = apic_read(APIC_ID) >> 24;
    seen_base[id] = (uint32_t)rdmsr(MSR_APIC_BASE);
}

TEST(identification)
{
    CHECK(cpu_count() == 4 || cpu_count() == 8);
    who(0);
    for (unsigned id = 1; id < cpu_count(); id++) {
        unsigned before = cpus_done;
        CHECK(start_cpu(id, who));
        while (cpus_done == before)
            asm volatile("pause");
    }
    for (unsigned id = 0; id < cpu_count(); id++) {
        CHECK_EQ(seen_id[id], id);
        CHECK_EQ(seen_cpuid[id], id);
        CHECK_EQ(seen_base[id], 0xfee00800 | (id == 0 ? 0x100 : 0)); /* BSP: the first alone */
    }
}

TEST(physical)
{
    CHECK(all_cpus_up());
    for (unsigned id = 0; id < cpu_count(); id++) {
        send(id, V);
        CHECK_HIT(V, 1u << id);
    }
    send(cpu_count(), V); /* nobody */
    CHECK_HIT(V, 0);
    send(0xff, V);
    CHECK_HIT(V, everybody());
}

TEST(logical_flat)
{
    CHECK(all_cpus_up());
    for (unsigned mask = 0; mask <= everybody(); mask += 1 + mask / 16) {
        send(mask, LOGICAL | V);
        CHECK_HIT(V, mask);
    }
    send(0xff, LOGICAL | V);
    CHECK_HIT(V, everybody());
}

TEST(logical_cluster)
{
    CHECK(all_cpus_up());
    for (unsigned id = 0; id < cpu_count(); id++) { /* clusters of two */
        cpu_state[id].dfr = 0x0fffffff;
        cpu_state[id].ldr = (id / 2) << 28 | 1u << (24 + id % 2);
        tell(id, HALT, 0);
        CHECK(id == 0 || obeyed(id));
    }
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LDR, cpu_state[0].ldr);
    for (unsigned cluster = 0; cluster < cpu_count() / 2; cluster++)
        for (unsigned members = 0; members < 4; members++) {
            send(cluster << 4 | members, LOGICAL | V);
            CHECK_HIT(V, members << 2 * cluster);
        }
    send(0x0c, LOGICAL | V); /* members that do not exist */
    CHECK_HIT(V, 0);
    send(0xff, LOGICAL | V);
    CHECK_HIT(V, everybody());
    apic_write(APIC_DFR, 0xffffffff);
}

TEST(shorthands)
{
    CHECK(all_cpus_up());
    send(2, SELF | V); /* the destination field means nothing */
    CHECK_HIT(V, 1);
    send(2, ALL | V);
    CHECK_HIT(V, everybody());
    send(2, OTHERS | V);
    CHECK_HIT(V, everybody() & ~1u);
}

/* One of the addressed gets it, and it is the least busy. */
TEST(lowest_priority)
{
    CHECK(all_cpus_up());
    for (unsigned quiet = 1; quiet < cpu_count(); quiet++) {
        for (unsigned id = 1; id < cpu_count(); id++) {
            tell(id, HALT, id == quiet ? 0x10 : 0x20 + 0x10 * (id & 1));
            CHECK(obeyed(id));
        }
        send(everybody() & ~1u, LOGICAL | LOWEST | V);
        CHECK_HIT(V, 1u << quiet);
    }
    for (unsigned id = 1; id < cpu_count(); id++) {
        tell(id, HALT, 0);
        CHECK(obeyed(id));
    }
    /* equals: exactly one, whoever */
    unsigned sum = 0;
    send(everybody() & ~1u, LOGICAL | LOWEST | V);
    for (uint64_t end = rdtsc() + FOREVER; !sum && rdtsc() < end;)
        for (unsigned id = 1; id < cpu_count(); id++)
            sum += hits_on[id][V];
    settle();
    sum = 0;
    for (unsigned id = 0; id < cpu_count(); id++)
        sum += hits_on[id][V];
    CHECK_EQ(sum, 1);
}

TEST(task_priority_holds_back)
{
    CHECK(all_cpus_up());
    tell(1, SPIN, V & 0xf0);
    CHECK(obeyed(1));
    send(1, V);
    settle();
    CHECK_EQ(hits_on[1][V], 0);
    send(1, V + 0x10);
    CHECK_HIT(V + 0x10, 2);
    tell(1, SPIN, 0);
    CHECK_HIT(V, 2);
}

TEST(deaf_processor_takes_it_later)
{
    CHECK(all_cpus_up());
    tell(1, DEAF, 0);
    CHECK(obeyed(1));
    send(1, V);
    send(1, V + 1);
    send(1, V); /* one bit per vector */
    settle();
    CHECK_EQ(hits_on[1][V] + hits_on[1][V + 1], 0);
    tell(1, SPIN, 0);
    CHECK_HIT(V, 2);
    CHECK_HIT(V + 1, 2);
}

/* NMIs heed neither IF nor priorities, and their vector field means nothing. */
TEST(nmi)
{
    CHECK(all_cpus_up());
    tell(1, DEAF, 0xf0);
    CHECK(obeyed(1));
    send(1, NMI | V);
    CHECK_HIT(NMI_VECTOR, 2);
    send(0, OTHERS | NMI);
    CHECK_HIT(NMI_VECTOR, everybody() & ~1u);
    send(0x06, LOGICAL | NMI);
    CHECK_HIT(NMI_VECTOR, 6);
    CHECK_EQ(hits_on[1][V], 0);
}

TEST(software_disabled_apic)
{
    CHECK(all_cpus_up());
    tell(1, APIC_OFF, 0);
    CHECK(obeyed(1));
    send(1, V);
    send(0, OTHERS | (V + 1));
    settle();
    CHECK_EQ(hits_on[1][V] + hits_on[1][V + 1], 0); /* dropped ... */
    send(1, NMI);                                   /* ... but not NMI (11.4.7.2) */
    CHECK_HIT(NMI_VECTOR, 2);
    tell(1, SPIN, 0);
    CHECK(obeyed(1));
    settle();
    CHECK_EQ(hits_on[1][V] + hits_on[1][V + 1], 0);
    send(1, V);
    CHECK_HIT(V, 2);
}

TEST(halted_processor_wakes)
{
    CHECK(all_cpus_up());
    for (unsigned i = 0; i < 20; i++) {
        send(1, V);
        CHECK(came(1, V, i + 1));
    }
    CHECK_EQ(hits_on[1][V], 20);
}

/* HLT with interrupts off: only an NMI ends it; what came before waits. */
TEST(halted_with_interrupts_off)
{
    CHECK(all_cpus_up());
    tell(1, CLI_HALT, 0);
    CHECK(obeyed(1));
    CHECK(stops(1));
    unsigned long rounds = cpu_state[1].rounds;
    send(1, V);
    pit_wait(20000);
    CHECK_EQ(hits_on[1][V], 0);
    CHECK_EQ(cpu_state[1].rounds, rounds);
    tell(1, SPIN, 0);
    pit_wait(20000);
    CHECK(cpu_state[1].taken != cpu_state[1].given); /* it has not woken */
    send(1, NMI);
    CHECK(obeyed(1));
    CHECK_HIT(NMI_VECTOR, 2);
    CHECK_HIT(V, 2);
}

/* A ball that goes round and round: none is lost. */
static volatile unsigned passes;

static bool pass_on(struct frame *f)
{
    unsigned me = this_cpu(), next = (me + 1) % cpu_count();
    passes++;
    apic_write(APIC_EOI, 0);
    if (passes < 100 * cpu_count())
        send(next, V);
    return true;
}

TEST(round_and_round)
{
    CHECK(all_cpus_up());
    trap_handlers[V] = pass_on;
    passes = 0;
    send(1, V);
    for (uint64_t end = rdtsc() + 5 * FOREVER; passes < 100 * cpu_count() && rdtsc() < end;)
        let_in();
    CHECK_EQ(passes, 100 * cpu_count());
}

const struct test guest_tests[] = {T(identification),
                                   T(physical),
                                   T(logical_flat),
                                   T(logical_cluster),
                                   T(shorthands),
                                   T(lowest_priority),
                                   T(task_priority_holds_back),
                                   T(deaf_processor_takes_it_later),
                                   T(nmi),
                                   T(software_disabled_apic),
                                   T(halted_processor_wakes),
                                   T(halted_with_interrupts_off),
                                   T(round_and_round),
                                   {0, 0}};
