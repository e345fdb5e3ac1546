/*
 * x87_fast.c - the frequent x87 instructions, with only the registers that they use.
 *
 * x87_host.c moves the whole state in and out, which costs far more than the instruction. When all
 * exceptions are masked, every register that is read is in use and every one that is pushed is
 * empty, there can be no stack fault and no instruction stops halfway. Then a small stub does:
 *
 *     fnclex if an exception is flagged that the guest's status word, r8, has not
 *     fldcw [rcx]; (fld tbyte [rsi]); (fld tbyte [rdi]); INSN; fnstsw ax; (pushfq; pop r8)
 *     (fstp tbyte [rdi]); (fstp tbyte [rsi]); ret
 *
 * with rdi at ST0, rsi at ST(i) and rdx at the memory operand. The host's flags may stay from one
 * to the next since the guest's are as sticky: FNCLEX takes ten times as long as all the rest. Pops
 * and pushes of the guest's stack are done here, so instructions that pop run in their form that
 * does not where there is one.
 */
#include "cpu/interp/vec_internal.h"
#include "cpu/interp/x87.h"

enum {
    READ_0 = 1 << 0,  /* ST0 goes in ... */
    WRITE_0 = 1 << 1, /* ... and comes back; or what a push produced */
    READ_I = 1 << 2,  /* the same for ST(i), i > 0 */
    WRITE_I = 1 << 3,
    PUSH = 1 << 4,
    POP = 1 << 5,
    POP_TWICE = 1 << 6,
    CONDITIONS = 1 << 7, /* C0, C2 and C3 are results, not only C1 */
    EFLAGS = 1 << 8,
    HOST_POPS = 1 << 9, /* the host's ST0 is gone after the instruction */
    NORMAL = 1 << 10,   /* of other operands than normal numbers some conditions stay as they are */
    FAST = 1 << 15,     /* this instruction can take this way */
};
enum { C1 = 1 << 9, C_ALL = 0x4700 };

/* ---- Which instructions ---------------------------------------------------------------------- */

/* The instruction that the stub contains. */
struct form {
    uint8_t opcode, modrm;
    uint16_t flags;
};

static struct form with_memory(unsigned opcode, unsigned digit)
{
    struct form form = {(uint8_t)opcode, (uint8_t)(digit << 3 | 2 /* [rdx] */), 0};
    switch (opcode) {
    case 0xd8:
    case 0xda:
    case 0xdc:
    case 0xde: /* FADD FMUL FCOM FCOMP FSUB FSUBR FDIV FDIVR */
        form.flags = FAST | READ_0;
        if (digit == 3)
            form.modrm -= 8; /* FCOM */
        form.flags |= digit == 2 ? CONDITIONS : digit == 3 ? CONDITIONS | POP : WRITE_0;
        return form;
    case 0xd9:
    case 0xdd:
        if (digit == 0) /* FLD */
            form.flags = FAST | PUSH | WRITE_0;
        if (digit == 2 || digit == 3) /* FST, FSTP */
            form.flags = FAST | READ_0 | (digit == 3 ? POP : 0);
        if (digit == 3)
            form.modrm -= 8;
        if (digit == 1 && opcode == 0xdd) /* FISTTP */
            form.flags = FAST | READ_0 | POP | HOST_POPS;
        return form;
    default:                          /* DB, DF */
        if (digit == 0 || digit == 5) /* FILD, FLD m80 */
            form.flags = FAST | PUSH | WRITE_0;
        if (digit == 2 || digit == 3) /* FIST, FISTP */
            form.flags = FAST | READ_0 | (digit == 3 ? POP : 0);
        if (digit == 3)
            form.modrm -= 8;
        if (digit == 1 || digit == 7) /* FISTTP, FSTP m80, FISTP m64 */
            form.flags = FAST | READ_0 | POP | HOST_POPS;
        return form;
    }
}

/* Register forms with ST(i): i = 0 stays, others become 1. */
static struct form with_register(unsigned opcode, unsigned modrm)
{
    unsigned digit = modrm >> 3 & 7, i = modrm & 7;
    uint8_t rm = (uint8_t)(modrm & 0xf8) | (i ? 1 : 0);
    uint16_t both = FAST | READ_0 | READ_I;
    switch (opcode) {
    case 0xd8:
        if (digit == 2 || digit == 3)
            return (struct form){0xd8, 0xd0 | (rm & 1), both | CONDITIONS | (digit == 3 ? POP : 0)};
        return (struct form){0xd8, rm, both | WRITE_0};
    case 0xdc:
    case 0xde:
        if (modrm == 0xd9 && opcode == 0xde) /* FCOMPP */
            return (struct form){0xd8, 0xd1, both | CONDITIONS | POP | POP_TWICE};
        if (digit == 2 || digit == 3)
            return (struct form){0, 0, 0};
        return (struct form){0xdc, rm, both | WRITE_I | (opcode == 0xde ? POP : 0)};
    case 0xda:
        if (modrm == 0xe9) /* FUCOMPP */
            return (struct form){0xdd, 0xe1, both | CONDITIONS | POP | POP_TWICE};
        return (struct form){0, 0, 0};
    case 0xdd: /* FUCOM, FUCOMP */
        if (digit == 4 || digit == 5)
            return (struct form){0xdd, 0xe0 | (rm & 1), both | CONDITIONS | (digit == 5 ? POP : 0)};
        return (struct form){0, 0, 0};
    case 0xdb:
    case 0xdf: /* FUCOMI, FCOMI, with DF popping */
        if (digit == 5 || digit == 6)
            return (struct form){0xdb, rm, both | EFLAGS | (opcode == 0xdf ? POP : 0)};
        return (struct form){0, 0, 0};
    default:
        return (struct form){0, 0, 0};
    }
}

/* D9 E0 and above: ST0 alone, ST0 and ST1, and constants. */
static struct form with_nothing(unsigned modrm)
{
    struct form form = {0xd9, (uint8_t)modrm, 0};
    if (modrm == 0xf5 || modrm == 0xf8) /* FPREM1 FPREM */
        form.flags = FAST | READ_0 | READ_I | WRITE_0 | CONDITIONS | NORMAL;
    if (modrm == 0xfd) /* FSCALE */
        form.flags = FAST | READ_0 | READ_I | WRITE_0;
    if (modrm == 0xf1 || modrm == 0xf3 || modrm == 0xf9) /* FYL2X FPATAN FYL2XP1 */
        form.flags = FAST | READ_0 | READ_I | WRITE_I | POP | HOST_POPS;
    if (modrm == 0xf0) /* F2XM1 */
        form.flags = FAST | READ_0 | WRITE_0;
    if (modrm == 0xe0 || modrm == 0xe1 || modrm == 0xfa || modrm == 0xfc)
        form.flags = FAST | READ_0 | WRITE_0; /* FCHS FABS FSQRT FRNDINT */
    if (modrm == 0xe4 || modrm == 0xe5)
        form.flags = FAST | READ_0 | CONDITIONS; /* FTST FXAM */
    if (modrm >= 0xe8 && modrm <= 0xee)
        form.flags = FAST | PUSH | WRITE_0; /* FLD1 ... FLDZ */
    return form;
}

static struct form form_of(const struct insn *insn, unsigned opcode)
{
    if (insn->has_mem)
        return with_memory(opcode, insn->modrm >> 3 & 7);
    if (opcode == 0xd9)
        return with_nothing(insn->modrm);
    return with_register(opcode, insn->modrm);
}

/* ---- Stubs ------------------------------------------------------------------------------------
 */

static unsigned put(uint8_t *code, unsigned len, const char *bytes, unsigned count)
{
    memcpy(code + len, bytes, count);
    return len + count;
}
#define PUT(bytes) (len = put(code, len, bytes, sizeof(bytes) - 1))

static x87_fast_code *make_stub(struct cpu *cpu, const struct form *form)
{
    uint8_t code[64];
    unsigned len = 0, flags = form->flags;
    PUT("\xdf\xe0\x41\xf7\xd0\x44\x21\xc0"); /* fnstsw ax; not r8d; and eax, r8d */
    PUT("\xa8\x7f\x74\x02\xdb\xe2");         /* test al, 7fh; jz over; fnclex */
    PUT("\xd9\x29");                         /* fldcw [rcx] */
    if (flags & READ_I)
        PUT("\xdb\x2e"); /* fld tbyte [rsi] */
    if (flags & READ_0)
        PUT("\xdb\x2f"); /* fld tbyte [rdi] */
    code[len++] = form->opcode;
    code[len++] = form->modrm;
    if (flags & EFLAGS)
        PUT("\x9c\x41\x58\x49\xc1\xe0\x20"); /* pushfq; pop r8; shl r8, 32 */
    PUT("\xdf\xe0\x0f\xb7\xc0");             /* fnstsw ax; movzx eax, ax */
    if (flags & WRITE_0)
        PUT("\xdb\x3f"); /* fstp tbyte [rdi] */
    else if ((flags & READ_0) && !(flags & HOST_POPS))
        PUT("\xdd\xd8"); /* fstp st0 */
    if (flags & WRITE_I)
        PUT("\xdb\x3e"); /* fstp tbyte [rsi] */
    else if (flags & READ_I)
        PUT("\xdd\xd8");
    if (flags & EFLAGS)
        PUT("\x4c\x09\xc0"); /* or rax, r8 */
    PUT("\xc3");
    return (x87_fast_code *)(uintptr_t)vec_arena_add(&cpu->vectors->arena, code, len);
}

/* The i of ST(i), where there is one: with D9 that is ST1. */
static unsigned register_of(const struct insn *insn, unsigned opcode)
{
    return opcode == 0xd9 && insn->modrm >= 0xe0 ? 1 : insn->modrm & 7;
}

static void learn(struct cpu *cpu, const struct insn *insn, unsigned opcode,
                  struct x87_entry *entry)
{
    struct form form = form_of(insn, opcode);
    bool self = !insn->has_mem && register_of(insn, opcode) == 0; /* ST(i) is ST0 */
    if ((form.flags & READ_I) && self) {
        if (form.flags & WRITE_I)
            form.flags |= WRITE_0;
        form.flags &= (uint16_t) ~(READ_I | WRITE_I);
    }
    entry->known = true;
    if (form.flags & FAST)
        entry->fast = make_stub(cpu, &form);
    entry->flags = form.flags;
}

/* ---- Running --------------------------------------------------------------------------------- */

static bool in_use(const struct x87 *x87, unsigned i)
{
    unsigned physical = (x87_top(x87) + i) & 7;
    return (x87->ftw >> physical * 2 & 3) != 3;
}

static bool possible(const struct x87 *x87, unsigned flags, unsigned i)
{
    if ((flags & NORMAL) && (x87_tag_of(x87->st[0]) || x87_tag_of(x87->st[i])))
        return false;
    if ((x87->fcw & X87_EXCEPTIONS) != X87_EXCEPTIONS)
        return false;
    if ((flags & PUSH) && in_use(x87, 7))
        return false;
    if ((flags & READ_0) && !in_use(x87, 0))
        return false;
    return !(flags & READ_I) || in_use(x87, i);
}

static void pop(struct x87 *x87)
{
    x87->ftw |= (uint16_t)(3u << x87_top(x87) * 2);
    x87_rotate_stack(x87, 1);
}

static void push(struct x87 *x87, const uint8_t value[16])
{
    x87_rotate_stack(x87, 7);
    memcpy(x87->st[0], value, 10);
    memset(x87->st[0] + 10, 0, 6);
    x87->ftw &= (uint16_t) ~(3u << x87_top(x87) * 2);
}

/* FXCH, FLD ST(i), FST and FSTP ST(i): no arithmetic, no stub. */
static bool move_registers(struct cpu *cpu, const struct insn *insn, unsigned opcode)
{
    struct x87 *x87 = &cpu->x87;
    unsigned digit = insn->modrm >> 3 & 7, i = insn->modrm & 7;
    bool load = opcode == 0xd9 && digit == 0, exchange = opcode == 0xd9 && digit == 1;
    bool store = opcode == 0xdd && (digit == 2 || digit == 3);
    uint8_t value[16];
    if (!load && !exchange && !store)
        return false;
    if (!in_use(x87, store ? 0 : i) || (load && in_use(x87, 7)) || (exchange && !in_use(x87, 0)))
        return false;
    memcpy(value, x87->st[store ? 0 : i], 16);
    if (exchange)
        memcpy(x87->st[i], x87->st[0], 16);
    x87->fsw &= (uint16_t)~C1;
    if (load) {
        push(x87, value);
        return true;
    }
    memcpy(x87->st[exchange ? 0 : i], value, 16);
    if (store) {
        x87->ftw &= (uint16_t) ~(3u << ((x87_top(x87) + i) & 7) * 2);
        if (digit == 3)
            pop(x87);
    }
    return true;
}

static void restore_control_word(void)
{
    static const uint16_t host = 0x37f;
    __asm__ volatile("fldcw %0" : : "m"(host));
}

bool x87_fast(struct cpu *cpu, const struct insn *insn, const struct opnd *mem)
{
    struct x87 *x87 = &cpu->x87;
    unsigned opcode = insn->bytes[insn->off_modrm - 1], i = register_of(insn, opcode);
    struct x87_entry *entry = &cpu->vectors->x87[opcode & 7][x87_canonical_modrm(insn)];
    if (!entry->known)
        learn(cpu, insn, opcode, entry);
    if (!entry->fast)
        return !mem && move_registers(cpu, insn, opcode);
    unsigned flags = entry->flags;
    if (!possible(x87, flags, i))
        return false;

    uint8_t value[16] = {0}, operand[16];
    bool store = mem && (mem->access & OPND_W);
    if (store)
        vec_prove_store(cpu, insn, mem->size);
    else if (mem)
        vec_read_mem(cpu, insn, operand, mem->size);
    uint64_t result =
        entry->fast(flags & PUSH ? value : x87->st[0], x87->st[i], operand, &x87->fcw, x87->fsw);
    if (x87->fcw != 0x37f)
        restore_control_word();
    if (store)
        vec_write_mem(cpu, insn, operand, mem->size);
    /* FCOMI and its kind leave C1 alone. */
    unsigned conditions = flags & CONDITIONS ? C_ALL : flags & EFLAGS ? 0 : C1;
    x87->fsw =
        (uint16_t)((x87->fsw & ~conditions) | (result & (conditions | X87_EXCEPTIONS | X87_SF)));
    if (flags & PUSH)
        push(x87, value);
    if (flags & POP)
        pop(x87);
    if (flags & POP_TWICE)
        pop(x87);
    if (flags & EFLAGS)
        cpu_set_arith(cpu, (uint32_t)(result >> 32) & FLAGS_ARITH);
    return true;
}
