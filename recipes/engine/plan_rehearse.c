/* SPDX-License-Identifier: MIT */
/*
 * Predictions by rehearsal: a stage runs for the clock in a scratch folder, on a part of its text
 * that grows while there is time, and what the growth took is carried on to the whole. What such a
 * run says, writes and refuses concerns nobody; a stage that refuses a small part may take a larger
 * one.
 */
#include <math.h>
#include <stdio.h>

#include "hanmix/corpus/text_files.h"
#include "run_internal.h"

#define PART_BYTES  (64ull << 10) /* of text, the first time */
#define PART_GROWTH 4
#define PART_MOST   (1ull << 30)

struct part { /* of the text: what it was and took */
    double share, seconds;
};

static int part_run(const struct hm_stage *stage, const struct hm_stage_run *run, uint64_t bytes,
                    double deadline, struct part *ret_part, struct hm_error *err)
{
    const struct hm_ctl quiet = { .stop = run->ctl ? run->ctl->stop : NULL,
                                  .deadline_seconds = deadline };
    struct hm_text_bound bound = { .bytes = bytes, .share = 1 };
    struct hm_stage_run part = *run;

    part.ctl = &quiet;
    part.text_bound = &bound;
    part.report = json_object();
    part.stage_info = json_object();
    HM_TRY(hm_dir_remove(run->out_dir, err));
    HM_TRY(hm_dir_make(run->out_dir, err));
    double start = hm_clock_seconds();
    int status = part.report && part.stage_info ? stage->run(&part, err)
                                                : hm_fail_nomem(err, "for a report");
    double took = hm_clock_seconds() - start - bound.seconds;
    json_decref(part.report);
    json_decref(part.stage_info);
    if (status < 0 && status != HM_ERR_CHECK)
        return status;
    *ret_part = (struct part){ bound.share, fmax(took, 0) };
    return HM_OK;
}

static void predict(const struct part *before, const struct part *last,
                    struct hm_stage_bench *bench)
{
    double rate = last->seconds / last->share;

    if (before->share > 0 && last->share > before->share)
        rate = fmax(last->seconds - before->seconds, 0) / (last->share - before->share);
    hm_stage_bench_add(bench, "run", last->seconds + rate * (1 - last->share), 1);
    if (last->share < 1)
        snprintf(bench->how, sizeof(bench->how), "%.2g %% of its text", 100 * last->share);
    else
        snprintf(bench->how, sizeof(bench->how), "run once");
}

int hm_stage_rehearse(const struct hm_stage *stage, const struct hm_stage_run *run, double seconds,
                      struct hm_stage_bench *ret_bench, struct hm_error *err)
{
    const double ends = hm_clock_seconds() + seconds;
    struct part before = { 0 }, last = { 0 };

    for (uint64_t bytes = PART_BYTES; bytes <= PART_MOST; bytes *= PART_GROWTH) {
        struct part part = { 0 };
        double start = hm_clock_seconds();
        int status = part_run(stage, run, bytes, ends, &part, NULL);
        double took = hm_clock_seconds() - start;
        if (hm_ctl_stopped(run->ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped while timing");
        if (status == HM_OK && part.share > 0) {
            before = last;
            last = part;
        }
        if (status == HM_ERR_STOPPED || status == HM_ERR_NOMEM || last.share >= 1 ||
            hm_clock_seconds() + PART_GROWTH * took > ends)
            break;
    }
    if (last.share > 0)
        predict(&before, &last, ret_bench);
    return HM_OK;
}
