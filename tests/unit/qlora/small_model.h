/* SPDX-License-Identifier: MIT */
/*
 * A model folder made on the spot for the tests of quantising and merging: every value is a
 * function of its weight's name and place, so that layouts can be compared.
 */
#ifndef HANMIX_TESTS_SMALL_MODEL_H
#define HANMIX_TESTS_SMALL_MODEL_H

#include "support/support.h"

#include "hanmix/base/ctl.h"
#include "hanmix/base/hash.h"
#include "hanmix/checkpoint/checkpoint.h"

struct small_model {
    bool mixtral, tied, fused; /* fused: transformers 5's names of experts and gate */
    bool one_file;             /* not many small shards */
    enum hm_dtype dtype;
    uint32_t hidden, ffn;
    const char *poison; /* weight whose value 3 becomes poison_value, or NULL */
    float poison_value;
};

/* 2 layers, 2 heads, 1 kv head, vocabulary 40, 3 experts. */
void small_model_write(const char *dir, const struct small_model *model);

/*
 * Runs attempt(ctl) in children that are killed (SIGKILL) when they told of progress `calls` times,
 * again and again until one ends well. Returns how many were killed. Before each new attempt the
 * end of the journal in `dir` is torn, as a crash could leave it.
 */
unsigned kill_and_continue(int (*attempt)(const struct hm_ctl *ctl), unsigned calls,
                           const char *dir);
/* Large enough for its file to be digested while it is read, as files of real models are. */
extern const struct small_model small_model_digested;
/* The digest of that model's file, and of nothing else; released. */
void assert_digested(struct hm_file_digests *digests, const char *dir);
/* Both folders hold the same files, byte for byte, and nothing else. */
void assert_same_files(const char *a, const char *b);

#endif
