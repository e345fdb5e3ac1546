/*
 * view_zydis.c - Zydis 4 in the common form.
 *
 * MPX, CET and CLDEMOTE are switched off: without them these encodings are the NOPs that Bailey
 * has.
 */
#include "decode_check.h"

#include <Zydis/Zydis.h>
#include <stdlib.h>
#include <string.h>

struct zydis {
    ZydisDecoder decoder[3]; /* 16, 32, 64 */
};

struct zydis *zydis_open(void)
{
    static const ZydisMachineMode modes[3] = {
        ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_MACHINE_MODE_LONG_64};
    static const ZydisStackWidth widths[3] = {ZYDIS_STACK_WIDTH_16, ZYDIS_STACK_WIDTH_32,
                                              ZYDIS_STACK_WIDTH_64};
    struct zydis *zydis = calloc(1, sizeof(*zydis));
    for (unsigned i = 0; i < 3; i++) {
        ZydisDecoderInit(&zydis->decoder[i], modes[i], widths[i]);
        ZydisDecoderEnableMode(&zydis->decoder[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&zydis->decoder[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&zydis->decoder[i], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
    return zydis;
}

/* Extensions without rows. */
static bool is_foreign(const ZydisDecodedInstruction *insn)
{
    switch (insn->meta.isa_ext) {
    case ZYDIS_ISA_EXT_AMD3DNOW:
    case ZYDIS_ISA_EXT_AMD_INVLPGB:
    case ZYDIS_ISA_EXT_AMX_BF16:
    case ZYDIS_ISA_EXT_AMX_INT8:
    case ZYDIS_ISA_EXT_AMX_TILE:
    case ZYDIS_ISA_EXT_AVX512EVEX:
    case ZYDIS_ISA_EXT_AVX512VEX:
    case ZYDIS_ISA_EXT_AVX_VNNI:
    case ZYDIS_ISA_EXT_CET:
    case ZYDIS_ISA_EXT_CLZERO:
    case ZYDIS_ISA_EXT_ENQCMD:
    case ZYDIS_ISA_EXT_FMA4:
    case ZYDIS_ISA_EXT_HRESET:
    case ZYDIS_ISA_EXT_KEYLOCKER:
    case ZYDIS_ISA_EXT_KEYLOCKER_WIDE:
    case ZYDIS_ISA_EXT_KNC:
    case ZYDIS_ISA_EXT_KNCE:
    case ZYDIS_ISA_EXT_KNCV:
    case ZYDIS_ISA_EXT_MCOMMIT:
    case ZYDIS_ISA_EXT_MONITORX:
    case ZYDIS_ISA_EXT_MPX:
    case ZYDIS_ISA_EXT_PADLOCK:
    case ZYDIS_ISA_EXT_PCONFIG:
    case ZYDIS_ISA_EXT_PT:
    case ZYDIS_ISA_EXT_RDPRU:
    case ZYDIS_ISA_EXT_RTM:
    case ZYDIS_ISA_EXT_SGX:
    case ZYDIS_ISA_EXT_SGX_ENCLV:
    case ZYDIS_ISA_EXT_SMX:
    case ZYDIS_ISA_EXT_SNP:
    case ZYDIS_ISA_EXT_SSE4A:
    case ZYDIS_ISA_EXT_SVM:
    case ZYDIS_ISA_EXT_TBM:
    case ZYDIS_ISA_EXT_TDX:
    case ZYDIS_ISA_EXT_TSX_LDTRK:
    case ZYDIS_ISA_EXT_UINTR:
    case ZYDIS_ISA_EXT_VMFUNC:
    case ZYDIS_ISA_EXT_VTX:
    case ZYDIS_ISA_EXT_WAITPKG:
    case ZYDIS_ISA_EXT_XOP:
        return true;
    default:
        return insn->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ||
               insn->encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX;
    }
}

static void set_register(struct view_op *out, ZydisRegister reg)
{
    ZyanI8 id = ZydisRegisterGetId(reg);
    out->reg = (uint8_t)(id < 0 ? 0 : id);
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        out->size = 1;
        out->kind = OPND_GPR;
        if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
            out->kind = OPND_GPR8H;
            out->size = 0;
            out->reg = (uint8_t)(reg - ZYDIS_REGISTER_AH);
        } else if (reg >= ZYDIS_REGISTER_SPL) {
            out->reg = (uint8_t)(reg - ZYDIS_REGISTER_SPL + 4);
        }
        break;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        out->kind = OPND_GPR;
        out->size = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, reg) / 8;
        break;
    case ZYDIS_REGCLASS_X87:
        out->kind = OPND_ST;
        break;
    case ZYDIS_REGCLASS_MMX:
        out->kind = OPND_MMX;
        break;
    case ZYDIS_REGCLASS_XMM:
        out->kind = OPND_XMM;
        break;
    case ZYDIS_REGCLASS_YMM:
        out->kind = OPND_YMM;
        break;
    case ZYDIS_REGCLASS_SEGMENT:
        out->kind = OPND_SEG;
        break;
    case ZYDIS_REGCLASS_CONTROL:
        out->kind = OPND_CR;
        break;
    case ZYDIS_REGCLASS_DEBUG:
        out->kind = OPND_DR;
        break;
    default:
        out->kind = 255;
    }
}

static uint8_t memory_register(ZydisRegister reg)
{
    if (reg == ZYDIS_REGISTER_NONE)
        return REG_NONE;
    if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
        return REG_PC;
    return (uint8_t)ZydisRegisterGetId(reg);
}

static void set_memory(struct view *view, struct view_op *out, const ZydisDecodedOperand *op)
{
    out->kind = OPND_MEM;
    out->size = op->mem.type == ZYDIS_MEMOP_TYPE_AGEN ? 0 : op->size / 8;
    view->mem.base = memory_register(op->mem.base);
    view->mem.index = memory_register(op->mem.index);
    view->mem.scale = op->mem.scale > 1 ? (uint8_t)__builtin_ctz(op->mem.scale) : 0;
    view->mem.disp = op->mem.disp.value;
    view->mem.seg = op->mem.segment == ZYDIS_REGISTER_NONE || op->mem.type == ZYDIS_MEMOP_TYPE_AGEN
                        ? SEG_NONE
                        : (uint8_t)ZydisRegisterGetId(op->mem.segment);
}

static void add_operand(struct view *view, const ZydisDecodedOperand *op)
{
    if (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        return;
    if (op->visibility == ZYDIS_OPERAND_VISIBILITY_IMPLICIT &&
        op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
        (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_X87 ||
         ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_XMM))
        return;
    struct view_op *out = &view->op[view->ops++];
    switch (op->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        set_register(out, op->reg.value);
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        set_memory(view, out, op);
        break;
    case ZYDIS_OPERAND_TYPE_POINTER:
        out->kind = OPND_FAR;
        out->value = (int64_t)op->ptr.offset | (int64_t)op->ptr.segment << 32;
        break;
    default:
        out->kind = op->imm.is_relative ? OPND_REL : OPND_IMM;
        out->value = op->imm.value.s;
    }
}

void view_of_zydis(struct zydis *zydis, const struct test_string *string, struct view *view)
{
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    memset(view, 0, sizeof(*view));
    ZydisDecoder *decoder = &zydis->decoder[string->code == 16 ? 0 : string->code == 32 ? 1 : 2];
    ZyanStatus status =
        ZydisDecoderDecodeFull(decoder, string->bytes, STRING_BYTES, &insn, operands);
    view->valid = ZYAN_SUCCESS(status);
    if (!view->valid)
        return;
    view->len = insn.length;
    view->name = ZydisMnemonicGetString(insn.mnemonic);
    view->foreign = is_foreign(&insn);
    view->imm_bytes = insn.raw.imm[0].size / 8;
    for (unsigned i = 0; i < insn.operand_count && view->ops < 8; i++)
        add_operand(view, &operands[i]);
}
