/* SPDX-License-Identifier: MIT */
/*
 * Making the table of whole pieces. A piece that merging does not give (its halves are no pieces,
 * or better merges take its characters apart) is left out, and so is merged in text as well.
 */
#include "whole_pieces.h"
#include "segment_merge.h"

_Static_assert(HM_WHOLE_MOST <= HM_SHORT_SYMBOLS, "a piece is merged in an array");

static uint32_t rule_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    return hm_piece_table_merge(context, left, right, ret_result);
}

static void rule_merged(void *context, int32_t left, int32_t right, int32_t result)
{
    (void)context, (void)left, (void)right, (void)result;
}

static const struct hm_segment_rule rule = { rule_rank, rule_merged, NULL };

/* The symbols of a piece, ended by -1; 0 when it is not one to look up. */
static size_t piece_symbols(const struct hm_piece_table *table, const struct hm_piece *piece,
                            int32_t *symbol)
{
    size_t n = 0;
    uint32_t code = 0;

    if (piece->type != HM_PIECE_NORMAL)
        return 0;
    for (size_t at = 0; at < piece->text.len; n++) {
        if (n == HM_WHOLE_MOST)
            return 0;
        at += hm_utf8_decode(piece->text.ptr + at, piece->text.len - at, &code);
        symbol[n] = hm_piece_table_symbol(table, code);
    }
    symbol[n] = -1;
    return n > 1 ? n : 0;
}

static void piece_put(struct hm_whole_pieces *pieces, const int32_t *symbol, size_t n, int32_t id,
                      size_t *used)
{
    uint64_t hash = 0;

    for (size_t i = 0; i < n; i++)
        hash = hm_whole_hash(hash, symbol[i]);
    size_t place = (size_t)(hash >> pieces->shift);
    while (pieces->slot[place].hash != 0)
        place = (place + 1) & pieces->mask;
    if (hash == 0 || *used > UINT32_MAX)
        return; /* it is merged like others */
    pieces->slot[place] = (struct hm_whole_slot){ hash, (uint32_t)*used, id };
    memcpy(pieces->symbol + *used, symbol, (n + 1) * sizeof(*symbol));
    *used += n + 1;
}

static void pieces_put(const struct hm_spm_model *model, const struct hm_piece_table *table,
                       struct hm_whole_pieces *pieces)
{
    int32_t symbol[HM_WHOLE_MOST + 1], work[HM_WHOLE_MOST];
    size_t used = 0;

    for (size_t i = 0; i < model->count; i++) {
        size_t n = piece_symbols(table, &model->piece[i], symbol);
        if (n == 0)
            continue;
        memcpy(work, symbol, n * sizeof(*work));
        if (hm_segment_merge_short(rule, (void *)(uintptr_t)table, work, n) == 1 &&
            work[0] == (int32_t)i)
            piece_put(pieces, symbol, n, (int32_t)i, &used);
    }
}

int hm_whole_pieces_make(const struct hm_spm_model *model, const struct hm_piece_table *table,
                         struct hm_whole_pieces *ret_pieces, struct hm_error *err)
{
    struct hm_whole_pieces pieces = { .shift = 64 - 6 };
    size_t slots = 64, room = 0;

    for (; slots < 2 * model->count; pieces.shift--)
        slots *= 2;
    pieces.mask = slots - 1;
    for (size_t i = 0; i < model->count; i++)
        room += hm_utf8_count(model->piece[i].text) + 1;
    pieces.slot = hm_calloc(HM_MEM_VOCAB, slots, sizeof(*pieces.slot));
    pieces.symbol = hm_alloc_array(HM_MEM_VOCAB, room, sizeof(*pieces.symbol));
    if (!pieces.slot || !pieces.symbol) {
        hm_whole_pieces_release(&pieces);
        return hm_fail_nomem(err, "for an encoder");
    }
    pieces_put(model, table, &pieces);
    *ret_pieces = pieces;
    return HM_OK;
}

void hm_whole_pieces_release(struct hm_whole_pieces *pieces)
{
    hm_free(pieces->slot);
    hm_free(pieces->symbol);
    *pieces = (struct hm_whole_pieces){ 0 };
}
