/*
 * random.c - see include/internal/random.h.
 */
#include "internal/random.h"
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

void host_random(void *buf, size_t len)
{
    for (uint8_t *p = buf; len;) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno != EINTR) {
            perror("bailey: getrandom");
            abort();
        }
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
}
