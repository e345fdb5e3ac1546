/*
 * init_sipi.c - INIT and start-up IPIs: where a processor begins and in what state, what its local
 * APIC keeps, what is ignored when (SDM vol. 3, 9.1.1 and table 9-1, 9.4.4, 11.4.7.3, 11.6.1).
 *
 * guest options: -smp 4
 */
#include "cpus.h"

enum { INIT = 0x4500, INIT_DEASSERT = 0x8500, SIPI = 0x4600, OTHERS = 0xc0000 };

extern char sipi_record[], sipi_record_end[];

static volatile struct found {
    uint32_t starts, eax, ebx, ecx, edx, esi, edi, ebp, esp, eflags, cr0, cr2, cr3, cr4;
    uint16_t cs, ds, es, ss, fs, gs, unused[2];
    uint16_t idt_limit, idt_base[2], unused2, gdt_limit, gdt_base[2], unused3;
    uint32_t dr6, dr7, dr0;
    uint16_t ip;
} *const found = (void *)0x7000;

static bool started(unsigned times)
{
    for (uint64_t end = rdtsc() + FOREVER; found->starts < times && rdtsc() < end;)
        asm volatile("pause");
    return found->starts == times;
}

static void begin_at(unsigned page)
{
    apic_quiet();
    memset((void *)found, 0, sizeof(*found));
    memcpy((void *)((uintptr_t)page << 12), sipi_record, (size_t)(sipi_record_end - sipi_record));
}

/* Something to be forgotten by INIT. */
static void leave_traces(unsigned id)
{
    write_dr0(0x1234);
    write_dr7(0x401);
    write_cr2(0x5678);
    write_cr4(read_cr4() | 0x80);
    apic_write(APIC_SVR, 0x1ff);
    apic_write(APIC_TPR, 0x70);
    apic_write(APIC_LDR, 0x77000000);
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LVT_TIMER, 0x40);
    apic_write(APIC_DIVIDE, 3);
    apic_write(APIC_INITIAL, 0x7fffffff);
    apic_write(APIC_ICR_HIGH, 0);
    asm volatile("cli");
    apic_write(APIC_ICR_HIGH, id << 24);
    apic_write(APIC_ICR, 0x40); /* pending in the IRR */
}

static void run(unsigned id, void (*fn)(unsigned))
{
    unsigned before = cpus_done;
    CHECK(start_cpu(id, fn));
    while (cpus_done == before)
        asm volatile("pause");
}

TEST(state_after_sipi)
{
    static const uint8_t pages[] = {0x09, 0x20, 0x8f};
    uint32_t r[4];
    cpuid(1, 0, r);
    for (unsigned i = 0; i < 3; i++) {
        run(1, leave_traces);
        begin_at(pages[i]);
        send(1, INIT);
        send(1, SIPI | pages[i]);
        CHECK(started(1));
        CHECK_EQ(found->cs, pages[i] << 8);
        CHECK_EQ(found->ip, 0);
        CHECK_EQ(found->ds | found->es | found->ss | found->fs | found->gs, 0);
        CHECK_EQ(found->eax | found->ebx | found->ecx, 0);
        CHECK_EQ(found->esi | found->edi | found->ebp | found->esp, 0);
        CHECK_EQ(found->edx & 0xfff0ff0, r[0] & 0xfff0ff0); /* family and model */
        CHECK_EQ(found->eflags, 2);
        CHECK_EQ(found->cr0 & 0x9fffffff, 0x10); /* ET; CD and NW are not INIT's business */
        CHECK_EQ(found->cr2, 0);
        CHECK_EQ(found->cr3, 0);
        CHECK_EQ(found->cr4, 0);
        CHECK_EQ(found->idt_limit, 0xffff);
        CHECK_EQ(found->idt_base[0] | found->idt_base[1], 0);
        CHECK_EQ(found->gdt_limit, 0xffff);
        CHECK_EQ(found->gdt_base[0] | found->gdt_base[1], 0);
        CHECK_EQ(found->dr0, 0);
        CHECK_EQ(found->dr6, 0xffff0ff0);
        CHECK_EQ(found->dr7, 0x400);
    }
}

static volatile uint32_t after[16];

static void look_at_apic(unsigned id)
{
    after[0] = apic_read(APIC_ID);
    after[1] = apic_read(APIC_SVR);
    after[2] = apic_read(APIC_TPR);
    after[3] = apic_read(APIC_LDR);
    after[4] = apic_read(APIC_DFR);
    after[5] = apic_read(APIC_LVT_TIMER);
    after[6] = apic_read(APIC_INITIAL);
    after[7] = apic_read(APIC_CURRENT);
    after[8] = apic_read(APIC_LINT0);
    after[9] = apic_read(APIC_LINT1);
    after[10] = apic_read(APIC_LVT_ERROR);
    after[11] = apic_read(APIC_ICR_HIGH);
    after[12] = apic_read(APIC_IRR + 0x20);
    after[13] = apic_read(APIC_DIVIDE);
    after[14] = (uint32_t)rdmsr(MSR_APIC_BASE);
}

TEST(local_apic_after_init)
{
    apic_quiet();
    run(1, leave_traces);
    run(1, look_at_apic);
    CHECK_EQ(after[0] >> 24, 1);
    CHECK_EQ(after[1], 0xff);
    CHECK_EQ(after[2], 0);
    CHECK_EQ(after[3], 0);
    CHECK_EQ(after[4], 0xffffffff);
    CHECK_EQ(after[5], APIC_MASKED);
    CHECK_EQ(after[6], 0);
    CHECK_EQ(after[7], 0);
    CHECK_EQ(after[8], APIC_MASKED);
    CHECK_EQ(after[9], APIC_MASKED);
    CHECK_EQ(after[10], APIC_MASKED);
    CHECK_EQ(after[11], 0);
    CHECK_EQ(after[12], 0);
    CHECK_EQ(after[13], 0);
    CHECK_EQ(after[14], 0xfee00800);
}

/* SIPI is for processors that wait for it. */
TEST(sipi_to_a_running_processor)
{
    CHECK(all_cpus_up());
    begin_at(9);
    tell(2, SPIN, 0);
    CHECK(obeyed(2));
    send(2, SIPI | 9);
    settle();
    CHECK_EQ(found->starts, 0);
    send(2, 0x51);
    CHECK_HIT(0x51, 4);
}

TEST(second_sipi_is_ignored)
{
    begin_at(9);
    send(1, INIT);
    send(1, SIPI | 9);
    CHECK(started(1));
    send(1, SIPI | 9);
    pit_wait(20000);
    CHECK_EQ(found->starts, 1);
}

/* Two at once: the first one starts it. A SIPI just before INIT is not for after it. */
TEST(order_of_init_and_sipi)
{
    for (unsigned i = 0; i < 20; i++) {
        CHECK(all_cpus_up());
        tell(1, SPIN, 0);
        CHECK(obeyed(1));
        begin_at(0x20);
        begin_at(9);
        apic_write(APIC_ICR_HIGH, 1 << 24);
        apic_write(APIC_ICR, SIPI | 9);
        apic_write(APIC_ICR, INIT);
        pit_wait(5000);
        CHECK_EQ(found->starts, 0);
        apic_write(APIC_ICR, SIPI | 0x20);
        apic_write(APIC_ICR, SIPI | 9);
        CHECK(started(1));
        CHECK_EQ(found->cs, 0x2000);
    }
}

/* After INIT it waits: neither interrupts nor its old program go on. */
TEST(waits_for_sipi)
{
    CHECK(all_cpus_up());
    tell(1, SPIN, 0);
    CHECK(obeyed(1));
    send(1, INIT);
    CHECK(stops(1));
    send(1, 0x51);
    CHECK(stops(1));
    CHECK_EQ(hits_on[1][0x51], 0);
    begin_at(9);
    send(1, SIPI | 9);
    CHECK(started(1));
}

/* INIT level de-assert, which old systems send between INIT and SIPI, does nothing. */
TEST(init_deassert)
{
    CHECK(all_cpus_up());
    send(0, 0x80000 | INIT_DEASSERT);
    send(1, 0x51);
    CHECK_HIT(0x51, 2);
    begin_at(9);
    send(1, INIT);
    send(0, 0x80000 | INIT_DEASSERT);
    send(1, SIPI | 9);
    CHECK(started(1));
}

/* How operating systems do it: everybody but me. */
TEST(broadcast)
{
    for (unsigned i = 0; i < 5; i++) {
        begin_at(9);
        send(0, OTHERS | INIT);
        send(0, OTHERS | SIPI | 9);
        CHECK(started(3));
    }
}

/* INIT ends HLT, too. */
TEST(init_of_a_halted_processor)
{
    CHECK(all_cpus_up());
    tell(1, CLI_HALT, 0);
    CHECK(obeyed(1));
    pit_wait(2000);
    begin_at(0x20);
    send(1, INIT);
    send(1, SIPI | 0x20);
    CHECK(started(1));
}

const struct test guest_tests[] = {T(state_after_sipi),
                                   T(local_apic_after_init),
                                   T(sipi_to_a_running_processor),
                                   T(second_sipi_is_ignored),
                                   T(order_of_init_and_sipi),
                                   T(waits_for_sipi),
                                   T(init_deassert),
                                   T(broadcast),
                                   T(init_of_a_halted_processor),
                                   {0, 0}};
