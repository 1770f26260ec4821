/* SPDX-License-Identifier: MIT */
/*
 * The stages there are, in the order of help. Each is defined by recipes/stages/<module>_<verb>.c;
 * a new one needs its declaration and its row here.
 */
#include "hanmix/recipes/stage.h"

extern const struct hm_stage hm_stage_vocab_train;
extern const struct hm_stage hm_stage_vocab_sweep;
extern const struct hm_stage hm_stage_vocab_merge;
extern const struct hm_stage hm_stage_vocab_check;
extern const struct hm_stage hm_stage_vocab_measure;
extern const struct hm_stage hm_stage_vocab_resize;
extern const struct hm_stage hm_stage_corpus_pack;
extern const struct hm_stage hm_stage_qlora_quantize;
extern const struct hm_stage hm_stage_qlora_train;
extern const struct hm_stage hm_stage_qlora_merge;
extern const struct hm_stage hm_stage_eval_logits;
extern const struct hm_stage hm_stage_eval_loss;
extern const struct hm_stage hm_stage_import_llama2c;

static const struct hm_stage *const table[] = {
    &hm_stage_vocab_train,    &hm_stage_vocab_sweep,
    &hm_stage_vocab_merge,    &hm_stage_vocab_check,
    &hm_stage_vocab_measure,  &hm_stage_vocab_resize,
    &hm_stage_corpus_pack,    &hm_stage_qlora_quantize,
    &hm_stage_qlora_train,    &hm_stage_qlora_merge,
    &hm_stage_eval_logits,    &hm_stage_eval_loss,
    &hm_stage_import_llama2c, NULL, /* end: a table of nothing is no C */
};

size_t hm_stage_count(void)
{
    return sizeof(table) / sizeof(table[0]) - 1;
}

const struct hm_stage *hm_stage_at(size_t i)
{
    return table[i];
}
