/*
 * execute.c - one instruction at a time (execute.h).
 */
#include "cpu/interp/execute.h"
#include "cpu/guard.h"
#include "cpu/interp/block.h"
#include "cpu/interp/plain.h"
#include "cpu/interp/vec.h"
#include "cpu/mem_internal.h"
#include "cpu/sys/sys.h"
#include "insn_exec.h"
#include <string.h>

/* ---- Which function -------------------------------------------------------------------------- */

/* Not in the list of the others only because it wants its stub. */
static void vec_host(struct cpu *cpu, const struct insn *insn)
{
    vec_run(cpu, insn, vec_prepare(cpu, insn));
}

#define X(name) execute_fn name;
INSN_GENERIC_EXECS(X)
#undef X

static execute_fn *const functions[EXEC_COUNT] = {
#define X(name) [EXEC_##name] = plain_##name,
    INSN_PLAIN_EXECS(X)
#undef X
#define X(name) [EXEC_##name] = name,
        INSN_GENERIC_EXECS(X)
#undef X
};

execute_fn *execute_function(const struct insn *insn)
{
    return functions[insn->row->exec];
}

bool execute_needs_check(uint32_t mode, const struct insn_row *row)
{
    return (row->attr & (INSN_X87 | INSN_MMX)) || /* pending exceptions too */
           execute_vector_needs_check(mode, row);
}

bool execute_vector_needs_check(uint32_t mode, const struct insn_row *row)
{
    if (row->attr & INSN_AVX)
        return (mode & (MODE_AVX | MODE_TS)) != MODE_AVX;
    if (row->attr & INSN_SSE)
        return (mode & (MODE_OSFXSR | MODE_TS | MODE_EM)) != MODE_OSFXSR;
    return false;
}

void execute_insn(struct cpu *cpu, const struct insn *insn, const void *prepared)
{
    const struct insn_row *row = insn->row;
    cpu->next_rip = cpu->rip + insn->len;
    if (insn->code != 64)
        cpu->next_rip = (uint32_t)cpu->next_rip;
    if ((row->attr & INSN_CPL0) && cpu->cpl != 0)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (execute_needs_check(cpu->mode, row))
        sys_check_fpu(cpu, insn);
    if (row->attr & INSN_SYSTEM)
        cpu_rflags(cpu);
    if (row->exec == EXEC_vec_host)
        vec_run(cpu, insn, prepared);
    else
        functions[row->exec](cpu, insn);
}

/* ---- Single steps ---------------------------------------------------------------------------- */

/* The protection rules judge what is executed, not what is decoded: so only here, where the length
 * is known. */
static bool fetch_to_be_judged(const struct cpu *cpu)
{
    return __builtin_expect(cpu->fetch_ruled || cpu->guarded, 0);
}

/* All bytes of the instruction at cpu->rip, from two pages when it crosses: the second page is
 * fetched, and may fault, only when the first does not have the whole instruction. */
static void fetch_and_decode(struct cpu *cpu, struct insn *insn)
{
    uint8_t bytes[16];
    uint64_t gpa;
    unsigned code = cpu->mode & MODE_CODE64 ? 64 : cpu->mode & MODE_CODE32 ? 32 : 16;
    unsigned n = mem_fetch(cpu, cpu->rip, bytes, 15, &gpa);
    for (;;) {
        switch (insn_decode(bytes, n, code, !(cpu->mode & MODE_PROT), &cpu->features, insn)) {
        case DECODE_OK:
            return;
        case DECODE_UD:
            if (fetch_to_be_judged(cpu))
                guard_exec(cpu, 1);
            cpu_raise(cpu, VECTOR_UD);
        case DECODE_LONG:
            cpu_raise_error(cpu, VECTOR_GP, 0);
        default:
            break;
        }
        if (n >= 15)
            cpu_raise_error(cpu, VECTOR_GP, 0);
        uint64_t next = cpu->rip + n;
        n += mem_fetch(cpu, code == 64 ? next : (uint32_t)next, bytes + n, 15 - n, &gpa);
    }
}

/* The bytes at rip as far as they lie in one page, compared with those of a remembered instruction.
 * A difference, or an end of the page before its end, only costs the decoding. */
static bool same_bytes(struct cpu *cpu, const struct insn *insn)
{
    uint8_t bytes[16];
    uint64_t gpa;
    unsigned n = mem_fetch(cpu, cpu->rip, bytes, insn->len, &gpa);
    if (n < insn->len) {
        if (memcmp(bytes, insn->bytes, n))
            return false;
        uint64_t next = cpu->rip + n;
        n += mem_fetch(cpu, insn->code == 64 ? next : (uint32_t)next, bytes + n, insn->len - n,
                       &gpa);
    }
    return n == insn->len && !memcmp(bytes, insn->bytes, n);
}

/* Where the instruction at cpu->rip is remembered. */
static struct step_entry *step_entry(struct cpu *cpu)
{
    return &cpu->blocks->step[(cpu->rip ^ cpu->rip >> 12) % STEP_ENTRIES];
}

/* Decoded before, and still this instruction? */
static bool remembered(const struct cpu *cpu, const struct step_entry *e, const uint8_t *bytes,
                       unsigned len)
{
    return e->valid && e->mode == cpu->mode && e->insn.len == len &&
           !memcmp(e->insn.bytes, bytes, len);
}

void execute_prepare(struct cpu *cpu, const uint8_t *bytes, unsigned len, struct insn *insn,
                     const void **prepared)
{
    unsigned code = cpu->mode & MODE_CODE64 ? 64 : cpu->mode & MODE_CODE32 ? 32 : 16;
    insn_decode(bytes, len, code, !(cpu->mode & MODE_PROT), &cpu->features, insn);
    *prepared = insn->row->exec == EXEC_vec_host ? vec_prepare(cpu, insn) : 0;
}

void execute_copied(struct cpu *cpu, const uint8_t *bytes, unsigned len)
{
    struct step_entry *e = step_entry(cpu);
    if (!remembered(cpu, e, bytes, len)) {
        e->valid = false;
        execute_prepare(cpu, bytes, len, &e->insn, &e->prepared);
        e->mode = cpu->mode;
        e->valid = true;
    }
    execute_insn(cpu, &e->insn, e->prepared);
}

const struct insn *execute_known(struct cpu *cpu)
{
    const struct step_entry *e = step_entry(cpu);
    uint8_t bytes[16];
    if (!e->valid || e->mode != cpu->mode || !(cpu->mode & MODE_CODE64) ||
        (cpu->rip & ~PAGE_MASK) + e->insn.len > PAGE_SIZE)
        return NULL;
    const uint8_t *code = mmu_view_code(&cpu->mmu, mem_cpl_priv(cpu), cpu->rip);
    if (!code)
        return NULL;
    mem_host_read(bytes, code, e->insn.len);
    return memcmp(bytes, e->insn.bytes, e->insn.len) ? NULL : &e->insn;
}

void execute_step(struct cpu *cpu)
{
    cpu->fetch_ruled = false;
    struct step_entry *e = step_entry(cpu);
    if (!e->valid || e->mode != cpu->mode || !same_bytes(cpu, &e->insn)) {
        e->valid = false; /* decoding may raise and leave it half made */
        fetch_and_decode(cpu, &e->insn);
        e->prepared = e->insn.row->exec == EXEC_vec_host ? vec_prepare(cpu, &e->insn) : 0;
        e->mode = cpu->mode;
        e->valid = true;
    }
    if (fetch_to_be_judged(cpu))
        guard_exec(cpu, e->insn.len);
    uint64_t rip = cpu->rip;
    execute_insn(cpu, &e->insn, e->prepared);
    cpu->rip = cpu->next_rip;
    /* A repeated instruction that has iterations left is not done yet. */
    if (cpu->rip != rip || !e->insn.rep)
        cpu->retired++;
}

/* ---- Cold code ------------------------------------------------------------------------------- */

void execute_once(struct cpu *cpu, const uint8_t *code, unsigned avail)
{
    const unsigned size = cpu->mode & MODE_CODE64 ? 64 : 32;
    const uint64_t generation = cpu->mmu.exec_generation, global = cpu->mmu.global_generation;
    struct insn insn;
    do {
        uint8_t bytes[15];
        unsigned n = avail < sizeof bytes ? avail : sizeof bytes;
        mem_host_read(bytes, code, n);
        if (insn_decode(bytes, n, size, false, &cpu->features, &insn) != DECODE_OK) {
            execute_step(cpu); /* crosses the page's end, or raises */
            return;
        }
        execute_insn(cpu, &insn, insn.row->exec == EXEC_vec_host ? vec_prepare(cpu, &insn) : 0);
        if (cpu->next_rip == cpu->rip && insn.rep)
            return; /* has iterations left */
        cpu->rip = cpu->next_rip;
        cpu->retired++;
        code += insn.len;
        avail -= insn.len;
        /* The instruction may have taken away the leave to fetch the next one. */
    } while (avail && !(insn.row->attr & INSN_END) && !interp_attention(cpu) &&
             generation == cpu->mmu.exec_generation && global == cpu->mmu.global_generation);
}
