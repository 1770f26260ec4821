/* SPDX-License-Identifier: MIT */
/*
 * vocab/spill_resume.c and spill_state.c: scratch files of a count that a later process takes up.
 * The first byte of the input says which file the rest is: counting.json, counting.pairs as it is,
 * the words of counting.pairs between its magic and its hash, which are made here so that mutated
 * words are reached, or counting.cut.json. The other files are as they should be.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "../../vocab/bpe_cut.h"

#define MAGIC 0x317372696170686du

enum which { JSON, PAIRS, PAIR_WORDS, CUT, KINDS };

static void put(const char *name, const void *data, size_t size)
{
    (void)fuzz_folder_file(data, size, name);
}

static void pairs_put(enum which which, const uint8_t *data, size_t size, uint64_t *ret_bytes)
{
    uint64_t whole[] = { MAGIC, 1, 0, 5, 7, 0 }; /* one character, no pair */
    const size_t hashed = sizeof(whole) - sizeof(whole[0]);

    whole[5] = hm_hash64(whole, hashed, 0);
    *ret_bytes = sizeof(whole);
    if (which != PAIRS && which != PAIR_WORDS) {
        put("counting.pairs", whole, sizeof(whole));
    } else if (which == PAIRS) {
        put("counting.pairs", data, size);
        *ret_bytes = size;
    } else {
        size_t words = size / 8 < 8190 ? size / 8 : 8190; /* hashed as one piece of the file */
        uint64_t *all = hm_calloc(HM_MEM_OTHER, words + 2, sizeof(*all));
        if (!all)
            return;
        all[0] = MAGIC;
        memcpy(all + 1, data, 8 * words);
        all[words + 1] = hm_hash64(all, 8 * (words + 1), 0);
        *ret_bytes = 8 * (words + 2);
        put("counting.pairs", all, (size_t)*ret_bytes);
        hm_free(all);
    }
}

static int pair_check(void *context, const struct han_pair *pair, struct hm_error *err)
{
    uint64_t *n = context;

    (void)err;
    HM_BUG(pair->count == 0 || hm_han_code(pair->left) == 0 || hm_han_code(pair->right) == 0);
    (*n)++;
    return HM_OK;
}

static void resumed_check(const struct han_spill *spill)
{
    struct hm_error err = { 0 };
    uint64_t n = 0;

    for (size_t i = 0; i < spill->n_characters; i++)
        HM_BUG(spill->character[i].code == 0);
    if (hm_spill_pairs_walk(spill, pair_check, &n, &err) == HM_OK)
        HM_BUG(n != spill->n_pairs);
}

static void cut_check(struct hm_han_counts *counts, const uint8_t *data, size_t size)
{
    struct cut_parts *parts = NULL;
    char name[HM_CUT_NAME_BYTES];
    struct hm_error err = { 0 };

    for (size_t i = 0; i < HM_HAN_PARTS; i++) {
        hm_cut_segments_name(name, i);
        put(name, "", 0);
    }
    put("counting.cut.json", data, size);
    uint64_t floor = hm_spill_cut_floor(counts->spill);
    (void)hm_spill_cut_load(counts->spill, &counts->budget, floor, &parts, &err);
    hm_cut_parts_free(parts);
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    enum which which = size > 0 ? (enum which)(data[0] % KINDS) : JSON;
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };
    uint64_t bytes = 0;
    bool resumed = false;
    char json[256];

    data += size > 0;
    size -= size > 0;
    pairs_put(which, data, size, &bytes);
    put("counting.runs", "", 0);
    snprintf(json, sizeof(json),
             "{\"format\": 1, \"key\": \"k\", \"documents\": 1, \"bytes\": 3, \"characters\": 1, "
             "\"han_characters\": 1, \"runs\": 1, \"runs_bytes\": 0, \"pairs_bytes\": %llu}",
             (unsigned long long)bytes);
    if (which == JSON)
        put("counting.json", data, size);
    else
        put("counting.json", json, strlen(json));
    struct hm_han_spill_options options = { .dir = fuzz_folder_file(data, 0, "other"),
                                            .key = "k",
                                            .hold_bytes = 1 << 20 };
    if (hm_han_counts_new(&counts, &err) == HM_OK &&
        hm_han_counts_spill(counts, &options, &err) == HM_OK &&
        hm_han_counts_resume(counts, &resumed, NULL, &err) == HM_OK && resumed) {
        resumed_check(counts->spill);
        if (which == CUT)
            cut_check(counts, data, size);
    }
    hm_han_counts_free(counts);
    return 0;
}
