/*
 * encode.c - see encode.h. Every dimension of the decode tree (cpu/insn/tables.h) gets a random
 * value among those the row allows; the prefixes follow from the values.
 */
#include "encode.h"
#include "cpu/insn/tables.h"
#include <string.h>

/* xorshift128+ (Vigna): reproducible everywhere from one seed. */
void rng_seed(struct rng *rng, uint64_t seed)
{
    rng->s[0] = seed * 0x9e3779b97f4a7c15ull + 1;
    rng->s[1] = seed ^ 0xd1b54a32d192ed03ull;
    for (int i = 0; i < 16; i++)
        rng_next(rng);
}

uint64_t rng_next(struct rng *rng)
{
    uint64_t x = rng->s[0], y = rng->s[1];
    rng->s[0] = y;
    x ^= x << 23;
    rng->s[1] = x ^ y ^ (x >> 17) ^ (y >> 26);
    return rng->s[1] + y;
}

/* A random value among the bits of `allowed`, or -1. */
static int pick(struct rng *rng, unsigned allowed)
{
    int n = __builtin_popcount(allowed);
    if (!n)
        return -1;
    for (int k = (int)rng_below(rng, (uint64_t)n); k; k--)
        allowed &= allowed - 1;
    return __builtin_ctz(allowed);
}

struct choice {
    int v[DIM_COUNT];
    unsigned code;
    bool vex, any_prefix;
};

static bool choose(struct choice *c, const struct insn_match *m, unsigned code, struct rng *rng)
{
    c->code = code;
    c->vex = m->map >= MAP_VEX0F;
    c->any_prefix = m->allow[DIM_PREFIX] == 0xf;
    if (!(m->allow[DIM_MODE] >> (code == 64) & 1))
        return false;
    for (int dim = 0; dim < DIM_COUNT; dim++) {
        unsigned allowed = m->allow[dim];
        if (dim == DIM_OPSIZE)
            allowed &= code == 64 ? 7 : 3;
        if (dim == DIM_ADSIZE)
            allowed &= code == 64 ? 6 : 3;
        if (dim == DIM_W && code != 64 && !c->vex)
            allowed &= 1;
        if (dim == DIM_REXB && code != 64)
            allowed &= 1;
        c->v[dim] = pick(rng, allowed);
        if (c->v[dim] < 0)
            return false;
    }
    return true;
}

static uint8_t *put_prefixes(uint8_t *p, const struct choice *c, const struct insn_row *row,
                             struct rng *rng)
{
    static const uint8_t segments[6] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    static const uint8_t mandatory[4] = {0, 0x66, 0xf3, 0xf2};
    unsigned default_adsize = c->code == 16 ? 0 : c->code == 32 ? 1 : 2;
    if (c->v[DIM_ADSIZE] != (int)default_adsize && rng_below(rng, 4) == 0)
        *p++ = 0x67;
    if (rng_below(rng, 16) == 0)
        *p++ = segments[rng_below(rng, 4)];
    if (c->vex)
        return p;
    if (c->any_prefix) {
        bool size66 = c->code == 64 ? c->v[DIM_OPSIZE] == 0 : c->v[DIM_OPSIZE] != (c->code == 32);
        if (size66)
            *p++ = 0x66;
        if ((row->attr & (INSN_REP | INSN_REPCC)) && rng_below(rng, 2))
            *p++ = rng_below(rng, 2) ? 0xf2 : 0xf3;
    } else if (c->v[DIM_PREFIX]) {
        *p++ = mandatory[c->v[DIM_PREFIX]];
    }
    if ((row->attr & INSN_LOCK) && c->v[DIM_MOD] == 0 && rng_below(rng, 3) == 0)
        *p++ = 0xf0;
    return p;
}

static uint8_t *put_map(uint8_t *p, const struct choice *c, const struct insn_match *m,
                        struct rng *rng)
{
    unsigned rex = 0;
    if (c->code == 64) {
        rex = (unsigned)rng_below(rng, 8); /* R, X, B */
        rex = (rex & ~1u) | (c->v[DIM_REXB] ? 1 : m->allow[DIM_REXB] == 1 ? 0 : rex & 1);
        rex |= (unsigned)c->v[DIM_W] << 3;
    }
    if (c->vex) {
        static const uint8_t pp[4] = {0, 1, 2, 3};
        unsigned vvvv =
            c->code == 64 ? (unsigned)rng_below(rng, 16) : 8 + (unsigned)rng_below(rng, 8);
        if (rng_below(rng, 3) == 0)
            vvvv = 15;
        *p++ = 0xc4;
        *p++ = (uint8_t)(((~rex & 7) << 5) | (unsigned)(m->map - MAP_VEX0F + 1));
        *p++ = (uint8_t)((unsigned)c->v[DIM_W] << 7 | vvvv << 3 | (unsigned)c->v[DIM_L] << 2 |
                         pp[c->v[DIM_PREFIX]]);
        return p;
    }
    if (rex || rng_below(rng, 8) == 0)
        if (c->code == 64)
            *p++ = (uint8_t)(0x40 | rex);
    if (m->map == MAP_0F || m->map == MAP_0F38 || m->map == MAP_0F3A)
        *p++ = 0x0f;
    if (m->map == MAP_0F38)
        *p++ = 0x38;
    if (m->map == MAP_0F3A)
        *p++ = 0x3a;
    return p;
}

bool encode_random(const struct insn_row *row, unsigned code, struct rng *rng, uint8_t bytes[15])
{
    const struct insn_match *m = &insn_matches[row->id];
    const struct insn_shape *shape = &insn_shapes[row->id];
    struct choice c;
    if (!choose(&c, m, code, rng))
        return false;
    for (int i = 0; i < 15; i++)
        bytes[i] = (uint8_t)rng_next(rng);
    uint8_t *p = put_prefixes(bytes, &c, row, rng);
    p = put_map(p, &c, m, rng);
    *p++ = (uint8_t)(m->opcode + rng_below(rng, m->opcodes ? m->opcodes : 1));
    if (shape->flags & SHAPE_MODRM) {
        unsigned mod = c.v[DIM_MOD] ? 3 : (unsigned)rng_below(rng, 3);
        *p++ = (uint8_t)(mod << 6 | (unsigned)c.v[DIM_REG] << 3 | (unsigned)c.v[DIM_RM]);
    }
    return p <= bytes + 8;
}
