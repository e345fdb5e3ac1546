/*
 * gen_parse.c - understands the encoding, operand and flag strings of a row.
 *
 * The grammar is docs/instruction-table.md. Everything that is not in it is an error with the row's
 * file and line: a silent guess here would be a wrong decode later.
 */
#include "cpu/insn/gen.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const uint8_t gen_dim_values[DIM_COUNT] = TREE_DIM_VALUES;

/* ---- Small helpers --------------------------------------------------------------------------- */

/* Copies the next word of *text (up to `stop` characters) into word; false at the end. */
static bool next_word(const char **text, const char *stop, char *word, size_t size)
{
    *text += strspn(*text, stop);
    size_t len = strcspn(*text, stop);
    if (len == 0 || len >= size)
        return false;
    memcpy(word, *text, len);
    word[len] = 0;
    *text += len;
    return true;
}

static bool is_hex_byte(const char *word, unsigned *value)
{
    if (!isxdigit((unsigned char)word[0]) || !isxdigit((unsigned char)word[1]) || word[2])
        return false;
    *value = (unsigned)strtoul(word, NULL, 16);
    return true;
}

/* Narrows a dimension; two contradictory tokens leave nothing and are an error. */
static void narrow(struct gen_row *row, enum tree_dim dim, unsigned allowed)
{
    row->match.allow[dim] &= allowed;
    if (row->match.allow[dim] == 0)
        gen_error(row, "contradictory conditions in encoding and operands");
}

/* ---- Encoding -------------------------------------------------------------------------------- */

struct condition_word {
    const char *word;
    enum tree_dim dim;
    unsigned allowed;
};

static const struct condition_word legacy_words[] = {
    {"NP", DIM_PREFIX, 1 << 0},  {"66", DIM_PREFIX, 1 << 1},  {"F3", DIM_PREFIX, 1 << 2},
    {"F2", DIM_PREFIX, 1 << 3},  {"NFx", DIM_PREFIX, 3},      {"REX.W", DIM_W, 1 << 1},
    {"W0", DIM_W, 1 << 0},       {"B0", DIM_REXB, 1 << 0},    {"REX.B", DIM_REXB, 1 << 1},
    {"o16", DIM_OPSIZE, 1 << 0}, {"o32", DIM_OPSIZE, 1 << 1}, {"o64", DIM_OPSIZE, 1 << 2},
    {"a16", DIM_ADSIZE, 1 << 0}, {"a32", DIM_ADSIZE, 1 << 1}, {"a64", DIM_ADSIZE, 1 << 2},
};

static const struct condition_word vex_words[] = {
    {"128", DIM_L, 1 << 0},     {"L0", DIM_L, 1 << 0},      {"LZ", DIM_L, 1 << 0},
    {"256", DIM_L, 1 << 1},     {"L1", DIM_L, 1 << 1},      {"LIG", DIM_L, 3},
    {"NP", DIM_PREFIX, 1 << 0}, {"66", DIM_PREFIX, 1 << 1}, {"F3", DIM_PREFIX, 1 << 2},
    {"F2", DIM_PREFIX, 1 << 3}, {"W0", DIM_W, 1 << 0},      {"W1", DIM_W, 1 << 1},
    {"WIG", DIM_W, 3},
};

static bool apply_condition(struct gen_row *row, const struct condition_word *words, size_t count,
                            const char *word)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(words[i].word, word) == 0) {
            narrow(row, words[i].dim, words[i].allowed);
            return true;
        }
    }
    return false;
}

/* "VEX.256.66.0F38.W0": every field but the map may be left out, which means any value. */
static void parse_vex(struct gen_row *row, const char *spec)
{
    char word[16];
    bool have_map = false;
    while (next_word(&spec, ".", word, sizeof(word))) {
        if (strcmp(word, "0F") == 0 || strcmp(word, "0F38") == 0 || strcmp(word, "0F3A") == 0) {
            row->match.map = word[2] == 0                       ? MAP_VEX0F
                             : word[2] == '3' && word[3] == '8' ? MAP_VEX0F38
                                                                : MAP_VEX0F3A;
            have_map = true;
        } else if (!apply_condition(row, vex_words, sizeof(vex_words) / sizeof(vex_words[0]),
                                    word)) {
            gen_error(row, "unknown VEX field '%s'", word);
        }
    }
    if (!have_map)
        gen_error(row, "VEX without a map (0F, 0F38, 0F3A)");
    if (row->match.allow[DIM_PREFIX] == 15)
        gen_error(row, "VEX without NP, 66, F3 or F2");
    row->shape.flags |= SHAPE_VEX;
}

/* The opcode byte with its +r or +cc. */
static void parse_opcode(struct gen_row *row, const char *word)
{
    char byte[3] = {word[0], word[0] ? word[1] : 0, 0};
    unsigned value = 0;
    if (!is_hex_byte(byte, &value)) {
        gen_error(row, "'%s' is not an opcode", word);
        return;
    }
    row->match.opcode = (uint8_t)value;
    row->match.opcodes = 1;
    if (strcmp(word + 2, "+r") == 0) { /* up to the end of the aligned group of eight */
        row->match.opcodes = (uint8_t)(8 - (value & 7));
    } else if (strcmp(word + 2, "+cc") == 0) {
        row->per_condition = true;
        if (value & 15)
            gen_error(row, "+cc needs an opcode ending in 0");
    } else if (word[2]) {
        gen_error(row, "unknown suffix '%s' of the opcode", word + 2);
    }
}

static void parse_modrm(struct gen_row *row, const char *word)
{
    unsigned value;
    if (strcmp(word, "/is4") == 0)
        return; /* says what the L operand says already */
    if (strcmp(word, "mod=3") == 0) {
        narrow(row, DIM_MOD, 1 << 1);
    } else if (strcmp(word, "mod=m") == 0) {
        narrow(row, DIM_MOD, 1 << 0);
    } else if (strcmp(word, "mod=*") == 0) {
        row->shape.flags |= SHAPE_MOD_IGNORED;
    } else if (word[0] == '/' && word[1] >= '0' && word[1] <= '7' && !word[2]) {
        narrow(row, DIM_REG, 1u << (word[1] - '0'));
    } else if (is_hex_byte(word, &value)) {
        if (value < 0xc0)
            gen_error(row, "a fixed ModRM byte must be a register form");
        narrow(row, DIM_MOD, 1 << 1);
        narrow(row, DIM_REG, 1u << (value >> 3 & 7));
        narrow(row, DIM_RM, 1u << (value & 7));
    } else if (strcmp(word, "/r") != 0) {
        gen_error(row, "unknown word '%s' in the encoding", word);
    }
    row->shape.flags |= SHAPE_MODRM;
}

static void parse_encoding(struct gen_row *row)
{
    const char *text = row->encoding;
    char word[32];
    bool have_opcode = false, any = false;
    row->match.map = MAP_1B;
    for (unsigned i = 0; i < DIM_COUNT; i++)
        row->match.allow[i] = (uint8_t)((1u << gen_dim_values[i]) - 1);
    while (next_word(&text, " ", word, sizeof(word))) {
        bool legacy = !(row->shape.flags & SHAPE_VEX);
        if (have_opcode) {
            parse_modrm(row, word);
        } else if (!any && strncmp(word, "VEX.", 4) == 0) {
            parse_vex(row, word + 4);
        } else if (legacy && strcmp(word, "0F") == 0 && row->match.map == MAP_1B) {
            row->match.map = MAP_0F;
        } else if (row->match.map == MAP_0F && (!strcmp(word, "38") || !strcmp(word, "3A"))) {
            row->match.map = word[1] == '8' ? MAP_0F38 : MAP_0F3A;
        } else if (!legacy || row->match.map != MAP_1B ||
                   !apply_condition(row, legacy_words,
                                    sizeof(legacy_words) / sizeof(legacy_words[0]), word)) {
            parse_opcode(row, word);
            have_opcode = true;
        }
        any = true;
    }
    if (!have_opcode)
        gen_error(row, "encoding '%s' has no opcode", row->encoding);
    if (row->match.map == MAP_1B && row->match.opcode >= 0xd8 && row->match.opcode <= 0xdf)
        row->match.map = MAP_X87;
    if (row->attr & INSN_NO64)
        narrow(row, DIM_MODE, 1 << 0);
    if (row->attr & INSN_ONLY64)
        narrow(row, DIM_MODE, 1 << 1);
}

/* ---- Operands -------------------------------------------------------------------------------- */

struct size_word {
    const char *word;
    enum opnd_size size;
    uint16_t bytes;
};

static const struct size_word size_words[] = {
    {"b", SIZE_BYTES, 1},  {"w", SIZE_BYTES, 2},   {"d", SIZE_BYTES, 4},   {"q", SIZE_BYTES, 8},
    {"t", SIZE_BYTES, 10}, {"dq", SIZE_BYTES, 16}, {"qq", SIZE_BYTES, 32}, {"0", SIZE_BYTES, 0},
    {"v", SIZE_V, 0},      {"z", SIZE_Z, 0},       {"y", SIZE_Y, 0},       {"p", SIZE_P, 0},
    {"a", SIZE_A, 0},      {"s", SIZE_S, 0},       {"x", SIZE_X, 0},       {"h", SIZE_H, 0},
    {"hh", SIZE_HH, 0},    {"hhh", SIZE_HHH, 0},   {"ss", SIZE_SS, 0},     {"sd", SIZE_SD, 0},
    {"n", SIZE_N, 0},      {"ad", SIZE_AD, 0},
};

static bool parse_size(struct opnd_shape *op, const char *word)
{
    if (word[0] == 'n' && isdigit((unsigned char)word[1])) {
        char *end;
        op->size = SIZE_BYTES;
        op->bytes = (uint16_t)strtoul(word + 1, &end, 10);
        return *end == 0;
    }
    for (size_t i = 0; i < sizeof(size_words) / sizeof(size_words[0]); i++) {
        if (strcmp(size_words[i].word, word) == 0) {
            op->size = (uint8_t)size_words[i].size;
            op->bytes = size_words[i].bytes;
            return true;
        }
    }
    return false;
}

/* Fixed operands: a register by its name. The first letter of rAX, eAX, yAX, aAX, nAX is a size. */
static bool parse_fixed(struct opnd_shape *op, const char *word)
{
    static const char *const low[] = {"AL", "CL", "DL", "BL", "AH", "CH", "DH", "BH"};
    static const char *const wide[] = {"AX", "CX", "DX", "BX", "SP", "BP", "SI", "DI"};
    static const char *const seg[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    static const struct {
        char letter;
        enum opnd_size size;
        uint16_t bytes;
    } prefix[] = {{'r', SIZE_V, 0}, {'e', SIZE_Z, 0},     {'y', SIZE_Y, 0},    {'a', SIZE_AD, 0},
                  {'n', SIZE_N, 0}, {'E', SIZE_BYTES, 4}, {'R', SIZE_BYTES, 8}};

    op->hidden = 1;
    op->size = SIZE_BYTES;
    for (uint8_t i = 0; i < 8; i++) {
        if (strcmp(word, low[i]) == 0) {
            op->source = i < 4 ? SRC_GPR : SRC_GPR8H;
            op->reg = i & 3;
            op->bytes = 1;
            return true;
        }
        size_t len = strlen(word);
        if (len < 2 || len > 3 || strcmp(word + len - 2, wide[i]) != 0)
            continue;
        op->source = SRC_GPR;
        op->reg = i;
        op->bytes = 2;
        if (len == 2)
            return true;
        for (size_t j = 0; j < sizeof(prefix) / sizeof(prefix[0]); j++) {
            if (prefix[j].letter == word[0]) {
                op->size = (uint8_t)prefix[j].size;
                op->bytes = prefix[j].bytes;
                return true;
            }
        }
    }
    for (uint8_t i = 0; i < 6; i++) {
        if (strcmp(word, seg[i]) == 0) {
            op->source = SRC_SEG;
            op->reg = i;
            op->bytes = 2;
            return true;
        }
    }
    op->bytes = 0;
    if (strcmp(word, "R11") == 0) {
        op->source = SRC_GPR;
        op->reg = 11;
        op->bytes = 8;
    } else if (strncmp(word, "ST", 2) == 0 && word[2] >= '0' && word[2] <= '7' && !word[3]) {
        op->source = SRC_ST;
        op->reg = (uint8_t)(word[2] - '0');
        op->bytes = 10;
    } else if (strncmp(word, "XMM", 3) == 0 && word[3] >= '0' && word[3] <= '7' && !word[4]) {
        op->source = SRC_XMM;
        op->reg = (uint8_t)(word[3] - '0');
        op->bytes = 16;
    } else if (strcmp(word, "1") == 0) {
        op->source = SRC_ONE;
        op->bytes = 1;
    } else {
        op->hidden = 0;
        return false;
    }
    return true;
}

/* "[rDI]dq": memory at DS (or an override) : register of the address size. */
static bool parse_fixed_memory(struct opnd_shape *op, const char *word)
{
    static const char *const base[] = {"rAX", "rCX", "rDX", "rBX", "rSP", "rBP", "rSI", "rDI"};
    for (uint8_t i = 0; i < 8; i++) {
        if (strncmp(word + 1, base[i], 3) == 0 && word[4] == ']') {
            op->source = SRC_MEM;
            op->reg = i;
            op->hidden = 1;
            return parse_size(op, word + 5);
        }
    }
    return false;
}

static const struct letter {
    char letter;
    enum opnd_source source;
} letters[] = {
    {'E', SRC_E}, {'G', SRC_G}, {'M', SRC_M}, {'R', SRC_R}, {'Z', SRC_Z}, {'B', SRC_B},
    {'I', SRC_I}, {'J', SRC_J}, {'A', SRC_A}, {'O', SRC_O}, {'S', SRC_S}, {'C', SRC_C},
    {'D', SRC_D}, {'X', SRC_X}, {'Y', SRC_Y}, {'P', SRC_P}, {'N', SRC_N}, {'Q', SRC_Q},
    {'V', SRC_V}, {'U', SRC_U}, {'W', SRC_W}, {'H', SRC_H}, {'L', SRC_L}, {'T', SRC_T},
};

static bool parse_lettered(struct opnd_shape *op, const char *word)
{
    if (strcmp(word, "T") == 0 || strcmp(word, "STi") == 0) {
        op->source = SRC_T;
        op->bytes = 10;
        return true;
    }
    if (strcmp(word, "Ibs") == 0) {
        op->source = SRC_IS;
        op->bytes = 1;
        return true;
    }
    if (word[0] == 'M' && (word[1] == 'X' || word[1] == 'Y')) {
        op->source = word[1] == 'X' ? SRC_MX : SRC_MY;
        return parse_size(op, word + 2);
    }
    for (size_t i = 0; i < sizeof(letters) / sizeof(letters[0]); i++) {
        if (letters[i].letter == word[0]) {
            op->source = (uint8_t)letters[i].source;
            return parse_size(op, word + 1);
        }
    }
    return false;
}

static bool parse_access(struct opnd_shape *op, const char *word)
{
    op->access = strchr(word, 'r') ? OPND_R : 0;
    if (strchr(word, 'w'))
        op->access |= OPND_W;
    return !strcmp(word, "r") || !strcmp(word, "w") || !strcmp(word, "rw") || !strcmp(word, "x");
}

static void parse_operand(struct gen_row *row, char *word)
{
    struct opnd_shape *op = &row->shape.op[row->shape.opnds];
    char whole[32];
    snprintf(whole, sizeof(whole), "%s", word);
    bool unwritten = word[0] == '(' && word[strlen(word) - 1] == ')';
    if (unwritten) {
        word[strlen(word) - 1] = 0;
        word++;
    }
    char *equals = strchr(word, '=');
    if (equals)
        *equals++ = 0;
    bool good = word[0] == '[' ? parse_fixed_memory(op, word)
                               : parse_fixed(op, word) || parse_lettered(op, word);
    if (!good || !parse_access(op, equals ? equals : "r"))
        gen_error(row, "operand '%s' is not in the grammar", whole);
    if (op->size == SIZE_BYTES && op->bytes == 0)
        op->access = 0;
    if (unwritten)
        op->hidden = 2;
    row->shape.opnds++;
}

/* What an operand demands of the encoding. */
static void constrain_by_operand(struct gen_row *row, const struct opnd_shape *op)
{
    bool ignored = row->shape.flags & SHAPE_MOD_IGNORED;
    bool needs_modrm = true;
    switch (op->source) {
    case SRC_MX:
    case SRC_MY:
        row->shape.flags |= SHAPE_VSIB;
        narrow(row, DIM_MOD, 1 << 0);
        break;
    case SRC_M:
        narrow(row, DIM_MOD, 1 << 0);
        break;
    case SRC_R:
    case SRC_N:
    case SRC_U:
    case SRC_T:
        if (!ignored)
            narrow(row, DIM_MOD, 1 << 1);
        break;
    case SRC_E:
    case SRC_G:
    case SRC_S:
    case SRC_C:
    case SRC_D:
    case SRC_P:
    case SRC_Q:
    case SRC_V:
    case SRC_W:
        break;
    case SRC_B:
    case SRC_H:
        if (!(row->shape.flags & SHAPE_VEX))
            gen_error(row, "VEX.vvvv operand without VEX");
        row->shape.flags |= SHAPE_VVVV;
        break;
    default:
        needs_modrm = false;
    }
    if (needs_modrm && !(row->shape.flags & SHAPE_MODRM))
        gen_error(row, "an operand needs ModRM: /r, /0 ... /7 or a ModRM byte is missing");
}

static void parse_operands(struct gen_row *row)
{
    const char *text = row->operands;
    char word[32];
    while (next_word(&text, " ", word, sizeof(word))) {
        if (row->shape.opnds == 5) {
            gen_error(row, "more than five operands");
            return;
        }
        parse_operand(row, word);
    }
    for (unsigned i = 0; i < row->shape.opnds; i++)
        constrain_by_operand(row, &row->shape.op[i]);
    /* CS is never the destination of MOV Sreg, and segment registers 6 and 7 do not exist; the
     * decoder checks registers it names by number (CR, DR, Sreg) itself. */
}

/* ---- Flags ----------------------------------------------------------------------------------- */

uint16_t gen_condition_flags(unsigned cc)
{
    static const uint16_t flags[8] = {
        FLAG_OF, FLAG_CF, FLAG_ZF,           FLAG_CF | FLAG_ZF,
        FLAG_SF, FLAG_PF, FLAG_SF | FLAG_OF, FLAG_SF | FLAG_OF | FLAG_ZF};
    return flags[cc >> 1 & 7];
}

const char *gen_condition_name(unsigned cc)
{
    static const char *const names[16] = {"o", "no", "b", "ae", "e", "ne", "be", "a",
                                          "s", "ns", "p", "np", "l", "ge", "le", "g"};
    return names[cc & 15];
}

static uint16_t parse_flag_letters(struct gen_row *row, const char *letters_)
{
    static const struct {
        char letter;
        uint16_t flag;
    } known[] = {{'O', FLAG_OF}, {'S', FLAG_SF}, {'Z', FLAG_ZF}, {'A', FLAG_AF},
                 {'P', FLAG_PF}, {'C', FLAG_CF}, {'D', FLAG_DF}};
    uint16_t flags = 0;
    for (; *letters_; letters_++) {
        uint16_t flag = 0;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            if (known[i].letter == *letters_)
                flag = known[i].flag;
        }
        if (flag == 0)
            gen_error(row, "unknown flag letter '%c'", *letters_);
        flags |= flag;
    }
    return flags;
}

static void parse_flags(struct gen_row *row)
{
    const char *text = row->flags;
    char word[16];
    while (next_word(&text, " ", word, sizeof(word))) {
        if (strcmp(word, "r:cc") == 0) {
            if (!row->per_condition)
                gen_error(row, "r:cc without +cc");
            continue; /* filled in when the row is expanded */
        }
        uint16_t flags = word[1] == ':' ? parse_flag_letters(row, word + 2) : 0;
        if (word[0] == 'r' && flags) {
            row->flags_read |= flags;
        } else if (word[0] == 'w' && flags) {
            row->flags_written |= flags;
        } else if (word[0] == 'u' && flags) {
            row->flags_written |= flags;
            row->flags_undefined |= flags;
        } else {
            gen_error(row, "flags '%s' are not in the grammar", word);
        }
    }
}

void gen_parse_row(struct gen_row *row)
{
    parse_encoding(row);
    parse_operands(row);
    parse_flags(row);
}
