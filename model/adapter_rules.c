/* SPDX-License-Identifier: MIT */
/*
 * Which modules an adapter configuration adapts, and with what rank and scale.
 *
 * The rules are PEFT's (peft 0.18, check_target_module_exists and get_pattern_key): a target is a
 * module's name or a suffix of it after a dot; an entry that no module name could hold is an
 * expression and must match the whole name; "all-linear" is every linear but the output layer. The
 * first key of rank_pattern or alpha_pattern, in the order given, that matches the name or a suffix
 * after a dot decides.
 */
#include "adapter_rules.h"

#include <math.h>
#include <string.h>

#include "module_pattern.h"

struct target {
    const char *text;                   /* borrowed */
    struct hm_pattern_program *program; /* NULL: a plain name */
    bool matched;
};

struct key {
    const char *text; /* borrowed */
    struct hm_pattern_program *program;
    double value;
    bool matched; /* decided over a module */
};

struct hm_adapter_rules {
    const struct hm_adapter_config *config; /* borrowed */
    struct target *target;
    size_t n_targets;
    struct key *rank, *alpha;
    size_t n_rank, n_alpha;
};

static int check_rank(double rank, const char *what, struct hm_error *err)
{
    if (!(rank >= 1 && rank <= HM_ADAPTER_RANK_MAX) || rank != floor(rank))
        return hm_fail(err, HM_ERR_USAGE, "%s: a rank is a whole number from 1 to %d, found %g",
                       what, HM_ADAPTER_RANK_MAX, rank);
    return HM_OK;
}

static int check_config(const struct hm_adapter_config *config, struct hm_error *err)
{
    HM_TRY(check_rank(config->rank, "rank", err));
    if (!isfinite(config->alpha) || fabs(config->alpha) > 1e9)
        return hm_fail(err, HM_ERR_USAGE, "alpha: found %g, expected a finite number up to 1e9",
                       config->alpha);
    if (!(config->dropout >= 0 && config->dropout < 1))
        return hm_fail(err, HM_ERR_USAGE, "dropout: found %g, expected 0 <= dropout < 1",
                       config->dropout);
    for (size_t i = 0; i < config->n_rank_pattern; i++)
        HM_TRY(check_rank(config->rank_pattern[i].value, "rank_pattern", err));
    for (size_t i = 0; i < config->n_alpha_pattern; i++) {
        if (!isfinite(config->alpha_pattern[i].value) || fabs(config->alpha_pattern[i].value) > 1e9)
            return hm_fail(err, HM_ERR_USAGE, "alpha_pattern '%.200s': found %g, expected a number",
                           config->alpha_pattern[i].key, config->alpha_pattern[i].value);
    }
    return HM_OK;
}

/* re.match(rf"(.*\.)?({key})$", name) */
static int compile_keys(const struct hm_pattern *pattern, size_t n, struct key **ret_keys,
                        size_t *ret_count, struct hm_error *err)
{
    *ret_keys = hm_calloc(HM_MEM_ADAPTER, n, sizeof **ret_keys);
    if (!*ret_keys)
        return hm_fail_nomem(err, "for %zu patterns", n);
    for (size_t i = 0; i < n; i++) {
        char *text = NULL;
        HM_TRY(hm_format(&text, err, "(.*\\.)?(%s)", pattern[i].key));
        int status = hm_pattern_compile(text, &(*ret_keys)[i].program, err);
        hm_free(text);
        HM_TRY(status);
        (*ret_keys)[i].text = pattern[i].key;
        (*ret_keys)[i].value = pattern[i].value;
        *ret_count = i + 1;
    }
    return HM_OK;
}

static int compile_targets(struct hm_adapter_rules *rules, struct hm_error *err)
{
    const struct hm_adapter_config *config = rules->config;

    rules->target = hm_calloc(HM_MEM_ADAPTER, config->n_targets, sizeof *rules->target);
    if (!rules->target)
        return hm_fail_nomem(err, "for %zu targets", config->n_targets);
    rules->n_targets = config->n_targets;
    for (size_t i = 0; i < config->n_targets; i++) {
        struct target *target = &rules->target[i];
        target->text = config->target[i];
        if (hm_pattern_is_expression(target->text))
            HM_TRY(hm_pattern_compile(target->text, &target->program, err));
    }
    return HM_OK;
}

int hm_adapter_rules_open(const struct hm_adapter_config *config,
                          struct hm_adapter_rules **ret_rules, struct hm_error *err)
{
    struct hm_adapter_rules *rules;
    int status;

    HM_TRY(check_config(config, err));
    rules = hm_calloc(HM_MEM_ADAPTER, 1, sizeof *rules);
    if (!rules)
        return hm_fail_nomem(err, "for the rules of an adapter");
    rules->config = config;
    if ((status = compile_targets(rules, err)) < 0 ||
        (status = compile_keys(config->rank_pattern, config->n_rank_pattern, &rules->rank,
                               &rules->n_rank, err)) < 0 ||
        (status = compile_keys(config->alpha_pattern, config->n_alpha_pattern, &rules->alpha,
                               &rules->n_alpha, err)) < 0) {
        hm_adapter_rules_free(rules);
        return status == HM_ERR_FORMAT ? HM_ERR_USAGE : status;
    }
    *ret_rules = rules;
    return HM_OK;
}

void hm_adapter_rules_free(struct hm_adapter_rules *rules)
{
    if (!rules)
        return;
    for (size_t i = 0; i < rules->n_targets; i++)
        hm_pattern_free(rules->target[i].program);
    for (size_t i = 0; i < rules->n_rank; i++)
        hm_pattern_free(rules->rank[i].program);
    for (size_t i = 0; i < rules->n_alpha; i++)
        hm_pattern_free(rules->alpha[i].program);
    hm_free(rules->target);
    hm_free(rules->rank);
    hm_free(rules->alpha);
    hm_free(rules);
}

bool hm_module_is_named(const char *module, const char *name)
{
    size_t len = strlen(module), part = strlen(name);

    if (part > len || strcmp(module + len - part, name) != 0)
        return false;
    return part == len || module[len - part - 1] == '.';
}

static int target_matches(const struct target *target, enum hm_weight_kind kind, const char *module,
                          struct hm_error *err)
{
    if (target->program)
        return hm_pattern_matches(target->program, module, err);
    if (strcmp(target->text, "all-linear") == 0)
        return hm_weight_kind_is_linear(kind) && kind != HM_WEIGHT_HEAD;
    return hm_module_is_named(module, target->text);
}

static int pattern_value(struct key *keys, size_t n, const char *module, double *value,
                         struct hm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        int matches = hm_pattern_matches(keys[i].program, module, err);
        if (matches < 0)
            return matches;
        if (matches) {
            *value = keys[i].value;
            keys[i].matched = true;
            break;
        }
    }
    return HM_OK;
}

int hm_adapter_rules_match(struct hm_adapter_rules *rules, enum hm_weight_kind kind,
                           const char *module, uint32_t *ret_rank, float *ret_scale,
                           struct hm_error *err)
{
    double rank = rules->config->rank, alpha = rules->config->alpha;
    bool targeted = false;

    for (size_t i = 0; i < rules->n_targets; i++) {
        struct target *target = &rules->target[i];
        int matches = target_matches(target, kind, module, err);
        if (matches < 0)
            return matches;
        if (matches && !hm_weight_kind_is_linear(kind))
            return hm_fail(err, HM_ERR_USAGE,
                           "target '%.200s' names '%s', which is not a linear and takes no factors",
                           target->text, module);
        target->matched = target->matched || matches;
        targeted = targeted || matches;
    }
    if (!targeted)
        return 0;
    HM_TRY(pattern_value(rules->rank, rules->n_rank, module, &rank, err));
    HM_TRY(pattern_value(rules->alpha, rules->n_alpha, module, &alpha, err));
    *ret_rank = (uint32_t)rank;
    *ret_scale = (float)(alpha / (rules->config->rslora ? sqrt(rank) : rank));
    return 1;
}

const char *hm_adapter_rules_unmatched(const struct hm_adapter_rules *rules)
{
    for (size_t i = 0; i < rules->n_targets; i++)
        if (!rules->target[i].matched)
            return rules->target[i].text;
    return NULL;
}

const char *hm_adapter_rules_unmatched_key(const struct hm_adapter_rules *rules)
{
    for (size_t i = 0; i < rules->n_rank; i++)
        if (!rules->rank[i].matched)
            return rules->rank[i].text;
    for (size_t i = 0; i < rules->n_alpha; i++)
        if (!rules->alpha[i].matched)
            return rules->alpha[i].text;
    return NULL;
}

int hm_adapter_target_names(const struct hm_arch *arch, struct hm_buf *ret_names,
                            struct hm_error *err)
{
    for (int kind = 0; kind < HM_WEIGHT_KINDS; kind++) {
        bool absent = (kind == HM_WEIGHT_GATE && arch->family == HM_FAMILY_LLAMA) ||
                      (kind == HM_WEIGHT_HEAD && arch->tied);
        if (!hm_weight_kind_is_linear((enum hm_weight_kind)kind) || absent)
            continue;
        HM_TRY(hm_buf_printf(ret_names, err, "%s%s", ret_names->len ? ", " : "",
                             hm_weight_kind_name(arch, (enum hm_weight_kind)kind)));
    }
    return HM_OK;
}

static int copy_patterns(const struct hm_pattern *from, size_t n, struct hm_pattern **ret_to,
                         size_t *ret_count, struct hm_error *err)
{
    *ret_to = hm_calloc(HM_MEM_ADAPTER, n, sizeof **ret_to);
    if (!*ret_to)
        return hm_fail_nomem(err, "for %zu patterns", n);
    for (size_t i = 0; i < n; i++) {
        (*ret_to)[i].key = hm_strdup(HM_MEM_ADAPTER, from[i].key);
        if (!(*ret_to)[i].key)
            return hm_fail_nomem(err, "for %zu patterns", n);
        (*ret_to)[i].value = from[i].value;
        *ret_count = i + 1;
    }
    return HM_OK;
}

int hm_adapter_config_copy(const struct hm_adapter_config *config,
                           struct hm_adapter_config *ret_copy, struct hm_error *err)
{
    struct hm_adapter_config copy = *config;
    int status;

    copy.target = NULL;
    copy.rank_pattern = copy.alpha_pattern = NULL;
    copy.n_targets = copy.n_rank_pattern = copy.n_alpha_pattern = 0;
    status = copy_patterns(config->rank_pattern, config->n_rank_pattern, &copy.rank_pattern,
                           &copy.n_rank_pattern, err);
    if (status == HM_OK)
        status = copy_patterns(config->alpha_pattern, config->n_alpha_pattern, &copy.alpha_pattern,
                               &copy.n_alpha_pattern, err);
    if (status == HM_OK &&
        !(copy.target = hm_calloc(HM_MEM_ADAPTER, config->n_targets, sizeof(char *))))
        status = hm_fail_nomem(err, "for %zu targets", config->n_targets);
    for (size_t i = 0; status == HM_OK && i < config->n_targets; i++, copy.n_targets++) {
        copy.target[i] = hm_strdup(HM_MEM_ADAPTER, config->target[i]);
        if (!copy.target[i]) {
            status = hm_fail_nomem(err, "for %zu targets", config->n_targets);
            break;
        }
    }
    if (status < 0) {
        hm_adapter_config_release(&copy);
        return status;
    }
    *ret_copy = copy;
    return HM_OK;
}

static void release_patterns(struct hm_pattern *pattern, size_t n)
{
    for (size_t i = 0; i < n; i++)
        hm_free(pattern[i].key);
    hm_free(pattern);
}

void hm_adapter_config_release(struct hm_adapter_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < config->n_targets; i++)
        hm_free(config->target[i]);
    hm_free(config->target);
    release_patterns(config->rank_pattern, config->n_rank_pattern);
    release_patterns(config->alpha_pattern, config->n_alpha_pattern);
    *config = (struct hm_adapter_config){ 0 };
}
