/*
 * gen.c - insn_gen: turns the instruction table into C at build time.
 *
 *     insn_gen DIR        writes DIR/insn_exec.h, DIR/insn_rows.c and DIR/coverage.md
 *
 * The .def files are included below as C: each row is a macro call that becomes a struct gen_row.
 * The strings of a row are parsed (gen_parse.c), +cc rows expanded, the decode tree built, and the
 * results written (gen_write.c). Rows that could both match some bytes in some mode are an error
 * here, as is anything else the grammar (docs/instruction-table.md) does not know; then nothing is
 * written and the exit status is 1.
 */
#include "cpu/insn/gen.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- The rows ----------------------------------------------------------------------------------
 */

/* Attributes without their prefix, for the .def files. */
#define LOCK        (uint64_t) INSN_LOCK
#define REP         (uint64_t) INSN_REP
#define REPCC       (uint64_t) INSN_REPCC
#define NO64        (uint64_t) INSN_NO64
#define ONLY64      (uint64_t) INSN_ONLY64
#define DEF64       (uint64_t) INSN_DEF64
#define FORCE64     (uint64_t) INSN_FORCE64
#define CPL0        (uint64_t) INSN_CPL0
#define IOPL        (uint64_t) INSN_IOPL
#define PROT        (uint64_t) INSN_PROT
#define END         (uint64_t) INSN_END
#define BRANCH      (uint64_t) INSN_BRANCH
#define COND        (uint64_t) INSN_COND
#define CALL        (uint64_t) INSN_CALL
#define RET         (uint64_t) INSN_RET
#define INDIRECT    (uint64_t) INSN_INDIRECT
#define SYSTEM      (uint64_t) INSN_SYSTEM
#define SSE         (uint64_t) INSN_SSE
#define AVX         (uint64_t) INSN_AVX
#define X87         (uint64_t) INSN_X87
#define NOWAIT      (uint64_t) INSN_NOWAIT
#define MMX         (uint64_t) INSN_MMX
#define MXCSR       (uint64_t) INSN_MXCSR
#define ALIGN       (uint64_t) INSN_ALIGN
#define HOST        (uint64_t) INSN_HOST
#define PASS        (uint64_t) INSN_PASS
#define SERIAL      (uint64_t) INSN_SERIAL
#define RAND        (uint64_t) INSN_RAND
#define NEAR64      (uint64_t) INSN_NEAR64
#define ALIGN_INTEL (uint64_t) INSN_ALIGN_INTEL
#define LOW8        (uint64_t) INSN_LOW8
#define FALLBACK    GEN_FALLBACK

#define I2(mnem, enc, ops, ex, feat, fl, att, arg)                                                 \
    {.mnemonic = #mnem,                                                                            \
     .encoding = enc,                                                                              \
     .operands = ops,                                                                              \
     .exec = #ex,                                                                                  \
     .feature_name = #feat,                                                                        \
     .feature = FEAT_##feat,                                                                       \
     .flags = fl,                                                                                  \
     .attrs = #att,                                                                                \
     .attr = (uint64_t)(att),                                                                      \
     .exec_arg = (uint32_t)(arg),                                                                  \
     .file = __FILE__,                                                                             \
     .line = __LINE__},
#define I(mnem, enc, ops, ex, feat, fl, att)                                                       \
    {.mnemonic = #mnem,                                                                            \
     .encoding = enc,                                                                              \
     .operands = ops,                                                                              \
     .exec = #ex,                                                                                  \
     .feature_name = #feat,                                                                        \
     .feature = FEAT_##feat,                                                                       \
     .flags = fl,                                                                                  \
     .attrs = #att,                                                                                \
     .attr = (uint64_t)(att),                                                                      \
     .file = __FILE__,                                                                             \
     .line = __LINE__},

static const struct gen_row source_rows[] = {
#ifdef GEN_TABLE /* a table of the tests */
#include GEN_TABLE
#else
/* clang-format off: the order is that of the coverage page */
#include "0f.def"
#include "0f38.def"
#include "1b.def"
#include "sse.def"
#include "vex.def"
#include "x87.def"
/* clang-format on */
#endif
};

#undef I
#undef I2

enum { SOURCE_ROWS = sizeof(source_rows) / sizeof(source_rows[0]) };

/* ---- Errors ---------------------------------------------------------------------------------- */

static unsigned error_count;

void gen_error(const struct gen_row *row, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%s:%d: %s: ", row->file, row->line, row->mnemonic);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    error_count++;
}

/* Everything lives until the end, when it is given back at once. */
struct block {
    struct block *next;
    max_align_t data[];
};
static struct block *blocks;

static void *allocate(size_t count, size_t size)
{
    struct block *block = calloc(1, sizeof(*block) + count * size);
    if (!block) {
        fputs("insn_gen: out of memory\n", stderr);
        exit(1);
    }
    block->next = blocks;
    blocks = block;
    return block->data;
}

static void free_all(void)
{
    while (blocks) {
        struct block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

/* ---- Rows: parse, expand, name their exec functions ------------------------------------------ */

/* "jcc" with condition 4 becomes "je", "setcc" "sete". */
static const char *condition_mnemonic(const char *mnemonic, unsigned cc)
{
    size_t stem = strlen(mnemonic) - 2;
    char *name = allocate(1, stem + 4);
    snprintf(name, stem + 4, "%.*s%s", (int)stem, mnemonic, gen_condition_name(cc));
    return name;
}

static void check_attributes(const struct gen_row *row)
{
    if ((row->attr & INSN_NO64) && (row->attr & INSN_ONLY64))
        gen_error(row, "NO64 and ONLY64");
    if ((row->attr & INSN_LOCK) && !(row->shape.opnds && (row->shape.op[0].source == SRC_E ||
                                                          row->shape.op[0].source == SRC_M)))
        gen_error(row, "LOCK needs a memory destination as first operand");
    if ((row->attr & INSN_LOCK) && !(row->shape.op[0].access & OPND_W))
        gen_error(row, "LOCK on an operand that is not written");
    if (strncmp(row->exec, "sys_", 4) == 0 && !(row->attr & INSN_SYSTEM))
        gen_error(row, "a sys_ function without SYSTEM");
    if (row->per_condition && strcmp(row->mnemonic + strlen(row->mnemonic) - 2, "cc") != 0)
        gen_error(row, "+cc needs a mnemonic that ends in cc");
}

static void load_rows(struct gen_table *table)
{
    table->rows = allocate(SOURCE_ROWS * 16, sizeof(struct gen_row));
    for (unsigned i = 0; i < SOURCE_ROWS; i++) {
        struct gen_row row = source_rows[i];
        gen_parse_row(&row);
        check_attributes(&row);
        for (unsigned cc = 0; cc < (row.per_condition ? 16 : 1); cc++) {
            struct gen_row *copy = &table->rows[table->count++];
            *copy = row;
            if (row.per_condition) {
                copy->mnemonic = condition_mnemonic(row.mnemonic, cc);
                copy->match.opcode += cc;
                copy->exec_arg = cc;
                copy->flags_read |= gen_condition_flags(cc);
            }
        }
    }
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void name_execs(struct gen_table *table)
{
    const char **names = allocate(table->count + 1, sizeof(char *));
    for (unsigned i = 0; i < table->count; i++)
        names[i] = table->rows[i].exec;
    qsort(names, table->count, sizeof(char *), compare_names);
    table->execs = names;
    for (unsigned i = 0; i < table->count; i++) {
        if (table->exec_count == 0 || strcmp(names[table->exec_count - 1], names[i]) != 0)
            names[table->exec_count++] = names[i];
    }
    for (unsigned i = 0; i < table->count; i++) {
        const char **found =
            bsearch(&table->rows[i].exec, names, table->exec_count, sizeof(char *), compare_names);
        table->rows[i].exec_id = (unsigned)(found - names);
    }
}

/* ---- The decode tree ------------------------------------------------------------------------- */

/* A set of rows that all match what has been tested so far. */
struct row_set {
    unsigned count;
    uint16_t rows[256];
};

enum { TREE_MAX = 0x7fff };

/* Two or more rows are left and nothing can tell them apart. A FALLBACK row may share the bytes
 * with one more specific row, whose feature the CPU may lack; everything else is an overlap. */
static uint16_t make_leaf(struct gen_table *table, const struct row_set *set)
{
    struct gen_row *first = &table->rows[set->rows[0]];
    if (set->count == 1)
        return TREE_LEAF | set->rows[0];
    struct gen_row *second = &table->rows[set->rows[1]];
    bool first_falls = first->attr & GEN_FALLBACK, second_falls = second->attr & GEN_FALLBACK;
    if (set->count > 2 || first_falls == second_falls) {
        gen_error(second, "'%s' overlaps '%s %s' (%s:%d)", second->encoding, first->mnemonic,
                  first->encoding, first->file, first->line);
        return 0;
    }
    uint16_t specific = set->rows[first_falls], general = set->rows[!first_falls];
    struct insn_shape *shape = &table->rows[specific].shape;
    if (shape->fallback && shape->fallback != general + 1)
        gen_error(&table->rows[specific], "two different FALLBACK rows");
    shape->fallback = general + 1;
    return TREE_LEAF | specific;
}

/* The next dimension that some row of the set restricts, DIM_COUNT when there is none. */
static enum tree_dim choose_dimension(const struct gen_table *table, const struct row_set *set,
                                      enum tree_dim from)
{
    for (unsigned dim = from; dim < DIM_COUNT; dim++) {
        unsigned all = (1u << gen_dim_values[dim]) - 1;
        for (unsigned i = 0; i < set->count; i++) {
            if (table->rows[set->rows[i]].match.allow[dim] != all)
                return dim;
        }
    }
    return DIM_COUNT;
}

/* Adds a node unless an equal one exists; returns its reference. */
static uint16_t add_node(struct gen_table *table, enum tree_dim dim, const uint16_t *children)
{
    unsigned values = gen_dim_values[dim];
    for (unsigned i = 1; i < table->tree_size; i += gen_dim_values[table->tree[i]] + 1u) {
        if (table->tree[i] == dim &&
            memcmp(&table->tree[i + 1], children, values * sizeof(uint16_t)) == 0)
            return (uint16_t)i;
    }
    if (table->tree_size + values + 1 > TREE_MAX) {
        fputs("insn_gen: the decode tree is full\n", stderr);
        exit(1);
    }
    uint16_t ref = (uint16_t)table->tree_size;
    table->tree[ref] = (uint16_t)dim;
    memcpy(&table->tree[ref + 1], children, values * sizeof(uint16_t));
    table->tree_size += values + 1;
    return ref;
}

static uint16_t build_tree(struct gen_table *table, const struct row_set *set, enum tree_dim from)
{
    if (set->count == 0)
        return 0;
    enum tree_dim dim = choose_dimension(table, set, from);
    if (dim == DIM_COUNT)
        return make_leaf(table, set);
    for (unsigned i = 0; dim >= DIM_MODRM && i < set->count; i++) {
        if (!(table->rows[set->rows[i]].shape.flags & SHAPE_MODRM)) {
            gen_error(&table->rows[set->rows[i]], "shares its opcode with rows that have ModRM");
            return 0;
        }
    }
    uint16_t children[8] = {0};
    bool same = true;
    for (unsigned value = 0; value < gen_dim_values[dim]; value++) {
        struct row_set part = {0};
        for (unsigned i = 0; i < set->count; i++) {
            if (table->rows[set->rows[i]].match.allow[dim] >> value & 1)
                part.rows[part.count++] = set->rows[i];
        }
        children[value] = build_tree(table, &part, dim + 1);
        same &= children[value] == children[0];
    }
    return same ? children[0] : add_node(table, dim, children);
}

static void build_roots(struct gen_table *table)
{
    table->tree = allocate(TREE_MAX + 1, sizeof(uint16_t));
    table->tree_size = 1; /* reference 0 means: no row */
    for (unsigned map = 0; map < MAP_COUNT; map++) {
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            struct row_set set = {0};
            for (unsigned i = 0; i < table->count; i++) {
                const struct insn_match *match = &table->rows[i].match;
                if (match->map != map || opcode < match->opcode ||
                    opcode >= (unsigned)match->opcode + match->opcodes)
                    continue;
                if (set.count == 256) {
                    gen_error(&table->rows[i], "too many rows for one opcode");
                    break;
                }
                set.rows[set.count++] = (uint16_t)i;
            }
            table->roots[map][opcode] = build_tree(table, &set, 0);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: insn_gen DIRECTORY\n", stderr);
        return 2;
    }
    struct gen_table table = {0};
    load_rows(&table);
    name_execs(&table);
    build_roots(&table);
    if (error_count)
        fprintf(stderr, "insn_gen: %u errors in the instruction table\n", error_count);
    bool good = error_count == 0 && gen_write(&table, argv[1]);
    free_all();
    return good ? 0 : 1;
}
