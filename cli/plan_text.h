/* SPDX-License-Identifier: MIT */
/*
 * A plan for people.
 */
#ifndef HANMIX_CLI_PLAN_TEXT_H
#define HANMIX_CLI_PLAN_TEXT_H

#include "hanmix/recipes/run.h"

int hm_plan_text(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                 struct hm_buf *text, struct hm_error *err);

#endif
