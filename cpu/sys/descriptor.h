/*
 * descriptor.h - segment and gate descriptors as bits (SDM vol. 3, 3.4.5, 3.5, 6.11, 7.2).
 *
 * A descriptor is one little-endian 64-bit number here; in long mode the system descriptors (LDT,
 * TSS, call gate) have a second one with the upper half of the base or offset.
 */
#ifndef CPU_SYS_DESCRIPTOR_H
#define CPU_SYS_DESCRIPTOR_H

#include "internal/cpu.h"

/* Types of system descriptors (S = 0; SDM vol. 3, table 3-2), in `attr & 0x1f`. */
enum system_type {
    SYS_TSS16 = 1,
    SYS_LDT = 2,
    SYS_TSS16_BUSY = 3,
    SYS_CALL16 = 4,
    SYS_TASK_GATE = 5,
    SYS_INT16 = 6,
    SYS_TRAP16 = 7,
    SYS_TSS32 = 9, /* 64-bit TSS in long mode */
    SYS_TSS32_BUSY = 11,
    SYS_CALL32 = 12,
    SYS_INT32 = 14,
    SYS_TRAP32 = 15,
};

/* Type bits of code and data segments. */
enum {
    TYPE_ACCESSED = 1 << 0,
    TYPE_WRITABLE = 1 << 1,    /* data */
    TYPE_READABLE = 1 << 1,    /* code */
    TYPE_EXPAND_DOWN = 1 << 2, /* data */
    TYPE_CONFORMING = 1 << 2,  /* code */
    TYPE_CODE = 1 << 3,
};
#define ATTR_REAL_MODE 0x0093 /* present, DPL 0, data, writable, accessed */
#define ATTR_V86       0x00f3 /* the same with DPL 3 */

static inline uint32_t desc_base(uint64_t d)
{
    return (uint32_t)(d >> 16 & 0xffffff) | (uint32_t)(d >> 32 & 0xff000000);
}

static inline uint32_t desc_limit(uint64_t d)
{
    uint32_t limit = (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xf0000);

    return d >> 55 & 1 ? limit << 12 | 0xfff : limit;
}

/* As in struct segment: without the four limit bits in the middle. */
static inline uint16_t desc_attr(uint64_t d)
{
    return d >> 40 & 0xf0ff;
}

static inline unsigned attr_dpl(unsigned attr)
{
    return attr >> SEG_ATTR_DPL_SHIFT & 3;
}

static inline unsigned attr_system_type(unsigned attr)
{
    return attr & (SEG_ATTR_S | SEG_ATTR_TYPE); /* above 15 for code and data: equals no SYS_* */
}

static inline bool attr_is_code(unsigned attr)
{
    return (attr & (SEG_ATTR_S | TYPE_CODE)) == (SEG_ATTR_S | TYPE_CODE);
}

static inline bool attr_is_conforming(unsigned attr)
{
    return attr_is_code(attr) && attr & TYPE_CONFORMING;
}

static inline bool attr_is_writable_data(unsigned attr)
{
    return (attr & (SEG_ATTR_S | TYPE_CODE | TYPE_WRITABLE)) == (SEG_ATTR_S | TYPE_WRITABLE);
}

static inline bool attr_is_readable(unsigned attr) /* data, or readable code */
{
    return attr & SEG_ATTR_S && (!(attr & TYPE_CODE) || attr & TYPE_READABLE);
}

static inline struct segment segment_from_descriptor(uint16_t selector, uint64_t d)
{
    return (struct segment){
        .base = desc_base(d), .limit = desc_limit(d), .selector = selector, .attr = desc_attr(d)};
}

static inline bool selector_is_null(uint16_t selector)
{
    return (selector & ~3) == 0;
}

/* Gates: selector, offset, DPL and type lie alike in all of them. */
static inline uint16_t gate_selector(uint64_t d)
{
    return d >> 16 & 0xffff;
}

static inline uint32_t gate_offset32(uint64_t d)
{
    return (uint32_t)(d & 0xffff) | (uint32_t)(d >> 32 & 0xffff0000);
}

#endif
