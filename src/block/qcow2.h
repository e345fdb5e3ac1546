/*
 * qcow2.h - a qcow2 image in memory, and what its files share. Private to src/block.
 *
 *      qcow2_open.c     the header, and all that is checked before anything is believed
 *      qcow2_table.c    L2 tables and refcount blocks, as many as the cache holds
 *      qcow2_map.c      where a guest offset's bytes are
 *      qcow2_refcount.c which clusters are free
 *      qcow2_repair.c   refcounts anew, after somebody did not close the image
 *      qcow2_sync.c     what is written when: the order that survives a power loss
 *      qcow2.c          reading, writing, zeroing, discarding
 *
 * Locks: `rw` is held shared by reads and by writes into clusters that stay where they are, alone
 * by everything that changes metadata. Under a shared `rw`, tables are looked up with `cache_lock`
 * held. Function names say nothing of locks where `rw` held alone is meant.
 *
 * Metadata is changed in memory only; qcow2_sync() brings it to the file. Memory for what waits is
 * bounded: when qcow2_must_sync() says so, the writer syncs before it goes on.
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include "image.h"
#include "qcow2_disk.h"
#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>

/* ---- Tables (qcow2_table.c) ---- */

#define TABLE_PAGE  4096u /* what is written of a table at a time, at least */
#define TABLE_PAGES ((1u << QCOW2_MAX_CLUSTER_BITS) / TABLE_PAGE)

/* One cluster of metadata in memory, as it is in the file: an L2 table or a refcount block. */
struct table {
    uint64_t offset; /* in the file */
    uint32_t key;    /* index in the L1 or refcount table */
    bool used;       /* since the clock hand passed */
    bool dirty;
    uint64_t dirty_pages[TABLE_PAGES / 64];
    uint64_t data[];
};

struct table_cache {
    struct table **by_key;
    struct table **loaded;
    unsigned count, room; /* of `loaded`; more than room only while all are dirty */
    unsigned allocated, dirty, hand;
};

/* A level-one table: whole in memory. */
struct top_table {
    uint64_t offset, entries;
    uint64_t *data; /* big-endian */
    uint8_t *dirty; /* one for each sector of the file's table */
    bool any_dirty;
};

/* A set of cluster numbers. */
struct cluster_set {
    uint64_t *slots; /* number + 1; 0: free */
    size_t count, mask;
};
bool cluster_set_add(struct cluster_set *set, uint64_t cluster); /* false: no memory */
void cluster_set_remove(struct cluster_set *set, uint64_t cluster);
bool cluster_set_has(const struct cluster_set *set, uint64_t cluster);
void cluster_set_free(struct cluster_set *set);

struct cluster_run {
    uint64_t first, count;
};

struct qcow2 {
    struct image image;
    struct hostfile *file;
    struct image *backing; /* NULL: none */
    bool write, unsafe, unmap;
    unsigned version;

    unsigned cluster_bits, refcount_order;
    uint64_t cluster_size;
    unsigned l2_entries, l2_entry_words; /* 1, extended 2 */
    unsigned subclusters;                /* in a cluster: 1, extended 32 */
    uint64_t subcluster_size;
    unsigned refblock_entries;
    uint8_t compression;

    pthread_rwlock_t rw;
    pthread_mutex_t cache_lock;
    struct top_table l1, reftable;
    struct table_cache l2, refblocks;

    struct cluster_set metadata; /* clusters that data must not be written to */
    uint64_t free_hint;          /* no free cluster has a smaller number */
    uint64_t end;                /* bytes: the file's length, and what has been allocated behind */
    uint64_t fresh;              /* bytes: the file has never been written from here on */
    struct cluster_run *freed;   /* one reference each is dropped when the file no longer has it */
    size_t freed_count, freed_room;

    bool check_counts;           /* L2 tables against refcounts, as they are read */
    _Atomic bool metadata_waits; /* something is dirty or freed */
    _Atomic bool corrupt;        /* no more writes */

    pthread_mutex_t inflate_lock;
    uint64_t inflated_entry; /* the L2 entry whose cluster `inflated` holds; 0: none */
    uint8_t *inflated, *deflated;
};

static inline struct qcow2 *qcow2_of(struct image *image)
{
    return (struct qcow2 *)image;
}

/* ---- qcow2_open.c ---- */

struct image *qcow2_open(struct hostfile *file, const struct image_options *options,
                         struct error *err);
void qcow2_free(struct qcow2 *q); /* of whatever has been made of it */
extern const struct image_ops qcow2_ops;

/* ---- qcow2_table.c ---- */

bool table_cache_init(struct table_cache *cache, const struct qcow2 *q, uint64_t keys,
                      uint64_t bytes);
void table_cache_free(struct table_cache *cache);
/* The table at `offset`, read when it is not there. NULL: *result is a negative errno. */
struct table *table_get(struct qcow2 *q, struct table_cache *cache, uint32_t key, uint64_t offset,
                        int *result);
/* An empty one that the file does not have yet; all of it is dirty. */
struct table *table_new(struct qcow2 *q, struct table_cache *cache, uint32_t key, uint64_t offset,
                        int *result);
void table_dirty(struct qcow2 *q, struct table_cache *cache, struct table *table, size_t at,
                 size_t len);
void table_dirty_all(struct qcow2 *q, struct table_cache *cache, struct table *table);
int table_cache_write(struct qcow2 *q, struct table_cache *cache);

static inline uint64_t top_get(const struct top_table *top, uint64_t index)
{
    return be64toh(top->data[index]);
}
void top_set(struct qcow2 *q, struct top_table *top, uint64_t index, uint64_t value);
int top_write(struct qcow2 *q, struct top_table *top);

/* ---- qcow2_map.c ---- */

/* What an L2 entry says. */
struct cluster {
    uint64_t entry;       /* COMPRESSED: the entry; else 0 */
    uint64_t host;        /* offset in the file; 0: none, or COMPRESSED */
    bool copied;          /* `host` is ours alone */
    uint32_t alloc, zero; /* a bit for each subcluster: its bytes are at `host`; are zeroes */
};

enum run_kind { RUN_DATA, RUN_ZERO, RUN_BACKING, RUN_COMPRESSED };

struct run {
    enum run_kind kind;
    uint64_t len;   /* bytes; COMPRESSED: to the cluster's end at most */
    uint64_t host;  /* DATA: offset in the file */
    uint64_t entry; /* COMPRESSED */
    bool in_place;  /* DATA: may be written where it is */
};

/* Where the bytes from `offset` on are, at most len of them of one kind. Any hold of `rw`. */
int qcow2_map(struct qcow2 *q, uint64_t offset, uint64_t len, struct run *run);
/* The same for a single cluster; nothing there when it has no L2 table. */
int qcow2_cluster_get(struct qcow2 *q, uint64_t offset, struct cluster *cluster);
/* Makes or copies the L2 table for `offset` when there is none that may be written. */
int qcow2_l2_prepare(struct qcow2 *q, uint64_t offset);
/* Only after qcow2_l2_prepare(). */
int qcow2_cluster_set(struct qcow2 *q, uint64_t offset, const struct cluster *cluster);
/* The file's bytes that a compressed cluster takes. */
void qcow2_compressed_extent(const struct qcow2 *q, uint64_t entry, uint64_t *host, uint64_t *len);
bool qcow2_has_backing(const struct qcow2 *q, uint64_t offset);

/* ---- qcow2_refcount.c ---- */

/* Up to `want` free clusters side by side, now with a refcount of one; *fresh: the file has never
 * been written there. */
int qcow2_alloc(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *count, bool *fresh);
/* Gives back what qcow2_alloc() gave and nobody has linked to. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count);
/* Says what a cluster's count is, whatever it was; makes a block for it behind everything else. */
int qcow2_refcount_put(struct qcow2 *q, uint64_t cluster, uint64_t value);
/* False also when that cannot be read: nothing can be taken there then. */
bool qcow2_counts_as_free(struct qcow2 *q, uint64_t cluster);
/* Drops a reference to each cluster of the bytes at the next qcow2_sync(). */
int qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len);
int qcow2_apply_frees(struct qcow2 *q);
uint64_t refcount_get(const struct qcow2 *q, const uint64_t *block, uint64_t index);
void refcount_set(const struct qcow2 *q, uint64_t *block, uint64_t index, uint64_t value);

/* ---- qcow2_sync.c ---- */

/* Brings everything to the file and the file to the disk. */
int qcow2_sync(struct qcow2 *q);
bool qcow2_must_sync(const struct qcow2 *q);
int qcow2_file_sync(struct qcow2 *q);
/* Says so once, marks the file, and lets no more writes through. -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t offset);

/* ---- qcow2_repair.c ---- */

/* Rebuilds the refcounts of an image without snapshots and clears its dirty bit. */
bool qcow2_repair(struct qcow2 *q, struct error *err);

/* ---- qcow2_inflate.c ---- */

/* Bytes `skip` to `skip` + len of the compressed cluster. Any hold of `rw`. */
int qcow2_inflate(struct qcow2 *q, uint64_t entry, struct span to, uint64_t skip, uint64_t len);

#endif
