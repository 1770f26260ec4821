/* SPDX-License-Identifier: MIT */
/*
 * Stage vocab.measure: how many tokens each tokenizer needs for the same texts. Counting and
 * intervals are vocab/efficiency.c's, the report measure_report.c's, tables measure_tables.c's.
 */
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "measure_tables.h"
#include "stage_model.h"

#define CONTEXT_MAX 1000000000

#define LONG_TEXT_TIMES 10u /* the line, two batches of it, its ids, and growing */

struct config {
    struct stage_text text;
    double confidence;
    uint64_t verify;
    struct hm_text_list parity, context;
};

static const struct hm_field fields[] = {
    STAGE_TEXT_FIELDS(struct config, text),
    STAGE_VERIFY_FIELD(struct config),
    { .name = "confidence",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, confidence),
      .fallback = "0.95",
      .min = 0.5,
      .max = 0.9999,
      .help = "coverage of the bootstrap intervals" },
    { .name = "parity",
      .type = HM_FIELD_LIST,
      .offset = offsetof(struct config, parity),
      .help = "pairs of parallel sets, as zh/en: tokens of the first over those of the second, "
              "whose documents say the same one by one" },
    { .name = "context",
      .type = HM_FIELD_LIST,
      .offset = offsetof(struct config, context),
      .fallback = "4096,32768",
      .help = "context lengths in tokens, to tell how many characters they hold" },
};
static const struct hm_input inputs[] = {
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .help = "held-out text, one or several named sets" },
    { .name = "tokenizers",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .many = true,
      .json = true,
      .help = "tokenizers to compare, SentencePiece models or BPE in a tokenizer.json; reductions "
              "are against the first" },
};

static void measured_release(struct measured *m)
{
    hm_efficiency_release(&m->result);
    for (size_t i = 0; m->tokenizer && i < m->n_tokenizers; i++)
        hm_any_tokenizer_free(m->tokenizer[i]);
    hm_free((void *)m->tokenizer);
    hm_free((void *)m->path);
    hm_free((void *)m->label);
    hm_free(m->context);
}

static int tokenizers_open(const struct hm_stage_run *run, struct measured *m, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "tokenizers");
    size_t count = 0;

    for (size_t i = 0; i < input->n_sets; i++)
        count += input->set[i].n_paths;
    m->tokenizer = hm_calloc(HM_MEM_VOCAB, count, sizeof(struct hm_any_tokenizer *));
    m->path = hm_calloc(HM_MEM_VOCAB, count, sizeof(*m->path));
    m->label = hm_calloc(HM_MEM_VOCAB, count, sizeof(*m->label));
    if (!m->tokenizer || !m->path || !m->label)
        return hm_fail_nomem(err, "for %zu tokenizers", count);
    for (size_t i = 0; i < input->n_sets; i++) {
        for (size_t f = 0; f < input->set[i].n_paths; f++) {
            const char *path = input->set[i].path[f];
            bool named = input->set[i].name[0] && input->set[i].n_paths == 1;
            m->path[m->n_tokenizers] = path;
            m->label[m->n_tokenizers] = named ? input->set[i].name : hm_path_tail(path, 2);
            HM_TRY(hm_any_tokenizer_open(path, &m->tokenizer[m->n_tokenizers], err));
            const struct hm_tokenizer *spm = m->tokenizer[m->n_tokenizers]->spm;
            m->n_tokenizers++;
            if (spm)
                HM_TRY(hm_stage_encoder_note(run, m->label[m->n_tokenizers - 1], spm, err));
        }
    }
    return HM_OK;
}

/* "zh/en": each half the name of a set. */
static int parity_slash(const char *text, size_t *ret_at, struct hm_error *err)
{
    size_t at = strcspn(text, "/");

    if (at == 0 || text[at] == '\0' || text[at + 1] == '\0')
        return hm_fail(err, HM_ERR_USAGE, "set.parity: '%s' is not a pair of sets, as in zh/en",
                       text);
    *ret_at = at;
    return HM_OK;
}

static int parity_parse(const struct hm_text_list *list, struct hm_parity_pair *pair,
                        struct hm_error *err)
{
    size_t at = 0;

    for (size_t i = 0; i < list->count; i++) {
        HM_TRY(parity_slash(list->item[i], &at, err));
        list->item[i][at] = '\0'; /* the list is this run's own */
        pair[i] = (struct hm_parity_pair){ list->item[i], list->item[i] + at + 1 };
    }
    return HM_OK;
}

static int context_length(const char *text, uint64_t *ret_length, struct hm_error *err)
{
    HM_TRY(hm_parse_count(text, ret_length, err));
    if (*ret_length < 1 || *ret_length > CONTEXT_MAX)
        return hm_fail(err, HM_ERR_USAGE, "set.context: %s is not between 1 and %d", text,
                       CONTEXT_MAX);
    return HM_OK;
}

static int context_parse(const struct hm_text_list *list, struct measured *m, struct hm_error *err)
{
    m->context = hm_calloc(HM_MEM_OTHER, list->count, sizeof(*m->context));
    if (!m->context)
        return hm_fail_nomem(err, "for %zu context lengths", list->count);
    for (size_t i = 0; i < list->count; i++) {
        HM_TRY(context_length(list->item[i], &m->context[i], err));
        m->n_context++;
    }
    return HM_OK;
}

static int set_known(const struct hm_stage_run *run, struct hm_str name, struct hm_error *err)
{
    const struct hm_input_value *text = hm_stage_input(run, "text");

    for (size_t i = 0; text && i < text->n_sets; i++) {
        const char *known = text->set[i].name[0] ? text->set[i].name : "text";
        if (strlen(known) == name.len && memcmp(known, name.ptr, name.len) == 0)
            return HM_OK;
    }
    return hm_fail(err, HM_ERR_USAGE, "set.parity names '%.*s', but in.text has no set '%.*s'",
                   (int)name.len, name.ptr, (int)name.len, name.ptr);
}

/* Sets that documents name are known only when these are read. */
static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    bool by_document = config->text.set_field && config->text.set_field[0];
    uint64_t length = 0;
    size_t at = 0;

    for (size_t i = 0; i < config->context.count; i++)
        HM_TRY(context_length(config->context.item[i], &length, err));
    for (size_t i = 0; i < config->parity.count; i++) {
        const char *pair = config->parity.item[i];
        HM_TRY(parity_slash(pair, &at, err));
        if (by_document)
            continue;
        HM_TRY(set_known(run, (struct hm_str){ pair, at }, err));
        HM_TRY(set_known(run, (struct hm_str){ pair + at + 1, strlen(pair + at + 1) }, err));
    }
    return HM_OK;
}

static int measure_text(const struct hm_stage_run *run, struct measured *m,
                        const struct hm_parity_pair *pair, struct hm_error *err)
{
    const struct config *config = run->config;
    const struct hm_efficiency_options options = {
        .confidence = config->confidence,
        .seed = run->seed,
        .verify = config->verify,
        .parity = pair,
        .n_parity = config->parity.count,
        .sorted = config->text.set_field && config->text.set_field[0],
    };
    struct hm_text_source source = { 0 };

    HM_TRY(hm_stage_text_open(run, "text", &config->text, &source, err));
    int r = hm_efficiency_measure(&source, (const struct hm_any_tokenizer *const *)m->tokenizer,
                                  m->n_tokenizers, &options, run->ctl, &m->result, err);
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    source.close(source.context);
    return r;
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct measured m = { 0 };
    struct hm_parity_pair *pair = hm_calloc(HM_MEM_OTHER, config->parity.count + 1, sizeof(*pair));

    if (!pair)
        return hm_fail_nomem(err, "for %zu pairs of sets", config->parity.count);
    m.parity = pair;
    int r = parity_parse(&config->parity, pair, err);
    if (r == HM_OK)
        r = context_parse(&config->context, &m, err);
    if (r == HM_OK)
        r = tokenizers_open(run, &m, err);
    if (r == HM_OK)
        r = measure_text(run, &m, pair, err);
    if (r == HM_OK)
        r = hm_measured_report(run, &m, err);
    if (r == HM_OK)
        r = hm_measured_write(run, &m, err);
    measured_release(&m);
    hm_free(pair);
    return r;
}

/* Pieces of all tokenizers, and bytes of those that are a tokenizer.json. */
static int tokenizers_size(const struct hm_stage_run *run, uint64_t *ret_pieces,
                           uint64_t *ret_json_bytes, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "tokenizers");
    struct hm_any_tokenizer *tokenizer = NULL;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        const struct hm_input_set *set = &input->set[i];
        const json_t *foretold = json_object_get(set->facts, "vocab_size");
        if (set->pending && json_is_integer(foretold))
            *ret_pieces += (uint64_t)json_integer_value(foretold);
        for (size_t f = 0; !set->pending && f < set->n_paths; f++) {
            HM_TRY(hm_any_tokenizer_open(set->path[f], &tokenizer, err));
            *ret_pieces += tokenizer->count;
            *ret_json_bytes += tokenizer->json_bytes;
            hm_any_tokenizer_free(tokenizer);
        }
    }
    return HM_OK;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    uint64_t pieces = 0;
    uint64_t text = 0;
    uint64_t json = 0;

    HM_TRY(tokenizers_size(run, &pieces, &json, err));
    HM_TRY(hm_stage_input_bytes(run, "text", &text, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", STAGE_PIECE_BYTES * pieces, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "tokenizer.json", STAGE_JSON_PER_BYTE * json, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "counts",
                                pieces * sizeof(uint64_t) * (uint64_t)hm_threads(), err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
    HM_TRY(hm_stage_plan_long(run, "text", LONG_TEXT_TIMES, ret_plan, err));
    ret_plan->disk_bytes = 64 << 10;
    ret_plan->work = text;
    ret_plan->work_unit = "bytes";
    return HM_OK;
}

const struct hm_stage hm_stage_vocab_measure = {
    .name = "vocab.measure",
    .summary = "Compare how many tokens tokenizers need for the same text.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "report.json, efficiency.csv, efficiency.svg, efficiency.md, efficiency.txt",
    .rehearsed = true,
    .check = check_stage,
    .plan = plan_stage,
    .run = run_stage,
};
