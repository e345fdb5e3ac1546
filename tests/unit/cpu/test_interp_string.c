/*
 * test_interp_string.c - REP strings: overlaps, directions, page edges, faults in the middle,
 * interrupts between, each against a byte-by-byte model.
 */
#include "cpu_fixture.h"

static struct cpu_fixture f;
enum { AREA = 0x8000 }; /* of the model, from FIXTURE_DATA on */
static uint8_t model[AREA];

static void setup(void)
{
    fixture_init(&f, FIXTURE_LONG64);
}
static void teardown(void)
{
    fixture_fini(&f);
}

static void fill(void)
{
    for (unsigned i = 0; i < AREA; i++)
        model[i] = (uint8_t)(i * 7 + (i >> 8));
    memcpy(f.ram + FIXTURE_DATA, model, AREA);
}

/* rep movs/stos of `size` bytes, optionally behind std; hlt */
static void load_rep(uint8_t opcode, unsigned size, bool down)
{
    uint8_t code[8], n = 0;
    code[n++] = down ? 0xfd : 0xfc;
    if (size == 2)
        code[n++] = 0x66;
    code[n++] = 0xf3;
    if (size == 8)
        code[n++] = 0x48;
    code[n++] = (uint8_t)(opcode | (size > 1));
    code[n++] = 0xf4;
    fixture_load(&f, FIXTURE_CODE, code, n);
}

static void model_movs(unsigned from, unsigned to, unsigned count, unsigned size, bool down)
{
    for (; count; count--) {
        uint8_t element[8];
        memcpy(element, model + from, size);
        memcpy(model + to, element, size);
        from += down ? -size : size;
        to += down ? -size : size;
    }
}

START_TEST(overlapping_copies)
{
    static const unsigned starts[] = {0x1000, 0x1001, 0x1ff8, 0x1ffd, 0x2003};
    static const int distances[] = {-4096, -9, -8, -1, 0, 1, 2, 3, 5, 8, 16, 100, 4096, 4099};
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned d = 0; d < sizeof(distances) / sizeof(int) * 2; d++)
            for (unsigned s = 0; s < sizeof(starts) / sizeof(int); s++) {
                bool down = d & 1;
                unsigned from = starts[s] + (down ? 0x2000 : 0x1000), count = 900;
                unsigned to = (unsigned)((int)from + distances[d / 2]);
                fill();
                model_movs(from, to, count, size, down);
                load_rep(0xa4, size, down);
                f.cpu->gpr[RSI] = FIXTURE_DATA + from;
                f.cpu->gpr[RDI] = FIXTURE_DATA + to;
                f.cpu->gpr[RCX] = count;
                ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
                ck_assert_msg(!memcmp(model, f.ram + FIXTURE_DATA, AREA),
                              "size %u from %#x to %#x %s", size, from, to, down ? "down" : "up");
                int64_t moved = (int64_t)(count * size) * (down ? -1 : 1);
                ck_assert_uint_eq(f.cpu->gpr[RSI], FIXTURE_DATA + from + moved);
                ck_assert_uint_eq(f.cpu->gpr[RDI], FIXTURE_DATA + to + moved);
                ck_assert_uint_eq(f.cpu->gpr[RCX], 0);
            }
}
END_TEST

START_TEST(fills)
{
    for (unsigned size = 1; size <= 8; size *= 2)
        for (unsigned start = 0x2000; start < 0x2010; start += 3) {
            unsigned count = 1500;
            fill();
            f.cpu->gpr[RAX] = 0x1122334455667788;
            for (unsigned i = 0; i < count; i++)
                memcpy(model + start + i * size, &f.cpu->gpr[RAX], size);
            load_rep(0xaa, size, false);
            f.cpu->gpr[RDI] = FIXTURE_DATA + start;
            f.cpu->gpr[RCX] = count;
            ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
            ck_assert(!memcmp(model, f.ram + FIXTURE_DATA, AREA));
        }
}
END_TEST

/* The third page of the destination is read-only: registers say where it stopped, and what is
 * before it has been written. */
START_TEST(fault_in_the_middle)
{
    fill();
    load_rep(0xa4, 4, false);
    *fixture_pte(&f, FIXTURE_DATA + 0x6000) &= ~(uint64_t)FIXTURE_PTE_W;
    mmu_invlpg(&f.cpu->mmu, FIXTURE_DATA + 0x6000);
    f.cpu->gpr[RSI] = FIXTURE_DATA;
    f.cpu->gpr[RDI] = FIXTURE_DATA + 0x4002;
    f.cpu->gpr[RCX] = 0x1000;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), VECTOR_PF);
    ck_assert_uint_eq(f.cpu->exception.error_code, 3);
    ck_assert_uint_eq(f.cpu->cr2, FIXTURE_DATA + 0x6000);
    uint64_t done = (0x2000 - 2) / 4; /* the element that crosses into the page is not */
    ck_assert_uint_eq(f.cpu->gpr[RCX], 0x1000 - done);
    ck_assert_uint_eq(f.cpu->gpr[RSI], FIXTURE_DATA + done * 4);
    ck_assert_uint_eq(f.cpu->gpr[RDI], FIXTURE_DATA + 0x4002 + done * 4);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 1);
    model_movs(0, 0x4002, (unsigned)done, 4, false);
    ck_assert(!memcmp(model, f.ram + FIXTURE_DATA, AREA));
}
END_TEST

/* One iteration for each step; the instruction counts once. */
START_TEST(single_steps)
{
    fill();
    load_rep(0xa4, 1, false);
    struct cpu *cpu = f.cpu;
    cpu->gpr[RSI] = FIXTURE_DATA;
    cpu->gpr[RDI] = FIXTURE_DATA + 0x4000;
    cpu->gpr[RCX] = 3;
    cpu->rip = cpu->next_rip = FIXTURE_CODE + 1;
    uint64_t before = cpu->retired;
    for (uint64_t left = 3; left-- > 0;) {
        interp_run(cpu, true);
        cpu->rip = cpu->next_rip;
        ck_assert_uint_eq(cpu->gpr[RCX], left);
        ck_assert_uint_eq(cpu->rip, FIXTURE_CODE + (left ? 1 : 3));
    }
    ck_assert_uint_eq(cpu->retired - before, 1);
}
END_TEST

/* A request stops it between pages, at its own address, with the registers of what is done. */
START_TEST(interrupted)
{
    struct cpu *cpu = f.cpu;
    load_rep(0xaa, 1, false);
    cpu->gpr[RDI] = FIXTURE_DATA;
    cpu->gpr[RCX] = 0x5000;
    cpu->rip = cpu->next_rip = FIXTURE_CODE + 1;
    cpu_request(cpu, CPU_REQ_STOP);
    interp_run(cpu, false);
    ck_assert_uint_eq(cpu->gpr[RCX], 0x5000); /* not even begun */
    cpu_withdraw(cpu, CPU_REQ_STOP);
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 1), FIXTURE_HALTED);
    ck_assert_uint_eq(cpu->gpr[RCX], 0);
}
END_TEST

/* repe cmpsb stops behind the difference; repne scasb behind the match; flags are the last
 * compare's. */
START_TEST(searches)
{
    static const uint8_t code[] = {0xfc, 0xf3, 0xa6, 0xf4, 0xfc, 0xf2, 0xae, 0xf4};
    fixture_load(&f, FIXTURE_CODE, code, sizeof(code));
    memset(f.ram + FIXTURE_DATA, 0x5a, 0x4000);
    f.ram[FIXTURE_DATA + 0x1234] = 0x59;
    f.cpu->gpr[RSI] = FIXTURE_DATA;
    f.cpu->gpr[RDI] = FIXTURE_DATA + 0x2000;
    f.cpu->gpr[RCX] = 0x2000;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RCX], 0x2000 - 0x1235);
    ck_assert_uint_eq(cpu_rflags(f.cpu) & (FLAG_CF | FLAG_ZF), FLAG_CF);
    f.cpu->gpr[RAX] = 0x59;
    f.cpu->gpr[RDI] = FIXTURE_DATA;
    f.cpu->gpr[RCX] = 0x2000;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 4), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RDI], FIXTURE_DATA + 0x1235);
    ck_assert_uint_eq(cpu_rflags(f.cpu) & FLAG_ZF, FLAG_ZF);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("interp_string");
    TCase *t = tcase_create("strings");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, overlapping_copies);
    tcase_add_test(t, fills);
    tcase_add_test(t, fault_in_the_middle);
    tcase_add_test(t, single_steps);
    tcase_add_test(t, interrupted);
    tcase_add_test(t, searches);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
