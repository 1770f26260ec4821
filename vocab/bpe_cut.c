/* SPDX-License-Identifier: MIT */
/*
 * Runs cut where a pair of characters is too rare for any piece, and the stretches of two
 * characters and more counted. Why that is exact: bpe_corpus.c. Blocks of runs, in memory or in the
 * file they went to, are cut in parallel into lists, which are poured together: into memory, or to
 * the disk when memory may hold no more (cut_parts.c).
 */
#include "bpe_cut.h"

#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"

#define LISTS       8u /* blocks cut at once */
#define FILTER_BITS 22u
#define READ_BYTES  (1u << 20)
#define PART_BYTES  (384u << 10) /* of a part on its way to the disk */

#define MERGE_LEAST (512u << 10) /* for merging a part, whatever may be held */

struct cutting {
    const struct bpe_trainer *trainer;
    const struct hm_han_counts *counts;
    struct bpe_cut *cut;
    const char *path; /* of the blocks; NULL: they are in memory */
    struct run_block block[LISTS];
    struct hm_han_list list[LISTS];
    struct hm_error err[LISTS];
    uint64_t hold_bytes;                     /* of stretches, in memory */
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
        if (symbol == 0)
            return hm_fail(err, HM_ERR_FORMAT,
                           "a Han run holds a character that was not counted: the scratch files "
                           "are damaged");
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

static void block_unit(void *context, size_t index, int worker)
{
    struct cutting *cutting = context;
    const struct run_block *block = &cutting->block[index];
    struct hm_error *err = &cutting->err[index];
    int status = cutting->path ? hm_run_block_check(block, cutting->path, err) : HM_OK;
    struct hm_run run;
    size_t at = 0;

    (void)worker;
    hm_han_list_clear(&cutting->list[index]);
    while (status == HM_OK && hm_run_block_next(block, &at, &run))
        status = run_cut(cutting, &run, &cutting->list[index], err);
    if (status == HM_OK)
        hm_han_list_sort(&cutting->list[index], err);
}

/* --- where stretches go ----------------------------------------------------------------------- */

/* From now on to the disk: as many parts as let each be merged in memory, by a rough guess. */
static int parts_begin(struct cutting *cutting, struct hm_error *err)
{
    struct bpe_cut *cut = cutting->cut;
    struct han_spill *spill = cutting->counts->spill;
    uint64_t room = cutting->hold_bytes / PART_BYTES;
    size_t n = HM_HAN_PARTS;

    while (n < HM_CUT_PARTS_MAX && 2 * n <= room &&
           3 * spill->runs_bytes / n > cutting->hold_bytes / (size_t)hm_threads())
        n *= 2;
    HM_TRY(hm_cut_parts_new(spill->options.dir, n, &cut->sums->budget, &cut->parts, err));
    HM_TRY(hm_cut_parts_take(cut->parts, cut->sums, err));
    for (size_t p = 0; p < HM_HAN_PARTS; p++)
        hm_han_part_release(&cut->sums->part[p]);
    return HM_OK;
}

static int lists_pour(struct cutting *cutting, size_t n, struct hm_error *err)
{
    struct bpe_cut *cut = cutting->cut;

    if (cutting->counts->spill && !cut->parts &&
        hm_han_sums_bytes(cut->sums) + hm_han_sums_growth(cut->sums, cutting->list, n) >
            cutting->hold_bytes)
        HM_TRY(parts_begin(cutting, err));
    return cut->parts ? hm_cut_parts_pour(cut->parts, cutting->list, n, err)
                      : hm_han_sums_pour(cut->sums, cutting->list, n, err);
}

static int cut_some(struct cutting *cutting, size_t n, struct hm_error *err)
{
    if (hm_ctl_stopped(cutting->trainer->ctl))
        return hm_fail(err, HM_ERR_STOPPED, "vocabulary training was stopped");
    hm_parallel_for(n, block_unit, cutting);
    for (size_t i = 0; i < n; i++)
        if (cutting->err[i].code < 0)
            return hm_error_pass(err, &cutting->err[i]);
    return lists_pour(cutting, n, err);
}

/* --- where runs come from --------------------------------------------------------------------- */

static int held_cut(struct cutting *cutting, struct hm_error *err)
{
    const struct hm_han_counts *counts = cutting->counts;

    for (size_t first = 0, n; first < counts->n_blocks; first += n) {
        n = hm_least(counts->n_blocks - first, LISTS);
        for (size_t i = 0; i < n; i++)
            cutting->block[i] = hm_han_block(counts, first + i);
        HM_TRY(cut_some(cutting, n, err));
    }
    return HM_OK;
}

static int blocks_cut(struct cutting *cutting, struct run_reader *reader, struct hm_error *err)
{
    struct hm_progress progress = { .what = "cut runs",
                                    .unit = "bytes",
                                    .total = reader->size_bytes };
    size_t n = 0;

    cutting->path = reader->path;
    do {
        HM_TRY(hm_run_reader_next(reader, cutting->block, LISTS, &n, err));
        HM_TRY(cut_some(cutting, n, err));
        progress.done = reader->offset + reader->begin;
        hm_ctl_progress(cutting->trainer->ctl, &progress);
    } while (n > 0);
    return HM_OK;
}

static int file_cut(struct cutting *cutting, struct hm_error *err)
{
    const struct han_spill *spill = cutting->counts->spill;
    struct run_reader reader = { .fd = -1 };
    char *path = NULL;
    int status = hm_path_join(&path, spill->options.dir, HM_SPILL_RUNS, err);

    if (status == HM_OK)
        status = hm_run_reader_open(path, spill->runs_bytes, READ_BYTES,
                                    &cutting->cut->sums->budget, &reader, err);
    if (status == HM_OK)
        status = blocks_cut(cutting, &reader, err);
    hm_run_reader_close(&reader);
    hm_free(path);
    return status;
}

/* --- the whole -------------------------------------------------------------------------------- */

static void pairs_keep(struct cutting *cutting)
{
    const struct bpe_trainer *trainer = cutting->trainer;

    for (size_t i = 1; i < trainer->n_pairs; i++) {
        size_t bit = filter_bit(trainer->pair[i].left, trainer->pair[i].right);
        cutting->kept[bit / 64] |= (uint64_t)1 << bit % 64;
    }
}

static void room_find(struct cutting *cutting, uint64_t limit_bytes)
{
    const struct han_spill *spill = cutting->counts->spill;

    cutting->cut->sums->budget.limit_bytes = limit_bytes;
    cutting->hold_bytes = spill ? spill->options.hold_bytes : UINT64_MAX;
    /* beside them are lists and buffers on the way, then the slots of the trainer */
    if (limit_bytes && cutting->hold_bytes > limit_bytes / 4)
        cutting->hold_bytes = limit_bytes / 4;
}

static int cut_merge(struct cutting *cutting, struct hm_error *err)
{
    struct bpe_cut *cut = cutting->cut;
    struct han_spill *spill = cutting->counts->spill;

    if (!cut->parts)
        return HM_OK;
    uint64_t each_bytes = cutting->hold_bytes / (size_t)hm_threads();
    if (each_bytes < MERGE_LEAST)
        each_bytes = MERGE_LEAST;
    HM_TRY(hm_cut_parts_merge(cut->parts, each_bytes, cutting->trainer->ctl, err));
    spill->report.partitions = cut->parts->n;
    for (size_t i = 0; i < cut->parts->n; i++)
        spill->report.splits += cut->parts->part[i].splits;
    /* runs that are not whole on the disk are not found again either */
    return spill->whole ? hm_spill_cut_save(spill, cut->parts, cutting->trainer->floor, err)
                        : HM_OK;
}

/* The runs' file is cut, unless that was done before. */
static int spilled_cut(struct cutting *cutting, struct hm_error *err)
{
    struct han_spill *spill = cutting->counts->spill;
    struct bpe_cut *cut = cutting->cut;
    uint64_t floor = cutting->trainer->floor;

    HM_TRY(hm_spill_cut_load(spill, &cut->sums->budget, floor, &cut->parts, err));
    if (cut->parts) {
        spill->report.partitions = cut->parts->n;
        hm_ctl_message(cutting->trainer->ctl, "continues with the segments that were cut before");
        return HM_OK;
    }
    hm_spill_cut_forget(spill);
    spill->report.passes++;
    HM_TRY(file_cut(cutting, err));
    return cut_merge(cutting, err);
}

int hm_bpe_runs_cut(struct bpe_trainer *trainer, const struct hm_han_counts *counts,
                    struct bpe_cut *ret_cut, struct hm_error *err)
{
    struct cutting *cutting = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*cutting));
    struct bpe_cut cut = { 0 };
    uint64_t used = atomic_load(&trainer->used_bytes);

    if (!cutting)
        return hm_fail_nomem(err, "for cutting Han runs");
    cutting->trainer = trainer;
    cutting->counts = counts;
    cutting->cut = &cut;
    pairs_keep(cutting);
    int status = hm_han_sums_new(&cut.sums, err);
    if (status == HM_OK) {
        uint64_t limit = trainer->limit_bytes;
        room_find(cutting, limit ? (limit > used ? limit - used : 1) : 0);
        for (size_t i = 0; i < LISTS; i++)
            cutting->list[i].budget = &cut.sums->budget;
        bool on_disk = counts->spill && counts->spill->whole;
        status = on_disk ? spilled_cut(cutting, err) : held_cut(cutting, err);
        if (status == HM_OK && !on_disk)
            status = cut_merge(cutting, err);
    }
    for (size_t i = 0; i < LISTS; i++)
        hm_han_list_release(&cutting->list[i]);
    hm_free(cutting);
    if (status == HM_OK)
        *ret_cut = cut;
    else
        hm_bpe_cut_release(&cut);
    return status;
}

struct bpe_segments hm_bpe_cut_segments(struct bpe_cut *cut)
{
    if (!cut->parts)
        return hm_bpe_segments_of(cut->sums);
    return (struct bpe_segments){ .context = cut->parts,
                                  .n_parts = cut->parts->n,
                                  .walk = hm_cut_parts_walk };
}

void hm_bpe_cut_release(struct bpe_cut *cut)
{
    hm_cut_parts_free(cut->parts);
    hm_han_sums_free(cut->sums);
    *cut = (struct bpe_cut){ 0 };
}
