/* SPDX-License-Identifier: MIT */
/*
 * Cross entropy for x86: three passes over a row, which a second-level cache holds. Powers are
 * summed in f32 over one group of lanes at a time and joined in f64.
 */
#include <math.h>

#include "isa.h"
#include "simd.h"

#define GROUP 8 /* vectors summed in f32 */

static float row_largest(const float *row, size_t vocab)
{
    const vf first = vf_set1(row[0]);
    vf most[4] = { first, first, first, first };
    size_t j = 0;

    for (; j + 4 * VW <= vocab; j += 4 * VW)
        UNROLL for (size_t i = 0; i < 4; i++) most[i] = vf_max(vf_load(row + j + i * VW), most[i]);
    for (; j < vocab; j += VW)
        most[0] = vf_max(vf_next(row + j, vocab - j, first), most[0]);
    most[0] = vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3]));
    return vf_largest(most[0]);
}

/* sum exp(row - largest); the powers are stored for the gradient. */
static inline double row_powers(float *row, size_t vocab, float largest, bool keep)
{
    const vf shift = vf_set1(largest), nothing = vf_set1(-INFINITY);
    vd low = vd_zero(), high = vd_zero();

    for (size_t begin = 0; begin < vocab; begin += GROUP * VW) {
        vf sum = vf_set1(0.0f);
        UNROLL for (size_t i = 0; i < GROUP; i++)
        {
            size_t at = begin + i * VW;
            if (at >= vocab)
                break;
            vf power = vf_exp(vf_sub(vf_next(row + at, vocab - at, nothing), shift));
            sum = vf_add(sum, power);
            if (keep)
                vf_put(row + at, power, vocab - at);
        }
        low = vd_add(low, vd_low(sum));
        high = vd_add(high, vd_high(sum));
    }
    return vd_join(vd_add(low, high));
}

static double row_xent(float *row, size_t vocab, size_t target, float row_scale, bool want_gradient)
{
    float largest = row_largest(row, vocab);
    double wanted = row[target];
    double sum = want_gradient ? row_powers(row, vocab, largest, true)
                               : row_powers(row, vocab, largest, false);

    if (want_gradient) {
        HM_ISA(hm_scale)((float)(row_scale / sum), row, vocab);
        row[target] -= row_scale;
    }
    return log(sum) + largest - wanted;
}

void HM_ISA(hm_xent)(float *logits, size_t n, size_t vocab, size_t ld, const int32_t *target,
                     const float *row_scale, bool want_gradient, double *loss)
{
    for (size_t t = 0; t < n; t++, logits += ld) {
        loss[t] = 0.0;
        if (target[t] >= 0)
            loss[t] = row_xent(logits, vocab, (size_t)target[t], row_scale[t], want_gradient);
        else if (want_gradient)
            memset(logits, 0, vocab * sizeof(*logits));
    }
}
