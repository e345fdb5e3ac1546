/*
 * report.h - who it was: the events of the door's ring, like ones together, with names.
 */
#ifndef REPORT_H
#define REPORT_H

#include "bailey_guest.h"

/* Takes all events out of the ring; they belong to attack number `attack`. */
void report_collect(struct bailey_door *door, unsigned attack);
/* Finds the kernel's names for the addresses so far. */
void report_names(void);
/* One line for each kind of event of that attack. */
void report_print(unsigned attack);

#endif
