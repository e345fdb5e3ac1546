/*
 * any.h - numbers that are the same in each run, and look like chance. Included once per guest.
 */
#ifndef GUEST_ANY_H
#define GUEST_ANY_H

/* Below n. */
static unsigned any(unsigned n)
{
    static unsigned seed = 1;
    seed = seed * 1664525 + 1013904223;
    return (seed >> 16) % n;
}

#endif
