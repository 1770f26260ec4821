/* SPDX-License-Identifier: MIT */
/*
 * The first pass over text that does not fit: runs to a file, as they come, pairs of characters
 * into a table. Blocks and pairs are made in parallel from lists, the file is written in order: the
 * same bytes for any number of threads. Runs that were held when the limit was met go first, with
 * their counts.
 */
#include "han_spill.h"

#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"

/* --- units ------------------------------------------------------------------------------------ */

void hm_spill_units_init(struct spill_unit unit[HM_SPILL_UNITS], struct hm_han_budget *budget)
{
    for (size_t i = 0; i < HM_SPILL_UNITS; i++)
        unit[i] =
            (struct spill_unit){ .words = { .budget = budget }, .pairs = { .budget = budget } };
}

void hm_spill_units_release(struct spill_unit unit[HM_SPILL_UNITS])
{
    for (size_t i = 0; i < HM_SPILL_UNITS; i++) {
        hm_run_words_release(&unit[i].words);
        hm_pair_list_release(&unit[i].pairs);
    }
}

static int unit_add(struct spill_unit *unit, const struct hm_run *run, bool to_file)
{
    if (to_file)
        HM_TRY(hm_run_words_put(&unit->words, run, &unit->err));
    return hm_pair_list_add(&unit->pairs, run, &unit->err);
}

/* What the first n units made: blocks in order, pairs in parallel. */
static int units_drain(struct spill_unit *unit, size_t n, struct pair_table *table,
                       struct run_file *file, struct hm_error *err)
{
    struct pair_list list[HM_SPILL_UNITS] = { 0 };

    for (size_t i = 0; i < n; i++) {
        if (unit[i].err.code < 0)
            return hm_error_pass(err, &unit[i].err);
        if (file)
            HM_TRY(hm_run_file_put(file, &unit[i].words, err));
        list[i] = unit[i].pairs;
    }
    HM_TRY(hm_pair_table_add(table, list, n, err));
    for (size_t i = 0; i < n; i++)
        hm_pair_list_clear(&unit[i].pairs);
    return HM_OK;
}

/* --- runs in memory --------------------------------------------------------------------------- */

struct holding {
    const struct hm_han_counts *counts;
    struct spill_unit *unit;
    bool to_file;
    struct {
        size_t part, chunk;
    } at[HM_SPILL_UNITS];
};

static void held_unit(void *context, size_t index, int worker)
{
    struct holding *holding = context;
    struct spill_unit *unit = &holding->unit[index];
    const struct hm_han_part *part = &holding->counts->part[holding->at[index].part];
    size_t chunk = holding->at[index].chunk;
    uint64_t cursor = (uint64_t)chunk << HM_HAN_CHUNK_BITS;
    struct hm_run run;
    int status = HM_OK;

    (void)worker;
    while (status == HM_OK && hm_han_chunk_next(part, chunk, &cursor, &run))
        status = unit_add(unit, &run, holding->to_file);
    if (status == HM_OK)
        hm_pair_list_sort(&unit->pairs, &unit->err);
}

int hm_han_held_walk(const struct hm_han_counts *counts, struct spill_unit *unit,
                     struct pair_table *table, struct run_file *file, struct hm_error *err)
{
    struct holding holding = { .counts = counts, .unit = unit, .to_file = file != NULL };
    size_t n = 0;

    for (size_t part = 0; part < HM_HAN_PARTS; part++)
        for (size_t chunk = 0; chunk < counts->part[part].n_chunks; chunk++) {
            holding.at[n].part = part;
            holding.at[n++].chunk = chunk;
            if (n == HM_SPILL_UNITS) {
                hm_parallel_for(n, held_unit, &holding);
                HM_TRY(units_drain(unit, n, table, file, err));
                n = 0;
            }
        }
    hm_parallel_for(n, held_unit, &holding);
    return units_drain(unit, n, table, file, err);
}

/* --- runs of text ----------------------------------------------------------------------------- */

struct spilling {
    struct han_spill *spill;
    const struct hm_han_list *list;
};

static void list_unit(void *context, size_t index, int worker)
{
    struct spilling *spilling = context;
    struct spill_unit *unit = &spilling->spill->unit[index];
    const struct hm_han_list *list = &spilling->list[index];
    int status = HM_OK;

    (void)worker;
    for (size_t i = 0; status == HM_OK && i < list->n_items; i++) {
        struct hm_run run = { .unit = list->unit + list->item[i].first,
                              .n_units = list->item[i].n_units,
                              .count = list->item[i].count };
        status = unit_add(unit, &run, true);
    }
    if (status == HM_OK)
        hm_pair_list_sort(&unit->pairs, &unit->err);
}

int hm_han_spill_add(struct hm_han_counts *counts, const struct hm_han_list *list, size_t n_lists,
                     struct hm_error *err)
{
    struct han_spill *spill = counts->spill;

    for (size_t first = 0; first < n_lists; first += HM_SPILL_UNITS) {
        size_t n = hm_least(n_lists - first, HM_SPILL_UNITS);
        struct spilling spilling = { .spill = spill, .list = list + first };
        hm_parallel_for(n, list_unit, &spilling);
        HM_TRY(units_drain(spill->unit, n, &spill->pairs, &spill->runs, err));
        for (size_t i = first; i < first + n; i++)
            for (size_t k = 0; k < list[i].n_items; k++)
                spill->n_runs += list[i].item[k].count;
    }
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
    HM_TRY(hm_han_held_walk(counts, spill->unit, &spill->pairs, &spill->runs, err));
    for (size_t p = 0; p < HM_HAN_PARTS; p++) {
        spill->n_runs += counts->part[p].runs;
        hm_han_part_release(&counts->part[p]);
    }
    return HM_OK;
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
    hm_han_list_release(&counts->list);
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
