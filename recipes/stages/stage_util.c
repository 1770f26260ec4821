/* SPDX-License-Identifier: MIT */
/*
 * Helpers of the stages; see stage_util.h. Text inputs and digests here, members of reports below.
 */
#include "stage_util.h"

#include <inttypes.h>
#include <math.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/cpu.h"
#include "hanmix/corpus/text_files.h"

#define TEXT_PER_COMPRESSED 3 /* zstd on web text */

bool hm_stage_is_counted(const char *path)
{
    return hm_text_ends(path, ".tsv") || hm_text_ends(path, ".tsv.zst");
}

/* The input's sets as the reader takes them; counted text is left out. Free each `file` and the
 * sets. */
static int sets_make(const struct hm_input_value *input, struct hm_text_set *sets,
                     struct hm_error *err)
{
    for (size_t i = 0; i < input->n_sets; i++) {
        const struct hm_input_set *set = &input->set[i];
        sets[i] =
            (struct hm_text_set){ .name = set->name[0] ? set->name : (char *)(uintptr_t) "text",
                                  .file = hm_alloc_array(HM_MEM_TEXT, set->n_paths, sizeof(char *)),
                                  .weight = set->weight,
                                  .epochs = set->epochs };
        if (!sets[i].file)
            return hm_fail_nomem(err, "opening in.%s", input->input->name);
        for (size_t f = 0; f < set->n_paths; f++)
            if (!hm_stage_is_counted(set->path[f]))
                sets[i].file[sets[i].n_files++] = set->path[f];
    }
    return HM_OK;
}

const char *const hm_stage_dedups[] = { "off", "on", "count", NULL }; /* as the enum */

int hm_stage_text_open(const struct hm_stage_run *run, const char *name,
                       const struct stage_text *text, struct hm_text_source *ret_source,
                       struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    struct hm_text_options options = {
        .field = text->field,
        .set_field = text->set_field && text->set_field[0] ? text->set_field : NULL,
        .max_bad_lines = text->max_bad_lines,
        .dedup = (enum hm_text_dedup)text->dedup,
        .memory_bytes = run->memory_bytes ? run->memory_bytes : hm_memory_limit_bytes(),
        .sample_bytes = text->sample_bytes,
        .seed = run->seed,
        .ctl = run->ctl,
        .bound = run->text_bound
    };

    if (!input)
        return hm_fail(err, HM_ERR_USAGE, "stage '%s' needs in.%s", run->id, name);
    struct hm_text_set *sets = hm_calloc(HM_MEM_TEXT, input->n_sets, sizeof(*sets));
    if (!sets)
        return hm_fail_nomem(err, "opening in.%s", name);
    int r = sets_make(input, sets, err);
    if (r == HM_OK)
        r = hm_text_files_open(sets, input->n_sets, &options, ret_source, err);
    for (size_t i = 0; i < input->n_sets; i++)
        hm_free(sets[i].file);
    hm_free(sets);
    return r;
}

int hm_stage_text_is_one(const struct hm_stage_run *run, struct hm_error *err)
{
    static const char *const of_sets[] = { "set_field", NULL };

    return hm_stage_refuse_given(
        run, of_sets, "this stage takes all text as one and tells nothing apart by set", err);
}

int hm_stage_text_report(const struct hm_stage_run *run, const struct hm_text_source *source,
                         struct hm_error *err)
{
    struct hm_text_stats stats = hm_text_files_stats(source);
    json_t *text = hm_report_object(run->report, "text", err);

    if (!text)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_u64(text, "documents", stats.documents, err));
    HM_TRY(hm_report_u64(text, "bytes", stats.bytes, err));
    HM_TRY(hm_report_u64(text, "chars", stats.chars, err));
    HM_TRY(hm_report_u64(text, "bad_lines", stats.bad_lines, err));
    HM_TRY(hm_report_u64(text, "duplicates", stats.duplicates, err));
    if (stats.bad_lines == 0)
        return HM_OK;
    hm_ctl_message(run->ctl, "%" PRIu64 " bad lines were passed over; the first: %s",
                   stats.bad_lines, stats.first_bad);
    return hm_report_text(text, "first_bad_line", stats.first_bad, err);
}

/* A file's bytes, or those of the files directly in a folder. */
static int path_bytes(const char *path, uint64_t *ret_bytes, struct hm_error *err)
{
    struct hm_names names = { 0 };
    uint64_t total = 0;
    int r = HM_OK;

    if (!hm_path_is_dir(path))
        return hm_file_size(path, ret_bytes, err);
    HM_TRY(hm_dir_list(path, &names, err));
    for (size_t i = 0; r == HM_OK && i < names.count; i++) {
        char *child = NULL;
        uint64_t size = 0;
        r = hm_path_join(&child, path, names.item[i], err);
        if (r == HM_OK && !hm_path_is_dir(child))
            r = hm_file_size(child, &size, err);
        total += size;
        hm_free(child);
    }
    hm_names_release(&names);
    *ret_bytes = total;
    return r;
}

int hm_stage_input_bytes(const struct hm_stage_run *run, const char *name, uint64_t *ret_bytes,
                         struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    uint64_t total = 0;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        for (size_t f = 0; !input->set[i].pending && f < input->set[i].n_paths; f++) {
            uint64_t size = 0;
            HM_TRY(path_bytes(input->set[i].path[f], &size, err));
            total += size;
        }
    }
    *ret_bytes = total;
    return HM_OK;
}

static int text_bytes(const char *path, uint64_t *ret_bytes, struct hm_error *err)
{
    bool compressed = hm_text_ends(path, ".zst") || hm_text_ends(path, ".gz");

    HM_TRY(path_bytes(path, ret_bytes, err));
    *ret_bytes *= compressed ? TEXT_PER_COMPRESSED : 1;
    return HM_OK;
}

int hm_stage_plan_long(const struct hm_stage_run *run, const char *name, uint64_t times,
                       struct hm_stage_plan *ret_plan, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    uint64_t longest = 0, bytes = 0;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        for (size_t f = 0; !input->set[i].pending && f < input->set[i].n_paths; f++) {
            HM_TRY(text_bytes(input->set[i].path[f], &bytes, err));
            uint64_t line = hm_text_long_line(input->set[i].path[f], bytes);
            longest = line > longest ? line : longest;
        }
    }
    return longest ? hm_stage_plan_memory(ret_plan, "one long text", times * longest, err) : HM_OK;
}

int hm_stage_text_bytes(const struct hm_stage_run *run, const char *name, uint64_t *ret_bytes,
                        struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    uint64_t total = 0;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        for (size_t f = 0; !input->set[i].pending && f < input->set[i].n_paths; f++) {
            uint64_t size = 0;
            HM_TRY(text_bytes(input->set[i].path[f], &size, err));
            total += size;
        }
    }
    *ret_bytes = total;
    return HM_OK;
}

int hm_stage_input_digest(const struct hm_stage_run *run, const char *name,
                          char hex[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    struct hm_buf lines = { 0 };
    const json_t *set, *path;
    size_t i, j;
    int r = HM_OK;

    json_array_foreach(json_object_get(run->digests, name), i, set)
        json_array_foreach(json_object_get(set, "paths"), j, path) if (r == HM_OK) r =
            hm_buf_printf(&lines, err, "%s %s\n", json_string_value(json_object_get(set, "set")),
                          json_string_value(json_object_get(path, "sha256")));
    if (r == HM_OK)
        r = hm_sha256_of(lines.ptr ? lines.ptr : "", lines.len, hex, err);
    hm_buf_release(&lines);
    return r;
}

bool hm_stage_pending(const struct hm_stage_run *run, const char *name)
{
    const struct hm_input_value *input = hm_stage_input(run, name);

    if (!input || input->n_sets == 0)
        return true;
    for (size_t i = 0; i < input->n_sets; i++) {
        if (input->set[i].pending)
            return true;
    }
    return false;
}

int hm_stage_tokenizer_open(const struct hm_stage_run *run, const char *name,
                            struct hm_tokenizer **ret_tokenizer, struct hm_error *err)
{
    const char *path = NULL;
    struct hm_tokenizer *tokenizer = NULL;

    HM_TRY(hm_stage_path(run, name, &path, err));
    HM_TRY(hm_tokenizer_open(path, &tokenizer, err));
    int r = hm_stage_encoder_note(run, name, tokenizer, err);
    if (r == HM_OK)
        *ret_tokenizer = tokenizer;
    else
        hm_tokenizer_free(tokenizer);
    return r;
}

int hm_stage_encoder_note(const struct hm_stage_run *run, const char *name,
                          const struct hm_tokenizer *tokenizer, struct hm_error *err)
{
    const char *reason = hm_tokenizer_obstacle(&tokenizer->model);

    if (!run->stage_info)
        return HM_OK;
    json_t *all = json_object_get(run->stage_info, "encoders");
    if (!all)
        all = hm_report_object(run->stage_info, "encoders", err);
    json_t *one = all ? hm_report_object(all, name, err) : NULL;
    if (!one)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_text(one, "encoder", reason ? "libsentencepiece" : "hanmix", err));
    if (!reason)
        return HM_OK;
    hm_ctl_message(run->ctl, "%s: encoded by libsentencepiece, for %s", name, reason);
    return hm_report_text(one, "reason", reason, err);
}

static int verified_encode(void *context, struct hm_str text, struct hm_ids *ids,
                           struct hm_error *err)
{
    struct stage_verifier *v = context;
    uint64_t number = v->documents++;
    size_t first = ids->count;

    HM_TRY(v->encoder.encode(v->encoder.context, text, ids, err));
    if (v->every == 0 || number % v->every != 0)
        return HM_OK;
    v->verified++;
    int r = v->encoder.verify(v->encoder.context, text, ids->id + first, ids->count - first, err);
    if (r < 0)
        hm_error_prefix(err, "document %" PRIu64, number);
    return r;
}

static void verified_size(void *context, int32_t id, uint32_t *ret_bytes, uint32_t *ret_chars)
{
    const struct stage_verifier *v = context;

    v->encoder.token_size(v->encoder.context, id, ret_bytes, ret_chars);
}

struct hm_text_encoder hm_stage_verified(struct stage_verifier *verifier)
{
    struct hm_text_encoder encoder = verifier->encoder;

    encoder.context = verifier;
    encoder.encode = verified_encode;
    encoder.token_size = verified_size;
    encoder.verify = NULL;
    encoder.encode_dropout = NULL;
    return encoder;
}

int hm_stage_kernels(const struct hm_stage_run *run, struct hm_kernels *ret_kernels,
                     struct hm_error *err)
{
    HM_TRY(hm_kernels_choose(ret_kernels, NULL, err));
    return run->stage_info ? hm_report_text(run->stage_info, "kernels", ret_kernels->name, err)
                           : HM_OK;
}

/* Takes owned. */
static int report_member(json_t *object, const char *key, json_t *owned, struct hm_error *err)
{
    if (!owned || json_object_set_new(object, key, owned) != 0)
        return hm_fail_nomem(err, "for the report's '%s'", key);
    return HM_OK;
}

int hm_report_u64(json_t *object, const char *key, uint64_t value, struct hm_error *err)
{
    return report_member(object, key, json_integer((json_int_t)value), err);
}

int hm_report_f64(json_t *object, const char *key, double value, struct hm_error *err)
{
    return report_member(object, key, isfinite(value) ? json_real(value) : json_null(), err);
}

int hm_report_text(json_t *object, const char *key, const char *value, struct hm_error *err)
{
    return report_member(object, key, json_string(value), err);
}

int hm_report_bool(json_t *object, const char *key, bool value, struct hm_error *err)
{
    return report_member(object, key, json_boolean(value), err);
}

json_t *hm_report_array(json_t *object, const char *key, struct hm_error *err)
{
    json_t *array = json_array();

    return report_member(object, key, array, err) == HM_OK ? array : NULL;
}

json_t *hm_report_object(json_t *object, const char *key, struct hm_error *err)
{
    json_t *child = json_object();

    return report_member(object, key, child, err) == HM_OK ? child : NULL;
}

json_t *hm_report_item(json_t *array, struct hm_error *err)
{
    json_t *item = json_object();

    if (!item || json_array_append_new(array, item) != 0) {
        hm_fail_nomem(err, "for the report");
        return NULL;
    }
    return item;
}
