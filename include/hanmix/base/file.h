/* SPDX-License-Identifier: MIT */
/*
 * Files: mapped views, whole reads, and writes that are beside-fsync-rename; folders, globs, locks.
 *
 * Every error names the path and the system's reason. ENOSPC, EACCES and EROFS are HM_ERR_IO.
 * A missing input path is HM_ERR_USAGE. Thread class: one object per thread; functions on paths are
 * thread safe.
 */
#ifndef HANMIX_BASE_FILE_H
#define HANMIX_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "hanmix/base/status.h"
#include "hanmix/base/str.h"

struct hm_map {          /* a read-only mapping of a whole file */
    const uint8_t *data; /* borrowed from the mapping; NULL when the file is empty */
    uint64_t size_bytes;
    int fd;
};

int hm_map_open(const char *path, struct hm_map *ret_map, struct hm_error *err);
void hm_map_close(struct hm_map *map); /* {0} or closed is fine */
/* madvise away pages read */
void hm_map_drop(const struct hm_map *map, uint64_t offset, uint64_t bytes);

/* How a range will be read; advice to the kernel. */
enum hm_map_access {
    HM_MAP_NORMAL, /* as the kernel thinks best */
    HM_MAP_ROWS,   /* a few bytes here and there: no reading ahead */
    HM_MAP_LARGE,  /* in long stretches: large pages, which are read and mapped far cheaper */
    HM_MAP_SMALL,  /* in long stretches, in small pages: few bytes beyond the range are mapped */
};
void hm_map_advise(const struct hm_map *map, uint64_t offset, uint64_t bytes,
                   enum hm_map_access access);
/* Read the pages of a range and map them. What a touch would die of is an error here: a file cut
 * short HM_ERR_FORMAT, unreadable HM_ERR_IO. `path` is for the message. From any thread. */
int hm_map_fetch(const struct hm_map *map, const char *path, uint64_t offset, uint64_t bytes,
                 struct hm_error *err);
/* Unmap the pages of a range and let the page cache forget them; a later touch reads them again. */
void hm_map_forget(const struct hm_map *map, uint64_t offset, uint64_t bytes);
/* Zeros instead of the file from now on: for a range that cannot be read, until the error has
 * travelled up. */
int hm_map_blank(const struct hm_map *map, uint64_t offset, uint64_t bytes, struct hm_error *err);

/* Whole file into a NUL-terminated buffer; refuses more than max_bytes. */
int hm_file_read(const char *path, uint64_t max_bytes, struct hm_buf *ret_buf,
                 struct hm_error *err);

/* Write path + ".tmp", fsync, rename over path, fsync the folder. */
int hm_file_write(const char *path, const void *data, size_t len, struct hm_error *err);
/* The file `name` of a folder that exists. */
int hm_file_write_in(const char *dir, const char *name, const void *data, size_t len,
                     struct hm_error *err);

struct hm_out_file { /* the same, streamed; the final name appears only on commit */
    char *path;
    char *temp_path;
    int fd;
    uint64_t written_bytes;
    uint8_t *buffer;
    size_t buffered;
};

int hm_out_open(const char *path, struct hm_out_file *ret_file, struct hm_error *err);
int hm_out_open_in(const char *dir, const char *name, struct hm_out_file *ret_file,
                   struct hm_error *err);
int hm_out_write(struct hm_out_file *file, const void *data, size_t len, struct hm_error *err);
int hm_out_printf(struct hm_out_file *file, struct hm_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int hm_out_commit(struct hm_out_file *file,
                  struct hm_error *err);     /* fsync, rename; releases in every case */
void hm_out_abort(struct hm_out_file *file); /* removes the temporary; {0} is fine */
/* Commit when `status`, that of the last write, is HM_OK; else abort and pass it on. */
int hm_out_end(struct hm_out_file *file, int status, struct hm_error *err);

/* An append-only log of lines (metrics.jsonl): each call writes and flushes whole lines. */
int hm_file_append(const char *path, const void *data, size_t len, struct hm_error *err);

/* Also true of what the system does not let us look at (permission, I/O): opening it tells why. */
bool hm_path_exists(const char *path);
bool hm_path_is_dir(const char *path);
/* HM_ERR_USAGE when it is a folder, device or pipe */
int hm_regular_check(const char *path, struct hm_error *err);
/* On the heap: hm_free. */
int hm_path_join(char **ret_path, const char *dir, const char *name, struct hm_error *err);
/* The last `names` names of a path, for people; inside `path`. */
const char *hm_path_tail(const char *path, int names);
int hm_file_size(const char *path, uint64_t *ret_bytes, struct hm_error *err);
int hm_dir_make(const char *path, struct hm_error *err); /* with parents; existing is fine */
int hm_dir_sync(const char *path, struct hm_error *err);
/* recursively; absent is fine; does not follow links */
int hm_dir_remove(const char *path, struct hm_error *err);
int hm_path_rename(const char *from, const char *to, struct hm_error *err); /* fsyncs the parent */
int hm_file_copy(const char *from, const char *to, struct hm_error *err);   /* atomic */
/*
 * The same bytes under another name, atomic: a clone that shares blocks where the file system can,
 * else a second name of the same file (of what a symbolic link points to). *ret_linked is false,
 * and nothing done, where neither is to be had: copy. Nothing of ours writes into a file that has a
 * name; other programs might, and then both names see it.
 */
int hm_file_link(const char *from, const char *to, bool *ret_linked, struct hm_error *err);
int hm_disk_free(const char *path, uint64_t *ret_bytes, struct hm_error *err);

struct hm_names { /* sorted list of owned strings */
    char **item;
    size_t count;
};
/* sorted; none is HM_ERR_USAGE */
int hm_glob(const char *pattern, struct hm_names *ret_names, struct hm_error *err);
/* plain names, sorted */
int hm_dir_list(const char *path, struct hm_names *ret_names, struct hm_error *err);
/* files at any depth, relative, sorted */
int hm_dir_files(const char *path, struct hm_names *ret_names, struct hm_error *err);
void hm_names_release(struct hm_names *names);
/* Whether a folder holds `name`, or (the folder must be readable) a name that ends so. */
int hm_dir_holds(const char *dir, const char *name, bool *ret_found, struct hm_error *err);
int hm_dir_holds_ending(const char *dir, const char *ending, bool *ret_found, struct hm_error *err);

/* Advisory lock on path (created); held by another process is HM_ERR_IO naming its pid. *ret_fd
 * closes with hm_lock_release. */
int hm_lock_acquire(const char *path, int *ret_fd, struct hm_error *err);
void hm_lock_release(int fd);

/* VmHWM of this process, in bytes, mapped pages included; 0 where unknown. */
uint64_t hm_rss_peak_bytes(void);
void hm_rss_peak_reset(void); /* from now on, where the kernel can */
uint64_t hm_rss_bytes(void);
double hm_clock_seconds(void); /* monotonic */

#endif
