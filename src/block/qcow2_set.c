/*
 * qcow2_set.c - a set of cluster numbers: open addressing, linear probing, half full at most.
 */
#include "qcow2.h"
#include <stdlib.h>

static size_t home(const struct cluster_set *set, uint64_t slot)
{
    return (size_t)(slot * 0x9e3779b97f4a7c15ull >> 20) & set->mask;
}

static size_t find(const struct cluster_set *set, uint64_t slot)
{
    size_t i = home(set, slot);
    while (set->slots[i] && set->slots[i] != slot)
        i = (i + 1) & set->mask;
    return i;
}

static bool grow(struct cluster_set *set)
{
    size_t old = set->slots ? set->mask + 1 : 0;
    struct cluster_set bigger = {.mask = old ? 2 * old - 1 : 63, .count = set->count};
    bigger.slots = calloc(bigger.mask + 1, sizeof(*bigger.slots));
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < old; i++)
        if (set->slots[i])
            bigger.slots[find(&bigger, set->slots[i])] = set->slots[i];
    free(set->slots);
    *set = bigger;
    return true;
}

bool cluster_set_add(struct cluster_set *set, uint64_t cluster)
{
    if ((!set->slots || 2 * (set->count + 1) > set->mask) && !grow(set))
        return false;
    size_t i = find(set, cluster + 1);
    set->count += !set->slots[i];
    set->slots[i] = cluster + 1;
    return true;
}

bool cluster_set_has(const struct cluster_set *set, uint64_t cluster)
{
    return set->slots && set->slots[find(set, cluster + 1)];
}

/* Moves later ones of the same probe sequence up, so that none is cut off. */
void cluster_set_remove(struct cluster_set *set, uint64_t cluster)
{
    if (!cluster_set_has(set, cluster))
        return;
    size_t hole = find(set, cluster + 1);
    for (size_t i = (hole + 1) & set->mask; set->slots[i]; i = (i + 1) & set->mask)
        if (((i - home(set, set->slots[i])) & set->mask) >= ((i - hole) & set->mask)) {
            set->slots[hole] = set->slots[i];
            hole = i;
        }
    set->slots[hole] = 0;
    set->count--;
}

void cluster_set_free(struct cluster_set *set)
{
    free(set->slots);
    *set = (struct cluster_set){0};
}
