/*
 * restart.c - REP instructions that meet page after page that is missing: at every fault the
 * registers say how far they are, RF is set in the image, and they go on from there (SDM vol. 1,
 * 7.3.9.2; vol. 3, 17.3.1.1).
 */
#include "context.h"
#include "paging.h"

enum { PAGES = 4, SPAN = PAGES * 4096 };
#define SOURCE      (WINDOW + 0x100000)
#define DESTINATION (WINDOW + 0x200000)

/* RAM behind the two windows, and what a fault handler notes. */
static uint8_t *const source_ram = (uint8_t *)FREE_RAM;
static uint8_t *const destination_ram = (uint8_t *)FREE_RAM + 0x100000;
static struct {
    word cr2, error, rip, rflags, rcx, rsi, rdi, rax;
} faults[64];
static unsigned fault_count;

/* Maps what was missed and restarts. */
static bool on_demand(struct frame *f)
{
    word cr2 = read_cr2(), page = cr2 & ~0xfffull;
    bool from = cr2 < DESTINATION;
    if (fault_count == 64)
        return false;
    faults[fault_count].cr2 = cr2;
    faults[fault_count].error = f->error;
    faults[fault_count].rip = f->rip;
    faults[fault_count].rflags = f->rflags;
    faults[fault_count].rcx = f->rcx;
    faults[fault_count].rsi = f->rsi;
    faults[fault_count].rdi = f->rdi;
    faults[fault_count++].rax = f->rax;
    map_page(page,
             from ? (word)source_ram + page - SOURCE : (word)destination_ram + page - DESTINATION,
             1, PG_ALL);
    return true;
}

static void fresh(void)
{
    paging_reset();
    map_page(SOURCE + SPAN, 0, 1, 0); /* makes the tables */
    map_page(DESTINATION + SPAN, 0, 1, 0);
    for (unsigned i = 0; i < SPAN; i++) {
        source_ram[i] = (uint8_t)(i * 13 + (i >> 8));
        destination_ram[i] = 0xee;
    }
    fault_count = 0;
    trap_handlers[V_PF] = on_demand;
}
static void done(void)
{
    trap_handlers[V_PF] = 0;
    paging_reset();
}

/* One REP instruction of one operand size. The registers go in and come out. */
struct run {
    word rcx, rsi, rdi, rax, rip, rflags;
};
#define ONE(name, text)                                                                            \
    asm(LABEL(rep_##name) text "\nret");                                                           \
    extern char rep_##name[];
#define EACH_SIZE(op)                                                                              \
    ONE(op##b, "rep " #op "b")                                                                     \
    ONE(op##w, "rep " #op "w") ONE(op##l, "rep " #op "l") ONE(op##q, "rep " #op "q")
EACH_SIZE(movs)
EACH_SIZE(stos)
EACH_SIZE(lods)
#define EACH_SIZE_CC(op)                                                                           \
    ONE(op##b, "repe " #op "b")                                                                    \
    ONE(op##w, "repe " #op "w") ONE(op##l, "repe " #op "l") ONE(op##q, "repe " #op "q")
EACH_SIZE_CC(cmps)
EACH_SIZE_CC(scas)
ONE(outsb, "rep outsb")
ONE(outsw, "rep outsw")
ONE(outsl, "rep outsl")
ONE(insb, "rep insb")
ONE(insw, "rep insw")
ONE(insl, "rep insl")

static void run(struct run *r, const char *code, bool down)
{
    r->rip = (word)code;
    if (down)
        asm volatile("std");
    asm volatile("call *%[code]; pushf; pop %[flags]; cld"
                 : "+c"(r->rcx), "+S"(r->rsi), "+D"(r->rdi), "+a"(r->rax), [flags] "=r"(r->rflags)
                 : [code] "r"(code), "d"(0x80)
                 : "memory", "cc");
}

/* What must hold at each fault: the element at hand touches CR2, and as many have been done as the
 * count says. */
static void check_faults(const char *what, const struct run *begin, unsigned size, bool down,
                         bool reads, bool writes, unsigned least)
{
    bool ok = fault_count >= least;
    for (unsigned i = 0; i < fault_count; i++) {
        word n = begin->rcx - faults[i].rcx, step = down ? -(word)size : size;
        bool from = faults[i].cr2 < DESTINATION;
        word at = from ? faults[i].rsi : faults[i].rdi;
        ok = ok && faults[i].rip == begin->rip && (faults[i].rflags & F_RF) &&
             (faults[i].rflags & F_DF) == (down ? (word)F_DF : 0) &&
             (!reads || faults[i].rsi == begin->rsi + n * step) &&
             (!writes || faults[i].rdi == begin->rdi + n * step) && faults[i].cr2 >= at &&
             faults[i].cr2 < at + size;
        if (!ok) {
            print("  %s%s: fault %u: cr2 %lx rip %lx rflags %lx rcx %lx rsi %lx rdi %lx\n", what,
                  down ? " down" : "", i, (long)faults[i].cr2, (long)faults[i].rip,
                  (long)faults[i].rflags, (long)faults[i].rcx, (long)faults[i].rsi,
                  (long)faults[i].rdi);
            break;
        }
    }
    CHECK(ok);
}

static const struct {
    const char *what, *movs, *stos, *lods, *cmps, *scas;
    unsigned size;
} sizes[] = {
    {"byte", rep_movsb, rep_stosb, rep_lodsb, rep_cmpsb, rep_scasb, 1},
    {"word", rep_movsw, rep_stosw, rep_lodsw, rep_cmpsw, rep_scasw, 2},
    {"dword", rep_movsl, rep_stosl, rep_lodsl, rep_cmpsl, rep_scasl, 4},
    {"qword", rep_movsq, rep_stosq, rep_lodsq, rep_cmpsq, rep_scasq, 8},
};

/* Where the first element lies, so that elements straddle pages at one or both ends. */
static struct run begin_at(unsigned size, unsigned skew_from, unsigned skew_to, bool down)
{
    word count = (SPAN - 64) / size, first = down ? (count - 1) * size : 0;
    return (struct run){.rcx = count,
                        .rsi = SOURCE + 16 + skew_from + first,
                        .rdi = DESTINATION + 16 + skew_to + first};
}

static const unsigned skews[][2] = {{0, 0}, {3, 0}, {0, 5}, {1, 7}};

TEST(movs)
{
    for (unsigned s = 0; s < 4; s++) {
        for (unsigned k = 0; k < 8; k++) {
            unsigned from = skews[k / 2][0], to = skews[k / 2][1], size = sizes[s].size;
            bool down = k & 1;
            fresh();
            struct run r = begin_at(size, from, to, down), b = r;
            run(&r, sizes[s].movs, down);
            b.rip = r.rip;
            check_faults(sizes[s].what, &b, size, down, true, true, 2 * PAGES);
            word bytes = b.rcx * size;
            CHECK_EQ(r.rcx, 0);
            CHECK_EQ(r.rsi, b.rsi + (down ? -bytes : bytes));
            CHECK_EQ(r.rdi, b.rdi + (down ? -bytes : bytes));
            CHECK_EQ(memcmp(destination_ram + 16 + to, source_ram + 16 + from, bytes), 0);
            CHECK_EQ(destination_ram[15 + to], 0xee);
            CHECK_EQ(destination_ram[16 + to + bytes], 0xee);
            for (unsigned i = 0; i < fault_count; i++)
                CHECK_EQ(faults[i].error, faults[i].cr2 < DESTINATION ? 0 : PF_W);
        }
    }
    done();
}

TEST(stos)
{
    for (unsigned s = 0; s < 4; s++) {
        for (unsigned k = 0; k < 4; k++) {
            unsigned size = sizes[s].size, skew = k / 2 * 3;
            bool down = k & 1, ok = true;
            fresh();
            struct run r = begin_at(size, 0, skew, down), b;
            r.rax = 0x1122334455667788;
            b = r;
            run(&r, sizes[s].stos, down);
            b.rip = r.rip;
            check_faults(sizes[s].what, &b, size, down, false, true, PAGES);
            CHECK_EQ(r.rcx, 0);
            CHECK_EQ(r.rsi, b.rsi);
            for (word i = 0; i < b.rcx * size; i++)
                ok = ok && destination_ram[16 + skew + i] == (uint8_t)(b.rax >> i % size * 8);
            CHECK(ok);
            CHECK_EQ(destination_ram[16 + skew + b.rcx * size], 0xee);
        }
    }
    done();
}

/* RAX has the last element that was loaded, also at a fault. */
TEST(lods)
{
    for (unsigned s = 0; s < 4; s++) {
        unsigned size = sizes[s].size;
        fresh();
        struct run r = begin_at(size, 3, 0, false), b;
        word mask = size == 8 ? ~0ull : (1ull << size * 8) - 1, last = 0;
        r.rax = 0xaaaaaaaaaaaaaaaa;
        b = r;
        run(&r, sizes[s].lods, false);
        b.rip = r.rip;
        check_faults(sizes[s].what, &b, size, false, true, false, PAGES);
        memcpy(&last, source_ram + 19 + (b.rcx - 1) * size, size);
        CHECK_EQ(r.rax & mask, last);
        CHECK_EQ(r.rax & ~mask, size == 4 ? 0 : 0xaaaaaaaaaaaaaaaa & ~mask);
        for (unsigned i = 1; i < fault_count; i++) {
            word element = 0;
            memcpy(&element, source_ram + (faults[i].rsi - SOURCE) - size, size);
            CHECK_EQ(faults[i].rax & mask, element);
        }
    }
    done();
}

/* Equal up to a place in the last page: found there, with the flags of that comparison. */
TEST(cmps)
{
    for (unsigned s = 0; s < 4; s++) {
        for (unsigned k = 0; k < 4; k++) {
            unsigned size = sizes[s].size, from = skews[k][0], to = skews[k][1];
            fresh();
            struct run r = begin_at(size, from, to, false), b = r;
            word differs = (3 * 4096 + 512) / size;
            memcpy(destination_ram + 16 + to, source_ram + 16 + from, b.rcx * size);
            destination_ram[16 + to + differs * size] = 0;
            source_ram[16 + from + differs * size] = 1;
            run(&r, sizes[s].cmps, false);
            b.rip = r.rip;
            check_faults(sizes[s].what, &b, size, false, true, true, 2 * PAGES);
            CHECK_EQ(r.rcx, b.rcx - differs - 1);
            CHECK_EQ(r.rsi, b.rsi + (differs + 1) * size);
            CHECK_EQ(r.rdi, b.rdi + (differs + 1) * size);
            CHECK_EQ(r.rflags & (F_ZF | F_CF | F_OF), 0);
            for (unsigned i = 0; i < fault_count; i++)
                CHECK_EQ(faults[i].error, 0);
        }
    }
    done();
}

TEST(scas)
{
    for (unsigned s = 0; s < 4; s++) {
        unsigned size = sizes[s].size;
        fresh();
        struct run r = begin_at(size, 0, 5, false), b;
        word differs = (3 * 4096 + 512) / size;
        memset(destination_ram, 0xee, SPAN);
        destination_ram[21 + differs * size] = 0xef;
        r.rax = 0xeeeeeeeeeeeeeeee;
        b = r;
        run(&r, sizes[s].scas, false);
        b.rip = r.rip;
        check_faults(sizes[s].what, &b, size, false, false, true, PAGES);
        CHECK_EQ(r.rcx, b.rcx - differs - 1);
        CHECK_EQ(r.rdi, b.rdi + (differs + 1) * size);
        CHECK_EQ(r.rflags & (F_ZF | F_CF), F_CF); /* EE.. < EF.. */
    }
    done();
}

/* Flags at a fault are those of the iteration before (vol. 1, 7.3.9.2: what has been completed). */
TEST(flags_in_the_middle)
{
    fresh();
    struct run r = {.rcx = 4096, .rdi = DESTINATION + 4096 - 16, .rax = 0xee};
    asm volatile("add %0, %0" ::"r"(0x80000000) : "cc");
    run(&r, rep_scasb, false);
    CHECK_EQ(fault_count, 2);
    CHECK_EQ(faults[1].rcx, 4096 - 16);
    CHECK_EQ(faults[1].rflags & (F_ZF | F_CF | F_OF), F_ZF);
    done();
}

/* ---- Ports ----------------------------------------------------------------------------------- */

TEST(outs)
{
    static const char *const code[] = {rep_outsb, rep_outsw, rep_outsl};
    for (unsigned s = 0; s < 3; s++) {
        unsigned size = 1u << s;
        fresh();
        struct run r = {.rcx = 64, .rsi = SOURCE + 4096 - 17}, b = r;
        run(&r, code[s], false);
        b.rip = r.rip;
        check_faults(sizes[s].what, &b, size, false, true, false, 2);
        CHECK_EQ(r.rcx, 0);
        CHECK_EQ(r.rsi, b.rsi + 64 * size);
    }
    done();
}

/* The port is not read when the destination faults: reading has effects. A counter of the 8254 that
 * stands still gives its low byte and its high byte in turn. */
TEST(ins_reads_nothing_when_it_faults)
{
    static const char *const code[] = {rep_insb, rep_insw, rep_insl};
    fresh();
    outb(0x61, inb(0x61) & ~3u); /* counter 2's gate is closed */
    outb(0x43, 0xb0);            /* both bytes, mode 0 */
    outb(0x42, 0xbb);
    outb(0x42, 0xaa);
    for (uint64_t end = rdtsc() + 100000; rdtsc() < end;)
        asm volatile("pause"); /* it takes a tick to load */
    word rcx = 2, rdi = DESTINATION + 4096 - 1;
    asm volatile("rep insb" : "+c"(rcx), "+D"(rdi) : "d"(0x42) : "memory");
    CHECK_EQ(fault_count, 2);
    CHECK_EQ(faults[1].rcx, 1);
    CHECK_EQ(faults[1].error, PF_W);
    CHECK_EQ(rcx, 0);
    CHECK_EQ(destination_ram[4095], 0xbb);
    CHECK_EQ(destination_ram[4096], 0xaa);
    for (unsigned s = 0; s < 3; s++) {
        unsigned size = 1u << s;
        fresh();
        struct run r = {.rcx = 64, .rdi = DESTINATION + 4096 - 17}, b = r;
        run(&r, code[s], false);
        b.rip = r.rip;
        check_faults(sizes[s].what, &b, size, false, false, true, 2);
        CHECK_EQ(r.rcx, 0);
        CHECK_EQ(r.rdi, b.rdi + 64 * size);
        CHECK_EQ(destination_ram[4096 - 18], 0xee);
    }
    done();
}

/* ---- Address size ---------------------------------------------------------------------------- */

/* With 32-bit addresses ECX, ESI and EDI count; what they do not reach stays. */
TEST(address_size_32)
{
    uint64_t old = boot_pd[0x70];
    static uint8_t *const low = (uint8_t *)0x0e000000;
    boot_pd[0x70] = 0;
    flush_all();
    struct trap t = CATCH(
        asm volatile(LABEL(rep_a32) "addr32 rep stosb" ::"D"(0x500000000000ull | (word)(low - 4)),
                     "c"(0xffffffff00000008ull), "a"(0x5a)
                     : "memory"));
    CHECK_PF(t, (word)low, PF_W, SYMBOL(rep_a32));
    CHECK_EQ(t.frame.rcx & 0xffffffff, 4);
    CHECK_EQ(t.frame.rdi & 0xffffffff, (word)low);
    CHECK_EQ(t.frame.rdi >> 32, 0); /* four were written: the 32-bit result is zero-extended */
    boot_pd[0x70] = old;
    flush_all();
}

const struct test guest_tests[] = {T(movs),
                                   T(stos),
                                   T(lods),
                                   T(cmps),
                                   T(scas),
                                   T(flags_in_the_middle),
                                   T(outs),
                                   T(ins_reads_nothing_when_it_faults),
                                   T(address_size_32),
                                   {0, 0}};
