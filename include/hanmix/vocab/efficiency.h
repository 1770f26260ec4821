/* SPDX-License-Identifier: MIT */
/*
 * Encoding efficiency: what texts cost in tokens under several tokenizers, over named sets and in
 * all, with bootstrap intervals over documents. docs/FORMATS.md defines the measures.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_EFFICIENCY_H
#define HANMIX_VOCAB_EFFICIENCY_H

#include "hanmix/base/ctl.h"
#include "hanmix/vocab/any_tokenizer.h"

#define HM_EFFICIENCY_MAX_SETS 4096u

struct hm_parity_pair { /* two sets whose documents say the same, one by one */
    const char *a, *b;
};
struct hm_efficiency_options {
    double confidence;
    uint64_t seed;
    const struct hm_parity_pair *parity;
    size_t n_parity;
    bool sorted;     /* sets by name, not in order of appearance */
    uint64_t verify; /* one document in so many is encoded by libsentencepiece too; 0 none */
};

struct hm_token_sums {
    uint64_t tokens, byte_fallback_tokens, unk_tokens;
    uint64_t own_chars, own_han_chars; /* that stand whole in one piece that is no byte */
    uint64_t changed_lines;            /* without Han, with other ids than the first's */
};
struct hm_set_efficiency {
    char *name;
    uint64_t documents, bytes, chars, han_chars;
    uint64_t plain_lines; /* not empty, without Han */
    struct hm_token_sums sums;
    uint64_t pieces_used, new_pieces_used; /* ids that occur; from first_new on */
    /* against the first tokenizer: 1 - tokens/tokens_first */
    double reduction, reduction_low, reduction_high;
};
struct hm_piece_usage { /* of one tokenizer over all text */
    bool extends;       /* the first tokenizer's ids are its first: ids compare */
    uint64_t first_new; /* ids from here on are its own; count when it does not extend the first */
    /* occurrences of its new pieces, of all its pieces when it has none that are new */
    uint64_t pieces, count_p01, count_p10, count_p50;
};
struct hm_set_parity { /* tokens of set a over tokens of set b */
    double ratio, low, high;
};
struct hm_efficiency {
    struct hm_set_efficiency *cell;  /* [n_tokenizers][n_sets] */
    struct hm_set_efficiency *total; /* [n_tokenizers] */
    struct hm_piece_usage *usage;    /* [n_tokenizers] */
    struct hm_set_parity *parity;    /* [n_tokenizers][n_parity] */
    size_t n_tokenizers, n_sets, n_parity;
};
/* One pass over source for all tokenizers; 1000 resamples of documents, counter-based by seed.
 * A set of a pair that does not exist, or pairs of unequal length, are HM_ERR_USAGE. */
int hm_efficiency_measure(struct hm_text_source *source,
                          const struct hm_any_tokenizer *const *tokenizers, size_t n,
                          const struct hm_efficiency_options *options, const struct hm_ctl *ctl,
                          struct hm_efficiency *ret_result, struct hm_error *err);
void hm_efficiency_release(struct hm_efficiency *result);

#endif
