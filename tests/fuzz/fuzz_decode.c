/*
 * fuzz_decode.c - libFuzzer target: any bytes in any mode keep the decoder's promises.
 *
 * Input: two bytes that choose absent features, then instruction bytes. What a decode says must lie
 * in the ranges that internal/insn.h documents, must not depend on bytes behind the instruction,
 * and cutting the instruction anywhere must ask for more.
 */
#include "insn_exec.h"
#include "internal/insn.h"

#include <stdlib.h>
#include <string.h>

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void check_operand(const struct insn *insn, const struct opnd *op)
{
    REQUIRE(op->kind > OPND_NONE && op->kind <= OPND_ONE);
    REQUIRE(op->access <= OPND_RW && op->implicit <= 2);
    switch (op->kind) {
    case OPND_GPR:
        REQUIRE(op->reg < (insn->code == 64 ? 16 : 8));
        REQUIRE(op->size == 1 || op->size == 2 || op->size == 4 ||
                (op->size == 8 && insn->code == 64));
        break;
    case OPND_XMM:
    case OPND_YMM:
        REQUIRE(op->reg < (insn->code == 64 ? 16 : 8));
        break;
    case OPND_GPR8H:
        REQUIRE(op->reg < 4 && op->size == 1);
        break;
    case OPND_SEG:
        REQUIRE(op->reg <= SEG_GS);
        break;
    case OPND_CR:
        REQUIRE(op->reg == 0 || op->reg == 2 || op->reg == 3 || op->reg == 4 || op->reg == 8);
        break;
    case OPND_DR:
    case OPND_ST:
    case OPND_MMX:
        REQUIRE(op->reg < 8);
        break;
    case OPND_MEM:
        REQUIRE(insn->has_mem);
        break;
    default:
        break;
    }
}

static void check_insn(const struct insn *insn)
{
    REQUIRE(insn->row && insn->row == &insn_rows[insn->row->id]);
    REQUIRE(insn->row->exec < EXEC_COUNT);
    REQUIRE(insn->len >= 1 && insn->len <= 15);
    REQUIRE(insn->opsize == 2 || insn->opsize == 4 || insn->opsize == 8);
    REQUIRE(insn->adsize == 2 || insn->adsize == 4 || (insn->adsize == 8 && insn->code == 64));
    REQUIRE(insn->off_opcode < insn->len && insn->off_modrm < insn->len);
    REQUIRE(insn->off_disp + insn->disp_size <= insn->len);
    REQUIRE(insn->off_imm + insn->imm_size <= insn->len);
    REQUIRE(insn->mem.base < 16 || insn->mem.base == REG_NONE || insn->mem.base == REG_PC);
    REQUIRE(insn->mem.base != REG_PC || insn->code == 64);
    REQUIRE(insn->mem.index <= REG_NONE && insn->mem.scale <= 3 && insn->mem.seg <= SEG_GS);
    REQUIRE(!insn->lock || (insn->row->attr & INSN_LOCK));
    REQUIRE(!(insn->row->attr & (insn->code == 64 ? INSN_NO64 : INSN_ONLY64)));
    REQUIRE(insn->opnds <= 5);
    for (unsigned i = 0; i < insn->opnds; i++)
        check_operand(insn, &insn->op[i]);
}

static void check_mode(const uint8_t *bytes, size_t size, unsigned code, bool real,
                       const struct insn_features *features)
{
    struct insn insn, again;
    enum decode_result result = insn_decode(bytes, size, code, real, features, &insn);
    REQUIRE(insn.len <= size && insn.len <= 15);
    if (result == DECODE_MORE)
        REQUIRE(size < 15);
    if (result == DECODE_LONG)
        REQUIRE(size >= 15);
    if (result != DECODE_OK && result != DECODE_UD)
        return;
    if (result == DECODE_OK)
        check_insn(&insn);
    /* Its own bytes alone give the same, one less does not. A heap copy lets ASan see overreads. */
    uint8_t *copy = malloc(insn.len ? insn.len : 1);
    REQUIRE(copy);
    memcpy(copy, insn.bytes, insn.len);
    REQUIRE(insn_decode(copy, insn.len, code, real, features, &again) == result);
    REQUIRE(memcmp(&insn, &again, sizeof(insn)) == 0);
    for (size_t cut = 0; cut < insn.len; cut++) {
        enum decode_result less = insn_decode(copy, cut, code, real, features, &again);
        REQUIRE(less == DECODE_MORE);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct insn_features features;
    if (size < 2)
        return 0;
    memset(&features, 0xff, sizeof(features));
    for (unsigned i = 0; i < 2; i++)
        features.bits[data[i] % FEAT_COUNT / 64] &= ~(1ull << (data[i] % FEAT_COUNT % 64));
    data += 2;
    size -= 2;
    check_mode(data, size, 16, true, &features);
    check_mode(data, size, 16, false, &features);
    check_mode(data, size, 32, false, &features);
    check_mode(data, size, 32, true, &features);
    check_mode(data, size, 64, false, NULL);
    check_mode(data, size, 64, false, &features);
    return 0;
}
