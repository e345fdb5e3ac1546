/*
 * expected.c - the declared differences. Each names what it is about, a pattern, and why.
 */
#include "decode_check.h"

#include <string.h>

const char *expected_difference(enum opinion about, const struct test_string *string,
                                enum decode_result result, const struct insn *insn,
                                const struct view *zydis, const struct view *capstone)
{
    (void)about, (void)string, (void)result, (void)insn, (void)zydis, (void)capstone;
    return NULL;
}
