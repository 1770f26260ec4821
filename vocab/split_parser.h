/* SPDX-License-Identifier: MIT */
/*
 * Reading a split pattern: the place in its text, and the classes of characters in it
 * (split_class.c). Structure is split_pattern.c's. Private to vocab/split_*.c.
 */
#ifndef HANMIX_VOCAB_SPLIT_PARSER_H
#define HANMIX_VOCAB_SPLIT_PARSER_H

#include "split_pattern.h"

struct parser {
    struct hm_str text;
    size_t at;
    const char *what;
    struct hm_split_pattern *pattern;
    uint8_t *class_of; /* [HM_UNICODE_CODES] */
    bool fold;         /* within (?i:..) */
    int depth;
    struct hm_error *err;
};

/* why: "is too long" */
int hm_pattern_refuse(const struct parser *p, const char *why);
bool hm_pattern_next_is(const struct parser *p, const char *word);
/* Whether the word stood there; it is behind then. */
bool hm_pattern_skip(struct parser *p, const char *word);
int hm_pattern_char_next(struct parser *p, uint32_t *ret_code);

void hm_char_set_put(struct hm_char_set *set, uint32_t first, uint32_t last);
/* An empty set of the pattern. */
int hm_pattern_set_new(struct parser *p, int32_t *ret_set);
/* Other cases of the ASCII letters of the set; Unicode folds two more letters onto them. */
int hm_pattern_set_fold(struct parser *p, struct hm_char_set *set);
/* What follows a backslash: a character, or characters put into set (*ret_is_set). */
int hm_pattern_escape(struct parser *p, struct hm_char_set *set, bool *ret_is_set,
                      uint32_t *ret_code);
/* Behind '['. */
int hm_pattern_class_read(struct parser *p, int32_t *ret_set);

#endif
