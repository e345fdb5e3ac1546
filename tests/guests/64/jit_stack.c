/*
 * jit_stack.c - PUSH, POP, CALL and accesses by RSP in any order, while constants and other things
 * move it: a translator may look the stack up once for many of them. Random runs of such
 * instructions, near the boundary of two pages that do not lie together, are compared with a model;
 * the pages are there, or one of them is absent or read-only.
 */
#include "any.h"
#include "paging.h"
#include "pieces.h"

#define TWO         WINDOW /* two pages, their frames in the other order */
#define FRAME(n)    (FREE_RAM + 0x100000 - 2 * (n)*PAGE)
#define FRAME_AT(n) ((uint8_t *)(word)FRAME(n))
enum { BYTES = 2 * PAGE, RUNS = 120, LONGEST = 40, PLACES = 3 };

/* ---- What should happen ---------------------------------------------------------------------- */

static struct {
    uint64_t reg[16];
    uint8_t byte[BYTES];
    bool present[2], writable[2];
    bool fault;
    word address;
} model;

static bool may(word at, unsigned size, bool write)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned page = (at + i - TWO) / PAGE;
        if (!model.present[page] || (write && !model.writable[page])) {
            model.fault = true;
            model.address = at + i;
            return false;
        }
    }
    return true;
}

static bool store(word at, uint64_t value, unsigned size)
{
    if (!may(at, size, true))
        return false;
    memcpy(model.byte + (at - TWO), &value, size);
    return true;
}

static bool load(word at, uint64_t *value)
{
    if (!may(at, 8, false))
        return false;
    memcpy(value, model.byte + (at - TWO), 8);
    return true;
}

static bool push(uint64_t value, unsigned size)
{
    if (!store(model.reg[R_RSP] - size, value, size))
        return false;
    model.reg[R_RSP] -= size;
    return true;
}

/* ---- Instructions ---------------------------------------------------------------------------- */

enum kind {
    PUSH,
    POP,
    PUSH_IMM,
    PUSH_16,
    MOVE, /* RSP by a constant */
    LEA,
    STORE,
    LOAD,
    ADD_TO,
    PUSH_FROM,
    CALL,
    RETURN,        /* behind 0 to 3 POPs, to what follows */
    FRAME_POINTER, /* RBP = RSP, RSP moves, RSP = RBP */
    COPY,          /* a register to another one */
    ADDRESS,       /* a register and a constant to another one */
    EXTEND,        /* the low half of a register to another one */
    BLOCK,         /* ends */
    IN_C,
    KINDS
};
struct op {
    enum kind kind;
    unsigned reg;
    int8_t imm;
    word next; /* CALL, RETURN */
};

static struct op any_op(void)
{
    struct op o = {.kind = (enum kind)any(KINDS), .reg = any(15), .imm = (int8_t)any(256)};
    o.reg += o.reg >= R_RSP; /* any but that */
    if (o.kind == MOVE || o.kind == LEA)
        o.imm = (int8_t)(o.imm % 40);
    return o;
}

static unsigned from_register(const struct op *o)
{
    return (unsigned)o->imm & 15;
}

/* Of RETURN, into RCX and those behind it. */
static unsigned pops(const struct op *o)
{
    return (unsigned)o->imm & 3;
}

/* As where functions begin: few registers, RSP among those that are looked at. */
static struct op any_op_of_a_beginning(void)
{
    static const enum kind kinds[] = {PUSH, PUSH, PUSH, PUSH_IMM, COPY, COPY, ADDRESS, EXTEND};
    static const uint8_t regs[] = {R_RBX, R_RBP, 14}, from[] = {R_RBX, R_RSP, 14, R_RDI};
    struct op o = {.kind = any(24) ? kinds[any(8)] : (enum kind)any(KINDS), .reg = regs[any(3)]};
    o.imm = (int8_t)(from[any(4)] | any(2) << 4);
    return o;
}

static void put_code(struct op *o)
{
    uint8_t rex = 0x48 | (o->reg >> 3) << 2, mem = (uint8_t)(0x44 | (o->reg & 7) << 3);
    uint8_t imm = (uint8_t)o->imm;
    unsigned from = from_register(o);
#define CODE(...)                                                                                  \
    do {                                                                                           \
        const uint8_t code_[] = {__VA_ARGS__};                                                     \
        put_bytes(code_, sizeof code_);                                                            \
    } while (0)
    switch (o->kind) {
    case PUSH:
        CODE(0x40 | o->reg >> 3, 0x50 | (o->reg & 7));
        break;
    case POP:
        CODE(0x40 | o->reg >> 3, 0x58 | (o->reg & 7));
        break;
    case PUSH_IMM:
        CODE(0x6a, imm);
        break;
    case PUSH_16:
        CODE(0x66, 0x6a, imm);
        break;
    case MOVE:
        CODE(0x48, 0x83, o->reg & 1 ? 0xc4 : 0xec, imm); /* ADD, SUB */
        break;
    case LEA:
        CODE(0x48, 0x8d, 0x64, 0x24, imm);
        break;
    case STORE:
        CODE(rex, 0x89, mem, 0x24, imm);
        break;
    case LOAD:
        CODE(rex, 0x8b, mem, 0x24, imm);
        break;
    case ADD_TO:
        CODE(rex, 0x01, mem, 0x24, imm);
        break;
    case PUSH_FROM:
        CODE(0xff, 0x74, 0x24, imm);
        break;
    case CALL:
        CODE(0xe8, 0, 0, 0, 0);
        o->next = pieces_here();
        break;
    case RETURN: /* LEA RAX, [RIP + ...]; MOV [RSP + ...], RAX */
        CODE(0x48, 0x8d, 0x05, (uint8_t)(5 + pops(o) + 1), 0, 0, 0);
        CODE(0x48, 0x89, 0x44, 0x24, (uint8_t)(8 * pops(o)));
        for (unsigned i = 0; i < pops(o); i++)
            CODE((uint8_t)(0x59 + i));
        CODE(0xc3);
        o->next = pieces_here();
        break;
    case FRAME_POINTER:
        CODE(0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x48, 0x89, 0xec);
        break;
    case COPY:
        CODE(rex | from >> 3, 0x8b, (uint8_t)(0xc0 | (o->reg & 7) << 3 | (from & 7)));
        break;
    case ADDRESS:
        CODE(rex | from >> 3, 0x8d, (uint8_t)(0x40 | (o->reg & 7) << 3 | (from & 7)));
        if ((from & 7) == R_RSP)
            CODE(0x24);
        CODE(imm);
        break;
    case EXTEND:
        CODE(rex | from >> 3, 0x63, (uint8_t)(0xc0 | (o->reg & 7) << 3 | (from & 7)));
        break;
    case BLOCK:
        CODE(0x74, 0);
        break;
    default:
        CODE(0xd9, 0xd0); /* FNOP */
    }
#undef CODE
}

/* False: it faults, and nothing has happened. */
static bool happens(const struct op *o)
{
    uint64_t *reg = model.reg, at = reg[R_RSP] + (uint64_t)(int64_t)o->imm, value;
    switch (o->kind) {
    case PUSH:
        return push(reg[o->reg], 8);
    case POP:
        if (!load(reg[R_RSP], &value))
            return false;
        reg[R_RSP] += 8;
        reg[o->reg] = value;
        return true;
    case PUSH_IMM:
        return push((uint64_t)(int64_t)o->imm, 8);
    case PUSH_16:
        return push((uint64_t)(int64_t)o->imm, 2);
    case MOVE:
        reg[R_RSP] += (uint64_t)(int64_t)(o->reg & 1 ? o->imm : -o->imm);
        return true;
    case LEA:
        reg[R_RSP] = at;
        return true;
    case STORE:
        return store(at, reg[o->reg], 8);
    case LOAD:
        return load(at, &reg[o->reg]);
    case ADD_TO:
        if (!may(at, 8, true))
            return false;
        load(at, &value);
        return store(at, value + reg[o->reg], 8);
    case PUSH_FROM:
        return load(at, &value) && push(value, 8);
    case CALL:
        return push(o->next, 8);
    case RETURN:
        reg[R_RAX] = o->next;
        if (!store(reg[R_RSP] + 8 * pops(o), o->next, 8))
            return false;
        for (unsigned i = 0; i <= pops(o); i++, reg[R_RSP] += 8) {
            if (!load(reg[R_RSP], &value))
                return false;
            if (i < pops(o))
                reg[R_RCX + i] = value;
        }
        return true;
    case FRAME_POINTER:
        reg[R_RBP] = reg[R_RSP];
        return true;
    case COPY:
        reg[o->reg] = reg[from_register(o)];
        return true;
    case ADDRESS:
        reg[o->reg] = reg[from_register(o)] + (uint64_t)(int64_t)o->imm;
        return true;
    case EXTEND:
        reg[o->reg] = (uint64_t)(int64_t)(int32_t)reg[from_register(o)];
        return true;
    default:
        return true;
    }
}

/* ---- Runs of them ---------------------------------------------------------------------------- */

static void map_two(unsigned first, unsigned second)
{
    static const uint64_t rights[] = {PG_ALL, PG_ALL & ~(uint64_t)PG_W, 0};
    paging_reset();
    map_page(TWO, FRAME(0), 1, rights[first]);
    map_page(TWO + PAGE, FRAME(1), 1, rights[second]);
    model.present[0] = first < 2, model.present[1] = second < 2;
    model.writable[0] = first == 0, model.writable[1] = second == 0;
}

static uint8_t pattern[BYTES];

static bool runs_wrongly(const struct op *op, unsigned count, word code, word sp)
{
    struct context c = any_stack();
    for (unsigned n = 0; n < 16; n++)
        *register_of(&c, n) = model.reg[n] = n * 0x0101010101010101ull + any(256);
    c.rsp = model.reg[R_RSP] = sp;
    c.rip = code;
    memcpy(model.byte, pattern, BYTES);
    memcpy(FRAME_AT(0), model.byte, PAGE);
    memcpy(FRAME_AT(1), model.byte + PAGE, PAGE);
    model.fault = false;
    for (unsigned i = 0; i < count && happens(&op[i]); i++)
        ;
    struct trap t = RUN(c);
    bool bad = t.vector != (model.fault ? V_PF : V_BP) || (model.fault && t.cr2 != model.address);
    for (unsigned n = 0; n < 16; n++)
        bad |= register_at_trap(&t, n) != model.reg[n];
    bad |= memcmp(FRAME_AT(0), model.byte, PAGE) != 0;
    bad |= memcmp(FRAME_AT(1), model.byte + PAGE, PAGE) != 0;
    if (!bad)
        return false;
    print("  from RSP %lx, vector %lx, address %lx (not %lx), RSP %lx (not %lx):", sp, t.vector,
          t.cr2, model.fault ? model.address : 0, (word)t.rsp, (word)model.reg[R_RSP]);
    for (unsigned i = 0; i < count; i++)
        print(" %u/%u/%x", op[i].kind, op[i].reg, (unsigned)(uint8_t)op[i].imm);
    print("\n");
    return true;
}

/* Each run several times, from elsewhere each time: what has been made for one place meets others.
 */
static void compare(unsigned first, unsigned second)
{
    struct op op[LONGEST];
    unsigned bad = 0;
    map_two(first, second);
    write_cr0(read_cr0() | CR0_WP);
    for (unsigned i = 0; i < BYTES; i++)
        pattern[i] = (uint8_t)(i * 7 + (i >> 8));
    for (unsigned n = 0; n < RUNS && bad < 5; n++) {
        unsigned count = 2 + any(LONGEST - 1);
        pieces_begin_sized(LONGEST * 16 + 1);
        word code = pieces_here();
        for (unsigned i = 0; i < count; i++) {
            op[i] = n & 1 ? any_op() : any_op_of_a_beginning();
            put_code(&op[i]);
        }
        put_bytes("\xcc", 1);
        for (unsigned i = 0; i < PLACES; i++)
            bad += runs_wrongly(op, count, code, TWO + PAGE - 600 + (i == 2 ? 900 : any(1200)));
    }
    CHECK_EQ(bad, 0);
}

TEST(both_pages_there)
{
    vectors_on();
    compare(0, 0);
}

/* Of what shares a lookup each word comes to lie over the boundary. */
static void around_the_boundary(struct op *op, unsigned count)
{
    unsigned bad = 0;
    pieces_begin_sized(256);
    word code = pieces_here();
    for (unsigned i = 0; i < count; i++)
        put_code(&op[i]);
    put_bytes("\xcc", 1);
    for (int d = -40; d <= 40; d += 4)
        bad += runs_wrongly(op, count, code, TWO + PAGE + (word)d);
    CHECK_EQ(bad, 0);
}
TEST(runs_over_the_boundary)
{
    for (unsigned pages = 0; pages < 4; pages++) {
        map_two(pages & 1 ? 2 : 0, pages & 2 ? 2 : 0);
        for (int8_t n = 0; n < 4; n++)
            around_the_boundary(&(struct op){.kind = RETURN, .imm = n}, 1);
        struct op begin[] = {{.kind = PUSH, .reg = 14}, {.kind = COPY, .reg = 14, .imm = R_RDI},
                             {.kind = PUSH, .reg = 12}, {.kind = EXTEND, .reg = 12, .imm = R_RSI},
                             {.kind = PUSH, .reg = 3},  {.kind = ADDRESS, .reg = 3, .imm = 14}};
        around_the_boundary(begin, 6);
    }
}
TEST(lower_page_absent)
{
    compare(2, 0);
}
TEST(upper_page_absent)
{
    compare(0, 2);
}
TEST(lower_page_read_only)
{
    compare(1, 0);
}
TEST(upper_page_read_only)
{
    compare(0, 1);
}

/* ---- What no group may cover ------------------------------------------------------------------
 */

/* The last piece faults at `address`, also when it is met again. */
static void faults_in_the_end(struct piece begin, struct piece middle, unsigned middles,
                              struct piece last, word sp, word address)
{
    pieces_begin_sized(256);
    word code = pieces_here();
    put(begin);
    for (unsigned i = 0; i < middles; i++)
        put(middle);
    word at = pieces_here();
    put(last);
    put_bytes("\xcc", 1);
    for (unsigned i = 0; i < 4; i++) {
        struct context c = any_stack();
        c.rsp = sp, c.rip = code;
        struct trap t = RUN(c);
        CHECK_EQ(t.vector, V_PF);
        CHECK_EQ(t.cr2, address);
        CHECK_EQ(t.rip, at);
    }
}

/* Too far away to be seen from the loads, which may be made. */
TEST(a_store_far_behind_loads)
{
    map_two(1, 1);
    write_cr0(read_cr0() | CR0_WP);
    faults_in_the_end(PIECE("mov rax, [rsp]; mov rbx, [rsp+8]"), PIECE("lea rcx, [rcx+1]"), 30,
                      PIECE("mov [rsp+8], rax"), TWO + 512, TWO + 520);
    faults_in_the_end(PIECE("pop rax; pop rbx"), PIECE("lea rcx, [rcx+1]"), 30, PIECE("push rax"),
                      TWO + 512, TWO + 520);
}

/* The same number of bytes above RSP, which has moved. */
TEST(elsewhere_by_the_same_displacement)
{
    map_two(0, 2);
    faults_in_the_end(PIECE("mov rax, [rsp]; mov rbx, [rsp+8]; sub rsp, 0x180"), PIECE("nop"), 1,
                      PIECE("mov rcx, [rsp+0x300]"), TWO + PAGE - 0x100, TWO + PAGE + 0x80);
    faults_in_the_end(PIECE("mov rax, [rsp]; mov rbx, [rsp+8]; lea rsp, [rsp+0x180]"), PIECE("nop"),
                      1, PIECE("mov rcx, [rsp]"), TWO + PAGE - 0x100, TWO + PAGE + 0x80);
    faults_in_the_end(PIECE("mov rax, [rsp]; mov rbx, [rsp+8]"), PIECE("pop rcx"), 3,
                      PIECE("mov rcx, [rsp]"), TWO + PAGE - 24, TWO + PAGE);
}

const struct test guest_tests[] = {T(a_store_far_behind_loads),
                                   T(elsewhere_by_the_same_displacement),
                                   T(both_pages_there),
                                   T(runs_over_the_boundary),
                                   T(lower_page_absent),
                                   T(upper_page_absent),
                                   T(lower_page_read_only),
                                   T(upper_page_read_only),
                                   {0, 0}};
