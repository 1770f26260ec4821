/* SPDX-License-Identifier: MIT */
/*
 * Bounded JSON over jansson: parse with depth and size limits and duplicate-key refusal, typed
 * getters that name file and key, canonical writing (2-space indent, keys in insertion order,
 * trailing newline).
 *
 * Objects are jansson's json_t (json_decref). Integers and reals are told apart as in the text.
 * Thread class: one object per thread.
 */
#ifndef HANMIX_BASE_JSON_H
#define HANMIX_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "hanmix/base/status.h"
#include "hanmix/base/str.h"

/* `what` names the source in errors (a path). Rejects duplicate keys, depth > 64, invalid UTF-8. */
int hm_json_parse(struct hm_str text, const char *what, json_t **ret_value, struct hm_error *err);
/* Every number a real, so that integers beyond 64 bits are read, too. */
int hm_json_parse_reals(struct hm_str text, const char *what, json_t **ret_value,
                        struct hm_error *err);
int hm_json_load(const char *path, uint64_t max_bytes, json_t **ret_value, struct hm_error *err);
/* Atomic, indent 2; a NULL value, which jansson gives when memory is short, is HM_ERR_NOMEM. */
int hm_json_save(const char *path, const json_t *value, struct hm_error *err);
int hm_json_save_in(const char *dir, const char *name, const json_t *value, struct hm_error *err);
/* One line, ", " and ": ". */
int hm_json_dump(const json_t *value, struct hm_buf *buf, struct hm_error *err);

/* Required members: a missing key or a wrong type is HM_ERR_FORMAT naming what and key. */
int hm_json_u64(const json_t *object, const char *key, const char *what, uint64_t *ret,
                struct hm_error *err);
int hm_json_f64(const json_t *object, const char *key, const char *what, double *ret,
                struct hm_error *err);
int hm_json_text(const json_t *object, const char *key, const char *what, const char **ret,
                 struct hm_error *err);
/* Optional members: absent or null keeps *ret; a wrong type still fails. */
int hm_json_u64_opt(const json_t *object, const char *key, const char *what, uint64_t *ret,
                    struct hm_error *err);
int hm_json_f64_opt(const json_t *object, const char *key, const char *what, double *ret,
                    struct hm_error *err);
int hm_json_bool_opt(const json_t *object, const char *key, const char *what, bool *ret,
                     struct hm_error *err);
int hm_json_text_opt(const json_t *object, const char *key, const char *what, const char **ret,
                     struct hm_error *err);

#endif
