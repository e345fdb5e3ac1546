/*
 * view_capstone.c - Capstone 4 in the common form.
 */
#include "decode_check.h"

#include <capstone/capstone.h>
#include <stdlib.h>
#include <string.h>

struct capstone {
    csh handle[3]; /* 16, 32, 64 */
    cs_insn *insn;
    struct view_op registers[X86_REG_ENDING]; /* kind 0: none of ours */
};

/* Finds what a register is by its name: the numbers of Capstone's enumeration are in no useful
 * order. */
static void classify_register(struct view_op *out, const char *name)
{
    static const char *const sets[][16] = {
        {"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil", "r8b", "r9b", "r10b", "r11b", "r12b",
         "r13b", "r14b", "r15b"},
        {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di", "r8w", "r9w", "r10w", "r11w", "r12w",
         "r13w", "r14w", "r15w"},
        {"eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi", "r8d", "r9d", "r10d", "r11d",
         "r12d", "r13d", "r14d", "r15d"},
        {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
         "r13", "r14", "r15"},
        {"ah", "ch", "dh", "bh"},
        {"es", "cs", "ss", "ds", "fs", "gs"},
    };
    static const uint8_t kinds[] = {OPND_GPR, OPND_GPR, OPND_GPR, OPND_GPR, OPND_GPR8H, OPND_SEG};
    static const struct {
        const char *stem;
        uint8_t kind;
    } numbered[] = {{"xmm", OPND_XMM}, {"ymm", OPND_YMM}, {"mm", OPND_MMX},
                    {"st(", OPND_ST},  {"cr", OPND_CR},   {"dr", OPND_DR}};
    for (unsigned i = 0; i < 6; i++) {
        for (uint8_t j = 0; j < 16 && sets[i][j]; j++) {
            if (strcmp(name, sets[i][j]) == 0) {
                out->kind = kinds[i];
                out->reg = j;
                out->size = i < 4 ? (uint16_t)(1 << i) : 0;
                return;
            }
        }
    }
    for (unsigned i = 0; i < sizeof(numbered) / sizeof(numbered[0]); i++) {
        size_t len = strlen(numbered[i].stem);
        if (strncmp(name, numbered[i].stem, len) == 0 && name[len] >= '0' && name[len] <= '9') {
            out->kind = numbered[i].kind;
            out->reg = (uint8_t)atoi(name + len);
            return;
        }
    }
}

struct capstone *capstone_open(void)
{
    static const cs_mode modes[3] = {CS_MODE_16, CS_MODE_32, CS_MODE_64};
    struct capstone *capstone = calloc(1, sizeof(*capstone));
    for (unsigned i = 0; i < 3; i++) {
        if (cs_open(CS_ARCH_X86, modes[i], &capstone->handle[i]) != CS_ERR_OK)
            abort();
        cs_option(capstone->handle[i], CS_OPT_DETAIL, CS_OPT_ON);
    }
    capstone->insn = cs_malloc(capstone->handle[0]);
    for (unsigned reg = 1; reg < X86_REG_ENDING; reg++) {
        const char *name = cs_reg_name(capstone->handle[2], reg);
        if (name)
            classify_register(&capstone->registers[reg], name);
    }
    capstone->registers[X86_REG_ST0].kind = OPND_ST;
    return capstone;
}

static bool is_foreign(const cs_insn *insn)
{
    for (unsigned i = 0; i < insn->detail->groups_count; i++) {
        switch (insn->detail->groups[i]) {
        case X86_GRP_VM:
        case X86_GRP_3DNOW:
        case X86_GRP_AVX512:
        case X86_GRP_FMA4:
        case X86_GRP_RTM:
        case X86_GRP_SSE4A:
        case X86_GRP_XOP:
        case X86_GRP_CDI:
        case X86_GRP_ERI:
        case X86_GRP_TBM:
        case X86_GRP_SGX:
        case X86_GRP_DQI:
        case X86_GRP_BWI:
        case X86_GRP_PFI:
        case X86_GRP_VLX:
            return true;
        default:
            break;
        }
    }
    return false;
}

static bool is_relative(const cs_insn *insn)
{
    for (unsigned i = 0; i < insn->detail->groups_count; i++) {
        if (insn->detail->groups[i] == X86_GRP_BRANCH_RELATIVE)
            return true;
    }
    return false;
}

static uint8_t memory_register(const struct capstone *capstone, x86_reg reg)
{
    if (reg == X86_REG_INVALID || reg == X86_REG_EIZ || reg == X86_REG_RIZ)
        return REG_NONE;
    if (reg == X86_REG_RIP || reg == X86_REG_EIP || reg == X86_REG_IP)
        return REG_PC;
    return capstone->registers[reg].reg;
}

static void add_operand(const struct capstone *capstone, struct view *view, const cs_x86_op *op)
{
    struct view_op *out = &view->op[view->ops++];
    switch (op->type) {
    case X86_OP_REG:
        *out = capstone->registers[op->reg];
        break;
    case X86_OP_IMM:
        out->kind = OPND_IMM;
        out->value = op->imm;
        break;
    default:
        out->kind = OPND_MEM;
        out->size = op->size;
        view->mem.base = memory_register(capstone, op->mem.base);
        view->mem.index = memory_register(capstone, op->mem.index);
        view->mem.scale = op->mem.scale > 1 ? (uint8_t)__builtin_ctz((unsigned)op->mem.scale) : 0;
        view->mem.disp = op->mem.disp;
        view->mem.seg = op->mem.segment == X86_REG_INVALID
                            ? SEG_NONE
                            : capstone->registers[op->mem.segment].reg;
    }
}

void view_of_capstone(struct capstone *capstone, const struct test_string *string,
                      struct view *view)
{
    const uint8_t *bytes = string->bytes;
    size_t size = STRING_BYTES;
    uint64_t address = 0;
    csh handle = capstone->handle[string->code == 16 ? 0 : string->code == 32 ? 1 : 2];
    cs_insn *insn = capstone->insn;
    memset(view, 0, sizeof(*view));
    view->valid = cs_disasm_iter(handle, &bytes, &size, &address, insn) && insn->size <= 15;
    if (!view->valid)
        return;
    view->len = (uint8_t)insn->size;
    view->name = cs_insn_name(handle, insn->id);
    view->foreign = is_foreign(insn);
    view->imm_bytes = insn->detail->x86.encoding.imm_size;
    for (unsigned i = 0; i < insn->detail->x86.op_count && view->ops < 8; i++)
        add_operand(capstone, view, &insn->detail->x86.operands[i]);
    if (is_relative(insn) && view->ops && view->op[view->ops - 1].kind == OPND_IMM) {
        view->op[view->ops - 1].kind = OPND_REL; /* the address is 0: the target is it plus len */
        view->op[view->ops - 1].value -= view->len;
    }
}
