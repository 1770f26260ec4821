/* SPDX-License-Identifier: MIT */
/*
 * A table of small stages in place of the real ones: what the engine promises is tested with stages
 * that are slow, fail or stop on demand. Linked instead of recipes/engine/stage_table.c.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "hanmix/base/file.h"
#include "hanmix/recipes/stage.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int sleep_steps(const struct hm_stage_run *run, uint64_t ms, struct hm_error *err)
{
    for (uint64_t i = 0; i < ms; i++) {
        if (hm_ctl_stopped(run->ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped after %d ms", (int)i);
        usleep(1000);
    }
    return HM_OK;
}

static int write_in(const char *dir, const char *name, const char *word, uint64_t bytes,
                    struct hm_error *err)
{
    struct hm_out_file file;
    char *path = NULL;
    size_t len = strlen(word);

    HM_TRY(hm_path_join(&path, dir, name, err));
    int status = hm_out_open(path, &file, err);
    hm_free(path);
    HM_TRY(status);
    for (uint64_t done = 0; status == HM_OK && done < bytes; done += len)
        status = hm_out_write(&file, word, len < bytes - done ? len : bytes - done, err);
    if (status == HM_OK)
        return hm_out_commit(&file, err);
    hm_out_abort(&file);
    return status;
}

/* --- test.make --- */

enum { OUTCOME_OK, OUTCOME_CHECK, OUTCOME_NUMERIC };
struct make_config {
    uint64_t bytes, slow_ms, pieces;
    char *word, *from;
    int outcome;
    double share;
    bool flag;
    struct hm_text_list list;
    struct hm_text_map pairs;
};
static const char *const outcomes[] = { "none", "check", "numeric", NULL };
static const char *const from_words[] = { "auto", NULL };
static const struct hm_field make_fields[] = {
    { .name = "bytes",
      .type = HM_FIELD_SIZE,
      .offset = offsetof(struct make_config, bytes),
      .fallback = "100",
      .min = 1,
      .max = 1e12,
      .help = "size of the file" },
    { .name = "slow_ms",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct make_config, slow_ms),
      .fallback = "0",
      .help = "milliseconds to take",
      .neutral = true },
    { .name = "pieces",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct make_config, pieces),
      .fallback = "10",
      .help = "a count" },
    { .name = "word",
      .type = HM_FIELD_TEXT,
      .offset = offsetof(struct make_config, word),
      .fallback = "hello ",
      .help = "what the file repeats" },
    { .name = "from",
      .type = HM_FIELD_TEXT,
      .offset = offsetof(struct make_config, from),
      .fallback = "auto",
      .choices = from_words,
      .path = true,
      .help = "auto, a number or a file" },
    { .name = "fail",
      .type = HM_FIELD_CHOICE,
      .offset = offsetof(struct make_config, outcome),
      .fallback = "none",
      .choices = outcomes,
      .help = "how to end" },
    { .name = "share",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct make_config, share),
      .fallback = "0.5",
      .min = 0,
      .max = 1,
      .help = "a share" },
    { .name = "flag",
      .type = HM_FIELD_BOOL,
      .offset = offsetof(struct make_config, flag),
      .fallback = "false",
      .help = "a flag" },
    { .name = "list",
      .type = HM_FIELD_LIST,
      .offset = offsetof(struct make_config, list),
      .fallback = "a,b",
      .help = "a list" },
    { .name = "pairs",
      .type = HM_FIELD_MAP,
      .offset = offsetof(struct make_config, pairs),
      .help = "a map" },
};
static const struct hm_input make_inputs[] = {
    { .name = "text", .type = HM_INPUT_TEXT, .many = true, .shares = true, .help = "text, unused" },
};

static int make_plan(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                     struct hm_error *err)
{
    const struct make_config *config = run->config;

    ret_plan->disk_bytes = config->bytes;
    ret_plan->work = config->bytes;
    ret_plan->work_unit = "bytes";
    HM_TRY(
        hm_stage_plan_fact(ret_plan, "vocab_size", json_integer((json_int_t)config->pieces), err));
    return hm_stage_plan_memory(ret_plan, "buffer", 256u << 10, err);
}

static int make_run(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct make_config *config = run->config;
    const struct hm_input_value *text = hm_stage_input(run, "text");
    json_t *sets = json_array();

    for (size_t s = 0; text && s < text->n_sets; s++)
        json_array_append_new(sets, json_pack("{s:s, s:i, s:f, s:s}", "name", text->set[s].name,
                                              "paths", (int)text->set[s].n_paths, "weight",
                                              text->set[s].weight, "first", text->set[s].path[0]));
    json_object_set_new(run->report, "sets", sets);
    json_object_set_new(run->report, "from", json_string(config->from));
    json_object_set_new(run->stage_info, "kernel", json_string("none"));
    HM_TRY(write_in(run->out_dir, "tokenizer.model", config->word, config->bytes, err));
    HM_TRY(sleep_steps(run, config->slow_ms, err));
    if (config->outcome == OUTCOME_CHECK)
        return hm_fail(err, HM_ERR_CHECK, "the check failed as asked");
    if (config->outcome == OUTCOME_NUMERIC)
        return hm_fail(err, HM_ERR_NUMERIC, "step 3: the loss is not finite");
    return HM_OK;
}

static int make_check(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct make_config *config = run->config;

    if (config->flag && config->share > 0.9)
        return hm_fail(err, HM_ERR_USAGE, "%s: flag and share above 0.9 exclude each other",
                       run->id);
    return HM_OK;
}

static const struct hm_stage stage_make = {
    .name = "test.make",
    .summary = "Make a file.",
    .config_bytes = sizeof(struct make_config),
    .inputs = make_inputs,
    .n_inputs = COUNT(make_inputs),
    .fields = make_fields,
    .n_fields = COUNT(make_fields),
    .writes = "tokenizer.model",
    .product = { HM_INPUT_TOKENIZER },
    .product_path = { "" },
    .digests_inputs = true, /* says so, but reads nothing: the engine has to */
    .check = make_check,
    .plan = make_plan,
    .run = make_run,
};

/* --- test.train: resumable, one line of its state file a step --- */

struct train_config {
    uint64_t steps, slow_ms;
    double lr;
};
static const struct hm_field train_fields[] = {
    { .name = "steps",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct train_config, steps),
      .fallback = "10",
      .help = "steps" },
    { .name = "slow_ms",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct train_config, slow_ms),
      .fallback = "0",
      .help = "per step",
      .neutral = true },
    { .name = "lr",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct train_config, lr),
      .fallback = "1e-4",
      .help = "rate" },
};
static const struct hm_input train_inputs[] = {
    { .name = "tokenizer",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .help = "what to learn from" },
};

static int train_plan(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct train_config *config = run->config;
    const struct hm_input_value *input = hm_stage_input(run, "tokenizer");

    ret_plan->work = config->steps;
    ret_plan->work_unit = "steps";
    ret_plan->flops = 2e12;
    if (input->set[0].pending &&
        json_integer_value(json_object_get(input->set[0].facts, "vocab_size")) <= 0)
        return hm_fail(err, HM_ERR_USAGE, "%s: nothing is known of its input", run->id);
    HM_TRY(hm_stage_plan_mapped(ret_plan, "weights", 64u << 20, err));
    return hm_stage_plan_memory(ret_plan, "activations", 32u << 20, err);
}

static int train_run(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct train_config *config = run->config;
    char path[4096];
    struct hm_buf lines = { 0 };
    uint64_t done = 0;

    snprintf(path, sizeof(path), "%s/metrics.jsonl", run->out_dir);
    if (hm_path_exists(path)) {
        HM_TRY(hm_file_read(path, 1u << 20, &lines, err));
        for (size_t i = 0; i < lines.len; i++)
            done += lines.ptr[i] == '\n';
        hm_buf_release(&lines);
    }
    json_object_set_new(run->report, "resumed_from", json_integer((json_int_t)done));
    for (; done < config->steps; done++) {
        char line[80];
        int len = snprintf(line, sizeof(line), "{\"step\": %d, \"loss\": %.2f}\n", (int)done + 1,
                           5.0 - (double)done / 100);
        HM_TRY(hm_file_append(path, line, (size_t)len, err));
        HM_TRY(sleep_steps(run, config->slow_ms, err));
        hm_ctl_progress(run->ctl, &(struct hm_progress){ "train", "steps", done + 1, config->steps,
                                                         "loss 1.0" });
    }
    snprintf(path, sizeof(path), "%s/adapter", run->out_dir);
    HM_TRY(hm_dir_make(path, err));
    return write_in(path, "adapter_config.json", "{}", 2, err);
}

static const struct hm_stage stage_train = {
    .name = "test.train",
    .summary = "Learn in steps.",
    .config_bytes = sizeof(struct train_config),
    .inputs = train_inputs,
    .n_inputs = COUNT(train_inputs),
    .fields = train_fields,
    .n_fields = COUNT(train_fields),
    .writes = "adapter/ or model/",
    .product = { HM_INPUT_ADAPTER, HM_INPUT_MODEL },
    .product_path = { "adapter", "model" },
    .resumable = true,
    .plan = train_plan,
    .run = train_run,
};

/* --- test.twice: two products of one type; test.use: takes everything --- */

struct no_config {
    int unused;
};

static int no_plan(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                   struct hm_error *err)
{
    (void)run;
    return hm_stage_plan_memory(ret_plan, "buffer", 64u << 10, err);
}

static int twice_run(const struct hm_stage_run *run, struct hm_error *err)
{
    HM_TRY(write_in(run->out_dir, "a.model", "a", 1, err));
    return write_in(run->out_dir, "b.model", "b", 1, err);
}

static int use_run(const struct hm_stage_run *run, struct hm_error *err)
{
    for (size_t i = 0; i < run->n_inputs; i++) {
        json_t *paths = json_array();
        for (size_t s = 0; s < run->inputs[i].n_sets; s++)
            for (size_t p = 0; p < run->inputs[i].set[s].n_paths; p++)
                json_array_append_new(paths, json_string(run->inputs[i].set[s].path[p]));
        json_object_set_new(run->report, run->inputs[i].input->name, paths);
    }
    return write_in(run->out_dir, "used.txt", "used\n", 5, err);
}

static const struct hm_stage stage_twice = {
    .name = "test.twice",
    .summary = "Make two files of one type.",
    .config_bytes = sizeof(struct no_config),
    .writes = "a.model, b.model",
    .product = { HM_INPUT_TOKENIZER, HM_INPUT_TOKENIZER },
    .product_path = { "a.model", "b.model" },
    .plan = no_plan,
    .run = twice_run,
};
static const struct hm_input use_inputs[] = {
    { .name = "tokenizer", .type = HM_INPUT_TOKENIZER, .required = true, .help = "a tokenizer" },
    { .name = "adapter", .type = HM_INPUT_ADAPTER, .help = "an adapter" },
    { .name = "models", .type = HM_INPUT_MODEL, .many = true, .help = "models" },
    { .name = "file", .type = HM_INPUT_FILE, .help = "a file" },
};
static const struct hm_stage stage_use = {
    .name = "test.use",
    .summary = "Use what others made.",
    .config_bytes = sizeof(struct no_config),
    .inputs = use_inputs,
    .n_inputs = COUNT(use_inputs),
    .writes = "used.txt",
    .plan = no_plan,
    .run = use_run,
};

static const struct hm_stage *const table[] = { &stage_make, &stage_train, &stage_twice,
                                                &stage_use };

size_t hm_stage_count(void)
{
    return COUNT(table);
}

const struct hm_stage *hm_stage_at(size_t i)
{
    return table[i];
}
