/* SPDX-License-Identifier: MIT */
/*
 * Making the tables of a BPE vocabulary. Ranks are dense: 0 is the best score, equal scores share
 * one, so that comparing ranks and then places is what SentencePiece's queue does.
 */
#include <stdlib.h>
#include <string.h>

#include "piece_table.h"

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "for the tables of a vocabulary");
}

static int set_symbol(struct hm_piece_table *table, uint32_t code, int32_t symbol,
                      struct hm_error *err)
{
    int32_t **page = &table->page[code >> 8];

    if (!*page) {
        *page = hm_alloc_array(HM_MEM_VOCAB, 256, sizeof(**page));
        if (!*page)
            return fail_nomem(err);
        memset(*page, 0xff, 256 * sizeof(**page));
    }
    (*page)[code & 255] = symbol;
    return HM_OK;
}

static int add_extra(struct hm_piece_table *table, uint32_t code, struct hm_error *err)
{
    uint32_t *extra =
        hm_realloc(HM_MEM_VOCAB, table->extra, (table->n_extra + 1) * sizeof(*table->extra));
    if (!extra)
        return fail_nomem(err);
    table->extra = extra;
    extra[table->n_extra] = code;
    return set_symbol(table, code, (int32_t)(table->pieces + table->n_extra++), err);
}

/* Pieces of one character first, then the characters that are no piece. */
static int make_symbols(const struct hm_spm_model *model, struct hm_piece_table *table,
                        struct hm_error *err)
{
    uint32_t code = 0;

    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        if (model->piece[i].type == HM_PIECE_NORMAL &&
            hm_utf8_decode(text.ptr, text.len, &code) == text.len)
            HM_TRY(set_symbol(table, code, (int32_t)i, err));
    }
    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        if (model->piece[i].type != HM_PIECE_NORMAL)
            continue;
        for (size_t at = 0; at < text.len;) {
            at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
            if (hm_piece_table_symbol(table, code) < 0)
                HM_TRY(add_extra(table, code, err));
        }
    }
    return HM_OK;
}

/* A normal piece, or a single character; -1 otherwise. */
static int32_t symbol_of(const struct hm_spm_model *model, const struct hm_piece_table *table,
                         struct hm_str text)
{
    int32_t id = hm_spm_model_find(model, text);
    uint32_t code;

    if (id >= 0 && model->piece[id].type == HM_PIECE_NORMAL)
        return id;
    return hm_utf8_decode(text.ptr, text.len, &code) == text.len
               ? hm_piece_table_symbol(table, code)
               : -1;
}

static void put_pair(struct hm_piece_table *table, int32_t left, int32_t right, uint32_t result,
                     uint32_t rank)
{
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) + 1;
    size_t place = hm_piece_table_place(table, key);

    while (table->slot[place].key != 0 && table->slot[place].key != key)
        place = (place + 1) & table->mask;
    table->slot[place] = (struct hm_pair_slot){ key, result, rank };
}

/* Store the splits of a piece, or only count them when store is false. */
static size_t split_piece(const struct hm_spm_model *model, struct hm_piece_table *table, size_t id,
                          uint32_t rank, bool store)
{
    struct hm_str text = model->piece[id].text;
    size_t n = 0;

    for (size_t at = 1; at < text.len; at++) {
        if (((unsigned char)text.ptr[at] & 0xc0) == 0x80)
            continue;
        int32_t left = symbol_of(model, table, (struct hm_str){ text.ptr, at });
        int32_t right =
            left < 0 ? -1
                     : symbol_of(model, table, (struct hm_str){ text.ptr + at, text.len - at });
        if (right < 0)
            continue;
        if (store)
            put_pair(table, left, right, (uint32_t)id, rank);
        n++;
    }
    return n;
}

static int descending(const void *left, const void *right)
{
    float a = *(const float *)left;
    float b = *(const float *)right;

    return (a < b) - (a > b);
}

/* The place of score among the distinct scores, best first. */
static uint32_t rank_of(const float *score, size_t count, float wanted)
{
    size_t low = 0;
    size_t high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (score[middle] > wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return (uint32_t)low;
}

static int make_slots(struct hm_piece_table *table, size_t pairs, struct hm_error *err)
{
    size_t slots = 64;

    table->shift = 64 - 6;
    while (slots < pairs + pairs / 2) {
        slots *= 2;
        table->shift--;
    }
    table->mask = slots - 1;
    table->slot = hm_calloc(HM_MEM_VOCAB, slots, sizeof(*table->slot));
    return table->slot ? HM_OK : fail_nomem(err);
}

/* A list of merges: the place in it is the rank. */
static int list_pairs(const struct hm_spm_model *model, struct hm_piece_table *table,
                      struct hm_error *err)
{
    HM_TRY(make_slots(table, model->n_merges, err));
    for (size_t i = 0; i < model->n_merges; i++) {
        const struct hm_spm_merge *merge = &model->merge[i];
        put_pair(table, merge->left, merge->right, (uint32_t)merge->result, (uint32_t)i);
    }
    return HM_OK;
}

static int make_pairs(const struct hm_spm_model *model, struct hm_piece_table *table,
                      struct hm_error *err)
{
    float *score = hm_alloc_array(HM_MEM_VOCAB, model->count, sizeof(*score));
    size_t pairs = 0;

    if (!score)
        return fail_nomem(err);
    for (size_t i = 0; i < model->count; i++) {
        score[i] = model->piece[i].score;
        if (model->piece[i].type == HM_PIECE_NORMAL)
            pairs += split_piece(model, table, i, 0, false);
    }
    qsort(score, model->count, sizeof(*score), descending);
    int status = make_slots(table, pairs, err);
    if (status == HM_OK)
        for (size_t i = 0; i < model->count; i++)
            if (model->piece[i].type == HM_PIECE_NORMAL)
                split_piece(model, table, i, rank_of(score, model->count, model->piece[i].score),
                            true);
    hm_free(score);
    return status;
}

int hm_piece_table_make(const struct hm_spm_model *model, struct hm_piece_table *ret_table,
                        struct hm_error *err)
{
    struct hm_piece_table table = { .pieces = model->count };
    int status = make_symbols(model, &table, err);

    if (status == HM_OK)
        status = model->by_merges ? list_pairs(model, &table, err) : make_pairs(model, &table, err);
    if (status == HM_OK)
        *ret_table = table;
    else
        hm_piece_table_release(&table);
    return status;
}

void hm_piece_table_release(struct hm_piece_table *table)
{
    for (size_t i = 0; i < sizeof(table->page) / sizeof(table->page[0]); i++)
        hm_free(table->page[i]);
    hm_free(table->extra);
    hm_free(table->slot);
    *table = (struct hm_piece_table){ 0 };
}
