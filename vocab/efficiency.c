/* SPDX-License-Identifier: MIT */
/*
 * What text costs in tokens under several tokenizers: one pass, documents in batches, every
 * document encoded by every tokenizer in parallel. All sums are integers, so neither threads nor
 * order change a bit of them. Intervals: Poisson bootstrap over documents - in each of RESAMPLES
 * resamples a document counts Poisson(1) times, drawn by (seed, document, resample) - which needs
 * no memory per document. Reading text and showing numbers is the caller's.
 */
#include <stdlib.h>

#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/vocab/bpe_train.h"
#include "hanmix/vocab/efficiency.h"

#define RESAMPLES       1000u
#define LANES           4u /* resamples drawn by one block of random numbers */
#define BLOCKS          (RESAMPLES / LANES)
#define BLOCKS_PER_UNIT 10u
#define BATCH_BYTES     (8u << 20)
#define BATCH_DOCUMENTS 4096u
#define POISSON_MAX     12u

struct encoding { /* of one document by one tokenizer */
    uint64_t tokens, byte_tokens, unk_tokens;
};

struct document {
    size_t first, bytes; /* in batch text */
    uint32_t set;
    uint64_t number;
    uint64_t chars, han_chars;
};

struct set_sums {
    char *name;
    uint64_t documents, bytes, chars, han_chars;
    struct encoding *total; /* [n_tokenizers] */
    uint64_t *resample;     /* [n_tokenizers][RESAMPLES] tokens */
};

struct worker {
    struct hm_ids ids;
    size_t failed; /* unit whose error this is; SIZE_MAX: none */
    struct hm_error err;
};

struct measure {
    const struct hm_tokenizer *const *tokenizers;
    size_t n_tokenizers;
    struct hm_rng_key key;
    uint64_t poisson[POISSON_MAX]; /* P(X <= i) * 2^32 */
    struct hm_buf text;
    struct document *document; /* [BATCH_DOCUMENTS] */
    struct encoding *encoding; /* [BATCH_DOCUMENTS][n_tokenizers] */
    size_t n_documents;
    struct set_sums *set;
    size_t n_sets;
    struct worker *worker;
    int n_workers;
};

/* --- one batch -------------------------------------------------------------------------------- */

static void document_count(struct document *document, const char *text)
{
    for (size_t i = 0; i < document->bytes; document->chars++) {
        uint32_t code;
        unsigned len = hm_utf8_decode(text + i, document->bytes - i, &code);
        document->han_chars += len > 0 && hm_is_ideograph(code);
        i += len ? len : 1;
    }
}

static void encode_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    struct worker *worker = &measure->worker[worker_number];
    size_t which = index % measure->n_tokenizers;
    const struct hm_tokenizer *tokenizer = measure->tokenizers[which];
    struct document *document = &measure->document[index / measure->n_tokenizers];
    const char *text = measure->text.ptr + document->first;
    struct encoding sum = { 0 };

    if (which == 0)
        document_count(document, text);
    hm_ids_clear(&worker->ids);
    if (worker->failed < index)
        return;
    if (hm_tokenizer_encode(tokenizer, (struct hm_str){ text, document->bytes }, &worker->ids,
                            &worker->err) < 0) {
        worker->failed = index;
        return;
    }
    sum.tokens = worker->ids.count;
    for (size_t i = 0; i < worker->ids.count; i++) {
        int32_t id = worker->ids.id[i];
        sum.byte_tokens += tokenizer->model.piece[id].type == HM_PIECE_BYTE;
        sum.unk_tokens += id == tokenizer->model.unk_id;
    }
    measure->encoding[index] = sum;
}

/* The error of the first unit that failed, whoever ran it. */
static int batch_status(const struct measure *measure, struct hm_error *err)
{
    const struct worker *first = NULL;

    for (int i = 0; i < measure->n_workers; i++)
        if (measure->worker[i].failed != SIZE_MAX &&
            (!first || measure->worker[i].failed < first->failed))
            first = &measure->worker[i];
    return first ? hm_error_pass(err, &first->err) : HM_OK;
}

/* Poisson(1) by inversion of 32 random bits. */
static uint64_t poisson_draw(const struct measure *measure, uint32_t bits)
{
    uint64_t value = 0;

    while (value < POISSON_MAX && bits >= measure->poisson[value])
        value++;
    return value;
}

static void resample_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    size_t n = measure->n_tokenizers;

    (void)worker_number;
    for (size_t d = 0; d < measure->n_documents; d++) {
        const struct document *document = &measure->document[d];
        uint64_t *resample = measure->set[document->set].resample;
        for (size_t block = index * BLOCKS_PER_UNIT; block < (index + 1) * BLOCKS_PER_UNIT;
             block++) {
            uint32_t bits[LANES];
            hm_rng_block(measure->key, document->number * BLOCKS + block, bits);
            for (size_t lane = 0; lane < LANES; lane++) {
                uint64_t times = poisson_draw(measure, bits[lane]);
                for (size_t t = 0; t < n; t++)
                    resample[t * RESAMPLES + block * LANES + lane] +=
                        times * measure->encoding[d * n + t].tokens;
            }
        }
    }
}

static int batch_measure(struct measure *measure, struct hm_error *err)
{
    size_t n = measure->n_tokenizers;

    hm_parallel_for(measure->n_documents * n, encode_unit, measure);
    HM_TRY(batch_status(measure, err));
    for (size_t d = 0; d < measure->n_documents; d++) {
        const struct document *document = &measure->document[d];
        struct set_sums *set = &measure->set[document->set];
        set->documents++;
        set->bytes += document->bytes;
        set->chars += document->chars;
        set->han_chars += document->han_chars;
        for (size_t t = 0; t < n; t++) {
            set->total[t].tokens += measure->encoding[d * n + t].tokens;
            set->total[t].byte_tokens += measure->encoding[d * n + t].byte_tokens;
            set->total[t].unk_tokens += measure->encoding[d * n + t].unk_tokens;
        }
    }
    if (n > 1)
        hm_parallel_for(BLOCKS / BLOCKS_PER_UNIT, resample_unit, measure);
    measure->n_documents = 0;
    hm_buf_clear(&measure->text);
    return HM_OK;
}

/* --- collecting ------------------------------------------------------------------------------- */

static int sets_reach(struct measure *measure, const struct hm_doc *doc, struct hm_error *err)
{
    while (measure->n_sets <= doc->set_index) {
        size_t n = measure->n_sets + 1;
        struct set_sums *grown = hm_realloc(HM_MEM_OTHER, measure->set, n * sizeof(*measure->set));
        if (!grown)
            return hm_fail_nomem(err, "for %zu sets", n);
        measure->set = grown;
        struct set_sums *set = &grown[measure->n_sets++];
        *set = (struct set_sums){ 0 };
        set->total = hm_calloc(HM_MEM_OTHER, measure->n_tokenizers, sizeof(*set->total));
        set->resample =
            hm_calloc(HM_MEM_OTHER, measure->n_tokenizers * RESAMPLES, sizeof(uint64_t));
        if (!set->total || !set->resample)
            return hm_fail_nomem(err, "for the sums of %zu sets", n);
    }
    struct set_sums *set = &measure->set[doc->set_index];
    if (!set->name && !(set->name = hm_strdup(HM_MEM_OTHER, doc->set)))
        return hm_fail_nomem(err, "for the name of a set");
    return HM_OK;
}

static int document_take(struct measure *measure, const struct hm_doc *doc, struct hm_error *err)
{
    HM_TRY(sets_reach(measure, doc, err));
    measure->document[measure->n_documents++] = (struct document){ .first = measure->text.len,
                                                                   .bytes = doc->text.len,
                                                                   .set = doc->set_index,
                                                                   .number = doc->number };
    return hm_buf_append(&measure->text, doc->text.ptr, doc->text.len, err);
}

static int measure_all(struct measure *measure, struct hm_text_source *source,
                       const struct hm_ctl *ctl, struct hm_error *err)
{
    struct hm_doc doc;
    int more;

    do {
        more = source->next(source->context, &doc, err);
        if (more > 0)
            HM_TRY(document_take(measure, &doc, err));
        if (more <= 0 || measure->n_documents == BATCH_DOCUMENTS ||
            measure->text.len >= BATCH_BYTES) {
            if (hm_ctl_stopped(ctl))
                return hm_fail(err, HM_ERR_STOPPED, "measuring tokenizers was stopped");
            HM_TRY(batch_measure(measure, err));
            hm_text_progress(ctl, "measure", source);
        }
    } while (more > 0);
    return more;
}

/* --- result ----------------------------------------------------------------------------------- */

static int double_order(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Quantile of sorted values, linear between neighbours. */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t below = (size_t)at;

    if (below + 1 >= n)
        return sorted[n - 1];
    return sorted[below] + (at - (double)below) * (sorted[below + 1] - sorted[below]);
}

static double reduction_of(uint64_t tokens, uint64_t first)
{
    return first ? 1.0 - (double)tokens / (double)first : 0.0;
}

static void cell_fill(struct hm_set_efficiency *cell, const struct set_sums *set, size_t which,
                      double confidence)
{
    double value[RESAMPLES];
    size_t n = 0;

    cell->documents = set->documents;
    cell->bytes = set->bytes;
    cell->chars = set->chars;
    cell->han_chars = set->han_chars;
    cell->tokens = set->total[which].tokens;
    cell->byte_fallback_tokens = set->total[which].byte_tokens;
    cell->unk_tokens = set->total[which].unk_tokens;
    cell->reduction = reduction_of(cell->tokens, set->total[0].tokens);
    cell->reduction_low = cell->reduction_high = cell->reduction;
    if (which == 0)
        return;
    for (size_t i = 0; i < RESAMPLES; i++) /* an empty resample says nothing */
        if (set->resample[i])
            value[n++] = reduction_of(set->resample[which * RESAMPLES + i], set->resample[i]);
    if (n == 0)
        return;
    qsort(value, n, sizeof(*value), double_order);
    cell->reduction_low = quantile(value, n, (1.0 - confidence) / 2.0);
    cell->reduction_high = quantile(value, n, (1.0 + confidence) / 2.0);
}

static int result_make(const struct measure *measure, double confidence,
                       struct hm_efficiency *result, struct hm_error *err)
{
    size_t n = measure->n_tokenizers * measure->n_sets;

    result->cell = hm_calloc(HM_MEM_OTHER, n, sizeof(*result->cell));
    if (!result->cell)
        return hm_fail_nomem(err, "for %zu results", n);
    result->n_tokenizers = measure->n_tokenizers;
    result->n_sets = measure->n_sets;
    for (size_t i = 0; i < n; i++) {
        const struct set_sums *set = &measure->set[i % measure->n_sets];
        cell_fill(&result->cell[i], set, i / measure->n_sets, confidence);
        result->cell[i].name = hm_strdup(HM_MEM_OTHER, set->name ? set->name : "");
        if (!result->cell[i].name)
            return hm_fail_nomem(err, "for the name of a set");
    }
    return HM_OK;
}

static void measure_release(struct measure *measure)
{
    for (size_t i = 0; i < measure->n_sets; i++) {
        hm_free(measure->set[i].name);
        hm_free(measure->set[i].total);
        hm_free(measure->set[i].resample);
    }
    for (int i = 0; measure->worker && i < measure->n_workers; i++)
        hm_ids_release(&measure->worker[i].ids);
    hm_free(measure->set);
    hm_free(measure->worker);
    hm_free(measure->document);
    hm_free(measure->encoding);
    hm_buf_release(&measure->text);
}

static int measure_init(struct measure *measure, struct hm_error *err)
{
    double term = 0.36787944117144233; /* exp(-1) */
    double sum = 0;

    for (size_t i = 0; i < POISSON_MAX; i++) {
        sum += term;
        measure->poisson[i] = (uint64_t)(sum * 4294967296.0);
        term /= (double)(i + 1);
    }
    measure->n_workers = hm_threads();
    measure->worker = hm_calloc(HM_MEM_OTHER, (size_t)measure->n_workers, sizeof(*measure->worker));
    measure->document = hm_calloc(HM_MEM_OTHER, BATCH_DOCUMENTS, sizeof(*measure->document));
    measure->encoding = hm_calloc(HM_MEM_OTHER, BATCH_DOCUMENTS * measure->n_tokenizers,
                                  sizeof(*measure->encoding));
    if (!measure->worker || !measure->document || !measure->encoding)
        return hm_fail_nomem(err, "for measuring tokenizers");
    for (int i = 0; i < measure->n_workers; i++)
        measure->worker[i].failed = SIZE_MAX;
    return HM_OK;
}

int hm_efficiency_measure(struct hm_text_source *source,
                          const struct hm_tokenizer *const *tokenizers, size_t n, double confidence,
                          uint64_t seed, const struct hm_ctl *ctl, struct hm_efficiency *ret_result,
                          struct hm_error *err)
{
    struct measure measure = { .tokenizers = tokenizers,
                               .n_tokenizers = n,
                               .key = { seed, hm_hash64("vocab.measure", 13, 0) } };
    struct hm_efficiency result = { 0 };

    if (n == 0 || !(confidence > 0 && confidence < 1))
        return hm_fail(err, HM_ERR_USAGE,
                       "measuring needs at least one tokenizer and a confidence between 0 and 1, "
                       "found %zu and %g",
                       n, confidence);
    int status = measure_init(&measure, err);
    if (status == HM_OK)
        status = measure_all(&measure, source, ctl, err);
    if (status == HM_OK && measure.n_sets == 0)
        status = hm_fail(err, HM_ERR_FORMAT, "the text to measure holds no document");
    if (status == HM_OK)
        status = result_make(&measure, confidence, &result, err);
    measure_release(&measure);
    if (status == HM_OK)
        *ret_result = result;
    else
        hm_efficiency_release(&result);
    return status;
}

void hm_efficiency_release(struct hm_efficiency *result)
{
    if (!result)
        return;
    for (size_t i = 0; result->cell && i < result->n_tokenizers * result->n_sets; i++)
        hm_free(result->cell[i].name);
    hm_free(result->cell);
    *result = (struct hm_efficiency){ 0 };
}
