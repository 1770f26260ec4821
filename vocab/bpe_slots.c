/* SPDX-License-Identifier: MIT */
/*
 * The trainer's text in memory: segments laid out by weight in slots. Order among segments of one
 * weight does not matter to the merges. Segments are walked twice, parts in parallel: to know how
 * many slots each weight takes, then to lay them there.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bpe_internal.h"
#include "han_store.h"
#include "hanmix/base/parallel.h"

#define SMALL_WEIGHTS 1024u
#define LARGE_FIRST   64u
#define STOP_EVERY    65536u /* segments between two looks at the stop flag */

/* --- segments in memory ------------------------------------------------------------- */

static int sums_walk(void *context, size_t part, int (*each)(void *user, const struct hm_run *run),
                     void *user, struct hm_error *err)
{
    const struct hm_han_sums *sums = context;
    uint64_t cursor = 0;
    struct hm_run run;

    (void)err;
    while (hm_han_part_next(&sums->part[part], &cursor, &run))
        HM_TRY(each(user, &run));
    return HM_OK;
}

struct bpe_segments hm_bpe_segments_of(const struct hm_han_sums *sums)
{
    return (struct bpe_segments){ .context = (void *)(uintptr_t)sums,
                                  .n_parts = HM_HAN_PARTS,
                                  .walk = sums_walk };
}

/* --- laying ----------------------------------------------------------------------------------- */

struct weight_slots {
    uint64_t weight;
    uint64_t slots; /* taken by segments of the weight; later where the next of them goes */
};

struct part_weights {
    struct bpe_trainer *trainer;
    uint64_t small[SMALL_WEIGHTS]; /* `slots` of small weights */
    struct weight_slots *large;    /* when weighed: ascending, every weight once */
    size_t n_large, cap_large, next_large;
    uint64_t slots, n_segments;
    struct hm_error err;
};

struct laying {
    const struct bpe_segments *segments;
    struct part_weights *part;
    int (*each)(void *user, const struct hm_run *run);
};

static void part_unit(void *context, size_t index, int worker)
{
    struct laying *laying = context;
    struct part_weights *part = &laying->part[index];

    (void)worker;
    part->n_segments = 0;
    laying->segments->walk(laying->segments->context, index, laying->each, part, &part->err);
}

static int parts_walk(struct laying *laying, int (*each)(void *user, const struct hm_run *run),
                      struct hm_error *err)
{
    laying->each = each;
    hm_parallel_for(laying->segments->n_parts, part_unit, laying);
    for (size_t i = 0; i < laying->segments->n_parts; i++)
        if (laying->part[i].err.code < 0)
            return hm_error_pass(err, &laying->part[i].err);
    return HM_OK;
}

static int stop_look(struct part_weights *part)
{
    if (++part->n_segments % STOP_EVERY == 0 && hm_ctl_stopped(part->trainer->ctl))
        return hm_fail(&part->err, HM_ERR_STOPPED, "vocabulary training was stopped");
    return HM_OK;
}

/* Characters of a run: its units less the second halves of pairs. */
static uint32_t run_length(const struct hm_run *run)
{
    uint32_t length = run->n_units;

    for (uint32_t i = 0; i < run->n_units; i++)
        length -= run->unit[i] >= 0xdc00 && run->unit[i] < 0xe000;
    return length;
}

static int weight_order(const void *a, const void *b)
{
    const struct weight_slots *x = a;
    const struct weight_slots *y = b;

    return x->weight < y->weight ? -1 : x->weight > y->weight;
}

/* Sort large weights and join equal ones. */
static void large_join(struct part_weights *part)
{
    size_t n = 0;

    if (part->n_large)
        qsort(part->large, part->n_large, sizeof(*part->large), weight_order);
    for (size_t i = 0; i < part->n_large; i++) {
        if (n > 0 && part->large[n - 1].weight == part->large[i].weight)
            part->large[n - 1].slots += part->large[i].slots;
        else
            part->large[n++] = part->large[i];
    }
    part->n_large = n;
}

static int large_grow(struct part_weights *part)
{
    size_t cap = part->cap_large ? 2 * part->cap_large : LARGE_FIRST;
    struct weight_slots *grown =
        hm_bpe_resize(part->trainer, part->large, part->cap_large * sizeof(*grown),
                      cap * sizeof(*grown), &part->err);

    if (!grown)
        return part->err.code;
    part->large = grown;
    part->cap_large = cap;
    return HM_OK;
}

static int large_add(struct part_weights *part, uint64_t weight, uint64_t slots)
{
    if (part->n_large == part->cap_large) {
        large_join(part);
        if (2 * part->n_large >= part->cap_large)
            HM_TRY(large_grow(part));
    }
    part->large[part->n_large++] = (struct weight_slots){ weight, slots };
    return HM_OK;
}

static int segment_weigh(void *user, const struct hm_run *run)
{
    struct part_weights *part = user;
    uint64_t slots = run_length(run) + (uint64_t)1;

    if (slots < 3)
        return HM_OK;
    part->slots += slots;
    HM_TRY(stop_look(part));
    if (run->count >= SMALL_WEIGHTS)
        return large_add(part, run->count, slots);
    part->small[run->count] += slots;
    return HM_OK;
}

/* The smallest large weight that no part has passed; 0 when there is none. */
static uint64_t large_next(const struct laying *laying)
{
    uint64_t next = 0;

    for (size_t i = 0; i < laying->segments->n_parts; i++) {
        const struct part_weights *part = &laying->part[i];
        if (part->next_large < part->n_large &&
            (next == 0 || part->large[part->next_large].weight < next))
            next = part->large[part->next_large].weight;
    }
    return next;
}

/* What was taken becomes where to go; *next moves behind. */
static void begin_here(uint64_t *slots, uint64_t *next)
{
    uint64_t taken = *slots;

    *slots = *next;
    *next += taken;
}

static void class_close(struct bpe_trainer *trainer, uint64_t weight, uint64_t next)
{
    size_t n = trainer->n_weight_classes;

    if (next > (n > 0 ? trainer->weight_class[n - 1].end : 1))
        trainer->weight_class[trainer->n_weight_classes++] =
            (struct bpe_weight_class){ weight, (uint32_t)next };
}

/* Classes by rising weight; within a class, parts in order. */
static int classes_make(struct bpe_trainer *trainer, struct laying *laying, struct hm_error *err)
{
    uint64_t next = 1; /* slot 0 is a separator */
    size_t most = SMALL_WEIGHTS;

    for (size_t i = 0; i < laying->segments->n_parts; i++) {
        large_join(&laying->part[i]);
        most += laying->part[i].n_large;
    }
    trainer->cap_weight_classes = most;
    trainer->weight_class =
        hm_bpe_resize(trainer, NULL, 0, most * sizeof(*trainer->weight_class), err);
    if (!trainer->weight_class)
        return err->code;
    for (uint32_t weight = 0; weight < SMALL_WEIGHTS; weight++) {
        for (size_t i = 0; i < laying->segments->n_parts; i++)
            begin_here(&laying->part[i].small[weight], &next);
        class_close(trainer, weight, next);
    }
    for (uint64_t weight; (weight = large_next(laying)) != 0;) {
        for (size_t i = 0; i < laying->segments->n_parts; i++) {
            struct part_weights *part = &laying->part[i];
            if (part->next_large < part->n_large && part->large[part->next_large].weight == weight)
                begin_here(&part->large[part->next_large++].slots, &next);
        }
        class_close(trainer, weight, next);
    }
    return HM_OK;
}

static int segment_lay(void *user, const struct hm_run *run)
{
    struct part_weights *part = user;
    struct bpe_trainer *trainer = part->trainer;
    struct weight_slots wanted = { .weight = run->count };
    uint32_t length = run_length(run);

    if (length < 2)
        return HM_OK;
    HM_TRY(stop_look(part));
    struct weight_slots *large = NULL;
    if (run->count >= SMALL_WEIGHTS && part->n_large > 0)
        large = bsearch(&wanted, part->large, part->n_large, sizeof(wanted), weight_order);
    uint64_t *next = large ? &large->slots : &part->small[run->count % SMALL_WEIGHTS];
    if (*next + length >= trainer->n_slots || (!large && run->count >= SMALL_WEIGHTS))
        return hm_fail(&part->err, HM_ERR_FORMAT,
                       "Han runs differ between two walks over them: the files they were kept in "
                       "were changed by another program");
    uint64_t at = *next;
    for (uint32_t i = 0; i < run->n_units;) {
        uint32_t symbol = trainer->symbol_of[hm_run_code(run->unit, &i)];
        bpe_slot_set(trainer->slot, at++, symbol <= trainer->n_slot_chars ? symbol : 0,
                     trainer->wide);
    }
    bpe_slot_set(trainer->slot, at++, 0, trainer->wide);
    *next = at;
    return HM_OK;
}

/* Characters rarer than the floor are in no pair: they separate. One id stands for what is within a
 * symbol. */
static void ids_choose(struct bpe_trainer *trainer)
{
    uint32_t n = 0;

    while (n < trainer->n_chars && trainer->symbol_count[n + 1] >= trainer->floor)
        n++;
    trainer->n_slot_chars = n;
    trainer->wide = n + trainer->wanted >= UINT16_MAX;
    memset(trainer->width, 1, trainer->cap_symbols);
}

static int lay(struct bpe_trainer *trainer, struct laying *laying, struct hm_error *err)
{
    uint64_t slots = 1;

    HM_TRY(parts_walk(laying, segment_weigh, err));
    for (size_t i = 0; i < laying->segments->n_parts; i++)
        slots += laying->part[i].slots;
    if (slots > UINT32_MAX)
        return hm_fail(err, HM_ERR_NOFIT,
                       "the Han runs that matter for %zu merges need %" PRIu64
                       " places and 4294967295 can be numbered: sample the text",
                       trainer->wanted, slots);
    HM_TRY(classes_make(trainer, laying, err));
    trainer->slot = hm_bpe_resize(trainer, NULL, 0, bpe_slot_bytes(trainer, slots), err);
    if (!trainer->slot)
        return err->code;
    trainer->n_slots = (uint32_t)slots;
    bpe_slot_set(trainer->slot, 0, 0, trainer->wide);
    return parts_walk(laying, segment_lay, err);
}

int hm_bpe_slots_lay(struct bpe_trainer *trainer, const struct bpe_segments *segments,
                     struct hm_error *err)
{
    size_t part_bytes = segments->n_parts * sizeof(struct part_weights);
    struct laying laying = { .segments = segments };

    laying.part = hm_bpe_zeroed(trainer, part_bytes, err);
    if (!laying.part)
        return err->code;
    ids_choose(trainer);
    for (size_t i = 0; i < segments->n_parts; i++)
        laying.part[i].trainer = trainer;
    int status = lay(trainer, &laying, err);
    for (size_t i = 0; i < segments->n_parts; i++)
        hm_bpe_drop(trainer, laying.part[i].large,
                    laying.part[i].cap_large * sizeof(struct weight_slots));
    hm_bpe_drop(trainer, laying.part, part_bytes);
    return status;
}

/* --- slots ------------------------------------------------------------------------------------ */

size_t hm_bpe_class_find(const struct bpe_trainer *trainer, uint32_t position)
{
    size_t low = 0;
    size_t high = trainer->n_weight_classes;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (trainer->weight_class[middle].end <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void hm_bpe_slots_unload(struct bpe_trainer *trainer)
{
    hm_bpe_drop(trainer, trainer->slot, bpe_slot_bytes(trainer, trainer->n_slots));
    hm_bpe_drop(trainer, trainer->weight_class,
                trainer->cap_weight_classes * sizeof(*trainer->weight_class));
    trainer->slot = NULL;
    trainer->weight_class = NULL;
    trainer->n_slots = 0;
    trainer->n_weight_classes = trainer->cap_weight_classes = 0;
}
