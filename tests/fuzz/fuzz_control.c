/*
 * fuzz_control.c - the control socket's requests, line by line, on a small machine with real rules:
 * the parser, the decoders and every operation.
 *
 * The input is a script: lines as they are, and requests made of forms whose holes the script
 * fills. Whatever a line says, it has a reply of one line that is a JSON object with a status; what
 * decodes as a command encodes and decodes to the same again; and the rules survive.
 * AddressSanitizer watches the rest.
 */
#include "internal/error.h"
#include "internal/rules.h"
#include "src/control/ops.h"
#include <stdlib.h>
#include <string.h>

enum { RAM = 1 << 20, LINES = 64 };

static struct world {
    pthread_mutex_t lock;
    struct phys_map *map;
    struct rules *rules;
    struct control *control;
    bool made;
} w;

static void require(bool truth)
{
    if (!truth)
        abort();
}

static void paging_at_0(void *opaque, unsigned vcpu, struct paging *paging)
{
    (void)opaque, (void)vcpu;
    /* four-level tables at 0, in memory that the lines write */
    *paging = (struct paging){
        .cr0 = 0x80010011, .cr4 = 0x20, .efer = 0xd00, .maxphyaddr = 36, .nx = true, .a20 = true};
}
static void nothing(void *opaque)
{
    (void)opaque;
}
static bool always(void *opaque)
{
    (void)opaque;
    return true;
}
static void one_counter(void *opaque, unsigned vcpu, control_counter *put, void *to)
{
    (void)opaque;
    put(to, "mmu", "fills", vcpu);
}
static void on_event(void *opaque, unsigned context, const struct protect_event *event,
                     uint32_t notify)
{
    (void)opaque;
    control_event(w.control, context, event, notify);
}

static void make_world(void)
{
    struct error err;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&w.lock, &attr);
    w.map = phys_new(&w.lock, NULL);
    struct ram_block *ram = phys_ram_new(w.map, RAM, &err);
    require(ram && phys_add_ram(w.map, 0, RAM, ram, 0, "ram", &err));
    w.rules = rules_new(w.map, NULL, NULL, NULL, &err);
    const struct control_machine machine = {.vcpus = 2,
                                            .lock = &w.lock,
                                            .paging = paging_at_0,
                                            .pause = nothing,
                                            .resume = nothing,
                                            .stop = nothing,
                                            .paused = always,
                                            .counters = one_counter};
    w.control = control_new(w.rules, w.map, &machine, &err);
    const struct rules_hooks hooks = {.event = on_event};
    rules_set_hooks(w.rules, &hooks);
    w.made = true;
}

/* A decoded command says the same once more, unless its count is not that of its array. */
static void check_again(const struct request *r)
{
    const struct protect_command *c = &r->command.command;
    const struct wire_op *op = wire_op(c->op);
    struct wire_command again;
    struct wire_error err;
    if (op && op->shape == WIRE_ARRAY &&
        (c->arg[1] > PROTECT_MAX_ELEMENTS || c->arg[1] * op->layout->size != r->command.size))
        return;
    json_t *json = wire_command_encode(c);
    require(wire_command_decode(json, &again, &err));
    require(again.command.op == c->op && again.command.session == c->session);
    require(again.size == r->command.size);
    require(!again.size || (op && op->shape == WIRE_OUT) ||
            memcmp(again.memory, r->command.memory, again.size) == 0);
    wire_command_free(&again);
    json_decref(json);
}

/* Replies and messages are one JSON object and a newline. */
static json_t *check_line(char *line)
{
    require(line != NULL);
    size_t len = strlen(line);
    require(len > 0 && line[len - 1] == '\n' && memchr(line, '\n', len) == line + len - 1);
    require(len <= WIRE_LINE_MAX);
    json_t *json = json_loads(line, 0, NULL);
    require(json_is_object(json));
    free(line);
    return json;
}

/* ---- Lines ----------------------------------------------------------------------------------- */

struct script {
    const uint8_t *at, *end;
};

static unsigned take(struct script *s)
{
    return s->at < s->end ? *s->at++ : 0;
}

/* Requests with holes: N a number, A an address, B bits, S access letters, W a verdict or action,
 * T true or false, D data; R, U, Q, H regions, rules, a query, a handler; c, o, r, u optional
 * members of a command, of an operation, of a region, of a rule. */
static const char *const requests[] = {
    "{'op':'bind'`c}",
    "{'op':'bind','keep':`T`c}",
    "{'op':'bind','cr3':`N,'vcpu':`N}",
    "{'op':'unbind'`c}",
    "{'op':'add-regions','regions':[`R]`c}",
    "{'op':'add-regions','regions':[`R,`R]}",
    "{'op':'add-regions','regions':[`R,`R,`R],'count':`N}",
    "{'op':'remove-regions','region':`N`c}",
    "{'op':'remove-regions','region':`N,'count':`N}",
    "{'op':'set-rules','rules':[`U]}",
    "{'op':'set-rules','rules':[`U,`U]`c}",
    "{'op':'set-handler','handler':`H`c}",
    "{'op':'query','query':`Q`c}",
    "{'op':'seal','seals':`B`c}",
    "{'op':'statistics'`c}",
    "{'op':`N`c}",
    "{'op':'list'`o}",
    "{'op':'list','context':`N,'first':`N,'count':`N}",
    "{'op':'events'`o}",
    "{'op':'events','acknowledge':`N,'session':`N}",
    "{'op':'grant','context':`N,'grants':`B,'take':`T}",
    "{'op':'destroy','context':`N}",
    "{'op':'subscribe','events':`W}",
    "{'op':'subscribe'}",
    "{'op':'handle','on':`T,'timeout_ms':`N`o}",
    "{'op':'answer','token':`N,'verdict':`W,'value':`N}",
    "{'op':'read','address':`A,'length':`N}",
    "{'op':'read','address':`A,'length':`N,'cr3':`N,'vcpu':`N}",
    "{'op':'write','address':`A,'data':`D}",
    "{'op':'pause'}",
    "{'op':'continue'}",
    "{'op':'status'`o}",
    "{'op':'counters'`o}",
};
static const char *const numbers[] = {"0",
                                      "1",
                                      "2",
                                      "3",
                                      "7",
                                      "8",
                                      "16",
                                      "63",
                                      "64",
                                      "65",
                                      "79",
                                      "80",
                                      "4095",
                                      "4096",
                                      "'0x1fff'",
                                      "8192",
                                      "65536",
                                      "1048575",
                                      "1048577",
                                      "4294967296",
                                      "'0x8000000000000000'",
                                      "'0xffffffffffffffff'",
                                      "-1",
                                      "null",
                                      "'x'",
                                      "[]"};
static const char *const bits[] = {"0",
                                   "1",
                                   "2",
                                   "3",
                                   "[]",
                                   "'physical'",
                                   "['pin','physical']",
                                   "'remove'",
                                   "['weaken','rebind']",
                                   "['host','preimage']",
                                   "'quiet'",
                                   "'kernel'",
                                   "['users',1]",
                                   "64",
                                   "4294967295"};
static const char *const letters[] = {"''", "'r'", "'rw'", "'rwx'", "'x'", "0", "7", "8", "'q'"};
static const char *const words[] = {
    "'deny'",       "'skip'",     "'allow'", "'ask-host'", "'upcall'", "'substitute'",
    "'allow-once'", "'deferred'", "'let'",   "'give'",     "'refuse'", "'set'",
    "'all'",        "'own'",      "'none'",  "0",          "7",        "8",
    "255",          "256",        "'page'",  "'general'"};
static const char *const truths[] = {"true", "false", "1"};
static const char *const data[] = {
    "'00'", "'0000000000000000'", "'ffffffffffffffffffff'", "'0'", "'zz'", "''"};
static const char *const addresses[] = {"`N", "{'physical':`N}", "{'virtual':`N}",
                                        "{'virtual':`N,'cr3':`N}", "{}"};
static const char *const regions[] = {"{'base':{'physical':`N},'length':`N`r}",
                                      "{'base':`A,'length':`N`r}",
                                      "{'base':`N,'length':`N,'flags':`B,'cookie':`N}"};
static const char *const rules[] = {
    "{'region':`N,'allow':{'host':`S}`u}", "{'region':`N,'count':`N,'allow':{'device':`S}}",
    "{'region':`N,'allow':[`S,`S,`S,`S,`S,`S,`S,`S],'action':{'kernel':`W}`u}"};
static const char *const queries[] = {"{'address':`N}", "{'region':`N}",
                                      "{'address':`N,'region':`N}"};
static const char *const handlers[] = {"null", "{'rip':`N,'stacks':`N}", "{'stack':[`N,`N]}"};
static const char *const of_command[] = {"",
                                         "",
                                         "",
                                         ",'context':`N",
                                         ",'session':`N",
                                         ",'version':`N",
                                         ",'reserved':`N",
                                         ",'arg':[`N,`N,`N,`N]",
                                         ",'id':`N",
                                         ",'cr3':`N",
                                         ",'vcpu':`N"};
static const char *const of_op[] = {"", ",'context':`N", ",'id':'a'"};
static const char *const of_region[] = {"", ",'flags':`B", ",'cookie':`N", ",'reserved':`N"};
static const char *const of_rule[] = {
    "", ",'notify':`B", ",'fault':`W", ",'marker':`N", ",'value':`N", ",'reserved':`N"};

#define HOLE(letter, list)                                                                         \
    {                                                                                              \
        letter, sizeof(list) / sizeof(list[0]), list                                               \
    }
static const struct {
    char letter;
    unsigned count;
    const char *const *choice;
} holes[] = {HOLE('N', numbers), HOLE('B', bits),      HOLE('S', letters),   HOLE('W', words),
             HOLE('T', truths),  HOLE('D', data),      HOLE('A', addresses), HOLE('R', regions),
             HOLE('U', rules),   HOLE('Q', queries),   HOLE('H', handlers),  HOLE('c', of_command),
             HOLE('o', of_op),   HOLE('r', of_region), HOLE('u', of_rule)};

/* Fills the holes of a form as the script says. */
static void fill(struct script *s, const char *form, FILE *out)
{
    for (; *form; form++) {
        if (*form != '`') {
            fputc(*form == '\'' ? '"' : *form, out);
            continue;
        }
        unsigned i = 0;
        for (form++; holes[i].letter != *form; i++)
            ;
        fill(s, holes[i].choice[take(s) % holes[i].count], out);
    }
}

/* A request made of the script; the result is freed. */
static char *make_request(struct script *s, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    fill(s, requests[take(s) % (sizeof(requests) / sizeof(requests[0]))], out);
    fclose(out);
    return text;
}

static void one_line(struct control_client *client, const char *line, size_t len)
{
    struct request request;
    struct wire_error err;
    enum request_problem problem = request_parse(line, len, &request, &err);
    if (problem == REQUEST_FINE && request.op == REQUEST_COMMAND)
        check_again(&request);
    char *reply =
        problem == REQUEST_FINE ? op_run(client, &request) : op_refuse(&request, problem, &err);
    json_t *json = check_line(reply);
    require(json_is_string(json_object_get(json, "status")));
    json_decref(json);
    request_free(&request);
}

/* The next line as it is. */
static void raw_line(struct control_client *client, struct script *s)
{
    const uint8_t *newline = memchr(s->at, '\n', (size_t)(s->end - s->at));
    size_t len = (size_t)((newline ? newline : s->end) - s->at);
    one_line(client, (const char *)s->at, len);
    s->at += len + (newline != NULL);
}

static void made_line(struct control_client *client, struct script *s)
{
    size_t len = 0;
    char *text = make_request(s, &len);
    one_line(client, text, len);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const struct access loader = {.initiator = INITIATOR_LOADER};
    static const struct access dma = {.initiator = INITIATOR_DMA};
    static const uint64_t tables[4] = {3, 0x1003, 0x2003, 0x83};
    struct script s = {bytes, bytes + size};
    if (!w.made)
        make_world();
    phys_write(w.map, &loader, 0, tables, sizeof(tables));
    struct control_client *client = control_join(w.control, nothing, NULL);
    require(client != NULL);
    for (unsigned i = 0; i < LINES && s.at < s.end; i++) {
        if (take(&s) < 8)
            raw_line(client, &s);
        else
            made_line(client, &s);
        phys_write(w.map, &dma, 0x1000, tables, 8); /* perhaps an event */
    }
    struct control_message message;
    while (control_take(client, &message))
        json_decref(check_line(line_message(&message)));
    control_leave(client);
    pthread_mutex_lock(&w.lock);
    rules_reset(w.rules);
    pthread_mutex_unlock(&w.lock);
    return 0;
}
