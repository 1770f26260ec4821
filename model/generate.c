/* SPDX-License-Identifier: MIT */
/*
 * Continuing a prompt: the prompt in blocks, then token by token, over a key/value cache that the
 * layers write straight into. The same blocks as training run, without gradients. Which token comes
 * next is sample.c's.
 */
#include "hanmix/model/generate.h"

#include "internal.h"
#include "sample.h"

struct generation {
    struct hm_model *model;
    const struct hm_ctl *ctl;
    struct hm_workspace *ws;
    struct hm_sampler sampler;
    uint32_t context; /* rows of a layer's cache */
    float *keys;      /* [L][context][Hkv*C] */
    float *values;
};

static void generation_release(struct generation *gen)
{
    hm_workspace_free(gen->ws);
    hm_free(gen->keys);
    hm_free(gen->values);
    hm_sampler_release(&gen->sampler);
}

static int generation_init(struct generation *gen, size_t n_prompt,
                           const struct hm_generate_options *options, struct hm_error *err)
{
    const struct hm_arch *arch = &gen->model->ckpt.arch;
    struct hm_shape shape = { .arch = *arch,
                              .rows = 1,
                              .seq_len = hm_prompt_rows(n_prompt),
                              .context = gen->context,
                              .rank = hm_adapter_rank(gen->model->adapter),
                              .threads = hm_threads(),
                              .packed = hm_model_packs(gen->model->kernels, gen->model->round) };
    size_t row = (size_t)arch->kv_heads * arch->head_dim * sizeof(float);
    size_t rows = (size_t)arch->layers * gen->context;

    gen->keys = hm_alloc_array(HM_MEM_ACTIVATION, rows, row);
    gen->values = hm_alloc_array(HM_MEM_ACTIVATION, rows, row);
    if (!gen->keys || !gen->values)
        return hm_fail_nomem(err, "for a cache of %u tokens", gen->context);
    HM_TRY(hm_sampler_init(gen->model->kernels, options, arch->vocab_size, &gen->sampler, err));
    return hm_workspace_make(&shape, &gen->ws, err);
}

/* Runs n tokens at position pos; returns the logits after the last one, or NULL when told to stop.
 */
static float *generation_feed(struct generation *gen, const int32_t *ids, uint32_t pos, uint32_t n)
{
    static const struct hm_step_options plain;
    const struct hm_arch *arch = &gen->model->ckpt.arch;
    const struct hm_batch batch = { .rows = 1, .seq_len = n, .ids = ids };
    const size_t row = (size_t)arch->kv_heads * arch->head_dim;
    float *logits = hm_f32(gen->ws, HM_BUF_LOGITS), *h = hm_f32(gen->ws, HM_BUF_H);
    struct hm_step step;
    struct hm_norm norm;
    struct hm_linear head;

    hm_step_init(gen->model, gen->ws, &batch, &plain, &step);
    step.context = gen->context;
    hm_attention_prepare(&step, pos, pos + n);
    struct hm_block_state state = hm_block_state(&step, 0);
    hm_embed_forward(&step, state.x);
    hm_weights_pass_begin(&step, HM_PASS_FORWARD, HM_PASS_FORWARD);
    for (uint32_t layer = 0; layer < arch->layers; layer++) {
        size_t base = (size_t)layer * gen->context;
        if (hm_ctl_stopped(gen->ctl))
            return NULL;
        state.keys = gen->keys + base * row;
        state.values = gen->values + base * row;
        state.k = gen->keys + (base + pos) * row;
        state.v = gen->values + (base + pos) * row;
        hm_block_forward(&step, layer, &state, state.mid);
    }
    hm_final_norm_view(gen->model, &norm);
    hm_norm_rows(&step, &norm, state.x, h, state.rho1);
    hm_head_view(gen->model, &head);
    struct hm_fan fan = { .n = 1,
                          .x = h + (size_t)(n - 1) * arch->hidden,
                          .branch = { hm_branch_make(&step, &head, logits, 0, HM_LOW_HEAD, 0) },
                          .n_branches = 1 };
    hm_head_acquire(gen->model);
    hm_fan_forward(&step, &fan);
    hm_head_release(gen->model);
    return logits;
}

static int prompt_check(const struct hm_model *model, const int32_t *prompt, size_t n_prompt,
                        const struct hm_generate_options *options, struct hm_error *err)
{
    uint32_t vocab = model->ckpt.arch.vocab_size;

    if (n_prompt == 0)
        return hm_fail(err, HM_ERR_USAGE, "the prompt is empty: give at least one token");
    if (n_prompt + options->max_tokens > INT32_MAX / 2)
        return hm_fail(err, HM_ERR_NOFIT, "%zu + %u tokens are too many", n_prompt,
                       options->max_tokens);
    for (size_t i = 0; i < n_prompt; i++)
        if (prompt[i] < 0 || (uint32_t)prompt[i] >= vocab)
            return hm_fail(err, HM_ERR_FORMAT, "token id %d in the prompt: the model has %u tokens",
                           prompt[i], vocab);
    return HM_OK;
}

int hm_generate(struct hm_model *model, const int32_t *prompt, size_t n_prompt,
                const struct hm_generate_options *options,
                int (*token)(void *context, int32_t id, double logprob), void *context,
                const struct hm_ctl *ctl, struct hm_error *err)
{
    struct generation gen = { .model = model, .ctl = ctl };
    float *logits = NULL;
    uint32_t pos = 0, made = 0;
    int32_t id = 0;
    double logprob = 0;

    HM_TRY(prompt_check(model, prompt, n_prompt, options, err));
    gen.context = (uint32_t)n_prompt + options->max_tokens;
    int status = generation_init(&gen, n_prompt, options, err);
    if (status < 0)
        goto out;
    while (pos < n_prompt) {
        uint32_t n = (uint32_t)hm_least(n_prompt - pos, HM_PROMPT_BLOCK);
        logits = generation_feed(&gen, prompt + pos, pos, n);
        if (!logits)
            goto stopped;
        pos += n;
    }
    for (; made < options->max_tokens; made++) {
        if (made > 0)
            logits = generation_feed(&gen, &id, pos++, 1);
        if (!logits || hm_ctl_stopped(ctl))
            goto stopped;
        status = hm_sampler_next(&gen.sampler, logits, pos, &id, &logprob, err);
        if (status < 0) {
            hm_error_prefix(err, "'%s'", model->ckpt.dir);
            goto out;
        }
        if (token(context, id, logprob) != 0 || id == options->eos_id)
            goto out;
    }
    goto out;
stopped:
    status = hm_fail(err, HM_ERR_STOPPED, "stopped after %u tokens", made);
out:
    generation_release(&gen);
    return status;
}
