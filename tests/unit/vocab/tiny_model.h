/* SPDX-License-Identifier: MIT */
/*
 * Small SentencePiece models for the tests of vocab/: meta pieces, optionally the 256 bytes, then
 * the pieces of a list with scores 0, -1, -2, ...
 */
#ifndef HANMIX_TESTS_TINY_MODEL_H
#define HANMIX_TESTS_TINY_MODEL_H

#include "support/support.h"

#include "hanmix/vocab/spm_model.h"

#define TINY_META (3 + 256) /* ids before the first listed piece when bytes are there */

/* pieces end with NULL. Release with hm_buf_release. */
static inline struct hm_buf tiny_model(const char *const *pieces, bool bytes)
{
    static char byte_text[256][8];
    struct hm_piece list[600] = { { hm_str_of("<unk>"), 0, HM_PIECE_UNKNOWN },
                                  { hm_str_of("<s>"), 0, HM_PIECE_CONTROL },
                                  { hm_str_of("</s>"), 0, HM_PIECE_CONTROL } };
    struct hm_buf buf = { 0 };
    struct hm_error err = { 0 };
    size_t n = 3;

    for (unsigned i = 0; bytes && i < 256; i++) {
        snprintf(byte_text[i], sizeof(byte_text[i]), "<0x%02X>", i);
        list[n++] = (struct hm_piece){ hm_str_of(byte_text[i]), 0, HM_PIECE_BYTE };
    }
    for (size_t i = 0; pieces[i]; i++) {
        assert_true(n < sizeof(list) / sizeof(list[0]));
        list[n++] = (struct hm_piece){ hm_str_of(pieces[i]), -(float)i, HM_PIECE_NORMAL };
    }
    assert_ok(hm_spm_model_build(list, n, bytes, &buf, &err), err);
    return buf;
}

static inline struct hm_str buf_str(const struct hm_buf *buf)
{
    return (struct hm_str){ buf->ptr, buf->len };
}

#endif
