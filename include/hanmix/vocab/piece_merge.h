/* SPDX-License-Identifier: MIT */
/*
 * Merging learned pieces into a base SentencePiece model: filter, closure, ranked scores, files for
 * every loader, proofs.
 * Thread class: pure.
 */
#ifndef HANMIX_VOCAB_PIECE_MERGE_H
#define HANMIX_VOCAB_PIECE_MERGE_H

#include "hanmix/vocab/tokenizer.h"

struct hm_merge_options {
    /*
     * false: ranked, every new score below all of the base's merges, in merge order; pieces that
     * could not be reached are dropped. true: the score-0 files of others, for comparison: pieces
     * in the order of extra, and nothing is dropped for being out of reach.
     */
    bool score_zero;
    uint32_t max_piece_chars; /* 0: 16 */
    bool han_marks;           /* of Han pieces also those that hold Chinese punctuation */
    /* Pieces of any script; with score_zero those of any type and length too, as normal ones: what
       the published merge scripts do. */
    bool any_script;
};

struct hm_dropped_piece {
    char *piece;
    const char *reason; /* static text */
};

struct hm_merge_result {
    struct hm_buf model_bytes; /* base bytes are a prefix */
    struct hm_piece *added;    /* in id order from the base's count: merges, then single characters,
                                  unless score_zero; text borrowed from storage */
    size_t n_added;
    struct hm_dropped_piece *dropped; /* in the order of extra */
    size_t n_dropped;
    void *storage;
};

/*
 * extra: a model whose pieces are candidates in the order of their scores (the merge order of a BPE
 * model), of their ids where those are equal; its byte and meta pieces are ignored without a word.
 * Kept: Han script throughout, an ideograph among it, not in base, made of characters that are
 * pieces and of two pieces, encoding to itself. base must be BPE.
 */
int hm_piece_merge(const struct hm_spm_model *base, const struct hm_spm_model *extra,
                   const struct hm_merge_options *options, struct hm_merge_result *ret_result,
                   struct hm_error *err);
void hm_merge_result_release(struct hm_merge_result *result);

/* Refuses a model of which tokenizer.json cannot say how it cuts text, and names why. */
int hm_tokenizer_json_check(const struct hm_spm_model *model, struct hm_error *err);
/* tokenizer.json, tokenizer_config.json, special_tokens_map.json for a BPE model; base_dir_or_null:
   a folder whose files are extended or taken over when it has them. */
int hm_tokenizer_json_write(const struct hm_spm_model *model, const char *base_dir_or_null,
                            const char *out_dir, struct hm_error *err);

#endif
