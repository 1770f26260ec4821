/* SPDX-License-Identifier: MIT */
/*
 * What the files of model/ share: the open model, views of its weights as the passes see them, the
 * workspace, and one step's context. Order of the file: weights, workspace, step, then the
 * functions by source file. Nothing here is visible outside model/.
 *
 * Dimensions: B rows, T positions, N = B*T tokens, D hidden, F ffn, H heads, Hkv kv heads, C
 * head_dim, E experts, K top_k, V vocabulary, L layers, R rank.
 */
#ifndef HANMIX_MODEL_INTERNAL_H
#define HANMIX_MODEL_INTERNAL_H

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/model/model.h"

/* --- weights.c: the weights as one pass sees them --------------------------------------------- */

struct hm_linear { /* y = x W^T + scale * (dropout(x) A^T) B^T */
    const struct hm_weight *weight;
    const float *dense; /* [rows][cols] f32 in place: trained in full or stored so; NULL: decode */
    struct hm_param *full; /* trained matrix: all rows, or the rows from first_row on; or NULL */
    struct hm_param *a;    /* [R][cols], NULL without LoRA */
    struct hm_param *b;    /* [rows][R] */
    float scale;
    uint32_t rank;           /* 0 without LoRA */
    enum hm_round round;     /* of decoded values: the model's for 4-bit, else none */
    struct hm_frozen frozen; /* its first frozen.rows rows, for products in bf16; 0: decode them */
    uint32_t rows, cols;     /* out, in */
    uint64_t module;         /* slot index: the module of the dropout key */
};

struct hm_norm {
    const float *w;        /* [D] */
    struct hm_param *full; /* or NULL */
};

struct hm_layer_view {
    struct hm_norm input_norm, post_norm;
    struct hm_linear q, k, v, o;
    struct hm_linear gate; /* rows 0 in dense models */
};

struct hm_expert_view {
    struct hm_linear w1, w2, w3;
};

enum hm_pass { HM_PASS_FORWARD, HM_PASS_BACKWARD };

struct hm_weights {
    struct hm_weight **weight; /* [n_slots] by hm_arch_slot */
    size_t n_slots;
    uint32_t *index; /* slot of (layer, kind) and (layer, expert, kind); see weights.c */
    float *norms;    /* [n_slots of norms][D], decoded once */
    uint32_t *norm_of_slot;
    enum hm_pass pass;
    int64_t layer; /* next to be acquired in this pass */
    bool layer_held;
    int64_t expert;           /* last acquired of the layer */
    struct hm_stream *stream; /* NULL: no limit; see weight_stream.h */
};

struct hm_step;

struct hm_model {
    struct hm_checkpoint ckpt;
    const struct hm_kernels *kernels; /* borrowed */
    enum hm_round round;
    struct hm_weights weights;
    struct hm_adapter *adapter; /* borrowed; NULL: frozen */
    uint64_t *expert_counts;    /* [L][E] */
};

int hm_weights_open(struct hm_model *model, bool check_finite, struct hm_error *err);
void hm_weights_release(struct hm_weights *weights);

/*
 * The door to layers and experts. A pass visits layers in order (forward 0..L-1, backward L-1..0);
 * within a layer its experts ascend, each once per round. The order is known at begin, with the
 * direction of the `next` pass, so that weights can be read ahead; it is checked.
 */
void hm_weights_pass_begin(const struct hm_step *step, enum hm_pass pass, enum hm_pass next);
void hm_layer_acquire(struct hm_model *model, uint32_t layer, struct hm_layer_view *ret_view);
void hm_layer_release(struct hm_model *model, uint32_t layer);
void hm_expert_acquire(struct hm_model *model, uint32_t layer, uint32_t expert,
                       struct hm_expert_view *ret_view);
void hm_expert_release(struct hm_model *model, uint32_t layer, uint32_t expert);
/* The head belongs to the end of a forward pass. */
void hm_head_acquire(struct hm_model *model);
void hm_head_release(struct hm_model *model);
/* What went wrong in reading ahead; to be asked before a result is given out. */
int hm_weights_check(const struct hm_model *model, struct hm_error *err);
/* Views of the ends are good for the life of the model. */
void hm_embed_view(const struct hm_model *model, struct hm_linear *ret_view); /* rows V, cols D */
/* the embedding when tied */
void hm_head_view(const struct hm_model *model, struct hm_linear *ret_view);
void hm_final_norm_view(const struct hm_model *model, struct hm_norm *ret_view);

/* --- workspace.c: every buffer of a step, from one table -------------------------------------- */

#define HM_ROW_BLOCK 128u /* rows of activations in one unit of a row-wise loop */
#define HM_PANEL_ROWS \
    256u /* a decoded panel holds at most HM_PANEL_ROWS * HM_PANEL_COLS weights: it stays in L2 */
#define HM_PANEL_COLS   512u
#define HM_PROMPT_BLOCK 1024u /* tokens of a prompt that are run at once */
#define HM_LOW_SUM_MOST 16u   /* ranks up to which u and v of experts are summed by cuts of F */
#define HM_Q_TILE       128u  /* queries and keys of an attention tile */
#define HM_K_TILE       128u

struct hm_shape {        /* what decides the size of a workspace */
    struct hm_arch arch; /* numbers only; nothing owned */
    uint32_t rows;       /* B */
    uint32_t seq_len;    /* T: queries of a sequence */
    uint32_t context;    /* keys of a sequence: T, or the length of a key/value cache */
    uint32_t rank;       /* largest LoRA rank, 0 without */
    int threads;
    bool backward, recompute;
    bool packed; /* products with frozen weights in bf16, see hm_model_packs */
};

/* S: sets of saved activations (L, or 1 when layers are recomputed); W: workers; X: rows of one
 * round of experts. */
enum hm_buffer {
    HM_BUF_INPUT,     /* [L+1 or 1][N][D] layer inputs */
    HM_BUF_MID,       /* [S][N][D] residual after attention; without backward: the input itself */
    HM_BUF_H,         /* [N][D] norm output */
    HM_BUF_RHO,       /* [2S+1][N] of both norms, and of the final one */
    HM_BUF_Q,         /* [S][N][H*C] after rope */
    HM_BUF_K,         /* [S][N][Hkv*C] */
    HM_BUF_V,         /* [S][N][Hkv*C] */
    HM_BUF_ATTN,      /* [S][N][H*C] */
    HM_BUF_LSE,       /* [S][H][N] */
    HM_BUF_GATE,      /* [N][E] router logits */
    HM_BUF_PROB,      /* [L or 1][N][E] */
    HM_BUF_ROUTE_ID,  /* [L or 1][N][K] */
    HM_BUF_ROUTE_W,   /* [L or 1][N][K] */
    HM_BUF_ROW_TOKEN, /* [N*K] token of a row, rows sorted by expert */
    HM_BUF_ROW_SLOT,  /* [N*K] the same row as token * K + k */
    HM_BUF_TOKEN_ROW, /* [N][K] row of a token's k-th expert */
    HM_BUF_EXPERT,    /* [E+1] first row of an expert */
    HM_BUF_XG,        /* [X][D] gathered inputs (dense: none, the input itself) */
    HM_BUF_YG,        /* [X][D] outputs of experts, or gathered output gradients */
    HM_BUF_A1,        /* [S or 1][X][F] */
    HM_BUF_A3,        /* [S or 1][X][F] */
    HM_BUF_M,         /* [X][F] silu(a1) * a3 */
    HM_BUF_DXG,       /* [X][D] */
    HM_BUF_LOW,       /* [S * linears + 1][rows][R] LoRA: x A^T of each, and of the head; rows:
                         max(N, X), and where packed those of every expert padded */
    HM_BUF_LOW_DY,    /* [3][rows][R] LoRA: dy B of up to three linears */
    HM_BUF_LOW_SUMS,  /* [cuts of F][2][rows][R]: parts of u of w2, of v of w1 and w3 */
    HM_BUF_GAMMA,     /* [N*K] <dy, expert output> times the routing weight */
    HM_BUF_GAMMA_CUT, /* [cuts of F][X] its parts */
    HM_BUF_PACK_X,    /* bf16: input of a fan, of every expert */
    HM_BUF_PACK_M,    /* bf16: m of every expert, or the gradients of a1 and a3 */
    HM_BUF_PACK_DY,   /* bf16: gradients of a fan's outputs */
    HM_BUF_KEYS,      /* bf16: [2][Hkv][B*context][C] keys, values of a layer */
    HM_BUF_DX,        /* [N][D] gradient of the residual stream */
    HM_BUF_DH,        /* [N][D] */
    HM_BUF_DQ,        /* [N][H*C] */
    HM_BUF_DK,        /* [N][Hkv*C] */
    HM_BUF_DV,        /* [N][Hkv*C] */
    HM_BUF_DATTN,     /* [N][H*C] */
    HM_BUF_DELTA,     /* [H][N] <dattn, attn> */
    HM_BUF_AUX,       /* [2][E] f64 counts and probability sums of the auxiliary loss */
    HM_BUF_LOGITS,    /* [head rows][V] */
    HM_BUF_LOSS,      /* [N] f64 */
    HM_BUF_TARGET,    /* [N] */
    HM_BUF_WEIGHT,    /* [N] loss weight of a row */
    HM_BUF_ROPE,      /* [2][context][C/2] cos, sin */
    HM_BUF_POS,       /* [N] position of a query */
    HM_BUF_FIRST_KEY, /* [N] first key a query may see */
    HM_BUF_TILE,      /* [B*context][2] first key and end of a key tile */
    HM_BUF_TILE_OF,   /* [B+1] first tile of a sequence */
    HM_BUF_JOBS,      /* [E] struct hm_expert_job */
    HM_BUF_UNITS,     /* [units][units of struct hm_unit] */
    HM_BUF_PANEL,     /* [W][panel] decoded weights, scratch of products in bf16 */
    HM_BUF_SCORE,     /* [W][attention tiles, dropout rows] */
    HM_BUF_DM,        /* [W][X][cut of F] */
    HM_BUF_COUNT
};

struct hm_unit { /* one entry of a schedule over experts: what, of which expert, which block or cut
                  */
    int32_t op, job, index;
};

struct hm_act { /* an activation buffer; the tag is checked at every access */
    void *data;
    enum hm_dtype dtype;
    uint64_t rows, cols;
};

struct hm_workspace {
    struct hm_shape shape;
    struct hm_act buffer[HM_BUF_COUNT];
    double (*seconds)[HM_PHASE_COUNT]; /* [threads], a cache line each */
};

/* dtype, rows and cols of every buffer; data stays NULL. The only place that knows sizes. */
void hm_workspace_table(const struct hm_shape *shape, struct hm_act table[HM_BUF_COUNT]);
int hm_shape_check(const struct hm_shape *shape, struct hm_error *err);
/* Rows of the workspace that runs a prompt and then single tokens, whose experts want a row each.
 */
static inline uint32_t hm_prompt_rows(size_t n_prompt)
{
    return n_prompt < 16 ? 16 : (uint32_t)hm_least(n_prompt, HM_PROMPT_BLOCK);
}
uint64_t hm_act_bytes(const struct hm_act *act);
enum hm_mem_tag hm_buffer_tag(enum hm_buffer buffer);
int hm_workspace_make(const struct hm_shape *shape, struct hm_workspace **ret_workspace,
                      struct hm_error *err);
uint32_t hm_adapter_rank(const struct hm_adapter *adapter); /* largest of its LoRA ranks; NULL: 0 */
/* row 0; checks the tag */
float *hm_f32(const struct hm_workspace *workspace, enum hm_buffer buffer);
int32_t *hm_i32(const struct hm_workspace *workspace, enum hm_buffer buffer);
double *hm_f64(const struct hm_workspace *workspace, enum hm_buffer buffer);
uint16_t *hm_bf16(const struct hm_workspace *workspace, enum hm_buffer buffer);
/* A worker's own row of HM_BUF_PANEL, on a cache line. */
float *hm_worker_panel(const struct hm_workspace *workspace, int worker);
/* Room behind a worker's scores for operands of tiles in bf16: attention_tile.c. */
uint16_t *hm_worker_tile(const struct hm_workspace *workspace, int worker);
/* A worker's own row of HM_BUF_SCORE: scores of attention, masked rows of a linear with dropout. */
float *hm_worker_scratch(const struct hm_workspace *workspace, int worker);

/* Fixed cuts, by shape alone: units of output rows and of input columns (multiples of 64). */
uint32_t hm_cut(uint32_t width);
uint32_t hm_head_rows(const struct hm_arch *arch, size_t tokens); /* rows of logits held at once */
size_t hm_expert_round_rows(const struct hm_shape *shape);        /* X */
/* Values of one of the two halves of a row of HM_BUF_LOW_SUMS; 0: ranks are too many. */
size_t hm_low_sums_half(const struct hm_shape *shape);

/* --- one step --------------------------------------------------------------------------------- */

struct hm_step {
    struct hm_model *model;
    struct hm_workspace *ws;
    const struct hm_kernels *kernels;
    const struct hm_arch *arch;
    const struct hm_batch *batch;
    const struct hm_step_options *options;
    uint32_t B, T, N;
    uint32_t context;  /* keys of a sequence */
    double dropout;    /* active probability, 0 in evaluation */
    bool head;         /* time goes to HM_PHASE_HEAD */
    double *aux_count; /* [E] tokens per expert over all layers; NULL: no auxiliary loss */
    double *aux_prob;  /* [E] sum of probabilities */
    double aux_rows;   /* rows that count, all layers */
};

/* One timer per unit part: adds the seconds since *mark to a phase of this worker and moves the
 * mark. */
void hm_step_lap(const struct hm_step *step, int worker, enum hm_phase phase, double *mark);

/* --- linear.c: frozen weight plus low-rank delta, forward and backward ------------------------ */

struct hm_branch { /* one linear of a fan */
    struct hm_linear w;
    float *y; /* [n][rows]: output, or its gradient */
    float *u; /* [n][R] dropout(x) A^T; kept from the forward pass to the backward pass. Where W is
                 frozen and nothing is dropped: values of struct hm_low_rank, times scale */
    float *v; /* [n][R] scale * dy B; likewise */
    float *u_sums, *v_sums; /* parts of u or v by cuts of the inner dimension, sums_stride apart;
                               NULL: they are computed in one piece */
    size_t sums_stride;
    uint16_t *packed_dy; /* y as a gradient [n][frozen.rows], packed; only when w is frozen */
};

struct hm_fan {           /* linears that read the same input */
    size_t n;             /* rows of x */
    const float *x;       /* [n][cols] */
    uint16_t *packed_x;   /* [n][cols]; only when some branch is frozen */
    float *dx;            /* [n][cols] */
    const int32_t *token; /* token of a row, for the dropout key; NULL: the row itself */
    struct hm_branch branch[3];
    unsigned n_branches;
    bool u_lost; /* u was written over since the forward pass: backward begins with it */
    bool x_lost; /* packed_x no longer holds x */
    bool add_y;  /* y += instead of y = */
    bool add_dx;
};

/* Linears of a layer that may be adapted, and the head. */
enum hm_low {
    HM_LOW_Q,
    HM_LOW_K,
    HM_LOW_V,
    HM_LOW_O,
    HM_LOW_GATE,
    HM_LOW_W1,
    HM_LOW_W3,
    HM_LOW_W2,
    HM_LOW_LAYER,
    HM_LOW_HEAD = HM_LOW_LAYER
};
/* A linear of this layer (0 for the head) whose rows begin at `row` of the low-rank buffers. */
struct hm_branch hm_branch_make(const struct hm_step *step, const struct hm_linear *w, float *y,
                                uint32_t layer, enum hm_low low, size_t row);
/* Set of saved activations that a layer writes to. */
size_t hm_set_of(const struct hm_step *step, uint32_t layer);
/* [cols] */
void hm_linear_row(const struct hm_step *step, const struct hm_linear *w, uint32_t row, float *out);

bool hm_fan_frozen(const struct hm_fan *fan); /* some branch multiplies in bf16 */

/* Units: they open no parallel region. `block` is a HM_ROW_BLOCK of rows, `cut` a hm_cut of rows or
 * columns of W. */
/* u */
void hm_fan_down(const struct hm_step *step, const struct hm_fan *fan, unsigned branch,
                 size_t block, int worker);
/* packed_x */
void hm_fan_pack(const struct hm_step *step, const struct hm_fan *fan, size_t block, int worker);
/* packed_dy */
void hm_fan_pack_gradient(const struct hm_step *step, const struct hm_fan *fan, unsigned branch,
                          size_t block, int worker);
/* y */
void hm_fan_product(const struct hm_step *step, const struct hm_fan *fan, unsigned branch,
                    size_t cut, int worker);
/* B and dB of a cut are wanted soon. */
void hm_fan_fetch(const struct hm_fan *fan, unsigned branch, size_t cut);
/* What a cut of the inner dimension, packed and still in the cache, adds to u or v; nothing where
 * they are computed in one piece. */
void hm_fan_low_sums(const struct hm_step *step, const struct hm_fan *fan, unsigned branch,
                     enum hm_pack side, size_t cut, int worker);
/* v */
void hm_fan_up_gradient(const struct hm_step *step, const struct hm_fan *fan, unsigned branch,
                        size_t block, int worker);
/* dx points at the first column of the cut, rows ld_dx apart. */
void hm_fan_input_gradient(const struct hm_step *step, const struct hm_fan *fan, size_t cut,
                           float *dx, size_t ld_dx, int worker);
/* dA of all branches */
void hm_fan_a_gradients(const struct hm_step *step, const struct hm_fan *fan, size_t cut,
                        int worker);
/* dB, dW */
void hm_fan_weight_gradient(const struct hm_step *step, const struct hm_fan *fan, unsigned branch,
                            size_t cut, int worker);

/* low_rank.c: whether u and v are bf16 values that join products with W; where they lie. */
bool hm_low_packed(const struct hm_step *step, const struct hm_linear *w);
uint16_t *hm_low_of(float *value);
/* dx += dropout(v A) of one branch in f32, columns from col0 */
void hm_low_input_gradient(const struct hm_step *step, const struct hm_fan *fan,
                           const struct hm_branch *branch, uint32_t col0, uint32_t n_cols,
                           float *dx, size_t ld_dx, int worker);

/* Whole fans, as parallel loops: for everything outside experts. */
void hm_fan_forward(const struct hm_step *step, const struct hm_fan *fan);
void hm_fan_backward(const struct hm_step *step, const struct hm_fan *fan);

/* dropout.c: out = in * mask / (1 - p) for rows of one module; in may be out. */
void hm_dropout(const struct hm_step *step, const struct hm_fan *fan, uint64_t module, size_t row0,
                size_t n_rows, uint32_t col0, uint32_t n_cols, const float *in, size_t ld_in,
                float *out, size_t ld_out);

/* --- attention_tile.c: products of attention tiles -------------------------------------------- */

struct hm_tile_side { /* keys or values of a layer */
    const float *f32; /* [B*context][Hkv*C] */
    uint16_t *bf16;   /* [Hkv][B*context][C], or NULL: products in f32 */
};
struct hm_tile_sides {
    struct hm_tile_side key, value;
};
struct hm_key_tile {
    size_t kv_head, key0, n; /* rows key0..key0+n of the batch's keys */
};

enum hm_query_slot { HM_SLOT_QUERIES, HM_SLOT_GRADIENTS, HM_SLOTS };
struct hm_query_side { /* queries of one head, or gradients of their outputs */
    const float *f32;  /* [n] rows ldq apart */
    uint16_t *packed;  /* as a left operand [n][C], or NULL: products in f32 */
    uint16_t *bf16;    /* [n][C] */
    size_t n, ldq;
};

/* bf16 values of a worker's room for tiles: hm_worker_tile. */
size_t hm_tile_room(uint32_t head_dim);
/* Whether tiles of this shape may be multiplied in bf16. */
bool hm_shape_tiles_packed(const struct hm_shape *shape);
/* Rounds keys and values where products are to be in bf16: a parallel loop. */
struct hm_tile_sides hm_tile_sides(const struct hm_step *step, const float *keys,
                                   const float *values);
/* Units; scores [n_q][n_k] are HM_K_TILE apart. */
/* Rounds n rows where products are in bf16, into this worker's room of the slot; `gathered`: for
   hm_tile_gather, too. */
struct hm_query_side hm_tile_queries(const struct hm_step *step, const struct hm_tile_sides *sides,
                                     enum hm_query_slot slot, bool gathered, const float *x,
                                     size_t n, size_t ldq, int worker);
/* out = x side^T */
void hm_tile_score(const struct hm_step *step, const struct hm_tile_side *side,
                   const struct hm_key_tile *tile, const struct hm_query_side *x, float *out,
                   int worker);
/* out[n_k] += score^T x, rows Hkv*C apart */
void hm_tile_gather(const struct hm_step *step, const struct hm_key_tile *tile, const float *score,
                    const struct hm_query_side *x, float *out, int worker);
/* out += score side; rows ldq apart */
void hm_tile_apply(const struct hm_step *step, const struct hm_tile_side *side,
                   const struct hm_key_tile *tile, const float *score, size_t n_q, float *out,
                   size_t ldq, int worker);

/* --- attention.c: softmax(q k^T / sqrt(C)) v over tiles, no T x T matrix ---------------------- */

struct hm_attention { /* one layer; q rows follow each other by sequence, k and v likewise with
                         `context` rows each */
    const float *q, *k, *v; /* [N][H*C], [B*context][Hkv*C] twice */
    float *out;             /* [N][H*C] */
    float *lse;        /* [H][N] log-sum-exp of the scaled scores; -inf where nothing is seen */
    const float *dout; /* [N][H*C] */
    float *delta;      /* [H][N] */
    float *dq, *dk, *dv;
};

/* Positions, first visible keys, key tiles (they never cross a padded key) and rope tables of this
   batch. first_pos: of the first query of each sequence; keys: how many there are by now in each
   sequence. */
void hm_attention_prepare(const struct hm_step *step, uint32_t first_pos, uint32_t keys);
void hm_attention_forward(const struct hm_step *step, const struct hm_attention *attention);
void hm_attention_backward(const struct hm_step *step, const struct hm_attention *attention);
/* [N][heads*C] in place */
void hm_rope_rows(const struct hm_step *step, float *x, uint32_t heads, float sign);

/* --- router.c --------------------------------------------------------------------------------- */

struct hm_routing { /* of one layer; views into the workspace */
    float *prob;    /* [N][E] */
    int32_t *id;    /* [N][K] */
    float *weight;  /* [N][K] */
};

struct hm_routing hm_routing_of(const struct hm_step *step, uint32_t layer);
/* Gate product, softmax, top-k; counts tokens per expert; adds to the auxiliary sums. Dense models:
 * weight 1 of expert 0. */
void hm_router_forward(struct hm_step *step, uint32_t layer, const struct hm_layer_view *view,
                       const float *h);
double hm_router_aux(const struct hm_step *step);
/* dh += through the gate, from gamma [N*K] = weight * <dy, output of the k-th expert> and the
 * auxiliary loss. */
void hm_router_backward(const struct hm_step *step, uint32_t layer,
                        const struct hm_layer_view *view, const float *h, const float *gamma,
                        float *dh);

/* --- moe.c: the schedule over experts; expert.c: what its units compute ----------------------- */

struct hm_expert_job { /* one expert with tokens in this round */
    struct hm_fan in; /* w1, w3: x -> a1, a3; in the backward pass y holds their gradients and dx is
                         written */
    struct hm_fan out; /* w2: m -> y; in the backward pass y is the gradient of the output */
    size_t row0;       /* its first row, all rounds counted */
    size_t round_row;  /* and within the round */
    uint32_t expert;
};

struct hm_moe { /* one layer's experts in one pass */
    const struct hm_step *step;
    struct hm_routing routing;
    const float *h; /* [N][D] */
    float *out;     /* [N][D] forward: added to; backward: its gradient, read */
    float *dh;      /* [N][D] backward */
    float *gamma;   /* [N*K] backward, see HM_BUF_GAMMA */
    struct hm_expert_job *job;
    size_t n_jobs;
    size_t row0, rows; /* of this round */
    bool routed;       /* more than one expert: rows are gathered */
};

/* Rows of one expert: block of HM_ROW_BLOCK. Gathering goes on to pack the rows and to their down
 * products. */
void hm_expert_gather(const struct hm_moe *moe, const struct hm_expert_job *job, size_t block,
                      int worker);
void hm_expert_gather_gradient(const struct hm_moe *moe, const struct hm_expert_job *job,
                               size_t block, int worker);
void hm_expert_low_gradient(const struct hm_moe *moe, const struct hm_expert_job *job, size_t block,
                            int worker);
/* Tokens of the micro-batch: block of HM_ROW_BLOCK. */
void hm_expert_combine(const struct hm_moe *moe, size_t block, int worker);
void hm_expert_scatter(const struct hm_moe *moe, size_t block, int worker);
/* Cuts of F of one expert: a1, a3 and m. */
void hm_expert_inner(const struct hm_moe *moe, const struct hm_expert_job *job, size_t cut,
                     int worker);
void hm_expert_inner_gradient(const struct hm_moe *moe, const struct hm_expert_job *job, size_t cut,
                              int worker);

/* out += sum over a token's experts of weight * FFN(h). */
void hm_moe_forward(const struct hm_step *step, uint32_t layer, const float *h, float *out);
/* dh = gradient of dout through the experts; gamma [N*K]; adapter gradients. */
void hm_moe_backward(const struct hm_step *step, uint32_t layer, const float *h, float *dout,
                     float *dh, float *gamma);

/* --- block.c: one layer, both ways; norm rows ------------------------------------------------- */

struct hm_block_state { /* what one layer keeps; views into the workspace */
    float *x;           /* [N][D] layer input */
    float *mid;         /* [N][D] after attention; without backward the same as x */
    float *rho1, *rho2; /* [N] */
    float *q, *k, *v, *attn, *lse;
    /* what attention reads: k and v, or the cache that they were written into */
    const float *keys, *values;
};

struct hm_block_state hm_block_state(const struct hm_step *step, uint32_t layer);
/* out [N][D] may be state->mid. */
void hm_block_forward(struct hm_step *step, uint32_t layer, const struct hm_block_state *state,
                      float *out);
/* dx [N][D]: gradient of the output on entry, of the input on return. */
void hm_block_backward(const struct hm_step *step, uint32_t layer,
                       const struct hm_block_state *state, float *dx);

void hm_norm_rows(const struct hm_step *step, const struct hm_norm *norm, const float *x, float *y,
                  float *rho);
/* dx += */
void hm_norm_backward(const struct hm_step *step, const struct hm_norm *norm, const float *x,
                      const float *rho, const float *dy, float *dx);

/* --- embed.c, loss.c, forward.c, backward.c --------------------------------------------------- */

void hm_embed_forward(const struct hm_step *step, float *x);
void hm_embed_backward(const struct hm_step *step, const float *dx);

/* Logits of h [N][D] in chunks, loss into the result; with dh also dh [N][D] and the gradient of
 * the head. */
int hm_loss(struct hm_step *step, const float *h, float *dh, struct hm_step_result *result,
            struct hm_error *err);

/* A step over this workspace and batch; checked by hm_model_step, trusted here. */
void hm_step_init(struct hm_model *model, struct hm_workspace *workspace,
                  const struct hm_batch *batch, const struct hm_step_options *options,
                  struct hm_step *ret_step);
/* dx [N][D]: gradient of the last block's output; down to the embedding. */
void hm_backward(struct hm_step *step, float *dx);

#endif
