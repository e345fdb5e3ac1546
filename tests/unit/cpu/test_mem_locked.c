/*
 * test_mem_locked.c - LOCK and XCHG are atomic between vCPUs: two threads add to one counter, in a
 * line, across a line, across a page, and on a page whose stores go slow. Breakpoints and wrapping
 * of mem.c.
 */
#include "cpu/mem.h"
#include "cpu_fixture.h"

enum { VCPUS = 2, ROUNDS = 20000 };

static struct cpu_fixture f[VCPUS];
static int results[VCPUS];

static void *run(void *opaque)
{
    struct cpu_fixture *me = opaque;
    exclusive_enter(me->exclusive, me->cpu->index);
    results[me->cpu->index] = fixture_run(me, FIXTURE_CODE);
    exclusive_leave(me->exclusive, me->cpu->index);
    return NULL;
}

static void race(uint64_t counter)
{
    pthread_t threads[VCPUS];
    uint64_t value = 0;
    memset(f[0].ram + counter, 0, 8);
    for (unsigned i = 0; i < VCPUS; i++) {
        f[i].cpu->gpr[RBX] = counter;
        f[i].cpu->gpr[RCX] = ROUNDS;
        pthread_create(&threads[i], NULL, run, &f[i]);
    }
    for (unsigned i = 0; i < VCPUS; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < VCPUS; i++)
        ck_assert_int_eq(results[i], FIXTURE_HALTED);
    memcpy(&value, f[0].ram + counter, 8);
    ck_assert_uint_eq(value, (uint64_t)VCPUS * ROUNDS * 2);
}

START_TEST(counters)
{
    /* l: lock inc qword [rbx]; mov eax, 1; lock xadd [rbx], rax; dec ecx; jnz l; hlt */
    static const uint8_t code[] = {0xf0, 0x48, 0xff, 0x03, 0xb8, 1,    0,    0,    0,   0xf0,
                                   0x48, 0x0f, 0xc1, 0x03, 0xff, 0xc9, 0x75, 0xee, 0xf4};
    for (unsigned i = 0; i < VCPUS; i++) {
        fixture_init_smp(&f[i], FIXTURE_LONG64, i, VCPUS, i ? &f[0] : NULL);
        f[i].cpu->gpr[RSP] = FIXTURE_STACK - i * 0x1000;
    }
    fixture_load(&f[0], FIXTURE_CODE, code, sizeof(code));
    race(FIXTURE_DATA);
    race(FIXTURE_DATA + 0x3c);
    race(FIXTURE_DATA + 0xffd);
    race(FIXTURE_CODE + 0x800); /* a page with decoded code */
    for (unsigned i = VCPUS; i-- > 1;)
        fixture_fini_secondary(&f[i]);
    fixture_fini(&f[0]);
}
END_TEST

static _Atomic bool stop;

static void *store_16(void *opaque)
{
    uint8_t bytes[16];
    for (uint8_t pattern = 0; !stop; pattern++) {
        memset(bytes, pattern, sizeof(bytes));
        mem_write(opaque, SEG_DS, FIXTURE_DATA + 0x10, bytes, 16);
    }
    return NULL;
}

/* Aligned accesses of 16 bytes are atomic, as a processor with AVX promises (SDM vol. 3, 9.1.1). */
START_TEST(aligned_16)
{
    pthread_t thread;
    unsigned torn = 0;
    for (unsigned i = 0; i < VCPUS; i++)
        fixture_init_smp(&f[i], FIXTURE_LONG64, i, VCPUS, i ? &f[0] : NULL);
    stop = false;
    pthread_create(&thread, NULL, store_16, f[1].cpu);
    for (unsigned n = 0; n < 5000000; n++) {
        uint64_t seen[2];
        mem_read(f[0].cpu, SEG_DS, FIXTURE_DATA + 0x10, seen, 16);
        torn += seen[0] != seen[1];
    }
    stop = true;
    pthread_join(thread, NULL);
    ck_assert_uint_eq(torn, 0);
    for (unsigned i = VCPUS; i-- > 1;)
        fixture_fini_secondary(&f[i]);
    fixture_fini(&f[0]);
}
END_TEST

/* cmpxchg on a page that may not be written faults as a write, also when it would not store; xchg
 * too. */
START_TEST(permission)
{
    struct cpu_fixture g;
    /* cmpxchg [rbx], ecx; hlt; xchg [rbx], ecx */
    static const uint8_t code[] = {0x0f, 0xb1, 0x0b, 0xf4, 0x87, 0x0b, 0xf4};
    fixture_init(&g, FIXTURE_LONG64);
    fixture_load(&g, FIXTURE_CODE, code, sizeof(code));
    *fixture_pte(&g, FIXTURE_DATA) &= ~(uint64_t)FIXTURE_PTE_W;
    mmu_invlpg(&g.cpu->mmu, FIXTURE_DATA);
    g.cpu->gpr[RBX] = FIXTURE_DATA;
    g.cpu->gpr[RAX] = 1;
    g.cpu->gpr[RCX] = 2;
    ck_assert_int_eq(fixture_run(&g, FIXTURE_CODE), VECTOR_PF);
    ck_assert_uint_eq(g.cpu->exception.error_code, 3);
    ck_assert_int_eq(fixture_run(&g, FIXTURE_CODE + 4), VECTOR_PF);
    ck_assert_uint_eq(g.cpu->exception.error_code, 3);
    ck_assert_uint_eq(g.cpu->gpr[RAX], 1);
    ck_assert_uint_eq(g.cpu->gpr[RCX], 2);
    fixture_fini(&g);
}
END_TEST

/* A write across two pages, the second of which refuses: not a byte is stored. */
START_TEST(crossing_write)
{
    struct cpu_fixture g;
    static const uint8_t code[] = {0x48, 0x89, 0x03, 0xf4}; /* mov [rbx], rax */
    fixture_init(&g, FIXTURE_LONG64);
    fixture_load(&g, FIXTURE_CODE, code, sizeof(code));
    *fixture_pte(&g, FIXTURE_DATA + 0x1000) &= ~(uint64_t)FIXTURE_PTE_W;
    mmu_invlpg(&g.cpu->mmu, FIXTURE_DATA + 0x1000);
    memset(g.ram + FIXTURE_DATA, 0x11, 0x2000);
    g.cpu->gpr[RBX] = FIXTURE_DATA + 0xffd;
    ck_assert_int_eq(fixture_run(&g, FIXTURE_CODE), VECTOR_PF);
    ck_assert_uint_eq(g.cpu->cr2, FIXTURE_DATA + 0x1000);
    ck_assert_uint_eq(g.ram[FIXTURE_DATA + 0xffd], 0x11);
    g.cpu->gpr[RBX] = FIXTURE_DATA + 0xff8;
    ck_assert_int_eq(fixture_run(&g, FIXTURE_CODE), FIXTURE_HALTED);
    fixture_fini(&g);
}
END_TEST

/* DR0 watches four bytes for writes, DR1 one byte for any access. */
START_TEST(data_breakpoints)
{
    struct cpu_fixture g;
    uint32_t value = 0;
    fixture_init(&g, FIXTURE_LONG64);
    g.cpu->dr[0] = FIXTURE_DATA;
    g.cpu->dr[1] = FIXTURE_DATA + 0x10;
    g.cpu->dr[7] = 1 | 4 | 0xdu << 16 | 0x3u << 20;
    g.cpu->data_breakpoints = true;
    struct mmu_range ranges[2] = {{FIXTURE_DATA, FIXTURE_DATA + 4},
                                  {FIXTURE_DATA + 0x10, FIXTURE_DATA + 0x11}};
    mmu_set_watch(&g.cpu->mmu, ranges, 2);
    mem_read(g.cpu, SEG_DS, FIXTURE_DATA, &value, 4);
    ck_assert_uint_eq(g.cpu->debug_pending, 0);
    mem_write(g.cpu, SEG_DS, FIXTURE_DATA + 4, &value, 4);
    ck_assert_uint_eq(g.cpu->debug_pending, 0);
    mem_write(g.cpu, SEG_DS, FIXTURE_DATA + 3, &value, 4);
    ck_assert_uint_eq(g.cpu->debug_pending, 1);
    mem_read(g.cpu, SEG_DS, FIXTURE_DATA + 0xe, &value, 4);
    ck_assert_uint_eq(g.cpu->debug_pending, 3);
    fixture_fini(&g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("mem_locked");
    TCase *t = tcase_create("memory");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, counters);
    tcase_add_test(t, aligned_16);
    tcase_add_test(t, permission);
    tcase_add_test(t, crossing_write);
    tcase_add_test(t, data_breakpoints);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
