/* SPDX-License-Identifier: MIT */
/*
 * Evaluation: logits of given ids (eval.logits) and windowed loss of named sets (eval.loss), base
 * or base + adapter.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_EVAL_EVAL_H
#define HANMIX_EVAL_EVAL_H

#include "hanmix/base/text.h"
#include "hanmix/corpus/packed.h"
#include "hanmix/model/model.h"

/* logits.safetensors: logits F32 [B,T,V], loss F32 [B,T-1], router_logits.<layer> F32 [B*T,E]. ids
 * file: I64 `input_ids` or `ids` [B,T], optional attention_mask. hm_eval_rows at a time, streamed.
 */
int hm_eval_logits(struct hm_model *model, const char *ids_path, const char *out_path,
                   const struct hm_ctl *ctl, struct hm_error *err);

/* Tokens that go through the model at once, about: windows or rows side by side, so that weights
   are read and decoded once for all of them. Fixed, for the bits of a result depend on it. */
#define HM_EVAL_TOKENS 2048u
/* Tokens of the sequence in which windows of so many (> 0) are scored: whole windows. */
uint32_t hm_eval_sequence(uint32_t window);
/* Rows of seq_len (> 0) tokens that eval.logits takes at once; their logits stay below 64 MiB
   unless one row's are more. */
uint32_t hm_eval_rows(uint32_t seq_len, uint32_t vocab_size);

struct hm_loss_set {
    char *name;
    uint64_t documents, tokens, bytes, chars;
    double nats_per_token, bits_per_byte, bits_per_char;
    double low, high; /* 95 % bootstrap interval of bits_per_byte over documents (windows for packed
                         data) */
};
/*
 * Text: each document is bos + ids, scored in windows of `window` tokens advancing by `stride` (a
 * token is scored once, with the most context the windows give). bytes = UTF-8 bytes of the
 * documents scored; every token of the text is a target.
 */
int hm_eval_loss_text(struct hm_model *model, struct hm_text_source *source,
                      const struct hm_text_encoder *encoder, uint32_t window, uint32_t stride,
                      const struct hm_ctl *ctl, struct hm_loss_set **ret_sets, size_t *ret_n,
                      struct hm_error *err);
int hm_eval_loss_packed(struct hm_model *model, const struct hm_packed *packed, const char *name,
                        const struct hm_ctl *ctl, struct hm_loss_set *ret_set,
                        struct hm_error *err);
void hm_loss_sets_free(struct hm_loss_set *sets, size_t n);

#endif
