/* SPDX-License-Identifier: MIT */
/*
 * Pairs, runs and segments of a text, counted apart from the trainer's way of doing it; see
 * text_growth.h.
 */
#include "text_growth.h"

#include "hanmix/base/alloc.h"
#include "hanmix/vocab/bpe_train.h"
#include "vocab/bpe_internal.h"

/* Of 45 M Han characters the 25,000th merge counts 121. */
#define FLOOR_SHARE (0.85 * 121 / 45e6)

struct pair_count {
    uint64_t key, count; /* left << 32 | right; 0 = free */
};

struct pairs {
    struct pair_count *entry;
    size_t size, used; /* power of two */
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

static int pairs_count(const struct hm_han_counts *counts, struct pairs *pairs,
                       struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_counts_next(counts, &cursor, &run)) {
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

static int segment_add(struct hm_han_counts *segments, const uint32_t *code, uint32_t n,
                       struct hm_error *err)
{
    char text[4 * 256];
    size_t len = 0;

    if (n < 2)
        return HM_OK;
    for (uint32_t i = 0; i < n; i++)
        len += hm_utf8_encode(code[i], text + len);
    return hm_han_counts_add_run(segments, (struct hm_str){ text, len }, 1, err);
}

/* Segments of at most 256 characters: what is longer is cut, which hardly ever happens. */
static int segments_count(const struct hm_han_counts *counts, const struct pairs *pairs,
                          uint64_t floor, struct hm_han_counts *segments, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;
    uint32_t code[256];

    while (hm_han_counts_next(counts, &cursor, &run)) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < run.n_units;) {
            uint32_t right = hm_run_code(run.unit, &i);
            bool ends =
                n == sizeof(code) / sizeof(code[0]) ||
                (n > 0 &&
                 pairs->entry[pair_at(pairs, (uint64_t)code[n - 1] << 32 | right)].count < floor);
            if (ends) {
                HM_TRY(segment_add(segments, code, n, err));
                n = 0;
            }
            code[n++] = right;
        }
        HM_TRY(segment_add(segments, code, n, err));
    }
    return HM_OK;
}

static void segments_sum(const struct hm_han_counts *segments, struct text_growth *growth)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_counts_next(segments, &cursor, &run)) {
        growth->segments++;
        for (uint32_t i = 0; i < run.n_units; growth->segment_characters++)
            hm_run_code(run.unit, &i);
    }
}

static int growth_fill(const struct hm_han_counts *counts, struct pairs *pairs,
                       struct hm_han_counts *segments, struct text_growth *growth,
                       struct hm_error *err)
{
    struct hm_han_totals totals = hm_han_counts_totals(counts);
    uint64_t floor = 1 + (uint64_t)(FLOOR_SHARE * (double)totals.han_characters);
    uint64_t all = 0, kept = 0;

    *growth = (struct text_growth){ .bytes = totals.bytes,
                                    .han_characters = totals.han_characters,
                                    .distinct_characters = totals.distinct_characters,
                                    .distinct_runs = totals.distinct_runs };
    HM_TRY(pairs_count(counts, pairs, err));
    for (size_t i = 0; i < pairs->size; i++) {
        all += pairs->entry[i].count;
        kept += pairs->entry[i].count >= floor ? pairs->entry[i].count : 0;
        growth->kept_pairs += pairs->entry[i].count >= floor;
    }
    growth->pairs = pairs->used;
    growth->kept_share = all > 0 ? (double)kept / (double)all : 0;
    HM_TRY(segments_count(counts, pairs, floor, segments, err));
    segments_sum(segments, growth);
    return HM_OK;
}

int text_growth_measure(struct hm_text_source *source, uint64_t bytes,
                        struct text_growth *ret_growth, struct hm_error *err)
{
    struct bounded bounded = { .source = source, .left = bytes };
    struct hm_text_source part = { .context = &bounded,
                                   .next = bounded_next,
                                   .position_bytes = bounded_position };
    struct hm_han_counts *counts = NULL, *segments = NULL;
    struct pairs pairs = { 0 };
    int status = hm_han_counts_new(&counts, err);

    if (status == HM_OK)
        status = hm_han_counts_new(&segments, err);
    if (status == HM_OK)
        status = hm_han_counts_read(counts, &part, NULL, err);
    if (status == HM_OK)
        status = pairs_grow(&pairs, err);
    if (status == HM_OK)
        status = growth_fill(counts, &pairs, segments, ret_growth, err);
    hm_free(pairs.entry);
    hm_han_counts_free(segments);
    hm_han_counts_free(counts);
    return status;
}
