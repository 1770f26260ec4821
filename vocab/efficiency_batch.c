/* SPDX-License-Identifier: MIT */
/*
 * What a batch of documents costs: every document encoded by every tokenizer, in parallel, while
 * one unit of the same loop reads the next batch. All sums are integers, so neither threads nor
 * order change a bit of them. Which text is read, and into which sets it goes, is efficiency.c's.
 */
#include <inttypes.h>
#include <string.h>

#include "efficiency_internal.h"
#include "hanmix/base/parallel.h"
#include "hanmix/vocab/bpe_train.h"

static const struct batch *now_of(const struct measure *measure)
{
    return &measure->batch[measure->now];
}

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
    return (struct hm_str){ measure->batch[measure->now].text.ptr + document->first,
                            document->bytes };
}

static void count_unit(void *context, size_t index, int worker_number)
{
    struct measure *measure = context;
    struct document *document = &measure->batch[measure->now].document[index];
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
    const struct document *document = &now_of(measure)->document[index];
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

/* Unit 0 reads on; the others are documents by tokenizers. */
static void encode_unit(void *context, size_t unit, int worker_number)
{
    struct measure *measure = context;
    size_t index = unit - 1;

    if (unit == 0) {
        if (now_of(measure)->more > 0)
            hm_efficiency_read(measure, &measure->batch[!measure->now]);
        return;
    }
    struct worker *worker = &measure->worker[worker_number];
    size_t which = index % measure->all.n_tokenizers;
    const struct hm_any_tokenizer *tokenizer = measure->all.tokenizers[which];
    const struct document *document = &now_of(measure)->document[index / measure->all.n_tokenizers];
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
    for (size_t d = 0; d < now_of(measure)->n_documents; d++) {
        const struct document *document = &now_of(measure)->document[d];
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
    const struct document *document = &now_of(measure)->document[d];
    struct set_sums *set = &measure->all.set[document->set];

    set->bytes += document->bytes;
    set->chars += document->chars;
    set->han_chars += document->han_chars;
    set->plain_lines += document->plain_lines;
    for (size_t t = 0; t < n; t++)
        hm_token_sums_add(&set->sums[t], &measure->encoding[d * n + t].sums);
}

int hm_efficiency_batch(struct measure *measure, struct hm_error *err)
{
    size_t n = measure->all.n_tokenizers, n_documents = now_of(measure)->n_documents;

    hm_parallel_for(n_documents, count_unit, measure);
    hm_parallel_for(n_documents * n + 1, encode_unit, measure);
    HM_TRY(batch_status(measure, err));
    if (measure->compare) {
        hm_parallel_for(n_documents, changed_unit, measure);
        HM_TRY(batch_status(measure, err));
    }
    for (size_t d = 0; d < now_of(measure)->n_documents; d++)
        document_add(measure, d);
    if (n > 1 || measure->all.options->n_parity > 0)
        hm_parallel_for(HM_RESAMPLE_UNITS, resample_unit, measure);
    return HM_OK;
}
