/*
 * test_ops.c - the operations over the socket: commands with the statuses of protect.h, contexts
 * that come and go with their clients, memory, events, the machine.
 */
#include "world.h"

static struct world w;
static struct wire c;

static void setup(void)
{
    world_listen(&w);
    wire_open(&c, &w);
}

static void teardown(void)
{
    wire_close(&c);
    world_free(&w);
}

/* The kind of a context in the list; "" when it is free. */
static const char *kind_of(struct wire *client, unsigned context)
{
    static char kind[16];
    size_t i;
    json_t *one, *reply = wire_expect(client, "{\"op\":\"list\"}", "OK");
    *kind = 0;
    json_array_foreach (json_object_get(reply, "contexts"), i, one)
        if (number_of(one, "context") == context)
            strcpy(kind, text_of(one, "kind"));
    json_decref(reply);
    return kind;
}

/* Whether a context is gone: connections end in their own time. */
static bool comes_to_an_end(struct wire *client, unsigned context)
{
    for (unsigned i = 0; i < 6000; i++) {
        if (!*kind_of(client, context))
            return true;
        usleep(10000);
    }
    return false;
}

/* ---- Commands -------------------------------------------------------------------------------- */

START_TEST(a_whole_life)
{
    json_t *reply = wire_expect(&c, "{\"op\":\"bind\"}", "OK");
    ck_assert_uint_eq(number_of(reply, "context"), PROTECT_DOORS);
    ck_assert_uint_ne(number_of(reply, "result"), 0);
    json_decref(reply);
    reply = wire_expect(&c,
                        "{\"op\":\"add-regions\",\"regions\":["
                        "{\"base\":\"0x5000\",\"length\":16,\"flags\":\"physical\",\"cookie\":7},"
                        "{\"base\":{\"physical\":24576},\"length\":\"0x2000\"}]}",
                        "OK");
    ck_assert_uint_eq(number_of(reply, "result"), 0);
    json_decref(reply);
    wire_do(
        &c,
        "{\"op\":\"set-rules\",\"rules\":[{\"region\":0,\"count\":2,\"allow\":{\"device\":\"r\"},"
        "\"action\":{\"device\":\"deny\"},\"notify\":[\"preimage\"]}]}",
        "OK");
    ck_assert(!dma_write(&w, 0x500f, 1));
    ck_assert(dma_write(&w, 0x5010, 1));
    ck_assert(!dma_write(&w, 0x7fff, 1));
    reply = wire_expect(&c, "{\"op\":\"query\",\"query\":{\"address\":24577}}", "OK");
    json_t *query = json_object_get(reply, "query");
    ck_assert_uint_eq(number_of(query, "region"), 1);
    ck_assert_uint_eq(number_of(query, "base"), 0x6000);
    ck_assert_uint_eq(number_of(query, "pages"), 2);
    ck_assert_str_eq(text_of(json_object_get(json_object_get(query, "rule"), "allow"), "device"),
                     "r");
    json_decref(reply);
    reply = wire_expect(&c, "{\"op\":\"statistics\"}", "OK");
    ck_assert_uint_eq(number_of(json_object_get(reply, "statistics"), "denied"), 2);
    json_decref(reply);
    wire_do(&c, "{\"op\":\"remove-regions\",\"region\":0}", "OK");
    ck_assert(dma_write(&w, 0x500f, 1));
    wire_do(&c, "{\"op\":\"unbind\"}", "OK");
    ck_assert(dma_write(&w, 0x7fff, 1));
    wire_do(&c, "{\"op\":\"statistics\"}", "NOT_BOUND");
}
END_TEST

/* Every refusal that a client can earn has the interface's status, and the element at fault. */
START_TEST(refusals_have_the_statuses_of_the_interface)
{
    static const struct {
        const char *line, *status;
        unsigned element;
    } cases[] = {
        {"{\"op\":99}", "BAD_OP", 0},
        {"{\"op\":0}", "BAD_OP", 0},
        {"{\"op\":\"seal\",\"seals\":0,\"version\":9}", "BAD_VERSION", 0},
        {"{\"op\":\"seal\",\"seals\":0,\"reserved\":1}", "BAD_RESERVED", 0},
        {"{\"op\":\"unbind\",\"arg\":[0,0,0,1]}", "BAD_RESERVED", 0},
        {"{\"op\":\"seal\",\"seals\":8}", "BAD_ARGUMENT", 0},
        {"{\"op\":\"add-regions\",\"regions\":[]}", "BAD_ARGUMENT", 0},
        {"{\"op\":\"add-regions\",\"regions\":[],\"count\":1048577}", "TOO_MANY", 0},
        {"{\"op\":\"add-regions\",\"regions\":[],\"count\":1}", "NOT_MAPPED", 0},
        {"{\"op\":3,\"arg\":[4096,1],\"regions\":[],\"count\":1048576}", "NOT_MAPPED", 0},
        {"{\"op\":\"statistics\",\"session\":1}", "WRONG_SESSION", 0},
        {"{\"op\":\"statistics\",\"context\":0}", "WRONG_CALLER", 0},
        {"{\"op\":\"statistics\",\"context\":79}", "NOT_BOUND", 0},
        {"{\"op\":\"statistics\",\"context\":80}", "BAD_ARGUMENT", 0},
        {"{\"op\":\"statistics\",\"vcpu\":2}", "BAD_ARGUMENT", 0},
        {"{\"op\":\"statistics\",\"cr3\":\"0x123000\"}", "BAD_ARGUMENT", 0},
        {"{\"op\":\"remove-regions\",\"region\":5}", "NO_REGION", 0},
        {"{\"op\":\"query\",\"query\":{\"region\":5}}", "NO_REGION", 0},
        {"{\"op\":\"set-handler\",\"handler\":{\"rip\":4096}}", "BAD_HANDLER", 0},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"physical\":0},\"length\":1},"
         "{\"base\":{\"physical\":4194303},\"length\":2}]}",
         "NOT_MEMORY", 1},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"physical\":0},\"length\":1},"
         "{\"base\":{\"physical\":1},\"length\":0}]}",
         "BAD_RANGE", 1},
        {"{\"op\":\"add-regions\",\"regions\":[{\"base\":0,\"length\":1,\"flags\":4}]}",
         "BAD_FLAGS", 0},
        {"{\"op\":\"set-rules\",\"rules\":[{\"region\":0},{\"region\":0,\"allow\":[8]}]}",
         "BAD_ACCESS", 1},
        {"{\"op\":\"set-rules\",\"rules\":[{\"region\":0,\"action\":{\"device\":\"ask-host\"}}]}",
         "BAD_ACTION", 0},
        {"{\"op\":\"set-rules\",\"rules\":[{\"region\":0,\"action\":{\"kernel\":8}}]}",
         "BAD_ACTION", 0},
        {"{\"op\":\"set-rules\",\"rules\":[{\"region\":0,\"notify\":64}]}", "BAD_NOTIFY", 0},
        {"{\"op\":\"set-rules\",\"rules\":[{\"region\":0,\"fault\":2}]}", "BAD_FAULT", 0},
        {"{\"op\":\"set-rules\",\"rules\":[{\"region\":0},{\"region\":0},{\"region\":9}]}",
         "NO_REGION", 2},
    };
    wire_protect(&c, 0x5000, 16, NO_DMA);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *reply = wire_expect(&c, cases[i].line, cases[i].status);
        ck_assert_msg(number_of(reply, "element") == cases[i].element, "%s", cases[i].line);
        ck_assert_str_ne(text_of(reply, "text"), "");
        json_decref(reply);
    }
    ck_assert(!dma_write(&w, 0x5000, 1)); /* and nothing has changed */
    wire_do(&c, "{\"op\":\"seal\",\"seals\":[\"remove\",\"weaken\"]}", "OK");
    wire_do(&c, "{\"op\":\"remove-regions\",\"region\":0}", "SEALED");
    wire_do(&c, "{\"op\":\"set-rules\",\"rules\":[{\"region\":0}]}", "SEALED");
    wire_do(&c, "{\"op\":\"unbind\"}", "SEALED");
}
END_TEST

START_TEST(there_are_sixteen_host_contexts)
{
    for (unsigned i = 0; i < RULES_HOST_CONTEXTS; i++)
        wire_do(&c, "{\"op\":\"bind\"}", "OK");
    wire_do(&c, "{\"op\":\"bind\"}", "TOO_MANY");
    wire_do(&c, "{\"op\":\"unbind\",\"context\":70}", "OK");
    json_t *reply = wire_expect(&c, "{\"op\":\"bind\"}", "OK");
    ck_assert_uint_eq(number_of(reply, "context"), 70);
    json_decref(reply);
}
END_TEST

/* ---- Virtual addresses ----------------------------------------------------------------------- */

enum { ROOT = 0x100000, OTHER_ROOT = ROOT + 0x1000, PDPT = 0x102000, PD = 0x103000, PT = 0x104000 };

static void poke64(uint64_t gpa, uint64_t value)
{
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    phys_write(w.map, &loader, gpa, &value, 8);
}

/* Four-level paging: page n at FFFFFFFF80000000h + n is frame 200h + n, the third absent, read-only
 * and for supervisors, in the address space of vCPU 0; vCPU 1's is empty. */
static void build_address_space(void)
{
    w.paging.cr0 = 0x80010011;
    w.paging.cr4 = 0x20;
    w.paging.efer = 0xd00;
    w.paging.cr3 = ROOT;
    poke64(ROOT + 8 * 511, PDPT | 3);
    poke64(PDPT + 8 * 510, PD | 3);
    poke64(PD, PT | 3);
    for (unsigned i = 0; i < 2; i++)
        poke64(PT + 8 * i, (0x200 + i) << 12 | 1);
    for (unsigned i = 3; i < 8; i++)
        poke64(PT + 8 * i, (0x280 - i) << 12 | 1);
}

START_TEST(regions_by_virtual_address)
{
    build_address_space();
    wire_do(&c, "{\"op\":\"bind\"}", "OK");
    json_t *reply = wire_expect(&c, "{\"op\":\"list\"}", "OK");
    ck_assert_uint_eq(number_of(json_array_get(json_object_get(reply, "contexts"), 0), "root"),
                      ROOT);
    json_decref(reply);
    wire_do(&c,
            "{\"op\":\"add-regions\",\"regions\":["
            "{\"base\":\"0xffffffff80000ffc\",\"length\":8},"
            "{\"base\":{\"virtual\":\"0xffffffff80003000\",\"cr3\":\"0x100000\"},\"length\":1}]}",
            "OK");
    wire_do(&c, "{\"op\":\"set-rules\",\"rules\":[{\"region\":0,\"count\":2," NO_DMA "}]}", "OK");
    ck_assert(dma_write(&w, 0x200ffb, 1));
    ck_assert(!dma_write(&w, 0x200ffc, 1));
    ck_assert(!dma_write(&w, 0x201003, 1));
    ck_assert(dma_write(&w, 0x201004, 1));
    ck_assert(!dma_write(&w, 0x27d000, 1));
    wire_do(&c,
            "{\"op\":\"add-regions\",\"regions\":[{\"base\":{\"virtual\":\"0xffffffff80003000\","
            "\"cr3\":\"0x101000\"},\"length\":1}]}",
            "BAD_ARGUMENT");
    wire_do(&c, "{\"op\":\"add-regions\",\"regions\":[{\"base\":\"0x800000000000\",\"length\":1}]}",
            "BAD_RANGE");
}
END_TEST

START_TEST(a_context_has_the_address_space_it_is_bound_to)
{
    static const struct {
        const char *bind;
        uint64_t root;
    } cases[] = {{"{\"op\":\"bind\"}", ROOT},
                 {"{\"op\":\"bind\",\"vcpu\":1}", OTHER_ROOT},
                 {"{\"op\":\"bind\",\"cr3\":\"0x3ff000\"}", 0x3ff000},
                 {"{\"op\":\"bind\",\"arg\":[\"0x3fe000\"]}", 0x3fe000}};
    build_address_space();
    for (unsigned i = 0; i < 4; i++) {
        json_decref(wire_expect(&c, cases[i].bind, "OK"));
        json_t *reply = wire_expect(&c, "{\"op\":\"list\"}", "OK");
        json_t *context = json_array_get(json_object_get(reply, "contexts"), i);
        ck_assert_uint_eq(number_of(context, "root"), cases[i].root);
        json_decref(reply);
    }
    wire_do(&c, "{\"op\":\"bind\",\"vcpu\":2}", "BAD_ARGUMENT");
}
END_TEST

/* ---- Memory ---------------------------------------------------------------------------------- */

START_TEST(memory_is_read_and_written)
{
    build_address_space();
    wire_do(&c, "{\"op\":\"write\",\"address\":{\"physical\":\"0x200ffe\"},\"data\":\"11223344\"}",
            "OK");
    json_t *reply =
        wire_expect(&c, "{\"op\":\"read\",\"address\":{\"physical\":2101246},\"length\":4}", "OK");
    ck_assert_str_eq(text_of(reply, "data"), "11223344");
    json_decref(reply);
    /* by virtual address, over a page's end, and where the guest itself may only read */
    reply =
        wire_expect(&c, "{\"op\":\"read\",\"address\":\"0xffffffff80000ffe\",\"length\":4}", "OK");
    ck_assert_str_eq(text_of(reply, "data"), "11223344");
    json_decref(reply);
    wire_do(&c,
            "{\"op\":\"write\",\"address\":{\"virtual\":\"0xffffffff80003fff\",\"cr3\":1048576},"
            "\"data\":\"aabb\"}",
            "OK");
    reply = wire_expect(
        &c, "{\"op\":\"read\",\"address\":{\"physical\":\"0x27c000\"},\"length\":1}", "OK");
    ck_assert_str_eq(text_of(reply, "data"), "bb"); /* page 4 lies before page 3 */
    json_decref(reply);
    reply = wire_expect(&c, "{\"op\":\"read\",\"address\":0,\"length\":0}", "OK");
    ck_assert_str_eq(text_of(reply, "data"), "");
    json_decref(reply);
    wire_do(&c, "{\"op\":\"read\",\"address\":\"0xffffffff80001ffe\",\"length\":4}", "NOT_MAPPED");
    wire_do(&c, "{\"op\":\"read\",\"address\":\"0xffffffff80000000\",\"length\":1,\"vcpu\":1}",
            "NOT_MAPPED");
    wire_do(&c, "{\"op\":\"read\",\"address\":\"0xffffffff80000000\",\"length\":1,\"vcpu\":7}",
            "NOT_MAPPED");
    /* not canonical, though its low 48 bits are mapped */
    wire_do(&c, "{\"op\":\"read\",\"address\":\"0xffff80000000\",\"length\":1}", "NOT_MAPPED");
    wire_do(&c, "{\"op\":\"read\",\"address\":\"0xffffffffffffffff\",\"length\":2}", "NOT_MAPPED");
    wire_do(&c, "{\"op\":\"read\",\"address\":{\"physical\":4194303},\"length\":2}", "NOT_MEMORY");
    wire_do(&c,
            "{\"op\":\"write\",\"address\":{\"physical\":\"0xffffffffffffffff\"},\"data\":\"00"
            "00\"}",
            "NOT_MEMORY");
}
END_TEST

START_TEST(rules_hold_clients_too)
{
    static const uint8_t zero[8];
    uint8_t now[8];
    static const struct access own = {.initiator = INITIATOR_LOADER};
    wire_protect(&c, 0x5004, 1, "\"allow\":{\"host\":\"\"}");
    wire_do(&c, "{\"op\":\"read\",\"address\":{\"physical\":\"0x5005\"},\"length\":4}", "OK");
    wire_do(&c, "{\"op\":\"read\",\"address\":{\"physical\":\"0x5000\"},\"length\":8}", "REFUSED");
    json_t *reply = wire_expect(
        &c, "{\"op\":\"write\",\"address\":{\"physical\":\"0x5000\"},\"data\":\"0102030405\"}",
        "REFUSED");
    ck_assert_uint_eq(number_of(reply, "done"), 0);
    json_decref(reply);
    phys_read(w.map, &own, 0x5000, now, 8);
    ck_assert_mem_eq(now, zero, 8);
}
END_TEST

/* ---- Contexts and connections ---------------------------------------------------------------- */

START_TEST(a_context_ends_with_its_connection)
{
    struct wire other;
    wire_open(&other, &w);
    unsigned context = wire_protect(&other, 0x5000, 16, NO_DMA);
    ck_assert(!dma_write(&w, 0x5000, 1));
    wire_close(&other);
    ck_assert(comes_to_an_end(&c, context));
    ck_assert(dma_write(&w, 0x5000, 1));
}
END_TEST

START_TEST(one_that_is_kept_stays_and_goes_on_with_its_session)
{
    struct wire other, third;
    char line[200];
    wire_open(&other, &w);
    json_t *reply = wire_expect(&other, "{\"op\":\"bind\",\"keep\":true}", "OK");
    unsigned context = (unsigned)number_of(reply, "context");
    uint64_t session = number_of(reply, "result");
    json_decref(reply);
    unsigned brief = wire_protect(&other, 0x5000, 16, NO_DMA);
    wire_close(&other);
    ck_assert(comes_to_an_end(&c, brief));
    ck_assert_str_eq(kind_of(&c, context), "host");
    wire_open(&third, &w);
    snprintf(line, sizeof(line), "{\"op\":\"statistics\",\"context\":%u}", context);
    wire_do(&third, line, "WRONG_SESSION");
    snprintf(line, sizeof(line), "{\"op\":\"unbind\",\"context\":%u,\"session\":\"0x%llx\"}",
             context, (unsigned long long)session);
    wire_do(&third, line, "OK");
    ck_assert_str_eq(kind_of(&c, context), "");
    wire_close(&third);
}
END_TEST

/* The end of a connection must not zero a running guest's memory, as the end of a sealed context
 * would. */
START_TEST(a_sealed_context_outlives_its_connection)
{
    struct wire other;
    ck_assert(dma_write(&w, 0x5000, 0x55));
    wire_open(&other, &w);
    unsigned brief = wire_protect(&other, 0x6000, 16, NO_DMA);
    unsigned context = wire_protect(&other, 0x5000, 16, NO_DMA);
    char line[100];
    ck_assert_uint_eq(context, brief + 1);
    /* the lowest context is the default */
    snprintf(line, sizeof(line),
             "{\"op\":\"add-regions\",\"context\":%u,\"regions\":[{\"base\":{\"physical\":20480},"
             "\"length\":16}]}",
             context);
    wire_do(&other, line, "OK");
    snprintf(line, sizeof(line),
             "{\"op\":\"set-rules\",\"context\":%u,\"rules\":[{\"region\":0," NO_DMA "}]}",
             context);
    wire_do(&other, line, "OK");
    snprintf(line, sizeof(line), "{\"op\":\"seal\",\"context\":%u,\"seals\":\"remove\"}", context);
    wire_do(&other, line, "OK");
    wire_close(&other);
    ck_assert(comes_to_an_end(&c, brief));
    ck_assert_str_eq(kind_of(&c, context), "host");
    ck_assert(!dma_write(&w, 0x5000, 1));
    json_t *reply =
        wire_expect(&c, "{\"op\":\"read\",\"address\":{\"physical\":20480},\"length\":1}", "OK");
    ck_assert_str_eq(text_of(reply, "data"), "55");
    json_decref(reply);
    snprintf(line, sizeof(line), "{\"op\":\"destroy\",\"context\":%u}", context);
    wire_do(&c, line, "SEALED");
}
END_TEST

/* After a reset the number may be somebody else's: the first owner's end is not that one's. */
START_TEST(a_reset_takes_contexts_away_for_good)
{
    struct wire first;
    wire_open(&first, &w);
    unsigned context = wire_protect(&first, 0x5000, 16, NO_DMA);
    unsigned other = wire_protect(&first, 0x7000, 16, NO_DMA);
    pthread_mutex_lock(&w.lock);
    rules_reset(w.rules);
    pthread_mutex_unlock(&w.lock);
    wire_do(&first, "{\"op\":\"statistics\"}", "NOT_BOUND");
    ck_assert_uint_eq(wire_protect(&c, 0x6000, 16, NO_DMA), context);
    wire_do(&first, "{\"op\":\"statistics\",\"context\":64}", "WRONG_SESSION");
    wire_do(&first, "{\"op\":\"bind\"}", "OK"); /* so that its leaving can be seen */
    wire_close(&first);
    ck_assert(comes_to_an_end(&c, other));
    ck_assert(!dma_write(&w, 0x6000, 1));
}
END_TEST

START_TEST(grants_and_the_end_of_a_context)
{
    wire_do(&c, "{\"op\":\"grant\",\"context\":3,\"grants\":\"users\"}", "NOT_BOUND");
    wire_do(&c, "{\"op\":\"grant\",\"context\":80,\"grants\":\"users\"}", "NOT_BOUND");
    wire_do(&c, "{\"op\":\"bind\"}", "OK");
    wire_do(&c,
            "{\"op\":\"grant\",\"context\":64,\"grants\":[\"users\",\"physical\"],\"take\":true}",
            "OK");
    wire_do(&c, "{\"op\":\"grant\",\"context\":64,\"grants\":128}", "BAD_ARGUMENT");
    json_t *reply = wire_expect(&c, "{\"op\":\"list\"}", "OK");
    json_t *grants =
        json_object_get(json_array_get(json_object_get(reply, "contexts"), 0), "grants");
    char *text = json_dumps(grants, JSON_COMPACT);
    ck_assert_str_eq(text, "[\"kernel\",\"devices\",\"host\",\"observe\",\"control\"]");
    free(text);
    json_decref(reply);
    wire_do(&c, "{\"op\":\"destroy\",\"context\":64}", "OK");
    wire_do(&c, "{\"op\":\"destroy\",\"context\":64}", "NOT_BOUND");
    wire_do(&c, "{\"op\":\"destroy\",\"context\":4000000000}", "NOT_BOUND");
}
END_TEST

START_TEST(many_regions_are_listed_in_parts)
{
    enum { REGIONS = 2500 };
    char *line = malloc(REGIONS * 40 + 100), *at = line;
    uint64_t first = 0, seen = 0;
    at += sprintf(at, "{\"op\":\"add-regions\",\"regions\":[");
    for (unsigned i = 0; i < REGIONS; i++)
        at += sprintf(at, "%s{\"base\":%u,\"length\":1,\"flags\":2}", i ? "," : "", 0x5000 + i);
    strcpy(at, "]}");
    wire_do(&c, "{\"op\":\"bind\"}", "OK");
    wire_do(&c, line, "OK");
    wire_do(&c, "{\"op\":\"remove-regions\",\"region\":1200,\"count\":100}", "OK");
    for (bool more = true; more;) {
        sprintf(line, "{\"op\":\"list\",\"context\":64,\"first\":%llu}", (unsigned long long)first);
        json_t *reply = wire_expect(&c, line, "OK"), *region;
        size_t i;
        json_array_foreach (json_object_get(reply, "regions"), i, region) {
            uint64_t id = number_of(region, "region");
            ck_assert_uint_eq(id, seen < 1200 ? seen : seen + 100);
            ck_assert_uint_eq(number_of(region, "base"), 0x5000 + id);
            seen++;
        }
        ck_assert_uint_le(i, 1000);
        more = !json_is_null(json_object_get(reply, "next"));
        first = more ? number_of(reply, "next") : 0;
        json_decref(reply);
    }
    ck_assert_uint_eq(seen, REGIONS - 100);
    json_t *reply = wire_expect(&c, "{\"op\":\"list\",\"context\":64,\"count\":0}", "OK");
    ck_assert_uint_eq(number_of(reply, "next"), 0);
    json_decref(reply);
    wire_do(&c, "{\"op\":\"list\",\"context\":64,\"first\":4294967295}", "OK");
    wire_do(&c, "{\"op\":\"list\",\"context\":80}", "BAD_ARGUMENT");
    free(line);
}
END_TEST

/* ---- Events ---------------------------------------------------------------------------------- */

START_TEST(an_event_names_who_what_and_where)
{
    wire_protect(&c, 0x5000, 16, NO_DMA ",\"notify\":\"preimage\"");
    wire_do(&c, "{\"op\":\"subscribe\"}", "OK");
    ck_assert(dma_write(&w, 0x5010, 0x77)); /* not one of them */
    ck_assert(!dma_write(&w, 0x5003, 0xab));
    json_t *line = wire_next(&c), *event = json_object_get(line, "event");
    ck_assert_ptr_nonnull(event);
    ck_assert_uint_eq(number_of(event, "context"), 64);
    ck_assert_uint_eq(number_of(event, "sequence"), 1);
    ck_assert_str_eq(text_of(event, "type"), "access");
    ck_assert_str_eq(text_of(event, "access"), "w");
    ck_assert_str_eq(text_of(event, "subject"), "device");
    ck_assert_str_eq(text_of(event, "action"), "deny");
    ck_assert_uint_eq(number_of(event, "device"), 0x18);
    ck_assert_uint_eq(number_of(event, "gpa"), 0x5003);
    ck_assert_uint_eq(number_of(event, "home"), 0x5003);
    ck_assert_uint_eq(number_of(event, "length"), 1);
    ck_assert_str_eq(json_string_value(json_array_get(json_object_get(event, "value"), 0)), "0xab");
    json_decref(line);
}
END_TEST

static void expect_event_of(struct wire *client, unsigned context)
{
    json_t *line = wire_next(client);
    ck_assert_uint_eq(number_of(json_object_get(line, "event"), "context"), context);
    json_decref(line);
}

START_TEST(who_gets_which_events)
{
    struct wire other;
    struct protect_event event = {.sequence = 1, .type = PROTECT_EVENT_ACCESS};
    wire_open(&other, &w);
    wire_protect(&c, 0x5000, 16, NO_DMA);
    wire_protect(&other, 0x6000, 16, NO_DMA);
    wire_do(&c, "{\"op\":\"subscribe\",\"events\":\"own\"}", "OK");
    wire_do(&other, "{\"op\":\"subscribe\",\"events\":\"all\"}", "OK");
    ck_assert(!dma_write(&w, 0x6000, 1));
    ck_assert(!dma_write(&w, 0x5000, 1));
    expect_event_of(&c, 64);
    expect_event_of(&other, 65);
    expect_event_of(&other, 64);
    /* a guest's context: only with PROTECT_NOTIFY_HOST, and not as one's own */
    control_event(w.control, 5, &event, 0);
    control_event(w.control, 6, &event, PROTECT_NOTIFY_HOST);
    control_event(w.control, 7, &event, PROTECT_NOTIFY_HOST | PROTECT_NOTIFY_QUIET);
    expect_event_of(&other, 6);
    expect_event_of(&other, 7);
    /* nobody wants to hear of quiet ones, nor after unsubscribing */
    control_event(w.control, 65, &event, PROTECT_NOTIFY_QUIET);
    wire_do(&other, "{\"op\":\"subscribe\",\"events\":\"none\"}", "OK");
    ck_assert(!dma_write(&w, 0x6000, 1));
    ck_assert(wire_quiet(&other, 100));
    ck_assert(wire_quiet(&c, 0));
    wire_close(&other);
}
END_TEST

START_TEST(events_can_be_fetched_instead)
{
    json_t *reply;
    wire_protect(&c, 0x5000, 16, NO_DMA);
    for (unsigned i = 0; i < PROTECT_EVENTS + 3; i++)
        ck_assert(!dma_write(&w, 0x5000 + i % 16, 1));
    reply = wire_expect(&c, "{\"op\":\"events\"}", "OK");
    ck_assert_uint_eq(json_array_size(json_object_get(reply, "events")), PROTECT_EVENTS);
    ck_assert_uint_eq(number_of(reply, "event_head"), PROTECT_EVENTS);
    ck_assert_uint_eq(number_of(reply, "event_tail"), 0);
    ck_assert_uint_eq(number_of(reply, "event_lost"), 3);
    ck_assert_uint_eq(number_of(json_array_get(json_object_get(reply, "events"), 17), "gpa"),
                      0x5001);
    json_decref(reply);
    reply = wire_expect(&c, "{\"op\":\"events\",\"acknowledge\":30}", "OK");
    ck_assert_uint_eq(json_array_size(json_object_get(reply, "events")), 2);
    ck_assert_uint_eq(number_of(json_array_get(json_object_get(reply, "events"), 0), "sequence"),
                      31);
    json_decref(reply);
    wire_do(&c, "{\"op\":\"events\",\"acknowledge\":33}", "BAD_ARGUMENT");
    wire_do(&c, "{\"op\":\"events\",\"session\":5}", "WRONG_SESSION");
    wire_do(&c, "{\"op\":\"events\",\"context\":0}", "WRONG_CALLER");
    wire_do(&c, "{\"op\":\"events\",\"context\":66}", "NOT_BOUND");
    /* who is told of events finds the ring empty, and never full */
    wire_do(&c, "{\"op\":\"subscribe\"}", "OK");
    for (unsigned i = 0; i < 2 * PROTECT_EVENTS; i++) {
        ck_assert(!dma_write(&w, 0x5000, 1));
        json_decref(wire_next(&c));
    }
    reply = wire_expect(&c, "{\"op\":\"events\"}", "OK");
    ck_assert_uint_eq(json_array_size(json_object_get(reply, "events")), 0);
    ck_assert_uint_eq(number_of(reply, "event_lost"), 3);
    json_decref(reply);
}
END_TEST

/* ---- The machine ----------------------------------------------------------------------------- */

START_TEST(pausing_and_stopping)
{
    json_t *reply = wire_expect(&c, "{\"op\":\"status\"}", "OK");
    ck_assert_str_eq(text_of(reply, "machine"), "running");
    ck_assert_uint_eq(number_of(reply, "vcpus"), 2);
    json_decref(reply);
    reply = wire_expect(&c, "{\"op\":\"counters\"}", "OK");
    const json_t *list = json_object_get(reply, "counters");
    ck_assert_uint_eq(json_array_size(list), 2);
    for (unsigned i = 0; i < 2; i++) {
        const json_t *vcpu = json_array_get(list, i), *mmu = json_object_get(vcpu, "mmu");
        ck_assert_uint_eq(number_of(json_object_get(vcpu, "jit"), "links"), 10 + i);
        ck_assert_uint_eq(number_of(mmu, "fills"), 1ull << 63);
        ck_assert_uint_eq(json_object_size(mmu), 2);
    }
    json_decref(reply);
    wire_do(&c, "{\"op\":\"counters\",\"vcpu\":0}", "BAD_REQUEST");
    reply = wire_expect(&c, "{\"op\":\"pause\"}", "OK");
    ck_assert_str_eq(text_of(reply, "machine"), "paused");
    json_decref(reply);
    reply = wire_expect(&c, "{\"op\":\"continue\"}", "OK");
    ck_assert_str_eq(text_of(reply, "machine"), "running");
    json_decref(reply);
    ck_assert(!w.stopped);
    wire_do(&c, "{\"op\":\"stop\"}", "OK");
    ck_assert(w.stopped);
}
END_TEST

START_TEST(screen_and_keyboard)
{
    wire_do(&c, "{\"op\":\"screendump\",\"file\":\"/tmp/x.png\"}", "OK");
    ck_assert_str_eq(w.dumped, "/tmp/x.png");
    json_t *reply = wire_expect(&c, "{\"op\":\"screendump\",\"file\":\"/full\"}", "FAILED");
    ck_assert_str_eq(text_of(reply, "text"), "/full: disk full");
    json_decref(reply);
    wire_do(&c, "{\"op\":\"screendump\",\"file\":\"x.png\"}", "BAD_REQUEST");
    wire_do(&c, "{\"op\":\"screendump\"}", "BAD_REQUEST");
    reply = wire_expect(&c, "{\"op\":\"screen\"}", "OK");
    const json_t *lines = json_object_get(reply, "lines");
    ck_assert_uint_eq(json_array_size(lines), 3);
    ck_assert_str_eq(json_string_value(json_array_get(lines, 1)), "");
    ck_assert_str_eq(json_string_value(json_array_get(lines, 2)), "\u2554 two");
    json_decref(reply);
    wire_do(&c, "{\"op\":\"sendkey\",\"keys\":\"ctrl-alt-delete\"}", "OK");
    ck_assert_str_eq(w.keys, "ctrl-alt-delete 0");
    wire_do(&c, "{\"op\":\"sendkey\",\"keys\":\"a\",\"hold_ms\":500}", "OK");
    ck_assert_str_eq(w.keys, "a 500");
    wire_do(&c, "{\"op\":\"sendkey\",\"keys\":\"\"}", "BAD_REQUEST");
    wire_do(&c, "{\"op\":\"sendkey\",\"keys\":5}", "BAD_REQUEST");
}
END_TEST

START_TEST(media)
{
    wire_do(&c, "{\"op\":\"eject\",\"drive\":\"ide1-cd0\"}", "OK");
    ck_assert_str_eq(w.changed, "ide1-cd0 - - 0");
    wire_do(&c,
            "{\"op\":\"change\",\"drive\":\"ide1-cd0\",\"file\":\"/a "
            "b\",\"format\":\"raw\",\"force\":true}",
            "OK");
    ck_assert_str_eq(w.changed, "ide1-cd0 /a b raw 1");
    wire_do(&c, "{\"op\":\"eject\",\"drive\":\"x\"}", "FAILED");
    wire_do(&c, "{\"op\":\"eject\"}", "BAD_REQUEST");
    wire_do(&c, "{\"op\":\"eject\",\"drive\":\"ide1-cd0\",\"file\":\"/a\"}", "BAD_REQUEST");
    wire_do(&c, "{\"op\":\"change\",\"drive\":\"ide1-cd0\"}", "BAD_REQUEST");
    wire_do(&c, "{\"op\":\"change\",\"drive\":\"ide1-cd0\",\"file\":\"a\"}", "BAD_REQUEST");
}
END_TEST

START_TEST(the_state_is_told_to_those_who_watch)
{
    struct wire other;
    wire_open(&other, &w);
    wire_do(&c, "{\"op\":\"subscribe\",\"events\":\"own\"}", "OK");
    control_tell(w.control, "paused", "because of \"this\"");
    json_t *line = wire_next(&c), *machine = json_object_get(line, "machine");
    ck_assert_str_eq(text_of(machine, "state"), "paused");
    ck_assert_str_eq(text_of(machine, "report"), "because of \"this\"");
    json_decref(line);
    control_tell(w.control, "reset", NULL);
    line = wire_next(&c);
    ck_assert_str_eq(text_of(json_object_get(line, "machine"), "state"), "reset");
    ck_assert_str_eq(text_of(json_object_get(line, "machine"), "report"), "");
    json_decref(line);
    ck_assert(wire_quiet(&other, 0));
    wire_close(&other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ops");
    TCase *t = tcase_create("ops");
    tcase_set_timeout(t, 240);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, a_whole_life);
    tcase_add_test(t, refusals_have_the_statuses_of_the_interface);
    tcase_add_test(t, there_are_sixteen_host_contexts);
    tcase_add_test(t, regions_by_virtual_address);
    tcase_add_test(t, a_context_has_the_address_space_it_is_bound_to);
    tcase_add_test(t, memory_is_read_and_written);
    tcase_add_test(t, rules_hold_clients_too);
    tcase_add_test(t, a_context_ends_with_its_connection);
    tcase_add_test(t, one_that_is_kept_stays_and_goes_on_with_its_session);
    tcase_add_test(t, a_sealed_context_outlives_its_connection);
    tcase_add_test(t, a_reset_takes_contexts_away_for_good);
    tcase_add_test(t, grants_and_the_end_of_a_context);
    tcase_add_test(t, many_regions_are_listed_in_parts);
    tcase_add_test(t, an_event_names_who_what_and_where);
    tcase_add_test(t, who_gets_which_events);
    tcase_add_test(t, events_can_be_fetched_instead);
    tcase_add_test(t, pausing_and_stopping);
    tcase_add_test(t, screen_and_keyboard);
    tcase_add_test(t, media);
    tcase_add_test(t, the_state_is_told_to_those_who_watch);
    suite_add_tcase(suite, t);
    return run_suite(suite);
}
