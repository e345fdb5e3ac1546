/*
 * image.c - boot images: reads the files that -kernel and -initrd name, finds the protocol, keeps
 * everything in memory so that a reset can load it again.
 */
#include "image.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Files ----------------------------------------------------------------------------------- */

static bool too_large(const char *what, const char *path, uint64_t limit, struct error *err)
{
    return error_set(err, "%s '%s' is larger than the guest's memory (%llu MiB); try a larger -m",
                     what, path, (unsigned long long)(limit >> 20));
}

/* Reads to the end, so that pipes work too. */
static bool read_all(int fd, struct file *file, const char *path, const char *what, uint64_t limit,
                     struct error *err)
{
    size_t room = 0;
    for (;;) {
        if (file->len == room) {
            room = room ? room * 2 : 1 << 20;
            uint8_t *bytes = realloc(file->bytes, room);
            if (!bytes)
                return error_set(err, "no host memory for %s '%s'", what, path);
            file->bytes = bytes;
        }
        ssize_t n = read(fd, file->bytes + file->len, room - file->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, "could not read %s '%s': %s", what, path, strerror(errno));
        if (n == 0)
            return true;
        file->len += (size_t)n;
        if (file->len > limit)
            return too_large(what, path, limit, err);
    }
}

bool file_read(struct file *file, const char *path, const char *what, uint64_t limit,
               struct error *err)
{
    memset(file, 0, sizeof(*file));
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return error_set(err, "could not open %s '%s': %s", what, path, strerror(errno));
    bool ok = true;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size > limit)
        ok = too_large(what, path, limit, err);
    ok = ok && read_all(fd, file, path, what, limit, err);
    close(fd);
    file->name = strdup(path);
    if (ok && file->len == 0)
        ok = error_set(err, "%s '%s' is empty", what, path);
    if (!ok)
        file_free(file);
    return ok;
}

void file_free(struct file *file)
{
    free(file->name);
    free(file->bytes);
    memset(file, 0, sizeof(*file));
}

const uint8_t *file_get(const struct file *file, uint64_t offset, uint64_t len)
{
    if (offset > file->len || len > file->len - offset)
        return NULL;
    return file->bytes + offset;
}

/* ---- Modules --------------------------------------------------------------------------------- */

static bool add_module(struct boot_image *image, const char *path, const char *cmdline,
                       uint64_t limit, struct error *err)
{
    if (image->module_count == MODULES_MAX)
        return error_set(err, "-initrd: more than %d modules", MODULES_MAX);
    struct module *grown =
        realloc(image->modules, (image->module_count + 1) * sizeof(*image->modules));
    if (!grown)
        return error_set(err, "no host memory for the modules");
    image->modules = grown;
    struct module *module = &grown[image->module_count];
    if (!file_read(&module->file, path, "initrd", limit, err))
        return false;
    module->cmdline = strdup(cmdline);
    image->module_count++;
    return true;
}

/* Takes the next item of a list whose separator is a comma and whose doubled comma means one. */
static const char *next_item(const char *list, char *item)
{
    while (*list) {
        if (*list == ',' && *++list != ',')
            break;
        *item++ = *list++;
    }
    *item = 0;
    return list;
}

/* "file args,file2": each module's command line is its whole item, as QEMU has it. */
static bool read_module_list(struct boot_image *image, const char *list, uint64_t limit,
                             struct error *err)
{
    size_t room = strlen(list) + 1;
    char *item = malloc(room), *path = malloc(room);
    bool ok = item && path;
    if (!ok)
        error_set(err, "no host memory for the modules");
    while (ok && *list) {
        list = next_item(list, item);
        strcpy(path, item);
        path[strcspn(path, " ")] = 0;
        if (*item)
            ok = add_module(image, path, item, limit, err);
    }
    free(item);
    free(path);
    return ok;
}

/* ---- The image ------------------------------------------------------------------------------- */

/* In this order: as QEMU does, a multiboot header wins over an ELF note. Anything goes as flat. */
static const struct protocol *const protocols[] = {
    &loader_linux,
    &loader_multiboot,
    &loader_pvh,
    &loader_flat,
};

static bool finish(struct boot_image *image, const char *append, struct error *err)
{
    image->append = strdup(append ? append : "");
    if (!image->append || !image->kernel.name)
        return error_set(err, "no host memory for the kernel");
    for (unsigned i = 0; i < sizeof(protocols) / sizeof(protocols[0]); i++) {
        image->protocol = protocols[i];
        if (protocols[i]->probe(&image->kernel))
            break;
    }
    return true;
}

static bool read_initrd(struct boot_image *image, const struct boot_source *source,
                        struct error *err)
{
    if (image->protocol->no_modules)
        return error_set(err, "-initrd: a %s kernel takes no initrd", image->protocol->name);
    if (image->protocol->many_modules)
        return read_module_list(image, source->initrd, source->limit, err);
    return add_module(image, source->initrd, source->initrd, source->limit, err);
}

struct boot_image *boot_image_open(const struct boot_source *source, struct error *err)
{
    struct boot_image *image = calloc(1, sizeof(*image));
    if (!image) {
        error_set(err, "no host memory for the kernel");
        return NULL;
    }
    if (file_read(&image->kernel, source->kernel, "kernel", source->limit, err) &&
        finish(image, source->append, err) && (!source->initrd || read_initrd(image, source, err)))
        return image;
    boot_image_free(image);
    return NULL;
}

struct boot_image *boot_image_from_memory(const char *name, const void *bytes, size_t len,
                                          const char *append, struct error *err)
{
    struct boot_image *image = calloc(1, sizeof(*image));
    if (image) {
        image->kernel.name = strdup(name);
        image->kernel.bytes = malloc(len ? len : 1);
        image->kernel.len = len;
    }
    if (!image || !image->kernel.bytes) {
        error_set(err, "no host memory for the kernel");
        boot_image_free(image);
        return NULL;
    }
    memcpy(image->kernel.bytes, bytes, len);
    if (finish(image, append, err))
        return image;
    boot_image_free(image);
    return NULL;
}

void boot_image_free(struct boot_image *image)
{
    if (!image)
        return;
    for (unsigned i = 0; i < image->module_count; i++) {
        file_free(&image->modules[i].file);
        free(image->modules[i].cmdline);
    }
    free(image->modules);
    file_free(&image->kernel);
    free(image->append);
    free(image);
}

const char *boot_image_kind(const struct boot_image *image)
{
    return image->protocol->name;
}

bool boot_image_load(const struct boot_image *image, const struct boot_platform *platform,
                     struct boot_entry *entry, struct error *err)
{
    memset(entry, 0, sizeof(*entry));
    if (image->protocol->load(image, platform, entry, err))
        return true;
    return error_prefix(err, "kernel '%s'", image->kernel.name);
}
