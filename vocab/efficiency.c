/* SPDX-License-Identifier: MIT */
/*
 * What text costs in tokens under several tokenizers: one pass, documents read in batches and put
 * to their sets. Batches are efficiency_batch.c's, results efficiency_result.c's, intervals
 * resample.c's; opening text and showing numbers is the caller's.
 */
#include <string.h>

#include "efficiency_internal.h"
#include "hanmix/base/parallel.h"

#define BATCH_BYTES     (4u << 20) /* two of them are held */
#define BATCH_DOCUMENTS 4096u

/* --- sets and sums ---------------------------------------------------------------------------- */

static int set_init(const struct measured_text *all, struct set_sums *set, struct hm_error *err)
{
    size_t n = all->n_tokenizers;

    set->sums = hm_calloc(HM_MEM_OTHER, n, sizeof(*set->sums));
    set->resample = hm_calloc(HM_MEM_OTHER, n * HM_RESAMPLES, sizeof(uint64_t));
    set->seen = hm_calloc(HM_MEM_OTHER, n, sizeof(uint64_t *));
    bool made = set->sums && set->resample && set->seen;
    for (size_t t = 0; made && t < n; t++) {
        set->seen[t] = hm_calloc(HM_MEM_OTHER, seen_words(all->tokenizers[t]), sizeof(uint64_t));
        made = set->seen[t] != NULL;
    }
    return made ? HM_OK : hm_fail_nomem(err, "for the sums of a set of text");
}

static void set_release(const struct measured_text *all, struct set_sums *set)
{
    hm_free(set->name);
    hm_free(set->sums);
    hm_free(set->resample);
    for (size_t t = 0; set->seen && t < all->n_tokenizers; t++)
        hm_free(set->seen[t]);
    hm_free((void *)set->seen);
}

/* One set more than there are stands at the end, for the total. */
static int sets_grow(struct measured_text *all, uint32_t index, struct hm_error *err)
{
    while (all->n_sets <= index) {
        size_t n = all->n_sets + 2;
        struct set_sums *grown = hm_realloc(HM_MEM_OTHER, all->set, n * sizeof(*all->set));
        if (!grown)
            return hm_fail_nomem(err, "for %zu sets", n);
        all->set = grown;
        if (n == 2)
            grown[0] = (struct set_sums){ 0 };
        grown[n - 1] = (struct set_sums){ 0 };
        all->n_sets++;
        if (n == 2)
            HM_TRY(set_init(all, &grown[0], err));
        HM_TRY(set_init(all, &grown[n - 1], err));
    }
    return HM_OK;
}

static int set_name(const struct measured_text *all, struct set_sums *set, const char *name,
                    struct hm_error *err)
{
    set->name = hm_strdup(HM_MEM_OTHER, name);
    if (!set->name)
        return hm_fail_nomem(err, "for the name of a set");
    for (size_t p = 0; p < all->options->n_parity; p++)
        set->paired = set->paired || strcmp(all->options->parity[p].a, name) == 0 ||
                      strcmp(all->options->parity[p].b, name) == 0;
    return HM_OK;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int document_take(struct measure *measure, struct batch *batch, const struct hm_doc *doc,
                         struct hm_error *err)
{
    struct document document = { .first = batch->text.len,
                                 .bytes = doc->text.len,
                                 .set = doc->set_index,
                                 .number = doc->number };

    if (doc->set_index >= HM_EFFICIENCY_MAX_SETS)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the text has more than %u sets, the last '%.100s'; set.set_field must "
                       "name what many documents share",
                       HM_EFFICIENCY_MAX_SETS, doc->set);
    if (!measure->named[doc->set_index]) {
        document.name = batch->names.len + 1;
        HM_TRY(hm_buf_append(&batch->names, doc->set, strlen(doc->set) + 1, err));
        measure->named[doc->set_index] = true;
    }
    HM_TRY(hm_buf_append(&batch->text, doc->text.ptr, doc->text.len, err));
    batch->document[batch->n_documents++] = document;
    return HM_OK;
}

void hm_efficiency_read(struct measure *measure, struct batch *batch)
{
    struct hm_doc doc;

    hm_buf_clear(&batch->text);
    hm_buf_clear(&batch->names);
    batch->n_documents = 0;
    do {
        batch->more = measure->source->next(measure->source->context, &doc, &batch->err);
        if (batch->more > 0) {
            int status = document_take(measure, batch, &doc, &batch->err);
            batch->more = status < 0 ? status : 1;
        }
    } while (batch->more > 0 && batch->n_documents < BATCH_DOCUMENTS &&
             batch->text.len < BATCH_BYTES);
}

/* Documents of a pair of sets are drawn by their place within the set. */
static int sets_reach(struct measure *measure, struct batch *batch, struct hm_error *err)
{
    struct measured_text *all = &measure->all;

    for (size_t d = 0; d < batch->n_documents; d++) {
        struct document *document = &batch->document[d];
        HM_TRY(sets_grow(all, document->set, err));
        struct set_sums *set = &all->set[document->set];
        if (document->name > 0)
            HM_TRY(set_name(all, set, batch->names.ptr + document->name - 1, err));
        if (set->paired)
            document->number = set->documents;
        set->documents++;
    }
    return HM_OK;
}

static int measure_all(struct measure *measure, const struct hm_ctl *ctl, struct hm_error *err)
{
    struct batch *batch = &measure->batch[measure->now];

    hm_efficiency_read(measure, batch);
    for (;;) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "measuring tokenizers was stopped");
        HM_TRY(sets_reach(measure, batch, err));
        HM_TRY(hm_efficiency_batch(measure, err));
        hm_text_progress(ctl, "measure", measure->source);
        if (batch->more <= 0)
            return batch->more < 0 ? hm_error_pass(err, &batch->err) : HM_OK;
        measure->now = !measure->now;
        batch = &measure->batch[measure->now];
    }
}

static void measure_release(struct measure *measure)
{
    struct measured_text *all = &measure->all;

    for (size_t i = 0; all->set && i <= all->n_sets; i++)
        set_release(all, &all->set[i]);
    for (int i = 0; measure->worker && i < measure->n_workers; i++) {
        struct worker *worker = &measure->worker[i];
        hm_ids_release(&worker->ids);
        hm_ids_release(&worker->others);
        for (size_t t = 0; worker->count && t < all->n_tokenizers; t++)
            hm_free(worker->count[t]);
        hm_free((void *)worker->count);
    }
    hm_free(all->set);
    hm_free(all->extends);
    hm_free(measure->worker);
    hm_free(measure->encoding);
    for (size_t i = 0; i < 2; i++) {
        hm_free(measure->batch[i].document);
        hm_buf_release(&measure->batch[i].text);
        hm_buf_release(&measure->batch[i].names);
    }
}

static int worker_init(const struct measured_text *all, struct worker *worker, struct hm_error *err)
{
    worker->failed = SIZE_MAX;
    worker->count = hm_calloc(HM_MEM_OTHER, all->n_tokenizers, sizeof(uint64_t *));
    bool made = worker->count != NULL;
    for (size_t t = 0; made && t < all->n_tokenizers; t++) {
        worker->count[t] = hm_calloc(HM_MEM_OTHER, all->tokenizers[t]->count, sizeof(uint64_t));
        made = worker->count[t] != NULL;
    }
    return made ? HM_OK : hm_fail_nomem(err, "for counting pieces");
}

static int measure_init(struct measure *measure, struct hm_error *err)
{
    struct measured_text *all = &measure->all;

    hm_poisson_make(&measure->poisson);
    measure->n_workers = hm_threads();
    measure->worker = hm_calloc(HM_MEM_OTHER, (size_t)measure->n_workers, sizeof(*measure->worker));
    for (size_t i = 0; i < 2; i++) {
        struct batch *batch = &measure->batch[i];
        batch->document = hm_calloc(HM_MEM_OTHER, BATCH_DOCUMENTS, sizeof(*batch->document));
        if (!batch->document)
            return hm_fail_nomem(err, "for measuring tokenizers");
    }
    measure->encoding =
        hm_calloc(HM_MEM_OTHER, BATCH_DOCUMENTS * all->n_tokenizers, sizeof(*measure->encoding));
    all->extends = hm_calloc(HM_MEM_OTHER, all->n_tokenizers, sizeof(*all->extends));
    if (!measure->worker || !measure->encoding || !all->extends)
        return hm_fail_nomem(err, "for measuring tokenizers");
    for (size_t t = 0; t < all->n_tokenizers; t++) {
        all->extends[t] = hm_any_tokenizer_extends(all->tokenizers[t], all->tokenizers[0]);
        measure->compare = measure->compare || (t > 0 && all->extends[t]);
    }
    for (int i = 0; i < measure->n_workers; i++)
        HM_TRY(worker_init(all, &measure->worker[i], err));
    return HM_OK;
}

/* The first worker's counts become those of all. */
static void counts_join(struct measure *measure)
{
    struct measured_text *all = &measure->all;

    all->count = measure->worker[0].count;
    for (int w = 1; w < measure->n_workers; w++)
        for (size_t t = 0; t < all->n_tokenizers; t++)
            for (size_t i = 0; i < all->tokenizers[t]->count; i++)
                all->count[t][i] += measure->worker[w].count[t][i];
}

int hm_efficiency_measure(struct hm_text_source *source,
                          const struct hm_any_tokenizer *const *tokenizers, size_t n,
                          const struct hm_efficiency_options *options, const struct hm_ctl *ctl,
                          struct hm_efficiency *ret_result, struct hm_error *err)
{
    struct measure measure = {
        .all = { .tokenizers = tokenizers, .n_tokenizers = n, .options = options },
        .source = source,
        .key = { options->seed, hm_hash64("vocab.measure", 13, 0) },
        .paired_key = { options->seed, hm_hash64("parity", 6, 0) }
    };
    struct hm_efficiency result = { 0 };

    if (n == 0 || !(options->confidence > 0 && options->confidence < 1))
        return hm_fail(err, HM_ERR_USAGE,
                       "measuring needs at least one tokenizer and a confidence between 0 and 1, "
                       "found %zu and %g",
                       n, options->confidence);
    int status = measure_init(&measure, err);
    if (status == HM_OK)
        status = measure_all(&measure, ctl, err);
    if (status == HM_OK && measure.all.n_sets == 0)
        status = hm_fail(err, HM_ERR_FORMAT, "the text to measure holds no document");
    if (status == HM_OK) {
        counts_join(&measure);
        status = hm_efficiency_result(&measure.all, &result, err);
    }
    measure_release(&measure);
    if (status == HM_OK)
        *ret_result = result;
    else
        hm_efficiency_release(&result);
    return status;
}
