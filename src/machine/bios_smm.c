/*
 * bios_smm.c - does a firmware image need system management mode, which this machine lacks? Such an
 * image (OVMF built for secure boot) would not say so, but hang.
 *
 * UEFI firmware is volumes of files (Platform Initialization Specification, volume 3): each begins
 * with its name, a GUID. OVMF's are in a section that LZMA has compressed (3.2.5.7, GUID-defined
 * section), those of its first phase in front; there is the one that opens the memory of system
 * management mode, if the image was built to demand it.
 *
 *     section: +0 size, 24 bits  +3 type  +4 GUID of the method  +20 offset of the data  +22 flags
 */
#include "pc.h"
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

enum { GUID = 16, LOOKED_AT = 1 << 20, MEMORY = 64 << 20, OFFSET = GUID, TO_GUID = 4 };

/* ee4e5898-3914-4259-9d6e-dc7bd79403cf */
static const uint8_t lzma_section[GUID] = {0x98, 0x58, 0x4e, 0xee, 0x14, 0x39, 0x59, 0x42,
                                           0x9d, 0x6e, 0xdc, 0x7b, 0xd7, 0x94, 0x03, 0xcf};
/* SmmAccessPei: 6c0e75b4-b0b9-44d1-8210-3377d7b4e066 */
static const uint8_t smm_access[GUID] = {0xb4, 0x75, 0x0e, 0x6c, 0xb9, 0xb0, 0xd1, 0x44,
                                         0x82, 0x10, 0x33, 0x77, 0xd7, 0xb4, 0xe0, 0x66};

/* The first `room` bytes of what has been compressed; how many there are. */
static size_t unpack(const uint8_t *from, size_t len, uint8_t *to, size_t room)
{
    lzma_stream stream = LZMA_STREAM_INIT;
    if (lzma_alone_decoder(&stream, MEMORY) != LZMA_OK)
        return 0;
    stream.next_in = from;
    stream.avail_in = len;
    stream.next_out = to;
    stream.avail_out = room;
    while (stream.avail_out && lzma_code(&stream, LZMA_RUN) == LZMA_OK)
        ;
    room -= stream.avail_out;
    lzma_end(&stream);
    return room;
}

/* `section`: where its method's GUID is. */
static bool section_has_smm(const uint8_t *section, size_t len)
{
    size_t offset, skip;
    if (len < OFFSET + 2)
        return false;
    offset = section[OFFSET] | (size_t)section[OFFSET + 1] << 8; /* from the section's beginning */
    skip = offset < TO_GUID ? len : offset - TO_GUID;
    uint8_t *files = skip < len ? malloc(LOOKED_AT) : NULL;
    if (!files)
        return false;
    size_t there = unpack(section + skip, len - skip, files, LOOKED_AT);
    bool found = memmem(files, there, smm_access, GUID) != NULL;
    free(files);
    return found;
}

bool bios_needs_smm(const uint8_t *bytes, size_t len)
{
    const uint8_t *at = bytes, *end = bytes + len;
    while ((at = memmem(at, (size_t)(end - at), lzma_section, GUID)) != NULL) {
        if (section_has_smm(at, (size_t)(end - at)))
            return true;
        at += GUID;
    }
    return false;
}
