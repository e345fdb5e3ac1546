/*
 * x87_control.c - x87 control instructions and the environment (SDM vol. 1, 8.1.10 and 8.3.11).
 *
 * FCOMI and their kind are in x87_host.c: everything that computes.
 */
#include "cpu/interp/vec_internal.h"
#include "cpu/interp/x87.h"
#include "cpu/mem_internal.h"

void x87_fnop(struct cpu *cpu, const struct insn *insn)
{
    x87_note(cpu, insn);
}

/* FWAIT and what was meaningful only to the 8087 and 80287. sys_check_fpu() has done the
 * rest. */
void x87_nop(struct cpu *cpu, const struct insn *insn)
{
    (void)cpu, (void)insn;
}

/* FINCSTP (exec_arg 1), FDECSTP (7). */
void x87_rotate(struct cpu *cpu, const struct insn *insn)
{
    x87_rotate_stack(&cpu->x87, insn->row->exec_arg);
    cpu->x87.fsw &= (uint16_t)~X87_C1;
    x87_note(cpu, insn);
}

/* FFREE; with exec_arg 1 FFREEP, which then pops. */
void x87_ffree(struct cpu *cpu, const struct insn *insn)
{
    unsigned physical = (x87_top(&cpu->x87) + (insn->modrm & 7)) & 7;
    cpu->x87.ftw |= (uint16_t)(3u << physical * 2);
    if (insn->row->exec_arg) {
        cpu->x87.ftw |= (uint16_t)(3u << x87_top(&cpu->x87) * 2);
        x87_rotate_stack(&cpu->x87, 1);
    }
    cpu->x87.fsw &= (uint16_t)~X87_C1;
    x87_note(cpu, insn);
}

void x87_emms(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    x87_set_top(&cpu->x87, 0);
    cpu->x87.ftw = 0xffff;
}

/* ---- Control and status word ----------------------------------------------------------------- */

static void set_fcw(struct x87 *x87, unsigned value)
{
    x87->fcw = (uint16_t)((value & X87_FCW_VALID) | X87_FCW_ONES);
    x87_update_es(x87);
}

void x87_fldcw(struct cpu *cpu, const struct insn *insn)
{
    set_fcw(&cpu->x87, (unsigned)opnd_read(cpu, insn, 0));
}

void x87_fnstcw(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, cpu->x87.fcw);
}

void x87_fnstsw(struct cpu *cpu, const struct insn *insn)
{
    opnd_write(cpu, insn, 0, cpu->x87.fsw);
}

void x87_fnclex(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    cpu->x87.fsw &= (uint16_t) ~(X87_EXCEPTIONS | X87_SF | X87_ES | X87_B);
}

void x87_fninit(struct cpu *cpu, const struct insn *insn)
{
    (void)insn;
    x87_init(&cpu->x87);
}

/* ---- Environment and state ------------------------------------------------------------------- */

enum { ENV16 = 14, ENV32 = 28, REGISTERS = 80 };

static void put16(uint8_t *at, uint64_t value)
{
    uint16_t v = (uint16_t)value;
    memcpy(at, &v, 2);
}
static void put32(uint8_t *at, uint64_t value)
{
    uint32_t v = (uint32_t)value;
    memcpy(at, &v, 4);
}
static uint32_t get16(const uint8_t *at)
{
    uint16_t v;
    memcpy(&v, at, 2);
    return v;
}
static uint32_t get32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, 4);
    return v;
}

static unsigned env_size(const struct insn *insn)
{
    return insn->opsize == 2 ? ENV16 : ENV32;
}

/* Figures 8-9 to 8-12: 32- and 16-bit formats, for protected mode and for real and virtual-8086
 * mode, whose pointers are linear addresses. */
static void make_env(const struct cpu *cpu, const struct insn *insn, uint8_t *env)
{
    const struct x87 *x87 = &cpu->x87;
    uint16_t tags = x87_full_tags(x87);
    uint32_t ip = (uint32_t)x87->fip + ((uint32_t)x87->fcs << 4);
    uint32_t dp = (uint32_t)x87->fdp + ((uint32_t)x87->fds << 4);
    bool protected = cpu->mode & MODE_PROT;
    if (env_size(insn) == ENV16) {
        put16(env, x87->fcw);
        put16(env + 2, x87->fsw);
        put16(env + 4, tags);
        put16(env + 6, protected ? x87->fip : ip);
        put16(env + 8, protected ? x87->fcs : (ip >> 16 & 15) << 12 | x87->fop);
        put16(env + 10, protected ? x87->fdp : dp);
        put16(env + 12, protected ? x87->fds : (dp >> 16 & 15) << 12);
        return;
    }
    put32(env, 0xffff0000u | x87->fcw);
    put32(env + 4, 0xffff0000u | x87->fsw);
    put32(env + 8, 0xffff0000u | tags);
    if (protected) {
        put32(env + 12, x87->fip);
        put32(env + 16, (uint32_t)x87->fop << 16 | x87->fcs);
        put32(env + 20, x87->fdp);
        put32(env + 24, 0xffff0000u | x87->fds);
    } else {
        put32(env + 12, 0xffff0000u | (ip & 0xffff));
        put32(env + 16, (ip >> 16) << 12 | x87->fop);
        put32(env + 20, 0xffff0000u | (dp & 0xffff));
        put32(env + 24, (dp >> 16) << 12);
    }
}

static void load_env(struct cpu *cpu, const struct insn *insn, const uint8_t *env)
{
    struct x87 *x87 = &cpu->x87;
    bool narrow = env_size(insn) == ENV16, protected = cpu->mode & MODE_PROT;
    unsigned step = narrow ? 2 : 4;
    x87_set_top(x87, get16(env + step) >> 11 & 7);
    x87->fsw = (uint16_t)get16(env + step);
    x87->ftw = x87_tags_from_abridged(x87_abridged_tags((uint16_t)get16(env + 2 * step)));
    const uint8_t *p = env + 3 * step;
    bool selectors = protected && cpu_is_amd(cpu); /* see x87_note() */
    x87->fcs = selectors ? (uint16_t)get16(p + step) : 0;
    x87->fds = selectors ? (uint16_t)get16(p + 3 * step) : 0;
    if (narrow && protected) { /* this format has no opcode: AMD's processors clear it */
        if (cpu_is_amd(cpu))
            x87->fop = 0;
        x87->fip = get16(p);
        x87->fdp = get16(p + 4);
    } else if (narrow) {
        x87->fip = get16(p) | (get16(p + 2) >> 12) << 16;
        x87->fop = get16(p + 2) & 0x7ff;
        x87->fdp = get16(p + 4) | (get16(p + 6) >> 12) << 16;
    } else if (protected) {
        x87->fip = get32(p);
        x87->fop = get32(p + 4) >> 16 & 0x7ff;
        x87->fdp = get32(p + 8);
    } else {
        x87->fip = get16(p) | (get32(p + 4) >> 12 & 0xffff) << 16;
        x87->fop = get32(p + 4) & 0x7ff;
        x87->fdp = get16(p + 8) | (get32(p + 12) >> 12 & 0xffff) << 16;
    }
    set_fcw(x87, get16(env));
}

/* #AC goes by the size of the environment's fields (SDM vol. 3, table 6-7). */
static uint64_t area_address(struct cpu *cpu, const struct insn *insn, unsigned size, unsigned kind)
{
    uint64_t lin = mem_operand(cpu, insn, size, kind);
    mem_check_alignment(cpu, lin, insn->opsize == 2 ? 2 : 4);
    return lin;
}

/* These areas may cross pages and are longer than one mem_read(): first all is proved, then done.
 */
static void read_area(struct cpu *cpu, const struct insn *insn, uint8_t *buf, unsigned size)
{
    uint64_t lin = area_address(cpu, insn, size, ACCESS_READ);
    for (unsigned at = 0; at < size; at += 16)
        mem_read(cpu, insn->mem.seg, x87_wrap(cpu, lin + at), buf + at,
                 size - at < 16 ? size - at : 16);
}

static void write_area(struct cpu *cpu, const struct insn *insn, const uint8_t *buf, unsigned size)
{
    uint64_t lin = area_address(cpu, insn, size, ACCESS_WRITE);
    for (unsigned at = 0; at < size; at += 16)
        mem_probe_write(cpu, insn->mem.seg, x87_wrap(cpu, lin + at),
                        size - at < 16 ? size - at : 16);
    for (unsigned at = 0; at < size; at += 16)
        mem_write(cpu, insn->mem.seg, x87_wrap(cpu, lin + at), buf + at,
                  size - at < 16 ? size - at : 16);
}

void x87_fldenv(struct cpu *cpu, const struct insn *insn)
{
    uint8_t env[ENV32];
    read_area(cpu, insn, env, env_size(insn));
    load_env(cpu, insn, env);
}

void x87_fnstenv(struct cpu *cpu, const struct insn *insn)
{
    uint8_t env[ENV32];
    make_env(cpu, insn, env);
    write_area(cpu, insn, env, env_size(insn));
    set_fcw(&cpu->x87, cpu->x87.fcw | X87_EXCEPTIONS); /* masks all exceptions */
}

void x87_frstor(struct cpu *cpu, const struct insn *insn)
{
    uint8_t state[ENV32 + REGISTERS];
    unsigned size = env_size(insn);
    read_area(cpu, insn, state, size + REGISTERS);
    load_env(cpu, insn, state);
    for (unsigned i = 0; i < 8; i++) {
        memset(cpu->x87.st[i], 0, 16);
        memcpy(cpu->x87.st[i], state + size + i * 10, 10);
    }
}

void x87_fnsave(struct cpu *cpu, const struct insn *insn)
{
    uint8_t state[ENV32 + REGISTERS];
    unsigned size = env_size(insn);
    make_env(cpu, insn, state);
    for (unsigned i = 0; i < 8; i++)
        memcpy(state + size + i * 10, cpu->x87.st[i], 10);
    write_area(cpu, insn, state, size + REGISTERS);
    x87_init(&cpu->x87);
}
