/*
 * segment_loads.c - which descriptors a selector may name: every access byte, RPL and CPL, for MOV
 * to a data segment register and to SS, LAR, LSL, VERR, VERW, against the rules as the manual words
 * them (SDM vol. 2, MOV, LAR, LSL, VERR; vol. 3, 5.5-5.7). QEMU lets LTR load a null selector.
 */
#include "rings.h"

/* What a rule says: a vector and its error code, or V_BP for "goes through". */
struct verdict {
    unsigned vector, error;
};
static const struct verdict fine = {V_BP, 0};

static unsigned dpl_of(unsigned access)
{
    return access >> 5 & 3;
}
static bool is_segment(unsigned access)
{
    return access & 0x10;
}
static bool is_code(unsigned access)
{
    return (access & 0x18) == 0x18;
}
static bool is_conforming(unsigned access)
{
    return (access & 0x1c) == 0x1c;
}
static bool is_readable(unsigned access)
{
    return is_segment(access) && (!is_code(access) || access & 2);
}
static bool is_writable(unsigned access)
{
    return (access & 0x1a) == 0x12;
}
static bool visible(unsigned access, unsigned rpl, unsigned cpl)
{
    return is_conforming(access) || (dpl_of(access) >= rpl && dpl_of(access) >= cpl);
}

static struct verdict data_rule(unsigned access, unsigned sel, unsigned cpl)
{
    if (!is_readable(access) || !visible(access, sel & 3, cpl))
        return (struct verdict){V_GP, sel & ~3u};
    if (!(access & D_PRESENT))
        return (struct verdict){V_NP, sel & ~3u};
    return fine;
}
static struct verdict stack_rule(unsigned access, unsigned sel, unsigned cpl)
{
    if ((sel & 3) != cpl || !is_writable(access) || dpl_of(access) != cpl)
        return (struct verdict){V_GP, sel & ~3u};
    if (!(access & D_PRESENT))
        return (struct verdict){V_SS, sel & ~3u};
    return fine;
}

/* Selector in EAX. */
CODE32(load_es, LABEL(load_es_here) "movw %ax, %es; movw %es, %cx; int3");
CODE32(load_ss, "movw %ss, %dx\n" LABEL(load_ss_here) "movw %ax, %ss; movw %dx, %ss; int3");
CODE32(query, "movl $-1, %ecx; movl $-1, %ebx; xorl %edx, %edx;"
              "lar %eax, %ecx; setz %dl; lsl %eax, %ebx; setz %dh;"
              "verr %ax; pushfl; popl %esi; verw %ax; pushfl; popl %edi; int3");

static struct trap at_ring(const char *code, unsigned selector, unsigned cpl)
{
    struct context c = context_ring((word)code, cpl);
    c.rax = selector;
    return RUN(c);
}

static unsigned complaints;
static void compare(const char *what, unsigned access, unsigned sel, unsigned cpl, struct trap t,
                    struct verdict v, word rip)
{
    if (t.vector == v.vector && t.error == v.error && (v.vector == V_BP || t.rip == rip))
        return;
    if (complaints++ < 5)
        print("  %s: access byte %x, selector %x, CPL %u: vector %u error %x rip %lx\n", what,
              access, sel, cpl, (unsigned)t.vector, (unsigned)t.error, (unsigned long)t.rip);
    CHECK_EQ(t.vector, v.vector);
    CHECK_EQ(t.error, v.error);
}

static void loads_by_access_byte(unsigned selector, uint64_t *entry)
{
    rings_setup();
    ldt_setup(FREE(1));
    complaints = 0;
    for (unsigned access = 0; access < 256; access++) {
        for (unsigned rc = 0; rc < 16; rc++) {
            unsigned sel = selector | (rc & 3), cpl = rc >> 2;
            *entry = descriptor(0, 0xfffff, access | FLAT);
            struct trap t = at_ring(load_es, sel, cpl);
            struct verdict v = data_rule(access, sel, cpl);
            compare("mov es", access, sel, cpl, t, v, SYMBOL(load_es_here));
            if (v.vector == V_BP)
                CHECK_EQ(t.frame.rcx & 0xffff, sel);
            bool accessed = *entry >> 40 & 1;
            CHECK_EQ(accessed, (access & 1) || v.vector == V_BP);
            *entry = descriptor(0, 0xfffff, access | FLAT);
            compare("mov ss", access, sel, cpl, at_ring(load_ss, sel, cpl),
                    stack_rule(access, sel, cpl), SYMBOL(load_ss_here));
        }
    }
}

TEST(loads_from_the_gdt)
{
    loads_by_access_byte(FREE(0), &gdt[FREE(0) / 8]);
}

TEST(loads_from_the_ldt)
{
    loads_by_access_byte(LDT_ENTRY(2), &ldt[2]);
}

TEST(queries)
{
    static const uint16_t lar_types = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 |
                                      1 << 11 | 1 << 12,
                          lsl_types = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
    rings_setup();
    complaints = 0;
    for (unsigned access = 0; access < 256; access++) {
        for (unsigned rc = 0; rc < 16; rc++) {
            unsigned sel = FREE(0) | (rc & 3), cpl = rc >> 2;
            bool pages = access & 1, seen = visible(access, rc & 3, cpl);
            gdt[sel / 8] = descriptor(0x12345678, 0x56789, access | D_BIG | (pages ? D_PAGES : 0));
            struct trap t = at_ring(query, sel, cpl);
            bool lar = seen && (is_segment(access) || lar_types >> (access & 15) & 1);
            bool lsl = seen && (is_segment(access) || lsl_types >> (access & 15) & 1);
            unsigned failed = complaints;
            compare("query", access, sel, cpl, t, fine, 0);
            complaints += (t.frame.rdx & 0xff) != lar || (t.frame.rdx >> 8 & 0xff) != lsl ||
                          (t.frame.rsi >> 6 & 1) != (seen && is_readable(access)) ||
                          (t.frame.rdi >> 6 & 1) != (seen && is_writable(access));
            /* LAR: bits 16-19 are undefined. LSL: in bytes. Both leave the register when they
             * fail. */
            complaints +=
                lar ? (t.frame.rcx & 0xfff0ffff) != (access << 8 | (pages ? 0xc00000u : 0x400000u))
                    : t.frame.rcx != 0xffffffff;
            complaints +=
                lsl ? t.frame.rbx != (pages ? 0x56789fffu : 0x56789u) : t.frame.rbx != 0xffffffff;
            if (complaints != failed && failed < 5)
                print(
                    "  access byte %x, selector %x, CPL %u: lar %x lsl %x zf %x verr %x verw %x\n",
                    access, sel, cpl, t.frame.rcx, t.frame.rbx, t.frame.rdx, t.frame.rsi,
                    t.frame.rdi);
            CHECK_EQ(gdt[sel / 8] >> 40 & 0xff, access); /* asking leaves no trace */
        }
    }
    CHECK_EQ(complaints, 0);
}

/* ---- Selectors that name nothing ---------------------------------------------------------------
 */

static void set_gdt_limit(unsigned limit)
{
    struct __attribute__((packed)) {
        uint16_t limit;
        uint32_t base;
    } gdtr = {(uint16_t)limit, (word)gdt};
    asm volatile("lgdt %0" ::"m"(gdtr) : "memory");
}

TEST(null_selectors)
{
    rings_setup();
    for (unsigned cpl = 0; cpl < 4; cpl++) {
        for (unsigned rpl = 0; rpl < 4; rpl++) {
            struct trap t = at_ring(load_es, rpl, cpl);
            CHECK_EQ(t.vector, V_BP);
            CHECK_EQ(t.frame.rcx & 0xffff, rpl);
            CHECK_TRAP(at_ring(load_ss, rpl, cpl), V_GP, 0, SYMBOL(load_ss_here));
            t = at_ring(query, rpl, cpl);
            CHECK_EQ(t.frame.rdx, 0);
            CHECK_EQ((t.frame.rsi | t.frame.rdi) & F_ZF, 0);
        }
    }
}

TEST(beyond_the_table)
{
    rings_setup();
    gdt[FREE(14) / 8] = descriptor(0, 0xfffff, D_DATA | FLAT);
    set_gdt_limit(FREE(14) + 6); /* one byte too few */
    gdt[FREE(0) / 8] = gdt[FREE(14) / 8];
    CHECK_TRAP(at_ring(load_es, FREE(14) + 3, 0), V_GP, FREE(14), SYMBOL(load_es_here));
    CHECK_TRAP(at_ring(load_ss, FREE(14), 0), V_GP, FREE(14), SYMBOL(load_ss_here));
    struct trap t = at_ring(query, FREE(14), 0);
    CHECK_EQ(t.frame.rdx, 0);
    set_gdt_limit(FREE(14) + 7);
    CHECK_EQ(at_ring(load_es, FREE(14), 0).vector, V_BP);
    set_gdt_limit(FREE(21) + 7);
    CHECK_TRAP(at_ring(load_es, 0xfff8, 0), V_GP, 0xfff8, SYMBOL(load_es_here));

    ldt_setup(FREE(1));
    ldt[0] = ldt[3] = gdt[FREE(14) / 8];
    CHECK_EQ(at_ring(load_es, LDT_ENTRY(0), 0).vector, V_BP); /* no null selector in an LDT */
    CHECK_EQ(at_ring(load_es, LDT_ENTRY(3), 0).vector, V_BP);
    CHECK_TRAP(at_ring(load_es, LDT_ENTRY(4) | 3, 0), V_GP, LDT_ENTRY(4), SYMBOL(load_es_here));
    asm volatile("lldt %w0" ::"r"(0) : "memory"); /* none at all: every selector lies beyond it */
    CHECK_TRAP(at_ring(load_es, LDT_ENTRY(0), 0), V_GP, LDT_ENTRY(0), SYMBOL(load_es_here));
    t = at_ring(query, LDT_ENTRY(3), 0);
    CHECK_EQ(t.frame.rdx, 0);
}

/* ---- LLDT, LTR ---------------------------------------------------------------------------------
 */

CODE32(do_lldt, LABEL(lldt_here) "lldt %ax; int3");
CODE32(do_ltr, LABEL(ltr_here) "ltr %ax; int3");

TEST(lldt_takes_ldts)
{
    rings_setup();
    ldt_setup(FREE(1));
    for (unsigned access = 0; access < 256; access++) {
        unsigned sel = FREE(0) | (access & 3);
        gdt[FREE(0) / 8] = descriptor((word)ldt, 31, access);
        struct verdict v = fine;
        if ((access & 0x1f) != 2)
            v = (struct verdict){V_GP, FREE(0)};
        else if (!(access & D_PRESENT))
            v = (struct verdict){V_NP, FREE(0)};
        compare("lldt", access, sel, 0, at_ring(do_lldt, sel, 0), v, SYMBOL(lldt_here));
    }
    gdt[FREE(0) / 8] = descriptor((word)ldt, 31, D_LDT);
    for (unsigned cpl = 1; cpl < 4; cpl++)
        CHECK_TRAP(at_ring(do_lldt, FREE(0), cpl), V_GP, 0, SYMBOL(lldt_here));
    ldt[1] = gdt[FREE(0) / 8]; /* an LDT inside the LDT */
    CHECK_TRAP(at_ring(do_lldt, LDT_ENTRY(1), 0), V_GP, LDT_ENTRY(1), SYMBOL(lldt_here));
    uint16_t now;
    CHECK_EQ(at_ring(do_lldt, 3, 0).vector, V_BP); /* null */
    asm volatile("sldt %0" : "=m"(now));
    CHECK_EQ(now & ~3, 0);
}

TEST(ltr_takes_available_tsss)
{
    static uint32_t other[26];
    rings_setup();
    for (unsigned access = 0; access < 256; access++) {
        unsigned type = access & 0x1f;
        gdt[FREE(0) / 8] = descriptor((word)other, 103, access);
        struct verdict v = fine;
        if (type != 1 && type != 9)
            v = (struct verdict){V_GP, FREE(0)};
        else if (!(access & D_PRESENT))
            v = (struct verdict){V_NP, FREE(0)};
        compare("ltr", access, FREE(0), 0, at_ring(do_ltr, FREE(0), 0), v, SYMBOL(ltr_here));
        CHECK_EQ(desc_type(FREE(0)), v.vector == V_BP ? access | D_BUSY : access);
    }
    CHECK_TRAP(at_ring(do_ltr, 0, 0), V_GP, 0, SYMBOL(ltr_here));
    CHECK_TRAP(at_ring(do_ltr, 3, 0), V_GP, 0, SYMBOL(ltr_here));
    ldt_setup(FREE(1));
    ldt[1] = descriptor((word)other, 103, D_TSS32);
    CHECK_TRAP(at_ring(do_ltr, LDT_ENTRY(1), 0), V_GP, LDT_ENTRY(1), SYMBOL(ltr_here));
    /* Back; the descriptor has been busy all the time. */
    gdt[SEL_TSS / 8] &= ~(2ull << 40);
    asm volatile("ltr %w0" ::"r"(SEL_TSS) : "memory");
    CHECK_EQ(desc_type(SEL_TSS), D_TSS32 | D_BUSY);
    gdt[FREE(0) / 8] = descriptor((word)other, 103, D_TSS32);
    for (unsigned cpl = 1; cpl < 4; cpl++)
        CHECK_TRAP(at_ring(do_ltr, FREE(0), cpl), V_GP, 0, SYMBOL(ltr_here));
}

/* ---- ARPL --------------------------------------------------------------------------------------
 */

TEST(arpl)
{
    for (unsigned i = 0; i < 16; i++) {
        unsigned to = 0x1230 | (i & 3), from = 0x4564 | i >> 2, flags;
        uint32_t value = 0xabcd0000 | to;
        asm volatile("arpl %w2, %w0; pushfl; popl %1"
                     : "+r"(value), "=r"(flags)
                     : "r"(from)
                     : "cc");
        bool raised = (to & 3) < (from & 3);
        CHECK_EQ(value, 0xabcd0000 | (raised ? 0x1230u | (from & 3) : to));
        CHECK_EQ(flags >> 6 & 1, raised);
    }
}

/* ---- Hidden parts ------------------------------------------------------------------------------
 */

TEST(a_changed_descriptor_counts_from_the_next_load)
{
    static uint32_t one = 0x111, two = 0x222;
    uint32_t before, after;
    gdt[FREE(0) / 8] = descriptor((word)&one, 3, D_DATA);
    asm volatile("movw %w0, %%fs" ::"r"(FREE(0)) : "memory");
    gdt[FREE(0) / 8] = descriptor((word)&two, 3, D_DATA);
    asm volatile("movl %%fs:0, %0; movw %w2, %%fs; movl %%fs:0, %1"
                 : "=&r"(before), "=&r"(after)
                 : "r"(FREE(0))
                 : "memory");
    CHECK_EQ(before, 0x111);
    CHECK_EQ(after, 0x222);
}

CODE32(far_pointer_load, LABEL(lfs_here) "lfsl (%ebx), %ecx; int3");
CODE32(far_stack_load, LABEL(lss_here) "lssl (%ebx), %esp; int3");
CODE32(pop_ds, "pushl %eax\n" LABEL(pop_ds_here) "popl %ds; int3");

TEST(other_ways_to_load)
{
    static uint32_t pointer[2];
    rings_setup();
    gdt[FREE(0) / 8] = descriptor(0, 0xfffff, D_CODE_XO | FLAT | D_DPL3);
    struct context c = context_ring((word)far_pointer_load, 3);
    pointer[0] = 0x12345678;
    pointer[1] = FREE(0) | 3;
    c.rbx = (word)pointer;
    c.rcx = 0x99;
    struct trap t = RUN(c);
    CHECK_TRAP(t, V_GP, FREE(0), SYMBOL(lfs_here));
    CHECK_EQ(t.frame.rcx, 0x99); /* neither half is loaded */
    c.rip = (word)far_stack_load;
    t = RUN(c);
    CHECK_TRAP(t, V_GP, FREE(0), SYMBOL(lss_here));
    CHECK_EQ(t.rsp, c.rsp);
    CHECK_EQ(t.ss, SEL_UDATA);
    t = at_ring(pop_ds, FREE(0) | 3, 3);
    CHECK_TRAP(t, V_GP, FREE(0), SYMBOL(pop_ds_here));
    CHECK_EQ(t.rsp, c.rsp - 4); /* as before the POP */
}

const struct test guest_tests[] = {T(loads_from_the_gdt),
                                   T(loads_from_the_ldt),
                                   T(queries),
                                   T(null_selectors),
                                   T(beyond_the_table),
                                   T(lldt_takes_ldts),
                                   T(ltr_takes_available_tsss),
                                   T(arpl),
                                   T(a_changed_descriptor_counts_from_the_next_load),
                                   T(other_ways_to_load),
                                   {0, 0}};
