/*
 * main.c - the bare-metal example: ten lines that protect a page, and the fault of who writes to
 * it.
 *
 * Only stores to a fixed physical address: no library, no PCI, no operating system.
 */
#include "tiny.h"
#include <bailey/protect.h>

static char page[4096] __attribute__((aligned(4096)));

/* Ten lines: bind door 0, add a region, give it a rule. */
static uint32_t protect_page(void)
{
    static struct protect_region region = {.base = (uint64_t)page, .length = sizeof(page)};
    static struct protect_rule rule = PROTECT_RULE_DEFAULT(0, 1, PROTECT_READ, PROTECT_DENY);
    volatile struct protect_door *door = (void *)PROTECT_DOOR_ADDRESS(0);
    volatile struct protect_command *c = door->command;
    *(volatile uint64_t *)&c[0] = PROTECT_OP_BIND, door->doorbell = 0;
    *(volatile uint64_t *)&c[1] = PROTECT_OP_ADD_REGIONS, c[1].session = c[0].result;
    c[1].arg[0] = (uint64_t)&region, c[1].arg[1] = 1, door->doorbell = 1;
    *(volatile uint64_t *)&c[2] = PROTECT_OP_SET_RULES, c[2].session = c[0].result;
    rule.region = (uint32_t)c[1].result;
    c[2].arg[0] = (uint64_t)&rule, c[2].arg[1] = 1, door->doorbell = 2;
    return c[0].status | c[1].status | c[2].status;
}

static void write_to_page(void *argument)
{
    (void)argument;
    *(volatile char *)(page + 100) = 1;
}

void kernel_main(const char *command_line)
{
    volatile struct protect_door *door = (void *)PROTECT_DOOR_ADDRESS(0);
    (void)command_line;
    if (door->id != PROTECT_ID) {
        print("no protection device here\n");
        exit_machine(2);
    }
    print("before: the write %s\n", attempt(write_to_page, NULL) ? "faults" : "works");
    page[100] = 0;
    uint32_t status = protect_page();
    if (status != PROTECT_OK) {
        print("refused: status %d\n", status);
        exit_machine(1);
    }
    print("the page at %lx is protected; the page tables say writable\n", (uint64_t)page);
    if (!attempt(write_to_page, NULL)) {
        print("after: the write works\n");
        exit_machine(1);
    }
    print("after: the write faults: vector %d, error code %x, CR2 %lx; the byte is %d\n",
          (unsigned)caught.vector, (unsigned)caught.error, caught.cr2, page[100]);
    struct protect_event event; /* the device takes loads of 4 or 8 bytes */
    for (unsigned n = 0; n < sizeof(event) / 8; n++)
        ((uint64_t *)&event)[n] = ((volatile uint64_t *)&door->event[0])[n];
    print("event %d: access %x of %d byte at %lx by CPL %d, RIP %lx\n", (unsigned)event.sequence,
          event.access, event.length, event.gva, event.cpl, event.rip);
}
