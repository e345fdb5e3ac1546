/*
 * mmc_raw.c - whole sectors of a data track, as READ CD gives them: sync pattern, address, data,
 * checksum and the two layers of Reed-Solomon parity (ECMA-130, 14 and annex A; mode 1).
 *
 *     0 sync  12 address, mode  16 data  2064 EDC  2068 zeros  2076 P parity  2248 Q parity
 *
 * From byte 12 on the sector is words of two bytes, each of whose halves is coded by itself, as a
 * matrix of 43 columns: P makes each column's sum vanish, Q each diagonal's, P included.
 */
#include "mmc.h"
#include <string.h>

enum {
    AT_ADDRESS = 12,
    AT_DATA = 16,
    AT_EDC = AT_DATA + MMC_BLOCK,
    AT_P = AT_EDC + 12,
    COLUMNS = 43,
    ROWS = 24, /* of address, data, EDC and zeros; P adds two */
    DIAGONALS = 26,
};

/* The address: minute, second, frame, in binary-coded decimal. */
static void put_address(uint8_t *at, uint32_t lba)
{
    uint32_t frame = lba + 150;
    const uint32_t parts[3] = {frame / 75 / 60, frame / 75 % 60, frame % 75};
    for (unsigned i = 0; i < 3; i++)
        at[i] = (uint8_t)(parts[i] / 10 % 10 << 4 | parts[i] % 10);
}

/* 14.3: (x^16 + x^15 + x^2 + 1)(x^16 + x^2 + x + 1), the least significant bit first. */
static uint32_t edc(const uint8_t *bytes, size_t len)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ (sum & 1 ? 0xd8018001u : 0);
    }
    return sum;
}

/* Annex A: in GF(2^8) by x^8 + x^4 + x^3 + x^2 + 1. */
static uint8_t times_alpha(uint8_t a)
{
    return (uint8_t)(a << 1 ^ (a & 0x80 ? 0x1d : 0));
}

static uint8_t multiply(uint8_t a, uint8_t b)
{
    uint8_t product = 0;
    for (; b; b >>= 1, a = times_alpha(a))
        product ^= b & 1 ? a : 0;
    return product;
}

/* One code word of `count` bytes and its two of parity: word n is at (n * step + first) mod wrap.
 * The sum of all is 0, and so is the sum with the last times 1, the one before times alpha ... */
static void put_parity(uint8_t *bytes, unsigned half, unsigned first, unsigned step, unsigned wrap,
                       unsigned count, unsigned parity0, unsigned parity1)
{
    static const uint8_t inverse_of_1_plus_alpha = 0xf4;
    uint8_t sum = 0, weighted = 0;
    for (unsigned n = 0, word = first; n < count; n++, word = (word + step) % wrap) {
        uint8_t byte = bytes[2 * word + half];
        sum ^= byte;
        weighted = times_alpha(weighted) ^ byte;
    }
    weighted = times_alpha(times_alpha(weighted));
    uint8_t p0 = multiply(sum ^ weighted, inverse_of_1_plus_alpha);
    bytes[2 * parity0 + half] = p0;
    bytes[2 * parity1 + half] = sum ^ p0;
}

void mmc_raw_sector(uint8_t raw[MMC_RAW_BLOCK], const uint8_t *data, uint32_t lba)
{
    const unsigned words = COLUMNS * (ROWS + 2); /* with P */
    memmove(raw + AT_DATA, data, MMC_BLOCK);
    raw[0] = raw[11] = 0;
    memset(raw + 1, 0xff, 10);
    put_address(raw + AT_ADDRESS, lba);
    raw[AT_DATA - 1] = 1; /* mode */
    memset(raw + AT_EDC, 0, AT_P - AT_EDC);
    uint32_t sum = edc(raw, AT_EDC);
    for (unsigned i = 0; i < 4; i++)
        raw[AT_EDC + i] = (uint8_t)(sum >> 8 * i);
    uint8_t *coded = raw + AT_ADDRESS;
    for (unsigned half = 0; half < 2; half++) {
        for (unsigned c = 0; c < COLUMNS; c++)
            put_parity(coded, half, c, COLUMNS, words, ROWS, COLUMNS * ROWS + c,
                       COLUMNS * (ROWS + 1) + c);
        for (unsigned d = 0; d < DIAGONALS; d++)
            put_parity(coded, half, COLUMNS * d, COLUMNS + 1, words, COLUMNS, words + d,
                       words + DIAGONALS + d);
    }
}
