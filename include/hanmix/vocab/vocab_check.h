/* SPDX-License-Identifier: MIT */
/*
 * vocab.check: what a grown vocabulary must keep. The lint looks at pieces alone and proves, where
 * it can, that text without Han characters is untouched; the check of lines tries it on text.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_VOCAB_CHECK_H
#define HANMIX_VOCAB_VOCAB_CHECK_H

#include "hanmix/base/ctl.h"
#include "hanmix/vocab/tokenizer.h"

/*
 * Rules: prefix (an old piece changed or is missing), settings (normaliser or kind changed), type
 * (a new piece is not normal), space (a new piece holds U+2581), han (a new piece holds no Han
 * character), split (a new piece cannot be made of two pieces), self (a new piece does not encode
 * to itself), old (an old piece no longer encodes to itself), order (scores of new pieces not below
 * the old merges, or not descending). Two equal pieces cannot be loaded at all.
 */
struct hm_lint {
    char *piece;      /* the piece, or "" for a finding about the whole */
    const char *rule; /* one of the above; static text */
    char *detail;     /* what was found and what to do */
};
struct hm_lints {
    struct hm_lint *item; /* in the order of the rules, then of ids */
    size_t count, cap;
};

/* *ret_every_new_piece_has_han and no finding of the rules prefix and settings together prove that
   text without Han characters keeps its ids. */
int hm_vocab_lint(const struct hm_spm_model *old_model, const struct hm_tokenizer *new_tokenizer,
                  struct hm_lints *ret_lints, bool *ret_every_new_piece_has_han,
                  struct hm_error *err);
void hm_lints_release(struct hm_lints *lints);

#define HM_CHECK_FIRST_LINES 100

struct hm_differing_line {
    uint64_t document, line;   /* the document's number in its source; the line in it, from 0 */
    char *text;                /* at most 400 bytes of it */
    uint64_t old_ids, new_ids; /* how many */
    uint64_t first_difference; /* index of the first id that differs */
};
struct hm_line_check {
    uint64_t documents;
    uint64_t lines;     /* that are not empty */
    uint64_t han_lines; /* of these, with a Han character: not compared */
    uint64_t differing; /* of the others, with other ids than before */
    /* the first HM_CHECK_FIRST_LINES of them, in the order of the text */
    struct hm_differing_line *first;
    size_t n_first;
};

/* Reads source from where it stands to its end. The result does not depend on the number of
 * threads. */
int hm_vocab_check_lines(struct hm_text_source *source, const struct hm_tokenizer *old_tokenizer,
                         const struct hm_tokenizer *new_tokenizer, const struct hm_ctl *ctl,
                         struct hm_line_check *ret_check, struct hm_error *err);
void hm_line_check_release(struct hm_line_check *check);

#endif
