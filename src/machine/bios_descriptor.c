/*
 * bios_descriptor.c - what packages say of their firmware images: descriptors in JSON (QEMU,
 * docs/interop/firmware.json), one for each image, looked up by the image's contents.
 *
 * They are asked one thing: whether an image needs system management mode, which this machine
 * lacks. Such an image would not say so, but hang.
 */
#include "pc.h"
#include <dirent.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const folders[] = {"/etc/qemu/firmware", "/usr/share/qemu/firmware"};

static bool needs_smm(const json_t *descriptor)
{
    const json_t *features = json_object_get(descriptor, "features");
    for (size_t i = 0; i < json_array_size(features); i++) {
        const char *feature = json_string_value(json_array_get(features, i));
        if (feature && strcmp(feature, "requires-smm") == 0)
            return true;
    }
    return false;
}

static bool same_contents(const char *path, const uint8_t *bytes, size_t len)
{
    FILE *file = fopen(path, "re");
    uint8_t chunk[4096];
    size_t n, at = 0;
    if (!file)
        return false;
    bool same = true;
    while (same && (n = fread(chunk, 1, sizeof(chunk), file)) > 0) {
        same = n <= len - at && memcmp(chunk, bytes + at, n) == 0;
        at += same ? n : 0;
    }
    same = same && at == len && !ferror(file);
    fclose(file);
    return same;
}

static bool describes(const json_t *descriptor, const uint8_t *bytes, size_t len)
{
    const json_t *mapping = json_object_get(descriptor, "mapping");
    const json_t *executable = json_object_get(mapping, "executable");
    const char *path = json_string_value(json_object_get(executable, "filename"));
    if (!path)
        path = json_string_value(json_object_get(mapping, "filename"));
    return path && same_contents(path, bytes, len);
}

static bool refuses(const char *path, const uint8_t *bytes, size_t len)
{
    json_t *descriptor = json_load_file(path, 0, NULL);
    bool refused = descriptor && needs_smm(descriptor) && describes(descriptor, bytes, len);
    json_decref(descriptor);
    return refused;
}

bool bios_needs_smm(const uint8_t *bytes, size_t len)
{
    bool found = false;
    for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]) && !found; i++) {
        DIR *folder = opendir(folders[i]);
        const struct dirent *entry;
        while (folder && !found && (entry = readdir(folder))) {
            char path[512];
            const char *dot = strrchr(entry->d_name, '.');
            if (dot && strcmp(dot, ".json") == 0 &&
                snprintf(path, sizeof(path), "%s/%s", folders[i], entry->d_name) <
                    (int)sizeof(path))
                found = refuses(path, bytes, len);
        }
        if (folder)
            closedir(folder);
    }
    return found;
}
