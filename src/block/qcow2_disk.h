/*
 * qcow2_disk.h - what a qcow2 file looks like. Private to src/block.
 *
 * Names and facts are those of the format's specification (QEMU, docs/interop/qcow2.txt). All
 * numbers are big-endian. The file is an array of clusters of 2^cluster_bits bytes; every table
 * begins at one. A guest offset is looked up in two levels:
 *
 *      guest offset:  | L1 index | L2 index | offset in the cluster |
 *                                   cluster_bits - 3 bits (- 4: extended entries)
 *
 * L1 entry -> L2 table (one cluster) -> L2 entry -> data cluster.
 * Another two levels count for each cluster of the file how often it is used: refcount table ->
 * refcount block (one cluster).
 */
#ifndef BLOCK_QCOW2_DISK_H
#define BLOCK_QCOW2_DISK_H

#include <stddef.h>
#include <stdint.h>

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

/* "Header". Version 2 ends before incompatible_features. */
struct qcow2_header {
    uint32_t magic;
    uint32_t version;             /* 2 or 3 */
    uint64_t backing_file_offset; /* bytes; 0: no backing file */
    uint32_t backing_file_size;   /* bytes of its name, not terminated */
    uint32_t cluster_bits;
    uint64_t size;         /* of the disk, bytes */
    uint32_t crypt_method; /* 0: none */
    uint32_t l1_size;      /* entries */
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features; /* unknown ones: do not open */
    uint64_t compatible_features;   /* unknown ones: do not care */
    uint64_t autoclear_features;    /* unknown ones: clear before writing */
    uint32_t refcount_order;        /* a refcount has 2^this bits */
    uint32_t header_length;         /* bytes */
    uint8_t compression_type;
    uint8_t padding[7];
};
_Static_assert(offsetof(struct qcow2_header, incompatible_features) == 72, "end of version 2");
_Static_assert(offsetof(struct qcow2_header, compression_type) == 104,
               "end of the first version 3");
_Static_assert(sizeof(struct qcow2_header) == 112, "no gaps");

enum {
    QCOW2_V2_LENGTH = 72,
    QCOW2_V3_LENGTH = 104,
    QCOW2_MIN_CLUSTER_BITS = 9,
    QCOW2_MAX_CLUSTER_BITS = 21,
    QCOW2_MAX_REFCOUNT_ORDER = 6,
    QCOW2_V2_REFCOUNT_ORDER = 4,
};
/* QEMU's limits, beyond which it opens no image either. */
#define QCOW2_MAX_L1             (32u << 20) /* bytes */
#define QCOW2_MAX_REFTABLE       (8u << 20)  /* bytes */
#define QCOW2_MAX_SNAPSHOTS      65536u
#define QCOW2_MAX_SNAPSHOT_EXTRA 1024u
#define QCOW2_MAX_SNAPSHOT_TABLE (64u << 20) /* bytes */
#define QCOW2_MAX_BACKING_NAME   1023u

/* incompatible_features */
#define QCOW2_DIRTY         (1ull << 0) /* refcounts may be too small or too large */
#define QCOW2_CORRUPT       (1ull << 1) /* anything may be wrong: do not write */
#define QCOW2_EXTERNAL_DATA (1ull << 2)
#define QCOW2_COMPRESSION   (1ull << 3) /* compression_type is not 0 */
#define QCOW2_EXTENDED_L2   (1ull << 4)

enum { QCOW2_ZLIB = 0, QCOW2_ZSTD = 1 }; /* compression_type */

/* "Header extensions": behind the header, padded to 8 bytes each, until an END. */
struct qcow2_extension {
    uint32_t type, length; /* bytes behind this */
};
#define QCOW2_EXT_END            0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES  0x6803f857u

struct qcow2_feature_name {
    uint8_t type; /* 0: incompatible */
    uint8_t bit;
    char name[46]; /* padded with zeroes */
};
_Static_assert(sizeof(struct qcow2_feature_name) == 48, "no gaps");

/* "L1 table entry": bits 9-55 the L2 table's offset (0: none); COPIED: its refcount is one. */
/* "L2 table entry": COPIED as above, COMPRESSED or a standard cluster descriptor: bits 9-55 the
 * data's offset (0: none), ZERO (version 3, not in extended entries): it reads as zeroes. */
#define QCOW2_COPIED      (1ull << 63)
#define QCOW2_COMPRESSED  (1ull << 62)
#define QCOW2_ZERO        (1ull << 0)
#define QCOW2_OFFSET_MASK 0x00fffffffffffe00ull
/* Compressed: bits 0 to 61 - (cluster_bits - 8) the offset in bytes, above it the number of further
 * 512-byte sectors that the data touches. */
#define QCOW2_COMPRESSED_SHIFT(cluster_bits) (62 - ((cluster_bits)-8))
#define QCOW2_SECTOR                         512u
/* "Extended L2 entries": a second word says for each of 32 subclusters whether it is allocated (low
 * half) or reads as zeroes (high half). */
#define QCOW2_SUBCLUSTERS 32

/* "Refcount table entry": bits 9-63 the block's offset (0: all its clusters are free). */
#define QCOW2_REFBLOCK_MASK 0xfffffffffffffe00ull

/* "Snapshot table": an array of these with variable parts: extra data, id, name, padding to 8. */
struct qcow2_snapshot {
    uint64_t l1_table_offset;
    uint32_t l1_size; /* entries */
    uint16_t id_size, name_size;
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint32_t vm_state_size, extra_data_size; /* bytes */
};
_Static_assert(sizeof(struct qcow2_snapshot) == 40, "no gaps");

#endif
