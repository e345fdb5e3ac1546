/*
 * debug.c - the debug registers (SDM vol. 3, 17.2): MOV DR, and matching addresses.
 *
 * Data breakpoints are kept by the MMU: pages that one overlaps get no fast entries, so that every
 * access to them reaches cpu/mem.c, which notes the hit in cpu->debug_pending. Enabled breakpoints
 * of any kind put the run loop on its careful way.
 */
#include "cpu/sys/internal.h"

enum { RW_EXEC, RW_WRITE, RW_IO, RW_ACCESS };

static unsigned breakpoint_kind(const struct cpu *cpu, unsigned n)
{
    return cpu->dr[7] >> (16 + 4 * n) & 3;
}

static unsigned breakpoint_len(const struct cpu *cpu, unsigned n)
{
    static const uint8_t len[] = {1, 2, 8, 4};

    return len[cpu->dr[7] >> (18 + 4 * n) & 3];
}

static bool breakpoint_enabled(const struct cpu *cpu, unsigned n)
{
    return cpu->dr[7] >> (2 * n) & 3;
}

void debug_registers_changed(struct cpu *cpu)
{
    struct mmu_range watch[4];
    unsigned count = 0;

    cpu->code_breakpoints = cpu->data_breakpoints = false;
    for (unsigned n = 0; n < 4; n++) {
        unsigned kind = breakpoint_kind(cpu, n), len = breakpoint_len(cpu, n);
        uint64_t lo = cpu->dr[n] & ~(uint64_t)(len - 1);

        if (!breakpoint_enabled(cpu, n))
            continue;
        if (kind == RW_EXEC) {
            cpu->code_breakpoints = true;
            continue;
        }
        cpu->data_breakpoints = true;
        if (kind != RW_IO)
            watch[count++] = (struct mmu_range){.lo = lo, .hi = lo + len};
    }
    mmu_set_watch(&cpu->mmu, watch, count);
    sys_attention_update(cpu);
}

/* DR6 shows a match also of breakpoints that are not enabled, when another one is (17.2.3). */
uint32_t debug_match_code(const struct cpu *cpu, uint64_t lin)
{
    uint32_t bits = 0, enabled = 0;

    for (unsigned n = 0; n < 4; n++) {
        if (breakpoint_kind(cpu, n) != RW_EXEC || cpu->dr[n] != lin)
            continue;
        bits |= 1u << n;
        if (breakpoint_enabled(cpu, n))
            enabled |= 1u << n;
    }
    return enabled ? bits : 0;
}

uint32_t debug_match_io(const struct cpu *cpu, uint16_t port, unsigned size)
{
    uint32_t bits = 0, enabled = 0;

    if (!(cpu->cr4 & CR4_DE))
        return 0;
    for (unsigned n = 0; n < 4; n++) {
        unsigned len = breakpoint_len(cpu, n);
        uint64_t lo = cpu->dr[n] & ~(uint64_t)(len - 1);

        if (breakpoint_kind(cpu, n) != RW_IO || port + size <= lo || port >= lo + len)
            continue;
        bits |= 1u << n;
        if (breakpoint_enabled(cpu, n))
            enabled |= 1u << n;
    }
    return enabled ? bits : 0;
}

/* ---- MOV DR ---------------------------------------------------------------------------------- */

/* Which register, with all checks. DR4 and DR5 are DR6 and DR7 unless CR4.DE. */
static unsigned check_access(struct cpu *cpu, unsigned n)
{
    if (n > 7 || ((n == 4 || n == 5) && cpu->cr4 & CR4_DE))
        cpu_raise(cpu, VECTOR_UD);
    require_cpl0(cpu);
    if (cpu->dr[7] & DR7_GD)
        cpu_raise_debug(cpu, DR6_BD);
    return n == 4 || n == 5 ? n + 2 : n;
}

void sys_mov_from_dr(struct cpu *cpu, const struct insn *insn)
{
    unsigned n = check_access(cpu, insn->op[1].reg);

    opnd_set_gpr(cpu, insn->op[0].reg, in_code64(cpu) ? 8 : 4, cpu->dr[n]);
}

void sys_mov_to_dr(struct cpu *cpu, const struct insn *insn)
{
    unsigned n = check_access(cpu, insn->op[0].reg);
    uint64_t value = opnd_gpr(cpu, insn->op[1].reg, in_code64(cpu) ? 8 : 4);

    if (n >= 6 && value >> 32)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    if (n == 6)
        value = (value & 0xe00f) | DR6_ONES;
    else if (n == 7)
        value = (value & 0xffff23ff) | DR7_ONES;
    cpu->dr[n] = value;
    if (n != 6)
        debug_registers_changed(cpu);
}
