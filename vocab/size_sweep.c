/* SPDX-License-Identifier: MIT */
/*
 * Scores of many vocabularies from counted symbols. Sums of logarithms run over symbols in the
 * order of the union's ids, where the pieces of a vocabulary have the order of its own.
 */
#include "hanmix/vocab/size_sweep.h"

#include <math.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "sweep_internal.h"

#define RENYI_ORDER 2.5

/* Rows of a lane up to `cut`, added to count[symbols]. */
static void lane_sum(const struct hm_sweep_lane *lane, size_t symbols, uint32_t cut,
                     uint64_t *count)
{
    for (size_t row = 0; row < 1 + lane->n_cuts; row++) {
        if (row > 0 && lane->cut[row - 1] > cut)
            return;
        for (size_t s = 0; s < symbols; s++)
            count[s] += atomic_load_explicit(&lane->row[row * symbols + s], memory_order_relaxed);
    }
}

/* Characters that are no piece of this vocabulary are their bytes. */
static void bytes_spread(const struct hm_sweep_union *all, uint32_t n_singles, uint64_t *count)
{
    char bytes[4];

    for (size_t s = all->n_base; s < all->symbols; s++) {
        uint32_t code = 0;
        if (count[s] == 0 || (s < all->model.count && all->single[s] <= n_singles))
            continue;
        if (s < all->model.count)
            hm_utf8_decode(all->model.piece[s].text.ptr, all->model.piece[s].text.len, &code);
        else
            code = all->table.extra[s - all->model.count];
        unsigned len = hm_utf8_encode(code, bytes);
        for (unsigned i = 0; i < len; i++)
            count[all->byte_id[(unsigned char)bytes[i]]] += count[s];
        count[s] = 0;
    }
}

static bool piece_exists(const struct hm_sweep_union *all, struct hm_sweep_cut cut, size_t piece)
{
    return all->single[piece] <= cut.n_singles && all->merge[piece] <= cut.cut;
}

static void point_score(const struct hm_sweep_union *all, struct hm_sweep_cut cut,
                        const uint64_t *count, uint64_t lines, struct hm_sweep_point *point)
{
    double log_sum = 0, power_sum = 0; /* of c ln c, of p^order */

    point->vocab_size = all->n_base;
    point->tokens = point->byte_tokens = point->rare = 0;
    for (size_t s = all->n_base; s < all->model.count; s++) {
        bool exists = piece_exists(all, cut, s);
        point->vocab_size += exists;
        point->rare += exists && count[s] < HM_SWEEP_RARE;
    }
    for (size_t s = 0; s < all->model.count; s++) {
        point->tokens += count[s];
        if (all->model.piece[s].type == HM_PIECE_BYTE)
            point->byte_tokens += count[s];
        if (count[s] > 0)
            log_sum += (double)count[s] * log((double)count[s]);
    }
    if (point->tokens == 0 || lines == 0)
        return;
    const double total = (double)point->tokens;
    for (size_t s = 0; s < all->model.count; s++)
        if (count[s] > 0)
            power_sum += pow((double)count[s] / total, RENYI_ORDER);
    point->entropy = log(total) - log_sum / total;
    point->tokens_per_line = total / (double)lines;
    point->alp = -point->tokens_per_line * point->entropy;
    point->renyi = log(power_sum) / (1 - RENYI_ORDER) / log((double)point->vocab_size);
}

static int points_score(const struct hm_sweep_union *all, const struct hm_sweep_counts *counts,
                        const struct hm_sweep_cut *cut, struct hm_sweep_point *points, size_t n,
                        struct hm_error *err)
{
    uint64_t *count = hm_alloc_array(HM_MEM_VOCAB, all->symbols, sizeof(*count));

    if (!count)
        return hm_fail_nomem(err, "for the counts of a sweep");
    for (size_t i = 0; i < n; i++) {
        size_t lane = 1;
        while (counts->lane[lane].n_singles != cut[i].n_singles)
            lane++;
        memset(count, 0, all->symbols * sizeof(*count));
        lane_sum(&counts->lane[0], all->symbols, cut[i].cut, count);
        lane_sum(&counts->lane[lane], all->symbols, cut[i].cut, count);
        bytes_spread(all, cut[i].n_singles, count);
        point_score(all, cut[i], count, counts->text.lines, &points[i]);
    }
    hm_free(count);
    return HM_OK;
}

int hm_size_sweep(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                  struct hm_sweep_point *points, size_t n_points, struct hm_text_source *held_out,
                  const struct hm_ctl *ctl, struct hm_sweep_text *ret_text, struct hm_error *err)
{
    struct hm_sweep_counts counts = { 0 };
    struct hm_sweep_union all = { 0 };

    if (n_points == 0 || n_points > HM_SWEEP_MOST)
        return hm_fail(err, HM_ERR_USAGE, "%zu vocabularies in a sweep: 1 to %u are possible",
                       n_points, HM_SWEEP_MOST);
    struct hm_sweep_cut *cut = hm_calloc(HM_MEM_VOCAB, n_points, sizeof(*cut));
    int r = cut ? HM_OK : hm_fail_nomem(err, "for a sweep");

    if (r == HM_OK)
        r = hm_sweep_union_make(trained, base, points, n_points, cut, &all, err);
    if (r == HM_OK)
        r = hm_sweep_counts_new(&all, cut, n_points, &counts, err);
    if (r == HM_OK)
        r = hm_sweep_counts_read(&counts, &all, held_out, ctl, err);
    if (r == HM_OK)
        r = points_score(&all, &counts, cut, points, n_points, err);
    if (r == HM_OK)
        *ret_text = counts.text;
    hm_sweep_counts_release(&counts);
    hm_sweep_union_release(&all);
    hm_free(cut);
    return r;
}

uint64_t hm_size_sweep_bytes(size_t n_points, uint64_t pieces)
{
    /* rows of lane 0, of the others with their first ones, workers' own; models and tables; needs
     */
    const uint64_t rows = 3 * (uint64_t)n_points + 1 + (uint64_t)hm_threads() + 1;

    return rows * pieces * sizeof(uint64_t) + 1024 * pieces + (16u << 20);
}
