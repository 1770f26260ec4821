/* SPDX-License-Identifier: MIT */
/*
 * Growing embed_tokens and lm_head from an old to a new vocabulary, streamed: only shards holding
 * the two matrices are rewritten, others linked or copied. Old rows stay bit-identical.
 * Thread class: owner thread; parallel inside.
 */
#ifndef HANMIX_VOCAB_EMBED_RESIZE_H
#define HANMIX_VOCAB_EMBED_RESIZE_H

#include "hanmix/base/ctl.h"
#include "hanmix/checkpoint/model_arch.h"
#include "hanmix/vocab/tokenizer.h"

/*
 * What a new row is made of. Its old rows are those of the tokens that the old vocabulary cuts the
 * piece into; where there are none, all.
 * MEAN: their mean, in f64, rounded once. WEIGHTED: the same with weights by place i of k:
 * 1/(k-i) in embed_tokens (the last token, which the next position sees, weighs most), 1/(i+1) in
 * lm_head (the first, which had to be predicted); a tied matrix takes the former.
 * MEAN_UPSTREAM: as the published script, <s> and dummy prefix included, every sum and the quotient
 * rounded to the matrix's dtype. NORMAL: drawn from N(m, scale * C), mean and covariance of the old
 * rows (Hewitt 2021; transformers since 4.46, scale 1e-9); all m where C is not positive definite.
 * COPY: ids may have moved; a piece that the old vocabulary has, text and type, keeps its row bit
 * for bit, others as MEAN. All but COPY want the old vocabulary as the beginning of the new.
 */
enum hm_resize_init {
    HM_RESIZE_MEAN,
    HM_RESIZE_MEAN_UPSTREAM,
    HM_RESIZE_NORMAL,
    HM_RESIZE_ZERO,
    HM_RESIZE_WEIGHTED,
    HM_RESIZE_COPY
};
struct hm_kernels;
struct hm_resize_options {
    enum hm_resize_init init;
    /* MEAN, WEIGHTED, made rows of COPY: added normal noise, relative to each column's standard
       deviation over the old rows; 0 none */
    double noise;
    double scale;                     /* NORMAL: of the covariance */
    const struct hm_kernels *kernels; /* NORMAL: of the products; NULL: the reference */
    uint32_t pad_to; /* rows rounded up to a multiple; padding rows get the global mean */
    uint64_t seed;
};
struct hm_resize_report {
    uint64_t old_rows, new_rows; /* of both matrices, before and after, padding included */
    uint64_t padded_rows;        /* rows beyond the new tokenizer's pieces */
    uint64_t duplicate_rows; /* new pieces whose embedding equals that of an earlier new piece */
    uint64_t kept_rows;  /* first rows of the new matrix that are those of the old, ids and all */
    uint64_t moved_rows; /* COPY: rows copied to another id */
    uint64_t replaced_rows; /* old rows beyond the old tokenizer's pieces that were not kept */
    bool not_definite;      /* NORMAL: a covariance was not; its matrix got means */
    uint64_t bytes_written, files_linked, files_copied;
};
int hm_embed_resize(const char *model_dir, const struct hm_tokenizer *old_tokenizer,
                    const struct hm_tokenizer *new_tokenizer,
                    const struct hm_resize_options *options, const char *out_dir,
                    const struct hm_ctl *ctl, struct hm_resize_report *ret_report,
                    struct hm_error *err);
struct hm_resize_outlook {
    uint64_t rows;         /* of the grown matrices */
    uint64_t kept_rows;    /* as in the report */
    uint64_t matrix_bytes; /* of the larger old matrix */
};
/* Whether hm_embed_resize would take these inputs, as far as their headers and pieces tell. */
int hm_embed_resize_check(const char *model_dir, const struct hm_tokenizer *old_tokenizer,
                          const struct hm_tokenizer *new_tokenizer,
                          const struct hm_resize_options *options,
                          struct hm_resize_outlook *ret_outlook, struct hm_error *err);
/* Heap that growing to `rows` takes, for plans. */
uint64_t hm_embed_resize_bytes(const struct hm_arch *arch, uint64_t rows, enum hm_resize_init init);
/* Bytes of the files written: of those with the two matrices, or of all where nothing can be
 * linked. Opens the model as hm_embed_resize does. */
int hm_embed_resize_disk(const char *model_dir, uint64_t rows, bool may_link, uint64_t *ret_bytes,
                         struct hm_error *err);

#endif
