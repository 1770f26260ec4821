/* SPDX-License-Identifier: MIT */
/*
 * Documents cut into longest stretches of Han-class characters. Text is read in pieces, each into a
 * list of runs, and the lists are poured into the parts of han_store.c: both in parallel, with the
 * same counts for any number of threads. Work is linear in the bytes.
 */
#include <string.h>

#include "han_spill.h"
#include "hanmix/base/parallel.h"

#define PART_SHIFT   58u /* of a walking cursor: part above, place below */
#define FLUSH_UNITS  (4u << 20)
#define BATCH_BYTES  (4u << 20) /* two of them are held */
#define PIECE_BYTES  (128u << 10)
#define BATCH_PIECES (BATCH_BYTES / PIECE_BYTES + 1)

int hm_han_counts_new(struct hm_han_counts **ret_counts, struct hm_error *err)
{
    struct hm_han_counts *counts = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*counts));
    struct hm_error local = { 0 };

    if (!counts)
        return hm_fail_nomem(err, "for counting Han runs");
    atomic_init(&counts->budget.used_bytes, sizeof(*counts));
    counts->list.budget = &counts->budget;
    for (size_t p = 0; p < HM_HAN_PARTS; p++) {
        if (hm_han_part_init(&counts->part[p], &counts->budget, &local) < 0) {
            hm_han_counts_free(counts);
            return hm_error_pass(err, &local);
        }
    }
    *ret_counts = counts;
    return HM_OK;
}

void hm_han_counts_free(struct hm_han_counts *counts)
{
    if (!counts)
        return;
    for (size_t p = 0; p < HM_HAN_PARTS; p++)
        hm_han_part_release(&counts->part[p]);
    hm_han_spill_free(counts);
    hm_han_list_release(&counts->list);
    hm_free(counts);
}

void hm_han_counts_limit(struct hm_han_counts *counts, uint64_t bytes)
{
    counts->budget.limit_bytes = bytes;
}

uint64_t hm_han_counts_bytes(const struct hm_han_counts *counts)
{
    return atomic_load(&counts->budget.used_bytes);
}

bool hm_han_counts_next(const struct hm_han_counts *counts, uint64_t *cursor,
                        struct hm_run *ret_run)
{
    size_t number = *cursor >> PART_SHIFT;
    uint64_t within = *cursor & (((uint64_t)1 << PART_SHIFT) - 1);

    for (; number < HM_HAN_PARTS; number++, within = 0) {
        if (hm_han_part_next(&counts->part[number], &within, ret_run)) {
            *cursor = (uint64_t)number << PART_SHIFT | within;
            return true;
        }
    }
    return false;
}

/* --- from lists into parts -------------------------------------------------------------------- */

struct pour {
    struct hm_han_counts *counts;
    const struct hm_han_list *list;
    size_t n_lists;
    struct hm_error err[HM_HAN_PARTS];
};

static void pour_unit(void *context, size_t number, int worker)
{
    struct pour *pour = context;
    struct hm_han_part *part = &pour->counts->part[number];
    int status = HM_OK;

    (void)worker;
    for (size_t i = 0; status == HM_OK && i < pour->n_lists; i++)
        status = hm_han_part_add(part, number, &pour->list[i], &pour->err[number]);
}

static int pour_run(struct pour *pour, struct hm_error *err)
{
    hm_parallel_for(HM_HAN_PARTS, pour_unit, pour);
    for (size_t p = 0; p < HM_HAN_PARTS; p++)
        if (pour->err[p].code < 0)
            return hm_error_pass(err, &pour->err[p]);
    return HM_OK;
}

int hm_han_counts_pour(struct hm_han_counts *counts, const struct hm_han_list *list, size_t n_lists,
                       struct hm_error *err)
{
    struct pour *pour = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*pour));

    if (!pour)
        return hm_fail_nomem(err, "for counting Han runs");
    *pour = (struct pour){ .counts = counts, .list = list, .n_lists = n_lists };
    int status = pour_run(pour, err);
    hm_free(pour);
    return status;
}

/* --- from text into lists --------------------------------------------------------------------- */

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
    unsigned len = hm_utf8_decode((const char *)text, left, ret_code);

    if (len == 0)
        *ret_code = 0;
    return len ? len : 1;
}

static inline bool of_block(uint32_t code)
{
    return code - 0x4e00 < 0x9fc0 - 0x4e00;
}

/* The two characters of three bytes that begin a little-endian word; false: they are not both. */
static inline bool two_of_block(const unsigned char *text, uint16_t *unit)
{
    uint64_t word;

    memcpy(&word, text, sizeof(word));
    if ((word & 0xc0c0f0c0c0f0) != 0x8080e08080e0)
        return false;
    uint32_t left = (word & 0xf) << 12 | (word >> 2 & 0xfc0) | (word >> 16 & 0x3f);
    uint32_t right = (word >> 12 & 0xf000) | (word >> 26 & 0xfc0) | (word >> 40 & 0x3f);
    unit[0] = (uint16_t)left;
    unit[1] = (uint16_t)right;
    return of_block(left) & of_block(right);
}

/* The characters at text that are of the block of nearly all Chinese text, U+4E00 to U+9FBF, into
 * units; the bytes before it end at the returned place. */
static inline const unsigned char *block_copy(const unsigned char *text, const unsigned char *end,
                                              uint16_t **unit)
{
    for (; end - text >= 8 && two_of_block(text, *unit); text += 6)
        *unit += 2;
    for (; end - text >= 3; text += 3) {
        uint32_t code = (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
        bool well_formed =
            (text[0] & 0xf0) == 0xe0 && (text[1] & 0xc0) == 0x80 && (text[2] & 0xc0) == 0x80;
        if (!well_formed || !of_block(code))
            break;
        *(*unit)++ = (uint16_t)code;
    }
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
    uint64_t characters, han_characters;
};

/* Append the runs of text to the list. */
static int text_cut(struct hm_han_list *list, struct hm_str document, struct text_counts *sum,
                    struct hm_error *err)
{
    const unsigned char *text = (const unsigned char *)document.ptr;
    const unsigned char *end = text + document.len;
    uint64_t characters = 0, han_characters = 0;
    size_t first = list->n_units;

    /* three bytes make one unit, four make two */
    HM_TRY(hm_han_list_reserve(list, document.len / 2 + 2, err));
    while (text < end) {
        uint16_t *unit = list->unit + list->n_units, *next = unit;
        uint32_t code = 0;
        text = block_copy(text, end, &next);
        list->n_units += (size_t)(next - unit);
        characters += (uint64_t)(next - unit);
        han_characters += (uint64_t)(next - unit);
        if (text == end)
            break;
        const unsigned char *from = text;
        text = ascii_skip(text, end);
        characters += (uint64_t)(text - from);
        if (text == from) {
            text += code_next(text, (size_t)(end - text), &code);
            characters++;
        }
        if (hm_is_han_class(code)) {
            han_characters++;
            list->n_units += unit_put(list->unit + list->n_units, code);
        } else if (list->n_units > first) {
            HM_TRY(hm_han_list_end_run(list, first, 1, err));
            first = list->n_units;
        }
    }
    if (list->n_units > first)
        HM_TRY(hm_han_list_end_run(list, first, 1, err));
    sum->characters += characters;
    sum->han_characters += han_characters;
    return HM_OK;
}

/* To the disk, when memory may hold no more; *ret_taken false: into memory. */
static int lists_spill(struct hm_han_counts *counts, const struct hm_han_list *list, size_t n_lists,
                       bool *ret_taken, struct hm_error *err)
{
    struct han_spill *spill = counts->spill;

    if (spill && !spill->begun &&
        hm_han_counts_bytes(counts) + hm_han_counts_growth(counts, list, n_lists) >
            spill->options.hold_bytes)
        HM_TRY(hm_han_spill_begin(counts, err));
    *ret_taken = spill && spill->begun;
    return *ret_taken ? hm_han_spill_add(counts, list, n_lists, err) : HM_OK;
}

static int list_empty(struct hm_han_counts *counts, struct hm_error *err)
{
    bool taken = false;

    HM_TRY(hm_han_list_sort(&counts->list, err));
    HM_TRY(lists_spill(counts, &counts->list, 1, &taken, err));
    for (size_t p = 0; !taken && p < HM_HAN_PARTS; p++)
        HM_TRY(hm_han_part_add(&counts->part[p], p, &counts->list, err));
    if (counts->list.cap_units > FLUSH_UNITS)
        hm_han_list_release(&counts->list);
    hm_han_list_clear(&counts->list);
    return HM_OK;
}

int hm_han_counts_add(struct hm_han_counts *counts, struct hm_str document, struct hm_error *err)
{
    struct text_counts sum = { 0 };
    struct hm_error local = { 0 };
    int status = text_cut(&counts->list, document, &sum, &local);

    if (status == HM_OK)
        status = list_empty(counts, &local);
    if (status < 0)
        return hm_error_pass(err, &local);
    counts->documents++;
    counts->bytes += document.len;
    counts->characters += sum.characters;
    counts->han_characters += sum.han_characters;
    return HM_OK;
}

int hm_han_counts_add_run(struct hm_han_counts *counts, struct hm_str run, uint64_t count,
                          struct hm_error *err)
{
    struct hm_han_list *list = &counts->list;
    struct hm_error local = { 0 };
    uint64_t characters = 0;
    int status = hm_han_list_reserve(list, run.len / 2 + 2, &local);

    for (size_t i = 0; status == HM_OK && i < run.len; characters++) {
        uint32_t code;
        unsigned len = hm_utf8_decode(run.ptr + i, run.len - i, &code);
        if (len == 0 || !hm_is_han_class(code)) {
            hm_han_list_clear(list);
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%.*s' is not a Han run: byte %zu begins no Han character",
                           (int)(run.len < 100 ? run.len : 100), run.ptr, i);
        }
        list->n_units += unit_put(list->unit + list->n_units, code);
        i += len;
    }
    if (status == HM_OK && characters > 0 && count > 0)
        status = hm_han_list_end_run(list, 0, count, &local);
    if (status == HM_OK)
        status = list_empty(counts, &local);
    if (status < 0)
        return hm_error_pass(err, &local);
    counts->bytes += run.len * count;
    counts->characters += characters * count;
    counts->han_characters += characters * count;
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
    struct hm_han_list list;
    struct text_counts sum;
    struct hm_error err;
};

struct reading { /* one batch is counted while the next is read */
    struct hm_han_counts *counts;
    struct hm_text_source *source;
    struct batch batch[2];
    int now;
    struct piece piece[BATCH_PIECES];
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

/* Unit 0 reads on; the others are the stretches of the batch. */
static void reading_unit(void *context, size_t index, int worker)
{
    struct reading *reading = context;
    const struct batch *batch = &reading->batch[reading->now];

    (void)worker;
    if (index == 0) {
        if (batch->more > 0)
            batch_read(&reading->batch[!reading->now], reading->source);
        return;
    }
    const struct stretch *stretch = &batch->stretch[index - 1];
    struct piece *piece = &reading->piece[index - 1];
    hm_han_list_clear(&piece->list);
    if (text_cut(&piece->list, (struct hm_str){ batch->text.ptr + stretch->first, stretch->bytes },
                 &piece->sum, &piece->err) == HM_OK)
        hm_han_list_sort(&piece->list, &piece->err);
}

static int batch_count(struct reading *reading, struct hm_error *err)
{
    struct hm_han_counts *counts = reading->counts;
    const struct batch *batch = &reading->batch[reading->now];
    struct hm_han_list list[BATCH_PIECES];
    bool taken = false;

    hm_parallel_for(batch->n_pieces + 1, reading_unit, reading);
    for (size_t i = 0; i < batch->n_pieces; i++) {
        struct piece *piece = &reading->piece[i];
        if (piece->err.code < 0)
            return hm_error_pass(err, &piece->err);
        list[i] = piece->list;
        counts->characters += piece->sum.characters;
        counts->han_characters += piece->sum.han_characters;
        piece->sum = (struct text_counts){ 0 };
    }
    HM_TRY(lists_spill(counts, list, batch->n_pieces, &taken, err));
    if (!taken)
        HM_TRY(hm_han_counts_pour(counts, list, batch->n_pieces, err));
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

int hm_han_counts_read(struct hm_han_counts *counts, struct hm_text_source *source,
                       const struct hm_ctl *ctl, struct hm_error *err)
{
    struct reading *reading = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*reading));

    if (!reading)
        return hm_fail_nomem(err, "for reading text");
    reading->counts = counts;
    reading->source = source;
    for (size_t i = 0; i < BATCH_PIECES; i++)
        reading->piece[i].list.budget = &counts->budget;
    int status = source_read(reading, ctl, err);
    for (size_t i = 0; i < BATCH_PIECES; i++)
        hm_han_list_release(&reading->piece[i].list);
    hm_buf_release(&reading->batch[0].text);
    hm_buf_release(&reading->batch[1].text);
    hm_free(reading);
    return status;
}

struct hm_han_totals hm_han_counts_totals(const struct hm_han_counts *counts)
{
    struct hm_han_totals totals = { .documents = counts->documents,
                                    .bytes = counts->bytes,
                                    .characters = counts->characters,
                                    .han_characters = counts->han_characters };

    for (size_t p = 0; p < HM_HAN_PARTS; p++) {
        totals.runs += counts->part[p].runs;
        totals.distinct_runs += counts->part[p].distinct_runs;
    }
    if (counts->spill && counts->spill->begun) {
        totals.runs = counts->spill->n_runs;
        totals.distinct_characters = counts->spill->n_characters;
        return totals;
    }
    for (size_t i = 0; i < sizeof(counts->part[0].seen) / sizeof(uint64_t); i++) {
        uint64_t seen = 0;
        for (size_t p = 0; p < HM_HAN_PARTS; p++)
            seen |= counts->part[p].seen[i];
        totals.distinct_characters += (uint64_t)__builtin_popcountll(seen);
    }
    return totals;
}
