/* SPDX-License-Identifier: MIT */
/*
 * What the file sources of base/ share: one way to turn errno into a sentence. Private to base/.
 */
#ifndef HANMIX_BASE_INTERNAL_H
#define HANMIX_BASE_INTERNAL_H

#include <stddef.h>

#include "hanmix/base/file.h"

/*
 * "cannot <action> '<path>': <reason>" from errno as it stands. ENOMEM is HM_ERR_NOMEM; with
 * `reading`, a path that does not exist is the user's mistake (HM_ERR_USAGE); the rest is
 * HM_ERR_IO.
 */
int hm_fail_errno(struct hm_error *err, const char *action, const char *path);
int hm_fail_errno_reading(struct hm_error *err, const char *action, const char *path);

#endif
