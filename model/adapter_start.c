/* SPDX-License-Identifier: MIT */
/*
 * Training that starts from an adapter of a folder: its factors and matrices, with what the new run
 * asks for beside them. Owns the comparison of the two; reading the folder is peft_read.c's, laying
 * out adapter_layout.c's. Nothing that the folder holds is lost and nothing asked for is passed
 * over: where the two disagree, the run is refused.
 */
#include <string.h>

#include "adapter_layout.h"
#include "adapter_rules.h"
#include "hanmix/model/peft_folder.h"

void hm_adapter_config_ask(struct hm_adapter_config *config, const struct hm_adapter_config *asked,
                           unsigned which)
{
    if (which & HM_ASK_RANK)
        config->rank = asked->rank;
    if (which & HM_ASK_ALPHA)
        config->alpha = asked->alpha;
    if (which & HM_ASK_RSLORA)
        config->rslora = asked->rslora;
    if (which & HM_ASK_DROPOUT)
        config->dropout = asked->dropout;
    if (which & HM_ASK_TARGETS) {
        config->target = asked->target;
        config->n_targets = asked->n_targets;
    }
    if (which & HM_ASK_RANK_PATTERN) {
        config->rank_pattern = asked->rank_pattern;
        config->n_rank_pattern = asked->n_rank_pattern;
    }
    if (which & HM_ASK_ALPHA_PATTERN) {
        config->alpha_pattern = asked->alpha_pattern;
        config->n_alpha_pattern = asked->n_alpha_pattern;
    }
    if (which & HM_ASK_EMBED)
        config->embed = asked->embed;
    if (which & HM_ASK_HEAD)
        config->head = asked->head;
    if (which & HM_ASK_GATE)
        config->gate = asked->gate;
    config->store = asked->store;
}

static struct hm_lora *lora_at(const struct hm_adapter *adapter, size_t slot)
{
    return adapter->lora_of_slot[slot] < 0 ? NULL : &adapter->lora[adapter->lora_of_slot[slot]];
}

static struct hm_param *full_at(const struct hm_adapter *adapter, size_t slot)
{
    return adapter->full_of_slot[slot] < 0 ? NULL : &adapter->param[adapter->full_of_slot[slot]];
}

static int lora_compare(const char *module, const struct hm_lora *asked, const struct hm_lora *held,
                        struct hm_error *err)
{
    if (!asked)
        return hm_fail(err, HM_ERR_USAGE,
                       "it holds factors of '%s', which the settings do not adapt", module);
    if (!held)
        return hm_fail(err, HM_ERR_USAGE, "it holds no factors of '%s', which the settings adapt",
                       module);
    if (asked->rank != held->rank)
        return hm_fail(err, HM_ERR_USAGE, "its rank at '%s' is %u, the settings ask for %u", module,
                       held->rank, asked->rank);
    if (asked->scale != held->scale)
        return hm_fail(err, HM_ERR_USAGE,
                       "its scale (alpha over rank) at '%s' is %g, the settings ask for %g", module,
                       (double)held->scale, (double)asked->scale);
    return HM_OK;
}

static int full_compare(const char *module, const struct hm_param *asked,
                        const struct hm_param *held, struct hm_error *err)
{
    if (!asked)
        return hm_fail(err, HM_ERR_USAGE, "it holds '%s' in full, which the settings do not train",
                       module);
    if (asked->rows != held->rows || asked->first_row != held->first_row)
        return hm_fail(err, HM_ERR_USAGE,
                       "it holds %u rows of '%s' from row %u on, the settings ask for %u from %u",
                       held->rows, module, held->first_row, asked->rows, asked->first_row);
    return HM_OK;
}

/* Whatever one has of factors the other has; what `held` has in full `asked` has too. */
static int layouts_compare(const struct hm_arch *arch, const struct hm_adapter *asked,
                           const struct hm_adapter *held, struct hm_error *err)
{
    for (size_t slot = 0; slot < hm_arch_slot_count(arch); slot++) {
        struct hm_weight_slot weight;
        char module[HM_SLOT_NAME_BYTES];

        hm_arch_slot(arch, slot, &weight, module);
        if (lora_at(asked, slot) || lora_at(held, slot))
            HM_TRY(lora_compare(module, lora_at(asked, slot), lora_at(held, slot), err));
        if (full_at(held, slot))
            HM_TRY(full_compare(module, full_at(asked, slot), full_at(held, slot), err));
    }
    return HM_OK;
}

/* PEFT lets a folder hold names that match nothing; a run that asks for some must hear of them. */
static bool names_asked(unsigned which)
{
    return which & (HM_ASK_TARGETS | HM_ASK_RANK_PATTERN | HM_ASK_ALPHA_PATTERN);
}

/* The folder's configuration with what is asked for; borrows from both. */
static int start_compare(const struct hm_checkpoint *ckpt, const struct hm_adapter *held,
                         const struct hm_adapter_config *asked, unsigned which,
                         struct hm_adapter_config *ret_config, struct hm_error *err)
{
    struct hm_adapter_config config = held->config;
    struct hm_adapter *layout = NULL;
    uint64_t old_vocab;

    hm_adapter_config_ask(&config, asked, which);
    HM_TRY(hm_adapter_old_vocabulary(ckpt, &config, &old_vocab, err));
    HM_TRY(hm_adapter_lay_out(&ckpt->arch, &config, old_vocab, names_asked(which), &layout, err));
    int status = layouts_compare(&ckpt->arch, layout, held, err);
    hm_adapter_free(layout);
    *ret_config = config;
    return status;
}

static int start_fail(const char *dir, int status, struct hm_error *err)
{
    if (status == HM_ERR_USAGE)
        hm_error_prefix(err, "training cannot start from the adapter '%s'", dir);
    return status;
}

int hm_adapter_start_plan(const char *dir, const struct hm_checkpoint *ckpt,
                          const struct hm_adapter_config *asked, unsigned which,
                          struct hm_adapter_config *ret_config, struct hm_error *err)
{
    struct hm_adapter_config config;
    struct hm_peft_folder folder = { 0 };

    HM_TRY(hm_peft_open(dir, ckpt, &folder, err));
    int status = start_compare(ckpt, folder.layout, asked, which, &config, err);
    if (status == HM_OK)
        status = hm_adapter_config_copy(&config, ret_config, err);
    hm_peft_close(&folder);
    return start_fail(dir, status, err);
}

static void take_values(struct hm_adapter *adapter, size_t to, struct hm_param *from)
{
    struct hm_param *param = &adapter->param[to];
    float *base = param->value;

    if (adapter->config.store) {
        memcpy(param->value, from->value, hm_param_values(param) * sizeof(float));
        hm_adapter_param_done(adapter, param);
        return;
    }
    param->value = from->value;
    from->value = base;
}

int hm_adapter_start(const char *dir, const struct hm_checkpoint *ckpt,
                     const struct hm_adapter_config *asked, unsigned which,
                     struct hm_adapter **ret_adapter, struct hm_error *err)
{
    struct hm_adapter_config config;
    struct hm_adapter *held = NULL;
    struct hm_adapter *adapter = NULL;

    HM_TRY(hm_adapter_load(dir, ckpt, false, &held, err));
    int status = start_compare(ckpt, held, asked, which, &config, err);
    if (status == HM_OK)
        status = hm_adapter_make(ckpt, &config, names_asked(which), true, &adapter, err);
    for (size_t slot = 0; status == HM_OK && slot < hm_arch_slot_count(&ckpt->arch); slot++) {
        const struct hm_lora *to = lora_at(adapter, slot);
        const struct hm_lora *from = lora_at(held, slot);
        if (to) {
            take_values(adapter, to->a, &held->param[from->a]);
            take_values(adapter, to->b, &held->param[from->b]);
        }
        if (full_at(held, slot))
            take_values(adapter, (size_t)adapter->full_of_slot[slot], full_at(held, slot));
    }
    if (status == HM_OK)
        *ret_adapter = adapter;
    hm_adapter_free(held);
    return start_fail(dir, status, err);
}
