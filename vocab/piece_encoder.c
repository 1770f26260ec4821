/* SPDX-License-Identifier: MIT */
/*
 * BPE over segments of text: symbols of a segment are gathered, merged (segment_merge.h) and given
 * out as ids.
 */
#include "piece_encoder.h"
#include "segment_merge.h"

#define REPLACEMENT  0xfffdu
#define BUFFERED_IDS 512u
#define FIRST_ROOM   96u /* symbols */

struct hm_piece_encoder {
    struct hm_piece_table table;
    const struct hm_span_cuts *cuts;
    int32_t byte_id[256]; /* -1 without byte fallback */
    int32_t unk_id;
};

struct run { /* one call of encode */
    const struct hm_piece_encoder *encoder;
    int32_t *symbol; /* the segment; owned */
    size_t n, cap;
    int32_t buffered[BUFFERED_IDS];
    size_t n_buffered;
    bool last_unknown; /* the last id is unk: without byte fallback a run of them is one id */
    struct hm_ids *ids;
    struct hm_error *err;
};

bool hm_piece_encoder_fits(const struct hm_spm_model *model)
{
    if (!hm_span_cuts_exact(model))
        return false;
    for (size_t i = 0; i < model->count; i++) {
        enum hm_piece_type type = model->piece[i].type;
        if (type == HM_PIECE_USER || type == HM_PIECE_UNUSED)
            return false;
        if (type != HM_PIECE_NORMAL && hm_utf8_count(model->piece[i].text) == 1)
            return false;
    }
    return true;
}

int hm_piece_encoder_make(const struct hm_spm_model *model, const struct hm_span_cuts *cuts,
                          struct hm_piece_encoder **ret_encoder, struct hm_error *err)
{
    struct hm_piece_encoder *encoder = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*encoder));

    if (!encoder)
        return hm_fail_nomem(err, "for an encoder");
    encoder->cuts = cuts;
    encoder->unk_id = model->unk_id;
    memset(encoder->byte_id, 0xff, sizeof(encoder->byte_id));
    for (size_t i = 0; i < model->count; i++)
        if (model->piece[i].type == HM_PIECE_BYTE)
            encoder->byte_id[hm_spm_byte_of(model->piece[i].text)] = (int32_t)i;
    int status = hm_piece_table_make(model, &encoder->table, err);
    if (status == HM_OK)
        *ret_encoder = encoder;
    else
        hm_piece_encoder_free(encoder);
    return status;
}

void hm_piece_encoder_free(struct hm_piece_encoder *encoder)
{
    if (!encoder)
        return;
    hm_piece_table_release(&encoder->table);
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

static uint32_t rule_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    return hm_piece_table_merge(context, left, right, ret_result);
}

static void rule_merged(void *context, int32_t left, int32_t right, int32_t result)
{
    (void)context, (void)left, (void)right, (void)result;
}

static int flush_segment(struct run *run)
{
    const struct hm_segment_rule rule = { rule_rank, rule_merged };
    size_t n = run->n;

    HM_TRY(hm_segment_merge(rule, (void *)&run->encoder->table, run->symbol, &n, run->err));
    HM_TRY(emit_symbols(run, run->symbol, n));
    run->n = 0;
    return HM_OK;
}

static int push_symbol(struct run *run, int32_t symbol)
{
    if (run->n == run->cap) {
        int32_t *grown =
            hm_realloc(HM_MEM_SCRATCH, run->symbol, 2 * run->cap * sizeof(*run->symbol));
        if (!grown)
            return hm_fail_nomem(run->err, "for %zu characters in a row", 2 * run->cap);
        run->symbol = grown;
        run->cap *= 2;
    }
    run->symbol[run->n++] = symbol;
    return HM_OK;
}

static int encode_text(struct run *run, bool prefix, struct hm_str text)
{
    const struct hm_piece_encoder *encoder = run->encoder;
    uint32_t before = HM_SPM_SPACE_CODE;

    for (size_t at = 0; at < text.len || prefix;) {
        uint32_t code = HM_SPM_SPACE_CODE;
        if (!prefix) {
            unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
            at += len ? len : 1;
            code = len == 0 ? REPLACEMENT : code == ' ' ? HM_SPM_SPACE_CODE : code;
        }
        prefix = false;
        int32_t symbol = hm_piece_table_symbol(&encoder->table, code);
        if (run->n > 0 && (symbol < 0 || !hm_span_joins(encoder->cuts, before, code)))
            HM_TRY(flush_segment(run));
        if (symbol < 0)
            HM_TRY(emit_unknown(run, code));
        else
            HM_TRY(push_symbol(run, symbol));
        before = code;
    }
    HM_TRY(flush_segment(run));
    return flush_ids(run);
}

int hm_piece_encoder_encode(const struct hm_piece_encoder *encoder, bool prefix, struct hm_str text,
                            struct hm_ids *ids, struct hm_error *err)
{
    struct run run = { .encoder = encoder, .cap = FIRST_ROOM, .ids = ids, .err = err };
    size_t count = ids->count;

    if (text.len == 0)
        return HM_OK;
    run.symbol = hm_alloc_array(HM_MEM_SCRATCH, run.cap, sizeof(*run.symbol));
    if (!run.symbol)
        return hm_fail_nomem(err, "for an encoder");
    int status = encode_text(&run, prefix, text);
    hm_free(run.symbol);
    if (status < 0)
        ids->count = count;
    return status;
}
