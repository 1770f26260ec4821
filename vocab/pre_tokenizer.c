/* SPDX-License-Identifier: MIT */
/*
 * Pre-tokenizing; see pre_tokenizer.h. Each step finds matches and what lies between them, joins
 * them as its behaviour says, and hands every part to the next step.
 */
#include "pre_tokenizer.h"

#include <string.h>

#define GPT2_WORDS \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

struct run {
    const struct hm_pre_tokenizer *pre_tokenizer;
    int (*word)(void *context, struct hm_str word, struct hm_error *err);
    void *context;
    struct hm_buf prefixed; /* a piece with a space before it */
    struct hm_error *err;
};
struct part {
    size_t start, end;
    bool is_match;
};
struct joiner { /* parts of one step, joined as its behaviour says */
    struct run *run;
    size_t level;
    struct hm_str text;
    enum hm_pre_behavior behavior;
    struct part held;
    bool holds;
    bool last_match; /* the last part was a match */
};

/* --- running ---------------------------------------------------------------------------------- */

static int run_level(struct run *run, size_t level, struct hm_str text);

static int part_emit(const struct joiner *j, struct part part)
{
    struct hm_str text = { j->text.ptr + part.start, part.end - part.start };

    return text.len > 0 ? run_level(j->run, j->level + 1, text) : (int)HM_OK;
}

static int held_emit(struct joiner *j)
{
    bool holds = j->holds;

    j->holds = false;
    return holds ? part_emit(j, j->held) : (int)HM_OK;
}

/* Whether the part held takes this one in. */
static bool joins(const struct joiner *j, struct part part)
{
    switch (j->behavior) {
    case HM_PRE_CONTIGUOUS:
        return j->held.is_match == part.is_match;
    case HM_PRE_WITH_PREVIOUS:
        return part.is_match && !j->last_match;
    case HM_PRE_WITH_NEXT:
        return j->last_match && !part.is_match;
    default:
        return false;
    }
}

static int part_add(struct joiner *j, struct part part)
{
    if (part.start == part.end)
        return HM_OK;
    bool joined = j->holds && joins(j, part);
    j->last_match = part.is_match;
    if (joined) {
        j->held.end = part.end;
        return HM_OK;
    }
    HM_TRY(held_emit(j));
    if (j->behavior == HM_PRE_REMOVED && part.is_match)
        return HM_OK;
    j->held = part;
    j->holds = true;
    return HM_OK;
}

static int char_find(bool (*is)(uint32_t), struct hm_str text, size_t from, struct hm_match *match)
{
    uint32_t code = 0;

    for (size_t at = from; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        len = len ? len : 1;
        if (is(code)) {
            *match = (struct hm_match){ at, at + len };
            return 1;
        }
        at += len;
    }
    return 0;
}

static int step_find(const struct hm_pre_step *step, struct hm_str text, size_t from,
                     struct hm_match *match, struct hm_error *err)
{
    const char *found;

    switch (step->kind) {
    case HM_PRE_PATTERN:
        return hm_split_pattern_find(step->pattern, text, from, match, err);
    case HM_PRE_DIGITS:
        return char_find(hm_unicode_is_numeric, text, from, match);
    case HM_PRE_PUNCTUATION:
        return char_find(hm_unicode_is_punctuation, text, from, match);
    case HM_PRE_LITERAL:
        break;
    }
    found = memmem(text.ptr + from, text.len - from, step->literal, strlen(step->literal));
    if (!found)
        return 0;
    size_t start = (size_t)(found - text.ptr);
    *match = (struct hm_match){ start, start + strlen(step->literal) };
    return 1;
}

static int run_step(struct run *run, size_t level, const struct hm_pre_step *step,
                    struct hm_str text)
{
    struct joiner j = { .run = run, .level = level, .text = text, .behavior = step->behavior };
    struct hm_match match = { 0, 0 };

    for (size_t at = 0; at < text.len; at = match.end) {
        int found = step_find(step, text, at, &match, run->err);
        if (found < 0)
            return found;
        if (!found)
            match = (struct hm_match){ text.len, text.len };
        HM_TRY(part_add(&j, (struct part){ at, match.start, step->invert }));
        HM_TRY(part_add(&j, (struct part){ match.start, match.end, !step->invert }));
    }
    return held_emit(&j);
}

static int words_emit(struct run *run, struct hm_str text)
{
    const struct hm_split_pattern *words = run->pre_tokenizer->words;
    struct hm_match match = { 0, 0 };

    if (!words)
        return run->word(run->context, text, run->err);
    for (size_t at = 0; at < text.len; at = match.end) {
        int found = hm_split_pattern_find(words, text, at, &match, run->err);
        if (found < 0)
            return found;
        if (!found)
            match = (struct hm_match){ text.len, text.len };
        struct hm_str between = { text.ptr + at, match.start - at };
        struct hm_str word = { text.ptr + match.start, match.end - match.start };
        if (between.len > 0)
            HM_TRY(run->word(run->context, between, run->err));
        if (word.len > 0)
            HM_TRY(run->word(run->context, word, run->err));
    }
    return HM_OK;
}

static int run_level(struct run *run, size_t level, struct hm_str text)
{
    if (level < run->pre_tokenizer->n_steps)
        return run_step(run, level, &run->pre_tokenizer->step[level], text);
    if (!run->pre_tokenizer->add_prefix_space || text.ptr[0] == ' ')
        return words_emit(run, text);
    hm_buf_clear(&run->prefixed);
    HM_TRY(hm_buf_append(&run->prefixed, " ", 1, run->err));
    HM_TRY(hm_buf_append(&run->prefixed, text.ptr, text.len, run->err));
    return words_emit(run, (struct hm_str){ run->prefixed.ptr, run->prefixed.len });
}

int hm_pre_tokenizer_run(const struct hm_pre_tokenizer *pre_tokenizer, struct hm_str text,
                         int (*word)(void *context, struct hm_str word, struct hm_error *err),
                         void *context, struct hm_error *err)
{
    struct run run = {
        .pre_tokenizer = pre_tokenizer, .word = word, .context = context, .err = err
    };
    int status = text.len > 0 ? run_level(&run, 0, text) : HM_OK;

    hm_buf_release(&run.prefixed);
    return status;
}

/* --- reading ---------------------------------------------------------------------------------- */

static int refuse(const char *what, const char *component, struct hm_error *err)
{
    return hm_fail(err, HM_ERR_FORMAT,
                   "'%s': the pre_tokenizer's %s cannot be read exactly; take the tokenizer's "
                   "tokenizer.model, or one with Split, Digits, Punctuation and ByteLevel",
                   what, component);
}

static int behavior_read(const json_t *value, const char *what, enum hm_pre_behavior *ret,
                         struct hm_error *err)
{
    static const char *const name[] = { "Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext" };
    const char *found = "Isolated";

    HM_TRY(hm_json_text_opt(value, "behavior", what, &found, err));
    for (size_t i = 0; i < sizeof(name) / sizeof(name[0]); i++)
        if (strcmp(found, name[i]) == 0) {
            *ret = (enum hm_pre_behavior)i;
            return HM_OK;
        }
    return refuse(what, "behavior", err);
}

static int split_read(const json_t *value, const char *what, struct hm_pre_step *step,
                      struct hm_error *err)
{
    const json_t *pattern = json_object_get(value, "pattern");
    const char *regex = NULL, *literal = NULL;

    HM_TRY(behavior_read(value, what, &step->behavior, err));
    HM_TRY(hm_json_bool_opt(value, "invert", what, &step->invert, err));
    HM_TRY(hm_json_text_opt(pattern, "Regex", what, &regex, err));
    HM_TRY(hm_json_text_opt(pattern, "String", what, &literal, err));
    if (regex) {
        step->kind = HM_PRE_PATTERN;
        return hm_split_pattern_make(hm_str_of(regex), what, &step->pattern, err);
    }
    if (!literal || !*literal)
        return refuse(what, "Split without a pattern", err);
    step->kind = HM_PRE_LITERAL;
    step->literal = hm_strdup(HM_MEM_VOCAB, literal);
    return step->literal ? HM_OK : hm_fail_nomem(err, "for '%s'", what);
}

static int digits_read(const json_t *value, const char *what, struct hm_pre_step *step,
                       struct hm_error *err)
{
    bool individual = false;

    HM_TRY(hm_json_bool_opt(value, "individual_digits", what, &individual, err));
    step->kind = HM_PRE_DIGITS;
    step->behavior = individual ? HM_PRE_ISOLATED : HM_PRE_CONTIGUOUS;
    return HM_OK;
}

static int byte_level_read(const json_t *value, const char *what, struct hm_pre_tokenizer *pre,
                           struct hm_error *err)
{
    bool use_regex = true;

    pre->add_prefix_space = true; /* the library's defaults */
    HM_TRY(hm_json_bool_opt(value, "add_prefix_space", what, &pre->add_prefix_space, err));
    HM_TRY(hm_json_bool_opt(value, "use_regex", what, &use_regex, err));
    return use_regex ? hm_split_pattern_make(hm_str_of(GPT2_WORDS), what, &pre->words, err)
                     : (int)HM_OK;
}

static int step_read(const json_t *value, const char *type, const char *what,
                     struct hm_pre_tokenizer *pre, struct hm_error *err)
{
    if (pre->n_steps == HM_PRE_MAX_STEPS)
        return refuse(what, "length", err);
    struct hm_pre_step *step = &pre->step[pre->n_steps++];
    if (strcmp(type, "Split") == 0)
        return split_read(value, what, step, err);
    if (strcmp(type, "Digits") == 0)
        return digits_read(value, what, step, err);
    if (strcmp(type, "Punctuation") == 0) {
        step->kind = HM_PRE_PUNCTUATION;
        return behavior_read(value, what, &step->behavior, err);
    }
    char component[64];
    size_t len = strlen(type) < 40 ? strlen(type) : 40;
    memcpy(component, type, len);
    component[len] = '\0';
    return refuse(what, component, err);
}

static int steps_read(const json_t *value, const char *what, struct hm_pre_tokenizer *pre,
                      struct hm_error *err)
{
    const json_t *list = NULL;
    const char *type = NULL;
    size_t n = 1;

    HM_TRY(hm_json_text(value, "type", what, &type, err));
    if (strcmp(type, "Sequence") == 0) {
        list = json_object_get(value, "pretokenizers");
        n = json_array_size(list);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *step = list ? json_array_get(list, i) : value;
        HM_TRY(hm_json_text(step, "type", what, &type, err));
        if (strcmp(type, "ByteLevel") != 0)
            HM_TRY(step_read(step, type, what, pre, err));
        else if (i + 1 < n)
            return refuse(what, "ByteLevel before other steps", err);
        else
            return byte_level_read(step, what, pre, err);
    }
    return refuse(what, "end without ByteLevel", err);
}

int hm_pre_tokenizer_make(const json_t *value, const char *what,
                          struct hm_pre_tokenizer *ret_pre_tokenizer, struct hm_error *err)
{
    struct hm_pre_tokenizer pre = { 0 };
    int status = steps_read(value, what, &pre, err);

    if (status == HM_OK)
        *ret_pre_tokenizer = pre;
    else
        hm_pre_tokenizer_release(&pre);
    return status;
}

void hm_pre_tokenizer_release(struct hm_pre_tokenizer *pre_tokenizer)
{
    for (size_t i = 0; i < pre_tokenizer->n_steps; i++) {
        hm_split_pattern_free(pre_tokenizer->step[i].pattern);
        hm_free(pre_tokenizer->step[i].literal);
    }
    hm_split_pattern_free(pre_tokenizer->words);
    *pre_tokenizer = (struct hm_pre_tokenizer){ 0 };
}
