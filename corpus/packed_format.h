/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a packed token file, shared by its writer and its reader. Private to corpus/;
 * described in docs/FORMATS.md.
 *
 * Every number is little-endian. A file is header, records, footer; a record has a fixed size, so
 * window i lies at header + i * record. What is known only at the end (count, digest) is in the
 * footer, so writing is one pass.
 */
#ifndef HANMIX_CORPUS_PACKED_FORMAT_H
#define HANMIX_CORPUS_PACKED_FORMAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "hanmix/base/bytes.h"
#include "hanmix/base/file.h"
#include "hanmix/base/hash.h"

#define PACKED_MAGIC        "HMPACK\r\n"
#define PACKED_END_MAGIC    "HMPEND\r\n"
#define PACKED_VERSION      1u
#define PACKED_HEADER_BYTES 192u
#define PACKED_FOOTER_BYTES 64u
#define PACKED_SEQ_LEN_MAX  (1u << 24)

enum packed_header_at {
    PACKED_AT_MAGIC = 0,
    PACKED_AT_VERSION = 8,
    PACKED_AT_HEADER_BYTES = 12,
    PACKED_AT_SEQ_LEN = 16,
    PACKED_AT_TOKEN_BYTES = 20,
    PACKED_AT_VOCAB_SIZE = 24,
    PACKED_AT_RECORD_BYTES = 28,
    PACKED_AT_TOKENIZER = 32, /* 64 hexadecimal digits */
    PACKED_AT_TEXT = 96,      /* 64 hexadecimal digits */
    PACKED_AT_RESERVED = 160, /* zeros */
};
enum packed_footer_at {
    PACKED_END_AT_WINDOWS = 0,
    PACKED_END_AT_RESERVED = 8, /* zeros */
    PACKED_END_AT_DIGEST = 24,  /* SHA-256 of every byte before it, 32 bytes */
    PACKED_END_AT_MAGIC = 56,
};

struct packed_layout { /* of one record */
    size_t starts_at;  /* bitmap, bit t % 8 of byte t / 8 */
    size_t bytes_at;   /* u64 */
    size_t chars_at;   /* u64 */
    size_t check_at;   /* u64: hash of what comes before, seeded by the window's index */
    size_t record_bytes;
};

static inline struct packed_layout packed_layout(uint32_t seq_len, uint32_t token_bytes)
{
    struct packed_layout layout;

    layout.starts_at = (size_t)seq_len * token_bytes;
    layout.bytes_at = (layout.starts_at + (seq_len + 7) / 8 + 7) / 8 * 8;
    layout.chars_at = layout.bytes_at + 8;
    layout.check_at = layout.chars_at + 8;
    layout.record_bytes = layout.check_at + 8;
    return layout;
}

/* 64 hexadecimal digits of hm_sha256_finish to 32 bytes. */
static inline void packed_digest_bytes(const char *hex, uint8_t *out)
{
    for (size_t i = 0; i < 32; i++) {
        uint8_t byte = 0;
        for (size_t k = 2 * i; k < 2 * i + 2; k++)
            byte = (uint8_t)(byte << 4 | (hex[k] <= '9' ? hex[k] - '0' : hex[k] - 'a' + 10));
        out[i] = byte;
    }
}

#endif
