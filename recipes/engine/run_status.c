/* SPDX-License-Identifier: MIT */
/*
 * What a run folder tells: the state of every stage, and whether its files are still those of the
 * manifest. Reads only.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "run_internal.h"

static int fail_nomem(struct hm_error *err)
{
    return hm_fail_nomem(err, "while reading a run folder");
}

static int load_manifest(const char *run_dir, json_t **ret_root, struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, run_dir, "manifest.json", err));
    json_t *root = NULL;
    int status =
        hm_path_exists(path)
            ? hm_json_load(path, HM_STAGE_JSON_MAX_BYTES, &root, err)
            : hm_fail(err, HM_ERR_USAGE, "'%s' is no run folder: no manifest.json in it", run_dir);
    if (status == HM_OK && !json_is_array(json_object_get(root, "stages"))) {
        status =
            hm_fail(err, HM_ERR_FORMAT,
                    "'%s' has no list of stages: it is damaged; running the recipe again makes "
                    "it anew",
                    path);
        json_decref(root);
    } else if (status == HM_OK) {
        *ret_root = root;
    }
    hm_free(path);
    return status;
}

/* Somebody holds the lock; asked without taking it. */
static bool is_busy(const char *run_dir)
{
    char *path = NULL;
    bool busy = false;

    if (hm_path_join(&path, run_dir, ".lock", NULL) < 0)
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        busy = flock(fd, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK;
        close(fd);
    }
    hm_free(path);
    return busy;
}

#define METRICS_TAIL_BYTES 4096

/* "step 120 of 400, loss 3.21" from the last whole line of metrics.jsonl, if there is one. */
static int last_metrics(const char *folder, char **ret_text, struct hm_error *err)
{
    char *path = NULL, tail[METRICS_TAIL_BYTES + 1];
    json_t *line = NULL;
    double loss;
    uint64_t step;

    HM_TRY(hm_path_join(&path, folder, "metrics.jsonl", err));
    FILE *stream = fopen(path, "rbe");
    hm_free(path);
    if (!stream)
        return hm_format(ret_text, err, "%s", "");
    if (fseek(stream, -METRICS_TAIL_BYTES, SEEK_END) < 0)
        rewind(stream);
    size_t got = fread(tail, 1, METRICS_TAIL_BYTES, stream);
    fclose(stream);
    while (got > 0 && tail[got - 1] != '\n')
        got--;
    size_t end = got > 0 ? got - 1 : 0, start = end;
    while (start > 0 && tail[start - 1] != '\n')
        start--;
    struct hm_str text = { tail + start, end - start };
    if (text.len > 0 && hm_json_parse(text, "metrics.jsonl", &line, NULL) == HM_OK &&
        hm_json_u64(line, "step", "", &step, NULL) == HM_OK &&
        hm_json_f64(line, "loss", "", &loss, NULL) == HM_OK) {
        json_decref(line);
        return hm_format(ret_text, err, "step %llu, loss %.4f", (unsigned long long)step, loss);
    }
    json_decref(line);
    return hm_format(ret_text, err, "%s", "");
}

/* The state the folders show; what the manifest says counts where they show none. */
static const char *state_of(const json_t *entry, const json_t *final_json, const json_t *partial,
                            bool busy)
{
    const char *recorded = json_string_value(json_object_get(entry, "state"));

    if (partial)
        return busy && recorded && strcmp(recorded, "running") == 0   ? "running"
               : strcmp(hm_stage_json_state(partial), "stopped") == 0 ? "stopped"
                                                                      : "partial";
    if (final_json)
        return hm_stage_json_state(final_json);
    if (recorded && (strcmp(recorded, "failed") == 0 || strcmp(recorded, "stopped") == 0))
        return recorded;
    return busy && recorded && strcmp(recorded, "running") == 0 ? "running" : "waiting";
}

static int read_stage(const char *run_dir, const json_t *entry, bool busy,
                      struct hm_stage_status *status, struct hm_error *err)
{
    const char *id = json_string_value(json_object_get(entry, "id"));
    const char *stage = json_string_value(json_object_get(entry, "stage"));
    const char *why = json_string_value(json_object_get(entry, "error"));
    char *final_dir = NULL, *partial_dir = NULL;

    if (!id || !stage || strchr(id, '/') || id[0] == '.')
        return hm_fail(err, HM_ERR_FORMAT, "'%s/manifest.json': a stage without id or name",
                       run_dir);
    HM_TRY(hm_format(&final_dir, err, "%s/%s", run_dir, id));
    int r = hm_format(&partial_dir, err, "%s.partial", final_dir);
    json_t *final_json = r == HM_OK ? hm_stage_json_load(final_dir) : NULL;
    json_t *partial = r == HM_OK ? hm_stage_json_load(partial_dir) : NULL;
    const json_t *wall = json_object_get(final_json, "wall_seconds");
    const json_t *peak = json_object_get(final_json, "peak_rss_bytes");
    status->id = hm_strdup(HM_MEM_OTHER, id);
    status->stage = hm_strdup(HM_MEM_OTHER, stage);
    status->state = hm_strdup(HM_MEM_OTHER, state_of(entry, final_json, partial, busy));
    status->wall_seconds = json_is_number(wall) && !partial ? json_number_value(wall) : NAN;
    status->peak_rss_bytes = partial ? 0 : (uint64_t)json_integer_value(peak);
    if (r == HM_OK && (!status->id || !status->stage || !status->state))
        r = fail_nomem(err);
    if (r == HM_OK)
        r = last_metrics(partial ? partial_dir : final_dir, &status->detail, err);
    if (r == HM_OK && why && (strcmp(status->state, "failed") == 0 || !status->detail[0])) {
        hm_free(status->detail);
        status->detail = NULL;
        r = hm_format(&status->detail, err, "%s", why);
    }
    json_decref(final_json);
    json_decref(partial);
    hm_free(final_dir);
    hm_free(partial_dir);
    return r;
}

int hm_run_status_read(const char *run_dir, struct hm_run_status *ret_status, struct hm_error *err)
{
    struct hm_run_status status = { 0 };
    json_t *root = NULL;
    const char *recipe;

    HM_TRY(load_manifest(run_dir, &root, err));
    const json_t *stages = json_object_get(root, "stages");
    size_t n = json_array_size(stages);
    recipe = json_string_value(json_object_get(root, "recipe"));
    status.busy = is_busy(run_dir);
    status.recipe = hm_strdup(HM_MEM_OTHER, recipe ? recipe : "");
    status.stage = hm_calloc(HM_MEM_OTHER, n + 1, sizeof(*status.stage));
    int r = status.recipe && status.stage ? HM_OK : fail_nomem(err);
    for (size_t i = 0; r == HM_OK && i < n; i++) {
        status.n_stages = i + 1;
        r = read_stage(run_dir, json_array_get(stages, i), status.busy, &status.stage[i], err);
    }
    json_decref(root);
    if (r < 0)
        hm_run_status_release(&status);
    else
        *ret_status = status;
    return r;
}

void hm_run_status_release(struct hm_run_status *status)
{
    for (size_t i = 0; i < status->n_stages; i++) {
        hm_free(status->stage[i].id);
        hm_free(status->stage[i].stage);
        hm_free(status->stage[i].state);
        hm_free(status->stage[i].detail);
    }
    hm_free(status->stage);
    hm_free(status->recipe);
    *status = (struct hm_run_status){ 0 };
}

/* --- verify --- */

/* What is wrong with a file of the manifest into fault; "" when nothing. */
static int verify_file(const char *run_dir, const json_t *file, const struct hm_ctl *ctl,
                       struct hm_verify_report *report, struct hm_buf *fault, struct hm_error *err)
{
    const char *name = json_string_value(json_object_get(file, "path"));
    const char *digest = json_string_value(json_object_get(file, "sha256"));
    struct hm_digest_cache none = { 0 };
    char hex[HM_SHA256_HEX_BYTES], *path = NULL;
    uint64_t bytes = 0;

    hm_buf_clear(fault);
    if (!name || !digest || name[0] == '/' || strstr(name, ".."))
        return hm_fail(err, HM_ERR_FORMAT, "'%s/manifest.json': a file without path or sha256",
                       run_dir);
    HM_TRY(hm_path_join(&path, run_dir, name, err));
    int status = hm_digest_cache_load(NULL, &none, err);
    report->files++;
    if (status == HM_OK && !hm_path_exists(path)) {
        report->missing++;
        status = hm_buf_printf(fault, err, "'%s' is missing", path);
    } else if (status == HM_OK) {
        status = hm_digest_file(&none, path, ctl, &bytes, hex, err);
        report->bytes += bytes;
        if (status == HM_OK && strcmp(hex, digest) != 0) {
            report->differ++;
            status = hm_buf_printf(fault, err, "'%s' has changed: SHA-256 %s, the manifest says %s",
                                   path, hex, digest);
        }
    }
    hm_digest_cache_release(&none);
    hm_free(path);
    return status;
}

static int verify_stages(const char *run_dir, const json_t *root, const struct hm_ctl *ctl,
                         struct hm_verify_report *report, struct hm_buf *first,
                         struct hm_error *err)
{
    struct hm_buf fault = { 0 };
    size_t i, k;
    json_t *stage, *file;
    int status = HM_OK;

    json_array_foreach(json_object_get(root, "stages"), i, stage)
    {
        json_array_foreach(json_object_get(stage, "files"), k, file)
        {
            status = verify_file(run_dir, file, ctl, report, &fault, err);
            if (status == HM_OK && fault.len > 0) {
                hm_ctl_message(ctl, "%s", fault.ptr);
                if (first->len == 0)
                    status = hm_buf_append(first, fault.ptr, fault.len, err);
            }
            if (status < 0)
                goto out;
        }
    }
out:
    hm_buf_release(&fault);
    return status;
}

int hm_run_verify(const char *run_dir, const struct hm_ctl *ctl,
                  struct hm_verify_report *ret_report, struct hm_error *err)
{
    struct hm_verify_report report = { 0 };
    struct hm_buf first = { 0 };
    json_t *root = NULL;

    HM_TRY(load_manifest(run_dir, &root, err));
    int status = verify_stages(run_dir, root, ctl, &report, &first, err);
    json_decref(root);
    if (status == HM_OK) {
        *ret_report = report;
        if (first.len > 0)
            status = hm_fail(err, HM_ERR_CHECK, "%s", first.ptr);
    }
    hm_buf_release(&first);
    return status;
}
