/*
 * smap.c - SMEP and SMAP: supervisor accesses to user pages (SDM vol. 3, 4.6.1).
 *
 * The guest's own pages become the supervisor's for these tests (one bit in the PML4E); user pages
 * are in WINDOW, user code is a few bytes copied there, which end in UD2.
 */
#include "paging.h"

static uint8_t frame[4][4096] __attribute__((aligned(4096)));
static uint8_t *user_page, *user_code;

static void begin(word cr4_bits)
{
    paging_reset();
    memset(frame, 0, sizeof(frame));
    user_page = map_page(WINDOW, phys(frame[0]), 1, PG_ALL);
    user_code = map_page(WINDOW + PAGE, phys(frame[1]), 1, PG_ALL);
    map_page(WINDOW + 2 * PAGE, phys(frame[2]), 1, PG_ALL); /* a stack */
    frame[0][0] = frame[1][0] = 0xc3;
    boot_pml4[0] &= ~PG_U;
    flush_all();
    write_cr4(read_cr4() | cr4_bits);
}

static void end(void)
{
    asm volatile("pushf; andl $0xfffbffff, (%%rsp); popf" ::: "cc");
    write_cr4(read_cr4() & ~(CR4_SMAP | CR4_SMEP));
    boot_pml4[0] |= PG_U;
    flush_all();
}

static void stac(void)
{
    asm volatile("stac" ::: "cc", "memory");
}
static void clac(void)
{
    asm volatile("clac" ::: "cc", "memory");
}

/* Runs code at CPL 3 with RAX = arg and these flags. UD2 says that it ran through. */
static struct trap run_user(const void *code, size_t size, word arg, word flags)
{
    memcpy(frame[1] + 16, code, size);
    frame[1][16 + size] = 0x0f;
    frame[1][17 + size] = 0x0b;
    return CATCH(asm volatile(
        "pushq %0; pushq %1; pushq %2; pushq %3; pushq %4; iretq" ::"r"((word)SEL_UDATA),
        "r"(WINDOW + 3 * PAGE - 64), "r"(flags | 2), "r"((word)SEL_UCODE),
        "r"((word)user_code + 16), "a"(arg)
        : "memory"));
}
#define RUN_USER(code, arg, flags) run_user(code, sizeof(code) - 1, arg, flags)

TEST(smep_refuses_fetches_only)
{
    REQUIRE(HAS_SMEP());
    begin(CR4_SMEP);
    CHECK_PF(try_call(user_page), (word)user_page, PF_P | PF_I, (word)user_page);
    CHECK_NO_TRAP(try_read(user_page));
    CHECK_NO_TRAP(try_write(user_page, 0xc3));
    /* AC makes no difference to it */
    if (HAS_SMAP()) {
        write_cr4(read_cr4() | CR4_SMAP);
        stac();
        CHECK_PF(try_call(user_page), (word)user_page, PF_P | PF_I, (word)user_page);
        clac();
        write_cr4(read_cr4() & ~CR4_SMAP);
    }
    /* the user may run it; and the supervisor, once SMEP is off: at once, without a flush */
    CHECK_EQ(RUN_USER("\x90", 0, 0).vector, VECTOR_UD);
    write_cr4(read_cr4() & ~CR4_SMEP);
    CHECK_NO_TRAP(try_call(user_page));
    write_cr4(read_cr4() | CR4_SMEP);
    CHECK_PF(try_call(user_page), (word)user_page, PF_P | PF_I, (word)user_page);
    /* a page is the user's only if all levels say so */
    *entry_of((word)user_page, 2) &= ~PG_U;
    flush_all();
    CHECK_NO_TRAP(try_call(user_page));
    end();
}

/* SMEP alone makes I appear in error codes (SDM 4.7), NXE or not. */
TEST(smep_and_the_error_code)
{
    REQUIRE(HAS_SMEP());
    begin(CR4_SMEP);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~EFER_NXE);
    CHECK_PF(try_call(user_page), (word)user_page, PF_P | PF_I, (word)user_page);
    CHECK_PF(try_call((void *)(WINDOW + 0x9000)), WINDOW + 0x9000, PF_I, WINDOW + 0x9000);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_NXE);
    end();
}

TEST(smap_refuses_data)
{
    REQUIRE(HAS_SMAP());
    begin(0);
    CHECK_NO_TRAP(try_write(user_page, 0xc3)); /* a cached translation must not help */
    write_cr4(read_cr4() | CR4_SMAP);
    CHECK_PF(try_read(user_page), (word)user_page, PF_P, SYMBOL(read_here));
    CHECK_PF(try_write(user_page, 1), (word)user_page, PF_P | PF_W, SYMBOL(write_here));
    CHECK_NO_TRAP(try_call(user_page)); /* fetches are SMEP's */
    for (unsigned i = 0; i < 3; i++) {
        stac();
        CHECK_NO_TRAP(try_read(user_page));
        CHECK_NO_TRAP(try_write(user_page, 0xc3));
        clac();
        CHECK_PF(try_read(user_page), (word)user_page, PF_P, SYMBOL(read_here));
        CHECK_PF(try_write(user_page, 1), (word)user_page, PF_P | PF_W, SYMBOL(write_here));
    }
    CHECK_EQ(frame[0][0], 0xc3);
    end();
}

/* AC comes from POPF and IRET as well as from STAC. */
TEST(ac_by_popf)
{
    REQUIRE(HAS_SMAP());
    begin(CR4_SMAP);
    word flags = read_flags();
    asm volatile("push %0; popf" ::"r"(flags | FLAG_AC) : "cc");
    CHECK_NO_TRAP(try_read(user_page));
    asm volatile("push %0; popf" ::"r"(flags & ~FLAG_AC) : "cc");
    CHECK_PF(try_read(user_page), (word)user_page, PF_P, SYMBOL(read_here));
    asm volatile("mov %%rsp, %%rax; push %1; push %%rax; push %0; push %2; lea 1f(%%rip), %%rax; "
                 "push %%rax; iretq\n 1:" ::"r"(flags | FLAG_AC),
                 "r"((word)SEL_DATA), "r"((word)SEL_CODE)
                 : "cc", "rax", "memory");
    CHECK_NO_TRAP(try_read(user_page));
    clac();
    end();
}

/* With WP clear, SMAP still holds. */
TEST(smap_and_wp)
{
    REQUIRE(HAS_SMAP());
    begin(CR4_SMAP);
    *entry_of((word)user_page, 1) &= ~PG_W;
    invlpg(user_page);
    stac();
    CHECK_PF(try_write(user_page, 1), (word)user_page, PF_P | PF_W, SYMBOL(write_here));
    word cr0 = read_cr0();
    write_cr0(cr0 & ~CR0_WP);
    CHECK_NO_TRAP(try_write(user_page, 1));
    clac();
    CHECK_PF(try_write(user_page, 1), (word)user_page, PF_P | PF_W, SYMBOL(write_here));
    write_cr0(cr0);
    end();
}

TEST(the_user_is_not_concerned)
{
    REQUIRE(HAS_SMAP());
    begin(CR4_SMAP | CR4_SMEP);
    static const char load_store[] = "\x8a\x08\x88\x48\x01"; /* mov (%rax), %cl; mov %cl, 1(%rax) */
    CHECK_EQ(RUN_USER(load_store, WINDOW, 0).vector, VECTOR_UD);
    CHECK_EQ(frame[0][1], 0xc3);
    CHECK_EQ(RUN_USER(load_store, WINDOW, FLAG_AC).vector, VECTOR_UD);
    /* and AC does not let the user at the supervisor's pages */
    struct trap t = RUN_USER(load_store, (word)frame[0], FLAG_AC);
    CHECK_PF(t, phys(frame[0]), PF_P | PF_U, (word)user_code + 16);
    CHECK_EQ(t.rflags & FLAG_AC, FLAG_AC);
    end();
}

/* Accesses to system structures are implicit supervisor accesses: refused on user pages whatever
 * the CPL and AC. */
ALONE struct trap load_fs(word selector)
{
    return CATCH(asm volatile(LABEL(fs_here) "mov %w0, %%fs" ::"r"(selector)));
}

/* The LDT in a user page: selectors with TI set. */
static void load_ldt(word base)
{
    gdt[SEL_FREE / 8] =
        63 | (base & 0xffffff) << 16 | 0x82ull << 40 | (uint64_t)(base >> 24 & 0xff) << 56;
    gdt[SEL_FREE / 8 + 1] = base >> 32;
    asm volatile("lldt %w0" ::"r"(SEL_FREE));
}

TEST(implicit_accesses_to_the_ldt)
{
    REQUIRE(HAS_SMAP());
    begin(0);
    ((uint64_t *)frame[0])[1] = gdt[SEL_UDATA / 8];
    load_ldt(WINDOW);
    CHECK_NO_TRAP(load_fs(0xf)); /* entry 1, RPL 3 */
    write_cr4(read_cr4() | CR4_SMAP);
    CHECK_PF(load_fs(0xf), WINDOW + 8, PF_P, SYMBOL(fs_here));
    stac();
    CHECK_EQ(*(volatile uint64_t *)(WINDOW + 8), gdt[SEL_UDATA / 8]); /* an explicit one may */
    CHECK_PF(load_fs(0xf), WINDOW + 8, PF_P, SYMBOL(fs_here));
    clac();
    /* from CPL 3: still a supervisor access, so U is clear; with AC, too */
    static const char mov_fs[] = "\x8e\xe0"; /* mov %ax, %fs */
    CHECK_PF(RUN_USER(mov_fs, 0xf, 0), WINDOW + 8, PF_P, (word)user_code + 16);
    CHECK_PF(RUN_USER(mov_fs, 0xf, FLAG_AC), WINDOW + 8, PF_P, (word)user_code + 16);
    write_cr4(read_cr4() & ~CR4_SMAP);
    CHECK_EQ(RUN_USER(mov_fs, 0xf, 0).vector, VECTOR_UD);
    asm volatile("lldt %w0; mov %w0, %%fs" ::"r"(0));
    end();
}

/* Delivery from CPL 3 onto a stack in a user page: the push is implicit. The page fault of it has a
 * stack of its own. */
static uint8_t pf_stack[4096] __attribute__((aligned(16)));

TEST(implicit_accesses_to_the_stack)
{
    REQUIRE(HAS_SMAP());
    begin(CR4_SMAP);
    word rsp0 = *(word *)(tss + 1);
    *(word *)(tss + 9) = (word)pf_stack + sizeof(pf_stack);
    set_gate(14, (word)trap_stubs + 16 * 14, SEL_CODE, 14, 0, 1);
    *(word *)(tss + 1) = WINDOW + 2048;
    set_gate(0x30, (word)trap_stubs + 16 * 0x30, SEL_CODE, 14, 3, 0);
    static const char int30[] = "\xcd\x30";
    struct trap t = RUN_USER(int30, 0, 0);
    CHECK_PF(t, WINDOW + 2048 - 8, PF_P | PF_W, (word)user_code + 16);
    CHECK_EQ(t.cs, SEL_UCODE);
    t = RUN_USER(int30, 0, FLAG_AC);
    CHECK_PF(t, WINDOW + 2048 - 8, PF_P | PF_W, (word)user_code + 16);
    *(word *)(tss + 1) = rsp0;
    CHECK_EQ(RUN_USER(int30, 0, 0).vector, 0x30);
    set_gate(14, (word)trap_stubs + 16 * 14, SEL_CODE, 14, 0, 0);
    end();
}

/* What CPL 0 pushes on its own stack is explicit: AC lets it through, in far CALLs and in delivery
 * (4.6.1). */
static word kept_rsp;
#define ON_USER_STACK(code)                                                                        \
    CATCH(asm volatile("mov %%rsp, %0; mov %1, %%rsp; stac\n" code "\nclac; mov %0, %%rsp"         \
                       : "+m"(kept_rsp)                                                            \
                       : "r"(WINDOW + 2048), "m"(far_pointer)                                      \
                       : "cc", "memory"))
static struct __attribute__((packed)) {
    uint32_t offset;
    uint16_t selector;
} far_pointer;
asm(LABEL(far_return) "lretl");

static bool skip_two_bytes(struct frame *f)
{
    f->rip += f->vector == VECTOR_UD ? 2 : 0;
    return true;
}
TEST(explicit_accesses_to_the_stack)
{
    REQUIRE(HAS_SMAP());
    begin(CR4_SMAP);
    *(word *)(tss + 9) = (word)pf_stack + sizeof(pf_stack);
    set_gate(14, (word)trap_stubs + 16 * 14, SEL_CODE, 14, 0, 1);
    trap_handlers[VECTOR_UD] = trap_handlers[0x31] = skip_two_bytes;
    far_pointer.offset = (uint32_t)SYMBOL(far_return), far_pointer.selector = SEL_CODE;
    CHECK_NO_TRAP(ON_USER_STACK("push %%rax; pop %%rax"));
    CHECK_NO_TRAP(ON_USER_STACK("lcalll *%2"));
    CHECK_NO_TRAP(ON_USER_STACK("int $0x31"));
    CHECK_NO_TRAP(ON_USER_STACK("ud2"));
    trap_handlers[VECTOR_UD] = trap_handlers[0x31] = 0;
    CHECK_PF(ON_USER_STACK("clac\n" LABEL(far_call) "lcalll *%2"), WINDOW + 2048 - 4, PF_P | PF_W,
             SYMBOL(far_call));
    set_gate(14, (word)trap_stubs + 16 * 14, SEL_CODE, 14, 0, 0);
    end();
}

/* IN at CPL 3 reads the I/O bitmap. The TSS begins in the supervisor's page, because the trap needs
 * RSP0, and the bitmap is in the user's page behind it. */
TEST(implicit_accesses_to_the_io_bitmap)
{
    REQUIRE(HAS_SMAP());
    begin(0);
    uint64_t saved[2] = {gdt[SEL_TSS / 8], gdt[SEL_TSS / 8 + 1]};
    word base = WINDOW + 5 * PAGE - 104;
    memcpy(frame[3] + 4096 - 104, tss, 104);
    *(uint16_t *)(frame[3] + 4096 - 2) = 104;
    map_page(WINDOW + 4 * PAGE, phys(frame[3]), 1, PG_P | PG_W);
    map_page(WINDOW + 5 * PAGE, phys(frame[0]), 1, PG_ALL);
    memset(frame[0], 0, 4096);
    gdt[SEL_TSS / 8] = 1024 | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[SEL_TSS / 8 + 1] = base >> 32;
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    static const char in61[] = "\xe4\x61"; /* in $0x61, %al */
    CHECK_EQ(RUN_USER(in61, 0, 0).vector, VECTOR_UD);
    write_cr4(read_cr4() | CR4_SMAP);
    CHECK_PF(RUN_USER(in61, 0, FLAG_AC), WINDOW + 5 * PAGE + 0x61 / 8, PF_P, (word)user_code + 16);
    gdt[SEL_TSS / 8] = saved[0] & ~(2ull << 40); /* not busy */
    gdt[SEL_TSS / 8 + 1] = saved[1];
    asm volatile("ltr %w0" ::"r"(SEL_TSS));
    end();
}

ALONE struct trap try_stac(void)
{
    return CATCH(asm volatile(LABEL(stac_here) "stac; clac" ::: "cc"));
}

TEST(stac_at_cpl_3_is_ud)
{
    REQUIRE(HAS_SMAP());
    begin(0);
    CHECK_NO_TRAP(try_stac()); /* with or without CR4.SMAP */
    static const char stac_code[] = "\x0f\x01\xcb\x90";
    struct trap t = RUN_USER(stac_code, 0, 0);
    CHECK_EQ(t.vector, VECTOR_UD);
    CHECK_EQ(t.rip, (word)user_code + 16);
    end();
}

const struct test guest_tests[] = {T(smep_refuses_fetches_only),
                                   T(smep_and_the_error_code),
                                   T(smap_refuses_data),
                                   T(ac_by_popf),
                                   T(smap_and_wp),
                                   T(the_user_is_not_concerned),
                                   T(implicit_accesses_to_the_ldt),
                                   T(implicit_accesses_to_the_stack),
                                   T(explicit_accesses_to_the_stack),
                                   T(implicit_accesses_to_the_io_bitmap),
                                   T(stac_at_cpl_3_is_ud),
                                   {0, 0}};
