/*
 * demo.c - the guest that runs when no other is given: a few hundred lines on the bare machine that
 * show what Bailey gives a guest, then power off through ACPI.
 *
 * Freestanding: no library, no vector registers, nothing but the machine's own registers and
 * tables.
 */
#include <bailey/protect.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- Ports and the serial line --------------------------------------------------------------- */

static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

enum { COM1 = 0x3f8, LINE_STATUS = 5, TRANSMITTER_EMPTY = 0x20 };

static void put_char(char c)
{
    for (int spin = 0; spin < 100000 && !(inb(COM1 + LINE_STATUS) & TRANSMITTER_EMPTY); spin++)
        ;
    outb(COM1, (uint8_t)c);
}

static void print(const char *s)
{
    for (; *s; s++) {
        if (*s == '\n')
            put_char('\r');
        put_char(*s);
    }
}

static void print_number(uint64_t v, unsigned base, unsigned width, char fill)
{
    char digits[32];
    unsigned n = 0;
    do
        digits[n++] = "0123456789abcdef"[v % base];
    while ((v /= base) && n < sizeof(digits));
    while (width > n) {
        put_char(fill);
        width--;
    }
    while (n)
        put_char(digits[--n]);
}

static void print_hex(uint64_t v, unsigned width)
{
    print("0x");
    print_number(v, 16, width, '0');
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

struct frame { /* as start.S pushes it */
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};
struct gate {
    uint16_t offset0, selector, type, offset1;
    uint32_t offset2, zero;
};
struct __attribute__((packed)) table_pointer {
    uint16_t limit;
    uint64_t base;
};

enum { VECTORS = 48, PAGE_FAULT = 14, IRQ_BASE = 32, STUB_SIZE = 16, INTERRUPT_GATE = 0x8e00 };
enum {
    PIC1 = 0x20,
    PIC2 = 0xa0,
    PIT_CHANNEL0 = 0x40,
    PIT_CONTROL = 0x43,
    PIT_HZ = 1193182,
    HZ = 100
};

extern const char stubs[], demo_touched[];
extern uint64_t pml4[], page_dirs[];
void demo_touch(uint64_t address, int kind);

static struct gate idt[VECTORS];
static volatile uint32_t ticks;
static volatile bool faulted;
static uint64_t fault_address, fault_error;

void demo_interrupt(struct frame *f);
void demo_interrupt(struct frame *f)
{
    if (f->vector == IRQ_BASE) {
        ticks++;
        outb(PIC1, 0x20); /* end of interrupt */
    } else if (f->vector == PAGE_FAULT) {
        __asm__ volatile("movq %%cr2, %0" : "=r"(fault_address));
        fault_error = f->error;
        faulted = true;
        f->rip = (uint64_t)demo_touched;
    } else if (f->vector < IRQ_BASE) {
        print("unexpected exception ");
        print_number(f->vector, 10, 0, ' ');
        print(" at ");
        print_hex(f->rip, 0);
        print("\n");
        for (;;)
            __asm__ volatile("cli; hlt");
    }
}

static void set_up_interrupts(void)
{
    for (unsigned i = 0; i < VECTORS; i++) {
        uint64_t at = (uint64_t)stubs + i * STUB_SIZE;
        idt[i] = (struct gate){(uint16_t)at,         0x08, INTERRUPT_GATE, (uint16_t)(at >> 16),
                               (uint32_t)(at >> 32), 0};
    }
    struct table_pointer p = {sizeof(idt) - 1, (uint64_t)idt};
    __asm__ volatile("lidt %0" ::"m"(p));
    outb(PIC1, 0x11), outb(PIC1 + 1, IRQ_BASE), outb(PIC1 + 1, 4), outb(PIC1 + 1, 1);
    outb(PIC2, 0x11), outb(PIC2 + 1, IRQ_BASE + 8), outb(PIC2 + 1, 2), outb(PIC2 + 1, 1);
    outb(PIC1 + 1, 0xfe); /* only the timer */
    outb(PIC2 + 1, 0xff);
    outb(PIT_CONTROL, 0x34); /* channel 0, rate generator */
    outb(PIT_CHANNEL0, (PIT_HZ / HZ) & 0xff);
    outb(PIT_CHANNEL0, (PIT_HZ / HZ) >> 8);
}

/* ---- What the machine says of itself --------------------------------------------------------- */

struct start_info { /* PVH */
    uint32_t magic, version, flags, modules;
    uint64_t module_list, cmdline, rsdp, memory_map;
    uint32_t memory_ranges, reserved;
};
struct memory_range {
    uint64_t base, size;
    uint32_t type, reserved;
};

static void show_memory(const struct start_info *info)
{
    static const char *const types[] = {"?", "RAM", "reserved", "ACPI", "NVS"};
    const struct memory_range *r = (const void *)info->memory_map;
    print("Memory\n");
    for (uint32_t i = 0; i < info->memory_ranges; i++, r++) {
        print("  ");
        print_hex(r->base, 9);
        print(" - ");
        print_hex(r->base + r->size - 1, 9);
        print("  ");
        print_number(r->size >> 10, 10, 8, ' ');
        print(" KiB  ");
        print(types[r->type < 5 ? r->type : 0]);
        print("\n");
    }
}

static void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(subleaf));
}

static void print_registers(const uint32_t *r, unsigned count)
{
    const char *bytes = (const char *)r;
    for (unsigned i = 0; i < count * 4 && bytes[i]; i++)
        put_char(bytes[i]);
}

static void show_features(void)
{
    static const struct {
        uint32_t leaf;
        uint8_t reg, bit;
        const char *name;
    } features[] = {
        {1, 3, 25, "sse"},
        {1, 3, 26, "sse2"},
        {1, 2, 0, "sse3"},
        {1, 2, 9, "ssse3"},
        {1, 2, 19, "sse4.1"},
        {1, 2, 20, "sse4.2"},
        {1, 2, 23, "popcnt"},
        {1, 2, 25, "aes"},
        {1, 2, 1, "pclmul"},
        {1, 2, 28, "avx"},
        {7, 1, 5, "avx2"},
        {1, 2, 12, "fma"},
        {7, 1, 3, "bmi1"},
        {7, 1, 8, "bmi2"},
        {7, 1, 29, "sha"},
        {1, 2, 30, "rdrand"},
        {7, 1, 0, "fsgsbase"},
        {7, 1, 7, "smep"},
        {7, 1, 20, "smap"},
        {7, 2, 3, "pku"},
        {1, 2, 17, "pcid"},
        {1, 2, 21, "x2apic"},
        {1, 2, 24, "tsc-deadline"},
        {0x80000001, 3, 20, "nx"},
        {0x80000001, 3, 26, "1-GiB pages"},
    };
    print("  features:");
    for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        uint32_t r[4];
        cpuid(features[i].leaf, 0, r);
        if (r[features[i].reg] >> features[i].bit & 1) {
            put_char(' ');
            print(features[i].name);
        }
    }
    print("\n");
}

static uint32_t le32(const uint8_t *p)
{
    return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool same(const uint8_t *p, const char *text, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        if (p[i] != (uint8_t)text[i])
            return false;
    return true;
}

/* An ACPI table by its signature, through the RSDT. */
static const uint8_t *find_table(uint64_t rsdp, const char *signature)
{
    if (!rsdp)
        return NULL;
    const uint8_t *rsdt = (const uint8_t *)(uint64_t)le32((const uint8_t *)rsdp + 16);
    for (uint32_t at = 36; at + 4 <= le32(rsdt + 4); at += 4) {
        const uint8_t *table = (const uint8_t *)(uint64_t)le32(rsdt + at);
        if (same(table, signature, 4))
            return table;
    }
    return NULL;
}

static unsigned count_processors(uint64_t rsdp)
{
    const uint8_t *madt = find_table(rsdp, "APIC");
    unsigned n = 0;
    for (uint32_t at = 44; madt && at < le32(madt + 4) && madt[at + 1]; at += madt[at + 1])
        n += madt[at] == 0 && (madt[at + 4] & 1);
    return n;
}

static void show_processors(uint64_t rsdp)
{
    uint32_t r[4], name[13] = {0};
    print("Processors\n  ");
    print_number(count_processors(rsdp), 10, 0, ' ');
    print(" x ");
    cpuid(0, 0, r);
    name[0] = r[1], name[1] = r[3], name[2] = r[2];
    print_registers(name, 3);
    cpuid(0x80000000, 0, r);
    if (r[0] >= 0x80000004) {
        for (uint32_t i = 0; i < 3; i++)
            cpuid(0x80000002 + i, 0, name + 4 * i);
        print(", ");
        print_registers(name, 12);
    }
    print("\n");
    show_features();
}

/* ---- Page faults and time -------------------------------------------------------------------- */

static void show_fault(const char *what, uint64_t address, int kind)
{
    static const struct {
        uint8_t bit;
        const char *name;
    } bits[] = {{0, "present"},  {1, "write"}, {2, "user"},
                {3, "reserved"}, {4, "fetch"}, {PROTECT_DEFAULT_MARKER, "a rule"}};
    faulted = false;
    demo_touch(address, kind);
    print("  ");
    print(what);
    if (!faulted) {
        print(": no fault\n");
        return;
    }
    print(": #PF, CR2 = ");
    print_hex(fault_address, 0);
    print(", error code ");
    print_hex(fault_error, 0);
    print(" (");
    bool any = false;
    for (unsigned i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        if (!(fault_error >> bits[i].bit & 1))
            continue;
        print(any ? ", " : "");
        print(bits[i].name);
        any = true;
    }
    print(any ? ")\n" : "no bit: a read of a page that is not present)\n");
}

static void show_page_faults(void)
{
    const uint64_t unmapped = 0x4000000000, page = 0x200000, gib = 0x40000000;
    volatile uint64_t *entry = &page_dirs[(gib - page) >> 21];
    print("Page faults\n");
    show_fault("read of an unmapped page", unmapped, 0);
    show_fault("write to an unmapped page", unmapped + 8, 1);
    *entry &= ~2ull; /* read-only */
    __asm__ volatile("invlpg (%0)" ::"r"(gib - page) : "memory");
    show_fault("write to a read-only page", gib - page + 0x10, 1);
    *entry = 0;
    __asm__ volatile("invlpg (%0)" ::"r"(gib - page) : "memory");
    show_fault("fetch from an unmapped page", gib - page + 0x20, 2);
}

/* ---- The protection device ------------------------------------------------------------------- */

static uint8_t guarded[4096] __attribute__((aligned(4096)));

static uint64_t command(enum protect_op op, uint64_t session, const void *array)
{
    volatile struct protect_door *door = (void *)PROTECT_DOOR_ADDRESS(0);
    volatile struct protect_command *c = &door->command[0];
    *(volatile uint64_t *)c = op;
    c->session = session;
    c->arg[0] = (uint64_t)array;
    c->arg[1] = array ? 1 : 0;
    c->arg[2] = c->arg[3] = 0;
    door->doorbell = 0;
    if (c->status != PROTECT_OK)
        print("  refused\n");
    return c->result;
}

/* Code at CPL 0 to 2, whose context this is, may read the page and no more. */
static void guard_page(void)
{
    const struct protect_region region = {.base = (uint64_t)guarded, .length = sizeof(guarded)};
    struct protect_rule rule = PROTECT_RULE_DEFAULT(0, 1, PROTECT_READ, PROTECT_DENY);
    uint64_t session = command(PROTECT_OP_BIND, 0, NULL);
    rule.region = (uint32_t)command(PROTECT_OP_ADD_REGIONS, session, &region);
    command(PROTECT_OP_SET_RULES, session, &rule);
}

static void show_event(void)
{
    const volatile struct protect_door *door = (void *)PROTECT_DOOR_ADDRESS(0);
    struct protect_event event;
    for (unsigned i = 0; i < sizeof(event) / 8; i++)
        ((uint64_t *)&event)[i] = ((const volatile uint64_t *)&door->event[0])[i];
    print("  who it was: processor ");
    print_number(event.vcpu, 10, 0, ' ');
    print(", CPL ");
    print_number(event.cpl, 10, 0, ' ');
    print(", RIP = ");
    print_hex(event.rip, 0);
    print(event.access == PROTECT_WRITE ? ", wrote " : ", touched ");
    print_number(event.length, 10, 0, ' ');
    print(" bytes at ");
    print_hex(event.gva, 0);
    print("\n");
}

static void show_protection(void)
{
    const volatile struct protect_door *door = (void *)PROTECT_DOOR_ADDRESS(0);
    uint64_t attacked = (uint64_t)guarded + 0x123;
    print("Protection\n");
    if (door->id != PROTECT_ID) {
        print("  this machine has no protection device\n");
        return;
    }
    show_fault("write to a page of its own, before", attacked, 1);
    guard_page();
    show_fault("write to it, guarded by the device", attacked, 1);
    show_event();
    show_fault("read of it", attacked, 0);
}

static uint64_t tsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

static void show_time(void)
{
    print("Timer: ");
    __asm__ volatile("sti");
    while (ticks == 0)
        __asm__ volatile("hlt");
    uint64_t start = tsc();
    while (ticks < 1 + HZ / 4)
        __asm__ volatile("hlt");
    uint64_t cycles = tsc() - start;
    __asm__ volatile("cli");
    print_number(HZ / 4, 10, 0, ' ');
    print(" ticks at 100 Hz took ");
    print_number(cycles / 1000, 10, 0, ' ');
    print(" thousand TSC cycles\n");
}

/* ---- The end --------------------------------------------------------------------------------- */

/* The sleep type of \_S5 in the DSDT: Name(_S5, Package(n){type, ...}) (ACPI 6.5, 7.4.2). */
static uint8_t sleep_type(const uint8_t *dsdt)
{
    for (uint32_t at = 36; at + 12 < le32(dsdt + 4); at++) {
        const uint8_t *p = dsdt + at;
        if (same(p, "_S5_", 4) && p[4] == 0x12)
            return p[7] == 0x0a ? p[8] : p[7]; /* a byte constant, else Zero or One */
    }
    return 0;
}

static void power_off(uint64_t rsdp)
{
    enum { FADT_DSDT = 40, FADT_PM1A_CNT = 64, SLP_TYP_SHIFT = 10, SLP_EN = 1 << 13 };
    const uint8_t *fadt = find_table(rsdp, "FACP");
    if (!fadt)
        return;
    uint8_t type = sleep_type((const uint8_t *)(uint64_t)le32(fadt + FADT_DSDT));
    outw((uint16_t)le32(fadt + FADT_PM1A_CNT), (uint16_t)(type << SLP_TYP_SHIFT | SLP_EN));
}

void demo_main(const struct start_info *info);
void demo_main(const struct start_info *info)
{
    outb(COM1 + 1, 0);    /* no interrupts */
    outb(COM1 + 3, 0x03); /* 8 bits, no parity */
    outb(COM1 + 2, 0x01); /* FIFO on */
    print("\nThis is Bailey, an x86-64 emulator. A guest of your own: bailey -kernel FILE.\n\n");
    set_up_interrupts();
    show_memory(info);
    show_processors(info->rsdp);
    show_page_faults();
    show_protection();
    show_time();
    print("Powering off through ACPI. Goodbye.\n");
    power_off(info->rsdp);
    print("The machine did not power off.\n");
}
