/*
 * models.c - CPU models: "NAME,+feature,-feature" in QEMU's words, and what each offers.
 *
 * A model offers features.h less what the host or the instruction table lacks. Asking for such a
 * feature by name is an error; a named model that needs one is, too, because a guest built for it
 * would not run.
 */
#include "cpu/sys/features.h"
#include "cpu/sys/internal.h"
#include "internal/error.h"
#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

enum source { HOST, SOFT, AMD };

static const struct feature {
    const char *name;
    uint8_t word, bit, source, row_feature;
} features[] = {
#define X(name, word, bit, source, feat) {name, MODEL_##word, bit, source, FEAT_##feat},
    CPU_FEATURES(X)
#undef X
};
enum { FEATURES = sizeof features / sizeof features[0] };

/* QEMU knows some features by several names. */
static const char *const aliases[][2] = {
    {"sse3", "pni"},
    {"sse4-1", "sse4.1"},
    {"sse4_1", "sse4.1"},
    {"sse4-2", "sse4.2"},
    {"sse4_2", "sse4.2"},
    {"lzcnt", "abm"},
    {"clfsh", "clflush"},
    {"sha_ni", "sha-ni"},
    {"lahf_lm", "lahf-lm"},
    {"tsc_deadline", "tsc-deadline"},
    {"tsc_adjust", "tsc-adjust"},
    {"i64", "lm"},
};

/* The named models' features, after QEMU's qemu64 and the psABI's levels; "max" has all. */
#define QEMU64                                                                                     \
    "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse "    \
    "sse2 pni cx16 x2apic hypervisor syscall nx lm lahf-lm invtsc " IMMUNITY
/* Not QEMU's, but so that no guest works around what cannot happen here. */
#define IMMUNITY                                                                                   \
    "spec-ctrl arch-capabilities bhi-ctrl ibpb ibpb-ret ibrs amd-no-ssb btc-no auto-ibrs srso-no "  \
    "srso-user-kernel-no lfence-always-serializing null-sel-clr-base xsaveerptr"
#define V2 QEMU64 " popcnt ssse3 sse4.1 sse4.2 tsc-deadline arat rdtscp"
#define V3 V2 " avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"

static const struct model {
    const char *name, *features, *help;
    bool needs_all;
} models[] = {
    {"max", NULL, "everything that this host and Bailey offer (default)", false},
    {"qemu64", QEMU64, "the least that 64-bit systems expect", false},
    {"x86-64-v2", V2, "psABI level 2: up to SSE4.2", true},
    {"x86-64-v3", V3, "psABI level 3: AVX2, BMI, FMA", true},
};
enum { MODELS = sizeof models / sizeof models[0] };

/* ---- What there is to offer ------------------------------------------------------------------ */

static void host_words(uint32_t word[MODEL_WORDS])
{
    uint32_t a, b, c, d;

    if (__get_cpuid(1, &a, &b, &c, &d)) {
        word[MODEL_1_ECX] = c;
        word[MODEL_1_EDX] = d;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        word[MODEL_7_EBX] = b;
        word[MODEL_7_ECX] = c;
        word[MODEL_7_EDX] = d;
    }
    if (__get_cpuid_count(0xd, 1, &a, &b, &c, &d))
        word[MODEL_D1_EAX] = a;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) {
        word[MODEL_X1_ECX] = c;
        word[MODEL_X1_EDX] = d;
    }
}

static enum cpu_vendor host_vendor(void)
{
    uint32_t a, b = 0, c, d;

    __get_cpuid(0, &a, &b, &c, &d);
    return b == signature_AMD_ebx ? VENDOR_AMD : VENDOR_INTEL;
}

/* Features that some row of the instruction table belongs to, or that need none. */
static void table_features(bool has[FEAT_COUNT])
{
    for (unsigned i = 0; i < insn_row_count; i++)
        has[insn_rows[i].feature] = true;
    has[FEAT_BASE] = has[FEAT_FPU] = has[FEAT_CR8LEGACY] = has[FEAT_MISALIGNSSE] = true;
}

static void offered_words(enum cpu_vendor vendor, uint32_t word[MODEL_WORDS])
{
    uint32_t host[MODEL_WORDS] = {0};
    bool table[FEAT_COUNT] = {false};

    host_words(host);
    table_features(table);
    memset(word, 0, MODEL_WORDS * sizeof word[0]);
    for (unsigned i = 0; i < FEATURES; i++) {
        const struct feature *f = &features[i];
        bool there = f->source == HOST  ? host[f->word] >> f->bit & 1
                     : f->source == AMD ? vendor == VENDOR_AMD
                                        : true;

        if (there && table[f->row_feature])
            word[f->word] |= 1u << f->bit;
    }
}

/* ---- Names ----------------------------------------------------------------------------------- */

static const struct feature *find_feature(const char *name, size_t len)
{
    for (unsigned i = 0; i < sizeof aliases / sizeof aliases[0]; i++) {
        if (strlen(aliases[i][0]) == len && !memcmp(aliases[i][0], name, len)) {
            name = aliases[i][1];
            len = strlen(name);
            break;
        }
    }
    for (unsigned i = 0; i < FEATURES; i++) {
        if (strlen(features[i].name) == len && !memcmp(features[i].name, name, len))
            return &features[i];
    }
    return NULL;
}

/* Levenshtein distance; names longer than the row are cut. */
static unsigned distance(const char *a, size_t alen, const char *b)
{
    unsigned row[64], blen = (unsigned)strnlen(b, 63);

    for (unsigned j = 0; j <= blen; j++)
        row[j] = j;
    for (size_t i = 1; i <= alen && i < 64; i++) {
        unsigned diagonal = row[0];

        row[0] = (unsigned)i;
        for (unsigned j = 1; j <= blen; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);

            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[blen];
}

static const char *nearest_feature(const char *name, size_t len)
{
    const char *best = features[0].name;

    for (unsigned i = 1; i < FEATURES; i++) {
        if (distance(name, len, features[i].name) < distance(name, len, best))
            best = features[i].name;
    }
    return best;
}

static const char *nearest_model(const char *name, size_t len)
{
    const char *best = models[0].name;

    for (unsigned i = 1; i < MODELS; i++) {
        if (distance(name, len, models[i].name) < distance(name, len, best))
            best = models[i].name;
    }
    return best;
}

/* ---- Making a model -------------------------------------------------------------------------- */

static bool word_has(const uint32_t *word, const struct feature *f)
{
    return word[f->word] >> f->bit & 1;
}

static bool refuse_feature(const struct feature *f, enum cpu_vendor vendor, struct error *err)
{
    if (f->source == AMD && vendor != VENDOR_AMD)
        return error_set(err, "CPU feature '%s' exists on AMD processors only", f->name);
    return error_set(err, "CPU feature '%s' is not available: the host's processor lacks it",
                     f->name);
}

/* A space-separated list, into cpu->word. AMD's own are left out elsewhere. */
static bool add_listed(struct cpu_model *model, const struct model *m, const uint32_t *offered,
                       struct error *err)
{
    for (const char *p = m->features; *p;) {
        size_t len = strcspn(p, " ");
        const struct feature *f = find_feature(p, len);

        if (word_has(offered, f))
            model->word[f->word] |= 1u << f->bit;
        else if (m->needs_all && f->source != AMD)
            return error_set(err, "CPU model '%s' needs '%s', which the host's processor lacks",
                             m->name, f->name);
        p += len + (p[len] == ' ');
    }
    return true;
}

/* "+name", "-name", "name", "name=on" or "name=off". */
static bool apply_option(struct cpu_model *model, const uint32_t *offered, const char *option,
                         size_t len, struct error *err)
{
    bool on = true;
    const char *value = memchr(option, '=', len);
    const struct feature *f;

    if (len && (*option == '+' || *option == '-')) {
        on = *option == '+';
        option++;
        len--;
    } else if (value) {
        size_t name_len = (size_t)(value - option), value_len = len - name_len - 1;

        if (value_len == 2 && !memcmp(value + 1, "on", 2))
            on = true;
        else if (value_len == 3 && !memcmp(value + 1, "off", 3))
            on = false;
        else
            return error_set(err, "CPU option '%.*s': the value must be on or off", (int)len,
                             option);
        len = name_len;
    }
    f = find_feature(option, len);
    if (!f)
        return error_set(err, "unknown CPU feature '%.*s'; the nearest is '%s'", (int)len, option,
                         nearest_feature(option, len));
    if (on && !word_has(offered, f))
        return refuse_feature(f, model->vendor, err);
    if (on)
        model->word[f->word] |= 1u << f->bit;
    else
        model->word[f->word] &= ~(1u << f->bit);
    return true;
}

/* Twice over the list reaches every chain: it is written from the root outwards, save two. */
static void drop_dependents(struct cpu_model *model)
{
    static const char *const needs[][2] = {
#define X(feature, need) {feature, need},
        CPU_FEATURE_NEEDS(X)
#undef X
    };
    bool again = true;

    while (again) {
        again = false;
        for (unsigned i = 0; i < sizeof needs / sizeof needs[0]; i++) {
            const struct feature *f = find_feature(needs[i][0], strlen(needs[i][0]));
            const struct feature *need = find_feature(needs[i][1], strlen(needs[i][1]));

            if (word_has(model->word, f) && !word_has(model->word, need)) {
                model->word[f->word] &= ~(1u << f->bit);
                again = true;
            }
        }
    }
}

/* Family, model, stepping: the host's for "max"; else what QEMU gives its generic models. Physical
 * addresses have 40 bits, as QEMU's have: OVMF maps all that there could be, with page tables that
 * for the 48 bits of a server's processor would fill 512 MiB. */
static void set_identity(struct cpu_model *model, const struct model *m)
{
    uint32_t a = 0, b, c, d;
    unsigned bits = 40;

    model->signature = !strcmp(m->name, "qemu64") || model->vendor == VENDOR_AMD ? 0x60fb1 : 0x663;
    if (!m->features) {
        if (__get_cpuid(1, &a, &b, &c, &d))
            model->signature = a & 0x0fff3fff;
        if (__get_cpuid(0x80000008, &a, &b, &c, &d) && (a & 0xff) >= 36 && (a & 0xff) < bits)
            bits = a & 0xff;
    }
    model->maxphyaddr = (uint8_t)bits;
    snprintf(model->name, sizeof model->name, "Bailey virtual CPU (%s)", m->name);
}

const struct cpu_model *cpu_model_parse(const char *spec, struct error *err)
{
    size_t len;
    const struct model *m = NULL;
    struct cpu_model *model;
    uint32_t offered[MODEL_WORDS];
    bool ok = true;

    if (!spec || !*spec)
        spec = "max";
    len = strcspn(spec, ",");
    for (unsigned i = 0; i < MODELS; i++) {
        if (strlen(models[i].name) == len && !memcmp(models[i].name, spec, len))
            m = &models[i];
    }
    if (!m) {
        error_set(err, "unknown CPU model '%.*s'; the nearest is '%s'", (int)len, spec,
                  nearest_model(spec, len));
        return NULL;
    }
    model = calloc(1, sizeof *model);
    if (!model) {
        error_set(err, "no memory for CPU model '%s'", m->name);
        return NULL;
    }
    model->vendor = host_vendor();
    model->vcpus = 1;
    set_identity(model, m);
    offered_words(model->vendor, offered);
    if (m->features)
        ok = add_listed(model, m, offered, err);
    else
        memcpy(model->word, offered, sizeof offered);
    for (const char *p = spec + len; ok && *p;) {
        size_t n = strcspn(++p, ",");

        ok = apply_option(model, offered, p, n, err);
        p += n;
    }
    if (!ok) {
        free(model);
        return NULL;
    }
    drop_dependents(model);
    return model;
}

void cpu_model_free(const struct cpu_model *model)
{
    free((void *)model);
}

void cpu_model_features(const struct cpu_model *model, struct insn_features *out)
{
    memset(out, 0, sizeof *out);
    out->bits[FEAT_BASE / 64] |= 1ull << FEAT_BASE % 64;
    out->bits[FEAT_RDPMC / 64] |= 1ull << FEAT_RDPMC % 64;
    unsigned vendor = model->vendor == VENDOR_AMD ? FEAT_AMD : FEAT_INTEL;
    out->bits[vendor / 64] |= 1ull << vendor % 64;
    for (unsigned i = 0; i < FEATURES; i++) {
        if (word_has(model->word, &features[i]))
            out->bits[features[i].row_feature / 64] |= 1ull << features[i].row_feature % 64;
    }
    /* RDPID and RDTSCP share IA32_TSC_AUX but not their rows; UMIP gates no row. */
    if (model->word[MODEL_7_ECX] >> 2 & 1)
        out->bits[FEAT_UMIP / 64] |= 1ull << FEAT_UMIP % 64;
}

void cpu_model_help(FILE *out)
{
    uint32_t offered[MODEL_WORDS];
    unsigned column = 0;

    offered_words(host_vendor(), offered);
    fprintf(out, "Available CPUs:\n");
    for (unsigned i = 0; i < MODELS; i++)
        fprintf(out, "  %-12s %s\n", models[i].name, models[i].help);
    fprintf(
        out,
        "\nFeatures, as NAME,+feature,-feature; those in parentheses are not available here:\n");
    for (unsigned i = 0; i < FEATURES; i++) {
        bool there = word_has(offered, &features[i]);

        column += (unsigned)fprintf(out, there ? " %s" : " (%s)", features[i].name);
        if (column > 72 || i + 1 == FEATURES) {
            fputc('\n', out);
            column = 0;
        }
    }
}
