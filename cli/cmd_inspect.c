/* SPDX-License-Identifier: MIT */
/*
 * The verb inspect: what a path is and what it holds. Each kind describes itself as a JSON object
 * (inspect_kinds.c); here the kind is recognised and the object printed, as JSON or as lines.
 */
#include <stdio.h>

#include "cli.h"
#include "hanmix/base/file.h"
#include "inspect_kinds.h"

/* The first kind that fits; the order decides where a folder could be several. */
static int recognise(const char *path, bool tensors, json_t **ret_facts, struct hm_error *err)
{
    if (!hm_path_exists(path))
        return hm_fail(err, HM_ERR_USAGE, "'%s' does not exist", path);
    if (!hm_path_is_dir(path)) {
        if (hm_text_ends(path, ".safetensors"))
            return hm_inspect_safetensors(path, tensors, ret_facts, err);
        if (hm_text_ends(path, ".hmp"))
            return hm_inspect_packed(path, ret_facts, err);
        if (hm_text_ends(path, ".model"))
            return hm_inspect_tokenizer(path, ret_facts, err);
        return hm_fail(err, HM_ERR_USAGE,
                       "'%s' is not known by its ending: .safetensors, .model and .hmp are", path);
    }
    bool run, adapter, model, packed, tokenizer;
    HM_TRY(hm_dir_holds(path, "manifest.json", &run, err));
    HM_TRY(hm_dir_holds(path, "adapter_config.json", &adapter, err));
    HM_TRY(hm_dir_holds(path, "config.json", &model, err));
    HM_TRY(hm_dir_holds_ending(path, ".hmp", &packed, err));
    HM_TRY(hm_dir_holds(path, "tokenizer.model", &tokenizer, err));
    if (run)
        return hm_inspect_run(path, ret_facts, err);
    if (adapter)
        return hm_inspect_adapter(path, tensors, ret_facts, err);
    if (model)
        return hm_inspect_model(path, tensors, ret_facts, err);
    if (packed)
        return hm_inspect_packed(path, ret_facts, err);
    if (tokenizer)
        return hm_inspect_tokenizer(path, ret_facts, err);
    return hm_fail(err, HM_ERR_USAGE,
                   "'%s' is no model, adapter, tokenizer, packed data or run folder", path);
}

static int add_value(struct hm_buf *line, const json_t *value, struct hm_error *err)
{
    return json_is_string(value) ? hm_buf_text(line, json_string_value(value), err)
                                 : hm_json_dump(value, line, err);
}

/* Names come out of files: nothing in them may steer the terminal. */
static void print_line(struct hm_buf *line)
{
    if (line->ptr)
        hm_text_clean(line->ptr);
    printf("%s\n", line->ptr ? line->ptr : "");
    hm_buf_clear(line);
}

/* An object of a list: "  name  key value  key value". */
static int add_item(struct hm_buf *line, json_t *item, struct hm_error *err)
{
    const char *key;
    json_t *value;

    json_object_foreach(item, key, value)
    {
        HM_TRY(hm_buf_printf(line, err, "  %s%s", json_is_string(value) ? "" : key,
                             json_is_string(value) ? "" : " "));
        HM_TRY(add_value(line, value, err));
    }
    return HM_OK;
}

/* Members as lines; of a list of objects, each object is a line. */
static int print_lines(json_t *facts, struct hm_buf *line, struct hm_error *err)
{
    const char *key;
    json_t *value, *item;
    size_t i;

    json_object_foreach(facts, key, value)
    {
        if (json_is_array(value) && json_is_object(json_array_get(value, 0))) {
            HM_TRY(hm_buf_printf(line, err, "%s:", key));
            print_line(line);
            json_array_foreach(value, i, item)
            {
                HM_TRY(add_item(line, item, err));
                print_line(line);
            }
            continue;
        }
        HM_TRY(hm_buf_printf(line, err, "%-20s ", key));
        HM_TRY(add_value(line, value, err));
        print_line(line);
    }
    return HM_OK;
}

int hm_cmd_inspect(int argc, char **argv, struct hm_error *err)
{
    bool as_json = false, tensors = false, quiet = false;
    const struct hm_arg table[] = { { "json", HM_ARG_FLAG, &as_json },
                                    { "tensors", HM_ARG_FLAG, &tensors },
                                    { "quiet", HM_ARG_FLAG, &quiet } };
    json_t *facts = NULL;
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 1, 1, err));
    HM_TRY(recognise(argv[1], tensors, &facts, err));
    if (!facts)
        return hm_fail_nomem(err, "while looking into '%s'", argv[1]);
    if (as_json)
        return hm_print_json(facts, err);
    struct hm_buf line = { 0 };
    int status = print_lines(facts, &line, err);
    hm_buf_release(&line);
    json_decref(facts);
    return status == HM_OK ? hm_print_flush(err) : status;
}
