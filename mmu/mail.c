/*
 * mail.c - the mailbox of each vCPU's memory management (mail.h).
 *
 * A guest decides how many letters are sent, so their number is bounded: letters about views turn
 * into one "drop everything" when there are too many, which is always right; letters about code are
 * at most one per frame (frame.c, claim_code()).
 */
#include "mail.h"
#include "view.h"
#include <stdio.h>
#include <stdlib.h>

enum letter_kind { LETTER_TABLE, LETTER_REVOKE, LETTER_CODE };

struct letter {
    enum letter_kind kind;
    uint32_t frame, offset, len;
    uint64_t gpa;
};

enum { VIEW_LETTERS = 256 };

bool mail_init(struct mmu_cpu *mmu)
{
    struct mailbox *box = &mmu->priv->box;
    box->views = malloc(VIEW_LETTERS * sizeof *box->views);
    if (!box->views)
        return false;
    pthread_mutex_init(&box->lock, NULL);
    return true;
}

void mail_fini(struct mmu_cpu *mmu)
{
    struct mailbox *box = &mmu->priv->box;
    free(box->views);
    free(box->code);
    pthread_mutex_destroy(&box->lock);
}

/* ---- Sending -------------------------------------------------------------------------------- */

static void kick(struct mmu_cpu *mmu)
{
    const struct mmu_cpu_hooks *hooks = &mmu->priv->hooks;
    if (hooks->kick)
        hooks->kick(hooks->cpu);
}

static void post_view(struct phys_map *map, unsigned vcpu, const struct letter *letter)
{
    struct mmu_cpu *mmu = atomic_load(&map->cpus[vcpu]);
    if (!mmu)
        return;
    struct mailbox *box = &mmu->priv->box;
    pthread_mutex_lock(&box->lock);
    if (!letter || box->views_count == VIEW_LETTERS)
        box->flush = true;
    else
        box->views[box->views_count++] = *letter;
    atomic_store(&box->pending_views, true);
    pthread_mutex_unlock(&box->lock);
    kick(mmu);
}

void mail_table(struct phys_map *map, unsigned vcpu, bool own, uint32_t frame, uint32_t offset,
                uint32_t len)
{
    struct mmu_cpu *mmu = atomic_load(&map->cpus[vcpu]);
    if (own && mmu)
        trace_written(mmu, frame, offset, len);
    else
        post_view(map, vcpu, &(struct letter){LETTER_TABLE, frame, offset, len, 0});
}

void mail_revoke(struct phys_map *map, unsigned vcpu, uint32_t frame)
{
    post_view(map, vcpu, &(struct letter){LETTER_REVOKE, frame, 0, 0, 0});
}

void mail_flush(struct phys_map *map, unsigned vcpu)
{
    post_view(map, vcpu, NULL);
}

static void post_code(struct mailbox *box, const struct letter *letter)
{
    if (box->code_count == box->code_room) {
        unsigned room = box->code_room ? 2 * box->code_room : 64;
        struct letter *more = realloc(box->code, room * sizeof *more);
        if (!more) {
            fprintf(stderr, "bailey: out of host memory\n");
            abort();
        }
        box->code = more;
        box->code_room = room;
    }
    box->code[box->code_count++] = *letter;
}

void mail_code(struct phys_map *map, unsigned vcpu, uint64_t gpa, uint32_t frame)
{
    struct mmu_cpu *mmu = atomic_load(&map->cpus[vcpu]);
    if (!mmu)
        return;
    struct mailbox *box = &mmu->priv->box;
    pthread_mutex_lock(&box->lock);
    post_code(box, &(struct letter){LETTER_CODE, frame, 0, 0, gpa});
    atomic_store(&box->pending_code, true);
    pthread_mutex_unlock(&box->lock);
    kick(mmu);
}

void mail_own_code(struct phys_map *map, unsigned vcpu, uint64_t gpa, uint64_t len)
{
    struct mmu_cpu *mmu = atomic_load(&map->cpus[vcpu]);
    struct mmu_cpu_private *priv = mmu->priv;
    priv->counters.code_writes++;
    if (priv->hooks.code_stale) {
        priv->counters.code_stale++;
        priv->hooks.code_stale(priv->hooks.cpu, gpa, len);
    }
}

/* ---- Reading -------------------------------------------------------------------------------- */

void mail_read_views(struct mmu_cpu *mmu)
{
    struct mailbox *box = &mmu->priv->box;
    struct letter letter[VIEW_LETTERS];
    if (!atomic_load(&box->pending_views))
        return;
    pthread_mutex_lock(&box->lock);
    unsigned count = box->views_count;
    bool flush = box->flush;
    for (unsigned i = 0; i < count; i++)
        letter[i] = box->views[i];
    box->views_count = 0;
    box->flush = false;
    atomic_store(&box->pending_views, false);
    pthread_mutex_unlock(&box->lock);

    if (flush)
        mmu_flush_all(mmu);
    for (unsigned i = 0; i < count; i++) {
        if (letter[i].kind == LETTER_REVOKE)
            rmap_revoke_write(mmu, letter[i].frame);
        else if (!flush)
            trace_written(mmu, letter[i].frame, letter[i].offset, letter[i].len);
    }
}

void mail_read_code(struct mmu_cpu *mmu)
{
    struct mmu_cpu_private *priv = mmu->priv;
    struct mailbox *box = &priv->box;
    if (!atomic_load(&box->pending_code))
        return;
    pthread_mutex_lock(&box->lock);
    struct letter *letter = box->code;
    unsigned count = box->code_count;
    box->code = NULL;
    box->code_count = box->code_room = 0;
    atomic_store(&box->pending_code, false);
    pthread_mutex_unlock(&box->lock);

    for (unsigned i = 0; i < count; i++) {
        struct frame *frame = frame_by_number(mmu->map, letter[i].frame);
        if (priv->hooks.code_stale) {
            priv->counters.code_stale++;
            priv->hooks.code_stale(priv->hooks.cpu, letter[i].gpa, PAGE_SIZE);
        }
        /* The whole frame was declared stale, so nothing of it is left, whatever was added since.
         */
        frame_code_gone(mmu->map, frame, mmu->vcpu);
    }
    free(letter);
}
