/* SPDX-License-Identifier: MIT */
/*
 * Rotary positions (Su et al. 2021) in the half-split order of the LLaMA checkpoints: element j of
 * a head turns with element j + head_dim/2. The tables, one row a position, belong to the caller.
 */
#include "ref.h"

void hm_rope_ref(float *x, size_t n, size_t ldx, size_t heads, size_t head_dim,
                 const float *cos_table, const float *sin_table, const int32_t *pos, float sign)
{
    size_t half = head_dim / 2;

    for (size_t t = 0; t < n; t++) {
        const float *c = cos_table + (size_t)pos[t] * half;
        const float *s = sin_table + (size_t)pos[t] * half;
        for (size_t h = 0; h < heads; h++) {
            float *low = x + t * ldx + h * head_dim;
            float *high = low + half;
            for (size_t j = 0; j < half; j++) {
                float a = low[j], b = high[j], turn = sign * s[j];
                low[j] = a * c[j] - b * turn;
                high[j] = b * c[j] + a * turn;
            }
        }
    }
}
