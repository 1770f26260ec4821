/* SPDX-License-Identifier: MIT */
/*
 * The set of character pairs inside the pieces of a vocabulary, and the places in a text where it
 * allows a cut. A malformed byte counts as U+FFFD, one byte long, as the library reads it.
 */
#include <string.h>

#include "span_cut.h"

static uint64_t pair_key(uint32_t a, uint32_t b)
{
    a = a == ' ' ? HM_SPM_SPACE_CODE : a;
    b = b == ' ' ? HM_SPM_SPACE_CODE : b;
    return (uint64_t)a << 32 | b | 1ull << 63; /* never 0 */
}

static size_t slot_of(const struct hm_span_cuts *cuts, uint64_t key)
{
    size_t slot = (size_t)hm_mix64(key) & cuts->mask;

    while (cuts->slot[slot] != 0 && cuts->slot[slot] != key)
        slot = (slot + 1) & cuts->mask;
    return slot;
}

bool hm_span_joins(const struct hm_span_cuts *cuts, uint32_t a, uint32_t b)
{
    return cuts->slot[slot_of(cuts, pair_key(a, b))] != 0;
}

static unsigned decode_at(struct hm_str text, size_t at, uint32_t *ret_code)
{
    unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, ret_code);

    if (len > 0)
        return len;
    *ret_code = 0xfffd;
    return 1;
}

int hm_span_cuts_make(const struct hm_spm_model *model, struct hm_span_cuts *ret_cuts,
                      struct hm_error *err)
{
    struct hm_span_cuts cuts = { NULL, 0 };
    size_t pairs = 0;
    size_t slots = 64;
    uint32_t code = 0;

    for (size_t i = 0; i < model->count; i++)
        pairs += model->piece[i].text.len; /* at least as many as it has pairs */
    while (slots < 2 * pairs)
        slots *= 2;
    cuts.slot = hm_calloc(HM_MEM_VOCAB, slots, sizeof(*cuts.slot));
    if (!cuts.slot)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for the cuts of a vocabulary");
    cuts.mask = slots - 1;
    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        uint32_t before = 0;
        for (size_t at = 0; at < text.len; before = code) {
            bool first = at == 0;
            at += decode_at(text, at, &code);
            uint64_t key = pair_key(before, code);
            if (!first)
                cuts.slot[slot_of(&cuts, key)] = key;
        }
    }
    *ret_cuts = cuts;
    return HM_OK;
}

void hm_span_cuts_release(struct hm_span_cuts *cuts)
{
    hm_free(cuts->slot);
    *cuts = (struct hm_span_cuts){ NULL, 0 };
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
