/* SPDX-License-Identifier: MIT */
/*
 * Adjacent Han characters counted: 8 bytes a distinct pair, 64-bit counts. The end of a run counts
 * as a character too (index 0), so that the pairs a character begins add up to its own count. A
 * pair belongs to the shard that its hash names; shards are independent. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_HAN_PAIRS_H
#define HANMIX_VOCAB_HAN_PAIRS_H

#include "han_store.h"

#define HM_PAIR_SHARDS 16u

struct han_pair {         /* of characters by hm_han_index */
    uint32_t left, right; /* right 0: the run ends */
    uint64_t count;
};

struct pair_list { /* the pairs of some runs, on their way into a table */
    struct hm_han_budget *budget;
    uint64_t *word; /* in the order of the runs, then sorted by shard behind them */
    size_t n, cap;
    size_t start[HM_PAIR_SHARDS + 1]; /* from `word + n` */
};

/* err is not NULL here and below. */
int hm_pair_list_add(struct pair_list *list, const struct hm_run *run, struct hm_error *err);
int hm_pair_list_sort(struct pair_list *list, struct hm_error *err);
void hm_pair_list_clear(struct pair_list *list);
void hm_pair_list_release(struct pair_list *list);

struct pair_large { /* a count that an entry has no room for */
    uint64_t key, count;
};

struct pair_shard {
    struct hm_han_budget *budget;
    uint64_t *entry; /* key << 30 | count; 0 = free, count 0: among the large */
    size_t size, used;
    struct pair_large *large; /* open addressing; key 0 = free */
    size_t large_size, large_used;
};

struct pair_table {
    struct pair_shard shard[HM_PAIR_SHARDS];
};

void hm_pair_table_init(struct pair_table *table, struct hm_han_budget *budget);
void hm_pair_table_release(struct pair_table *table);
/* Those of sorted lists, in parallel. */
int hm_pair_table_add(struct pair_table *table, const struct pair_list *list, size_t n_lists,
                      struct hm_error *err);
uint64_t hm_pair_table_bytes(const struct pair_table *table);
size_t hm_pair_table_count(const struct pair_table *table);
/* The pair at *cursor (from 0), which moves on, in an order of no meaning; false at the end. */
bool hm_pair_table_next(const struct pair_table *table, uint64_t *cursor,
                        struct han_pair *ret_pair);

#endif
