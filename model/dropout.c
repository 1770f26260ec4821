/* SPDX-License-Identifier: MIT */
/*
 * LoRA dropout. The mask of an element depends on (seed, step, module, sample, position, column)
 * and on nothing else: not on threads, on how rows were gathered, or on how often the layer is
 * recomputed. Inverted: what stays is scaled by 1 / (1 - p). Philox gives four columns at a time.
 */
#include <math.h>

#include "hanmix/base/rng.h"
#include "internal.h"

void hm_dropout(const struct hm_step *step, const struct hm_fan *fan, uint64_t module, size_t row0,
                size_t n_rows, uint32_t col0, uint32_t n_cols, const float *in, size_t ld_in,
                float *out, size_t ld_out)
{
    const struct hm_step_options *options = step->options;
    const uint64_t words = (fan->branch[0].w.cols + 3) / 4;
    const uint64_t limit = (uint64_t)ceil(step->dropout * 4294967296.0); /* of 32 random bits */
    const float keep = (float)(1.0 / (1.0 - step->dropout));
    struct hm_rng_key base = { options->dropout_seed, options->step };
    uint64_t seed = hm_rng_u64(base, module);

    for (size_t r = 0; r < n_rows; r++, in += ld_in, out += ld_out) {
        size_t token = fan->token ? (size_t)fan->token[row0 + r] : row0 + r;
        struct hm_rng_key key = { seed, options->sample + token / step->T };
        uint64_t first = token % step->T * words;
        uint32_t draw[4];
        for (uint32_t c = 0; c < n_cols; c++) {
            uint32_t col = col0 + c;
            if (c == 0 || col % 4 == 0)
                hm_rng_block(key, first + col / 4, draw);
            out[c] = draw[col % 4] < limit ? 0.0f : in[c] * keep;
        }
    }
}
