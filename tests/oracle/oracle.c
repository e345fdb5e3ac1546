/*
 * oracle.c - the host's CPU as the judge of every user-mode row of the instruction table.
 *
 *   oracle [--cases N] [--seconds S] [--seed X] [--row TEXT] [--code 16|32|64] [--keep N]
 * [--verbose]
 *
 * N random cases per row and code size (default 200), or as many as fit into S seconds; prints each
 * divergence (up to --keep a row) with the state before, both states after, and what to say to see
 * it again. Rows that the host lacks or that cannot be compared are listed by name. Exit status 0
 * when nothing diverged.
 */
#include "oracle.h"
#include "cpu/insn/tables.h"
#include "insn_exec.h"
#include "internal/cpu.h"
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct options {
    unsigned long cases, seconds, keep;
    uint64_t seed;
    const char *row;
    unsigned code;
    bool verbose;
};
static struct options options = {.cases = 200, .keep = 3, .seed = 1};

static struct oracle_case one;
static struct oracle_outcome host, host_kept, ours;

struct totals {
    unsigned long cases, rows, divergent_rows, skipped, unencodable;
};
static struct totals totals;

/* ---- Comparison ------------------------------------------------------------------------------ */

struct difference {
    char text[256];
};

static bool differ(struct difference *d, const char *what, uint64_t host_value, uint64_t our_value)
{
    snprintf(d->text, sizeof(d->text), "%s: host %#" PRIx64 ", Bailey %#" PRIx64, what, host_value,
             our_value);
    return true;
}

static bool compare_gprs(struct difference *d)
{
    static const char *const names[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                          "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    uint64_t mask = one.code == 64 ? ~0ull : 0xffffffff;
    for (unsigned i = 0; i < (one.code == 64 ? 16 : 8); i++)
        if ((host.state.gpr[i] ^ ours.state.gpr[i]) & mask)
            return differ(d, names[i], host.state.gpr[i] & mask, ours.state.gpr[i] & mask);
    return false;
}

/* Shifts by zero leave every flag alone, so "undefined" holds only for a count above it; the other
 * way round, hosts agree with each other on flags that a fault leaves alone. */
static uint64_t compared_flags(void)
{
    /* not ID: the host's kernel does not restore it, so it is whatever the last POPF left */
    uint64_t mask = FLAGS_ARITH | FLAG_DF;
    if (host.vector < 0)
        mask &= ~(uint64_t)one.row->flags_undefined;
    return mask;
}

static bool compare_vectors(struct difference *d)
{
    for (unsigned i = 0; i < (one.code == 64 ? 16 : 8); i++)
        for (unsigned q = 0; q < 4; q++)
            if (host.state.ymm[i].q[q] != ours.state.ymm[i].q[q]) {
                char name[16];
                snprintf(name, sizeof(name), "ymm%u.q%u", i, q);
                return differ(d, name, host.state.ymm[i].q[q], ours.state.ymm[i].q[q]);
            }
    if (host.state.mxcsr != ours.state.mxcsr)
        return differ(d, "mxcsr", host.state.mxcsr, ours.state.mxcsr);
    return false;
}

/* The signal frame, an XSAVE image, has AMD's pointers while an exception is pending. Which of them
 * Intel's processors note differs from one to the next (CPUID leaf 7, EBX bits 6 and 13). */
static bool compare_pointers(struct difference *d)
{
    if (!insn_has_feature(emulated_features(), FEAT_AMD) || !(host.state.fsw & 0x80))
        return false;
    if (host.state.fop != ours.state.fop)
        return differ(d, "fop", host.state.fop, ours.state.fop);
    uint64_t canonical = 0xffffffffffff; /* the host's linear addresses may be wider than ours */
    if ((host.state.fip ^ ours.state.fip) & canonical)
        return differ(d, "fip", host.state.fip, ours.state.fip);
    if ((host.state.fdp ^ ours.state.fdp) & canonical)
        return differ(d, "fdp", host.state.fdp, ours.state.fdp);
    return false;
}

static bool compare_x87(struct difference *d)
{
    if (host.state.fcw != ours.state.fcw)
        return differ(d, "fcw", host.state.fcw, ours.state.fcw);
    if (host.state.fsw != ours.state.fsw)
        return differ(d, "fsw", host.state.fsw, ours.state.fsw);
    if (host.state.ftw != ours.state.ftw)
        return differ(d, "ftw (abridged)", host.state.ftw, ours.state.ftw);
    for (unsigned i = 0; i < 8; i++)
        if (memcmp(host.state.st[i], ours.state.st[i], 10)) {
            uint64_t h, o;
            char name[48];
            memcpy(&h, host.state.st[i], 8);
            memcpy(&o, ours.state.st[i], 8);
            snprintf(name, sizeof(name), "st%u (exponents %02x%02x, %02x%02x)", i,
                     host.state.st[i][9], host.state.st[i][8], ours.state.st[i][9],
                     ours.state.st[i][8]);
            return differ(d, name, h, o);
        }
    return compare_pointers(d);
}

/* ---- What the manuals leave open after a fault ---- */

static unsigned memory_operand(void)
{
    unsigned size = 0;
    for (unsigned i = 0; i < one.insn.opnds; i++)
        if (one.insn.op[i].kind == OPND_MEM && one.insn.op[i].size > size)
            size = one.insn.op[i].size;
    return size;
}

/* Instructions that make several accesses, or push: which of them have been done when one faults,
 * and which byte of a large operand CR2 names, is the processor's choice (SDM vol. 3, 6.5: only the
 * registers of a restarted instruction are as before). */
static bool several_accesses(void)
{
    static const uint16_t execs[] = {EXEC_gen_enter, EXEC_call, EXEC_gen_pusha};
    for (unsigned i = 0; i < sizeof(execs) / sizeof(execs[0]); i++)
        if (execs[i] == one.row->exec)
            return true;
    bool masked = strstr(one.row->mnemonic, "maskmov") != NULL;
    return masked || memory_operand() > 32 || memory_operand() == 28 || memory_operand() == 10;
}

static bool in_operand(unsigned reg, uint64_t address)
{
    const bool large = (one.code == 16) == one.insn.asz67; /* 16-bit: 67 makes it 32 */
    const uint64_t mask = one.code == 64 ? (one.insn.asz67 ? 0xffffffff : ~0ull)
                          : large        ? 0xffffffff
                                         : 0xffff;
    const uint64_t base = one.code == 16 ? ARENA : 0;
    return ((address - base - (host.state.gpr[reg] & mask)) & mask) < one.insn.op[0].size;
}

/* CMPS whose operands cannot be read, neither of them: which is tried first is the processor's
 * choice. Of AMD's family 19h some models name [rSI], others [rDI]. */
static bool other_operand_first(void)
{
    return one.row->exec == EXEC_cmps && in_operand(RSI, ours.cr2) && in_operand(RDI, host.cr2);
}

/* The branch was done, but the place it leads to cannot be executed: that is the next instruction's
 * fault, which the run in Bailey does not come to. */
static bool fault_at_target(void)
{
    return (one.row->attr & INSN_BRANCH) && host.vector >= 0 && ours.vector < 0 &&
           host.state.rip == ours.state.rip && host.state.rip != one.state.rip;
}

static bool compare_memory(struct difference *d)
{
    if (!memcmp(host.data, ours.data, DATA_SIZE) || (host.vector >= 0 && several_accesses()))
        return false;
    unsigned i = 0;
    while (host.data[i] == ours.data[i])
        i++;
    char name[64];
    snprintf(name, sizeof(name), "byte at %#llx (was %#x)", (unsigned long long)DATA_START + i,
             one.data[i]);
    return differ(d, name, host.data[i], ours.data[i]);
}

/* Bytes that the mask leaves out: whether they can fault is the implementation's choice (SDM vol.
 * 2, MASKMOVDQU). Bailey touches selected bytes only, this host all of them. */
static bool masked_bytes_fault(void)
{
    return host.vector >= VECTOR_SS && host.vector <= VECTOR_PF && ours.vector < 0 &&
           strstr(one.row->mnemonic, "maskmov");
}

/* A page that only the host's process may have, so that it is present there: its kernel's, or what
 * a branch with a random target meets outside the arena (a sanitizer's shadow is wide). */
static bool outside_of_both(void)
{
    bool fetch = host.error_code & 0x10;
    return host.cr2 >> 63 || (fetch && host.cr2 - ARENA >= ARENA_SIZE);
}

static bool compare(struct difference *d)
{
    if (masked_bytes_fault())
        return false;
    if (fault_at_target())
        host.vector = -1, host.error_code = 0, host.cr2 = 0;
    if (host.vector != ours.vector)
        return differ(d, "vector", (uint64_t)(int64_t)host.vector, (uint64_t)(int64_t)ours.vector);
    if (host.vector == VECTOR_PF && outside_of_both())
        host.error_code &= ~1u, ours.error_code &= ~1u;
    if (host.error_code != ours.error_code)
        return differ(d, "error code", host.error_code, ours.error_code);
    if (host.cr2 != ours.cr2 && !other_operand_first() &&
        !(several_accesses() && (uint32_t)(host.cr2 - ours.cr2) + 1024 < 2048))
        return differ(d, "cr2", host.cr2, ours.cr2);
    if (host.state.rip != ours.state.rip)
        return differ(d, "rip", host.state.rip, ours.state.rip);
    uint64_t flags = compared_flags();
    if ((host.state.rflags ^ ours.state.rflags) & flags)
        return differ(d, "rflags", host.state.rflags & flags, ours.state.rflags & flags);
    return compare_gprs(d) || compare_vectors(d) || compare_x87(d) || compare_memory(d);
}

/* ---- Reports --------------------------------------------------------------------------------- */

static void print_state(const char *name, const struct oracle_state *s)
{
    printf("    %s rip %#" PRIx64 " rflags %#" PRIx64 " mxcsr %#x fcw %#x fsw %#x ftw %#x\n", name,
           s->rip, s->rflags, s->mxcsr, s->fcw, s->fsw, s->ftw);
    for (int i = 0; i < 16; i += 4)
        printf("      r%-2d %016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\n", i,
               s->gpr[i], s->gpr[i + 1], s->gpr[i + 2], s->gpr[i + 3]);
}

static void report(const struct difference *d, uint64_t seed, enum run_way way)
{
    char text[96];
    insn_disassemble(one.bytes, one.len, one.code, one.state.rip, text, sizeof(text));
    printf("  %u-bit %s %s%s: %s\n   ", one.code, one.row->mnemonic, one.row->encoding,
           way == RUN_STEP  ? " (stepped)"
           : way == RUN_JIT ? " (translated)"
                            : "",
           d->text);
    for (unsigned i = 0; i < one.len; i++)
        printf(" %02x", one.bytes[i]);
    printf("  %s   (--row '%s %s' --code %u --seed %" PRIu64 ")\n", text, one.row->mnemonic,
           one.row->encoding, one.code, seed);
    if (!options.verbose)
        return;
    print_state("before", &one.state);
    print_state("host  ", &host.state);
    print_state("Bailey", &ours.state);
    for (unsigned i = 0; i < one.insn.opnds; i++) {
        const struct opnd *o = &one.insn.op[i];
        if (o->kind == OPND_XMM || o->kind == OPND_YMM)
            printf("      op%u ymm%u before %016" PRIx64 " %016" PRIx64 " %016" PRIx64
                   " %016" PRIx64 "\n",
                   i, o->reg, one.state.ymm[o->reg].q[3], one.state.ymm[o->reg].q[2],
                   one.state.ymm[o->reg].q[1], one.state.ymm[o->reg].q[0]);
    }
}

/* ---- The run --------------------------------------------------------------------------------- */

/* AMD's x87 pointers do not outlive a task switch of the host between native_run()'s way in and the
 * instruction: XSAVE stores zeros while no exception is pending. Again, then, a few times: the host
 * may be busy. */
static unsigned tries_more(void)
{
    enum { MORE = 8 };
    return insn_has_feature(emulated_features(), FEAT_AMD) && (one.row->attr & INSN_X87) ? MORE : 0;
}

static bool differs(struct difference *d, enum run_way way)
{
    for (unsigned more = tries_more();; more--) {
        host = host_kept; /* compare() may excuse a difference in it */
        emulated_run(&one, &ours, way);
        if (!compare(d))
            return false;
        if (more == 0)
            return true;
        native_run(&one, &host_kept);
    }
}

static unsigned long run_row(const struct insn_row *row, unsigned code, uint64_t seed)
{
    unsigned long differences = 0;
    for (unsigned long i = 0; i < options.cases; i++) {
        struct rng rng;
        struct difference d;
        uint64_t case_seed = options.cases == 1 ? seed : seed * 1000003 + i;
        rng_seed(&rng, case_seed + row->id * 7919u + code);
        if (!case_make(&one, row, code, &rng)) {
            totals.unencodable += i == 0;
            break;
        }
        native_run(&one, &host_kept);
        totals.cases++;
        for (unsigned way = 0; way < RUN_WAYS; way++)
            if (differs(&d, (enum run_way)way) && differences++ < options.keep)
                report(&d, case_seed, (enum run_way)way);
    }
    return differences;
}

static bool row_wanted(const struct insn_row *row)
{
    char name[160];
    snprintf(name, sizeof(name), "%s %s", row->mnemonic, row->encoding);
    return !options.row || !strncmp(name, options.row, strlen(options.row));
}

static void run_all(uint64_t seed, bool list_skips)
{
    static const unsigned codes[] = {64, 32, 16};
    for (unsigned r = 0; r < insn_row_count; r++) {
        const struct insn_row *row = &insn_rows[r];
        unsigned long differences = 0;
        if (!insn_matches[r].opcodes || !row_wanted(row))
            continue;
        const char *why = case_excluded(row);
        totals.rows += list_skips;
        if (why) {
            if (list_skips)
                printf("skip  %s %s: %s\n", row->mnemonic, row->encoding, why);
            totals.skipped += list_skips;
            continue;
        }
        for (unsigned i = 0; i < 3; i++)
            if ((!options.code || options.code == codes[i]) && native_has_code(codes[i]))
                differences += run_row(row, codes[i], seed);
        if (differences) {
            totals.divergent_rows++;
            printf("DIFF  %s %s: %lu cases differ\n", row->mnemonic, row->encoding, differences);
        }
        fflush(stdout);
    }
}

static void parse(int argc, char **argv)
{
    static const struct option table[] = {{"cases", 1, NULL, 'n'},   {"seconds", 1, NULL, 's'},
                                          {"seed", 1, NULL, 'x'},    {"row", 1, NULL, 'r'},
                                          {"code", 1, NULL, 'c'},    {"keep", 1, NULL, 'k'},
                                          {"verbose", 0, NULL, 'v'}, {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", table, NULL)) >= 0;) {
        switch (c) {
        case 'n':
            options.cases = strtoul(optarg, NULL, 0);
            break;
        case 's':
            options.seconds = strtoul(optarg, NULL, 0);
            break;
        case 'x':
            options.seed = strtoull(optarg, NULL, 0);
            break;
        case 'r':
            options.row = optarg;
            break;
        case 'c':
            options.code = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'k':
            options.keep = strtoul(optarg, NULL, 0);
            break;
        case 'v':
            options.verbose = true;
            break;
        default:
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (!native_init() || !emulated_init())
        return 1;
    for (unsigned code = 16; code <= 32; code *= 2)
        if (!native_has_code(code))
            printf("skip  all rows in %u-bit code: the host's kernel refuses LDT segments\n", code);
    time_t end = time(NULL) + (time_t)options.seconds;
    uint64_t seed = options.seed;
    run_all(seed, true);
    while (options.seconds && time(NULL) < end)
        run_all(++seed, false);
    printf("%lu rows, %lu cases, %lu rows differ, %lu rows skipped (named above), %lu row and code "
           "size pairs have no encoding\n",
           totals.rows, totals.cases, totals.divergent_rows, totals.skipped, totals.unencodable);
    return totals.divergent_rows || !totals.cases ? 1 : 0;
}
