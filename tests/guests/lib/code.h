/*
 * code.h - pieces of machine code that a test jumps into with registers of its own choosing, rather
 * than reaching them from C (context.h, real.h).
 *
 *     CODE32(store, LABEL(store_here) "movl %eax, (%ebx); int3");
 *     struct context c = context_user((word)store);
 *
 * 32-bit pieces run where the linker put them. 16-bit ones are copied to where their segment
 * begins, by PLACE16().
 */
#ifndef GUEST_CODE_H
#define GUEST_CODE_H

#include "guest.h"

#define CODE32(name, text)                                                                         \
    asm(".pushsection .text\n.code32\n" #name ":\n" text "\n.popsection");                         \
    extern char name[]
#define CODE16(name, text)                                                                         \
    asm(".pushsection .rodata\n.code16\n" #name ":\n" text "\n" #name                              \
        "_end:\n.code32\n.popsection");                                                            \
    extern char name[], name##_end[]
/* The same for a label inside 16-bit code: how far it is from the beginning. */
#define OFFSET16(name, label) (SYMBOL(label) - (word)(name))
#define PLACE16(name, at)     memcpy((void *)(word)(at), name, (size_t)(name##_end - name))

#endif
