/* SPDX-License-Identifier: MIT */
/*
 * Quantising and merging of whole model folders by the program, beside the disk they run on:
 * convert --program HANMIX --dir FOLDER [--layers 2,4,7] [--rank 8] [--threads N]. For each size a
 * bf16 model of Mixtral's layers is made in FOLDER, rates of the disk are taken past the page cache
 * (reading, writing, each of both at the same time), then the stages run as processes of their own
 * on a cold cache; all is removed again. One CSV row a stage: seconds of the stage and of the
 * command (with the digest of the inputs), MB of source a second, its ratio to the slower of
 * reading and writing and to both at once, peak memory of the process, what the stage planned, and
 * what the command read from the disk as a share of the source.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/direct.h"
#include "hanmix/base/file.h"
#include "hanmix/base/json.h"
#include "hanmix/base/parallel.h"
#include "hanmix/base/rng.h"
#include "hanmix/base/str.h"
#include "hanmix/checkpoint/synthetic.h"
#include "hanmix/model/adapter.h"

#define PROBE_BYTES (2ull << 30)
#define VOCAB       8000

extern char **environ;

struct settings {
    const char *program, *dir, *layers, *stages;
    uint64_t rank, threads;
};

struct place { /* what lies in the folder for one size */
    char *model, *adapter, *out;
    uint64_t source_bytes;
    double read_mb_s, write_mb_s, both_mb_s; /* both: of each, at the same time */
};

static int arguments(int argc, char **argv, struct settings *settings, struct hm_error *err)
{
    const struct bench_option option[] = {
        { "--program", .text = &settings->program }, { "--dir", .text = &settings->dir },
        { "--layers", .text = &settings->layers },   { "--stages", .text = &settings->stages },
        { "--rank", .count = &settings->rank },      { "--threads", .count = &settings->threads },
    };

    HM_TRY(bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, err));
    if (!settings->program || !settings->dir)
        return hm_fail(err, HM_ERR_USAGE,
                       "usage: convert --program HANMIX --dir FOLDER [--layers 2,4,7] "
                       "[--stages quantize,merge] [--rank 8] [--threads N]");
    return HM_OK;
}

/* --- what is converted --- */

static int make_adapter(const struct place *place, uint32_t rank, struct hm_error *err)
{
    static char all[] = "all-linear";
    char *target[] = { all };
    struct hm_adapter_config config = {
        .rank = rank, .alpha = 2.0 * rank, .target = target, .n_targets = 1, .seed = 1
    };
    struct hm_checkpoint ckpt = { 0 };
    struct hm_adapter *adapter = NULL;

    HM_TRY(hm_checkpoint_open(place->model, &ckpt, err));
    int status = hm_adapter_new(&ckpt, &config, false, &adapter, err);
    for (size_t p = 0; status == HM_OK && p < adapter->n_params; p++) { /* B begins at zero */
        struct hm_param *param = &adapter->param[p];
        struct hm_rng_key key = { 2, p };
        for (size_t i = 0; param->kind == HM_PARAM_LORA_B && i < hm_param_values(param); i++)
            param->value[i] = 0.01F * (float)(hm_rng_uniform(key, i) - 0.5);
    }
    if (status == HM_OK)
        status = hm_adapter_save(adapter, &ckpt, place->model, place->adapter, err);
    hm_adapter_free(adapter);
    hm_checkpoint_close(&ckpt);
    return status;
}

/* Every file of the folder out of the page cache. */
static int make_cold(const char *dir, uint64_t *ret_bytes, char **ret_largest, struct hm_error *err)
{
    struct hm_names names = { 0 };
    uint64_t largest = 0;
    int status = hm_dir_list(dir, &names, err);

    *ret_bytes = 0;
    for (size_t i = 0; i < names.count && status == HM_OK; i++) {
        uint64_t bytes = 0;
        char *path = NULL;
        status = hm_path_join(&path, dir, names.item[i], err);
        int fd = status == HM_OK ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0) {
            (void)fdatasync(fd);
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            close(fd);
            status = hm_file_size(path, &bytes, err);
        }
        *ret_bytes += bytes;
        if (ret_largest && bytes > largest) {
            largest = bytes;
            hm_free(*ret_largest);
            *ret_largest = path;
            path = NULL;
        }
        hm_free(path);
    }
    hm_names_release(&names);
    return status;
}

/* --- the disk --- */

static int read_probe(const char *path, struct hm_error *err)
{
    struct hm_reader *reader = NULL;
    uint64_t size = 0, done = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return hm_fail(err, HM_ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int status = hm_file_size(path, &size, err);
    size = size < PROBE_BYTES ? size : PROBE_BYTES;
    const struct hm_read_range range = { fd, path, 0, size, HM_DIRECT_BYTES };
    if (status == HM_OK)
        status = hm_reader_new(&range, 1, &reader, err);
    while (status == HM_OK && done < size) {
        const uint8_t *piece;
        size_t len = 0;
        status = hm_reader_next(reader, &piece, &len, err);
        done += len;
    }
    hm_reader_free(reader);
    close(fd);
    return status;
}

static int write_probe(const char *path, struct hm_error *err)
{
    struct hm_writer *writer = NULL;
    uint8_t *block = hm_calloc(HM_MEM_OTHER, 1, HM_DIRECT_BYTES);
    int status = block ? hm_writer_open(path, HM_DIRECT_BYTES, &writer, err)
                       : hm_fail_nomem(err, "to write");

    for (uint64_t at = 0; status == HM_OK && at < PROBE_BYTES; at += HM_DIRECT_BYTES)
        status = hm_writer_put(writer, at, block, HM_DIRECT_BYTES, err);
    if (status == HM_OK)
        status = hm_writer_sync(writer, err);
    hm_writer_close(writer);
    hm_free(block);
    return status;
}

struct probe_job {
    const char *path;
    int status;
};

static void *write_beside(void *context)
{
    struct probe_job *job = context;

    job->status = write_probe(job->path, NULL);
    return NULL;
}

/* Reading, writing, and both at once, each PROBE_BYTES. */
static int probe(const char *from, const char *to, struct place *place, struct hm_error *err)
{
    const double mb = (double)PROBE_BYTES / 1e6;
    struct probe_job job = { .path = to };
    pthread_t thread;
    double start = hm_clock_seconds();

    HM_TRY(read_probe(from, err));
    place->read_mb_s = mb / (hm_clock_seconds() - start);
    start = hm_clock_seconds();
    int status = write_probe(to, err);
    place->write_mb_s = mb / (hm_clock_seconds() - start);
    start = hm_clock_seconds();
    if (status == HM_OK && pthread_create(&thread, NULL, write_beside, &job) != 0)
        status = hm_fail_nomem(err, "for a thread");
    if (status == HM_OK) {
        status = read_probe(from, err);
        pthread_join(thread, NULL);
    }
    place->both_mb_s = mb / (hm_clock_seconds() - start);
    if (status == HM_OK && job.status < 0)
        status = hm_fail(err, job.status, "cannot write '%s'", to);
    (void)remove(to);
    return status;
}

static int make_place(const struct settings *settings, uint32_t layers, struct place *place,
                      struct hm_error *err)
{
    struct hm_arch arch;
    char *file = NULL, *largest = NULL;

    HM_TRY(hm_dir_make(settings->dir, err));
    HM_TRY(hm_path_join(&place->model, settings->dir, "model", err));
    HM_TRY(hm_path_join(&place->adapter, settings->dir, "adapter", err));
    HM_TRY(hm_path_join(&place->out, settings->dir, "out", err));
    HM_TRY(bench_preset("mixtral-8x7b", &arch, err));
    arch.layers = layers;
    arch.vocab_size = VOCAB;
    arch.quant = (struct hm_quant_config){ 0 };
    HM_TRY(hm_synthetic_make(place->model, &arch, 1, NULL, err));
    HM_TRY(make_adapter(place, (uint32_t)settings->rank, err));
    int status = make_cold(place->model, &place->source_bytes, &largest, err);
    if (status == HM_OK)
        status = hm_path_join(&file, settings->dir, "probe", err);
    if (status == HM_OK)
        status = probe(largest, file, place, err);
    hm_free(file);
    hm_free(largest);
    return status;
}

static void clear_place(struct place *place)
{
    (void)hm_dir_remove(place->model, NULL);
    (void)hm_dir_remove(place->adapter, NULL);
    (void)hm_dir_remove(place->out, NULL);
    hm_free(place->model);
    hm_free(place->adapter);
    hm_free(place->out);
}

/* --- one stage --- */

struct used { /* by a command */
    double seconds;
    uint64_t rss_bytes, read_bytes; /* read from the disk: 0 where the system does not tell */
};

static int run(char *const *argv, struct used *ret_used, struct hm_error *err)
{
    struct rusage usage;
    double start = hm_clock_seconds();
    int state = 0;
    pid_t child;
    int code = posix_spawn(&child, argv[0], NULL, NULL, argv, environ);

    if (code != 0)
        return hm_fail(err, HM_ERR_USAGE, "cannot run '%s': %s", argv[0], strerror(code));
    while (wait4(child, &state, 0, &usage) < 0)
        if (errno != EINTR)
            return hm_fail(err, HM_ERR_IO, "cannot wait for '%s'", argv[0]);
    *ret_used = (struct used){ .seconds = hm_clock_seconds() - start,
                               .rss_bytes = (uint64_t)usage.ru_maxrss * 1024,
                               .read_bytes = (uint64_t)usage.ru_inblock * 512 };
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return hm_fail(err, HM_ERR_CHECK, "'%s %s' failed", argv[0], argv[2]);
    return HM_OK;
}

/* What the stage says of itself. */
static int stage_record(const char *out, double *ret_seconds, uint64_t *ret_planned_bytes,
                        struct hm_error *err)
{
    json_t *record = NULL;
    char *path = NULL;

    HM_TRY(hm_path_join(&path, out, "stage.json", err));
    int status = hm_json_load(path, 1 << 20, &record, err);
    *ret_seconds = json_number_value(json_object_get(record, "wall_seconds"));
    *ret_planned_bytes = (uint64_t)json_integer_value(json_object_get(record, "planned_bytes"));
    json_decref(record);
    hm_free(path);
    return status;
}

static int convert(const struct settings *settings, struct place *place, const char *stage,
                   struct hm_error *err)
{
    static char verb[] = "stage", out_option[] = "--out", quiet[] = "--quiet",
                threads_option[] = "--threads";
    char *name = NULL, *model = NULL, *adapter = NULL, *threads = NULL, *program = NULL;
    struct used used = { 0 };
    uint64_t planned = 0, bytes = 0;
    double stage_s = 0;
    bool merge = strcmp(stage, "merge") == 0;
    int status = make_cold(place->model, &bytes, NULL, err);

    if (status == HM_OK)
        status = hm_format(&name, err, "qlora.%s", stage);
    if (status == HM_OK)
        status = hm_format(&program, err, "%s", settings->program);
    if (status == HM_OK)
        status = hm_format(&model, err, "in.model=%s", place->model);
    if (status == HM_OK)
        status = hm_format(&adapter, err, "in.adapter=%s", place->adapter);
    if (status == HM_OK)
        status = hm_format(&threads, err, "%d", hm_threads());
    if (status == HM_OK) {
        char *argv[] = { program,    verb,  name,           model,   out_option,
                         place->out, quiet, threads_option, threads, merge ? adapter : NULL,
                         NULL };
        status = run(argv, &used, err);
    }
    if (status == HM_OK)
        status = stage_record(place->out, &stage_s, &planned, err);
    if (status == HM_OK) {
        double mb = (double)place->source_bytes / 1e6;
        double limit = place->read_mb_s < place->write_mb_s ? place->read_mb_s : place->write_mb_s;
        printf("%s,%" PRIu64 ",%.0f,%.0f,%.0f,%.0f,%.2f,%.0f,%.2f,%.2f,%.2f,%.2f,%.0f,%.0f,%.2f\n",
               name, settings->rank, mb, place->read_mb_s, place->write_mb_s, place->both_mb_s,
               stage_s, mb / stage_s, mb / stage_s / limit, mb / stage_s / place->both_mb_s,
               used.seconds, mb / used.seconds / limit, (double)used.rss_bytes / 1048576,
               (double)planned / 1048576, (double)used.read_bytes / 1e6 / mb);
        fflush(stdout);
    }
    if (status == HM_OK)
        status = hm_dir_remove(place->out, err);
    hm_free(name);
    hm_free(program);
    hm_free(model);
    hm_free(adapter);
    hm_free(threads);
    return status;
}

static int one_size(const struct settings *settings, uint32_t layers, struct hm_error *err)
{
    struct place place = { 0 };
    int status = make_place(settings, layers, &place, err);

    if (status == HM_OK && strstr(settings->stages, "quantize"))
        status = convert(settings, &place, "quantize", err);
    if (status == HM_OK && strstr(settings->stages, "merge"))
        status = convert(settings, &place, "merge", err);
    clear_place(&place);
    return status;
}

int main(int argc, char **argv)
{
    struct settings settings = { .layers = "2,4,7", .stages = "quantize,merge", .rank = 8 };
    struct hm_error err = { 0 };
    int status = arguments(argc, argv, &settings, &err);

    if (status == HM_OK) {
        hm_threads_set((int)settings.threads);
        printf(
            "stage,rank,source_mb,disk_read_mb_s,disk_write_mb_s,disk_both_mb_s,stage_s,stage_mb_s,"
            "stage_ratio,stage_both_ratio,command_s,command_ratio,peak_rss_mib,planned_mib,read_"
            "share\n");
    }
    for (const char *at = settings.layers; status == HM_OK && *at;) {
        char *end = NULL;
        unsigned long layers = strtoul(at, &end, 10);
        if (end == at || layers < 1 || layers > 32)
            status = hm_fail(&err, HM_ERR_USAGE, "--layers '%s': numbers from 1 to 32", at);
        else
            status = one_size(&settings, (uint32_t)layers, &err);
        at = *end == ',' ? end + 1 : end;
    }
    if (status < 0)
        fprintf(stderr, "convert: %s\n", err.text);
    return hm_status_exit_code(status);
}
