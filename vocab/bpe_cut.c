/* SPDX-License-Identifier: MIT */
/*
 * Runs cut where a pair of characters is too rare for any piece, and the stretches of two
 * characters and more counted anew. Why that is exact: bpe_corpus.c. Chunks of runs are cut in
 * parallel into lists, which are poured together.
 */
#include "bpe_internal.h"
#include "han_store.h"
#include "hanmix/base/parallel.h"

#define LISTS       32u /* chunks cut at once */
#define FILTER_BITS 22u

struct cutting {
    const struct bpe_trainer *trainer;
    const struct hm_han_counts *counts;
    struct {
        size_t part, chunk;
    } unit[LISTS];
    struct hm_han_list list[LISTS];
    struct hm_error err[LISTS];
    uint64_t kept[(1u << FILTER_BITS) / 64]; /* hashes of the pairs that exist */
};

static size_t filter_bit(uint64_t left, uint64_t right)
{
    return bpe_pair_hash(left << 32 | right) >> 8 & ((1u << FILTER_BITS) - 1);
}

static bool is_kept(const struct cutting *cutting, uint64_t left, uint64_t right)
{
    size_t bit = filter_bit(left, right);

    return cutting->kept[bit / 64] >> bit % 64 & 1;
}

static int stretch_add(struct hm_han_list *list, const struct hm_run *run, uint32_t from,
                       uint32_t to, struct hm_error *err)
{
    size_t first = list->n_units;

    HM_TRY(hm_han_list_reserve(list, to - from, err));
    for (uint32_t i = from; i < to; i++)
        list->unit[list->n_units++] = run->unit[i];
    return hm_han_list_end_run(list, first, run->count, err);
}

static int run_cut(const struct cutting *cutting, const struct hm_run *run,
                   struct hm_han_list *list, struct hm_error *err)
{
    uint32_t start = 0; /* unit where the stretch begins */
    uint32_t length = 0;
    uint32_t previous = 0;

    for (uint32_t i = 0; i < run->n_units;) {
        uint32_t at = i;
        uint32_t symbol = cutting->trainer->symbol_of[hm_run_code(run->unit, &i)];
        if (previous && !is_kept(cutting, previous, symbol)) {
            if (length > 1)
                HM_TRY(stretch_add(list, run, start, at, err));
            start = at;
            length = 0;
        }
        length++;
        previous = symbol;
    }
    return length > 1 ? stretch_add(list, run, start, run->n_units, err) : HM_OK;
}

static void cut_unit(void *context, size_t index, int worker)
{
    struct cutting *cutting = context;
    size_t chunk = cutting->unit[index].chunk;
    const struct hm_han_part *part = &cutting->counts->part[cutting->unit[index].part];
    uint64_t cursor = (uint64_t)chunk << HM_HAN_CHUNK_BITS;
    struct hm_run run;
    int status = HM_OK;

    (void)worker;
    hm_han_list_clear(&cutting->list[index]);
    while (status == HM_OK && hm_han_chunk_next(part, chunk, &cursor, &run))
        status = run_cut(cutting, &run, &cutting->list[index], &cutting->err[index]);
    if (status == HM_OK)
        hm_han_list_sort(&cutting->list[index], &cutting->err[index]);
}

static int cut_some(struct cutting *cutting, size_t n, struct hm_han_counts *cut,
                    struct hm_error *err)
{
    if (hm_ctl_stopped(cutting->trainer->ctl))
        return hm_fail(err, HM_ERR_STOPPED, "vocabulary training was stopped");
    hm_parallel_for(n, cut_unit, cutting);
    for (size_t i = 0; i < n; i++)
        if (cutting->err[i].code < 0)
            return hm_error_pass(err, &cutting->err[i]);
    return hm_han_counts_pour(cut, cutting->list, n, err);
}

static int cut_all(struct cutting *cutting, struct hm_han_counts *cut, struct hm_error *err)
{
    size_t n = 0;

    for (size_t part = 0; part < HM_HAN_PARTS; part++)
        for (size_t chunk = 0; chunk < cutting->counts->part[part].n_chunks; chunk++) {
            cutting->unit[n].part = part;
            cutting->unit[n++].chunk = chunk;
            if (n == LISTS) {
                HM_TRY(cut_some(cutting, n, cut, err));
                n = 0;
            }
        }
    return cut_some(cutting, n, cut, err);
}

int hm_bpe_runs_cut(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                    struct hm_han_counts **ret_cut, struct hm_error *err)
{
    struct cutting *cutting = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*cutting));
    struct hm_han_counts *cut = NULL;
    uint64_t used = atomic_load(&trainer->used_bytes);

    if (!cutting)
        return hm_fail_nomem(err, "for cutting Han runs");
    cutting->trainer = trainer;
    cutting->counts = counts;
    for (size_t i = 1; i < trainer->n_pairs; i++) {
        size_t bit = filter_bit(trainer->pair[i].left, trainer->pair[i].right);
        cutting->kept[bit / 64] |= (uint64_t)1 << bit % 64;
    }
    int status = hm_han_counts_new(&cut, err);
    if (status == HM_OK && trainer->limit_bytes)
        hm_han_counts_limit(cut, trainer->limit_bytes > used ? trainer->limit_bytes - used : 1);
    for (size_t i = 0; status == HM_OK && i < LISTS; i++)
        cutting->list[i].budget = &cut->budget;
    if (status == HM_OK)
        status = cut_all(cutting, cut, err);
    for (size_t i = 0; i < LISTS; i++)
        hm_han_list_release(&cutting->list[i]);
    hm_free(cutting);
    if (status == HM_OK)
        *ret_cut = cut;
    else
        hm_han_counts_free(cut);
    return status;
}
