/* SPDX-License-Identifier: MIT */
/*
 * The first pass over text that does not fit: blocks of runs to a file, as they come, pairs of
 * characters into a table. Pairs are counted in parallel, the file is written in order: the same
 * bytes for any number of threads. Blocks that were held when the limit was met go first.
 */
#include "han_spill.h"

#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"

/* --- pairs ------------------------------------------------------------------------------------ */

void hm_spill_units_init(struct spill_unit unit[HM_SPILL_UNITS], struct hm_han_budget *budget)
{
    for (size_t i = 0; i < HM_SPILL_UNITS; i++)
        unit[i] = (struct spill_unit){ .pairs = { .budget = budget } };
}

void hm_spill_units_release(struct spill_unit unit[HM_SPILL_UNITS])
{
    for (size_t i = 0; i < HM_SPILL_UNITS; i++)
        hm_pair_list_release(&unit[i].pairs);
}

struct holding {
    const struct hm_han_counts *counts;
    struct spill_unit *unit;
    size_t first; /* of the blocks in work */
};

static void held_unit(void *context, size_t index, int worker)
{
    struct holding *holding = context;
    struct spill_unit *unit = &holding->unit[index];
    struct run_block block = hm_han_block(holding->counts, holding->first + index);
    struct hm_run run;
    size_t at = 0;
    int status = HM_OK;

    (void)worker;
    while (status == HM_OK && hm_run_block_next(&block, &at, &run))
        status = hm_pair_list_add(&unit->pairs, &run, &unit->err);
    if (status == HM_OK)
        hm_pair_list_sort(&unit->pairs, &unit->err);
}

static int units_drain(struct spill_unit *unit, size_t n, struct pair_table *table,
                       struct hm_error *err)
{
    struct pair_list list[HM_SPILL_UNITS] = { 0 };

    for (size_t i = 0; i < n; i++) {
        if (unit[i].err.code < 0)
            return hm_error_pass(err, &unit[i].err);
        list[i] = unit[i].pairs;
    }
    HM_TRY(hm_pair_table_add(table, list, n, err));
    for (size_t i = 0; i < n; i++)
        hm_pair_list_clear(&unit[i].pairs);
    return HM_OK;
}

int hm_han_held_walk(const struct hm_han_counts *counts, struct spill_unit *unit,
                     struct pair_table *table, struct hm_error *err)
{
    struct holding holding = { .counts = counts, .unit = unit };

    for (size_t n; holding.first < counts->n_blocks; holding.first += n) {
        n = hm_least(counts->n_blocks - holding.first, HM_SPILL_UNITS);
        hm_parallel_for(n, held_unit, &holding);
        HM_TRY(units_drain(unit, n, table, err));
    }
    return HM_OK;
}

/* --- to the file ------------------------------------------------------------------------------ */

int hm_han_spill_blocks(struct hm_han_counts *counts, struct hm_error *err)
{
    struct han_spill *spill = counts->spill;

    HM_TRY(hm_han_held_walk(counts, spill->unit, &spill->pairs, err));
    for (size_t i = 0; i < counts->n_blocks; i++) {
        HM_TRY(hm_run_file_put(&spill->runs, &counts->block[i], err));
        hm_run_words_release(&counts->block[i]);
    }
    hm_han_blocks_release(counts);
    spill->report.spilled_bytes = spill->runs.bytes;
    return HM_OK;
}

int hm_han_spill_begin(struct hm_han_counts *counts, struct hm_error *err)
{
    struct han_spill *spill = counts->spill;

    /* what another count left there, its record first of all, is none of this one */
    HM_TRY(hm_han_spill_remove(spill->options.dir, err));
    HM_TRY(hm_run_file_create(spill->options.dir, HM_SPILL_RUNS, &spill->runs, err));
    spill->begun = true;
    spill->report.passes = 1;
    return hm_han_spill_blocks(counts, err);
}

/* --- life ------------------------------------------------------------------------------------- */

int hm_han_counts_spill(struct hm_han_counts *counts, const struct hm_han_spill_options *options,
                        struct hm_error *err)
{
    struct han_spill *spill = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*spill));

    HM_BUG(counts->spill != NULL);
    if (!spill)
        return hm_fail_nomem(err, "for counting Han runs");
    counts->spill = spill;
    spill->options = *options;
    spill->runs.fd = -1;
    hm_pair_table_init(&spill->pairs, &counts->budget);
    hm_spill_units_init(spill->unit, &counts->budget);
    spill->options.dir = hm_strdup(HM_MEM_VOCAB, options->dir);
    spill->options.key = hm_strdup(HM_MEM_VOCAB, options->key);
    if (!spill->options.dir || !spill->options.key) {
        hm_han_spill_free(counts);
        return hm_fail_nomem(err, "for counting Han runs");
    }
    return HM_OK;
}

void hm_han_spill_free(struct hm_han_counts *counts)
{
    struct han_spill *spill = counts->spill;

    if (!spill)
        return;
    hm_run_file_close(&spill->runs);
    hm_pair_table_release(&spill->pairs);
    hm_spill_units_release(spill->unit);
    hm_free(spill->character);
    hm_free((char *)(uintptr_t)spill->options.dir);
    hm_free((char *)(uintptr_t)spill->options.key);
    hm_free(spill);
    counts->spill = NULL;
}

int hm_han_counts_end(struct hm_han_counts *counts, json_t *note, struct hm_error *err)
{
    struct han_spill *spill = counts->spill;
    struct hm_error local = { 0 };
    int status = HM_OK;

    if (!spill || !spill->begun || spill->whole)
        return HM_OK;
    hm_spill_units_release(spill->unit);
    spill->runs_bytes = spill->runs.bytes;
    status = hm_run_file_sync(&spill->runs, &local);
    hm_run_file_close(&spill->runs);
    if (status == HM_OK)
        status = hm_spill_pairs_save(spill, &local);
    hm_pair_table_release(&spill->pairs);
    if (status == HM_OK)
        status = hm_spill_counting_save(counts, note, &local);
    spill->whole = status == HM_OK;
    return status < 0 ? hm_error_pass(err, &local) : HM_OK;
}

int hm_han_counts_unload(struct hm_han_counts *counts, json_t *note, bool *ret_unloaded,
                         struct hm_error *err)
{
    struct hm_error local = { 0 };
    int status = HM_OK;

    *ret_unloaded = counts->spill && !counts->spill->begun;
    if (!*ret_unloaded)
        return HM_OK;
    status = hm_han_spill_begin(counts, &local);
    return status < 0 ? hm_error_pass(err, &local) : hm_han_counts_end(counts, note, err);
}

struct hm_han_spilled hm_han_counts_spilled(const struct hm_han_counts *counts)
{
    return counts->spill ? counts->spill->report : (struct hm_han_spilled){ 0 };
}
