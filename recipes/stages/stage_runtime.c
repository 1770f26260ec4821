/* SPDX-License-Identifier: MIT */
/*
 * Opening a model for a stage, and planning its memory; see stage_runtime.h.
 */
#include "stage_runtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/hash.h"
#include "hanmix/eval/eval.h"
#include "stage_model.h"
#include "stage_util.h"

const char *const hm_stage_computes[] = { [HM_ROUND_NONE] = "f32", [HM_ROUND_BF16] = "bf16", NULL };

int hm_stage_runtime_open(const struct hm_stage_run *run, enum hm_round round,
                          struct stage_runtime *ret_runtime, struct hm_error *err)
{
    struct stage_runtime *runtime = ret_runtime;
    const char *model = NULL;
    const char *adapter = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    if (hm_stage_input(run, "adapter"))
        HM_TRY(hm_stage_path(run, "adapter", &adapter, err));
    HM_TRY(hm_stage_kernels(run, &runtime->kernels, err));
    struct hm_model_options options = { .kernels = &runtime->kernels,
                                        .round = round,
                                        .check_finite = true };
    HM_TRY(hm_model_open(model, &options, &runtime->model, err));
    if (adapter) {
        int r = hm_adapter_load(adapter, hm_model_checkpoint(runtime->model), false,
                                &runtime->adapter, err);
        if (r < 0) {
            hm_stage_runtime_release(runtime);
            return r;
        }
        hm_model_attach(runtime->model, runtime->adapter);
    }
    return HM_OK;
}

void hm_stage_runtime_release(struct stage_runtime *runtime)
{
    if (runtime->model)
        hm_model_attach(runtime->model, NULL);
    hm_adapter_free(runtime->adapter);
    hm_model_free(runtime->model);
    runtime->adapter = NULL;
    runtime->model = NULL;
}

int hm_stage_packed_check(const struct hm_stage_run *run, const char *path, const char *fingerprint,
                          struct hm_error *err)
{
    char digest[HM_SHA256_HEX_BYTES];
    const char *model = NULL;
    char *file = NULL;

    if (hm_stage_pending(run, "model"))
        return HM_OK;
    HM_TRY(hm_stage_path(run, "model", &model, err));
    HM_TRY(hm_path_join(&file, model, "tokenizer.model", err));
    int r = HM_OK;
    if (hm_path_exists(file)) {
        r = hm_sha256_file(file, NULL, digest, err);
        if (r == HM_OK && strcmp(digest, fingerprint) != 0)
            r = hm_fail(err, HM_ERR_FORMAT,
                        "'%s' was packed with another tokenizer (SHA-256 %.12s...) than the model "
                        "'%s' has (%.12s...); pack the text again with the model's",
                        path, fingerprint, model, digest);
    }
    hm_free(file);
    return r;
}

int hm_stage_held_out(const char *path, char **ret_path, struct hm_error *err)
{
    char *valid = NULL;

    if (hm_path_is_dir(path))
        HM_TRY(hm_path_join(&valid, path, "valid.hmp", err));
    if (valid && hm_path_exists(valid)) {
        *ret_path = valid;
        return HM_OK;
    }
    hm_free(valid);
    *ret_path = hm_strdup(HM_MEM_OTHER, path);
    return *ret_path ? HM_OK : hm_fail_nomem(err, "for a path");
}

int hm_stage_ram_plan(const struct hm_stage_run *run, uint64_t ram_bytes,
                      const struct hm_arch *arch, uint64_t tokens, bool backward,
                      uint64_t beside_bytes, struct hm_memory_plan *memory, struct hm_error *err)
{
    if (ram_bytes == 0)
        return HM_OK;
    uint64_t least = hm_memory_plan_limit(memory, arch, tokens, backward, beside_bytes, ram_bytes);
    if (least <= ram_bytes)
        return HM_OK;
    char trained[80] = "";
    if (backward)
        snprintf(trained, sizeof(trained), ", %.1f MiB of gradients and optimizer",
                 (double)(memory->gradients + memory->optimizer) / 1048576);
    return hm_fail(err, HM_ERR_NOFIT,
                   "stage '%s': set.ram allows %.1f MiB, at least %.1f MiB are needed: one layer "
                   "of weights beside %.1f MiB of activations%s and the rest; raise set.ram to "
                   "%" PRIu64 "M%s, or leave it out",
                   run->id, (double)ram_bytes / 1048576, (double)least / 1048576,
                   (double)memory->activations / 1048576, trained, (least >> 20) + 1,
                   backward && memory->activations > least / 3 ? ", shorten the micro-batch" : "");
}

int hm_stage_stream(const struct hm_stage_run *run,
                    int (*plan)(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                                struct hm_error *err),
                    struct hm_model *model, struct hm_error *err)
{
    struct hm_stage_plan planned = { 0 };

    int r = plan(run, &planned, err);
    if (r == HM_OK && planned.weights_budget > 0)
        r = hm_model_stream(model, planned.weights_budget, err);
    hm_stage_plan_release(&planned);
    return r;
}

int hm_stage_plan_lines(struct hm_stage_plan *plan, const struct hm_memory_plan *memory,
                        struct hm_error *err)
{
    plan->weights_budget = memory->weights_budget;
    HM_TRY(hm_stage_plan_mapped(plan, "weights", memory->weights_mapped, err));
    HM_TRY(hm_stage_plan_memory(plan, "adapter", memory->adapter, err));
    HM_TRY(hm_stage_plan_memory(plan, "gradients", memory->gradients, err));
    HM_TRY(hm_stage_plan_memory(plan, "optimizer", memory->optimizer, err));
    HM_TRY(hm_stage_plan_memory(plan, "activations", memory->activations, err));
    HM_TRY(hm_stage_plan_memory(plan, "scratch", memory->scratch, err));
    return hm_stage_plan_memory(plan, "other", memory->other, err);
}

static uint64_t planned_bytes(const struct hm_stage_plan *plan)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < plan->n_memory; i++)
        sum += plan->memory[i].mapped ? 0 : plan->memory[i].bytes;
    return sum;
}

/* Bytes of an adapter folder's tensors, which enter memory as f32. */
static int adapter_bytes(const struct hm_stage_run *run, uint64_t *ret_bytes, struct hm_error *err)
{
    uint64_t bytes = 0;

    HM_TRY(hm_stage_input_bytes(run, "adapter", &bytes, err));
    *ret_bytes = 2 * bytes;
    return HM_OK;
}

int hm_stage_eval_plan(const struct hm_stage_run *run, enum hm_round round, uint64_t ram_bytes,
                       uint32_t tokens, uint64_t rows, bool with_logits,
                       struct hm_stage_plan *ret_plan, struct hm_error *err)
{
    uint32_t seq_len = tokens ? tokens : 1, side_by_side = 1;
    struct hm_memory_plan memory = { 0 };
    struct stage_model model = { 0 };
    struct hm_kernels kernels;
    uint64_t adapter = 0;

    HM_TRY(hm_stage_kernels(run, &kernels, err));
    HM_TRY(hm_stage_model_plan(run, "model", &model, err));
    if (!model.known)
        return HM_OK;
    if (with_logits)
        side_by_side = hm_eval_rows(seq_len, model.arch.vocab_size);
    else
        seq_len = hm_eval_sequence(seq_len);
    if (rows > 0 && rows < side_by_side)
        side_by_side = (uint32_t)rows;
    int r = adapter_bytes(run, &adapter, err);
    if (r == HM_OK)
        r = hm_memory_plan_eval(&model.arch, side_by_side, seq_len, hm_model_packs(&kernels, round),
                                run->threads, &memory, err);
    memory.weights_mapped = model.file_bytes;
    memory.adapter += adapter;
    if (with_logits)
        memory.activations +=
            (uint64_t)seq_len * side_by_side *
            (4ull * model.arch.vocab_size + 4ull * model.arch.experts * model.arch.layers + 8);
    if (r == HM_OK)
        r = hm_stage_ram_plan(run, ram_bytes, &model.arch, (uint64_t)seq_len * side_by_side, false,
                              planned_bytes(ret_plan), &memory, err);
    if (r == HM_OK)
        r = hm_stage_plan_lines(ret_plan, &memory, err);
    hm_stage_model_release(&model);
    return r;
}
