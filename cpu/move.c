/*
 * move.c - one access, described before it is made (move.h).
 */
#include "cpu/move.h"
#include "cpu/interp/execute.h"
#include "cpu/mem_inline.h"
#include "cpu/mem_internal.h"
#include "cpu/opnd.h"
#include "cpu/sys/internal.h"
#include "insn_exec.h"

static bool is_register(const struct opnd *op)
{
    return op->kind == OPND_GPR || op->kind == OPND_GPR8H;
}

static bool fits(const struct opnd *op)
{
    return op->kind == OPND_MEM &&
           (op->size == 1 || op->size == 2 || op->size == 4 || op->size == 8);
}

bool move_is_plain(const struct insn *insn)
{
    const struct opnd *to = &insn->op[0], *from = &insn->op[1];
    unsigned exec = insn->row->exec;
    if (insn->code != 64 || (exec != EXEC_mov && exec != EXEC_movzx && exec != EXEC_movsx))
        return false;
    if (is_register(to))
        return fits(from);
    return fits(to) && (is_register(from) || from->kind == OPND_IMM);
}

static bool loads(const struct insn *insn)
{
    return insn->op[1].kind == OPND_MEM;
}

bool move_describe(struct cpu *cpu, const struct insn *insn, enum move_fault fault,
                   struct guard_move *move)
{
    bool load = loads(insn);
    unsigned size = insn->op[load].size;
    enum mmu_priv priv = (enum mmu_priv)cpu->priv;
    if (!(cpu->mode & MODE_CODE64) || cpu->mode & MODE_ALIGN)
        return false;
    uint64_t lin = mem_effective(cpu, insn) + cpu->seg_base[insn->mem.seg];
    if (!is_canonical(lin) || (lin & ~PAGE_MASK) + size > PAGE_SIZE)
        return false;
    move->insn = insn;
    move->kind = load ? ACCESS_READ : ACCESS_WRITE;
    move->access = mem_access(cpu, priv);
    move->access.gva = lin;
    move->value = load ? 0 : opnd_read(cpu, insn, 1);
    if (mmu_translate(&cpu->mmu, &move->access, lin, move->kind, priv, &move->x) != MMU_OK) {
        if (fault == MOVE_RAISES)
            cpu_raise_page_fault(cpu, lin, move->x.walk.error_code);
        return false;
    }
    move->piece = (struct guard_piece){move->x.gpa, size};
    /* A store to a table that rules follow has to be alone. */
    return load || !move->x.ruled ||
           !rules_follows(phys_rules(cpu->map), &move->access, move->x.gpa);
}

void move_finish(struct cpu *cpu, const struct guard_move *move)
{
    const struct insn *insn = move->insn;
    unsigned size = move->piece.size;
    uint64_t value = move->value;
    mem_check_breakpoints(cpu, move->access.gva, size, move->kind);
    if (move->kind == ACCESS_WRITE)
        return;
    if (insn->row->exec == EXEC_movsx)
        value = (uint64_t)((int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size));
    opnd_write(cpu, insn, 0, value);
}

static void make(struct cpu *cpu, struct guard_move *move)
{
    struct access access = move->access;
    unsigned size = move->piece.size;
    access.judged = true;
    if (move->kind == ACCESS_READ && move->x.hva)
        move->value = mem_host_load(move->x.hva, size);
    else if (move->kind == ACCESS_READ)
        phys_read(cpu->map, &access, move->x.gpa, &move->value, size);
    else if (move->x.hva)
        mem_host_store(move->x.hva, move->value, size);
    else
        phys_write(cpu->map, &access, move->x.gpa, &move->value, size);
}

void move_execute(struct cpu *cpu, const struct insn *insn)
{
    struct guard_move move;
    if (!move_describe(cpu, insn, MOVE_RAISES, &move)) {
        execute_insn(cpu, insn, NULL);
        return;
    }
    cpu->next_rip = cpu->rip + insn->len;
    if (!move.x.ruled || !guard_wanted(cpu, &move.access, move.x.gpa, move.piece.size, move.kind))
        make(cpu, &move);
    else if (!guard_move(cpu, &move))
        return;
    move_finish(cpu, &move);
}
