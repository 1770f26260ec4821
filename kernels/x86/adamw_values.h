/* SPDX-License-Identifier: MIT */
/*
 * One vector of AdamW, for moments of either kind: the reference's operations in its order.
 */
#ifndef HANMIX_KERNELS_X86_ADAMW_VALUES_H
#define HANMIX_KERNELS_X86_ADAMW_VALUES_H

#include <math.h>

#include "isa.h"
#include "simd.h"

struct adamw { /* the constants of a step */
    vf keep, to_m, keep_v, to_v, rate, root_bias2, eps, clip;
};

static inline struct adamw adamw_constants(const struct hm_adamw_step *step)
{
    return (struct adamw){ .keep = vf_set1((float)(1.0 - step->lr * step->weight_decay)),
                           .to_m = vf_set1((float)(1.0 - step->beta1)),
                           .keep_v = vf_set1((float)step->beta2),
                           .to_v = vf_set1((float)(1.0 - step->beta2)),
                           .rate = vf_set1((float)(step->lr / step->bias1)),
                           .root_bias2 = vf_set1((float)sqrt(step->bias2)),
                           .eps = vf_set1((float)step->eps),
                           .clip = vf_set1(step->grad_scale) };
}

/* The new parameter; moments in place. */
static inline vf adamw_values(const struct adamw *c, vf p, vf g, vf *m, vf *v)
{
    g = vf_mul(g, c->clip);
    *m = vf_add(*m, vf_mul(c->to_m, vf_sub(g, *m)));
    *v = vf_add(vf_mul(*v, c->keep_v), vf_mul(vf_mul(c->to_v, g), g));
    vf denominator = vf_add(vf_div(vf_sqrt(*v), c->root_bias2), c->eps);
    return vf_sub(vf_mul(p, c->keep), vf_div(vf_mul(c->rate, *m), denominator));
}

#endif
