/* SPDX-License-Identifier: MIT */
/*
 * Choosing merges and single characters; see piece_select.h. Characters are marked in one table of
 * code points, so a merge is checked in its length.
 */
#include "hanmix/vocab/piece_select.h"

#include <inttypes.h>
#include <stdio.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/hash.h"

#define CODE_POINTS 0x110000u

enum mark { MARK_NONE, MARK_CHOSEN, MARK_BASE };

struct chooser {
    const struct hm_bpe_result *trained;
    const struct hm_spm_model *base;
    const struct hm_select_options *options;
    uint8_t *mark;               /* enum mark of every code point */
    struct hm_bpe_piece *single; /* candidates in order of preference */
    size_t n_candidates;
    struct hm_selection selection;
    uint32_t *place; /* hash table of the merges taken: 0, or the place in selection plus 1 */
    size_t place_mask;
};

static bool has_ideograph(struct hm_str piece)
{
    for (size_t at = 0; at < piece.len;) {
        uint32_t code = 0;
        unsigned len = hm_utf8_decode(piece.ptr + at, piece.len - at, &code);
        if (len == 0)
            return false;
        if (hm_is_ideograph(code))
            return true;
        at += len;
    }
    return false;
}

/* What a merge into the base leaves out: it has the piece, or there is no ideograph in it. */
static bool base_refuses(const struct chooser *chooser, struct hm_str piece)
{
    return chooser->base && (hm_spm_model_find(chooser->base, piece) >= 0 || !has_ideograph(piece));
}

/* --- the merges taken, by their text ---------------------------------------------------------- */

static int places_make(struct chooser *chooser, size_t merges, struct hm_error *err)
{
    size_t size = 64;

    while (size < 2 * merges)
        size *= 2;
    chooser->place_mask = size - 1;
    chooser->place = hm_calloc(HM_MEM_VOCAB, size, sizeof(*chooser->place));
    return chooser->place ? HM_OK : hm_fail_nomem(err, "choosing pieces");
}

/* Where the merge stands in the table, or the free place for it. */
static uint32_t *place_of(const struct chooser *chooser, struct hm_str merge)
{
    size_t at = (size_t)hm_hash64(merge.ptr, merge.len, 0) & chooser->place_mask;

    while (chooser->place[at] != 0 &&
           !hm_str_equal(chooser->selection.piece[chooser->place[at] - 1].text, merge))
        at = (at + 1) & chooser->place_mask;
    return &chooser->place[at];
}

static void merge_take(struct chooser *chooser, const struct hm_bpe_piece *merge)
{
    uint32_t *place = place_of(chooser, merge->text);

    chooser->selection.piece[chooser->selection.n_merges++] = *merge;
    *place = (uint32_t)chooser->selection.n_merges;
}

/* A character of a merge whose characters all are pieces, a normal piece of the base, or a merge
 * taken before. */
static bool half_is_piece(const struct chooser *chooser, struct hm_str half)
{
    uint32_t code = 0;

    if (hm_utf8_decode(half.ptr, half.len, &code) == half.len)
        return true;
    int32_t id = hm_spm_model_find(chooser->base, half);
    return id >= 0 ? chooser->base->piece[id].type == HM_PIECE_NORMAL
                   : *place_of(chooser, half) != 0;
}

/* A merge that the trainer made of a half which the base refuses is never formed, unless it can be
 * cut into two pieces elsewhere. */
static bool has_halves(const struct chooser *chooser, struct hm_str merge)
{
    for (size_t at = 1; at < merge.len; at++)
        if (((unsigned char)merge.ptr[at] & 0xc0) != 0x80 &&
            half_is_piece(chooser, (struct hm_str){ merge.ptr, at }) &&
            half_is_piece(chooser, (struct hm_str){ merge.ptr + at, merge.len - at }))
            return true;
    return false;
}

/* Every character of the merge is a piece, and so are two halves; the base takes the merge itself.
 * Without a base the halves are taken wherever the merge is. */
static bool merge_usable(const struct chooser *chooser, struct hm_str merge)
{
    for (size_t at = 0; at < merge.len;) {
        uint32_t code = 0;
        unsigned len = hm_utf8_decode(merge.ptr + at, merge.len - at, &code);
        if (len == 0 || chooser->mark[code] == MARK_NONE)
            return false;
        at += len;
    }
    return !chooser->base || (!base_refuses(chooser, merge) && has_halves(chooser, merge));
}

/* How often each character of the list was seen: 0 for those the text never shows. */
static int candidates_counted(struct chooser *chooser, struct hm_error *err)
{
    uint64_t *seen = hm_calloc(HM_MEM_VOCAB, CODE_POINTS, sizeof(*seen));

    if (!seen)
        return hm_fail_nomem(err, "choosing pieces");
    for (size_t i = 0; i < chooser->trained->n_singles; i++) {
        const struct hm_bpe_piece *single = &chooser->trained->single[i];
        uint32_t code = 0;
        hm_utf8_decode(single->text.ptr, single->text.len, &code);
        seen[code] = single->count;
    }
    for (size_t i = 0; i < chooser->n_candidates; i++) {
        struct hm_bpe_piece *single = &chooser->single[i];
        uint32_t code = 0;
        hm_utf8_decode(single->text.ptr, single->text.len, &code);
        single->count = seen[code];
    }
    hm_free(seen);
    return HM_OK;
}

static int candidates_from_list(struct chooser *chooser, struct hm_error *err)
{
    struct hm_str list = chooser->options->list;
    bool remark = false;

    for (size_t at = 0; at < list.len;) {
        uint32_t code = 0;
        unsigned len = hm_utf8_decode(list.ptr + at, list.len - at, &code);
        if (len == 0)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': the list of single characters is not UTF-8 at byte %zu; save it "
                           "as UTF-8",
                           chooser->options->list_name, at);
        struct hm_str text = { list.ptr + at, len };
        if (at == 0 || list.ptr[at - 1] == '\n')
            remark = code == '#';
        at += len;
        if (remark || !hm_is_han_class(code) || chooser->mark[code] != MARK_NONE ||
            base_refuses(chooser, text))
            continue;
        chooser->mark[code] = MARK_CHOSEN; /* each once; all of a list are taken */
        chooser->single[chooser->n_candidates++] =
            (struct hm_bpe_piece){ .text = text, .single = true };
    }
    return candidates_counted(chooser, err);
}

/* Characters the base lacks and takes, most frequent first; those it has are marked. */
static int candidates_find(struct chooser *chooser, struct hm_error *err)
{
    const struct hm_bpe_result *trained = chooser->trained;
    size_t room = trained->n_singles + chooser->options->list.len;

    chooser->mark = hm_calloc(HM_MEM_VOCAB, CODE_POINTS, 1);
    chooser->single = hm_alloc_array(HM_MEM_VOCAB, room ? room : 1, sizeof(*chooser->single));
    if (!chooser->mark || !chooser->single)
        return hm_fail_nomem(err, "choosing pieces");
    for (size_t i = 0; chooser->base && i < chooser->base->count; i++) {
        const struct hm_piece *piece = &chooser->base->piece[i];
        uint32_t code = 0;
        unsigned len = hm_utf8_decode(piece->text.ptr, piece->text.len, &code);
        if (len > 0 && len == piece->text.len && piece->type == HM_PIECE_NORMAL)
            chooser->mark[code] = MARK_BASE;
    }
    if (chooser->options->singles == HM_SINGLES_LIST)
        return candidates_from_list(chooser, err);
    for (size_t i = 0; i < trained->n_singles; i++) {
        uint32_t code = 0;
        hm_utf8_decode(trained->single[i].text.ptr, trained->single[i].text.len, &code);
        if (chooser->mark[code] == MARK_NONE && !base_refuses(chooser, trained->single[i].text))
            chooser->single[chooser->n_candidates++] = trained->single[i];
    }
    return HM_OK;
}

/*
 * auto: walk down the merges; after each, admit the characters at least half as frequent; stop at
 * the wanted total. Both lists fall in count, so one pass settles it. Where the merges end before
 * the total although the text has more, the choice is left short, and fails. Returns the number of
 * singles.
 */
static size_t singles_auto(const struct chooser *chooser)
{
    const struct hm_bpe_result *trained = chooser->trained;
    uint64_t wanted = chooser->options->pieces;
    size_t merges = 0;
    size_t singles = 0;
    size_t i = 0;

    for (; i < trained->n_merges && merges + singles < wanted; i++) {
        if (base_refuses(chooser, trained->merge[i].text))
            continue;
        size_t admitted = singles;
        while (admitted < chooser->n_candidates &&
               2 * chooser->single[admitted].count >= trained->merge[i].count)
            admitted++;
        if (merges + 1 + admitted > wanted)
            break;
        singles = admitted;
        merges++;
    }
    /* the rest goes to characters before rarer merges */
    if (merges + singles < wanted && (i < trained->n_merges || trained->whole)) {
        uint64_t rest = wanted - merges - singles;
        size_t left = chooser->n_candidates - singles;
        singles += rest < left ? (size_t)rest : left;
    }
    return singles;
}

static int singles_choose(struct chooser *chooser, size_t *ret_count, struct hm_error *err)
{
    const struct hm_select_options *options = chooser->options;
    size_t count = chooser->n_candidates;

    if (options->singles == HM_SINGLES_AUTO)
        count = singles_auto(chooser);
    else if (options->singles == HM_SINGLES_COUNT && options->n_singles > count)
        return hm_fail(
            err, HM_ERR_FORMAT,
            "%" PRIu64
            " single characters are wanted, the text has %zu that the base lacks; give more text "
            "or a smaller singles",
            options->n_singles, count);
    else if (options->singles == HM_SINGLES_COUNT)
        count = (size_t)options->n_singles;
    if (count > options->pieces)
        return hm_fail(
            err, HM_ERR_USAGE,
            "%zu single characters%s are more than pieces, %" PRIu64
            "; raise pieces, %s or set singles to auto",
            count, options->singles == HM_SINGLES_LIST ? " of the list" : "", options->pieces,
            options->singles == HM_SINGLES_LIST ? "shorten the list" : "take fewer singles");
    for (size_t i = 0; i < count; i++) {
        uint32_t code = 0;
        hm_utf8_decode(chooser->single[i].text.ptr, chooser->single[i].text.len, &code);
        chooser->mark[code] = MARK_CHOSEN;
    }
    *ret_count = count;
    return HM_OK;
}

static int merges_choose(struct chooser *chooser, size_t n_singles, struct hm_error *err)
{
    const struct hm_bpe_result *trained = chooser->trained;
    struct hm_selection *selection = &chooser->selection;
    size_t wanted = (size_t)(chooser->options->pieces - n_singles);

    HM_TRY(places_make(chooser, trained->n_merges, err));
    for (size_t i = 0; i < trained->n_merges && selection->n_merges < wanted; i++) {
        if (merge_usable(chooser, trained->merge[i].text))
            merge_take(chooser, &trained->merge[i]);
        else
            selection->n_merges_skipped++;
    }
    if (selection->n_merges < wanted)
        return hm_fail(err, HM_ERR_FORMAT,
                       "%" PRIu64 " pieces are wanted, %zu of them single characters; the text "
                       "yields only %zu merges: give "
                       "more text or fewer pieces",
                       chooser->options->pieces, n_singles, selection->n_merges);
    for (size_t i = 0; i < n_singles; i++)
        selection->piece[selection->n_merges + i] = chooser->single[i];
    selection->n_singles = n_singles;
    return HM_OK;
}

int hm_piece_select(const struct hm_bpe_result *trained, const struct hm_spm_model *base,
                    const struct hm_select_options *options, struct hm_selection *ret_selection,
                    struct hm_error *err)
{
    struct chooser chooser = { .trained = trained, .base = base, .options = options };
    size_t n_singles = 0;

    int r = candidates_find(&chooser, err);
    if (r == HM_OK)
        r = singles_choose(&chooser, &n_singles, err);
    if (r == HM_OK) {
        chooser.selection.piece = hm_alloc_array(HM_MEM_VOCAB, trained->n_merges + n_singles + 1,
                                                 sizeof(struct hm_bpe_piece));
        if (!chooser.selection.piece)
            r = hm_fail_nomem(err, "choosing pieces");
    }
    if (r == HM_OK)
        r = merges_choose(&chooser, n_singles, err);
    hm_free(chooser.mark);
    hm_free(chooser.single);
    hm_free(chooser.place);
    if (r < 0) {
        hm_selection_release(&chooser.selection);
        return r;
    }
    *ret_selection = chooser.selection;
    return HM_OK;
}

void hm_selection_release(struct hm_selection *selection)
{
    hm_free(selection->piece);
    *selection = (struct hm_selection){ 0 };
}

int hm_selection_model(const struct hm_selection *selection, struct hm_buf *ret_bytes,
                       struct hm_error *err)
{
    static const char *const meta[] = { "<unk>", "<s>", "</s>" };
    const size_t n_meta = sizeof(meta) / sizeof(meta[0]);
    size_t learned = selection->n_merges + selection->n_singles;
    size_t count = HM_SELECTION_META + learned;
    struct hm_piece *piece = hm_calloc(HM_MEM_VOCAB, count, sizeof(*piece));
    char(*byte)[8] = hm_calloc(HM_MEM_VOCAB, 256, sizeof(*byte));
    int r;

    if (!piece || !byte) {
        r = hm_fail_nomem(err, "for a model of %zu pieces", count);
        goto out;
    }
    for (size_t i = 0; i < n_meta; i++)
        piece[i] = (struct hm_piece){ hm_str_of(meta[i]), 0,
                                      i == 0 ? HM_PIECE_UNKNOWN : HM_PIECE_CONTROL };
    for (size_t i = 0; i < 256; i++) {
        snprintf(byte[i], sizeof(byte[i]), "<0x%02X>", (unsigned)i);
        piece[n_meta + i] = (struct hm_piece){ hm_str_of(byte[i]), 0, HM_PIECE_BYTE };
    }
    for (size_t i = 0; i < learned; i++)
        piece[HM_SELECTION_META + i] =
            (struct hm_piece){ selection->piece[i].text, -(float)i, HM_PIECE_NORMAL };
    r = hm_spm_model_build(piece, count, true, ret_bytes, err);
out:
    hm_free(byte);
    hm_free(piece);
    return r;
}
