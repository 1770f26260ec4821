/* SPDX-License-Identifier: MIT */
/*
 * What the readers of corpus/ share: a byte stream behind one of three doors (plain, gzip, zstd),
 * lines cut from it, the text of one JSON line, and the documents of one named set. Each object
 * belongs to one thread.
 */
#ifndef HANMIX_CORPUS_INTERNAL_H
#define HANMIX_CORPUS_INTERNAL_H

#include "hanmix/base/json.h"
#include "hanmix/corpus/text_files.h"

struct byte_stream {
    const char *path;        /* borrowed */
    int fd;                  /* the compressed file */
    uint64_t consumed_bytes; /* of the compressed file */
    void *decoder;           /* owned by the door; NULL when plain */
    /* Up to cap bytes of plain text into out; *ret_len 0 at the end. */
    int (*read)(struct byte_stream *stream, void *out, size_t cap, size_t *ret_len,
                struct hm_error *err);
    void (*close_decoder)(struct byte_stream *stream); /* may be NULL */
};

/* The door is chosen by the ending: .gz, .zst, else plain. path must outlive the stream. */
int hm_byte_stream_open(const char *path, struct byte_stream *ret_stream, struct hm_error *err);
void hm_byte_stream_close(struct byte_stream *stream); /* {0} is fine */
/* The next bytes of the compressed file; *ret_len 0 at its end. */
int hm_byte_stream_fill(struct byte_stream *stream, void *out, size_t cap, size_t *ret_len,
                        struct hm_error *err);
int hm_gz_stream_open(struct byte_stream *stream, struct hm_error *err);
int hm_zst_stream_open(struct byte_stream *stream, struct hm_error *err);

struct line_reader {
    struct byte_stream *stream; /* borrowed */
    char *buffer;
    size_t cap, from, end; /* unread bytes are buffer[from..end) */
    uint64_t line;         /* number of the line last returned, from 1 */
    bool at_end;
};

struct line_slice { /* bytes that may be overwritten */
    char *ptr;
    size_t len;
};

enum line_state { LINE_END = 0, LINE_TEXT = 1, LINE_TOO_LONG = 2 };

void hm_line_reader_init(struct line_reader *reader, struct byte_stream *stream);
void hm_line_reader_release(struct line_reader *reader);
/* enum line_state, or a negative status. The slice is valid until the next call; "\r\n" counts as a
 * newline. */
int hm_line_reader_next(struct line_reader *reader, struct line_slice *ret_line,
                        struct hm_error *err);

struct json_line { /* the parts wanted of a line; they stand in the line's own bytes */
    struct hm_str text;
    const char *set; /* NULL when no set field was asked for or the line has none */
};
#define HM_LINE_WHERE_BYTES 512
/* "file:line", which begins the sentence about a line. */
void hm_line_where(char where[HM_LINE_WHERE_BYTES], const char *path, uint64_t number);
/* A broken line, or one without the field, is HM_ERR_FORMAT. The line is overwritten with what it
 * holds, unless that fails. */
int hm_json_line_parse(char *line, size_t len, const char *path, uint64_t number,
                       const struct hm_text_options *options, struct json_line *ret_line,
                       struct hm_error *err);
/* The two ways to do it: a scan that refuses what is wrong or rare, and a tree. */
bool hm_json_scan(char *line, size_t len, const char *field, const char *set_field,
                  struct json_line *ret_line);
/* Surrogates without their other half become U+FFFD, in place; true: there were some. */
bool hm_json_surrogates_mend(char *line, size_t len);
int hm_json_tree(char *line, size_t len, const char *where, const char *field,
                 const char *set_field, struct json_line *ret_line, struct hm_error *err);

struct set_reader { /* documents of one named set, file after file, epoch after epoch */
    const struct hm_text_set *set; /* borrowed */
    const struct hm_text_options *options;
    struct hm_text_stats *stats; /* shared by all sets */
    struct byte_stream stream;
    struct line_reader lines;
    size_t file; /* index of the open file */
    bool is_open, is_json;
    uint64_t epoch;      /* completed passes */
    uint64_t done_bytes; /* compressed, of files closed */
};
void hm_set_reader_init(struct set_reader *reader, const struct hm_text_set *set,
                        const struct hm_text_options *options, struct hm_text_stats *stats);
void hm_set_reader_release(struct set_reader *reader);
/* 1 and a document, 0 at the end of the last epoch, negative on error. Empty texts are passed over.
 */
int hm_set_reader_next(struct set_reader *reader, struct hm_str *ret_text, const char **ret_set,
                       struct hm_error *err);
uint64_t hm_set_reader_position(const struct set_reader *reader);

#endif
