/* SPDX-License-Identifier: MIT */
/*
 * Documents cut into longest stretches of Han-class characters (and Chinese punctuation, where that
 * is asked for), written as the records of a block at once. A source is read in pieces, each of
 * which becomes a block, in parallel, with the same blocks for any number of threads. Work is
 * linear in the bytes.
 */
#include <endian.h>
#include <string.h>

#include "han_spill.h"
#include "hanmix/base/parallel.h"

#define OPEN_WORDS   (128u << 10) /* of the block that documents enter one by one */
#define WORDS_KEPT   (4u << 20)   /* of a thread's block between pieces */
#define BATCH_BYTES  (4u << 20)   /* two of them are held */
#define PIECE_BYTES  (128u << 10)
#define BATCH_PIECES (BATCH_BYTES / PIECE_BYTES + 1)
#define HAN_LEAST    0x2e80u /* no character of the class is below */

/* --- from text into records ------------------------------------------------------------------- */

static inline size_t unit_put(uint16_t *unit, uint32_t code)
{
    if (code < 0x10000) {
        unit[0] = (uint16_t)code;
        return 1;
    }
    unit[0] = (uint16_t)(0xd7c0 + (code >> 10));
    unit[1] = (uint16_t)(0xdc00 | (code & 0x3ff));
    return 2;
}

/* Length of the code point at text; a malformed byte counts as one character of no script. */
static inline unsigned code_next(const unsigned char *text, size_t left, uint32_t *ret_code)
{
    if (left >= 3 && (text[0] & 0xf0) == 0xe0 && (text[1] & 0xc0) == 0x80 &&
        (text[2] & 0xc0) == 0x80) {
        *ret_code = (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
        if (*ret_code >= 0x800 && *ret_code - 0xd800 >= 0x800)
            return 3;
    }
    unsigned len = hm_utf8_decode((const char *)text, left, ret_code);

    if (len == 0)
        *ret_code = 0;
    return len ? len : 1;
}

/* Threads share the marks: those that are there are not written again. */
static inline void met_mark(_Atomic uint8_t *met, uint32_t code)
{
    if (!atomic_load_explicit(&met[code], memory_order_relaxed))
        atomic_store_explicit(&met[code], 1, memory_order_relaxed);
}

/* Whether the word's lowest three bytes are a character of the block of nearly all Chinese text,
 * U+4E00 to U+9FBF: which. */
static inline bool block_code(uint64_t word, uint32_t *ret_code)
{
    *ret_code = (word & 0xf) << 12 | (word >> 2 & 0xfc0) | (word >> 16 & 0x3f);
    int in_block = *ret_code - 0x4e00 < 0x9fc0 - 0x4e00;
    return (int)((word & 0xc0c0f0) == 0x8080e0) & in_block; /* no branch between */
}

/* The characters of that block at text into units; the bytes behind them are returned. */
static inline const unsigned char *block_copy(const unsigned char *text, const unsigned char *end,
                                              uint16_t **unit, _Atomic uint8_t *met)
{
    uint16_t *to = *unit;

    for (; end - text >= 8; text += 6, to += 2) {
        uint64_t word;
        uint32_t left, right;
        memcpy(&word, text, sizeof(word));
        word = le64toh(word); /* the first byte lowest */
        if (!block_code(word, &left))
            break;
        to[0] = (uint16_t)left;
        met_mark(met, left);
        if (!block_code(word >> 24, &right)) {
            text += 3;
            to++;
            break;
        }
        to[1] = (uint16_t)right;
        met_mark(met, right);
    }
    *unit = to;
    return text;
}

static inline const unsigned char *ascii_skip(const unsigned char *text, const unsigned char *end)
{
    uint64_t word;

    for (; end - text >= 8; text += 8) {
        memcpy(&word, text, sizeof(word));
        if (word & 0x8080808080808080u)
            break;
    }
    while (text < end && *text < 0x80)
        text++;
    return text;
}

struct text_counts {
    uint64_t characters, han_characters, runs;
};

/* The units behind the block's words, up to `next`, are a run, unless there are none. The next one
 * goes where is returned. */
static inline uint16_t *run_end(struct run_words *words, const uint16_t *next,
                                struct text_counts *sum)
{
    size_t n_units = (size_t)(next - (words->word + words->n + 1));

    if (n_units > 0) {
        sum->runs++;
        if (!hm_run_words_end_once(words, n_units))
            hm_run_words_end(words, n_units, 1);
    }
    return words->word + words->n + 1;
}

/* Append the runs of text to the block; counts->met[code] becomes 1 for every character of them. */
static int text_cut(struct hm_han_counts *counts, struct run_words *words, struct hm_str document,
                    struct text_counts *sum, struct hm_error *err)
{
    const unsigned char *text = (const unsigned char *)document.ptr;
    const unsigned char *end = text + document.len;
    _Atomic uint8_t *met = counts->met;
    bool takes_marks = counts->takes_marks;
    struct text_counts here = { 0 };

    /* most are taken by runs of one character of four bytes, a byte apart: three words each */
    HM_TRY(hm_run_words_reserve(words, document.len / 5 * 3 + 2 * (size_t)HM_RECORD_EXTRA, err));
    uint16_t *next = words->word + words->n + 1;
    while (text < end) {
        uint16_t *unit = next;
        uint32_t code = 0;
        text = block_copy(text, end, &next, met);
        here.characters += (uint64_t)(next - unit);
        here.han_characters += (uint64_t)(next - unit);
        if (text == end)
            break;
        const unsigned char *from = text;
        if (*text < 0x80) {
            text = ascii_skip(text, end);
            here.characters += (uint64_t)(text - from);
        } else {
            text += code_next(text, (size_t)(end - text), &code);
            here.characters++;
        }
        bool han = code >= HAN_LEAST && hm_is_han_class(code);
        here.han_characters += han;
        if (han || (takes_marks && hm_is_han_mark(code))) {
            met_mark(met, code);
            next += unit_put(next, code);
        } else {
            next = run_end(words, next, &here);
        }
    }
    run_end(words, next, &here);
    sum->characters += here.characters;
    sum->han_characters += here.han_characters;
    sum->runs += here.runs;
    return HM_OK;
}

/* --- documents one by one --------------------------------------------------------------------- */

/* A block with room for more. */
static int block_open(struct hm_han_counts *counts, struct run_words **ret_words,
                      struct hm_error *err)
{
    if (counts->n_blocks > 0) {
        *ret_words = &counts->block[counts->n_blocks - 1];
        if ((*ret_words)->n < OPEN_WORDS)
            return HM_OK;
        HM_TRY(hm_run_words_shrink(*ret_words, err));
    }
    HM_TRY(hm_han_blocks_reserve(counts, 1, err));
    *ret_words = &counts->block[counts->n_blocks++];
    **ret_words = (struct run_words){ .budget = &counts->budget };
    return HM_OK;
}

/* What was added stays in memory unless that is too much; scratch memory is not asked about, for it
 * grows with the threads. */
static int blocks_settle(struct hm_han_counts *counts, uint64_t scratch_bytes, struct hm_error *err)
{
    struct han_spill *spill = counts->spill;

    if (!spill)
        return HM_OK;
    if (spill->begun)
        return hm_han_spill_blocks(counts, err);
    return hm_han_counts_bytes(counts) - scratch_bytes > spill->options.hold_bytes
               ? hm_han_spill_begin(counts, err)
               : HM_OK;
}

int hm_han_counts_add(struct hm_han_counts *counts, struct hm_str document, struct hm_error *err)
{
    struct run_words *words = NULL;
    struct text_counts sum = { 0 };
    struct hm_error local = { 0 };
    int status = block_open(counts, &words, &local);

    if (status == HM_OK)
        status = text_cut(counts, words, document, &sum, &local);
    if (status == HM_OK)
        status = blocks_settle(counts, 0, &local);
    if (status < 0)
        return hm_error_pass(err, &local);
    counts->documents++;
    counts->bytes += document.len;
    counts->characters += sum.characters;
    counts->han_characters += sum.han_characters;
    counts->runs += sum.runs;
    return HM_OK;
}

/* The units of a run behind one free word; what they count to goes into sum. */
static int run_decode(const struct hm_han_counts *counts, struct hm_str run, uint16_t *unit,
                      size_t *ret_units, struct text_counts *sum, struct hm_error *err)
{
    size_t n_units = 0;

    for (size_t i = 0; i < run.len; sum->characters++) {
        uint32_t code;
        unsigned len = hm_utf8_decode(run.ptr + i, run.len - i, &code);
        if (len == 0 || !hm_han_counts_takes(counts, code))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%.*s' is not a Han run: byte %zu begins no character of one",
                           (int)(run.len < 100 ? run.len : 100), run.ptr, i);
        n_units += unit_put(unit + n_units, code);
        sum->han_characters += hm_is_han_class(code);
        i += len;
    }
    *ret_units = n_units;
    return HM_OK;
}

int hm_han_counts_add_run(struct hm_han_counts *counts, struct hm_str run, uint64_t count,
                          struct hm_error *err)
{
    struct run_words *words = NULL;
    struct hm_error local = { 0 };
    struct text_counts sum = { 0 };
    size_t n_units = 0;
    int status = block_open(counts, &words, &local);

    if (status == HM_OK)
        status = hm_run_words_reserve(words, run.len / 2 + HM_RECORD_EXTRA + 1, &local);
    if (status == HM_OK)
        status = run_decode(counts, run, words->word + words->n + 1, &n_units, &sum, &local);
    if (status == HM_OK && n_units > 0 && count > 0) {
        const uint16_t *unit = words->word + words->n + 1;
        for (uint32_t i = 0; i < n_units;)
            met_mark(counts->met, hm_run_code(unit, &i));
        hm_run_words_end(words, n_units, count);
        counts->runs += count;
        status = blocks_settle(counts, 0, &local);
    }
    if (status < 0)
        return hm_error_pass(err, &local);
    counts->bytes += run.len * count;
    counts->characters += sum.characters * count;
    counts->han_characters += sum.han_characters * count;
    return HM_OK;
}

/* --- a whole source --------------------------------------------------------------------------- */

struct stretch { /* of a batch's text */
    size_t first, bytes;
};

struct batch {
    struct hm_buf text; /* documents, each followed by a newline */
    struct stretch stretch[BATCH_PIECES];
    size_t n_pieces;
    uint64_t documents, bytes;
    int more; /* 1, 0 at the end of the source, or what failed */
    struct hm_error err;
};

struct piece { /* what a stretch came to */
    struct run_words words;
    struct text_counts sum;
    struct hm_error err;
};

struct reading { /* one batch is counted while the next is read */
    struct hm_han_counts *counts;
    struct hm_text_source *source;
    struct batch batch[2];
    int now;
    struct piece piece[BATCH_PIECES];
    struct run_words *scratch; /* [n_scratch], by worker */
    size_t n_scratch;
};

static int batch_take(struct batch *batch, struct hm_str text, struct hm_error *err)
{
    size_t first = batch->text.len;

    HM_TRY(hm_buf_append(&batch->text, text.ptr, text.len, err));
    HM_TRY(hm_buf_append(&batch->text, "\n", 1, err));
    batch->documents++;
    batch->bytes += text.len;
    if (batch->n_pieces == 0 || batch->stretch[batch->n_pieces - 1].bytes >= PIECE_BYTES)
        batch->stretch[batch->n_pieces++].first = first;
    struct stretch *stretch = &batch->stretch[batch->n_pieces - 1];
    stretch->bytes = batch->text.len - stretch->first;
    return HM_OK;
}

static void batch_read(struct batch *batch, struct hm_text_source *source)
{
    struct hm_doc doc;

    hm_buf_clear(&batch->text);
    batch->documents = batch->bytes = 0;
    batch->n_pieces = 0;
    do {
        batch->more = source->next(source->context, &doc, &batch->err);
        if (batch->more > 0 && batch_take(batch, doc.text, &batch->err) < 0)
            batch->more = batch->err.code;
    } while (batch->more > 0 && batch->text.len < BATCH_BYTES);
}

/* A stretch becomes a block of just the size. */
static int stretch_cut(struct reading *reading, struct run_words *words, struct hm_str text,
                       struct piece *piece)
{
    HM_TRY(text_cut(reading->counts, words, text, &piece->sum, &piece->err));
    if (words->n_runs > 0) {
        HM_TRY(hm_run_words_reserve(&piece->words, words->n - HM_BLOCK_HEADER_WORDS, &piece->err));
        hm_alloc_populate(piece->words.word, words->n * sizeof(*words->word));
        memcpy(piece->words.word, words->word, words->n * sizeof(*words->word));
        piece->words.n = words->n;
        piece->words.n_runs = words->n_runs;
    }
    if (words->cap > WORDS_KEPT)
        hm_run_words_release(words);
    hm_run_words_clear(words);
    return HM_OK;
}

/* Unit 0 reads on; the others are the stretches of the batch. */
static void reading_unit(void *context, size_t index, int worker)
{
    struct reading *reading = context;
    const struct batch *batch = &reading->batch[reading->now];

    if (index == 0) {
        if (batch->more > 0)
            batch_read(&reading->batch[!reading->now], reading->source);
        return;
    }
    const struct stretch *stretch = &batch->stretch[index - 1];
    stretch_cut(reading, &reading->scratch[worker],
                (struct hm_str){ batch->text.ptr + stretch->first, stretch->bytes },
                &reading->piece[index - 1]);
}

/* The blocks of a batch become the counts'. */
static int pieces_keep(struct reading *reading, size_t n, struct hm_error *err)
{
    struct hm_han_counts *counts = reading->counts;
    uint64_t scratch_bytes = 0;

    HM_TRY(hm_han_blocks_reserve(counts, n, err));
    for (size_t i = 0; i < n; i++) {
        struct run_words *words = &reading->piece[i].words;
        if (words->n_runs > 0)
            counts->block[counts->n_blocks++] = *words;
        *words = (struct run_words){ .budget = &counts->budget };
    }
    for (size_t i = 0; i < reading->n_scratch; i++)
        scratch_bytes += reading->scratch[i].cap * sizeof(uint16_t);
    return blocks_settle(counts, scratch_bytes, err);
}

static int batch_count(struct reading *reading, struct hm_error *err)
{
    struct hm_han_counts *counts = reading->counts;
    const struct batch *batch = &reading->batch[reading->now];

    hm_parallel_for(batch->n_pieces + 1, reading_unit, reading);
    for (size_t i = 0; i < batch->n_pieces; i++) {
        struct piece *piece = &reading->piece[i];
        if (piece->err.code < 0)
            return hm_error_pass(err, &piece->err);
        counts->characters += piece->sum.characters;
        counts->han_characters += piece->sum.han_characters;
        counts->runs += piece->sum.runs;
        piece->sum = (struct text_counts){ 0 };
    }
    HM_TRY(pieces_keep(reading, batch->n_pieces, err));
    counts->documents += batch->documents;
    counts->characters -= batch->documents; /* the newlines */
    counts->bytes += batch->bytes;
    return HM_OK;
}

static int source_read(struct reading *reading, const struct hm_ctl *ctl, struct hm_error *err)
{
    const struct batch *batch = &reading->batch[0];

    for (batch_read(&reading->batch[0], reading->source); batch->more >= 0;
         batch = &reading->batch[reading->now]) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "reading text was stopped");
        HM_TRY(batch_count(reading, err));
        hm_text_progress(ctl, "count runs", reading->source);
        if (batch->more == 0)
            return HM_OK;
        reading->now = !reading->now;
    }
    return hm_error_pass(err, &batch->err);
}

static int reading_begin(struct reading *reading, struct hm_error *err)
{
    struct hm_han_budget *budget = &reading->counts->budget;
    size_t n = (size_t)hm_threads();

    for (size_t i = 0; i < BATCH_PIECES; i++)
        reading->piece[i].words.budget = budget;
    reading->scratch = hm_calloc(HM_MEM_VOCAB, n, sizeof(*reading->scratch));
    if (!reading->scratch)
        return hm_fail_nomem(err, "for reading text");
    reading->n_scratch = n;
    for (size_t i = 0; i < n; i++)
        reading->scratch[i].budget = budget;
    return HM_OK;
}

static void reading_end(struct reading *reading)
{
    for (size_t i = 0; i < reading->n_scratch; i++)
        hm_run_words_release(&reading->scratch[i]);
    hm_free(reading->scratch);
    for (size_t i = 0; i < BATCH_PIECES; i++)
        hm_run_words_release(&reading->piece[i].words);
    hm_buf_release(&reading->batch[0].text);
    hm_buf_release(&reading->batch[1].text);
    hm_free(reading);
}

int hm_han_counts_read(struct hm_han_counts *counts, struct hm_text_source *source,
                       const struct hm_ctl *ctl, struct hm_error *err)
{
    struct reading *reading = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*reading));
    struct hm_error local = { 0 };

    if (!reading)
        return hm_fail_nomem(err, "for reading text");
    reading->counts = counts;
    reading->source = source;
    int status = reading_begin(reading, &local);
    if (status == HM_OK)
        status = source_read(reading, ctl, &local);
    reading_end(reading);
    return status < 0 ? hm_error_pass(err, &local) : HM_OK;
}
