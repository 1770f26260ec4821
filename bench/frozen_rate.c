/* SPDX-License-Identifier: MIT */
/*
 * Products with the frozen matrices of one layer, alone; see frozen_rate.h.
 */
#include "frozen_rate.h"

#include <math.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/weight.h"

#define CUT       256u
#define REPEATS   3
#define ROWS_MOST 256u

struct loop {
    const struct hm_kernels *kernels;
    struct hm_frozen w;
    enum hm_pack side;
    size_t m;
    const float *x;
    uint16_t *packed;
    float *out;
    char *scratch; /* [threads][HM_FROZEN_SCRATCH_BYTES] */
};

static void product_unit(void *context, size_t index, int worker)
{
    const struct loop *loop = context;
    void *scratch = loop->scratch + (size_t)worker * HM_FROZEN_SCRATCH_BYTES;
    uint32_t width = loop->side == HM_PACK_FORWARD ? loop->w.rows : loop->w.cols;
    uint32_t at = (uint32_t)index * CUT, n = width - at < CUT ? width - at : CUT;

    if (loop->side == HM_PACK_FORWARD)
        loop->kernels->frozen_forward(&loop->w, at, n, loop->packed, loop->m, NULL, false,
                                      loop->out + at, width, scratch);
    else
        loop->kernels->frozen_backward(&loop->w, at, n, loop->packed, loop->m, NULL, false,
                                       loop->out + at, width, scratch);
}

/* Seconds of one product over all matrices in turn, the fastest round. */
static double product_seconds(struct loop *loop, const struct hm_frozen *w, size_t n_w, size_t m)
{
    size_t depth = loop->side == HM_PACK_FORWARD ? w->cols : w->rows;
    size_t width = loop->side == HM_PACK_FORWARD ? w->rows : w->cols;
    double best = INFINITY;

    loop->m = m;
    loop->kernels->frozen_pack(loop->side, m, depth, 0, m, 0, depth, loop->x, depth, loop->packed);
    for (int run = 0; run < REPEATS; run++) {
        double begin = hm_clock_seconds();
        for (size_t i = 0; i < n_w; i++) {
            loop->w = w[i];
            hm_parallel_for(hm_units(width, CUT), product_unit, loop);
        }
        double seconds = (hm_clock_seconds() - begin) / (double)n_w;
        best = seconds < best ? seconds : best;
    }
    return best;
}

/* One kind of linear at m rows, `times` of them. */
static int kind_add(struct loop *loop, const struct hm_frozen *w, size_t n_w, size_t m,
                    double times, struct frozen_rate *rate, struct hm_error *err)
{
    size_t rows = m < ROWS_MOST ? ROWS_MOST : m, widest = w->rows > w->cols ? w->rows : w->cols;
    float *x = hm_alloc_array(HM_MEM_OTHER, rows * widest, sizeof(float));
    struct hm_rng_key key = { 1, 1 };
    int status = HM_OK;

    loop->packed = hm_alloc_array(HM_MEM_OTHER, hm_pack_values(rows, widest), sizeof(uint16_t));
    loop->out = hm_alloc_array(HM_MEM_OTHER, rows * widest, sizeof(float));
    if (!x || !loop->packed || !loop->out) {
        status = hm_fail_nomem(err, "for %zu rows of %zu values", rows, widest);
        goto out;
    }
    for (size_t i = 0; i < rows * widest; i++)
        x[i] = (float)hm_rng_uniform(key, i) - 0.5f;
    loop->x = x;
    for (int side = 0; side < 2; side++) {
        loop->side = side == 0 ? HM_PACK_FORWARD : HM_PACK_BACKWARD;
        double seconds = product_seconds(loop, w, n_w, m);
        double row =
            (product_seconds(loop, w, n_w, 256) - product_seconds(loop, w, n_w, 128)) / 128;
        double decode = fmax(0, seconds - row * (double)m);
        rate->seconds += times * seconds;
        rate->decode += times * decode;
        if (side == 0) {
            rate->forward_seconds += times * seconds;
            rate->forward_decode += times * decode;
        }
        rate->flops += times * 2 * (double)m * w->rows * w->cols;
    }
out:
    hm_free(x);
    hm_free(loop->packed);
    hm_free(loop->out);
    return status;
}

static bool measured(enum hm_weight_kind kind)
{
    return hm_weight_kind_is_linear(kind) && kind != HM_WEIGHT_GATE;
}

/* All weights of a kind in the first layer (or the head). */
static int kind_measure(struct loop *loop, const struct hm_checkpoint *ckpt,
                        enum hm_weight_kind kind, uint32_t tokens, struct frozen_rate *rate,
                        struct hm_error *err)
{
    const struct hm_arch *arch = &ckpt->arch;
    struct hm_weight *weight[16] = { NULL };
    struct hm_frozen w[16];
    size_t n = 0;
    int status = HM_OK;

    for (size_t i = 0; i < hm_arch_slot_count(arch) && n < 16 && status == HM_OK; i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(arch, i, &slot, name);
        if (slot.kind != kind || slot.layer > 0)
            continue;
        status = hm_weight_open(ckpt, &slot, &weight[n], err);
        if (status == HM_OK && hm_weight_frozen(weight[n], &w[n]))
            n++;
    }
    bool expert = kind == HM_WEIGHT_W1 || kind == HM_WEIGHT_W2 || kind == HM_WEIGHT_W3;
    double times = kind == HM_WEIGHT_HEAD ? 1 : (double)arch->layers * (expert ? arch->experts : 1);
    size_t m = expert ? (size_t)tokens * arch->top_k / arch->experts : tokens;
    if (status == HM_OK && n > 0 && m > 0)
        status = kind_add(loop, w, n, m, times, rate, err);
    for (size_t i = 0; i < 16; i++)
        hm_weight_free(weight[i]);
    return status;
}

int frozen_rate(const struct hm_checkpoint *ckpt, const struct hm_kernels *kernels, uint32_t tokens,
                struct frozen_rate *ret_rate, struct hm_error *err)
{
    struct loop loop = { .kernels = kernels };
    struct frozen_rate rate = { 0 };
    int status = HM_OK;

    loop.scratch = hm_alloc_array(HM_MEM_SCRATCH, (size_t)hm_threads(), HM_FROZEN_SCRATCH_BYTES);
    if (!loop.scratch)
        return hm_fail_nomem(err, "for scratch");
    for (int kind = 0; kind < HM_WEIGHT_KINDS && status == HM_OK; kind++)
        if (measured((enum hm_weight_kind)kind))
            status = kind_measure(&loop, ckpt, (enum hm_weight_kind)kind, tokens, &rate, err);
    hm_free(loop.scratch);
    if (status == HM_OK)
        *ret_rate = rate;
    return status;
}
