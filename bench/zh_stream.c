/* SPDX-License-Identifier: MIT */
/*
 * A walk over a real text; see zh_stream.h. The source stands as UTF-16 units with a 0 after each
 * document. Places of Han characters are sorted by character and the one before, so that a place
 * with the same last characters is a random number within a range.
 */
#include "zh_stream.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/vocab/bpe_train.h"

#define PAGE_BYTES    (2u << 20)
#define UNITS         0x10000u
#define BATCH         64u /* parts of a batch */
#define PART_DOCS     48u
#define HELPERS_MAX   15
#define DOC_MAX_UNITS 200000u

/* Fitted so that text made from 22 MB of encyclopedia has at 88 MB the distinct runs and segments
 * of the real 88 MB (vocab_scale --fit --source 22): novelty far beyond the source is what counts.
 */
const struct zh_rates zh_rates_fitted = { .same_two = 0.12, .same_one = 0.03, .anywhere = 0.06 };

struct pair_range { /* places whose last two characters are key's */
    uint32_t key;   /* before << 16 | character; 0 = free */
    uint32_t first, n;
};

struct zh_model {
    struct zh_rates rates;
    uint16_t *unit;
    size_t n_units, cap_units;
    uint32_t *place; /* [n_places] units of Han characters, by character, then the one before */
    size_t n_places;
    uint32_t *first; /* [UNITS + 1] in place, by character */
    struct pair_range *pair;
    size_t pair_size; /* power of two */
    uint32_t *doc;    /* [n_docs + 1] first units */
    size_t n_docs, cap_docs;
    bool han[UNITS];
};

static size_t pair_at(const struct zh_model *model, uint32_t key)
{
    size_t at = hm_mix64(key) & (model->pair_size - 1);

    while (model->pair[at].key && model->pair[at].key != key)
        at = (at + 1) & (model->pair_size - 1);
    return at;
}

/* Places are met at random: large pages spare most look-ups of addresses. Only a hint. */
static void advise(void *block, size_t bytes)
{
    uintptr_t first = ((uintptr_t)block + PAGE_BYTES - 1) & ~(uintptr_t)(PAGE_BYTES - 1);
    uintptr_t end = ((uintptr_t)block + bytes) & ~(uintptr_t)(PAGE_BYTES - 1);

    if (end > first)
        madvise((void *)first, end - first, MADV_HUGEPAGE);
}

/* --- the source ------------------------------------------------------------------------------- */

static int document_add(struct zh_model *model, struct hm_str text, struct hm_error *err)
{
    if (model->n_units + text.len + 1 > model->cap_units) {
        size_t cap = 2 * model->cap_units + text.len + 1;
        uint16_t *unit = hm_realloc(HM_MEM_TEXT, model->unit, cap * sizeof(*unit));
        if (!unit || cap > UINT32_MAX)
            return hm_fail_nomem(err, "for the source of a text stream");
        advise(unit, cap * sizeof(*unit));
        model->unit = unit;
        model->cap_units = cap;
    }
    if (model->n_docs + 2 > model->cap_docs) {
        size_t cap = 2 * model->cap_docs + 1024;
        uint32_t *doc = hm_realloc(HM_MEM_TEXT, model->doc, cap * sizeof(*doc));
        if (!doc)
            return hm_fail_nomem(err, "for the source of a text stream");
        model->doc = doc;
        model->cap_docs = cap;
    }
    model->doc[model->n_docs++] = (uint32_t)model->n_units;
    for (size_t at = 0; at < text.len;) {
        uint32_t code = 0;
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        at += len ? len : 1;
        if (len == 0 || code == 0)
            continue;
        if (code >= 0x10000) {
            model->unit[model->n_units++] = (uint16_t)(0xd7c0 + (code >> 10));
            code = 0xdc00 | (code & 0x3ff);
        }
        model->unit[model->n_units++] = (uint16_t)code;
    }
    model->unit[model->n_units++] = 0;
    model->doc[model->n_docs] = (uint32_t)model->n_units;
    return HM_OK;
}

static int source_take(struct zh_model *model, struct hm_text_source *source, uint64_t bytes,
                       struct hm_error *err)
{
    struct hm_doc doc;
    uint64_t taken = 0;
    int more = 1;

    while ((bytes == 0 || taken < bytes) && (more = source->next(source->context, &doc, err)) > 0) {
        HM_TRY(document_add(model, doc.text, err));
        taken += doc.text.len;
    }
    if (more < 0)
        return more;
    for (uint32_t code = 0; code < UNITS; code++)
        model->han[code] = hm_is_han_class(code);
    for (size_t i = 0; i < model->n_units; i++)
        model->n_places += model->han[model->unit[i]];
    if (model->n_places == 0)
        return hm_fail(err, HM_ERR_FORMAT, "the source of the text stream holds no Han character");
    return HM_OK;
}

/* One stable pass of a counting sort by the unit `back` before the place. */
static void places_pass(const struct zh_model *model, const uint32_t *from, uint32_t *to,
                        uint32_t *first, size_t back)
{
    memset(first, 0, (UNITS + 1) * sizeof(*first));
    for (size_t i = 0; i < model->n_places; i++)
        first[(from[i] < back ? 0 : model->unit[from[i] - back]) + 1]++;
    for (size_t code = 0; code < UNITS; code++)
        first[code + 1] += first[code];
    for (size_t i = 0; i < model->n_places; i++)
        to[first[from[i] < back ? 0 : model->unit[from[i] - back]]++] = from[i];
    memmove(first + 1, first, UNITS * sizeof(*first));
    first[0] = 0;
}

static int places_sort(struct zh_model *model, struct hm_error *err)
{
    uint32_t *other = hm_alloc_array(HM_MEM_TEXT, model->n_places, sizeof(*other));
    size_t n = 0;

    model->place = hm_alloc_array(HM_MEM_TEXT, model->n_places, sizeof(*model->place));
    model->first = hm_alloc_array(HM_MEM_TEXT, UNITS + 1, sizeof(*model->first));
    if (!other || !model->place || !model->first) {
        hm_free(other);
        return hm_fail_nomem(err, "for the places of a text stream");
    }
    advise(model->place, model->n_places * sizeof(*model->place));
    for (size_t i = 0; i < model->n_units; i++)
        if (model->han[model->unit[i]])
            model->place[n++] = (uint32_t)i;
    places_pass(model, model->place, other, model->first, 1);
    places_pass(model, other, model->place, model->first, 0);
    hm_free(other);
    return HM_OK;
}

static uint32_t pair_key(const struct zh_model *model, uint32_t place)
{
    uint32_t before = place > 0 ? model->unit[place - 1] : 0;

    return model->han[before] ? before << 16 | model->unit[place] : 0;
}

static int pairs_find(struct zh_model *model, struct hm_error *err)
{
    size_t pairs = 0;
    uint32_t last = 0;

    for (size_t i = 0; i < model->n_places; i++) {
        uint32_t key = pair_key(model, model->place[i]);
        pairs += key && key != last;
        last = key;
    }
    for (model->pair_size = 1024; model->pair_size < 2 * pairs;)
        model->pair_size *= 2;
    model->pair = hm_calloc(HM_MEM_TEXT, model->pair_size, sizeof(*model->pair));
    if (!model->pair)
        return hm_fail_nomem(err, "for the pairs of a text stream");
    advise(model->pair, model->pair_size * sizeof(*model->pair));
    for (size_t i = 0; i < model->n_places; i++) {
        uint32_t key = pair_key(model, model->place[i]);
        if (!key)
            continue;
        struct pair_range *range = &model->pair[pair_at(model, key)];
        if (!range->key)
            *range = (struct pair_range){ .key = key, .first = (uint32_t)i };
        range->n++;
    }
    return HM_OK;
}

int zh_model_new(struct hm_text_source *source, uint64_t bytes, struct zh_rates rates,
                 struct zh_model **ret_model, struct hm_error *err)
{
    struct zh_model *model = hm_calloc(HM_MEM_TEXT, 1, sizeof(*model));

    if (!model)
        return hm_fail_nomem(err, "for a text stream");
    model->rates = rates;
    int status = source_take(model, source, bytes, err);
    if (status == HM_OK)
        status = places_sort(model, err);
    if (status == HM_OK)
        status = pairs_find(model, err);
    if (status == HM_OK)
        *ret_model = model;
    else
        zh_model_free(model);
    return status;
}

void zh_model_free(struct zh_model *model)
{
    if (!model)
        return;
    hm_free(model->unit);
    hm_free(model->place);
    hm_free(model->first);
    hm_free(model->pair);
    hm_free(model->doc);
    hm_free(model);
}

uint64_t zh_model_bytes(const struct zh_model *model)
{
    return model->cap_units * sizeof(*model->unit) + model->n_places * sizeof(*model->place) +
           (UNITS + 1) * sizeof(*model->first) + model->pair_size * sizeof(*model->pair) +
           model->cap_docs * sizeof(*model->doc) + sizeof(*model);
}

/* --- the walk --------------------------------------------------------------------------------- */

struct walk {
    const struct zh_model *model;
    uint64_t key, drawn; /* random numbers: of the document, and how many of them */
    double log_stay;     /* log of the share of characters without a jump */
};

static uint64_t draw(struct walk *walk)
{
    return hm_mix64(walk->key + walk->drawn++ * 0x9e3779b97f4a7c15u);
}

static uint32_t draw_below(struct walk *walk, uint32_t bound)
{
    return (uint32_t)((draw(walk) >> 32) * bound >> 32);
}

/* Han characters up to the next jump, at least 1. */
static uint32_t stretch(struct walk *walk)
{
    double chars = log(hm_unit_interval(draw(walk)) + 0x1p-54) / walk->log_stay;

    return chars < 1e6 ? 1 + (uint32_t)chars : 1000000u;
}

/* Where to go on after `place`, whose character follows `before` in what is written. */
static uint32_t jump(struct walk *walk, uint32_t place, uint32_t before)
{
    const struct zh_model *model = walk->model;
    const struct zh_rates *rates = &model->rates;
    uint32_t code = model->unit[place];
    double which =
        hm_unit_interval(draw(walk)) * (rates->same_two + rates->same_one + rates->anywhere);

    if (which < rates->anywhere)
        return model->place[draw_below(walk, (uint32_t)model->n_places)];
    if (which < rates->anywhere + rates->same_two && before) {
        const struct pair_range *range = &model->pair[pair_at(model, before << 16 | code)];
        if (range->n > 0)
            return model->place[range->first + draw_below(walk, range->n)];
    }
    uint32_t first = model->first[code];
    return model->place[first + draw_below(walk, model->first[code + 1] - first)];
}

static int document_write(const struct zh_model *model, uint64_t seed, uint64_t number,
                          struct hm_buf *out, struct hm_error *err)
{
    const struct zh_rates *rates = &model->rates;
    struct walk walk = { .model = model,
                         .key = hm_mix64(seed ^ hm_mix64(number + 1)),
                         .log_stay =
                             log1p(-(rates->same_two + rates->same_one + rates->anywhere)) };
    uint32_t like = draw_below(&walk, (uint32_t)model->n_docs);
    uint32_t units = model->doc[like + 1] - model->doc[like];
    uint32_t place = model->doc[draw_below(&walk, (uint32_t)model->n_docs)];
    uint32_t left = stretch(&walk), before = 0;

    units = units < DOC_MAX_UNITS ? units : DOC_MAX_UNITS;
    HM_TRY(hm_buf_reserve(out, 3 * (size_t)units + 4, err));
    for (uint32_t n = 0; n < units; n++) {
        uint32_t code = model->unit[place];
        if (code == 0) {
            place = model->doc[draw_below(&walk, (uint32_t)model->n_docs)];
            before = 0;
            continue;
        }
        if (model->han[code] && --left == 0) {
            place = jump(&walk, place, before);
            uint32_t now = model->unit[place];
            left = stretch(&walk);
            out->len += hm_utf8_encode(code, out->ptr + out->len);
            before = now == code ? code : 0;
            if (now != code) { /* anywhere: its character follows */
                out->len += hm_utf8_encode(now, out->ptr + out->len);
                before = now;
                n++;
            }
            place++;
            continue;
        }
        if (code >= 0xd800 && code < 0xdc00)
            code = 0x10000 + ((code - 0xd800) << 10) + (model->unit[++place] - 0xdc00u);
        out->len += hm_utf8_encode(code, out->ptr + out->len);
        before = code < UNITS && model->han[code] ? code : 0;
        place++;
    }
    return HM_OK;
}

/* --- the source of documents ------------------------------------------------------------------ */

struct part {
    struct hm_buf text;
    size_t end[PART_DOCS];
    struct hm_error err;
};

struct stream {
    const struct zh_model *model;
    uint64_t seed, wanted, given; /* bytes */
    uint64_t number;              /* of the next document */
    double *seconds;
    _Atomic size_t next_part; /* of the batch at work */
    struct part part[BATCH];
};

static void part_unit(struct stream *stream, size_t index)
{
    struct part *part = &stream->part[index];
    int status = HM_OK;

    hm_buf_clear(&part->text);
    for (size_t i = 0; status == HM_OK && i < PART_DOCS; i++) {
        status = document_write(stream->model, stream->seed, stream->number + index * PART_DOCS + i,
                                &part->text, &part->err);
        part->end[i] = part->text.len;
    }
}

static void *parts_make(void *context)
{
    struct stream *stream = context;
    size_t index;

    while ((index = atomic_fetch_add(&stream->next_part, 1)) < BATCH)
        part_unit(stream, index);
    return NULL;
}

/* Readers fetch text within a parallel loop, where another would be serial: threads of its own. */
static int batch_make(struct stream *stream, struct hm_error *err)
{
    double began = hm_clock_seconds();
    pthread_t helper[HELPERS_MAX];
    int n = 0;

    atomic_store(&stream->next_part, 0);
    while (n < HELPERS_MAX && n + 1 < hm_threads() &&
           pthread_create(&helper[n], NULL, parts_make, stream) == 0)
        n++;
    parts_make(stream);
    while (n > 0)
        pthread_join(helper[--n], NULL);
    if (stream->seconds)
        *stream->seconds += hm_clock_seconds() - began;
    for (size_t i = 0; i < BATCH; i++)
        if (stream->part[i].err.code < 0)
            return hm_error_pass(err, &stream->part[i].err);
    return HM_OK;
}

static int stream_next(void *context, struct hm_doc *ret_doc, struct hm_error *err)
{
    struct stream *stream = context;
    size_t within = (size_t)(stream->number % (BATCH * PART_DOCS));

    if (stream->given >= stream->wanted)
        return 0;
    if (within == 0)
        HM_TRY(batch_make(stream, err));
    const struct part *part = &stream->part[within / PART_DOCS];
    size_t first = within % PART_DOCS ? part->end[within % PART_DOCS - 1] : 0;
    *ret_doc =
        (struct hm_doc){ .text = { part->text.ptr + first, part->end[within % PART_DOCS] - first },
                         .set = "text",
                         .number = stream->number++ };
    stream->given += ret_doc->text.len;
    return 1;
}

static uint64_t stream_position(void *context)
{
    return ((const struct stream *)context)->given;
}

static void stream_close(void *context)
{
    struct stream *stream = context;

    for (size_t i = 0; i < BATCH; i++)
        hm_buf_release(&stream->part[i].text);
    hm_free(stream);
}

int zh_stream_open(const struct zh_model *model, uint64_t seed, uint64_t bytes, double *ret_seconds,
                   struct hm_text_source *ret_source, struct hm_error *err)
{
    struct stream *stream = hm_calloc(HM_MEM_TEXT, 1, sizeof(*stream));

    if (!stream)
        return hm_fail_nomem(err, "for a text stream");
    stream->model = model;
    stream->seed = seed;
    stream->wanted = bytes;
    stream->seconds = ret_seconds;
    *ret_source = (struct hm_text_source){ .context = stream,
                                           .next = stream_next,
                                           .position_bytes = stream_position,
                                           .total_bytes = bytes,
                                           .close = stream_close };
    return HM_OK;
}
