/*
 * test_sys_control.c - control registers, mode bits, segment loads, descriptor-table instructions,
 * flags (cpu/sys/control.c, mode.c, segment.c, tables.c, flagsys.c, fpu.c, misc.c).
 */
#include "sys_fixture.h"

/* The instruction at CODE must raise #GP(0) in long mode at CPL 0 with these RAX and RCX. */
static void refused(const char *hex, uint64_t rax)
{
    fx.cpu->gpr[RAX] = rax;
    run(hex);
    expect_error(VECTOR_GP, 0, 8);
}
#define MOV_CR0_RAX "0f 22 c0"
#define MOV_CR3_RAX "0f 22 d8"
#define MOV_CR4_RAX "0f 22 e0"

START_TEST(cr0_rules)
{
    static const uint64_t bad[] = {
        CR0_PE | CR0_ET,              /* PG off in 64-bit code */
        CR0_PG | CR0_ET,              /* PG without PE */
        CR0_PE | CR0_PG | CR0_NW,     /* NW without CD */
        1ull << 32 | CR0_PE | CR0_PG, /* upper half */
    };

    for (unsigned i = 0; i < 4; i++) {
        enter_long(0);
        refused(MOV_CR0_RAX, bad[i]);
    }
    enter_long(0); /* unknown bits are ignored, ET sticks */
    fx.cpu->gpr[RAX] = CR0_PE | CR0_PG | 1 << 6;
    run(MOV_CR0_RAX);
    expect(-1);
    ck_assert_uint_eq(fx.cpu->cr0, CR0_PE | CR0_PG | CR0_ET);
}
END_TEST

START_TEST(cr4_and_cr3_rules)
{
    enter_long(0);
    refused(MOV_CR4_RAX, 0); /* PAE off in long mode */
    enter_long(0);
    refused(MOV_CR4_RAX, CR4_PAE | 1 << 12); /* LA57 */
    enter_long(0);
    fx.cpu->cr3 |= 8;
    refused(MOV_CR4_RAX, CR4_PAE | CR4_PCIDE);
    enter_long(0);
    refused(MOV_CR3_RAX, 1ull << 63 | PAGES); /* bit 63 without PCIDE */
    enter_long(0);
    refused(MOV_CR3_RAX, 1ull << fx.cpu->model->maxphyaddr | PAGES);
    enter_long(0);
    fx.cpu->gpr[RAX] = CR4_PAE | CR4_PCIDE;
    fx.cpu->gpr[RBX] = 1ull << 63 | PAGES | 5;
    run(MOV_CR4_RAX " 0f 22 db 0f 20 d9"); /* MOV CR3, RBX; MOV RCX, CR3 */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], PAGES | 5);
    refused(MOV_CR0_RAX, CR0_PE); /* PCIDE still on */
    enter_long(3);
    run("0f 20 c0");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(0);
    run("0f 20 c8"); /* CR1 */
    expect(VECTOR_UD);
}
END_TEST

START_TEST(efer_and_lma)
{
    enter_long(0);
    ck_assert_uint_eq(fx.cpu->efer & EFER_LMA, EFER_LMA);
    ck_assert(!msr_write(fx.cpu, 0xc0000080, EFER_SCE));           /* LME cannot go under PG */
    ck_assert(!msr_write(fx.cpu, 0xc0000080, EFER_LME | 1 << 12)); /* SVME */
    ck_assert(msr_write(fx.cpu, 0xc0000080, EFER_LME));
    ck_assert_uint_eq(fx.cpu->efer, EFER_LME | EFER_LMA); /* LMA is not the guest's to write */
    /* Back to 32-bit: compatibility mode, then PG off. */
    set_segment(SEG_CS, SEL_CODE32);
    cpu_mode_update(fx.cpu);
    ck_assert_uint_eq(fx.cpu->mode & (MODE_LONG | MODE_CODE64 | MODE_CODE32),
                      MODE_LONG | MODE_CODE32);
    fx.cpu->gpr[RAX] = CR0_PE | CR0_ET;
    run(MOV_CR0_RAX);
    ck_assert_uint_eq(fx.cpu->efer & EFER_LMA, 0);
    ck_assert_uint_eq(fx.cpu->mode & MODE_LONG, 0);
    /* A 16-bit TSS forbids the way in. */
    fx.cpu->tr.attr = SEG_ATTR_P | SYS_TSS16_BUSY;
    put_gate32(VECTOR_GP, SEL_CODE32, HANDLERS + VECTOR_GP * 16, 0x8e);
    fx.cpu->gpr[RAX] = CR0_PE | CR0_ET | CR0_PG;
    run(MOV_CR0_RAX);
    expect_error(VECTOR_GP, 0, 4);
}
END_TEST

START_TEST(pae_pdptes)
{
    enter_prot(0);
    put(PAGES + 0x3000, 1 << 5 | 1, 8); /* a reserved bit in a present entry */
    fx.cpu->gpr[RAX] = PAGES + 0x3000;
    fx.cpu->gpr[RBX] = CR4_PAE;
    fx.cpu->gpr[RCX] = CR0_PE | CR0_PG;
    run("0f 22 d8 0f 22 e3 0f 22 c1"); /* CR3, CR4, CR0 */
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), CODE + 6);
    ck_assert(!(fx.cpu->cr0 & CR0_PG));
    enter_prot(0);
    memset(fx.ram + PAGES + 0x3000, 0, 32);
    put(PAGES + 0x3000, (PAGES + 0x2000) | 1, 8);
    put(PAGES + 0x2000, 0x83, 8); /* the first 2 MiB */
    fx.cpu->gpr[RAX] = PAGES + 0x3000;
    fx.cpu->gpr[RBX] = CR4_PAE;
    fx.cpu->gpr[RCX] = CR0_PE | CR0_PG;
    run("0f 22 d8 0f 22 e3 0f 22 c1 a1 00 00 40 00"); /* ... MOV EAX, [400000h] */
    expect(VECTOR_PF);
    ck_assert_uint_eq(frame(1, 4), CODE + 9);
    ck_assert_uint_eq(fx.cpu->cr2, 0x400000);
}
END_TEST

START_TEST(lmsw_smsw_clts)
{
    enter_prot(0);
    fx.cpu->gpr[RAX] = 0xfffe; /* LMSW: MP EM TS; PE cannot be cleared */
    run("0f 01 f0 0f 01 e3");  /* LMSW AX; SMSW EBX */
    ck_assert_uint_eq(fx.cpu->cr0, CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE);
    ck_assert_uint_eq(fx.cpu->gpr[RBX], fx.cpu->cr0);
    run("0f 06");
    ck_assert(!(fx.cpu->cr0 & CR0_TS));
    enter_long(3);
    run("0f 01 e3");
    expect(VECTOR_GP); /* OUT at CPL 3: SMSW itself was allowed */
    ck_assert_uint_eq(frame(1, 8), CODE + 3);
    enter_long(3);
    fx.cpu->cr4 |= CR4_UMIP;
    run("0f 01 e3");
    expect_error(VECTOR_GP, 0, 8);
}
END_TEST

/* ---- Segments -------------------------------------------------------------------------------- */

START_TEST(segment_loads)
{
    static const struct {
        uint16_t selector;
        int vector;
        uint32_t error;
        bool ss;
    } cases[] = {
        {SEL_ABSENT, VECTOR_NP, SEL_ABSENT, false},
        {SEL_ABSENT, VECTOR_SS, SEL_ABSENT, true},
        {SEL_TSS, VECTOR_GP, SEL_TSS, false},
        {0x204, VECTOR_GP, 0x204, false},
        {0, VECTOR_GP, 0, true},
        {SEL_RO, VECTOR_GP, SEL_RO, true},
        {SEL_DATA | 1, VECTOR_GP, SEL_DATA, true},
        {SEL_DATA | 1, VECTOR_GP, SEL_DATA, false},
        {SEL_CODE32, -1, 0, false},
        {SEL_RO, -1, 0, false},
        {2, -1, 0, false},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enter_prot(0);
        fx.cpu->gpr[RAX] = cases[i].selector;
        run(cases[i].ss ? "8e d0" : "8e d8");
        expect(cases[i].vector);
        if (cases[i].vector < 0)
            ck_assert_uint_eq(fx.cpu->seg[SEG_DS].selector, cases[i].selector);
        else
            ck_assert_uint_eq(frame(0, 4), cases[i].error);
    }
    enter_prot(0); /* the null selector loads and then does not work */
    fx.cpu->gpr[RAX] = 0;
    run("8e d8 8b 03");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), CODE + 2);
    enter_prot(0); /* the accessed bit is set */
    put(GDT + SEL_RO, descriptor(0, 0xfffff, 0xc0f0), 8);
    fx.cpu->gpr[RAX] = SEL_RO;
    run("8e d8");
    ck_assert_uint_eq(get_mem(GDT + SEL_RO + 5, 1), 0xf1);
}
END_TEST

START_TEST(expand_down_and_limits)
{
    enter_prot(0);
    put(GDT + SEL_RO, descriptor(0, 0x1fff, 0x4097), 8); /* expand-down: 2000h and up */
    fx.cpu->gpr[RAX] = SEL_RO;
    fx.cpu->gpr[RBX] = 0x2000;
    run("8e d8 8b 03 8b 43 ff");
    expect(VECTOR_GP);
    ck_assert_uint_eq(frame(1, 4), CODE + 4);
    enter_prot(0); /* through SS: #SS(0) */
    fx.cpu->seg[SEG_SS].limit = 0x7fff;
    fx.cpu->gpr[RBX] = 0x7ffd;
    fx.cpu->gpr[RSP] = 0x4000;
    cpu_mode_update(fx.cpu);
    run("36 8b 03");
    expect_error(VECTOR_SS, 0, 4);
}
END_TEST

START_TEST(selector_queries)
{
    enter_prot(3);
    cpu_set_rflags(fx.cpu, RFLAGS_IOPL);
    fx.cpu->gpr[RAX] = SEL_DATA_3;
    fx.cpu->gpr[RBX] = 0xdead;
    run("0f 02 c8 0f 03 d0 0f 00 e8"); /* LAR ECX, EAX; LSL EDX, EAX; VERW AX */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 0xcff300);
    ck_assert_uint_eq(fx.cpu->gpr[RDX], 0xffffffff);
    ck_assert(fx.cpu->rflags & FLAG_ZF);
    fx.cpu->gpr[RAX] = SEL_DATA; /* not visible at CPL 3 */
    fx.cpu->gpr[RCX] = 7;
    run("0f 02 c8");
    ck_assert(!(fx.cpu->rflags & FLAG_ZF));
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 7);
    fx.cpu->gpr[RAX] = SEL_CODE32_3;
    run("0f 00 e8");
    ck_assert(!(fx.cpu->rflags & FLAG_ZF));
    run("0f 00 e0"); /* VERR */
    ck_assert(fx.cpu->rflags & FLAG_ZF);
    fx.cpu->gpr[RAX] = 0x10;
    fx.cpu->gpr[RCX] = 3;
    run("63 c8"); /* ARPL AX, CX */
    ck_assert_uint_eq(fx.cpu->gpr[RAX], 0x13);
    ck_assert(fx.cpu->rflags & FLAG_ZF);
}
END_TEST

START_TEST(ltr_and_lldt)
{
    enter_long(0);
    put(GDT + SEL_TSS, descriptor(TSS, 0x1ff, 0x89), 8);
    put(GDT + SEL_TSS + 8, 0xffffffff, 4); /* base FFFFFFFF_00007000 */
    fx.cpu->gpr[RAX] = SEL_TSS;
    run("0f 00 d8");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->tr.base, 0xffffffff00007000);
    ck_assert_uint_eq(get_mem(GDT + SEL_TSS + 5, 1), 0x8b);
    run("0f 00 d8"); /* busy now */
    expect_error(VECTOR_GP, SEL_TSS, 8);
    enter_long(0);
    fx.cpu->gpr[RAX] = 0;
    run("0f 00 d8");
    expect_error(VECTOR_GP, 0, 8);
    enter_long(0);
    fx.cpu->gpr[RAX] = 3; /* null LDT is fine, and SLDT shows the RPL */
    run("0f 00 d0 0f 00 c1");
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gpr[RCX], 3);
    enter_long(0);
    fx.cpu->gpr[RAX] = SEL_DATA;
    run("0f 00 d0");
    expect_error(VECTOR_GP, SEL_DATA, 8);
    enter_real();
    run("0f 00 d8");
    expect(VECTOR_UD);
}
END_TEST

START_TEST(lgdt_sizes)
{
    enter_prot(0);
    put(DATA, 0x1234, 2);
    put(DATA + 2, 0xaabbccdd, 4);
    fx.cpu->gpr[RBX] = DATA;
    run("66 0f 01 13 0f 01 43 10"); /* 16-bit LGDT: 24 bits of base; SGDT */
    expect(-1);
    ck_assert_uint_eq(fx.cpu->gdtr.base, 0xbbccdd);
    ck_assert_uint_eq(get_mem(DATA + 0x10, 2), 0x1234);
    ck_assert_uint_eq(get_mem(DATA + 0x12, 4), 0xbbccdd);
    enter_long(0);
    put(DATA + 2, 1ull << 47, 8);
    fx.cpu->gpr[RBX] = DATA;
    run("0f 01 1b");
    expect_error(VECTOR_GP, 0, 8);
    ck_assert_uint_eq(fx.cpu->idtr.base, IDT);
}
END_TEST

/* ---- Flags and the FPU ----------------------------------------------------------------------- */

START_TEST(popf_by_privilege)
{
    enter_prot(3);
    cpu_set_rflags(fx.cpu, RFLAGS_IF);
    fx.cpu->gpr[RAX] = RFLAGS_IOPL | RFLAGS_AC | RFLAGS_NT | RFLAGS_VIP | RFLAGS_VM;
    run("50 9d 0f 0b");
    expect(VECTOR_UD);
    ck_assert_uint_eq(frame(2, 4), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_AC | RFLAGS_NT | RFLAGS_RF);
    enter_prot(3);
    run("fa");
    expect_error(VECTOR_GP, 0, 4);
}
END_TEST

START_TEST(stac_clac)
{
    enter_long(0);
    run("0f 01 cb");
    ck_assert_int_eq(fx.cpu->priv, MMU_SUPERVISOR_AC);
    run("0f 01 ca");
    ck_assert_int_eq(fx.cpu->priv, MMU_SUPERVISOR);
    enter_long(3);
    run("0f 01 cb");
    expect(VECTOR_UD);
}
END_TEST

START_TEST(fpu_availability)
{
    static const struct {
        const char *hex;
        uint32_t cr0;
        int vector;
    } cases[] = {
        {"d9 e8", CR0_TS, VECTOR_NM},
        {"d9 e8", CR0_EM, VECTOR_NM},
        {"9b", CR0_TS, -1},
        {"9b", CR0_TS | CR0_MP, VECTOR_NM},
        {"9b", CR0_EM, -1},
        {"0f 6f c1", CR0_EM, VECTOR_UD},
        {"0f 6f c1", CR0_TS, VECTOR_NM},
        {"0f 28 c1", CR0_EM, VECTOR_UD},
        {"0f 28 c1", CR0_TS, VECTOR_NM},
        {"0f 28 c1", 0, -1},
        {"c5 fc 28 c1", 0, VECTOR_UD},
    };

    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enter_long(0);
        sys_set_cr0(fx.cpu, fx.cpu->cr0 | cases[i].cr0);
        run(cases[i].hex);
        ck_assert_msg(got_vector() == cases[i].vector, "%s: vector %d", cases[i].hex, got_vector());
    }
    enter_long(0);
    sys_set_cr4(fx.cpu, CR4_PAE);
    run("0f 28 c1");
    expect(VECTOR_UD);
    enter_long(0);
    fx.cpu->x87.fsw |= 1 << 7;
    run("d9 e8");
    expect(VECTOR_MF);
    enter_long(0);
    sys_set_cr4(fx.cpu, fx.cpu->cr4 | CR4_OSXSAVE);
    fx.cpu->gpr[RAX] = 7;
    fx.cpu->gpr[RCX] = fx.cpu->gpr[RDX] = 0;
    run("0f 01 d1 c5 fc 28 c1");
    expect(model_has(fx.cpu, MODEL_1_ECX, 28) ? -1 : VECTOR_GP);
    enter_long(0);
    sys_set_cr4(fx.cpu, fx.cpu->cr4 | CR4_OSXSAVE);
    fx.cpu->gpr[RDX] = 0;
    refused("0f 01 d1", 5); /* AVX without SSE */
}
END_TEST

/* ---- Reset ----------------------------------------------------------------------------------- */

START_TEST(init_and_sipi)
{
    struct cpu *cpu = fx.cpu;

    enter_long(0);
    cpu->x87.fcw = 0x37f;
    cpu->msr_pat = 0x0606060606060606;
    cpu->bsp = false;
    cpu_reset(cpu, true);
    ck_assert_uint_eq(cpu->activity, CPU_WAIT_SIPI);
    ck_assert_uint_eq(cpu->cr0, CR0_ET);
    ck_assert_uint_eq(cpu->efer, 0);
    ck_assert_uint_eq(cpu->mode & (MODE_PROT | MODE_LONG | MODE_CODE32 | MODE_CODE64), 0);
    ck_assert_uint_eq(cpu->seg[SEG_CS].base + cpu->rip, 0xfffffff0);
    ck_assert_uint_eq(cpu->x87.fcw, 0x37f);
    ck_assert_uint_eq(cpu->msr_pat, 0x0606060606060606);
    ck_assert_uint_eq(cpu->gpr[RDX], cpu->model->signature);
    put_code(CODE, "e6 f4");
    cpu_port(cpu).sipi(cpu, CODE >> 12);
    cpu_port(cpu).sipi(cpu, 1); /* the first has started it, though it does not know yet */
    cpu_run(cpu);
    ck_assert_uint_eq(cpu->rip, 2);
    ck_assert_uint_eq(cpu->seg[SEG_CS].selector, CODE >> 4);
    cpu->bsp = true;
    cpu_reset(cpu, false);
    ck_assert_uint_eq(cpu->x87.fcw, 0x40);
    ck_assert_uint_eq(cpu->cr0, CR0_ET | CR0_CD | CR0_NW);
}
END_TEST

START_TEST(a20)
{
    enter_real();
    fx.cpu->seg[SEG_DS].base = 0xffff0;
    fx.cpu->seg_base[SEG_DS] = 0xffff0;
    put(0x100010, 0x11, 1);
    put(0x10, 0x22, 1);
    run("a0 20 00"); /* MOV AL, [20h]: linear 100010h */
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xff, 0x11);
    cpu_set_a20(fx.cpu, false);
    run("a0 20 00");
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xff, 0x22);
    cpu_set_a20(fx.cpu, true);
    run("a0 20 00");
    ck_assert_uint_eq(fx.cpu->gpr[RAX] & 0xff, 0x11);
}
END_TEST

static void add(Suite *suite)
{
    TCase *c = tcase_create("control");
    tcase_add_checked_fixture(c, fixture_setup, fixture_teardown);
    tcase_add_test(c, cr0_rules);
    tcase_add_test(c, cr4_and_cr3_rules);
    tcase_add_test(c, efer_and_lma);
    tcase_add_test(c, pae_pdptes);
    tcase_add_test(c, lmsw_smsw_clts);
    tcase_add_test(c, segment_loads);
    tcase_add_test(c, expand_down_and_limits);
    tcase_add_test(c, selector_queries);
    tcase_add_test(c, ltr_and_lldt);
    tcase_add_test(c, lgdt_sizes);
    tcase_add_test(c, popf_by_privilege);
    tcase_add_test(c, stac_clac);
    tcase_add_test(c, fpu_availability);
    tcase_add_test(c, init_and_sipi);
    tcase_add_test(c, a20);
    suite_add_tcase(suite, c);
}

int main(void)
{
    return run_suite("sys_control", add);
}
