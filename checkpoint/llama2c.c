/* SPDX-License-Identifier: MIT */
/*
 * llama2.c's version 0 file: seven int32, then f32 tensors of all layers, kind by kind, without
 * names. Sizes are derived from the header and must account for every byte of the file. The rotary
 * tables it carries are skipped: they follow from theta 10000.
 *
 * llama2.c turns neighbouring pairs (2i, 2i+1) of a head, transformers the pair (i, i + hs/2): rows
 * of wq and wk move so that both compute the same.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/bytes.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/checkpoint/llama2c.h"

#define HEADER_INTS  7u
#define HEADER_BYTES (HEADER_INTS * 4u)
#define MAGIC        0x616b3432u /* "ak42": version 1 and later */
#define SHARD_BYTES  5000000000u

struct source {
    const char *path;
    struct hm_map map;
    struct hm_arch arch;
    bool shared;                          /* the classifier is the embedding */
    uint64_t offset[HM_WEIGHT_KINDS];     /* first float of a kind, over all layers */
    uint64_t layer_size[HM_WEIGHT_KINDS]; /* floats of one layer */
};

static uint32_t header_word(const struct hm_map *map, unsigned i)
{
    return (uint32_t)hm_le_get(map->data + 4 * i, 4);
}

static int read_header(struct source *source, struct hm_error *err)
{
    static const char *const names[HEADER_INTS] = { "dim",     "hidden_dim", "n_layers",
                                                    "n_heads", "n_kv_heads", "vocab_size",
                                                    "seq_len" };
    static const int32_t most[HEADER_INTS] = { 1 << 20, 1 << 20, 4096,   65536,
                                               65536,   1 << 28, 1 << 28 };
    int32_t value[HEADER_INTS];
    struct hm_arch *arch = &source->arch;

    if (source->map.size_bytes < HEADER_BYTES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': too short for a llama2.c header", source->path);
    if (header_word(&source->map, 0) == MAGIC)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': a llama2.c file of version %" PRIu32
                       "; only version 0 is read (export.py --version 0)",
                       source->path, header_word(&source->map, 1));
    for (unsigned i = 0; i < HEADER_INTS; i++)
        value[i] = (int32_t)header_word(&source->map, i);
    source->shared = value[5] > 0;
    if (value[5] < 0 && value[5] > INT32_MIN)
        value[5] = -value[5];
    for (unsigned i = 0; i < HEADER_INTS; i++)
        if (value[i] < 1 || value[i] > most[i])
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': '%s' is %" PRId32 ", expected 1 to %" PRId32
                           "; not a llama2.c checkpoint",
                           source->path, names[i], value[i], most[i]);
    if (value[0] % value[3] != 0 || value[0] / value[3] % 2 != 0 || value[3] % value[4] != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': dim %" PRId32 ", n_heads %" PRId32 ", n_kv_heads %" PRId32
                       " do not divide into heads of an even size",
                       source->path, value[0], value[3], value[4]);
    *arch = (struct hm_arch){
        .family = HM_FAMILY_LLAMA,
        .hidden = (uint32_t)value[0],
        .ffn = (uint32_t)value[1],
        .layers = (uint32_t)value[2],
        .heads = (uint32_t)value[3],
        .kv_heads = (uint32_t)value[4],
        .head_dim = (uint32_t)(value[0] / value[3]),
        .experts = 1,
        .top_k = 1,
        .vocab_size = (uint32_t)value[5],
        .max_positions = (uint32_t)value[6],
        .norm_eps = 1e-5,
        .rope_theta = 1e4,
        .bos_id = 1,
        .eos_id = 2,
        .dtype = HM_DTYPE_F32,
    };
    return HM_OK;
}

/* Where each kind begins. The header's limits keep the sum far below 2^64 floats. */
static int place_tensors(struct source *source, struct hm_error *err)
{
    static const enum hm_weight_kind order[] = {
        HM_WEIGHT_EMBED, HM_WEIGHT_INPUT_NORM, HM_WEIGHT_Q,         HM_WEIGHT_K,
        HM_WEIGHT_V,     HM_WEIGHT_O,          HM_WEIGHT_POST_NORM, HM_WEIGHT_W1,
        HM_WEIGHT_W2,    HM_WEIGHT_W3,         HM_WEIGHT_NORM,
    };
    const struct hm_arch *arch = &source->arch;
    uint64_t at = 0;

    for (size_t i = 0; i < hm_arch_slot_count(arch);
         i++) { /* the sizes, from the last layer's slots */
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(arch, i, &slot, name);
        source->layer_size[slot.kind] = (uint64_t)slot.rows * slot.cols;
    }
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        bool once = order[i] == HM_WEIGHT_EMBED || order[i] == HM_WEIGHT_NORM;
        source->offset[order[i]] = at;
        at += source->layer_size[order[i]] * (once ? 1 : arch->layers);
    }
    at +=
        (uint64_t)arch->max_positions * arch->head_dim; /* cosines and sines of half a head each */
    source->offset[HM_WEIGHT_HEAD] = source->shared ? source->offset[HM_WEIGHT_EMBED] : at;
    if (!source->shared)
        at += source->layer_size[HM_WEIGHT_HEAD];
    if (source->map.size_bytes != HEADER_BYTES + at * sizeof(float))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': holds %" PRIu64 " bytes, its header speaks of %" PRIu64
                       "; it is truncated or not a llama2.c checkpoint",
                       source->path, source->map.size_bytes, HEADER_BYTES + at * sizeof(float));
    return HM_OK;
}

/* The file's row that becomes row r of wq or wk: row p*hs/2 + i of a head was row 2i + p. */
static uint32_t rotary_row(uint32_t row, uint32_t head_dim)
{
    uint32_t in_head = row % head_dim;
    uint32_t half = head_dim / 2;

    return row - in_head + 2 * (in_head % half) + in_head / half;
}

static int write_tensor(const struct source *source, const struct hm_weight_slot *slot,
                        const char *name, struct hm_folder_writer *writer, struct hm_error *err)
{
    const struct hm_arch *arch = &source->arch;
    uint64_t first = source->offset[slot->kind] + slot->layer * source->layer_size[slot->kind];
    const uint8_t *data = source->map.data + HEADER_BYTES + first * sizeof(float);
    size_t row_bytes = slot->cols * sizeof(float);
    bool rotary = slot->kind == HM_WEIGHT_Q || slot->kind == HM_WEIGHT_K;

    for (uint32_t row = 0; row < slot->rows; row++) {
        const uint8_t *at = data + row_bytes * (rotary ? rotary_row(row, arch->head_dim) : row);
        for (size_t i = 0; i < row_bytes; i += sizeof(float)) {
            uint32_t bits;
            memcpy(&bits, at + i, sizeof bits);
            if ((bits & 0x7f800000u) == 0x7f800000u)
                return hm_fail(err, HM_ERR_FORMAT,
                               "'%s': what becomes '%s' holds NaN or Inf in row %" PRIu32,
                               source->path, name, row);
        }
        HM_TRY(hm_folder_writer_data(writer, at, row_bytes, err));
    }
    hm_map_drop(&source->map, (uint64_t)(data - source->map.data), row_bytes * slot->rows);
    return HM_OK;
}

static int write_all(const struct source *source, struct hm_folder_writer *writer, size_t count,
                     const struct hm_ctl *ctl, struct hm_error *err)
{
    struct hm_progress progress = { "convert", "tensors", 0, count, NULL };
    size_t i;

    while ((i = hm_folder_writer_next(writer)) < count) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped while converting '%s'", source->path);
        hm_arch_slot(&source->arch, i, &slot, name);
        HM_TRY(write_tensor(source, &slot, name, writer, err));
        progress.done++;
        hm_ctl_progress(ctl, &progress);
    }
    return HM_OK;
}

static int write_weights(const struct source *source, const char *out_dir, const struct hm_ctl *ctl,
                         struct hm_error *err)
{
    size_t count = hm_arch_slot_count(&source->arch);
    struct hm_tensor_spec *specs = hm_calloc(HM_MEM_TENSOR, count, sizeof *specs);
    struct hm_folder_writer *writer = NULL;
    int status = HM_OK;

    if (!specs)
        return hm_fail_nomem(err, "converting '%s'", source->path);
    for (size_t i = 0; i < count && status == HM_OK; i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES];
        hm_arch_slot(&source->arch, i, &slot, name);
        specs[i].dtype = HM_DTYPE_F32;
        specs[i].n_dims = slot.cols == 1 ? 1 : 2;
        specs[i].shape[0] = slot.rows;
        specs[i].shape[1] = slot.cols;
        status = hm_format(&specs[i].name, err, "%s.weight", name);
    }
    if (status == HM_OK)
        status = hm_folder_writer_open(out_dir, specs, count, SHARD_BYTES, &writer, err);
    if (status == HM_OK)
        status = write_all(source, writer, count, ctl, err);
    if (status == HM_OK) {
        status = hm_folder_writer_finish(writer, false, err);
        writer = NULL;
    }
    hm_folder_writer_abort(writer);
    for (size_t i = 0; i < count; i++)
        hm_free(specs[i].name);
    hm_free(specs);
    return status;
}

static int write_config(const struct source *source, const char *out_dir, struct hm_error *err)
{
    json_t *config = NULL;

    HM_TRY(hm_arch_config_new(&source->arch, &config, err));
    int status = hm_config_write(config, out_dir, err);
    json_decref(config);
    HM_TRY(status);
    config = json_pack("{s:I, s:I}", "bos_token_id", (json_int_t)source->arch.bos_id,
                       "eos_token_id", (json_int_t)source->arch.eos_id);
    status = hm_json_save_in(out_dir, "generation_config.json", config, err);
    json_decref(config);
    return status;
}

static int copy_tokenizer(const char *path, const char *out_dir, struct hm_error *err)
{
    char *to = NULL;

    if (hm_path_is_dir(path))
        return hm_model_files_copy(path, out_dir, err);
    if (hm_text_ends(path, ".bin"))
        return hm_fail(
            err, HM_ERR_USAGE,
            "'%s': llama2.c's own tokenizer file is not read; give the SentencePiece model "
            "(.model) it was made from",
            path);
    HM_TRY(hm_path_join(&to, out_dir,
                        hm_text_ends(path, ".json") ? "tokenizer.json" : "tokenizer.model", err));
    int status = hm_file_copy(path, to, err);
    hm_free(to);
    return status;
}

int hm_llama2c_import(const char *bin_path, const char *tokenizer_path_or_null, const char *out_dir,
                      const struct hm_ctl *ctl, struct hm_error *err)
{
    struct source source = { .path = bin_path };

    HM_TRY(hm_map_open(bin_path, &source.map, err));
    int status = read_header(&source, err);
    if (status == HM_OK)
        status = place_tensors(&source, err);
    if (status == HM_OK)
        status = hm_dir_make(out_dir, err);
    if (status == HM_OK && tokenizer_path_or_null)
        status = copy_tokenizer(tokenizer_path_or_null, out_dir, err);
    if (status == HM_OK)
        status = write_weights(&source, out_dir, ctl, err);
    if (status == HM_OK)
        status = write_config(&source, out_dir, err);
    hm_map_close(&source.map);
    return status;
}
