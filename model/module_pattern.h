/* SPDX-License-Identifier: MIT */
/*
 * Regular expressions over module names, in the part of Python's syntax that adapter configurations
 * use. Private to model/. Thread class: a pattern is immutable after compiling; matching allocates.
 */
#ifndef HANMIX_MODEL_MODULE_PATTERN_H
#define HANMIX_MODEL_MODULE_PATTERN_H

#include <stdbool.h>

#include "hanmix/base/status.h"

struct hm_pattern_program;

/*
 * Literals, '.', [classes], \d \w \s and their complements, groups, alternatives, * + ? {m,n} (lazy
 * forms too), ^ and $. Look-around, back-references and possessive forms: HM_ERR_FORMAT saying so.
 */
int hm_pattern_compile(const char *text, struct hm_pattern_program **ret_program,
                       struct hm_error *err);
void hm_pattern_free(struct hm_pattern_program *program);

/* re.fullmatch: 1 or 0, or HM_ERR_NOMEM. */
int hm_pattern_matches(const struct hm_pattern_program *program, const char *name,
                       struct hm_error *err);

/* True when text holds a character that no module name holds: it is meant as an expression. */
bool hm_pattern_is_expression(const char *text);

#endif
