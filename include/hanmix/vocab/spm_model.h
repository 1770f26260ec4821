/* SPDX-License-Identifier: MIT */
/*
 * SentencePiece ModelProto on the wire: pieces, scores, types and the few trainer/normaliser fields
 * we read. Appending pieces keeps the base file as a prefix (base bytes + new field-1 records), so
 * whatever we do not read is preserved. Thread class: immutable after load.
 */
#ifndef HANMIX_VOCAB_SPM_MODEL_H
#define HANMIX_VOCAB_SPM_MODEL_H

#include "hanmix/base/hash.h"
#include "hanmix/base/str.h"

#define HM_SPM_MAX_PIECES       1048576        /* 2^20: four times the largest known */
#define HM_SPM_MAX_FILE_BYTES   134217728u     /* 128 MiB */
#define HM_SPM_SPACE            "\xe2\x96\x81" /* U+2581, what a space is inside pieces */
#define HM_SPM_SPACE_CODE       0x2581u
#define HM_SPM_WHITESPACE_SCORE (-1e9f) /* of pieces of spaces alone, below every merge */

enum hm_piece_type {
    HM_PIECE_NORMAL = 1,
    HM_PIECE_UNKNOWN = 2,
    HM_PIECE_CONTROL = 3,
    HM_PIECE_USER = 4,
    HM_PIECE_UNUSED = 5,
    HM_PIECE_BYTE = 6
};
enum hm_spm_kind { HM_SPM_UNIGRAM = 1, HM_SPM_BPE = 2, HM_SPM_WORD = 3, HM_SPM_CHAR = 4 };

struct hm_piece {
    struct hm_str text; /* borrowed from the model; valid UTF-8, not empty, no NUL */
    float score;        /* finite */
    enum hm_piece_type type;
};

struct hm_spm_merge {
    int32_t left, right, result; /* ids of normal pieces */
};

struct hm_spm_model {
    char *path;          /* NULL when made in memory */
    struct hm_buf bytes; /* the file */
    struct hm_piece *piece;
    size_t count;
    enum hm_spm_kind kind;
    bool byte_fallback, add_dummy_prefix, remove_extra_whitespaces;
    bool escape_whitespaces, whitespace_as_suffix;
    bool has_charsmap;        /* non-identity normaliser */
    bool has_denormalizer;    /* text is changed when decoding */
    uint64_t normalizer_hash; /* of the character map; equal maps, equal hashes */
    /* -1 absent; found as the library does, by name and type */
    int32_t unk_id, bos_id, eos_id, pad_id;
    char sha256[HM_SHA256_HEX_BYTES];
    /* Of a tokenizer.json, whose digest sha256 is: these merges, in this order, and no others; of a
     * pair that stands twice the later. Else any two pieces that make a third, by its score. */
    bool by_merges;
    struct hm_spm_merge *merge;
    size_t n_merges;
    struct hm_text_before *before; /* what is done to text first; private to vocab/ */
    void *index;                   /* owned: piece text -> id, and the texts */
};

/* path: a .model file, or a folder holding tokenizer.model. A malformed file is HM_ERR_FORMAT. */
int hm_spm_model_load(const char *path, struct hm_spm_model *ret_model, struct hm_error *err);
/* `what` names the bytes in errors. */
int hm_spm_model_parse(struct hm_str bytes, const char *what, struct hm_spm_model *ret_model,
                       struct hm_error *err);
void hm_spm_model_release(struct hm_spm_model *model);
/* -1 when absent */
int32_t hm_spm_model_find(const struct hm_spm_model *model, struct hm_str piece);
/* The byte of "<0xNN>", or -1 when text is not written so. */
int hm_spm_byte_of(struct hm_str text);

/* base bytes followed by records for pieces[n]; the result is a valid model file. */
int hm_spm_model_append(const struct hm_spm_model *base, const struct hm_piece *pieces, size_t n,
                        struct hm_buf *ret_bytes, struct hm_error *err);
/* A complete BPE model file from pieces (meta pieces included by the caller's list): identity
   normaliser, no dummy prefix, spaces kept, digits split, scripts split. */
int hm_spm_model_build(const struct hm_piece *pieces, size_t n, bool byte_fallback,
                       struct hm_buf *ret_bytes, struct hm_error *err);

#endif
