/* SPDX-License-Identifier: MIT */
/*
 * The rules that look at pieces and settings alone: what changed among the old ones, and what the
 * new ones are made of. One function a rule, each over all pieces.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/vocab/bpe_train.h"
#include "lint_internal.h"
#include "text_before.h"

#define SHOWN(text) (int)((text).len < 100 ? (text).len : 100), (text).ptr

static int rule_prefix(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *old = run->old_model;
    const struct hm_spm_model *new = run->new_model;
    struct hm_lints *lints = &run->lints;
    bool by_merges = old->by_merges || new->by_merges; /* their scores are made, see rule_merges */

    if (new->count < old->count)
        HM_TRY(hm_lint_add(lints, HM_LINT_PREFIX, hm_str_of(""), -1, err,
                           "the new vocabulary has %zu pieces, the old one %zu", new->count,
                           old->count));
    for (size_t i = 0; i < old->count && i < new->count; i++) {
        const struct hm_piece *a = &old->piece[i];
        const struct hm_piece *b = &new->piece[i];
        if (!hm_str_equal(a->text, b->text))
            HM_TRY(hm_lint_add(lints, HM_LINT_PREFIX, a->text, (int32_t)i, err,
                               "id %zu is '%.*s' in the new vocabulary: its embedding row would "
                               "stand for another piece",
                               i, SHOWN(b->text)));
        else if ((a->score != b->score && !by_merges) || a->type != b->type)
            HM_TRY(hm_lint_add(lints, HM_LINT_PREFIX, a->text, (int32_t)i, err,
                               "score or type of id %zu changed (score %g to %g, type %d to %d)", i,
                               (double)a->score, (double)b->score, (int)a->type, (int)b->type));
    }
    return HM_OK;
}

/* The next merge of old pieces alone, from *at on; NULL at the end. */
static const struct hm_spm_merge *old_merge_next(const struct hm_spm_model *model, size_t count,
                                                 size_t *at)
{
    while (*at < model->n_merges) {
        const struct hm_spm_merge *merge = &model->merge[(*at)++];
        if ((size_t)merge->left < count && (size_t)merge->right < count &&
            (size_t)merge->result < count)
            return merge;
    }
    return NULL;
}

/* Lists of merges: what merges old pieces is the same, in the same order. */
static int rule_merges(struct lint_run *run, struct hm_error *err)
{
    size_t count = run->old_model->count;
    size_t old_at = 0, new_at = 0;

    while (run->old_model->by_merges && run->new_model->by_merges) {
        const struct hm_spm_merge *a = old_merge_next(run->old_model, count, &old_at);
        const struct hm_spm_merge *b = old_merge_next(run->new_model, count, &new_at);
        if (!a && !b)
            break;
        if (a && b && a->left == b->left && a->right == b->right)
            continue;
        int32_t id = a ? a->result : b->result;
        return hm_lint_add(&run->lints, HM_LINT_PREFIX, run->new_model->piece[id].text, id, err,
                           "merge %zu of the old pieces is another one in the new vocabulary: what "
                           "merges old pieces must keep its order",
                           a ? old_at - 1 : old_at);
    }
    return HM_OK;
}

static enum hm_metaspace metaspace_of(const struct hm_spm_model *model)
{
    return model->before ? model->before->metaspace : HM_METASPACE_NONE;
}

static int rule_settings(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *a = run->old_model;
    const struct hm_spm_model *b = run->new_model;
    const char *what = NULL;

    if (a->kind != b->kind)
        what = "the kind of model";
    else if (a->byte_fallback != b->byte_fallback)
        what = "byte fallback";
    else if (a->add_dummy_prefix != b->add_dummy_prefix || metaspace_of(a) != metaspace_of(b))
        what = "the dummy prefix";
    else if (a->remove_extra_whitespaces != b->remove_extra_whitespaces ||
             a->escape_whitespaces != b->escape_whitespaces ||
             a->whitespace_as_suffix != b->whitespace_as_suffix)
        what = "the treatment of spaces";
    if (!what)
        return HM_OK;
    return hm_lint_add(&run->lints, HM_LINT_SETTINGS, hm_str_of(""), -1, err,
                       "%s changed, so all text is cut differently", what);
}

static const char *normaliser_of(const struct hm_spm_model *model)
{
    return model->has_charsmap ? "a normaliser of its own (NFKC or the like)" : "none";
}

static int rule_normaliser(struct lint_run *run, struct hm_error *err)
{
    const struct hm_spm_model *a = run->old_model;
    const struct hm_spm_model *b = run->new_model;
    const struct hm_spm_model *source = run->source;

    if (a->normalizer_hash != b->normalizer_hash)
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_NORMALISER, hm_str_of(""), -1, err,
                           "the normaliser changed (old: %s, new: %s), so text is cut differently",
                           normaliser_of(a), normaliser_of(b)));
    if (source && source->has_charsmap && source->normalizer_hash != b->normalizer_hash)
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_NORMALISER, hm_str_of(""), -1, err,
                           "the new pieces were learned from text that '%s' normalised, the new "
                           "model has %s: full-width and compatibility forms were folded before "
                           "they were counted, so they are missing",
                           source->path ? source->path : "their model", normaliser_of(b)));
    return HM_OK;
}

static int rule_type(struct lint_run *run, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        const struct hm_piece *piece = &run->new_model->piece[i];
        if (piece->type == HM_PIECE_NORMAL)
            continue;
        HM_TRY(hm_lint_add(&run->lints, HM_LINT_TYPE, piece->text, (int32_t)i, err,
                           "id %zu has type %d: %s", i, (int)piece->type,
                           piece->type == HM_PIECE_USER
                               ? "user-defined pieces are cut out of text before any merge"
                               : "only normal pieces stand for text"));
    }
    return HM_OK;
}

static bool is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool looks_like_byte(struct hm_str text)
{
    return text.len == 6 && memcmp(text.ptr, "<0", 2) == 0 &&
           (text.ptr[2] == 'x' || text.ptr[2] == 'X') && is_hex(text.ptr[3]) &&
           is_hex(text.ptr[4]) && text.ptr[5] == '>';
}

/* <pad>, </s>, <|im_end|>, [PAD] */
static bool looks_like_control(struct hm_str text)
{
    bool angle = text.len > 2 && text.ptr[0] == '<' && text.ptr[text.len - 1] == '>';
    bool square = text.len > 2 && text.ptr[0] == '[' && text.ptr[text.len - 1] == ']';

    for (size_t i = 1; (angle || square) && i + 1 < text.len; i++) {
        char c = text.ptr[i];
        bool upper = c >= 'A' && c <= 'Z';
        square &= upper || c == '_';
        angle &= upper || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("|/_-", c);
    }
    return angle || square;
}

static int rule_written(struct lint_run *run, struct hm_error *err)
{
    for (int bytes = 1; bytes >= 0; bytes--)
        for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
            const struct hm_piece *piece = &run->new_model->piece[i];
            bool byte = looks_like_byte(piece->text);
            if (piece->type == HM_PIECE_BYTE || byte != bytes)
                continue;
            if (byte)
                HM_TRY(hm_lint_add(&run->lints, HM_LINT_BYTE, piece->text, (int32_t)i, err,
                                   "id %zu is written like a byte but stands for these six "
                                   "characters: loaders that go by the name decode it to a byte",
                                   i));
            else if (piece->type == HM_PIECE_NORMAL && looks_like_control(piece->text))
                HM_TRY(hm_lint_add(&run->lints, HM_LINT_CONTROL, piece->text, (int32_t)i, err,
                                   "id %zu is written like a control piece but is a normal one: "
                                   "text may produce it",
                                   i));
        }
    return HM_OK;
}

static bool holds(struct hm_str text, bool (*is)(uint32_t code))
{
    uint32_t code;

    for (size_t at = 0; at < text.len;) {
        at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (is(code))
            return true;
    }
    return false;
}

static bool is_space(uint32_t code)
{
    return code == HM_SPM_SPACE_CODE;
}

static int rule_space(struct lint_run *run, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        if (holds(text, is_space))
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_SPACE, text, (int32_t)i, err,
                               "id %zu holds U+2581: it is reached at the start of a text or after "
                               "a space only",
                               i));
    }
    return HM_OK;
}

static int rule_variant(struct lint_run *run, struct hm_error *err)
{
    const size_t space = strlen(HM_SPM_SPACE);

    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        if (text.len <= space || memcmp(text.ptr, HM_SPM_SPACE, space) != 0)
            continue;
        int32_t id = hm_lint_normal_id(run->new_model,
                                       (struct hm_str){ text.ptr + space, text.len - space });
        if (id >= 0)
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_VARIANT, text, (int32_t)i, err,
                               "id %zu is id %" PRId32 " with U+2581 before it: two rows for one "
                               "word",
                               i, id));
    }
    return HM_OK;
}

static int rule_han(struct lint_run *run, struct hm_error *err)
{
    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        if (!holds(text, hm_is_ideograph))
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_HAN, text, (int32_t)i, err,
                               "id %zu holds no Han character: text without Chinese may be cut "
                               "differently",
                               i));
    }
    return HM_OK;
}

enum script { OTHER, HAN, LATIN, GREEK, CYRILLIC, ARABIC, HANGUL, SCRIPTS };

static enum script script_of(uint32_t code)
{
    if (hm_is_han_class(code))
        return HAN;
    if ((code >= 'A' && code <= 'Z') || (code >= 'a' && code <= 'z') ||
        (code >= 0xc0 && code <= 0x24f && code != 0xd7 && code != 0xf7))
        return LATIN;
    if (code >= 0x370 && code <= 0x3ff)
        return GREEK;
    if (code >= 0x400 && code <= 0x52f)
        return CYRILLIC;
    if (code >= 0x600 && code <= 0x6ff)
        return ARABIC;
    return code >= 0xac00 && code <= 0xd7a3 ? HANGUL : OTHER;
}

static int rule_mixed(struct lint_run *run, struct hm_error *err)
{
    static const char *const names[SCRIPTS] = {
        "characters of no script", "Han", "Latin", "Greek", "Cyrillic", "Arabic", "Hangul"
    };

    for (size_t i = run->old_model->count; i < run->new_model->count; i++) {
        struct hm_str text = run->new_model->piece[i].text;
        bool seen[SCRIPTS] = { false };
        uint32_t code;
        for (size_t at = 0; at < text.len;) {
            at += hm_utf8_decode(text.ptr + at, text.len - at, &code);
            seen[script_of(code)] |= code != HM_SPM_SPACE_CODE;
        }
        int first = SCRIPTS;
        int second = SCRIPTS;
        /* Digits and marks go with letters, but not with Han characters. */
        for (int script = seen[HAN] ? OTHER : HAN; script < SCRIPTS; script++)
            if (seen[script]) {
                second = first < SCRIPTS && second == SCRIPTS ? script : second;
                first = first == SCRIPTS ? script : first;
            }
        if (second < SCRIPTS && run->new_model->piece[i].type == HM_PIECE_NORMAL)
            HM_TRY(hm_lint_add(&run->lints, HM_LINT_MIXED, text, (int32_t)i, err,
                               "id %zu mixes %s and %s", i, names[first], names[second]));
    }
    return HM_OK;
}

int hm_lint_pieces(struct lint_run *run, struct hm_error *err)
{
    HM_TRY(rule_prefix(run, err));
    HM_TRY(rule_merges(run, err));
    HM_TRY(rule_settings(run, err));
    HM_TRY(rule_normaliser(run, err));
    HM_TRY(rule_type(run, err));
    HM_TRY(rule_written(run, err));
    HM_TRY(rule_space(run, err));
    HM_TRY(rule_variant(run, err));
    HM_TRY(rule_han(run, err));
    return rule_mixed(run, err);
}
