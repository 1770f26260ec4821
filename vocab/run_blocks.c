/* SPDX-License-Identifier: MIT */
/*
 * Blocks of runs and their scratch files; see run_blocks.h. Block: [u32 magic][u32 words][u32
 * runs][u32 0][u64 hash] and records of 16-bit words: the first holds units (10 bits) and count (6
 * bits), either of them all ones when it follows in full (2 words, 4 words), then the run's UTF-16
 * units. The hash covers the header and is seeded with the block's place, so a block elsewhere is
 * not taken for its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hanmix/base/bytes.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "run_blocks.h"

#define MAGIC        0x6b6c4268u
#define HEADER_BYTES (2 * HM_BLOCK_HEADER_WORDS)
#define HASHED_BYTES 16u /* of the header */
#define WORDS_FIRST  4096u

/* --- a block in memory ------------------------------------------------------------------------ */

int hm_run_words_reserve(struct run_words *words, size_t more, struct hm_error *err)
{
    size_t need = (words->n ? words->n : HM_BLOCK_HEADER_WORDS) + more;

    if (need > UINT32_MAX)
        return hm_fail(err, HM_ERR_NOFIT, "a block of more than 4294967295 units of Han runs");
    if (need > words->cap) {
        size_t cap = words->cap ? 2 * words->cap : WORDS_FIRST;
        cap = cap > need ? cap : need;
        HM_TRY(hm_han_budget_take(words->budget, (cap - words->cap) * sizeof(uint16_t), err));
        uint16_t *grown = hm_realloc(HM_MEM_VOCAB, words->word, cap * sizeof(uint16_t));
        if (!grown) {
            hm_han_budget_give(words->budget, (cap - words->cap) * sizeof(uint16_t));
            return hm_fail_nomem(err, "for a block of %zu units of Han runs", cap);
        }
        words->word = grown;
        words->cap = cap;
    }
    if (words->n == 0)
        words->n = HM_BLOCK_HEADER_WORDS;
    return HM_OK;
}

void hm_run_words_end(struct run_words *words, size_t n_units, uint64_t count)
{
    uint16_t *to = words->word + words->n;
    uint32_t all_units = (uint32_t)n_units;
    uint32_t units = (uint32_t)hm_least(n_units, HM_UNITS_FOLLOW);
    uint32_t low = (uint32_t)hm_least(count, HM_COUNT_FOLLOW);
    size_t extra = (units == HM_UNITS_FOLLOW ? 2u : 0u) + (low == HM_COUNT_FOLLOW ? 4u : 0u);

    if (extra > 0)
        memmove(to + 1 + extra, to + 1, n_units * sizeof(*to));
    *to++ = (uint16_t)(units << HM_COUNT_BITS | low);
    if (units == HM_UNITS_FOLLOW) {
        memcpy(to, &all_units, sizeof(all_units));
        to += 2;
    }
    if (low == HM_COUNT_FOLLOW)
        memcpy(to, &count, sizeof(count));
    words->n += 1 + extra + n_units;
    words->n_runs++;
}

int hm_run_words_put(struct run_words *words, const struct hm_run *run, struct hm_error *err)
{
    HM_TRY(hm_run_words_reserve(words, run->n_units + (size_t)HM_RECORD_EXTRA, err));
    memcpy(words->word + words->n + 1, run->unit, run->n_units * sizeof(*run->unit));
    hm_run_words_end(words, run->n_units, run->count);
    return HM_OK;
}

int hm_run_words_shrink(struct run_words *words, struct hm_error *err)
{
    if (words->n_runs == 0) {
        hm_run_words_release(words);
        return HM_OK;
    }
    uint16_t *shrunk = hm_realloc(HM_MEM_VOCAB, words->word, words->n * sizeof(uint16_t));
    if (!shrunk)
        return hm_fail_nomem(err, "for a block of %zu units of Han runs", words->n);
    hm_han_budget_give(words->budget, (words->cap - words->n) * sizeof(uint16_t));
    words->word = shrunk;
    words->cap = words->n;
    return HM_OK;
}

void hm_run_words_clear(struct run_words *words)
{
    words->n = 0;
    words->n_runs = 0;
}

void hm_run_words_release(struct run_words *words)
{
    if (words->word)
        hm_han_budget_give(words->budget, words->cap * sizeof(uint16_t));
    hm_free(words->word);
    *words = (struct run_words){ .budget = words->budget };
}

static uint64_t block_hash(const uint8_t *block, size_t n_words, uint64_t offset)
{
    return hm_hash64(block + HEADER_BYTES, 2 * n_words - HEADER_BYTES,
                     hm_hash64(block, HASHED_BYTES, offset));
}

/* --- writing ---------------------------------------------------------------------------------- */

static int fail_errno(struct hm_error *err, const char *action, const char *path)
{
    return hm_fail(err, errno == ENOMEM ? HM_ERR_NOMEM : HM_ERR_IO, "cannot %s '%s': %s", action,
                   path, strerror(errno));
}

int hm_run_file_create(const char *dir, const char *name, struct run_file *ret_file,
                       struct hm_error *err)
{
    struct run_file file = { .fd = -1 };

    HM_TRY(hm_path_join(&file.path, dir, name, err));
    file.fd = open(file.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (file.fd < 0) {
        int status = fail_errno(err, "create", file.path);
        hm_free(file.path);
        return status;
    }
    *ret_file = file;
    return HM_OK;
}

int hm_run_file_put(struct run_file *file, struct run_words *words, struct hm_error *err)
{
    uint8_t *data = (uint8_t *)words->word;
    size_t left = 2 * words->n;

    if (words->n_runs == 0)
        return HM_OK;
    hm_le_put(data, MAGIC, 4);
    hm_le_put(data + 4, words->n, 4);
    hm_le_put(data + 8, words->n_runs, 4);
    hm_le_put(data + 12, 0, 4);
    hm_le_put(data + HASHED_BYTES, block_hash(data, words->n, file->bytes), 8);
    while (left > 0) {
        ssize_t put = write(file->fd, data, left);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return fail_errno(err, "write", file->path);
        data += put;
        left -= (size_t)put;
    }
    file->bytes += 2 * words->n;
    file->n_runs += words->n_runs;
    hm_run_words_clear(words);
    return HM_OK;
}

int hm_run_file_sync(struct run_file *file, struct hm_error *err)
{
    return fsync(file->fd) == 0 ? HM_OK : fail_errno(err, "write", file->path);
}

void hm_run_file_close(struct run_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    hm_free(file->path);
    *file = (struct run_file){ .fd = -1 };
}

void hm_run_file_remove(struct run_file *file)
{
    if (file->path)
        unlink(file->path);
    hm_run_file_close(file);
}

/* --- reading ---------------------------------------------------------------------------------- */

static int fail_damaged(struct hm_error *err, const char *path, uint64_t offset, const char *what)
{
    return hm_fail(err, HM_ERR_FORMAT, "'%s': %s at byte %" PRIu64 ": the scratch file is damaged",
                   path, what, offset);
}

int hm_run_reader_open(const char *path, uint64_t size_bytes, size_t buffer_bytes,
                       struct hm_han_budget *budget, struct run_reader *ret_reader,
                       struct hm_error *err)
{
    struct run_reader reader = { .budget = budget, .fd = -1, .size_bytes = size_bytes };
    struct stat info;
    int status = HM_OK;

    reader.path = hm_strdup(HM_MEM_VOCAB, path);
    if (!reader.path)
        return hm_fail_nomem(err, "for '%s'", path);
    reader.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (reader.fd < 0 || fstat(reader.fd, &info) != 0)
        status = fail_errno(err, "read", path);
    else if (!S_ISREG(info.st_mode) || (uint64_t)info.st_size != size_bytes)
        status =
            hm_fail(err, HM_ERR_FORMAT,
                    "'%s' has %lld bytes and %" PRIu64 " were written: the scratch file is damaged",
                    path, (long long)info.st_size, size_bytes);
    if (status == HM_OK)
        status = hm_han_budget_take(budget, buffer_bytes, err);
    if (status == HM_OK) {
        reader.cap_bytes = buffer_bytes;
        reader.buffer = hm_alloc(HM_MEM_VOCAB, buffer_bytes);
        if (!reader.buffer)
            status = hm_fail_nomem(err, "for reading '%s'", path);
    }
    if (status < 0)
        hm_run_reader_close(&reader);
    else
        *ret_reader = reader;
    return status;
}

void hm_run_reader_close(struct run_reader *reader)
{
    if (reader->fd >= 0 && reader->path)
        close(reader->fd);
    if (reader->cap_bytes)
        hm_han_budget_give(reader->budget, reader->cap_bytes);
    hm_free(reader->buffer);
    hm_free(reader->path);
    *reader = (struct run_reader){ .fd = -1 };
}

/* Fill the buffer as far as the file goes, from where the blocks handed out end. */
static int reader_fill(struct run_reader *reader, struct hm_error *err)
{
    memmove(reader->buffer, reader->buffer + reader->begin, reader->end - reader->begin);
    reader->offset += reader->begin;
    reader->end -= reader->begin;
    reader->begin = 0;
    while (reader->end < reader->cap_bytes) {
        ssize_t got = pread(reader->fd, reader->buffer + reader->end,
                            reader->cap_bytes - reader->end, (off_t)(reader->offset + reader->end));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(err, "read", reader->path);
        if (got == 0)
            break;
        reader->end += (size_t)got;
    }
    return HM_OK;
}

static int reader_grow(struct run_reader *reader, size_t bytes, struct hm_error *err)
{
    HM_TRY(hm_han_budget_take(reader->budget, bytes - reader->cap_bytes, err));
    uint8_t *grown = hm_realloc(HM_MEM_VOCAB, reader->buffer, bytes);
    if (!grown) {
        hm_han_budget_give(reader->budget, bytes - reader->cap_bytes);
        return hm_fail_nomem(err, "for reading '%s'", reader->path);
    }
    reader->buffer = grown;
    reader->cap_bytes = bytes;
    return reader_fill(reader, err);
}

/* Bytes of the block at `begin`; 0: its header is not in the buffer. */
static int block_size(const struct run_reader *reader, size_t *ret_bytes, struct hm_error *err)
{
    const uint8_t *data = reader->buffer + reader->begin;
    uint64_t offset = reader->offset + reader->begin;

    *ret_bytes = 0;
    if (reader->end - reader->begin < HEADER_BYTES)
        return HM_OK;
    uint64_t n_words = hm_le_get(data + 4, 4);
    if (hm_le_get(data, 4) != MAGIC || n_words <= HM_BLOCK_HEADER_WORDS ||
        2 * n_words > reader->size_bytes - offset)
        return fail_damaged(err, reader->path, offset, "no block of Han runs");
    *ret_bytes = 2 * (size_t)n_words;
    return HM_OK;
}

int hm_run_reader_next(struct run_reader *reader, struct run_block *block, size_t most,
                       size_t *ret_n, struct hm_error *err)
{
    size_t n = 0, bytes = 0;

    while (n < most && reader->offset + reader->begin < reader->size_bytes) {
        HM_TRY(block_size(reader, &bytes, err));
        if (bytes == 0 || bytes > reader->end - reader->begin) {
            if (n > 0)
                break;
            HM_TRY(bytes > reader->cap_bytes ? reader_grow(reader, bytes, err)
                                             : reader_fill(reader, err));
            HM_TRY(block_size(reader, &bytes, err));
            if (bytes > reader->cap_bytes)
                continue;
            if (bytes == 0 || bytes > reader->end - reader->begin)
                return fail_damaged(err, reader->path, reader->offset, "the file ends");
        }
        block[n++] = (struct run_block){
            .word = (const uint16_t *)(const void *)(reader->buffer + reader->begin),
            .n_words = bytes / 2,
            .offset = reader->offset + reader->begin,
        };
        reader->begin += bytes;
    }
    *ret_n = n;
    return HM_OK;
}

/* --- records ---------------------------------------------------------------------------------- */

/* The record at *at, which must lie before `end`; false: it does not. */
static bool record_read(const uint16_t *word, size_t end, size_t *at, struct hm_run *ret_run)
{
    size_t i = *at;
    uint32_t units = word[i] >> HM_COUNT_BITS;
    uint64_t count = word[i] & HM_COUNT_FOLLOW;

    i++;
    if (units == HM_UNITS_FOLLOW) {
        if (end - i < 2)
            return false;
        memcpy(&units, word + i, sizeof(units));
        i += 2;
    }
    if (count == HM_COUNT_FOLLOW) {
        if (end - i < 4)
            return false;
        memcpy(&count, word + i, sizeof(count));
        i += 4;
    }
    if (units == 0 || count == 0 || units > end - i)
        return false;
    *ret_run = (struct hm_run){ .unit = word + i, .n_units = units, .count = count };
    *at = i + units;
    return true;
}

bool hm_run_block_next(const struct run_block *block, size_t *at, struct hm_run *ret_run)
{
    if (*at == 0)
        *at = HM_BLOCK_HEADER_WORDS;
    return *at < block->n_words && record_read(block->word, block->n_words, at, ret_run);
}

/* Characters of runs alone, no half of a surrogate pair. */
static bool units_are_han(const struct hm_run *run)
{
    for (uint32_t i = 0; i < run->n_units;) {
        uint16_t unit = run->unit[i];
        bool high = unit >= 0xd800 && unit < 0xdc00;
        if (high &&
            (i + 1 == run->n_units || run->unit[i + 1] < 0xdc00 || run->unit[i + 1] >= 0xe000))
            return false;
        uint32_t code = hm_run_code(run->unit, &i);
        if (!hm_is_han_class(code) && !hm_is_han_mark(code))
            return false;
    }
    return true;
}

int hm_run_block_check(const struct run_block *block, const char *path, struct hm_error *err)
{
    const uint8_t *data = (const uint8_t *)block->word;
    size_t at = HM_BLOCK_HEADER_WORDS;
    uint64_t n_runs = 0;
    struct hm_run run;

    if (hm_le_get(data + HASHED_BYTES, 8) != block_hash(data, block->n_words, block->offset))
        return fail_damaged(err, path, block->offset, "a block of Han runs has changed");
    for (; at < block->n_words; n_runs++)
        if (!record_read(block->word, block->n_words, &at, &run) || !units_are_han(&run))
            return fail_damaged(err, path, block->offset + 2 * at, "no Han run");
    if (n_runs != hm_le_get(data + 8, 4))
        return fail_damaged(err, path, block->offset, "a wrong number of Han runs");
    return HM_OK;
}
