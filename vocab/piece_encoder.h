/* SPDX-License-Identifier: MIT */
/*
 * BPE encoding in C, id for id what libsentencepiece gives, several times faster: text falls apart
 * into segments at places no piece spans (span_cut.h), and each segment is merged by a table of
 * pairs. Only for models it knows to be exact for; tokenizer.c leaves the others to the library.
 * Private to vocab/. Thread class: immutable after make.
 */
#ifndef HANMIX_VOCAB_PIECE_ENCODER_H
#define HANMIX_VOCAB_PIECE_ENCODER_H

#include "hanmix/base/rng.h"
#include "hanmix/base/text.h"
#include "span_cut.h"

struct hm_piece_encoder;

/* What a model has that this encoder does not know, as the end of a sentence; NULL when it fits. */
const char *hm_piece_encoder_obstacle(const struct hm_spm_model *model);
/* Borrows cuts. */
int hm_piece_encoder_make(const struct hm_spm_model *model, const struct hm_span_cuts *cuts,
                          struct hm_piece_encoder **ret_encoder, struct hm_error *err);
void hm_piece_encoder_free(struct hm_piece_encoder *encoder);
/* Appends; `prefix` puts the dummy prefix before text that is not empty. */
int hm_piece_encoder_encode(const struct hm_piece_encoder *encoder, bool prefix, struct hm_str text,
                            struct hm_ids *ids, struct hm_error *err);
/* The same with BPE-dropout (Provilkov et al. 2020, as the library's SampleEncode has it): each
 * merge that is due is left out with probability `rate`. The key alone decides which. */
int hm_piece_encoder_dropout(const struct hm_piece_encoder *encoder, bool prefix,
                             struct hm_str text, double rate, struct hm_rng_key key,
                             struct hm_ids *ids, struct hm_error *err);

#endif
