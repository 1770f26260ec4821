/* SPDX-License-Identifier: MIT */
/*
 * From which old rows each row of a grown matrix comes: the two vocabularies side by side. What is
 * made of them is embed_rows.c.
 */
#include <inttypes.h>

#include "embed_rows.h"
#include "hanmix/base/alloc.h"

static bool same_piece(const struct hm_piece *a, const struct hm_piece *b)
{
    return a->type == b->type && hm_str_equal(a->text, b->text);
}

/* The old vocabulary must be the beginning of the new one, where ids may not move. */
static int pieces_check(const struct hm_spm_model *old_model, const struct hm_spm_model *new_model,
                        bool may_move, uint64_t *ret_kept, struct hm_error *err)
{
    uint64_t least = new_model->count < old_model->count ? new_model->count : old_model->count;
    uint64_t kept = 0;

    while (kept < least &&
           (may_move ? same_piece(&new_model->piece[kept], &old_model->piece[kept])
                     : hm_str_equal(new_model->piece[kept].text, old_model->piece[kept].text)))
        kept++;
    *ret_kept = kept;
    if (may_move || kept == old_model->count)
        return HM_OK;
    if (new_model->count < old_model->count)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the new tokenizer has %zu pieces, fewer than the old one's %zu: are they "
                       "the right way round? (init=copy also takes rows to a smaller vocabulary)",
                       new_model->count, old_model->count);
    return hm_fail(err, HM_ERR_FORMAT,
                   "piece %" PRIu64
                   " is '%.*s' in the new tokenizer and '%.*s' in the old one: the "
                   "new vocabulary must keep the ids of the old (init=copy moves rows by piece)",
                   kept, (int)new_model->piece[kept].text.len, new_model->piece[kept].text.ptr,
                   (int)old_model->piece[kept].text.len, old_model->piece[kept].text.ptr);
}

/* decode([id]) of the new tokenizer, then encode with <s> and dummy prefix by the old one. */
static int upstream_ids(const struct hm_tokenizer *old_tokenizer,
                        const struct hm_tokenizer *new_tokenizer, int32_t id, struct hm_buf *text,
                        struct hm_ids *ids, struct hm_error *err)
{
    size_t before = ids->count;

    hm_buf_clear(text);
    HM_TRY(hm_tokenizer_decode(new_tokenizer, &id, 1, text, err));
    if (old_tokenizer->model.bos_id >= 0)
        HM_TRY(hm_ids_append(ids, &old_tokenizer->model.bos_id, 1, err));
    HM_TRY(hm_tokenizer_encode(old_tokenizer, (struct hm_str){ text->ptr, text->len }, ids, err));
    if (ids->count == before && old_tokenizer->model.unk_id >= 0)
        return hm_ids_append(ids, &old_tokenizer->model.unk_id, 1, err);
    return HM_OK;
}

/* The old tokens of a new piece; *ret_moved: it is an old piece, whose row is kept as it is. */
static int piece_ids(const struct hm_tokenizer *old_tokenizer,
                     const struct hm_tokenizer *new_tokenizer, enum hm_resize_init init, int32_t id,
                     struct hm_buf *text, struct hm_ids *ids, bool *ret_moved, struct hm_error *err)
{
    const struct hm_piece *piece = &new_tokenizer->model.piece[id];

    *ret_moved = false;
    if (init == HM_RESIZE_MEAN_UPSTREAM)
        return upstream_ids(old_tokenizer, new_tokenizer, id, text, ids, err);
    if (init == HM_RESIZE_COPY) {
        int32_t old = hm_spm_model_find(&old_tokenizer->model, piece->text);
        *ret_moved = old >= 0 && same_piece(piece, &old_tokenizer->model.piece[old]);
        if (*ret_moved)
            return hm_ids_append(ids, &old, 1, err);
    }
    if (init == HM_RESIZE_NORMAL || init == HM_RESIZE_ZERO ||
        (piece->type != HM_PIECE_NORMAL && piece->type != HM_PIECE_USER))
        return HM_OK;
    return hm_tokenizer_encode_bare(old_tokenizer, piece->text, ids, err);
}

/* How many rows stay, how many there will be. */
static int sizes_find(const struct hm_tokenizer *old_tokenizer,
                      const struct hm_tokenizer *new_tokenizer,
                      const struct hm_resize_options *options, uint64_t old_rows,
                      struct hm_row_plan *plan, struct hm_error *err)
{
    uint64_t pad_to = options->pad_to ? options->pad_to : 1;

    plan->old_pieces = old_tokenizer->model.count;
    plan->pieces = new_tokenizer->model.count;
    plan->old_rows = old_rows;
    HM_TRY(pieces_check(&old_tokenizer->model, &new_tokenizer->model,
                        options->init == HM_RESIZE_COPY, &plan->first_new, err));
    if (old_rows < plan->old_pieces)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the model has %" PRIu64 " rows, fewer than the %" PRIu64
                       " pieces of the old tokenizer: is it this model's?",
                       old_rows, plan->old_pieces);
    if (old_rows / 2 > plan->old_pieces)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the model has %" PRIu64 " rows, more than twice the %" PRIu64
                       " pieces of the old tokenizer, too many for padding: is it this model's?",
                       old_rows, plan->old_pieces);
    /* Padding of the old matrix stays where every row stays. */
    bool padded = plan->first_new == plan->old_pieces && old_rows > plan->pieces;
    plan->kept = padded ? old_rows : plan->pieces;
    plan->rows = (plan->kept + pad_to - 1) / pad_to * pad_to;
    return HM_OK;
}

int hm_row_plan_make(const struct hm_tokenizer *old_tokenizer,
                     const struct hm_tokenizer *new_tokenizer,
                     const struct hm_resize_options *options, uint64_t old_rows,
                     struct hm_row_plan *ret_plan, struct hm_error *err)
{
    struct hm_row_plan plan = { 0 };
    struct hm_buf text = { 0 };

    HM_TRY(sizes_find(old_tokenizer, new_tokenizer, options, old_rows, &plan, err));
    size_t n = (size_t)(plan.pieces - plan.first_new);
    plan.first = hm_calloc(HM_MEM_VOCAB, n + 1, sizeof(*plan.first));
    plan.moved = hm_calloc(HM_MEM_VOCAB, n + 1, sizeof(*plan.moved));
    int status =
        plan.first && plan.moved ? hm_buf_text(&text, "", err) : hm_fail_nomem(err, "for new rows");
    for (size_t i = 0; status == HM_OK && i < n; i++) {
        status = piece_ids(old_tokenizer, new_tokenizer, options->init,
                           (int32_t)(plan.first_new + i), &text, &plan.ids, &plan.moved[i], err);
        plan.first[i + 1] = plan.ids.count;
        plan.n_moved += plan.moved[i];
    }
    hm_buf_release(&text);
    if (status == HM_OK)
        *ret_plan = plan;
    else
        hm_row_plan_release(&plan);
    return status;
}

uint64_t hm_row_plan_replaced(const struct hm_row_plan *plan)
{
    bool stay = plan->first_new == plan->old_pieces; /* what new pieces do not take */
    uint64_t end = stay && plan->pieces < plan->old_rows ? plan->pieces : plan->old_rows;

    return end > plan->old_pieces ? end - plan->old_pieces : 0;
}

void hm_row_plan_release(struct hm_row_plan *plan)
{
    if (!plan)
        return;
    hm_ids_release(&plan->ids);
    hm_free(plan->first);
    hm_free(plan->moved);
    *plan = (struct hm_row_plan){ 0 };
}
