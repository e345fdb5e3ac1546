/*
 * port92.c - system control port A: the fast A20 gate and the fast reset (PS/2 Technical Reference;
 * PIIX data sheets, section 3.2.7).
 */
#include "internal/chips.h"
#include <stdlib.h>

enum { FAST_RESET = 1 << 0, A20 = 1 << 1 };

struct port92 {
    struct device dev;
    struct board *board;
    struct irq_line a20;
    uint8_t value;
    int port;
};

static uint64_t port92_read(void *opaque, const struct access *access, uint64_t offset,
                            unsigned size)
{
    struct port92 *p = opaque;
    (void)access, (void)offset, (void)size;
    return p->value;
}

/* The reset is on the rising edge of bit 0. */
static void port92_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                         uint64_t value)
{
    struct port92 *p = opaque;
    (void)access, (void)offset, (void)size;
    bool reset = value & ~p->value & FAST_RESET;
    p->value = value & (FAST_RESET | A20);
    irq_set(&p->a20, value & A20);
    if (reset)
        p->board->shutdown(p->board->machine, BOARD_RESET, 0);
}

static void port92_reset(struct device *dev)
{
    struct port92 *p = (struct port92 *)dev;
    p->value = A20;
    irq_set(&p->a20, true);
}

static void port92_destroy(struct device *dev)
{
    struct port92 *p = (struct port92 *)dev;
    io_remove(p->board->io, p->port);
    free(p);
}

static const struct field port92_fields[] = {FIELD(struct port92, value, FIELD_U8, 1)};
static const struct state_desc port92_state = STATE_DESC("port92", 1, port92_fields);

static const struct io_ops port92_ops = {port92_read, port92_write, 1, 1};

struct port92 *port92_new(struct board *board, struct irq_line a20)
{
    struct port92 *p = chip_alloc(sizeof(*p));
    p->dev = (struct device){
        .name = "port92", .state = &port92_state, .reset = port92_reset, .destroy = port92_destroy};
    p->board = board;
    p->a20 = a20;
    p->port = io_add(board->io, 0x92, 1, &port92_ops, p, "port92");
    port92_reset(&p->dev);
    return p;
}
