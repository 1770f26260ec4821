/* SPDX-License-Identifier: MIT */
/*
 * Text and vocabulary for tests that have neither files nor a tokenizer: a source over an array of
 * texts, and an encoder of bytes that adds a dummy prefix as SentencePiece does.
 */
#ifndef HANMIX_TESTS_TEXT_FIXTURE_H
#define HANMIX_TESTS_TEXT_FIXTURE_H

#include "hanmix/base/text.h"

/* Dropout puts an unk behind each id with probability rate. Ids: 0 unk, 1 bos, 2 eos, 3 + b the
 * byte b, 259 the space (also put before every text); a vocabulary of 260. */
enum { FIXTURE_UNK, FIXTURE_BOS, FIXTURE_EOS, FIXTURE_BYTE0, FIXTURE_SPACE = 259, FIXTURE_VOCAB };

struct hm_text_encoder fixture_encoder(void);

struct fixture_texts {
    const char *const *text; /* views */
    const char *const *set;  /* names, or NULL: all "text" */
    size_t count;
    size_t at;
    size_t fail_at; /* next() of this document fails; 0 never */
};
struct hm_text_source fixture_source(struct fixture_texts *texts);

#endif
