/*
 * legacy.h - for 32-bit guests about paging itself: registers with 64-bit entries and accesses that
 * tell what became of them. Included once per guest.
 */
#ifndef GUEST_LEGACY_H
#define GUEST_LEGACY_H

#include "context.h"

enum {
    CR0_PE = 1,
    CR0_WP = 1 << 16,
    CR0_NW = 1 << 29,
    CR0_CD = 1 << 30,
    CR4_PSE = 1 << 4,
    CR4_PAE = 1 << 5,
    CR4_PGE = 1 << 7,
    CR4_PCIDE = 1 << 17,
    CR4_SMEP = 1 << 20,
    EFER_LME = 1 << 8,
    EFER_LMA = 1 << 10,
    EFER_NXE = 1 << 11,
};
#define CR0_PG   (1ul << 31)
#define MSR_EFER 0xc0000080u

/* Bits of entries; the error code of #PF (SDM vol. 3, 4.7). */
enum {
    E_P = 1,
    E_W = 2,
    E_U = 4,
    E_PWT = 8,
    E_PCD = 16,
    E_A = 0x20,
    E_D = 0x40,
    E_PS = 0x80,
    E_G = 0x100,
    E_ALL = 7
};
#define E_NX (1ull << 63)
enum { PF_P = 1, PF_W = 2, PF_U = 4, PF_RSVD = 8, PF_I = 16 };

#define MAYBE static __attribute__((unused))
#define ALONE static __attribute__((unused, noinline, noclone))

ALONE struct trap try_read(uint32_t at)
{
    return CATCH(asm volatile(LABEL(read_here) "movb (%0), %%al" ::"r"(at) : "eax", "memory"));
}
ALONE struct trap try_write(uint32_t at)
{
    return CATCH(asm volatile(LABEL(write_here) "movb $0x5a, (%0)" ::"r"(at) : "memory"));
}
/* Calls what should be a RET. */
ALONE struct trap try_call(uint32_t at)
{
    return CATCH(asm volatile("call *%0" ::"r"(at) : "memory", "eax", "ecx", "edx"));
}
MAYBE word user_read_(word at)
{
    asm volatile(LABEL(user_read_here) "movb (%0), %%al" ::"r"(at) : "eax", "memory");
    return 0;
}
MAYBE word user_write_(word at)
{
    asm volatile(LABEL(user_write_here) "movb $0x5a, (%0)" ::"r"(at) : "memory");
    return 0;
}
MAYBE word user_call_(word at)
{
    asm volatile("call *%0" ::"r"(at) : "memory", "eax", "ecx", "edx");
    return 0;
}
ALONE struct trap try_user(word (*fn)(word), uint32_t at)
{
    return CATCH(call_user(fn, at));
}

#define CHECK_PF(t, address, code, at)                                                             \
    do {                                                                                           \
        struct trap pf_ = (t);                                                                     \
        CHECK_TRAP(pf_, V_PF, code, at);                                                           \
        CHECK_EQ(pf_.cr2, address);                                                                \
        CHECK_EQ(pf_.rflags &F_RF, F_RF);                                                          \
    } while (0)
#define CHECK_NO_TRAP(t) CHECK_EQ((t).vector, NO_TRAP)

MAYBE bool cpu_has(uint32_t leaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];
    cpuid(leaf & 0x80000000, 0, r);
    if (r[0] < leaf)
        return false;
    cpuid(leaf, 0, r);
    return r[reg] >> bit & 1;
}
enum { REG_EAX, REG_EBX, REG_ECX, REG_EDX };
MAYBE unsigned physical_bits(void)
{
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    return r[0] & 0xff;
}
#define REQUIRE(feature)                                                                           \
    do {                                                                                           \
        if (!(feature)) {                                                                          \
            print("  skipped: not %s\n", #feature);                                                \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#endif
