/* SPDX-License-Identifier: MIT */
/*
 * The table of units; see weight_units.h. Files are cut into blocks of equal size, counted by the
 * resident units that touch them, because units do not end at pages.
 */
#include "weight_units.h"

#include <stdlib.h>

#include "hanmix/base/file.h"

#define BLOCK_MAX   ((uint64_t)2 << 20) /* a large page */
#define BLOCK_MIN   ((uint64_t)4096)
#define BLOCKS      128u /* the budget is at least so many blocks, or they are smallest */
#define AHEAD_BYTES ((uint64_t)8 << 20) /* what the kernel may have read beyond a range */

struct hm_unit_range {
    uint32_t file;
    uint64_t first, end; /* blocks */
};

/* --- the order of the passes ------------------------------------------------------------------ */

int64_t hm_weight_units_layer_places(const struct hm_weight_units *u)
{
    return (int64_t)u->experts + 1;
}

/* The head has a place after the layers of a forward pass. */
int64_t hm_weight_units_pass_places(const struct hm_weight_units *u, enum hm_pass pass)
{
    return u->layers * hm_weight_units_layer_places(u) + (pass == HM_PASS_FORWARD);
}

int64_t hm_weight_units_place(const struct hm_weight_units *u, size_t unit, enum hm_pass pass)
{
    const int64_t each = hm_weight_units_layer_places(u);
    const int64_t layer = (int64_t)unit / each, within = (int64_t)unit % each;

    if (pass == HM_PASS_FORWARD)
        return (int64_t)unit; /* they are numbered so */
    return layer == u->layers ? -1 : (u->layers - 1 - layer) * each + within;
}

/* --- blocks ----------------------------------------------------------------------------------- */

uint64_t hm_weight_units_missing(const struct hm_weight_units *u, size_t index)
{
    const struct hm_weight_unit *unit = &u->unit[index];
    uint64_t blocks = 0;

    for (size_t i = 0; i < unit->n_ranges; i++)
        for (uint64_t b = unit->range[i].first; b < unit->range[i].end; b++)
            blocks += u->users[unit->range[i].file][b] == 0;
    return blocks * u->block;
}

void hm_weight_units_count(struct hm_weight_units *u, size_t index)
{
    const struct hm_weight_unit *unit = &u->unit[index];

    u->resident += hm_weight_units_missing(u, index);
    for (size_t i = 0; i < unit->n_ranges; i++)
        for (uint64_t b = unit->range[i].first; b < unit->range[i].end; b++)
            u->users[unit->range[i].file][b]++;
}

/* Gives back blocks first .. end-1 and what was read beyond them and nobody uses. */
static void blocks_forget(const struct hm_weight_units *u, uint32_t file, uint64_t first,
                          uint64_t end)
{
    const struct hm_map *map = &u->ckpt->file[file].map;
    const uint64_t ahead = AHEAD_BYTES / u->block, blocks = map->size_bytes / u->block + 1;
    uint64_t from = first, to = end;

    while (from > 0 && first - from < ahead && u->users[file][from - 1] == 0)
        from--;
    while (to < blocks && to - end < ahead && u->users[file][to] == 0)
        to++;
    hm_map_forget(map, from * u->block, (to - from) * u->block);
}

void hm_weight_units_drop(struct hm_weight_units *u, size_t index)
{
    struct hm_weight_unit *unit = &u->unit[index];

    for (size_t i = 0; i < unit->n_ranges; i++) {
        const struct hm_unit_range *range = &unit->range[i];
        uint32_t *users = u->users[range->file];
        for (uint64_t b = range->first; b < range->end; b++)
            u->resident -= --users[b] == 0 ? u->block : 0;
        for (uint64_t b = range->first; b < range->end;) {
            uint64_t first = b;
            while (b < range->end && users[b] == 0)
                b++;
            if (b > first)
                blocks_forget(u, range->file, first, b);
            while (b < range->end && users[b] > 0)
                b++;
        }
    }
    unit->state = HM_UNIT_ABSENT;
}

int hm_weight_units_read(const struct hm_weight_units *u, size_t index, uint64_t *ret_bytes,
                         struct hm_error *err)
{
    const struct hm_weight_unit *unit = &u->unit[index];
    int status = HM_OK;

    *ret_bytes = 0;
    for (size_t i = 0; i < unit->n_ranges; i++) {
        const struct hm_unit_range *range = &unit->range[i];
        const struct hm_map *map = &u->ckpt->file[range->file].map;
        uint64_t at = range->first * u->block, size = (range->end - range->first) * u->block;
        struct hm_error own = { 0 };
        int r = hm_map_fetch(map, u->ckpt->file[range->file].path, at, size, &own);
        *ret_bytes += size;
        if (r == HM_OK)
            continue;
        if (status == HM_OK) {
            status = r;
            *err = own;
        }
        hm_map_blank(map, at, size, NULL);
    }
    return status;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int compare_range(const void *a, const void *b)
{
    const struct hm_unit_range *x = a, *y = b;

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The ranges of one unit, sorted, what touches joined; returns how many. */
static size_t ranges_make(const struct hm_weight_units *u, const struct hm_weight *const *weight,
                          size_t n_weights, struct hm_unit_range *range)
{
    struct hm_weight_place place[HM_WEIGHT_PLACES];
    size_t n = 0, kept = 0;

    for (size_t w = 0; w < n_weights; w++) {
        size_t places = hm_weight_places(weight[w], place);
        for (size_t i = 0; i < places; i++)
            if (place[i].bytes > 0)
                range[n++] =
                    (struct hm_unit_range){ place[i].file, place[i].offset / u->block,
                                            (place[i].offset + place[i].bytes - 1) / u->block + 1 };
    }
    qsort(range, n, sizeof *range, compare_range);
    for (size_t i = 0; i < n; i++) {
        struct hm_unit_range *last = kept > 0 ? &range[kept - 1] : NULL;
        if (last && last->file == range[i].file && range[i].first <= last->end)
            last->end = range[i].end > last->end ? range[i].end : last->end;
        else
            range[kept++] = range[i];
    }
    return kept;
}

static int tables_make(struct hm_weight_units *u, const struct hm_stream_plan *plan,
                       struct hm_error *err)
{
    const size_t n_files = u->ckpt->n_files, n_weights = plan->first[u->n_units];
    size_t at = 0;

    u->unit = hm_calloc(HM_MEM_WEIGHT, u->n_units, sizeof *u->unit);
    u->range = hm_alloc_array(HM_MEM_WEIGHT, n_weights * HM_WEIGHT_PLACES, sizeof *u->range);
    u->users = hm_calloc(HM_MEM_WEIGHT, n_files, sizeof *u->users);
    if (!u->unit || !u->range || !u->users)
        return hm_fail_nomem(err, "for the order of reading %zu weights", n_weights);
    for (size_t f = 0; f < n_files; f++) {
        const struct hm_map *map = &u->ckpt->file[f].map;
        u->users[f] = hm_calloc(HM_MEM_WEIGHT, map->size_bytes / u->block + 2, sizeof(uint32_t));
        if (!u->users[f])
            return hm_fail_nomem(err, "for the order of reading %zu weights", n_weights);
    }
    for (size_t i = 0; i < u->n_units; i++) {
        struct hm_weight_unit *unit = &u->unit[i];
        unit->range = u->range + at;
        unit->n_ranges = ranges_make(u, plan->weight + plan->first[i],
                                     plan->first[i + 1] - plan->first[i], unit->range);
        at += unit->n_ranges;
    }
    return HM_OK;
}

/* The whole mapping empty, and advice: long stretches in large pages, the embedding by rows. */
static void maps_prepare(const struct hm_weight_units *u)
{
    enum hm_map_access access = u->block == BLOCK_MAX ? HM_MAP_LARGE : HM_MAP_SMALL;

    for (size_t f = 0; f < u->ckpt->n_files; f++) {
        const struct hm_map *map = &u->ckpt->file[f].map;
        hm_map_forget(map, 0, map->size_bytes);
        hm_map_advise(map, 0, map->size_bytes, access);
    }
    for (size_t i = 0; i < u->n_embed; i++)
        hm_map_advise(&u->ckpt->file[u->embed[i].file].map, u->embed[i].offset, u->embed[i].bytes,
                      HM_MAP_ROWS);
}

void hm_weight_units_embed_forget(const struct hm_weight_units *u)
{
    for (size_t i = 0; i < u->n_embed; i++)
        hm_map_forget(&u->ckpt->file[u->embed[i].file].map, u->embed[i].offset, u->embed[i].bytes);
}

/* All of a layer, or the head: a round of experts may hold every expert. */
static uint64_t least_bytes(const struct hm_weight_units *u)
{
    const size_t each = (size_t)hm_weight_units_layer_places(u);
    uint64_t least = 0;

    for (size_t first = 0; first < u->n_units; first += each) {
        uint64_t bytes = 0;
        for (size_t i = first; i < first + each && i < u->n_units; i++)
            bytes += hm_weight_units_missing(u, i);
        least = bytes > least ? bytes : least;
    }
    return least;
}

int hm_weight_units_open(const struct hm_checkpoint *ckpt, const struct hm_stream_plan *plan,
                         uint64_t budget_bytes, struct hm_weight_units *u, struct hm_error *err)
{
    *u = (struct hm_weight_units){ .ckpt = ckpt,
                                   .layers = plan->layers,
                                   .experts = plan->experts,
                                   .n_units = HM_STREAM_UNITS(plan->layers, plan->experts),
                                   .block = BLOCK_MAX };
    while (u->block > BLOCK_MIN && u->block * BLOCKS > budget_bytes)
        u->block /= 2;
    u->n_embed = plan->embed ? hm_weight_places(plan->embed, u->embed) : 0;
    HM_TRY(tables_make(u, plan, err));
    uint64_t least = least_bytes(u);
    if (least > budget_bytes)
        return hm_fail(err, HM_ERR_NOFIT,
                       "'%s': %.1f MiB are left for weights, one layer and its experts take "
                       "%.1f MiB",
                       ckpt->dir, (double)budget_bytes / 1048576, (double)least / 1048576);
    maps_prepare(u);
    return HM_OK;
}

void hm_weight_units_release(struct hm_weight_units *u)
{
    for (size_t f = 0; u->users && f < u->ckpt->n_files; f++)
        hm_free(u->users[f]);
    hm_free(u->users);
    hm_free(u->range);
    hm_free(u->unit);
    *u = (struct hm_weight_units){ 0 };
}
