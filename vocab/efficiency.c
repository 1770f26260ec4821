/* SPDX-License-Identifier: MIT */
/*
 * What text costs in tokens under several tokenizers: one pass, documents in batches, every
 * document encoded by every tokenizer in parallel. All sums are integers, so neither threads nor
 * order change a bit of them. Results are efficiency_result.c's, intervals resample.c's; reading
 * text and showing numbers is the caller's.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "efficiency_internal.h"
#include "hanmix/base/parallel.h"
#include "hanmix/vocab/bpe_train.h"

#define BATCH_BYTES     (8u << 20)
#define BATCH_DOCUMENTS 4096u

struct encoding { /* of one document by one tokenizer */
    struct hm_token_sums sums;
    uint64_t hash; /* of the ids */
};

struct document {
    size_t first, bytes; /* in batch text */
    uint32_t set;
    uint64_t number;
    uint64_t chars, han_chars, plain_lines;
};

struct worker {
    struct hm_ids ids, others;
    uint64_t **count; /* [n_tokenizers] of each id */
    size_t failed;    /* unit whose error this is; SIZE_MAX: none */
    struct hm_error err;
};

struct measure {
    struct measured_text all;
    struct hm_rng_key key, paired_key;
    struct hm_poisson poisson;
    struct hm_buf text;
    struct document *document; /* [BATCH_DOCUMENTS] */
    struct encoding *encoding; /* [BATCH_DOCUMENTS][n_tokenizers] */
    size_t n_documents;
    bool compare; /* ids of some tokenizer compare to the first's */
    struct worker *worker;
    int n_workers;
};

/* --- lines ------------------------------------------------------------------------------------ */

/* Without its newline; *at moves behind it. */
static struct hm_str line_next(struct hm_str text, size_t *at)
{
    const char *start = text.ptr + *at;
    const char *end = memchr(start, '\n', text.len - *at);
    size_t len = end ? (size_t)(end - start) : text.len - *at;

    *at += len + (end != NULL);
    return (struct hm_str){ start, len };
}

/* Characters, and Han characters among them. */
static uint64_t chars_count(struct hm_str text, uint64_t *ret_han)
{
    uint64_t chars = 0, han = 0;

    for (size_t i = 0; i < text.len; chars++) {
        uint32_t code;
        if ((unsigned char)text.ptr[i] < 0x80) {
            i++;
            continue;
        }
        unsigned len = hm_utf8_decode(text.ptr + i, text.len - i, &code);
        han += len > 0 && hm_is_ideograph(code);
        i += len ? len : 1;
    }
    *ret_han = han;
    return chars;
}

static struct hm_str text_of(const struct measure *measure, const struct document *document)
{
    return (struct hm_str){ measure->text.ptr + document->first, document->bytes };
}

static void count_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    struct document *document = &measure->document[index];
    struct hm_str text = text_of(measure, document);
    size_t newlines = 0;

    (void)worker_number;
    for (size_t at = 0; at < text.len;) {
        uint64_t han = 0;
        size_t before = at;
        struct hm_str line = line_next(text, &at);
        document->chars += chars_count(line, &han);
        document->han_chars += han;
        document->plain_lines += line.len > 0 && han == 0;
        newlines += at - before - line.len;
    }
    document->chars += newlines;
}

/* Remember the error of the first unit that fails. */
static bool worker_failed(struct worker *worker, size_t unit, int status)
{
    if (status == HM_OK)
        return false;
    worker->failed = unit;
    return true;
}

/* Lines without Han are few where there are Chinese ones, and documents without any are looked into
 * only where their ids differ as a whole. */
static void changed_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    const struct measured_text *all = &measure->all;
    struct worker *worker = &measure->worker[worker_number];
    const struct document *document = &measure->document[index];
    struct encoding *encoding = &measure->encoding[index * all->n_tokenizers];
    struct hm_str text = text_of(measure, document);

    if (document->plain_lines == 0 || worker->failed < index)
        return;
    for (size_t t = 1; t < all->n_tokenizers; t++) {
        if (!all->extends[t] || (document->han_chars == 0 && encoding[t].hash == encoding[0].hash))
            continue;
        for (size_t at = 0; at < text.len;) {
            uint64_t han = 0;
            struct hm_str line = line_next(text, &at);
            chars_count(line, &han);
            if (line.len == 0 || han > 0)
                continue;
            hm_ids_clear(&worker->ids);
            hm_ids_clear(&worker->others);
            if (worker_failed(worker, index,
                              hm_any_tokenizer_encode(all->tokenizers[0], line, &worker->ids,
                                                      &worker->err)) ||
                worker_failed(worker, index,
                              hm_any_tokenizer_encode(all->tokenizers[t], line, &worker->others,
                                                      &worker->err)))
                return;
            encoding[t].sums.changed_lines +=
                worker->ids.count != worker->others.count ||
                memcmp(worker->ids.id, worker->others.id,
                       worker->ids.count * sizeof(*worker->ids.id)) != 0;
        }
    }
}

/* --- one batch -------------------------------------------------------------------------------- */

/* Bits are set by many threads, each at most once in effect. */
static void seen_put(uint64_t *seen, size_t id)
{
    uint64_t bit = (uint64_t)1 << id % 64;

    if (!(__atomic_load_n(&seen[id / 64], __ATOMIC_RELAXED) & bit))
        __atomic_fetch_or(&seen[id / 64], bit, __ATOMIC_RELAXED);
}

static struct hm_token_sums ids_tally(const struct hm_any_tokenizer *tokenizer,
                                      const struct hm_ids *ids, uint64_t *count, uint64_t *seen)
{
    struct hm_token_sums sums = { .tokens = ids->count };

    for (size_t i = 0; i < ids->count; i++) {
        size_t id = (size_t)ids->id[i];
        struct hm_token_facts facts = tokenizer->facts[id];
        sums.byte_fallback_tokens += (facts.traits & HM_TOKEN_BYTE) != 0;
        sums.unk_tokens += (facts.traits & HM_TOKEN_UNKNOWN) != 0;
        sums.own_chars += facts.chars;
        sums.own_han_chars += facts.han;
        count[id]++;
        seen_put(seen, id);
    }
    if (tokenizer->dummy_prefix && ids->count > 0 &&
        tokenizer->facts[ids->id[0]].traits & HM_TOKEN_PREFIX)
        sums.own_chars--;
    return sums;
}

/* Of a SentencePiece model; others have one implementation. */
static int ids_verify(const struct measure *measure, const struct hm_any_tokenizer *tokenizer,
                      const struct document *document, struct worker *worker)
{
    uint64_t every = measure->all.options->verify;

    if (every == 0 || document->number % every != 0 || !tokenizer->spm ||
        tokenizer->spm->model.by_merges)
        return HM_OK;
    int status = hm_tokenizer_verify(tokenizer->spm, text_of(measure, document), worker->ids.id,
                                     worker->ids.count, &worker->err);
    if (status < 0)
        hm_error_prefix(&worker->err, "document %" PRIu64 " of set '%s'", document->number,
                        measure->all.set[document->set].name);
    return status;
}

static void encode_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    struct worker *worker = &measure->worker[worker_number];
    size_t which = index % measure->all.n_tokenizers;
    const struct hm_any_tokenizer *tokenizer = measure->all.tokenizers[which];
    const struct document *document = &measure->document[index / measure->all.n_tokenizers];
    struct encoding *encoding = &measure->encoding[index];

    hm_ids_clear(&worker->ids);
    if (worker->failed < index ||
        worker_failed(worker, index,
                      hm_any_tokenizer_encode(tokenizer, text_of(measure, document), &worker->ids,
                                              &worker->err)) ||
        worker_failed(worker, index, ids_verify(measure, tokenizer, document, worker)))
        return;
    encoding->sums = ids_tally(tokenizer, &worker->ids, worker->count[which],
                               measure->all.set[document->set].seen[which]);
    if (measure->compare && document->han_chars == 0)
        encoding->hash = hm_hash64(worker->ids.id, worker->ids.count * sizeof(*worker->ids.id), 0);
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

static void resample_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    size_t n = measure->all.n_tokenizers;
    uint64_t times[HM_RESAMPLE_UNIT];

    (void)worker_number;
    for (size_t d = 0; d < measure->n_documents; d++) {
        const struct document *document = &measure->document[d];
        const struct set_sums *set = &measure->all.set[document->set];
        hm_poisson_draw(&measure->poisson, set->paired ? measure->paired_key : measure->key,
                        document->number, index, times);
        for (size_t t = 0; t < n; t++) {
            uint64_t *resample = set->resample + t * HM_RESAMPLES + index * HM_RESAMPLE_UNIT;
            uint64_t tokens = measure->encoding[d * n + t].sums.tokens;
            for (size_t i = 0; i < HM_RESAMPLE_UNIT; i++)
                resample[i] += times[i] * tokens;
        }
    }
}

static void document_add(struct measure *measure, size_t d)
{
    size_t n = measure->all.n_tokenizers;
    const struct document *document = &measure->document[d];
    struct set_sums *set = &measure->all.set[document->set];

    set->bytes += document->bytes;
    set->chars += document->chars;
    set->han_chars += document->han_chars;
    set->plain_lines += document->plain_lines;
    for (size_t t = 0; t < n; t++)
        hm_token_sums_add(&set->sums[t], &measure->encoding[d * n + t].sums);
}

static int batch_measure(struct measure *measure, struct hm_error *err)
{
    size_t n = measure->all.n_tokenizers;

    hm_parallel_for(measure->n_documents, count_unit, measure);
    hm_parallel_for(measure->n_documents * n, encode_unit, measure);
    HM_TRY(batch_status(measure, err));
    if (measure->compare) {
        hm_parallel_for(measure->n_documents, changed_unit, measure);
        HM_TRY(batch_status(measure, err));
    }
    for (size_t d = 0; d < measure->n_documents; d++)
        document_add(measure, d);
    if (n > 1 || measure->all.options->n_parity > 0)
        hm_parallel_for(HM_RESAMPLE_UNITS, resample_unit, measure);
    measure->n_documents = 0;
    hm_buf_clear(&measure->text);
    return HM_OK;
}

/* --- collecting ------------------------------------------------------------------------------- */

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
static int sets_reach(struct measured_text *all, const struct hm_doc *doc, struct hm_error *err)
{
    if (doc->set_index >= HM_EFFICIENCY_MAX_SETS)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the text has more than %u sets, the last '%.100s'; set.set_field must "
                       "name what many documents share",
                       HM_EFFICIENCY_MAX_SETS, doc->set);
    while (all->n_sets <= doc->set_index) {
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
    struct set_sums *set = &all->set[doc->set_index];
    if (set->name)
        return HM_OK;
    set->name = hm_strdup(HM_MEM_OTHER, doc->set);
    if (!set->name)
        return hm_fail_nomem(err, "for the name of a set");
    for (size_t p = 0; p < all->options->n_parity; p++)
        set->paired = set->paired || strcmp(all->options->parity[p].a, set->name) == 0 ||
                      strcmp(all->options->parity[p].b, set->name) == 0;
    return HM_OK;
}

static int document_take(struct measure *measure, const struct hm_doc *doc, struct hm_error *err)
{
    HM_TRY(sets_reach(&measure->all, doc, err));
    struct set_sums *set = &measure->all.set[doc->set_index];
    measure->document[measure->n_documents++] =
        (struct document){ .first = measure->text.len,
                           .bytes = doc->text.len,
                           .set = doc->set_index,
                           .number = set->paired ? set->documents : doc->number };
    set->documents++;
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
    hm_free(measure->document);
    hm_free(measure->encoding);
    hm_buf_release(&measure->text);
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
    measure->document = hm_calloc(HM_MEM_OTHER, BATCH_DOCUMENTS, sizeof(*measure->document));
    measure->encoding =
        hm_calloc(HM_MEM_OTHER, BATCH_DOCUMENTS * all->n_tokenizers, sizeof(*measure->encoding));
    all->extends = hm_calloc(HM_MEM_OTHER, all->n_tokenizers, sizeof(*all->extends));
    if (!measure->worker || !measure->document || !measure->encoding || !all->extends)
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
        status = measure_all(&measure, source, ctl, err);
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
