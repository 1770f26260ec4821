/* SPDX-License-Identifier: MIT */
/*
 * What the products of one step with frozen matrices in bf16 take when nothing else is done, and
 * how much of it is decoding: the rate that bench/train_step compares a step with.
 */
#ifndef HANMIX_BENCH_FROZEN_RATE_H
#define HANMIX_BENCH_FROZEN_RATE_H

#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/kernels/kernels.h"

struct frozen_rate {
    double seconds, decode; /* of one forward and one backward pass over all layers, and the head */
    double forward_seconds, forward_decode; /* its forward part */
    double flops;                           /* of both passes */
};

/*
 * Every linear of the first layer at its rows of a step (tokens, or their share at an expert), all
 * threads over the cuts of model/linear.c, times the layers; weights of several experts in turn, so
 * that codes are cold. Decoding is what is left of t(m) when rows cost (t(256) - t(128)) / 128
 * each: the time saved if it were left out.
 */
int frozen_rate(const struct hm_checkpoint *ckpt, const struct hm_kernels *kernels, uint32_t tokens,
                struct frozen_rate *ret_rate, struct hm_error *err);

#endif
