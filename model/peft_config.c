/* SPDX-License-Identifier: MIT */
/*
 * adapter_config.json of a PEFT folder, read. The file is hostile until checked, and a kind of LoRA
 * that this program does not compute is refused by name instead of being computed wrongly.
 *
 * PEFT's ways of choosing modules (a list, an expression, "all-linear", exclude_modules,
 * layers_to_transform) all come out as one list of names. Writing is peft_config_write.c's.
 */
#include "peft_config.h"

#include <string.h>

#include "adapter_rules.h"
#include "module_pattern.h"

struct reader {
    const json_t *json;
    const char *what;
    const struct hm_arch *arch;
    struct hm_adapter_config *config; /* under construction */
    struct hm_error *err;
};

static int fail_nomem(const struct reader *r)
{
    return hm_fail_nomem(r->err, "for '%s'", r->what);
}

static bool is_empty(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_array(value) && json_array_size(value) == 0) ||
           (json_is_object(value) && json_object_size(value) == 0);
}

/* Fields whose default alone is understood, and initialisations that leave another base behind. */
static int check_supported(const struct reader *r)
{
    static const char *const must_be_empty[] = {
        "use_dora",
        "lora_bias",
        "fan_in_fan_out",
        "use_qalora",
        "layer_replication",
        "target_parameters",
        "trainable_token_indices",
        "arrow_config",
        "alora_invocation_tokens",
        "use_bdlora",
        "kasa_config",
        "velora_config",
        "monteclora_config",
    };
    static const char *const other_base[] = { "pissa", "olora", "corda", "loftq", "lora_ga" };
    const char *type = NULL, *bias = "none";
    const json_t *init = json_object_get(r->json, "init_lora_weights");

    HM_TRY(hm_json_text(r->json, "peft_type", r->what, &type, r->err));
    if (strcmp(type, "LORA") != 0)
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': peft_type is '%.100s', expected LORA", r->what,
                       type);
    HM_TRY(hm_json_text_opt(r->json, "bias", r->what, &bias, r->err));
    if (strcmp(bias, "none") != 0)
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': bias '%.100s' is not supported, only none",
                       r->what, bias);
    for (size_t i = 0; i < sizeof must_be_empty / sizeof *must_be_empty; i++) {
        if (!is_empty(json_object_get(r->json, must_be_empty[i])))
            return hm_fail(r->err, HM_ERR_FORMAT,
                           "'%s': '%s' is set: this kind of adapter is not supported", r->what,
                           must_be_empty[i]);
    }
    for (size_t i = 0; json_is_string(init) && i < sizeof other_base / sizeof *other_base; i++) {
        if (hm_text_starts(json_string_value(init), other_base[i]))
            return hm_fail(r->err, HM_ERR_FORMAT,
                           "'%s': init_lora_weights '%.100s' changes the base model: "
                           "convert the adapter to plain LoRA first",
                           r->what, json_string_value(init));
    }
    return HM_OK;
}

static int parse_numbers(const struct reader *r)
{
    uint64_t rank = 8;

    HM_TRY(hm_json_u64_opt(r->json, "r", r->what, &rank, r->err));
    if (rank < 1 || rank > HM_ADAPTER_RANK_MAX)
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': r is %llu, expected a rank from 1 to %d",
                       r->what, (unsigned long long)rank, HM_ADAPTER_RANK_MAX);
    r->config->rank = (uint32_t)rank;
    r->config->alpha = 8; /* PEFT's default */
    HM_TRY(hm_json_f64_opt(r->json, "lora_alpha", r->what, &r->config->alpha, r->err));
    HM_TRY(hm_json_f64_opt(r->json, "lora_dropout", r->what, &r->config->dropout, r->err));
    return hm_json_bool_opt(r->json, "use_rslora", r->what, &r->config->rslora, r->err);
}

static int parse_pattern(const struct reader *r, const char *key, struct hm_pattern **ret_pattern,
                         size_t *ret_count)
{
    json_t *object = json_object_get(r->json, key), *value;
    const char *name;

    if (is_empty(object))
        return HM_OK;
    if (!json_is_object(object))
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': '%s' must be an object", r->what, key);
    *ret_pattern = hm_calloc(HM_MEM_ADAPTER, json_object_size(object), sizeof **ret_pattern);
    if (!*ret_pattern)
        return fail_nomem(r);
    json_object_foreach(object, name, value)
    {
        struct hm_pattern *pattern = &(*ret_pattern)[*ret_count];
        if (!json_is_number(value))
            return hm_fail(r->err, HM_ERR_FORMAT, "'%s': '%s' of '%.200s' must be a number",
                           r->what, key, name);
        pattern->key = hm_strdup(HM_MEM_ADAPTER, name);
        if (!pattern->key)
            return fail_nomem(r);
        pattern->value = json_number_value(value);
        ++*ret_count;
    }
    return HM_OK;
}

/* Every member a text; `single` also allows one bare text. */
static int check_list(const struct reader *r, const char *key, const json_t *list, bool single)
{
    if (single && json_is_string(list))
        return HM_OK;
    if (!json_is_array(list))
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': '%s' must be a list of names", r->what, key);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item) || strlen(json_string_value(item)) != json_string_length(item))
            return hm_fail(r->err, HM_ERR_FORMAT, "'%s': '%s' must hold names only", r->what, key);
    }
    return HM_OK;
}

/* modules_to_save: a name stands for every module whose path ends so. */
static int parse_saved(const struct reader *r)
{
    const json_t *list = json_object_get(r->json, "modules_to_save");
    const struct hm_arch *arch = r->arch;

    if (is_empty(list))
        return HM_OK;
    HM_TRY(check_list(r, "modules_to_save", list, false));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        bool found = false;
        for (size_t s = 0; s < hm_arch_slot_count(arch); s++) {
            struct hm_weight_slot slot;
            char module[HM_SLOT_NAME_BYTES];
            hm_arch_slot(arch, s, &slot, module);
            if (!*name || !hm_text_ends(module, name))
                continue;
            found = true;
            if (slot.kind == HM_WEIGHT_EMBED)
                r->config->embed = HM_ROWS_ALL;
            else if (slot.kind == HM_WEIGHT_HEAD)
                r->config->head = HM_ROWS_ALL;
            else if (slot.kind == HM_WEIGHT_GATE)
                r->config->gate = true;
            else
                return hm_fail(r->err, HM_ERR_FORMAT,
                               "'%s': modules_to_save names '%s': only embed_tokens, "
                               "lm_head and gate are supported",
                               r->what, module);
        }
        if (!found && !(arch->tied && strcmp(name, "lm_head") == 0))
            return hm_fail(r->err, HM_ERR_FORMAT,
                           "'%s': modules_to_save '%.200s' names no module of the model", r->what,
                           name);
    }
    return HM_OK;
}

/* One selection of modules: an expression over whole names, or a list of names. */
struct selection {
    const json_t *json;                 /* NULL: selects nothing */
    struct hm_pattern_program *program; /* of a bare text other than "all-linear" */
};

static int open_selection(const struct reader *r, const char *key, struct selection *selection)
{
    const json_t *json = json_object_get(r->json, key);

    if (is_empty(json))
        return HM_OK;
    HM_TRY(check_list(r, key, json, true));
    selection->json = json;
    if (json_is_string(json) && strcmp(json_string_value(json), "all-linear") != 0) {
        HM_TRY(hm_pattern_compile(json_string_value(json), &selection->program, r->err));
    }
    return HM_OK;
}

static int selects(const struct selection *selection, enum hm_weight_kind kind, const char *module,
                   struct hm_error *err)
{
    if (!selection->json)
        return 0;
    if (selection->program)
        return hm_pattern_matches(selection->program, module, err);
    if (json_is_string(selection->json))
        return hm_weight_kind_is_linear(kind) && kind != HM_WEIGHT_HEAD;
    for (size_t i = 0; i < json_array_size(selection->json); i++)
        if (hm_module_is_named(module, json_string_value(json_array_get(selection->json, i))))
            return 1;
    return 0;
}

/* layers_to_transform against the layer PEFT reads off a name: the last ".<pattern>.<number>.". */
static bool layer_chosen(const json_t *layers, const char *pattern, const char *module)
{
    const char *component = module, *end = NULL;
    long long number = -1;
    bool after_pattern = false, inner = false;

    for (; *component; component = end + (*end == '.')) {
        size_t len;
        end = component + strcspn(component, ".");
        len = (size_t)(end - component);
        if (after_pattern && *end == '.' && strspn(component, "0123456789") == len && len < 10)
            number = strtoll(component, NULL, 10);
        after_pattern =
            inner && (!pattern || (strlen(pattern) == len && !strncmp(component, pattern, len)));
        inner = true;
    }
    if (json_is_integer(layers))
        return number >= 0 && json_integer_value(layers) == number;
    for (size_t i = 0; i < json_array_size(layers); i++)
        if (number >= 0 && json_integer_value(json_array_get(layers, i)) == number)
            return true;
    return false;
}

static int check_layers(const struct reader *r, const json_t **ret_layers, const char **ret_pattern)
{
    const json_t *layers = json_object_get(r->json, "layers_to_transform");
    const json_t *pattern = json_object_get(r->json, "layers_pattern");

    if (!layers || json_is_null(layers) || (json_is_array(layers) && json_array_size(layers) == 0))
        return HM_OK;
    bool good = json_is_integer(layers) || json_is_array(layers);
    for (size_t i = 0; json_is_array(layers) && i < json_array_size(layers); i++)
        good = good && json_is_integer(json_array_get(layers, i));
    if (!good)
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': 'layers_to_transform' must hold layer numbers",
                       r->what);
    if (json_is_array(pattern) && json_array_size(pattern) == 1)
        pattern = json_array_get(pattern, 0);
    if (!is_empty(pattern) &&
        (!json_is_string(pattern) || hm_pattern_is_expression(json_string_value(pattern))))
        return hm_fail(r->err, HM_ERR_FORMAT, "'%s': 'layers_pattern' must be one plain name",
                       r->what);
    *ret_layers = layers;
    *ret_pattern =
        is_empty(pattern) || !*json_string_value(pattern) ? NULL : json_string_value(pattern);
    return HM_OK;
}

static int add_target(const struct reader *r, const char *name)
{
    struct hm_adapter_config *config = r->config;

    config->target[config->n_targets] = hm_strdup(HM_MEM_ADAPTER, name);
    if (!config->target[config->n_targets])
        return fail_nomem(r);
    config->n_targets++;
    return HM_OK;
}

static bool trained_in_full(const struct hm_adapter_config *config, enum hm_weight_kind kind)
{
    return (kind == HM_WEIGHT_EMBED && config->embed != HM_ROWS_NONE) ||
           (kind == HM_WEIGHT_HEAD && config->head != HM_ROWS_NONE) ||
           (kind == HM_WEIGHT_GATE && config->gate);
}

/* chosen[slot] by every rule of the file; all[kind] stays true when the kind's modules are chosen.
 */
static int choose(const struct reader *r, bool *chosen, bool *all)
{
    struct selection target = { 0 }, exclude = { 0 };
    const json_t *layers = NULL;
    const char *pattern = NULL;
    int status;

    if ((status = check_layers(r, &layers, &pattern)) < 0 ||
        (status = open_selection(r, "target_modules", &target)) < 0 ||
        (status = open_selection(r, "exclude_modules", &exclude)) < 0)
        goto out;
    bool by_layer = layers && !target.program && !json_is_string(target.json);
    for (size_t s = 0; s < hm_arch_slot_count(r->arch); s++) {
        struct hm_weight_slot slot;
        char module[HM_SLOT_NAME_BYTES];
        int excluded, wanted;

        hm_arch_slot(r->arch, s, &slot, module);
        if (trained_in_full(r->config, slot.kind))
            continue;
        excluded = selects(&exclude, slot.kind, module, r->err);
        wanted = selects(&target, slot.kind, module, r->err);
        if ((status = excluded < 0 ? excluded : wanted < 0 ? wanted : HM_OK) < 0)
            goto out;
        chosen[s] = wanted && !excluded && (!by_layer || layer_chosen(layers, pattern, module));
        all[slot.kind] = all[slot.kind] && chosen[s];
    }
out:
    hm_pattern_free(target.program);
    hm_pattern_free(exclude.program);
    return status;
}

/* The chosen modules as names: a leaf for a kind of which all are chosen, else full paths. */
static int parse_targets(const struct reader *r)
{
    size_t slots = hm_arch_slot_count(r->arch);
    bool *chosen = hm_calloc(HM_MEM_ADAPTER, slots, sizeof *chosen);
    bool all[HM_WEIGHT_KINDS], listed[HM_WEIGHT_KINDS] = { false };
    int status;

    memset(all, true, sizeof all);
    r->config->target = hm_calloc(HM_MEM_ADAPTER, slots, sizeof(char *));
    status = chosen && r->config->target ? choose(r, chosen, all) : fail_nomem(r);
    for (size_t s = 0; s < slots && status == HM_OK; s++) {
        struct hm_weight_slot slot;
        char module[HM_SLOT_NAME_BYTES];

        hm_arch_slot(r->arch, s, &slot, module);
        if (!chosen[s] || (all[slot.kind] && listed[slot.kind]))
            continue;
        status = add_target(r, all[slot.kind] ? hm_weight_kind_name(r->arch, slot.kind) : module);
        listed[slot.kind] = true;
    }
    hm_free(chosen);
    return status;
}

int hm_peft_config_parse(const json_t *json, const char *what, const struct hm_arch *arch,
                         struct hm_adapter_config *ret_config, struct hm_error *err)
{
    struct hm_adapter_config config = { 0 };
    const struct reader r = { json, what, arch, &config, err };
    int status;

    if ((status = check_supported(&r)) < 0 || (status = parse_numbers(&r)) < 0 ||
        (status = parse_pattern(&r, "rank_pattern", &config.rank_pattern, &config.n_rank_pattern)) <
            0 ||
        (status = parse_pattern(&r, "alpha_pattern", &config.alpha_pattern,
                                &config.n_alpha_pattern)) < 0 ||
        (status = parse_saved(&r)) < 0 || (status = parse_targets(&r)) < 0) {
        hm_adapter_config_release(&config);
        return status;
    }
    *ret_config = config;
    return HM_OK;
}
