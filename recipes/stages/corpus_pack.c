/* SPDX-License-Identifier: MIT */
/*
 * Stage corpus.pack: text to windows of token ids. The work is corpus/packer.c; a tokenizer meets
 * it only as an encoder.
 */

#include "hanmix/base/alloc.h"
#include "hanmix/corpus/packed.h"
#include "stage_model.h"
#include "stage_util.h"
#include "token_forecast.h"

#define BYTES_PER_TEXT_BYTE 3              /* ids of 4 bytes for pieces of 1.6 bytes of text */
#define DROPOUT_TEXT_BYTE   5              /* the same where merges are left out */
#define SHUFFLE_MAX_BYTES   (144ull << 20) /* what the packer holds at most, documents and ids */

struct config {
    struct stage_text text;
    uint64_t seq_len, shuffle_buffer, verify;
    bool bos, eos, shuffle;
    double valid_fraction, bpe_dropout;
};

static const struct hm_field fields[] = {
    { .name = "seq_len",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, seq_len),
      .fallback = "2048",
      .min = 2,
      .max = 1 << 20,
      .help = "tokens in a window" },
    { .name = "bos",
      .type = HM_FIELD_BOOL,
      .offset = offsetof(struct config, bos),
      .fallback = "true",
      .help = "begin each document with <s>" },
    { .name = "eos",
      .type = HM_FIELD_BOOL,
      .offset = offsetof(struct config, eos),
      .fallback = "true",
      .help = "end each document with </s>" },
    { .name = "shuffle",
      .type = HM_FIELD_BOOL,
      .offset = offsetof(struct config, shuffle),
      .fallback = "false",
      .help = "shuffle documents in a buffer by seed before they are joined" },
    { .name = "shuffle_buffer",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct config, shuffle_buffer),
      .fallback = "10000",
      .min = 1,
      .max = 1e8,
      .help = "documents held by the shuffle" },
    { .name = "valid_fraction",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, valid_fraction),
      .fallback = "0",
      .max = 0.5,
      .help = "share of documents, by hash, written to valid.hmp" },
    STAGE_VERIFY_FIELD(struct config),
    { .name = "bpe_dropout",
      .type = HM_FIELD_DOUBLE,
      .offset = offsetof(struct config, bpe_dropout),
      .fallback = "0",
      .max = 1,
      .help = "BPE-dropout: leave out each merge with this probability, by seed and document; not "
              "in valid.hmp" },
    STAGE_TEXT_FIELDS(struct config, text),
};
static const struct hm_input inputs[] = {
    { .name = "text",
      .type = HM_INPUT_TEXT,
      .required = true,
      .many = true,
      .shares = true,
      .help = "text, or named sets, one after another; with weights they are mixed, two documents "
              "of weight 2 to one of weight 1, and the rest of the longest comes last; epochs: how "
              "often a set is read, 0.5 for half of its documents" },
    { .name = "tokenizer",
      .type = HM_INPUT_TOKENIZER,
      .required = true,
      .json = true,
      .help = "tokenizer of the model to train" },
};

static int report_fill(const struct hm_stage_run *run, const struct hm_pack_report *report,
                       uint64_t seq_len, struct hm_error *err)
{
    HM_TRY(hm_report_u64(run->report, "documents", report->documents, err));
    HM_TRY(hm_report_u64(run->report, "bytes", report->bytes, err));
    HM_TRY(hm_report_u64(run->report, "chars", report->chars, err));
    HM_TRY(hm_report_u64(run->report, "tokens", report->tokens, err));
    HM_TRY(hm_report_u64(run->report, "seq_len", seq_len, err));
    HM_TRY(hm_report_u64(run->report, "windows", report->windows, err));
    HM_TRY(hm_report_u64(run->report, "valid_windows", report->valid_windows, err));
    HM_TRY(hm_report_u64(run->report, "dropped_tokens", report->dropped_tokens, err));
    return hm_report_u64(run->report, "verified_documents", report->verified, err);
}

static int check_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;

    if (!config->shuffle && hm_stage_given(run, "shuffle_buffer"))
        return hm_fail(err, HM_ERR_USAGE, "set.shuffle_buffer has no effect without set.shuffle");
    return hm_stage_text_is_one(run, err);
}

static int run_stage(const struct hm_stage_run *run, struct hm_error *err)
{
    const struct config *config = run->config;
    struct hm_pack_options options = { .seq_len = (uint32_t)config->seq_len,
                                       .bos = config->bos,
                                       .eos = config->eos,
                                       .shuffle = config->shuffle,
                                       .shuffle_buffer = config->shuffle_buffer,
                                       .valid_fraction = config->valid_fraction,
                                       .seed = run->seed,
                                       .verify = (uint32_t)config->verify,
                                       .bpe_dropout = config->bpe_dropout };
    struct hm_pack_report report = { 0 };
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_text_source source = { 0 };
    char digest[HM_SHA256_HEX_BYTES];

    int r = hm_stage_tokenizer_open(run, "tokenizer", &tokenizer, err);
    if (r == HM_OK)
        r = hm_stage_input_digest(run, "text", digest, err);
    if (r == HM_OK)
        r = hm_stage_text_open(run, "text", &config->text, &source, err);
    if (r == HM_OK) {
        struct hm_text_encoder encoder = hm_tokenizer_encoder(tokenizer);
        r = hm_pack(&source, &encoder, &options, digest, run->out_dir, run->ctl, &report, err);
    }
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    if (r == HM_OK)
        r = report_fill(run, &report, config->seq_len, err);
    if (source.close)
        source.close(source.context);
    hm_tokenizer_free(tokenizer);
    return r;
}

static int plan_stage(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                      struct hm_error *err)
{
    const struct config *config = run->config;
    uint64_t pieces = 0;
    uint64_t bytes = 0;
    uint64_t text = 0;

    HM_TRY(hm_stage_input_bytes(run, "text", &bytes, err));
    HM_TRY(hm_stage_text_bytes(run, "text", &text, err));
    HM_TRY(hm_stage_vocab_size(run, "tokenizer", &pieces, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "vocabulary", pieces * STAGE_PIECE_BYTES, err));
    HM_TRY(hm_stage_json_plan(run, "tokenizer", ret_plan, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
    if (config->shuffle) {
        uint64_t held = BYTES_PER_TEXT_BYTE * text;
        HM_TRY(hm_stage_plan_memory(ret_plan, "shuffle",
                                    held < SHUFFLE_MAX_BYTES ? held : SHUFFLE_MAX_BYTES, err));
    }
    ret_plan->disk_bytes =
        (config->bpe_dropout > 0 ? DROPOUT_TEXT_BYTE : BYTES_PER_TEXT_BYTE) * text;
    ret_plan->read_bytes = bytes;
    ret_plan->work = bytes;
    ret_plan->work_unit = "bytes";
    if (!run->report) { /* a run needs no forecast of itself */
        uint64_t tokens = hm_tokens_forecast(run, &config->text, pieces,
                                             (unsigned)config->bos + (unsigned)config->eos);
        double windows = (double)tokens * (1 - config->valid_fraction) / (double)config->seq_len;
        HM_TRY(hm_stage_plan_fact(ret_plan, "windows", json_integer((json_int_t)windows), err));
    }
    HM_TRY(hm_stage_plan_fact(ret_plan, "seq_len", json_integer((json_int_t)config->seq_len), err));
    return hm_stage_plan_fact(ret_plan, "vocab_size", json_integer((json_int_t)pieces), err);
}

const struct hm_stage hm_stage_corpus_pack = {
    .name = "corpus.pack",
    .summary = "Pack text into windows of token ids.",
    .config_bytes = sizeof(struct config),
    .inputs = inputs,
    .n_inputs = COUNT_OF(inputs),
    .fields = fields,
    .n_fields = COUNT_OF(fields),
    .writes = "train.hmp, valid.hmp, report.json",
    .product = { HM_INPUT_PACKED },
    .product_path = { "" },
    .rehearsed = true,
    .check = check_stage,
    .plan = plan_stage,
    .run = run_stage,
};
