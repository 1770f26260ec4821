/* SPDX-License-Identifier: MIT */
/*
 * Stage import.llama2c: a llama2.c checkpoint to a Hugging Face folder. The work is
 * checkpoint/llama2c.c.
 */
#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/llama2c.h"
#include "hanmix/vocab/spm_model.h"
#include "stage_model.h"
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

/* The tokenizer beside the weights must fit them. */
static int vocabulary_check(const struct hm_stage_run *run, const char *tokenizer,
                            struct hm_error *err)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_spm_model model = { 0 };

    HM_TRY(hm_checkpoint_open(run->out_dir, &ckpt, err));
    int r = hm_spm_model_load(tokenizer, &model, err);
    if (r == HM_OK)
        r = hm_arch_vocab_check(&ckpt.arch, model.count, tokenizer, err);
    hm_spm_model_release(&model);
    hm_checkpoint_close(&ckpt);
    return r;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const char *file = NULL;
    const char *tokenizer = NULL;

    HM_TRY(hm_stage_path(run, "file", &file, err));
    if (hm_stage_input(run, "tokenizer"))
        HM_TRY(hm_stage_path(run, "tokenizer", &tokenizer, err));
    HM_TRY(hm_llama2c_import(file, tokenizer, run->out_dir, run->ctl, err));
    return tokenizer ? vocabulary_check(run, tokenizer, err) : HM_OK;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    uint64_t bytes = 0;

    HM_TRY(hm_stage_input_bytes(run, "file", &bytes, err));
    ret_plan->disk_bytes = bytes;
    HM_TRY(hm_stage_plan_memory(ret_plan, "tensors", 1 << 20, err));
    if (hm_stage_input(run, "tokenizer")) {
        uint64_t pieces = 0;
        HM_TRY(hm_stage_vocab_size(run, "tokenizer", &pieces, err));
        HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", STAGE_PIECE_BYTES * pieces, err));
    }
    return hm_stage_plan_mapped(ret_plan, "weights", bytes, err);
}

const struct hm_stage hm_stage_import_llama2c = {
    .name = "import.llama2c",
    .summary = "Make a Hugging Face folder of a llama2.c checkpoint.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .writes =
        "config.json, generation_config.json, model.safetensors, tokenizer files, report.json",
    .product = { HM_INPUT_MODEL, HM_INPUT_TOKENIZER },
    .product_path = { "", "" },
    .plan = plan_stage,
    .run = run_stage,
};
