/* SPDX-License-Identifier: MIT */
/*
 * The journal of a model folder being written: a first line with the digest of the plan, then one
 * line for each whole tensor: "index bytes sha256 note check". Lines are appended once their
 * tensors are synced. Reading stops at the first line that is torn, repeated or foreign: what
 * follows is written again.
 */
#include "write_journal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"

#define JOURNAL_MAX_BYTES (256u << 20)
#define MAGIC             "hanmix-journal-1"

/* The note and the digest may be empty: '-' stands for that. */
static const char *shown(const char *text)
{
    return text[0] ? text : "-";
}

static uint64_t check_of(const struct hm_write_journal *journal, const char *line, size_t len)
{
    return hm_hash64(line, len, hm_hash64(journal->key, strlen(journal->key), 1));
}

/* One line without its newline; false when it is not one of ours. */
static bool read_line(const struct hm_write_journal *journal, const char *line, size_t len,
                      size_t n, size_t *ret_index, struct hm_whole_tensor *ret_tensor)
{
    char copy[HM_WRITE_NOTE_BYTES + 160], sha256[HM_SHA256_HEX_BYTES], note[HM_WRITE_NOTE_BYTES];
    uint64_t index, bytes, check;

    if (len >= sizeof copy)
        return false;
    memcpy(copy, line, len);
    copy[len] = '\0';
    char *last = strrchr(copy, ' ');
    if (!last || sscanf(last + 1, "%16" SCNx64, &check) != 1 ||
        check != check_of(journal, copy, (size_t)(last - copy)))
        return false;
    *last = '\0';
    _Static_assert(HM_WRITE_NOTE_BYTES == 160 && HM_SHA256_HEX_BYTES == 65, "widths below");
    if (sscanf(copy, "%" SCNu64 " %" SCNu64 " %64s %159[^\n]", &index, &bytes, sha256, note) != 4 ||
        index >= n)
        return false;
    *ret_index = (size_t)index;
    *ret_tensor = (struct hm_whole_tensor){ .bytes = bytes };
    if (strcmp(sha256, "-") != 0)
        memcpy(ret_tensor->sha256, sha256, strlen(sha256) + 1);
    if (strcmp(note, "-") != 0)
        memcpy(ret_tensor->note, note, strlen(note) + 1);
    return true;
}

/* Takes what is good; what is kept of the text is returned, 0: nothing. */
static size_t read_lines(const struct hm_write_journal *journal, const struct hm_buf *text,
                         bool *whole, struct hm_whole_tensor *tensor, size_t n)
{
    char first[sizeof MAGIC + HM_SHA256_HEX_BYTES];
    size_t at = (size_t)snprintf(first, sizeof first, "%s %s", MAGIC, journal->key);

    if (text->len <= at || memcmp(text->ptr, first, at) != 0 || text->ptr[at] != '\n')
        return 0;
    at++;
    for (const char *end; (end = memchr(text->ptr + at, '\n', text->len - at));
         at = (size_t)(end - text->ptr) + 1) {
        struct hm_whole_tensor found;
        size_t index;
        if (!read_line(journal, text->ptr + at, (size_t)(end - text->ptr) - at, n, &index,
                       &found) ||
            whole[index])
            break;
        whole[index] = true;
        tensor[index] = found;
    }
    return at;
}

int hm_write_journal_open(const char *dir, const char key[HM_SHA256_HEX_BYTES], bool *whole,
                          struct hm_whole_tensor *tensor, size_t n,
                          struct hm_write_journal *journal, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    size_t kept = 0;

    *journal = (struct hm_write_journal){ .since = hm_clock_seconds() };
    memcpy(journal->key, key, HM_SHA256_HEX_BYTES);
    int status = hm_path_join(&journal->path, dir, HM_WRITE_JOURNAL_FILE, err);
    if (status == HM_OK && hm_path_exists(journal->path))
        status = hm_file_read(journal->path, JOURNAL_MAX_BYTES, &text, err);
    if (status == HM_OK)
        kept = read_lines(journal, &text, whole, tensor, n);
    if (status == HM_OK && kept > 0 && kept < text.len) /* without the torn end */
        status = hm_file_write(journal->path, text.ptr, kept, err);
    journal->begun = kept > 0;
    hm_buf_release(&text);
    if (status < 0)
        hm_write_journal_release(journal);
    return status;
}

int hm_write_journal_add(struct hm_write_journal *journal, size_t i,
                         const struct hm_whole_tensor *tensor, struct hm_error *err)
{
    char line[HM_WRITE_NOTE_BYTES + 160];
    int len = snprintf(line, sizeof line, "%zu %" PRIu64 " %s %s", i, tensor->bytes,
                       shown(tensor->sha256), shown(tensor->note));

    journal->waiting_bytes += tensor->bytes;
    return hm_buf_printf(&journal->waiting, err, "%s %016" PRIx64 "\n", line,
                         check_of(journal, line, (size_t)len));
}

int hm_write_journal_flush(struct hm_write_journal *journal, struct hm_error *err)
{
    char first[sizeof MAGIC + HM_SHA256_HEX_BYTES + 1];

    if (!journal->begun) {
        int len = snprintf(first, sizeof first, "%s %s\n", MAGIC, journal->key);
        HM_TRY(hm_file_write(journal->path, first, (size_t)len, err));
        journal->begun = true;
    }
    if (journal->waiting.len > 0)
        HM_TRY(hm_file_append(journal->path, journal->waiting.ptr, journal->waiting.len, err));
    hm_buf_clear(&journal->waiting);
    journal->waiting_bytes = 0;
    journal->since = hm_clock_seconds();
    return HM_OK;
}

void hm_write_journal_remove(struct hm_write_journal *journal)
{
    if (journal->path)
        (void)remove(journal->path);
    journal->begun = false;
}

void hm_write_journal_release(struct hm_write_journal *journal)
{
    hm_buf_release(&journal->waiting);
    hm_free(journal->path);
    *journal = (struct hm_write_journal){ 0 };
}
