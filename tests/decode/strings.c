/*
 * strings.c - makes byte strings to decode.
 *
 * Random bytes alone would spend most of their time in the one-byte map, so two thirds start from
 * the rows: an encoding that the row's own match condition allows, with prefixes the decoder must
 * sort out, and mutations of that.
 */
#include "cpu/insn/tables.h"
#include "decode_check.h"

#include <string.h>

/* splitmix64 */
uint64_t random_next(struct random_state *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static unsigned below(struct random_state *random, unsigned limit)
{
    return (unsigned)((random_next(random) >> 32) * limit >> 32);
}

static bool one_in(struct random_state *random, unsigned n)
{
    return below(random, n) == 0;
}

/* A random value of a dimension that the row allows. */
static unsigned allowed(struct random_state *random, const struct insn_match *match, unsigned dim)
{
    static const uint8_t values[DIM_COUNT] = TREE_DIM_VALUES;
    unsigned value;
    do
        value = below(random, values[dim]);
    while (!(match->allow[dim] >> value & 1));
    return value;
}

struct writer {
    uint8_t bytes[32];
    unsigned used;
};

static void put(struct writer *w, unsigned byte)
{
    w->bytes[w->used++] = (uint8_t)byte;
}

static void put_prefixes(struct random_state *random, struct writer *w,
                         const struct insn_match *match)
{
    static const uint8_t mandatory[4] = {0, 0x66, 0xf3, 0xf2};
    static const uint8_t others[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3};
    while (one_in(random, 4))
        put(w, others[below(random, sizeof(others))]);
    if (one_in(random, 24))
        put(w, 0xf0);
    unsigned prefix = allowed(random, match, DIM_PREFIX);
    if (prefix)
        put(w, mandatory[prefix]);
    if (prefix > 1 && one_in(random, 4))
        put(w, 0x66);
}

static void put_legacy(struct random_state *random, struct writer *w,
                       const struct insn_match *match, bool wide)
{
    unsigned rex_w = allowed(random, match, DIM_W), rex_b = allowed(random, match, DIM_REXB);
    put_prefixes(random, w, match);
    if (wide && (rex_w || match->allow[DIM_REXB] == 2 || one_in(random, 3)))
        put(w, 0x40 | rex_w << 3 | below(random, 4) << 1 | rex_b);
    if (match->map != MAP_1B && match->map != MAP_X87)
        put(w, 0x0f);
    if (match->map == MAP_0F38 || match->map == MAP_0F3A)
        put(w, match->map == MAP_0F38 ? 0x38 : 0x3a);
}

static void put_vex(struct random_state *random, struct writer *w, const struct insn_match *match,
                    bool wide)
{
    static const uint8_t segments[] = {0x2e, 0x64, 0x67};
    static const uint8_t pp[4] = {0, 1, 2, 3};
    unsigned vvvv = one_in(random, 2) ? 15 : below(random, 16);
    unsigned rxb = wide ? below(random, 8) : 6 | below(random, 2);
    unsigned low =
        vvvv << 3 | allowed(random, match, DIM_L) << 2 | pp[allowed(random, match, DIM_PREFIX)];
    unsigned vex_w = allowed(random, match, DIM_W);
    if (one_in(random, 6))
        put(w, segments[below(random, sizeof(segments))]);
    if (match->map == MAP_VEX0F && !vex_w && one_in(random, 2)) {
        put(w, 0xc5);
        put(w, (rxb & 4) << 5 | (wide ? low : low | 0x40));
    } else {
        put(w, 0xc4);
        put(w, rxb << 5 | (match->map - MAP_VEX0F + 1u));
        put(w, vex_w << 7 | low);
    }
}

static void make_from_row(struct random_state *random, struct test_string *string)
{
    const struct insn_match *match = &insn_matches[below(random, insn_row_count)];
    struct writer w = {.used = 0};
    bool wide = allowed(random, match, DIM_MODE);
    string->code = wide ? 64 : one_in(random, 2) ? 32 : 16;
    if (match->map >= MAP_VEX0F)
        put_vex(random, &w, match, wide);
    else
        put_legacy(random, &w, match, wide);
    put(&w, match->opcode + below(random, match->opcodes));
    unsigned mod = allowed(random, match, DIM_MOD) ? 3 : below(random, 3);
    put(&w, mod << 6 | allowed(random, match, DIM_REG) << 3 | allowed(random, match, DIM_RM));
    if (w.used < STRING_BYTES)
        memcpy(string->bytes, w.bytes, w.used);
    else
        memcpy(string->bytes, w.bytes, STRING_BYTES);
}

static void mutate(struct random_state *random, struct test_string *string)
{
    unsigned at = below(random, 6);
    switch (below(random, 5)) {
    case 0:
        string->bytes[at] ^= (uint8_t)(1u << below(random, 8));
        break;
    case 1:
        string->bytes[at] = (uint8_t)random_next(random);
        break;
    case 2: /* a byte more */
        memmove(string->bytes + at + 1, string->bytes + at, STRING_BYTES - 1 - at);
        string->bytes[at] = (uint8_t)random_next(random);
        break;
    case 3: /* a byte less */
        memmove(string->bytes + at, string->bytes + at + 1, STRING_BYTES - 1 - at);
        break;
    default: { /* many prefixes: over-long instructions */
        unsigned count = below(random, STRING_BYTES - 2);
        memmove(string->bytes + count, string->bytes, STRING_BYTES - count);
        memset(string->bytes, one_in(random, 2) ? 0x66 : 0x2e, count);
    }
    }
}

void string_make(struct random_state *random, struct test_string *string)
{
    static const uint8_t codes[3] = {16, 32, 64};
    uint64_t fill[2] = {random_next(random), random_next(random)};
    memcpy(string->bytes, fill, sizeof(fill));
    string->code = codes[below(random, 3)];
    unsigned kind = below(random, 3);
    if (kind == 0)
        return;
    make_from_row(random, string);
    if (kind == 2)
        mutate(random, string);
}
