/* SPDX-License-Identifier: MIT */
/*
 * From a trained merge list to the pieces of a vocabulary of a wanted size: how many single
 * characters, how many merges.
 *
 * A character costs one row and saves two tokens each time it occurs (three bytes become one
 * token), a merge saves one: `auto` admits every character at least half as frequent as the last
 * merge taken. A merge is taken only when all its characters are pieces. With a base, pieces
 * without an ideograph (kana) are passed over, as piece_merge.h drops them, and so is what cannot
 * be cut into two pieces without those. Thread class: pure.
 */
#ifndef HANMIX_VOCAB_PIECE_SELECT_H
#define HANMIX_VOCAB_PIECE_SELECT_H

#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/spm_model.h"

enum hm_singles { HM_SINGLES_AUTO, HM_SINGLES_ALL, HM_SINGLES_COUNT, HM_SINGLES_LIST };

struct hm_select_options {
    uint64_t pieces; /* merges + single characters, those of the base not counted */
    enum hm_singles singles;
    uint64_t n_singles; /* COUNT: the most frequent ones */
    /* LIST: UTF-8 text; its Han-class characters, each once, in order, seen or not; lines that
     * begin with # are remarks */
    struct hm_str list;
    const char *list_name; /* names it in errors */
};
struct hm_selection {
    /* merges in merge order, then singles; texts borrow from trained and from list */
    struct hm_bpe_piece *piece;
    size_t n_merges, n_singles;
    size_t n_merges_skipped; /* a character or half is no piece, or the base has or refuses them */
};

/*
 * base may be NULL. Fewer merges trained than wanted: HM_ERR_FORMAT naming both numbers; more
 * singles than pieces: HM_ERR_USAGE. Free with hm_selection_release.
 */
int hm_piece_select(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                    const struct hm_select_options *options, struct hm_selection *ret_selection,
                    struct hm_error *err);
void hm_selection_release(struct hm_selection *selection);

#define HM_SELECTION_META (3u + 256u) /* pieces of its model that are not chosen */
/* A model file of <unk> <s> </s>, the 256 bytes, merges and singles; scores fall with the rank, as
   the trainer of sentencepiece sets them. */
int hm_selection_model(const struct hm_selection *selection, struct hm_buf *ret_bytes,
                       struct hm_error *err);

#endif
