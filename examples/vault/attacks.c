/*
 * attacks.c - reads the victim's secret through shared memory, system calls, the debugger's
 * interface, the kernel's map of all memory, and a disk (attacks.h).
 */
#include "attacks.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGE = 4096 };

/* Maps the victim's memory a second time, as any process with its descriptor can. */
static void *map_again(const struct target *target)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)target->pid, target->memfd);
    int fd = open(path, O_RDWR);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int error = errno;
    close(fd);
    errno = error;
    return page == MAP_FAILED ? NULL : page;
}

static int shared_memory(const struct target *target, char *loot)
{
    const volatile char *page = map_again(target);
    if (!page)
        return errno;
    for (size_t n = 0; n < target->length; n++)
        loot[n] = page[target->at + n];
    return 0;
}

static int vm_readv(const struct target *target, char *loot)
{
    struct iovec to = {loot, target->length};
    struct iovec from = {(void *)(target->page + target->at), target->length};
    ssize_t n = process_vm_readv(target->pid, &to, 1, &from, 1, 0);
    return n < 0 ? errno : n == (ssize_t)target->length ? 0 : EFAULT;
}

static int peek(const struct target *target, char *loot)
{
    if (ptrace(PTRACE_ATTACH, target->pid, NULL, NULL) != 0)
        return errno;
    waitpid(target->pid, NULL, __WALL);
    int error = 0;
    for (size_t n = 0; n < target->length && !error; n += sizeof(long)) {
        errno = 0;
        long word = ptrace(PTRACE_PEEKDATA, target->pid, target->page + target->at + n, NULL);
        error = errno;
        size_t left = target->length - n;
        memcpy(loot + n, &word, left < sizeof(word) ? left : sizeof(word));
    }
    ptrace(PTRACE_DETACH, target->pid, NULL, NULL);
    return error;
}

/* The physical address of the victim's page. 0: not known. */
static uint64_t physical_address(const struct target *target)
{
    enum { PRESENT = 63, FRAME_BITS = 55 };
    char path[64];
    uint64_t entry = 0;
    snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)target->pid);
    int fd = open(path, O_RDONLY);
    bool read =
        fd >= 0 && pread(fd, &entry, sizeof(entry),
                         (off_t)((uintptr_t)target->page / PAGE * sizeof(entry))) == sizeof(entry);
    close(fd);
    return read && entry >> PRESENT ? (entry & ((1ull << FRAME_BITS) - 1)) * PAGE : 0;
}

/* Where /proc/kcore, all memory as an ELF core file, has this physical address. 0: nowhere. */
static off_t kcore_offset(int kcore, uint64_t physical)
{
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    if (pread(kcore, &header, sizeof(header), 0) != sizeof(header))
        return 0;
    for (unsigned n = 0; n < header.e_phnum; n++) {
        off_t at = (off_t)(header.e_phoff + n * sizeof(segment));
        if (pread(kcore, &segment, sizeof(segment), at) != sizeof(segment))
            return 0;
        if (segment.p_type == PT_LOAD && segment.p_paddr != ~0ull && physical >= segment.p_paddr &&
            physical - segment.p_paddr < segment.p_memsz)
            return (off_t)(segment.p_offset + (physical - segment.p_paddr));
    }
    return 0;
}

static int kcore(const struct target *target, char *loot)
{
    uint64_t physical = physical_address(target);
    int fd = open("/proc/kcore", O_RDONLY);
    if (fd < 0 || !physical)
        return fd < 0 ? errno : ENXIO;
    off_t at = kcore_offset(fd, physical);
    ssize_t n = at ? pread(fd, loot, target->length, at + (off_t)target->at) : 0;
    int error = n < 0 ? errno : n == (ssize_t)target->length ? 0 : ENXIO;
    close(fd);
    return error;
}

/* O_DIRECT: the disk itself reads the victim's page, the kernel never touches a byte of it. */
static int disk(const struct target *target, char *loot)
{
    char *page = map_again(target);
    char *back = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open(target->disk, O_RDWR | O_DIRECT);
    if (!page || back == MAP_FAILED || fd < 0)
        return errno;
    int error = pwrite(fd, page, PAGE, 0) == PAGE && pread(fd, back, PAGE, 0) == PAGE ? 0 : errno;
    close(fd);
    if (!error)
        memcpy(loot, back + target->at, target->length);
    return error;
}

const struct attack attacks[ATTACKS] = {
    {"another process, shared memory", shared_memory},
    {"process_vm_readv()", vm_readv},
    {"ptrace(PTRACE_PEEKDATA)", peek},
    {"/proc/kcore", kcore},
    {"a disk, by DMA", disk},
};
