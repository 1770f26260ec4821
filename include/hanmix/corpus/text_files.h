/* SPDX-License-Identifier: MIT */
/*
 * Documents out of .jsonl, .jsonl.zst, .jsonl.gz, .txt and .txt.zst files, streamed: named sets
 * with weights and epochs, bad lines counted against a limit, exact duplicates optionally dropped.
 * Makes an hm_text_source. Memory: bounded by one line (HM_LINE_MAX_BYTES) and the decompressor's
 * window.
 * Thread class: owner thread.
 */
#ifndef HANMIX_CORPUS_TEXT_FILES_H
#define HANMIX_CORPUS_TEXT_FILES_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/text.h"

#define HM_LINE_MAX_BYTES (256u << 20)
#define HM_DEDUP_SHARE    4u

struct hm_text_set {
    char *name;  /* "text" when the recipe names none */
    char **file; /* sorted paths */
    size_t n_files;
    double weight; /* share of documents when sets are mixed; 0 = in proportion to size (read one
                      after another) */
    double epochs; /* 1 */
};
/* A part of the text, taken from all sets alike, from which the time for the whole is to follow. */
struct hm_text_bound {
    uint64_t bytes; /* of text, about */
    /* found when the source is closed: */
    double share;   /* of the whole; 1 when it is all of it */
    double seconds; /* added: what finding the part took */
};
/* What is done with documents that an earlier one equals, by 128-bit hash: nothing, dropped and
 * counted, or counted only. */
enum hm_text_dedup { HM_DEDUP_OFF, HM_DEDUP_DROP, HM_DEDUP_COUNT };
struct hm_text_options {
    const char *field;      /* JSON field of the text: "text" */
    const char *set_field;  /* JSON path ("meta.redpajama_set_name") whose value names the set; NULL
                               = the set's own name */
    uint64_t max_bad_lines; /* beyond it: HM_ERR_FORMAT with file and line; default 0 */
    enum hm_text_dedup dedup;
    uint64_t memory_bytes; /* 0 = no limit; hashes take at most one in HM_DEDUP_SHARE of it, else
                              HM_ERR_NOFIT names a limit that will do */
    /* 0 = all; else keep documents by hash until about this many text bytes */
    uint64_t sample_bytes;
    uint64_t seed;
    const struct hm_ctl *ctl;    /* borrowed; for the pass that a sample takes before */
    struct hm_text_bound *bound; /* borrowed until the source is closed; NULL: all of it */
};
struct hm_text_stats {
    uint64_t documents, bytes, chars, bad_lines, duplicates;
    char first_bad[HM_ERROR_TEXT_BYTES];
};

int hm_text_files_open(const struct hm_text_set *sets, size_t n_sets,
                       const struct hm_text_options *options, struct hm_text_source *ret_source,
                       struct hm_error *err); /* copies sets and options */
/* What dedup takes for so many documents, at most. */
uint64_t hm_text_dedup_bytes(uint64_t documents);
/* Bytes of the line a file begins with, at most: those of all its text when it is long enough to be
 * one document of a size to plan for, 0 when it is not. What cannot be read is 0, too. */
uint64_t hm_text_long_line(const char *path, uint64_t text_bytes);
struct hm_text_stats hm_text_files_stats(const struct hm_text_source *source);

#endif
