/* SPDX-License-Identifier: MIT */
/*
 * Settings of qlora.train; see train_config.h. Names and defaults are those of peft and
 * transformers where they have one.
 */
#include "train_config.h"

#include <inttypes.h>
#include <math.h>

#include "hanmix/base/alloc.h"
#include "stage_runtime.h"
#include "stage_util.h"

#define FIELD(field) .offset = offsetof(struct train_settings, field)

static const char *const rows_words[] = { "none", "new", "all", NULL };
static const char *const optimizers[] = { "adamw", "adamw8bit", NULL };
static const char *const states[] = { "memory", "file", NULL };
static const char *const schedules[] = { "constant", "linear", "cosine", NULL };
static const char *const decays[] = { "lora", "all", NULL };
static const char *const norms[] = { "tokens", "micro", NULL };
static const char *const attentions[] = { "causal", "document", NULL };

const struct hm_field hm_train_fields[HM_TRAIN_N_FIELDS] = {
    { .name = "rank",
      .type = HM_FIELD_COUNT,
      FIELD(rank),
      .fallback = "8",
      .min = 1,
      .max = 4096,
      .help = "rank of the LoRA factors" },
    { .name = "alpha",
      .type = HM_FIELD_DOUBLE,
      FIELD(alpha),
      .fallback = "16",
      .max = 1e6,
      .help = "scale of the update: alpha / rank, or alpha / sqrt(rank) with rslora" },
    { .name = "rslora",
      .type = HM_FIELD_BOOL,
      FIELD(rslora),
      .fallback = "false",
      .help = "rank-stabilised scale" },
    { .name = "dropout",
      .type = HM_FIELD_DOUBLE,
      FIELD(dropout),
      .fallback = "0",
      .max = 0.99,
      .help = "share of a LoRA factor's inputs set to zero while training" },
    { .name = "targets",
      .type = HM_FIELD_LIST,
      FIELD(targets),
      .help = "adapted modules by the end of their name; every linear of the blocks but the router "
              "when absent" },
    { .name = "rank_pattern",
      .type = HM_FIELD_MAP,
      FIELD(rank_pattern),
      .help = "module name or pattern: rank" },
    { .name = "alpha_pattern",
      .type = HM_FIELD_MAP,
      FIELD(alpha_pattern),
      .help = "module name or pattern: alpha" },
    { .name = "train_embeddings",
      .type = HM_FIELD_CHOICE,
      FIELD(train_embeddings),
      .fallback = "none",
      .choices = rows_words,
      .help = "rows of embed_tokens trained in full: none, those vocab.resize added, all" },
    { .name = "train_head",
      .type = HM_FIELD_CHOICE,
      FIELD(train_head),
      .fallback = "none",
      .choices = rows_words,
      .help = "rows of lm_head trained in full: none, those vocab.resize added, all" },
    { .name = "train_gate",
      .type = HM_FIELD_BOOL,
      FIELD(train_gate),
      .fallback = "false",
      .help = "train the routers in full" },
    { .name = "train_all",
      .type = HM_FIELD_BOOL,
      FIELD(train_all),
      .fallback = "false",
      .help = "train every weight of an unquantised model; writes model/ and no adapter" },
    STAGE_COMPUTE_FIELD(struct train_settings),
    { .name = "optimizer",
      .type = HM_FIELD_CHOICE,
      FIELD(optimizer),
      .fallback = "adamw",
      .choices = optimizers,
      .help = "AdamW with decoupled weight decay; adamw8bit: its moments in 8 bits, block-wise as "
              "bitsandbytes' AdamW8bit" },
    { .name = "lr",
      .type = HM_FIELD_DOUBLE,
      FIELD(lr),
      .fallback = "1e-4",
      .max = 100,
      .help = "highest learning rate" },
    { .name = "lr_schedule",
      .type = HM_FIELD_CHOICE,
      FIELD(lr_schedule),
      .fallback = "cosine",
      .choices = schedules,
      .help = "course of the rate after the warm-up" },
    { .name = "warmup",
      .type = HM_FIELD_DOUBLE,
      FIELD(warmup),
      .fallback = "0.03",
      .max = 1e12,
      .help =
          "warm-up: a share of the steps below 1, steps from 1 on; the first update has rate 0" },
    { .name = "min_lr",
      .type = HM_FIELD_DOUBLE,
      FIELD(min_lr),
      .fallback = "0",
      .max = 100,
      .help = "the rate does not fall below this after the warm-up" },
    { .name = "betas",
      .type = HM_FIELD_LIST,
      FIELD(betas),
      .fallback = "0.9,0.999",
      .help = "AdamW's two averages" },
    { .name = "eps",
      .type = HM_FIELD_DOUBLE,
      FIELD(eps),
      .fallback = "1e-8",
      .min = 1e-30, /* 0 / 0 where a gradient is zero */
      .max = 1,
      .help = "AdamW's guard against division by zero" },
    { .name = "weight_decay",
      .type = HM_FIELD_DOUBLE,
      FIELD(weight_decay),
      .fallback = "0",
      .max = 10,
      .help = "decoupled weight decay" },
    { .name = "decay",
      .type = HM_FIELD_CHOICE,
      FIELD(decay),
      .fallback = "lora",
      .choices = decays,
      .help = "what weight_decay applies to: lora_A and lora_B, or everything trained" },
    { .name = "clip",
      .type = HM_FIELD_DOUBLE,
      FIELD(clip),
      .fallback = "1.0",
      .max = 1e9,
      .help = "largest global gradient norm; 0 does not clip" },
    { .name = "micro_batch",
      .type = HM_FIELD_COUNT,
      FIELD(micro_batch),
      .fallback = "1",
      .min = 1,
      .max = 65536,
      .help = "samples in one forward and backward pass" },
    { .name = "accumulate",
      .type = HM_FIELD_COUNT,
      FIELD(accumulate),
      .fallback = "1",
      .min = 1,
      .max = 1e6,
      .help = "micro-batches in one step" },
    { .name = "loss_norm",
      .type = HM_FIELD_CHOICE,
      FIELD(loss_norm),
      .fallback = "tokens",
      .choices = norms,
      .help = "a step's loss: mean over its target tokens, or mean of its micro-batches' means" },
    { .name = "aux_coef",
      .type = HM_FIELD_DOUBLE,
      FIELD(aux_coef),
      .fallback = "0",
      .max = 1000,
      .help = "weight of the routers' load-balancing loss" },
    { .name = "steps",
      .type = HM_FIELD_COUNT,
      FIELD(steps),
      .min = 1,
      .max = 1e12,
      .help = "optimiser steps; one of steps, epochs, tokens, else one epoch" },
    { .name = "epochs",
      .type = HM_FIELD_DOUBLE,
      FIELD(epochs),
      .min = 1e-9,
      .max = 1e6,
      .help = "passes over the data" },
    { .name = "tokens",
      .type = HM_FIELD_COUNT,
      FIELD(tokens),
      .min = 1,
      .max = 1e15,
      .help = "tokens to train on" },
    { .name = "eval_every",
      .type = HM_FIELD_COUNT,
      FIELD(eval_every),
      .max = 1e12,
      .help =
          "steps between evaluations on in.valid; 0: before the first and after the last only" },
    { .name = "save_every",
      .type = HM_FIELD_COUNT,
      FIELD(save_every),
      .fallback = "100",
      .max = 1e12,
      .help = "steps between saved states; 0: only after the last, when stopped, or on a numeric "
              "failure" },
    { .name = "keep",
      .type = HM_FIELD_COUNT,
      FIELD(keep),
      .fallback = "2",
      .min = 1,
      .max = 1e6,
      .help = "states kept" },
    { .name = "recompute",
      .type = HM_FIELD_BOOL,
      FIELD(recompute),
      .fallback = "true",
      .help = "keep only the layers' inputs and compute each layer again in the backward pass" },
    { .name = "shuffle",
      .type = HM_FIELD_BOOL,
      FIELD(shuffle),
      .fallback = "true",
      .help = "packed data in an order drawn by seed; ids are always taken in file order" },
    { .name = "attention",
      .type = HM_FIELD_CHOICE,
      FIELD(attention),
      .fallback = "causal",
      .choices = attentions,
      .help = "document: a token sees only its own document within the window" },
    { .name = "ram",
      .type = HM_FIELD_SIZE,
      FIELD(ram),
      .neutral = true,
      .help = "keep the process within so many bytes: what does not fit of the frozen weights is "
              "read ahead of use and dropped behind; 0 none" },
    { .name = "state",
      .type = HM_FIELD_CHOICE,
      FIELD(state),
      .fallback = "memory",
      .choices = states,
      .neutral = true,
      .help =
          "where trained values, gradients and moments live: in memory, or in a scratch file of "
          "the run folder that is read and written layer by layer; same results" },
    { .name = "dump_gradients",
      .type = HM_FIELD_COUNT,
      FIELD(dump_gradients),
      .max = 1e12,
      .help = "step whose gradients are written to gradients-<step>.safetensors; 0 none" },
    { .name = "time_limit",
      .type = HM_FIELD_DOUBLE,
      FIELD(time_limit),
      .max = 1e9,
      .neutral = true,
      .help = "seconds after which the state is saved and the run stops with exit 75; 0 none" },
    { .name = "allow_kernel_change",
      .type = HM_FIELD_BOOL,
      FIELD(allow_kernel_change),
      .fallback = "false",
      .neutral = true,
      .help = "continue a state made on another kernel path, giving up equal bytes" },
};

static int betas_parse(const struct train_settings *settings, double *ret_beta1, double *ret_beta2,
                       struct hm_error *err)
{
    if (settings->betas.count != 2)
        return hm_fail(err, HM_ERR_USAGE, "set.betas has %zu values; it needs two, as 0.9,0.999",
                       settings->betas.count);
    int r = hm_parse_double(settings->betas.item[0], ret_beta1, err);
    if (r == HM_OK)
        r = hm_parse_double(settings->betas.item[1], ret_beta2, err);
    if (r < 0) {
        hm_error_prefix(err, "set.betas");
        return r;
    }
    if (!(*ret_beta1 >= 0 && *ret_beta1 < 1 && *ret_beta2 >= 0 && *ret_beta2 < 1))
        return hm_fail(err, HM_ERR_USAGE,
                       "set.betas are %g and %g; both must be at least 0 and below 1", *ret_beta1,
                       *ret_beta2);
    return HM_OK;
}

/* Full parameters have no factors, no chosen modules, and no adapter to begin with. */
static int all_check(const struct hm_stage_run *run, struct hm_error *err)
{
    static const char *const of_adapters[] = { "rank",
                                               "alpha",
                                               "rslora",
                                               "dropout",
                                               "targets",
                                               "rank_pattern",
                                               "alpha_pattern",
                                               "train_embeddings",
                                               "train_head",
                                               "train_gate",
                                               NULL };
    const struct train_settings *s = run->config;

    if (!s->train_all)
        return HM_OK;
    HM_TRY(hm_stage_refuse_given(run, of_adapters,
                                 "train_all trains every weight in full and no adapter; leave one "
                                 "of them out",
                                 err));
    if (hm_stage_input(run, "adapter"))
        return hm_fail(err, HM_ERR_USAGE,
                       "set.train_all does not start from in.adapter; merge it first");
    return HM_OK;
}

static int data_check(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct train_settings *s = run->config;
    const char *path = NULL;

    if (!hm_stage_input(run, "data") == !hm_stage_input(run, "ids"))
        return hm_fail(err, HM_ERR_USAGE, "stage '%s' needs either in.data or in.ids", run->id);
    HM_TRY(hm_stage_path(run, hm_stage_input(run, "ids") ? "ids" : "data", &path, err));
    bool packed = !hm_stage_input(run, "ids") && !hm_text_ends(path, ".safetensors");
    if (!packed && s->shuffle && hm_stage_given(run, "shuffle"))
        return hm_fail(err, HM_ERR_USAGE,
                       "set.shuffle goes with packed data; rows of ids are taken in file order");
    if (!packed && s->attention == 1)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.attention=document goes with packed data; rows of ids know no "
                       "documents");
    if (!hm_stage_input(run, "valid") && s->eval_every > 0)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.eval_every is %" PRIu64 ", but there is no in.valid to evaluate on",
                       s->eval_every);
    return HM_OK;
}

int hm_train_settings_check(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct train_settings *s = run->config;
    double beta1 = 0;
    double beta2 = 0;

    HM_TRY(betas_parse(s, &beta1, &beta2, err));
    if ((s->steps > 0) + (s->epochs > 0) + (s->tokens > 0) > 1)
        return hm_fail(err, HM_ERR_USAGE,
                       "only one of set.steps, set.epochs and set.tokens may be given");
    HM_TRY(all_check(run, err));
    HM_TRY(data_check(run, err));
    bool no_factors = s->train_all || (s->targets.given && s->targets.count == 0);
    if (no_factors && s->weight_decay > 0 && s->decay == 0)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.weight_decay applies to lora_A and lora_B, and there are none; "
                       "set.decay=all applies it to all that is trained");
    if (s->min_lr > s->lr)
        return hm_fail(err, HM_ERR_USAGE, "set.min_lr %g is above set.lr %g", s->min_lr, s->lr);
    return HM_OK;
}

static uint64_t steps_of(const struct train_settings *s, uint64_t samples, uint64_t per_step,
                         uint32_t seq_len)
{
    double epochs = s->epochs > 0 ? s->epochs : 1;

    if (s->steps > 0)
        return s->steps;
    if (s->tokens > 0)
        return (s->tokens + per_step * seq_len - 1) / (per_step * seq_len);
    return (uint64_t)ceil(epochs * (double)samples / (double)per_step);
}

int hm_train_job_config(const struct hm_stage_run *run, uint64_t samples, uint32_t seq_len,
                        uint32_t micro_rows, struct hm_train_config *ret_config,
                        struct hm_error *err)
{
    const struct train_settings *s = run->config;
    uint32_t micro_batch = micro_rows ? micro_rows : (uint32_t)s->micro_batch;
    if (micro_batch != s->micro_batch && hm_stage_given(run, "micro_batch"))
        return hm_fail(err, HM_ERR_USAGE,
                       "set.micro_batch is %" PRIu64
                       ", the micro-batches of the ids file have %u rows; leave it out",
                       s->micro_batch, micro_rows);
    struct hm_train_config config = { .lr = s->lr,
                                      .min_lr = s->min_lr,
                                      .eps = s->eps,
                                      .weight_decay = s->weight_decay,
                                      .clip = s->clip,
                                      .decay_all = s->decay == 1,
                                      .coded_moments = s->optimizer == 1,
                                      .lr_schedule = (enum hm_lr_schedule)s->lr_schedule,
                                      .warmup = s->warmup,
                                      .micro_batch = micro_batch,
                                      .accumulate = (uint32_t)s->accumulate,
                                      .loss_norm = (enum hm_loss_norm)s->loss_norm,
                                      .aux_coef = s->aux_coef,
                                      .eval_every = s->eval_every,
                                      .save_every = s->save_every,
                                      .keep = s->keep,
                                      .recompute = s->recompute,
                                      .seed = run->seed,
                                      .dump_gradients = s->dump_gradients,
                                      .time_limit_seconds = s->time_limit,
                                      .allow_kernel_change = s->allow_kernel_change };

    HM_TRY(betas_parse(s, &config.beta1, &config.beta2, err));
    config.steps = steps_of(s, samples, (uint64_t)micro_batch * s->accumulate, seq_len);
    if (s->dump_gradients > config.steps)
        return hm_fail(err, HM_ERR_USAGE,
                       "set.dump_gradients is step %" PRIu64 ", the run has %" PRIu64,
                       s->dump_gradients, config.steps);
    *ret_config = config;
    return HM_OK;
}
