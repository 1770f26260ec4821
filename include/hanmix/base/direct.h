/* SPDX-License-Identifier: MIT */
/*
 * Large files past the page cache, by threads of their own: reading ahead of the work and writing
 * behind it. Where the file system has no direct access (tmpfs) the same goes through the cache.
 * Memory: the buffers alone, whatever the size of the files; none before the first byte.
 * Thread class: one caller at a time per object, each owns its threads.
 */
#ifndef HANMIX_BASE_DIRECT_H
#define HANMIX_BASE_DIRECT_H

#include <stddef.h>
#include <stdint.h>

#include "hanmix/base/hash.h"

#define HM_READ_BUFFERS    6u         /* of one reader */
#define HM_DIRECT_BUFFERS  4u         /* of one writer */
#define HM_DIRECT_BYTES    (8u << 20) /* of one buffer: what streaming at the rate of a disk takes */
#define HM_DIRECT_OVERHEAD 8192u      /* of one buffer of a reader: ends of pages */

struct hm_read_range { /* stretch of an open file, handed out in pieces */
    int fd;            /* borrowed */
    const char *path;  /* borrowed, for messages */
    uint64_t offset, bytes;
    size_t piece_bytes; /* the last piece may be shorter */
};

struct hm_reader;
/* Reads the ranges in their order, HM_READ_BUFFERS pieces ahead at most. `ranges` is copied. */
int hm_reader_new(const struct hm_read_range *ranges, size_t n, struct hm_reader **ret_reader,
                  struct hm_error *err);
/* The same, and takes digests on the way: of the files whose ranges come in file order and leave
 * little out. */
int hm_reader_new_digesting(const struct hm_read_range *ranges, size_t n,
                            struct hm_reader **ret_reader, struct hm_error *err);
/* The next piece, valid until the next but one is asked for: two are in use at most.
 * HM_ERR_FORMAT: the file is shorter than it was; HM_ERR_IO: it cannot be read. */
int hm_reader_next(struct hm_reader *reader, const uint8_t **ret_data, size_t *ret_bytes,
                   struct hm_error *err);
/* After the last piece: adds the files that were read whole; others are not named. */
int hm_reader_digests(struct hm_reader *reader, struct hm_file_digests *digests,
                      struct hm_error *err);
void hm_reader_free(struct hm_reader *reader);
/* Of a reader of such pieces. */
uint64_t hm_reader_bytes(uint64_t total_bytes, uint64_t piece_bytes);

struct hm_writer;
/* Opens path for writing, as it is: neither emptied nor renamed. path is copied; buffer_bytes is a
   multiple of 4096. */
int hm_writer_open(const char *path, size_t buffer_bytes, struct hm_writer **ret_writer,
                   struct hm_error *err);
/* Bytes for this place of the file; copied. Places of two calls that were not yet synced do not
   overlap. An error may be told by a later call. */
int hm_writer_put(struct hm_writer *writer, uint64_t offset, const void *data, size_t len,
                  struct hm_error *err);
/* All that was put is on the disk. */
int hm_writer_sync(struct hm_writer *writer, struct hm_error *err);
/* Drops what is not yet written. */
void hm_writer_close(struct hm_writer *writer);
/* Of one writer of so many bytes. */
uint64_t hm_writer_bytes(uint64_t total_bytes, size_t buffer_bytes);

#endif
