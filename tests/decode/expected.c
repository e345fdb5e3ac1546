/*
 * expected.c - the declared differences. Each names what it is about, a pattern, and why.
 */
#include "decode_check.h"

#include <string.h>

static bool is_row(const struct insn *insn, const char *mnemonic)
{
    return insn->row && strcmp(insn->row->mnemonic, mnemonic) == 0;
}

/* One declared difference: `holds` says whether it explains this case. */
struct declared {
    enum opinion about;
    const char *reason;
    bool (*holds)(const struct insn *insn, const struct test_string *string);
};

static bool is_reserved_nop(const struct insn *insn, const struct test_string *string)
{
    (void)string;
    return is_row(insn, "nop") && insn->has_modrm;
}

static bool is_x87_environment(const struct insn *insn, const struct test_string *string)
{
    (void)string;
    return insn->opsize == 2 && (is_row(insn, "fldenv") || is_row(insn, "fnstenv") ||
                                 is_row(insn, "frstor") || is_row(insn, "fnsave"));
}

static bool is_lar_or_lsl(const struct insn *insn, const struct test_string *string)
{
    (void)string;
    return (is_row(insn, "lar") || is_row(insn, "lsl")) && !insn->has_mem;
}

static bool is_cache_line(const struct insn *insn, const struct test_string *string)
{
    (void)string;
    return is_row(insn, "clwb") || is_row(insn, "clflush") || is_row(insn, "clflushopt");
}

static bool is_movsxd16(const struct insn *insn, const struct test_string *string)
{
    (void)string;
    return is_row(insn, "movsxd") && insn->opsize == 2;
}

/* Zydis 4.0 takes mod = 0, SIB base 5 for R13 without displacement when REX.B and 67 are both
 * there. */
static bool is_sib_base5(const struct insn *insn, const struct test_string *string)
{
    return insn->asz67 && string->code == 64 && insn->has_mem && insn->modrm >> 6 == 0 &&
           (insn->modrm & 7) == 4 && insn->mem.base == REG_NONE;
}

static bool is_ud_at_cpl3(const struct insn *insn, const struct test_string *string)
{
    static const char *const names[] = {"clac", "stac", "rsm", "monitor", "mwait"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (is_row(insn, names[i]))
            return true;
    }
    return is_row(insn, "sysret") && string->code != 64;
}

/* LOCK in front of VERW m16 is #UD (SDM vol. 2, LOCK). AMD's family 19h model 11h executes it with
 * a microcode in which VERW clears buffers; with the register form, and with VERR, it is #UD. */
static bool is_locked_verw(const struct insn *insn, const struct test_string *string)
{
    static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf2, 0xf3};
    const uint8_t *p = string->bytes, *end = string->bytes + STRING_BYTES - 3;
    bool lock = false;
    (void)insn;
    for (; p < end; p++)
        if (*p == 0xf0)
            lock = true;
        else if (!memchr(prefixes, *p, sizeof(prefixes)) &&
                 !(string->code == 64 && (*p & 0xf0) == 0x40))
            break;
    return lock && p[0] == 0x0f && p[1] == 0x00 && (p[2] >> 3 & 7) == 5 && p[2] < 0xc0;
}

static const struct declared declared[] = {
    {ABOUT_HOST, "LOCK VERW m16, which some processors execute", is_locked_verw},
    {ABOUT_HOST, "#UD at CPL 3 or in this mode, decided by the semantic function", is_ud_at_cpl3},
    {ABOUT_OPERANDS, "67 with mod=0 and SIB base 5: disp32 (SDM vol. 2, table 2-3 note 1)",
     is_sib_base5},
    {ABOUT_OPERANDS, "LAR, LSL r, r: 16 bits of the source are used (SDM vol. 2, LAR)",
     is_lar_or_lsl},
    {ABOUT_OPERANDS, "CLFLUSH, CLFLUSHOPT, CLWB m8: Zydis names the cache line", is_cache_line},
    {ABOUT_OPERANDS, "66 63: MOVSXD r16, r/m16, not m32 (SDM vol. 2, MOVSX)", is_movsxd16},
    {ABOUT_OPERANDS, "0F 0D, 0F 18-1F: how many operands a reserved NOP has is not documented",
     is_reserved_nop},
    {ABOUT_OPERANDS, "x87 environments: the row names the 32-bit format (SDM vol. 1, 8.1.10)",
     is_x87_environment},
};

const char *expected_difference(enum opinion about, const struct test_string *string,
                                enum decode_result result, const struct insn *insn,
                                const struct view *zydis, const struct view *capstone)
{
    (void)result, (void)zydis, (void)capstone;
    for (size_t i = 0; i < sizeof(declared) / sizeof(declared[0]); i++) {
        if (declared[i].about == about && declared[i].holds(insn, string))
            return declared[i].reason;
    }
    return NULL;
}
