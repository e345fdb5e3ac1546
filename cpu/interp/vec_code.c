/*
 * vec_code.c - memory for generated host code, never writable and executable through one mapping.
 *
 * A memfd is mapped twice, once to write and once to execute. Where that is refused (no memfd, or a
 * policy against executable files without a name), an anonymous mapping changes between writable
 * and executable; then only the thread that owns the arena may run its code, which is so here.
 */
#include "cpu/interp/vec_internal.h"
#include "internal/error.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static bool map_twice(struct vec_arena *arena, size_t size)
{
    int fd = memfd_create("bailey-vector", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    if (ftruncate(fd, (off_t)size) != 0) {
        close(fd);
        return false;
    }
    void *write = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *exec = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
    close(fd);
    if (write != MAP_FAILED && exec != MAP_FAILED) {
        arena->write = write;
        arena->exec = exec;
        return true;
    }
    if (write != MAP_FAILED)
        munmap(write, size);
    if (exec != MAP_FAILED)
        munmap(exec, size);
    return false;
}

bool vec_arena_init(struct vec_arena *arena, size_t size, struct error *err)
{
    *arena = (struct vec_arena){.size = size};
    if (map_twice(arena, size))
        return true;
    void *exec = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (exec == MAP_FAILED || mprotect(exec, size, PROT_READ | PROT_EXEC) != 0) {
        int error = errno;
        if (exec != MAP_FAILED)
            munmap(exec, size);
        return error_set(
            err,
            "no executable memory for generated code: %s (a security policy that forbids "
            "it must exempt this program)",
            strerror(error));
    }
    arena->exec = exec;
    arena->flips = true;
    return true;
}

void vec_arena_fini(struct vec_arena *arena)
{
    if (arena->write)
        munmap(arena->write, arena->size);
    if (arena->exec)
        munmap(arena->exec, arena->size);
    *arena = (struct vec_arena){0};
}

static bool write_code(struct vec_arena *arena, size_t offset, const uint8_t *code, size_t len)
{
    if (!arena->flips) {
        memcpy(arena->write + offset, code, len);
        return true;
    }
    if (mprotect(arena->exec, arena->size, PROT_READ | PROT_WRITE) != 0)
        return false;
    memcpy(arena->exec + offset, code, len);
    return mprotect(arena->exec, arena->size, PROT_READ | PROT_EXEC) == 0;
}

const void *vec_arena_add(struct vec_arena *arena, const uint8_t *code, size_t len)
{
    size_t need = (len + 15) & ~(size_t)15;
    if (arena->size - arena->used < need || !write_code(arena, arena->used, code, len))
        return NULL;
    const void *at = arena->exec + arena->used;
    arena->used += need;
    return at;
}

bool vec_arena_replace(struct vec_arena *arena, const void *at, const uint8_t *code, size_t len)
{
    if (!write_code(arena, (size_t)((const uint8_t *)at - arena->exec), code, len))
        return false;
    /* Code that ran may be modified through another linear address only before a serialising
     * instruction (SDM vol. 3, 8.1.3). */
    unsigned eax, ebx, ecx, edx;
    __cpuid(0, eax, ebx, ecx, edx);
    (void)eax, (void)ebx, (void)ecx, (void)edx;
    return true;
}
