/* SPDX-License-Identifier: MIT */
/*
 * What measuring gathers (efficiency.c), batch by batch (efficiency_batch.c), and what becomes its
 * result (efficiency_result.c).
 * Private to vocab/. Thread class: owner thread, but for parallel loops over documents.
 */
#ifndef HANMIX_VOCAB_EFFICIENCY_INTERNAL_H
#define HANMIX_VOCAB_EFFICIENCY_INTERNAL_H

#include "hanmix/vocab/efficiency.h"
#include "resample.h"

struct set_sums {
    char *name;
    bool paired; /* drawn by place within the set, as its pair is */
    uint64_t documents, bytes, chars, han_chars, plain_lines;
    struct hm_token_sums *sums; /* [n_tokenizers] */
    uint64_t *resample;         /* [n_tokenizers][HM_RESAMPLES] tokens */
    uint64_t **seen;            /* [n_tokenizers] bits: ids that occur */
};

struct measured_text { /* all sets together */
    const struct hm_any_tokenizer *const *tokenizers;
    const struct hm_efficiency_options *options;
    bool *extends; /* [n_tokenizers] the first one's ids are its first */
    size_t n_tokenizers;
    struct set_sums *set;
    size_t n_sets;
    uint64_t **count; /* [n_tokenizers] of each id, over all text */
};

/* Words of 64 bits for one bit an id. */
static inline size_t seen_words(const struct hm_any_tokenizer *tokenizer)
{
    return (tokenizer->count + 63) / 64;
}

struct encoding { /* of one document by one tokenizer */
    struct hm_token_sums sums;
    uint64_t hash; /* of the ids */
};

struct document {
    size_t first, bytes; /* in batch text */
    uint32_t set;
    size_t name; /* of its set in batch names, plus 1; 0: not the first document of the set */
    uint64_t number;
    uint64_t chars, han_chars, plain_lines;
};

struct worker {
    struct hm_ids ids, others;
    uint64_t **count; /* [n_tokenizers] of each id */
    size_t failed;    /* unit whose error this is; SIZE_MAX: none */
    struct hm_error err;
};

struct batch { /* of documents as they were read */
    struct hm_buf text, names;
    struct document *document; /* [BATCH_DOCUMENTS] */
    size_t n_documents;
    int more; /* 1, 0 at the end of the source, or what failed behind these documents */
    struct hm_error err;
};

struct measure {
    struct measured_text all;
    struct hm_rng_key key, paired_key;
    struct hm_poisson poisson;
    struct hm_text_source *source;
    bool named[HM_EFFICIENCY_MAX_SETS]; /* sets whose name was read */
    struct batch batch[2];              /* one is measured while the next is read */
    int now;
    struct encoding *encoding; /* [BATCH_DOCUMENTS][n_tokenizers] of the batch of now */
    bool compare;              /* ids of some tokenizer compare to the first's */
    struct worker *worker;
    int n_workers;
};

/* The next documents of the source; what fails is told by `more`. efficiency.c */
void hm_efficiency_read(struct measure *measure, struct batch *batch);
/* Encode and add up the batch of now, whose sets exist; the other is read meanwhile unless the
 * source is at its end. */
int hm_efficiency_batch(struct measure *measure, struct hm_error *err);
void hm_token_sums_add(struct hm_token_sums *to, const struct hm_token_sums *from);
int hm_efficiency_result(const struct measured_text *text, struct hm_efficiency *result,
                         struct hm_error *err);

#endif
