/* SPDX-License-Identifier: MIT */
/*
 * A model ready to run for the eval stages: kernels, model, adapter; the plan of such a stage; and
 * the fields of every stage that runs a model.
 */
#ifndef HANMIX_RECIPES_STAGE_RUNTIME_H
#define HANMIX_RECIPES_STAGE_RUNTIME_H

#include "hanmix/model/model.h"
#include "hanmix/recipes/stage.h"

#define STAGE_RAM_FIELD(config)                                                                   \
    {                                                                                             \
        .name = "ram", .type = HM_FIELD_SIZE, .offset = offsetof(config, ram), .neutral = true,   \
        .help = "keep the process within so many bytes: what does not fit of the frozen weights " \
                "is read ahead of use and dropped behind; 0 none"                                 \
    }

/* The choice of enum hm_round; its values are those of the enum. */
extern const char *const hm_stage_computes[];
#define STAGE_COMPUTE_FIELD(config)                                                              \
    {                                                                                            \
        .name = "compute", .type = HM_FIELD_CHOICE, .offset = offsetof(config, compute),         \
        .fallback = "bf16", .choices = hm_stage_computes,                                        \
        .help = "products with frozen weights: in bf16 (4-bit weights as code x absmax rounded " \
                "to bf16), or in f32"                                                            \
    }

struct stage_runtime {
    struct hm_kernels kernels;
    struct hm_model *model;
    struct hm_adapter *adapter;
};

/* in.model and, when given, in.adapter attached. The runtime must not move while it is open: the
 * model borrows kernels. */
int hm_stage_runtime_open(const struct hm_stage_run *run, enum hm_round round,
                          struct stage_runtime *ret_runtime, struct hm_error *err);
void hm_stage_runtime_release(struct stage_runtime *runtime);

/* A packed file (its path is for the message) against in.model: HM_ERR_FORMAT when it was made with
 * another tokenizer than the folder holds. Nothing is said of folders without one. */
int hm_stage_packed_check(const struct hm_stage_run *run, const char *path, const char *fingerprint,
                          struct hm_error *err);

/* What is evaluated of a packed input: valid.hmp of a folder that has one, else the path itself. */
int hm_stage_held_out(const char *path, char **ret_path, struct hm_error *err);

/*
 * set.ram: the plan fitted into a process of so many bytes, or HM_ERR_NOFIT with the least that
 * would do. beside_bytes: memory of other lines. 0 is no limit.
 */
int hm_stage_ram_plan(const struct hm_stage_run *run, uint64_t ram_bytes,
                      const struct hm_arch *arch, uint64_t tokens, bool backward,
                      uint64_t beside_bytes, struct hm_memory_plan *memory, struct hm_error *err);
/* Weights of an open model, adapter attached, under the budget that the stage's plan gives them. */
int hm_stage_stream(const struct hm_stage_run *run,
                    int (*plan)(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                                struct hm_error *err),
                    struct hm_model *model, struct hm_error *err);
/* Memory of a forward pass of a sequence of windows (hm_eval_sequence), or, with_logits, of rows
 * (hm_eval_rows, at most so many as there are) whose logits are kept. 0 tokens or rows: unknown. */
int hm_stage_eval_plan(const struct hm_stage_run *run, enum hm_round round, uint64_t ram_bytes,
                       uint32_t tokens, uint64_t rows, bool with_logits,
                       struct hm_stage_plan *ret_plan, struct hm_error *err);
/* The lines of a memory plan, weights as mapped pages. */
int hm_stage_plan_lines(struct hm_stage_plan *plan, const struct hm_memory_plan *memory,
                        struct hm_error *err);

#endif
