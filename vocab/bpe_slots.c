/* SPDX-License-Identifier: MIT */
/*
 * The trainer's text in memory: segments laid out by weight in slots, and for every pair of
 * characters the list of its places. Order among segments of one weight does not matter to the
 * merges.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_internal.h"

#define SMALL_WEIGHTS 4096u

struct weights {
    uint64_t small_slots[SMALL_WEIGHTS]; /* slots taken by segments of a small weight */
    struct bpe_weight_class *large;      /* end = slots taken */
    size_t n_large, cap_large;
    uint64_t slots;
};

static int weight_order(const void *a, const void *b)
{
    const struct bpe_weight_class *x = a;
    const struct bpe_weight_class *y = b;

    return x->weight < y->weight ? -1 : x->weight > y->weight;
}

static uint32_t run_length(const struct hm_run *run)
{
    uint32_t length = 0;

    for (uint32_t i = 0; i < run->n_units; length++)
        hm_run_code(run->unit, &i);
    return length;
}

static int weights_count(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                         struct weights *weights, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;

    weights->slots = 1;
    while (hm_han_counts_next(counts, &cursor, &run)) {
        uint32_t length = run_length(&run);
        if (length < 2)
            continue;
        weights->slots += length + (uint64_t)1;
        if (weights->slots >= UINT32_MAX)
            return hm_fail(err, HM_ERR_NOFIT,
                           "the Han runs that matter for %zu merges hold more than 4294967295 "
                           "characters: sample the text",
                           trainer->wanted);
        if (run.count < SMALL_WEIGHTS) {
            weights->small_slots[run.count] += length + (uint64_t)1;
            continue;
        }
        if (weights->n_large == weights->cap_large) {
            size_t cap = weights->cap_large ? 2 * weights->cap_large : 256;
            struct bpe_weight_class *grown =
                hm_bpe_resize(trainer, weights->large, weights->cap_large * sizeof(*grown),
                              cap * sizeof(*grown), err);
            if (!grown)
                return err->code;
            weights->large = grown;
            weights->cap_large = cap;
        }
        weights->large[weights->n_large++] =
            (struct bpe_weight_class){ run.count, length + (uint32_t)1 };
    }
    return HM_OK;
}

/* Classes by rising weight; `end` is where a class begins until the slots are filled. */
static int classes_make(struct bpe_trainer *trainer, struct weights *weights, struct hm_error *err)
{
    size_t most = SMALL_WEIGHTS + weights->n_large;
    struct bpe_weight_class *class = hm_bpe_resize(trainer, NULL, 0, most * sizeof(*class), err);
    uint32_t next = 1;
    size_t n = 0;

    if (!class)
        return err->code;
    for (uint32_t i = 0; i < SMALL_WEIGHTS; i++) {
        if (!weights->small_slots[i])
            continue;
        class[n++] = (struct bpe_weight_class){ i, next };
        next += (uint32_t)weights->small_slots[i];
    }
    if (weights->n_large)
        qsort(weights->large, weights->n_large, sizeof(*weights->large), weight_order);
    for (size_t i = 0; i < weights->n_large; i++) {
        if (n == 0 || class[n - 1].weight != weights->large[i].weight)
            class[n++] = (struct bpe_weight_class){ weights->large[i].weight, next };
        next += weights->large[i].end;
    }
    trainer->weight_class = class;
    trainer->n_weight_classes = n;
    trainer->weight_class_bytes = most * sizeof(*class);
    return HM_OK;
}

static struct bpe_weight_class *class_of(struct bpe_trainer *trainer, uint64_t weight)
{
    struct bpe_weight_class wanted = { .weight = weight };

    return bsearch(&wanted, trainer->weight_class, trainer->n_weight_classes, sizeof(wanted),
                   weight_order);
}

/* Lay out the segments and count every pair's places. */
static int slots_lay(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                     const uint32_t *symbol_of, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;
    struct bpe_weight_class *class = NULL;

    trainer->slot = hm_bpe_resize(trainer, NULL, 0, trainer->n_slots * sizeof(uint32_t), err);
    if (!trainer->slot)
        return err->code;
    trainer->slot[0] = 0;
    while (hm_han_counts_next(counts, &cursor, &run)) {
        if (run_length(&run) < 2)
            continue;
        if (!class || class->weight != run.count)
            class = class_of(trainer, run.count);
        uint32_t *slot = trainer->slot + class->end;
        uint32_t n = 0;
        for (uint32_t i = 0; i < run.n_units; n++) {
            slot[n] = symbol_of[hm_run_code(run.unit, &i)];
            if (n > 0)
                trainer->pair[hm_bpe_pair_find(trainer, slot[n - 1], slot[n])].n_positions++;
        }
        slot[n] = 0;
        class->end += n + 1;
    }
    return HM_OK;
}

/* Lists of places for all pairs, in one block. */
static int places_list(struct bpe_trainer *trainer, struct hm_error *err)
{
    struct bpe_block *block = &trainer->block[0];
    size_t total = 0;

    for (size_t i = 1; i < trainer->n_pairs; i++)
        total += trainer->pair[i].n_positions;
    block->position = hm_bpe_resize(trainer, NULL, 0, total * sizeof(uint32_t), err);
    if (!block->position)
        return err->code;
    block->bytes = total * sizeof(uint32_t);
    block->live = trainer->n_pairs ? (uint32_t)trainer->n_pairs - 1 : 0;
    total = 0;
    for (size_t i = 1; i < trainer->n_pairs; i++) {
        struct bpe_pair *pair = &trainer->pair[i];
        pair->position = block->position + total;
        total += pair->n_positions;
        pair->n_positions = 0;
    }
    for (uint32_t p = 1; p < trainer->n_slots; p++) {
        if (!trainer->slot[p - 1] || !trainer->slot[p])
            continue;
        struct bpe_pair *pair =
            &trainer->pair[hm_bpe_pair_find(trainer, trainer->slot[p - 1], trainer->slot[p])];
        pair->position[pair->n_positions++] = p - 1;
    }
    return HM_OK;
}

int hm_bpe_slots_fill(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                      const uint32_t *symbol_of, struct hm_error *err)
{
    size_t block_bytes = (trainer->wanted + 1) * sizeof(*trainer->block);
    struct weights *weights = hm_bpe_resize(trainer, NULL, 0, sizeof(*weights), err);
    int status = HM_OK;

    if (!weights)
        return err->code;
    memset(weights, 0, sizeof(*weights));
    trainer->block = hm_bpe_resize(trainer, NULL, 0, block_bytes, err);
    if (!trainer->block) {
        status = err->code;
        goto out;
    }
    memset(trainer->block, 0, block_bytes);
    status = weights_count(trainer, counts, weights, err);
    if (status == HM_OK)
        status = classes_make(trainer, weights, err);
    if (status == HM_OK) {
        trainer->n_slots = (uint32_t)weights->slots;
        status = slots_lay(trainer, counts, symbol_of, err);
    }
    if (status == HM_OK)
        status = places_list(trainer, err);
    for (uint32_t i = 1; status == HM_OK && i < trainer->n_pairs; i++)
        status = hm_bpe_pair_queue(trainer, i, err);
out:
    hm_bpe_drop(trainer, weights->large, weights->cap_large * sizeof(*weights->large));
    hm_bpe_drop(trainer, weights, sizeof(*weights));
    return status;
}

void hm_bpe_slots_unload(struct bpe_trainer *trainer)
{
    hm_bpe_drop(trainer, trainer->slot, trainer->n_slots * sizeof(uint32_t));
    hm_bpe_drop(trainer, trainer->weight_class, trainer->weight_class_bytes);
    trainer->slot = NULL;
    trainer->weight_class = NULL;
    trainer->n_slots = 0;
    trainer->weight_class_bytes = 0;
}
