/*
 * tss.c - what is read out of the current TSS: inner stacks, IST, the I/O permission bitmap and the
 * interrupt redirection bitmap (SDM vol. 3, 7.2, 7.7; vol. 1, 19.5.2; vol. 3, 20.3.3.4).
 */
#include "cpu/sys/internal.h"

enum { TSS32_IOMAP = 0x66 };

static bool is_tss32(const struct cpu *cpu)
{
    return cpu->tr.attr & SEG_ATTR_P && cpu->tr.attr & 8;
}

static uint64_t tss_address(const struct cpu *cpu, uint32_t offset)
{
    uint64_t lin = cpu->tr.base + offset;

    return in_long(cpu) ? lin : (uint32_t)lin;
}

void tss_inner_stack(struct cpu *cpu, unsigned cpl, bool event, uint16_t *ss, uint64_t *sp)
{
    bool wide = is_tss32(cpu);
    uint32_t offset = wide ? 4 + 8 * cpl : 2 + 4 * cpl, last = offset + (wide ? 5 : 3);

    if (last > cpu->tr.limit)
        cpu_raise_error(cpu, VECTOR_TS, cpu->tr.selector & ~3u);
    *sp = 0;
    mem_sys_read(cpu, tss_address(cpu, offset), sp, wide ? 4 : 2, event);
    mem_sys_read(cpu, tss_address(cpu, offset + (wide ? 4 : 2)), ss, 2, event);
}

uint64_t tss_stack64(struct cpu *cpu, unsigned cpl, unsigned ist, bool event)
{
    uint32_t offset = ist ? 0x24 + 8 * (ist - 1) : 4 + 8 * cpl;
    uint64_t rsp;

    if (offset + 7 > cpu->tr.limit)
        cpu_raise_error(cpu, VECTOR_TS, cpu->tr.selector & ~3u);
    mem_sys_read(cpu, tss_address(cpu, offset), &rsp, 8, event);
    if (!is_canonical(rsp))
        cpu_raise_error(cpu, VECTOR_SS, 0);
    return rsp;
}

bool tss_io_allowed(struct cpu *cpu, uint16_t port, unsigned size)
{
    uint16_t base, bits;
    uint32_t offset;

    if (!is_tss32(cpu) || cpu->tr.limit < TSS32_IOMAP + 1)
        return false;
    mem_sys_read(cpu, tss_address(cpu, TSS32_IOMAP), &base, 2, false);
    offset = base + port / 8u;
    if (offset + 1 > cpu->tr.limit)
        return false;
    mem_sys_read(cpu, tss_address(cpu, offset), &bits, 2,
                 false); /* always two bytes: SDM says why */
    return (bits >> (port & 7) & ((1u << size) - 1)) == 0;
}

bool tss_int_redirected(struct cpu *cpu, uint8_t vector)
{
    uint16_t base;
    uint32_t offset;
    uint8_t bits;

    if (!is_tss32(cpu) || cpu->tr.limit < TSS32_IOMAP + 1)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    mem_sys_read(cpu, tss_address(cpu, TSS32_IOMAP), &base, 2, false);
    offset = base - 32u + vector / 8u;
    if (base < 32 || offset > cpu->tr.limit)
        cpu_raise_error(cpu, VECTOR_GP, 0);
    mem_sys_read(cpu, tss_address(cpu, offset), &bits, 1, false);
    return !(bits >> (vector & 7) & 1);
}
