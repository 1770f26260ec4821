/* SPDX-License-Identifier: MIT */
/*
 * What makes two runs of a stage the same: stage, version, seed, the settings that can change a
 * byte of the output, and the digests of all inputs. Threads, limits and paths are no part of it.
 */
#include <stdio.h>

#include "run_internal.h"

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the identity of a stage");
}

void hm_identity_release(struct hm_identity *identity)
{
    json_decref(identity->identity);
    json_decref(identity->inputs);
    *identity = (struct hm_identity){ 0 };
}

/* How inputs are digested; unread NULL: all are read. */
struct reading {
    struct hm_digest_cache *cache;
    const struct hm_ctl *ctl;
    struct hm_unread *unread;
};

static int digest_path(const struct reading *reading, const char *path,
                       char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    if (reading->unread)
        return hm_digest_path_unread(reading->cache, path, reading->ctl, reading->unread, hex, err);
    return hm_digest_path(reading->cache, path, reading->ctl, hex, err);
}

/* One set: digests for the identity, paths with digests for people. */
static int add_set(const struct hm_input_set *set, const struct reading *reading,
                   json_t *identity_sets, json_t *input_sets, struct hm_error *err)
{
    const char *key = reading->unread ? "unread" : "sha256";
    json_t *digests = json_array(), *paths = json_array();
    int status = digests && paths ? HM_OK : fail_nomem(err);

    for (size_t i = 0; status == HM_OK && i < set->n_paths; i++) {
        char hex[HM_SHA256_HEX_BYTES];
        status = digest_path(reading, set->path[i], hex, err);
        if (status == HM_OK &&
            (json_array_append_new(digests, json_string(hex)) < 0 ||
             json_array_append_new(paths, json_pack("{s:s, s:s}", "path", set->path[i], key, hex)) <
                 0))
            status = fail_nomem(err);
    }
    if (status == HM_OK &&
        (json_array_append_new(identity_sets,
                               json_pack("{s:s, s:f, s:f, s:O}", "set", set->name, "weight",
                                         set->weight, "epochs", set->epochs, key, digests)) < 0 ||
         json_array_append_new(input_sets,
                               json_pack("{s:s, s:O}", "set", set->name, "paths", paths)) < 0))
        status = fail_nomem(err);
    json_decref(digests);
    json_decref(paths);
    return status;
}

static int add_inputs(const struct hm_recipe_stage *stage, const struct hm_input_value *inputs,
                      const struct reading *reading, json_t *identity, json_t *people,
                      struct hm_error *err)
{
    for (size_t i = 0; i < stage->stage->n_inputs; i++) {
        const char *name = inputs[i].input->name;
        if (inputs[i].n_sets == 0)
            continue;
        json_t *identity_sets = json_array(), *input_sets = json_array();
        int failed = json_object_set_new(identity, name, identity_sets);
        failed |= json_object_set_new(people, name, input_sets); /* takes its array in any case */
        if (failed)
            return fail_nomem(err);
        for (size_t s = 0; s < inputs[i].n_sets; s++)
            HM_TRY(add_set(&inputs[i].set[s], reading, identity_sets, input_sets, err));
    }
    return HM_OK;
}

/* Settings that are files stand for their contents. */
static int digest_path_fields(const struct hm_recipe_stage *stage, const struct reading *reading,
                              json_t *config, struct hm_error *err)
{
    for (size_t i = 0; i < stage->stage->n_fields; i++) {
        const struct hm_field *field = &stage->stage->fields[i];
        const char *text = hm_field_path(field, stage->config);
        char hex[HM_SHA256_HEX_BYTES];
        if (!text)
            continue;
        int status = hm_digest_file(reading->cache, text, reading->ctl, NULL, hex, err);
        if (status < 0) {
            hm_error_prefix(err, "%s.set.%s", stage->id, field->name);
            return status;
        }
        if (json_object_set_new(config, field->name, json_string(hex)) < 0)
            return fail_nomem(err);
    }
    return HM_OK;
}

static int make(const struct hm_recipe_stage *stage, const struct hm_input_value *inputs,
                const struct reading *reading, struct hm_identity *made, struct hm_error *err)
{
    const struct hm_stage *row = stage->stage;
    json_t *config = json_object(), *digests = json_object();
    struct hm_buf text = { 0 };

    made->identity = json_pack("{s:s, s:I, s:o, s:o}", "stage", row->name, "seed",
                               (json_int_t)stage->seed, "config", config, "inputs", digests);
    made->inputs = json_object();
    if (!made->identity || !made->inputs)
        return fail_nomem(err);
    HM_TRY(hm_fields_json(row->fields, row->n_fields, stage->config, true, config, err));
    HM_TRY(digest_path_fields(stage, reading, config, err));
    HM_TRY(add_inputs(stage, inputs, reading, digests, made->inputs, err));
    int status = hm_json_dump(made->identity, &text, err);
    if (status == HM_OK)
        status = hm_sha256_of(text.ptr, text.len, made->digest, err);
    hm_buf_release(&text);
    if (status == HM_OK &&
        json_object_set_new(made->identity, "hanmix", json_string(HM_VERSION)) < 0)
        status = fail_nomem(err);
    return status;
}

int hm_identity_make(const struct hm_recipe_stage *stage, const struct hm_input_value *inputs,
                     bool unread, struct hm_digest_cache *cache, const struct hm_ctl *ctl,
                     struct hm_identity *ret_identity, struct hm_error *err)
{
    struct hm_unread found = { 0 };
    struct reading reading = { cache, ctl, unread ? &found : NULL };
    struct hm_identity made = { 0 };
    int status = make(stage, inputs, &reading, &made, err);

    made.unread = unread;
    if (status == HM_OK && unread && (!found.any || found.unsettled)) {
        hm_identity_release(&made);
        reading.unread = NULL;
        status = make(stage, inputs, &reading, &made, err);
    }
    if (status < 0)
        hm_identity_release(&made);
    else
        *ret_identity = made;
    return status;
}

/* --- inputs that the stage itself reads --- */

/* Whether an identity was made before its inputs were read. */
static bool has_unread(const json_t *identity)
{
    const char *name;
    json_t *sets, *set;
    size_t i;

    json_object_foreach(json_object_get(identity, "inputs"), name, sets)
    {
        json_array_foreach(sets, i, set)
        {
            if (json_object_get(set, "unread"))
                return true;
        }
    }
    return false;
}

/* A finished result is compared by bytes, an unfinished one as it was begun. */
static int choose_unread(const struct hm_recipe *recipe, size_t stage, bool *ret_unread,
                         struct hm_error *err)
{
    const struct hm_recipe_stage *entry = &recipe->stage[stage];
    char *final_dir = NULL, *partial_dir = NULL;
    int status = hm_run_path(recipe, entry->id, "", &final_dir, err);

    if (status == HM_OK)
        status = hm_run_path(recipe, entry->id, ".partial", &partial_dir, err);
    if (status == HM_OK) {
        json_t *partial = hm_stage_json_load(partial_dir);
        *ret_unread = entry->stage->digests_inputs && !hm_path_exists(final_dir) &&
                      (!partial || has_unread(json_object_get(partial, "identity")));
        json_decref(partial);
    }
    hm_free(final_dir);
    hm_free(partial_dir);
    return status;
}

int hm_identity_begin(const struct hm_recipe *recipe, size_t stage,
                      const struct hm_input_value *inputs, struct hm_digest_cache *cache,
                      const struct hm_ctl *ctl, struct hm_identity *ret_identity,
                      struct hm_error *err)
{
    bool unread = false;

    HM_TRY(choose_unread(recipe, stage, &unread, err));
    return hm_identity_make(&recipe->stage[stage], inputs, unread, cache, ctl, ret_identity, err);
}

int hm_identity_complete(const struct hm_recipe_stage *stage, const struct hm_input_value *inputs,
                         const struct hm_file_digests *read, int64_t since_ns,
                         struct hm_digest_cache *cache, const struct hm_ctl *ctl,
                         struct hm_identity *identity, struct hm_error *err)
{
    struct hm_identity now = { 0 };
    char *reason = NULL;
    bool same = false;

    if (!identity->unread)
        return HM_OK;
    int status = hm_identity_make(stage, inputs, true, cache, ctl, &now, err);
    if (status == HM_OK)
        status = hm_identity_compare(identity->identity, now.identity, &same, &reason, err);
    if (status == HM_OK && !same)
        status = hm_fail(err, HM_ERR_IO, "%s while it was read; run it again", reason);
    hm_free(reason);
    hm_identity_release(&now);
    for (size_t i = 0; status == HM_OK && i < read->count; i++)
        status = hm_digest_put(cache, read->item[i].path, since_ns, read->item[i].hex, err);
    if (status == HM_OK)
        status = hm_identity_make(stage, inputs, false, cache, ctl, &now, err);
    if (status < 0)
        return status;
    hm_identity_release(identity);
    *identity = now;
    return HM_OK;
}

/* --- comparing --- */

/* The value on one line, cut when long. */
static void value_text(const json_t *value, char *buf, size_t size)
{
    struct hm_buf text = { 0 };

    if (!value)
        snprintf(buf, size, "absent");
    else if (json_is_string(value))
        snprintf(buf, size, "%s", json_string_value(value));
    else if (hm_json_dump(value, &text, NULL) == HM_OK)
        snprintf(buf, size, "%.*s", (int)(size - 1), text.ptr);
    else
        snprintf(buf, size, "?");
    hm_buf_release(&text);
}

static int tell_change(const char *prefix, const char *key, const json_t *was, const json_t *is,
                       char **ret_reason, struct hm_error *err)
{
    char before[80], after[80];

    value_text(was, before, sizeof(before));
    value_text(is, after, sizeof(after));
    return hm_format(ret_reason, err, "%s%s: %s -> %s", prefix, key, before, after);
}

/* The first member of `is` or `was` that differs; false when none does. */
static bool first_difference(json_t *was, json_t *is, const char **ret_key)
{
    const char *key;
    json_t *value;

    json_object_foreach(is, key, value)
    {
        if (!json_equal(value, json_object_get(was, key))) {
            *ret_key = key;
            return true;
        }
    }
    json_object_foreach(was, key, value)
    {
        if (!json_object_get(is, key)) {
            *ret_key = key;
            return true;
        }
    }
    return false;
}

int hm_identity_compare(const json_t *was, const json_t *is, bool *ret_same, char **ret_reason,
                        struct hm_error *err)
{
    static const char *const plain[] = { "stage", "seed", "hanmix" };
    json_t *config_was = json_object_get(was, "config"), *config = json_object_get(is, "config");
    json_t *inputs_was = json_object_get(was, "inputs"), *inputs = json_object_get(is, "inputs");
    const char *key;

    *ret_same = false;
    if (!json_is_object(config_was) || !json_is_object(inputs_was))
        return hm_format(ret_reason, err, "its stage.json is not readable");
    if (first_difference(config_was, config, &key))
        return tell_change("set.", key, json_object_get(config_was, key),
                           json_object_get(config, key), ret_reason, err);
    if (first_difference(inputs_was, inputs, &key))
        return hm_format(ret_reason, err, "in.%s has changed", key);
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        const json_t *before = json_object_get(was, plain[i]),
                     *after = json_object_get(is, plain[i]);
        if (!json_equal(before, after))
            return tell_change("", plain[i], before, after, ret_reason, err);
    }
    *ret_same = true;
    return HM_OK;
}
