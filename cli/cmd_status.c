/* SPDX-License-Identifier: MIT */
/*
 * Verbs that read a run folder: status, verify.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "cli.h"
#include "hanmix/recipes/run.h"

static int status_json(const struct hm_run_status *status, struct hm_error *err)
{
    json_t *stages = json_array();

    for (size_t i = 0; stages && i < status->n_stages; i++) {
        const struct hm_stage_status *stage = &status->stage[i];
        json_t *wall = isnan(stage->wall_seconds) ? json_null() : json_real(stage->wall_seconds);
        (void)json_array_append_new(
            stages,
            json_pack("{s:s, s:s, s:s, s:o, s:I, s:s}", "id", stage->id, "stage", stage->stage,
                      "state", stage->state, "wall_seconds", wall, "peak_rss_bytes",
                      (json_int_t)stage->peak_rss_bytes, "detail", stage->detail));
    }
    return hm_print_json(json_pack("{s:s, s:b, s:o}", "recipe", status->recipe, "busy",
                                   status->busy, "stages", stages),
                         err);
}

static int status_text(const struct hm_run_status *status, struct hm_error *err)
{
    char memory[40];

    printf("recipe %s%s\n", status->recipe, status->busy ? " (running now)" : "");
    for (size_t i = 0; i < status->n_stages; i++) {
        const struct hm_stage_status *stage = &status->stage[i];
        printf("%-12s %-16s %-9s", stage->id, stage->stage, stage->state);
        if (!isnan(stage->wall_seconds))
            printf(" %8.1f s", stage->wall_seconds);
        if (stage->peak_rss_bytes > 0)
            printf("  %s", hm_bytes_text(stage->peak_rss_bytes, memory, sizeof(memory)));
        printf("%s%s\n", stage->detail[0] ? "  " : "", stage->detail);
    }
    return hm_print_flush(err);
}

int hm_cmd_status(int argc, char **argv, struct hm_error *err)
{
    bool as_json = false, quiet = false;
    const struct hm_arg table[] = { { "json", HM_ARG_FLAG, &as_json },
                                    { "quiet", HM_ARG_FLAG, &quiet } };
    struct hm_run_status status = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 1, 1, err));
    HM_TRY(hm_run_status_read(argv[1], &status, err));
    int r = HM_OK;
    if (as_json)
        r = status_json(&status, err);
    else if (!quiet)
        r = status_text(&status, err);
    hm_run_status_release(&status);
    return r;
}

int hm_cmd_verify(int argc, char **argv, struct hm_error *err)
{
    struct hm_terminal terminal = { 0 };
    struct hm_ctl ctl = hm_terminal_ctl(&terminal);
    const struct hm_arg table[] = { { "quiet", HM_ARG_FLAG, &terminal.quiet } };
    struct hm_verify_report report = { 0 };
    size_t words;
    char amount[40];

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 1, 1, err));
    int status = hm_run_verify(argv[1], &ctl, &report, err);
    hm_terminal_close(&terminal);
    if ((status == HM_OK || status == HM_ERR_CHECK) && !terminal.quiet)
        printf("%" PRIu64 " files, %s: %" PRIu64 " differ, %" PRIu64 " missing\n", report.files,
               hm_bytes_text(report.bytes, amount, sizeof(amount)), report.differ, report.missing);
    return status == HM_OK ? hm_print_flush(err) : status;
}
