/* SPDX-License-Identifier: MIT */
/*
 * A model input as plans see it: the config of a folder that exists, or the one an earlier stage's
 * plan foretold (weights need not be there); the same told on to later plans; and the field that
 * cuts a model output into files.
 */
#ifndef HANMIX_RECIPES_STAGE_MODEL_H
#define HANMIX_RECIPES_STAGE_MODEL_H

#include "hanmix/checkpoint/model_arch.h"
#include "hanmix/recipes/stage.h"

#define STAGE_SHARD_FIELD(config)                                                              \
    {                                                                                          \
        .name = "shard_size", .type = HM_FIELD_SIZE, .offset = offsetof(config, shard_size),   \
        .fallback = "5G", .min = 1 << 20, .max = 1e15, .help = "bytes of one safetensors file" \
    }

struct stage_model {
    bool known;              /* false: neither folder nor forecast; everything below is zero */
    json_t *config;          /* owned */
    struct hm_arch arch;     /* owned */
    uint64_t old_vocab_size; /* rows before vocab.resize; arch.vocab_size when it did not run */
    uint64_t file_bytes;     /* safetensors of the folder, or estimated from arch */
};

int hm_stage_model_plan(const struct hm_stage_run *run, const char *name,
                        struct stage_model *ret_model, struct hm_error *err);
void hm_stage_model_release(struct stage_model *model);
/* Foretell a model folder with this architecture. */
int hm_stage_model_foretell(struct hm_stage_plan *plan, const struct stage_model *model,
                            struct hm_error *err);

/* Pieces of all tokenizers of an input, or what earlier plans foretold; 0 when unknown. */
int hm_stage_vocab_size(const struct hm_stage_run *run, const char *name, uint64_t *ret_size,
                        struct hm_error *err);
/* What reading a tokenizer.json takes, of an input that allows one. */
int hm_stage_json_plan(const struct hm_stage_run *run, const char *name, struct hm_stage_plan *plan,
                       struct hm_error *err);
/* A number an earlier plan foretold about a pending input; keeps *ret when there is none. */
void hm_stage_fact_u64(const struct hm_stage_run *run, const char *name, const char *fact,
                       uint64_t *ret);

#endif
