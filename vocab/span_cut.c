/* SPDX-License-Identifier: MIT */
/*
 * The set of character pairs inside the pieces of a vocabulary, and the places in a text where it
 * allows a cut. A malformed byte counts as U+FFFD, one byte long, as the library reads it.
 */

#include "span_cut.h"

bool hm_span_cuts_exact(const struct hm_spm_model *model)
{
    return model->kind == HM_SPM_BPE && !model->has_charsmap && !model->remove_extra_whitespaces &&
           model->escape_whitespaces && !model->whitespace_as_suffix;
}

static unsigned decode_at(struct hm_str text, size_t at, uint32_t *ret_code)
{
    unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, ret_code);

    if (len > 0)
        return len;
    *ret_code = 0xfffd;
    return 1;
}

static void put_pair(struct hm_span_cuts *cuts, uint64_t pair)
{
    cuts->slot[hm_span_slot(cuts, pair)] = pair;
}

/* Every pair of characters inside the pieces that can match text. */
static void put_pairs(const struct hm_spm_model *model, struct hm_span_cuts *cuts)
{
    uint32_t code = 0;

    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        enum hm_piece_type type = model->piece[i].type;
        uint32_t before = 0;
        if (type == HM_PIECE_BYTE || type == HM_PIECE_CONTROL || type == HM_PIECE_UNKNOWN)
            continue;
        for (size_t at = 0; at < text.len; before = code) {
            bool first = at == 0;
            at += decode_at(text, at, &code);
            if (!first)
                put_pair(cuts, hm_span_pair(before, code));
        }
    }
}

static size_t table_size(size_t entries, unsigned *ret_shift)
{
    size_t slots = 64;

    for (*ret_shift = 64 - 6; slots < entries; --*ret_shift)
        slots *= 2;
    return slots;
}

/* Most pairs repeat, so a first table finds how many are distinct, and the one kept is small. */
int hm_span_cuts_make(const struct hm_spm_model *model, struct hm_span_cuts *ret_cuts,
                      struct hm_error *err)
{
    struct hm_span_cuts all = { NULL, 0, 0 };
    struct hm_span_cuts cuts = { NULL, 0, 0 };
    size_t distinct = 0;
    size_t bytes = 0; /* at least as many as there are pairs */

    for (size_t i = 0; i < model->count; i++)
        bytes += model->piece[i].text.len;
    size_t slots = table_size(2 * bytes, &all.shift);
    all.mask = slots - 1;
    all.slot = hm_calloc(HM_MEM_VOCAB, slots, sizeof(*all.slot));
    if (all.slot) {
        put_pairs(model, &all);
        for (size_t i = 0; i < slots; i++)
            distinct += all.slot[i] != 0;
        cuts.mask = table_size(2 * distinct, &cuts.shift) - 1;
        cuts.slot = hm_calloc(HM_MEM_VOCAB, cuts.mask + 1, sizeof(*cuts.slot));
        for (size_t i = 0; cuts.slot && i < slots; i++)
            if (all.slot[i] != 0)
                put_pair(&cuts, all.slot[i]);
    }
    hm_free(all.slot);
    if (!cuts.slot)
        return hm_fail_nomem(err, "for the cuts of a vocabulary");
    *ret_cuts = cuts;
    return HM_OK;
}

void hm_span_cuts_release(struct hm_span_cuts *cuts)
{
    hm_free(cuts->slot);
    *cuts = (struct hm_span_cuts){ NULL, 0, 0 };
}

/*
 * A byte that is no continuation byte always begins a character, and a character has at most four
 * bytes; so with no such byte among the last four, the byte at `at` is malformed and stands alone.
 */
static size_t character_begin(struct hm_str text, size_t at)
{
    for (size_t back = 0; back < 4 && back <= at; back++)
        if (((unsigned char)text.ptr[at - back] & 0xc0) != 0x80) {
            uint32_t code;
            return at - back + decode_at(text, at - back, &code) > at ? at - back : at;
        }
    return at;
}

size_t hm_span_cut_find(const struct hm_span_cuts *cuts, struct hm_str text, size_t from)
{
    uint32_t before;
    uint32_t code;

    if (from >= text.len)
        return text.len;
    size_t at = character_begin(text, from - 1);
    for (at += decode_at(text, at, &before); at < text.len; before = code) {
        size_t next = at + decode_at(text, at, &code);
        if (!hm_span_joins(cuts, before, code))
            return at;
        at = next;
    }
    return text.len;
}
