/* SPDX-License-Identifier: MIT */
/*
 * SentencePiece's rule on one segment of symbols: of all neighbours that merge, those with the best
 * rank, the leftmost among equals, until there are none. Short segments are merged in an array;
 * long ones (URLs, runs of one character) by a tournament tree over the places, so that time is n
 * log n and memory 20 bytes a symbol. What merges, and what is done about it, is the rule's: a
 * constant where it is used, so that its functions are inlined. Private to vocab/. Thread class:
 * pure.
 */
#ifndef HANMIX_VOCAB_SEGMENT_MERGE_H
#define HANMIX_VOCAB_SEGMENT_MERGE_H

#include <string.h>

#include "hanmix/base/alloc.h"
#include "piece_table.h"

#define HM_SHORT_SYMBOLS  48u
#define HM_SEGMENT_INLINE static inline __attribute__((always_inline))

struct hm_segment_rule {
    /* HM_NO_RANK: they do not merge */
    uint32_t (*rank)(const void *context, int32_t left, int32_t right, int32_t *ret_result);
    void (*merged)(void *context, int32_t left, int32_t right, int32_t result);
    /* NULL, or whether this merge is left out, until one of its neighbours is another */
    bool (*drop)(void *context);
};

HM_SEGMENT_INLINE size_t hm_segment_merge_short(struct hm_segment_rule rule, void *context,
                                                int32_t *symbol, size_t n)
{
    uint32_t rank[HM_SHORT_SYMBOLS];
    int32_t result[HM_SHORT_SYMBOLS];

    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = rule.rank(context, symbol[i], symbol[i + 1], &result[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == HM_NO_RANK)
            break;
        if (rule.drop && rule.drop(context)) {
            rank[best] = HM_NO_RANK;
            continue;
        }
        rule.merged(context, symbol[best], symbol[best + 1], result[best]);
        symbol[best] = result[best];
        n--;
        for (size_t i = best + 1; i < n; i++)
            symbol[i] = symbol[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            result[i] = result[i + 1];
        }
        if (best + 1 < n)
            rank[best] = rule.rank(context, symbol[best], symbol[best + 1], &result[best]);
        if (best > 0)
            rank[best - 1] = rule.rank(context, symbol[best - 1], symbol[best], &result[best - 1]);
    }
    return n;
}

struct hm_tournament { /* ranks of the pairs that begin at each place; inner nodes: the smaller */
    uint32_t *node;    /* [2 * leaves]; leaves from `leaves` on */
    size_t leaves;     /* a power of two */
};

static inline void hm_tournament_set(struct hm_tournament *tree, size_t place, uint32_t rank)
{
    size_t at = tree->leaves + place;

    tree->node[at] = rank;
    while (at > 1) { /* up to where nothing changes */
        at /= 2;
        uint32_t left = tree->node[2 * at];
        uint32_t right = tree->node[2 * at + 1];
        uint32_t smaller = left < right ? left : right;
        if (tree->node[at] == smaller)
            break;
        tree->node[at] = smaller;
    }
}

/* The leftmost place of the smallest rank. */
static inline size_t hm_tournament_best(const struct hm_tournament *tree)
{
    size_t at = 1;

    while (at < tree->leaves) {
        at *= 2;
        at += tree->node[at] != tree->node[at / 2];
    }
    return at - tree->leaves;
}

/* next, before: rooms of n; tree->node: of 2 * leaves. */
HM_SEGMENT_INLINE size_t hm_segment_merge_tree(struct hm_segment_rule rule, void *context,
                                               int32_t *symbol, size_t n,
                                               struct hm_tournament *tree, uint32_t *next,
                                               uint32_t *before)
{
    int32_t result = 0;
    size_t left = 0;

    memset(tree->node, 0xff, 2 * tree->leaves * sizeof(*tree->node)); /* HM_NO_RANK */
    for (size_t i = 0; i < n; i++) {
        next[i] = (uint32_t)i + 1;
        before[i] = (uint32_t)i - 1; /* of 0: UINT32_MAX */
        if (i + 1 < n)
            tree->node[tree->leaves + i] = rule.rank(context, symbol[i], symbol[i + 1], &result);
    }
    for (size_t i = tree->leaves - 1; i > 0; i--)
        tree->node[i] =
            tree->node[2 * i] < tree->node[2 * i + 1] ? tree->node[2 * i] : tree->node[2 * i + 1];
    while (tree->node[1] != HM_NO_RANK) {
        size_t at = hm_tournament_best(tree);
        size_t gone = next[at];
        uint32_t rank = HM_NO_RANK;
        if (rule.drop && rule.drop(context)) {
            hm_tournament_set(tree, at, HM_NO_RANK);
            continue;
        }
        rule.rank(context, symbol[at], symbol[gone], &result);
        rule.merged(context, symbol[at], symbol[gone], result);
        symbol[at] = result;
        next[at] = next[gone];
        hm_tournament_set(tree, gone, HM_NO_RANK);
        if (next[at] < n) {
            before[next[at]] = (uint32_t)at;
            rank = rule.rank(context, symbol[at], symbol[next[at]], &result);
        }
        hm_tournament_set(tree, at, rank);
        if (before[at] != UINT32_MAX)
            hm_tournament_set(tree, before[at],
                              rule.rank(context, symbol[before[at]], symbol[at], &result));
    }
    for (size_t i = 0; i < n; i = next[i])
        symbol[left++] = symbol[i];
    return left;
}

/* Merges in place; *n becomes how many symbols are left. */
HM_SEGMENT_INLINE int hm_segment_merge(struct hm_segment_rule rule, void *context, int32_t *symbol,
                                       size_t *n, struct hm_error *err)
{
    struct hm_tournament tree = { NULL, 64 };
    int status = HM_OK;

    if (*n <= HM_SHORT_SYMBOLS) {
        *n = *n > 1 ? hm_segment_merge_short(rule, context, symbol, *n) : *n;
        return HM_OK;
    }
    while (tree.leaves < *n)
        tree.leaves *= 2;
    tree.node = hm_alloc_array(HM_MEM_SCRATCH, 2 * tree.leaves, sizeof(*tree.node));
    uint32_t *next = hm_alloc_array(HM_MEM_SCRATCH, *n, sizeof(*next));
    uint32_t *before = hm_alloc_array(HM_MEM_SCRATCH, *n, sizeof(*before));
    if (tree.node && next && before && *n < UINT32_MAX)
        *n = hm_segment_merge_tree(rule, context, symbol, *n, &tree, next, before);
    else
        status = hm_fail_nomem(err, "for %zu characters in a row", *n);
    hm_free(tree.node);
    hm_free(next);
    hm_free(before);
    return status;
}

#endif
