/*
 * guest.c - traps, console, test loop of the bare-metal guests. See guest.h.
 */
#include "guest.h"
#include <stdarg.h>

struct catch_buffer *catch_armed;
struct trap catch_trap;
trap_handler *trap_handlers[256];
struct idt_entry idt[256] __attribute__((aligned(16)));
uint32_t tss[32] __attribute__((aligned(128)));
static char ring0_stack[16384] __attribute__((aligned(16)));
static unsigned failures, failures_before; /* all, and those of earlier tests */
enum { SHOWN_FAILURES = 10 };              /* of one test */

extern const struct test guest_tests[];

void *memset(void *p, int c, size_t n)
{
    for (char *q = p; n--;)
        *q++ = (char)c;
    return p;
}

void *memcpy(void *d, const void *s, size_t n)
{
    char *to = d;
    for (const char *from = s; n--;)
        *to++ = *from++;
    return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (; n--; x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

/* ---- Console --------------------------------------------------------------------------------- */

static void put(char c)
{
    outb(0xe9, (uint8_t)c);
}

static void put_number(unsigned long long v, unsigned base)
{
    char digits[24];
    int n = 0;
    do { /* division by shifts, so that -m32 needs no library */
        unsigned digit = 0;
        if (base == 16) {
            digit = v & 15;
            v >>= 4;
        } else {
            unsigned long long quotient = 0, rest = 0;
            for (int bit = 63; bit >= 0; bit--) {
                rest = rest << 1 | (v >> bit & 1);
                if (rest >= 10) {
                    rest -= 10;
                    quotient |= 1ull << bit;
                }
            }
            digit = (unsigned)rest;
            v = quotient;
        }
        digits[n++] = "0123456789abcdef"[digit];
    } while (v);
    while (n)
        put(digits[--n]);
}

void print(const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        unsigned longs = 0;
        while (*++format == 'l')
            longs++;
        unsigned long long v = 0;
        switch (*format) {
        case 's':
            for (const char *s = va_arg(ap, const char *); *s; s++)
                put(*s);
            break;
        case 'c':
            put((char)va_arg(ap, int));
            break;
        case 'd':
        case 'u':
        case 'x':
            v = longs == 2 ? va_arg(ap, unsigned long long)
                : longs    ? va_arg(ap, unsigned long)
                           : va_arg(ap, unsigned);
            put_number(v, *format == 'x' ? 16 : 10);
            break;
        case 'p':
            put_number((uintptr_t)va_arg(ap, void *), 16);
            break;
        default:
            put(*format);
        }
    }
    va_end(ap);
}

void guest_exit(int failed)
{
    outb(0x501, failed ? 1 : 0);
    for (;;)
        asm volatile("cli; hlt");
}

void check_failed(const char *file, int line, const char *what, unsigned long long got,
                  unsigned long long want)
{
    unsigned n = ++failures - failures_before;
    if (n > SHOWN_FAILURES) {
        if (n == SHOWN_FAILURES + 1)
            print("  and so on\n");
        return;
    }
    print("  %s:%d: %s: got %llx, want %llx\n", file, line, what, got, want);
}

bool all_passed(void)
{
    return failures == 0;
}

/* ---- Traps ----------------------------------------------------------------------------------- */

void trap_entry(struct frame *f);
void trap_entry(struct frame *f)
{
    uint8_t vector = (uint8_t)f->vector;
    if (trap_handlers[vector] && trap_handlers[vector](f))
        return;
    if (!catch_armed) {
        print("  unexpected trap %d error %lx rip %lx cs %lx rflags %lx cr2 %lx\n", (int)vector,
              (unsigned long)f->error, (unsigned long)f->rip, (unsigned long)f->cs,
              (unsigned long)f->rflags, (unsigned long)read_cr2());
        guest_exit(1);
    }
    catch_trap = (struct trap){f->vector, f->error, f->rip,     f->cs,      f->rflags,
                               f->rsp,    f->ss,    read_cr2(), read_dr6(), *f};
    struct catch_buffer *buffer = catch_armed;
    catch_armed = 0;
    catch_leave(buffer);
}

void set_gate(unsigned vector, word handler, unsigned selector, unsigned type, unsigned dpl,
              unsigned ist)
{
    uint32_t *w = idt[vector].word;
    w[0] = (uint32_t)(handler & 0xffff) | selector << 16;
    w[1] = (uint32_t)(handler & 0xffff0000) | 0x8000 | dpl << 13 | type << 8 | ist;
#ifdef __x86_64__
    w[2] = (uint32_t)(handler >> 32);
    w[3] = 0;
#endif
}

static void load_tables(void)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        word base;
    } idtr = {sizeof(idt) - 1, (word)idt};
    asm volatile("lidt %0" ::"m"(idtr));
}

void guest_setup(void);
void guest_setup(void)
{
    /* Nobody has set the 8259A pair up: what the timer asks for would come as vector 0. */
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    for (unsigned v = 0; v < 256; v++)
        set_gate(v, (word)trap_stubs + 16 * v, SEL_CODE, 14, 0, 0);
    load_tables();
    word stack = (word)ring0_stack + sizeof(ring0_stack);
    word base = (word)tss;
#ifdef __x86_64__
    tss[1] = (uint32_t)stack; /* RSP0 */
    tss[25] = 104 << 16;      /* I/O map beyond the limit: none */
    gdt[SEL_TSS / 8 + 1] = (uint64_t)base >> 32;
#else
    tss[1] = (uint32_t)stack; /* ESP0 */
    tss[2] = SEL_DATA;
    tss[25] = 104 << 16;
#endif
    gdt[SEL_TSS / 8] = 103 | (uint64_t)(base & 0xffffff) << 16 | 0x89ull << 40 |
                       (uint64_t)(base >> 24 & 0xff) << 56;
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
}

/* ---- CPL 3 ----------------------------------------------------------------------------------- */

static char user_stack[16384] __attribute__((aligned(16)));
static struct catch_buffer user_return;
static word user_result;
enum { USER_RETURN_VECTOR = 0xf0 };

static bool user_returned(struct frame *f)
{
    user_result = f->rax;
    catch_leave(&user_return);
}

static __attribute__((noreturn, used)) void user_main(word (*fn)(word), word arg)
{
    word result = fn(arg);
    asm volatile("int $0xf0" ::"a"(result));
    __builtin_unreachable();
}

word call_user(word (*fn)(word), word arg)
{
    trap_handlers[USER_RETURN_VECTOR] = user_returned;
    set_gate(USER_RETURN_VECTOR, (word)trap_stubs + 16 * USER_RETURN_VECTOR, SEL_CODE, 14, 3, 0);
    if (catch_enter(&user_return))
        return user_result;
    word *top = (word *)(user_stack + sizeof(user_stack) - 64);
#ifdef __x86_64__
    top--; /* as after a CALL */
    asm volatile("pushq %0; pushq %1; pushq $0x2; pushq %2; pushq %3; iretq" ::"r"((word)SEL_UDATA),
                 "r"(top), "r"((word)SEL_UCODE), "r"(user_main), "D"(fn), "S"(arg)
                 : "memory");
#else
    *--top = arg;
    *--top = (word)fn;
    *--top = 0;
    asm volatile("movw %w4, %%ds; movw %w4, %%es; pushl %0; pushl %1; pushl $0x2; pushl %2; pushl "
                 "%3; iretl" ::"r"(SEL_UDATA),
                 "r"(top), "r"(SEL_UCODE), "r"(user_main), "r"(SEL_UDATA)
                 : "memory");
#endif
    __builtin_unreachable();
}

/* ---- The tests ------------------------------------------------------------------------------- */

void guest_main(void);
void guest_main(void)
{
    unsigned failed = 0, count = 0;
    for (const struct test *t = guest_tests; t->name; t++, count++) {
        failures_before = failures;
        t->run();
        print("%s %s\n", failures == failures_before ? "ok  " : "FAIL", t->name);
        failed += failures != failures_before;
    }
    print("%u passed, %u failed\n", count - failed, failed);
    guest_exit(failed != 0 || count == 0);
}

/* ---- Other processors ------------------------------------------------------------------------ */
#ifdef __x86_64__

enum { TRAMPOLINE = 0x8000, LAPIC = 0xfee00000, LAPIC_ICR_LOW = 0x300, LAPIC_ICR_HIGH = 0x310 };
extern char ap_trampoline[], ap_trampoline_end[];
volatile unsigned cpus_done;
static volatile unsigned cpu_up;
static void (*volatile cpu_fn)(unsigned);
static volatile unsigned cpu_id;
char ap_stacks[8][8192] __attribute__((aligned(16)));

void ap_main(unsigned apic_id);
void ap_main(unsigned apic_id)
{
    load_tables();
    void (*fn)(unsigned) = cpu_fn;
    cpu_up = 1;
    fn(apic_id);
    __atomic_add_fetch(&cpus_done, 1, __ATOMIC_SEQ_CST);
    for (;;)
        asm volatile("cli; hlt");
}

static void send_ipi(unsigned apic_id, uint32_t low)
{
    mmio_write32(LAPIC + LAPIC_ICR_HIGH, apic_id << 24);
    mmio_write32(LAPIC + LAPIC_ICR_LOW, low);
    while (mmio_read32(LAPIC + LAPIC_ICR_LOW) & 0x1000)
        asm volatile("pause");
}

bool start_cpu(unsigned apic_id, void (*fn)(unsigned apic_id))
{
    memcpy((void *)TRAMPOLINE, ap_trampoline, (size_t)(ap_trampoline_end - ap_trampoline));
    cpu_fn = fn;
    cpu_id = apic_id;
    cpu_up = 0;
    mmio_write32(LAPIC + 0xf0, 0x1ff); /* software enable */
    send_ipi(apic_id, 0x4500);         /* INIT */
    send_ipi(apic_id, 0x4600 | TRAMPOLINE >> 12);
    for (uint64_t end = rdtsc() + 5000000000ull; !cpu_up && rdtsc() < end;)
        asm volatile("pause");
    return cpu_up;
}
#endif
