/* SPDX-License-Identifier: MIT */
/*
 * Counted text into Han runs; see counted_text.h. Files are read as lines of text by
 * corpus/text_files.c; the cut into runs is the one of documents, each run with its line's count.
 */
#include "counted_text.h"

#include <inttypes.h>
#include <string.h>

#include "hanmix/corpus/text_files.h"

#define COUNT_MAX   ((uint64_t)1 << 48) /* of one line */
#define BYTES_MAX   ((uint64_t)1 << 62) /* of all lines, as often as they count */
#define TELL_EVERY  4096u               /* lines between two reports of progress */
#define SHOWN_BYTES 60u

struct reading {
    const struct hm_stage_run *run;
    const struct stage_text *text;
    struct hm_han_counts *counts;
    uint64_t lines, bad_lines, bytes; /* bytes of text, as often as it counts */
    struct hm_error first_bad;
};

/* How many bytes of a line a message shows: whole characters. */
static int shown(struct hm_str line)
{
    size_t n = line.len < SHOWN_BYTES ? line.len : SHOWN_BYTES;

    while (n > 0 && n < line.len && (line.ptr[n] & 0xc0) == 0x80)
        n--;
    return (int)n;
}

/* Text and count of a line; HM_ERR_FORMAT says what is wrong with it. */
static int line_parse(const char *path, struct hm_str line, struct hm_str *ret_text,
                      uint64_t *ret_count, struct hm_error *err)
{
    const char *tab = memchr(line.ptr, '\t', line.len);
    size_t text_len = tab ? (size_t)(tab - line.ptr) : 0;
    uint64_t count = 0;

    for (size_t i = text_len + 1; tab && i < line.len; i++) {
        if (line.ptr[i] < '0' || line.ptr[i] > '9' || count > COUNT_MAX) {
            count = 0;
            break;
        }
        count = 10 * count + (uint64_t)(line.ptr[i] - '0');
    }
    if (text_len == 0 || count == 0 || count > COUNT_MAX)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the line '%.*s' must be text, one tab and a count from 1 to %" PRIu64,
                       path, shown(line), line.ptr, COUNT_MAX);
    *ret_text = (struct hm_str){ line.ptr, text_len };
    *ret_count = count;
    return HM_OK;
}

static int line_count(struct reading *reading, struct hm_str text, uint64_t count,
                      struct hm_error *err)
{
    uint64_t bytes = 0;
    size_t first = 0;

    if (__builtin_mul_overflow(text.len, count, &bytes) || reading->bytes + bytes > BYTES_MAX)
        return hm_fail(err, HM_ERR_FORMAT,
                       "counted text is more than %" PRIu64 " bytes in all: are the counts right?",
                       BYTES_MAX);
    reading->bytes += bytes;
    reading->lines++;
    for (size_t at = 0; at <= text.len;) {
        uint32_t code = 0;
        unsigned len = at < text.len ? hm_utf8_decode(text.ptr + at, text.len - at, &code) : 1;
        bool han = at < text.len && hm_han_counts_takes(reading->counts, code);
        if (!han && at > first)
            HM_TRY(hm_han_counts_add_run(
                reading->counts, (struct hm_str){ text.ptr + first, at - first }, count, err));
        at += len;
        if (!han)
            first = at;
    }
    return HM_OK;
}

static int line_take(struct reading *reading, const char *path, uint64_t other_bad_lines,
                     struct hm_str line, struct hm_error *err)
{
    struct hm_error found = { 0 };
    struct hm_str text = { 0 };
    uint64_t count = 0;

    if (line_parse(path, line, &text, &count, &found) == HM_OK)
        return line_count(reading, text, count, err);
    if (reading->bad_lines++ == 0)
        reading->first_bad = found;
    uint64_t bad_lines = reading->bad_lines + other_bad_lines;
    if (bad_lines <= reading->text->max_bad_lines)
        return HM_OK;
    return hm_fail(err, HM_ERR_FORMAT,
                   "%s; %" PRIu64 " bad lines where max_bad_lines allows %" PRIu64
                   ": mend the file or raise the limit",
                   found.text, bad_lines, reading->text->max_bad_lines);
}

static int lines_read(struct reading *reading, const char *path, struct hm_text_source *source,
                      struct hm_error *err)
{
    struct hm_doc doc;
    int more;

    while ((more = source->next(source->context, &doc, err)) > 0) {
        uint64_t other = hm_text_files_stats(source).bad_lines;
        HM_TRY(line_take(reading, path, other, doc.text, err));
        if (doc.number % TELL_EVERY != 0)
            continue;
        if (hm_ctl_stopped(reading->run->ctl))
            return hm_fail(err, HM_ERR_STOPPED, "reading text was stopped");
        hm_text_progress(reading->run->ctl, "count runs", source);
    }
    return more;
}

static int file_read(struct reading *reading, char *path, struct hm_error *err)
{
    struct hm_text_set set = {
        .name = (char *)(uintptr_t) "text", .file = &path, .n_files = 1, .epochs = 1
    };
    struct hm_text_options options = { .max_bad_lines = reading->text->max_bad_lines };
    struct hm_text_source source = { 0 };

    HM_TRY(hm_text_files_open(&set, 1, &options, &source, err));
    int r = lines_read(reading, path, &source, err);
    struct hm_text_stats stats = hm_text_files_stats(&source);
    if (reading->bad_lines == 0 && stats.bad_lines > 0)
        hm_fail(&reading->first_bad, HM_ERR_FORMAT, "%s", stats.first_bad);
    reading->bad_lines += stats.bad_lines;
    source.close(source.context);
    return r;
}

static int report_fill(const struct reading *reading, struct hm_error *err)
{
    json_t *object = hm_report_object(reading->run->report, "counted_text", err);

    if (!object)
        return HM_ERR_NOMEM;
    HM_TRY(hm_report_u64(object, "lines", reading->lines, err));
    HM_TRY(hm_report_u64(object, "bytes", reading->bytes, err));
    HM_TRY(hm_report_u64(object, "bad_lines", reading->bad_lines, err));
    if (reading->bad_lines == 0)
        return HM_OK;
    hm_ctl_message(reading->run->ctl, "%" PRIu64 " bad lines were passed over; the first: %s",
                   reading->bad_lines, reading->first_bad.text);
    return hm_report_text(object, "first_bad_line", reading->first_bad.text, err);
}

int hm_stage_counted_add(const struct hm_stage_run *run, const char *name,
                         const struct stage_text *text, struct hm_han_counts *counts,
                         struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, name);
    struct reading reading = { .run = run, .text = text, .counts = counts };
    bool any = false;

    for (size_t i = 0; input && i < input->n_sets; i++) {
        for (size_t f = 0; f < input->set[i].n_paths; f++) {
            char *path = input->set[i].path[f];
            if (!hm_stage_is_counted(path))
                continue;
            if (text->sample_bytes > 0 || text->dedup)
                return hm_fail(err, HM_ERR_USAGE,
                               "set.%s: '%s' is counted text, which has no documents to choose "
                               "from; sample before counting",
                               text->dedup ? "dedup" : "sample_bytes", path);
            any = true;
            HM_TRY(file_read(&reading, path, err));
        }
    }
    return any ? report_fill(&reading, err) : (int)HM_OK;
}
