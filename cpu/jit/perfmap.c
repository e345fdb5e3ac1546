/*
 * perfmap.c - /tmp/perf-PID.map: what perf calls the functions in generated code (Linux,
 * tools/perf/Documentation/jit-interface.txt): lines "ADDRESS SIZE NAME", two a region: what it
 * mostly runs, and what it seldom does.
 *
 * perf reads that file only for code in anonymous memory, which it knows by the mapping's name:
 * "//anon", or "/dev/zero" as the kernel calls shared anonymous memory. A memfd is neither. So with
 * -perfmap the cache is mapped anew, from shared anonymous memory that mremap() shows twice.
 *
 * What the cache held before it was emptied stays in the map, under what has taken its place: then
 * perf may give either name.
 */
#include "cpu/jit/profile.h"
#include "internal/error.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* In a folder that everybody may write to: nobody else's file, and not through a link. */
bool perfmap_open(struct profile *p, struct error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    p->map = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (!p->map) {
        error_set(err, "-perfmap: could not make '%s': %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    setvbuf(p->map, NULL, _IOLBF, 0); /* whole lines, whatever the end is like */
    return true;
}

static void write_line(const struct profile *p, const uint8_t *code, size_t size, const char *name)
{
    fprintf(p->map, "%llx %zx %s\n", (unsigned long long)(uintptr_t)code, size, name);
}

/* The pages at `to` become those at `from`; `size` 0: as well. */
static bool move(void *from, size_t size, void *to, size_t new_size)
{
    return mremap(from, size, new_size, MREMAP_MAYMOVE | MREMAP_FIXED, to) != MAP_FAILED;
}

bool perfmap_take(struct profile_cpu *p, struct error *err)
{
    struct jit *jit = p->jit;
    size_t size = jit->code_size;
    uint8_t *fresh =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (fresh == MAP_FAILED)
        return error_set(err, "-perfmap: no memory: %s", strerror(errno));
    memcpy(fresh, jit->code_write, jit->body.begin);
    if (!move(fresh, size, jit->code_write, size) || !move(jit->code_write, 0, jit->code, size) ||
        mprotect(jit->code, size, PROT_READ | PROT_EXEC) != 0)
        return error_set(err, "-perfmap: no executable memory: %s", strerror(errno));
    write_line(p->profile, jit->code, jit->body.begin, "[ways into translated code and out of it]");
    return true;
}

void perfmap_region(struct profile_cpu *p, const uint8_t *code, size_t size)
{
    char name[160];
    struct profile *all = p->profile;
    flockfile(all->map); /* also for the symbols: any vCPU may be here */
    profile_follow(all, p->cpu->msr_lstar);
    profile_name(all, p->cpu->rip, name, sizeof name);
    write_line(all, code, size, name);
    funlockfile(all->map);
}
