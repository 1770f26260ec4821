/* SPDX-License-Identifier: MIT */
/*
 * Learning rate as a function of the update's number, as in transformers' optimization.py:
 * get_constant_schedule_with_warmup, get_polynomial_decay_schedule_with_warmup (power 1, which with
 * min_lr 0 is the linear one), get_cosine_with_min_lr_schedule. Pure, in double.
 */
#include <math.h>

#include "hanmix/qlora/trainer.h"

static double at_least_one(uint64_t count)
{
    return count > 1 ? (double)count : 1;
}

double hm_lr_at(enum hm_lr_schedule schedule, double lr, double min_lr, uint64_t warmup_steps,
                uint64_t steps, uint64_t step)
{
    double left = 1; /* share of the way from min_lr to lr */

    if (step < warmup_steps)
        return lr * ((double)step / at_least_one(warmup_steps));
    double span = at_least_one(steps > warmup_steps ? steps - warmup_steps : 0);
    double progress = (double)(step - warmup_steps) / span;
    if (progress > 1)
        progress = 1;
    if (schedule == HM_LR_LINEAR)
        left = 1 - progress;
    else if (schedule == HM_LR_COSINE)
        left = 0.5 * (1 + cos(M_PI * progress));
    return schedule == HM_LR_CONSTANT ? lr : min_lr + (lr - min_lr) * left;
}
