/* SPDX-License-Identifier: MIT */
/*
 * Finding user-defined pieces in text. They are sorted, so that each byte of the text narrows the
 * range of those that still match; a piece that ends where the others go on is the first of its
 * range. A piece is valid UTF-8, so its first byte is found only where a character begins.
 */
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "user_pieces.h"

static struct hm_str text_at(const struct hm_user_pieces *pieces, size_t place)
{
    return pieces->model->piece[pieces->id[place]].text;
}

static int by_text(const void *left, const void *right, void *context)
{
    const struct hm_spm_model *model = context;
    struct hm_str a = model->piece[*(const int32_t *)left].text;
    struct hm_str b = model->piece[*(const int32_t *)right].text;
    int order = memcmp(a.ptr, b.ptr, a.len < b.len ? a.len : b.len);

    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

int hm_user_pieces_make(const struct hm_spm_model *model, struct hm_user_pieces *ret_pieces,
                        struct hm_error *err)
{
    struct hm_user_pieces pieces = { .model = model };

    for (size_t i = 0; i < model->count; i++)
        pieces.count += model->piece[i].type == HM_PIECE_USER;
    if (pieces.count > 0) {
        size_t n = 0;
        pieces.id = hm_alloc_array(HM_MEM_VOCAB, pieces.count, sizeof(*pieces.id));
        if (!pieces.id)
            return hm_fail_nomem(err, "for %zu user-defined pieces", pieces.count);
        for (size_t i = 0; i < model->count; i++)
            if (model->piece[i].type == HM_PIECE_USER) {
                pieces.id[n++] = (int32_t)i;
                pieces.begins[(unsigned char)model->piece[i].text.ptr[0]] = true;
            }
        qsort_r(pieces.id, pieces.count, sizeof(*pieces.id), by_text, (void *)(uintptr_t)model);
    }
    *ret_pieces = pieces;
    return HM_OK;
}

void hm_user_pieces_release(struct hm_user_pieces *pieces)
{
    hm_free(pieces->id);
    *pieces = (struct hm_user_pieces){ 0 };
}

/* The first place of low..high whose byte `depth` is at least `wanted`; all are longer than that.
 */
static size_t first_at_least(const struct hm_user_pieces *pieces, size_t low, size_t high,
                             size_t depth, unsigned wanted)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)text_at(pieces, middle).ptr[depth] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest that text begins with; -1 when there is none. */
static int32_t longest(const struct hm_user_pieces *pieces, struct hm_str text)
{
    size_t low = 0, high = pieces->count;
    int32_t id = -1;

    for (size_t depth = 0; low < high; depth++) {
        if (text_at(pieces, low).len == depth)
            id = pieces->id[low++];
        if (depth == text.len)
            break;
        unsigned byte = (unsigned char)text.ptr[depth];
        low = first_at_least(pieces, low, high, depth, byte);
        high = first_at_least(pieces, low, high, depth, byte + 1);
    }
    return id;
}

size_t hm_user_pieces_find(const struct hm_user_pieces *pieces, struct hm_str text, size_t from,
                           int32_t *ret_id)
{
    if (pieces->count == 0)
        return text.len;
    for (size_t at = from; at < text.len; at++) {
        if (!pieces->begins[(unsigned char)text.ptr[at]])
            continue;
        *ret_id = longest(pieces, (struct hm_str){ text.ptr + at, text.len - at });
        if (*ret_id >= 0)
            return at;
    }
    return text.len;
}
