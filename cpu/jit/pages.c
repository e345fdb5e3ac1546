/*
 * pages.c - REP MOVS and REP STOS whose ranges lie in more than one page, in C that translated code
 * calls without putting vectors away.
 *
 * Page by page it is the host's own instruction on host addresses, so that overlaps are seen
 * element by element, as string.c has it; an element that lies in two pages goes in two parts. It
 * ends where the view does not allow what comes next: RSI, RDI and RCX are then those of a
 * processor that has been interrupted there, and the site goes on. There is no poll, so long ones
 * are the site's.
 *
 * This file is compiled for general registers only (cpu/CMakeLists.txt). Nothing here may call a
 * function that is not, nor raise.
 */
#include "cpu/jit/jit.h"
#include "cpu/mem_inline.h"

enum { BYTES_MAX = 4 * PAGE_SIZE };

static uint64_t room(uint64_t at)
{
    return PAGE_SIZE - (at & ~PAGE_MASK);
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The two parts of an element that does not lie in one page, or may not; size 2, 4 or 8. */
struct parts {
    void *p[2];
    unsigned len[2];
};

static bool find_parts(const struct cpu *cpu, uint64_t at, unsigned size, enum access_kind kind,
                       struct parts *out)
{
    unsigned first = (unsigned)least(size, room(at)), rest = size - first;
    out->len[0] = first, out->len[1] = rest;
    out->p[0] = mem_hit(cpu, at, first, kind);
    out->p[1] = rest ? mem_hit(cpu, at + first, rest, kind) : out->p[0];
    return out->p[0] && out->p[1];
}

static uint64_t load_parts(const struct parts *from)
{
    uint64_t value = 0;
    mem_host_read(&value, from->p[0], from->len[0]);
    mem_host_read((char *)&value + from->len[0], from->p[1], from->len[1]);
    return value;
}

static void store_parts(const struct parts *to, uint64_t value)
{
    mem_host_write(to->p[0], &value, to->len[0]);
    mem_host_write(to->p[1], (const char *)&value + to->len[0], to->len[1]);
}

/* The host's instruction; DF is 0. */
static void host_movs(void *to, const void *from, uint64_t count, unsigned size)
{
    switch (size) {
    case 1:
        asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
        break;
    case 2:
        asm volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count)::"memory");
        break;
    case 4:
        asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count)::"memory");
        break;
    default:
        asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    }
}

static void host_stos(void *to, uint64_t value, uint64_t count, unsigned size)
{
    switch (size) {
    case 1:
        asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    case 2:
        asm volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    case 4:
        asm volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(value) : "memory");
        break;
    default:
        asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    }
}

/* How many elements were done, up to `count`; 0: the view does not allow the first one. */
static uint64_t move_some(const struct cpu *cpu, uint64_t to, uint64_t from, uint64_t count,
                          unsigned size)
{
    struct parts src, dst;
    uint64_t n = least(count, least(room(from), room(to)) / size);
    if (n) {
        const void *s = mem_hit(cpu, from, 1, ACCESS_READ);
        void *d = mem_hit(cpu, to, 1, ACCESS_WRITE);
        if (!s || !d)
            return 0;
        host_movs(d, s, n, size);
        return n;
    }
    if (!find_parts(cpu, from, size, ACCESS_READ, &src) ||
        !find_parts(cpu, to, size, ACCESS_WRITE, &dst))
        return 0;
    store_parts(&dst, load_parts(&src));
    return 1;
}

static uint64_t fill_some(const struct cpu *cpu, uint64_t to, uint64_t count, unsigned size)
{
    struct parts dst;
    uint64_t n = least(count, room(to) / size);
    if (n) {
        void *d = mem_hit(cpu, to, 1, ACCESS_WRITE);
        if (!d)
            return 0;
        host_stos(d, cpu->gpr[RAX], n, size);
        return n;
    }
    if (!find_parts(cpu, to, size, ACCESS_WRITE, &dst))
        return 0;
    store_parts(&dst, cpu->gpr[RAX]);
    return 1;
}

uint64_t jit_pages(struct cpu *cpu, uint32_t what)
{
    unsigned size = what & JIT_PAGES_SIZE;
    bool moves = what & JIT_PAGES_MOVS;
    uint64_t *count = &cpu->gpr[RCX];
    if (*count > BYTES_MAX / size)
        return 0;
    while (*count) {
        uint64_t to = cpu->gpr[RDI], from = cpu->gpr[RSI];
        uint64_t n =
            moves ? move_some(cpu, to, from, *count, size) : fill_some(cpu, to, *count, size);
        if (!n)
            return 0;
        *count -= n;
        cpu->gpr[RDI] = to + n * size;
        if (moves)
            cpu->gpr[RSI] = from + n * size;
    }
    return 1;
}
