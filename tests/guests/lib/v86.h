/*
 * v86.h - runs code in virtual-8086 mode (32-bit guests; SDM vol. 3, 20.2, 20.3).
 *
 *     CODE16(code, "movw $1, %ax; int3");
 *     struct trap t = V86(code, 2);             // EFLAGS: VM is added
 *
 * The code is copied to segment V86_CODE, its beginning at offset 0. Traps come to the flat ring-0
 * stack as always; above the frame that struct frame knows lie ES, DS, FS and GS (v86_es ...).
 * INT3 ends a run: its gate has DPL 3 and it is not sensitive to IOPL. Included once per guest.
 */
#ifndef GUEST_V86_H
#define GUEST_V86_H

#include "rings.h"

enum { V86_CODE = 0x2000, V86_STACK = 0x3000, V86_DATA = 0x4000 };

static inline struct context v86_context(uint32_t eflags)
{
    return (struct context){.cs = V86_CODE,
                            .ss = V86_STACK,
                            .rsp = 0x1000,
                            .rflags = eflags | F_VM | 2,
                            .v86_ds = V86_DATA,
                            .v86_es = V86_DATA,
                            .ds = SEL_UDATA,
                            .es = SEL_UDATA};
}

/* What the processor pushed beyond struct frame: the trap's frame ends at ESP0. */
struct v86_segments {
    uint32_t es, ds, fs, gs;
};
static inline struct v86_segments v86_pushed(void)
{
    return *(const struct v86_segments *)(tss[1] - sizeof(struct v86_segments));
}

#define V86(name, eflags)                                                                          \
    ({                                                                                             \
        PLACE16(name, V86_CODE << 4);                                                              \
        struct context c_ = v86_context(eflags);                                                   \
        RUN(c_);                                                                                   \
    })

#endif
