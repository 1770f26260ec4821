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
 * What a finding is about. Errors break a promise: text changes, a row is never trained, loaders
 * disagree or refuse. Warnings are what usually leads there.
 */
enum hm_lint_rule {
    HM_LINT_DUPLICATE,  /* a text stands twice: no loader takes the file */
    HM_LINT_PREFIX,     /* an old piece changed or is missing */
    HM_LINT_SETTINGS,   /* kind, byte fallback or the treatment of spaces changed */
    HM_LINT_NORMALISER, /* another normaliser than the old model's, or than the pieces' source */
    HM_LINT_TYPE,       /* a new piece is not normal: user-defined, control, unused */
    HM_LINT_BYTE,       /* a new piece is written like a byte, <0x0A> */
    HM_LINT_CONTROL,    /* a new normal piece is written like a control piece, <pad> */
    HM_LINT_SPACE,      /* a new piece holds U+2581 */
    HM_LINT_VARIANT,    /* a new piece is another one with U+2581 before it */
    HM_LINT_HAN,        /* a new piece holds no Han character */
    HM_LINT_MIXED,      /* a new piece holds Han and other characters, or letters of two scripts */
    HM_LINT_CHARACTER,  /* a new piece holds a character that is no piece */
    HM_LINT_SPLIT,      /* a new piece cannot be made of two pieces */
    HM_LINT_SELF,       /* a new piece does not encode to itself */
    HM_LINT_OLD,        /* an old piece no longer encodes to itself */
    HM_LINT_ROUND_TRIP, /* a piece's text does not come back from its ids */
    HM_LINT_SHADOW,     /* a new piece may be formed before an old merge that it overlaps */
    HM_LINT_ORDER,      /* scores of new pieces not below the old merges, or not falling */
    HM_LINT_TIE,        /* new pieces share a score */
    HM_LINT_INVERSION,  /* a new piece scores above the halves it is made of */
    HM_LINT_RULES
};
struct hm_lint_rule_info {
    const char *name;   /* as in the enumeration: "self" */
    bool error;         /* else a warning */
    const char *remedy; /* what to do about it */
};
extern const struct hm_lint_rule_info hm_lint_rule_info[HM_LINT_RULES];

struct hm_lint {
    char *piece; /* the first one for a finding about several, "" for one about the whole */
    int32_t id;  /* its id, -1 for "" */
    enum hm_lint_rule rule;
    char *detail; /* what was found */
};
struct hm_lints {
    struct hm_lint *item; /* in the order of the rules, then of ids */
    size_t count, cap;
    size_t of_rule[HM_LINT_RULES];
    size_t errors; /* the other count - errors are warnings */
    /*
     * Text without Han characters keeps its ids whatever it is: both models are BPE, the old
     * pieces and settings stand unchanged, and every new piece holds a Han character, so that no
     * concatenation inside such text can be a new piece.
     */
    bool proved;
    bool every_new_piece_has_han;
};

/*
 * source_or_null: the model the new pieces were taken from. Tokenizers are opened, so duplicates
 * are not among the findings: hm_vocab_lint_duplicates looks at a file that cannot be opened.
 */
int hm_vocab_lint(const struct hm_tokenizer *old_tokenizer,
                  const struct hm_tokenizer *new_tokenizer,
                  const struct hm_spm_model *source_or_null, struct hm_lints *ret_lints,
                  struct hm_error *err);
/* Findings of the rule duplicate alone, of a model file or of a folder with one; none is fine. */
int hm_vocab_lint_duplicates(const char *path, struct hm_lints *ret_lints, struct hm_error *err);
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
    uint64_t verified;  /* documents encoded by libsentencepiece too */
    /* the first HM_CHECK_FIRST_LINES of them, in the order of the text */
    struct hm_differing_line *first;
    size_t n_first;
};

/*
 * Reads source from where it stands to its end. The result does not depend on the number of
 * threads. Of one document in verify (0: of none) every line is encoded by libsentencepiece too,
 * with both tokenizers; other ids than ours are HM_ERR_CHECK.
 */
int hm_vocab_check_lines(struct hm_text_source *source, const struct hm_tokenizer *old_tokenizer,
                         const struct hm_tokenizer *new_tokenizer, uint64_t verify,
                         const struct hm_ctl *ctl, struct hm_line_check *ret_check,
                         struct hm_error *err);
void hm_line_check_release(struct hm_line_check *check);

#endif
