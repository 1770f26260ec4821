/* SPDX-License-Identifier: MIT */
/*
 * Units of weights and what is resident of them: where each lies in the mapped files, when the
 * passes use it, and how many bytes it would add. Who decides and reads is weight_stream.c. Thread
 * class: one thread at a time; hm_weight_units_read changes nothing of the table.
 */
#ifndef HANMIX_MODEL_WEIGHT_UNITS_H
#define HANMIX_MODEL_WEIGHT_UNITS_H

#include "weight_stream.h"

enum hm_unit_state { HM_UNIT_ABSENT, HM_UNIT_READING, HM_UNIT_RESIDENT };

struct hm_weight_unit {
    struct hm_unit_range *range; /* in the table's */
    size_t n_ranges;
    enum hm_unit_state state;
    bool held;
    uint64_t done_in; /* the pass that last used it */
};

struct hm_weight_units {
    const struct hm_checkpoint *ckpt; /* borrowed */
    uint32_t layers, experts;
    struct hm_weight_unit *unit;
    size_t n_units;
    struct hm_unit_range *range;
    struct hm_weight_place embed[HM_WEIGHT_PLACES]; /* read by rows */
    size_t n_embed;
    uint32_t **users; /* [files][blocks] resident units that touch a block */
    uint64_t block, resident;
};

/* Empties the mapping. HM_ERR_NOFIT: a layer or the head is larger than the budget. To be released
 * after a failure, too. */
int hm_weight_units_open(const struct hm_checkpoint *ckpt, const struct hm_stream_plan *plan,
                         uint64_t budget_bytes, struct hm_weight_units *units,
                         struct hm_error *err);
void hm_weight_units_release(struct hm_weight_units *units);

/* Places of a layer: its experts and its rest. */
int64_t hm_weight_units_layer_places(const struct hm_weight_units *units);
int64_t hm_weight_units_pass_places(const struct hm_weight_units *units, enum hm_pass pass);
/* Place of a unit in a pass; -1: it is not used. */
int64_t hm_weight_units_place(const struct hm_weight_units *units, size_t unit, enum hm_pass pass);

/* Bytes that would become resident with the unit. */
uint64_t hm_weight_units_missing(const struct hm_weight_units *units, size_t unit);
void hm_weight_units_count(struct hm_weight_units *units, size_t unit); /* as resident */
void hm_weight_units_drop(struct hm_weight_units *units, size_t unit);
/* Pulls its pages in. What cannot be read becomes zeros, so that the owner gets on to where it asks
 * for the error. */
int hm_weight_units_read(const struct hm_weight_units *units, size_t unit, uint64_t *ret_bytes,
                         struct hm_error *err);
void hm_weight_units_embed_forget(const struct hm_weight_units *units);

#endif
