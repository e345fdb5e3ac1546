/*
 * report.c - puts like events together and finds the kernel's names for addresses (report.h).
 */
#include "report.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { GROUPS = 64, NAME = 48 };

/* The same subject doing the same from the same place, as often as `count` says. */
static struct group {
    struct protect_event first;
    unsigned attack, count;
    uint64_t symbol; /* address of the symbol found so far */
    char name[NAME];
} groups[GROUPS];
static unsigned group_count;

static struct group *find_group(const struct protect_event *event, unsigned attack)
{
    for (unsigned n = 0; n < group_count; n++) {
        struct group *group = &groups[n];
        if (group->attack == attack && group->first.type == event->type &&
            group->first.subject == event->subject && group->first.rip == event->rip &&
            group->first.access == event->access)
            return group;
    }
    if (group_count == GROUPS)
        return NULL;
    groups[group_count] = (struct group){.first = *event, .attack = attack};
    return &groups[group_count++];
}

void report_collect(struct bailey_door *door, unsigned attack)
{
    struct protect_event event;
    while (bailey_event_next(door, &event)) {
        struct group *group = find_group(&event, attack);
        if (group)
            group->count++;
    }
}

/* One pass over /proc/kallsyms: for each group's RIP the last symbol that is not behind it. */
void report_names(void)
{
    FILE *symbols = fopen("/proc/kallsyms", "r");
    char line[256], name[NAME];
    uint64_t address;
    while (symbols && fgets(line, sizeof(line), symbols)) {
        if (sscanf(line, "%" SCNx64 " %*c %47s", &address, name) != 2)
            continue;
        for (unsigned n = 0; n < group_count; n++) {
            struct group *group = &groups[n];
            if (address <= group->first.rip && address > group->symbol) {
                group->symbol = address;
                memcpy(group->name, name, NAME);
            }
        }
    }
    if (symbols)
        fclose(symbols);
}

void report_print(unsigned attack)
{
    char text[256];
    for (unsigned n = 0; n < group_count; n++) {
        struct group *group = &groups[n];
        if (group->attack != attack)
            continue;
        bailey_event_text(text, sizeof(text), &group->first);
        printf("    %s", text);
        if (group->first.rip >> 63 && group->symbol)
            printf(" [%s+%" PRIx64 "]", group->name, group->first.rip - group->symbol);
        if (group->count > 1)
            printf(", %u times", group->count);
        printf("\n");
    }
}
