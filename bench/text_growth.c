/* SPDX-License-Identifier: MIT */
/*
 * Pairs, runs and segments of a text, counted apart from the trainer's way of doing it; see
 * text_growth.h.
 */
#include "text_growth.h"

#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/vocab/bpe_train.h"
#include "vocab/han_store.h"

#define FLUSH_UNITS (1u << 20)

/* Of 45 M Han characters the 25,000th merge counts 121. */
#define FLOOR_SHARE (0.85 * 121 / 45e6)

struct pair_count {
    uint64_t key, count; /* left << 32 | right; 0 = free */
};

struct pairs {
    struct pair_count *entry;
    size_t size, used; /* power of two */
};

struct summing { /* runs on their way into sums */
    struct hm_han_sums *sums;
    struct hm_han_list list;
};

struct bounded { /* the beginning of a source */
    struct hm_text_source *source;
    uint64_t left;
};

static int bounded_next(void *context, struct hm_doc *ret_doc, struct hm_error *err)
{
    struct bounded *bounded = context;

    if (bounded->left == 0)
        return 0;
    int more = bounded->source->next(bounded->source->context, ret_doc, err);
    if (more > 0)
        bounded->left -= ret_doc->text.len < bounded->left ? ret_doc->text.len : bounded->left;
    return more;
}

static uint64_t bounded_position(void *context)
{
    (void)context;
    return 0;
}

static size_t pair_at(const struct pairs *pairs, uint64_t key)
{
    size_t at = bpe_pair_hash(key) & (pairs->size - 1);

    while (pairs->entry[at].key && pairs->entry[at].key != key)
        at = (at + 1) & (pairs->size - 1);
    return at;
}

static int pairs_grow(struct pairs *pairs, struct hm_error *err)
{
    struct pairs grown = { .size = pairs->size ? 2 * pairs->size : 1u << 16, .used = pairs->used };

    grown.entry = hm_calloc(HM_MEM_OTHER, grown.size, sizeof(*grown.entry));
    if (!grown.entry)
        return hm_fail_nomem(err, "for pairs of characters");
    for (size_t i = 0; i < pairs->size; i++)
        if (pairs->entry[i].key)
            grown.entry[pair_at(&grown, pairs->entry[i].key)] = pairs->entry[i];
    hm_free(pairs->entry);
    *pairs = grown;
    return HM_OK;
}

static int pairs_count(const struct hm_han_sums *runs, struct pairs *pairs, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_sums_next(runs, &cursor, &run)) {
        uint64_t left = 0;
        for (uint32_t i = 0; i < run.n_units;) {
            uint64_t right = hm_run_code(run.unit, &i);
            if (left) {
                if (2 * pairs->used >= pairs->size)
                    HM_TRY(pairs_grow(pairs, err));
                struct pair_count *entry = &pairs->entry[pair_at(pairs, left << 32 | right)];
                pairs->used += entry->key == 0;
                entry->key = left << 32 | right;
                entry->count += run.count;
            }
            left = right;
        }
    }
    return HM_OK;
}

static int sums_flush(struct summing *summing, struct hm_error *err)
{
    HM_TRY(hm_han_list_sort(&summing->list, err));
    HM_TRY(hm_han_sums_pour(summing->sums, &summing->list, 1, err));
    hm_han_list_clear(&summing->list);
    return HM_OK;
}

static int sums_add(struct summing *summing, const uint16_t *unit, uint32_t n_units, uint64_t count,
                    struct hm_error *err)
{
    struct hm_han_list *list = &summing->list;
    size_t first = list->n_units;

    HM_TRY(hm_han_list_reserve(list, n_units, err));
    memcpy(list->unit + first, unit, n_units * sizeof(*unit));
    list->n_units += n_units;
    HM_TRY(hm_han_list_end_run(list, first, count, err));
    return list->n_units < FLUSH_UNITS ? HM_OK : sums_flush(summing, err);
}

static int sums_begin(struct summing *summing, struct hm_error *err)
{
    HM_TRY(hm_han_sums_new(&summing->sums, err));
    summing->list.budget = &summing->sums->budget;
    return HM_OK;
}

static void sums_end(struct summing *summing)
{
    if (summing->sums)
        hm_han_list_release(&summing->list);
    hm_han_sums_free(summing->sums);
}

static int runs_count(const struct hm_han_counts *counts, struct summing *runs,
                      struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_counts_next(counts, &cursor, &run))
        HM_TRY(sums_add(runs, run.unit, run.n_units, run.count, err));
    return sums_flush(runs, err);
}

static int segments_count(const struct hm_han_sums *runs, const struct pairs *pairs, uint64_t floor,
                          struct summing *segments, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_sums_next(runs, &cursor, &run)) {
        uint32_t start = 0, length = 0;
        uint64_t left = 0;
        for (uint32_t i = 0; i < run.n_units; length++) {
            uint32_t at = i;
            uint64_t right = hm_run_code(run.unit, &i);
            if (left && pairs->entry[pair_at(pairs, left << 32 | right)].count < floor) {
                if (length > 1)
                    HM_TRY(sums_add(segments, run.unit + start, at - start, run.count, err));
                start = at;
                length = 0;
            }
            left = right;
        }
        if (length > 1)
            HM_TRY(sums_add(segments, run.unit + start, run.n_units - start, run.count, err));
    }
    return sums_flush(segments, err);
}

static void segments_sum(const struct hm_han_sums *segments, struct text_growth *growth)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_sums_next(segments, &cursor, &run)) {
        growth->segments++;
        for (uint32_t i = 0; i < run.n_units; growth->segment_characters++)
            hm_run_code(run.unit, &i);
    }
}

static int growth_fill(const struct hm_han_counts *counts, struct pairs *pairs,
                       struct summing *runs, struct summing *segments, struct text_growth *growth,
                       struct hm_error *err)
{
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    uint64_t floor = 1 + (uint64_t)(FLOOR_SHARE * (double)totals.han_characters);
    uint64_t all = 0, kept = 0;

    *growth = (struct text_growth){ .bytes = totals.bytes,
                                    .han_characters = totals.han_characters,
                                    .distinct_characters = totals.distinct_characters };
    HM_TRY(runs_count(counts, runs, err));
    for (size_t p = 0; p < HM_HAN_PARTS; p++)
        growth->distinct_runs += runs->sums->part[p].distinct_runs;
    HM_TRY(pairs_count(runs->sums, pairs, err));
    for (size_t i = 0; i < pairs->size; i++) {
        all += pairs->entry[i].count;
        kept += pairs->entry[i].count >= floor ? pairs->entry[i].count : 0;
        growth->kept_pairs += pairs->entry[i].count >= floor;
    }
    growth->pairs = pairs->used;
    growth->kept_share = all > 0 ? (double)kept / (double)all : 0;
    HM_TRY(segments_count(runs->sums, pairs, floor, segments, err));
    segments_sum(segments->sums, growth);
    return HM_OK;
}

int text_growth_measure(struct hm_text_source *source, uint64_t bytes,
                        struct text_growth *ret_growth, struct hm_error *err)
{
    struct bounded bounded = { .source = source, .left = bytes };
    struct hm_text_source part = { .context = &bounded,
                                   .next = bounded_next,
                                   .position_bytes = bounded_position };
    struct summing runs = { 0 }, segments = { 0 };
    struct hm_han_counts *counts = NULL;
    struct pairs pairs = { 0 };
    int status = hm_han_counts_new(&counts, err);

    if (status == HM_OK)
        status = sums_begin(&runs, err);
    if (status == HM_OK)
        status = sums_begin(&segments, err);
    if (status == HM_OK)
        status = hm_han_counts_read(counts, &part, NULL, err);
    if (status == HM_OK)
        status = pairs_grow(&pairs, err);
    if (status == HM_OK)
        status = growth_fill(counts, &pairs, &runs, &segments, ret_growth, err);
    hm_free(pairs.entry);
    sums_end(&segments);
    sums_end(&runs);
    hm_han_counts_free(counts);
    return status;
}
