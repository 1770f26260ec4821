/* SPDX-License-Identifier: MIT */
/*
 * The documents of one named set: its files in order, read `epochs` times. A .jsonl line is a
 * document (its text field); so is each line of a .txt file. Bad lines are counted against the
 * limit of the options. The last, partial epoch keeps a share of the documents by the hash of their
 * text, so it does not depend on the order of lines.
 */
#include <inttypes.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "internal.h"

#define EPOCH_SEED 0x65706f6368ull /* own stream of hashes: sampling must not depend on epochs */

void hm_set_reader_init(struct set_reader *reader, const struct hm_text_set *set,
                        const struct hm_text_options *options, struct hm_text_stats *stats)
{
    *reader = (struct set_reader){ .set = set, .options = options, .stats = stats };
}

static void file_close(struct set_reader *reader)
{
    if (!reader->is_open)
        return;
    reader->done_bytes += reader->stream.consumed_bytes;
    hm_line_reader_release(&reader->lines);
    hm_byte_stream_close(&reader->stream);
    reader->is_open = false;
}

void hm_set_reader_release(struct set_reader *reader)
{
    file_close(reader);
    *reader = (struct set_reader){ 0 };
}

uint64_t hm_set_reader_position(const struct set_reader *reader)
{
    return reader->done_bytes + (reader->is_open ? reader->stream.consumed_bytes : 0);
}

/* By the name without the ending of its compression. */
static bool is_jsonl(const char *path)
{
    static const char *const ending[] = { ".jsonl", ".jsonl.zst", ".jsonl.gz" };

    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        if (hm_text_ends(path, ending[i]))
            return true;
    return false;
}

static int file_open(struct set_reader *reader, struct hm_error *err)
{
    const char *path = reader->set->file[reader->file];

    HM_TRY(hm_byte_stream_open(path, &reader->stream, err));
    hm_line_reader_init(&reader->lines, &reader->stream);
    reader->is_json = is_jsonl(path);
    reader->is_open = true;
    return HM_OK;
}

/* Count one bad line; beyond the limit its sentence becomes the error. `found` holds the sentence.
 */
static int bad_line(struct set_reader *reader, const struct hm_error *found, struct hm_error *err)
{
    struct hm_text_stats *stats = reader->stats;

    if (stats->bad_lines++ == 0)
        snprintf(stats->first_bad, sizeof(stats->first_bad), "%s", found->text);
    if (stats->bad_lines <= reader->options->max_bad_lines)
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT,
                   "%s; %" PRIu64 " bad lines where max_bad_lines allows %" PRIu64
                   ": mend the file or raise the limit",
                   found->text, stats->bad_lines, reader->options->max_bad_lines);
}

static bool is_blank(struct line_slice line)
{
    size_t at = 0;

    while (at < line.len && (line.ptr[at] == ' ' || line.ptr[at] == '\t' || line.ptr[at] == '\r'))
        at++;
    return at == line.len;
}

/* The text of one line, or a length of 0 when there is none. */
static int line_text(struct set_reader *reader, int state, struct line_slice line,
                     struct hm_str *ret_text, const char **ret_set, struct hm_error *err)
{
    struct hm_error found = { 0 };
    char where[HM_LINE_WHERE_BYTES];
    int status = HM_OK;

    *ret_text = (struct hm_str){ "", 0 };
    if (state == LINE_TOO_LONG) {
        hm_line_where(where, reader->stream.path, reader->lines.line);
        status = hm_fail(&found, HM_ERR_FORMAT, "'%s': the line is longer than %u bytes", where,
                         HM_LINE_MAX_BYTES);
    } else if (line.len == 0 || (reader->is_json && is_blank(line))) {
        return HM_OK;
    } else if (reader->is_json) {
        struct json_line parsed = { 0 };
        status = hm_json_line_parse(line.ptr, line.len, reader->stream.path, reader->lines.line,
                                    reader->options, &parsed, &found);
        if (status == HM_OK) {
            *ret_text = parsed.text;
            *ret_set = parsed.set ? parsed.set : reader->set->name;
        }
    } else {
        size_t offset = 0;
        *ret_text = (struct hm_str){ line.ptr, line.len };
        if (!hm_utf8_valid(*ret_text, &offset)) {
            hm_line_where(where, reader->stream.path, reader->lines.line);
            status = hm_fail(&found, HM_ERR_FORMAT, "'%s': not UTF-8 at byte %zu of the line",
                             where, offset);
        }
        *ret_set = reader->set->name;
    }
    if (status == HM_ERR_NOMEM)
        return hm_error_pass(err, &found);
    if (status < 0) {
        *ret_text = (struct hm_str){ "", 0 };
        return bad_line(reader, &found, err);
    }
    return HM_OK;
}

/* After the last file: begin another epoch, or end. */
static bool epoch_again(struct set_reader *reader)
{
    reader->file = 0;
    reader->epoch++;
    return (double)reader->epoch < reader->set->epochs;
}

/* In the last, partial epoch: does this document belong to its share? */
static bool in_epoch(const struct set_reader *reader, struct hm_str text)
{
    double share = reader->set->epochs - (double)reader->epoch;

    if (share >= 1)
        return true;
    uint64_t hash = hm_hash64(text.ptr, text.len, EPOCH_SEED ^ reader->options->seed);
    return hm_unit_interval(hash) < share;
}

int hm_set_reader_next(struct set_reader *reader, struct hm_str *ret_text, const char **ret_set,
                       struct hm_error *err)
{
    while (reader->file < reader->set->n_files) {
        struct line_slice line = { NULL, 0 };
        if (!reader->is_open)
            HM_TRY(file_open(reader, err));
        int state = hm_line_reader_next(&reader->lines, &line, err);
        if (state < 0)
            return state;
        if (state == LINE_END) {
            file_close(reader);
            if (++reader->file == reader->set->n_files && !epoch_again(reader))
                reader->file = reader->set->n_files;
            continue;
        }
        HM_TRY(line_text(reader, state, line, ret_text, ret_set, err));
        if (ret_text->len > 0 && in_epoch(reader, *ret_text))
            return 1;
    }
    return 0;
}
