/*
 * report.h - who it was: the events of the door's ring, like ones together, with names.
 */
#ifndef REPORT_H
#define REPORT_H

#include "bailey_guest.h"

/* Takes all events out of the ring; they belong to attack number `attack`. */
void report_collect(struct bailey_door *door, unsigned attack);
/* One line for each kind of event of that attack. Finds names the first time. */
void report_print(unsigned attack);

#endif
