/*
 * context.h - runs code in a register context of the test's choosing: any CPL, code size, flags,
 * segments, virtual-8086 mode (32-bit guests) or compatibility mode (64-bit guests).
 *
 *     struct context c = context_user((word)code);
 *     c.rax = 5;
 *     struct trap t = RUN(c);      // ends with the first trap; t.frame has the registers then
 *
 * The context is entered by IRET. In 32-bit guests an IRET to CPL 0 takes no stack from it: such a
 * context goes on on a scratch stack. A trap from CPL 3 arrives on the ring-0 stack, whatever the
 * context did to its own.
 */
#ifndef CONTEXT_H
#define CONTEXT_H

#include "guest.h"

enum {
    F_CF = 1 << 0,
    F_ZF = 1 << 6,
    F_TF = 1 << 8,
    F_IF = 1 << 9,
    F_DF = 1 << 10,
    F_OF = 1 << 11,
    F_IOPL3 = 3 << 12,
    F_NT = 1 << 14,
    F_RF = 1 << 16,
    F_VM = 1 << 17,
    F_AC = 1 << 18,
    F_VIF = 1 << 19,
    F_VIP = 1 << 20,
};
enum {
    V_DE,
    V_DB,
    V_NMI,
    V_BP,
    V_OF,
    V_BR,
    V_UD,
    V_NM,
    V_DF,
    V_TS = 10,
    V_NP,
    V_SS,
    V_GP,
    V_PF,
    V_MF = 16,
    V_AC,
    V_XM = 19
};

struct context {
#ifdef __x86_64__
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t rip, cs, rflags, rsp, ss;
    uint64_t ds, es, fs, gs;
#else
    uint32_t gs, fs, es, ds, rdi, rsi, rbp, unused, rbx, rdx, rcx, rax;
    uint32_t rip, cs, rflags, rsp, ss;
    uint32_t v86_es, v86_ds, v86_fs, v86_gs;
#endif
};

static char context_stack[4096] __attribute__((aligned(16), unused));

static inline struct context context_at(word rip, unsigned cs, unsigned data)
{
    return (struct context){.rip = rip,
                            .cs = cs,
                            .rflags = 2,
                            .rsp = (word)context_stack + sizeof(context_stack) - 64,
                            .ss = data,
                            .ds = data,
                            .es = data};
}
static inline struct context context_user(word rip)
{
    return context_at(rip, SEL_UCODE, SEL_UDATA);
}

/* Pops the whole context; room below it for a trap that the popping itself meets. */
static __attribute__((noreturn, unused)) void context_enter(const struct context *from)
{
    static struct {
        char room[8192];
        struct context context;
        char behind[64];
    } __attribute__((aligned(16))) area;
    area.context = *from;
#ifdef __x86_64__
    asm volatile("mov %w1, %%ds; mov %w2, %%es; mov %w3, %%fs; mov %w4, %%gs; mov %0, %%rsp;"
                 "pop %%r15; pop %%r14; pop %%r13; pop %%r12; pop %%r11; pop %%r10; pop %%r9;"
                 "pop %%r8; pop %%rdi; pop %%rsi; pop %%rbp; pop %%rbx; pop %%rdx; pop %%rcx;"
                 "pop %%rax\n" LABEL(context_iret) "iretq" ::"r"(&area.context),
                 "r"(from->ds), "r"(from->es), "r"(from->fs), "r"(from->gs)
                 : "memory");
#else
    asm volatile("mov %0, %%esp; pop %%gs; pop %%fs; pop %%es; pop %%ds; popal\n" LABEL(
                     context_iret) "iretl" ::"r"(&area.context)
                 : "memory");
#endif
    __builtin_unreachable();
}

static __attribute__((noinline, unused)) struct trap context_run(const struct context *context)
{
    return CATCH(context_enter(context));
}
#define RUN(context_)                                                                              \
    ({                                                                                             \
        struct context run_ = (context_);                                                          \
        context_run(&run_);                                                                        \
    })

/* ---- Descriptors ------------------------------------------------------------------------------
 */

/* Attributes as in bits 40-47 and, from 0x1000 on, 52-55 of a descriptor. */
enum {
    D_PRESENT = 0x80,
    D_DPL3 = 0x60,
    D_CODE = 0x9b,    /* execute/read, accessed */
    D_CODE_XO = 0x99, /* execute only */
    D_CONFORMING = 0x9f,
    D_DATA = 0x93, /* read/write, accessed */
    D_READ_ONLY = 0x91,
    D_EXPAND_DOWN = 0x97,
    D_LDT = 0x82,
    D_TSS16 = 0x81,
    D_CALL16 = 0x84,
    D_TASK_GATE = 0x85,
    D_TSS32 = 0x89,
    D_BUSY = 0x02, /* for TSSs */
    D_CALL32 = 0x8c,
    D_LONG = 0x2000,
    D_BIG = 0x4000,
    D_PAGES = 0x8000, /* the limit counts pages */
};

static inline uint64_t descriptor(uint32_t base, uint32_t limit, unsigned attr)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)(attr & 0xff) << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(attr >> 12 & 15) << 52 |
           (uint64_t)(base >> 24) << 56;
}
static inline uint64_t gate(unsigned selector, uint32_t offset, unsigned attr, unsigned count)
{
    return (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)count << 32 |
           (uint64_t)(attr & 0xff) << 40 | (uint64_t)(offset >> 16) << 48;
}
static inline unsigned desc_type(unsigned selector)
{
    return gdt[selector / 8] >> 40 & 0xff;
}

/* Selector `n` of the GDT entries that are free for tests. */
#define FREE(n) (SEL_FREE + 8 * (n))

#define CHECK_TRAP(trap_, vector_, error_, rip_)                                                   \
    do {                                                                                           \
        struct trap check_ = (trap_);                                                              \
        CHECK_EQ(check_.vector, vector_);                                                          \
        CHECK_EQ(check_.error, error_);                                                            \
        CHECK_EQ(check_.rip, rip_);                                                                \
    } while (0)

#endif
