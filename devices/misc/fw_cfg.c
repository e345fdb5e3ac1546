/*
 * fw_cfg.c - QEMU's firmware configuration device (fw_cfg.h).
 *
 *     510h  selector  16 bits, write: the item, and its first byte
 *     511h  data      8 bits, read: the next byte of the item; zero behind its end
 *     514h  DMA       64 bits, big-endian, write: the address of a control block; the low half
 *                     starts it. Reads give "QEMU CFG".
 *
 * The control block is big-endian, too: 32 bits of control, 32 of length, 64 of address. The device
 * does what it says at once and clears the control word, or leaves FW_CFG_ERROR there. There is
 * nothing that firmware could write: a transfer to the device is an error, as to a read-only item.
 * So is one that asks for much more than the item has: zeroes by the gigabyte would hold the
 * machine up for seconds.
 */
#include "internal/fw_cfg.h"
#include "internal/chips.h"
#include "internal/error.h"
#include "internal/log.h"
#include <endian.h>
#include <stdlib.h>
#include <string.h>

enum { PORTS = 12, DATA = 1, DMA = 4, DMA_LOW = 8 };
enum { KEYS = FW_CFG_FILE_FIRST + FW_CFG_FILES_MAX, KEY_WRITE = 0x4000, CHUNK = 4096 };
enum { MOST_ZEROES = 64 << 10 /* bytes behind an item's end in one transfer */ };
enum { CTL_ERROR = 1, CTL_READ = 2, CTL_SKIP = 4, CTL_SELECT = 8, CTL_WRITE = 16 };
enum { ID_TRADITIONAL = 1, ID_DMA = 2 };

static const uint8_t dma_signature[8] = {'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'};

struct item {
    uint8_t *bytes;
    size_t len;
};

/* An entry of the directory, as the guest reads it: big-endian. */
struct file {
    uint32_t size;
    uint16_t select, reserved;
    char name[FW_CFG_NAME_MAX + 1];
};
_Static_assert(sizeof(struct file) == 64, "the directory's layout");
struct directory {
    uint32_t count;
    struct file file[FW_CFG_FILES_MAX];
};

struct fw_cfg {
    struct device dev;
    struct board *board;
    struct item items[2][KEYS]; /* generic, and of this architecture */
    struct directory directory;
    unsigned files;
    void (*on_directory)(void *opaque);
    void *opaque;
    int ports;
    /* What the guest sees change. */
    uint16_t key;
    uint32_t offset;
    uint32_t dma_high;
};

static const struct field fw_cfg_fields[] = {
    FIELD(struct fw_cfg, key, FIELD_U16, 1),
    FIELD(struct fw_cfg, offset, FIELD_U32, 1),
    FIELD(struct fw_cfg, dma_high, FIELD_U32, 1),
};
static const struct state_desc fw_cfg_state = STATE_DESC("fw-cfg", 1, fw_cfg_fields);

/* ---- Items ----------------------------------------------------------------------------------- */

static struct item *item_of(struct fw_cfg *cfg, uint16_t key)
{
    unsigned number = key & 0x3fff;
    return number < KEYS ? &cfg->items[key >> 15][number] : NULL;
}

bool fw_cfg_add(struct fw_cfg *cfg, uint16_t key, const void *bytes, size_t len, struct error *err)
{
    struct item *item = item_of(cfg, key);
    uint8_t *copy = malloc(len ? len : 1);
    if (!item || !copy) {
        free(copy);
        return error_set(err, "fw_cfg: no room for item %#x", key);
    }
    if (len)
        memcpy(copy, bytes, len);
    free(item->bytes);
    *item = (struct item){copy, len};
    return true;
}

bool fw_cfg_add_number(struct fw_cfg *cfg, uint16_t key, uint64_t value, unsigned bytes,
                       struct error *err)
{
    uint64_t little = htole64(value);
    return fw_cfg_add(cfg, key, &little, bytes, err);
}

static struct file *find_file(struct fw_cfg *cfg, const char *name)
{
    for (unsigned i = 0; i < cfg->files; i++)
        if (strcmp(cfg->directory.file[i].name, name) == 0)
            return &cfg->directory.file[i];
    return NULL;
}

bool fw_cfg_has_file(struct fw_cfg *cfg, const char *name)
{
    return find_file(cfg, name) != NULL;
}

/* The directory is in order of names; a file keeps its key wherever its entry goes. */
static struct file *new_file(struct fw_cfg *cfg, const char *name)
{
    unsigned at = 0;
    while (at < cfg->files && strcmp(cfg->directory.file[at].name, name) < 0)
        at++;
    struct file *file = &cfg->directory.file[at];
    memmove(file + 1, file, (cfg->files - at) * sizeof(*file));
    memset(file, 0, sizeof(*file));
    strcpy(file->name, name);
    file->select = htobe16((uint16_t)(FW_CFG_FILE_FIRST + cfg->files++));
    cfg->directory.count = htobe32(cfg->files);
    return file;
}

bool fw_cfg_add_file(struct fw_cfg *cfg, const char *name, const void *bytes, size_t len,
                     struct error *err)
{
    struct file *file = find_file(cfg, name);
    if (strlen(name) > FW_CFG_NAME_MAX)
        return error_set(err, "fw_cfg: '%s' is longer than %d characters", name, FW_CFG_NAME_MAX);
    if (len > UINT32_MAX || (!file && cfg->files == FW_CFG_FILES_MAX))
        return error_set(err, "fw_cfg: no room for '%s'", name);
    if (!file)
        file = new_file(cfg, name);
    file->size = htobe32((uint32_t)len);
    return fw_cfg_add(cfg, be16toh(file->select), bytes, len, err);
}

void fw_cfg_on_directory(struct fw_cfg *cfg, void (*fn)(void *opaque), void *opaque)
{
    cfg->on_directory = fn;
    cfg->opaque = opaque;
}

/* ---- Reading --------------------------------------------------------------------------------- */

static void select_item(struct fw_cfg *cfg, uint16_t key)
{
    cfg->key = key & (uint16_t)~KEY_WRITE;
    cfg->offset = 0;
    if (cfg->key == FW_CFG_FILE_DIR && cfg->on_directory)
        cfg->on_directory(cfg->opaque);
}

/* What is selected; nothing where there is no such item. */
static struct item selected(struct fw_cfg *cfg)
{
    const struct item *item = item_of(cfg, cfg->key);
    if (cfg->key == FW_CFG_FILE_DIR)
        return (struct item){(uint8_t *)&cfg->directory, sizeof(cfg->directory)};
    return item ? *item : (struct item){0};
}

static size_t bytes_left(const struct fw_cfg *cfg, const struct item *item)
{
    return cfg->offset < item->len ? item->len - cfg->offset : 0;
}

/* The next `len` bytes of the item, or zeroes. */
static void take(struct fw_cfg *cfg, uint8_t *to, size_t len)
{
    const struct item item = selected(cfg);
    size_t left = bytes_left(cfg, &item), n = len < left ? len : left;
    if (n)
        memcpy(to, item.bytes + cfg->offset, n);
    memset(to + n, 0, len - n);
    cfg->offset += (uint32_t)n;
}

/* ---- DMA ------------------------------------------------------------------------------------- */

static const struct access dma_access = {.initiator = INITIATOR_DMA};

/* Only RAM and ROM: a device's registers, this one's included, are no place for a transfer. */
static bool reachable(struct fw_cfg *cfg, uint64_t gpa, uint64_t len)
{
    while (len > 0) {
        uint64_t here;
        if (!phys_hva(cfg->board->map, gpa, &here))
            return false;
        here = here < len ? here : len;
        gpa += here;
        len -= here;
    }
    return true;
}

static bool dma_read(struct fw_cfg *cfg, uint64_t gpa, uint32_t len)
{
    uint8_t chunk[CHUNK];
    const struct item item = selected(cfg);
    if (gpa + len < gpa || len > bytes_left(cfg, &item) + MOST_ZEROES || !reachable(cfg, gpa, len))
        return false;
    while (len > 0) {
        uint32_t n = len < CHUNK ? len : CHUNK;
        take(cfg, chunk, n);
        if (phys_write(cfg->board->map, &dma_access, gpa, chunk, n) != PHYS_OK)
            return false;
        gpa += n;
        len -= n;
    }
    return true;
}

/* Up to the item's end; beyond it there is nothing that could be skipped. */
static void skip(struct fw_cfg *cfg, uint32_t len)
{
    size_t end = selected(cfg).len;
    cfg->offset = cfg->offset + (uint64_t)len > end ? (uint32_t)end : cfg->offset + len;
}

static void dma_start(struct fw_cfg *cfg, uint64_t gpa)
{
    struct {
        uint32_t control, length;
        uint64_t address;
    } block;
    struct phys_map *map = cfg->board->map;
    if (!reachable(cfg, gpa, sizeof(block)) ||
        phys_read(map, &dma_access, gpa, &block, sizeof(block)) != PHYS_OK) {
        LOG(cfg->board->log, LOG_GUEST_ERRORS, "fw_cfg: no control block at %#llx\n",
            (unsigned long long)gpa);
        return;
    }
    uint32_t control = be32toh(block.control), result = 0;
    if (control & CTL_SELECT)
        select_item(cfg, (uint16_t)(control >> 16));
    if (control & CTL_READ) {
        if (!dma_read(cfg, be64toh(block.address), be32toh(block.length)))
            result = CTL_ERROR;
    } else if (control & CTL_WRITE) {
        result = CTL_ERROR;
    } else if (control & CTL_SKIP) {
        skip(cfg, be32toh(block.length));
    }
    result = htobe32(result);
    phys_write(map, &dma_access, gpa, &result, sizeof(result));
}

/* ---- Ports ----------------------------------------------------------------------------------- */

static uint64_t ports_read(void *opaque, const struct access *access, uint64_t offset,
                           unsigned size)
{
    struct fw_cfg *cfg = opaque;
    uint8_t bytes[4] = {0};
    (void)access;
    if (offset == DATA && size == 1)
        take(cfg, bytes, 1);
    else if (offset >= DMA && offset + size <= PORTS)
        memcpy(bytes, dma_signature + offset - DMA, size);
    uint32_t value;
    memcpy(&value, bytes, sizeof(value));
    return le32toh(value);
}

static void ports_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                        uint64_t value)
{
    struct fw_cfg *cfg = opaque;
    (void)access;
    if (offset == 0 && size == 2) {
        select_item(cfg, (uint16_t)value);
    } else if (offset == DMA && size == 4) {
        cfg->dma_high = be32toh((uint32_t)value);
    } else if (offset == DMA_LOW && size == 4) {
        uint64_t gpa = (uint64_t)cfg->dma_high << 32 | be32toh((uint32_t)value);
        cfg->dma_high = 0;
        dma_start(cfg, gpa);
    }
}

static const struct io_ops port_ops = {ports_read, ports_write, 1, 4};

/* ---- Life ------------------------------------------------------------------------------------ */

static void fw_cfg_reset(struct device *dev)
{
    struct fw_cfg *cfg = (struct fw_cfg *)dev;
    cfg->dma_high = 0;
    select_item(cfg, FW_CFG_SIGNATURE);
}

static void fw_cfg_destroy(struct device *dev)
{
    struct fw_cfg *cfg = (struct fw_cfg *)dev;
    io_remove(cfg->board->io, cfg->ports);
    for (unsigned i = 0; i < 2 * KEYS; i++)
        free(cfg->items[i / KEYS][i % KEYS].bytes);
    free(cfg);
}

struct fw_cfg *fw_cfg_new(struct board *board)
{
    struct error err;
    struct fw_cfg *cfg = chip_alloc(sizeof(*cfg));
    cfg->dev = (struct device){
        .name = "fw-cfg", .state = &fw_cfg_state, .reset = fw_cfg_reset, .destroy = fw_cfg_destroy};
    cfg->board = board;
    fw_cfg_add(cfg, FW_CFG_SIGNATURE, "QEMU", 4, &err);
    fw_cfg_add_number(cfg, FW_CFG_ID, ID_TRADITIONAL | ID_DMA, 4, &err);
    cfg->ports = io_add(board->io, FW_CFG_PORT, PORTS, &port_ops, cfg, "fw_cfg");
    fw_cfg_reset(&cfg->dev);
    return cfg;
}
