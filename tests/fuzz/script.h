/*
 * script.h - a fuzzer's input as numbers, one after the other, and what has to hold meanwhile.
 */
#ifndef TESTS_FUZZ_SCRIPT_H
#define TESTS_FUZZ_SCRIPT_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct script {
    const uint8_t *at, *end;
};

/* Little-endian; zeroes behind the end. */
static inline uint64_t take(struct script *s, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)(s->at < s->end ? *s->at++ : 0) << (8 * i);
    return v;
}

static inline void does_not_hold(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}
#define require(truth) ((truth) ? (void)0 : does_not_hold(__FILE__, __LINE__, #truth))

#endif
