/*
 * stack.c - pushing frames and popping items, with a stack that need not be the current one.
 *
 * A push of several items either stores all of them or raises: first every item is proved writable,
 * in the order the processor pushes them, so that CR2 and the error code are those of the first
 * that fails.
 */
#include "cpu/sys/internal.h"
#include <string.h>

uint64_t stack_merge(uint64_t rsp, uint64_t sp, uint64_t mask)
{
    if (mask == 0xffff)
        return (rsp & ~0xffffull) | (sp & 0xffff);
    return sp & mask;
}

struct stack stack_current(struct cpu *cpu)
{
    return (struct stack){
        .ss = cpu->seg[SEG_SS],
        .sp = cpu->gpr[RSP],
        .mask = sys_stack_mask(cpu),
        .flat64 = in_code64(cpu),
        .cpl = cpu->cpl,
    };
}

/* Linear address of an item, after the checks of the stack segment. */
static uint64_t item_address(struct cpu *cpu, const struct stack *stack, uint64_t sp, unsigned size)
{
    if (stack->flat64) {
        if (!is_canonical(sp) || !is_canonical(sp + size - 1))
            cpu_raise_error(cpu, VECTOR_SS, stack->error);
        return sp;
    }
    if (!segment_contains(&stack->ss, (uint32_t)sp, size))
        cpu_raise_error(cpu, VECTOR_SS, stack->error);
    return (uint32_t)(stack->ss.base + sp);
}

/* SDM vol. 3, 4.6.1: what code at CPL 0 to 2 pushes is explicit, so AC lets it through SMAP; from
 * CPL 3 a push on an inner stack is implicit. */
static enum mmu_priv push_priv(const struct cpu *cpu, const struct stack *stack)
{
    return stack->cpl == 3 || cpu->cpl != 3 ? (enum mmu_priv)cpu->priv : MMU_SUPERVISOR;
}

static void item_store(struct cpu *cpu, const struct stack *stack, uint64_t lin, const void *bytes,
                       unsigned size)
{
    if (stack->event && stack->cpl != 3)
        mem_event_push(cpu, lin, bytes, size, push_priv(cpu, stack));
    else
        mem_priv_write(cpu, SEG_SS, lin, bytes, size, push_priv(cpu, stack));
}

void stack_push(struct cpu *cpu, struct stack *stack, const uint64_t *items, unsigned count,
                unsigned size)
{
    enum mmu_priv priv = push_priv(cpu, stack);
    uint8_t frame[(31 + 4) * 4]; /* a call gate's 31 parameters */
    uint64_t low, high, sp = stack->sp & stack->mask;
    unsigned bytes = count * size;
    bool contiguous;

    for (unsigned i = 0; i < count; i++)
        memcpy(frame + (count - 1 - i) * size, &items[i], size);
    high = item_address(cpu, stack, (sp - size) & stack->mask, size);
    low = item_address(cpu, stack, (sp - bytes) & stack->mask, size);
    mem_priv_probe_write(cpu, SEG_SS, high, size, priv);
    contiguous = high - low == bytes - size;
    if (!contiguous || (low & PAGE_MASK) != ((high + size - 1) & PAGE_MASK)) {
        for (unsigned i = 2; i <= count; i++) {
            uint64_t lin = item_address(cpu, stack, (sp - i * size) & stack->mask, size);

            mem_priv_probe_write(cpu, SEG_SS, lin, size, priv);
        }
    }
    if (contiguous) { /* one access, across pages, too */
        item_store(cpu, stack, low, frame, bytes);
    } else {
        for (unsigned i = 1; i <= count; i++) {
            uint64_t lin = item_address(cpu, stack, (sp - i * size) & stack->mask, size);

            item_store(cpu, stack, lin, frame + (count - i) * size, size);
        }
    }
    stack->sp = stack_merge(stack->sp, sp - bytes, stack->mask);
}

uint64_t stack_pop(struct cpu *cpu, uint64_t *sp, unsigned size)
{
    uint64_t mask = sys_stack_mask(cpu), value = 0, lin;

    lin = mem_linear(cpu, SEG_SS, *sp & mask, size, ACCESS_READ);
    mem_read(cpu, SEG_SS, lin, &value, size);
    *sp = stack_merge(*sp, *sp + size, mask);
    return value;
}
