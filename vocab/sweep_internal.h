/* SPDX-License-Identifier: MIT */
/*
 * What the files of the size sweep share: the union of all vocabularies with the condition under
 * which each of its pieces exists (sweep_model.c), counts of symbols by cut-off (sweep_count.c),
 * scores from them (size_sweep.c). Private to vocab/.
 *
 * A vocabulary is (n_singles, cut): of the union it has the base's pieces, the n_singles most
 * frequent new characters, and the merges before `cut` in the trained list over characters it has.
 */
#ifndef HANMIX_VOCAB_SWEEP_INTERNAL_H
#define HANMIX_VOCAB_SWEEP_INTERNAL_H

#include <stdatomic.h>

#include "hanmix/vocab/size_sweep.h"
#include "piece_table.h"
#include "span_cut.h"

struct hm_sweep_union {
    struct hm_spm_model model;
    struct hm_piece_table table;
    struct hm_span_cuts cuts;
    size_t symbols;   /* pieces and characters that are none */
    size_t n_base;    /* pieces of every vocabulary: of the base, or meta and bytes */
    uint32_t *single; /* [symbols] the number of single characters from which it exists; 0 always */
    uint32_t *merge;  /* [symbols] the cut from which it exists; 0 always */
    int32_t byte_id[256];
};

struct hm_sweep_cut { /* of one point */
    uint32_t n_singles, cut;
};

/* *ret_union is released by the caller, also when this fails. cut[i] is that of points[i], whose
   `singles` and `merges` are set. */
int hm_sweep_union_make(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                        struct hm_sweep_point *points, size_t n_points, struct hm_sweep_cut *cut,
                        struct hm_sweep_union *ret_union, struct hm_error *err);
void hm_sweep_union_release(struct hm_sweep_union *all);

/* Counts of symbols for vocabularies of one number of single characters, at rising cuts. */
struct hm_sweep_lane {
    uint32_t n_singles;
    uint32_t *cut; /* [n_cuts] rising */
    size_t n_cuts;
    _Atomic uint64_t *row; /* [1 + n_cuts][symbols]: characters, then changes from each cut on,
                              two's complement */
};

struct hm_sweep_counts {
    /* 0: segments that are the same for all numbers of single characters, all cuts; then one lane
       for each number, rising */
    struct hm_sweep_lane *lane;
    size_t n_lanes;
    struct hm_sweep_text text;
};

int hm_sweep_counts_new(const struct hm_sweep_union *all, const struct hm_sweep_cut *cut, size_t n,
                        struct hm_sweep_counts *ret_counts, struct hm_error *err);
void hm_sweep_counts_release(struct hm_sweep_counts *counts);
int hm_sweep_counts_read(struct hm_sweep_counts *counts, const struct hm_sweep_union *all,
                         struct hm_text_source *source, const struct hm_ctl *ctl,
                         struct hm_error *err);

#endif
