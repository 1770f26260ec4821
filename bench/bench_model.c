/* SPDX-License-Identifier: MIT */
/*
 * Random NF4 models; see bench_model.h. Codes are uniform, scales near 0.03, so that activations
 * keep the size they have in a fresh model; every value depends on the seed alone.
 */
#include "bench_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/nf4_format.h"
#include "hanmix/kernels/kernels.h"

#define BLOCK       64u
#define CHUNK_BYTES ((size_t)1 << 20)

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
    size_t n, room;
    uint8_t *chunk;
    struct hm_nf4_nested nested; /* of slot nested_slot */
    size_t nested_slot;
    struct hm_folder_writer *out;
};

int bench_preset(const char *name, struct hm_arch *ret_arch, struct hm_error *err)
{
    static const struct {
        const char *name;
        uint32_t layers, hidden, ffn, heads, kv_heads, vocab;
    } preset[] = {
        { "tiny", 2, 256, 896, 4, 2, 2000 },
        { "small", 4, 1024, 3584, 16, 4, 8000 },
        { "wide1", 1, 4096, 14336, 32, 8, 8000 },
    };
    static char head[] = "lm_head", gate[] = "gate";
    static char *skip[] = { head, gate };

    for (size_t i = 0; i < sizeof(preset) / sizeof(preset[0]); i++) {
        if (strcmp(name, preset[i].name) != 0)
            continue;
        *ret_arch = (struct hm_arch){
            .family = HM_FAMILY_MIXTRAL,
            .hidden = preset[i].hidden,
            .ffn = preset[i].ffn,
            .layers = preset[i].layers,
            .heads = preset[i].heads,
            .kv_heads = preset[i].kv_heads,
            .head_dim = preset[i].hidden / preset[i].heads,
            .experts = 8,
            .top_k = 2,
            .vocab_size = preset[i].vocab,
            .max_positions = 32768,
            .norm_eps = 1e-5,
            .rope_theta = 1e6,
            .aux_coef = 0.001,
            .bos_id = 1,
            .eos_id = 2,
            .dtype = HM_DTYPE_BF16,
            .quant = { true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 },
        };
        return HM_OK;
    }
    return hm_fail(err, HM_ERR_USAGE, "no preset '%s': tiny, small or wide1", name);
}

void bench_ids(uint32_t vocab, uint64_t seed, size_t count, int32_t *ids)
{
    struct hm_rng_key key = { seed, 1 };

    for (size_t i = 0; i < count; i++) { /* the inverse of a 1/x density */
        double draw = hm_rng_uniform(key, i);
        ids[i] = 2 + (int32_t)pow((double)(vocab - 3) + 0.999, draw);
    }
}

static bool is_nf4(const struct hm_weight_slot *slot)
{
    return hm_weight_kind_is_linear(slot->kind) && slot->kind != HM_WEIGHT_GATE &&
           slot->kind != HM_WEIGHT_HEAD;
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

    return hm_nf4_state_json(BLOCK, w->arch->dtype, slot->rows, slot->cols, &offset, ret_text, err);
}

static int slot_plan(struct writer *w, size_t i, struct hm_error *err)
{
    struct hm_weight_slot slot;
    struct hm_buf text = { 0 };
    char name[HM_SLOT_NAME_BYTES];

    hm_arch_slot(w->arch, i, &slot, name);
    uint64_t values = (uint64_t)slot.rows * slot.cols, blocks = (values + BLOCK - 1) / BLOCK;
    if (!is_nf4(&slot))
        return entry_add(w, i, name, DENSE, "", HM_DTYPE_BF16, slot.rows,
                         slot.cols > 1 ? slot.cols : 0, err);
    HM_TRY(entry_add(w, i, name, CODES, "", HM_DTYPE_U8, values / 2, 1, err));
    HM_TRY(entry_add(w, i, name, ABSMAX, ".absmax", HM_DTYPE_U8, blocks, 0, err));
    HM_TRY(entry_add(w, i, name, MAP, ".quant_map", HM_DTYPE_F32, 16, 0, err));
    HM_TRY(entry_add(w, i, name, NESTED_ABSMAX, ".nested_absmax", HM_DTYPE_F32,
                     (blocks + 255) / 256, 0, err));
    HM_TRY(entry_add(w, i, name, NESTED_MAP, ".nested_quant_map", HM_DTYPE_F32, 256, 0, err));
    HM_TRY(state_text(w, &slot, &text, err));
    int status = entry_add(w, i, name, STATE, ".quant_state.bitsandbytes__nf4", HM_DTYPE_U8,
                           text.len, 0, err);
    hm_buf_release(&text);
    return status;
}

/* Random bytes, or bf16 values near 0.02 (norms: 1), one chunk at a time. */
static int bytes_write(struct writer *w, const struct hm_weight_slot *slot, size_t index,
                       uint64_t bytes, bool dense, struct hm_error *err)
{
    struct hm_rng_key key = { w->seed, index };
    const uint16_t one = hm_f32_to_bf16(1.0f);
    uint64_t counter = 0;

    for (uint64_t at = 0; at < bytes; at += CHUNK_BYTES) {
        size_t n = bytes - at < CHUNK_BYTES ? (size_t)(bytes - at) : CHUNK_BYTES;
        for (size_t i = 0; i < n; i += 16) {
            uint32_t draw[4];
            hm_rng_block(key, counter++, draw);
            memcpy(w->chunk + i, draw, 16);
        }
        for (size_t i = 0; dense && i < n; i += 2) {
            int16_t raw;
            memcpy(&raw, w->chunk + i, 2);
            uint16_t value = slot->cols == 1 ? one : hm_f32_to_bf16((float)raw * (0.035f / 32768));
            memcpy(w->chunk + i, &value, 2);
        }
        HM_TRY(hm_folder_writer_data(w->out, w->chunk, n, err));
    }
    return HM_OK;
}

static int nested_make(struct writer *w, size_t slot_index, uint64_t blocks, struct hm_error *err)
{
    float *absmax;

    if (w->nested.code && w->nested_slot == slot_index)
        return HM_OK;
    hm_nf4_nested_release(&w->nested);
    absmax = hm_alloc_array(HM_MEM_OTHER, blocks, sizeof *absmax);
    if (!absmax)
        return hm_fail_nomem(err, "for scales");
    for (uint64_t b = 0; b < blocks; b++)
        absmax[b] = 0.03f + 0.01f * (float)((b * 2654435761u) % 1024) / 1024.0f;
    int status = hm_nf4_nest(absmax, blocks, &w->nested, err);
    w->nested_slot = slot_index;
    hm_free(absmax);
    return status;
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
        return bytes_write(w, &slot, index, values * 2, true, err);
    case CODES:
        return bytes_write(w, &slot, index, values / 2, false, err);
    case ABSMAX:
        HM_TRY(nested_make(w, entry.slot, blocks, err));
        return hm_folder_writer_data(w->out, w->nested.code, blocks, err);
    case MAP:
        return hm_folder_writer_data(w->out, hm_nf4_code, sizeof hm_nf4_code, err);
    case NESTED_ABSMAX:
        HM_TRY(nested_make(w, entry.slot, blocks, err));
        return hm_folder_writer_data(w->out, w->nested.nested_absmax,
                                     (blocks + 255) / 256 * sizeof(float), err);
    case NESTED_MAP:
        hm_nf4_dynamic_map(map);
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
    char *path = NULL;
    int status = hm_arch_config_new(arch, &config, err);

    if (status == HM_OK)
        status = hm_path_join(&path, dir, "config.json", err);
    if (status == HM_OK)
        status = hm_json_save(path, config, err);
    hm_free(path);
    json_decref(config);
    return status;
}

int bench_model_make(const char *dir, const struct hm_arch *arch, uint64_t seed,
                     struct hm_error *err)
{
    size_t slots = hm_arch_slot_count(arch);
    struct writer w = { .arch = arch, .seed = seed, .room = 6 * slots };
    int status = hm_dir_make(dir, err);

    w.spec = hm_calloc(HM_MEM_OTHER, w.room, sizeof *w.spec);
    w.entry = hm_calloc(HM_MEM_OTHER, w.room, sizeof *w.entry);
    w.chunk = hm_alloc(HM_MEM_OTHER, CHUNK_BYTES);
    if (status == HM_OK && (!w.spec || !w.entry || !w.chunk))
        status = hm_fail_nomem(err, "making a model");
    for (size_t i = 0; i < slots && status == HM_OK; i++)
        status = slot_plan(&w, i, err);
    if (status == HM_OK)
        status = hm_folder_writer_open(dir, w.spec, w.n, (uint64_t)8 << 30, &w.out, err);
    for (size_t i; status == HM_OK && (i = hm_folder_writer_next(w.out)) < w.n;)
        status = entry_write(&w, i, err);
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
    hm_nf4_nested_release(&w.nested);
    return status;
}
