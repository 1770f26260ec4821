/* SPDX-License-Identifier: MIT */
/*
 * Encoding as llama.cpp does it for SentencePiece models, written from its algorithm and from
 * nothing of vocab/ but the list of pieces: what loaders that know pieces and scores alone make of
 * a tokenizer.model.
 */
#ifndef HANMIX_TESTS_SCORE_LOOP_H
#define HANMIX_TESTS_SCORE_LOOP_H

#include "hanmix/base/text.h"
#include "hanmix/vocab/spm_model.h"

/* Appends; fails the program when the heap does. Text is UTF-8. */
void score_loop_encode(const struct hm_spm_model *model, struct hm_str text, struct hm_ids *ids);

#endif
