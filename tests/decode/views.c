/*
 * views.c - Bailey's decode in the common form, and the comparison of two opinions.
 *
 * Only operands that assembly writes are compared. Those of string instructions, a fixed ST(0) or
 * XMM0 and implied memory are left out: the libraries count them now one way, now the other.
 */
#include "decode_check.h"

#include <stdio.h>
#include <string.h>

static bool is_vector(unsigned kind)
{
    return kind == OPND_XMM || kind == OPND_YMM;
}

static void add_bailey_operand(const struct insn *insn, const struct opnd *op, struct view *view)
{
    bool counted = op->kind == OPND_GPR || op->kind == OPND_SEG || op->kind == OPND_ONE;
    if (op->implicit == 2 || (op->implicit && !counted))
        return;
    struct view_op *out = &view->op[view->ops++];
    out->kind = op->kind;
    out->reg = op->reg;
    out->size = op->kind == OPND_GPR || op->kind == OPND_MEM ? op->size : 0;
    switch (op->kind) {
    case OPND_MEM:
        view->mem = insn->mem;
        break;
    case OPND_IMM:
    case OPND_REL:
        out->value = insn->imm;
        break;
    case OPND_IMM2:
        out->kind = OPND_IMM;
        out->value = insn->imm2;
        break;
    case OPND_ONE:
        out->kind = OPND_IMM;
        out->value = 1;
        break;
    case OPND_FAR:
        out->value = insn->imm | insn->imm2 << 32;
        break;
    default:
        break;
    }
}

void view_of_bailey(const struct test_string *string, const struct insn_features *features,
                    enum decode_result *result, struct insn *insn, struct view *view)
{
    memset(view, 0, sizeof(*view));
    *result = insn_decode(string->bytes, STRING_BYTES, string->code, false, features, insn);
    view->len = insn->len;
    view->valid = *result == DECODE_OK;
    if (!view->valid)
        return;
    view->name = insn->row->mnemonic;
    for (unsigned i = 0; i < insn->opnds; i++) {
        if (insn->op[i].kind == OPND_STR_SRC || insn->op[i].kind == OPND_STR_DST)
            return; /* string instructions have no operands in this form */
    }
    for (unsigned i = 0; i < insn->opnds; i++)
        add_bailey_operand(insn, &insn->op[i], view);
}

const char *view_compare_length(const struct view *a, const struct view *b)
{
    bool a_valid = a->valid && !a->foreign, b_valid = b->valid && !b->foreign;
    if (a_valid != b_valid)
        return "validity";
    return a_valid && a->len != b->len ? "length" : NULL;
}

/* Absolute addresses of 16 and 32 bits are sign- or zero-extended as the library likes. */
static bool same_displacement(const struct insn_mem *a, const struct insn_mem *b)
{
    int64_t difference = a->disp ^ b->disp;
    return difference == 0 ||
           (a->base == REG_NONE && a->index == REG_NONE &&
            ((uint64_t)difference == ~0ull << 16 || (uint64_t)difference == ~0ull << 32));
}

static const char *compare_memory(const struct insn_mem *a, const struct insn_mem *b)
{
    if (a->base != b->base)
        return "memory base";
    if (a->index != b->index)
        return "memory index";
    if (a->index != REG_NONE && a->scale != b->scale)
        return "memory scale";
    if (!same_displacement(a, b))
        return "displacement";
    if (a->seg != b->seg && b->seg != SEG_NONE && a->seg != SEG_NONE)
        return "segment";
    return NULL;
}

const char *view_compare_operands(const struct view *a, const struct view *b)
{
    uint64_t mask = b->imm_bytes && b->imm_bytes < 8 ? (1ull << 8 * b->imm_bytes) - 1 : ~0ull;
    if (a->ops != b->ops)
        return "operand count";
    for (unsigned i = 0; i < a->ops; i++) {
        const struct view_op *x = &a->op[i], *y = &b->op[i];
        if (x->kind != y->kind)
            return "operand kind";
        if (x->reg != y->reg)
            return is_vector(x->kind) ? "vector register" : "register";
        if (x->size != y->size && x->size && y->size)
            return "operand size";
        if (((uint64_t)x->value ^ (uint64_t)y->value) & mask)
            return "immediate";
        if (x->kind == OPND_MEM) {
            const char *what = compare_memory(&a->mem, &b->mem);
            if (what)
                return what;
        }
    }
    return NULL;
}

void view_print(const char *who, const struct view *view)
{
    static const char *const kinds[] = {"none", "gpr", "gpr8h", "mem", "imm", "imm2",
                                        "rel",  "far", "seg",   "cr",  "dr",  "st",
                                        "mmx",  "xmm", "ymm",   "src", "dst", "one"};
    printf("  %-9s", who);
    if (!view->valid) {
        printf("invalid (%u bytes seen)\n", view->len);
        return;
    }
    printf("%u bytes%s %s", view->len, view->foreign ? " (foreign)" : "", view->name);
    for (unsigned i = 0; i < view->ops; i++) {
        const struct view_op *op = &view->op[i];
        printf(", %s%u/%u", op->kind < sizeof(kinds) / sizeof(kinds[0]) ? kinds[op->kind] : "?",
               op->reg, op->size);
        if (op->kind == OPND_MEM)
            printf("[%u+%u<<%u%+lld seg %u]", view->mem.base, view->mem.index, view->mem.scale,
                   (long long)view->mem.disp, view->mem.seg);
        if (op->value)
            printf("=%llx", (unsigned long long)op->value);
    }
    putchar('\n');
}
