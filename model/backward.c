/* SPDX-License-Identifier: MIT */
/*
 * The backward pass over the layers, last to first, and into the embedding. What a layer does is in
 * block.c; the head's part is done with the loss (loss.c).
 */
#include "internal.h"

void hm_backward(struct hm_step *step, float *dx)
{
    hm_weights_pass_begin(step, HM_PASS_BACKWARD, HM_PASS_FORWARD);
    for (uint32_t layer = step->arch->layers;
         layer-- > 0 && hm_weights_check(step->model, NULL) == HM_OK;) {
        struct hm_block_state state = hm_block_state(step, layer);
        hm_block_backward(step, layer, &state, dx);
    }
    hm_embed_backward(step, dx);
}
