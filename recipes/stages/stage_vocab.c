/* SPDX-License-Identifier: MIT */
/*
 * Counting and training for stages; see stage_vocab.h.
 */
#include "stage_vocab.h"

#include <string.h>

#include "counted_text.h"

/* Measured on 2 to 20 MB of encyclopedia text; runs that repeat take less. */
#define FIXED_BYTES         (24ull << 20)
#define BYTES_PER_TEXT_BYTE 4
#define PIECE_BYTES         256

bool hm_stage_is_count(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789.eE+")] == '\0';
}

int hm_stage_runs_count(const struct hm_stage_run *run, const struct stage_text *text,
                        struct hm_han_counts *counts, struct hm_error *err)
{
    struct hm_text_source source = { 0 };
    int r = hm_stage_text_open(run, "text", text, &source, err);

    if (r < 0)
        return r;
    hm_han_counts_limit(counts, run->memory_bytes);
    r = hm_stage_counted_add(run, "text", text, counts, err);
    if (r == HM_OK)
        r = hm_han_counts_read(counts, &source, run->ctl, err);
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    source.close(source.context);
    return r;
}

int hm_stage_train(const struct hm_stage_run *run, const struct hm_han_counts *counts,
                   uint64_t merges, uint32_t max_piece_chars,
                   int (*choose)(void *context, const struct hm_bpe_result *trained,
                                 struct hm_error *err),
                   void *context, struct hm_bpe_result *trained, struct hm_error *err)
{
    struct hm_bpe_options options = { .merges = (size_t)merges,
                                      .max_piece_chars = max_piece_chars,
                                      .memory_bytes = run->memory_bytes,
                                      .allow_fewer = true };

    for (;;) {
        HM_TRY(hm_bpe_train(counts, &options, run->ctl, trained, err));
        int r = choose(context, trained, err);
        if (r != HM_ERR_FORMAT || trained->n_merges < options.merges)
            return r;
        hm_bpe_result_release(trained);
        options.merges *= 2;
    }
}

int hm_stage_train_plan(const struct hm_stage_run *run, const struct stage_text *text,
                        uint64_t pieces, struct hm_stage_plan *ret_plan, struct hm_error *err)
{
    uint64_t bytes = 0;

    HM_TRY(hm_stage_input_bytes(run, "text", &ret_plan->read_bytes, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", STAGE_TEXT_BYTES, err));
    HM_TRY(hm_stage_text_bytes(run, "text", &bytes, err));
    if (text->sample_bytes > 0 && bytes > text->sample_bytes)
        bytes = text->sample_bytes;
    return hm_stage_plan_memory(ret_plan, "vocabulary",
                                FIXED_BYTES + BYTES_PER_TEXT_BYTE * bytes + pieces * PIECE_BYTES,
                                err);
}
