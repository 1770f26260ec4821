/* SPDX-License-Identifier: MIT */
/*
 * Small LLaMA folders whose vocabulary grows, with the two tokenizers, for the tests of
 * vocab/embed_rows.c and vocab/embed_resize.c. set_up and tear_down are those of the group.
 */
#ifndef HANMIX_TESTS_GROWN_FOLDER_H
#define HANMIX_TESTS_GROWN_FOLDER_H

#include "support/support.h"

#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/vocab/embed_resize.h"

#define ROWS 512u
#define DIM  24u

static struct hm_tokenizer *old_tokenizer, *new_tokenizer;
static const char *const pieces[] = { "中国", "国", "国中", "中", "人民", "民人", "人", "民" };
#define N_PIECES (sizeof(pieces) / sizeof(pieces[0]))

/* The old vocabulary and n pieces after it. */
static inline struct hm_tokenizer *tokenizer_make(const char *const *texts, size_t n)
{
    struct hm_piece piece[16];
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    for (size_t i = 0; i < n; i++)
        piece[i] = (struct hm_piece){ hm_str_of(texts[i]), -1e5f - (float)i, HM_PIECE_NORMAL };
    assert_ok(hm_spm_model_append(&old_tokenizer->model, piece, n, &bytes, &err), err);
    assert_ok(
        hm_tokenizer_open_bytes((struct hm_str){ bytes.ptr, bytes.len }, "grown", &tokenizer, &err),
        err);
    hm_buf_release(&bytes);
    return tokenizer;
}

static inline int set_up(void **state)
{
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_tokenizer_open(golden_path("models/tok512.model"), &old_tokenizer, &err), err);
    new_tokenizer = tokenizer_make(pieces, N_PIECES);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    hm_tokenizer_free(old_tokenizer);
    hm_tokenizer_free(new_tokenizer);
    return 0;
}

/* --- folders ---------------------------------------------------------------------------------- */

struct shape {
    uint32_t rows; /* of embed_tokens and lm_head */
    bool tied, head_stored, sharded;
    enum hm_dtype dtype;
    float spoil; /* put into the embedding when not 0 */
    bool mixed;  /* each column holds a share of the one before */
    bool flat;   /* column 3 is the same everywhere */
};

/* A LLaMA folder of one layer as far as resizing looks: three tensors, one or two files. */
static inline void folder_make(const char *dir, struct shape shape)
{
    uint64_t rows = shape.rows;
    struct hm_tensor tensor[3] = {
        { .name = "model.embed_tokens.weight", .n_dims = 2, .shape = { rows, DIM } },
        { .name = "lm_head.weight", .n_dims = 2, .shape = { rows, DIM } },
        { .name = "model.norm.weight", .n_dims = 1, .shape = { DIM } },
    };
    struct hm_error err = { 0 };
    char config[512];
    void *data[3];

    for (size_t t = 0; t < 3; t++) {
        struct hm_rng_key key = { 7, shape.tied && t < 2 ? 0 : t };
        tensor[t].count = t == 2 ? DIM : rows * DIM;
        float *value = malloc(tensor[t].count * sizeof(float));
        for (size_t i = 0; i < tensor[t].count; i++)
            value[i] = (float)(0.02 * hm_rng_normal(key, i) + (i % DIM == 3 ? 0.5 : 0));
        for (size_t i = 1; shape.mixed && i < tensor[t].count; i++)
            value[i] += i % DIM ? 0.7f * value[i - 1] : 0;
        for (size_t i = 3; shape.flat && i < tensor[t].count; i += DIM)
            value[i] = 0.5f;
        if (shape.spoil != 0 && t == 0)
            value[5 * DIM + 2] = shape.spoil;
        tensor[t].dtype = shape.dtype;
        tensor[t].size_bytes = tensor[t].count * hm_dtype_bytes(shape.dtype);
        void *out = malloc(tensor[t].size_bytes);
        assert_ok(hm_dtype_from_f32(shape.dtype, value, tensor[t].count, out, &err), err);
        tensor[t].data = data[t] = out;
        free(value);
    }
    if (!shape.head_stored)
        tensor[1] = tensor[2];
    size_t n = shape.head_stored ? 3 : 2;
    assert_ok(hm_dir_make(dir, &err), err);
    if (shape.sharded) {
        static const char index[] =
            "{\"metadata\": {\"total_size\": 1, \"note\": \"kept\"}, \"weight_map\": {"
            "\"model.embed_tokens.weight\": \"model-00001-of-00003.safetensors\","
            "\"lm_head.weight\": \"model-00002-of-00003.safetensors\","
            "\"model.norm.weight\": \"model-00003-of-00003.safetensors\"}}";
        for (size_t t = 0; t < 3; t++)
            assert_ok(
                hm_safetensors_write(tmp_path(dir, "model-0000%zu-of-00003.safetensors", t + 1),
                                     &tensor[t], 1, NULL, &err),
                err);
        file_put(tmp_path(dir, "model.safetensors.index.json"), index, strlen(index));
    } else {
        assert_ok(hm_safetensors_write(tmp_path(dir, "model.safetensors"), tensor, n, NULL, &err),
                  err);
    }
    int len = snprintf(config, sizeof(config),
                       "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", "
                       "\"vocab_size\": %u, \"hidden_size\": %u, \"intermediate_size\": 8, "
                       "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, "
                       "\"num_key_value_heads\": 2, \"max_position_embeddings\": 64, "
                       "\"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\", \"custom\": [1], "
                       "\"tie_word_embeddings\": %s}",
                       shape.rows, DIM, shape.tied ? "true" : "false");
    file_put(tmp_path(dir, "config.json"), config, (size_t)len);
    file_put(tmp_path(dir, "generation_config.json"), "{\"max_length\": 9}", 17);
    for (size_t t = 0; t < 3; t++)
        free(data[t]);
}

static const struct shape plain = { .rows = ROWS, .head_stored = true, .dtype = HM_DTYPE_BF16 };

static inline struct hm_resize_report grow(const char *from, const char *to,
                                           struct hm_resize_options options)
{
    struct hm_resize_report report = { 0 };
    struct hm_error err = { 0 };

    assert_ok(
        hm_embed_resize(from, old_tokenizer, new_tokenizer, &options, to, NULL, &report, &err),
        err);
    return report;
}

/* A matrix of a folder as f32; free() it. */
static inline float *matrix(const char *dir, const char *name, uint64_t rows)
{
    struct hm_checkpoint ckpt = { 0 };
    const struct hm_tensor *tensor = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(dir, &ckpt, &err), err);
    assert_ok(hm_checkpoint_need(&ckpt, name, &tensor, &err), err);
    assert_int_equal(tensor->shape[0], rows);
    assert_int_equal(ckpt.arch.vocab_size, rows);
    float *value = malloc(tensor->count * sizeof(float));
    assert_ok(hm_dtype_to_f32(tensor->dtype, tensor->data, tensor->count, value, &err), err);
    hm_checkpoint_close(&ckpt);
    return value;
}

#endif
