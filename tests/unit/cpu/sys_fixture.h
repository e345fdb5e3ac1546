/*
 * sys_fixture.h - one vCPU with 2 MiB of RAM, put into a mode by hand, for tests of cpu/sys.
 *
 * Guest programs are a few bytes at CODE. Every vector's handler is OUT 0F4h, AL; HLT at its own
 * address, and that port stops cpu_run(): so after run() the CPU stands in the handler, and
 * got_vector() and the stack show what was delivered. "e6 f4" in a program stops it likewise (then
 * got_vector() is -1).
 */
#ifndef TESTS_UNIT_CPU_SYS_FIXTURE_H
#define TESTS_UNIT_CPU_SYS_FIXTURE_H

#include "cpu/sys/internal.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/exclusive.h"
#include "internal/io.h"
#include "internal/phys.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

enum {
    RAM = 2 << 20,
    GDT = 0x5000,
    IDT = 0x6000,
    TSS = 0x7000,
    TSS2 = 0x7800,
    HANDLERS = 0x8000, /* 16 bytes each; real mode too */
    PAGES = 0x10000,   /* PML4, PDPT, PD */
    CODE = 0x20000,
    DATA = 0x28000,
    STACK0 = 0x30000,
    STACK_IST1 = 0x34000,
    STACK3 = 0x38000,
};
enum {
    SEL_CODE32 = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE32_3 = 0x1b,
    SEL_DATA_3 = 0x23,
    SEL_CODE64 = 0x28,
    SEL_CODE64_3 = 0x33,
    SEL_TSS = 0x38,
    SEL_GATE = 0x48,
    SEL_CODE16 = 0x58,
    SEL_DATA16 = 0x60,
    SEL_ABSENT = 0x68,
    SEL_CONFORMING = 0x70,
    SEL_TSS2 = 0x78,
    SEL_TASK_GATE = 0x80,
    SEL_RO = 0x88,
    GDT_LIMIT = 0xff,
};

struct fixture {
    struct cpu *cpu;
    uint8_t *ram;
    struct log log;
    struct clock *clock;
    struct exclusive *exclusive;
    struct io_space *io;
    struct phys_map *map;
    pthread_mutex_t lock;
    bool shut_down;
    int pending_vector; /* what the pretended local APIC has */
    unsigned port_writes;
    uint32_t port_value;
};
static struct fixture fx;

static inline void put(uint64_t gpa, uint64_t value, unsigned size)
{
    memcpy(fx.ram + gpa, &value, size);
}
/* Through the choke point, so that decoded blocks there are dropped. */
static inline void put_bytes(uint64_t gpa, const void *bytes, size_t len)
{
    struct access access = {.initiator = INITIATOR_LOADER};
    ck_assert_int_eq(phys_write(fx.map, &access, gpa, bytes, len), PHYS_OK);
}
static inline uint64_t get_mem(uint64_t gpa, unsigned size)
{
    uint64_t v = 0;
    memcpy(&v, fx.ram + gpa, size);
    return v;
}
static inline uint64_t descriptor(uint32_t base, uint32_t limit20, unsigned attr)
{
    return (limit20 & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)attr << 40 |
           (uint64_t)(limit20 >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

/* ---- Surroundings ---------------------------------------------------------------------------- */

static inline uint64_t stop_read(void *opaque, const struct access *a, uint64_t offset,
                                 unsigned size)
{
    (void)opaque, (void)a, (void)offset, (void)size;
    return 0x5a;
}
static inline void stop_write(void *opaque, const struct access *a, uint64_t offset, unsigned size,
                              uint64_t value)
{
    (void)a, (void)offset, (void)size;
    (void)opaque;
    fx.port_writes++;
    fx.port_value = (uint32_t)value;
    cpu_request(fx.cpu, CPU_REQ_STOP);
}
static inline void on_shutdown(void *machine, struct cpu *cpu)
{
    (void)machine;
    fx.shut_down = true;
    cpu_request(cpu, CPU_REQ_STOP);
}
static inline void ask_exclusive(void *cpu)
{
    cpu_request(cpu, CPU_REQ_EXCLUSIVE);
}
static inline int pretend_acknowledge(void *lapic)
{
    int vector = fx.pending_vector;
    (void)lapic;
    fx.pending_vector = -1;
    cpu_withdraw(fx.cpu, CPU_REQ_INTR);
    return vector;
}

static inline void fixture_setup_model(const char *model)
{
    static const struct io_ops ops = {.read = stop_read, .write = stop_write, .min = 1, .max = 4};
    struct error err = {""};
    struct ram_block *block;
    uint64_t len;

    memset(&fx, 0, sizeof fx);
    fx.log.out = stderr;
    if (getenv("SYS_TEST_LOG"))
        fx.log.mask = (uint32_t)strtoul(getenv("SYS_TEST_LOG"), NULL, 0);
    pthread_mutex_init(&fx.lock, NULL);
    fx.clock = clock_new();
    fx.exclusive = exclusive_new(1, ask_exclusive);
    fx.io = io_space_new(&fx.lock, &fx.log);
    io_add(fx.io, 0xf4, 4, &ops, NULL, "stop");
    fx.map = phys_new(&fx.lock, &fx.log);
    block = phys_ram_new(fx.map, RAM, &err);
    ck_assert_msg(block != NULL, "%s", err.msg);
    ck_assert(phys_add_ram(fx.map, 0, RAM, block, 0, "ram", &err));
    fx.ram = phys_hva(fx.map, 0, &len);
    struct cpu_config config = {.model = model,
                                .vcpus = 1,
                                .map = fx.map,
                                .io = fx.io,
                                .clock = fx.clock,
                                .exclusive = fx.exclusive,
                                .log = &fx.log,
                                .on_shutdown = on_shutdown};
    fx.cpu = cpu_new(&config, &err);
    ck_assert_msg(fx.cpu != NULL, "%s", err.msg);
    exclusive_set_cpu(fx.exclusive, 0, fx.cpu);
    fx.pending_vector = -1;
    fx.cpu->lapic.acknowledge = pretend_acknowledge;
}
static inline void fixture_setup(void)
{
    fixture_setup_model("max");
}
static inline void fixture_teardown(void)
{
    cpu_free(fx.cpu);
    phys_free(fx.map);
    io_space_free(fx.io);
    exclusive_free(fx.exclusive);
    clock_free(fx.clock);
    pthread_mutex_destroy(&fx.lock);
}

/* ---- Modes -------------------------------------------------------------------------------------
 */

static inline void put_handlers(void)
{
    for (unsigned v = 0; v < 256; v++)
        put_bytes(HANDLERS + v * 16, "\xe6\xf4\xf4", 3);
}

static inline void put_gdt(void)
{
    static const struct {
        unsigned sel;
        uint32_t limit;
        unsigned attr;
    } table[] = {
        {SEL_CODE32, 0xfffff, 0xc09b},   {SEL_DATA, 0xfffff, 0xc093},
        {SEL_CODE32_3, 0xfffff, 0xc0fb}, {SEL_DATA_3, 0xfffff, 0xc0f3},
        {SEL_CODE64, 0xfffff, 0xa09b},   {SEL_CODE64_3, 0xfffff, 0xa0fb},
        {SEL_CODE16, 0xffff, 0x009b},    {SEL_DATA16, 0xffff, 0x0093},
        {SEL_ABSENT, 0xfffff, 0xc013},   {SEL_CONFORMING, 0xfffff, 0xc09f},
        {SEL_RO, 0xfffff, 0xc0f1},
    };
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++)
        put(GDT + (table[i].sel & ~7u), descriptor(0, table[i].limit, table[i].attr), 8);
    put(GDT + SEL_TSS, descriptor(TSS, 0x1ff, 0x8b), 8);
    put(GDT + SEL_TSS + 8, 0, 8);
    put(GDT + SEL_TSS2, descriptor(TSS2, 0x67, 0x89), 8);
    put(GDT + SEL_TASK_GATE, (uint64_t)SEL_TSS2 << 16 | 0xe5ull << 40, 8);
    fx.cpu->gdtr = (struct table_register){.base = GDT, .limit = GDT_LIMIT};
    fx.cpu->tr = (struct segment){.base = TSS, .limit = 0x1ff, .selector = SEL_TSS, .attr = 0x8b};
}

static inline void put_gate32(unsigned vector, uint16_t sel, uint32_t offset, unsigned attr)
{
    put(IDT + vector * 8,
        (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)attr << 40 |
            (uint64_t)(offset >> 16) << 48,
        8);
}
static inline void put_gate64(unsigned vector, uint16_t sel, uint64_t offset, unsigned attr,
                              unsigned ist)
{
    put(IDT + vector * 16,
        (offset & 0xffff) | (uint64_t)sel << 16 | (uint64_t)ist << 32 | (uint64_t)attr << 40 |
            (offset >> 16 & 0xffff) << 48,
        8);
    put(IDT + vector * 16 + 8, offset >> 32, 8);
}

static inline void set_segment(unsigned seg, uint16_t selector)
{
    fx.cpu->seg[seg] = segment_from_descriptor(selector, get_mem(GDT + (selector & ~7u), 8));
}
static inline void set_stack_and_code(unsigned cpl, uint16_t cs, uint16_t ss)
{
    set_segment(SEG_CS, cs);
    for (unsigned seg = 0; seg < 6; seg++) {
        if (seg != SEG_CS)
            set_segment(seg, ss);
    }
    fx.cpu->gpr[RSP] = cpl == 3 ? STACK3 : STACK0 - 0x1000;
    fx.cpu->cpl = (uint8_t)cpl;
    cpu_mode_update(fx.cpu);
}

static inline void enter_real(void)
{
    struct cpu *cpu = fx.cpu;
    cpu_reset(cpu, false);
    put_handlers();
    for (unsigned v = 0; v < 256; v++)
        put(v * 4, HANDLERS + v * 16, 4);
    for (unsigned seg = 0; seg < 6; seg++)
        sys_set_real_segment(cpu, seg, 0);
    sys_set_real_segment(cpu, SEG_CS, CODE >> 4);
    cpu->gpr[RSP] = 0x4000;
    cpu_mode_update(cpu);
}

static inline void enter_prot(unsigned cpl)
{
    struct cpu *cpu = fx.cpu;
    cpu_reset(cpu, false);
    put_handlers();
    put_gdt();
    for (unsigned v = 0; v < 256; v++)
        put_gate32(v, SEL_CODE32, HANDLERS + v * 16, 0x8e);
    put(TSS + 4, STACK0, 4);
    put(TSS + 8, SEL_DATA, 4);
    put(TSS + 0x66, 0x68, 2);
    memset(fx.ram + TSS + 0x68, 0xff, 0x100);
    cpu->idtr = (struct table_register){.base = IDT, .limit = 256 * 8 - 1};
    sys_set_cr0(cpu, CR0_PE | CR0_NE | CR0_ET);
    set_stack_and_code(cpl, cpl ? SEL_CODE32_3 : SEL_CODE32, cpl ? SEL_DATA_3 : SEL_DATA);
}

static inline void enter_long(unsigned cpl)
{
    struct cpu *cpu = fx.cpu;
    cpu_reset(cpu, false);
    put_handlers();
    put_gdt();
    for (unsigned v = 0; v < 256; v++)
        put_gate64(v, SEL_CODE64, HANDLERS + v * 16, 0x8e, 0);
    put(TSS + 4, STACK0, 8);
    put(TSS + 0x24, STACK_IST1, 8);
    put(TSS + 0x66, 0x68, 2);
    memset(fx.ram + TSS + 0x68, 0xff, 0x100);
    put(PAGES, (PAGES + 0x1000) | 7, 8);
    put(PAGES + 0x1000, (PAGES + 0x2000) | 7, 8);
    put(PAGES + 0x2000, 0 | 0x87, 8);
    cpu->idtr = (struct table_register){.base = IDT, .limit = 256 * 16 - 1};
    sys_set_cr4(cpu, CR4_PAE | CR4_OSFXSR | (model_has(cpu, MODEL_7_EBX, 0) ? CR4_FSGSBASE : 0));
    sys_set_cr3(cpu, PAGES);
    ck_assert(msr_write(cpu, 0xc0000080, EFER_LME | EFER_SCE | EFER_NXE));
    sys_set_cr0(cpu, CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_WP);
    set_stack_and_code(cpl, cpl ? SEL_CODE64_3 : SEL_CODE64, cpl ? SEL_DATA_3 : SEL_DATA);
}

/* ---- Running ------------------------------------------------------------------------------------
 */

/* "0f 0b cc" -> bytes at gpa; returns how many. */
static inline unsigned put_code(uint64_t gpa, const char *hex)
{
    uint8_t bytes[256];
    unsigned n = 0;
    for (char *end; *hex; hex = end) {
        unsigned long byte = strtoul(hex, &end, 16);
        if (end == hex)
            break;
        bytes[n++] = (uint8_t)byte;
    }
    put_bytes(gpa, bytes, n);
    return n;
}

static inline void run_at(uint64_t rip)
{
    fx.cpu->rip = fx.cpu->next_rip = rip;
    fx.shut_down = false;
    cpu_run(fx.cpu);
}

/* In real mode CS is CODE >> 4, else flat. */
static inline void run(const char *hex)
{
    unsigned n = put_code(CODE, hex);
    put_bytes(CODE + n, "\xe6\xf4\xf4", 3);
    run_at(fx.cpu->cr0 & CR0_PE ? CODE : 0);
}

static inline int got_vector(void)
{
    uint64_t lin = fx.cpu->seg_base[SEG_CS] + fx.cpu->rip;
    return lin >= HANDLERS && lin < HANDLERS + 0x1000 ? (int)(lin - HANDLERS) / 16 : -1;
}

/* Item n of `size` bytes on the handler's stack. */
static inline uint64_t frame(unsigned n, unsigned size)
{
    return get_mem((uint32_t)(fx.cpu->seg_base[SEG_SS] + fx.cpu->gpr[RSP] + n * size), size);
}

#define expect(vector) ck_assert_int_eq(got_vector(), vector)
#define expect_error(vector, error, width)                                                         \
    do {                                                                                           \
        expect(vector);                                                                            \
        ck_assert_uint_eq(frame(0, width), error);                                                 \
        ck_assert_uint_eq(frame(1, width), CODE);                                                  \
    } while (0)

static inline int run_suite(const char *name, void (*add)(Suite *))
{
    Suite *suite = suite_create(name);
    SRunner *runner;
    int failed;
    add(suite);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
