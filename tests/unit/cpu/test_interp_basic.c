/*
 * test_interp_basic.c - blocks: linking, self-modifying code, faults in the middle, counting.
 */
#include "cpu_fixture.h"

static struct cpu_fixture f;

static void setup(void)
{
    fixture_init(&f, FIXTURE_LONG64);
}
static void teardown(void)
{
    fixture_fini(&f);
}

#define CODE(...)                                                                                  \
    static const uint8_t code[] = {__VA_ARGS__};                                                   \
    fixture_load(&f, FIXTURE_CODE, code, sizeof(code))

/* mov ecx, 1000; l: add rax, rcx; dec ecx; jnz l; hlt */
START_TEST(loop_counts)
{
    CODE(0xb9, 0xe8, 3, 0, 0, 0x48, 0x01, 0xc8, 0xff, 0xc9, 0x75, 0xf9, 0xf4);
    uint64_t before = f.cpu->retired;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 500500);
    ck_assert_uint_eq(f.cpu->retired - before, 1 + 3 * 1000 + 1);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 13);
}
END_TEST

/* call f; hlt; f: mov eax, 7; ret -- pushes and pops, indirect return */
START_TEST(call_and_return)
{
    CODE(0xe8, 1, 0, 0, 0, 0xf4, 0xb8, 7, 0, 0, 0, 0xc3);
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 7);
    ck_assert_uint_eq(f.cpu->gpr[RSP], FIXTURE_STACK);
    uint64_t pushed;
    memcpy(&pushed, f.ram + FIXTURE_STACK - 8, 8);
    ck_assert_uint_eq(pushed, FIXTURE_CODE + 5);
}
END_TEST

/* inc eax; inc eax; mov [0xdead0000000], rax; inc eax: the third faults; two have retired */
START_TEST(fault_in_the_middle)
{
    CODE(0xff, 0xc0, 0xff, 0xc0, 0x48, 0x89, 0x03, 0xff, 0xc0, 0xf4);
    f.cpu->gpr[RBX] = 0xdead0000000;
    uint64_t before = f.cpu->retired;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), VECTOR_PF);
    ck_assert_uint_eq(f.cpu->cr2, 0xdead0000000);
    ck_assert_uint_eq(f.cpu->exception.error_code, 2);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 4);
    ck_assert_uint_eq(f.cpu->retired - before, 2);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 2);
}
END_TEST

/* Not canonical: #GP through DS, #SS through the stack; a push leaves RSP. */
START_TEST(canonical_faults)
{
    CODE(0x48, 0x8b, 0x03, 0xf4, 0x50, 0xf4);
    f.cpu->gpr[RBX] = 1ull << 60;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), VECTOR_GP);
    f.cpu->gpr[RSP] = 1ull << 60;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 4), VECTOR_SS);
    ck_assert_uint_eq(f.cpu->gpr[RSP], 1ull << 60);
}
END_TEST

/* jmp rax to a target that is not canonical: #GP at the jump; call rax pushes nothing. */
START_TEST(bad_targets)
{
    CODE(0x90, 0xff, 0xe0, 0x90, 0xff, 0xd0);
    f.cpu->gpr[RAX] = 1ull << 47;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), VECTOR_GP);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 1);
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 3), VECTOR_GP);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 4);
    ck_assert_uint_eq(f.cpu->gpr[RSP], FIXTURE_STACK);
}
END_TEST

/* mov byte [rip+1], 2 patches the immediate of the MOV EAX, 1 behind it, in the same block. */
START_TEST(own_block_modified)
{
    CODE(0xc6, 0x05, 1, 0, 0, 0, 2, 0xb8, 1, 0, 0, 0, 0xf4);
    for (int i = 0; i < 3; i++) {
        fixture_load(&f, FIXTURE_CODE, code, sizeof(code));
        ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
        ck_assert_uint_eq(f.cpu->gpr[RAX], 2);
    }
}
END_TEST

/* A loop that increments the immediate it executes: every iteration sees the new one.
 * l: mov eax, 0; inc byte [rip-11+...]; cmp al, 9; jne l; hlt */
START_TEST(loop_modifies_itself)
{
    CODE(0xb8, 0, 0, 0, 0, 0xfe, 0x05, 0xf6, 0xff, 0xff, 0xff, 0x3c, 9, 0x75, 0xf1, 0xf4);
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 9);
    ck_assert_uint_eq(f.ram[FIXTURE_CODE + 1], 10);
}
END_TEST

/* The caller's link to a block that another store has changed is cut. */
START_TEST(linked_block_modified)
{
    /* jmp +0 ; mov eax, 1; hlt */
    CODE(0xeb, 0, 0xb8, 1, 0, 0, 0, 0xf4);
    for (uint8_t i = 1; i < 5; i++) {
        fixture_load(&f, FIXTURE_CODE + 3, &i, 1);
        ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
        ck_assert_uint_eq(f.cpu->gpr[RAX], i);
    }
}
END_TEST

/* An instruction across a page boundary, whose second half changes by remapping. */
START_TEST(page_crossing)
{
    /* mov eax, imm32 at the last two bytes of a page; hlt */
    static const uint8_t code[] = {0xb8, 0x11, 0x22, 0x33, 0x44, 0xf4};
    fixture_load(&f, FIXTURE_CODE + 0xffe, code, sizeof(code));
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 0xffe), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 0x44332211);
    static const uint8_t other[] = {0x66, 0x77, 0x88, 0xf4};
    fixture_load(&f, 0x50000, other, sizeof(other));
    *fixture_pte(&f, FIXTURE_CODE + 0x1000) += 0x50000 - (FIXTURE_CODE + 0x1000);
    mmu_invlpg(&f.cpu->mmu, FIXTURE_CODE + 0x1000);
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 0xffe), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 0x88776611);
    *fixture_pte(&f, FIXTURE_CODE + 0x1000) = 0;
    mmu_invlpg(&f.cpu->mmu, FIXTURE_CODE + 0x1000);
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 0xffe), VECTOR_PF);
    ck_assert_uint_eq(f.cpu->cr2, FIXTURE_CODE + 0x1000);
    ck_assert_uint_eq(f.cpu->rip, FIXTURE_CODE + 0xffe);
}
END_TEST

/* Other code mapped at the same address: the virtual-PC cache must not serve the old block. */
START_TEST(remapped_code)
{
    static const uint8_t one[] = {0xb8, 1, 0, 0, 0, 0xf4}, two[] = {0xb8, 2, 0, 0, 0, 0xf4};
    fixture_load(&f, 0x50000, one, sizeof(one));
    fixture_load(&f, 0x51000, two, sizeof(two));
    ck_assert_int_eq(fixture_run(&f, 0x50000), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 1);
    *fixture_pte(&f, 0x50000) += 0x1000;
    mmu_invlpg(&f.cpu->mmu, 0x50000);
    ck_assert_int_eq(fixture_run(&f, 0x50000), FIXTURE_HALTED);
    ck_assert_uint_eq(f.cpu->gpr[RAX], 2);
}
END_TEST

/* DIV: overflow and zero raise with nothing changed. */
START_TEST(divide_errors)
{
    CODE(0x48, 0xf7, 0xf3, 0xf4, 0x48, 0xf7, 0xfb, 0xf4);
    f.cpu->gpr[RDX] = 5;
    f.cpu->gpr[RAX] = 1;
    f.cpu->gpr[RBX] = 5;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), VECTOR_DE);
    ck_assert_uint_eq(f.cpu->gpr[RDX], 5);
    f.cpu->gpr[RBX] = 6;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
    f.cpu->gpr[RDX] = 1ull << 63; /* -2^127 / -1 */
    f.cpu->gpr[RAX] = 0;
    f.cpu->gpr[RBX] = ~0ull;
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE + 4), VECTOR_DE);
}
END_TEST

/* Without DR7 and friends the stack pointer of POP [RSP] is the incremented one. */
START_TEST(pop_to_rsp_based_memory)
{
    CODE(0x6a, 0x55, 0x8f, 0x44, 0x24, 0x08, 0xf4); /* push 55h; pop [rsp+8] */
    ck_assert_int_eq(fixture_run(&f, FIXTURE_CODE), FIXTURE_HALTED);
    ck_assert_uint_eq(f.ram[FIXTURE_STACK + 8], 0x55);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("interp_basic");
    TCase *t = tcase_create("blocks");
    tcase_set_timeout(t, 30);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, loop_counts);
    tcase_add_test(t, call_and_return);
    tcase_add_test(t, fault_in_the_middle);
    tcase_add_test(t, canonical_faults);
    tcase_add_test(t, bad_targets);
    tcase_add_test(t, own_block_modified);
    tcase_add_test(t, loop_modifies_itself);
    tcase_add_test(t, linked_block_modified);
    tcase_add_test(t, page_crossing);
    tcase_add_test(t, remapped_code);
    tcase_add_test(t, divide_errors);
    tcase_add_test(t, pop_to_rsp_based_memory);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
