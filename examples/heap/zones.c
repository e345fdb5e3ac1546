/*
 * zones.c - red zones as regions of the door: reads, writes and fetches there by this program ask
 * the handler.
 *
 * What the kernel writes into a zone on the program's behalf (a read() that is too long) completes,
 * so that no system call fails oddly, and is reported when the program goes on. The kernel's reads
 * are left alone: it looks at path names eight bytes at a time.
 */
#include "bailey_guest.h"
#include "heap.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct bailey_door door;
static bool ready, stop;
enum { KIND_BITS = 2 };

static void check(const char *what, int status)
{
    if (status == PROTECT_OK)
        return;
    report_text("heap: ");
    report_text(what);
    report_text(": ");
    report_text(bailey_status_text(status));
    report_text("\n");
    _exit(2);
}

/* ---- What touched a zone ------------------------------------------------------------------------
 */

/* The C library looks for the end of a string 16 or 32 bytes at a time, and so reads bytes that are
 * not the string's on the way. That is no error if the read has bytes of a block in it: it ends
 * behind the slot, or begins in the block, in which case the first forbidden byte is the one right
 * behind the block. */
static bool vector_overread(const struct protect_frame *frame, const struct block *block,
                            enum zone_kind kind)
{
    enum { SHORTEST_VECTOR = 16 };
    if (frame->access != PROTECT_READ || frame->length < SHORTEST_VECTOR || !in_libc(frame->rip))
        return false;
    uint64_t slot_end = (uintptr_t)block->slot + block->space;
    return kind == ZONE_BEHIND && (frame->home == (uintptr_t)block->start + block->size ||
                                   frame->home + frame->length > slot_end);
}

static enum protect_verdict on_access(struct protect_frame *frame, void *opaque)
{
    const struct block *block = block_at((uint32_t)(frame->cookie >> KIND_BITS));
    enum zone_kind kind = (enum zone_kind)(frame->cookie & ((1 << KIND_BITS) - 1));
    (void)opaque;
    if (vector_overread(frame, block, kind))
        return PROTECT_LET;
    report_access(block, kind, bailey_access_text(frame->access), frame->home, frame->length,
                  frame->rip, frame->subject == PROTECT_KERNEL);
    return stop && !frame->deferred ? PROTECT_REFUSE : PROTECT_LET;
}

/* ---- Regions ------------------------------------------------------------------------------------
 */

static struct protect_region zone(uint32_t number, enum zone_kind kind, const char *start,
                                  const char *end)
{
    if (end > start)
        bailey_touch(start, (size_t)(end - start), BAILEY_TOUCH_WRITE);
    return (struct protect_region){.base = (uintptr_t)start,
                                   .length = (uint64_t)(end - start),
                                   .cookie = (uint64_t)number << KIND_BITS | kind};
}

/* Adds the regions that are not empty, and one rule for all of them. */
static void add(struct block *block, const struct protect_region *regions, unsigned count)
{
    struct protect_rule rule = PROTECT_RULE_DEFAULT(0, count, 0, PROTECT_UPCALL);
    rule.allow[PROTECT_KERNEL] = PROTECT_READ | PROTECT_EXEC;
    rule.action[PROTECT_KERNEL] = PROTECT_DEFERRED;
    rule.notify = PROTECT_NOTIFY_QUIET;
    if (!count)
        return;
    check("adding regions", bailey_regions_add(&door, regions, count, &rule.region));
    check("setting rules", bailey_rules_set(&door, &rule, 1));
    for (unsigned n = 0; n < count; n++)
        block->region[regions[n].cookie & ((1 << KIND_BITS) - 1)] = rule.region + n;
}

void zones_protect(uint32_t number)
{
    struct block *block = block_at(number);
    struct protect_region regions[2];
    unsigned count = 0;
    if (!ready)
        return;
    regions[count] = zone(number, ZONE_FRONT, block->slot, block->start);
    count += regions[count].length != 0;
    regions[count++] =
        zone(number, ZONE_BEHIND, block->start + block->size, block->slot + block->space);
    add(block, regions, count);
}

void zones_free(uint32_t number)
{
    struct block *block = block_at(number);
    struct protect_region region;
    if (!ready || !block->size)
        return;
    region = zone(number, ZONE_FREED, block->start, block->start + block->size);
    add(block, &region, 1);
}

void zones_drop(uint32_t number)
{
    struct block *block = block_at(number);
    for (unsigned kind = 0; kind < ZONE_KINDS; kind++)
        if (ready && block->region[kind] != NO_REGION)
            check("removing a region", bailey_regions_remove(&door, block->region[kind], 1));
}

/* ---- The door -----------------------------------------------------------------------------------
 */

void zones_open(void)
{
    const char *mode = getenv("BAILEY_HEAP");
    stop = mode && strcmp(mode, "stop") == 0;
    check("opening a door", bailey_linux_open(&door));
    check("setting the handler", bailey_handler_set(&door, on_access, NULL, NULL, 0, 0));
    ready = true;
}

void zones_reopen(void)
{
    ready = false;
    zones_open();
    for (uint32_t number = 1; number < block_count(); number++) {
        if (block_at(number)->state == BLOCK_UNUSED)
            continue;
        zones_protect(number);
        if (block_at(number)->state == BLOCK_FREED)
            zones_free(number);
    }
}
