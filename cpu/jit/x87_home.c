/*
 * x87_home.c - the guest's x87 registers into the host's and back.
 *
 * By XRSTOR and XSAVE of that component alone, since the vectors beside it stay where they are. The
 * pointers to the last instruction stay in cpu->x87 (x87.c): in the host's they are zero at first,
 * and are not read back. All exceptions are masked, so ES and B are 0.
 *
 * This file is compiled for general registers only (cpu/CMakeLists.txt). Nothing here may call a
 * function that is not, nor raise.
 */
#include "cpu/interp/vec.h"
#include "cpu/interp/x87.h"
#include "cpu/jit/jit.h"

enum { XSAVE_X87 = 1 };

void jit_x87_in(struct cpu *cpu)
{
    struct jit_x87_image *image = &cpu->jit->x87_image;
    const struct x87 *x87 = &cpu->x87;
    image->fcw = x87->fcw;
    image->fsw = x87->fsw & (uint16_t) ~(X87_ES | X87_B);
    image->ftw = x87_abridged_tags(x87->ftw);
    image->fop = 0;
    image->fip = image->fdp = 0;
    for (unsigned i = 0; i < 8; i++)
        __builtin_memcpy(image->st[i], x87->st[i], 16);
    image->xstate_bv = XSAVE_X87;
    __asm__ volatile("xrstor64 %0" : : "m"(*image), "a"(XSAVE_X87), "d"(0));
    cpu->jx.x87_home = 0;
}

/* The host's are left as C wants them: empty, with the usual control word. */
void jit_x87_out(struct cpu *cpu)
{
    static const uint16_t usual = 0x37f;
    struct jit_x87_image *image = &cpu->jit->x87_image;
    struct x87 *x87 = &cpu->x87;
    __asm__ volatile("xsave64 %0\n\temms\n\tfldcw %1"
                     : "+m"(*image)
                     : "m"(usual), "a"(XSAVE_X87), "d"(0));
    x87->fcw = (image->fcw & X87_FCW_VALID) | X87_FCW_ONES;
    x87->fsw = image->fsw & (uint16_t) ~(X87_ES | X87_B);
    x87->ftw = x87_tags_from_abridged((uint8_t)image->ftw);
    for (unsigned i = 0; i < 8; i++) {
        __builtin_memset(x87->st[i], 0, 16);
        __builtin_memcpy(x87->st[i], image->st[i], 10);
    }
    cpu->jx.x87_home = 1;
}
