/*
 * kills.c - writes to a disk without end, and says what it has flushed; tests/boot/kills.py kills
 * the machine.
 *
 *     kills DEVICE NUMBER RUN
 *
 * Each generation writes a few extents of 4-KiB blocks and zeroes one of 64 KiB, waits until
 * fdatasync() has returned, and only then prints "FLUSHED NUMBER GENERATION". What it writes where
 * follows from NUMBER, RUN and the generation alone (kills.py has the same arithmetic): every 16
 * bytes of a sector say RUN, generation, sector and NUMBER.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { SECTOR = 512, BLOCK = 4096, HOLE = 65536, EXTENTS = 12, LONGEST = 24 };

static uint64_t state;

/* Knuth's MMIX generator; the high half is random enough. */
static uint32_t next_random(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static void write_extent(int disk, uint64_t blocks, uint32_t number, uint32_t run,
                         uint32_t generation)
{
    static uint32_t data[LONGEST * BLOCK / sizeof(uint32_t)];
    uint64_t first = next_random() % (blocks - LONGEST), count = 1 + next_random() % LONGEST;
    for (uint64_t i = 0; i < count * BLOCK / 16; i++) {
        uint32_t *word = data + 4 * i;
        word[0] = run;
        word[1] = generation;
        word[2] = (uint32_t)(first * (BLOCK / SECTOR) + i * 16 / SECTOR);
        word[3] = number;
    }
    if (pwrite(disk, data, count * BLOCK, (off_t)(first * BLOCK)) != (ssize_t)(count * BLOCK))
        err(1, "write");
}

int main(int argc, char **argv)
{
    if (argc != 4)
        errx(1, "usage: kills DEVICE NUMBER RUN");
    uint32_t number = (uint32_t)atoi(argv[2]), run = (uint32_t)atoi(argv[3]);
    int disk = open(argv[1], O_RDWR);
    uint64_t size;
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &size))
        err(1, "%s", argv[1]);
    for (uint32_t generation = 1;; generation++) {
        state = (uint64_t)run << 40 | (uint64_t)number << 32 | generation;
        for (int i = 0; i < EXTENTS; i++)
            write_extent(disk, size / BLOCK, number, run, generation);
        off_t hole = (off_t)(next_random() % (size / HOLE)) * HOLE;
        if (fallocate(disk, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, hole, HOLE))
            err(1, "zeroes");
        if (fdatasync(disk))
            err(1, "flush");
        char line[64];
        int length = snprintf(line, sizeof(line), "FLUSHED %u %u\n", number, generation);
        if (write(1, line, (size_t)length) != length)
            return 1;
    }
}
