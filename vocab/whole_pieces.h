/* SPDX-License-Identifier: MIT */
/*
 * Pieces that a segment of text is looked up in before it is merged: those of 2 to HM_WHOLE_MOST
 * characters that encode to themselves when nothing stands around them, which was tried once for
 * each of them. Private to vocab/. Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_WHOLE_PIECES_H
#define HANMIX_VOCAB_WHOLE_PIECES_H

#include "piece_table.h"

#define HM_WHOLE_MOST 24u

struct hm_whole_slot {
    uint64_t hash;  /* of its symbols; 0 is empty */
    uint32_t first; /* in symbol */
    int32_t id;
};

struct hm_whole_pieces {
    struct hm_whole_slot *slot; /* open addressing */
    size_t mask;
    unsigned shift;  /* 64 - log2 of the number of slots */
    int32_t *symbol; /* of all pieces, each ended by -1 */
};

int hm_whole_pieces_make(const struct hm_spm_model *model, const struct hm_piece_table *table,
                         struct hm_whole_pieces *ret_pieces, struct hm_error *err);
void hm_whole_pieces_release(struct hm_whole_pieces *pieces);

/* Of a segment, symbol by symbol from 0 on. */
static inline uint64_t hm_whole_hash(uint64_t hash, int32_t symbol)
{
    return (hash ^ (uint32_t)symbol) * 0x9e3779b97f4a7c15u;
}

/* The piece of n symbols; -1 when there is none. */
static inline int32_t hm_whole_pieces_find(const struct hm_whole_pieces *pieces, uint64_t hash,
                                           const int32_t *symbol, size_t n)
{
    size_t place = (size_t)(hash >> pieces->shift);

    for (; pieces->slot[place].hash != 0; place = (place + 1) & pieces->mask) {
        const struct hm_whole_slot *slot = &pieces->slot[place];
        if (slot->hash != hash)
            continue;
        const int32_t *own = pieces->symbol + slot->first;
        size_t i = 0;
        while (i < n && own[i] == symbol[i])
            i++;
        if (i == n && own[n] < 0)
            return slot->id;
    }
    return -1;
}

#endif
