/*
 * nbd.c - disks behind the NBD protocol, by libnbd: network disks, and images of foreign formats,
 * which a qemu-nbd of our own serves to us, read-only.
 *
 * qemu-nbd is started by systemd's socket activation, over a socket that nobody else can reach,
 * with the format spelled out, so that it does not guess, and ends when we hang up. The bytes of a
 * network disk are the disk's, whatever they look like: formats are not looked for in them.
 */
#include "nbd.h"
#include "internal/error.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const schemes[] = {"nbd:", "nbds:", "nbd+unix:", "nbds+unix:"};

bool nbd_image_uri(const char *path)
{
    for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
        if (!strncmp(path, schemes[i], strlen(schemes[i])))
            return true;
    return false;
}

#ifdef BAILEY_LIBNBD
#include <libnbd.h>

#define MOST_AT_ONCE (1u << 20) /* bytes of one request; servers take 32 MiB at least */
#define PATIENCE_MS  10000      /* for a server to say what it has */

struct nbd {
    struct image image;
    struct nbd_handle *handle; /* locks itself; one request at a time */
    bool flushes, trims, zeroes, unsafe;
};

static struct nbd *nbd_of(struct image *image)
{
    return (struct nbd *)image;
}

static int failed(void)
{
    int error = nbd_get_errno();
    return error ? -error : -EIO;
}

/* ---- Operations ---------------------------------------------------------------------------------
 */

static int nbd_image_read(struct image *image, struct span to, uint64_t offset, uint64_t len)
{
    uint8_t *bytes = malloc(len < MOST_AT_ONCE ? len : MOST_AT_ONCE);
    int result = bytes ? 0 : -ENOMEM;
    while (len && !result) {
        size_t now = len < MOST_AT_ONCE ? len : MOST_AT_ONCE;
        if (nbd_pread(nbd_of(image)->handle, bytes, now, offset, 0) < 0)
            result = failed();
        else
            span_copy_out(to, bytes, now);
        to = span_at(to, now);
        offset += now;
        len -= now;
    }
    free(bytes);
    return result;
}

static int nbd_image_write(struct image *image, struct span from, uint64_t offset, uint64_t len)
{
    uint8_t *bytes = malloc(len < MOST_AT_ONCE ? len : MOST_AT_ONCE);
    int result = bytes ? 0 : -ENOMEM;
    while (len && !result) {
        size_t now = len < MOST_AT_ONCE ? len : MOST_AT_ONCE;
        span_copy_in(bytes, from, now);
        if (nbd_pwrite(nbd_of(image)->handle, bytes, now, offset, 0) < 0)
            result = failed();
        from = span_at(from, now);
        offset += now;
        len -= now;
    }
    free(bytes);
    return result;
}

static int write_zeroes(struct image *image, uint64_t offset, uint64_t len)
{
    const struct iovec iov = {calloc(1, MOST_AT_ONCE), MOST_AT_ONCE};
    int result = iov.iov_base ? 0 : -ENOMEM;
    while (len && !result) {
        uint64_t now = len < MOST_AT_ONCE ? len : MOST_AT_ONCE;
        result = nbd_image_write(image, (struct span){&iov, 1, 0}, offset, now);
        offset += now;
        len -= now;
    }
    free(iov.iov_base);
    return result;
}

/* Lengths in the protocol have 32 bits. */
#define MOST_ERASED (1u << 30)

static int nbd_image_zero(struct image *image, uint64_t offset, uint64_t len,
                          enum hostfile_zero_how how)
{
    const uint32_t flags = how == HOSTFILE_ZERO_KEEP ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
    if (!nbd_of(image)->zeroes)
        return write_zeroes(image, offset, len);
    while (len) {
        uint64_t now = len < MOST_ERASED ? len : MOST_ERASED;
        if (nbd_zero(nbd_of(image)->handle, now, offset, flags) < 0)
            return failed();
        offset += now;
        len -= now;
    }
    return 0;
}

static int nbd_image_discard(struct image *image, uint64_t offset, uint64_t len)
{
    while (len && nbd_of(image)->trims) {
        uint64_t now = len < MOST_ERASED ? len : MOST_ERASED;
        if (nbd_trim(nbd_of(image)->handle, now, offset, 0) < 0)
            return failed();
        offset += now;
        len -= now;
    }
    return 0;
}

/* A server that offers no flush has no cache. */
static int nbd_image_flush(struct image *image)
{
    struct nbd *nbd = nbd_of(image);
    return nbd->unsafe || !nbd->flushes || nbd_flush(nbd->handle, 0) == 0 ? 0 : failed();
}

static void nbd_image_close(struct image *image)
{
    struct nbd *nbd = nbd_of(image);
    if (nbd->handle)
        nbd_shutdown(nbd->handle, 0);
    nbd_close(nbd->handle);
    free(image->path);
    free(nbd);
}

static const struct image_ops nbd_ops = {.read = nbd_image_read,
                                         .write = nbd_image_write,
                                         .zero = nbd_image_zero,
                                         .discard = nbd_image_discard,
                                         .flush = nbd_image_flush,
                                         .close = nbd_image_close};

/* ---- Connecting ---------------------------------------------------------------------------------
 */

/* QEMU's old form: nbd:HOST:PORT[:exportname=NAME], nbd:unix:PATH[:exportname=NAME]. */
static int connect_old(struct nbd_handle *handle, const char *text, bool *understood)
{
    char *copy = strdup(text + strlen("nbd:"));
    if (!copy)
        return -1;
    char *name = strstr(copy, ":exportname="), *last;
    int result = -1;
    if (name) {
        *name = 0;
        nbd_set_export_name(handle, name + strlen(":exportname="));
    }
    last = strrchr(copy, ':');
    *understood = last && last > copy && last[1];
    if (*understood && !strncmp(copy, "unix:", 5)) {
        result = nbd_aio_connect_unix(handle, copy + 5);
    } else if (*understood) {
        *last = 0;
        result = nbd_aio_connect_tcp(handle, copy, last + 1);
    }
    free(copy);
    return result;
}

static bool find_program(const char *name)
{
    const char *path = getenv("PATH");
    for (const char *at = path ? path : ""; *at;) {
        size_t len = strcspn(at, ":");
        char candidate[4096];
        snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)len, at, name);
        if (len && access(candidate, X_OK) == 0)
            return true;
        at += len + (at[len] == ':');
    }
    return false;
}

/* libnbd's "nbd_x: what: why", less the first part. */
static bool set_error(struct error *err, const char *path)
{
    const char *why = nbd_get_error(), *colon = why ? strstr(why, ": ") : NULL;
    return error_set(err, "%s: %s", path, colon ? colon + 2 : why ? why : "no connection");
}

static bool learn(struct nbd *nbd, const struct image_options *options, struct error *err)
{
    int64_t size = nbd_get_size(nbd->handle);
    int64_t block = nbd_get_block_size(nbd->handle, LIBNBD_SIZE_MINIMUM);
    if (size < 0)
        return set_error(err, options->path);
    if (size < IMAGE_SECTOR)
        return error_set(err, "%s: is smaller than one sector (512 bytes)", options->path);
    if (block > IMAGE_SECTOR)
        return error_set(err, "%s: its server takes only blocks of %lld bytes", options->path,
                         (long long)block);
    if (options->write && nbd_is_read_only(nbd->handle) != 0)
        return error_set(err, "%s: can only be read (readonly=on or -snapshot would do)",
                         options->path);
    nbd->image.size = (uint64_t)size & ~(uint64_t)(IMAGE_SECTOR - 1);
    nbd->flushes = nbd_can_flush(nbd->handle) == 1;
    nbd->trims = nbd_can_trim(nbd->handle) == 1;
    nbd->zeroes = nbd_can_zero(nbd->handle) == 1;
    return true;
}

static struct nbd *make(const struct image_options *options, struct error *err)
{
    struct nbd *nbd = calloc(1, sizeof(*nbd));
    char *path = strdup(options->path);
    if (!nbd || !path) {
        error_set(err, "%s: out of memory", options->path);
        free(nbd);
        free(path);
        return NULL;
    }
    nbd->image = (struct image){.ops = &nbd_ops, .path = path, .format = "raw", .remote = true};
    nbd->unsafe = options->unsafe;
    nbd->handle = nbd_create();
    if (nbd->handle)
        return nbd;
    set_error(err, options->path);
    nbd_image_close(&nbd->image);
    return NULL;
}

static int64_t milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* libnbd's own connecting waits for ever for a server that says nothing. */
static bool await_server(struct nbd *nbd, const char *path, struct error *err)
{
    const int64_t end = milliseconds() + PATIENCE_MS;
    for (int64_t left = PATIENCE_MS; nbd_aio_is_ready(nbd->handle) == 0;
         left = end - milliseconds()) {
        if (left <= 0)
            return error_set(err, "%s: the server does not answer", path);
        if (nbd_poll(nbd->handle, (int)left) < 0)
            return set_error(err, path);
        if (nbd_aio_is_dead(nbd->handle) || nbd_aio_is_closed(nbd->handle))
            return error_set(err, "%s: the server hung up", path);
    }
    return true;
}

/* `connecting`: what libnbd's call returned. */
static struct image *finish(struct nbd *nbd, int connecting, const struct image_options *options,
                            struct error *err)
{
    bool ok =
        connecting == 0 ? await_server(nbd, options->path, err) : set_error(err, options->path);
    if (ok && learn(nbd, options, err))
        return &nbd->image;
    nbd_close(nbd->handle);
    nbd->handle = NULL;
    nbd_image_close(&nbd->image);
    return NULL;
}

struct image *nbd_image_open(const struct image_options *options, struct error *err)
{
    if (options->format && strcmp(options->format, "raw") != 0) {
        error_set(err, "%s: network disks are raw; format=%s is not looked for in them",
                  options->path, options->format);
        return NULL;
    }
    struct nbd *nbd = make(options, err);
    bool understood = true;
    if (!nbd)
        return NULL;
    int connected = !strncmp(options->path, "nbd:", 4) && strncmp(options->path, "nbd://", 6)
                        ? connect_old(nbd->handle, options->path, &understood)
                        : nbd_aio_connect_uri(nbd->handle, options->path);
    if (understood)
        return finish(nbd, connected, options, err);
    error_set(err,
              "%s: is no address; nbd://HOST[:PORT]/[EXPORT] and nbd+unix:///[EXPORT]?socket="
              "PATH are",
              options->path);
    nbd_image_close(&nbd->image);
    return NULL;
}

struct image *nbd_image_foreign(struct hostfile *file, const struct format *format,
                                const struct image_options *options, struct error *err)
{
    char how[64], path[4096];
    /* Not an option, and no "protocol:". */
    snprintf(path, sizeof(path), "%s%s", *options->path == '/' ? "" : "./", options->path);
    snprintf(how, sizeof(how), "--format=%s", format->name);
    char *argv[] = {"qemu-nbd", "--read-only", how, path, NULL};
    struct nbd *nbd = NULL;
    hostfile_close(file); /* its lock is qemu-nbd's affair now */
    if (options->write)
        error_set(err,
                  "%s: %s images can only be read (readonly=on or -snapshot would do; "
                  "'qemu-img convert -O qcow2' makes one that can be written)",
                  options->path, format->name);
    else if (!find_program(argv[0]))
        error_set(err,
                  "%s: %s images are read through qemu-nbd, which is missing (Debian's package "
                  "qemu-utils has it)",
                  options->path, format->name);
    else
        nbd = make(options, err);
    return nbd ? finish(nbd, nbd_aio_connect_systemd_socket_activation(nbd->handle, argv), options,
                        err)
               : NULL;
}

#else

struct image *nbd_image_open(const struct image_options *options, struct error *err)
{
    error_set(err, "%s: this Bailey was built without libnbd, which network disks need",
              options->path);
    return NULL;
}

struct image *nbd_image_foreign(struct hostfile *file, const struct format *format,
                                const struct image_options *options, struct error *err)
{
    hostfile_close(file);
    error_set(err,
              "%s: this Bailey was built without libnbd, which %s images need (convert it with "
              "'qemu-img convert -O qcow2')",
              options->path, format->name);
    return NULL;
}
#endif
