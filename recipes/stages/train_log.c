/* SPDX-License-Identifier: MIT */
/*
 * Logs of a training stage; see train_log.h. One line of JSON a step, one more per evaluation.
 */
#include "train_log.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "stage_util.h"

#define METRICS_MAX_BYTES (1ull << 32)

const char *hm_train_phase_name(size_t phase)
{
    static const char *const name[HM_PHASE_COUNT + 1] = { "decode", "product", "attention", "lora",
                                                          "head",   "other",   "optimizer" };

    HM_BUG(phase > HM_PHASE_COUNT);
    return name[phase];
}

static double wall_time(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int line_append(const struct train_log *log, const json_t *object, struct hm_error *err)
{
    struct hm_buf line = { 0 };
    int r = hm_json_dump(object, &line, err);

    if (r == HM_OK)
        r = hm_buf_text(&line, "\n", err);
    if (r == HM_OK)
        r = hm_file_append(log->metrics_path, line.ptr, line.len, err);
    hm_buf_release(&line);
    return r;
}

static int step_object(const struct hm_train_metrics *m, json_t *line, struct hm_error *err)
{
    HM_TRY(hm_report_u64(line, "step", m->step, err));
    HM_TRY(hm_report_u64(line, "tokens", m->tokens, err));
    HM_TRY(hm_report_f64(line, "loss", m->loss, err));
    HM_TRY(hm_report_f64(line, "aux", m->aux, err));
    HM_TRY(hm_report_f64(line, "grad_norm", m->grad_norm, err));
    HM_TRY(hm_report_f64(line, "lr", m->lr, err));
    HM_TRY(hm_report_f64(line, "tok_s", m->tokens_per_s, err));
    json_t *phases = hm_report_object(line, "phase_ms", err);
    if (!phases)
        return HM_ERR_NOMEM;
    for (size_t i = 0; i <= HM_PHASE_COUNT; i++)
        HM_TRY(hm_report_f64(phases, hm_train_phase_name(i), round(1e6 * m->phase_seconds[i]) / 1e3,
                             err));
    return hm_report_u64(line, "rss", m->rss_bytes, err);
}

static int on_step(void *context, const struct hm_train_metrics *m, struct hm_error *err)
{
    struct train_log *log = context;
    json_t *line = json_object();
    double now = wall_time();
    char detail[96];

    hm_expert_load_take(log->load, false);
    if (!line)
        return hm_fail_nomem(err, "for a line of metrics");
    int r = step_object(m, line, err);
    if (r == HM_OK)
        r = line_append(log, line, err);
    json_decref(line);
    if (r == HM_OK)
        r = hm_tb_scalar(log->board, "train/loss", m->step, now, m->loss, err);
    if (r == HM_OK)
        r = hm_tb_scalar(log->board, "train/grad_norm", m->step, now, m->grad_norm, err);
    if (r == HM_OK)
        r = hm_tb_scalar(log->board, "train/lr", m->step, now, m->lr, err);
    snprintf(detail, sizeof(detail), "loss %.4f  %.0f tok/s", m->loss, m->tokens_per_s);
    hm_ctl_progress(log->ctl, &(struct hm_progress){ .what = "train",
                                                     .unit = "steps",
                                                     .done = m->step,
                                                     .total = log->steps,
                                                     .detail = detail });
    return r;
}

static int eval_object(uint64_t step, const struct hm_eval_metrics *sets, size_t n, json_t *line,
                       struct hm_error *err)
{
    HM_TRY(hm_report_u64(line, "step", step, err));
    json_t *eval = hm_report_object(line, "eval", err);
    for (size_t i = 0; eval && i < n; i++) {
        json_t *set = hm_report_object(eval, sets[i].set, err);
        if (!set)
            return HM_ERR_NOMEM;
        HM_TRY(hm_report_f64(set, "nats_per_token", sets[i].nats_per_token, err));
        HM_TRY(hm_report_f64(set, "bits_per_byte", sets[i].bits_per_byte, err));
        HM_TRY(hm_report_u64(set, "tokens", sets[i].tokens, err));
        HM_TRY(hm_report_u64(set, "bytes", sets[i].bytes, err));
    }
    return eval ? HM_OK : HM_ERR_NOMEM;
}

static int on_eval(void *context, uint64_t step, const struct hm_eval_metrics *sets, size_t n,
                   struct hm_error *err)
{
    struct train_log *log = context;
    json_t *line = json_object();
    double now = wall_time();

    hm_expert_load_take(log->load, true);
    if (!line)
        return hm_fail_nomem(err, "for a line of metrics");
    int r = eval_object(step, sets, n, line, err);
    if (r == HM_OK)
        r = line_append(log, line, err);
    json_decref(line);
    for (size_t i = 0; r == HM_OK && i < n; i++) {
        char tag[160];
        snprintf(tag, sizeof(tag), "eval/%s/bits_per_byte", sets[i].set);
        r = hm_tb_scalar(log->board, tag, step, now, sets[i].bits_per_byte, err);
        snprintf(tag, sizeof(tag), "eval/%s/nats_per_token", sets[i].set);
        if (r == HM_OK)
            r = hm_tb_scalar(log->board, tag, step, now, sets[i].nats_per_token, err);
        hm_ctl_message(log->ctl, "step %" PRIu64 ": %s %.4f nats/token, %.4f bits/byte", step,
                       sets[i].set, sets[i].nats_per_token, sets[i].bits_per_byte);
    }
    return r;
}

/* Lines of steps up to `step` of the old file, into kept. A torn last line, which a kill leaves, is
 * dropped. */
static int lines_keep(const struct hm_buf *old, uint64_t step, struct hm_buf *kept,
                      struct hm_error *err)
{
    for (size_t at = 0; at < old->len;) {
        const char *end = memchr(old->ptr + at, '\n', old->len - at);
        if (!end)
            break;
        struct hm_str line = { old->ptr + at, (size_t)(end - old->ptr) - at };
        json_t *object = NULL;
        at += line.len + 1;
        if (hm_json_parse(line, "metrics", &object, NULL) < 0)
            continue;
        uint64_t at_step = (uint64_t)json_integer_value(json_object_get(object, "step"));
        bool keep = step > 0 && at_step <= step; /* 0: a fresh start */
        json_decref(object);
        if (keep)
            HM_TRY(hm_buf_append(kept, line.ptr, line.len + 1, err));
    }
    return HM_OK;
}

static int board_reopen(struct train_log *log, uint64_t step, struct hm_error *err)
{
    hm_tb_close(log->board);
    log->board = NULL;
    if (step > 0) {
        HM_TRY(hm_tb_cut(log->board_dir, step, err));
    } else { /* a fresh start */
        HM_TRY(hm_dir_remove(log->board_dir, err));
        HM_TRY(hm_dir_make(log->board_dir, err));
    }
    return hm_tb_open(log->board_dir, &log->board, err);
}

static int on_resume(void *context, uint64_t step, struct hm_error *err)
{
    struct train_log *log = context;
    struct hm_buf old = { 0 };
    struct hm_buf kept = { 0 };
    int r = HM_OK;

    if (hm_path_exists(log->metrics_path)) {
        r = hm_file_read(log->metrics_path, METRICS_MAX_BYTES, &old, err);
        if (r == HM_OK)
            r = lines_keep(&old, step, &kept, err);
        if (r == HM_OK)
            r = hm_file_write(log->metrics_path, kept.ptr ? kept.ptr : "", kept.len, err);
    }
    hm_buf_release(&old);
    hm_buf_release(&kept);
    return r == HM_OK ? board_reopen(log, step, err) : r;
}

int hm_train_log_open(const char *out_dir, uint64_t steps, struct expert_load *load,
                      const struct hm_ctl *ctl, struct train_log *ret_log, struct hm_error *err)
{
    struct train_log log = { .steps = steps, .ctl = ctl, .load = load };

    int r = hm_path_join(&log.metrics_path, out_dir, "metrics.jsonl", err);
    if (r == HM_OK)
        r = hm_path_join(&log.board_dir, out_dir, "tensorboard", err);
    if (r == HM_OK)
        r = hm_dir_make(log.board_dir, err);
    if (r == HM_OK)
        r = hm_tb_open(log.board_dir, &log.board, err);
    if (r < 0) {
        hm_train_log_close(&log);
        return r;
    }
    *ret_log = log;
    return HM_OK;
}

void hm_train_log_close(struct train_log *log)
{
    hm_tb_close(log->board);
    hm_free(log->board_dir);
    hm_free(log->metrics_path);
    *log = (struct train_log){ 0 };
}

struct hm_train_callbacks hm_train_log_callbacks(struct train_log *log)
{
    return (struct hm_train_callbacks){
        .context = log, .on_step = on_step, .on_eval = on_eval, .on_resume = on_resume
    };
}
