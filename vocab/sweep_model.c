/* SPDX-License-Identifier: MIT */
/*
 * The union of all vocabularies of a sweep as one model, and from when on each of its pieces
 * exists. Which merges and characters a point has is piece_select.c's rule; what a base keeps of
 * them is piece_merge.c's.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/vocab/piece_merge.h"
#include "piece_encoder.h"
#include "sweep_internal.h"

#define CODE_POINTS 0x110000u
#define NEVER       UINT32_MAX

/* The cut of one point; *selection holds the last one's characters. */
static int point_select(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                        struct hm_sweep_point *point, struct hm_sweep_cut *ret_cut,
                        struct hm_selection *selection, struct hm_error *err)
{
    const struct hm_select_options options = { .pieces = point->pieces,
                                               .singles = point->rule,
                                               .n_singles = point->n_singles };

    hm_selection_release(selection);
    HM_TRY(hm_piece_select(trained, base, &options, selection, err));
    point->singles = selection->n_singles;
    point->merges = selection->n_merges;
    *ret_cut =
        (struct hm_sweep_cut){ (uint32_t)selection->n_singles,
                               (uint32_t)(selection->n_merges + selection->n_merges_skipped) };
    return HM_OK;
}

/* From how many single characters on a code point is a piece: needs[CODE_POINTS]. */
static void needs_fill(const struct hm_spm_model *base, const struct hm_selection *widest,
                       uint32_t *needs)
{
    uint32_t code = 0;

    memset(needs, 0xff, CODE_POINTS * sizeof(*needs)); /* NEVER */
    for (size_t i = 0; i < widest->n_singles; i++) {
        struct hm_str text = widest->piece[widest->n_merges + i].text;
        hm_utf8_decode(text.ptr, text.len, &code);
        needs[code] = (uint32_t)i + 1;
    }
    for (size_t i = 0; base && i < base->count; i++) {
        struct hm_str text = base->piece[i].text;
        if (base->piece[i].type == HM_PIECE_NORMAL &&
            hm_utf8_decode(text.ptr, text.len, &code) == text.len)
            needs[code] = 0;
    }
}

static uint32_t merge_needs(const uint32_t *needs, struct hm_str text)
{
    uint32_t most = 0, code = 0;

    for (size_t at = 0; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (len == 0)
            return NEVER;
        most = needs[code] > most ? needs[code] : most;
        at += len;
    }
    return most;
}

/* All merges before `cut` over characters of the widest choice, then its characters. */
static int union_select(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                        const struct hm_selection *widest, const uint32_t *needs, uint32_t cut,
                        struct hm_selection *ret_union, struct hm_error *err)
{
    size_t n_merges = 0;

    ret_union->piece = hm_alloc_array(HM_MEM_VOCAB, (size_t)cut + widest->n_singles + 1,
                                      sizeof(*ret_union->piece));
    if (!ret_union->piece)
        return hm_fail_nomem(err, "for the pieces of a sweep");
    for (uint32_t i = 0; i < cut; i++) {
        struct hm_str text = trained->merge[i].text;
        if (merge_needs(needs, text) != NEVER && !(base && hm_spm_model_find(base, text) >= 0))
            ret_union->piece[n_merges++] = trained->merge[i];
    }
    if (widest->n_singles > 0)
        memcpy(ret_union->piece + n_merges, widest->piece + widest->n_merges,
               widest->n_singles * sizeof(*widest->piece));
    ret_union->n_merges = n_merges;
    ret_union->n_singles = widest->n_singles;
    return HM_OK;
}

static int model_make(const struct hm_spm_model *base, const struct hm_selection *pieces,
                      struct hm_spm_model *ret_model, struct hm_error *err)
{
    const struct hm_merge_options options = { .han_marks = true }; /* where they were learned */
    struct hm_merge_result merged = { 0 };
    struct hm_spm_model extra = { 0 };
    struct hm_buf bytes = { 0 };
    int r = hm_selection_model(pieces, &bytes, err);

    if (r == HM_OK)
        r = hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, "all pieces of the sweep",
                               &extra, err);
    if (r == HM_OK && base) {
        r = hm_piece_merge(base, &extra, &options, &merged, err);
        if (r == HM_OK)
            r = hm_spm_model_parse(
                (struct hm_str){ merged.model_bytes.ptr, merged.model_bytes.len },
                "all pieces of the sweep", ret_model, err);
    } else if (r == HM_OK) {
        *ret_model = extra;
        extra = (struct hm_spm_model){ 0 };
    }
    hm_merge_result_release(&merged);
    hm_spm_model_release(&extra);
    hm_buf_release(&bytes);
    return r;
}

static bool has_user_pieces(const struct hm_spm_model *model)
{
    for (size_t i = 0; i < model->count; i++)
        if (model->piece[i].type == HM_PIECE_USER)
            return true;
    return false;
}

static int tables_make(struct hm_sweep_union *all, struct hm_error *err)
{
    if (hm_piece_encoder_obstacle(&all->model) || has_user_pieces(&all->model) ||
        !all->model.byte_fallback)
        return hm_fail(err, HM_ERR_FORMAT,
                       "a sweep needs a base tokenizer that is BPE with byte fallback, without "
                       "normaliser and user-defined pieces");
    HM_TRY(hm_span_cuts_make(&all->model, &all->cuts, err));
    HM_TRY(hm_piece_table_make(&all->model, &all->table, err));
    all->symbols = all->model.count + all->table.n_extra;
    all->single = hm_calloc(HM_MEM_VOCAB, all->symbols, sizeof(*all->single));
    all->merge = hm_calloc(HM_MEM_VOCAB, all->symbols, sizeof(*all->merge));
    if (!all->single || !all->merge)
        return hm_fail_nomem(err, "for the pieces of a sweep");
    for (size_t i = 0; i < all->model.count; i++)
        if (all->model.piece[i].type == HM_PIECE_BYTE)
            all->byte_id[hm_spm_byte_of(all->model.piece[i].text)] = (int32_t)i;
    return HM_OK;
}

/* From when on the new pieces exist. */
static void conditions_fill(struct hm_sweep_union *all, const struct hm_bpe_result *trained,
                            const struct hm_spm_model *base, const uint32_t *needs, uint32_t cut)
{
    all->n_base = base ? base->count : HM_SELECTION_META;
    for (size_t i = all->n_base; i < all->model.count; i++)
        all->single[i] = merge_needs(needs, all->model.piece[i].text);
    for (uint32_t i = 0; i < cut; i++) {
        int32_t id = hm_spm_model_find(&all->model, trained->merge[i].text);
        if (id >= 0 && (size_t)id >= all->n_base)
            all->merge[id] = i + 1;
    }
}

int hm_sweep_union_make(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                        struct hm_sweep_point *points, size_t n_points, struct hm_sweep_cut *cut,
                        struct hm_sweep_union *ret_union, struct hm_error *err)
{
    uint32_t *needs = hm_alloc_array(HM_MEM_VOCAB, CODE_POINTS, sizeof(*needs));
    struct hm_selection selection = { 0 }, pieces = { 0 };
    uint32_t last_cut = 0;
    size_t widest = 0;
    int r = needs ? HM_OK : hm_fail_nomem(err, "for the pieces of a sweep");

    for (size_t i = 0; r == HM_OK && i < n_points; i++) {
        r = point_select(trained, base, &points[i], &cut[i], &selection, err);
        last_cut = cut[i].cut > last_cut ? cut[i].cut : last_cut;
        widest = cut[i].n_singles > cut[widest].n_singles ? i : widest;
    }
    if (r == HM_OK)
        r = point_select(trained, base, &points[widest], &cut[widest], &selection, err);
    if (r == HM_OK) {
        needs_fill(base, &selection, needs);
        r = union_select(trained, base, &selection, needs, last_cut, &pieces, err);
    }
    if (r == HM_OK)
        r = model_make(base, &pieces, &ret_union->model, err);
    if (r == HM_OK)
        r = tables_make(ret_union, err);
    if (r == HM_OK)
        conditions_fill(ret_union, trained, base, needs, last_cut);
    hm_selection_release(&pieces);
    hm_selection_release(&selection);
    hm_free(needs);
    return r;
}

void hm_sweep_union_release(struct hm_sweep_union *all)
{
    hm_piece_table_release(&all->table);
    hm_span_cuts_release(&all->cuts);
    hm_spm_model_release(&all->model);
    hm_free(all->single);
    hm_free(all->merge);
    *all = (struct hm_sweep_union){ 0 };
}
