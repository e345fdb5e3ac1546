/*
 * qcow2_open.c - opening a qcow2 image: the header, and all that is checked before anything is
 * believed.
 *
 * Refused in one line: other versions, encryption, external data files, incompatible features that
 * nobody here knows (by the name that the image's own table gives them), tables outside the limits.
 * An image that is marked corrupt can be read. Autoclear features (bitmaps among them) are cleared
 * before the first write, as the specification demands of who does not keep them up to date.
 */
#include "internal/error.h"
#include "nbd.h"
#include "qcow2.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define L2_MEMORY       (32u << 20) /* bytes of L2 tables: 256 GiB of the disk, with 64-KiB clusters */
#define REFBLOCK_MEMORY (4u << 20)

struct opening {
    struct qcow2 *q;
    const struct image_options *options;
    struct error *err;
    struct qcow2_header h; /* in the host's byte order */
    uint8_t *head;         /* the file's first cluster, or what there is of it */
    char backing_format[32];
};

static bool fail(struct opening *o, const char *what)
{
    return error_set(o->err, "%s: not a usable qcow2 image: %s", o->options->path, what);
}

/* ---- The header --------------------------------------------------------------------------------
 */

static void to_host_order(struct qcow2_header *h)
{
    h->magic = be32toh(h->magic);
    h->version = be32toh(h->version);
    h->backing_file_offset = be64toh(h->backing_file_offset);
    h->backing_file_size = be32toh(h->backing_file_size);
    h->cluster_bits = be32toh(h->cluster_bits);
    h->size = be64toh(h->size);
    h->crypt_method = be32toh(h->crypt_method);
    h->l1_size = be32toh(h->l1_size);
    h->l1_table_offset = be64toh(h->l1_table_offset);
    h->refcount_table_offset = be64toh(h->refcount_table_offset);
    h->refcount_table_clusters = be32toh(h->refcount_table_clusters);
    h->nb_snapshots = be32toh(h->nb_snapshots);
    h->snapshots_offset = be64toh(h->snapshots_offset);
    h->incompatible_features = be64toh(h->incompatible_features);
    h->compatible_features = be64toh(h->compatible_features);
    h->autoclear_features = be64toh(h->autoclear_features);
    h->refcount_order = be32toh(h->refcount_order);
    h->header_length = be32toh(h->header_length);
}

static int read_to_end(struct qcow2 *q, void *to, uint64_t offset, uint64_t len, uint64_t *there)
{
    const struct iovec iov = {to, len};
    return hostfile_read_to_end(q->file, (struct span){&iov, 1, 0}, offset, len, there);
}

static bool read_header(struct opening *o)
{
    struct qcow2_header *h = &o->h;
    uint64_t there;
    int result = read_to_end(o->q, h, 0, sizeof(*h), &there);
    if (result)
        return error_set(o->err, "%s: %s", o->options->path, strerror(-result));
    to_host_order(h);
    if (there < QCOW2_V2_LENGTH || h->magic != QCOW2_MAGIC)
        return fail(o, "it ends within its header");
    if (h->version != 2 && h->version != 3)
        return error_set(o->err, "%s: qcow2 version %u; only 2 and 3 can be used", o->options->path,
                         h->version);
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return fail(o, "its cluster size is none of 512 bytes to 2 MiB");
    if (h->version == 2) {
        h->incompatible_features = h->compatible_features = h->autoclear_features = 0;
        h->refcount_order = QCOW2_V2_REFCOUNT_ORDER;
        h->header_length = QCOW2_V2_LENGTH;
        h->compression_type = QCOW2_ZLIB;
    } else if (h->header_length < QCOW2_V3_LENGTH || h->header_length > 1ull << h->cluster_bits ||
               h->header_length % 8) {
        return fail(o, "its header's length is wrong");
    }
    if (h->header_length <= offsetof(struct qcow2_header, compression_type))
        h->compression_type = QCOW2_ZLIB;
    o->head = calloc(1, 1ull << h->cluster_bits);
    if (!o->head)
        return error_set(o->err, "%s: out of memory", o->options->path);
    result = read_to_end(o->q, o->head, 0, 1ull << h->cluster_bits, &there);
    return !result || error_set(o->err, "%s: %s", o->options->path, strerror(-result));
}

/* ---- Header extensions -------------------------------------------------------------------------
 */

/* The first of a type; NULL: none. False only when they are broken. */
static bool find_extension(struct opening *o, uint32_t type, const uint8_t **data, uint32_t *len)
{
    uint64_t end = 1ull << o->h.cluster_bits, at = o->h.header_length;
    if (o->h.backing_file_offset && o->h.backing_file_offset < end)
        end = o->h.backing_file_offset;
    *data = NULL;
    while (at + sizeof(struct qcow2_extension) <= end) {
        struct qcow2_extension ext;
        memcpy(&ext, o->head + at, sizeof(ext));
        ext.type = be32toh(ext.type);
        ext.length = be32toh(ext.length);
        at += sizeof(ext);
        if (ext.type == QCOW2_EXT_END)
            return true;
        if (ext.length > end - at)
            return fail(o, "a header extension is longer than the header");
        if (ext.type == type) {
            *data = o->head + at;
            *len = ext.length;
            return true;
        }
        at += (ext.length + 7ull) & ~7ull;
    }
    return true;
}

/* The image's own name for an incompatible feature, or its number. */
static void feature_name(struct opening *o, unsigned bit, char *name, size_t size)
{
    const uint8_t *table;
    uint32_t len;
    snprintf(name, size, "bit %u", bit);
    if (!find_extension(o, QCOW2_EXT_FEATURE_NAMES, &table, &len) || !table)
        return;
    for (; len >= sizeof(struct qcow2_feature_name); len -= sizeof(struct qcow2_feature_name)) {
        const struct qcow2_feature_name *feature = (const struct qcow2_feature_name *)table;
        if (feature->type == 0 && feature->bit == bit) {
            snprintf(name, size, "%.*s", (int)sizeof(feature->name), feature->name);
            for (char *c = name; *c; c++)
                if (*c < ' ' || *c > '~')
                    *c = '?'; /* it is printed on a terminal */
            return;
        }
        table += sizeof(struct qcow2_feature_name);
    }
}

static bool check_features(struct opening *o)
{
    const uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION | QCOW2_EXTENDED_L2;
    const char *path = o->options->path;
    uint64_t features = o->h.incompatible_features, unknown = features & ~known;
    if (features & QCOW2_EXTERNAL_DATA)
        return error_set(o->err,
                         "%s: its data is in another file, which is not supported "
                         "('qemu-img convert -O qcow2' puts it into one)",
                         path);
    if (unknown) {
        char name[sizeof(((struct qcow2_feature_name *)0)->name) + 1];
        feature_name(o, (unsigned)__builtin_ctzll(unknown), name, sizeof(name));
        return error_set(o->err, "%s: needs the qcow2 feature '%s', which is not supported", path,
                         name);
    }
    if (o->h.crypt_method)
        return error_set(o->err, "%s: is encrypted, which is not supported", path);
    if (!(features & QCOW2_COMPRESSION) != (o->h.compression_type == QCOW2_ZLIB))
        return fail(o, "compression type and feature bit do not agree");
    if (o->h.compression_type > QCOW2_ZSTD)
        return error_set(o->err, "%s: compression type %u is not supported", path,
                         o->h.compression_type);
    if (o->options->write && (features & QCOW2_CORRUPT))
        return error_set(o->err,
                         "%s: is marked corrupt; repair it with 'qemu-img check -r all', or open "
                         "it with readonly=on or -snapshot",
                         path);
    if (o->options->write && (features & QCOW2_DIRTY) && o->h.nb_snapshots)
        return error_set(o->err,
                         "%s: was not closed, its refcounts are out of date, and it has snapshots; "
                         "repair it with 'qemu-img check -r all', or open it with readonly=on or "
                         "-snapshot",
                         path);
    return true;
}

/* ---- Tables ------------------------------------------------------------------------------------
 */

static void set_geometry(struct opening *o)
{
    struct qcow2 *q = o->q;
    q->version = o->h.version;
    q->cluster_bits = o->h.cluster_bits;
    q->cluster_size = 1ull << q->cluster_bits;
    q->subclusters = o->h.incompatible_features & QCOW2_EXTENDED_L2 ? QCOW2_SUBCLUSTERS : 1;
    q->l2_entry_words = q->subclusters > 1 ? 2 : 1;
    q->subcluster_size = q->cluster_size / q->subclusters;
    q->l2_entries = (unsigned)(q->cluster_size / 8 / q->l2_entry_words);
    q->refcount_order = o->h.refcount_order;
    q->refblock_entries = (unsigned)(q->cluster_size * 8 >> q->refcount_order);
    q->compression = o->h.compression_type;
    q->image.size = o->h.size & ~(uint64_t)(IMAGE_SECTOR - 1);
    q->end = (q->file->size + q->cluster_size - 1) & ~(q->cluster_size - 1);
    q->fresh = q->end;
}

static bool check_geometry(struct opening *o)
{
    const struct qcow2 *q = o->q;
    const uint64_t covers = (uint64_t)q->l2_entries * q->cluster_size;
    if (o->h.refcount_order > QCOW2_MAX_REFCOUNT_ORDER)
        return fail(o, "its refcounts are wider than 64 bits");
    if (q->subclusters > 1 && q->cluster_bits < 14)
        return fail(o, "subclusters need clusters of 16 KiB at least");
    if (!q->image.size || o->h.size > INT64_MAX)
        return fail(o, "its size is no disk's");
    if ((uint64_t)o->h.l1_size * 8 > QCOW2_MAX_L1)
        return fail(o, "its L1 table is larger than 32 MiB");
    if (o->h.l1_size < (q->image.size - 1) / covers + 1)
        return fail(o, "its L1 table is too small for its size");
    if (o->h.refcount_table_clusters == 0 ||
        (uint64_t)o->h.refcount_table_clusters << q->cluster_bits > QCOW2_MAX_REFTABLE)
        return fail(o, "its refcount table is larger than 8 MiB, or missing");
    if (o->h.nb_snapshots > QCOW2_MAX_SNAPSHOTS)
        return fail(o, "it has more than 65536 snapshots");
    return true;
}

/* Reads a level-one table and notes its clusters as metadata. */
static bool read_top(struct opening *o, struct top_table *top, uint64_t offset, uint64_t entries,
                     const char *what)
{
    struct qcow2 *q = o->q;
    uint64_t bytes = entries * 8, length = q->file->size;
    if (offset & (q->cluster_size - 1) || offset > length || bytes > length - offset || !offset)
        return error_set(o->err,
                         "%s: not a usable qcow2 image: its %s lies outside the file or is "
                         "not aligned",
                         o->options->path, what);
    top->offset = offset;
    top->entries = entries;
    top->data = malloc(bytes);
    top->dirty = calloc(1, bytes / 512 + 1);
    if (!top->data || !top->dirty)
        return error_set(o->err, "%s: no memory for its %s", o->options->path, what);
    int result = hostfile_read_bytes(q->file, top->data, offset, bytes);
    return !result ||
           error_set(o->err, "%s: reading its %s: %s", o->options->path, what, strerror(-result));
}

/* ---- What data must not be written to -----------------------------------------------------------
 */

static bool note_area(struct opening *o, uint64_t offset, uint64_t len, const char *what)
{
    struct qcow2 *q = o->q;
    if (!len)
        return true;
    for (uint64_t c = offset >> q->cluster_bits; c <= (offset + len - 1) >> q->cluster_bits; c++) {
        if (cluster_set_has(&q->metadata, c))
            return error_set(o->err,
                             "%s: not a usable qcow2 image: its %s overlaps other metadata at "
                             "offset %#llx (it can be read: readonly=on or -snapshot)",
                             o->options->path, what, (unsigned long long)(c << q->cluster_bits));
        if (!cluster_set_add(&q->metadata, c))
            return error_set(o->err, "%s: out of memory", o->options->path);
    }
    return true;
}

static bool note_tables(struct opening *o, const struct top_table *top, uint64_t mask,
                        const char *what)
{
    struct qcow2 *q = o->q;
    for (uint64_t i = 0; i < top->entries; i++) {
        uint64_t at = top_get(top, i) & mask;
        if (at && at < q->end && !note_area(o, at, 1, what))
            return false;
    }
    return true;
}

/* A snapshot's L1 table, whose L2 tables are shared with others and not noted. */
static bool note_snapshots(struct opening *o)
{
    struct qcow2 *q = o->q;
    const uint64_t begin = o->h.snapshots_offset;
    uint64_t at = begin, length = q->file->size;
    if (!o->h.nb_snapshots)
        return true;
    if (at & (q->cluster_size - 1) || !at)
        return fail(o, "its snapshot table is not aligned");
    for (uint32_t i = 0; i < o->h.nb_snapshots; i++) {
        struct qcow2_snapshot s;
        uint64_t there;
        at = (at + 7) & ~7ull;
        if (at >= length || at - begin > QCOW2_MAX_SNAPSHOT_TABLE ||
            read_to_end(q, &s, at, sizeof(s), &there) || there < sizeof(s))
            return fail(o, "its snapshot table lies outside the file");
        uint64_t l1 = be64toh(s.l1_table_offset), l1_size = be32toh(s.l1_size);
        uint32_t extra = be32toh(s.extra_data_size);
        if (l1 & (q->cluster_size - 1) || l1_size * 8 > QCOW2_MAX_L1 || l1 > length ||
            l1_size * 8 > length - l1)
            return fail(o, "a snapshot's L1 table lies outside the file or is not aligned");
        if (extra > QCOW2_MAX_SNAPSHOT_EXTRA)
            return fail(o, "a snapshot has too much extra data");
        if (!note_area(o, l1, l1_size * 8, "snapshot's L1 table"))
            return false;
        at += sizeof(s) + extra + be16toh(s.id_size) + be16toh(s.name_size);
    }
    return note_area(o, begin, at - begin, "snapshot table");
}

static bool note_metadata(struct opening *o)
{
    struct qcow2 *q = o->q;
    return note_area(o, 0, 1, "header") &&
           note_area(o, q->l1.offset, q->l1.entries * 8, "L1 table") &&
           note_area(o, q->reftable.offset, q->reftable.entries * 8, "refcount table") &&
           note_tables(o, &q->reftable, QCOW2_REFBLOCK_MASK, "refcount block") &&
           note_tables(o, &q->l1, QCOW2_OFFSET_MASK, "L2 table") && note_snapshots(o);
}

/* ---- The backing file ---------------------------------------------------------------------------
 */

/* Relative names are relative to the image that names them; network disks have an address. */
static char *beside(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');
    char *path = NULL;
    if (*name == '/' || !slash || nbd_image_uri(name))
        return strdup(name);
    return asprintf(&path, "%.*s%s", (int)(slash + 1 - image), image, name) < 0 ? NULL : path;
}

static bool read_backing_format(struct opening *o)
{
    const uint8_t *data;
    uint32_t len;
    if (!find_extension(o, QCOW2_EXT_BACKING_FORMAT, &data, &len))
        return false;
    if (!data)
        return true;
    if (len >= sizeof(o->backing_format))
        return fail(o, "its backing format's name is too long");
    memcpy(o->backing_format, data, len);
    if (*o->backing_format && !format_find(o->backing_format))
        return error_set(o->err, "%s: its backing file's format '%s' is unknown", o->options->path,
                         o->backing_format);
    return true;
}

static bool open_backing(struct opening *o)
{
    struct qcow2 *q = o->q;
    char name[QCOW2_MAX_BACKING_NAME + 1] = "";
    uint32_t size = o->h.backing_file_size;
    if (!o->h.backing_file_offset || !size)
        return true;
    if (size > QCOW2_MAX_BACKING_NAME || o->h.backing_file_offset > q->cluster_size - size ||
        o->h.backing_file_offset > q->cluster_size)
        return fail(o, "its backing file's name lies outside the header");
    memcpy(name, o->head + o->h.backing_file_offset, size);
    if (strlen(name) != size)
        return fail(o, "its backing file's name has a zero byte");
    if (!strncmp(name, "json:", 5))
        return error_set(o->err, "%s: backing files given as json: are not supported",
                         o->options->path);
    const char *plain = strncmp(name, "file:", 5) ? name : name + 5;
    const struct image_link link = {.dev = q->file->dev,
                                    .ino = q->file->ino,
                                    .depth = o->options->above ? o->options->above->depth + 1 : 1,
                                    .above = o->options->above};
    char *path = beside(q->image.path, plain);
    const struct image_options options = {.path = path ? path : plain,
                                          .format = *o->backing_format ? o->backing_format : NULL,
                                          .direct = o->options->direct,
                                          .above = &link};
    q->backing = path ? image_open(&options, o->err) : NULL;
    free(path);
    if (!q->backing && !o->options->above) /* names the first and the last of a chain */
        error_prefix(o->err, "%s: backing file", q->image.path);
    q->image.remote = q->backing && q->backing->remote;
    return q->backing != NULL;
}

/* ---- All of it ----------------------------------------------------------------------------------
 */

/* "Autoclear features": what is not understood is not kept up to date either. */
static bool clear_autoclear(struct opening *o)
{
    const uint64_t none = 0;
    if (!o->h.autoclear_features)
        return true;
    int result = hostfile_write_bytes(
        o->q->file, &none, offsetof(struct qcow2_header, autoclear_features), sizeof(none));
    if (!result)
        result = qcow2_file_sync(o->q);
    return !result || error_set(o->err, "%s: %s", o->options->path, strerror(-result));
}

static bool open_all(struct opening *o)
{
    struct qcow2 *q = o->q;
    if (!read_header(o) || !check_features(o))
        return false;
    set_geometry(o);
    if (!check_geometry(o) || !read_backing_format(o) ||
        !read_top(o, &q->l1, o->h.l1_table_offset, o->h.l1_size, "L1 table") ||
        !read_top(o, &q->reftable, o->h.refcount_table_offset,
                  (uint64_t)o->h.refcount_table_clusters * q->cluster_size / 8, "refcount table"))
        return false;
    if (!table_cache_init(&q->l2, q, q->l1.entries, L2_MEMORY) ||
        !table_cache_init(&q->refblocks, q, q->reftable.entries, REFBLOCK_MEMORY))
        return error_set(o->err, "%s: out of memory", o->options->path);
    if (!open_backing(o))
        return false;
    if (!q->write)
        return true;
    q->check_counts = note_metadata(o) && clear_autoclear(o) &&
                      (!(o->h.incompatible_features & QCOW2_DIRTY) || qcow2_repair(q, o->err));
    return q->check_counts;
}

void qcow2_free(struct qcow2 *q)
{
    image_close(q->backing);
    hostfile_close(q->file);
    table_cache_free(&q->l2);
    table_cache_free(&q->refblocks);
    cluster_set_free(&q->metadata);
    pthread_rwlock_destroy(&q->rw);
    pthread_mutex_destroy(&q->cache_lock);
    pthread_mutex_destroy(&q->inflate_lock);
    free(q->l1.data);
    free(q->l1.dirty);
    free(q->reftable.data);
    free(q->reftable.dirty);
    free(q->freed);
    free(q->inflated);
    free(q->deflated);
    free(q->image.path);
    free(q);
}

/* A writer that waits keeps new readers out: reads would hold allocations up for ever. */
static void init_locks(struct qcow2 *q)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&q->rw, &attr);
    pthread_rwlockattr_destroy(&attr);
    pthread_mutex_init(&q->cache_lock, NULL);
    pthread_mutex_init(&q->inflate_lock, NULL);
}

struct image *qcow2_open(struct hostfile *file, const struct image_options *options,
                         struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    char *path = strdup(options->path);
    if (!q || !path) {
        error_set(err, "%s: out of memory", options->path);
        hostfile_close(file);
        free(path);
        free(q);
        return NULL;
    }
    q->image = (struct image){.ops = &qcow2_ops, .path = path};
    q->file = file;
    q->write = options->write;
    q->unsafe = options->unsafe;
    q->unmap = options->unmap;
    init_locks(q);
    struct opening o = {.q = q, .options = options, .err = err};
    bool ok = open_all(&o);
    free(o.head);
    if (ok)
        return &q->image;
    qcow2_free(q);
    return NULL;
}
