/* SPDX-License-Identifier: MIT */
/*
 * The router of Mixtral: gate logits, softmax over all experts, top-k, renormalised weights; the
 * load-balancing loss of transformers (load_balancing_loss_func: one scalar over the rows of all
 * layers, padded rows left out) and the way back. Decisions are kept per layer, so that a
 * recomputed layer cannot choose otherwise.
 *
 *   aux = E sum_e F_e R_e,  F_e = share of rows that chose e (a constant),  R_e = mean of p_e
 *   dz_i = gamma_i - w_i sum_j gamma_j over the chosen ones, gamma_i = w_i <dy, output i>
 *   dz += p (g - <p, g>) for aux,  g_e = aux_weight E F_e / rows
 */
#include <string.h>

#include "internal.h"

struct hm_routing hm_routing_of(const struct hm_step *step, uint32_t layer)
{
    const struct hm_arch *arch = step->arch;
    size_t set = step->options->backward ? layer : 0;
    size_t n = step->N;

    return (struct hm_routing){ hm_f32(step->ws, HM_BUF_PROB) + set * n * arch->experts,
                                hm_i32(step->ws, HM_BUF_ROUTE_ID) + set * n * arch->top_k,
                                hm_f32(step->ws, HM_BUF_ROUTE_W) + set * n * arch->top_k };
}

static bool row_counts(const struct hm_step *step, size_t row)
{
    return !step->batch->mask || step->batch->mask[row];
}

/* Expert counts of the model, and the sums of the auxiliary loss, over the rows in order. */
static void router_sums(struct hm_step *step, uint32_t layer, const struct hm_routing *routing)
{
    const uint32_t experts = step->arch->experts, k = step->arch->top_k;
    uint64_t *counts = step->model->expert_counts + (size_t)layer * experts;

    for (size_t t = 0; t < step->N; t++) {
        if (!row_counts(step, t))
            continue;
        for (uint32_t i = 0; i < k; i++)
            counts[routing->id[t * k + i]]++;
        if (!step->aux_count)
            continue;
        for (uint32_t i = 0; i < k; i++)
            step->aux_count[routing->id[t * k + i]] += 1;
        for (uint32_t e = 0; e < experts; e++)
            step->aux_prob[e] += (double)routing->prob[t * experts + e];
        step->aux_rows += 1;
    }
}

static struct hm_fan gate_fan(const struct hm_step *step, uint32_t layer,
                              const struct hm_linear *gate, const float *h, float *z)
{
    return (struct hm_fan){ .n = step->N,
                            .x = h,
                            .branch = { hm_branch_make(step, gate, z, layer, HM_LOW_GATE, 0) },
                            .n_branches = 1 };
}

void hm_router_forward(struct hm_step *step, uint32_t layer, const struct hm_layer_view *view,
                       const float *h)
{
    const struct hm_arch *arch = step->arch;
    struct hm_routing routing = hm_routing_of(step, layer);
    float *z = hm_f32(step->ws, HM_BUF_GATE);

    if (view->gate.rows == 0) {
        for (size_t t = 0; t < step->N; t++) {
            routing.id[t] = 0;
            routing.weight[t] = 1.0f;
            routing.prob[t] = 1.0f;
        }
    } else {
        struct hm_fan fan = gate_fan(step, layer, &view->gate, h, z);
        hm_fan_forward(step, &fan);
        if (step->options->router_logits_out)
            memcpy(step->options->router_logits_out[layer], z,
                   (size_t)step->N * arch->experts * sizeof(float));
        step->kernels->route(z, step->N, arch->experts, arch->top_k, routing.prob, routing.id,
                             routing.weight);
    }
    router_sums(step, layer, &routing);
}

double hm_router_aux(const struct hm_step *step)
{
    double sum = 0;

    if (!step->aux_count || step->aux_rows == 0)
        return 0;
    for (uint32_t e = 0; e < step->arch->experts; e++)
        sum += step->aux_count[e] / step->aux_rows * (step->aux_prob[e] / step->aux_rows);
    return sum * step->arch->experts;
}

/* dz of one row: chosen experts through their weights, all through the auxiliary loss. */
static void row_gradient(const struct hm_step *step, const struct hm_routing *routing,
                         const float *gamma, size_t t, float *dz)
{
    const uint32_t experts = step->arch->experts, k = step->arch->top_k;
    const float *p = routing->prob + t * experts;
    const float *w = routing->weight + t * k;
    float sum = 0;

    for (uint32_t i = 0; i < k; i++)
        sum += gamma[t * k + i];
    for (uint32_t e = 0; e < experts; e++)
        dz[e] = 0;
    for (uint32_t i = 0; i < k; i++)
        dz[routing->id[t * k + i]] = gamma[t * k + i] - w[i] * sum;
    if (step->options->aux_weight == 0 || !row_counts(step, t))
        return;
    double factor = step->options->aux_weight * experts / step->aux_rows;
    double inner = 0;
    for (uint32_t e = 0; e < experts; e++)
        inner += p[e] * (step->aux_count[e] / step->aux_rows);
    for (uint32_t e = 0; e < experts; e++)
        dz[e] += (float)(factor * p[e] * (step->aux_count[e] / step->aux_rows - inner));
}

void hm_router_backward(const struct hm_step *step, uint32_t layer,
                        const struct hm_layer_view *view, const float *h, const float *gamma,
                        float *dh)
{
    struct hm_routing routing = hm_routing_of(step, layer);
    float *dz = hm_f32(step->ws, HM_BUF_GATE);

    if (step->arch->experts == 1) /* one weight that is always 1 */
        return;
    for (size_t t = 0; t < step->N; t++)
        row_gradient(step, &routing, gamma, t, dz + t * step->arch->experts);
    struct hm_fan fan = gate_fan(step, layer, &view->gate, h, dz);
    fan.dx = dh;
    fan.add_dx = true;
    fan.u_lost = step->ws->shape.recompute; /* decisions are not made again */
    hm_fan_backward(step, &fan);
}
