/*
 * main.c - the sealed-kernel example: a kernel gives up, until reset, its own right to write its
 * code and its page tables; then malware inside it tries ten ways around that.
 *
 * With "unsealed" on the command line the same malware runs without the device's help.
 */
#include "bailey_guest.h"
#include "tiny.h"

enum { ALIAS = 1, MALWARE_PAGES = 3 };
static const uint64_t alias_base = (uint64_t)ALIAS << 39; /* a second mapping of everything */
static struct bailey_door door;
static bool sealed;

static _Noreturn void die(const char *what, int status)
{
    print("%s: %s\n", what, bailey_status_text(status));
    exit_machine(2);
}

/* ---- What is protected --------------------------------------------------------------------------
 */

/* The malware's target: kernel code that answers "may this user do that?". */
static __attribute__((noinline)) int is_allowed(int user)
{
    int answer = 0;
    __asm__("" : "+r"(answer) : "r"(user));
    return answer;
}

/* The kernel's own code (owner: CPL 0 to 2) may do `allow`, devices may only read; the processor's
 * page walks set accessed and dirty bits as ever. */
static struct protect_rule rule_for(uint8_t allow)
{
    return (struct protect_rule){
        .allow = {[PROTECT_OWNER] = allow,
                  [PROTECT_OTHER_USER] = allow & (PROTECT_READ | PROTECT_EXEC),
                  [PROTECT_KERNEL] = allow,
                  [PROTECT_WALKER] = PROTECT_ALL,
                  [PROTECT_EVENT] = PROTECT_ALL,
                  [PROTECT_DEVICE] = allow & (PROTECT_READ | PROTECT_WRITE),
                  [PROTECT_HOST] = PROTECT_ALL,
                  [PROTECT_DEBUGGER] = PROTECT_ALL},
    };
}

static void seal_kernel(void)
{
    const struct {
        char *start, *end;
        uint8_t allow;
    } parts[] = {
        {text_start, text_end, PROTECT_READ | PROTECT_EXEC},
        {(char *)pml4, page_tables_end, PROTECT_READ},
    };
    int status = bailey_fixed_open(&door);
    if (status != PROTECT_OK)
        die("opening a door", status);
    for (unsigned n = 0; n < 2; n++) {
        struct protect_region region = {.base = (uint64_t)parts[n].start,
                                        .length = (uint64_t)(parts[n].end - parts[n].start),
                                        .flags = PROTECT_PHYSICAL,
                                        .cookie = n};
        struct protect_rule rule = rule_for(parts[n].allow);
        rule.count = 1;
        status = bailey_regions_add(&door, &region, 1, &rule.region);
        if (status == PROTECT_OK)
            status = bailey_rules_set(&door, &rule, 1);
        if (status != PROTECT_OK)
            die("protecting a part of the kernel", status);
    }
    status = bailey_seal(&door, PROTECT_SEAL_ALL);
    if (status != PROTECT_OK)
        die("sealing", status);
    sealed = true;
}

/* ---- The malware --------------------------------------------------------------------------------
 */

static const uint8_t patch[] = {0xb8, 1, 0, 0, 0, 0xc3}; /* mov $1, %eax; ret */

/* Inlined, so that the events' addresses tell the attacks apart. */
static inline __attribute__((always_inline)) void patch_at(void *to)
{
    for (unsigned n = 0; n < sizeof(patch); n++)
        ((volatile uint8_t *)to)[n] = patch[n];
}

static void write_code(void *unused)
{
    (void)unused;
    patch_at((void *)is_allowed);
}

static void write_alias(void *unused)
{
    (void)unused;
    patch_at((void *)((uint64_t)is_allowed + alias_base));
}

static void write_without_wp(void *unused)
{
    (void)unused;
    write_cr0(read_cr0() & ~(1ull << 16));
    patch_at((void *)is_allowed);
}

/* One REP MOVSB: every byte of it is an access. */
static void write_string(void *unused)
{
    const void *from = patch;
    void *to = (void *)is_allowed;
    uint64_t n = sizeof(patch);
    (void)unused;
    __asm__ volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n)::"memory");
}

/* Maps the code once more, which needs a write to a page table. */
enum { UNUSED_ENTRY = 1000 };

static void edit_page_table(void *unused)
{
    uint64_t window = (uint64_t)UNUSED_ENTRY << 21;
    (void)unused;
    *(volatile uint64_t *)&page_directories[UNUSED_ENTRY] = 0x83; /* the first 2 MiB, writable */
    invlpg(window);
    patch_at((void *)((uint64_t)is_allowed + window));
}

/* Page tables of its own that map everything writable, in memory that nobody protects. */
static uint64_t own_tables[MALWARE_PAGES][512] __attribute__((aligned(4096)));

static void use_own_tables(void *unused)
{
    (void)unused;
    own_tables[0][0] = (uint64_t)own_tables[1] | 3;
    for (uint64_t n = 0; n < 4; n++)
        own_tables[1][n] = pdpt[n];
    own_tables[1][0] = (uint64_t)own_tables[2] | 3;
    for (uint64_t n = 0; n < 512; n++)
        own_tables[2][n] = n << 21 | 0x83;
    write_cr3((uint64_t)own_tables);
    patch_at((void *)is_allowed);
}

/* ---- The malware at the door: what it asks for, and the answer. ---- */

static int weaken_rule(void)
{
    struct protect_rule rule = rule_for(PROTECT_ALL);
    rule.region = 0, rule.count = 1;
    struct protect_query query;
    if (bailey_query(&door, (void *)is_allowed, &query) == PROTECT_OK)
        rule.region = query.region;
    return bailey_rules_set(&door, &rule, 1);
}

static int remove_region(void)
{
    struct protect_query query;
    int status = bailey_query(&door, (void *)is_allowed, &query);
    return status == PROTECT_OK ? (int)bailey_regions_remove(&door, query.region, 1) : status;
}

static int end_context(void)
{
    struct bailey_door copy = door;
    return (int)bailey_door_close(&copy);
}

/* Rules only take away: a second context that allows everything grants nothing. */
static int another_door(void)
{
    struct bailey_door other;
    struct protect_rule rule = rule_for(PROTECT_ALL);
    int status = bailey_fixed_open(&other);
    return status == PROTECT_OK
               ? (int)bailey_protect(&other, text_start, (uint64_t)(text_end - text_start), &rule,
                                     NULL)
               : status;
}

/* ---- The report ---------------------------------------------------------------------------------
 */

static unsigned successes;

static void report_events(void)
{
    struct protect_event event;
    char line[160];
    if (!sealed)
        return;
    for (unsigned n = 0; bailey_event_next(&door, &event); n++) {
        bailey_event_text(line, sizeof(line), &event);
        print("    event %ld: %s\n", event.sequence, line);
    }
}

/* As if nothing had happened; what is sealed needs no undoing. */
static void undo(void)
{
    static uint8_t original[sizeof(patch)];
    static bool saved;
    volatile uint8_t *code = (volatile uint8_t *)is_allowed;
    write_cr0(read_cr0() | 1ull << 16);
    write_cr3((uint64_t)pml4);
    for (unsigned n = 0; n < sizeof(patch); n++) {
        if (!saved)
            original[n] = code[n];
        else if (code[n] != original[n])
            code[n] = original[n];
    }
    saved = true;
}

static void attack(const char *what, void (*code)(void *))
{
    print("malware %s: ", what);
    bool faulted = attempt(code, NULL);
    bool success = is_allowed(1000) != 0;
    if (faulted)
        print("#PF, error code %x, CR2 %lx\n", (unsigned)caught.error, caught.cr2);
    else
        print("%s\n", success ? "done" : "no effect");
    successes += success;
    report_events();
    undo();
}

static void ask(const char *what, int (*request)(void))
{
    print("malware %s: ", what);
    print("%s\n", bailey_status_text(request()));
    report_events();
}

static bool same_word(const char *text, const char *word)
{
    for (; *word; text++, word++)
        if (*text != *word)
            return false;
    return true;
}

void kernel_main(const char *command_line)
{
    pml4[ALIAS] = pml4[0];
    undo();
    if (!same_word(command_line, "unsealed"))
        seal_kernel();
    print("code %lx-%lx and page tables %lx-%lx: %s\n", (uint64_t)text_start, (uint64_t)text_end,
          (uint64_t)pml4, (uint64_t)page_tables_end, sealed ? "sealed" : "not sealed");
    attack("writes to code", write_code);
    attack("writes to code by REP MOVSB", write_string);
    attack("writes to code through another mapping", write_alias);
    attack("switches CR0.WP off and writes to code", write_without_wp);
    attack("maps the code once more and writes to it", edit_page_table);
    if (sealed) {
        ask("asks for a weaker rule", weaken_rule);
        ask("asks for the region's removal", remove_region);
        ask("asks for the context's end", end_context);
        ask("allows itself everything at another door", another_door);
    }
    attack("loads page tables of its own and writes to code", use_own_tables);
    print("%d of 6 attacks succeeded; is_allowed(1000) = %d\n", successes, is_allowed(1000));
    exit_machine(successes);
}
