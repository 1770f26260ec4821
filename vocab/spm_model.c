/* SPDX-License-Identifier: MIT */
/*
 * Reading a SentencePiece model file: the wire through protobuf-c, then every rule the library
 * relies on (pieces are text, unique, scores finite, one unknown piece, a sound character map) so
 * that what it is handed later cannot hurt it. Writing is in spm_write.c.
 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "spm.pb-c.h"
#include "spm_private.h"
#include "text_before.h"

struct piece_index { /* open addressing, at most half full */
    char *arena;     /* the texts of all pieces, one after the other */
    int32_t *slot;   /* id or -1 */
    size_t mask;
};

struct wire_memory { /* two allocations a piece; a hostile file could ask for one per two bytes */
    bool failed, too_many;
    size_t allocations;
};

static void *wire_alloc(void *context, size_t size)
{
    struct wire_memory *memory = context;

    memory->too_many = ++memory->allocations > 2 * (size_t)HM_SPM_MAX_PIECES + 64;
    if (memory->too_many)
        return NULL;
    void *block = hm_alloc(HM_MEM_VOCAB, size);

    if (!block)
        memory->failed = true;
    return block;
}

static void wire_free(void *context, void *block)
{
    (void)context;
    hm_free(block);
}

static size_t slot_of(const struct hm_spm_model *model, struct hm_str text)
{
    const struct piece_index *index = model->index;
    size_t slot = (size_t)hm_hash64(text.ptr, text.len, 0) & index->mask;

    while (index->slot[slot] >= 0 && !hm_str_equal(model->piece[index->slot[slot]].text, text))
        slot = (slot + 1) & index->mask;
    return slot;
}

int32_t hm_spm_model_find(const struct hm_spm_model *model, struct hm_str piece)
{
    const struct piece_index *index = model->index;

    return index ? index->slot[slot_of(model, piece)] : -1;
}

int hm_spm_byte_of(struct hm_str text)
{
    static const char digits[] = "0123456789ABCDEF";

    if (text.len != 6 || memcmp(text.ptr, "<0x", 3) != 0 || text.ptr[5] != '>')
        return -1;
    const char *high = memchr(digits, text.ptr[3], 16);
    const char *low = memchr(digits, text.ptr[4], 16);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}

static int check_piece(const Hm__Spm__Piece *wire, size_t id, const char *what,
                       struct hm_error *err)
{
    struct hm_str text = { (const char *)wire->piece.data, wire->piece.len };
    size_t bad;

    if (text.len == 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': piece %zu is empty", what, id);
    if (!hm_utf8_valid(text, &bad))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': piece %zu is not UTF-8 at byte %zu", what, id,
                       bad);
    if (memchr(text.ptr, '\0', text.len))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': piece %zu holds a NUL", what, id);
    if (!isfinite(wire->score))
        return hm_fail(err, HM_ERR_FORMAT, "'%s': piece %zu has a score that is not finite", what,
                       id);
    if (wire->type < HM_PIECE_NORMAL || wire->type > HM_PIECE_BYTE)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': piece %zu has type %" PRId32 "; 1 to 6 are known",
                       what, id, wire->type);
    if (wire->type == HM_PIECE_BYTE && hm_spm_byte_of(text) < 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': piece %zu is a byte but not written <0xNN>", what,
                       id);
    return HM_OK;
}

static int make_index(const Hm__Spm__Model *wire, struct hm_spm_model *model, struct hm_error *err)
{
    struct piece_index *index = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*index));
    size_t bytes = 0;
    size_t slots = 16;

    model->index = index;
    for (size_t i = 0; i < wire->n_pieces; i++)
        bytes += wire->pieces[i]->piece.len;
    while (slots < 2 * wire->n_pieces)
        slots *= 2;
    model->piece = hm_alloc_array(HM_MEM_VOCAB, wire->n_pieces, sizeof(*model->piece));
    if (index) {
        index->mask = slots - 1;
        index->arena = hm_alloc(HM_MEM_VOCAB, bytes);
        index->slot = hm_alloc_array(HM_MEM_VOCAB, slots, sizeof(*index->slot));
    }
    if (!index || !index->arena || !index->slot || !model->piece)
        return hm_fail_nomem(err, "for a vocabulary of %zu pieces", wire->n_pieces);
    memset(index->slot, 0xff, slots * sizeof(*index->slot));
    return HM_OK;
}

/* A repeated text is an error, unless found is there to be told. */
static int take_pieces(const Hm__Spm__Model *wire, const char *what, struct hm_spm_model *model,
                       hm_spm_duplicate_found *found, void *context, struct hm_error *err)
{
    if (wire->n_pieces == 0)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' is no SentencePiece model: it holds no pieces",
                       what);
    if (wire->n_pieces > HM_SPM_MAX_PIECES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' holds %zu pieces; at most %d are read", what,
                       wire->n_pieces, HM_SPM_MAX_PIECES);
    HM_TRY(make_index(wire, model, err));
    struct piece_index *index = model->index;
    char *end = index->arena;
    for (size_t i = 0; i < wire->n_pieces; i++) {
        const Hm__Spm__Piece *from = wire->pieces[i];
        HM_TRY(check_piece(from, i, what, err));
        memcpy(end, from->piece.data, from->piece.len);
        model->piece[i] = (struct hm_piece){ { end, from->piece.len },
                                             from->score,
                                             (enum hm_piece_type)from->type };
        end += from->piece.len;
        model->count = i + 1;
        size_t slot = slot_of(model, model->piece[i].text);
        if (index->slot[slot] < 0) {
            index->slot[slot] = (int32_t)i;
            continue;
        }
        if (!found)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': pieces %" PRId32 " and %zu are the same text '%.*s'", what,
                           index->slot[slot], i, (int)from->piece.len, (char *)from->piece.data);
        struct hm_spm_duplicate duplicate = { model->piece[i].text, index->slot[slot], (int32_t)i };
        HM_TRY(found(context, &duplicate, err));
    }
    return HM_OK;
}

static int32_t meta_id(const struct hm_spm_model *model, protobuf_c_boolean has,
                       ProtobufCBinaryData name, const char *standard, enum hm_piece_type type)
{
    struct hm_str text = has ? (struct hm_str){ (char *)name.data, name.len } : hm_str_of(standard);
    int32_t id = hm_spm_model_find(model, text);

    return id >= 0 && model->piece[id].type == type ? id : -1;
}

/* The library keeps one unknown piece, and byte pieces only, and then all, with byte_fallback. */
static int check_types(struct hm_spm_model *model, const char *what, struct hm_error *err)
{
    size_t unknown = 0;
    size_t bytes = 0;

    for (size_t i = 0; i < model->count; i++) {
        if (model->piece[i].type == HM_PIECE_UNKNOWN) {
            model->unk_id = (int32_t)i;
            unknown++;
        }
        bytes += model->piece[i].type == HM_PIECE_BYTE;
    }
    if (unknown != 1)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has %zu unknown pieces instead of 1", what,
                       unknown);
    if (bytes != (model->byte_fallback ? 256 : 0))
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has %zu byte pieces, and byte fallback is %s",
                       what, bytes, model->byte_fallback ? "on: 256 are needed" : "off");
    return HM_OK;
}

static int take_settings(const Hm__Spm__Model *wire, const char *what, struct hm_spm_model *model,
                         struct hm_error *err)
{
    static const Hm__Spm__TrainerSpec no_trainer = HM__SPM__TRAINER_SPEC__INIT;
    static const Hm__Spm__NormalizerSpec no_normalizer = HM__SPM__NORMALIZER_SPEC__INIT;
    const Hm__Spm__TrainerSpec *trainer = wire->trainer_spec ? wire->trainer_spec : &no_trainer;
    const Hm__Spm__NormalizerSpec *normalizer =
        wire->normalizer_spec ? wire->normalizer_spec : &no_normalizer;
    const Hm__Spm__NormalizerSpec *back = wire->denormalizer_spec;

    if (trainer->model_type < HM_SPM_UNIGRAM || trainer->model_type > HM_SPM_CHAR)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has model type %" PRId32 "; 1 to 4 are known",
                       what, trainer->model_type);
    model->kind = (enum hm_spm_kind)trainer->model_type;
    model->byte_fallback = trainer->byte_fallback;
    model->whitespace_as_suffix = trainer->treat_whitespace_as_suffix;
    model->add_dummy_prefix = normalizer->add_dummy_prefix;
    model->remove_extra_whitespaces = normalizer->remove_extra_whitespaces;
    model->escape_whitespaces = normalizer->escape_whitespaces;
    model->has_charsmap = normalizer->precompiled_charsmap.len > 0;
    model->has_denormalizer = back && back->precompiled_charsmap.len > 0;
    model->normalizer_hash =
        hm_hash64(normalizer->precompiled_charsmap.data, normalizer->precompiled_charsmap.len, 0);
    const ProtobufCBinaryData *maps[2] = { &normalizer->precompiled_charsmap,
                                           back ? &back->precompiled_charsmap : NULL };
    for (size_t i = 0; i < 2; i++)
        if (maps[i] && maps[i]->len > 0)
            HM_TRY(hm_spm_charsmap_check((struct hm_str){ (char *)maps[i]->data, maps[i]->len },
                                         what, err));
    model->bos_id =
        meta_id(model, trainer->has_bos_piece, trainer->bos_piece, "<s>", HM_PIECE_CONTROL);
    model->eos_id =
        meta_id(model, trainer->has_eos_piece, trainer->eos_piece, "</s>", HM_PIECE_CONTROL);
    model->pad_id =
        meta_id(model, trainer->has_pad_piece, trainer->pad_piece, "<pad>", HM_PIECE_CONTROL);
    return check_types(model, what, err);
}

/* The wire message of a file; release it with the same memory. */
static int unpack(struct hm_str bytes, const char *what, struct wire_memory *memory,
                  Hm__Spm__Model **ret_wire, struct hm_error *err)
{
    ProtobufCAllocator allocator = { wire_alloc, wire_free, memory };

    if (bytes.len > HM_SPM_MAX_FILE_BYTES)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' has %zu bytes; at most %u are read", what,
                       bytes.len, HM_SPM_MAX_FILE_BYTES);
    *ret_wire = hm__spm__model__unpack(&allocator, bytes.len, (const uint8_t *)bytes.ptr);
    if (memory->failed)
        return hm_fail_nomem(err, "reading '%s'", what);
    if (memory->too_many)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' holds more records than the %d pieces that are read", what,
                       HM_SPM_MAX_PIECES);
    if (!*ret_wire)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' is no SentencePiece model: its %zu bytes do not parse", what,
                       bytes.len);
    return HM_OK;
}

static void wire_release(Hm__Spm__Model *wire, struct wire_memory *memory)
{
    ProtobufCAllocator allocator = { wire_alloc, wire_free, memory };

    if (wire)
        hm__spm__model__free_unpacked(wire, &allocator);
}

int hm_spm_model_parse(struct hm_str bytes, const char *what, struct hm_spm_model *ret_model,
                       struct hm_error *err)
{
    struct hm_spm_model model = { 0 };
    struct wire_memory memory = { false, false, 0 };
    Hm__Spm__Model *wire = NULL;

    int status = unpack(bytes, what, &memory, &wire, err);
    if (status == HM_OK)
        status = take_pieces(wire, what, &model, NULL, NULL, err);
    if (status == HM_OK)
        status = take_settings(wire, what, &model, err);
    if (status == HM_OK)
        status = hm_sha256_of(bytes.ptr, bytes.len, model.sha256, err);
    if (status == HM_OK)
        status = hm_buf_append(&model.bytes, bytes.ptr, bytes.len, err);
    wire_release(wire, &memory);
    if (status == HM_OK)
        *ret_model = model;
    else
        hm_spm_model_release(&model);
    return status;
}

/* A .model file, or the tokenizer.model of a folder. */
static int read_file(const char *path, char **ret_file, struct hm_buf *ret_bytes,
                     struct hm_error *err)
{
    char *file = NULL;
    int status = hm_path_is_dir(path) ? hm_path_join(&file, path, "tokenizer.model", err)
                                      : hm_format(&file, err, "%s", path);

    if (status == HM_OK)
        status = hm_file_read(file, HM_SPM_MAX_FILE_BYTES, ret_bytes, err);
    if (status == HM_OK)
        *ret_file = file;
    else
        hm_free(file);
    return status;
}

int hm_spm_duplicates_find(const char *path, hm_spm_duplicate_found *found, void *context,
                           struct hm_error *err)
{
    struct hm_spm_model model = { 0 };
    struct wire_memory memory = { false, false, 0 };
    Hm__Spm__Model *wire = NULL;
    struct hm_buf bytes = { 0 };
    char *file = NULL;

    HM_TRY(read_file(path, &file, &bytes, err));
    int status = unpack((struct hm_str){ bytes.ptr, bytes.len }, file, &memory, &wire, err);
    if (status == HM_OK)
        status = take_pieces(wire, file, &model, found, context, err);
    wire_release(wire, &memory);
    hm_spm_model_release(&model);
    hm_buf_release(&bytes);
    hm_free(file);
    return status;
}

int hm_spm_model_load(const char *path, struct hm_spm_model *ret_model, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };
    struct hm_buf bytes = { 0 };
    char *file = NULL;

    HM_TRY(read_file(path, &file, &bytes, err));
    int status = hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, file, &model, err);
    hm_buf_release(&bytes);
    if (status < 0) {
        hm_free(file);
        return status;
    }
    model.path = file;
    *ret_model = model;
    return HM_OK;
}

void hm_spm_model_release(struct hm_spm_model *model)
{
    if (!model)
        return;
    struct piece_index *index = model->index;
    if (index) {
        hm_free(index->arena);
        hm_free(index->slot);
        hm_free(index);
    }
    hm_free(model->piece);
    hm_free(model->merge);
    hm_text_before_free(model->before);
    hm_buf_release(&model->bytes);
    hm_free(model->path);
    *model = (struct hm_spm_model){ 0 };
}
