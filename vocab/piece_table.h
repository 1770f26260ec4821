/* SPDX-License-Identifier: MIT */
/*
 * What merging needs to know of a BPE vocabulary, in tables: characters to symbols, pairs of
 * symbols to the symbol they merge into and its rank. Symbols are the ids of normal pieces, then,
 * from `pieces` on, characters that occur in pieces without being one (SentencePiece merges through
 * them). Private to vocab/. Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_PIECE_TABLE_H
#define HANMIX_VOCAB_PIECE_TABLE_H

#include "hanmix/vocab/spm_model.h"

#define HM_NO_RANK UINT32_MAX

struct hm_pair_slot {
    uint64_t key; /* left << 32 | right, plus 1; 0 is empty */
    uint32_t result, rank;
};

struct hm_piece_table {
    struct hm_pair_slot *slot;
    unsigned shift; /* 64 - log2 of the number of slots */
    size_t mask;
    int32_t *page[4352]; /* code point >> 8 to 256 symbols, -1 none; NULL when all are none */
    uint32_t *extra;     /* code points of the symbols from `pieces` on */
    size_t n_extra, pieces;
};

int hm_piece_table_make(const struct hm_spm_model *model, struct hm_piece_table *ret_table,
                        struct hm_error *err);
void hm_piece_table_release(struct hm_piece_table *table);

/* The symbol of a character, -1 when no piece holds it. */
static inline int32_t hm_piece_table_symbol(const struct hm_piece_table *table, uint32_t code)
{
    const int32_t *page = table->page[code >> 8];

    return page ? page[code & 255] : -1;
}

static inline size_t hm_piece_table_place(const struct hm_piece_table *table, uint64_t key)
{
    return (size_t)(key * 0x9e3779b97f4a7c15u >> table->shift);
}

/* The rank of the piece that left and right merge into, and the piece; HM_NO_RANK when there is
 * none. */
static inline uint32_t hm_piece_table_merge(const struct hm_piece_table *table, int32_t left,
                                            int32_t right, int32_t *ret_result)
{
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    size_t place = hm_piece_table_place(table, key);

    while (table->slot[place].key != 0) {
        if (table->slot[place].key == key) {
            *ret_result = (int32_t)table->slot[place].result;
            return table->slot[place].rank;
        }
        place = (place + 1) & table->mask;
    }
    return HM_NO_RANK;
}

#endif
