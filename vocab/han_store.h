/* SPDX-License-Identifier: MIT */
/*
 * Equal runs counted in memory: parts by hash (han_store.c), and lists of runs on their way into
 * them (han_list.c). Parts are independent, so that runs enter them in parallel. Also the budget
 * that all counting shares. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_HAN_STORE_H
#define HANMIX_VOCAB_HAN_STORE_H

#include <stdatomic.h>

#include "bpe_internal.h"

#define HM_HAN_PARTS 16u

/* Characters of runs numbered from 1, the most usual block first and punctuation last
 * (han_table.c): 0 = none. */
#define HM_HAN_INDICES 0x20000u /* more than there are */
uint32_t hm_han_index(uint32_t code);
uint32_t hm_han_code(uint32_t index); /* 0 = no such index */

struct hm_han_budget {
    uint64_t limit_bytes; /* 0 = none */
    _Atomic uint64_t used_bytes;
};

/* Take bytes within the limit, or HM_ERR_NOFIT; give them back. err is not NULL, here and below. */
int hm_han_budget_take(struct hm_han_budget *budget, uint64_t bytes, struct hm_error *err);
void hm_han_budget_give(struct hm_han_budget *budget, uint64_t bytes);

struct hm_han_part {
    struct hm_han_budget *budget; /* of the counts it belongs to */
    uint8_t **chunk;
    size_t n_chunks, cap_chunks;
    size_t chunk_used, chunk_size; /* of the last chunk */
    uint64_t *table;               /* 0 or hash bits << 32 | reference + 1 */
    size_t table_size;             /* power of two */
    uint64_t distinct_runs;
    uint64_t held_bytes; /* of the budget */
};

int hm_han_part_init(struct hm_han_part *part, struct hm_han_budget *budget, struct hm_error *err);
void hm_han_part_release(struct hm_han_part *part);
/* The run at *cursor, which moves behind it; false at the end. */
bool hm_han_part_next(const struct hm_han_part *part, uint64_t *cursor, struct hm_run *ret_run);

struct hm_han_item { /* a run in a list */
    uint64_t hash, count;
    uint32_t first, n_units; /* in the list's units */
};

struct hm_han_list { /* runs of some text, then ordered by part */
    struct hm_han_budget *budget;
    uint16_t *unit;
    size_t n_units, cap_units;
    struct hm_han_item *item;
    size_t n_items, cap_items;
    struct hm_han_item *sorted; /* [cap_sorted] */
    size_t cap_sorted;
    size_t start[HM_HAN_PARTS + 1]; /* in sorted */
};

void hm_han_list_clear(struct hm_han_list *list); /* keeps the memory */
void hm_han_list_release(struct hm_han_list *list);
int hm_han_list_reserve(struct hm_han_list *list, size_t more_units, struct hm_error *err);
/* The units from `first` to n_units are a run. */
int hm_han_list_end_run(struct hm_han_list *list, size_t first, uint64_t count,
                        struct hm_error *err);
int hm_han_list_sort(struct hm_han_list *list, struct hm_error *err);
/* Add those of a sorted list that belong to part `number`. */
int hm_han_part_add(struct hm_han_part *part, size_t number, const struct hm_han_list *list,
                    struct hm_error *err);

uint64_t hm_run_hash(const uint16_t *unit, size_t n_units);
/* What so many runs of so many units can take at most. */
uint64_t hm_han_part_growth(const struct hm_han_part *part, uint64_t runs, uint64_t units);

struct hm_han_sums { /* all parts */
    struct hm_han_budget budget;
    struct hm_han_part part[HM_HAN_PARTS];
};

int hm_han_sums_new(struct hm_han_sums **ret_sums, struct hm_error *err);
void hm_han_sums_free(struct hm_han_sums *sums);
/* Every distinct run, in an order of no meaning: false at the end. *cursor starts at 0. */
bool hm_han_sums_next(const struct hm_han_sums *sums, uint64_t *cursor, struct hm_run *ret_run);
uint64_t hm_han_sums_bytes(const struct hm_han_sums *sums); /* memory held now */
/* What sorted lists can take at most. */
uint64_t hm_han_sums_growth(const struct hm_han_sums *sums, const struct hm_han_list *list,
                            size_t n_lists);
/* Bring sorted lists in, one part to a thread. */
int hm_han_sums_pour(struct hm_han_sums *sums, const struct hm_han_list *list, size_t n_lists,
                     struct hm_error *err);

#endif
