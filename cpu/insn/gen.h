/*
 * gen.h - shared by the parts of insn_gen, the build-time program that turns the instruction table
 * (the .def files, docs/instruction-table.md) into C.
 *
 * gen.c reads the rows and builds the decode tree, gen_parse.c understands the strings of a row,
 * gen_write.c writes the results.
 */
#ifndef CPU_INSN_GEN_H
#define CPU_INSN_GEN_H

#include "cpu/insn/tables.h"

/* Attributes that only the generator knows. */
#define GEN_FALLBACK                                                                               \
    (1ull << 32) /* what the bytes mean when a more specific row's feature is absent */

struct gen_row {
    /* As written in the .def file */
    const char *mnemonic, *encoding, *operands, *exec, *feature_name, *flags, *attrs;
    uint64_t attr;
    uint32_t exec_arg;
    unsigned feature;
    const char *file;
    int line;
    /* Parsed */
    struct insn_match match;
    struct insn_shape shape;
    uint16_t flags_read, flags_written, flags_undefined;
    bool per_condition; /* +cc: to be expanded into sixteen rows */
    unsigned exec_id;
};

struct gen_table {
    struct gen_row *rows;
    unsigned count;
    const char **execs; /* sorted, no duplicates */
    unsigned exec_count;
    uint16_t roots[MAP_COUNT][256];
    uint16_t *tree;
    unsigned tree_size;
};

extern const uint8_t gen_dim_values[DIM_COUNT];

/* Reports "file:line: message" on stderr and counts; the program fails at its end. */
void gen_error(const struct gen_row *row, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Fills the parsed half of a row from its strings (gen_parse.c). */
void gen_parse_row(struct gen_row *row);
/* The flags condition code `cc` (0-15, SDM vol. 1, appendix B) looks at, and its suffix. */
uint16_t gen_condition_flags(unsigned cc);
const char *gen_condition_name(unsigned cc);

/* Write the three results (gen_write.c); false and a message when a file cannot be written. */
bool gen_write(const struct gen_table *table, const char *dir);

#endif
