/* SPDX-License-Identifier: MIT */
/*
 * eval.loss: documents cut into windows that overlap, every token scored once, with the most
 * context a window gives it.
 *
 * Windows go through the model side by side in one sequence, each seeing only itself (doc_start),
 * so that frozen weights are read and decoded once for many of them; how many is fixed by the
 * window alone, so that results do not depend on memory. Packed windows are whole segments of their
 * own.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/eval/eval.h"
#include "loss_sets.h"

struct segment {           /* a window of a document inside the sequence under way */
    uint32_t at, len;      /* positions */
    uint32_t first_target; /* in the window: earlier ones were scored before */
    size_t set, document;  /* where its losses go */
};

struct scorer {
    struct hm_model *model;
    struct hm_workspace *workspace;
    const struct hm_ctl *ctl;
    uint32_t window, step; /* tokens; step < window */
    uint32_t cap;          /* tokens of a sequence */
    int32_t *ids;          /* [cap], the sequence under way */
    uint8_t *starts;       /* [cap] */
    double *token_loss;    /* [cap] */
    uint32_t filled;
    struct segment *segment; /* [cap] */
    size_t n_segments;
    struct hm_sums sums;
};

uint32_t hm_eval_sequence(uint32_t window)
{
    return window < HM_EVAL_TOKENS / 2 ? HM_EVAL_TOKENS / window * window : window;
}

static void scorer_release(struct scorer *scorer)
{
    hm_workspace_free(scorer->workspace);
    hm_free(scorer->ids);
    hm_free(scorer->starts);
    hm_free(scorer->token_loss);
    hm_free(scorer->segment);
    hm_sums_release(&scorer->sums);
}

static int scorer_new(struct hm_model *model, uint32_t window, uint32_t stride,
                      const struct hm_ctl *ctl, struct scorer *scorer, struct hm_error *err)
{
    *scorer = (struct scorer){ .model = model, .ctl = ctl, .window = window };
    if (window < 2)
        return hm_fail(err, HM_ERR_USAGE, "window is %u tokens; it must be at least 2", window);
    if (stride == 0)
        return hm_fail(err, HM_ERR_USAGE, "stride is 0; it must be at least 1");
    /* the last token of a window is the context of the next one's first target */
    scorer->step = stride < window ? stride : window - 1;
    const uint32_t cap = scorer->cap = hm_eval_sequence(window);
    scorer->ids = hm_alloc_array(HM_MEM_OTHER, cap, sizeof(*scorer->ids));
    scorer->starts = hm_calloc(HM_MEM_OTHER, cap, 1);
    scorer->token_loss = hm_alloc_array(HM_MEM_OTHER, cap, sizeof(*scorer->token_loss));
    scorer->segment = hm_alloc_array(HM_MEM_OTHER, cap, sizeof(*scorer->segment));
    if (!scorer->ids || !scorer->starts || !scorer->token_loss || !scorer->segment)
        return hm_fail_nomem(err, "for a window of %u tokens", window);
    return hm_workspace_new(model, 1, cap, false, false, &scorer->workspace, err);
}

/* Run the sequence under way and hand its losses to the documents. */
static int scorer_flush(struct scorer *scorer, struct hm_error *err)
{
    struct hm_step_options options = { .token_loss_out = scorer->token_loss };
    struct hm_batch batch = {
        .rows = 1, .seq_len = scorer->filled, .ids = scorer->ids, .doc_start = scorer->starts
    };
    struct hm_step_result result;

    if (scorer->filled == 0)
        return HM_OK;
    if (hm_ctl_stopped(scorer->ctl))
        return hm_fail(err, HM_ERR_STOPPED, "stopped while scoring");
    HM_TRY(hm_model_step(scorer->model, scorer->workspace, &batch, &options, &result, err));
    for (size_t i = 0; i < scorer->n_segments; i++) {
        const struct segment *segment = &scorer->segment[i];
        struct hm_set_sums *set = &scorer->sums.set[segment->set];
        double loss = 0;
        for (uint32_t t = segment->first_target; t < segment->len; t++)
            loss += scorer->token_loss[segment->at + t - 1]; /* position t - 1 predicts t */
        set->scored[segment->document].loss += loss;
        set->targets += segment->len - segment->first_target;
    }
    scorer->filled = 0;
    scorer->n_segments = 0;
    memset(scorer->starts, 0, scorer->cap);
    return HM_OK;
}

/* The ids of the segment stand behind what is filled. */
static void segment_end(struct scorer *scorer, struct segment segment)
{
    segment.at = scorer->filled;
    scorer->starts[segment.at] = 1;
    scorer->filled += segment.len;
    scorer->segment[scorer->n_segments++] = segment;
}

static int segment_add(struct scorer *scorer, const int32_t *ids, struct segment segment,
                       struct hm_error *err)
{
    if (scorer->filled + segment.len > scorer->cap)
        HM_TRY(scorer_flush(scorer, err));
    memcpy(scorer->ids + scorer->filled, ids, segment.len * sizeof(*ids));
    segment_end(scorer, segment);
    return HM_OK;
}

/* n tokens with bos in front; targets are 1..n-1, each once. */
static int document_score(struct scorer *scorer, const int32_t *ids, size_t n, size_t set,
                          size_t document, struct hm_error *err)
{
    size_t scored = 1;

    for (size_t first = 0; scored < n; first += scorer->step) {
        size_t end = n - first < scorer->window ? n : first + scorer->window;
        struct segment segment = { .len = (uint32_t)(end - first),
                                   .first_target = (uint32_t)(scored - first),
                                   .set = set,
                                   .document = document };
        HM_TRY(segment_add(scorer, ids + first, segment, err));
        scored = end;
    }
    return HM_OK;
}

static int source_score(struct scorer *scorer, struct hm_text_source *source,
                        const struct hm_text_encoder *encoder, struct hm_ids *ids,
                        struct hm_error *err)
{
    struct hm_doc doc;
    size_t set = 0, document = 0;
    int got;

    while ((got = source->next(source->context, &doc, err)) > 0) {
        HM_TRY(hm_sums_set(&scorer->sums, doc.set, &set, err));
        HM_TRY(hm_sums_document(&scorer->sums, set, doc.text.len, hm_utf8_count(doc.text),
                                &document, err));
        hm_ids_clear(ids);
        HM_TRY(hm_ids_append(ids, &encoder->bos_id, 1, err));
        HM_TRY(encoder->encode(encoder->context, doc.text, ids, err));
        HM_TRY(document_score(scorer, ids->id, ids->count, set, document, err));
        hm_text_progress(scorer->ctl, "score", source);
    }
    HM_TRY(got);
    return scorer_flush(scorer, err);
}

int hm_eval_loss_text(struct hm_model *model, struct hm_text_source *source,
                      const struct hm_text_encoder *encoder, uint32_t window, uint32_t stride,
                      const struct hm_ctl *ctl, struct hm_loss_set **ret_sets, size_t *ret_n,
                      struct hm_error *err)
{
    struct scorer scorer = { 0 };
    struct hm_ids ids = { 0 };

    HM_TRY(hm_arch_vocab_check(hm_model_arch(model), encoder->vocab_size, "tokenizer", err));
    if (encoder->bos_id < 0)
        return hm_fail(err, HM_ERR_USAGE,
                       "the tokenizer has no bos, which the first token of a document is scored "
                       "after");
    int status = scorer_new(model, window, stride, ctl, &scorer, err);
    if (status == HM_OK)
        status = source_score(&scorer, source, encoder, &ids, err);
    if (status == HM_OK)
        status = hm_sums_report(&scorer.sums, ret_sets, ret_n, err);
    hm_ids_release(&ids);
    scorer_release(&scorer);
    return status;
}

static int windows_flush(struct scorer *scorer, const struct hm_packed *packed, uint64_t first,
                         struct hm_error *err)
{
    uint64_t last = first + scorer->n_segments - 1;
    int status = scorer_flush(scorer, err);

    if (status < 0 && status != HM_ERR_STOPPED)
        hm_error_prefix(err, "'%s', windows %" PRIu64 " to %" PRIu64, packed->path, first, last);
    return status;
}

/* Every window as it is: its first token is context, the sizes are those of the others. */
static int windows_score(struct scorer *scorer, const struct hm_packed *packed, size_t set,
                         struct hm_error *err)
{
    uint64_t first = 0; /* of those under way */

    for (uint64_t i = 0; i < packed->windows; i++) {
        struct segment segment = { .len = packed->seq_len, .first_target = 1, .set = set };
        struct hm_window window;
        HM_TRY(hm_packed_window(packed, i, scorer->ids + scorer->filled, NULL, &window, err));
        HM_TRY(hm_sums_document(&scorer->sums, set, window.utf8_bytes, window.chars,
                                &segment.document, err));
        segment_end(scorer, segment);
        if (i + 1 < packed->windows && scorer->filled + segment.len <= scorer->cap)
            continue;
        HM_TRY(windows_flush(scorer, packed, first, err));
        first = i + 1;
        hm_ctl_progress(scorer->ctl, &(struct hm_progress){ .what = "score",
                                                            .unit = "windows",
                                                            .done = i + 1,
                                                            .total = packed->windows });
    }
    return HM_OK;
}

int hm_eval_loss_packed(struct hm_model *model, const struct hm_packed *packed, const char *name,
                        const struct hm_ctl *ctl, struct hm_loss_set *ret_set, struct hm_error *err)
{
    struct hm_loss_set *sets = NULL;
    struct scorer scorer = { 0 };
    size_t set = 0, n = 0;

    HM_TRY(hm_arch_vocab_check(hm_model_arch(model), packed->vocab_size, packed->path, err));
    int status = scorer_new(model, packed->seq_len, packed->seq_len, ctl, &scorer, err);
    if (status == HM_OK)
        status = hm_sums_set(&scorer.sums, name, &set, err);
    if (status == HM_OK)
        status = windows_score(&scorer, packed, set, err);
    if (status == HM_OK)
        status = hm_sums_report(&scorer.sums, &sets, &n, err);
    if (status == HM_OK) {
        *ret_set = sets[0];
        hm_free(sets); /* its only set went to the caller */
    }
    scorer_release(&scorer);
    return status;
}
