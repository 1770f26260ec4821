/* SPDX-License-Identifier: MIT */
/*
 * The adapter of a training run: a new one by the settings, or one of a folder with what the
 * settings ask for beside it; and the same foretold for plans, from the folder or from the plan of
 * the stage that will write it.
 */
#include "train_adapter.h"

#include "hanmix/base/alloc.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "stage_util.h"

/* The text of a map's values as numbers. */
static int patterns_parse(const char *field, const struct hm_text_map *map,
                          struct hm_pattern **ret_pattern, size_t *ret_count, struct hm_error *err)
{
    struct hm_pattern *pattern =
        hm_calloc(HM_MEM_ADAPTER, map->count ? map->count : 1, sizeof(*pattern));

    if (!pattern)
        return hm_fail_nomem(err, "for set.%s", field);
    *ret_pattern = pattern;
    for (size_t i = 0; i < map->count; i++) {
        pattern[i].key = hm_strdup(HM_MEM_ADAPTER, map->key[i]);
        *ret_count = i + 1;
        if (!pattern[i].key)
            return hm_fail_nomem(err, "for set.%s", field);
        if (hm_parse_double(map->value[i], &pattern[i].value, NULL) < 0 || !(pattern[i].value > 0))
            return hm_fail(err, HM_ERR_USAGE, "set.%s.%s is '%s'; it must be a number above 0",
                           field, map->key[i], map->value[i]);
    }
    return HM_OK;
}

static int targets_copy(const struct train_settings *settings, const struct hm_arch *arch,
                        struct hm_adapter_config *config, struct hm_error *err)
{
    size_t room = settings->targets.count + HM_WEIGHT_KINDS;

    config->target = hm_calloc(HM_MEM_ADAPTER, room, sizeof(*config->target));
    if (!config->target)
        return hm_fail_nomem(err, "for set.targets");
    for (size_t i = 0; i < settings->targets.count; i++)
        config->target[config->n_targets++] = hm_strdup(HM_MEM_ADAPTER, settings->targets.item[i]);
    for (int kind = 0; kind < HM_WEIGHT_KINDS && !settings->targets.given; kind++) {
        bool in_block = hm_weight_kind_is_linear((enum hm_weight_kind)kind) &&
                        kind != HM_WEIGHT_GATE && kind != HM_WEIGHT_HEAD;
        if (in_block)
            config->target[config->n_targets++] =
                hm_strdup(HM_MEM_ADAPTER, hm_weight_kind_name(arch, (enum hm_weight_kind)kind));
    }
    for (size_t i = 0; i < config->n_targets; i++) {
        if (!config->target[i])
            return hm_fail_nomem(err, "for set.targets");
    }
    return HM_OK;
}

/* targets default to every linear of the blocks but the router. */
static int config_of_settings(const struct train_settings *settings, const struct hm_arch *arch,
                              uint64_t seed, struct hm_adapter_config *ret_config,
                              struct hm_error *err)
{
    struct hm_adapter_config config = { .rank = (uint32_t)settings->rank,
                                        .alpha = settings->alpha,
                                        .rslora = settings->rslora,
                                        .dropout = settings->dropout,
                                        .embed = (enum hm_rows)settings->train_embeddings,
                                        .head = (enum hm_rows)settings->train_head,
                                        .gate = settings->train_gate,
                                        .all = settings->train_all,
                                        .seed = seed };

    int r = targets_copy(settings, arch, &config, err);
    if (r == HM_OK)
        r = patterns_parse("rank_pattern", &settings->rank_pattern, &config.rank_pattern,
                           &config.n_rank_pattern, err);
    if (r == HM_OK)
        r = patterns_parse("alpha_pattern", &settings->alpha_pattern, &config.alpha_pattern,
                           &config.n_alpha_pattern, err);
    if (r < 0) {
        hm_adapter_config_release(&config);
        return r;
    }
    *ret_config = config;
    return HM_OK;
}

/* Settings that were written; those left out are the folder's. */
static unsigned settings_asked(const struct hm_stage_run *run)
{
    static const struct {
        const char *setting;
        enum hm_ask ask;
    } table[] = { { "rank", HM_ASK_RANK },
                  { "alpha", HM_ASK_ALPHA },
                  { "rslora", HM_ASK_RSLORA },
                  { "dropout", HM_ASK_DROPOUT },
                  { "targets", HM_ASK_TARGETS },
                  { "rank_pattern", HM_ASK_RANK_PATTERN },
                  { "alpha_pattern", HM_ASK_ALPHA_PATTERN },
                  { "train_embeddings", HM_ASK_EMBED },
                  { "train_head", HM_ASK_HEAD },
                  { "train_gate", HM_ASK_GATE } };
    unsigned asked = 0;

    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (hm_stage_given(run, table[i].setting))
            asked |= table[i].ask;
    return asked;
}

int hm_train_store_open(const struct hm_stage_run *run, const struct hm_checkpoint *ckpt,
                        struct hm_scratch **ret_store, struct hm_error *err)
{
    const struct train_settings *settings = run->config;
    struct hm_adapter_config config = { 0 };
    struct hm_vocab_record record = { 0 };
    struct hm_adapter *layout = NULL;

    if (settings->state == 0)
        return HM_OK;
    HM_TRY(hm_vocab_record_read(ckpt->dir, ckpt->arch.vocab_size, &record, err));
    HM_TRY(hm_train_adapter_plan(run, &ckpt->arch, record.old_vocab_size, &config, err));
    int r = hm_adapter_plan(&ckpt->arch, &config, record.old_vocab_size, &layout, err);
    if (r == HM_OK)
        r = hm_scratch_new(run->out_dir, hm_train_store_bytes(layout, settings->optimizer == 1),
                           ret_store, err);
    hm_adapter_free(layout);
    hm_adapter_config_release(&config);
    return r;
}

int hm_train_adapter_open(const struct hm_stage_run *run, const struct hm_checkpoint *ckpt,
                          struct hm_scratch *store, struct hm_adapter **ret_adapter,
                          struct hm_error *err)
{
    struct hm_adapter_config config = { 0 };
    const char *path = NULL;

    if (hm_stage_input(run, "adapter"))
        HM_TRY(hm_stage_path(run, "adapter", &path, err));
    HM_TRY(config_of_settings(run->config, &ckpt->arch, run->seed, &config, err));
    config.store = store;
    int r = path ? hm_adapter_start(path, ckpt, &config, settings_asked(run), ret_adapter, err)
                 : hm_adapter_new(ckpt, &config, true, ret_adapter, err);
    hm_adapter_config_release(&config);
    return r;
}

/* --- for plans --- */

static int foretold_targets(const json_t *list, struct hm_adapter_config *config,
                            struct hm_error *err)
{
    config->target = hm_calloc(HM_MEM_ADAPTER, json_array_size(list), sizeof(*config->target));
    if (!config->target)
        return hm_fail_nomem(err, "for the plan of an adapter");
    for (size_t i = 0; i < json_array_size(list); i++) {
        config->target[i] = hm_strdup(HM_MEM_ADAPTER, json_string_value(json_array_get(list, i)));
        if (!config->target[i])
            return hm_fail_nomem(err, "for the plan of an adapter");
        config->n_targets++;
    }
    return HM_OK;
}

static int foretold_ranks(json_t *ranks, struct hm_adapter_config *config, struct hm_error *err)
{
    const char *key;
    json_t *value;

    config->rank_pattern =
        hm_calloc(HM_MEM_ADAPTER, json_object_size(ranks), sizeof(*config->rank_pattern));
    if (!config->rank_pattern)
        return hm_fail_nomem(err, "for the plan of an adapter");
    json_object_foreach(ranks, key, value)
    {
        struct hm_pattern *pattern = &config->rank_pattern[config->n_rank_pattern];
        pattern->key = hm_strdup(HM_MEM_ADAPTER, key);
        pattern->value = json_number_value(value);
        if (!pattern->key)
            return hm_fail_nomem(err, "for the plan of an adapter");
        config->n_rank_pattern++;
    }
    return HM_OK;
}

/* Of an adapter that an earlier stage will write; without a forecast, as a new one. */
static int config_foretold(const struct hm_stage_run *run, const struct hm_adapter_config *asked,
                           struct hm_adapter_config *ret_config, struct hm_error *err)
{
    const json_t *adapter =
        json_object_get(hm_stage_input(run, "adapter")->set[0].facts, "adapter");
    struct hm_adapter_config held = { .alpha = asked->alpha };
    uint64_t rank = asked->rank;

    if (!adapter)
        return hm_adapter_config_copy(asked, ret_config, err);
    hm_stage_fact_u64(run, "adapter", "rank", &rank);
    held.rank = (uint32_t)rank;
    held.embed = (enum hm_rows)json_integer_value(json_object_get(adapter, "embed"));
    held.head = (enum hm_rows)json_integer_value(json_object_get(adapter, "head"));
    held.gate = json_is_true(json_object_get(adapter, "gate"));
    int r = foretold_targets(json_object_get(adapter, "targets"), &held, err);
    if (r == HM_OK)
        r = foretold_ranks(json_object_get(adapter, "ranks"), &held, err);
    if (r == HM_OK) {
        struct hm_adapter_config joined = held; /* borrows from both */
        hm_adapter_config_ask(&joined, asked, settings_asked(run));
        r = hm_adapter_config_copy(&joined, ret_config, err);
    }
    hm_adapter_config_release(&held);
    return r;
}

/* Of a folder that is there, over a model that is there. */
static int config_of_folder(const struct hm_stage_run *run, const struct hm_adapter_config *asked,
                            struct hm_adapter_config *ret_config, struct hm_error *err)
{
    struct hm_checkpoint ckpt = { 0 };
    const char *model = NULL;
    const char *path = NULL;

    HM_TRY(hm_stage_path(run, "model", &model, err));
    HM_TRY(hm_stage_path(run, "adapter", &path, err));
    HM_TRY(hm_checkpoint_open(model, &ckpt, err));
    int r = hm_adapter_start_plan(path, &ckpt, asked, settings_asked(run), ret_config, err);
    hm_checkpoint_close(&ckpt);
    return r;
}

int hm_train_adapter_plan(const struct hm_stage_run *run, const struct hm_arch *arch,
                          uint64_t old_vocab, struct hm_adapter_config *ret_config,
                          struct hm_error *err)
{
    struct hm_adapter_config config = { 0 };
    int r = HM_OK;

    HM_TRY(config_of_settings(run->config, arch, run->seed, &config, err));
    if (!hm_stage_input(run, "adapter")) {
        r = hm_adapter_config_check(arch, &config, old_vocab, err);
        if (r == HM_OK)
            r = hm_adapter_config_copy(&config, ret_config, err);
    } else if (hm_stage_pending(run, "adapter") || hm_stage_pending(run, "model")) {
        r = config_foretold(run, &config, ret_config, err);
    } else {
        r = config_of_folder(run, &config, ret_config, err);
    }
    hm_adapter_config_release(&config);
    return r;
}

int hm_train_adapter_foretell(struct hm_stage_plan *plan, const struct hm_adapter_config *config,
                              struct hm_error *err)
{
    json_t *targets = json_array();
    json_t *ranks = json_object();
    int failed = !targets || !ranks;

    for (size_t i = 0; !failed && i < config->n_targets; i++)
        failed |= json_array_append_new(targets, json_string(config->target[i])) < 0;
    for (size_t i = 0; !failed && i < config->n_rank_pattern; i++)
        failed |= json_object_set_new(ranks, config->rank_pattern[i].key,
                                      json_real(config->rank_pattern[i].value)) < 0;
    if (failed) {
        json_decref(targets);
        json_decref(ranks);
        return hm_fail_nomem(err, "for what a plan foretells");
    }
    HM_TRY(hm_stage_plan_fact(plan, "rank", json_integer(config->rank), err));
    HM_TRY(hm_stage_plan_fact(plan, "adapter",
                              json_pack("{s:i, s:i, s:b, s:o, s:o}", "embed", (int)config->embed,
                                        "head", (int)config->head, "gate", config->gate, "targets",
                                        targets, "ranks", ranks),
                              err));
    return HM_OK;
}
