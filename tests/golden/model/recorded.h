/* SPDX-License-Identifier: MIT */
/*
 * Recorded inputs and outputs as arrays for the tests of the model: tensors of safetensors files,
 * batches, and a model folder with a changed config. Everything ends the test with a message when
 * it fails.
 */
#ifndef HANMIX_TESTS_RECORDED_H
#define HANMIX_TESTS_RECORDED_H

#include "support/support.h"

#include "hanmix/checkpoint/safetensors.h"
#include "hanmix/model/model.h"

struct recorded_batch {
    int32_t *ids, *labels;
    uint8_t *mask; /* NULL without attention_mask */
    struct hm_batch batch;
};

/* A tensor as f32 (from F32 or F64); hm_free. Checks the number of values when count is not 0. */
float *recorded_f32(const struct hm_safetensors *file, const char *name, size_t count);
void recorded_batch_read(const char *path, struct recorded_batch *ret_batch);
void recorded_batch_release(struct recorded_batch *batch);
/* of a JSON file; keys end with NULL */
double recorded_number(const char *path, const char *const keys[]);

/* A copy of a recorded model folder below dir with one config value replaced. */
const char *model_with_config(const char *dir, const char *model, const char *key, int value);
struct hm_model *model_opened(const char *dir, const struct hm_kernels *kernels,
                              enum hm_round round);

/* Forward of a whole batch. */
struct outputs {
    float *logits, *hidden;
    float **router; /* [L] */
    struct hm_step_result result;
};
void forward_run(struct hm_model *model, const struct hm_batch *batch, struct outputs *ret_outputs);
void outputs_release(struct hm_model *model, struct outputs *outputs);

#endif
