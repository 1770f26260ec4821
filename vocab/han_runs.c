/* SPDX-License-Identifier: MIT */
/*
 * Documents cut into longest stretches of Han-class characters. Text is read in pieces, each into a
 * list of runs, and the lists are poured into the parts of han_store.c: both in parallel, with the
 * same counts for any number of threads. Work is linear in the bytes.
 */

#include "han_spill.h"
#include "hanmix/base/parallel.h"

#define PART_SHIFT   58u /* of a walking cursor: part above, place below */
#define FLUSH_UNITS  (4u << 20)
#define BATCH_BYTES  (8u << 20)
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
    if (left >= 3 && text[0] >= 0xe3 && text[0] <= 0xe9 && (text[1] & 0xc0) == 0x80 &&
        (text[2] & 0xc0) == 0x80) { /* nearly all of Chinese text */
        *ret_code = (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
        return 3;
    }
    unsigned len = hm_utf8_decode((const char *)text, left, ret_code);
    if (len == 0)
        *ret_code = 0;
    return len ? len : 1;
}

struct text_counts {
    uint64_t characters, han_characters;
};

/* Append the runs of text to the list. */
static int text_cut(struct hm_han_list *list, struct hm_str document, struct text_counts *sum,
                    struct hm_error *err)
{
    const unsigned char *text = (const unsigned char *)document.ptr;
    uint64_t characters = 0;
    uint64_t han_characters = 0;
    size_t first = list->n_units;

    /* three bytes make one unit, four make two */
    HM_TRY(hm_han_list_reserve(list, document.len / 2 + 2, err));
    for (size_t i = 0; i < document.len; characters++) {
        uint32_t code;
        if (text[i] < 0x80) {
            code = 0;
            i++;
        } else {
            i += code_next(text + i, document.len - i, &code);
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

struct piece {
    size_t first, bytes; /* of the batch's text */
    struct hm_han_list list;
    struct text_counts sum;
    struct hm_error err;
};

struct batch {
    struct hm_han_counts *counts;
    struct hm_buf text; /* documents, each followed by a newline */
    struct piece piece[BATCH_PIECES];
    size_t n_pieces;
    uint64_t documents, bytes;
};

static void piece_unit(void *context, size_t index, int worker)
{
    struct batch *batch = context;
    struct piece *piece = &batch->piece[index];

    (void)worker;
    hm_han_list_clear(&piece->list);
    if (text_cut(&piece->list, (struct hm_str){ batch->text.ptr + piece->first, piece->bytes },
                 &piece->sum, &piece->err) == HM_OK)
        hm_han_list_sort(&piece->list, &piece->err);
}

static int batch_count(struct batch *batch, struct hm_error *err)
{
    struct hm_han_counts *counts = batch->counts;
    struct hm_han_list list[BATCH_PIECES];
    bool taken = false;

    hm_parallel_for(batch->n_pieces, piece_unit, batch);
    for (size_t i = 0; i < batch->n_pieces; i++) {
        struct piece *piece = &batch->piece[i];
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
    batch->documents = batch->bytes = 0;
    batch->n_pieces = 0;
    hm_buf_clear(&batch->text);
    return HM_OK;
}

static int batch_take(struct batch *batch, struct hm_str text, struct hm_error *err)
{
    size_t first = batch->text.len;

    HM_TRY(hm_buf_append(&batch->text, text.ptr, text.len, err));
    HM_TRY(hm_buf_append(&batch->text, "\n", 1, err));
    batch->documents++;
    batch->bytes += text.len;
    if (batch->n_pieces == 0 || batch->piece[batch->n_pieces - 1].bytes >= PIECE_BYTES)
        batch->piece[batch->n_pieces++].first = first;
    struct piece *piece = &batch->piece[batch->n_pieces - 1];
    piece->bytes = batch->text.len - piece->first;
    return HM_OK;
}

static int source_read(struct batch *batch, struct hm_text_source *source, const struct hm_ctl *ctl,
                       struct hm_error *err)
{
    struct hm_doc doc;
    int more;

    do {
        more = source->next(source->context, &doc, err);
        if (more > 0)
            HM_TRY(batch_take(batch, doc.text, err));
        if (more <= 0 || batch->text.len >= BATCH_BYTES) {
            if (hm_ctl_stopped(ctl))
                return hm_fail(err, HM_ERR_STOPPED, "reading text was stopped");
            HM_TRY(batch_count(batch, err));
            hm_text_progress(ctl, "count runs", source);
        }
    } while (more > 0);
    return more;
}

int hm_han_counts_read(struct hm_han_counts *counts, struct hm_text_source *source,
                       const struct hm_ctl *ctl, struct hm_error *err)
{
    struct batch *batch = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*batch));

    if (!batch)
        return hm_fail_nomem(err, "for reading text");
    batch->counts = counts;
    for (size_t i = 0; i < BATCH_PIECES; i++)
        batch->piece[i].list.budget = &counts->budget;
    int status = source_read(batch, source, ctl, err);
    for (size_t i = 0; i < BATCH_PIECES; i++)
        hm_han_list_release(&batch->piece[i].list);
    hm_buf_release(&batch->text);
    hm_free(batch);
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
