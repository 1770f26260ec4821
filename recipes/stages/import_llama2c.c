/* SPDX-License-Identifier: MIT */
/*
 * Stage import.llama2c: a llama2.c checkpoint to a Hugging Face folder. The work is
 * checkpoint/llama2c.c.
 */
#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/llama2c.h"
#include "stage_util.h"

struct config {
    char unused; /* the stage has no settings of its own */
};

static const struct hm_input inputs[] = {
    { .name = "file",
      .type = HM_INPUT_FILE,
      .required = true,
      .help = "llama2.c checkpoint, version 0 (.bin)" },
    { .name = "tokenizer",
      .type = HM_INPUT_TOKENIZER,
      .help = "SentencePiece model to put beside the weights" },
};

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const char *file = NULL;
    const char *tokenizer = NULL;

    HM_TRY(hm_stage_path(run, "file", &file, err));
    if (hm_stage_input(run, "tokenizer"))
        HM_TRY(hm_stage_path(run, "tokenizer", &tokenizer, err));
    return hm_llama2c_import(file, tokenizer, run->out_dir, run->ctl, err);
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    uint64_t bytes = 0;

    HM_TRY(hm_stage_input_bytes(run, "file", &bytes, err));
    ret_plan->disk_bytes = bytes;
    HM_TRY(hm_stage_plan_memory(ret_plan, "tensors", 1 << 20, err));
    return hm_stage_plan_mapped(ret_plan, "weights", bytes, err);
}

const struct hm_stage hm_stage_import_llama2c = {
    .name = "import.llama2c",
    .summary = "Make a Hugging Face folder of a llama2.c checkpoint.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .writes = "config.json, model.safetensors, tokenizer.model, report.json",
    .product = { HM_INPUT_MODEL },
    .product_path = { "" },
    .plan = plan_stage,
    .run = run_stage,
};
