/*
 * decode_crosscheck.c - Bailey's decoder against Capstone and Zydis, with the host CPU as arbiter.
 *
 *     decode_crosscheck COUNT SEED [--host]
 *
 * Decodes COUNT byte strings (strings.c) in 16-, 32- and 64-bit code with all three decoders.
 *   - Length and validity: where the libraries agree, Bailey must agree with them; where they do
 * not, or know only what Intel's processors do, the host CPU decides (host.c).
 *   - Operands of what all know: Bailey must agree with Zydis or Capstone.
 * Differences listed in expected.c are counted, all others are printed and make the test fail.
 * --host asks the CPU about every string, not only the disputed ones. The work is shared by two
 * processes.
 */
#include "decode_check.h"
#include "insn_exec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 2, BATCH = 8192, SHOWN = 60 };

struct counters {
    uint64_t strings, valid, disputed, host_decided, host_unknown, by_zydis, by_capstone, expected,
        failures;
};

struct run {
    struct zydis *zydis;
    struct capstone *capstone;
    struct counters *counters;
    bool everything; /* --host */
    struct host_case *cases;
    unsigned cases_used;
};

static void report(struct run *run, const char *what, const struct test_string *string,
                   const struct view *ours, const struct view *zydis, const struct view *capstone)
{
    if (run->counters->failures++ >= SHOWN)
        return;
    printf("%s, %u-bit:", what, string->code);
    for (unsigned i = 0; i < STRING_BYTES; i++)
        printf(" %02x", string->bytes[i]);
    putchar('\n');
    view_print("bailey", ours);
    view_print("zydis", zydis);
    view_print("capstone", capstone);
    fflush(stdout);
}

/* What the host said against what Bailey says. */
static void judge_by_host(struct run *run, const struct host_case *host)
{
    struct view ours, zydis, capstone;
    struct insn insn;
    enum decode_result result;
    if (host->verdict == HOST_UNKNOWN) {
        run->counters->host_unknown++;
        return;
    }
    run->counters->host_decided++;
    view_of_bailey(&host->string, host_features(), &result, &insn, &ours);
    bool ud_row =
        ours.valid && insn.row->exec == EXEC_gen_ud; /* UD0, UD1, UD2: what they are for */
    bool same = ud_row                        ? host->verdict == HOST_UD && ours.len == host->len
                : host->verdict == HOST_VALID ? ours.valid && ours.len == host->len
                : host->verdict == HOST_LONG  ? result == DECODE_LONG
                                              : result == DECODE_UD;
    if (same || (ours.valid && host->verdict == HOST_UD && !host_has_feature(insn.row->feature)))
        return;
    view_of_zydis(run->zydis, &host->string, &zydis);
    view_of_capstone(run->capstone, &host->string, &capstone);
    bool foreign = result == DECODE_UD && host->verdict == HOST_VALID &&
                   (zydis.foreign || capstone.foreign); /* an extension without rows */
    if (foreign ||
        expected_difference(ABOUT_HOST, &host->string, result, &insn, &zydis, &capstone)) {
        run->counters->expected++;
        return;
    }
    char what[64];
    snprintf(what, sizeof(what), "the host says %s %u",
             host->verdict == HOST_VALID ? "valid"
             : host->verdict == HOST_UD  ? "#UD"
                                         : "too long",
             host->len);
    report(run, what, &host->string, &ours, &zydis, &capstone);
}

static void flush_cases(struct run *run)
{
    host_decide(run->cases, run->cases_used);
    for (unsigned i = 0; i < run->cases_used; i++)
        judge_by_host(run, &run->cases[i]);
    run->cases_used = 0;
}

static void ask_host(struct run *run, const struct test_string *string)
{
    struct host_case *host = &run->cases[run->cases_used++];
    memset(host, 0, sizeof(*host));
    host->string = *string;
    if (run->cases_used == BATCH)
        flush_cases(run);
}

/* As an Intel processor, which is what the libraries know, Bailey would agree with the library: the
 * host, an AMD processor, has the last word where it can be asked. */
static bool by_vendor(const struct test_string *string, const struct view *library, bool operands)
{
    struct view intel;
    struct insn insn;
    enum decode_result result;
    if (!host_features())
        return false;
    view_of_bailey(string, NULL, &result, &insn, &intel);
    return !view_compare_length(&intel, library) &&
           (!operands || !view_compare_operands(&intel, library));
}

static void check_operands(struct run *run, const struct test_string *string,
                           const struct insn *insn, const struct view *ours,
                           const struct view *zydis, const struct view *capstone)
{
    const char *with_zydis = view_compare_operands(ours, zydis);
    const char *with_capstone =
        view_compare_length(ours, capstone) ? "length" : view_compare_operands(ours, capstone);
    if (!with_zydis && !with_capstone)
        return;
    if (!with_zydis) {
        run->counters->by_zydis++;
    } else if (!with_capstone) {
        run->counters->by_capstone++;
    } else if (expected_difference(ABOUT_OPERANDS, string, DECODE_OK, insn, zydis, capstone) ||
               by_vendor(string, zydis, true)) {
        run->counters->expected++;
    } else {
        report(run, with_zydis, string, ours, zydis, capstone);
    }
}

static void check(struct run *run, const struct test_string *string)
{
    struct view ours, zydis, capstone;
    struct insn insn;
    enum decode_result result;
    view_of_bailey(string, host_features(), &result, &insn, &ours);
    view_of_zydis(run->zydis, string, &zydis);
    view_of_capstone(run->capstone, string, &capstone);
    run->counters->strings++;
    run->counters->valid += ours.valid;

    const char *with_zydis = view_compare_length(&ours, &zydis);
    if (view_compare_length(&zydis, &capstone) ||
        (with_zydis && by_vendor(string, &zydis, false))) {
        run->counters->disputed++;
        ask_host(run, string);
    } else if (with_zydis) {
        if (expected_difference(ABOUT_LENGTH, string, result, &insn, &zydis, &capstone)) {
            run->counters->expected++;
        } else {
            report(run, with_zydis, string, &ours, &zydis, &capstone);
        }
    } else if (run->everything) {
        ask_host(run, string);
    }
    if (!with_zydis && ours.valid)
        check_operands(run, string, &insn, &ours, &zydis, &capstone);
}

static void work(struct counters *counters, uint64_t count, uint64_t seed, bool everything)
{
    struct random_state random = {seed};
    struct run run = {.zydis = zydis_open(),
                      .capstone = capstone_open(),
                      .counters = counters,
                      .everything = everything,
                      .cases = calloc(BATCH, sizeof(struct host_case))};
    for (uint64_t i = 0; i < count; i++) {
        struct test_string string;
        string_make(&random, &string);
        check(&run, &string);
    }
    flush_cases(&run);
    fflush(stdout);
}

static int summary(const struct counters *all)
{
    struct counters sum = {0};
    for (unsigned i = 0; i < WORKERS; i++) {
        const uint64_t *from = (const uint64_t *)&all[i];
        uint64_t *to = (uint64_t *)&sum;
        for (unsigned j = 0; j < sizeof(sum) / sizeof(uint64_t); j++)
            to[j] += from[j];
    }
    printf("%llu strings, %llu valid; lengths disputed by the libraries %llu; asked the host %llu, "
           "without an answer %llu; operands as Zydis only %llu, as Capstone only %llu; declared "
           "differences %llu, undeclared %llu\n",
           (unsigned long long)sum.strings, (unsigned long long)sum.valid,
           (unsigned long long)sum.disputed, (unsigned long long)sum.host_decided,
           (unsigned long long)sum.host_unknown, (unsigned long long)sum.by_zydis,
           (unsigned long long)sum.by_capstone, (unsigned long long)sum.expected,
           (unsigned long long)sum.failures);
    return sum.failures != 0;
}

int main(int argc, char **argv)
{
    bool everything = argc == 4 && strcmp(argv[3], "--host") == 0;
    if (argc != 3 && !everything) {
        fputs("usage: decode_crosscheck COUNT SEED [--host]\n", stderr);
        return 2;
    }
    uint64_t count = strtoull(argv[1], NULL, 0), seed = strtoull(argv[2], NULL, 0);
    struct counters *counters = mmap(NULL, WORKERS * sizeof(struct counters),
                                     PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counters == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    bool crashed = false;
    for (unsigned i = 0; i < WORKERS; i++) {
        fflush(stdout);
        pid_t child = fork();
        if (child == 0) {
            work(&counters[i], count / WORKERS, seed * WORKERS + i, everything);
            _exit(0);
        }
        crashed |= child < 0;
    }
    for (int status; wait(&status) > 0;)
        crashed |= !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    if (crashed)
        puts("a worker crashed");
    return summary(counters) | crashed;
}
