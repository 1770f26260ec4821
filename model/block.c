/* SPDX-License-Identifier: MIT */
/*
 * One decoder layer, top to bottom as in the paper, and the same layer backwards:
 *   mid = x + O(attention(rope(Q h), rope(K h), V h)),  h = rmsnorm(x)
 *   out = mid + experts(h2),                            h2 = rmsnorm(mid)
 * Backward recomputes what was not kept: with recomputation everything but the input and the
 * router's decisions, without it only the norms. Weights are asked for here and given back here.
 */
#include <string.h>

#include "internal.h"

size_t hm_set_of(const struct hm_step *step, uint32_t layer)
{
    return step->options->backward && !step->ws->shape.recompute ? layer : 0;
}

struct hm_block_state hm_block_state(const struct hm_step *step, uint32_t layer)
{
    const struct hm_workspace *ws = step->ws;
    const struct hm_arch *arch = step->arch;
    const bool kept = step->options->backward;
    const size_t n = step->N, set = hm_set_of(step, layer);
    const size_t q = n * arch->heads * arch->head_dim, kv = n * arch->kv_heads * arch->head_dim;
    float *rho = hm_f32(ws, HM_BUF_RHO) + 2 * set * n;
    struct hm_block_state state = {
        .x = hm_f32(ws, HM_BUF_INPUT) + (kept ? layer : 0) * n * arch->hidden,
        .rho1 = rho,
        .rho2 = rho + n,
        .q = hm_f32(ws, HM_BUF_Q) + set * q,
        .k = hm_f32(ws, HM_BUF_K) + set * kv,
        .v = hm_f32(ws, HM_BUF_V) + set * kv,
        .attn = hm_f32(ws, HM_BUF_ATTN) + set * q,
        .lse = hm_f32(ws, HM_BUF_LSE) + set * n * arch->heads,
    };

    state.mid = kept ? hm_f32(ws, HM_BUF_MID) + set * n * arch->hidden : state.x;
    state.keys = state.k;
    state.values = state.v;
    return state;
}

static struct hm_fan qkv_fan(const struct hm_step *step, uint32_t layer,
                             const struct hm_layer_view *view, const float *h, float *q, float *k,
                             float *v)
{
    return (struct hm_fan){ .n = step->N,
                            .x = h,
                            .branch = { hm_branch_make(step, &view->q, q, layer, HM_LOW_Q, 0),
                                        hm_branch_make(step, &view->k, k, layer, HM_LOW_K, 0),
                                        hm_branch_make(step, &view->v, v, layer, HM_LOW_V, 0) },
                            .n_branches = 3 };
}

static struct hm_fan o_fan(const struct hm_step *step, uint32_t layer,
                           const struct hm_layer_view *view, const float *attn, float *y)
{
    return (struct hm_fan){ .n = step->N,
                            .x = attn,
                            .branch = { hm_branch_make(step, &view->o, y, layer, HM_LOW_O, 0) },
                            .n_branches = 1,
                            .add_y = true };
}

/* --- forward ---------------------------------------------------------------------------------- */

/* Up to mid = x + O(attention). */
static void attention_half(const struct hm_step *step, uint32_t layer,
                           const struct hm_layer_view *view, const struct hm_block_state *state)
{
    const struct hm_arch *arch = step->arch;
    float *h = hm_f32(step->ws, HM_BUF_H);
    struct hm_attention attention = {
        .q = state->q, .k = state->keys, .v = state->values, .out = state->attn, .lse = state->lse
    };

    hm_norm_rows(step, &view->input_norm, state->x, h, state->rho1);
    struct hm_fan qkv = qkv_fan(step, layer, view, h, state->q, state->k, state->v);
    hm_fan_forward(step, &qkv);
    hm_rope_rows(step, state->q, arch->heads, 1.0f);
    hm_rope_rows(step, state->k, arch->kv_heads, 1.0f);
    hm_attention_forward(step, &attention);
    if (state->mid != state->x)
        memcpy(state->mid, state->x, (size_t)step->N * arch->hidden * sizeof(float));
    struct hm_fan o = o_fan(step, layer, view, state->attn, state->mid);
    hm_fan_forward(step, &o);
}

void hm_block_forward(struct hm_step *step, uint32_t layer, const struct hm_block_state *state,
                      float *out)
{
    float *h = hm_f32(step->ws, HM_BUF_H);
    struct hm_layer_view view;

    hm_layer_acquire(step->model, layer, &view);
    attention_half(step, layer, &view, state);
    hm_norm_rows(step, &view.post_norm, state->mid, h, state->rho2);
    hm_router_forward(step, layer, &view, h);
    if (out != state->mid)
        memcpy(out, state->mid, (size_t)step->N * step->arch->hidden * sizeof(float));
    hm_moe_forward(step, layer, h, out);
    hm_layer_release(step->model, layer);
}

/* --- backward --------------------------------------------------------------------------------- */

/* dx: gradient of mid on entry, of x on return. */
static void attention_half_backward(const struct hm_step *step, uint32_t layer,
                                    const struct hm_layer_view *view,
                                    const struct hm_block_state *state, float *dx)
{
    const struct hm_arch *arch = step->arch;
    const struct hm_workspace *ws = step->ws;
    float *h = hm_f32(ws, HM_BUF_H), *dh = hm_f32(ws, HM_BUF_DH);
    struct hm_attention attention = { .q = state->q,
                                      .k = state->keys,
                                      .v = state->values,
                                      .out = state->attn,
                                      .lse = state->lse,
                                      .dout = hm_f32(ws, HM_BUF_DATTN),
                                      .delta = hm_f32(ws, HM_BUF_DELTA),
                                      .dq = hm_f32(ws, HM_BUF_DQ),
                                      .dk = hm_f32(ws, HM_BUF_DK),
                                      .dv = hm_f32(ws, HM_BUF_DV) };
    struct hm_fan o = o_fan(step, layer, view, state->attn, dx);

    o.dx = hm_f32(ws, HM_BUF_DATTN);
    hm_fan_backward(step, &o);
    hm_attention_backward(step, &attention);
    hm_rope_rows(step, attention.dq, arch->heads, -1.0f);
    hm_rope_rows(step, attention.dk, arch->kv_heads, -1.0f);
    hm_norm_rows(step, &view->input_norm, state->x, h, state->rho1);
    struct hm_fan qkv = qkv_fan(step, layer, view, h, attention.dq, attention.dk, attention.dv);
    qkv.dx = dh;
    hm_fan_backward(step, &qkv);
    hm_norm_backward(step, &view->input_norm, state->x, state->rho1, dh, dx);
}

void hm_block_backward(const struct hm_step *step, uint32_t layer,
                       const struct hm_block_state *state, float *dx)
{
    const struct hm_workspace *ws = step->ws;
    float *h = hm_f32(ws, HM_BUF_H), *dh = hm_f32(ws, HM_BUF_DH), *gamma = hm_f32(ws, HM_BUF_GAMMA);
    struct hm_layer_view view;

    hm_layer_acquire(step->model, layer, &view);
    if (ws->shape.recompute)
        attention_half(step, layer, &view, state);
    hm_norm_rows(step, &view.post_norm, state->mid, h, state->rho2);
    hm_moe_backward(step, layer, h, dx, dh, gamma);
    hm_router_backward(step, layer, &view, h, gamma, dh);
    hm_norm_backward(step, &view.post_norm, state->mid, state->rho2, dh, dx);
    attention_half_backward(step, layer, &view, state, dx);
    hm_layer_release(step->model, layer);
}
