/* SPDX-License-Identifier: MIT */
/*
 * The two interfaces through which text meets vocabulary: a source of documents and an encoder to
 * ids. They are all that `vocab` and `corpus` share; a stage wires one to the other.
 * Thread class: sources one thread at a time, encoders thread safe.
 */
#ifndef HANMIX_BASE_TEXT_H
#define HANMIX_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/ctl.h"
#include "hanmix/base/hash.h"
#include "hanmix/base/rng.h"
#include "hanmix/base/status.h"
#include "hanmix/base/str.h"

struct hm_doc {
    struct hm_str text; /* UTF-8, valid until the next call on the source */
    const char *set;    /* name of the set it belongs to; never NULL */
    uint32_t set_index; /* index among the source's named sets, in order of first appearance in the
                           recipe */
    uint64_t number;    /* running number within the source, from 0 */
};

struct hm_text_source { /* pull interface; one thread at a time, such as the unit of a loop that
                           reads the next batch while others work on the last */
    void *context;
    /* 1 and a document, 0 at the end, negative status on error. */
    int (*next)(void *context, struct hm_doc *ret_doc, struct hm_error *err);
    uint64_t (*position_bytes)(void *context); /* compressed bytes consumed, for progress */
    uint64_t total_bytes;                      /* compressed bytes in all, 0 unknown */
    void (*close)(void *context);              /* frees context; may be NULL */
};

/* How far `what` has come in the source, in compressed bytes. */
void hm_text_progress(const struct hm_ctl *ctl, const char *what,
                      const struct hm_text_source *source);

struct hm_ids { /* growing array of token ids; owned, hm_ids_release */
    int32_t *id;
    size_t count;
    size_t cap;
};
int hm_ids_append(struct hm_ids *ids, const int32_t *id, size_t count, struct hm_error *err);
void hm_ids_clear(struct hm_ids *ids);
void hm_ids_release(struct hm_ids *ids);

struct hm_text_encoder { /* thread safe for concurrent encode calls */
    void *context;
    /* Appends the ids of one text (no bos, no eos). */
    int (*encode)(void *context, struct hm_str text, struct hm_ids *ids, struct hm_error *err);
    /* Encode by other code: HM_ERR_CHECK, naming the place, when these are not the ids of text. */
    int (*verify)(void *context, struct hm_str text, const int32_t *ids, size_t n,
                  struct hm_error *err);
    /*
     * Encode with BPE-dropout: each merge that is due is left out with probability `rate`; the key
     * alone decides which. NULL when the vocabulary has no merges.
     */
    int (*encode_dropout)(void *context, struct hm_str text, double rate, struct hm_rng_key key,
                          struct hm_ids *ids, struct hm_error *err);
    /*
     * What one id stands for in the text: UTF-8 bytes and characters begun (an initial byte counts
     * as a character, a continuation byte does not). Meta symbols stand for nothing. The sums over
     * a text exceed its own size by the dummy prefix, when the vocabulary adds one: callers take
     * the excess off the first token.
     */
    void (*token_size)(void *context, int32_t id, uint32_t *ret_bytes, uint32_t *ret_chars);
    uint32_t vocab_size;
    int32_t bos_id; /* -1 when the vocabulary has none */
    int32_t eos_id;
    int32_t unk_id;
    char fingerprint[HM_SHA256_HEX_BYTES]; /* SHA-256 of the tokenizer file */
};

#endif
