/* SPDX-License-Identifier: MIT */
/*
 * What several stages need: text inputs with their common fields, tokenizers, kernels by name,
 * results as JSON, sizes. Glue only; each function belongs to the owner thread.
 */
#ifndef HANMIX_RECIPES_STAGE_UTIL_H
#define HANMIX_RECIPES_STAGE_UTIL_H

#include <stddef.h>

#include "hanmix/base/file.h"
#include "hanmix/base/text.h"
#include "hanmix/checkpoint/model_arch.h"
#include "hanmix/kernels/kernels.h"
#include "hanmix/recipes/stage.h"
#include "hanmix/vocab/tokenizer.h"

/* Reading text: line buffer, decompressor window, the largest documents seen in web text. */
#define STAGE_TEXT_BYTES (16ull << 20)

/* A loaded tokenizer, a piece. */
#define STAGE_PIECE_BYTES   512ull
#define STAGE_JSON_PER_BYTE 24ull /* a tree of JSON while it is read */

#define COUNT_OF(table) (sizeof(table) / sizeof((table)[0]))

extern const char *const hm_stage_dedups[];
struct stage_text { /* the fields every text input shares */
    char *field, *set_field;
    uint64_t max_bad_lines, sample_bytes;
    int dedup; /* enum hm_text_dedup */
};
#define STAGE_TEXT_FIELDS(config, member)                                                   \
    { .name = "field",                                                                      \
      .type = HM_FIELD_TEXT,                                                                \
      .offset = offsetof(config, member.field),                                             \
      .fallback = "text",                                                                   \
      .help = "JSON field that holds the text; a dotted path reaches inside" },             \
        { .name = "set_field",                                                              \
          .type = HM_FIELD_TEXT,                                                            \
          .offset = offsetof(config, member.set_field),                                     \
          .help = "JSON path whose value names the set of a document, as meta.source" },    \
        { .name = "max_bad_lines",                                                          \
          .type = HM_FIELD_COUNT,                                                           \
          .offset = offsetof(config, member.max_bad_lines),                                 \
          .fallback = "0",                                                                  \
          .help = "lines that may be broken or lack the field before the stage fails" },    \
        { .name = "dedup",                                                                  \
          .type = HM_FIELD_CHOICE,                                                          \
          .offset = offsetof(config, member.dedup),                                         \
          .fallback = "off",                                                                \
          .choices = hm_stage_dedups,                                                       \
          .help = "documents whose text was seen before: on (or true) drops them, count "   \
                  "only counts them, in report.json's text.duplicates" },                   \
    {                                                                                       \
        .name = "sample_bytes", .type = HM_FIELD_SIZE,                                      \
        .offset = offsetof(config, member.sample_bytes), .fallback = "0",                   \
        .help = "read about this many bytes of text, documents chosen by hash; 0 reads all" \
    }

/* A source over the sets of input `name`, without its counted text; source->close(source->context)
 * when done. */
int hm_stage_text_open(const struct hm_stage_run *run, const char *name,
                       const struct stage_text *text, struct hm_text_source *ret_source,
                       struct hm_error *err);
/* Counted text: .tsv and .tsv.zst, lines of text, tab, count (counted_text.h). */
bool hm_stage_is_counted(const char *path);
/* For stages that take all text as one: set.set_field would name sets that nothing tells apart. */
int hm_stage_text_is_one(const struct hm_stage_run *run, struct hm_error *err);
/* Statistics of the source into report.text: documents, bytes, chars, bad_lines, duplicates. */
int hm_stage_text_report(const struct hm_stage_run *run, const struct hm_text_source *source,
                         struct hm_error *err);
/* Bytes of the input's files on disk; 0 while they are pending. */
int hm_stage_input_bytes(const struct hm_stage_run *run, const char *name, uint64_t *ret_bytes,
                         struct hm_error *err);
/* A text of one huge line is held whole, some times over: into the plan, when an input has one. */
int hm_stage_plan_long(const struct hm_stage_run *run, const char *name, uint64_t times,
                       struct hm_stage_plan *ret_plan, struct hm_error *err);
/* About how many bytes of text the input's files hold: compressed ones three times their size. */
int hm_stage_text_bytes(const struct hm_stage_run *run, const char *name, uint64_t *ret_bytes,
                        struct hm_error *err);
/* SHA-256 over the lines "set digest" of all files of an input, in order: the identity of a text.
 * Of a run only. */
int hm_stage_input_digest(const struct hm_stage_run *run, const char *name,
                          char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);
/* True when an input is absent, or made by a stage that has not run yet. */
bool hm_stage_pending(const struct hm_stage_run *run, const char *name);
/* Of an input; says who encodes. */
int hm_stage_tokenizer_open(const struct hm_stage_run *run, const char *name,
                            struct hm_tokenizer **ret_tokenizer, struct hm_error *err);
/* Says in stage.json's "encoders" who encodes with a tokenizer, and why, and aloud when it is
 * libsentencepiece, ten times slower. */
int hm_stage_encoder_note(const struct hm_stage_run *run, const char *name,
                          const struct hm_tokenizer *tokenizer, struct hm_error *err);

#define STAGE_VERIFY_FIELD(config)                                                        \
    {                                                                                     \
        .name = "verify", .type = HM_FIELD_COUNT, .offset = offsetof(config, verify),     \
        .fallback = "0", .max = 1e9,                                                      \
        .help = "encode one document in this many by libsentencepiece too; a difference " \
                "ends the stage; 0 none"                                                  \
    }
struct stage_verifier { /* of one thread that encodes document after document */
    struct hm_text_encoder encoder;
    uint64_t every; /* one document in so many; 0 none */
    uint64_t documents, verified;
};
/* An encoder that verifies its ids; borrows verifier. */
struct hm_text_encoder hm_stage_verified(struct stage_verifier *verifier);

/* HM_CPU's or the machine's kernels; recorded as stage.json's "kernels". */
int hm_stage_kernels(const struct hm_stage_run *run, struct hm_kernels *ret_kernels,
                     struct hm_error *err);

/* Members of the report; failures of the heap are HM_ERR_NOMEM. */
int hm_report_u64(json_t *object, const char *key, uint64_t value, struct hm_error *err);
/* not finite: null */
int hm_report_f64(json_t *object, const char *key, double value, struct hm_error *err);
int hm_report_text(json_t *object, const char *key, const char *value, struct hm_error *err);
int hm_report_bool(json_t *object, const char *key, bool value, struct hm_error *err);
json_t *hm_report_array(json_t *object, const char *key,
                        struct hm_error *err); /* borrowed, or NULL */
json_t *hm_report_object(json_t *object, const char *key,
                         struct hm_error *err); /* borrowed, or NULL */
json_t *hm_report_item(json_t *array,
                       struct hm_error *err); /* a new object at the end; borrowed, or NULL */

#endif
