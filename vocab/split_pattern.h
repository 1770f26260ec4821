/* SPDX-License-Identifier: MIT */
/*
 * The regular expressions that pre-tokenizers use, matched as the tokenizers library (Oniguruma,
 * Unicode 16) does: leftmost, first alternative, greedy. Characters, classes with ranges, \p{..} \s
 * \d and their complements, groups, (?i:..) of ASCII, lookahead, $, ? * + {n,m}, possessive forms.
 * What is not known, or could match nothing, is refused by name. Private to vocab/. Thread class:
 * immutable after make.
 */
#ifndef HANMIX_VOCAB_SPLIT_PATTERN_H
#define HANMIX_VOCAB_SPLIT_PATTERN_H

#include "hanmix/base/str.h"
#include "unicode_class.h"

#define HM_PATTERN_MAX_NODES 1024u
#define HM_PATTERN_MAX_SETS  64u
#define HM_PATTERN_NO_MAX    UINT32_MAX

struct hm_char_set {
    uint64_t word[HM_UNICODE_CODES / 64];
};
enum hm_pattern_op {
    HM_PAT_STEP,
    HM_PAT_SPLIT,
    HM_PAT_LOOK,
    HM_PAT_EOL,
    HM_PAT_JUMP,
    HM_PAT_ACCEPT
};
struct hm_pattern_node {
    enum hm_pattern_op op;
    int32_t next;   /* node after it */
    int32_t branch; /* SPLIT: tried before next; LOOK: what is looked for */
    int32_t set;    /* STEP: of characters, or -1 for the one */
    uint32_t code;
    uint32_t min, max; /* STEP */
    bool possessive;   /* STEP: takes nothing back */
    bool negative;     /* LOOK */
};
struct hm_split_pattern {
    struct hm_pattern_node node[HM_PATTERN_MAX_NODES];
    size_t n_nodes;
    struct hm_char_set *set[HM_PATTERN_MAX_SETS];
    size_t n_sets;
    int32_t root;
};
struct hm_match {
    size_t start, end;
};

/* `what` names the file in errors. */
int hm_split_pattern_make(struct hm_str text, const char *what,
                          struct hm_split_pattern **ret_pattern, struct hm_error *err);
void hm_split_pattern_free(struct hm_split_pattern *pattern);
/* The next match from a place on: 1, 0 none, negative when it would take too long. text: valid
 * UTF-8. */
int hm_split_pattern_find(const struct hm_split_pattern *pattern, struct hm_str text, size_t from,
                          struct hm_match *ret_match, struct hm_error *err);

#endif
