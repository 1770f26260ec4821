/* SPDX-License-Identifier: MIT */
/*
 * Writing packed files in one pass: header, a record per window, footer with count and digest. The
 * window's bytes and characters are those of its targets: the first token of a window is predicted
 * by nothing in it.
 */
#include "packed_writer.h"

static int put(struct packed_writer *writer, const void *data, size_t len, struct hm_error *err)
{
    hm_sha256_add(&writer->sha, data, len);
    return hm_out_write(&writer->file, data, len, err);
}

static void header_fill(uint8_t *header, const struct packed_writer *writer, uint32_t vocab_size,
                        const char *tokenizer, const char *text_digest)
{
    memset(header, 0, PACKED_HEADER_BYTES);
    memcpy(header + PACKED_AT_MAGIC, PACKED_MAGIC, 8);
    hm_le_put(header + PACKED_AT_VERSION, PACKED_VERSION, 4);
    hm_le_put(header + PACKED_AT_HEADER_BYTES, PACKED_HEADER_BYTES, 4);
    hm_le_put(header + PACKED_AT_SEQ_LEN, writer->seq_len, 4);
    hm_le_put(header + PACKED_AT_TOKEN_BYTES, writer->token_bytes, 4);
    hm_le_put(header + PACKED_AT_VOCAB_SIZE, vocab_size, 4);
    hm_le_put(header + PACKED_AT_RECORD_BYTES, writer->layout.record_bytes, 4);
    memcpy(header + PACKED_AT_TOKENIZER, tokenizer, strnlen(tokenizer, 64));
    memcpy(header + PACKED_AT_TEXT, text_digest, strnlen(text_digest, 64));
}

int hm_packed_writer_open(const char *path, uint32_t seq_len, uint32_t vocab_size,
                          const char *tokenizer, const char *text_digest,
                          struct packed_writer *ret_writer, struct hm_error *err)
{
    struct packed_writer writer = { .seq_len = seq_len,
                                    .token_bytes = vocab_size <= 65536 ? 2 : 4 };
    uint8_t header[PACKED_HEADER_BYTES];
    int status;

    if (seq_len < 2 || seq_len > PACKED_SEQ_LEN_MAX)
        return hm_fail(err, HM_ERR_USAGE, "'%s': seq_len is %u; it must be 2 to %u", path, seq_len,
                       PACKED_SEQ_LEN_MAX);
    writer.layout = packed_layout(seq_len, writer.token_bytes);
    writer.record = hm_calloc(HM_MEM_TEXT, 1, writer.layout.record_bytes);
    if (!writer.record)
        return hm_fail_nomem(err, "for a window of %u tokens of '%s'", seq_len, path);
    status = hm_sha256_init(&writer.sha, err);
    if (status == HM_OK)
        status = hm_out_open(path, &writer.file, err);
    if (status == HM_OK) {
        header_fill(header, &writer, vocab_size, tokenizer, text_digest);
        status = put(&writer, header, sizeof(header), err);
    }
    if (status < 0) {
        hm_packed_writer_abort(&writer);
        return status;
    }
    *ret_writer = writer;
    return HM_OK;
}

static int record_write(struct packed_writer *writer, struct hm_error *err)
{
    const struct packed_layout *layout = &writer->layout;

    hm_le_put(writer->record + layout->bytes_at, writer->utf8_bytes, 8);
    hm_le_put(writer->record + layout->chars_at, writer->chars, 8);
    hm_le_put(writer->record + layout->check_at,
              hm_hash64(writer->record, layout->check_at, writer->windows), 8);
    HM_TRY(put(writer, writer->record, layout->record_bytes, err));
    memset(writer->record, 0, layout->record_bytes);
    writer->windows++;
    writer->filled = 0;
    writer->utf8_bytes = 0;
    writer->chars = 0;
    return HM_OK;
}

int hm_packed_writer_add(struct packed_writer *writer, const struct packed_token *token,
                         struct hm_error *err)
{
    uint32_t at = writer->filled++;

    hm_le_put(writer->record + (size_t)at * writer->token_bytes, (uint32_t)token->id,
              writer->token_bytes);
    if (token->starts_document)
        writer->record[writer->layout.starts_at + at / 8] |= (uint8_t)(1u << at % 8);
    if (at > 0) {
        writer->utf8_bytes += token->utf8_bytes;
        writer->chars += token->chars;
    }
    return writer->filled == writer->seq_len ? record_write(writer, err) : HM_OK;
}

/* The footer's own digest covers the part of the footer before it. */
static int footer_write(struct packed_writer *writer, struct hm_error *err)
{
    uint8_t footer[PACKED_FOOTER_BYTES] = { 0 };
    char hex[HM_SHA256_HEX_BYTES];

    hm_le_put(footer + PACKED_END_AT_WINDOWS, writer->windows, 8);
    hm_sha256_add(&writer->sha, footer, PACKED_END_AT_DIGEST);
    hm_sha256_finish(&writer->sha, hex);
    packed_digest_bytes(hex, footer + PACKED_END_AT_DIGEST);
    memcpy(footer + PACKED_END_AT_MAGIC, PACKED_END_MAGIC, 8);
    return hm_out_write(&writer->file, footer, sizeof(footer), err);
}

int hm_packed_writer_commit(struct packed_writer *writer, struct hm_error *err)
{
    int status = footer_write(writer, err);

    if (status == HM_OK)
        status = hm_out_commit(&writer->file, err);
    hm_packed_writer_abort(writer);
    return status;
}

void hm_packed_writer_abort(struct packed_writer *writer)
{
    hm_out_abort(&writer->file);
    hm_sha256_release(&writer->sha);
    hm_free(writer->record);
    *writer = (struct packed_writer){ 0 };
}
