/* SPDX-License-Identifier: MIT */
/*
 * The trainer's text in memory: segments laid out by weight in slots, and for every pair of
 * characters the list of its places. Order among segments of one weight does not matter to the
 * merges.
 */
#include <stdlib.h>

#include "bpe_internal.h"
#include "hanmix/base/parallel.h"

#define SMALL_WEIGHTS 4096u
#define UNIT_SLOTS    65536u /* slots whose pairs one unit finds */

struct weights {
    uint64_t small_slots[SMALL_WEIGHTS]; /* slots taken by segments of a small weight */
    uint32_t small_next[SMALL_WEIGHTS];  /* where its next segment goes */
    struct bpe_weight_class *large;      /* end = slots taken, then where the next segment goes */
    size_t n_large, cap_large;
    uint64_t slots;
};

static int weight_order(const void *a, const void *b)
{
    const struct bpe_weight_class *x = a;
    const struct bpe_weight_class *y = b;

    return x->weight < y->weight ? -1 : x->weight > y->weight;
}

/* Characters of a run: its units less the second halves of pairs. */
static uint32_t run_length(const struct hm_run *run)
{
    uint32_t length = run->n_units;

    for (uint32_t i = 0; i < run->n_units; i++)
        length -= run->unit[i] >= 0xdc00 && run->unit[i] < 0xe000;
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

/* Equal large weights become one entry, whose `end` is where its segments begin. */
static void large_join(struct weights *weights, uint32_t next)
{
    size_t n = 0;

    if (weights->n_large)
        qsort(weights->large, weights->n_large, sizeof(*weights->large), weight_order);
    for (size_t i = 0; i < weights->n_large; i++) {
        struct bpe_weight_class one = weights->large[i];
        if (n == 0 || weights->large[n - 1].weight != one.weight)
            weights->large[n++] = (struct bpe_weight_class){ one.weight, next };
        next += one.end;
    }
    weights->n_large = n;
}

/* Classes by rising weight, and where each begins. */
static int classes_make(struct bpe_trainer *trainer, struct weights *weights, struct hm_error *err)
{
    uint32_t next = 1;
    size_t n = 0;

    for (uint32_t i = 0; i < SMALL_WEIGHTS; i++) {
        weights->small_next[i] = next;
        next += (uint32_t)weights->small_slots[i];
        n += weights->small_slots[i] > 0;
    }
    large_join(weights, next);
    trainer->n_weight_classes = n + weights->n_large;
    trainer->weight_class = hm_bpe_resize(
        trainer, NULL, 0, trainer->n_weight_classes * sizeof(*trainer->weight_class), err);
    if (!trainer->weight_class)
        return err->code;
    n = 0;
    for (uint32_t i = 0; i < SMALL_WEIGHTS; i++)
        if (weights->small_slots[i])
            trainer->weight_class[n++] =
                (struct bpe_weight_class){ i, weights->small_next[i] +
                                                  (uint32_t)weights->small_slots[i] };
    for (size_t i = 0; i < weights->n_large; i++)
        trainer->weight_class[n++] =
            (struct bpe_weight_class){ weights->large[i].weight, i + 1 < weights->n_large
                                                                     ? weights->large[i + 1].end
                                                                     : (uint32_t)weights->slots };
    return HM_OK;
}

static uint32_t *next_of(struct weights *weights, uint64_t weight)
{
    struct bpe_weight_class wanted = { .weight = weight };

    if (weight < SMALL_WEIGHTS)
        return &weights->small_next[weight];
    struct bpe_weight_class *found =
        bsearch(&wanted, weights->large, weights->n_large, sizeof(wanted), weight_order);
    return &found->end;
}

static void segments_lay(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                         struct weights *weights)
{
    uint64_t cursor = 0;
    struct hm_run run;

    trainer->slot[0] = 0;
    while (hm_han_counts_next(counts, &cursor, &run)) {
        if (run_length(&run) < 2)
            continue;
        uint32_t *next = next_of(weights, run.count);
        uint32_t at = *next;
        for (uint32_t i = 0; i < run.n_units;)
            trainer->slot[at++] = trainer->symbol_of[hm_run_code(run.unit, &i)];
        trainer->slot[at++] = 0;
        *next = at;
    }
}

int hm_bpe_slots_lay(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                     struct hm_error *err)
{
    struct weights *weights = hm_bpe_zeroed(trainer, sizeof(*weights), err);

    if (!weights)
        return err->code;
    int status = weights_count(trainer, counts, weights, err);
    if (status == HM_OK)
        status = classes_make(trainer, weights, err);
    if (status == HM_OK) {
        trainer->n_slots = (uint32_t)weights->slots;
        trainer->slot = hm_bpe_resize(trainer, NULL, 0, trainer->n_slots * sizeof(uint32_t), err);
        status = trainer->slot ? HM_OK : err->code;
    }
    if (status == HM_OK)
        segments_lay(trainer, counts, weights);
    hm_bpe_drop(trainer, weights->large, weights->cap_large * sizeof(*weights->large));
    hm_bpe_drop(trainer, weights, sizeof(*weights));
    return status;
}

/* --- places ----------------------------------------------------------------------------------- */

struct finding {
    const struct bpe_trainer *trainer;
    uint32_t *pair; /* by slot: the pair that begins there, 0 = none */
};

static void find_unit(void *context, size_t index, int worker)
{
    struct finding *finding = context;
    const struct bpe_trainer *trainer = finding->trainer;
    uint32_t first = (uint32_t)index * UNIT_SLOTS;
    uint32_t after = trainer->n_slots - first < UNIT_SLOTS ? trainer->n_slots : first + UNIT_SLOTS;

    (void)worker;
    for (uint32_t p = first; p < after; p++) {
        uint32_t left = trainer->slot[p];
        uint32_t right = p + 1 < trainer->n_slots ? trainer->slot[p + 1] : 0;
        finding->pair[p] = left && right ? hm_bpe_pair_find(trainer, left, right) : 0;
    }
}

/* Room for every pair's list, in one block. */
static int lists_open(struct bpe_trainer *trainer, const uint32_t *pair, struct hm_error *err)
{
    struct bpe_block *block = &trainer->block[0];
    size_t total = 0;

    for (uint32_t p = 0; p < trainer->n_slots; p++) {
        trainer->pair[pair[p]].n_positions++;
        total += pair[p] != 0;
    }
    block->position = hm_bpe_resize(trainer, NULL, 0, total * sizeof(uint32_t), err);
    if (!block->position)
        return err->code;
    block->bytes = total * sizeof(uint32_t);
    block->live = (uint32_t)trainer->n_pairs - 1;
    total = 0;
    for (size_t i = 1; i < trainer->n_pairs; i++) {
        trainer->pair[i].position = block->position + total;
        total += trainer->pair[i].n_positions;
        trainer->pair[i].n_positions = 0;
    }
    return HM_OK;
}

int hm_bpe_places_list(struct bpe_trainer *trainer, struct hm_error *err)
{
    size_t block_bytes = (trainer->wanted + 1) * sizeof(*trainer->block);
    size_t pair_bytes = trainer->n_slots * sizeof(uint32_t);
    struct finding finding = { .trainer = trainer };
    int status = HM_OK;

    trainer->block = hm_bpe_zeroed(trainer, block_bytes, err);
    if (!trainer->block)
        return err->code;
    if (trainer->n_pairs == 0)
        return HM_OK;
    finding.pair = hm_bpe_resize(trainer, NULL, 0, pair_bytes, err);
    if (!finding.pair)
        return err->code;
    hm_parallel_for(hm_units(trainer->n_slots, UNIT_SLOTS), find_unit, &finding);
    status = lists_open(trainer, finding.pair, err);
    for (uint32_t p = 0; status == HM_OK && p < trainer->n_slots; p++) {
        struct bpe_pair *pair = &trainer->pair[finding.pair[p]];
        if (finding.pair[p])
            pair->position[pair->n_positions++] = p;
    }
    hm_bpe_drop(trainer, finding.pair, pair_bytes);
    for (uint32_t i = 1; status == HM_OK && i < trainer->n_pairs; i++)
        status = hm_bpe_pair_queue(trainer, i, err);
    return status;
}

void hm_bpe_slots_unload(struct bpe_trainer *trainer)
{
    hm_bpe_drop(trainer, trainer->slot, trainer->n_slots * sizeof(uint32_t));
    hm_bpe_drop(trainer, trainer->weight_class,
                trainer->n_weight_classes * sizeof(*trainer->weight_class));
    trainer->slot = NULL;
    trainer->weight_class = NULL;
    trainer->n_slots = 0;
    trainer->n_weight_classes = 0;
}
