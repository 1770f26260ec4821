/* SPDX-License-Identifier: MIT */
/*
 * report.json of vocab.measure. The measures are defined in docs/FORMATS.md.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "measure_tables.h"

static double ratio(uint64_t a, uint64_t b)
{
    return b ? (double)a / (double)b : NAN;
}

static int context_report(json_t *item, const struct measured *m,
                          const struct hm_set_efficiency *cell, struct hm_error *err)
{
    json_t *list = hm_report_array(item, "context", err);

    if (!list)
        return HM_ERR_NOMEM;
    for (size_t i = 0; i < m->n_context; i++) {
        json_t *length = hm_report_item(list, err);
        double per_token = (double)m->context[i];
        if (!length)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_u64(length, "tokens", m->context[i], err));
        HM_TRY(
            hm_report_f64(length, "chars", per_token * ratio(cell->chars, cell->sums.tokens), err));
        HM_TRY(hm_report_f64(length, "han_chars",
                             per_token * ratio(cell->han_chars, cell->sums.tokens), err));
    }
    return HM_OK;
}

static int sizes_report(json_t *item, const struct hm_set_efficiency *cell, struct hm_error *err)
{
    HM_TRY(hm_report_text(item, "name", cell->name, err));
    HM_TRY(hm_report_u64(item, "documents", cell->documents, err));
    HM_TRY(hm_report_u64(item, "bytes", cell->bytes, err));
    HM_TRY(hm_report_u64(item, "chars", cell->chars, err));
    return hm_report_u64(item, "han_chars", cell->han_chars, err);
}

static int cell_report(json_t *item, const struct measured *m, size_t t,
                       const struct hm_set_efficiency *cell, uint64_t first_tokens,
                       struct hm_error *err)
{
    const struct hm_token_sums *sums = &cell->sums;
    const struct hm_piece_usage *usage = &m->result.usage[t];
    uint64_t vocab = m->tokenizer[t]->count;

    HM_TRY(sizes_report(item, cell, err));
    HM_TRY(hm_report_u64(item, "tokens", sums->tokens, err));
    HM_TRY(hm_report_f64(item, "tokens_per_char", ratio(sums->tokens, cell->chars), err));
    HM_TRY(hm_report_f64(item, "bytes_per_token", ratio(cell->bytes, sums->tokens), err));
    HM_TRY(hm_report_u64(item, "byte_fallback_tokens", sums->byte_fallback_tokens, err));
    HM_TRY(hm_report_f64(item, "byte_fallback_rate",
                         ratio(sums->byte_fallback_tokens, sums->tokens), err));
    HM_TRY(hm_report_u64(item, "unk_tokens", sums->unk_tokens, err));
    HM_TRY(hm_report_f64(item, "unk_rate", ratio(sums->unk_tokens, sums->tokens), err));
    HM_TRY(hm_report_f64(item, "coverage", ratio(sums->own_chars, cell->chars), err));
    HM_TRY(hm_report_f64(item, "han_coverage", ratio(sums->own_han_chars, cell->han_chars), err));
    HM_TRY(hm_report_u64(item, "pieces_used", cell->pieces_used, err));
    HM_TRY(hm_report_f64(item, "utilisation", ratio(cell->pieces_used, vocab), err));
    if (usage->extends && usage->first_new < vocab) {
        HM_TRY(hm_report_u64(item, "new_pieces_used", cell->new_pieces_used, err));
        HM_TRY(hm_report_f64(item, "new_utilisation",
                             ratio(cell->new_pieces_used, vocab - usage->first_new), err));
    }
    if (usage->extends) {
        HM_TRY(hm_report_u64(item, "lines_without_han", cell->plain_lines, err));
        HM_TRY(hm_report_u64(item, "changed_lines", sums->changed_lines, err));
    }
    HM_TRY(hm_report_f64(item, "reduction_vs_first", t ? cell->reduction : 0, err));
    HM_TRY(hm_report_f64(item, "low", t ? cell->reduction_low : 0, err));
    HM_TRY(hm_report_f64(item, "high", t ? cell->reduction_high : 0, err));
    HM_TRY(hm_report_f64(item, "cost_vs_first", ratio(sums->tokens, first_tokens), err));
    return context_report(item, m, cell, err);
}

static int parity_report(json_t *item, const struct measured *m, size_t t, struct hm_error *err)
{
    size_t n = m->result.n_parity;
    json_t *list = n ? hm_report_array(item, "parity", err) : NULL;

    if (n && !list)
        return HM_ERR_NOMEM;
    for (size_t p = 0; p < n; p++) {
        const struct hm_set_parity *parity = &m->result.parity[t * n + p];
        json_t *pair = hm_report_item(list, err);
        if (!pair)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_text(pair, "set", m->parity[p].a, err));
        HM_TRY(hm_report_text(pair, "to", m->parity[p].b, err));
        HM_TRY(hm_report_f64(pair, "tokens_ratio", parity->ratio, err));
        HM_TRY(hm_report_f64(pair, "low", parity->low, err));
        HM_TRY(hm_report_f64(pair, "high", parity->high, err));
    }
    return HM_OK;
}

static int usage_report(json_t *item, const struct measured *m, size_t t, struct hm_error *err)
{
    const struct hm_piece_usage *usage = &m->result.usage[t];
    json_t *object = hm_report_object(item, "piece_counts", err);

    if (!object)
        return HM_ERR_NOMEM;
    bool has_new = usage->first_new < m->tokenizer[t]->count;
    HM_TRY(hm_report_text(object, "of", has_new ? "new pieces" : "all pieces", err));
    HM_TRY(hm_report_u64(object, "pieces", usage->pieces, err));
    HM_TRY(hm_report_u64(object, "p01", usage->count_p01, err));
    HM_TRY(hm_report_u64(object, "p10", usage->count_p10, err));
    return hm_report_u64(object, "p50", usage->count_p50, err);
}

static int tokenizer_report(json_t *list, const struct measured *m, size_t t, struct hm_error *err)
{
    const struct hm_efficiency *result = &m->result;
    json_t *item = hm_report_item(list, err);

    if (!item)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_text(item, "path", m->path[t], err));
    HM_TRY(hm_report_text(item, "name", m->label[t], err));
    HM_TRY(hm_report_text(item, "kind", m->tokenizer[t]->kind, err));
    HM_TRY(hm_report_u64(item, "vocab_size", m->tokenizer[t]->count, err));
    HM_TRY(hm_report_bool(item, "extends_first", result->usage[t].extends, err));
    if (t > 0 && result->usage[t].extends)
        HM_TRY(hm_report_u64(item, "new_pieces",
                             m->tokenizer[t]->count - result->usage[t].first_new, err));
    HM_TRY(usage_report(item, m, t, err));
    json_t *sets = hm_report_array(item, "sets", err);
    if (!sets)
        return HM_ERR_NOMEM;
    for (size_t s = 0; s < result->n_sets; s++) {
        json_t *set = hm_report_item(sets, err);
        if (!set)
            return HM_ERR_NOMEM;
        HM_TRY(cell_report(set, m, t, &result->cell[t * result->n_sets + s],
                           result->cell[s].sums.tokens, err));
    }
    json_t *total = hm_report_object(item, "total", err);
    if (!total)
        return HM_ERR_NOMEM;
    HM_TRY(cell_report(total, m, t, &result->total[t], result->total[0].sums.tokens, err));
    return parity_report(item, m, t, err);
}

int hm_measured_report(const struct hm_stage_run *run, const struct measured *m,
                       struct hm_error *err)
{
    json_t *list = hm_report_array(run->report, "tokenizers", err);

    if (!list)
        return HM_ERR_NOMEM;
    for (size_t t = 0; t < m->n_tokenizers; t++)
        HM_TRY(tokenizer_report(list, m, t, err));
    return HM_OK;
}
