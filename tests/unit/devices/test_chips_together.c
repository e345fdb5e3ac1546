/*
 * test_chips_together.c - all chips on one board: a hostile guest's random accesses do no harm,
 * every described state goes through field_get() and field_set() into a second machine that then
 * behaves the same, and no reset leaves a line up.
 */
#include "bench.h"
#include "internal/chardev.h"

/* No back end is connected here. */
void chardev_connect(struct chardev *chr, const struct chardev_front *front)
{
    (void)chr, (void)front;
}
size_t chardev_write(struct chardev *chr, const uint8_t *bytes, size_t len)
{
    (void)chr, (void)bytes;
    return len;
}
void chardev_accept_input(struct chardev *chr)
{
    (void)chr;
}

enum { CPUS = 2, CHIPS = 13 };

static struct machine {
    struct pic *pic;
    struct apic_bus *bus;
    struct fake_cpu cpu[CPUS];
    struct lapic *lapic[CPUS];
    struct device *chips[CHIPS];
    unsigned count;
} m;

static void add(void *chip)
{
    m.chips[m.count++] = chip_device(chip);
}

static void build(void)
{
    struct board *board = bench_setup();
    struct rtc_config rtc = {.fixed = true, .seconds = 1700000000};
    struct acpi_pm_config pm = {0x600, 0xafe0, true};
    memset(&m, 0, sizeof(m));
    bench_access = (struct access){.initiator = INITIATOR_VCPU_KERNEL};
    m.pic = pic_new(board);
    m.bus = apic_bus_new(board, m.pic, NULL);
    for (unsigned i = 0; i < CPUS; i++) {
        struct lapic_config config = fake_cpu_config(&m.cpu[i], i);
        m.lapic[i] = lapic_new(m.bus, &config);
        add(m.lapic[i]);
    }
    pic_connect(m.pic, lapic_lint(m.lapic[0], 0));
    struct ioapic *ioapic = ioapic_new(board, m.bus, NULL);
    struct gsi *gsi = gsi_new(board, m.pic, ioapic);
    struct serial_config com1 = {.base = 0x3f8, .irq = gsi_line(gsi, 4)};
    add(m.pic);
    add(ioapic);
    add(gsi);
    add(hpet_new(board, gsi, apic_bus_msi(m.bus), NULL));
    add(pit_new(board, gsi_line(gsi, 0)));
    add(rtc_new(board, &rtc, gsi_line(gsi, 8)));
    add(acpi_pm_new(board, &pm, gsi_line(gsi, 9)));
    add(serial_new(board, &com1));
    add(port92_new(board, (struct irq_line){0}));
    add(i8042_new(board, gsi_line(gsi, 1), gsi_line(gsi, 12), (struct irq_line){0}));
    add(fpu_error_new(board, gsi_line(gsi, 13)));
}

static void destroy(void)
{
    while (m.count)
        bench_destroy(m.chips[--m.count]);
    apic_bus_free(m.bus);
}

static uint32_t random_state;

static uint32_t rnd(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

static const uint16_t ports[] = {0x20, 0x21, 0xa0, 0xa1, 0x40, 0x41, 0x42, 0x43,  0x61,
                                 0x70, 0x71, 0x60, 0x64, 0x92, 0xb2, 0xf0, 0x4d0, 0x4d1};

static uint16_t random_port(void)
{
    switch (rnd() % 4) {
    case 0:
        return (uint16_t)(0x3f8 + rnd() % 8);
    case 1:
        return (uint16_t)(0x600 + rnd() % 16);
    }
    return ports[rnd() % (sizeof(ports) / sizeof(ports[0]))];
}

static uint64_t random_register(void)
{
    switch (rnd() % 5) {
    case 0:
        return IOAPIC_BASE + rnd() % 8 * 16;
    case 1:
        return APIC_DEFAULT_BASE + rnd() % 0x100000;
    case 2:
        return HPET_BASE + rnd() % 96 * 4;
    }
    return APIC_DEFAULT_BASE + rnd() % 64 * 16;
}

static void random_step(void)
{
    struct lapic_port port = lapic_port(m.lapic[rnd() % CPUS]);
    uint64_t value = (uint64_t)rnd() << rnd() % 40;
    bench_access.vcpu = (uint16_t)(rnd() % (CPUS + 1));
    switch (rnd() % 10) {
    case 0:
    case 1:
        out8(random_port(), (uint8_t)value);
        break;
    case 2:
        in8(random_port());
        break;
    case 3:
        mmio_write(random_register(), (uint32_t)value);
        break;
    case 4:
        mmio_write(random_register(), rnd() & 0xff);
        break;
    case 5:
        mmio_read(random_register());
        break;
    case 6:
        port.acknowledge(port.lapic);
        break;
    case 7:
        port.write_msr(port.lapic, rnd() % 4 ? 0x800 + rnd() % 64 : 0x6e0, value);
        break;
    case 8:
        port.write_base(port.lapic, 0xfee00000 | (rnd() & 0xd00));
        break;
    case 9:
        bench_advance(rnd() % 2000000);
        break;
    }
}

START_TEST(hostile_guest)
{
    for (unsigned seed = 0; seed < 20; seed++) {
        build();
        random_state = seed;
        for (unsigned i = 0; i < 20000; i++)
            random_step();
        destroy();
    }
}
END_TEST

/* Everything that save and restore would carry, as one list of numbers. */
static size_t collect(uint64_t *out, size_t size)
{
    size_t n = 0;
    for (unsigned c = 0; c < m.count; c++) {
        const struct state_desc *state = m.chips[c]->state;
        for (size_t f = 0; f < state->field_count; f++)
            for (size_t i = 0; i < state->fields[f].count; i++) {
                ck_assert_uint_lt(n, size);
                out[n++] = field_get(&state->fields[f], m.chips[c], i);
            }
    }
    return n;
}

static void apply(const uint64_t *in)
{
    for (unsigned c = 0; c < m.count; c++) {
        const struct state_desc *state = m.chips[c]->state;
        for (size_t f = 0; f < state->field_count; f++)
            for (size_t i = 0; i < state->fields[f].count; i++)
                field_set(&state->fields[f], m.chips[c], i, *in++);
    }
}

/* What a guest can see without changing it (port reads that clear are left out). */
static uint64_t guest_view(void)
{
    uint64_t sum = 0;
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        bench_access.vcpu = (uint16_t)cpu;
        for (unsigned reg = 0; reg < 64; reg++)
            sum = sum * 31 + mmio_read(APIC_DEFAULT_BASE + reg * 16);
    }
    sum = sum * 31 + mmio_read(IOAPIC_BASE + 0x10);
    for (unsigned i = 0; i < 3; i++)
        sum = sum * 31 + in8((uint16_t)(0x40 + i));
    static const uint16_t quiet[] = {0x21,  0xa1,  0x61,  0x92,  0x64,
                                     0x4d0, 0x3fb, 0x3fc, 0x600, 0x608};
    for (unsigned i = 0; i < sizeof(quiet) / sizeof(quiet[0]); i++)
        sum = sum * 31 + in8(quiet[i]);
    out8(0x70, 0);
    return sum * 31 + in8(0x71);
}

START_TEST(fields_carry_the_whole_state)
{
    static uint64_t saved[4096], again[4096];
    for (unsigned seed = 100; seed < 110; seed++) {
        build();
        random_state = seed;
        for (unsigned i = 0; i < 5000; i++)
            random_step();
        size_t n = collect(saved, 4096);
        uint64_t now = bench.now, before = guest_view();
        destroy();
        build();
        bench_advance(now);
        apply(saved);
        ck_assert_uint_eq(collect(again, 4096), n);
        ck_assert_mem_eq(saved, again, n * sizeof(saved[0]));
        ck_assert_uint_eq(guest_view(), before);
        destroy();
    }
}
END_TEST

/* Fields that tell the time, which goes on over a reset; and the RTC's, which has a battery. */
static bool survives_reset(const struct state_desc *state, const struct field *field)
{
    return strcmp(state->name, "rtc") == 0 || strstr(field->name, "start") ||
           strstr(field->name, "deadline") || strcmp(field->name, "seen_tick") == 0;
}

static void reset_all(void)
{
    for (unsigned pass = 0; pass < 2; pass++) /* a chip may see lines of one reset later */
        for (unsigned c = 0; c < m.count; c++)
            bench_reset(m.chips[c]);
}

START_TEST(reset_is_the_power_on_state)
{
    static uint64_t fresh[4096], reset[4096];
    for (unsigned seed = 200; seed < 210; seed++) {
        build();
        random_state = seed;
        for (unsigned i = 0; i < 5000; i++)
            random_step();
        reset_all();
        collect(reset, 4096);
        destroy();
        build();
        reset_all();
        collect(fresh, 4096);
        size_t n = 0;
        for (unsigned c = 0; c < m.count; c++) {
            const struct state_desc *state = m.chips[c]->state;
            for (size_t f = 0; f < state->field_count; f++)
                for (size_t i = 0; i < state->fields[f].count; i++, n++)
                    ck_assert_msg(survives_reset(state, &state->fields[f]) || fresh[n] == reset[n],
                                  "%s.%s", state->name, state->fields[f].name);
        }
        destroy();
    }
}
END_TEST

BENCH_MAIN("chips_together", hostile_guest, fields_carry_the_whole_state,
           reset_is_the_power_on_state)
