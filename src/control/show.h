/*
 * show.h - contexts, regions, events and counters as JSON.
 */
#ifndef CONTROL_SHOW_H
#define CONTROL_SHOW_H

#include "internal/control.h"
#include "internal/wire.h"

/* A list of what each vCPU has counted: {"jit":{NAME:N,...},"mmu":{...}}. */
void show_counters(struct control *control, json_t *reply);
void show_contexts(struct control *control, json_t *reply);
/* Regions with ids from `first` on, at most `count`, and in "next" the id to go on with. */
void show_regions(struct control *control, unsigned context, uint32_t first, uint32_t count,
                  json_t *reply);
/* The events between tail and head; *acknowledge, if not NULL, becomes the tail before. */
enum protect_status show_events(struct control_client *client, unsigned context, uint64_t session,
                                const uint64_t *acknowledge, json_t *reply);

#endif
