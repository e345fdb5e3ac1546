/*
 * board.h - what fuzz targets of devices share: a board with manual time, and saved
 * states that nobody has checked.
 */
#ifndef TESTS_FUZZ_BOARD_H
#define TESTS_FUZZ_BOARD_H

#include "internal/chips.h"
#include "internal/clock.h"
#include "internal/error.h"
#include "internal/event.h"
#include "internal/log.h"
#include "internal/pci.h"
#include "tests/fuzz/restore.h"
#include "tests/fuzz/script.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RAM = 256 << 10 };

static pthread_mutex_t lock;
static struct log quiet;
static struct board board;
static uint64_t now;
static const struct access guest = {.initiator = INITIATOR_VCPU_KERNEL};

static inline void ignore_shutdown(void *machine, enum board_event what, int status)
{
    (void)machine, (void)what, (void)status;
}

static inline void board_begin(void)
{
    struct error err;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock, &attr);
    quiet = (struct log){.out = stderr};
    board = (struct board){.lock = &lock, .log = &quiet, .shutdown = ignore_shutdown};
    board.clock = clock_new();
    clock_set_manual(board.clock, now = 0);
    board.queue = event_queue_new(board.clock, &lock);
    board.map = phys_new(&lock, &quiet);
    board.io = io_space_new(&lock, &quiet);
    struct ram_block *ram = phys_ram_new(board.map, RAM, &err);
    require(ram && phys_add_ram(board.map, 0, RAM, ram, 0, "ram", &err));
}

static inline void board_end(void)
{
    io_space_free(board.io);
    phys_free(board.map);
    event_queue_free(board.queue);
    clock_free(board.clock);
    pthread_mutex_destroy(&lock);
}

static inline void advance(uint64_t ns)
{
    clock_set_manual(board.clock, now += ns);
    event_poll(board.queue);
}

#endif
