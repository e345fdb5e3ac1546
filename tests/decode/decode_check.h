/*
 * decode_check.h - the parts of decode_crosscheck: one form for three decoders' results, the makers
 * of byte strings, the host CPU as arbiter, and the list of declared differences.
 */
#ifndef TESTS_DECODE_CHECK_H
#define TESTS_DECODE_CHECK_H

#include "internal/insn.h"

enum { STRING_BYTES = 16 }; /* one more than an instruction may have */

struct test_string {
    uint8_t bytes[STRING_BYTES];
    uint8_t code; /* 16, 32 or 64 */
};

/* ---- A decoder's opinion (views.c, view_zydis.c, view_capstone.c) ---------------------------- */

struct view_op {
    uint8_t kind, reg; /* as struct opnd; strings and OPND_ONE are brought to one form */
    uint16_t size;     /* bytes of GPR and MEM operands; 0 where decoders count differently */
    int64_t value;     /* IMM, REL, FAR (offset | selector << 32) */
};

struct view {
    bool valid;
    bool foreign; /* the library knows it, but as an extension that Bailey does not have */
    uint8_t len, ops;
    uint8_t imm_bytes; /* compare immediates only that far; 0: whole */
    const char *name;
    struct view_op op[8];
    struct insn_mem mem; /* when an operand is OPND_MEM; scale as shift */
};

/* `features`: host_features(), or NULL for the Intel processor that the libraries have in mind. */
void view_of_bailey(const struct test_string *string, const struct insn_features *features,
                    enum decode_result *result, struct insn *insn, struct view *view);
struct zydis;
struct zydis *zydis_open(void);
void view_of_zydis(struct zydis *zydis, const struct test_string *string, struct view *view);
struct capstone;
struct capstone *capstone_open(void);
void view_of_capstone(struct capstone *capstone, const struct test_string *string,
                      struct view *view);
/* NULL when both agree on validity and length, else what differs. */
const char *view_compare_length(const struct view *a, const struct view *b);
/* The same for the operands of two valid instructions of the same length. */
const char *view_compare_operands(const struct view *a, const struct view *b);
void view_print(const char *who, const struct view *view);

/* ---- Byte strings (strings.c) ---------------------------------------------------------------- */

struct random_state {
    uint64_t state;
};
uint64_t random_next(struct random_state *random);
/* One third random bytes, one third encodings made from rows, one third mutations of those. */
void string_make(struct random_state *random, struct test_string *string);

/* ---- The host CPU (host.c) ------------------------------------------------------------------- */

enum host_verdict {
    HOST_UNKNOWN, /* not tried: unsafe, or the code size cannot be run here */
    HOST_VALID,   /* an instruction of `len` bytes */
    HOST_UD,
    HOST_LONG, /* #GP: more than 15 bytes */
};

struct host_case {
    struct test_string string;
    enum host_verdict verdict; /* out */
    uint8_t len;               /* out */
};
/* Asks the CPU, in child processes; cases that kill a child stay HOST_UNKNOWN. */
void host_decide(struct host_case *cases, unsigned count);
/* False when CPUID says that this host lacks the feature: then its #UD proves nothing. */
bool host_has_feature(unsigned feature);
/* Everything, by the host's vendor. */
const struct insn_features *host_features(void);

/* ---- Declared differences (expected.c) ------------------------------------------------------- */

enum opinion { ABOUT_LENGTH, ABOUT_OPERANDS, ABOUT_HOST };

/* A reason why Bailey's decision stands although the libraries (ABOUT_LENGTH, ABOUT_OPERANDS) or
 * the host (ABOUT_HOST) say otherwise, or NULL. */
const char *expected_difference(enum opinion about, const struct test_string *string,
                                enum decode_result result, const struct insn *insn,
                                const struct view *zydis, const struct view *capstone);

#endif
