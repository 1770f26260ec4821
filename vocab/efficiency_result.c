/* SPDX-License-Identifier: MIT */
/*
 * From sums to results: totals over sets, intervals, the use of pieces, parity. Sums are integers,
 * so the result does not depend on threads or on the order of documents.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "efficiency_internal.h"

static double one_minus(uint64_t tokens, uint64_t first)
{
    return first ? 1.0 - (double)tokens / (double)first : 0.0;
}

static void used_count(const struct measured_text *text, size_t which, const uint64_t *seen,
                       struct hm_set_efficiency *cell)
{
    const struct hm_any_tokenizer *tokenizer = text->tokenizers[which];
    size_t first_new = text->extends[which] ? text->tokenizers[0]->count : tokenizer->count;

    for (size_t i = 0; i < tokenizer->count; i++) {
        bool used = seen[i / 64] >> i % 64 & 1;
        cell->pieces_used += used;
        cell->new_pieces_used += used && i >= first_new;
    }
}

static int cell_fill(const struct measured_text *text, const struct set_sums *set, size_t which,
                     struct hm_set_efficiency *cell, struct hm_error *err)
{
    double low = 1, high = 1; /* ratios to the first */

    *cell = (struct hm_set_efficiency){ .documents = set->documents,
                                        .bytes = set->bytes,
                                        .chars = set->chars,
                                        .han_chars = set->han_chars,
                                        .plain_lines = set->plain_lines,
                                        .sums = set->sums[which] };
    cell->name = hm_strdup(HM_MEM_OTHER, set->name ? set->name : "");
    if (!cell->name)
        return hm_fail_nomem(err, "for the name of a set");
    if (cell->sums.own_chars > cell->chars) /* a normaliser makes more of them */
        cell->sums.own_chars = cell->chars;
    if (cell->sums.own_han_chars > cell->han_chars)
        cell->sums.own_han_chars = cell->han_chars;
    used_count(text, which, set->seen[which], cell);
    cell->reduction = one_minus(cell->sums.tokens, set->sums[0].tokens);
    low = high = 1 - cell->reduction;
    if (which > 0)
        hm_resample_ratio(set->resample + which * HM_RESAMPLES, set->resample,
                          text->options->confidence, &low, &high);
    cell->reduction_low = 1 - high;
    cell->reduction_high = 1 - low;
    return HM_OK;
}

void hm_token_sums_add(struct hm_token_sums *to, const struct hm_token_sums *from)
{
    to->tokens += from->tokens;
    to->byte_fallback_tokens += from->byte_fallback_tokens;
    to->unk_tokens += from->unk_tokens;
    to->own_chars += from->own_chars;
    to->own_han_chars += from->own_han_chars;
    to->changed_lines += from->changed_lines;
}

static void set_add(const struct measured_text *text, struct set_sums *to,
                    const struct set_sums *from)
{
    to->documents += from->documents;
    to->bytes += from->bytes;
    to->chars += from->chars;
    to->han_chars += from->han_chars;
    to->plain_lines += from->plain_lines;
    for (size_t t = 0; t < text->n_tokenizers; t++) {
        hm_token_sums_add(&to->sums[t], &from->sums[t]);
        for (size_t i = 0; i < HM_RESAMPLES; i++)
            to->resample[t * HM_RESAMPLES + i] += from->resample[t * HM_RESAMPLES + i];
        for (size_t i = 0; i < seen_words(text->tokenizers[t]); i++)
            to->seen[t][i] |= from->seen[t][i];
    }
}

static int name_order(const void *a, const void *b)
{
    const struct set_sums *const *x = a, *const *y = b;

    return strcmp((*x)->name ? (*x)->name : "", (*y)->name ? (*y)->name : "");
}

/* The sets in the order of the result; those that no document belongs to have no name. */
static int cells_fill(const struct measured_text *text, struct hm_efficiency *result,
                      struct hm_error *err)
{
    const struct set_sums **order =
        hm_alloc_array(HM_MEM_OTHER, text->n_sets, sizeof(struct set_sums *));
    int status = HM_OK;

    if (!order)
        return hm_fail_nomem(err, "for %zu results", text->n_sets);
    for (size_t s = 0; s < text->n_sets; s++)
        order[s] = &text->set[s];
    if (text->options->sorted)
        qsort((void *)order, text->n_sets, sizeof(*order), name_order);
    for (size_t i = 0; status == HM_OK && i < text->n_tokenizers * text->n_sets; i++)
        status = cell_fill(text, order[i % text->n_sets], i / text->n_sets, &result->cell[i], err);
    hm_free((void *)order);
    return status;
}

static int totals_fill(const struct measured_text *text, struct hm_efficiency *result,
                       struct hm_error *err)
{
    struct set_sums *all = &text->set[text->n_sets]; /* a place kept for it */
    int status = HM_OK;

    all->name = hm_strdup(HM_MEM_OTHER, "total");
    if (!all->name)
        return hm_fail_nomem(err, "for a total");
    for (size_t s = 0; s < text->n_sets; s++)
        set_add(text, all, &text->set[s]);
    for (size_t t = 0; status == HM_OK && t < text->n_tokenizers; t++)
        status = cell_fill(text, all, t, &result->total[t], err);
    return status;
}

static int count_order(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static int usage_fill(const struct measured_text *text, size_t which, struct hm_piece_usage *usage,
                      struct hm_error *err)
{
    const struct hm_any_tokenizer *tokenizer = text->tokenizers[which];
    uint64_t *count = hm_alloc_array(HM_MEM_OTHER, tokenizer->count, sizeof(*count));
    size_t n = 0;

    if (!count)
        return hm_fail_nomem(err, "for the use of %zu pieces", tokenizer->count);
    usage->extends = text->extends[which];
    usage->first_new = usage->extends ? text->tokenizers[0]->count : tokenizer->count;
    size_t from = usage->first_new < tokenizer->count ? usage->first_new : 0;
    for (size_t i = from; i < tokenizer->count; i++)
        if (tokenizer->facts[i].traits & HM_TOKEN_PIECE)
            count[n++] = text->count[which][i];
    if (n > 0) {
        qsort(count, n, sizeof(*count), count_order);
        usage->count_p01 = count[(n - 1) / 100];
        usage->count_p10 = count[(n - 1) / 10];
        usage->count_p50 = count[(n - 1) / 2];
    }
    usage->pieces = n;
    hm_free(count);
    return HM_OK;
}

static int set_by_name(const struct measured_text *text, const char *name,
                       const struct set_sums **ret_set, struct hm_error *err)
{
    for (size_t s = 0; s < text->n_sets; s++)
        if (text->set[s].name && strcmp(text->set[s].name, name) == 0) {
            *ret_set = &text->set[s];
            return HM_OK;
        }
    return hm_fail(err, HM_ERR_USAGE, "set.parity names '%s', but no document is of a set '%s'",
                   name, name);
}

static int parity_fill(const struct measured_text *text, size_t p, struct hm_efficiency *result,
                       struct hm_error *err)
{
    const struct hm_parity_pair *pair = &text->options->parity[p];
    const struct set_sums *a = NULL, *b = NULL;

    HM_TRY(set_by_name(text, pair->a, &a, err));
    HM_TRY(set_by_name(text, pair->b, &b, err));
    if (a->documents != b->documents)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.parity=%s/%s: parallel sets have a document for every document, found "
                       "%" PRIu64 " and %" PRIu64,
                       pair->a, pair->b, a->documents, b->documents);
    for (size_t t = 0; t < text->n_tokenizers; t++) {
        struct hm_set_parity *parity = &result->parity[t * result->n_parity + p];
        parity->ratio =
            b->sums[t].tokens ? (double)a->sums[t].tokens / (double)b->sums[t].tokens : 0.0;
        parity->low = parity->high = parity->ratio;
        hm_resample_ratio(a->resample + t * HM_RESAMPLES, b->resample + t * HM_RESAMPLES,
                          text->options->confidence, &parity->low, &parity->high);
    }
    return HM_OK;
}

int hm_efficiency_result(const struct measured_text *text, struct hm_efficiency *result,
                         struct hm_error *err)
{
    size_t n = text->n_tokenizers;

    result->n_tokenizers = n;
    result->n_sets = text->n_sets;
    result->n_parity = text->options->n_parity;
    result->cell = hm_calloc(HM_MEM_OTHER, n * text->n_sets, sizeof(*result->cell));
    result->total = hm_calloc(HM_MEM_OTHER, n, sizeof(*result->total));
    result->usage = hm_calloc(HM_MEM_OTHER, n, sizeof(*result->usage));
    result->parity = hm_calloc(HM_MEM_OTHER, n * result->n_parity, sizeof(*result->parity));
    if (!result->cell || !result->total || !result->usage || !result->parity)
        return hm_fail_nomem(err, "for %zu results", n * text->n_sets);
    HM_TRY(cells_fill(text, result, err));
    for (size_t p = 0; p < result->n_parity; p++)
        HM_TRY(parity_fill(text, p, result, err));
    for (size_t t = 0; t < n; t++)
        HM_TRY(usage_fill(text, t, &result->usage[t], err));
    return totals_fill(text, result, err);
}

void hm_efficiency_release(struct hm_efficiency *result)
{
    if (!result)
        return;
    for (size_t i = 0; result->cell && i < result->n_tokenizers * result->n_sets; i++)
        hm_free(result->cell[i].name);
    for (size_t i = 0; result->total && i < result->n_tokenizers; i++)
        hm_free(result->total[i].name);
    hm_free(result->cell);
    hm_free(result->total);
    hm_free(result->usage);
    hm_free(result->parity);
    *result = (struct hm_efficiency){ 0 };
}
