/* SPDX-License-Identifier: MIT */
/*
 * BPE over segments of text. The rule is SentencePiece's: of all neighbours whose concatenation is
 * a piece, merge those with the best score, the leftmost among equals, until there are none. Short
 * segments are merged in an array; long ones (URLs, runs of one character) by a tournament tree
 * over the places, so that time is n log n and memory 20 bytes a character.
 */
#include <string.h>

#include "piece_encoder.h"
#include "piece_table.h"

#define SHORT_SYMBOLS 48u
#define REPLACEMENT   0xfffdu
#define BUFFERED_IDS  512u

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

/* Merge a segment of at most SHORT_SYMBOLS in place; returns how many symbols are left. */
static size_t merge_short(const struct hm_piece_table *table, int32_t *symbol, size_t n)
{
    uint32_t rank[SHORT_SYMBOLS];
    int32_t result[SHORT_SYMBOLS];

    for (size_t i = 0; i + 1 < n; i++)
        rank[i] = hm_piece_table_merge(table, symbol[i], symbol[i + 1], &result[i]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best])
                best = i;
        if (rank[best] == HM_NO_RANK)
            break;
        symbol[best] = result[best];
        n--;
        for (size_t i = best + 1; i < n; i++)
            symbol[i] = symbol[i + 1];
        for (size_t i = best + 1; i + 1 < n; i++) {
            rank[i] = rank[i + 1];
            result[i] = result[i + 1];
        }
        if (best + 1 < n)
            rank[best] = hm_piece_table_merge(table, symbol[best], symbol[best + 1], &result[best]);
        if (best > 0)
            rank[best - 1] =
                hm_piece_table_merge(table, symbol[best - 1], symbol[best], &result[best - 1]);
    }
    return n;
}

struct tournament { /* ranks of the pairs that begin at each place; inner nodes hold the smaller one
                     */
    uint32_t *node; /* [2 * leaves]; leaves from `leaves` on */
    size_t leaves;  /* a power of two */
};

static void tournament_set(struct tournament *tree, size_t place, uint32_t rank)
{
    size_t at = tree->leaves + place;

    tree->node[at] = rank;
    while (at > 1) {
        at /= 2;
        uint32_t left = tree->node[2 * at];
        uint32_t right = tree->node[2 * at + 1];
        tree->node[at] = left < right ? left : right;
    }
}

/* The leftmost place of the smallest rank. */
static size_t tournament_best(const struct tournament *tree)
{
    size_t at = 1;

    while (at < tree->leaves) {
        at *= 2;
        at += tree->node[at] != tree->node[at / 2];
    }
    return at - tree->leaves;
}

static int merge_long(struct run *run)
{
    const struct hm_piece_table *table = &run->encoder->table;
    struct tournament tree = { NULL, SHORT_SYMBOLS };
    int32_t *symbol = run->symbol;
    size_t n = run->n;
    int32_t result = 0;
    int status = HM_OK;

    for (tree.leaves = 64; tree.leaves < n;)
        tree.leaves *= 2;
    tree.node = hm_alloc_array(HM_MEM_SCRATCH, 2 * tree.leaves, sizeof(*tree.node));
    uint32_t *next = hm_alloc_array(HM_MEM_SCRATCH, n, sizeof(*next));
    uint32_t *before = hm_alloc_array(HM_MEM_SCRATCH, n, sizeof(*before));
    if (!tree.node || !next || !before || n >= UINT32_MAX) {
        status = hm_fail_nomem(run->err, "for %zu characters in a row", n);
        goto out;
    }
    memset(tree.node, 0xff, 2 * tree.leaves * sizeof(*tree.node)); /* HM_NO_RANK */
    for (size_t i = 0; i < n; i++) {
        next[i] = (uint32_t)i + 1;
        before[i] = (uint32_t)i - 1; /* of 0: UINT32_MAX */
        if (i + 1 < n)
            tree.node[tree.leaves + i] =
                hm_piece_table_merge(table, symbol[i], symbol[i + 1], &result);
    }
    for (size_t i = tree.leaves - 1; i > 0; i--)
        tree.node[i] =
            tree.node[2 * i] < tree.node[2 * i + 1] ? tree.node[2 * i] : tree.node[2 * i + 1];
    while (tree.node[1] != HM_NO_RANK) {
        size_t at = tournament_best(&tree);
        size_t gone = next[at];
        uint32_t rank = HM_NO_RANK;
        hm_piece_table_merge(table, symbol[at], symbol[gone], &symbol[at]);
        next[at] = next[gone];
        tournament_set(&tree, gone, HM_NO_RANK);
        if (next[at] < n) {
            before[next[at]] = (uint32_t)at;
            rank = hm_piece_table_merge(table, symbol[at], symbol[next[at]], &result);
        }
        tournament_set(&tree, at, rank);
        if (before[at] != UINT32_MAX)
            tournament_set(&tree, before[at],
                           hm_piece_table_merge(table, symbol[before[at]], symbol[at], &result));
    }
    for (size_t i = 0; i < n && status == HM_OK; i = next[i])
        status = emit_symbols(run, &symbol[i], 1);
out:
    hm_free(tree.node);
    hm_free(next);
    hm_free(before);
    return status;
}

static int flush_segment(struct run *run)
{
    size_t n = run->n;

    if (n > SHORT_SYMBOLS)
        HM_TRY(merge_long(run));
    else
        HM_TRY(emit_symbols(run, run->symbol,
                            n > 1 ? merge_short(&run->encoder->table, run->symbol, n) : n));
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
    struct run run = { .encoder = encoder, .cap = 2 * SHORT_SYMBOLS, .ids = ids, .err = err };
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
