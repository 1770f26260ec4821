/* SPDX-License-Identifier: MIT */
/*
 * The tensors of a 4-bit folder before they are written. Private to qlora/. Thread class: owner
 * thread.
 */
#ifndef HANMIX_QLORA_QUANTIZE_PLAN_H
#define HANMIX_QLORA_QUANTIZE_PLAN_H

#include "hanmix/checkpoint/weight.h"
#include "hanmix/qlora/quantize.h"

enum hm_quantize_part_kind {
    HM_PART_DENSE,
    HM_PART_CODES,
    HM_PART_ABSMAX,
    HM_PART_MAP,
    HM_PART_NESTED_ABSMAX,
    HM_PART_NESTED_MAP,
    HM_PART_STATE
};

struct hm_quantize_part { /* tensor i of the plan */
    size_t slot;
    enum hm_quantize_part_kind kind;
    bool skipped; /* by the writer, until its codes are made */
};

struct hm_quantize_module { /* one slot */
    struct hm_weight *weight;
    bool nf4;
    size_t n_blocks;
    size_t first_part; /* of its parts, one behind the other */
    size_t n_parts;
    struct hm_buf state; /* quant_state JSON, once its scales are known */
    bool summed;         /* the error is known: */
    double energy, error;
};

struct hm_quantize_plan {
    struct hm_checkpoint ckpt; /* the model read */
    struct hm_arch arch;       /* of the model written: borrows from options, never released */
    const struct hm_quantize_options *options;
    char **skip; /* options' and, for a tied model, lm_head; borrowed texts */
    size_t n_skip;
    struct hm_quantize_module *module; /* [n_slots] */
    size_t n_slots;
    struct hm_tensor_spec *spec; /* [n_parts]; owns names */
    struct hm_quantize_part *part;
    size_t n_parts;
};

/* Opens the model, checks options, decides which weights become 4-bit. The plan must not move: its
   weights point to its checkpoint. */
int hm_quantize_plan_open(const char *model_dir, const struct hm_quantize_options *options,
                          struct hm_quantize_plan *plan, struct hm_error *err);
/* spec and part. The text of a nested quant_state holds a number known only once the matrix was
   read: its tensor is planned for the longest one. */
int hm_quantize_plan_tensors(struct hm_quantize_plan *plan, struct hm_error *err);
/* Sizes by class, counts and names of what stays dense, of the folder as written. */
int hm_quantize_plan_report(const struct hm_quantize_plan *plan, const struct hm_checkpoint *out,
                            struct hm_quantize_report *report, struct hm_error *err);
void hm_quantize_plan_release(struct hm_quantize_plan *plan);

#endif
