/* SPDX-License-Identifier: MIT */
/*
 * Hard texts and their rows: ns a byte (the best of the repeats), ids, scratch memory. What grows
 * as n log n costs 22/16 times as much a byte at 4 MB as at 64 KB, and what leaves a cache behind.
 */
#include "encode_worst.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/rng.h"
#include "vocab/span_cut.h"
#include "vocab/spm_shim.h"

#define FIRST_BYTES (64u << 10)
#define LAST_BYTES  (4u << 20)
#define TRIES       64     /* for a piece that joins the one before */
#define WALK_STEPS  65536u /* until it begins elsewhere: some characters lead nowhere else */

enum kind { REPEATED, BYTES, UTF8, LETTERS, WALK, PIECES, BEST_FIRST, BEST_LAST };

struct follower { /* a piece holds the character `before` and then `code` */
    uint32_t before, code;
};

struct maker {
    const struct hm_spm_model *model;
    struct hm_span_cuts cuts;
    struct follower *follower; /* [n_followers], by before */
    size_t n_followers;
    int32_t *by_score; /* [n_pieces] normal pieces, the best first */
    size_t n_pieces;
    uint64_t tried; /* pieces for the text */
    struct hm_buf text;
};

static int by_before(const void *left, const void *right)
{
    const struct follower *a = left, *b = right;

    return (a->before > b->before) - (a->before < b->before);
}

static int by_score(const void *left, const void *right, void *context)
{
    const struct hm_spm_model *model = context;
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;

    if (model->piece[a].score != model->piece[b].score)
        return model->piece[a].score > model->piece[b].score ? -1 : 1;
    return (a > b) - (a < b);
}

static uint32_t code_at(struct hm_str text, size_t *at)
{
    uint32_t code = 0;

    *at += hm_utf8_decode(text.ptr + *at, text.len - *at, &code);
    return code;
}

static int maker_open(const struct hm_spm_model *model, struct maker *maker, struct hm_error *err)
{
    size_t bytes = 0;

    *maker = (struct maker){ .model = model };
    for (size_t i = 0; i < model->count; i++)
        bytes += model->piece[i].text.len;
    maker->follower = hm_alloc_array(HM_MEM_OTHER, bytes, sizeof(*maker->follower));
    maker->by_score = hm_alloc_array(HM_MEM_OTHER, model->count, sizeof(*maker->by_score));
    if (!maker->follower || !maker->by_score)
        return hm_fail_nomem(err, "for a benchmark");
    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        if (model->piece[i].type != HM_PIECE_NORMAL)
            continue;
        maker->by_score[maker->n_pieces++] = (int32_t)i;
        size_t at = 0;
        uint32_t before = code_at(text, &at);
        while (at < text.len) {
            uint32_t code = code_at(text, &at);
            maker->follower[maker->n_followers++] = (struct follower){ before, code };
            before = code;
        }
    }
    qsort(maker->follower, maker->n_followers, sizeof(*maker->follower), by_before);
    qsort_r(maker->by_score, maker->n_pieces, sizeof(*maker->by_score), by_score,
            (void *)(uintptr_t)model);
    return hm_span_cuts_make(model, &maker->cuts, err);
}

static void maker_close(struct maker *maker)
{
    hm_span_cuts_release(&maker->cuts);
    hm_free(maker->follower);
    hm_free(maker->by_score);
    hm_buf_release(&maker->text);
}

/* A character that pieces hold behind `before`; any, where there is none or 0 stands before. */
static uint32_t walk_on(const struct maker *maker, uint32_t before, uint64_t drawn)
{
    size_t low = 0, high = maker->n_followers;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (maker->follower[middle].before < before)
            low = middle + 1;
        else
            high = middle;
    }
    for (high = low; high < maker->n_followers && maker->follower[high].before == before;)
        high++;
    return low < high ? maker->follower[low + drawn % (high - low)].code
                      : maker->follower[drawn % maker->n_followers].before;
}

/* Whether no cut is between the text so far and the piece. */
static bool piece_joins(const struct maker *maker, struct hm_str piece)
{
    struct hm_str text = { maker->text.ptr, maker->text.len };
    size_t last = text.len, at = 0;

    if (text.len == 0)
        return true;
    while (last > 0 && ((unsigned char)text.ptr[--last] & 0xc0) == 0x80)
        continue;
    uint32_t before = code_at(text, &last);
    return hm_span_joins(&maker->cuts, before, code_at(piece, &at));
}

/* The next piece of a text of `kind`: drawn or in order of scores, and the first of TRIES that
 * joins the one before, if any does. */
static int put_piece(struct maker *maker, enum kind kind, struct hm_error *err)
{
    struct hm_rng_key key = { 2, (uint64_t)kind };
    struct hm_str piece = { NULL, 0 };

    for (unsigned k = 0; k < TRIES && (k == 0 || !piece_joins(maker, piece)); k++) {
        uint64_t place = maker->tried++;
        if (kind == PIECES)
            place = hm_rng_u64(key, place);
        else if (kind == BEST_LAST)
            place = maker->n_pieces - 1 - place % maker->n_pieces;
        piece = maker->model->piece[maker->by_score[place % maker->n_pieces]].text;
    }
    return hm_buf_append(&maker->text, piece.ptr, piece.len, err);
}

static int make_text(struct maker *maker, enum kind kind, struct hm_str part, size_t bytes,
                     struct hm_error *err)
{
    struct hm_rng_key key = { 1, (uint64_t)kind };
    uint32_t before = 0;
    char code[4] = { 0 };

    hm_buf_clear(&maker->text);
    maker->tried = 0;
    for (uint64_t i = 0; maker->text.len < bytes; i++) {
        uint64_t drawn = hm_rng_u64(key, i);
        if (kind >= PIECES) {
            HM_TRY(put_piece(maker, kind, err));
            continue;
        }
        if (kind == BYTES || kind == LETTERS) {
            code[0] = kind == BYTES ? (char)drawn : (char)('a' + drawn % 26);
            part = (struct hm_str){ code, 1 };
        } else if (kind == UTF8) {
            uint32_t below = drawn >> 32 & 1 ? 0xd800u : 0x3000u;
            part = (struct hm_str){ code, hm_utf8_encode((uint32_t)drawn % below, code) };
        } else if (kind == WALK) {
            before = walk_on(maker, i % WALK_STEPS ? before : 0, drawn);
            part = (struct hm_str){ code, hm_utf8_encode(before, code) };
        }
        HM_TRY(hm_buf_append(&maker->text, part.ptr, part.len, err));
    }
    return HM_OK;
}

/* The longest piece of lower-case letters, or user-defined one, less its last bytes; never empty.
 */
static struct hm_str longest(const struct hm_spm_model *model, enum hm_piece_type type, size_t less)
{
    struct hm_str best = { "ab", 2 };

    for (size_t i = 0; i < model->count; i++) {
        struct hm_str text = model->piece[i].text;
        bool fits = model->piece[i].type == type;
        for (size_t k = 0; k < text.len && fits && type == HM_PIECE_NORMAL; k++)
            fits = text.ptr[k] >= 'a' && text.ptr[k] <= 'z';
        if (fits && text.len > best.len + less)
            best = (struct hm_str){ text.ptr, text.len - less };
    }
    return best;
}

static bool ids_equal(const struct hm_ids *a, const struct hm_ids *b)
{
    return a->count == b->count &&
           (a->count == 0 || memcmp(a->id, b->id, a->count * sizeof(*a->id)) == 0);
}

static int case_run(const char *name, const char *path, const struct hm_tokenizer *tokenizer,
                    const void *library, struct hm_str text, uint64_t repeats, struct hm_error *err)
{
    struct hm_ids ids = { 0 }, theirs = { 0 };
    double best = 1e9;
    int r = HM_OK;

    hm_mem_peak_reset();
    for (uint64_t i = 0; r == HM_OK && i < repeats; i++) {
        double began = hm_clock_seconds();
        hm_ids_clear(&ids);
        r = hm_tokenizer_encode(tokenizer, text, &ids, err);
        double spent = hm_clock_seconds() - began;
        best = spent < best ? spent : best;
    }
    printf("%s,%s,%zu,%.2f,%zu,%.1f", name, path, text.len, best * 1e9 / (double)text.len,
           ids.count, (double)hm_mem_peak_bytes(HM_MEM_SCRATCH) / (double)text.len);
    if (r == HM_OK && library) {
        double began = hm_clock_seconds();
        r = hm_spm_shim_encode(library, text, &theirs, err);
        printf(",%.1f,%s", (hm_clock_seconds() - began) * 1e9 / (double)text.len,
               ids_equal(&ids, &theirs) ? "yes" : "NO");
    }
    printf("\n");
    fflush(stdout);
    hm_ids_release(&ids);
    hm_ids_release(&theirs);
    return r;
}

int encode_worst(const char *path, const struct hm_tokenizer *tokenizer, const void *library,
                 uint64_t repeats, struct hm_error *err)
{
    const struct hm_spm_model *model = &tokenizer->model;
    const struct {
        const char *name;
        enum kind kind;
        struct hm_str part;
    } cases[] = { { "a", REPEATED, hm_str_of("a") },
                  { "=", REPEATED, hm_str_of("=") },
                  { "哈", REPEATED, hm_str_of("哈") },
                  { "emoji", REPEATED, hm_str_of("😀") },
                  { "invalid byte", REPEATED, hm_str_of("\xff") },
                  { "NUL", REPEATED, { "", 1 } },
                  { "space", REPEATED, hm_str_of(" ") },
                  { "newline", REPEATED, hm_str_of("\n") },
                  { "U+2581", REPEATED, hm_str_of(HM_SPM_SPACE) },
                  { "combining mark", REPEATED, hm_str_of("\u0301") },
                  { "ab", REPEATED, hm_str_of("ab") },
                  { "的人", REPEATED, hm_str_of("的人") },
                  { "a and space", REPEATED, hm_str_of("a ") },
                  { "e and combining mark", REPEATED, hm_str_of("e\u0301") },
                  { "no spaces", REPEATED, hm_str_of("thequickbrownfoxjumpsoverthelazydog") },
                  { "longest piece", REPEATED, longest(model, HM_PIECE_NORMAL, 0) },
                  { "longest piece cut", REPEATED, longest(model, HM_PIECE_NORMAL, 1) },
                  { "user-defined piece cut", REPEATED, longest(model, HM_PIECE_USER, 1) },
                  { "random bytes", BYTES, { NULL, 0 } },
                  { "random UTF-8", UTF8, { NULL, 0 } },
                  { "random letters", LETTERS, { NULL, 0 } },
                  { "uncut walk", WALK, { NULL, 0 } },
                  { "uncut pieces", PIECES, { NULL, 0 } },
                  { "uncut pieces best first", BEST_FIRST, { NULL, 0 } },
                  { "uncut pieces best last", BEST_LAST, { NULL, 0 } } };
    struct maker maker;
    int r = maker_open(model, &maker, err);

    printf("case,model,bytes,ns_per_byte,ids,scratch_bytes_per_byte%s\n",
           library ? ",library_ns_per_byte,same_ids" : "");
    for (size_t c = 0; r == HM_OK && c < sizeof(cases) / sizeof(cases[0]); c++)
        for (size_t bytes = FIRST_BYTES; r == HM_OK && bytes <= LAST_BYTES; bytes *= 2) {
            r = make_text(&maker, cases[c].kind, cases[c].part, bytes, err);
            if (r == HM_OK)
                r = case_run(cases[c].name, path, tokenizer, library,
                             (struct hm_str){ maker.text.ptr, maker.text.len }, repeats, err);
        }
    maker_close(&maker);
    return r;
}
