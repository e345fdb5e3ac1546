/*
 * encode.h - random encodings of a given row, out of the row's own match table.
 */
#ifndef ORACLE_ENCODE_H
#define ORACLE_ENCODE_H

#include "internal/insn.h"
#include <stdint.h>

struct rng {
    uint64_t s[2];
};
void rng_seed(struct rng *rng, uint64_t seed);
uint64_t rng_next(struct rng *rng);
/* Below n, n > 0. */
static inline uint64_t rng_below(struct rng *rng, uint64_t n)
{
    return rng_next(rng) % n;
}

/* Writes the bytes of one instruction that the row should match in code of that size, and random
 * bytes behind it; returns false when the row has no encoding there. The caller decodes the result:
 * now and then another row wins (a more specific one), then it tries again. */
bool encode_random(const struct insn_row *row, unsigned code, struct rng *rng, uint8_t bytes[15]);

#endif
