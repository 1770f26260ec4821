/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/weight.c and weight_bind.c: decoding under every cut, fused experts against single
 * ones, all quant_storage types, rounding, finiteness, and 4-bit tensors that do not fit together.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/checkpoint/weight.h"
#include "hanmix/kernels/map8.h"

enum { D = 96, F = 40, E = 3 }; /* rows of 96: blocks of 64 cross rows */

static char *dir;
static struct hm_kernels kernels;
static float values[E * 2 * F * D];

static int setup(void **state)
{
    struct hm_rng_key key = { .seed = 11 };

    (void)state;
    dir = tmp_new();
    hm_kernels_reference(&kernels);
    for (uint64_t i = 0; i < E * 2 * F * D; i++)
        values[i] = ((float)hm_rng_below(key, i, 20001) - 10000.0f) / 7000.0f;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tmp_release(dir);
    return 0;
}

static void put_config(const char *family, const char *type)
{
    char text[1024];

    snprintf(text, sizeof text,
             "{\"architectures\": [\"%s\"], \"model_type\": \"%s\", \"hidden_size\": %d,"
             " \"intermediate_size\": %d, \"num_hidden_layers\": 1, \"num_attention_heads\": 2,"
             " \"num_key_value_heads\": 2, \"vocab_size\": %d, \"max_position_embeddings\": 8,"
             " \"rms_norm_eps\": 1e-5, \"num_local_experts\": %d, \"num_experts_per_tok\": 2,"
             " \"router_aux_loss_coef\": 0.0}",
             family, type, D, F, F, E);
    file_put(tmp_path(dir, "config.json"), text, strlen(text));
}

struct parts { /* what a folder is written from; a NULL name ends the list */
    struct hm_tensor tensor[16];
    size_t count;
};

static struct hm_tensor *add(struct parts *parts, const char *name, enum hm_dtype dtype,
                             uint64_t rows, uint64_t cols, const void *data)
{
    struct hm_tensor *tensor = &parts->tensor[parts->count++];

    *tensor = (struct hm_tensor){
        .name = name, .dtype = dtype, .n_dims = cols ? 2 : 1, .shape = { rows, cols }, .data = data
    };
    return tensor;
}

static void open_folder(const struct parts *parts, struct hm_checkpoint *ckpt)
{
    struct hm_error err = { 0 };

    assert_ok(hm_safetensors_write(tmp_path(dir, "model.safetensors"), parts->tensor, parts->count,
                                   NULL, &err),
              err);
    assert_ok(hm_checkpoint_open(dir, ckpt, &err), err);
}

static const struct hm_weight_slot head = { .kind = HM_WEIGHT_HEAD, .rows = F, .cols = D };

struct quantised { /* one F x D matrix in NF4 */
    uint8_t codes[F * D / 2];
    float absmax[F * D / 64];
    float map[256];
    struct hm_nf4_nested nested;
    struct hm_buf text;
    float decoded[F * D]; /* by the formula */
};

static void quantise(struct quantised *q, bool nested)
{
    struct hm_error err = { 0 };

    *q = (struct quantised){ 0 };
    kernels.nf4_encode(values, F * D, 64, q->codes, q->absmax);
    hm_dynamic_map(true, q->map);
    assert_ok(hm_nf4_nest(q->absmax, F * D / 64, &q->nested, &err), err);
    assert_ok(hm_nf4_state_json(64, HM_DTYPE_BF16, F, D, nested ? &q->nested.offset : NULL,
                                &q->text, &err),
              err);
    for (size_t i = 0; i < F * D; i++) {
        unsigned code = i % 2 ? q->codes[i / 2] & 15 : q->codes[i / 2] >> 4;
        float scale = q->absmax[i / 64];
        if (nested) {
            float product = q->map[q->nested.code[i / 64]] * q->nested.nested_absmax[i / 64 / 256];
            scale = product + q->nested.offset;
        }
        q->decoded[i] = hm_nf4_code[code] * scale;
    }
}

static void quantised_release(struct quantised *q)
{
    hm_nf4_nested_release(&q->nested);
    hm_buf_release(&q->text);
}

/* The tensors of lm_head, codes shown as `storage`. */
static void add_quantised(struct parts *parts, const struct quantised *q, bool nested,
                          enum hm_dtype storage)
{
    add(parts, "lm_head.weight", storage, sizeof q->codes / hm_dtype_bytes(storage), 1, q->codes);
    add(parts, "lm_head.weight.quant_state.bitsandbytes__nf4", HM_DTYPE_U8, q->text.len, 0,
        q->text.ptr);
    add(parts, "lm_head.weight.quant_map", HM_DTYPE_F32, 16, 0, hm_nf4_code);
    if (nested) {
        add(parts, "lm_head.weight.absmax", HM_DTYPE_U8, F * D / 64, 0, q->nested.code);
        add(parts, "lm_head.weight.nested_absmax", HM_DTYPE_F32, 1, 0, q->nested.nested_absmax);
        add(parts, "lm_head.weight.nested_quant_map", HM_DTYPE_F32, 256, 0, q->map);
    } else {
        add(parts, "lm_head.weight.absmax", HM_DTYPE_F32, F * D / 64, 0, q->absmax);
    }
}

/* Whole, by rows, by odd rectangles with a wider stride: always the same elements. */
static void check_cuts(const struct hm_weight *weight, const float *expected)
{
    static const uint32_t cut[][4] = {
        { 0, F, 0, D },   { 0, 1, 0, D }, { 7, 5, 0, D }, { 3, 9, 1, 70 },  { F - 1, 1, D - 1, 1 },
        { 2, 4, 64, 32 }, { 5, 0, 0, D }, { 5, 3, 9, 0 }, { 0, 3, 60, 10 }, { 9, 4, 30, 8 },
    };
    float out[F * (D + 3)];

    assert_int_equal(hm_weight_rows(weight), F);
    assert_int_equal(hm_weight_cols(weight), D);
    for (size_t c = 0; c < sizeof cut / sizeof cut[0]; c++) {
        for (int round = 0; round < 2; round++) {
            size_t ld = cut[c][3] + (c % 2 ? 3 : 0);
            for (size_t i = 0; i < F * (D + 3); i++)
                out[i] = NAN;
            hm_weight_decode(weight, &kernels, cut[c][0], cut[c][1], cut[c][2], cut[c][3],
                             round ? HM_ROUND_BF16 : HM_ROUND_NONE, out, ld);
            for (size_t i = 0; i < cut[c][1]; i++)
                for (size_t j = 0; j < cut[c][3]; j++) {
                    float want = expected[(cut[c][0] + i) * D + cut[c][2] + j];
                    assert_true(out[i * ld + j] == (round ? hm_round_bf16(want) : want));
                }
            assert_true(isnan(out[cut[c][1] ? (cut[c][1] - 1) * ld + cut[c][3] : 0]));
        }
    }
}

static void test_nf4(void **state)
{
    static const enum hm_dtype storage[] = { HM_DTYPE_U8, HM_DTYPE_BF16, HM_DTYPE_F16, HM_DTYPE_F32,
                                             HM_DTYPE_F64 };
    struct hm_error err = { 0 };

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    for (int nested = 0; nested < 2; nested++) {
        struct quantised q;
        quantise(&q, nested);
        for (size_t i = 0; i < 5; i++) {
            struct parts parts = { 0 };
            struct hm_checkpoint ckpt = { 0 };
            struct hm_weight *weight = NULL;
            add_quantised(&parts, &q, nested, storage[i]);
            open_folder(&parts, &ckpt);
            assert_ok(hm_weight_open(&ckpt, &head, &weight, &err), err);
            assert_true(hm_weight_is_nf4(weight) && hm_weight_is_finite(weight));
            assert_int_equal(hm_weight_dtype(weight), HM_DTYPE_BF16);
            assert_null(hm_weight_f32_view(weight));
            uint64_t scales = nested ? F * D / 64 + 4 + 1024 : F * D / 64 * 4;
            assert_int_equal(hm_weight_stored_bytes(weight), F * D / 2 + q.text.len + 64 + scales);
            check_cuts(weight, q.decoded);
            hm_weight_drop_pages(weight);
            check_cuts(weight, q.decoded);
            hm_weight_free(weight);
            hm_checkpoint_close(&ckpt);
        }
        quantised_release(&q);
    }
}

/* A matrix of more blocks than scales are decoded at once. */
static void test_nf4_long(void **state)
{
    struct hm_weight_slot slot = { .kind = HM_WEIGHT_HEAD, .rows = 1, .cols = E * 2 * F * D };
    enum { N = E * 2 * F * D };
    static uint8_t codes[N / 2];
    static float absmax[N / 32], out[N];
    struct hm_checkpoint ckpt = { 0 };
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };
    struct hm_buf text = { 0 };
    struct parts parts = { 0 };

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    kernels.nf4_encode(values, N, 32, codes, absmax);
    assert_ok(hm_nf4_state_json(32, HM_DTYPE_F32, 1, N, NULL, &text, &err), err);
    add(&parts, "lm_head.weight", HM_DTYPE_U8, N / 2, 1, codes);
    add(&parts, "lm_head.weight.absmax", HM_DTYPE_F32, N / 32, 0, absmax);
    add(&parts, "lm_head.weight.quant_map", HM_DTYPE_F32, 16, 0, hm_nf4_code);
    add(&parts, "lm_head.weight.quant_state.bitsandbytes__nf4", HM_DTYPE_U8, text.len, 0, text.ptr);
    open_folder(&parts, &ckpt);
    assert_ok(hm_weight_open(&ckpt, &slot, &weight, &err), err);
    for (uint32_t first = 0; first < 70; first += 23) {
        hm_weight_decode(weight, &kernels, 0, 1, first, N - first, HM_ROUND_NONE, out, N);
        for (size_t i = 0; i < N - first; i++) {
            size_t at = first + i;
            unsigned code = at % 2 ? codes[at / 2] & 15 : codes[at / 2] >> 4;
            assert_true(out[i] == hm_nf4_code[code] * absmax[at / 32]);
        }
    }
    hm_weight_free(weight);
    hm_checkpoint_close(&ckpt);
    hm_buf_release(&text);
}

/* lm_head.weight at an odd address: a byte tensor lies before it. */
static void open_unaligned(enum hm_dtype dtype, const void *stored, struct hm_checkpoint *ckpt)
{
    size_t size = F * D * hm_dtype_bytes(dtype);
    static uint8_t bytes[8 + 256 + 1 + F * D * 4] = { 0, 1 }; /* header of 256 bytes */
    struct hm_error err = { 0 };
    int len = snprintf((char *)bytes + 8, 256,
                       "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                       "\"lm_head.weight\":{\"dtype\":\"%s\",\"shape\":[%d,%d],"
                       "\"data_offsets\":[1,%zu]}}",
                       hm_dtype_name(dtype), F, D, size + 1);

    memset(bytes + 8 + len, ' ', 256 - (size_t)len);
    memcpy(bytes + 8 + 256 + 1, stored, size);
    file_put(tmp_path(dir, "model.safetensors"), bytes, 8 + 256 + 1 + size);
    assert_ok(hm_checkpoint_open(dir, ckpt, &err), err);
}

static void test_dense(void **state)
{
    static const enum hm_dtype dtypes[] = { HM_DTYPE_F32, HM_DTYPE_F16, HM_DTYPE_BF16 };
    static uint8_t stored[F * D * 4];
    static float expected[F * D];
    struct hm_error err = { 0 };

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    for (size_t i = 0; i < 6; i++) {
        enum hm_dtype dtype = dtypes[i % 3];
        struct parts parts = { 0 };
        struct hm_checkpoint ckpt = { 0 };
        struct hm_weight *weight = NULL;
        assert_ok(hm_dtype_from_f32(dtype, values, F * D, stored, &err), err);
        assert_ok(hm_dtype_to_f32(dtype, stored, F * D, expected, &err), err);
        add(&parts, "lm_head.weight", dtype, F, D, stored);
        if (i < 3)
            open_folder(&parts, &ckpt);
        else
            open_unaligned(dtype, stored, &ckpt);
        assert_ok(hm_weight_open(&ckpt, &head, &weight, &err), err);
        assert_false(hm_weight_is_nf4(weight));
        assert_int_equal(hm_weight_dtype(weight), dtype);
        assert_int_equal(hm_weight_stored_bytes(weight), F * D * hm_dtype_bytes(dtype));
        assert_int_equal(hm_weight_f32_view(weight) != NULL, i == 0);
        check_cuts(weight, expected);
        assert_true(hm_weight_is_finite(weight));
        hm_weight_free(weight);
        hm_checkpoint_close(&ckpt);
    }
}

static void test_vector_and_view(void **state)
{
    const struct hm_weight_slot norm = { .kind = HM_WEIGHT_NORM, .rows = D, .cols = 1 };
    struct hm_checkpoint ckpt = { 0 };
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };
    struct parts parts = { 0 };
    float out[D];

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    add(&parts, "model.norm.weight", HM_DTYPE_F32, D, 0, values);
    open_folder(&parts, &ckpt);
    assert_ok(hm_weight_open(&ckpt, &norm, &weight, &err), err);
    hm_weight_decode(weight, &kernels, 0, D, 0, 1, HM_ROUND_NONE, out, 1);
    assert_memory_equal(out, values, sizeof out);
    hm_weight_free(weight);
    hm_checkpoint_close(&ckpt);
    hm_weight_free(NULL);
}

/* transformers 5: w1 above w3 in gate_up_proj [E, 2F, D], w2 in down_proj [E, D, F], router
 * mlp.gate. */
static void test_fused(void **state)
{
    struct parts parts = { 0 };
    struct hm_checkpoint ckpt = { 0 };
    struct hm_error err = { 0 };
    static float out[F * D];

    (void)state;
    put_config("MixtralForCausalLM", "mixtral");
    struct hm_tensor *up =
        add(&parts, "model.layers.0.mlp.experts.gate_up_proj", HM_DTYPE_F32, E, 2 * F, values);
    up->n_dims = 3;
    up->shape[2] = D;
    struct hm_tensor *down =
        add(&parts, "model.layers.0.mlp.experts.down_proj", HM_DTYPE_F32, E, D, values);
    down->n_dims = 3;
    down->shape[2] = F;
    add(&parts, "model.layers.0.mlp.gate.weight", HM_DTYPE_F32, E, D, values);
    open_folder(&parts, &ckpt);
    for (size_t i = 0; i < hm_arch_slot_count(&ckpt.arch); i++) {
        struct hm_weight *weight = NULL;
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&ckpt.arch, i, &slot, name);
        if (slot.kind < HM_WEIGHT_GATE || slot.kind > HM_WEIGHT_W3) {
            assert_fails(hm_weight_open(&ckpt, &slot, &weight, &err), HM_ERR_FORMAT, "is missing",
                         err);
            continue;
        }
        assert_ok(hm_weight_open(&ckpt, &slot, &weight, &err), err);
        const float *at = slot.kind == HM_WEIGHT_GATE ? values
                          : slot.kind == HM_WEIGHT_W2 ? values + slot.expert * D * F
                          : slot.kind == HM_WEIGHT_W1 ? values + slot.expert * 2 * F * D
                                                      : values + (slot.expert * 2 + 1) * F * D;
        hm_weight_decode(weight, &kernels, 0, slot.rows, 0, slot.cols, HM_ROUND_NONE, out,
                         slot.cols);
        assert_memory_equal(out, at, (size_t)slot.rows * slot.cols * 4);
        assert_int_equal(hm_weight_stored_bytes(weight), (size_t)slot.rows * slot.cols * 4);
        hm_weight_drop_pages(weight);
        hm_weight_free(weight);
    }
    hm_checkpoint_close(&ckpt);
}

static void test_not_finite(void **state)
{
    static const enum hm_dtype dtypes[] = { HM_DTYPE_F32, HM_DTYPE_F16, HM_DTYPE_BF16 };
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    static uint8_t stored[F * D * 4];
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };
    struct quantised q;

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    for (size_t i = 0; i < 3; i++) {
        struct hm_checkpoint ckpt = { 0 };
        struct parts parts = { 0 };
        float saved = values[F * D - 1];
        values[F * D - 1] = bad[i];
        assert_ok(hm_dtype_from_f32(dtypes[i], values, F * D, stored, &err), err);
        values[F * D - 1] = saved;
        add(&parts, "lm_head.weight", dtypes[i], F, D, stored);
        open_folder(&parts, &ckpt);
        assert_ok(hm_weight_open(&ckpt, &head, &weight, &err), err);
        assert_false(hm_weight_is_finite(weight));
        hm_weight_free(weight);
        hm_checkpoint_close(&ckpt);
    }
    for (int nested = 0; nested < 2; nested++) {
        struct hm_checkpoint ckpt = { 0 };
        struct parts parts = { 0 };
        quantise(&q, nested);
        q.absmax[F * D / 64 - 1] = NAN;
        q.nested.nested_absmax[0] = INFINITY;
        add_quantised(&parts, &q, nested, HM_DTYPE_U8);
        open_folder(&parts, &ckpt);
        assert_ok(hm_weight_open(&ckpt, &head, &weight, &err), err);
        assert_false(hm_weight_is_finite(weight));
        hm_weight_free(weight);
        hm_checkpoint_close(&ckpt);
        quantised_release(&q);
    }
}

/* The tensors of a good nested matrix with one of them changed. */
static void check_refused(const char *name, struct hm_tensor with, const char *sentence)
{
    struct hm_checkpoint ckpt = { 0 };
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };
    struct parts parts = { 0 };
    struct quantised q;
    bool replaced = false;

    quantise(&q, true);
    add_quantised(&parts, &q, true, HM_DTYPE_U8);
    for (size_t i = 0; i < parts.count; i++) {
        if (strcmp(parts.tensor[i].name, name) != 0)
            continue;
        const char *kept = parts.tensor[i].name;
        if (with.data)
            parts.tensor[i] = with;
        parts.tensor[i].name = with.name ? with.name : kept;
        replaced = true;
    }
    assert_true(replaced);
    open_folder(&parts, &ckpt);
    assert_fails(hm_weight_open(&ckpt, &head, &weight, &err), HM_ERR_FORMAT, sentence, err);
    assert_null(weight);
    hm_checkpoint_close(&ckpt);
    quantised_release(&q);
}

#define W "lm_head.weight"

static void test_misfits(void **state)
{
    static const uint8_t zero[F * D];
    const struct {
        const char *name;
        struct hm_tensor with;
        const char *sentence;
    } cases[] = {
        { W, { .name = "other" }, "tensor 'lm_head.weight' is missing" },
        { W ".absmax", { .name = "other" }, "'lm_head.weight.absmax' is missing" },
        { W ".quant_map", { .name = "other" }, "'lm_head.weight.quant_map' is missing" },
        { W ".nested_quant_map",
          { .name = "other" },
          "'lm_head.weight.nested_quant_map' is missing" },
        { W ".nested_absmax", { .name = "other" }, "holds 60 U8, expected 60 F32" },
        { W ".quant_state.bitsandbytes__nf4",
          { .name = "other" },
          "is U8 without a quant_state; F32, F16 and BF16" },
        { W ".quant_state.bitsandbytes__nf4",
          { .name = W ".quant_state.bitsandbytes__fp4" },
          "quantised to FP4" },
        { W,
          { .dtype = HM_DTYPE_U8, .n_dims = 1, .shape = { F * D / 2 - 1 }, .data = zero },
          "has 1919 bytes of codes, [40, 96] needs 1920" },
        { W,
          { .dtype = HM_DTYPE_U8, .n_dims = 1, .shape = { F * D / 2 + 1 }, .data = zero },
          "has 1921 bytes of codes" },
        { W ".absmax",
          { .dtype = HM_DTYPE_U8, .n_dims = 1, .shape = { 59 }, .data = zero },
          "holds 59 U8, expected 60 U8" },
        { W ".nested_absmax",
          { .dtype = HM_DTYPE_F32, .n_dims = 1, .shape = { 2 }, .data = zero },
          "holds 2 F32, expected 1 F32" },
        { W ".quant_map",
          { .dtype = HM_DTYPE_F32, .n_dims = 1, .shape = { 16 }, .data = zero },
          "is not the NF4 table: entry 0" },
        { W ".quant_state.bitsandbytes__nf4",
          { .dtype = HM_DTYPE_F32, .n_dims = 1, .shape = { 16 }, .data = zero },
          "is no JSON text" },
    };

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        check_refused(cases[i].name, cases[i].with, cases[i].sentence);
    }
}

static void test_bad_state(void **state)
{
    static const char *const cases[][2] = {
        { "{", "not JSON" },
        { "{}", "'quant_type' is missing" },
        { "{'quant_type': 'fp4', 'dtype': 'bfloat16', 'blocksize': 64}", "quant_type 'fp4'" },
        { "{'quant_type': 'nf4', 'dtype': 'bfloat16', 'blocksize': 63}", "blocksize 63" },
        { "{'quant_type': 'nf4', 'dtype': 'bfloat16', 'blocksize': 0}", "blocksize 0" },
        { "{'quant_type': 'nf4', 'dtype': 'bfloat16', 'blocksize': 8192}", "blocksize 8192" },
        { "{'quant_type': 'nf4', 'dtype': 'int8', 'blocksize': 64}", "dtype 'int8'" },
        { "{'quant_type': 'nf4', 'dtype': 'q', 'blocksize': 64}", "'q' is not known" },
        { "{'quant_type': 'nf4', 'dtype': 'float32', 'blocksize': 64, 'shape': [96, 40]}",
          "gives the shape [96, 40], the config needs [40, 96]" },
        { "{'quant_type': 'nf4', 'dtype': 'float32', 'blocksize': 64}", "gives the shape [0, 0]" },
        { "{'quant_type': 'nf4', 'dtype': 'float32', 'blocksize': 64, 'shape': [40, 96]}",
          "'nested_blocksize' is missing" },
        { "{'quant_type': 'nf4', 'dtype': 'float32', 'blocksize': 64, 'shape': [40, 96],"
          " 'nested_blocksize': 128, 'nested_offset': 0.5}",
          "nested_blocksize 128" },
        { "{'quant_type': 'nf4', 'dtype': 'float32', 'blocksize': 64, 'shape': [40, 96],"
          " 'nested_blocksize': 256, 'nested_offset': 1e300}",
          "a finite f32" },
    };

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512];
        snprintf(text, sizeof text, "%s", cases[i][0]);
        for (char *c = text; *c; c++)
            if (*c == '\'')
                *c = '"';
        struct hm_tensor with = { .dtype = HM_DTYPE_U8,
                                  .n_dims = 1,
                                  .shape = { strlen(text) },
                                  .data = (const uint8_t *)text };
        check_refused(W ".quant_state.bitsandbytes__nf4", with, cases[i][1]);
    }
}

static void test_dense_misfits(void **state)
{
    static uint8_t zero[F * D * 8];
    struct hm_weight *weight = NULL;
    struct hm_error err = { 0 };

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    for (int i = 0; i < 2; i++) {
        struct hm_checkpoint ckpt = { 0 };
        struct parts parts = { 0 };
        add(&parts, W, i ? HM_DTYPE_F64 : HM_DTYPE_F32, i ? F : D, i ? D : F, zero);
        open_folder(&parts, &ckpt);
        assert_fails(hm_weight_open(&ckpt, &head, &weight, &err), HM_ERR_FORMAT,
                     i ? "is F64 without" : "has shape [96, 40], the config needs [40, 96]", err);
        hm_checkpoint_close(&ckpt);
    }
}

static int attempt(void *context, struct hm_error *err)
{
    struct hm_weight *weight = NULL;

    HM_TRY(hm_weight_open(context, &head, &weight, err));
    hm_weight_free(weight);
    return HM_OK;
}

static void test_oom(void **state)
{
    struct hm_checkpoint ckpt = { 0 };
    struct parts parts = { 0 };
    struct quantised q;

    (void)state;
    put_config("LlamaForCausalLM", "llama");
    quantise(&q, true);
    add_quantised(&parts, &q, true, HM_DTYPE_U8);
    open_folder(&parts, &ckpt);
    assert_true(oom_sweep(attempt, &ckpt) > 3);
    hm_checkpoint_close(&ckpt);
    quantised_release(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nf4),           cmocka_unit_test(test_nf4_long),
        cmocka_unit_test(test_dense),         cmocka_unit_test(test_vector_and_view),
        cmocka_unit_test(test_fused),         cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_misfits),       cmocka_unit_test(test_bad_state),
        cmocka_unit_test(test_dense_misfits), cmocka_unit_test(test_oom),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
