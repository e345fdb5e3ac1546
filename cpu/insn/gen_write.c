/*
 * gen_write.c - writes what insn_gen produces: insn_exec.h, insn_rows.c and coverage.md.
 *
 * insn_rows.c holds data only. Rows carry the number of their semantic function, not its address,
 * so that the decoder stands apart from the engines.
 */
#include "cpu/insn/gen.h"

#include <stdio.h>
#include <string.h>

static const char *const map_names[MAP_COUNT] = {
    "MAP_1B",  "MAP_0F",    "MAP_0F38",    "MAP_0F3A",
    "MAP_X87", "MAP_VEX0F", "MAP_VEX0F38", "MAP_VEX0F3A",
};
static const char *const map_titles[MAP_COUNT] = {
    "One-byte opcodes",  "Opcodes 0F",     "Opcodes 0F 38",     "Opcodes 0F 3A",
    "x87 opcodes D8-DF", "VEX opcodes 0F", "VEX opcodes 0F 38", "VEX opcodes 0F 3A",
};

static FILE *open_output(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *file = fopen(path, "w");
    if (!file)
        perror(path);
    return file;
}

static bool close_output(FILE *file, const char *name)
{
    bool bad = ferror(file);
    if (fclose(file) != 0 || bad) {
        perror(name);
        return false;
    }
    return true;
}

/* ---- insn_exec.h ----------------------------------------------------------------------------- */

static bool is_generic(const char *exec)
{
    return !strncmp(exec, "sys_", 4) || !strncmp(exec, "gen_", 4) || !strncmp(exec, "vec_", 4) ||
           !strncmp(exec, "x87_", 4);
}

static void write_list(FILE *out, const struct gen_table *table, const char *name, bool generic,
                       bool plain)
{
    fprintf(out, "#define %s(X)", name);
    for (unsigned i = 0; i < table->exec_count; i++) {
        bool prefixed = is_generic(table->execs[i]);
        if ((prefixed && generic) || (!prefixed && plain))
            fprintf(out, " \\\n    X(%s)", table->execs[i]);
    }
    fputs("\n\n", out);
}

static bool write_execs(const struct gen_table *table, const char *dir)
{
    FILE *out = open_output(dir, "insn_exec.h");
    if (!out)
        return false;
    fputs("/* Made by insn_gen from cpu/insn/X.def: the semantic functions that rows name. */\n"
          "#ifndef INSN_EXEC_H\n#define INSN_EXEC_H\n\n"
          "/* sys_, gen_, vec_, x87_: void NAME(struct cpu *, const struct insn *) */\n",
          out);
    write_list(out, table, "INSN_GENERIC_EXECS", true, false);
    fputs("/* Specialised by the interpreter's core */\n", out);
    write_list(out, table, "INSN_PLAIN_EXECS", false, true);
    write_list(out, table, "INSN_EXECS", true, true);
    fputs("enum insn_exec {\n#define X(name) EXEC_##name,\n    INSN_EXECS(X)\n#undef X\n"
          "    EXEC_COUNT\n};\n\n#endif\n",
          out);
    return close_output(out, "insn_exec.h");
}

/* ---- insn_rows.c ----------------------------------------------------------------------------- */

static void write_rows(FILE *out, const struct gen_table *table)
{
    fputs("const struct insn_row insn_rows[] = {\n", out);
    for (unsigned i = 0; i < table->count; i++) {
        const struct gen_row *row = &table->rows[i];
        fprintf(out,
                "    {\"%s\", \"%s\", \"%s\", %u, EXEC_%s, %s, FEAT_%s, 0x%x, 0x%x, 0x%x, 0x%x, "
                "%u},\n",
                row->mnemonic, row->encoding, row->operands, i, row->exec,
                map_names[row->match.map], row->feature_name, row->flags_read, row->flags_written,
                row->flags_undefined, (unsigned)row->attr, row->exec_arg);
    }
    fprintf(out, "};\nconst unsigned insn_row_count = %u;\n\n", table->count);
}

static void write_shapes(FILE *out, const struct gen_table *table)
{
    fputs("const struct insn_shape insn_shapes[] = {\n", out);
    for (unsigned i = 0; i < table->count; i++) {
        const struct insn_shape *shape = &table->rows[i].shape;
        fprintf(out, "    {%u, %u, %u, {", shape->flags, shape->opnds, shape->fallback);
        for (unsigned j = 0; j < 5; j++) {
            const struct opnd_shape *op = &shape->op[j];
            fprintf(out, "%s{%u, %u, %u, %u, %u, %u}", j ? ", " : "", op->source, op->size, op->reg,
                    op->access, op->hidden, op->bytes);
        }
        fprintf(out, "}}, /* %s */\n", table->rows[i].mnemonic);
    }
    fputs("};\n\nconst struct insn_match insn_matches[] = {\n", out);
    for (unsigned i = 0; i < table->count; i++) {
        const struct insn_match *match = &table->rows[i].match;
        fprintf(out, "    {%s, 0x%02x, %u, {", map_names[match->map], match->opcode,
                match->opcodes);
        for (unsigned j = 0; j < DIM_COUNT; j++)
            fprintf(out, "%s0x%x", j ? ", " : "", match->allow[j]);
        fputs("}},\n", out);
    }
    fputs("};\n\n", out);
}

static void write_numbers(FILE *out, const uint16_t *numbers, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        fprintf(out, "%s%u,", i % 16 ? " " : "\n    ", numbers[i]);
}

static bool write_tables(const struct gen_table *table, const char *dir)
{
    FILE *out = open_output(dir, "insn_rows.c");
    if (!out)
        return false;
    fputs("/* Made by insn_gen from cpu/insn/X.def; the layout is in cpu/insn/tables.h. */\n"
          "#include \"cpu/insn/tables.h\"\n#include \"insn_exec.h\"\n\n",
          out);
    write_rows(out, table);
    write_shapes(out, table);
    fputs("const uint16_t insn_roots[MAP_COUNT][256] = {\n", out);
    for (unsigned map = 0; map < MAP_COUNT; map++) {
        fputs("    {", out);
        write_numbers(out, table->roots[map], 256);
        fputs("},\n", out);
    }
    fputs("};\n\nconst uint16_t insn_tree[] = {", out);
    write_numbers(out, table->tree, table->tree_size);
    fputs("\n};\n", out);
    return close_output(out, "insn_rows.c");
}

/* ---- coverage.md ----------------------------------------------------------------------------- */

/* "LOCK | PASS" as "LOCK, PASS": a bar would end the cell. */
static void write_attributes(FILE *out, const char *attrs)
{
    fputc(' ', out);
    if (strcmp(attrs, "0") == 0)
        return;
    for (const char *c = attrs; *c; c++) {
        if (c[0] == ' ' && c[1] == '|')
            continue;
        fputc(*c == '|' ? ',' : *c, out);
    }
}

/* How many rows each CPUID feature has, in one line. */
static void write_features(FILE *out, const struct gen_table *table)
{
    fputs("\nRows by CPUID feature: ", out);
    const char *separator = "";
    for (unsigned feature = 0; feature < FEAT_COUNT; feature++) {
        unsigned rows = 0;
        const char *name = "";
        for (unsigned i = 0; i < table->count; i++) {
            if (table->rows[i].feature == feature) {
                rows++;
                name = table->rows[i].feature_name;
            }
        }
        if (rows) {
            fprintf(out, "%s%s %u", separator, name, rows);
            separator = ", ";
        }
    }
    fputs(".\n", out);
}

static bool write_coverage(const struct gen_table *table, const char *dir)
{
    FILE *out = open_output(dir, "coverage.md");
    if (!out)
        return false;
    fprintf(out,
            "# Instruction coverage\n\nGenerated from `cpu/insn/*.def` by `insn_gen`; do not edit. "
            "%u rows, %u semantic functions.\nThe notation is that of "
            "[instruction-table.md](instruction-table.md). What no row matches raises #UD.\n\n"
            "| map | rows |\n| --- | ---: |\n",
            table->count, table->exec_count);
    for (unsigned map = 0; map < MAP_COUNT; map++) {
        unsigned rows = 0;
        for (unsigned i = 0; i < table->count; i++)
            rows += table->rows[i].match.map == map;
        fprintf(out, "| %s | %u |\n", map_titles[map], rows);
    }
    write_features(out, table);
    for (unsigned map = 0; map < MAP_COUNT; map++) {
        fprintf(out,
                "\n## %s\n\n| instruction | encoding | operands | feature | flags | attributes | "
                "function |\n| --- | --- | --- | --- | --- | --- | --- |\n",
                map_titles[map]);
        for (unsigned i = 0; i < table->count; i++) {
            const struct gen_row *row = &table->rows[i];
            if (row->match.map != map || (row->per_condition && row->exec_arg))
                continue;
            fprintf(out, "| %s%s | `%s` | %s%s%s | %s | %s |", row->mnemonic,
                    row->per_condition ? " ... (16 conditions)" : "", row->encoding,
                    *row->operands ? "`" : "", row->operands, *row->operands ? "`" : "",
                    row->feature_name, row->flags);
            write_attributes(out, row->attrs);
            fprintf(out, " | `%s` |\n", row->exec);
        }
    }
    return close_output(out, "coverage.md");
}

bool gen_write(const struct gen_table *table, const char *dir)
{
    return write_execs(table, dir) && write_tables(table, dir) && write_coverage(table, dir);
}
