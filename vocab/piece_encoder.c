/* SPDX-License-Identifier: MIT */
/*
 * BPE over segments of text. A segment that is a piece is one id, where that piece encodes to
 * itself (whole_pieces.h); others are merged (segment_merge.h). Where segments end, a filter tells
 * (span_filter.h), for ASCII small tables of its own.
 */
#include "piece_encoder.h"
#include "segment_merge.h"
#include "span_filter.h"
#include "user_pieces.h"
#include "whole_pieces.h"

#define REPLACEMENT  0xfffdu
#define BUFFERED_IDS 512u
#define FIRST_ROOM   96u /* symbols */
#define NOT_ASCII    128u

struct hm_piece_encoder {
    struct hm_piece_table table;
    struct hm_span_filter filter;
    struct hm_user_pieces user;
    struct hm_whole_pieces whole;
    int32_t byte_id[256]; /* -1 without byte fallback */
    int32_t unk_id;
    int32_t ascii_symbol[128];   /* ' ' is U+2581 */
    uint64_t ascii_join[128][2]; /* bit b of row a: a piece holds a and then b */
};

struct dropout { /* merges left out at random */
    const struct hm_piece_table *table;
    struct hm_rng_key key;
    uint64_t limit; /* of 32 random bits */
    uint64_t drawn;
    uint32_t bits[4];
};

struct run { /* one call of encode */
    const struct hm_piece_encoder *encoder;
    int32_t *symbol; /* the segment; owned */
    size_t n, cap;
    uint64_t hash; /* of the segment */
    int32_t buffered[BUFFERED_IDS];
    size_t n_buffered;
    bool last_unknown;       /* the last id is unk: without byte fallback a run of them is one id */
    struct dropout *dropout; /* or NULL */
    struct hm_ids *ids;
    struct hm_error *err;
};

/* It is found in the text before spaces become U+2581 and malformed bytes U+FFFD. */
static bool user_piece_fits(struct hm_str text)
{
    uint32_t code = 0;

    for (size_t at = 0; at < text.len;) {
        at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (code == ' ' || code == HM_SPM_SPACE_CODE || code == REPLACEMENT)
            return false;
    }
    return true;
}

const char *hm_piece_encoder_obstacle(const struct hm_spm_model *model)
{
    if (model->kind != HM_SPM_BPE)
        return "the model is not BPE";
    if (model->has_charsmap)
        return "the model's normaliser replaces characters";
    if (!hm_span_cuts_exact(model))
        return "the model treats spaces in a way of its own";
    for (size_t i = 0; i < model->count; i++) {
        enum hm_piece_type type = model->piece[i].type;
        if (type == HM_PIECE_UNUSED)
            return "the model has unused pieces";
        if (type == HM_PIECE_USER && !model->by_merges && !user_piece_fits(model->piece[i].text))
            return "a user-defined piece holds a space or U+FFFD";
        if (type != HM_PIECE_NORMAL && type != HM_PIECE_USER &&
            hm_utf8_count(model->piece[i].text) == 1)
            return "a meta piece is a single character";
    }
    return NULL;
}

static uint32_t rule_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    return hm_piece_table_merge(context, left, right, ret_result);
}

static void rule_merged(void *context, int32_t left, int32_t right, int32_t result)
{
    (void)context, (void)left, (void)right, (void)result;
}

static const struct hm_segment_rule rule = { rule_rank, rule_merged, NULL };

static uint32_t dropout_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    const struct dropout *dropout = context;

    return hm_piece_table_merge(dropout->table, left, right, ret_result);
}

/* The counter goes through a text merge by merge, so that its key is all that decides. */
static bool dropout_skip(void *context)
{
    struct dropout *dropout = context;

    if (dropout->drawn % 4 == 0)
        hm_rng_block(dropout->key, dropout->drawn / 4, dropout->bits);
    return dropout->bits[dropout->drawn++ % 4] < dropout->limit;
}

static const struct hm_segment_rule dropout_rule = { dropout_rank, rule_merged, dropout_skip };

static uint32_t ascii_code(uint32_t byte)
{
    return byte == ' ' ? HM_SPM_SPACE_CODE : byte;
}

static void ascii_make(const struct hm_span_cuts *cuts, struct hm_piece_encoder *encoder)
{
    for (uint32_t a = 0; a < NOT_ASCII; a++) {
        encoder->ascii_symbol[a] = hm_piece_table_symbol(&encoder->table, ascii_code(a));
        for (uint32_t b = 0; b < NOT_ASCII; b++)
            if (hm_span_joins(cuts, a, b))
                encoder->ascii_join[a][b / 64] |= (uint64_t)1 << b % 64;
    }
}

int hm_piece_encoder_make(const struct hm_spm_model *model, const struct hm_span_cuts *cuts,
                          struct hm_piece_encoder **ret_encoder, struct hm_error *err)
{
    struct hm_piece_encoder *encoder = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*encoder));

    if (!encoder)
        return hm_fail_nomem(err, "for an encoder");
    encoder->unk_id = model->unk_id;
    memset(encoder->byte_id, 0xff, sizeof(encoder->byte_id));
    for (size_t i = 0; i < model->count; i++)
        if (model->piece[i].type == HM_PIECE_BYTE)
            encoder->byte_id[hm_spm_byte_of(model->piece[i].text)] = (int32_t)i;
    /* added tokens of a tokenizer.json are cut out before (text_before.h) */
    int status = model->by_merges ? (int)HM_OK : hm_user_pieces_make(model, &encoder->user, err);
    if (status == HM_OK)
        status = hm_piece_table_make(model, &encoder->table, err);
    if (status == HM_OK)
        status = hm_whole_pieces_make(model, &encoder->table, &encoder->whole, err);
    if (status == HM_OK)
        status = hm_span_filter_make(cuts, &encoder->filter, err);
    if (status == HM_OK) {
        ascii_make(cuts, encoder);
        *ret_encoder = encoder;
    } else {
        hm_piece_encoder_free(encoder);
    }
    return status;
}

void hm_piece_encoder_free(struct hm_piece_encoder *encoder)
{
    if (!encoder)
        return;
    hm_user_pieces_release(&encoder->user);
    hm_piece_table_release(&encoder->table);
    hm_whole_pieces_release(&encoder->whole);
    hm_span_filter_release(&encoder->filter);
    hm_free(encoder);
}

static int flush_ids(struct run *run)
{
    HM_TRY(hm_ids_append(run->ids, run->buffered, run->n_buffered, run->err));
    run->n_buffered = 0;
    return HM_OK;
}

static int emit_id(struct run *run, int32_t id)
{
    if (run->n_buffered == BUFFERED_IDS)
        HM_TRY(flush_ids(run));
    run->buffered[run->n_buffered++] = id;
    run->last_unknown = false;
    return HM_OK;
}

/* A character that is no piece: its bytes, or the unknown piece once for a run of them. */
static int emit_unknown(struct run *run, uint32_t code)
{
    char bytes[4];
    unsigned len = hm_utf8_encode(code, bytes);

    if (run->encoder->byte_id[0] < 0) {
        if (!run->last_unknown)
            HM_TRY(emit_id(run, run->encoder->unk_id));
        run->last_unknown = true;
        return HM_OK;
    }
    for (unsigned i = 0; i < len; i++)
        HM_TRY(emit_id(run, run->encoder->byte_id[(unsigned char)bytes[i]]));
    return HM_OK;
}

static int emit_symbols(struct run *run, const int32_t *symbol, size_t n)
{
    const struct hm_piece_table *table = &run->encoder->table;

    for (size_t i = 0; i < n; i++) {
        if ((size_t)symbol[i] < table->pieces)
            HM_TRY(emit_id(run, symbol[i]));
        else
            HM_TRY(emit_unknown(run, table->extra[(size_t)symbol[i] - table->pieces]));
    }
    return HM_OK;
}

/* The segment of run->n symbols. */
static int encode_segment(struct run *run)
{
    size_t n = run->n;

    if (run->dropout) {
        HM_TRY(hm_segment_merge(dropout_rule, run->dropout, run->symbol, &n, run->err));
        return emit_symbols(run, run->symbol, n);
    }
    if (n > 1 && n <= HM_WHOLE_MOST) {
        int32_t id = hm_whole_pieces_find(&run->encoder->whole, run->hash, run->symbol, n);
        if (id >= 0)
            return emit_id(run, id);
    }
    HM_TRY(hm_segment_merge(rule, (void *)&run->encoder->table, run->symbol, &n, run->err));
    return emit_symbols(run, run->symbol, n);
}

static inline int flush_segment(struct run *run)
{
    int32_t first = run->symbol[0];
    int status = HM_OK;

    if (run->n == 1 && (size_t)first < run->encoder->table.pieces)
        status = emit_id(run, first);
    else if (run->n > 0)
        status = encode_segment(run);
    run->n = 0;
    return status;
}

static int room_grow(struct run *run)
{
    int32_t *grown = hm_realloc(HM_MEM_SCRATCH, run->symbol, 2 * run->cap * sizeof(*run->symbol));

    if (!grown)
        return hm_fail_nomem(run->err, "for %zu characters in a row", 2 * run->cap);
    run->symbol = grown;
    run->cap *= 2;
    return HM_OK;
}

/* The next character; `joins`: a piece holds it behind the one before. */
static inline int char_add(struct run *run, uint32_t code, int32_t symbol, bool joins)
{
    if (run->n > 0 && (symbol < 0 || !joins))
        HM_TRY(flush_segment(run));
    if (symbol < 0)
        return emit_unknown(run, code);
    if (run->n == run->cap)
        HM_TRY(room_grow(run));
    run->hash = hm_whole_hash(run->n > 0 ? run->hash : 0, symbol);
    run->symbol[run->n++] = symbol;
    return HM_OK;
}

/* Three bytes of U+1000 to U+CFFF, which need no further look; else 0. */
static inline uint32_t triple(const unsigned char *at)
{
    uint32_t lead = at[0], second = at[1], third = at[2];

    if (lead < 0xe1 || lead > 0xec || (second & 0xc0) != 0x80 || (third & 0xc0) != 0x80)
        return 0;
    return (lead & 0x0f) << 12 | (second & 0x3f) << 6 | (third & 0x3f);
}

/* A character that is not ASCII, and where the next one is. */
static inline size_t code_read(struct hm_str text, size_t at, uint32_t *ret_code)
{
    *ret_code = text.len - at >= 3 ? triple((const unsigned char *)text.ptr + at) : 0;
    if (*ret_code != 0)
        return at + 3;
    unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, ret_code);
    if (len > 0)
        return at + len;
    *ret_code = REPLACEMENT;
    return at + 1;
}

static int encode_text(struct run *run, bool prefix, struct hm_str text)
{
    const struct hm_piece_encoder *encoder = run->encoder;
    uint32_t ascii = NOT_ASCII; /* the character before, where it is one; ' ' for U+2581 */
    uint32_t before = HM_SPM_SPACE_CODE;

    if (prefix) {
        ascii = ' ';
        HM_TRY(char_add(run, before, encoder->ascii_symbol[' '], false));
    }
    for (size_t at = 0; at < text.len;) {
        uint32_t code = (unsigned char)text.ptr[at];
        if (code < NOT_ASCII) {
            bool joins = ascii < NOT_ASCII
                             ? encoder->ascii_join[ascii][code / 64] >> code % 64 & 1
                             : hm_span_filter_joins(&encoder->filter, before, ascii_code(code));
            HM_TRY(char_add(run, ascii_code(code), encoder->ascii_symbol[code], joins));
            ascii = code;
            before = ascii_code(code);
            at++;
            continue;
        }
        at = code_read(text, at, &code);
        HM_TRY(char_add(run, code, hm_piece_table_symbol(&encoder->table, code),
                        hm_span_filter_joins(&encoder->filter, before, code)));
        ascii = NOT_ASCII;
        before = code;
    }
    return flush_segment(run);
}

/* User-defined pieces, and what stands between them. */
static int encode_parts(struct run *run, bool prefix, struct hm_str text)
{
    size_t at = 0;

    for (;;) {
        int32_t id = -1;
        size_t end = hm_user_pieces_find(&run->encoder->user, text, at, &id);
        HM_TRY(encode_text(run, prefix && at == 0, (struct hm_str){ text.ptr + at, end - at }));
        if (end == text.len)
            return flush_ids(run);
        HM_TRY(emit_id(run, id));
        at = end + run->encoder->user.model->piece[id].text.len;
    }
}

static int encode_run(struct run *run, bool prefix, struct hm_str text)
{
    size_t count = run->ids->count;

    if (text.len == 0)
        return HM_OK;
    run->cap = FIRST_ROOM;
    run->symbol = hm_alloc_array(HM_MEM_SCRATCH, run->cap, sizeof(*run->symbol));
    if (!run->symbol)
        return hm_fail_nomem(run->err, "for an encoder");
    int status = encode_parts(run, prefix, text);
    hm_free(run->symbol);
    if (status < 0)
        run->ids->count = count;
    return status;
}

int hm_piece_encoder_encode(const struct hm_piece_encoder *encoder, bool prefix, struct hm_str text,
                            struct hm_ids *ids, struct hm_error *err)
{
    struct run run = { .encoder = encoder, .ids = ids, .err = err };

    return encode_run(&run, prefix, text);
}

int hm_piece_encoder_dropout(const struct hm_piece_encoder *encoder, bool prefix,
                             struct hm_str text, double rate, struct hm_rng_key key,
                             struct hm_ids *ids, struct hm_error *err)
{
    struct dropout dropout = { .table = &encoder->table,
                               .key = key,
                               .limit = (uint64_t)(rate * 4294967296.0 + 0.5) };
    struct run run = { .encoder = encoder, .ids = ids, .err = err, .dropout = &dropout };

    return encode_run(&run, prefix, text);
}
