/* SPDX-License-Identifier: MIT */
/*
 * The runs of a text in memory, as they came: blocks (run_blocks.h) of all occurrences, which take
 * about two bytes a character and no time; the trainer cuts them before it counts what is equal.
 * Beyond what may be held they go to the disk as they are (han_spill.h). Private to vocab/.
 */
#ifndef HANMIX_VOCAB_HAN_COUNTS_H
#define HANMIX_VOCAB_HAN_COUNTS_H

#include "run_blocks.h"

struct hm_han_counts {
    struct hm_han_budget budget;
    struct run_words *block; /* [cap_blocks]; what is added one by one enters the last */
    size_t n_blocks, cap_blocks;
    uint64_t documents, bytes, characters, han_characters;
    uint64_t runs;                  /* occurrences */
    _Atomic uint8_t met[BPE_CODES]; /* 1: the character occurs */
    struct han_spill *spill;        /* NULL: memory alone */
    bool takes_marks;               /* runs hold punctuation, too */
};

/* Room for so many blocks more. err is not NULL, here and below. */
int hm_han_blocks_reserve(struct hm_han_counts *counts, size_t more, struct hm_error *err);
struct run_block hm_han_block(const struct hm_han_counts *counts, size_t index);
void hm_han_blocks_release(struct hm_han_counts *counts);

#endif
