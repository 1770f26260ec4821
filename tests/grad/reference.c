/* SPDX-License-Identifier: MIT */
/*
 * The objective of a step in double precision; see reference.h. Section numbers: specs of the
 * arithmetic in docs/NUMERICS.md. Slow on purpose: one token at a time, full score rows, no reuse.
 */
#include "reference.h"

#include <math.h>

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/weight.h"

static double *zeros(size_t count)
{
    double *values = hm_calloc(HM_MEM_OTHER, count + 1, sizeof(double));

    assert_non_null(values);
    return values;
}

static double *widen(const float *values, size_t count)
{
    double *out = zeros(count);

    for (size_t i = 0; i < count; i++)
        out[i] = (double)values[i];
    return out;
}

static size_t slot_find(const struct reference *r, enum hm_weight_kind kind, uint32_t layer,
                        uint32_t expert)
{
    for (size_t i = 0; i < r->slots; i++)
        if (r->slot[i].kind == kind && r->slot[i].layer == layer && r->slot[i].expert == expert)
            return i;
    fail_msg("no weight of kind %d in layer %u", (int)kind, layer);
    return 0;
}

void reference_init(struct reference *reference, const struct hm_model *model,
                    const struct hm_adapter *adapter)
{
    const struct hm_checkpoint *ckpt = hm_model_checkpoint(model);
    struct hm_kernels kernels;
    struct hm_error err = { 0 };

    hm_kernels_reference(&kernels);
    *reference = (struct reference){ .arch = ckpt->arch, .slots = hm_arch_slot_count(&ckpt->arch) };
    reference->slot = hm_calloc(HM_MEM_OTHER, reference->slots, sizeof(struct hm_weight_slot));
    reference->weight = hm_calloc(HM_MEM_OTHER, reference->slots, sizeof(double *));
    reference->lora = hm_calloc(HM_MEM_OTHER, reference->slots, sizeof(struct reference_lora));
    for (size_t i = 0; i < reference->slots; i++) {
        struct hm_weight_slot slot;
        struct hm_weight *weight = NULL;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&ckpt->arch, i, &slot, name);
        reference->slot[i] = slot;
        assert_ok(hm_weight_open(ckpt, &slot, &weight, &err), err);
        size_t count = (size_t)slot.rows * slot.cols;
        float *values = hm_alloc_array(HM_MEM_OTHER, count, sizeof(float));
        hm_weight_decode(weight, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, values,
                         slot.cols);
        reference->weight[i] = widen(values, count);
        hm_free(values);
        hm_weight_free(weight);
        if (adapter && adapter->full_of_slot[i] >= 0) {
            const struct hm_param *param = &adapter->param[adapter->full_of_slot[i]];
            for (size_t j = 0; j < (size_t)param->rows * param->cols; j++)
                reference->weight[i][(size_t)param->first_row * param->cols + j] =
                    (double)param->value[j];
        }
        if (adapter && adapter->lora_of_slot[i] >= 0) {
            const struct hm_lora *lora = &adapter->lora[adapter->lora_of_slot[i]];
            reference->lora[i] = (struct reference_lora){
                widen(adapter->param[lora->a].value, (size_t)lora->rank * slot.cols),
                widen(adapter->param[lora->b].value, (size_t)slot.rows * lora->rank),
                (double)lora->scale, lora->rank
            };
        }
    }
}

void reference_release(struct reference *reference)
{
    for (size_t i = 0; i < reference->slots; i++) {
        hm_free(reference->weight[i]);
        hm_free(reference->lora[i].a);
        hm_free(reference->lora[i].b);
    }
    hm_free(reference->slot);
    hm_free(reference->weight);
    hm_free(reference->lora);
}

double *reference_value(struct reference *reference, const struct hm_adapter *adapter, size_t param,
                        size_t i)
{
    const struct hm_param *p = &adapter->param[param];

    if (p->kind == HM_PARAM_LORA_A)
        return &reference->lora[p->slot].a[i];
    if (p->kind == HM_PARAM_LORA_B)
        return &reference->lora[p->slot].b[i];
    return &reference->weight[p->slot][(size_t)p->first_row * p->cols + i];
}

double reference_gradient(struct reference *reference, double *value)
{
    const double h = 1e-5, at = *value;

    *value = at + h;
    double above = reference_objective(reference);
    *value = at - h;
    double below = reference_objective(reference);
    *value = at;
    return (above - below) / (2 * h);
}

/* --- the pieces ------------------------------------------------------------------------------- */

/* Inverted dropout of element `col` of a row of width `cols` at token n. */
static double kept(const struct reference *r, size_t slot, size_t n, uint32_t col, uint32_t cols)
{
    struct hm_rng_key base = { r->dropout_seed, r->step };
    struct hm_rng_key key = { hm_rng_u64(base, slot), r->sample + n / r->batch->seq_len };
    uint64_t words = (cols + 3) / 4;
    uint32_t draw[4];

    if (r->dropout == 0)
        return 1;
    hm_rng_block(key, n % r->batch->seq_len * words + col / 4, draw);
    return draw[col % 4] < r->dropout * 4294967296.0 ? 0 : 1 / (1 - r->dropout);
}

/* y = W x + s B A (dropout x) for token n. */
static void linear(const struct reference *r, enum hm_weight_kind kind, uint32_t layer,
                   uint32_t expert, size_t n, const double *x, double *y)
{
    size_t i = slot_find(r, kind, layer, expert);
    const struct hm_weight_slot slot = r->slot[i];
    const struct reference_lora *lora = &r->lora[i];

    for (uint32_t o = 0; o < slot.rows; o++) {
        y[o] = 0;
        for (uint32_t c = 0; c < slot.cols; c++)
            y[o] += r->weight[i][(size_t)o * slot.cols + c] * x[c];
    }
    for (uint32_t k = 0; k < lora->rank; k++) {
        double u = 0;
        for (uint32_t c = 0; c < slot.cols; c++)
            u += lora->a[(size_t)k * slot.cols + c] * x[c] * kept(r, i, n, c, slot.cols);
        for (uint32_t o = 0; o < slot.rows; o++)
            y[o] += lora->scale * lora->b[(size_t)o * lora->rank + k] * u;
    }
}

static void norm(const struct reference *r, enum hm_weight_kind kind, uint32_t layer,
                 const double *x, double *y)
{
    const double *w = r->weight[slot_find(r, kind, layer, 0)];
    double sum = 0;

    for (uint32_t j = 0; j < r->arch.hidden; j++)
        sum += x[j] * x[j];
    for (uint32_t j = 0; j < r->arch.hidden; j++)
        y[j] = w[j] * x[j] / sqrt(sum / r->arch.hidden + r->arch.norm_eps);
}

static void rope(const struct reference *r, double *x, uint32_t heads, uint32_t pos)
{
    uint32_t c = r->arch.head_dim;

    for (uint32_t h = 0; h < heads; h++)
        for (uint32_t j = 0; j < c / 2; j++) {
            double angle = pos * pow(r->arch.rope_theta, -2.0 * j / c);
            double low = x[h * c + j], high = x[h * c + j + c / 2];
            x[h * c + j] = low * cos(angle) - high * sin(angle);
            x[h * c + j + c / 2] = high * cos(angle) + low * sin(angle);
        }
}

/* Does query t of row b see key s? */
static bool sees(const struct reference *r, uint32_t b, uint32_t t, uint32_t s)
{
    const struct hm_batch *batch = r->batch;
    size_t row = (size_t)b * batch->seq_len;

    if (s > t || (r->arch.sliding_window > 0 && t - s >= r->arch.sliding_window))
        return false;
    if (batch->mask && !batch->mask[row + s])
        return false;
    for (uint32_t i = s + 1; batch->doc_start && i <= t; i++)
        if (batch->doc_start[row + i])
            return false;
    return true;
}

/* One head of one query: out [C]. */
static void attend(const struct reference *r, uint32_t b, uint32_t t, const double *q,
                   const double *k, const double *v, size_t ld, double *out)
{
    uint32_t c = r->arch.head_dim;
    double sum = 0;

    for (uint32_t j = 0; j < c; j++)
        out[j] = 0;
    for (uint32_t s = 0; s <= t; s++) {
        double score = 0;
        if (!sees(r, b, t, s))
            continue;
        for (uint32_t j = 0; j < c; j++)
            score += q[j] * k[s * ld + j];
        double p = exp(score / sqrt(c));
        sum += p;
        for (uint32_t j = 0; j < c; j++)
            out[j] += p * v[s * ld + j];
    }
    for (uint32_t j = 0; j < c && sum > 0; j++)
        out[j] /= sum;
}

static void attention(const struct reference *r, uint32_t layer, double *x)
{
    const struct hm_arch *arch = &r->arch;
    const uint32_t T = r->batch->seq_len, d = arch->hidden, c = arch->head_dim;
    const size_t tokens = (size_t)r->batch->rows * T, ldq = (size_t)arch->heads * c,
                 ldk = (size_t)arch->kv_heads * c;
    double *q = zeros(tokens * ldq), *k = zeros(tokens * ldk), *v = zeros(tokens * ldk),
           *out = zeros(ldq), *h = zeros(d);

    for (size_t n = 0; n < tokens; n++) {
        norm(r, HM_WEIGHT_INPUT_NORM, layer, x + n * d, h);
        linear(r, HM_WEIGHT_Q, layer, 0, n, h, q + n * ldq);
        linear(r, HM_WEIGHT_K, layer, 0, n, h, k + n * ldk);
        linear(r, HM_WEIGHT_V, layer, 0, n, h, v + n * ldk);
        rope(r, q + n * ldq, arch->heads, (uint32_t)(n % T));
        rope(r, k + n * ldk, arch->kv_heads, (uint32_t)(n % T));
    }
    for (size_t n = 0; n < tokens; n++) {
        uint32_t b = (uint32_t)(n / T);
        for (uint32_t head = 0; head < arch->heads; head++) {
            size_t kv = (size_t)b * T * ldk + head / (arch->heads / arch->kv_heads) * c;
            attend(r, b, (uint32_t)(n % T), q + n * ldq + head * c, k + kv, v + kv, ldk,
                   out + head * c);
        }
        linear(r, HM_WEIGHT_O, layer, 0, n, out, h);
        for (uint32_t j = 0; j < d; j++)
            x[n * d + j] += h[j];
    }
    hm_free(q);
    hm_free(k);
    hm_free(v);
    hm_free(out);
    hm_free(h);
}

static void ffn(const struct reference *r, uint32_t layer, uint32_t expert, size_t n,
                const double *h, double weight, double *x)
{
    const uint32_t f = r->arch.ffn, d = r->arch.hidden;
    double *a1 = zeros(f), *a3 = zeros(f), *y = zeros(d);

    linear(r, HM_WEIGHT_W1, layer, expert, n, h, a1);
    linear(r, HM_WEIGHT_W3, layer, expert, n, h, a3);
    for (uint32_t j = 0; j < f; j++)
        a1[j] = a1[j] / (1 + exp(-a1[j])) * a3[j];
    linear(r, HM_WEIGHT_W2, layer, expert, n, a1, y);
    for (uint32_t j = 0; j < d; j++)
        x[j] += weight * y[j];
    hm_free(a1);
    hm_free(a3);
    hm_free(y);
}

struct aux_sums {
    double *count, *prob, rows;
};

/* Softmax over all, the k largest, renormalised; experts of token n added to x. */
static void experts(struct reference *r, uint32_t layer, size_t n, const double *h, double *x,
                    struct aux_sums *aux)
{
    const uint32_t E = r->arch.experts, K = r->arch.top_k;
    double *p = zeros(E), sum = 0, chosen = 0;
    bool counts = !r->batch->mask || r->batch->mask[n];

    linear(r, HM_WEIGHT_GATE, layer, 0, n, h, p);
    for (uint32_t e = 0; e < E; e++)
        sum += p[e] = exp(p[e]);
    for (uint32_t e = 0; e < E; e++)
        p[e] /= sum;
    aux->rows += counts;
    uint32_t rank_of[64];
    for (uint32_t e = 0; e < E; e++) {
        rank_of[e] = 0;
        for (uint32_t o = 0; o < E; o++)
            rank_of[e] += p[o] > p[e];
        chosen += rank_of[e] < K ? p[e] : 0;
        aux->prob[e] += counts ? p[e] : 0;
        aux->count[e] += counts && rank_of[e] < K;
    }
    for (uint32_t e = 0; e < E; e++)
        for (uint32_t o = 0; o < E; o++)
            if (rank_of[e] == K - 1 && rank_of[o] == K && p[e] - p[o] < r->margin)
                r->margin = p[e] - p[o];
    for (uint32_t e = 0; e < E; e++)
        if (rank_of[e] < K)
            ffn(r, layer, e, n, h, p[e] / chosen, x);
    hm_free(p);
}

static double loss_sum(const struct reference *r, const double *x)
{
    const struct hm_batch *batch = r->batch;
    const uint32_t V = r->arch.vocab_size, d = r->arch.hidden;
    const int32_t *labels = batch->labels ? batch->labels : batch->ids;
    double *h = zeros(d), *z = zeros(V), total = 0;

    for (size_t n = 0; n < (size_t)batch->rows * batch->seq_len; n++) {
        double sum = 0;
        if (n % batch->seq_len == batch->seq_len - 1 || labels[n + 1] < 0)
            continue;
        norm(r, HM_WEIGHT_NORM, 0, x + n * d, h);
        linear(r, r->arch.tied ? HM_WEIGHT_EMBED : HM_WEIGHT_HEAD, 0, 0, n, h, z);
        for (uint32_t v = 0; v < V; v++)
            sum += exp(z[v]);
        total += log(sum) - z[labels[n + 1]];
    }
    hm_free(h);
    hm_free(z);
    return total;
}

double reference_objective(struct reference *r)
{
    const struct hm_arch *arch = &r->arch;
    const size_t tokens = (size_t)r->batch->rows * r->batch->seq_len, d = arch->hidden;
    struct aux_sums aux = { zeros(arch->experts), zeros(arch->experts), 0 };
    double *x = zeros(tokens * d), *h = zeros(d), aux_loss = 0;
    const double *embed = r->weight[slot_find(r, HM_WEIGHT_EMBED, 0, 0)];

    r->margin = INFINITY;
    for (size_t n = 0; n < tokens; n++)
        memcpy(x + n * d, embed + (size_t)r->batch->ids[n] * d, d * sizeof(double));
    for (uint32_t layer = 0; layer < arch->layers; layer++) {
        attention(r, layer, x);
        for (size_t n = 0; n < tokens; n++) {
            norm(r, HM_WEIGHT_POST_NORM, layer, x + n * d, h);
            if (arch->experts > 1)
                experts(r, layer, n, h, x + n * d, &aux);
            else
                ffn(r, layer, 0, n, h, 1, x + n * d);
        }
    }
    for (uint32_t e = 0; e < arch->experts && aux.rows > 0; e++)
        aux_loss += arch->experts * (aux.count[e] / aux.rows) * (aux.prob[e] / aux.rows);
    double objective = r->loss_weight * loss_sum(r, x) + r->aux_weight * aux_loss;
    hm_free(aux.count);
    hm_free(aux.prob);
    hm_free(x);
    hm_free(h);
    return objective;
}
