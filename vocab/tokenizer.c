/* SPDX-License-Identifier: MIT */
/*
 * The tokenizer of a SentencePiece model. Identity BPE, the kind that matters here, is encoded by
 * piece_encoder.c; everything else, and all decoding, goes through libsentencepiece: one processor
 * for text that begins (it may add the dummy prefix), one for text that goes on. Long texts are cut
 * for the library where no piece can span (span_cut.c), which keeps time and memory linear and the
 * ids the same; models whose normaliser looks across such places are encoded whole.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "hanmix/vocab/tokenizer.h"
#include "json_parts.h"
#include "piece_encoder.h"
#include "spm_json.h"
#include "spm_shim.h"
#include "text_before.h"

#define PART_BYTES        2048u      /* text handed to the library at once, up to the next cut */
#define VERIFY_BYTES      (4u << 20) /* text verified of one document, up to the next cut */
#define PART_STREAM       ((uint64_t)1 << 44) /* keys of parts of a text lie so far apart */
#define UNCUT_LIMIT_BYTES (64u << 20)         /* text of a model that cannot be cut */

struct size_of_token {
    uint16_t bytes, chars;
};

struct tokenizer_engine {
    void *begin;   /* processor with the model's own dummy prefix */
    void *bare;    /* the same without; NULL when none is added or with an encoder of our own */
    bool cuttable; /* cuts hold the pairs */
    struct hm_span_cuts cuts;
    struct hm_piece_encoder *encoder; /* NULL for models it does not fit */
    struct size_of_token *size;       /* per id */
};

/* U+2581 stands for one space; everything else for itself. */
static struct size_of_token text_size(struct hm_str text)
{
    size_t bytes = text.len;
    size_t chars = 0;
    uint32_t code;

    for (size_t at = 0; at < text.len; chars++) {
        at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (code == HM_SPM_SPACE_CODE)
            bytes -= strlen(HM_SPM_SPACE) - 1;
    }
    return (struct size_of_token){ (uint16_t)bytes, (uint16_t)chars };
}

static int make_sizes(const struct hm_spm_model *model, struct tokenizer_engine *engine,
                      struct hm_error *err)
{
    engine->size = hm_calloc(HM_MEM_VOCAB, model->count, sizeof(*engine->size));
    if (!engine->size)
        return hm_fail_nomem(err, "for a tokenizer");
    for (size_t i = 0; i < model->count; i++) {
        const struct hm_piece *piece = &model->piece[i];
        if (piece->text.len > UINT16_MAX)
            return hm_fail(err, HM_ERR_FORMAT, "piece %zu has %zu bytes; at most %d are read", i,
                           piece->text.len, UINT16_MAX);
        if (piece->type == HM_PIECE_BYTE)
            engine->size[i] =
                (struct size_of_token){ 1, (hm_spm_byte_of(piece->text) & 0xc0) != 0x80 };
        else if (piece->type != HM_PIECE_CONTROL && piece->type != HM_PIECE_UNKNOWN)
            engine->size[i] = text_size(piece->text);
    }
    return HM_OK;
}

/* Bytes behind a model that override its add_dummy_prefix: a later scalar of a sub-message wins. */
static int open_bare(const struct hm_spm_model *model, const char *what, void **ret_processor,
                     struct hm_error *err)
{
    static const char no_prefix[] = "\x1a\x02\x18\x00";
    struct hm_buf bytes = { 0 };
    int status = hm_buf_append(&bytes, model->bytes.ptr, model->bytes.len, err);

    if (status == HM_OK)
        status = hm_buf_append(&bytes, no_prefix, 4, err);
    if (status == HM_OK)
        status =
            hm_spm_shim_open((struct hm_str){ bytes.ptr, bytes.len }, what, ret_processor, err);
    hm_buf_release(&bytes);
    return status;
}

static int make_engine(struct hm_tokenizer *tokenizer, const char *what, struct hm_error *err)
{
    const struct hm_spm_model *model = &tokenizer->model;
    struct tokenizer_engine *engine = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*engine));

    tokenizer->engine = engine;
    if (!engine)
        return hm_fail_nomem(err, "for a tokenizer");
    HM_TRY(make_sizes(model, engine, err));
    HM_TRY(hm_spm_shim_open((struct hm_str){ model->bytes.ptr, model->bytes.len }, what,
                            &engine->begin, err));
    engine->cuttable = hm_span_cuts_exact(model);
    if (engine->cuttable)
        HM_TRY(hm_span_cuts_make(model, &engine->cuts, err));
    if (!hm_tokenizer_obstacle(model))
        return hm_piece_encoder_make(model, &engine->cuts, &engine->encoder, err);
    return model->add_dummy_prefix ? open_bare(model, what, &engine->bare, err) : HM_OK;
}

static int open_model(struct hm_spm_model *model, const char *what,
                      struct hm_tokenizer **ret_tokenizer, struct hm_error *err)
{
    struct hm_tokenizer *tokenizer = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*tokenizer));
    int status;

    if (!tokenizer) {
        hm_spm_model_release(model);
        return hm_fail_nomem(err, "for a tokenizer");
    }
    tokenizer->model = *model;
    status = make_engine(tokenizer, what, err);
    if (status == HM_OK)
        *ret_tokenizer = tokenizer;
    else
        hm_tokenizer_free(tokenizer);
    return status;
}

const char *hm_tokenizer_obstacle(const struct hm_spm_model *model)
{
    return hm_piece_encoder_obstacle(model);
}

static int load_json(const char *path, struct hm_spm_model *ret_model, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };
    struct hm_buf bytes = { 0 };
    json_t *root = NULL;
    int status = hm_file_read(path, HM_TOKENIZER_JSON_MAX_BYTES, &bytes, err);
    struct hm_str text = { bytes.ptr, bytes.len };

    if (status == HM_OK)
        status = hm_json_parse(text, path, &root, err);
    if (status == HM_OK)
        status = hm_spm_json_read(root, path, text, &model, err);
    json_decref(root);
    hm_buf_release(&bytes);
    if (status == HM_OK)
        status = hm_format(&model.path, err, "%s", path);
    if (status == HM_OK)
        *ret_model = model;
    else
        hm_spm_model_release(&model);
    return status;
}

int hm_tokenizer_model_load(const char *path, struct hm_spm_model *ret_model, struct hm_error *err)
{
    char *json = NULL;
    bool has_model = false;

    if (!hm_path_is_dir(path))
        return hm_text_ends(path, ".json") ? load_json(path, ret_model, err)
                                           : hm_spm_model_load(path, ret_model, err);
    HM_TRY(hm_dir_holds(path, "tokenizer.model", &has_model, err));
    HM_TRY(hm_path_join(&json, path, "tokenizer.json", err));
    int status = has_model || !hm_path_exists(json) ? hm_spm_model_load(path, ret_model, err)
                                                    : load_json(json, ret_model, err);
    hm_free(json);
    return status;
}

int hm_tokenizer_open(const char *path, struct hm_tokenizer **ret_tokenizer, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };

    HM_TRY(hm_tokenizer_model_load(path, &model, err));
    return open_model(&model, path, ret_tokenizer, err);
}

int hm_tokenizer_open_bytes(struct hm_str model_bytes, const char *what,
                            struct hm_tokenizer **ret_tokenizer, struct hm_error *err)
{
    struct hm_spm_model model = { 0 };

    HM_TRY(hm_spm_model_parse(model_bytes, what, &model, err));
    return open_model(&model, what, ret_tokenizer, err);
}

void hm_tokenizer_free(struct hm_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    struct tokenizer_engine *engine = tokenizer->engine;
    if (engine) {
        hm_spm_shim_close(engine->begin);
        hm_spm_shim_close(engine->bare);
        hm_piece_encoder_free(engine->encoder);
        hm_span_cuts_release(&engine->cuts);
        hm_free(engine->size);
        hm_free(engine);
    }
    hm_spm_model_release(&tokenizer->model);
    hm_free(tokenizer);
}

/* Without byte fallback the library writes a run of unknown characters as one id. */
static void join_unknown(const struct hm_spm_model *model, struct hm_ids *ids, size_t first,
                         size_t joint)
{
    if (model->byte_fallback || joint == first || joint == ids->count)
        return;
    if (ids->id[joint - 1] != model->unk_id || ids->id[joint] != model->unk_id)
        return;
    memmove(&ids->id[joint], &ids->id[joint + 1], (ids->count - joint - 1) * sizeof(*ids->id));
    ids->count--;
}

static int encode_parts(const struct hm_tokenizer *tokenizer, const void *processor,
                        struct hm_str text, struct hm_ids *ids, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;
    size_t first = ids->count;

    for (size_t at = 0; at < text.len;) {
        struct hm_str rest = { text.ptr + at, text.len - at };
        size_t len = hm_span_cut_find(&engine->cuts, rest, PART_BYTES);
        size_t joint = ids->count;
        HM_TRY(hm_spm_shim_encode(processor, (struct hm_str){ rest.ptr, len }, ids, err));
        join_unknown(&tokenizer->model, ids, first, joint);
        if (engine->bare)
            processor = engine->bare;
        at += len;
    }
    return HM_OK;
}

static int encode_by_library(const struct hm_tokenizer *tokenizer, bool bare, struct hm_str text,
                             struct hm_ids *ids, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;
    const void *processor = bare && engine->bare ? engine->bare : engine->begin;
    size_t before = ids->count;

    if (!engine->cuttable && text.len > UNCUT_LIMIT_BYTES)
        return hm_fail(err, HM_ERR_FORMAT,
                       "a text of %zu bytes: a vocabulary with a normaliser or of another kind "
                       "than BPE takes at most %u at once; cut the text into documents",
                       text.len, UNCUT_LIMIT_BYTES);
    int status = engine->cuttable ? encode_parts(tokenizer, processor, text, ids, err)
                                  : hm_spm_shim_encode(processor, text, ids, err);
    if (status < 0)
        ids->count = before;
    return status;
}

/* --- text of a tokenizer.json: parts between added tokens --------------------------------------
 */

struct parts { /* one call of encode */
    const struct hm_piece_encoder *encoder;
    struct hm_ids *ids;
    double rate; /* of BPE-dropout; 0: none */
    struct hm_rng_key key;
};

static int part_encode(void *context, bool prefix, struct hm_str text, struct hm_error *err)
{
    struct parts *parts = context;

    if (parts->rate == 0)
        return hm_piece_encoder_encode(parts->encoder, prefix, text, parts->ids, err);
    parts->key.stream += PART_STREAM;
    return hm_piece_encoder_dropout(parts->encoder, prefix, text, parts->rate, parts->key,
                                    parts->ids, err);
}

static int token_put(void *context, int32_t id, struct hm_error *err)
{
    const struct parts *parts = context;

    return hm_ids_append(parts->ids, &id, 1, err);
}

static int encode_json(const struct hm_tokenizer *tokenizer, struct hm_str text, double rate,
                       struct hm_rng_key key, struct hm_ids *ids, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;
    struct parts parts = { engine->encoder, ids, rate, key };
    const struct hm_before_sink sink = { part_encode, token_put, &parts };
    size_t before = ids->count;
    int status = hm_text_before_cut(tokenizer->model.before, text, &sink, err);

    if (status < 0)
        ids->count = before;
    return status;
}

int hm_tokenizer_encode(const struct hm_tokenizer *tokenizer, struct hm_str text,
                        struct hm_ids *ids, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;
    const struct hm_rng_key none = { 0 };

    if (tokenizer->model.before)
        return encode_json(tokenizer, text, 0, none, ids, err);
    if (engine->encoder)
        return hm_piece_encoder_encode(engine->encoder, tokenizer->model.add_dummy_prefix, text,
                                       ids, err);
    return encode_by_library(tokenizer, false, text, ids, err);
}

int hm_tokenizer_encode_bare(const struct hm_tokenizer *tokenizer, struct hm_str text,
                             struct hm_ids *ids, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;

    if (engine->encoder)
        return hm_piece_encoder_encode(engine->encoder, false, text, ids, err);
    return encode_by_library(tokenizer, true, text, ids, err);
}

/* Bytes of the text that the first n of its ids stand for; a dummy prefix is not among them. */
static size_t bytes_before(const struct tokenizer_engine *engine, const struct hm_ids *ids,
                           size_t n, size_t text_bytes)
{
    size_t all = 0, before = 0;

    for (size_t i = 0; i < ids->count; i++) {
        all += engine->size[ids->id[i]].bytes;
        before += i < n ? engine->size[ids->id[i]].bytes : 0;
    }
    size_t excess = all > text_bytes ? all - text_bytes : 0;
    return before > excess ? before - excess : 0;
}

int hm_tokenizer_verify(const struct hm_tokenizer *tokenizer, struct hm_str text,
                        const int32_t *ids, size_t n, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;
    struct hm_ids again = { 0 };
    size_t at = 0;
    bool whole = !engine->cuttable || text.len <= VERIFY_BYTES;

    if (tokenizer->model.by_merges)
        return hm_fail(
            err, HM_ERR_USAGE,
            "set.verify: '%s' is a tokenizer.json, which libsentencepiece does not read; "
            "leave verify out, or give the tokenizer.model",
            tokenizer->model.path);
    if (!whole)
        text.len = hm_span_cut_find(&engine->cuts, text, VERIFY_BYTES);
    int status = hm_spm_shim_encode(engine->begin, text, &again, err);
    while (at < n && at < again.count && ids[at] == again.id[at])
        at++;
    if (status == HM_OK && (at < again.count || (whole && at < n))) {
        size_t byte = bytes_before(engine, &again, at, text.len);
        status = hm_fail(err, HM_ERR_CHECK,
                         "token %zu, at byte %zu of the text, is id %" PRId32
                         ", libsentencepiece gives %" PRId32 " (%zu tokens, by it %zu); report "
                         "this with the text and the tokenizer",
                         at, byte, at < n ? ids[at] : -1, at < again.count ? again.id[at] : -1, n,
                         again.count);
    }
    hm_ids_release(&again);
    return status;
}

int hm_tokenizer_decode(const struct hm_tokenizer *tokenizer, const int32_t *ids, size_t n,
                        struct hm_buf *text, struct hm_error *err)
{
    const struct tokenizer_engine *engine = tokenizer->engine;

    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= tokenizer->model.count)
            return hm_fail(err, HM_ERR_FORMAT,
                           "id %" PRId32 " at place %zu is outside the vocabulary of %zu pieces",
                           ids[i], i, tokenizer->model.count);
    return hm_spm_shim_decode(engine->begin, ids, n, text, err);
}

static int encoder_encode(void *context, struct hm_str text, struct hm_ids *ids,
                          struct hm_error *err)
{
    return hm_tokenizer_encode(context, text, ids, err);
}

static int encoder_verify(void *context, struct hm_str text, const int32_t *ids, size_t n,
                          struct hm_error *err)
{
    return hm_tokenizer_verify(context, text, ids, n, err);
}

static int encoder_dropout(void *context, struct hm_str text, double rate, struct hm_rng_key key,
                           struct hm_ids *ids, struct hm_error *err)
{
    const struct hm_tokenizer *tokenizer = context;
    const struct tokenizer_engine *engine = tokenizer->engine;

    if (tokenizer->model.before)
        return encode_json(tokenizer, text, rate, key, ids, err);
    return hm_piece_encoder_dropout(engine->encoder, tokenizer->model.add_dummy_prefix, text, rate,
                                    key, ids, err);
}

static void encoder_token_size(void *context, int32_t id, uint32_t *ret_bytes, uint32_t *ret_chars)
{
    const struct hm_tokenizer *tokenizer = context;
    const struct tokenizer_engine *engine = tokenizer->engine;
    struct size_of_token size = { 0, 0 };

    if (id >= 0 && (size_t)id < tokenizer->model.count)
        size = engine->size[id];
    *ret_bytes = size.bytes;
    *ret_chars = size.chars;
}

struct hm_text_encoder hm_tokenizer_encoder(const struct hm_tokenizer *tokenizer)
{
    const struct hm_spm_model *model = &tokenizer->model;
    const struct tokenizer_engine *engine = tokenizer->engine;
    struct hm_text_encoder encoder = {
        .context = (void *)(uintptr_t)tokenizer,
        .encode = encoder_encode,
        .verify = encoder_verify,
        .encode_dropout = engine->encoder ? encoder_dropout : NULL,
        .token_size = encoder_token_size,
        .vocab_size = (uint32_t)model->count,
        .bos_id = model->bos_id,
        .eos_id = model->eos_id,
        .unk_id = model->unk_id,
    };

    memcpy(encoder.fingerprint, model->sha256, sizeof(encoder.fingerprint));
    return encoder;
}
