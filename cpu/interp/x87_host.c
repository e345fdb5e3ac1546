/*
 * x87_host.c - executes x87 instructions on the host, with the guest's stack and control word.
 *
 * The guest's state goes into an FXSAVE image; a stub restores it, executes the instruction (memory
 * operands redirected to a buffer), saves the state and leaves the host's FPU initialised for C:
 *
 *     fxrstor [rdi]; (push rdx; popfq); INSN [rsi]; (pushfq; pop rax); fxsave [rdi]; fninit; ret
 *
 * Unmasked exceptions need no care: the x87 reports them at the *next* waiting instruction, and
 * FXSAVE and FNINIT are none. So the guest's own masks are in force, and what an unmasked exception
 * does to operands and stack is the processor's own doing. The image starts with clear exception
 * flags, hence nothing is pending when the instruction starts. The pointers in the image are zero
 * and are not read back: no host address reaches the guest.
 */
#include "cpu/insn/tables.h"
#include "cpu/interp/vec_internal.h"
#include "cpu/interp/x87.h"

/* The fields of an FXSAVE image that matter here (SDM vol. 1, table 10-2). */
enum { FX_FCW = 0, FX_FSW = 2, FX_FTW = 4, FX_MXCSR = 24, FX_ST = 32 };

static void put16(uint8_t *image, unsigned at, unsigned value)
{
    uint16_t v = (uint16_t)value;
    memcpy(image + at, &v, 2);
}
static unsigned get16(const uint8_t *image, unsigned at)
{
    uint16_t v;
    memcpy(&v, image + at, 2);
    return v;
}

/* ---- Stubs ----------------------------------------------------------------------------------- */

static x87_code *make_stub(struct cpu *cpu, unsigned opcode, unsigned modrm, bool reads_flags,
                           bool writes_flags)
{
    uint8_t code[32];
    unsigned len = 0;
    static const uint8_t restore[] = {0x0f, 0xae, 0x0f}, save[] = {0x0f, 0xae, 0x07, 0xdb, 0xe3};
    memcpy(code, restore, sizeof(restore));
    len += sizeof(restore);
    if (reads_flags) {
        code[len++] = 0x52; /* push rdx */
        code[len++] = 0x9d; /* popfq */
    }
    code[len++] = (uint8_t)opcode;
    code[len++] = (uint8_t)modrm;
    if (writes_flags) {
        code[len++] = 0x9c; /* pushfq */
        code[len++] = 0x58; /* pop rax */
    }
    memcpy(code + len, save, sizeof(save));
    len += sizeof(save);
    code[len++] = 0xc3;
    const void *at = vec_arena_add(&cpu->vectors->arena, code, len);
    if (at)
        return (x87_code *)(uintptr_t)at;
    if (!vec_arena_replace(&cpu->vectors->arena, cpu->vectors->scratch_code, code, len))
        cpu_raise(cpu, VECTOR_UD);
    return (x87_code *)(uintptr_t)cpu->vectors->scratch_code;
}

static x87_code *find_stub(struct cpu *cpu, const struct insn *insn)
{
    const struct insn_row *row = insn->row;
    unsigned opcode = insn->bytes[insn->off_modrm - 1], modrm = x87_canonical_modrm(insn);
    struct x87_entry *entry = &cpu->vectors->x87[opcode & 7][modrm];
    if (entry->full)
        return entry->full;
    x87_code *code = make_stub(cpu, opcode, modrm, row->flags_read, row->flags_written);
    if ((const void *)(uintptr_t)code != cpu->vectors->scratch_code)
        entry->full = code;
    return code;
}

/* ---- State ----------------------------------------------------------------------------------- */

static void to_image(const struct x87 *x87, uint8_t *image)
{
    put16(image, FX_FCW, x87->fcw);
    put16(image, FX_FSW, x87->fsw & ~(X87_EXCEPTIONS | X87_SF | X87_ES | X87_B));
    put16(image, FX_FTW, x87_abridged_tags(x87->ftw));
    memset(image + 6, 0, 18); /* FOP, FIP, FDP */
    uint32_t mxcsr = MXCSR_INIT;
    memcpy(image + FX_MXCSR, &mxcsr, 4);
    memcpy(image + FX_ST, x87->st, sizeof(x87->st));
}

static void from_image(struct x87 *x87, const uint8_t *image)
{
    unsigned sticky = x87->fsw & (X87_EXCEPTIONS | X87_SF);
    x87->fsw = (uint16_t)(get16(image, FX_FSW) | sticky);
    x87->ftw = x87_tags_from_abridged(image[FX_FTW]);
    memcpy(x87->st, image + FX_ST, sizeof(x87->st));
    x87_update_es(x87);
}

/* An unmasked exception other than #P keeps a store from happening (SDM vol. 1, 8.5). */
static bool stored(const struct x87 *x87, const uint8_t *image)
{
    return !(get16(image, FX_FSW) & ~x87->fcw & X87_EXCEPTIONS & ~X87_PE);
}

static void run_full(struct cpu *cpu, const struct insn *insn, const struct opnd *mem)
{
    uint8_t buf[16] = {0};
    uint8_t *image = cpu->vectors->image;
    bool store = mem && (mem->access & OPND_W);
    if (store)
        vec_prove_store(cpu, insn, mem->size);
    else if (mem)
        vec_read_mem(cpu, insn, buf, mem->size);
    uint64_t flags = insn->row->flags_read ? cpu_rflags(cpu) & FLAGS_ARITH : 0;
    x87_code *code = find_stub(cpu, insn);
    to_image(&cpu->x87, image);
    flags = code(image, buf, flags | RFLAGS_FIXED);
    if (store && stored(&cpu->x87, image))
        vec_write_mem(cpu, insn, buf, mem->size);
    from_image(&cpu->x87, image);
    if (insn->row->flags_written)
        cpu_set_arith(cpu, (uint32_t)flags & FLAGS_ARITH);
}

void x87_host(struct cpu *cpu, const struct insn *insn)
{
    const struct opnd *mem = NULL;
    for (unsigned n = 0; n < insn->opnds; n++) {
        if (insn->op[n].kind == OPND_MEM)
            mem = &insn->op[n];
    }
    if (!x87_fast(cpu, insn, mem))
        run_full(cpu, insn, mem);
    x87_note(cpu, insn);
}
