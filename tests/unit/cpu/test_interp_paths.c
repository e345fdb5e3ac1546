/*
 * test_interp_paths.c - the fast handlers against the plain semantics: random programs run once in
 * blocks and once an instruction at a time, and must leave the same registers, flags, memory,
 * faults and counts.
 *
 * The plain semantics themselves are judged by the host (tests/oracle). What this finds is a
 * handler that lowers wrongly, flags that were taken for dead, and lost precision at faults.
 * Programs are random bytes that decode, with short forward branches; they may modify themselves.
 */
#include "cpu_fixture.h"
#include <stdio.h>

enum { KEPT = 1 << 20, PROGRAM = 40, STEPS = 400 };

static struct cpu_fixture f;
static uint8_t *kept; /* low memory before each run */
static uint64_t seed;

static uint64_t random64(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull;
}

/* Behind the CPU's back, so it is told. */
static void restore(void)
{
    memcpy(f.ram, kept, KEPT);
    interp_code_stale(f.cpu, 0, KEPT);
}

struct outcome {
    int vector;
    uint64_t gpr[16], rip, rflags, retired, cr2;
    uint32_t error;
    union vreg ymm[16];
    struct x87 x87;
    uint8_t *memory;
};

static uint64_t code_at(enum fixture_mode mode)
{
    return mode == FIXTURE_REAL16 ? 0x7c00 : FIXTURE_CODE;
}

/* A value that is likely to be an operand worth having: an address in the data, a small or an
 * extreme number. */
static uint64_t interesting(enum fixture_mode mode)
{
    uint64_t v = random64();
    switch (random64() % 6) {
    case 0:
        return v & 0xff;
    case 1:
        return 1ull << (v & 63);
    case 2:
        return v;
    case 3:
        return -(v & 0xff);
    default: /* around the data, page boundaries included */
        return (mode == FIXTURE_REAL16 ? 0x9000 : FIXTURE_DATA) + (v & 0x3fff);
    }
}

static bool wanted(const struct insn *insn)
{
    return !(insn->row->attr & (INSN_SYSTEM | INSN_CPL0 | INSN_RAND));
}

/* Instructions that decode, from random opcodes with the usual prefixes made likely. */
static void make_program(enum fixture_mode mode, uint8_t *code, unsigned size)
{
    unsigned bits = mode == FIXTURE_LONG64 ? 64 : mode == FIXTURE_FLAT32 ? 32 : 16, len = 0;
    static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x64};
    while (len + 16 < size) {
        uint8_t bytes[16];
        struct insn insn;
        unsigned n = 0;
        for (unsigned i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)random64();
        if (random64() % 4 == 0)
            bytes[n++] = prefixes[random64() % sizeof(prefixes)];
        if (bits == 64 && random64() % 2)
            bytes[n++] = 0x40 | (random64() & 15);
        if (random64() % 4 == 0)
            bytes[n++] = 0x0f;
        if (random64() % 8 == 0) { /* Jcc forward */
            bytes[n] = 0x70 | (random64() & 15);
            bytes[n + 1] = random64() % 24;
        }
        if (insn_decode(bytes, sizeof(bytes), bits, bits == 16, &f.cpu->features, &insn) !=
                DECODE_OK ||
            !wanted(&insn))
            continue;
        memcpy(code + len, bytes, insn.len);
        len += insn.len;
    }
    memset(code + len, 0xf4, size - len);
}

/* The state before a run. 32-bit code is run in compatibility mode, under the same page tables, so
 * that all memory but the data is read-only. */
static void put_state(enum fixture_mode mode, const uint64_t gpr[16], uint64_t rflags)
{
    struct cpu *cpu = f.cpu;
    fixture_reset(&f, mode == FIXTURE_REAL16 ? mode : FIXTURE_LONG64);
    if (mode == FIXTURE_FLAT32)
        cpu->seg[SEG_CS].attr = 0x9b | SEG_ATTR_G | SEG_ATTR_DB;
    memcpy(cpu->gpr, gpr, sizeof(cpu->gpr));
    for (unsigned i = 0; i < 16; i++)
        for (unsigned j = 0; j < 4; j++)
            cpu->ymm[i].q[j] = gpr[(i + j) & 15];
    cpu->x87.fcw = 0x37f;
    cpu->x87.ftw = 0xffff;
    cpu->exception.error_code = 0;
    cpu_set_rflags(cpu, rflags | RFLAGS_FIXED);
    cpu->rip = cpu->next_rip = code_at(mode);
    cpu->activity = CPU_RUNNING;
    cpu_mode_update(cpu);
}

static void run(enum fixture_mode mode, const uint64_t gpr[16], uint64_t rflags, bool single,
                struct outcome *o)
{
    struct cpu *cpu = f.cpu;
    put_state(mode, gpr, rflags);
    o->vector = fixture_run_as(&f, code_at(mode), single);
    memcpy(o->gpr, cpu->gpr, sizeof(o->gpr));
    o->rip = cpu->rip;
    o->rflags = cpu_rflags(cpu);
    o->retired = cpu->retired;
    o->cr2 = cpu->cr2;
    o->error = cpu->exception.has_error ? cpu->exception.error_code : 0;
    memcpy(o->ymm, cpu->ymm, sizeof(o->ymm));
    o->x87 = cpu->x87;
    memcpy(o->memory, f.ram, KEPT);
    restore();
}

static const char *difference(const struct outcome *a, const struct outcome *b)
{
    static char text[200];
    for (unsigned i = 0; i < 16; i++)
        if (a->gpr[i] != b->gpr[i]) {
            snprintf(text, sizeof(text), "register %u: plain %#llx, blocks %#llx", i,
                     (unsigned long long)a->gpr[i], (unsigned long long)b->gpr[i]);
            return text;
        }
#define FIELD(name)                                                                                \
    if (a->name != b->name) {                                                                      \
        snprintf(text, sizeof(text), #name ": plain %#llx, blocks %#llx",                          \
                 (unsigned long long)a->name, (unsigned long long)b->name);                        \
        return text;                                                                               \
    }
    FIELD(vector)
    FIELD(rip)
    FIELD(rflags)
    FIELD(retired)
    FIELD(error) FIELD(cr2) if (memcmp(a->ymm, b->ymm, sizeof(a->ymm))) return "vector registers";
    if (memcmp(&a->x87, &b->x87, sizeof(a->x87)))
        return "x87";
    for (unsigned i = 0; i < KEPT; i++)
        if (a->memory[i] != b->memory[i]) {
            snprintf(text, sizeof(text), "memory at %#x: plain %#x, blocks %#x", i, a->memory[i],
                     b->memory[i]);
            return text;
        }
    return NULL;
}

/* Does the program end by itself, and stay away from system instructions? (A branch into the middle
 * of an instruction can meet any.) Others cannot be compared. */
static bool comparable(enum fixture_mode mode, const uint64_t gpr[16], uint64_t rflags)
{
    struct cpu *cpu = f.cpu;
    unsigned bits = mode == FIXTURE_LONG64 ? 64 : mode == FIXTURE_FLAT32 ? 32 : 16;
    volatile bool ended = false;
    put_state(mode, gpr, rflags);
    if (sigsetjmp(f.unwind, 0) == 0) {
        for (unsigned n = 0; n < STEPS && !ended; n++) {
            struct insn insn;
            if (cpu->rip < KEPT &&
                insn_decode(f.ram + cpu->rip, 15, bits, bits == 16, &cpu->features, &insn) ==
                    DECODE_OK &&
                !wanted(&insn) && strcmp(insn.row->mnemonic, "hlt"))
                break;
            interp_run(cpu, true);
            cpu->rip = cpu->next_rip;
            ended = cpu->activity == CPU_HALTED;
        }
    } else {
        ended = true;
    }
    restore();
    return ended;
}

/* For the report of a difference: the instructions that are executed. */
static void trace(enum fixture_mode mode, const uint64_t gpr[16], uint64_t rflags)
{
    struct cpu *cpu = f.cpu;
    unsigned bits = mode == FIXTURE_LONG64 ? 64 : mode == FIXTURE_FLAT32 ? 32 : 16;
    put_state(mode, gpr, rflags);
    for (unsigned r = 0; r < 16; r++)
        fprintf(stderr, "  r%u %#llx\n", r, (unsigned long long)gpr[r]);
    if (sigsetjmp(f.unwind, 0))
        goto blocks;
    for (unsigned n = 0; n < STEPS && cpu->activity == CPU_RUNNING; n++) {
        char text[128];
        insn_disassemble(f.ram + cpu->rip, 15, bits, cpu->rip, text, sizeof(text));
        fprintf(stderr, "  %5llx flags %03llx %s\n", (unsigned long long)cpu->rip,
                (unsigned long long)cpu_rflags(cpu), text);
        interp_run(cpu, true);
        cpu->rip = cpu->next_rip;
    }
blocks:
    restore();
    put_state(mode, gpr, rflags);
    f.log.mask = LOG_EXEC | LOG_IN_ASM;
    fixture_run(&f, code_at(mode));
    f.log.mask = 0;
}

static void compare(enum fixture_mode mode, unsigned programs, unsigned inputs)
{
    static struct outcome a, b;
    a.memory = malloc(KEPT);
    b.memory = malloc(KEPT);
    kept = malloc(KEPT);
    unsigned compared = 0;
    for (unsigned p = 0; p < programs; p++) {
        uint8_t code[PROGRAM + 16];
        seed = p * 2654435761ull + mode * 97 + 1;
        make_program(mode, code, 16 + random64() % PROGRAM);
        fixture_load(&f, code_at(mode), code, sizeof(code));
        for (unsigned i = 0; i < 0x4000; i++)
            f.ram[(mode == FIXTURE_REAL16 ? 0x9000 : FIXTURE_DATA) + i] = (uint8_t)random64();
        memcpy(kept, f.ram, KEPT);
        for (unsigned i = 0; i < inputs; i++) {
            uint64_t gpr[16], flags = random64() & FLAGS_ARITH;
            for (unsigned r = 0; r < 16; r++) {
                gpr[r] = interesting(mode);
                if (mode != FIXTURE_LONG64)
                    gpr[r] = r < 8 ? (uint32_t)gpr[r] : 0;
            }
            if (random64() % 4)
                gpr[RCX] &= 0x1f;
            if (random64() % 2)
                gpr[RSP] = mode == FIXTURE_REAL16 ? 0xa000 : FIXTURE_DATA + 0x2000;
            if (!comparable(mode, gpr, flags))
                continue;
            fixture_load(&f, code_at(mode), code, sizeof(code));
            run(mode, gpr, flags, true, &a);
            fixture_load(&f, code_at(mode), code, sizeof(code));
            run(mode, gpr, flags, false, &b);
            fixture_load(&f, code_at(mode), code, sizeof(code));
            compared++;
            const char *what = difference(&a, &b);
            if (what) {
                trace(mode, gpr, flags);
                ck_abort_msg("program %u input %u, vector %d at %#llx: %s", p, i, a.vector,
                             (unsigned long long)(a.rip - code_at(mode)), what);
            }
        }
    }
    ck_assert_uint_gt(compared, programs * inputs / 3);
    free(a.memory);
    free(b.memory);
    free(kept);
}

static unsigned programs(void)
{
    const char *n = getenv("BAILEY_TEST_PROGRAMS");
    return n ? (unsigned)strtoul(n, NULL, 0) : 400;
}

static void read_only_outside_data(void)
{
    for (uint64_t page = 0; page < 512; page++)
        if (page < FIXTURE_DATA >> 12 || page >= (FIXTURE_DATA + 0x4000) >> 12)
            *fixture_pte(&f, page << 12) &= ~(uint64_t)FIXTURE_PTE_W;
    uint64_t *pd = (uint64_t *)(f.ram + 0x3000);
    for (unsigned i = 1; i < 4; i++)
        pd[i] = 0;
    mmu_flush_all(&f.cpu->mmu);
}

START_TEST(long_mode)
{
    fixture_init(&f, FIXTURE_LONG64);
    read_only_outside_data();
    compare(FIXTURE_LONG64, programs() * 3, 4);
    fixture_fini(&f);
}
END_TEST

START_TEST(compatibility_mode)
{
    fixture_init(&f, FIXTURE_LONG64);
    read_only_outside_data();
    compare(FIXTURE_FLAT32, programs(), 4);
    fixture_fini(&f);
}
END_TEST

START_TEST(real_mode)
{
    fixture_init(&f, FIXTURE_REAL16);
    compare(FIXTURE_REAL16, programs(), 4);
    fixture_fini(&f);
}
END_TEST

/* Alignment checks take the plain paths everywhere. */
START_TEST(alignment_checked)
{
    fixture_init(&f, FIXTURE_LONG64);
    for (uint64_t page = 0; page < 512; page++)
        *fixture_pte(&f, page << 12) |= FIXTURE_PTE_U;
    for (unsigned i = 1; i < 4; i++)
        *(uint64_t *)(f.ram + i * 0x1000) |= FIXTURE_PTE_U;
    mmu_flush_all(&f.cpu->mmu);
    f.cpu->cr0 |= CR0_AM;
    f.cpu->cpl = 3;
    cpu_set_rflags(f.cpu, RFLAGS_FIXED | RFLAGS_AC);
    cpu_mode_update(f.cpu);
    ck_assert(f.cpu->mode & MODE_ALIGN);
    static const uint8_t code[] = {0x8b, 0x03, 0x8b, 0x43, 0x01, 0xf4};
    fixture_load(&f, FIXTURE_CODE, code, sizeof(code));
    f.cpu->gpr[RBX] = FIXTURE_DATA;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), VECTOR_AC);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 2);
    fixture_fini(&f);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("interp_paths");
    TCase *t = tcase_create("fast against plain");
    tcase_set_timeout(t, 240);
    tcase_add_test(t, long_mode);
    tcase_add_test(t, compatibility_mode);
    tcase_add_test(t, real_mode);
    tcase_add_test(t, alignment_checked);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
