/* SPDX-License-Identifier: MIT */
/*
 * Texts that are hard for an encoder that merges: one character without end, text without spaces,
 * noise, and chains built from the vocabulary's own pieces. Used by bench/encode.
 */
#ifndef HANMIX_BENCH_ENCODE_WORST_H
#define HANMIX_BENCH_ENCODE_WORST_H

#include "hanmix/vocab/tokenizer.h"

/* CSV rows of all texts of 64 KB to 4 MB, doubling; library may be NULL, else ids are compared. */
int encode_worst(const char *path, const struct hm_tokenizer *tokenizer, const void *library,
                 uint64_t repeats, struct hm_error *err);

#endif
