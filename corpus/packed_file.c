/* SPDX-License-Identifier: MIT */
/*
 * Reading packed files: mapped, every field of header and footer checked against the file's size at
 * open, every window by its own hash when it is read. Pages read are dropped behind, so that a long
 * run does not keep the file resident.
 */
#include "hanmix/corpus/packed.h"

#include <inttypes.h>

#include "packed_format.h"

static int hex_field(const char *path, const char *what, const uint8_t *field,
                     char out[HM_SHA256_HEX_BYTES], struct hm_error *err)
{
    size_t len = strnlen((const char *)field, 64);
    bool good = len == 64 || len == 0;

    for (size_t i = 0; good && i < 64; i++)
        good = len == 0
                   ? field[i] == 0
                   : (field[i] >= '0' && field[i] <= '9') || (field[i] >= 'a' && field[i] <= 'f');
    if (!good)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the digest of the %s in its header is not 64 hexadecimal digits; the "
                       "file is damaged, pack again",
                       path, what);
    memcpy(out, field, len);
    out[len] = '\0';
    return HM_OK;
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != 0)
            return false;
    return true;
}

static int header_read(const char *path, const uint8_t *header, struct hm_packed *packed,
                       struct hm_error *err)
{
    uint64_t version = hm_le_get(header + PACKED_AT_VERSION, 4);

    if (memcmp(header + PACKED_AT_MAGIC, PACKED_MAGIC, 8) != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' is not a packed token file: it does not begin "
                       "with HMPACK",
                       path);
    if (version != PACKED_VERSION)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': packed format version %" PRIu64 ", this program reads version %u; "
                       "pack again",
                       path, version, PACKED_VERSION);
    packed->seq_len = (uint32_t)hm_le_get(header + PACKED_AT_SEQ_LEN, 4);
    packed->token_bytes = (uint32_t)hm_le_get(header + PACKED_AT_TOKEN_BYTES, 4);
    packed->vocab_size = (uint32_t)hm_le_get(header + PACKED_AT_VOCAB_SIZE, 4);
    packed->record_bytes = hm_le_get(header + PACKED_AT_RECORD_BYTES, 4);
    if (hm_le_get(header + PACKED_AT_HEADER_BYTES, 4) != PACKED_HEADER_BYTES ||
        packed->seq_len < 2 || packed->seq_len > PACKED_SEQ_LEN_MAX ||
        (packed->token_bytes != 2 && packed->token_bytes != 4) || packed->vocab_size == 0 ||
        packed->vocab_size > INT32_MAX ||
        packed->record_bytes != packed_layout(packed->seq_len, packed->token_bytes).record_bytes ||
        !all_zero(header + PACKED_AT_RESERVED, PACKED_HEADER_BYTES - PACKED_AT_RESERVED))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': header out of range: seq_len %u, token width %u, vocabulary %u, "
                       "record of %zu bytes; the file is damaged, pack again",
                       path, packed->seq_len, packed->token_bytes, packed->vocab_size,
                       packed->record_bytes);
    HM_TRY(hex_field(path, "tokenizer", header + PACKED_AT_TOKENIZER, packed->tokenizer, err));
    return hex_field(path, "text", header + PACKED_AT_TEXT, packed->text, err);
}

static int footer_read(const char *path, struct hm_packed *packed, struct hm_error *err)
{
    uint64_t size = packed->map.size_bytes;
    const uint8_t *footer = packed->map.data + size - PACKED_FOOTER_BYTES;
    uint64_t body = size - PACKED_HEADER_BYTES - PACKED_FOOTER_BYTES;

    packed->windows = hm_le_get(footer + PACKED_END_AT_WINDOWS, 8);
    if (memcmp(footer + PACKED_END_AT_MAGIC, PACKED_END_MAGIC, 8) != 0 ||
        !all_zero(footer + PACKED_END_AT_RESERVED, PACKED_END_AT_DIGEST - PACKED_END_AT_RESERVED))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' does not end with a footer: it is cut short or damaged; pack again",
                       path);
    if (body % packed->record_bytes != 0 || body / packed->record_bytes != packed->windows)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': its footer counts %" PRIu64 " windows of %zu bytes, %" PRIu64
                       " bytes are there; pack again",
                       path, packed->windows, packed->record_bytes, body);
    return HM_OK;
}

static int file_open(const char *path, struct hm_packed *packed, struct hm_error *err)
{
    HM_TRY(hm_map_open(path, &packed->map, err));
    if (packed->map.size_bytes < PACKED_HEADER_BYTES + PACKED_FOOTER_BYTES)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s' is not a packed token file: it has only %" PRIu64 " bytes", path,
                       packed->map.size_bytes);
    HM_TRY(header_read(path, packed->map.data, packed, err));
    HM_TRY(footer_read(path, packed, err));
    packed->records_view = packed->map.data + PACKED_HEADER_BYTES;
    packed->path = hm_strdup(HM_MEM_TEXT, path);
    if (!packed->path)
        return hm_fail_nomem(err, "opening '%s'", path);
    return HM_OK;
}

/* train.hmp of a folder, or the only .hmp there is. */
static int file_of_folder(const char *dir, char **ret_path, struct hm_error *err)
{
    struct hm_names names = { 0 };
    const char *found = NULL;
    size_t count = 0;

    HM_TRY(hm_dir_list(dir, &names, err));
    for (size_t i = 0; i < names.count; i++) {
        if (!hm_text_ends(names.item[i], ".hmp"))
            continue;
        count++;
        if (!found || strcmp(names.item[i], "train.hmp") == 0)
            found = names.item[i];
    }
    int status = HM_OK;
    if (!found)
        status = hm_fail(err, HM_ERR_USAGE, "'%s' holds no packed token file (*.hmp)", dir);
    else if (count > 1 && strcmp(found, "train.hmp") != 0)
        status =
            hm_fail(err, HM_ERR_USAGE,
                    "'%s' holds %zu packed token files and no train.hmp; name one", dir, count);
    else
        status = hm_path_join(ret_path, dir, found, err);
    hm_names_release(&names);
    return status;
}

int hm_packed_open(const char *path, struct hm_packed *ret_packed, struct hm_error *err)
{
    struct hm_packed packed = { 0 };
    char *inner = NULL;

    if (hm_path_is_dir(path))
        HM_TRY(file_of_folder(path, &inner, err));
    int status = file_open(inner ? inner : path, &packed, err);
    hm_free(inner);
    if (status < 0) {
        hm_packed_close(&packed);
        return status;
    }
    *ret_packed = packed;
    return HM_OK;
}

void hm_packed_close(struct hm_packed *packed)
{
    hm_map_close(&packed->map);
    hm_free(packed->path);
    *packed = (struct hm_packed){ 0 };
}

int hm_packed_verify(const struct hm_packed *packed, struct hm_error *err)
{
    const size_t piece = 1u << 20;
    uint64_t end = packed->map.size_bytes - PACKED_FOOTER_BYTES + PACKED_END_AT_DIGEST;
    struct hm_sha256 sha = { 0 };
    char hex[HM_SHA256_HEX_BYTES];
    uint8_t digest[32];

    HM_TRY(hm_sha256_init(&sha, err));
    for (uint64_t at = 0; at < end; at += piece) {
        size_t len = end - at < piece ? (size_t)(end - at) : piece;
        hm_sha256_add(&sha, packed->map.data + at, len);
        hm_map_drop(&packed->map, at, len);
    }
    hm_sha256_finish(&sha, hex);
    packed_digest_bytes(hex, digest);
    if (memcmp(digest, packed->map.data + end, sizeof(digest)) != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': its bytes are not those that were written (digest %.16s...); the "
                       "file is damaged, pack again",
                       packed->path, hex);
    return HM_OK;
}

int hm_packed_window(const struct hm_packed *packed, uint64_t index, int32_t *ids,
                     uint8_t *doc_start, struct hm_window *ret_window, struct hm_error *err)
{
    struct packed_layout layout = packed_layout(packed->seq_len, packed->token_bytes);
    uint64_t page = 4096; /* at least one page more, so that the last one goes too */

    if (index >= packed->windows)
        return hm_fail(err, HM_ERR_USAGE, "'%s': window %" PRIu64 " of %" PRIu64, packed->path,
                       index, packed->windows);
    uint64_t offset = index * packed->record_bytes;
    const uint8_t *record = packed->records_view + offset;
    if (hm_le_get(record + layout.check_at, 8) != hm_hash64(record, layout.check_at, index))
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': window %" PRIu64 " is damaged (its check does not match); pack again",
                       packed->path, index);
    for (uint32_t t = 0; t < packed->seq_len; t++) {
        uint64_t id = hm_le_get(record + (size_t)t * packed->token_bytes, packed->token_bytes);
        if (id >= packed->vocab_size)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': window %" PRIu64 " holds token %" PRIu64
                           ", the vocabulary has %u; pack again",
                           packed->path, index, id, packed->vocab_size);
        ids[t] = (int32_t)id;
    }
    const uint8_t *starts = record + layout.starts_at;
    for (uint32_t t = 0; doc_start && t < packed->seq_len; t++)
        doc_start[t] = starts[t / 8] >> t % 8 & 1;
    *ret_window = (struct hm_window){ .utf8_bytes = hm_le_get(record + layout.bytes_at, 8),
                                      .chars = hm_le_get(record + layout.chars_at, 8) };
    hm_map_drop(&packed->map, PACKED_HEADER_BYTES + offset, packed->record_bytes + page);
    return HM_OK;
}
