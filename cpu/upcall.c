/*
 * upcall.c - calling a program's own fault handler, and coming back from it (upcall.h).
 *
 * The handler gets a frame on its stack, a copy. The registers that count, vectors and x87
 * included, stay here with the token, so nothing that the handler or anybody else writes to the
 * frame changes them, except what the verdict PROTECT_SET asks for.
 */
#include "cpu/upcall.h"
#include "cpu/mem_inline.h"
#include "cpu/mem_internal.h"
#include "cpu/sys/internal.h"
#include <stdlib.h>
#include <string.h>

enum { RED_ZONE = 128, FRAME_ALIGN = 16, CALL_SLOT = 8 };
#define ARITHMETIC (FLAG_CF | FLAG_PF | FLAG_AF | FLAG_ZF | FLAG_SF | FLAG_OF | RFLAGS_DF)

/* What RESUME asked for, between the store and the run loop. */
struct cpu_resume {
    struct interrupted *interrupted;
    enum protect_verdict verdict;
    uint64_t set, gpr[16], rip, rflags, substitute;
};

/* ---- The program's memory -------------------------------------------------------------------- */

enum place { PLACE_READY, PLACE_REFUSED, PLACE_FAULTS };

/* The pieces of the frame's place, as the program itself could write them. PLACE_FAULTS: with *lin
 * and *code for #PF. */
static enum place find_place(struct cpu *cpu, struct upcall *upcall, uint64_t *lin, uint32_t *code)
{
    struct access access = mem_access(cpu, MMU_USER);
    unsigned len = sizeof upcall->frame;
    upcall->pieces = 0;
    upcall->host = NULL;
    for (uint64_t at = upcall->address; len;) {
        unsigned in_page = (unsigned)(PAGE_SIZE - (at & ~PAGE_MASK)),
                 n = len < in_page ? len : in_page;
        struct mmu_xlat x;
        access.gva = at;
        if (!is_canonical(at))
            return PLACE_REFUSED;
        if (mmu_translate(&cpu->mmu, &access, at, ACCESS_WRITE, MMU_USER, &x) != MMU_OK) {
            *lin = at;
            *code = x.walk.error_code;
            return PLACE_FAULTS;
        }
        if (x.ruled && guard_wanted(cpu, &access, x.gpa, n, ACCESS_WRITE))
            return PLACE_REFUSED;
        /* To translate a second page may take the first one's address away. */
        upcall->host = n == sizeof upcall->frame ? x.hva : NULL;
        upcall->piece[upcall->pieces++] = (struct guard_piece){x.gpa, n};
        at += n;
        len -= n;
    }
    return PLACE_READY;
}

static void write_frame(struct cpu *cpu, const struct upcall *upcall)
{
    struct access access = mem_access(cpu, MMU_USER);
    const char *from = (const char *)&upcall->frame;
    if (upcall->host) {
        mem_host_write(upcall->host, from, sizeof upcall->frame);
        return;
    }
    access.judged = true; /* find_place() has, and this vCPU has not left the guest since */
    for (unsigned i = 0; i < upcall->pieces; i++) {
        phys_write(cpu->map, &access, upcall->piece[i].gpa, from, upcall->piece[i].size);
        from += upcall->piece[i].size;
    }
}

/* Reads without raising: the handler's wishes. The frame's page may be another one by now, so the
 * rules are asked. */
static bool read_user(struct cpu *cpu, uint64_t address, void *buf, size_t len)
{
    struct access access = mem_access(cpu, MMU_USER);
    struct walk walk;
    for (char *to = buf; len;) {
        access.gva = address;
        size_t in_page = PAGE_SIZE - (address & ~PAGE_MASK), n = len < in_page ? len : in_page;
        if (!mmu_walk(cpu->map, &cpu->mmu.paging, &access, address, ACCESS_READ, MMU_USER, true,
                      &walk) ||
            phys_read(cpu->map, &access, walk.gpa, to, n) != PHYS_OK)
            return false;
        address += n;
        to += n;
        len -= n;
    }
    return true;
}

/* ---- Going there ----------------------------------------------------------------------------- */

static struct interrupted *remember(struct cpu *cpu, const struct guard_passes *passes)
{
    struct interrupted *i =
        malloc(offsetof(struct interrupted, passes.pass) + passes->count * sizeof passes->pass[0]);
    if (!i)
        return NULL;
    memcpy(i->gpr, cpu->gpr, sizeof i->gpr);
    i->rip = cpu->rip;
    i->rflags = cpu_rflags(cpu);
    memcpy(i->seg, cpu->seg, sizeof i->seg);
    memcpy(i->ymm, cpu->ymm, sizeof i->ymm);
    i->x87 = cpu->x87;
    i->mxcsr = cpu->mxcsr;
    i->pkru = cpu->pkru;
    i->deferred = false;
    guard_copy_passes(&i->passes, passes);
    return i;
}

static void fill_registers(struct cpu *cpu, struct protect_frame *f)
{
    f->size = sizeof *f;
    f->version = PROTECT_VERSION;
    f->vcpu = (uint16_t)cpu->index;
    memcpy(f->gpr, cpu->gpr, sizeof f->gpr);
    f->rip = cpu->rip;
    f->rflags = cpu_rflags(cpu);
    struct insn peeked;
    const struct guard_move *move = cpu->guard->move;
    const struct insn *insn = move ? move->insn : &peeked;
    if (!move && !sys_peek_insn(cpu, &peeked))
        return;
    /* No byte more: what lies behind it may be none of the program's business. */
    f->instruction_length = insn->len;
    memcpy(f->instruction, insn->bytes, insn->len);
}

/* The frame's place: the thread's own stack, below its red zone, or the given one. */
static uint64_t frame_address(const struct cpu *cpu, uint64_t stack)
{
    uint64_t top = stack ? stack : cpu->gpr[RSP] - RED_ZONE;
    return (top - sizeof(struct protect_frame)) & ~(uint64_t)(FRAME_ALIGN - 1);
}

/* Takes a token for what is interrupted, and makes sure that the frame can be written. Raises #PF
 * when the stack is not mapped, false when there is nowhere to go: in both cases *i is freed. */
static bool take_token(struct cpu *cpu, unsigned context, struct interrupted *i,
                       struct upcall *upcall)
{
    struct rules *rules = phys_rules(cpu->map);
    unsigned depth;
    uint64_t stack = 0, lin = 0;
    uint32_t code = 0;
    uint64_t token = rules_token_issue(rules, context, i, &stack, &depth);
    if (!token) {
        free(i);
        return false;
    }
    upcall->rip = rules_handler(rules, context);
    upcall->frame.token = token;
    upcall->frame.depth = (uint16_t)depth;
    upcall->address = i->address = frame_address(cpu, stack);
    enum place place = find_place(cpu, upcall, &lin, &code);
    if (place == PLACE_READY)
        return true;
    upcall_forget(cpu, context, upcall);
    if (place == PLACE_FAULTS)
        cpu_raise_page_fault(cpu, lin, code);
    return false;
}

bool upcall_prepare(struct cpu *cpu, const struct noted *n, const struct rules_verdict *v,
                    const struct rules_check *check, struct upcall *upcall)
{
    struct guard *g = cpu->guard;
    /* The instruction has run: what it interrupts are the registers from before it. */
    guard_restore(cpu);
    struct interrupted *i = remember(cpu, &g->passes);
    if (!i)
        return false;
    i->asked = (struct guard_pass){
        .lin = n->access.gva, .size = n->size, .context = (uint16_t)v->context, .kind = n->kind};
    i->refusal = (struct guard_refusal){.gva = v->gva,
                                        .fault = v->fault,
                                        .marker = v->marker,
                                        .kind = n->kind,
                                        .user = n->priv == MMU_USER};
    struct protect_frame *f = &upcall->frame;
    memset(f, 0, sizeof *f);
    f->cookie = v->cookie;
    f->region = v->region;
    f->length = n->size;
    f->access = n->kind;
    f->subject = v->subject;
    f->gva = v->gva;
    f->home = v->home;
    memcpy(f->preimage, v->preimage, sizeof f->preimage);
    if (check->value)
        memcpy(f->value, (const char *)check->value + v->offset,
               n->size - v->offset < 16 ? n->size - v->offset : 16);
    fill_registers(cpu, f);
    return take_token(cpu, v->context, i, upcall);
}

static void go_to_handler(struct cpu *cpu, uint64_t rip, uint64_t frame)
{
    cpu_set_rflags(cpu,
                   cpu_rflags(cpu) & ~(uint64_t)(RFLAGS_DF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF));
    cpu->gpr[RDI] = frame;
    cpu->gpr[RSP] = frame - CALL_SLOT;
    cpu->rip = cpu->next_rip = rip;
    cpu->shadow = 0;
    sys_attention_update(cpu);
}

void upcall_forget(struct cpu *cpu, unsigned context, const struct upcall *upcall)
{
    free(rules_token_cancel(phys_rules(cpu->map), context, upcall->frame.token));
}

void upcall_enter(struct cpu *cpu, const struct upcall *upcall)
{
    write_frame(cpu, upcall);
    go_to_handler(cpu, upcall->rip, upcall->address);
}

void upcall_deferred(struct cpu *cpu)
{
    struct rules *rules = phys_rules(cpu->map);
    struct protect_event e;
    struct upcall upcall = {0};
    int context = rules ? rules_deferred_due(rules, cpu->cr3) : -1;
    if (context < 0 || cpu->cpl != 3 || !(cpu->mode & MODE_CODE64))
        return;
    static const struct guard_passes none;
    struct interrupted *i = remember(cpu, &none);
    if (!i)
        return;
    i->asked = (struct guard_pass){0};
    i->refusal = (struct guard_refusal){0};
    i->deferred = true;
    fill_registers(cpu, &upcall.frame);
    if (!take_token(cpu, (unsigned)context, i, &upcall))
        return;
    if (!rules_take_deferred(rules, (unsigned)context, &e)) {
        upcall_forget(cpu, (unsigned)context, &upcall);
        return;
    }
    struct protect_frame *f = &upcall.frame;
    f->deferred = 1;
    f->cookie = e.cookie;
    f->region = e.region;
    f->length = e.length;
    f->access = e.access;
    f->subject = e.subject;
    f->gva = e.gva;
    f->home = e.home;
    memcpy(f->value, e.value, sizeof f->value);
    memcpy(f->preimage, e.preimage, sizeof f->preimage);
    upcall_enter(cpu, &upcall);
}

void cpu_upcall_look(struct cpu *cpu)
{
    struct access access = mem_access(cpu, MMU_USER);
    struct walk walk;
    if (cpu->cpl != 3 || rules_deferred_due(phys_rules(cpu->map), cpu->cr3) < 0)
        return;
    sys_look_for_upcalls(cpu);
    /* Requests are looked for between blocks. This block ends here: what is left of it is as stale
     * as if the instruction had stored to its own bytes. */
    access.judged = true;
    if (mmu_walk(cpu->map, &cpu->mmu.paging, &access, cpu->seg_base[SEG_CS] + cpu->rip, ACCESS_EXEC,
                 MMU_USER, true, &walk))
        interp_code_stale(cpu, walk.gpa, 1);
}

/* ---- Coming back ----------------------------------------------------------------------------- */

enum protect_status cpu_upcall_resume(struct cpu *cpu, unsigned context, uint64_t value)
{
    enum protect_verdict verdict = value & 0xff;
    struct protect_frame frame;
    if (verdict >= PROTECT_VERDICTS)
        return PROTECT_BAD_VERDICT;
    if (cpu->cpl != 3 || !(cpu->mode & MODE_CODE64)) /* only there the registers make sense */
        return PROTECT_WRONG_CALLER;
    struct interrupted *i = rules_token_redeem(phys_rules(cpu->map), context, value >> 8);
    if (!i)
        return PROTECT_BAD_TOKEN;
    struct cpu_resume *r = malloc(sizeof *r);
    if (!r) {
        free(i);
        return PROTECT_NO_MEMORY;
    }
    r->interrupted = i;
    r->verdict = verdict;
    r->set = r->substitute = 0;
    /* The frame's inputs are read now, once. Without them the access is refused. */
    if (verdict == PROTECT_SET || verdict == PROTECT_GIVE) {
        if (read_user(cpu, i->address, &frame, sizeof frame)) {
            r->set = frame.set;
            memcpy(r->gpr, frame.gpr, sizeof r->gpr);
            r->rip = frame.rip;
            r->rflags = frame.rflags;
            r->substitute = frame.substitute;
            if (r->set >> 16 & 1 && !is_canonical(r->rip)) /* no instruction could go there */
                r->verdict = PROTECT_REFUSE;
        } else {
            r->verdict = PROTECT_REFUSE;
        }
    }
    cpu->resume = r;
    cpu->exception.vector = VECTOR_RESUME;
    siglongjmp(*cpu->unwind, 1);
}

/* Both ends are 64-bit code at CPL 3, so no segment among these gives a privilege that the handler
 * has not; that a descriptor has been changed meanwhile counts from the next load on, as ever. */
static void put_back(struct cpu *cpu, const struct interrupted *i)
{
    memcpy(cpu->gpr, i->gpr, sizeof i->gpr);
    if (memcmp(cpu->seg, i->seg, sizeof i->seg) != 0) { /* seldom */
        memcpy(cpu->seg, i->seg, sizeof i->seg);
        cpu_mode_update(cpu);
    }
    memcpy(cpu->ymm, i->ymm, sizeof i->ymm);
    cpu->x87 = i->x87;
    cpu->mxcsr = i->mxcsr;
    sys_set_pkru(cpu, i->pkru);
    cpu->rip = cpu->next_rip = i->rip;
    /* IOPL, IF and their kind are the kernel's: they are what they are now. */
    const uint64_t user = ARITHMETIC | RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_AC | RFLAGS_ID;
    cpu_set_rflags(cpu, (cpu_rflags(cpu) & ~user) | (i->rflags & user));
    cpu->shadow = 0;
}

static void set_registers(struct cpu *cpu, const struct cpu_resume *r)
{
    for (unsigned n = 0; n < 16; n++)
        if (r->set >> n & 1)
            cpu->gpr[n] = r->gpr[n];
    if (r->set >> 16 & 1)
        cpu->rip = cpu->next_rip = r->rip;
    if (r->set >> 17 & 1)
        cpu_set_rflags(cpu, (cpu_rflags(cpu) & ~(uint64_t)ARITHMETIC) | (r->rflags & ARITHMETIC));
}

static void pass_on(struct cpu *cpu, const struct interrupted *i, enum guard_mode mode,
                    uint64_t value)
{
    struct guard_passes *passes = &cpu->guard->passes;
    struct guard_pass pass = i->asked;
    pass.mode = (uint8_t)mode;
    pass.asked = true;
    pass.value = value;
    guard_set_passes(cpu, &i->passes);
    if (passes->count < GUARD_PASSES) /* else it is judged again */
        passes->pass[passes->count++] = pass;
}

/* What becomes of the access. */
static enum protect_verdict decide(const struct cpu_resume *r)
{
    const struct interrupted *i = r->interrupted;
    bool replaces = r->verdict == PROTECT_DROP || r->verdict == PROTECT_GIVE;
    if (i->deferred && r->verdict != PROTECT_SET)
        return PROTECT_RETRY;
    if (replaces && i->asked.kind & ACCESS_EXEC)
        return PROTECT_REFUSE; /* there is nothing that could be executed instead */
    return r->verdict;
}

bool upcall_finish(struct cpu *cpu)
{
    struct cpu_resume *r = cpu->resume;
    struct interrupted *i = r->interrupted;
    enum protect_verdict verdict = decide(r);
    const struct guard_refusal refusal = i->refusal;
    cpu->resume = NULL;
    put_back(cpu, i);
    sys_look_for_upcalls(cpu); /* those that have waited for this one to end */
    if (verdict == PROTECT_LET)
        pass_on(cpu, i, GUARD_LET, 0);
    else if (verdict == PROTECT_DROP)
        pass_on(cpu, i, GUARD_REPLACE, 0);
    else if (verdict == PROTECT_GIVE)
        pass_on(cpu, i, GUARD_REPLACE, r->substitute);
    else if (verdict == PROTECT_SET)
        set_registers(cpu, r);
    free(i);
    free(r);
    if (verdict == PROTECT_REFUSE)
        guard_refuse(cpu, &refusal);
    return verdict == PROTECT_LET || verdict == PROTECT_DROP || verdict == PROTECT_GIVE;
}

/* ---- Who is calling -------------------------------------------------------------------------- */

/* The device's copying is the caller's own access: with its rights, and judged like any other. */
static bool caller_copy(struct cpu *cpu, uint64_t address, void *to, const void *from, size_t len)
{
    enum mmu_priv priv = mem_cpl_priv(cpu);
    struct access access = mem_access(cpu, priv);
    struct walk walk;
    while (len) {
        size_t in_page = PAGE_SIZE - (address & ~PAGE_MASK), n = len < in_page ? len : in_page;
        if (cpu->mode & MODE_LONG ? !is_canonical(address) : address >> 32 != 0)
            return false;
        access.gva = address;
        const void *seen =
            from ? NULL : mmu_view_lookup(&cpu->mmu, priv, address, (unsigned)n, ACCESS_READ);
        if (seen) { /* as an instruction would */
            mem_host_read(to, seen, (unsigned)n);
            address += n;
            len -= n;
            to = (char *)to + n;
            continue;
        }
        if (!mmu_walk(cpu->map, &cpu->mmu.paging, &access, address,
                      from ? ACCESS_WRITE : ACCESS_READ, priv, false, &walk))
            return false;
        uint64_t room;
        if (!phys_hva(cpu->map, walk.gpa, &room)) /* no device is read for a program */
            return false;
        if ((from ? phys_write(cpu->map, &access, walk.gpa, from, n)
                  : phys_read(cpu->map, &access, walk.gpa, to, n)) != PHYS_OK)
            return false;
        /* No instruction under guard has made this store, so nobody else follows it. */
        if (from && rules_follows(phys_rules(cpu->map), &access, walk.gpa))
            rules_table_dirty(phys_rules(cpu->map), walk.gpa, n);
        address += n;
        len -= n;
        if (from)
            from = (const char *)from + n;
        else
            to = (char *)to + n;
    }
    return true;
}

static bool copy_in(void *opaque, uint64_t address, void *to, size_t len)
{
    return caller_copy(opaque, address, to, NULL, len);
}

static bool copy_out(void *opaque, uint64_t address, const void *from, size_t len)
{
    return caller_copy(opaque, address, NULL, from, len);
}

void cpu_rules_caller(struct cpu *cpu, struct rules_caller *caller)
{
    *caller = (struct rules_caller){.kind = cpu->cpl == 3 ? RULES_USER : RULES_SUPERVISOR,
                                    .paging = &cpu->mmu.paging,
                                    .opaque = cpu,
                                    .copy_in = copy_in,
                                    .copy_out = copy_out};
}
