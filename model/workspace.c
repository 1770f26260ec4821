/* SPDX-License-Identifier: MIT */
/*
 * Every buffer of a step: one table gives element type, rows and columns from the shape alone; the
 * same table is summed by memory_plan.c and allocated here, so that a plan cannot differ from what
 * is taken. Buffers live as long as the workspace and are reused by every micro-batch.
 */
#include <math.h>

#include "internal.h"

/* Two tiles of scores and five values of each query. */
#define TILE_SCORES ((size_t)2 * HM_Q_TILE * HM_K_TILE + 5 * HM_Q_TILE)

uint32_t hm_cut(uint32_t width)
{
    return width >= 2048 ? 256 : width >= 1024 ? 128 : 64;
}

/* Logits held at once: about 64 MiB, at least 64 rows. */
uint32_t hm_head_rows(const struct hm_arch *arch, size_t tokens)
{
    size_t rows = ((size_t)16 << 20) / arch->vocab_size;

    rows = rows < 64 ? 64 : rows > 1024 ? 1024 : rows;
    return (uint32_t)(tokens < rows ? tokens : rows);
}

/* One expert can meet every token once; without recomputation all experts stay, so that all rows
 * are held. */
size_t hm_expert_round_rows(const struct hm_shape *shape)
{
    size_t n = (size_t)shape->rows * shape->seq_len;

    return shape->backward && !shape->recompute ? n * shape->arch.top_k : n;
}

size_t hm_low_sums_half(const struct hm_shape *shape)
{
    if (!shape->packed || shape->rank > HM_LOW_SUM_MOST)
        return 0;
    return hm_low_sums(hm_expert_round_rows(shape) + ((size_t)shape->arch.experts + 1) * 32,
                       shape->rank);
}

/* Units of one loop over the experts: the longest list that moe.c builds. */
static size_t units_most(const struct hm_shape *shape, size_t round_rows)
{
    const struct hm_arch *arch = &shape->arch;
    size_t blocks = round_rows / HM_ROW_BLOCK + 1;
    size_t f = hm_units(arch->ffn, hm_cut(arch->ffn));
    size_t d = hm_units(arch->hidden, hm_cut(arch->hidden));

    size_t cuts = (size_t)arch->experts * (f > d ? f : d);

    return blocks + arch->experts > cuts ? blocks + arch->experts : cuts;
}

bool hm_shape_tiles_packed(const struct hm_shape *shape)
{
    return shape->packed && shape->arch.head_dim % 64 == 0;
}

static size_t score_values(const struct hm_shape *shape)
{
    size_t attention = TILE_SCORES;
    uint32_t widest = shape->arch.ffn > shape->arch.hidden ? shape->arch.ffn : shape->arch.hidden;
    uint32_t heads = shape->arch.heads * shape->arch.head_dim;
    size_t dropout = (size_t)HM_ROW_BLOCK * (heads > widest ? heads : widest);

    if (hm_shape_tiles_packed(shape))
        attention += hm_tile_room(shape->arch.head_dim) / 2;
    return shape->rank > 0 && dropout > attention ? dropout : attention;
}

static struct hm_act f32(uint64_t rows, uint64_t cols)
{
    return (struct hm_act){ NULL, HM_DTYPE_F32, rows, cols };
}

static struct hm_act bf16(uint64_t values)
{
    return (struct hm_act){ NULL, HM_DTYPE_BF16, 1, values };
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static struct hm_act i32(uint64_t rows, uint64_t cols)
{
    return (struct hm_act){ NULL, HM_DTYPE_I32, rows, cols };
}

static void table_forward(const struct hm_shape *shape, struct hm_act *table)
{
    const struct hm_arch *arch = &shape->arch;
    uint64_t n = (uint64_t)shape->rows * shape->seq_len;
    uint64_t sets = shape->backward && !shape->recompute ? arch->layers : 1;
    uint64_t layers = shape->backward ? arch->layers : 1;
    uint64_t x = hm_expert_round_rows(shape);
    uint64_t d = arch->hidden, q = (uint64_t)arch->heads * arch->head_dim;
    uint64_t kv = (uint64_t)arch->kv_heads * arch->head_dim;
    uint64_t low = x + (shape->packed ? ((uint64_t)arch->experts + 1) * HM_PACK_ROWS : 0);
    bool routed = arch->experts > 1;

    table[HM_BUF_INPUT] = f32(shape->backward ? layers + 1 : 1, n * d);
    table[HM_BUF_MID] = f32(shape->backward ? sets : 0, n * d);
    table[HM_BUF_H] = f32(n, d);
    table[HM_BUF_RHO] = f32(2 * sets + 1, n);
    table[HM_BUF_Q] = f32(sets, n * q);
    table[HM_BUF_K] = f32(sets, n * kv);
    table[HM_BUF_V] = f32(sets, n * kv);
    table[HM_BUF_ATTN] = f32(sets, n * q);
    table[HM_BUF_LSE] = f32(sets, n * arch->heads);
    table[HM_BUF_GATE] = f32(n, arch->experts);
    table[HM_BUF_PROB] = f32(layers, n * arch->experts);
    table[HM_BUF_ROUTE_ID] = i32(layers, n * arch->top_k);
    table[HM_BUF_ROUTE_W] = f32(layers, n * arch->top_k);
    table[HM_BUF_ROW_TOKEN] = i32(n, arch->top_k);
    table[HM_BUF_ROW_SLOT] = i32(n, arch->top_k);
    table[HM_BUF_TOKEN_ROW] = i32(n, arch->top_k);
    table[HM_BUF_EXPERT] = i32(1, (uint64_t)arch->experts + 1);
    table[HM_BUF_XG] = f32(routed ? x : 0, d);
    table[HM_BUF_YG] = f32(routed ? x : 0, d);
    table[HM_BUF_A1] = f32(sets, x * arch->ffn);
    table[HM_BUF_A3] = f32(sets, x * arch->ffn);
    table[HM_BUF_M] = f32(x, arch->ffn);
    table[HM_BUF_LOW] = f32((sets * HM_LOW_LAYER + 1) * low, shape->rank);
    table[HM_BUF_LOW_SUMS] =
        f32(hm_units(arch->ffn, hm_cut(arch->ffn)), (uint64_t)2 * hm_low_sums_half(shape));
    table[HM_BUF_LOW_DY] = f32(3 * low, shape->rank);
    table[HM_BUF_AUX] = (struct hm_act){ NULL, HM_DTYPE_F64, 2, arch->experts };
    table[HM_BUF_LOGITS] = f32(hm_head_rows(arch, n), arch->vocab_size);
    table[HM_BUF_LOSS] = (struct hm_act){ NULL, HM_DTYPE_F64, 1, n };
    table[HM_BUF_TARGET] = i32(1, n);
    table[HM_BUF_WEIGHT] = f32(1, n);
    table[HM_BUF_ROPE] = f32((uint64_t)2 * shape->context, arch->head_dim / 2);
    table[HM_BUF_POS] = i32(1, n);
    table[HM_BUF_FIRST_KEY] = i32(1, n);
    table[HM_BUF_TILE] = i32((uint64_t)shape->rows * shape->context, 2);
    table[HM_BUF_TILE_OF] = i32(1, (uint64_t)shape->rows + 1);
    table[HM_BUF_JOBS] =
        (struct hm_act){ NULL, HM_DTYPE_U8, arch->experts, sizeof(struct hm_expert_job) };
    table[HM_BUF_UNITS] = i32(units_most(shape, x), sizeof(struct hm_unit) / sizeof(int32_t));
    table[HM_BUF_PANEL] = f32((uint64_t)shape->threads,
                              most(HM_PANEL_ROWS * HM_PANEL_COLS,
                                   shape->packed ? HM_FROZEN_SCRATCH_BYTES / sizeof(float) : 0));
    table[HM_BUF_SCORE] = f32((uint64_t)shape->threads, score_values(shape));
}

static void table_backward(const struct hm_shape *shape, struct hm_act *table)
{
    const struct hm_arch *arch = &shape->arch;
    uint64_t n = (uint64_t)shape->rows * shape->seq_len;
    uint64_t x = hm_expert_round_rows(shape);
    uint64_t q = (uint64_t)arch->heads * arch->head_dim;
    uint64_t kv = (uint64_t)arch->kv_heads * arch->head_dim;

    table[HM_BUF_DXG] = f32(arch->experts > 1 ? x : 0, arch->hidden);
    table[HM_BUF_GAMMA] = f32(n, arch->top_k);
    table[HM_BUF_GAMMA_CUT] = f32(hm_units(arch->ffn, hm_cut(arch->ffn)), x);
    table[HM_BUF_DX] = f32(n, arch->hidden);
    table[HM_BUF_DH] = f32(n, arch->hidden);
    table[HM_BUF_DQ] = f32(n, q);
    table[HM_BUF_DK] = f32(n, kv);
    table[HM_BUF_DV] = f32(n, kv);
    table[HM_BUF_DATTN] = f32(n, q);
    table[HM_BUF_DELTA] = f32(arch->heads, n);
    table[HM_BUF_DM] = f32((uint64_t)shape->threads, x * hm_cut(arch->ffn));
}

/* Experts and the fans outside them use these by turns. Every expert's rows are padded. */
static void table_packed(const struct hm_shape *shape, struct hm_act *table)
{
    const struct hm_arch *arch = &shape->arch;
    size_t n = (size_t)shape->rows * shape->seq_len;
    size_t x = hm_expert_round_rows(shape) + ((size_t)arch->experts + 1) * HM_PACK_ROWS;
    size_t q = (size_t)arch->heads * arch->head_dim;
    size_t kv = (size_t)arch->kv_heads * arch->head_dim;
    size_t x_hidden = hm_pack_values(x, arch->hidden), x_ffn = hm_pack_values(x, arch->ffn);

    table[HM_BUF_PACK_X] =
        bf16(most(x_hidden, most(hm_pack_values(n, arch->hidden), hm_pack_values(n, q))));
    if (hm_shape_tiles_packed(shape))
        table[HM_BUF_KEYS] = bf16(2 * (uint64_t)shape->rows * shape->context * kv);
    table[HM_BUF_PACK_M] = bf16((shape->backward ? 2 : 1) * x_ffn);
    if (shape->backward)
        table[HM_BUF_PACK_DY] =
            bf16(most(most(x_hidden, hm_pack_values(n, arch->hidden)),
                      most(hm_pack_values(n, q) + 2 * hm_pack_values(n, kv),
                           hm_pack_values(hm_head_rows(arch, n), arch->vocab_size))));
}

void hm_workspace_table(const struct hm_shape *shape, struct hm_act table[HM_BUF_COUNT])
{
    for (int i = 0; i < HM_BUF_COUNT; i++)
        table[i] = f32(0, 0);
    table_forward(shape, table);
    if (shape->backward)
        table_backward(shape, table);
    if (shape->packed)
        table_packed(shape, table);
}

uint64_t hm_act_bytes(const struct hm_act *act)
{
    return act->rows * act->cols * hm_dtype_bytes(act->dtype);
}

enum hm_mem_tag hm_buffer_tag(enum hm_buffer buffer)
{
    return buffer >= HM_BUF_ROPE ? HM_MEM_SCRATCH : HM_MEM_ACTIVATION;
}

/* HF computes frequency and angle in f32. */
static void rope_tables(struct hm_workspace *workspace)
{
    const struct hm_shape *shape = &workspace->shape;
    uint32_t half = shape->arch.head_dim / 2;
    float *cos_table = hm_f32(workspace, HM_BUF_ROPE);
    float *sin_table = cos_table + (size_t)shape->context * half;

    for (uint32_t j = 0; j < half; j++) {
        float exponent = (float)(2 * j) / (float)shape->arch.head_dim;
        float frequency = 1.0f / (float)pow(shape->arch.rope_theta, exponent);
        for (uint32_t t = 0; t < shape->context; t++) {
            float angle = (float)t * frequency;
            cos_table[(size_t)t * half + j] = (float)cos(angle);
            sin_table[(size_t)t * half + j] = (float)sin(angle);
        }
    }
}

int hm_workspace_make(const struct hm_shape *shape, struct hm_workspace **ret_workspace,
                      struct hm_error *err)
{
    struct hm_workspace *workspace = hm_calloc(HM_MEM_SCRATCH, 1, sizeof *workspace);

    if (!workspace)
        return hm_fail_nomem(err, "for a workspace");
    workspace->shape = *shape;
    hm_workspace_table(shape, workspace->buffer);
    workspace->seconds =
        hm_calloc(HM_MEM_SCRATCH, (size_t)shape->threads, sizeof(*workspace->seconds));
    bool whole = workspace->seconds != NULL;
    for (int i = 0; i < HM_BUF_COUNT && whole; i++) {
        struct hm_act *act = &workspace->buffer[i];
        act->data = hm_alloc(hm_buffer_tag((enum hm_buffer)i), (size_t)hm_act_bytes(act));
        whole = act->data != NULL;
    }
    if (!whole) {
        hm_workspace_free(workspace);
        return hm_fail_nomem(err,
                             "for activations of %u sequences of %u tokens; "
                             "a smaller micro-batch or sequence needs less",
                             shape->rows, shape->seq_len);
    }
    rope_tables(workspace);
    *ret_workspace = workspace;
    return HM_OK;
}

uint32_t hm_adapter_rank(const struct hm_adapter *adapter)
{
    uint32_t rank = 0;

    for (size_t i = 0; adapter && i < adapter->n_lora; i++)
        rank = adapter->lora[i].rank > rank ? adapter->lora[i].rank : rank;
    return rank;
}

int hm_shape_check(const struct hm_shape *shape, struct hm_error *err)
{
    if (shape->rows == 0 || shape->seq_len == 0)
        return hm_fail(err, HM_ERR_USAGE, "a micro-batch needs at least one sequence of one token");
    if ((uint64_t)shape->rows * shape->seq_len > INT32_MAX / 2 / shape->arch.top_k)
        return hm_fail(err, HM_ERR_NOFIT,
                       "%u sequences of %u tokens are too many for one micro-batch", shape->rows,
                       shape->seq_len);
    return HM_OK;
}

int hm_workspace_new(struct hm_model *model, uint32_t rows, uint32_t seq_len, bool backward,
                     bool recompute, struct hm_workspace **ret, struct hm_error *err)
{
    struct hm_shape shape = { .arch = model->ckpt.arch,
                              .rows = rows,
                              .seq_len = seq_len,
                              .context = seq_len,
                              .rank = hm_adapter_rank(model->adapter),
                              .threads = hm_threads(),
                              .backward = backward,
                              .recompute = recompute,
                              .packed = hm_model_packs(model->kernels, model->round) };

    HM_TRY(hm_shape_check(&shape, err));
    return hm_workspace_make(&shape, ret, err);
}

void hm_workspace_free(struct hm_workspace *workspace)
{
    if (!workspace)
        return;
    for (int i = 0; i < HM_BUF_COUNT; i++)
        hm_free(workspace->buffer[i].data);
    hm_free(workspace->seconds);
    hm_free(workspace);
}

float *hm_f32(const struct hm_workspace *workspace, enum hm_buffer buffer)
{
    const struct hm_act *act = &workspace->buffer[buffer];

    HM_BUG(act->dtype != HM_DTYPE_F32);
    return act->data;
}

uint16_t *hm_bf16(const struct hm_workspace *workspace, enum hm_buffer buffer)
{
    const struct hm_act *act = &workspace->buffer[buffer];

    HM_BUG(act->dtype != HM_DTYPE_BF16);
    return act->data;
}

float *hm_worker_panel(const struct hm_workspace *workspace, int worker)
{
    return hm_f32(workspace, HM_BUF_PANEL) + (size_t)worker * workspace->buffer[HM_BUF_PANEL].cols;
}

float *hm_worker_scratch(const struct hm_workspace *workspace, int worker)
{
    return hm_f32(workspace, HM_BUF_SCORE) + (size_t)worker * workspace->buffer[HM_BUF_SCORE].cols;
}

uint16_t *hm_worker_tile(const struct hm_workspace *workspace, int worker)
{
    return (uint16_t *)(hm_worker_scratch(workspace, worker) + TILE_SCORES);
}

int32_t *hm_i32(const struct hm_workspace *workspace, enum hm_buffer buffer)
{
    const struct hm_act *act = &workspace->buffer[buffer];

    HM_BUG(act->dtype != HM_DTYPE_I32);
    return act->data;
}

double *hm_f64(const struct hm_workspace *workspace, enum hm_buffer buffer)
{
    const struct hm_act *act = &workspace->buffer[buffer];

    HM_BUG(act->dtype != HM_DTYPE_F64);
    return act->data;
}
