/* SPDX-License-Identifier: MIT */
/*
 * Runs with counts in blocks of packed records, in memory and in scratch files, where each has its
 * own check and all are written and read in order. The files live beside the output of one run on
 * one machine (native byte order); whatever is read is hostile until hm_run_block_check has passed
 * it. Private to vocab/.
 */
#ifndef HANMIX_VOCAB_RUN_BLOCKS_H
#define HANMIX_VOCAB_RUN_BLOCKS_H

#include "han_store.h"

#define HM_BLOCK_HEADER_WORDS 12u

/* The first word of a record: units above, count below; all ones when they follow in full. */
#define HM_COUNT_BITS   6u
#define HM_UNITS_FOLLOW 1023u
#define HM_COUNT_FOLLOW 63u

struct run_words { /* a block being filled */
    struct hm_han_budget *budget;
    uint16_t *word; /* header, then records */
    size_t n, cap;
    uint32_t n_runs;
};

/* Room for so many words behind the block's; err is not NULL here and below. */
int hm_run_words_reserve(struct run_words *words, size_t more, struct hm_error *err);
int hm_run_words_put(struct run_words *words, const struct hm_run *run, struct hm_error *err);
/* What a record takes at most beside the run's units. */
#define HM_RECORD_EXTRA 7u
/* A record where it is made: n_units > 0 were written from word[n + 1], with room for
 * HM_RECORD_EXTRA words more. */
void hm_run_words_end(struct run_words *words, size_t n_units, uint64_t count);
/* The same of a run that was met once and is not long. */
static inline bool hm_run_words_end_once(struct run_words *words, size_t n_units)
{
    if (n_units >= HM_UNITS_FOLLOW)
        return false;
    words->word[words->n] = (uint16_t)(n_units << HM_COUNT_BITS | 1);
    words->n += 1 + n_units;
    words->n_runs++;
    return true;
}
/* Memory beyond the block goes back; an empty one is released. */
int hm_run_words_shrink(struct run_words *words, struct hm_error *err);
void hm_run_words_clear(struct run_words *words);
void hm_run_words_release(struct run_words *words);

struct run_file { /* being written; {.fd = -1} is none */
    char *path;
    int fd;
    uint64_t bytes, n_runs;
};

int hm_run_file_create(const char *dir, const char *name, struct run_file *ret_file,
                       struct hm_error *err);
/* Appends the block and clears it; an empty one is nothing. */
int hm_run_file_put(struct run_file *file, struct run_words *words, struct hm_error *err);
int hm_run_file_sync(struct run_file *file, struct hm_error *err);
void hm_run_file_close(struct run_file *file); /* keeps the file */
void hm_run_file_remove(struct run_file *file);

struct run_block {
    const uint16_t *word; /* header and records, in the reader's buffer */
    size_t n_words;
    uint64_t offset; /* in the file */
};

struct run_reader {
    struct hm_han_budget *budget;
    char *path;
    int fd;
    uint64_t size_bytes, offset; /* of the first byte in the buffer */
    uint8_t *buffer;
    size_t begin, end, cap_bytes;
};

/* The file must have size_bytes. About buffer_bytes are read at once, more for a longer block. */
int hm_run_reader_open(const char *path, uint64_t size_bytes, size_t buffer_bytes,
                       struct hm_han_budget *budget, struct run_reader *ret_reader,
                       struct hm_error *err);
/* The next blocks, at most `most`, valid until the next call; *ret_n 0 at the end. */
int hm_run_reader_next(struct run_reader *reader, struct run_block *block, size_t most,
                       size_t *ret_n, struct hm_error *err);
void hm_run_reader_close(struct run_reader *reader);

/* Whether a block is what was written. From any thread. */
int hm_run_block_check(const struct run_block *block, const char *path, struct hm_error *err);
/* The record at *at (from 0), of a block that was checked; false at the end. */
bool hm_run_block_next(const struct run_block *block, size_t *at, struct hm_run *ret_run);

#endif
