/*
 * guest.h - what a bare-metal test guest stands on.
 *
 * A guest is one C file (plus guest.c and start.S) with TEST() functions and one list of them. It
 * prints a line per test on the debug console (port 0xe9) and ends through isa-debug-exit (port
 * 0x501): status 1 when every test passed, 3 when one failed.
 *
 *     TEST(divide_by_zero)
 *     {
 *         struct trap t = CATCH(asm volatile("xor %%ecx, %%ecx; div_here: div %%ecx" ::: "eax",
 * "ecx", "edx")); CHECK_EQ(t.vector, 0); CHECK_EQ(t.rip, SYMBOL(div_here));
 *     }
 *     const struct test guest_tests[] = {T(divide_by_zero), {0, 0}};
 *
 * The same guest runs under other machines with `-device isa-debug-exit -debugcon`, on a real CPU
 * too where one is to be had: a second opinion for every expectation.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uintptr_t word; /* a register */

enum {
    SEL_CODE32 = 0x08,
    SEL_DATA = 0x10,
    SEL_CODE64 = 0x18,
    SEL_UCODE32 = 0x23,
    SEL_UDATA = 0x2b,
    SEL_UCODE64 = 0x33,
    SEL_CODE16 = 0x38,
    SEL_DATA16 = 0x40,
    SEL_TSS = 0x48,
    SEL_FREE = 0x58,
#ifdef __x86_64__
    SEL_CODE = SEL_CODE64,
    SEL_UCODE = SEL_UCODE64,
#else
    SEL_CODE = SEL_CODE32,
    SEL_UCODE = SEL_UCODE32,
#endif
};

extern uint64_t gdt[32];
extern char boot_stack_top[], guest_end[];
#ifdef __x86_64__
extern uint64_t boot_pml4[512], boot_pdpt[512], boot_pd[4 * 512];
#endif

/* What a trap stub leaves on the stack. */
struct frame {
#ifdef __x86_64__
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
#else
    uint32_t es, ds, rdi, rsi, rbp, rsp_pushad, rbx, rdx, rcx, rax;
    uint32_t vector, error, rip, cs, rflags, rsp, ss; /* rsp and ss only on a change of privilege */
#endif
};

/* What CATCH() found. vector = NO_TRAP when the code ran through. */
#define NO_TRAP (~(word)0)
struct trap {
    word vector, error, rip, cs, rflags, rsp, ss, cr2, dr6;
    struct frame frame;
};

struct catch_buffer {
    word reg[8];
};
int catch_enter(struct catch_buffer *buffer) __attribute__((returns_twice));
_Noreturn void catch_leave(struct catch_buffer *buffer);
extern struct catch_buffer *catch_armed;
extern struct trap catch_trap;

/* Runs the statements; a trap ends them and is described by the result. Nests not. The code must
 * leave nothing behind that the compiler does not know of (declare clobbers). */
#define CATCH(...)                                                                                 \
    ({                                                                                             \
        struct catch_buffer catch_buffer_;                                                         \
        catch_trap = (struct trap){.vector = NO_TRAP};                                             \
        if (!catch_enter(&catch_buffer_)) {                                                        \
            catch_armed = &catch_buffer_;                                                          \
            asm volatile("" ::: "memory"); /* the store is for trap_entry() */                     \
            __VA_ARGS__;                                                                           \
            asm volatile("" ::: "memory");                                                         \
        }                                                                                          \
        catch_armed = 0;                                                                           \
        catch_trap;                                                                                \
    })

/* A handler of the test's own for one vector: returns true when the trap is dealt with (iret
 * follows), false to go on to CATCH. */
typedef bool trap_handler(struct frame *frame);
extern trap_handler *trap_handlers[256];

/* Puts a gate for `vector` (type 14 interrupt, 15 trap, 5 task). */
void set_gate(unsigned vector, word handler, unsigned selector, unsigned type, unsigned dpl,
              unsigned ist);
extern char trap_stubs[]; /* 16 bytes per vector */
struct idt_entry {
    uint32_t word[sizeof(word) == 8 ? 4 : 2];
};
extern struct idt_entry idt[256];
extern uint32_t tss[32]; /* of the format of the mode; loaded by guest_setup() */

/* ---- Console and end ------------------------------------------------------------------------- */
void print(const char *format, ...); /* %s %c %d %u %x %lx %p, no widths */
_Noreturn void guest_exit(int failed);
bool all_passed(void); /* so far: a test that ends the machine asks before it does */

/* Physical address of the PVH start info (EBX at the entry). */
extern uint32_t start_info;

/* ---- Tests ----------------------------------------------------------------------------------- */
struct test {
    const char *name;
    void (*run)(void);
};
extern const struct test guest_tests[]; /* ends with a NULL name */
void check_failed(const char *file, int line, const char *what, unsigned long long got,
                  unsigned long long want);
#define TEST(name) static void test_##name(void)
#define T(name)                                                                                    \
    {                                                                                              \
#name, test_##name                                                                         \
    }
#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition))                                                                          \
            check_failed(__FILE__, __LINE__, #condition, 0, 1);                                    \
    } while (0)
#define CHECK_EQ(got, want)                                                                        \
    do {                                                                                           \
        unsigned long long got_ = (unsigned long long)(got), want_ = (unsigned long long)(want);   \
        if (got_ != want_)                                                                         \
            check_failed(__FILE__, __LINE__, #got " == " #want, got_, want_);                      \
    } while (0)
/* The address of a label that inline assembly defines with LABEL(name). */
#define LABEL(name) ".globl " #name "\n" #name ": "
#define SYMBOL(name)                                                                               \
    ({                                                                                             \
        extern char name[];                                                                        \
        (word) name;                                                                               \
    })

/* ---- Instructions ---------------------------------------------------------------------------- */
static inline void outb(uint16_t port, uint8_t v)
{
    asm volatile("outb %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t v)
{
    asm volatile("outw %0, %1" ::"a"(v), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t v)
{
    asm volatile("outl %0, %1" ::"a"(v), "Nd"(port));
}
static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint16_t inw(uint16_t port)
{
    uint16_t v;
    asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
#define CR_ACCESSORS(n)                                                                            \
    static inline word read_cr##n(void)                                                            \
    {                                                                                              \
        word v;                                                                                    \
        asm volatile("mov %%cr" #n ", %0" : "=r"(v));                                              \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_cr##n(word v)                                                         \
    {                                                                                              \
        asm volatile("mov %0, %%cr" #n ::"r"(v) : "memory");                                       \
    }
CR_ACCESSORS(0)
CR_ACCESSORS(2) CR_ACCESSORS(3) CR_ACCESSORS(4)
#define DR_ACCESSORS(n)                                                                            \
    static inline word read_dr##n(void)                                                            \
    {                                                                                              \
        word v;                                                                                    \
        asm volatile("mov %%dr" #n ", %0" : "=r"(v));                                              \
        return v;                                                                                  \
    }                                                                                              \
    static inline void write_dr##n(word v)                                                         \
    {                                                                                              \
        asm volatile("mov %0, %%dr" #n ::"r"(v) : "memory");                                       \
    }
    DR_ACCESSORS(0) DR_ACCESSORS(1) DR_ACCESSORS(2) DR_ACCESSORS(3) DR_ACCESSORS(6)
        DR_ACCESSORS(7) static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    asm volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
    asm volatile("wrmsr" ::"c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    asm volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
}
static inline bool is_amd(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
    return r[1] == 0x68747541; /* "Auth" */
}
static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    asm volatile("rdtsc" : "=a"(lo), "=d"(hi));
    return (uint64_t)hi << 32 | lo;
}
static inline word read_flags(void)
{
    word v;
    asm volatile("pushf; pop %0" : "=r"(v));
    return v;
}
static inline void invlpg(const void *p)
{
    asm volatile("invlpg (%0)" ::"r"(p) : "memory");
}
static inline uint32_t mmio_read32(uintptr_t a)
{
    return *(volatile uint32_t *)a;
}
static inline void mmio_write32(uintptr_t a, uint32_t v)
{
    *(volatile uint32_t *)a = v;
}

/* Calls fn(arg) at CPL 3 on its own stack; returns what it returned. A trap in it ends CATCH() as
 * usual (the frame then has the user's CS and SS). */
word call_user(word (*fn)(word), word arg);

/* ---- Other processors (64-bit guests) -------------------------------------------------------- */
/* Starts vCPU `apic_id` by INIT-SIPI-SIPI; it runs fn(apic_id) in long mode on a stack of its own
 * with the same IDT, then halts with interrupts off. Returns false when it did not come up. */
bool start_cpu(unsigned apic_id, void (*fn)(unsigned apic_id));
extern volatile unsigned cpus_done; /* counts fn()s that returned */

void *memset(void *p, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

#endif
