/* SPDX-License-Identifier: MIT */
/*
 * Writer of one packed file: tokens go in one by one, full windows go out. Private to corpus/.
 */
#ifndef HANMIX_CORPUS_PACKED_WRITER_H
#define HANMIX_CORPUS_PACKED_WRITER_H

#include "packed_format.h"

struct packed_token {
    int32_t id;
    bool starts_document;
    uint64_t utf8_bytes, chars; /* of the text it stands for */
};

struct packed_writer {
    struct hm_out_file file;
    struct hm_sha256 sha;
    struct packed_layout layout;
    uint32_t seq_len, token_bytes;
    uint8_t *record; /* [record_bytes], the window being filled */
    uint32_t filled; /* tokens in it */
    uint64_t utf8_bytes, chars;
    uint64_t windows;
};

/* text_digest: 64 hexadecimal digits, or "" for unknown. Nothing appears at `path` before
 * hm_packed_writer_commit. */
int hm_packed_writer_open(const char *path, uint32_t seq_len, uint32_t vocab_size,
                          const char *tokenizer, const char *text_digest,
                          struct packed_writer *ret_writer, struct hm_error *err);
int hm_packed_writer_add(struct packed_writer *writer, const struct packed_token *token,
                         struct hm_error *err);
/* Drops the unfinished window and releases, in every case. */
int hm_packed_writer_commit(struct packed_writer *writer, struct hm_error *err);
void hm_packed_writer_abort(struct packed_writer *writer); /* {0} and committed are fine */

#endif
