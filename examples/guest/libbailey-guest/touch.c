/*
 * touch.c - makes the pages of a range present, by touching each.
 *
 * The device reads a command's arrays through the caller's page tables as they are: it cannot make
 * the operating system bring a page in, so the program does.
 */
#include "bailey_guest.h"

enum { PAGE = 4096 };

void bailey_touch(const volatile void *start, size_t bytes, enum bailey_touch touch)
{
    if (!bytes)
        return;
    uintptr_t last = (uintptr_t)start + bytes - 1;
    for (uintptr_t at = (uintptr_t)start;; at = (at | (PAGE - 1)) + 1) {
        volatile unsigned char *byte = (volatile unsigned char *)at;
        if (touch == BAILEY_TOUCH_WRITE) /* atomic, so that no other thread's store is undone; and
                                            assembly, since compilers make a load of such an OR */
            __asm__ volatile("lock orb $0, %0" : "+m"(*byte));
        else
            (void)*byte;
        if ((at | (PAGE - 1)) >= last)
            return;
    }
}
