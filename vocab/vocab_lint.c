/* SPDX-License-Identifier: MIT */
/*
 * The lint of a grown vocabulary: the table of rules, the list of findings, and what follows from
 * them together. What it proves: if old pieces are unchanged and every new piece holds a Han
 * character, no concatenation inside text without one can be a new piece, so such text is cut
 * exactly as before. The rules are in lint_pieces.c, lint_encoding.c and lint_scores.c.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "lint_internal.h"
#include "spm_private.h"

const struct hm_lint_rule_info hm_lint_rule_info[HM_LINT_RULES] = {
    [HM_LINT_DUPLICATE] = { "duplicate", true, "keep the first of them and merge again" },
    [HM_LINT_PREFIX] = { "prefix", true,
                         "start from the old model, keep its records and append new pieces" },
    [HM_LINT_SETTINGS] = { "settings", true,
                           "keep the old model's trainer and normaliser settings" },
    [HM_LINT_NORMALISER] = { "normaliser", true,
                             "keep the old model's normaliser, and learn pieces from text that "
                             "went through the same one (vocab.train uses identity)" },
    [HM_LINT_TYPE] = { "type", true, "make it a normal piece (type 1), or drop it" },
    [HM_LINT_BYTE] = { "byte", true, "drop it; bytes are pieces of type 6" },
    [HM_LINT_CONTROL] = { "control", false,
                          "drop it; name the token among the added tokens of "
                          "tokenizer_config.json, or use </s> or <unk> for it" },
    [HM_LINT_SPACE] = { "space", true, "drop it; learn pieces from runs without spaces" },
    [HM_LINT_VARIANT] = { "variant", false, "keep the piece without U+2581 alone" },
    [HM_LINT_HAN] = { "han", true, "drop it (vocab.merge does)" },
    [HM_LINT_MIXED] = { "mixed", false,
                        "drop it; learn pieces from runs of one script (vocab.train does)" },
    [HM_LINT_CHARACTER] = { "character", false,
                            "add the character as a piece, or drop the pieces that hold it" },
    [HM_LINT_SPLIT] = { "split", true, "drop it, or add its halves" },
    [HM_LINT_SELF] = { "self", true, "drop it (vocab.merge does), or rank scores in merge order" },
    [HM_LINT_OLD] = { "old", true, "give new pieces scores below all old ones (score: ranked)" },
    [HM_LINT_ROUND_TRIP] = { "round_trip", true,
                             "drop it, or give the model byte fallback and the identity "
                             "normaliser" },
    [HM_LINT_SHADOW] = { "shadow", true,
                         "give new pieces scores below all old ones (score: ranked)" },
    [HM_LINT_ORDER] = { "order", true, "use ranked scores (score: ranked)" },
    [HM_LINT_TIE] = { "tie", true, "use ranked scores (score: ranked)" },
    [HM_LINT_INVERSION] = { "inversion", false,
                            "list pieces in merge order: halves before the whole" },
};

int hm_lint_add(struct hm_lints *lints, enum hm_lint_rule rule, struct hm_str piece, int32_t id,
                struct hm_error *err, const char *format, ...)
{
    char text[HM_ERROR_TEXT_BYTES];
    va_list args;

    if (lints->count == lints->cap) {
        size_t cap = lints->cap ? 2 * lints->cap : 16;
        struct hm_lint *item = hm_realloc(HM_MEM_VOCAB, lints->item, cap * sizeof(*item));
        if (!item)
            return hm_fail_nomem(err, "for %zu findings", cap);
        lints->item = item;
        lints->cap = cap;
    }
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    size_t len = strlen(text); /* not cut inside a character */
    for (size_t bad; !hm_utf8_valid((struct hm_str){ text, len }, &bad); len = bad)
        text[bad] = '\0';
    struct hm_lint lint = { hm_strndup(HM_MEM_VOCAB, piece.ptr, piece.len), id, rule,
                            hm_strdup(HM_MEM_VOCAB, text) };
    if (!lint.piece || !lint.detail) {
        hm_free(lint.piece);
        hm_free(lint.detail);
        return hm_fail_nomem(err, "for a finding");
    }
    lints->item[lints->count++] = lint;
    lints->of_rule[rule]++;
    lints->errors += hm_lint_rule_info[rule].error;
    return HM_OK;
}

int32_t hm_lint_normal_id(const struct hm_spm_model *model, struct hm_str text)
{
    int32_t id = hm_spm_model_find(model, text);

    return id >= 0 && model->piece[id].type == HM_PIECE_NORMAL ? id : -1;
}

float hm_lint_lowest_old(const struct lint_run *run)
{
    float lowest = INFINITY;

    for (size_t i = 0; i < run->old_model->count && i < run->new_model->count; i++) {
        const struct hm_piece *piece = &run->new_model->piece[i];
        if (piece->type == HM_PIECE_NORMAL && piece->score > HM_SPM_WHITESPACE_SCORE)
            lowest = fminf(lowest, piece->score);
    }
    return lowest;
}

int hm_vocab_lint(const struct hm_tokenizer *old_tokenizer,
                  const struct hm_tokenizer *new_tokenizer,
                  const struct hm_spm_model *source_or_null, struct hm_lints *ret_lints,
                  struct hm_error *err)
{
    struct lint_run run = { .old_tokenizer = old_tokenizer,
                            .new_tokenizer = new_tokenizer,
                            .old_model = &old_tokenizer->model,
                            .new_model = &new_tokenizer->model,
                            .source = source_or_null };

    run.dead = hm_calloc(HM_MEM_VOCAB, run.new_model->count, sizeof(*run.dead));
    int status = run.dead ? hm_lint_pieces(&run, err)
                          : hm_fail_nomem(err, "for %zu pieces", run.new_model->count);
    if (status == HM_OK)
        status = hm_lint_encoding(&run, err);
    if (status == HM_OK)
        status = hm_lint_scores(&run, err);
    hm_free(run.dead);
    if (status < 0) {
        hm_lints_release(&run.lints);
        return status;
    }
    const size_t *of_rule = run.lints.of_rule;
    run.lints.every_new_piece_has_han = of_rule[HM_LINT_HAN] == 0;
    /* A normaliser could make a Han character of another one. */
    run.lints.proved = of_rule[HM_LINT_HAN] == 0 && of_rule[HM_LINT_PREFIX] == 0 &&
                       of_rule[HM_LINT_SETTINGS] == 0 && run.new_model->kind == HM_SPM_BPE &&
                       run.old_model->by_merges == run.new_model->by_merges &&
                       !run.new_model->has_charsmap && !run.old_model->has_charsmap;
    *ret_lints = run.lints;
    return HM_OK;
}

static int duplicate_found(void *context, const struct hm_spm_duplicate *found,
                           struct hm_error *err)
{
    return hm_lint_add(context, HM_LINT_DUPLICATE, found->text, found->again, err,
                       "ids %" PRId32 " and %" PRId32 " are the same text: loaders refuse the file",
                       found->first, found->again);
}

int hm_vocab_lint_duplicates(const char *path, struct hm_lints *ret_lints, struct hm_error *err)
{
    struct hm_lints lints = { 0 };
    int status = hm_spm_duplicates_find(path, duplicate_found, &lints, err);

    if (status == HM_OK)
        *ret_lints = lints;
    else
        hm_lints_release(&lints);
    return status;
}

void hm_lints_release(struct hm_lints *lints)
{
    for (size_t i = 0; i < lints->count; i++) {
        hm_free(lints->item[i].piece);
        hm_free(lints->item[i].detail);
    }
    hm_free(lints->item);
    *lints = (struct hm_lints){ 0 };
}
