/* SPDX-License-Identifier: MIT */
/*
 * All splits of all pieces, in the order transformers 4.57 writes them: score, characters on the
 * left, characters on the right, all descending; then the result's id and the halves' ids
 * ascending.
 */
#include <stdlib.h>

#include "merge_pairs.h"

struct ordered_pair { /* what qsort sees: it has no context argument */
    struct hm_merge_pair pair;
    float score;
};

static bool is_normal(const struct hm_spm_model *model, int32_t id)
{
    return id >= 0 && model->piece[id].type == HM_PIECE_NORMAL;
}

/* Store the splits of one piece from list on, or only count them when list is NULL. */
static size_t split_piece(const struct hm_spm_model *model, int32_t id, struct ordered_pair *list)
{
    struct hm_str text = model->piece[id].text;
    uint32_t chars = list ? (uint32_t)hm_utf8_count(text) : 0;
    uint32_t left_chars = 0;
    size_t n = 0;

    for (size_t at = 1; at < text.len; at++) {
        if (((unsigned char)text.ptr[at] & 0xc0) == 0x80)
            continue;
        left_chars++;
        int32_t left = hm_spm_model_find(model, (struct hm_str){ text.ptr, at });
        if (!is_normal(model, left))
            continue;
        int32_t right = hm_spm_model_find(model, (struct hm_str){ text.ptr + at, text.len - at });
        if (!is_normal(model, right))
            continue;
        if (list)
            list[n] = (struct ordered_pair){ { left, right, id, left_chars, chars - left_chars },
                                             model->piece[id].score };
        n++;
    }
    return n;
}

static int ascending(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare(const void *left, const void *right)
{
    const struct ordered_pair *a = left;
    const struct ordered_pair *b = right;

    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->pair.left_chars != b->pair.left_chars)
        return ascending(b->pair.left_chars, a->pair.left_chars);
    if (a->pair.right_chars != b->pair.right_chars)
        return ascending(b->pair.right_chars, a->pair.right_chars);
    if (a->pair.result != b->pair.result)
        return ascending(a->pair.result, b->pair.result);
    return ascending(a->pair.left, b->pair.left);
}

int hm_merge_pairs_make(const struct hm_spm_model *model, int32_t first_result,
                        struct hm_merge_pairs *ret_pairs, struct hm_error *err)
{
    size_t count = 0;
    size_t n = 0;

    for (int32_t id = first_result; id < (int32_t)model->count; id++)
        count += is_normal(model, id) ? split_piece(model, id, NULL) : 0;
    struct ordered_pair *list = hm_alloc_array(HM_MEM_VOCAB, count, sizeof(*list));
    struct hm_merge_pair *pair = hm_alloc_array(HM_MEM_VOCAB, count, sizeof(*pair));
    if (!list || !pair) {
        hm_free(list);
        hm_free(pair);
        return hm_fail_nomem(err, "for %zu merges", count);
    }
    for (int32_t id = first_result; id < (int32_t)model->count; id++)
        n += is_normal(model, id) ? split_piece(model, id, list + n) : 0;
    qsort(list, count, sizeof(*list), compare);
    for (size_t i = 0; i < count; i++)
        pair[i] = list[i].pair;
    hm_free(list);
    *ret_pairs = (struct hm_merge_pairs){ pair, count };
    return HM_OK;
}

void hm_merge_pairs_release(struct hm_merge_pairs *pairs)
{
    hm_free(pairs->pair);
    *pairs = (struct hm_merge_pairs){ NULL, 0 };
}
