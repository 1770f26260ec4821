/* SPDX-License-Identifier: MIT */
/*
 * Life and sums of the runs of a text; see han_counts.h. Text comes in by han_runs.c.
 */
#include "han_counts.h"

#include "han_spill.h"

#define BLOCK_SHIFT  32u /* of a walking cursor: block above, word below */
#define BLOCKS_FIRST 64u

int hm_han_counts_new(struct hm_han_counts **ret_counts, struct hm_error *err)
{
    struct hm_han_counts *counts = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*counts));

    if (!counts)
        return hm_fail_nomem(err, "for counting Han runs");
    atomic_init(&counts->budget.used_bytes, sizeof(*counts));
    *ret_counts = counts;
    return HM_OK;
}

void hm_han_counts_take_marks(struct hm_han_counts *counts)
{
    counts->takes_marks = true;
}

bool hm_han_counts_takes(const struct hm_han_counts *counts, uint32_t code)
{
    return hm_is_han_class(code) || (counts->takes_marks && hm_is_han_mark(code));
}

void hm_han_counts_free(struct hm_han_counts *counts)
{
    if (!counts)
        return;
    hm_han_blocks_release(counts);
    hm_han_spill_free(counts);
    hm_free(counts);
}

void hm_han_counts_limit(struct hm_han_counts *counts, uint64_t bytes)
{
    counts->budget.limit_bytes = bytes;
}

uint64_t hm_han_counts_bytes(const struct hm_han_counts *counts)
{
    return atomic_load(&counts->budget.used_bytes);
}

int hm_han_blocks_reserve(struct hm_han_counts *counts, size_t more, struct hm_error *err)
{
    size_t need = counts->n_blocks + more;

    if (need <= counts->cap_blocks)
        return HM_OK;
    size_t cap = counts->cap_blocks ? 2 * counts->cap_blocks : BLOCKS_FIRST;
    cap = cap > need ? cap : need;
    uint64_t bytes = (cap - counts->cap_blocks) * sizeof(*counts->block);
    HM_TRY(hm_han_budget_take(&counts->budget, bytes, err));
    struct run_words *grown = hm_realloc(HM_MEM_VOCAB, counts->block, cap * sizeof(*grown));
    if (!grown) {
        hm_han_budget_give(&counts->budget, bytes);
        return hm_fail_nomem(err, "for %zu blocks of Han runs", cap);
    }
    counts->block = grown;
    counts->cap_blocks = cap;
    return HM_OK;
}

void hm_han_blocks_release(struct hm_han_counts *counts)
{
    for (size_t i = 0; i < counts->n_blocks; i++)
        hm_run_words_release(&counts->block[i]);
    hm_han_budget_give(&counts->budget, counts->cap_blocks * sizeof(*counts->block));
    hm_free(counts->block);
    counts->block = NULL;
    counts->n_blocks = counts->cap_blocks = 0;
}

struct run_block hm_han_block(const struct hm_han_counts *counts, size_t index)
{
    return (struct run_block){ .word = counts->block[index].word,
                               .n_words = counts->block[index].n };
}

bool hm_han_counts_next(const struct hm_han_counts *counts, uint64_t *cursor,
                        struct hm_run *ret_run)
{
    size_t index = *cursor >> BLOCK_SHIFT;
    size_t at = *cursor & (((uint64_t)1 << BLOCK_SHIFT) - 1);

    for (; index < counts->n_blocks; index++, at = 0) {
        struct run_block block = hm_han_block(counts, index);
        if (hm_run_block_next(&block, &at, ret_run)) {
            *cursor = (uint64_t)index << BLOCK_SHIFT | at;
            return true;
        }
    }
    return false;
}

struct hm_han_totals hm_han_counts_totals(const struct hm_han_counts *counts)
{
    struct hm_han_totals totals = { .documents = counts->documents,
                                    .bytes = counts->bytes,
                                    .characters = counts->characters,
                                    .han_characters = counts->han_characters,
                                    .runs = counts->runs };

    if (counts->spill && counts->spill->whole)
        totals.distinct_characters = counts->spill->n_characters;
    else
        for (size_t code = 0; code < BPE_CODES; code++)
            totals.distinct_characters += counts->met[code];
    return totals;
}
