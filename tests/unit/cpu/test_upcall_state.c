/*
 * test_upcall_state.c - what a live upcall has interrupted, saved and restored
 * (cpu/upcall_state.c): every register comes back, and what no processor could be in is refused.
 */
#include "cpu/upcall.h"
#include "internal/fields.h"
#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- A tape: the records as they are described ----------------------------------------------- */

static struct {
    uint64_t value[4096];
    const struct field *field[4096];
    size_t count, at, end; /* get() fails from `end` on */
} tape;

static bool put(void *opaque, const struct state_desc *desc, void *record)
{
    (void)opaque;
    for (size_t i = 0; i < desc->field_count; i++)
        for (size_t n = 0; n < desc->fields[i].count; n++) {
            tape.field[tape.count] = &desc->fields[i];
            tape.value[tape.count++] = field_get(&desc->fields[i], record, n);
        }
    return true;
}
static bool get(void *opaque, const struct state_desc *desc, void *record)
{
    (void)opaque;
    for (size_t i = 0; i < desc->field_count; i++)
        for (size_t n = 0; n < desc->fields[i].count; n++) {
            if (tape.at == tape.end)
                return false;
            ck_assert_ptr_eq(tape.field[tape.at], &desc->fields[i]);
            field_set(&desc->fields[i], record, n, tape.value[tape.at++]);
        }
    return true;
}
static struct interrupted *restore(void)
{
    tape.at = 0;
    return cpu_upcall_restore(get, NULL);
}

/* Every byte another one, but where only some values are possible. */
static struct interrupted *sample(void)
{
    struct interrupted *i = calloc(1, sizeof *i);
    uint8_t *byte = (uint8_t *)i;
    for (size_t n = 0; n < offsetof(struct interrupted, deferred); n++)
        byte[n] = (uint8_t)(n * 151 + 7);
    i->rip = 0x7fff12345678;
    i->mxcsr = 0x1f80;
    for (unsigned n = 0; n < 6; n++)
        i->seg[n] = (struct segment){.base = 0x7f0000000000 + n,
                                     .limit = 0xfffff000 + n,
                                     .selector = (uint16_t)(0x2b + 8 * n),
                                     .attr = (uint16_t)(SEG_ATTR_P | SEG_ATTR_S | (3 + n % 2))};
    i->seg[SEG_CS].attr = SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_L | 0xb;
    i->deferred = true;
    i->refusal = (struct guard_refusal){
        .gva = 0x1234567890, .fault = 1, .marker = 19, .kind = PROTECT_WRITE, .user = true};
    i->asked = (struct guard_pass){.lin = 0x1000, .size = 8, .context = 5, .kind = PROTECT_READ};
    i->passes.generation = 99;
    i->passes.count = 3;
    for (unsigned n = 0; n < 3; n++)
        i->passes.pass[n] = (struct guard_pass){.lin = 0x2000 + n,
                                                .size = 4 + n,
                                                .context = (uint16_t)(6 + n),
                                                .kind = PROTECT_WRITE,
                                                .mode = n == 1 ? GUARD_TOLD : GUARD_REPLACE,
                                                .asked = n != 1,
                                                .value = ~(uint64_t)n};
    return i;
}
static struct interrupted *saved(void)
{
    struct interrupted *i = sample();
    memset(&tape, 0, sizeof tape);
    ck_assert(cpu_upcall_save(i, put, NULL));
    tape.end = tape.count;
    return i;
}

static void check_pass(const struct guard_pass *a, const struct guard_pass *b)
{
    ck_assert_uint_eq(a->lin, b->lin);
    ck_assert_uint_eq(a->size, b->size);
    ck_assert_uint_eq(a->context, b->context);
    ck_assert_uint_eq(a->kind, b->kind);
    ck_assert_uint_eq(a->mode, b->mode);
    ck_assert_uint_eq(a->value, b->value);
    ck_assert(a->asked);
}

START_TEST(everything_comes_back)
{
    struct interrupted *a = saved(), *b = restore();
    ck_assert_ptr_nonnull(b);
    ck_assert_uint_eq(tape.at, tape.count);
    ck_assert(!memcmp(a->gpr, b->gpr, sizeof a->gpr));
    ck_assert_uint_eq(a->rip, b->rip);
    ck_assert_uint_eq(a->rflags, b->rflags);
    for (unsigned n = 0; n < 6; n++) {
        ck_assert_uint_eq(a->seg[n].base, b->seg[n].base);
        ck_assert_uint_eq(a->seg[n].limit, b->seg[n].limit);
        ck_assert_uint_eq(a->seg[n].selector, b->seg[n].selector);
        ck_assert_uint_eq(a->seg[n].attr, b->seg[n].attr);
    }
    ck_assert(!memcmp(a->ymm, b->ymm, sizeof a->ymm));
#define SAME(member) ck_assert_uint_eq(a->member, b->member)
    SAME(x87.fcw);
    SAME(x87.fsw);
    SAME(x87.ftw);
    SAME(x87.fop);
    SAME(x87.fip);
    SAME(x87.fdp);
    SAME(x87.fcs);
    SAME(x87.fds);
    ck_assert(!memcmp(a->x87.st, b->x87.st, sizeof a->x87.st));
    SAME(mxcsr);
    SAME(pkru);
    SAME(address);
    SAME(deferred);
    SAME(refusal.gva);
    SAME(refusal.fault);
    SAME(refusal.marker);
    SAME(refusal.kind);
    SAME(refusal.user);
#undef SAME
    check_pass(&b->asked,
               &(struct guard_pass){.lin = 0x1000, .size = 8, .context = 5, .kind = PROTECT_READ});
    ck_assert_uint_eq(b->passes.count, 2); /* those that somebody has answered for */
    check_pass(&b->passes.pass[0], &a->passes.pass[0]);
    check_pass(&b->passes.pass[1], &a->passes.pass[2]);
    free(a);
    free(b);
}
END_TEST

START_TEST(cut_anywhere)
{
    free(saved());
    for (tape.end = 0; tape.end < tape.count; tape.end++)
        ck_assert_ptr_null(restore());
}
END_TEST

START_TEST(impossible_values)
{
    static const struct {
        const char *field;
        unsigned index;
        uint64_t value;
    } bad[] = {
        {"rip", 0, 0x800000000000},
        {"mxcsr", 0, 0x10000},
        {"seg_attr", SEG_CS, 0x8b},
        {"seg_attr", SEG_CS, SEG_ATTR_L | SEG_ATTR_P | 0x13},
        {"seg_base", SEG_FS, 1ull << 47},
        {"seg_base", SEG_GS, 1ull << 63},
        {"refusal_marker", 0, 32},
        {"refusal_fault", 0, 2},
        {"refusal_kind", 0, 8},
        {"passes", 0, GUARD_PASSES + 1},
        {"context", 0, RULES_CONTEXTS},
        {"mode", 0, GUARD_DONE + 1},
        {"kind", 0, 8},
    };
    free(saved());
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t at = 0;
        while (at < tape.count && strcmp(tape.field[at]->name, bad[i].field) != 0)
            at++;
        at += bad[i].index;
        ck_assert_uint_lt(at, tape.count);
        uint64_t kept = tape.value[at];
        tape.value[at] = bad[i].value;
        ck_assert_msg(!restore(), "%s", bad[i].field);
        tape.value[at] = kept;
    }
    struct interrupted *again = restore();
    ck_assert_ptr_nonnull(again);
    free(again);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("upcall state");
    TCase *c = tcase_create("state");
    tcase_add_test(c, everything_comes_back);
    tcase_add_test(c, cut_anywhere);
    tcase_add_test(c, impossible_values);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
