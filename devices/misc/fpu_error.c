/*
 * fpu_error.c - how a PC/AT reports x87 errors while CR0.NE is 0: FERR# raises IRQ 13, and a write
 * to port F0h lowers it (SDM vol. 1, 8.7.2; PIIX data sheets, coprocessor error).
 */
#include "internal/chips.h"
#include <stdlib.h>

struct fpu_error {
    struct device dev;
    struct board *board;
    struct irq_line irq13;
    bool raised;
    int ports;
};

/* FERR#: its fall does not lower the interrupt. */
static void fpu_set(void *opaque, unsigned pin, bool level)
{
    struct fpu_error *f = opaque;
    (void)pin;
    if (!level || f->raised)
        return;
    f->raised = true;
    irq_set(&f->irq13, true);
}

struct irq_line fpu_error_line(struct fpu_error *f)
{
    return (struct irq_line){.set = fpu_set, .opaque = f};
}

static uint64_t fpu_read(void *opaque, const struct access *access, uint64_t offset, unsigned size)
{
    (void)opaque, (void)access, (void)offset, (void)size;
    return 0xff;
}

static void fpu_write(void *opaque, const struct access *access, uint64_t offset, unsigned size,
                      uint64_t value)
{
    struct fpu_error *f = opaque;
    (void)access, (void)offset, (void)size, (void)value;
    f->raised = false;
    irq_set(&f->irq13, false);
}

static void fpu_reset(struct device *dev)
{
    struct fpu_error *f = (struct fpu_error *)dev;
    f->raised = false;
    irq_set(&f->irq13, false);
}

static void fpu_destroy(struct device *dev)
{
    struct fpu_error *f = (struct fpu_error *)dev;
    io_remove(f->board->io, f->ports);
    free(f);
}

static const struct field fpu_fields[] = {FIELD(struct fpu_error, raised, FIELD_U8, 1)};
static const struct state_desc fpu_state = STATE_DESC("fpu-error", 1, fpu_fields);

static const struct io_ops fpu_ops = {fpu_read, fpu_write, 1, 1};

struct fpu_error *fpu_error_new(struct board *board, struct irq_line irq13)
{
    struct fpu_error *f = chip_alloc(sizeof(*f));
    f->dev = (struct device){
        .name = "fpu-error", .state = &fpu_state, .reset = fpu_reset, .destroy = fpu_destroy};
    f->board = board;
    f->irq13 = irq13;
    f->ports = io_add(board->io, 0xf0, 2, &fpu_ops, f, "fpu error");
    return f;
}
