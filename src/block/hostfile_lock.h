/*
 * hostfile_lock.h - locks that keep a second machine from an image. Private to src/block.
 */
#ifndef BLOCK_HOSTFILE_LOCK_H
#define BLOCK_HOSTFILE_LOCK_H

#include <stdbool.h>

struct error;

/* Until the descriptor is closed. False with *err, which names `path`. */
bool hostfile_lock(int fd, const char *path, bool write, struct error *err);

#endif
