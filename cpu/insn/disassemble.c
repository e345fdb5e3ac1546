/*
 * disassemble.c - instruction bytes as Intel-syntax text, by Capstone.
 *
 * For dumps and messages only; nothing is executed from this text. A handle is opened per call: no
 * state is shared between threads, and no dump is so long that it matters.
 */
#include "internal/insn.h"

#include <capstone/capstone.h>
#include <stdio.h>

unsigned insn_disassemble(const uint8_t *bytes, size_t avail, unsigned code, uint64_t rip,
                          char *out, size_t out_size)
{
    cs_mode mode = code == 64 ? CS_MODE_64 : code == 32 ? CS_MODE_32 : CS_MODE_16;
    unsigned length = 0;
    csh handle;
    cs_insn *text = NULL;

    snprintf(out, out_size, "(bad)");
    if (cs_open(CS_ARCH_X86, mode, &handle) != CS_ERR_OK)
        return 0;
    if (cs_disasm(handle, bytes, avail < 15 ? avail : 15, rip, 1, &text) == 1) {
        length = text->size;
        snprintf(out, out_size, "%s%s%s", text->mnemonic, text->op_str[0] ? " " : "", text->op_str);
        cs_free(text, 1);
    }
    cs_close(&handle);
    return length;
}
