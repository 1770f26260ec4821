/* SPDX-License-Identifier: MIT */
/*
 * Counts of adjacent Han characters; see han_pairs.h. An entry is one word: two indices of 17 bits
 * and 30 bits of count. A count that grows beyond lies in a table of its own, which stays nearly
 * empty: a billion of one pair is some ten gigabytes of text. At most 3/4 of a shard is taken.
 */
#include <string.h>

#include "han_pairs.h"
#include "hanmix/base/parallel.h"

#define INDEX_BITS  17u
#define COUNT_BITS  30u
#define COUNT_MASK  (((uint64_t)1 << COUNT_BITS) - 1)
#define SHARD_FIRST 512u
#define LARGE_FIRST 16u
#define AHEAD       12u /* pairs between fetching an entry and using it */
#define CURSOR_BITS 48u

static uint64_t key_hash(uint64_t key)
{
    return bpe_pair_hash(key);
}

static size_t key_shard(uint64_t key)
{
    return key_hash(key) >> 27 & (HM_PAIR_SHARDS - 1);
}

/* --- lists ------------------------------------------------------------------------------------ */

static int list_reserve(struct pair_list *list, size_t need, struct hm_error *err)
{
    if (need <= list->cap)
        return HM_OK;
    size_t cap = need > 2 * list->cap ? need : 2 * list->cap;
    HM_TRY(hm_han_budget_take(list->budget, (cap - list->cap) * sizeof(uint64_t), err));
    uint64_t *grown = hm_realloc(HM_MEM_VOCAB, list->word, cap * sizeof(uint64_t));
    if (!grown) {
        hm_han_budget_give(list->budget, (cap - list->cap) * sizeof(uint64_t));
        return hm_fail_nomem(err, "for %zu pairs of Han characters", cap);
    }
    list->word = grown;
    list->cap = cap;
    return HM_OK;
}

int hm_pair_list_add(struct pair_list *list, const struct hm_run *run, struct hm_error *err)
{
    bool large = run->count > COUNT_MASK;
    uint64_t low = large ? 0 : run->count;
    uint32_t i = 0;

    HM_TRY(list_reserve(list, list->n + run->n_units * (1 + (size_t)large), err));
    uint64_t *to = list->word + list->n;
    uint64_t left = hm_han_index(hm_run_code(run->unit, &i));
    for (bool more = true; more;) {
        more = i < run->n_units;
        uint64_t right = more ? hm_han_index(hm_run_code(run->unit, &i)) : 0;
        *to++ = (left << INDEX_BITS | right) << COUNT_BITS | low;
        if (large)
            *to++ = run->count;
        left = right;
    }
    list->n = (size_t)(to - list->word);
    return HM_OK;
}

int hm_pair_list_sort(struct pair_list *list, struct hm_error *err)
{
    size_t next[HM_PAIR_SHARDS] = { 0 };

    HM_TRY(list_reserve(list, 2 * list->n, err));
    for (size_t i = 0; i < list->n; i++) {
        size_t shard = key_shard(list->word[i] >> COUNT_BITS);
        bool large = (list->word[i] & COUNT_MASK) == 0;
        next[shard] += 1 + (size_t)large;
        i += large;
    }
    for (size_t s = 0, sum = 0; s < HM_PAIR_SHARDS; s++) {
        list->start[s] = sum;
        sum += next[s];
        next[s] = list->start[s];
    }
    list->start[HM_PAIR_SHARDS] = list->n;
    uint64_t *sorted = list->word + list->n;
    for (size_t i = 0; i < list->n; i++) {
        size_t *at = &next[key_shard(list->word[i] >> COUNT_BITS)];
        sorted[(*at)++] = list->word[i];
        if ((list->word[i] & COUNT_MASK) == 0)
            sorted[(*at)++] = list->word[++i];
    }
    return HM_OK;
}

void hm_pair_list_clear(struct pair_list *list)
{
    list->n = 0;
}

void hm_pair_list_release(struct pair_list *list)
{
    if (list->word)
        hm_han_budget_give(list->budget, list->cap * sizeof(uint64_t));
    hm_free(list->word);
    *list = (struct pair_list){ .budget = list->budget };
}

/* --- one shard -------------------------------------------------------------------------------- */

static size_t entry_at(const uint64_t *entry, size_t size, uint64_t key)
{
    size_t at = key_hash(key) >> 31 & (size - 1);

    while (entry[at] && entry[at] >> COUNT_BITS != key)
        at = (at + 1) & (size - 1);
    return at;
}

static size_t large_at(const struct pair_large *large, size_t size, uint64_t key)
{
    size_t at = key_hash(key) >> 31 & (size - 1);

    while (large[at].key && large[at].key != key)
        at = (at + 1) & (size - 1);
    return at;
}

static void *table_new(struct pair_shard *shard, size_t bytes, struct hm_error *err)
{
    if (hm_han_budget_take(shard->budget, bytes, err) < 0)
        return NULL;
    void *block = hm_calloc(HM_MEM_VOCAB, 1, bytes);
    if (!block) {
        hm_han_budget_give(shard->budget, bytes);
        hm_fail_nomem(err, "for a table of pairs of Han characters");
    }
    return block;
}

static void table_drop(struct pair_shard *shard, void *block, size_t bytes)
{
    if (block)
        hm_han_budget_give(shard->budget, bytes);
    hm_free(block);
}

static int shard_grow(struct pair_shard *shard, struct hm_error *err)
{
    size_t size = shard->size ? 2 * shard->size : SHARD_FIRST;
    uint64_t *grown = table_new(shard, size * sizeof(uint64_t), err);

    if (!grown)
        return err->code;
    for (size_t i = 0; i < shard->size; i++)
        if (shard->entry[i])
            grown[entry_at(grown, size, shard->entry[i] >> COUNT_BITS)] = shard->entry[i];
    table_drop(shard, shard->entry, shard->size * sizeof(uint64_t));
    shard->entry = grown;
    shard->size = size;
    return HM_OK;
}

static int large_grow(struct pair_shard *shard, struct hm_error *err)
{
    size_t size = shard->large_size ? 2 * shard->large_size : LARGE_FIRST;
    struct pair_large *grown = table_new(shard, size * sizeof(*grown), err);

    if (!grown)
        return err->code;
    for (size_t i = 0; i < shard->large_size; i++)
        if (shard->large[i].key)
            grown[large_at(grown, size, shard->large[i].key)] = shard->large[i];
    table_drop(shard, shard->large, shard->large_size * sizeof(*grown));
    shard->large = grown;
    shard->large_size = size;
    return HM_OK;
}

static int large_add(struct pair_shard *shard, uint64_t key, uint64_t count, struct hm_error *err)
{
    if (4 * (shard->large_used + 1) > 3 * shard->large_size)
        HM_TRY(large_grow(shard, err));
    struct pair_large *large = &shard->large[large_at(shard->large, shard->large_size, key)];
    shard->large_used += large->key == 0;
    large->key = key;
    large->count += count;
    return HM_OK;
}

static int entry_add(struct pair_shard *shard, uint64_t key, uint64_t count, struct hm_error *err)
{
    if (4 * (shard->used + 1) > 3 * shard->size)
        HM_TRY(shard_grow(shard, err));
    uint64_t *entry = &shard->entry[entry_at(shard->entry, shard->size, key)];
    bool is_new = *entry == 0;
    uint64_t low = *entry & COUNT_MASK;

    shard->used += is_new;
    if (count <= COUNT_MASK - low && (is_new || low > 0)) {
        *entry = key << COUNT_BITS | (low + count);
        return HM_OK;
    }
    *entry = key << COUNT_BITS;
    return large_add(shard, key, low + count, err);
}

static int shard_add(struct pair_shard *shard, const uint64_t *word, size_t n, struct hm_error *err)
{
    if (shard->size == 0)
        HM_TRY(shard_grow(shard, err));
    for (size_t i = 0; i < n; i++) {
        uint64_t key = word[i] >> COUNT_BITS;
        uint64_t count = word[i] & COUNT_MASK;
        if (i + AHEAD < n)
            __builtin_prefetch(
                &shard->entry[key_hash(word[i + AHEAD] >> COUNT_BITS) >> 31 & (shard->size - 1)]);
        if (count == 0)
            count = word[++i];
        HM_TRY(entry_add(shard, key, count, err));
    }
    return HM_OK;
}

/* --- all shards ------------------------------------------------------------------------------- */

void hm_pair_table_init(struct pair_table *table, struct hm_han_budget *budget)
{
    *table = (struct pair_table){ 0 };
    for (size_t s = 0; s < HM_PAIR_SHARDS; s++)
        table->shard[s].budget = budget;
}

void hm_pair_table_release(struct pair_table *table)
{
    for (size_t s = 0; s < HM_PAIR_SHARDS; s++) {
        struct pair_shard *shard = &table->shard[s];
        table_drop(shard, shard->entry, shard->size * sizeof(uint64_t));
        table_drop(shard, shard->large, shard->large_size * sizeof(struct pair_large));
        *shard = (struct pair_shard){ .budget = shard->budget };
    }
}

struct adding {
    struct pair_table *table;
    const struct pair_list *list;
    size_t n_lists;
    struct hm_error err[HM_PAIR_SHARDS];
};

static void add_unit(void *context, size_t number, int worker)
{
    struct adding *adding = context;
    int status = HM_OK;

    (void)worker;
    for (size_t i = 0; status == HM_OK && i < adding->n_lists; i++) {
        const struct pair_list *list = &adding->list[i];
        status =
            shard_add(&adding->table->shard[number], list->word + list->n + list->start[number],
                      list->start[number + 1] - list->start[number], &adding->err[number]);
    }
}

int hm_pair_table_add(struct pair_table *table, const struct pair_list *list, size_t n_lists,
                      struct hm_error *err)
{
    struct adding adding = { .table = table, .list = list, .n_lists = n_lists };

    hm_parallel_for(HM_PAIR_SHARDS, add_unit, &adding);
    for (size_t s = 0; s < HM_PAIR_SHARDS; s++)
        if (adding.err[s].code < 0)
            return hm_error_pass(err, &adding.err[s]);
    return HM_OK;
}

uint64_t hm_pair_table_bytes(const struct pair_table *table)
{
    uint64_t bytes = 0;

    for (size_t s = 0; s < HM_PAIR_SHARDS; s++)
        bytes += table->shard[s].size * sizeof(uint64_t) +
                 table->shard[s].large_size * sizeof(struct pair_large);
    return bytes;
}

size_t hm_pair_table_count(const struct pair_table *table)
{
    size_t count = 0;

    for (size_t s = 0; s < HM_PAIR_SHARDS; s++)
        count += table->shard[s].used;
    return count;
}

bool hm_pair_table_next(const struct pair_table *table, uint64_t *cursor, struct han_pair *ret_pair)
{
    size_t number = *cursor >> CURSOR_BITS;
    size_t at = *cursor & (((uint64_t)1 << CURSOR_BITS) - 1);

    for (; number < HM_PAIR_SHARDS; number++, at = 0) {
        const struct pair_shard *shard = &table->shard[number];
        while (at < shard->size && shard->entry[at] == 0)
            at++;
        if (at == shard->size)
            continue;
        uint64_t key = shard->entry[at] >> COUNT_BITS;
        uint64_t count = shard->entry[at] & COUNT_MASK;
        if (count == 0)
            count = shard->large[large_at(shard->large, shard->large_size, key)].count;
        *ret_pair = (struct han_pair){ .left = (uint32_t)(key >> INDEX_BITS),
                                       .right = (uint32_t)key & ((1u << INDEX_BITS) - 1),
                                       .count = count };
        *cursor = (uint64_t)number << CURSOR_BITS | (at + 1);
        return true;
    }
    return false;
}
