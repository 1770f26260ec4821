/* SPDX-License-Identifier: MIT */
/*
 * Keeps the mapped weights that are resident within a budget: a reading thread pulls in what the
 * passes will use next and gives back what they will use last. The views of the weights do not
 * change; a range that is not resident is merely slow to touch.
 *
 * A unit is an expert, the rest of a layer, or the head. The owner of the model brackets the use of
 * a unit with need and done, and says the direction of this pass and of the next one when a pass
 * begins. Thread class: owner thread; the reading thread is inside.
 */
#ifndef HANMIX_MODEL_WEIGHT_STREAM_H
#define HANMIX_MODEL_WEIGHT_STREAM_H

#include "internal.h"

struct hm_stream; /* opaque */

/* Units by number: layer * (experts + 1) for the rest of a layer, + 1 + expert for an expert; the
 * head comes after the last layer. */
#define HM_STREAM_UNITS(layers, experts) ((size_t)(layers) * ((experts) + 1) + 1)

struct hm_stream_plan {
    uint32_t layers, experts;
    const struct hm_weight *const *weight; /* of all units, one after the other */
    const size_t *first;                   /* [units + 1] of a unit in weight */
    const struct hm_weight *embed;         /* read by rows; NULL when it is the head too */
};
/* Empties the mapping first. HM_ERR_NOFIT when the budget is below what has to be resident at once:
 * a layer with all its experts, or the head. */
int hm_stream_open(const struct hm_checkpoint *ckpt, const struct hm_stream_plan *plan,
                   uint64_t budget_bytes, struct hm_stream **ret_stream, struct hm_error *err);
void hm_stream_close(struct hm_stream *stream); /* NULL is fine */

/* A pass begins, the rows of the embedding behind it. `ahead`: most experts will be used, so that
 * they are read before they are asked for. */
void hm_stream_pass(struct hm_stream *stream, enum hm_pass pass, enum hm_pass next, bool ahead);
/* Waits until the unit is resident; it stays so until done. */
void hm_stream_need(struct hm_stream *stream, size_t unit);
void hm_stream_done(struct hm_stream *stream, size_t unit);
/* The first error of the reading thread; what was computed since is void. */
int hm_stream_check(struct hm_stream *stream, struct hm_error *err);
void hm_stream_counts(struct hm_stream *stream, struct hm_stream_counts *ret_counts);

#endif
