/* SPDX-License-Identifier: MIT */
/*
 * Random weights of a given architecture, written straight in the layout a quantised folder has.
 * Codes are uniform, scales near 0.03, so that activations keep the size they have in a fresh
 * model; every value depends on the seed alone.
 */
#include "hanmix/checkpoint/synthetic.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/kernels/kernels.h"

#define BLOCK        64u
#define SHARD_BYTES  ((uint64_t)5000000000u) /* what transformers calls 5GB */
#define CHUNK_BYTES  ((size_t)8 << 20)
#define UNIT_BYTES   ((size_t)64 << 10)            /* of a chunk, drawn side by side */
#define DRAW_BYTES   16u                           /* of one counter value */
#define CHUNK_VALUES (CHUNK_BYTES / sizeof(float)) /* dense values of any dtype fit a chunk */
#define UNIT_VALUES  (UNIT_BYTES / sizeof(float))

enum part { DENSE, CODES, ABSMAX, MAP, NESTED_ABSMAX, NESTED_MAP, STATE };

struct entry { /* one tensor of the folder */
    enum part part;
    size_t slot;
};

struct writer {
    const struct hm_arch *arch;
    uint64_t seed;
    struct hm_tensor_spec *spec;
    struct entry *entry;
    size_t n, room, written;
    uint8_t *chunk;              /* [CHUNK_BYTES] */
    uint8_t *packed;             /* [CHUNK_BYTES] */
    float *value;                /* [CHUNK_VALUES] */
    float *absmax;               /* [blocks] */
    struct hm_nf4_nested nested; /* the same, double quantised */
    uint64_t blocks;
    struct hm_folder_writer *out;
};

static bool is_nf4(const struct hm_arch *arch, const struct hm_weight_slot *slot, const char *name)
{
    const struct hm_quant_config *quant = &arch->quant;
    bool nf4 =
        quant->present && hm_weight_kind_is_linear(slot->kind) && slot->kind != HM_WEIGHT_HEAD;

    for (size_t i = 0; nf4 && i < quant->n_skip; i++)
        nf4 = strstr(name, quant->skip[i]) == NULL;
    return nf4;
}

static uint64_t nested_blocks(uint64_t blocks)
{
    return (blocks + HM_NF4_NESTED_BLOCK - 1) / HM_NF4_NESTED_BLOCK;
}

static int entry_add(struct writer *w, size_t slot, const char *module, enum part part,
                     const char *suffix, enum hm_dtype dtype, uint64_t rows, uint64_t cols,
                     struct hm_error *err)
{
    char name[256];

    HM_BUG(w->n == w->room);
    snprintf(name, sizeof name, "%s.weight%s", module, suffix);
    struct hm_tensor_spec spec = {
        hm_strdup(HM_MEM_OTHER, name), dtype, cols ? 2 : 1, { rows, cols }
    };
    if (!spec.name)
        return hm_fail_nomem(err, "for the names of a model");
    w->spec[w->n] = spec;
    w->entry[w->n++] = (struct entry){ part, slot };
    return HM_OK;
}

static int state_text(const struct writer *w, const struct hm_weight_slot *slot,
                      struct hm_buf *ret_text, struct hm_error *err)
{
    const float offset = 0.03f;

    return hm_nf4_state_json(BLOCK, w->arch->dtype, slot->rows, slot->cols,
                             w->arch->quant.double_quant ? &offset : NULL, ret_text, err);
}

static int slot_plan(struct writer *w, size_t i, struct hm_error *err)
{
    struct hm_weight_slot slot;
    struct hm_buf text = { 0 };
    char name[HM_SLOT_NAME_BYTES];

    hm_arch_slot(w->arch, i, &slot, name);
    uint64_t values = (uint64_t)slot.rows * slot.cols, blocks = (values + BLOCK - 1) / BLOCK;
    bool nested = w->arch->quant.double_quant;
    if (!is_nf4(w->arch, &slot, name))
        return entry_add(w, i, name, DENSE, "", w->arch->dtype, slot.rows,
                         slot.cols > 1 ? slot.cols : 0, err);
    HM_TRY(entry_add(w, i, name, CODES, "", HM_DTYPE_U8, (values + 1) / 2, 1, err));
    HM_TRY(entry_add(w, i, name, ABSMAX, ".absmax", nested ? HM_DTYPE_U8 : HM_DTYPE_F32, blocks, 0,
                     err));
    HM_TRY(entry_add(w, i, name, MAP, ".quant_map", HM_DTYPE_F32, 16, 0, err));
    if (nested) {
        HM_TRY(entry_add(w, i, name, NESTED_ABSMAX, ".nested_absmax", HM_DTYPE_F32,
                         nested_blocks(blocks), 0, err));
        HM_TRY(entry_add(w, i, name, NESTED_MAP, ".nested_quant_map", HM_DTYPE_F32, 256, 0, err));
    }
    HM_TRY(state_text(w, &slot, &text, err));
    int status = entry_add(w, i, name, STATE, ".quant_state.bitsandbytes__nf4", HM_DTYPE_U8,
                           text.len, 0, err);
    hm_buf_release(&text);
    return status;
}

struct draw { /* a chunk to fill with random bytes */
    struct hm_rng_key key;
    uint64_t counter; /* of the chunk's beginning */
    size_t bytes;
    uint8_t *chunk;
};

static void draw_unit(void *context, size_t unit, int worker)
{
    const struct draw *draw = context;
    size_t first = unit * UNIT_BYTES, end = hm_least(first + UNIT_BYTES, draw->bytes);

    (void)worker;
    for (size_t i = first; i < end; i += DRAW_BYTES) {
        uint32_t word[4];
        hm_rng_block(draw->key, draw->counter + i / DRAW_BYTES, word);
        memcpy(draw->chunk + i, word, DRAW_BYTES);
    }
}

static void chunk_draw(struct writer *w, size_t index, uint64_t *counter, size_t bytes)
{
    struct draw draw = { { w->seed, index }, *counter, bytes, w->chunk };

    hm_parallel_for(hm_units(bytes, UNIT_BYTES), draw_unit, &draw);
    *counter += hm_units(bytes, DRAW_BYTES);
}

static int codes_write(struct writer *w, size_t index, uint64_t bytes, struct hm_error *err)
{
    uint64_t counter = 0;

    for (uint64_t at = 0; at < bytes; at += CHUNK_BYTES) {
        size_t n = bytes - at < CHUNK_BYTES ? (size_t)(bytes - at) : CHUNK_BYTES;
        chunk_draw(w, index, &counter, n);
        HM_TRY(hm_folder_writer_data(w->out, w->chunk, n, err));
    }
    return HM_OK;
}

struct dense { /* a chunk of random words to turn into values */
    const struct writer *w;
    size_t n;
    bool norm;
};

static void dense_unit(void *context, size_t unit, int worker)
{
    const struct dense *dense = context;
    const struct writer *w = dense->w;
    size_t first = unit * UNIT_VALUES, end = hm_least(first + UNIT_VALUES, dense->n);

    (void)worker;
    for (size_t i = first; i < end; i++) {
        int16_t raw;
        memcpy(&raw, w->chunk + i * sizeof raw, sizeof raw);
        w->value[i] = dense->norm ? 1.0f : (float)raw * (0.035f / 32768);
    }
    hm_floats_store(w->arch->dtype, w->value + first, end - first,
                    w->packed + first * hm_dtype_bytes(w->arch->dtype));
}

/* Uniform values near 0.02, norms 1. */
static int dense_write(struct writer *w, const struct hm_weight_slot *slot, size_t index,
                       uint64_t values, struct hm_error *err)
{
    size_t size = hm_dtype_bytes(w->arch->dtype);
    uint64_t counter = 0;

    for (uint64_t at = 0; at < values; at += CHUNK_VALUES) {
        size_t n = values - at < CHUNK_VALUES ? (size_t)(values - at) : CHUNK_VALUES;
        struct dense dense = { w, n, slot->cols == 1 };
        chunk_draw(w, index, &counter, n * sizeof(int16_t));
        hm_parallel_for(hm_units(n, UNIT_VALUES), dense_unit, &dense);
        HM_TRY(hm_folder_writer_data(w->out, w->packed, n * size, err));
    }
    return HM_OK;
}

/* Scales of one matrix, nested where the folder nests; the same for all of one size. */
static int scales_make(struct writer *w, uint64_t blocks, struct hm_error *err)
{
    if (w->absmax && w->blocks == blocks)
        return HM_OK;
    hm_nf4_nested_release(&w->nested);
    hm_free(w->absmax);
    w->absmax = hm_alloc_array(HM_MEM_OTHER, blocks, sizeof *w->absmax);
    w->blocks = blocks;
    if (!w->absmax)
        return hm_fail_nomem(err, "for scales");
    for (uint64_t b = 0; b < blocks; b++)
        w->absmax[b] = 0.03f + 0.01f * (float)((b * 2654435761u) % 1024) / 1024.0f;
    return w->arch->quant.double_quant ? hm_nf4_nest(w->absmax, blocks, &w->nested, err) : HM_OK;
}

static int entry_write(struct writer *w, size_t index, struct hm_error *err)
{
    const struct entry entry = w->entry[index];
    struct hm_weight_slot slot;
    struct hm_buf text = { 0 };
    float map[256];
    char name[HM_SLOT_NAME_BYTES];

    hm_arch_slot(w->arch, entry.slot, &slot, name);
    uint64_t values = (uint64_t)slot.rows * slot.cols, blocks = (values + BLOCK - 1) / BLOCK;
    switch (entry.part) {
    case DENSE:
        return dense_write(w, &slot, index, values, err);
    case CODES:
        return codes_write(w, index, (values + 1) / 2, err);
    case ABSMAX:
        HM_TRY(scales_make(w, blocks, err));
        if (!w->arch->quant.double_quant)
            return hm_folder_writer_data(w->out, w->absmax, blocks * sizeof(float), err);
        return hm_folder_writer_data(w->out, w->nested.code, blocks, err);
    case MAP:
        return hm_folder_writer_data(w->out, hm_nf4_code, sizeof hm_nf4_code, err);
    case NESTED_ABSMAX:
        HM_TRY(scales_make(w, blocks, err));
        return hm_folder_writer_data(w->out, w->nested.nested_absmax,
                                     nested_blocks(blocks) * sizeof(float), err);
    case NESTED_MAP:
        hm_dynamic_map(true, map);
        return hm_folder_writer_data(w->out, map, sizeof map, err);
    case STATE:
        HM_TRY(state_text(w, &slot, &text, err));
        int status = hm_folder_writer_data(w->out, text.ptr, text.len, err);
        hm_buf_release(&text);
        return status;
    }
    return HM_OK;
}

static int config_write(const char *dir, const struct hm_arch *arch, struct hm_error *err)
{
    json_t *config = NULL;

    HM_TRY(hm_arch_config_new(arch, &config, err));
    int status = hm_config_write(config, dir, err);
    json_decref(config);
    return status;
}

static int entries_write(struct writer *w, const struct hm_ctl *ctl, struct hm_error *err)
{
    for (size_t i; (i = hm_folder_writer_next(w->out)) < w->n;) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped while making a model of random weights");
        HM_TRY(entry_write(w, i, err));
        hm_ctl_progress(ctl, &(struct hm_progress){ .what = "random weights",
                                                    .unit = "tensors",
                                                    .done = ++w->written,
                                                    .total = w->n });
    }
    return HM_OK;
}

int hm_synthetic_make(const char *dir, const struct hm_arch *arch, uint64_t seed,
                      const struct hm_ctl *ctl, struct hm_error *err)
{
    size_t slots = hm_arch_slot_count(arch);
    struct writer w = { .arch = arch, .seed = seed, .room = HM_NF4_PARTS * slots };
    int status = hm_dir_make(dir, err);

    w.spec = hm_calloc(HM_MEM_OTHER, w.room, sizeof *w.spec);
    w.entry = hm_calloc(HM_MEM_OTHER, w.room, sizeof *w.entry);
    w.chunk = hm_alloc(HM_MEM_OTHER, CHUNK_BYTES);
    w.packed = hm_alloc(HM_MEM_OTHER, CHUNK_BYTES);
    w.value = hm_alloc_array(HM_MEM_OTHER, CHUNK_VALUES, sizeof *w.value);
    if (status == HM_OK && (!w.spec || !w.entry || !w.chunk || !w.packed || !w.value))
        status = hm_fail_nomem(err, "making a model");
    for (size_t i = 0; i < slots && status == HM_OK; i++)
        status = slot_plan(&w, i, err);
    if (status == HM_OK)
        status = hm_folder_writer_open(dir, w.spec, w.n, SHARD_BYTES, &w.out, err);
    if (status == HM_OK)
        status = entries_write(&w, ctl, err);
    if (status == HM_OK)
        status = config_write(dir, arch, err);
    if (status == HM_OK)
        status = hm_folder_writer_finish(w.out, false, err);
    else
        hm_folder_writer_abort(w.out);
    for (size_t i = 0; w.spec && i < w.n; i++)
        hm_free(w.spec[i].name);
    hm_free(w.spec);
    hm_free(w.entry);
    hm_free(w.chunk);
    hm_free(w.packed);
    hm_free(w.value);
    hm_free(w.absmax);
    hm_nf4_nested_release(&w.nested);
    return status;
}

void hm_synthetic_ids(uint32_t vocab, uint64_t seed, size_t count, int32_t *ids)
{
    struct hm_rng_key key = { seed, 1 };
    double range = vocab > 3 ? (double)(vocab - 3) + 0.999 : 1;

    for (size_t i = 0; i < count; i++) { /* the inverse of a 1/x density */
        int32_t id = 2 + (int32_t)pow(range, hm_rng_uniform(key, i));
        ids[i] = (uint32_t)id < vocab ? id : (int32_t)vocab - 1;
    }
}
