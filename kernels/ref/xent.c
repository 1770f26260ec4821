/* SPDX-License-Identifier: MIT */
/*
 * Cross entropy of rows of logits against target tokens, in nats, and its gradient in place:
 * loss = log sum exp - logit[target]; gradient = (softmax - onehot) row_scale. Exponentials are f32
 * relative to the row's maximum, their sum and the loss f64.
 */
#include <math.h>

#include "ref.h"

static float row_largest(const float *row, size_t vocab)
{
    float largest = row[0];

    for (size_t j = 1; j < vocab; j++)
        largest = row[j] > largest ? row[j] : largest;
    return largest;
}

static double row_xent(float *row, size_t vocab, size_t target, float row_scale, bool want_gradient)
{
    float largest = row_largest(row, vocab);
    double wanted = row[target], sum = 0.0;

    for (size_t j = 0; j < vocab; j++) {
        float power = expf(row[j] - largest);
        sum += power;
        if (want_gradient)
            row[j] = power;
    }
    if (want_gradient) {
        float factor = (float)(row_scale / sum);
        for (size_t j = 0; j < vocab; j++)
            row[j] *= factor;
        row[target] -= row_scale;
    }
    return log(sum) + largest - wanted;
}

void hm_xent_ref(float *logits, size_t n, size_t vocab, size_t ld, const int32_t *target,
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
