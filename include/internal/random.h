/*
 * random.h - the one place where host randomness enters a machine (RDRAND, virtio-rng), so that
 * record and replay have one stream to log.
 */
#ifndef INTERNAL_RANDOM_H
#define INTERNAL_RANDOM_H

#include <stddef.h>

/* Fills buf; never fails (aborts if the host's kernel has no random numbers at all). Thread safe.
 */
void host_random(void *buf, size_t len);

#endif
