/* SPDX-License-Identifier: MIT */
/*
 * A training job over the recorded model, adapter and batches.
 */
#include "train_fixture.h"

static int on_step(void *context, const struct hm_train_metrics *metrics, struct hm_error *err)
{
    struct train_run *run = context;

    run->log[metrics->step] = *metrics;
    run->stop = metrics->step == run->stop_after;
    if (metrics->step == run->fail_after)
        return hm_fail(err, HM_ERR_IO, "killed");
    return HM_OK;
}

void train_open_with(struct train_run *run, const char *model_dir, enum hm_round round,
                     const struct hm_kernels *kernels, const char *state_dir,
                     const struct hm_adapter_config *config, struct hm_scratch *store)
{
    const struct hm_adapter_config asked = { .store = store };
    struct hm_model_options options = { .round = round, .check_finite = true };
    struct hm_error err = { 0 };

    *run = (struct train_run){ .kernels = *kernels };
    options.kernels = &run->kernels;
    assert_ok(hm_model_open(model_dir, &options, &run->model, &err), err);
    const struct hm_checkpoint *ckpt = hm_model_checkpoint(run->model);
    if (config)
        assert_ok(hm_adapter_new(ckpt, config, true, &run->adapter, &err), err);
    else
        assert_ok(hm_adapter_start(golden_path("train/initial_adapter"), ckpt, &asked, 0,
                                   &run->adapter, &err),
                  err);
    hm_model_attach(run->model, run->adapter);
    assert_ok(hm_samples_open_ids(golden_path("train/batches.safetensors"), &run->data, &err), err);
    run->ctl.stop = &run->stop;
    run->job = (struct hm_train_job){
        .model = run->model,
        .kernels = &run->kernels,
        .adapter = run->adapter,
        .data = run->data,
        .config = { .lr = 0.002,
                    .beta1 = 0.9,
                    .beta2 = 0.95,
                    .eps = 1e-8,
                    .weight_decay = 0.1,
                    .clip = 1,
                    .lr_schedule = HM_LR_COSINE,
                    .warmup = 4,
                    .micro_batch = 2,
                    .accumulate = 2,
                    .loss_norm = HM_LOSS_MICRO,
                    .steps = TRAIN_STEPS,
                    .recompute = true,
                    .seed = 7 },
        .state_dir = state_dir,
        .config_digest = "recorded",
        .callbacks = { .context = run, .on_step = on_step },
    };
}

void train_open(struct train_run *run, const char *model_dir, enum hm_round round,
                const struct hm_kernels *kernels, const char *state_dir)
{
    train_open_with(run, model_dir, round, kernels, state_dir, NULL, NULL);
}

void train_close(struct train_run *run)
{
    hm_samples_close(run->data);
    hm_model_attach(run->model, NULL);
    hm_adapter_free(run->adapter);
    hm_model_free(run->model);
}

int train_go(struct train_run *run, struct hm_error *err)
{
    run->stop = 0;
    return hm_train(&run->job, &run->ctl, &run->report, err);
}

void train_digest(const struct train_run *run, const char *dir, char hex[HM_SHA256_HEX_BYTES])
{
    struct hm_error err = { 0 };

    assert_ok(hm_adapter_save(run->adapter, hm_model_checkpoint(run->model), "base", dir, &err),
              err);
    assert_ok(hm_sha256_file(tmp_path(dir, "adapter_model.safetensors"), NULL, hex, &err), err);
}
