/* SPDX-License-Identifier: MIT */
/*
 * Options of the verbs: a table of names and targets, given in any place.
 */
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "hanmix/recipes/recipe.h"

#define OPTIONS_MAX 32u

static const struct hm_arg *find(const struct hm_arg *table, size_t n, const char *name, size_t len)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0)
            return &table[i];
    return NULL;
}

static int fail_unknown(struct hm_error *err, const char *verb, const struct hm_arg *table,
                        size_t n, const char *name, size_t len)
{
    const char *names[OPTIONS_MAX];
    char given[100];

    for (size_t i = 0; i < n && i < OPTIONS_MAX; i++)
        names[i] = table[i].name;
    snprintf(given, sizeof(given), "%.*s", len < 90 ? (int)len : 90, name);
    return hm_fail_unknown(err, verb, "option", given, names, n);
}

static int set_value(const struct hm_arg *arg, const char *value, struct hm_error *err)
{
    int status = HM_OK;

    switch (arg->kind) {
    case HM_ARG_FLAG:
        *(bool *)arg->target = true;
        break;
    case HM_ARG_TEXT:
        *(const char **)arg->target = value;
        break;
    case HM_ARG_COUNT:
        status = hm_parse_count(value, arg->target, err);
        break;
    case HM_ARG_SIZE:
        status = hm_parse_size(value, arg->target, err);
        break;
    case HM_ARG_DOUBLE:
        status = hm_parse_double(value, arg->target, err);
        break;
    }
    if (status < 0)
        hm_error_prefix(err, "--%s", arg->name);
    return status;
}

int hm_args_take(int argc, char **argv, const struct hm_arg *table, size_t n, size_t *ret_count,
                 struct hm_error *err)
{
    size_t words = 0;
    bool options = true;

    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];
        if (!options || text[0] != '-' || text[1] == '\0') {
            argv[++words] = argv[i];
            continue;
        }
        if (strcmp(text, "--") == 0) {
            options = false;
            continue;
        }
        const char *name = text + (text[1] == '-' ? 2 : 1);
        size_t len = strcspn(name, "=");
        const struct hm_arg *arg = text[1] == '-' ? find(table, n, name, len) : NULL;
        if (!arg)
            return fail_unknown(err, argv[0], table, n, name, len);
        const char *value = name[len] == '=' ? name + len + 1 : NULL;
        if (arg->kind == HM_ARG_FLAG && value)
            return hm_fail(err, HM_ERR_USAGE, "--%s takes no value", arg->name);
        if (arg->kind != HM_ARG_FLAG && !value) {
            if (i + 1 >= argc)
                return hm_fail(err, HM_ERR_USAGE, "--%s needs a value", arg->name);
            value = argv[++i];
        }
        HM_TRY(set_value(arg, value, err));
    }
    *ret_count = words;
    return HM_OK;
}

int hm_args_count(const char *verb, size_t count, size_t least, size_t most, struct hm_error *err)
{
    const char *usage = verb;

    if (count >= least && count <= most)
        return HM_OK;
    for (size_t i = 0; i < hm_verb_count; i++)
        if (strcmp(hm_verbs[i].name, verb) == 0)
            usage = hm_verbs[i].usage;
    return hm_fail(err, HM_ERR_USAGE, "%s: %s; usage: hanmix %.*s", verb,
                   count < least ? "something is missing" : "too many words",
                   (int)strcspn(usage, "\n"), usage);
}
