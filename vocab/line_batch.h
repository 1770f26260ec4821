/* SPDX-License-Identifier: MIT */
/*
 * Text cut into work: documents of a source are gathered into batches of a few MiB, and a batch
 * into units of whole lines that threads take in any order, while one reads the next batch. Private
 * to vocab/. Thread class: owner thread; units are read-only while they are worked on.
 */
#ifndef HANMIX_VOCAB_LINE_BATCH_H
#define HANMIX_VOCAB_LINE_BATCH_H

#include <string.h>

#include "hanmix/base/text.h"

struct hm_line_unit {
    size_t begin, end; /* of its lines in the batch's text */
    uint64_t document, first_line;
};

struct hm_line_text { /* documents and the units they are cut into; private but for the batch */
    struct hm_buf text;
    struct hm_line_unit *unit;
    size_t n_units, cap_units;
    uint64_t documents;
    bool is_read, more;
    int status;
    struct hm_error err;
};

struct hm_line_batch {
    struct hm_line_text now, ahead;
    uint64_t documents; /* in all batches so far */
};

/* The next batch, in place of the last; *ret_more is false when the source has ended. */
int hm_line_batch_gather(struct hm_text_source *source, struct hm_line_batch *batch, bool *ret_more,
                         struct hm_error *err);
/* Run unit(context, index, worker) for every unit of the batch, as hm_parallel_for does, while the
 * next batch is read. */
void hm_line_batch_for(struct hm_text_source *source, struct hm_line_batch *batch,
                       void (*unit)(void *context, size_t index, int worker), void *context);
void hm_line_batch_release(struct hm_line_batch *batch);

/* The line that begins at *at, without its end; *at moves behind it. *at < unit->end. */
static inline struct hm_str hm_line_next(const struct hm_line_batch *batch,
                                         const struct hm_line_unit *unit, size_t *at)
{
    const char *from = batch->now.text.ptr + *at;
    const char *end = memchr(from, '\n', unit->end - *at);
    size_t len = end ? (size_t)(end - from) : unit->end - *at;

    *at += len + 1;
    return (struct hm_str){ from, len };
}

#endif
