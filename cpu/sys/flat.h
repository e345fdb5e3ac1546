/*
 * flat.h - the flat segments that SYSCALL, SYSRET and their like make up without reading
 * descriptors (SDM vol. 2 under each name).
 */
#ifndef CPU_SYS_FLAT_H
#define CPU_SYS_FLAT_H

#include "cpu/sys/descriptor.h"

enum { ATTR_G_P_S = SEG_ATTR_G | SEG_ATTR_P | SEG_ATTR_S };

static inline struct segment flat_code(uint16_t selector, unsigned dpl, bool code64)
{
    return (struct segment){.limit = 0xffffffff,
                            .selector = selector,
                            .attr = (uint16_t)(ATTR_G_P_S | dpl << SEG_ATTR_DPL_SHIFT | TYPE_CODE |
                                               TYPE_READABLE | TYPE_ACCESSED |
                                               (code64 ? SEG_ATTR_L : SEG_ATTR_DB))};
}

static inline struct segment flat_stack(uint16_t selector, unsigned dpl)
{
    return (struct segment){.limit = 0xffffffff,
                            .selector = selector,
                            .attr =
                                (uint16_t)(ATTR_G_P_S | SEG_ATTR_DB | dpl << SEG_ATTR_DPL_SHIFT |
                                           TYPE_WRITABLE | TYPE_ACCESSED)};
}

/* CS and SS of the kernel, as SYSCALL and SYSENTER load them. */
static inline void flat_enter_ring0(struct cpu *cpu, uint16_t selector, bool code64)
{
    cpu->seg[SEG_CS] = flat_code(selector & 0xfffc, 0, code64);
    cpu->seg[SEG_SS] = flat_stack((uint16_t)((selector & 0xfffc) + 8), 0);
    cpu->cpl = 0;
}

/* And those of the program that SYSRET goes to. */
static inline void flat_sysret(struct cpu *cpu, bool to64)
{
    uint16_t selector = cpu->msr_star >> 48;
    struct segment ss = flat_stack((uint16_t)((selector + 8) | 3), 3);

    if (cpu_is_amd(cpu)) {
        ss.base = cpu->seg[SEG_SS].base;
        ss.limit = cpu->seg[SEG_SS].limit;
        ss.attr = cpu->seg[SEG_SS].attr | 3 << SEG_ATTR_DPL_SHIFT;
    }
    cpu->seg[SEG_SS] = ss;
    cpu->seg[SEG_CS] = flat_code((uint16_t)((to64 ? selector + 16 : selector) | 3), 3, to64);
    cpu->cpl = 3;
}

/* What SYSRET takes of R11: neither RF nor VM. */
#define SYSRET_FLAGS 0x3c7fd7ull

#endif
