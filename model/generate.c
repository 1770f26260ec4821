/* SPDX-License-Identifier: MIT */
/*
 * Continuing a prompt: the prompt in blocks, then token by token, over a key/value cache that the
 * layers write straight into. The same blocks as training run, without gradients. Greedy, or
 * temperature and nucleus sampling (Holtzman et al. 2020) with a random number that depends on seed
 * and position only.
 */
#include "hanmix/model/generate.h"

#include <math.h>

#include "hanmix/base/rng.h"
#include "internal.h"

struct candidate {
    int32_t id;
    double p;
};

struct generation {
    struct hm_model *model;
    const struct hm_generate_options *options;
    struct hm_workspace *ws;
    uint32_t context; /* rows of a layer's cache */
    float *keys;      /* [L][context][Hkv*C] */
    float *values;
    struct candidate *candidate; /* [V], sampling only */
};

static void generation_release(struct generation *gen)
{
    hm_workspace_free(gen->ws);
    hm_free(gen->keys);
    hm_free(gen->values);
    hm_free(gen->candidate);
}

static int generation_init(struct generation *gen, size_t n_prompt, struct hm_error *err)
{
    const struct hm_arch *arch = &gen->model->ckpt.arch;
    struct hm_shape shape = { .arch = *arch,
                              .rows = 1,
                              .seq_len =
                                  n_prompt < HM_PROMPT_BLOCK ? (uint32_t)n_prompt : HM_PROMPT_BLOCK,
                              .context = gen->context,
                              .rank = hm_adapter_rank(gen->model->adapter),
                              .threads = hm_threads(),
                              .packed = hm_model_packs(gen->model->kernels, gen->model->round) };
    size_t row = (size_t)arch->kv_heads * arch->head_dim * sizeof(float);
    size_t rows = (size_t)arch->layers * gen->context;

    gen->keys = hm_alloc_array(HM_MEM_ACTIVATION, rows, row);
    gen->values = hm_alloc_array(HM_MEM_ACTIVATION, rows, row);
    gen->candidate = hm_alloc_array(HM_MEM_SCRATCH, arch->vocab_size, sizeof(struct candidate));
    if (!gen->keys || !gen->values || !gen->candidate)
        return hm_fail_nomem(err, "for a cache of %u tokens", gen->context);
    return hm_workspace_make(&shape, &gen->ws, err);
}

/* Runs n tokens at position pos; returns the logits after the last one. */
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

static int candidate_order(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;

    if (a->p != b->p)
        return a->p < b->p ? 1 : -1;
    return a->id < b->id ? -1 : 1;
}

/* From softmax(logits / temperature), cut to the fewest ids that hold top_p of it. */
static int32_t sample(struct generation *gen, const float *logits, float largest, uint32_t pos)
{
    const uint32_t vocab = gen->model->ckpt.arch.vocab_size;
    const struct hm_generate_options *options = gen->options;
    struct candidate *candidate = gen->candidate;
    double sum = 0, kept = 0;
    uint32_t n = 0;

    for (uint32_t v = 0; v < vocab; v++) {
        candidate[v] =
            (struct candidate){ (int32_t)v, exp((logits[v] - largest) / options->temperature) };
        sum += candidate[v].p;
    }
    qsort(candidate, vocab, sizeof *candidate, candidate_order);
    while (n < vocab && (n == 0 || kept < options->top_p * sum))
        kept += candidate[n++].p;
    struct hm_rng_key key = { options->seed, 0 };
    double draw = hm_rng_uniform(key, pos) * kept;
    for (uint32_t i = 0; i < n; i++) {
        draw -= candidate[i].p;
        if (draw < 0)
            return candidate[i].id;
    }
    return candidate[n - 1].id;
}

static int choose(struct generation *gen, const float *logits, uint32_t pos, int32_t *ret_id,
                  double *ret_logprob, struct hm_error *err)
{
    const uint32_t vocab = gen->model->ckpt.arch.vocab_size;
    uint32_t best = 0;
    double sum = 0;

    for (uint32_t v = 0; v < vocab; v++) {
        if (!isfinite(logits[v]))
            return hm_fail(err, HM_ERR_NUMERIC,
                           "'%s': the logit of token %u at position %u is not finite; the model "
                           "or the adapter is damaged",
                           gen->model->ckpt.dir, v, pos);
        best = logits[v] > logits[best] ? v : best;
    }
    for (uint32_t v = 0; v < vocab; v++)
        sum += exp((double)logits[v] - logits[best]);
    *ret_id =
        gen->options->temperature > 0 ? sample(gen, logits, logits[best], pos) : (int32_t)best;
    *ret_logprob = (double)logits[*ret_id] - logits[best] - log(sum);
    return HM_OK;
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
    struct generation gen = { .model = model, .options = options };
    float *logits = NULL;
    int32_t id = 0;
    double logprob = 0;
    uint32_t pos = 0;

    HM_TRY(prompt_check(model, prompt, n_prompt, options, err));
    gen.context = (uint32_t)n_prompt + options->max_tokens;
    int status = generation_init(&gen, n_prompt, err);
    if (status < 0)
        goto out;
    while (pos < n_prompt) {
        uint32_t n = n_prompt - pos < HM_PROMPT_BLOCK ? (uint32_t)n_prompt - pos : HM_PROMPT_BLOCK;
        logits = generation_feed(&gen, prompt + pos, pos, n);
        pos += n;
    }
    for (uint32_t made = 0; made < options->max_tokens; made++) {
        if (made > 0)
            logits = generation_feed(&gen, &id, pos++, 1);
        status = hm_weights_check(model, err);
        if (status < 0)
            goto out;
        if (hm_ctl_stopped(ctl)) {
            status = hm_fail(err, HM_ERR_STOPPED, "stopped after %u tokens", made);
            goto out;
        }
        status = choose(&gen, logits, pos, &id, &logprob, err);
        if (status < 0 || token(context, id, logprob) != 0 || id == options->eos_id)
            goto out;
    }
out:
    generation_release(&gen);
    return status;
}
