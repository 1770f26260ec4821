/* SPDX-License-Identifier: MIT */
/*
 * Counting and training for stages; see stage_vocab.h.
 */
#include "stage_vocab.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "counted_text.h"
#include "hanmix/base/cpu.h"
#include "hanmix/base/parallel.h"
#include "hanmix/corpus/text_files.h"

/* Measured on 2 to 20 MB of encyclopedia text; runs that repeat take less. */
#define FIXED_BYTES         (24ull << 20)
#define BYTES_PER_TEXT_BYTE 4
#define PIECE_BYTES         256
#define COMMON_SINGLES      1500u         /* of which nearly all of a text is made */
#define PAIR_BYTES          200           /* of training, its tables' growth included */
#define SPILL_PER_TEXT_BYTE 2u            /* never seen above 1.5 */
#define PROGRAM_BYTES       (19ull << 20) /* the program, its libraries and what grows in them */
#define COUNT_BUFFER_BYTES  (24ull << 20) /* lists of runs and pairs on their way */
#define HELD_LEAST_BYTES    (1ull << 20)
#define DOCUMENT_BYTES      512u /* of text; most are longer */

const char *const hm_stage_scripts[] = { "han", "han-marks", NULL }; /* as the enum */

bool hm_stage_is_count(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789.eE+")] == '\0';
}

/* Text that is read, at most STAGE_TEXT_BYTES: two batches, and what reading takes. */
static uint64_t reading_bytes(uint64_t text_bytes)
{
    return hm_least(STAGE_TEXT_BYTES, (6ull << 20) + text_bytes);
}

/* What counting and training may take of set.memory: the rest is the program's, the text's and
 * what dedup may take. */
static uint64_t own_bytes(const struct hm_stage_run *run, const struct stage_text *text)
{
    uint64_t bytes = STAGE_TEXT_BYTES;
    uint64_t dedup = text->dedup ? run->memory_bytes / HM_DEDUP_SHARE : 0;

    if (run->memory_bytes == 0)
        return hm_memory_limit_bytes();
    (void)hm_stage_text_bytes(run, "text", &bytes, NULL); /* else as for much text */
    uint64_t fixed = PROGRAM_BYTES + reading_bytes(bytes) + dedup;
    return run->memory_bytes > fixed ? run->memory_bytes - fixed : 1;
}

/* What dedup takes of documents as long as usual. */
static uint64_t dedup_bytes(const struct hm_stage_run *run, uint64_t text_bytes)
{
    uint64_t whole = run->memory_bytes ? run->memory_bytes : hm_memory_limit_bytes();

    return hm_least(hm_text_dedup_bytes(text_bytes / DOCUMENT_BYTES), whole / HM_DEDUP_SHARE);
}

/* Runs that may be held: beside them are the buffers, and pairs that take as much. */
static uint64_t held_bytes(uint64_t limit)
{
    return limit > COUNT_BUFFER_BYTES + 2 * HELD_LEAST_BYTES ? (limit - COUNT_BUFFER_BYTES) / 2
                                                             : HELD_LEAST_BYTES;
}

/* A full disk: how much is needed, and where. */
static int error_tell(const struct hm_stage_run *run, int status, const struct hm_error *why,
                      struct hm_error *err)
{
    uint64_t bytes = 0;

    if (status != HM_ERR_IO || !strstr(why->text, strerror(ENOSPC)) ||
        hm_stage_text_bytes(run, "text", &bytes, NULL) < 0)
        return status < 0 ? hm_error_pass(err, why) : status;
    return hm_fail(err, HM_ERR_IO,
                   "%s; scratch files take up to %" PRIu64
                   " bytes there: make room and run the same command again",
                   why->text, SPILL_PER_TEXT_BYTE * bytes);
}

static int text_count(const struct hm_stage_run *run, const struct stage_text *text,
                      struct hm_han_counts *counts, struct hm_error *err)
{
    struct hm_text_source source = { 0 };

    HM_TRY(hm_stage_text_open(run, "text", text, &source, err));
    int r = hm_stage_counted_add(run, "text", text, counts, err);
    if (r == HM_OK)
        r = hm_han_counts_read(counts, &source, run->ctl, err);
    if (r == HM_OK)
        r = hm_stage_text_report(run, &source, err);
    source.close(source.context);
    if (r == HM_OK)
        r = hm_han_counts_end(counts, run->report, err);
    return r;
}

int hm_stage_runs_count(const struct hm_stage_run *run, const struct stage_text *text,
                        struct hm_han_counts *counts, struct hm_error *err)
{
    uint64_t limit = own_bytes(run, text);
    struct hm_han_spill_options options = { .dir = run->out_dir,
                                            .key = run->config_digest ? run->config_digest : "",
                                            .hold_bytes = held_bytes(limit) };
    json_t *note = NULL;
    bool resumed = false, left = false;

    if (run->memory_bytes)
        hm_han_counts_limit(counts, limit);
    HM_TRY(hm_han_counts_spill(counts, &options, err));
    HM_TRY(hm_dir_holds_ending(run->out_dir, ".runs", &left, err));
    HM_TRY(hm_han_counts_resume(counts, &resumed, &note, err));
    if (!resumed && left)
        hm_ctl_message(run->ctl, "%s: the text was not counted to its end, which starts over",
                       run->id);
    if (!resumed) {
        struct hm_error why = { 0 };
        int r = text_count(run, text, counts, &why);
        return error_tell(run, r, &why, err);
    }
    hm_ctl_message(run->ctl, "%s: continues with the text that was counted before", run->id);
    int failed = note ? json_object_update(run->report, note) : 0;
    json_decref(note);
    return failed ? hm_fail_nomem(err, "for the report") : HM_OK;
}

/* Training; when memory does not suffice beside the runs held, once more without them. */
static int train_within(const struct hm_stage_run *run, struct hm_han_counts *counts,
                        const struct hm_bpe_options *options, struct hm_bpe_result *trained,
                        struct hm_error *err)
{
    struct hm_error why = { 0 };
    bool unloaded = false;
    int r = hm_bpe_train(counts, options, run->ctl, trained, &why);

    if (r == HM_ERR_NOFIT) {
        struct hm_error none = { 0 };
        int left = hm_han_counts_unload(counts, run->report, &unloaded, &none);
        if (left < 0)
            return error_tell(run, left, &none, err);
    }
    if (unloaded)
        r = hm_bpe_train(counts, options, run->ctl, trained, &why);
    return error_tell(run, r, &why, err);
}

int hm_stage_train(const struct hm_stage_run *run, const struct stage_text *text,
                   struct hm_han_counts *counts, uint64_t merges, uint32_t max_piece_chars,
                   int (*choose)(void *context, const struct hm_bpe_result *trained,
                                 struct hm_error *err),
                   void *context, struct hm_bpe_result *trained, struct hm_error *err)
{
    struct hm_bpe_options options = { .merges = (size_t)merges,
                                      .max_piece_chars = max_piece_chars,
                                      .memory_bytes = run->memory_bytes ? own_bytes(run, text) : 0,
                                      .allow_fewer = true };

    for (;;) {
        HM_TRY(train_within(run, counts, &options, trained, err));
        int r = choose(context, trained, err);
        if (r != HM_ERR_FORMAT || trained->n_merges < options.merges)
            return r;
        hm_bpe_result_release(trained);
        options.merges *= 2;
    }
}

int hm_stage_spill_report(const struct hm_stage_run *run, const struct hm_han_counts *counts,
                          struct hm_error *err)
{
    struct hm_han_spilled spilled = hm_han_counts_spilled(counts);

    if (spilled.passes == 0 || !run->stage_info)
        return HM_OK;
    HM_TRY(hm_report_u64(run->stage_info, "spilled_bytes", spilled.spilled_bytes, err));
    HM_TRY(hm_report_u64(run->stage_info, "partitions", spilled.partitions, err));
    return hm_report_u64(run->stage_info, "passes", spilled.passes, err);
}

void hm_stage_spill_leave(const struct hm_stage_run *run, int status)
{
    bool later = status == HM_ERR_STOPPED || status == HM_ERR_IO || status == HM_ERR_NOFIT ||
                 status == HM_ERR_NOMEM;

    if (!later || !hm_han_spill_whole(run->out_dir))
        (void)hm_han_spill_remove(run->out_dir, NULL);
}

/*
 * The least that counting and training do with. Counting: buffers and counts of pairs, which grow
 * more slowly than the text. Training: characters left after rare pairs are cut, with a quarter of
 * their places; pairs alive, of which there are more for each piece where more is merged than text
 * of that size repeats. Measured on 0.2 to 176 MB with 2,000 to 150,000 pieces.
 */
static uint64_t least_bytes(uint64_t text_bytes, uint64_t pieces)
{
    double size = fmax((double)text_bytes / 1e6, 0.01);
    double n = (double)pieces;
    double counting = 10 * (1 << 20) * pow(size, 0.4);
    double kept = 1.1 * pow(n / 20000, 0.4) * pow(size / 2, -0.18);
    double slots = 0.28 * (double)text_bytes * fmin(kept, 1);
    double pairs = fmin(n * fmin(fmax(4.5, pow(n / size, 2) / 2.5e6), 14), slots / 2);
    double training = 3 * slots + PAIR_BYTES * pairs + PIECE_BYTES * n;

    return (12u << 20) + (uint64_t)fmax(counting, training);
}

static int fail_least(const struct hm_stage_run *run, bool dedup, uint64_t enough,
                      uint64_t text_bytes, uint64_t pieces, struct hm_error *err)
{
    uint64_t whole = enough + PROGRAM_BYTES + reading_bytes(text_bytes);

    if (dedup)
        whole = whole / (HM_DEDUP_SHARE - 1) * HM_DEDUP_SHARE;
    return hm_fail(err, HM_ERR_NOFIT,
                   "%s.set.memory: %.1f MiB are too little for %" PRIu64 " pieces from %.1f MB of "
                   "text; set.memory=%" PRIu64 "M will do",
                   run->id, (double)run->memory_bytes / 1048576.0, pieces, (double)text_bytes / 1e6,
                   (whole >> 20) + 1);
}

/* Pieces of several characters that in.base has of Chinese; 0 while there is none to look at. */
static int base_merges(const struct hm_stage_run *run, uint64_t *ret_count, struct hm_error *err)
{
    const struct hm_input_value *input = hm_stage_input(run, "base");
    struct hm_spm_model base = { 0 };
    const char *path = NULL;
    uint32_t code = 0;

    *ret_count = 0;
    if (!input || input->n_sets == 0 || input->set[0].pending)
        return HM_OK;
    HM_TRY(hm_stage_path(run, "base", &path, err));
    HM_TRY(hm_spm_model_load(path, &base, err));
    for (size_t i = 0; i < base.count; i++) {
        struct hm_str text = base.piece[i].text;
        unsigned len = hm_utf8_decode(text.ptr, text.len, &code);
        *ret_count += len > 0 && len < text.len && hm_is_ideograph(code);
    }
    hm_spm_model_release(&base);
    return HM_OK;
}

/*
 * Merges that training comes to where it has to go on: those of the base do not count, and of few
 * characters there are few merges (of the 100 most frequent the 900th is some 30,000th of all). No
 * text has more than one for two characters.
 */
static uint64_t trained_merges(uint64_t text_bytes, uint64_t pieces, uint64_t n_singles,
                               uint64_t of_base)
{
    double n = (double)pieces;

    if (of_base > pieces / 16)
        n = 2 * (n + (double)of_base);
    if (n_singles > 0 && n_singles < COMMON_SINGLES)
        n *= pow((double)COMMON_SINGLES / (double)n_singles, 1.5);
    n = fmin(n, (double)text_bytes / 6);
    return n > (double)pieces ? (uint64_t)n : pieces;
}

int hm_stage_train_plan(const struct hm_stage_run *run, const struct stage_text *text,
                        uint64_t pieces, uint64_t n_singles, struct hm_stage_plan *ret_plan,
                        struct hm_error *err)
{
    uint64_t bytes = 0, of_base = 0;

    HM_TRY(hm_stage_input_bytes(run, "text", &ret_plan->read_bytes, err));
    HM_TRY(hm_stage_text_bytes(run, "text", &bytes, err));
    HM_TRY(hm_stage_plan_memory(ret_plan, "text", reading_bytes(bytes), err));
    HM_TRY(hm_stage_plan_long(run, "text", STAGE_LONG_TEXT_TIMES, ret_plan, err));
    if (text->dedup)
        HM_TRY(hm_stage_plan_memory(ret_plan, "dedup", dedup_bytes(run, bytes), err));
    if (text->sample_bytes > 0 && bytes > text->sample_bytes)
        bytes = text->sample_bytes;
    uint64_t least = least_bytes(bytes, pieces);
    uint64_t held = FIXED_BYTES + BYTES_PER_TEXT_BYTE * bytes + pieces * PIECE_BYTES;
    uint64_t limit = own_bytes(run, text);
    HM_TRY(base_merges(run, &of_base, err));
    uint64_t most = least_bytes(bytes, trained_merges(bytes, pieces, n_singles, of_base));
    if (run->memory_bytes && limit < least)
        return fail_least(run, text->dedup, most, bytes, pieces, err);
    if (held < most)
        held = most;
    if (held > limit) { /* what does not fit goes to the disk: runs, and their parts beside them */
        held = limit > least ? limit : least;
        ret_plan->disk_bytes += SPILL_PER_TEXT_BYTE * bytes;
    }
    return hm_stage_plan_memory(ret_plan, "vocabulary", held, err);
}

int hm_stage_after_train_plan(const struct hm_stage_run *run, const struct stage_text *text,
                              const char *purpose, uint64_t bytes, struct hm_stage_plan *plan,
                              struct hm_error *err)
{
    uint64_t held = plan->memory[plan->n_memory - 1].bytes;
    uint64_t limit = own_bytes(run, text);

    if (run->memory_bytes && bytes > limit)
        return hm_fail(err, HM_ERR_NOFIT,
                       "%s.set.memory: %.1f MiB are too little for %s of %.1f MiB; "
                       "set.memory=%" PRIu64 "M will do",
                       run->id, (double)run->memory_bytes / 1048576.0, purpose,
                       (double)bytes / 1048576.0, ((run->memory_bytes + bytes - limit) >> 20) + 1);
    return bytes > held ? hm_stage_plan_memory(plan, purpose, bytes - held, err) : HM_OK;
}
