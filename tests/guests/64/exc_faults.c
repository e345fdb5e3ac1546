/*
 * exc_faults.c - every exception that single instructions raise in 64-bit mode: vector, error code,
 * saved RIP, RF in the saved image, and that the instruction has committed nothing (SDM vol. 3,
 * 6.3-6.6, 6.15, 17.3.1.1; vol. 1, 8.7, 11.5).
 */
#include "context.h"
#include "paging.h"

enum {
    CR0_MP = 2,
    CR0_EM = 4,
    CR0_TS = 8,
    CR0_NE = 32,
    CR0_AM = 1 << 18,
    CR4_OSXMMEXCPT = 1 << 10
};

/* Every fault's image has RF; every trap's has not. */
#define CHECK_FAULT(t, vector_, error_, label)                                                     \
    do {                                                                                           \
        CHECK_TRAP(t, vector_, error_, SYMBOL(label));                                             \
        CHECK_EQ((t).rflags &F_RF, F_RF);                                                          \
    } while (0)

/* ---- #DE ------------------------------------------------------------------------------------- */

TEST(divide_commits_nothing)
{
    struct trap t = CATCH(asm volatile(LABEL(div64) "div %2" ::"a"(0x1111), "d"(5ul), "r"(5ul)));
    CHECK_FAULT(t, V_DE, 0, div64);
    CHECK_EQ(t.frame.rax, 0x1111);
    CHECK_EQ(t.frame.rdx, 5);
    /* The most negative quotient fits, one less does not. */
    t = CATCH(asm volatile(LABEL(idiv8) "idivb %1" ::"a"(0x8080), "q"((char)1) : "cc"));
    CHECK_FAULT(t, V_DE, 0, idiv8);
    CHECK_EQ(t.frame.rax & 0xffff, 0x8080);
    volatile short ax;
    t = CATCH(asm volatile("idivb %1" : "=a"(ax) : "q"((char)1), "0"((short)-0x80) : "cc"));
    CHECK_EQ(t.vector, NO_TRAP);
    CHECK_EQ((unsigned short)ax, 0x80);
    t = CATCH(asm volatile(LABEL(idiv32) "idivl %2" ::"a"(0x80000000), "d"(-1), "r"(-1) : "cc"));
    CHECK_FAULT(t, V_DE, 0, idiv32);
}

/* ---- Traps ----------------------------------------------------------------------------------- */

TEST(traps_save_the_next_rip_without_rf)
{
    struct trap t = CATCH(asm volatile(".byte 0xcd, 0x03\n" LABEL(after_int_3) "nop"));
    CHECK_TRAP(t, V_BP, 0, SYMBOL(after_int_3));
    CHECK_EQ(t.rflags & F_RF, 0);
    t = CATCH(asm volatile("int $0x77\n" LABEL(after_int_77) "nop"));
    CHECK_TRAP(t, 0x77, 0, SYMBOL(after_int_77));
    CHECK_EQ(t.rflags & F_RF, 0);
    write_dr6(0xffff0ff0);
    t = CATCH(asm volatile(".byte 0xf1\n" LABEL(after_int1) "nop"));
    CHECK_TRAP(t, V_DB, 0, SYMBOL(after_int1));
    CHECK_EQ(t.dr6 & 0xe00f, 0); /* INT1 leaves DR6 alone */
}

/* INT n of a vector that has an error code pushes none. */
static word int_13_depth;
static bool measure(struct frame *f)
{
    /* The stub expects an error code, so everything is one slot off: error is the saved RIP. */
    int_13_depth = f->error;
    return false;
}
TEST(int_n_pushes_no_error_code)
{
    trap_handlers[V_GP] = measure;
    CATCH(asm volatile("int $13\n" LABEL(after_int_13) "nop"));
    trap_handlers[V_GP] = 0;
    CHECK_EQ(int_13_depth, SYMBOL(after_int_13));
}

/* ---- #UD ------------------------------------------------------------------------------------- */

/* Undefined in 64-bit mode whatever the operand; `rip` is that of the first prefix. */
static const struct {
    uint8_t len, code[12];
    const char *what;
} undefined[] = {
    {2, {0x0f, 0x0b}, "UD2"},
    {3, {0x0f, 0xb9, 0xc0}, "UD1"},
    {3, {0x0f, 0xff, 0xc0}, "UD0"},
    {1, {0x06}, "PUSH ES"},
    {1, {0x07}, "POP ES"},
    {1, {0x0e}, "PUSH CS"},
    {1, {0x17}, "POP SS"},
    {1, {0x1f}, "POP DS"},
    {1, {0x27}, "DAA"},
    {1, {0x37}, "AAA"},
    {1, {0x60}, "PUSHA"},
    {1, {0x61}, "POPA"},
    {2, {0x82, 0xc0}, "82h"},
    {7, {0x9a, 0, 0, 0, 0, 8, 0}, "CALL ptr16:32"},
    {7, {0xea, 0, 0, 0, 0, 8, 0}, "JMP ptr16:32"},
    {2, {0xc4, 0x00}, "LES"},
    {1, {0xce}, "INTO"},
    {2, {0xd4, 0x0a}, "AAM"},
    {1, {0xd6}, "SALC"},
    {2, {0xfe, 0xd0}, "FE /2"},
    {2, {0xff, 0xf8}, "FF /7"},
    {2, {0xff, 0xd8}, "CALL far with a register"},
    {2, {0xff, 0xe8}, "JMP far with a register"},
    {2, {0x8f, 0xc8}, "8F /1"},
    {3, {0xc6, 0xc8, 0}, "C6 /1"},
    {2, {0x8d, 0xc0}, "LEA with a register"},
    {2, {0x8e, 0xc8}, "MOV CS"},
    {2, {0x8e, 0xf0}, "MOV Sreg 6"},
    {2, {0x8c, 0xf8}, "MOV from Sreg 7"},
    {3, {0x0f, 0x20, 0xc8}, "MOV from CR1"},
    {3, {0x0f, 0x22, 0xe8}, "MOV to CR5"},
    {3, {0x0f, 0x01, 0xfc}, "0F 01 FC"},
    {3, {0x0f, 0xc7, 0xc8}, "CMPXCHG8B with a register"},
    {3, {0x0f, 0xb2, 0xc0}, "LSS with a register"},
    {3, {0x0f, 0xba, 0xc0}, "0F BA /0"},
    {3, {0x0f, 0x0a, 0xc0}, "0F 0A"},
    {3, {0x0f, 0x04, 0xc0}, "0F 04"},
    {3, {0x0f, 0x24, 0xc0}, "MOV from TR"},
    {4, {0xf0, 0x0f, 0xbc, 0xc0}, "LOCK BSF"},
    {2, {0xf0, 0x90}, "LOCK NOP"},
    {4, {0xf0, 0x83, 0x38, 0x01}, "LOCK CMP"},
    {3, {0xf0, 0xf7, 0xd0}, "LOCK NOT register"},
    {5, {0xf0, 0x0f, 0xba, 0x20, 0x01}, "LOCK BT"},
    {3, {0xf0, 0x8b, 0x00}, "LOCK MOV"},
    {6, {0x66, 0xc5, 0xf8, 0x58, 0xc0, 0x90}, "VEX behind 66"},
    {6, {0x48, 0xc5, 0xf8, 0x58, 0xc0, 0x90}, "VEX behind REX"},
};

TEST(undefined_encodings)
{
    static uint8_t code[16] __attribute__((aligned(16)));
    static uint8_t target[64];
    for (unsigned i = 0; i < sizeof undefined / sizeof undefined[0]; i++) {
        memset(code, 0x90, sizeof code);
        memcpy(code, undefined[i].code, undefined[i].len);
        struct context c = context_at((word)code, SEL_CODE, SEL_DATA);
        c.rax = (word)target;
        code[15] = 0xcc;
        struct trap t = RUN(c);
        if (t.vector != V_UD || t.rip != (word)code || !(t.rflags & F_RF) ||
            t.frame.rax != (word)target)
            print("  %s:\n", undefined[i].what);
        CHECK_TRAP(t, V_UD, 0, (word)code);
        CHECK_EQ(t.rflags & F_RF, F_RF);
        CHECK_EQ(t.frame.rax, (word)target);
    }
}

TEST(lock_where_it_belongs)
{
    uint64_t m[2] __attribute__((aligned(16))) = {1, 2};
    struct trap t = CATCH(asm volatile("lock; addq $1, %0; lock; notq %0; lock; btsq $1, %0;"
                                       "lock; xaddq %%rax, %0; lock; cmpxchg8b %0; lock; incb %0"
                                       : "+m"(m[0])::"rax", "rdx", "cc"));
    CHECK_EQ(t.vector, NO_TRAP);
}

/* ---- #GP(0) ---------------------------------------------------------------------------------- */

TEST(over_long_instructions)
{
    static uint8_t code[32];
    /* 15 bytes run, also with a useless REX; 16 do not, even when the last ones are an immediate.
     */
    memset(code, 0x3e, sizeof code);
    code[14] = 0x90, code[15] = 0xcc;
    struct context c = context_at((word)code, SEL_CODE, SEL_DATA);
    CHECK_TRAP(RUN(c), V_BP, 0, (word)code + 16);
    static const uint8_t add[] = {0x81, 0xc0, 1, 0, 0, 0}; /* ADD EAX, 1 behind 10 prefixes */
    memset(code, 0x3e, sizeof code);
    memcpy(code + 10, add, sizeof add);
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, 0, (word)code);
    CHECK_EQ(t.frame.rax, 0);
    memcpy(code + 9, add, sizeof add);
    code[15] = 0xcc;
    t = RUN(c);
    CHECK_EQ(t.vector, V_BP);
    CHECK_EQ(t.frame.rax, 1);
}

static const struct {
    uint8_t len, code[8];
    const char *what;
} privileged[] = {
    {1, {0xf4}, "HLT"},
    {1, {0xfa}, "CLI"},
    {1, {0xfb}, "STI"},
    {1, {0xec}, "IN"},
    {1, {0xef}, "OUT"},
    {1, {0x6c}, "INS"},
    {1, {0x6f}, "OUTS"},
    {2, {0x0f, 0x06}, "CLTS"},
    {2, {0x0f, 0x08}, "INVD"},
    {2, {0x0f, 0x09}, "WBINVD"},
    {2, {0x0f, 0x30}, "WRMSR"},
    {2, {0x0f, 0x32}, "RDMSR"},
    {3, {0x0f, 0x20, 0xc0}, "MOV from CR0"},
    {3, {0x0f, 0x22, 0xd8}, "MOV to CR3"},
    {3, {0x0f, 0x21, 0xf0}, "MOV from DR6"},
    {3, {0x0f, 0x23, 0xf8}, "MOV to DR7"},
    {3, {0x0f, 0x01, 0x38}, "INVLPG"},
    {3, {0x0f, 0x01, 0x10}, "LGDT"},
    {3, {0x0f, 0x01, 0x18}, "LIDT"},
    {3, {0x0f, 0x01, 0xf0}, "LMSW"},
    {3, {0x0f, 0x00, 0xd0}, "LLDT"},
    {3, {0x0f, 0x00, 0xd8}, "LTR"},
    {3, {0x0f, 0x01, 0xf8}, "SWAPGS"},
    {3, {0x48, 0x0f, 0x07}, "SYSRET"},
    {2, {0x0f, 0x35}, "SYSEXIT"},
    {3, {0x0f, 0x01, 0xd1}, "XSETBV"},
};

TEST(privileged_at_cpl_3)
{
    static uint8_t code[16];
    wrmsr(0x174, SEL_CODE64);
    write_cr4(read_cr4() | 1 << 18); /* OSXSAVE */
    for (unsigned i = 0; i < sizeof privileged / sizeof privileged[0]; i++) {
        memset(code, 0xcc, sizeof code);
        memcpy(code, privileged[i].code, privileged[i].len);
        struct context c = context_user((word)code);
        c.rdx = 0x80, c.rcx = 0x10, c.rsi = c.rdi = (word)code + 8;
        struct trap t = RUN(c);
        if (t.vector != V_GP)
            print("  %s:\n", privileged[i].what);
        CHECK_TRAP(t, V_GP, 0, (word)code);
        CHECK_EQ(t.cs, SEL_UCODE);
        CHECK_EQ(t.rflags & F_RF, F_RF);
        CHECK_EQ(t.frame.rax, 0);
    }
    write_cr4(read_cr4() & ~(word)(1 << 18));
}

TEST(reserved_bits_of_control_registers)
{
    word cr0 = read_cr0(), cr3 = read_cr3(), cr4 = read_cr4();
    struct trap t = CATCH(asm volatile(LABEL(set_cr0) "mov %0, %%cr0" ::"r"(cr0 & ~1ul)));
    CHECK_FAULT(t, V_GP, 0, set_cr0);                            /* PG without PE */
    CHECK_EQ(CATCH(write_cr0(cr0 | 1ul << 29)).vector, V_GP);    /* NW without CD */
    CHECK_EQ(CATCH(write_cr0(cr0 | 1ul << 32)).vector, V_GP);    /* upper half */
    CHECK_EQ(CATCH(write_cr0(cr0 & ~(1ul << 31))).vector, V_GP); /* PG off in 64-bit code */
    CHECK_EQ(read_cr0(), cr0);
    CHECK_EQ(CATCH(write_cr4(cr4 & ~0x20ul)).vector, V_GP); /* PAE off in long mode */
    CHECK_EQ(CATCH(write_cr4(cr4 | 1 << 15)).vector, V_GP);
    CHECK_EQ(CATCH(write_cr4(cr4 | 1ul << 40)).vector, V_GP);
    CHECK_EQ(read_cr4(), cr4);
    CHECK_EQ(CATCH(write_cr3(cr3 | 1ul << 60)).vector, V_GP);
    CHECK_EQ(read_cr3(), cr3);
    CHECK_EQ(CATCH(write_dr6(1ul << 32)).vector, V_GP);
    CHECK_EQ(CATCH(write_dr7(1ul << 32)).vector, V_GP);
    asm volatile("mov %0, %%cr8" ::"r"(5ul));
    t = CATCH(asm volatile("mov %0, %%cr8" ::"r"(16ul)));
    CHECK_EQ(t.vector, V_GP);
    word cr8;
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    CHECK_EQ(cr8, 5);
    asm volatile("mov %0, %%cr8" ::"r"(0ul));
}

TEST(msr_faults)
{
    struct trap t = CATCH(asm volatile(LABEL(bad_rdmsr) "rdmsr" ::"c"(0x12345678), "a"(7), "d"(9)));
    CHECK_FAULT(t, V_GP, 0, bad_rdmsr);
    CHECK_EQ(t.frame.rax, 7);
    CHECK_EQ(t.frame.rdx, 9);
    uint64_t lstar = rdmsr(0xc0000082), efer = rdmsr(0xc0000080);
    CHECK_EQ(CATCH(wrmsr(0xc0000082, 0x8000000000000000)).vector, V_GP); /* not canonical */
    CHECK_EQ(rdmsr(0xc0000082), lstar);
    CHECK_EQ(CATCH(wrmsr(0xc0000080, efer ^ 0x100)).vector, V_GP); /* LME while paging */
    CHECK_EQ(CATCH(wrmsr(0xc0000080, efer | 1 << 9)).vector, V_GP);
    CHECK_EQ(rdmsr(0xc0000080), efer);
}

/* ---- #SS and #GP of non-canonical addresses -------------------------------------------------- */

TEST(non_canonical)
{
    word bad = 0x800000000000;
    struct trap t;
    struct context c = context_at(SYMBOL(bad_push), SEL_CODE, SEL_DATA);
    t = CATCH(asm volatile(LABEL(bad_ss) "xchg %%rbp, %0; mov (%%rbp), %%al; nop" ::"r"(bad)));
    CHECK_EQ(t.vector, V_SS); /* RBP and RSP mean SS */
    CHECK_EQ(t.error, 0);
    t = CATCH(asm volatile(LABEL(bad_ds) "mov %%ds:(%0), %%al" ::"r"(bad) : "rax"));
    CHECK_FAULT(t, V_GP, 0, bad_ds);
    /* The last bytes of the lower half are addressable, but nothing across the edge. */
    t = CATCH(asm volatile(LABEL(across) "mov (%0), %%ax" ::"r"(bad - 1) : "rax"));
    CHECK_FAULT(t, V_GP, 0, across);
    t = CATCH(asm volatile("jmp *%0" ::"r"(bad)));
    CHECK_EQ(t.vector, V_GP);
    CHECK(t.rip != bad); /* the jump itself faults */
    /* PUSH through a bad RSP at CPL 3: #SS, and RSP stays. */
    c = context_user(SYMBOL(bad_push));
    c.rsp = bad + 4;
    t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(bad_push));
    CHECK_EQ(t.rsp, bad + 4);
    c.rip = SYMBOL(bad_call);
    t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(bad_call));
    CHECK_EQ(t.rsp, bad + 4);
    c.rip = SYMBOL(bad_ret);
    t = RUN(c);
    CHECK_TRAP(t, V_SS, 0, SYMBOL(bad_ret));
}
asm(LABEL(bad_push) "push %rax\n" LABEL(bad_call) "call bad_push\n" LABEL(bad_ret) "ret");

/* RET to a bad address: the RET faults, RSP has not moved. */
asm(LABEL(ret_bad) "push %rax\n" LABEL(ret_here) "ret");
TEST(ret_to_a_bad_address)
{
    struct context c = context_user(SYMBOL(ret_bad));
    c.rax = 0x1234567890123456;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, 0, SYMBOL(ret_here));
    CHECK_EQ(t.rsp, c.rsp - 8);
}

/* ---- #NM, #UD: is there an FPU? -------------------------------------------------------------- */

TEST(device_not_available)
{
    word cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 | CR0_TS) & ~(word)(CR0_EM | CR0_MP));
    struct trap t = CATCH(asm volatile(LABEL(ts_x87) "fld1"));
    CHECK_FAULT(t, V_NM, 0, ts_x87);
    t = CATCH(asm volatile(LABEL(ts_mmx) "emms"));
    CHECK_FAULT(t, V_NM, 0, ts_mmx);
    t = CATCH(asm volatile(LABEL(ts_sse) "xorps %xmm0, %xmm0"));
    CHECK_FAULT(t, V_NM, 0, ts_sse);
    CHECK_EQ(CATCH(asm volatile("fwait")).vector, NO_TRAP); /* needs MP too */
    CHECK_EQ(CATCH(asm volatile("mfence; prefetcht0 (%rsp)")).vector, NO_TRAP);
    write_cr0((cr0 | CR0_TS | CR0_MP) & ~(word)CR0_EM);
    t = CATCH(asm volatile(LABEL(ts_wait) "fwait"));
    CHECK_FAULT(t, V_NM, 0, ts_wait);
    asm volatile("clts");
    CHECK_EQ(CATCH(asm volatile("fwait; fninit; emms")).vector, NO_TRAP);
    write_cr0((cr0 | CR0_EM) & ~(word)CR0_TS);
    t = CATCH(asm volatile(LABEL(em_x87) "fld1"));
    CHECK_FAULT(t, V_NM, 0, em_x87);
    t = CATCH(asm volatile(LABEL(em_mmx) "emms"));
    CHECK_FAULT(t, V_UD, 0, em_mmx);
    t = CATCH(asm volatile(LABEL(em_sse) "xorps %xmm0, %xmm0"));
    CHECK_FAULT(t, V_UD, 0, em_sse);
    write_cr0(cr0 & ~(word)(CR0_TS | CR0_EM));
    write_cr4(cr4 & ~(word)(1 << 9)); /* OSFXSR */
    t = CATCH(asm volatile(LABEL(no_osfxsr) "xorps %xmm0, %xmm0"));
    CHECK_FAULT(t, V_UD, 0, no_osfxsr);
    write_cr4(cr4);
    t = CATCH(asm volatile(LABEL(no_osxsave) "vzeroupper")); /* CR4.OSXSAVE is off */
    CHECK_FAULT(t, V_UD, 0, no_osxsave);
    t = CATCH(asm volatile(LABEL(no_xgetbv) "xgetbv" ::"c"(0) : "rax", "rdx"));
    CHECK_FAULT(t, V_UD, 0, no_xgetbv);
    write_cr0(cr0);
}

/* ---- #MF, #XM -------------------------------------------------------------------------------- */

TEST(x87_error_waits_for_the_next_instruction)
{
    word cr0 = read_cr0();
    write_cr0((cr0 | CR0_NE | CR0_MP) & ~(word)(CR0_TS | CR0_EM));
    uint16_t cw = 0x37b /* divide-by-zero unmasked */, sw;
    asm volatile("fninit; fldcw %0" ::"m"(cw));
    struct trap t = CATCH(asm volatile("fldz; fld1; fdiv %%st(1), %%st\n"
                                       "nop; mov %%eax, %%eax\n" LABEL(mf_here) "fld1" ::
                                           : "memory"));
    CHECK_FAULT(t, V_MF, 0, mf_here);
    asm volatile("fnstsw %0" : "=m"(sw));
    CHECK_EQ(sw & 0x80ff, 0x8084); /* B, ES, ZE */
    CHECK_EQ(sw >> 11 & 7, 6);     /* two pushed: nothing by FLD1 */
    t = CATCH(asm volatile(LABEL(mf_wait) "fwait"));
    CHECK_FAULT(t, V_MF, 0, mf_wait);
    t = CATCH(asm volatile(LABEL(mf_emms) "emms"));
    CHECK_FAULT(t, V_MF, 0, mf_emms);
    CHECK_EQ(CATCH(asm volatile("fnstcw %0; fnclex; fld1" : "=m"(cw))).vector, NO_TRAP);
    asm volatile("fninit");
    write_cr0(cr0);
}

TEST(simd_exceptions)
{
    word cr0 = read_cr0(), cr4 = read_cr4();
    uint32_t mxcsr = 0x1f80 & ~0x200u, one[4] = {0x3f800000, 0, 0, 0}, v[4] = {0, 0, 0, 0}, got[4];
    write_cr0(cr0 & ~(word)(CR0_TS | CR0_EM));
    write_cr4(cr4 | CR4_OSXMMEXCPT);
    asm volatile("ldmxcsr %0; movups %1, %%xmm1; movups %2, %%xmm0" ::"m"(mxcsr), "m"(v), "m"(one));
    struct trap t = CATCH(asm volatile(LABEL(xm_here) "divss %xmm1, %xmm0"));
    CHECK_FAULT(t, V_XM, 0, xm_here);
    asm volatile("stmxcsr %0; movups %%xmm0, %1" : "=m"(mxcsr), "=m"(got));
    CHECK_EQ(mxcsr & 0x3f, 4); /* ZE */
    CHECK_EQ(got[0], 0x3f800000);
    write_cr4(cr4 & ~(word)CR4_OSXMMEXCPT); /* without OSXMMEXCPT it is #UD */
    t = CATCH(asm volatile(LABEL(xm_ud) "divss %xmm1, %xmm0"));
    CHECK_FAULT(t, V_UD, 0, xm_ud);
    mxcsr = 0x10000;
    t = CATCH(asm volatile(LABEL(bad_mxcsr) "ldmxcsr %0" ::"m"(mxcsr)));
    CHECK_FAULT(t, V_GP, 0, bad_mxcsr);
    mxcsr = 0x1f80;
    asm volatile("ldmxcsr %0" ::"m"(mxcsr));
    t = CATCH(asm volatile(LABEL(odd_movaps) "movaps 4(%0), %%xmm0" ::"r"((word)boot_pml4)));
    CHECK_FAULT(t, V_GP, 0, odd_movaps);
    write_cr4(cr4);
    write_cr0(cr0);
}

/* ---- Page faults commit nothing -------------------------------------------------------------- */

TEST(faulting_instructions_commit_nothing)
{
    uint8_t *p = hole();
    struct trap t;
    memset(p - 16, 0x11, 16);
#define PF_CHECK(label, code)                                                                      \
    CHECK_FAULT(t, V_PF, code, label);                                                             \
    CHECK_EQ(t.cr2, (word)p)
    t = CATCH(asm volatile("stc\n" LABEL(pf_add) "adcq $-1, (%0)" ::"r"(p - 4) : "memory", "cc"));
    PF_CHECK(pf_add, 2);
    CHECK_EQ(t.rflags & F_CF, F_CF);
    CHECK_EQ(*(uint32_t *)(p - 4), 0x11111111); /* no torn write */
    t = CATCH(asm volatile(LABEL(pf_xchg) "xchgq %%rax, (%0)" ::"r"(p - 1), "a"(5) : "memory"));
    PF_CHECK(pf_xchg, 2);
    CHECK_EQ(t.frame.rax, 5);
    t = CATCH(asm volatile(LABEL(pf_pop) "popq (%0)" ::"r"(p) : "memory"));
    PF_CHECK(pf_pop, 2);
    struct context c = context_at(SYMBOL(pf_popstack), SEL_CODE, SEL_DATA);
    c = context_user(SYMBOL(pf_popstack));
    c.rsp = (word)p - 4;
    c.rax = 9;
    t = RUN(c);
    PF_CHECK(pf_popstack, 4);
    CHECK_EQ(t.frame.rax, 9);
    CHECK_EQ(t.rsp, (word)p - 4);
    c.rip = SYMBOL(pf_enter);
    c.rsp = (word)p + 4;
    c.rbp = 77;
    t = RUN(c);
    CHECK_TRAP(t, V_PF, 6, SYMBOL(pf_enter));
    CHECK_EQ(t.frame.rbp, 77);
    CHECK_EQ(t.rsp, (word)p + 4);
    c.rip = SYMBOL(pf_leave);
    c.rbp = (word)p;
    t = RUN(c);
    PF_CHECK(pf_leave, 4);
    CHECK_EQ(t.frame.rbp, (word)p);
    CHECK_EQ(t.rsp, (word)p + 4);
    t = CATCH(
        asm volatile(LABEL(pf_cmpxchg16) "cmpxchg16b (%0)" ::"r"(p), "a"(1), "d"(2), "b"(3), "c"(4)
                     : "memory", "cc"));
    PF_CHECK(pf_cmpxchg16, 2);
    CHECK_EQ(t.frame.rax, 1);
    t = CATCH(asm volatile(LABEL(pf_shld) "shldq $4, %%rax, (%0)" ::"r"(p) : "memory", "cc"));
    PF_CHECK(pf_shld, 2);
    t = CATCH(asm volatile(LABEL(pf_movs) "movsq" ::"S"(p - 8), "D"(p), "c"(3) : "memory"));
    PF_CHECK(pf_movs, 2);
    CHECK_EQ(t.frame.rsi, (word)p - 8);
    CHECK_EQ(t.frame.rdi, (word)p);
    t = CATCH(asm volatile(LABEL(pf_fstp) "fninit; fld1; fstpt (%0)" ::"r"(p - 8) : "memory"));
    CHECK_EQ(t.vector, V_PF);
    CHECK_EQ(t.cr2, (word)p);
    uint16_t sw;
    asm volatile("fnstsw %0" : "=m"(sw));
    CHECK_EQ(sw >> 11 & 7, 7); /* not popped */
    t = CATCH(asm volatile(LABEL(pf_movups) "movups %%xmm0, (%0)" ::"r"(p - 8) : "memory"));
    PF_CHECK(pf_movups, 2);
    for (int i = 1; i <= 16; i++)
        CHECK_EQ(p[-i], 0x11);
    /* An instruction that straddles into the hole. */
    p[-2] = 0x48, p[-1] = 0x89;
    c = context_at((word)p - 2, SEL_CODE, SEL_DATA);
    t = RUN(c);
    CHECK_TRAP(t, V_PF, 0x10, (word)p - 2); /* EFER.NXE: fetches are told apart */
    CHECK_EQ(t.cr2, (word)p);
}
asm(LABEL(pf_popstack) "pop %rax\n" LABEL(pf_enter) "enter $16, $0\n" LABEL(pf_leave) "leave");

/* ---- REP ------------------------------------------------------------------------------------- */

/* A page fault in the middle: the registers say how far it came, and it goes on from there. */
TEST(rep_restarts_where_it_faulted)
{
    uint8_t *p = hole();
    static uint8_t from[64], to[64];
    struct trap t;
    for (int i = 0; i < 64; i++)
        from[i] = (uint8_t)i;
    t = CATCH(asm volatile("cld\n" LABEL(rep_stos) "rep stosl" ::"D"(p - 12), "c"(10), "a"(0x22)
                           : "memory"));
    CHECK_FAULT(t, V_PF, 2, rep_stos);
    CHECK_EQ(t.cr2, (word)p);
    CHECK_EQ(t.frame.rcx, 7);
    CHECK_EQ(t.frame.rdi, (word)p);
    CHECK_EQ(p[-12], 0x22);
    t = CATCH(asm volatile("cld\n" LABEL(rep_movs) "rep movsb" ::"S"(from), "D"(p - 5), "c"(10)
                           : "memory"));
    CHECK_FAULT(t, V_PF, 2, rep_movs);
    CHECK_EQ(t.frame.rcx, 5);
    CHECK_EQ(t.frame.rsi, (word)from + 5);
    CHECK_EQ(t.frame.rdi, (word)p);
    CHECK_EQ(memcmp(p - 5, from, 5), 0);
    t = CATCH(asm volatile("cld\n" LABEL(rep_movs_read) "rep movsb" ::"S"(p - 5), "D"(to), "c"(10)
                           : "memory"));
    CHECK_FAULT(t, V_PF, 0, rep_movs_read);
    CHECK_EQ(t.frame.rcx, 5);
    CHECK_EQ(t.frame.rdi, (word)to + 5);
    t = CATCH(asm volatile("std\n" LABEL(rep_movs_down) "rep movsb; cld" ::"S"(p + 3), "D"(to + 9),
                           "c"(10)
                           : "memory"));
    CHECK_FAULT(t, V_PF, 0, rep_movs_down);
    CHECK_EQ(t.cr2, (word)p + 3);
    CHECK_EQ(t.frame.rcx, 10);
    asm volatile("cld");
    memset(p - 8, 0, 8);
    t = CATCH(asm volatile("cld; test %%eax, %%eax\n" LABEL(rep_scas) "repe scasb" ::"D"(p - 3),
                           "c"(10), "a"(0)
                           : "memory", "cc"));
    CHECK_FAULT(t, V_PF, 0, rep_scas);
    CHECK_EQ(t.frame.rcx, 7);
    t = CATCH(asm volatile("cld\n" LABEL(rep_outs) "rep outsb" ::"S"(p - 2), "d"(0x80), "c"(4)
                           : "memory"));
    CHECK_FAULT(t, V_PF, 0, rep_outs);
    CHECK_EQ(t.frame.rcx, 2);
    CHECK_EQ(t.frame.rsi, (word)p);
}

/* ---- #AC ------------------------------------------------------------------------------------- */

asm(LABEL(ac_load) "movl (%rax), %ecx\n" LABEL(ac_push) "push %rax\n" LABEL(
    ac_byte) "movb (%rax), %cl\n" LABEL(ac_sse) "movups (%rax), %xmm0; ud2");
TEST(alignment_checks)
{
    static uint64_t m[4] __attribute__((aligned(16)));
    word cr0 = read_cr0();
    write_cr0((cr0 | CR0_AM) & ~(word)(CR0_TS | CR0_EM));
    struct context c = context_user(SYMBOL(ac_load));
    c.rflags |= F_AC;
    c.rax = (word)m + 2;
    c.rcx = 5;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_AC, 0, SYMBOL(ac_load));
    CHECK_EQ(t.rflags & (F_RF | F_AC), F_RF | F_AC);
    CHECK_EQ(t.frame.rcx, 5);
    CHECK_EQ(read_flags() & F_AC, F_AC); /* delivery leaves AC alone */
    asm volatile("pushf; andl $~0x40000, (%rsp); popf");
    c.rip = SYMBOL(ac_push);
    c.rsp -= 4;
    t = RUN(c);
    CHECK_TRAP(t, V_AC, 0, SYMBOL(ac_push));
    CHECK_EQ(t.rsp, c.rsp);
    c.rip = SYMBOL(ac_byte); /* bytes never, and MOVUPS only when it is not aligned to 4 or so */
    c.rax = (word)m + 1;
    t = RUN(c);
    CHECK(t.rip != SYMBOL(ac_byte));
    c.rflags = 2; /* AC = 0 */
    c.rip = SYMBOL(ac_load);
    c.rsp += 4;
    CHECK_EQ(RUN(c).vector, V_UD);
    c.rflags |= F_AC; /* AM = 0 */
    write_cr0(cr0 & ~(word)(CR0_AM | CR0_TS | CR0_EM));
    CHECK_EQ(RUN(c).vector, V_UD);
    asm volatile("pushf; andl $~0x40000, (%rsp); popf");
    write_cr0(cr0);
}

/* Operands that are aligned otherwise than by their size (vol. 3, table 6-7), and some that need
 * not be at all. Bit n: #AC at an address with these low bits. */
static const struct {
    const char *what;
    uint8_t len, code[8], faults;
    bool avx2;
} aligned_by[] = {
    {"LGS m16:16", 4, {0x66, 0x0f, 0xb5, 0x07}, 0xaa, false},
    {"LGS m16:32", 3, {0x0f, 0xb5, 0x07}, 0xee, false},
    {"FLD m80", 2, {0xdb, 0x2f}, 0xfe, false},
    {"FSTP m80", 4, {0xd9, 0xe8, 0xdb, 0x3f}, 0xfe, false},
    {"FBSTP m80", 4, {0xd9, 0xe8, 0xdf, 0x37}, 0xfe, false},
    {"FNSTENV m28", 2, {0xd9, 0x37}, 0xee, false},
    {"FNSTENV m14", 3, {0x66, 0xd9, 0x37}, 0xaa, false},
    {"FLDENV m28", 2, {0xd9, 0x27}, 0xee, false},
    {"FNSAVE m108", 2, {0xdd, 0x37}, 0xee, false},
    {"FRSTOR m94", 3, {0x66, 0xdd, 0x27}, 0xaa, false},
    {"MOVUPS", 3, {0x0f, 0x10, 0x07}, 0, false},
    /* VPCMPEQD YMM1, YMM1, YMM1 first */
    {"VMASKMOVPS load", 5, {0xc4, 0xe2, 0x75, 0x2c, 0x07}, 0, true},
    {"VMASKMOVPS store", 5, {0xc4, 0xe2, 0x75, 0x2e, 0x07}, 0, true},
    {"VPGATHERDD", 6, {0xc4, 0xe2, 0x75, 0x90, 0x04, 0x17}, 0, true},
};
static bool enable_avx2(void)
{
    uint32_t r[4];
    cpuid(7, 0, r);
    if (!(r[1] >> 5 & 1))
        return false;
    write_cr4(read_cr4() | 1 << 18); /* OSXSAVE */
    asm volatile("xsetbv" ::"c"(0), "a"(7), "d"(0));
    return true;
}
TEST(alignment_by_operand)
{
    static uint8_t m[256] __attribute__((aligned(64))), code[16];
    word cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 | CR0_AM) & ~(word)(CR0_TS | CR0_EM));
    write_cr4(cr4 | 0x600);
    bool avx2 = enable_avx2() && !is_amd(); /* whose gathers are checked */
    for (volatile unsigned i = 0; i < sizeof aligned_by / sizeof aligned_by[0]; i++) {
        unsigned faults = 0;
        if (aligned_by[i].avx2 && !avx2)
            continue;
        for (volatile unsigned at = 0; at < 8; at++) {
            memset(m, 0, sizeof m);
            memset(code, 0x0f, sizeof code);
            memcpy(code, "\xc5\xf5\x76\xc9", 4);
            memcpy(code + 4, aligned_by[i].code, aligned_by[i].len);
            memcpy(code + 4 + aligned_by[i].len, "\x0f\x0b", 2);
            struct context c = context_user((word)code + (aligned_by[i].avx2 ? 0 : 4));
            c.rflags |= F_AC;
            c.rdi = (word)m + 64 + at;
            asm volatile("fninit");
            struct trap t = RUN(c);
            asm volatile("pushf; andl $~0x40000, (%rsp); popf");
            CHECK(t.vector == V_AC || t.vector == V_UD);
            faults |= (t.vector == V_AC) << at;
        }
        if (faults != aligned_by[i].faults)
            print("  %s:\n", aligned_by[i].what);
        CHECK_EQ(faults, aligned_by[i].faults);
    }
    asm volatile("fninit");
    write_cr4(cr4);
    write_cr0(cr0);
}

/* And far JMP and CALL, whose pointers are aligned by their offsets. */
asm(LABEL(user_far_jump) "ljmpl *(%rdi)\n" LABEL(user_far_target) "ud2");
TEST(alignment_of_far_pointers)
{
    static struct __attribute__((packed)) {
        uint16_t room;
        uint32_t offset;
        uint16_t selector;
    } p __attribute__((aligned(4)));
    word cr0 = read_cr0();
    write_cr0(cr0 | CR0_AM);
    p.offset = (uint32_t)SYMBOL(user_far_target), p.selector = SEL_UCODE;
    struct context c = context_user(SYMBOL(user_far_jump));
    c.rdi = (word)&p.offset;
    CHECK_EQ(RUN(c).rip, SYMBOL(user_far_target));
    c.rflags |= F_AC;
    struct trap t = RUN(c);
    asm volatile("pushf; andl $~0x40000, (%rsp); popf");
    CHECK_TRAP(t, V_AC, 0, SYMBOL(user_far_jump));
    write_cr0(cr0);
}

const struct test guest_tests[] = {T(divide_commits_nothing),
                                   T(traps_save_the_next_rip_without_rf),
                                   T(int_n_pushes_no_error_code),
                                   T(undefined_encodings),
                                   T(lock_where_it_belongs),
                                   T(over_long_instructions),
                                   T(privileged_at_cpl_3),
                                   T(reserved_bits_of_control_registers),
                                   T(msr_faults),
                                   T(non_canonical),
                                   T(ret_to_a_bad_address),
                                   T(device_not_available),
                                   T(x87_error_waits_for_the_next_instruction),
                                   T(simd_exceptions),
                                   T(faulting_instructions_commit_nothing),
                                   T(rep_restarts_where_it_faulted),
                                   T(alignment_checks),
                                   T(alignment_by_operand),
                                   T(alignment_of_far_pointers),
                                   {0, 0}};
