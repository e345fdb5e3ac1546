/*
 * upcall_state.c - what a live upcall has interrupted, as records for saving, and back (rules.h,
 * "Saving"): a thread's registers, then what has been decided about its instruction so far.
 *
 * Only answers are kept of the latter: whoever has merely been told is told once more, as after any
 * change of the rules.
 */
#include "cpu/sys/internal.h"
#include "cpu/upcall.h"
#include "internal/fields.h"
#include <stdlib.h>
#include <string.h>

enum { SEGMENTS = 6, MXCSR_BITS = 0xffff };

/* ---- Records --------------------------------------------------------------------------------- */

struct saved_upcall {
    uint64_t gpr[16], rip, rflags;
    uint64_t seg_base[SEGMENTS];
    uint32_t seg_limit[SEGMENTS];
    uint16_t seg_selector[SEGMENTS], seg_attr[SEGMENTS];
    uint8_t ymm[16 * sizeof(union vreg)];
    uint16_t fcw, fsw, ftw, fop, fcs, fds;
    uint64_t fip, fdp;
    uint8_t st[8 * 16];
    uint32_t mxcsr, pkru;
    uint64_t address;
    uint8_t deferred;
    uint64_t refusal_gva;
    uint8_t refusal_fault, refusal_marker, refusal_kind, refusal_user;
    uint32_t passes;
};
#define F(member, type) FIELD(struct saved_upcall, member, type, 1)
#define A(member, type) FIELD_ARRAY(struct saved_upcall, member, type, 1)
static const struct field upcall_fields[] = {
    A(gpr, FIELD_U64),         F(rip, FIELD_U64),          F(rflags, FIELD_U64),
    A(seg_base, FIELD_U64),    A(seg_limit, FIELD_U32),    A(seg_selector, FIELD_U16),
    A(seg_attr, FIELD_U16),    A(ymm, FIELD_BYTES),        F(fcw, FIELD_U16),
    F(fsw, FIELD_U16),         F(ftw, FIELD_U16),          F(fop, FIELD_U16),
    F(fcs, FIELD_U16),         F(fds, FIELD_U16),          F(fip, FIELD_U64),
    F(fdp, FIELD_U64),         A(st, FIELD_BYTES),         F(mxcsr, FIELD_U32),
    F(pkru, FIELD_U32),        F(address, FIELD_U64),      F(deferred, FIELD_U8),
    F(refusal_gva, FIELD_U64), F(refusal_fault, FIELD_U8), F(refusal_marker, FIELD_U8),
    F(refusal_kind, FIELD_U8), F(refusal_user, FIELD_U8),  F(passes, FIELD_U32),
};
#undef A
#undef F
static const struct state_desc upcall_desc = STATE_DESC("upcall", 1, upcall_fields);

struct saved_pass {
    uint64_t lin, value;
    uint32_t size;
    uint16_t context;
    uint8_t kind, mode;
};
#define F(member, type) FIELD(struct saved_pass, member, type, 1)
static const struct field pass_fields[] = {
    F(lin, FIELD_U64),     F(value, FIELD_U64), F(size, FIELD_U32),
    F(context, FIELD_U16), F(kind, FIELD_U8),   F(mode, FIELD_U8),
};
#undef F
static const struct state_desc pass_desc = STATE_DESC("upcall.pass", 1, pass_fields);

/* ---- Saving ---------------------------------------------------------------------------------- */

static bool save_pass(const struct guard_pass *p, rules_record_fn *put, void *opaque)
{
    struct saved_pass record = {.lin = p->lin,
                                .value = p->value,
                                .size = p->size,
                                .context = p->context,
                                .kind = p->kind,
                                .mode = p->mode};
    return put(opaque, &pass_desc, &record);
}

static void fill_segments(struct saved_upcall *to, const struct segment *from)
{
    for (unsigned i = 0; i < SEGMENTS; i++) {
        to->seg_base[i] = from[i].base;
        to->seg_limit[i] = from[i].limit;
        to->seg_selector[i] = from[i].selector;
        to->seg_attr[i] = from[i].attr;
    }
}

static void fill_x87(struct saved_upcall *to, const struct x87 *from)
{
    to->fcw = from->fcw;
    to->fsw = from->fsw;
    to->ftw = from->ftw;
    to->fop = from->fop;
    to->fip = from->fip;
    to->fdp = from->fdp;
    to->fcs = from->fcs;
    to->fds = from->fds;
    memcpy(to->st, from->st, sizeof to->st);
}

/* First the registers, then the access that the verdict will be about, then the passes. */
bool cpu_upcall_save(const void *state, rules_record_fn *put, void *opaque)
{
    const struct interrupted *i = state;
    struct saved_upcall record = {.rip = i->rip,
                                  .rflags = i->rflags,
                                  .mxcsr = i->mxcsr,
                                  .pkru = i->pkru,
                                  .address = i->address,
                                  .deferred = i->deferred,
                                  .refusal_gva = i->refusal.gva,
                                  .refusal_fault = i->refusal.fault,
                                  .refusal_marker = i->refusal.marker,
                                  .refusal_kind = i->refusal.kind,
                                  .refusal_user = i->refusal.user};
    memcpy(record.gpr, i->gpr, sizeof record.gpr);
    memcpy(record.ymm, i->ymm, sizeof record.ymm);
    fill_segments(&record, i->seg);
    fill_x87(&record, &i->x87);
    for (unsigned n = 0; n < i->passes.count; n++)
        record.passes += i->passes.pass[n].asked;
    if (!put(opaque, &upcall_desc, &record) || !save_pass(&i->asked, put, opaque))
        return false;
    for (unsigned n = 0; n < i->passes.count; n++)
        if (i->passes.pass[n].asked && !save_pass(&i->passes.pass[n], put, opaque))
            return false;
    return true;
}

/* ---- Restoring ------------------------------------------------------------------------------- */

static bool restore_pass(struct guard_pass *p, rules_record_fn *get, void *opaque)
{
    struct saved_pass record = {0};
    if (!get(opaque, &pass_desc, &record) || record.kind & ~PROTECT_ALL ||
        record.mode > GUARD_DONE || record.context >= RULES_CONTEXTS)
        return false;
    *p = (struct guard_pass){.lin = record.lin,
                             .size = record.size,
                             .context = record.context,
                             .kind = record.kind,
                             .mode = record.mode,
                             .asked = true,
                             .value = record.value};
    return true;
}

/* What put_back() relies on: 64-bit code, and an MXCSR that the host can load. */
static bool is_possible(const struct saved_upcall *from)
{
    const unsigned code64 = SEG_ATTR_P | SEG_ATTR_S | SEG_ATTR_L | TYPE_CODE;
    return is_canonical(from->rip) && (from->seg_attr[SEG_CS] & code64) == code64 &&
           is_canonical(from->seg_base[SEG_FS]) && is_canonical(from->seg_base[SEG_GS]) &&
           !(from->mxcsr & ~(uint32_t)MXCSR_BITS) && from->passes <= GUARD_PASSES &&
           from->refusal_fault <= PROTECT_FAULT_GENERAL && from->refusal_marker < 32 &&
           !(from->refusal_kind & ~PROTECT_ALL);
}

static void take_registers(struct interrupted *i, const struct saved_upcall *from)
{
    memcpy(i->gpr, from->gpr, sizeof i->gpr);
    i->rip = from->rip;
    i->rflags = from->rflags;
    for (unsigned n = 0; n < SEGMENTS; n++)
        i->seg[n] = (struct segment){.base = from->seg_base[n],
                                     .limit = from->seg_limit[n],
                                     .selector = from->seg_selector[n],
                                     .attr = from->seg_attr[n]};
    memcpy(i->ymm, from->ymm, sizeof i->ymm);
    i->x87 = (struct x87){.fcw = from->fcw,
                          .fsw = from->fsw,
                          .ftw = from->ftw,
                          .fop = from->fop,
                          .fip = from->fip,
                          .fdp = from->fdp,
                          .fcs = from->fcs,
                          .fds = from->fds};
    memcpy(i->x87.st, from->st, sizeof i->x87.st);
    i->mxcsr = from->mxcsr;
    i->pkru = from->pkru;
}

void *cpu_upcall_restore(rules_record_fn *get, void *opaque)
{
    struct saved_upcall record = {0};
    if (!get(opaque, &upcall_desc, &record) || !is_possible(&record))
        return NULL;
    struct interrupted *i = calloc(1, sizeof *i);
    if (!i)
        return NULL;
    take_registers(i, &record);
    i->address = record.address;
    i->deferred = record.deferred;
    i->refusal = (struct guard_refusal){.gva = record.refusal_gva,
                                        .fault = record.refusal_fault,
                                        .marker = record.refusal_marker,
                                        .kind = record.refusal_kind,
                                        .user = record.refusal_user};
    bool ok = restore_pass(&i->asked, get, opaque);
    for (; ok && i->passes.count < record.passes; i->passes.count += ok)
        ok = restore_pass(&i->passes.pass[i->passes.count], get, opaque);
    if (ok)
        return i;
    free(i);
    return NULL;
}
