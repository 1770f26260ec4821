/* SPDX-License-Identifier: MIT */
/*
 * Helpers shared by the test programs; see support.h.
 */
#include "support/support.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROTATING   16
#define PATH_BYTES 4096

static char *rotating_buffer(void)
{
    static char buffer[ROTATING][PATH_BYTES];
    static unsigned next;

    return buffer[next++ % ROTATING];
}

char *tmp_new(void)
{
    const char *base = getenv("TMPDIR");
    char path[PATH_BYTES];

    if (!base || !*base) /* in memory if possible: sweeps write thousands of files, each synced */
        base = access("/dev/shm", W_OK | X_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, sizeof(path), "%s/hanmix-test-XXXXXX", base);
    if (!mkdtemp(path))
        fail_msg("cannot make '%s': %s", path, strerror(errno));
    char *dir = strdup(path); /* outside hm_alloc: tests count its blocks */
    assert_non_null(dir);
    return dir;
}

void tmp_release(char *dir)
{
    struct hm_error err = { 0 };

    if (!dir)
        return;
    assert_ok(hm_dir_remove(dir, &err), err);
    free(dir);
}

char *test_dir;

int test_dir_setup(void **state)
{
    test_dir = tmp_new();
    *state = test_dir;
    return 0;
}

int test_dir_teardown(void **state)
{
    (void)state;
    tmp_release(test_dir);
    test_dir = NULL;
    return 0;
}

const char *tmp_path(const char *dir, const char *format, ...)
{
    char *path = rotating_buffer();
    va_list args;
    int len = snprintf(path, PATH_BYTES, "%s/", dir);

    va_start(args, format);
    vsnprintf(path + len, PATH_BYTES - (size_t)len, format, args);
    va_end(args);
    return path;
}

void file_put(const char *path, const void *data, size_t len)
{
    FILE *file = fopen(path, "wbe");

    if (!file || fwrite(data, 1, len, file) != len || fclose(file) != 0)
        fail_msg("cannot write '%s': %s", path, strerror(errno));
}

char *file_get(const char *path, size_t *ret_len)
{
    struct hm_error err = { 0 };
    struct hm_buf buf = { 0 };

    assert_ok(hm_file_read(path, (uint64_t)1 << 32, &buf, &err), err);
    if (ret_len)
        *ret_len = buf.len;
    return buf.ptr;
}

const char *golden_path(const char *relative)
{
    return tmp_path(HM_TEST_DATA, "%s", relative);
}

static char *stream_text(FILE *stream)
{
    struct hm_error err = { 0 };
    struct hm_buf buf = { 0 };
    char part[4096];
    size_t got;

    assert_ok(hm_buf_text(&buf, "", &err), err);
    rewind(stream);
    while ((got = fread(part, 1, sizeof(part), stream)) > 0)
        assert_ok(hm_buf_append(&buf, part, got, &err), err);
    return buf.ptr;
}

int program_run(const char *const argv[], const char *input, char **ret_stdout, char **ret_stderr)
{
    FILE *in = tmpfile();
    FILE *out = tmpfile();
    FILE *error = tmpfile();
    int state = 0;

    assert_true(in && out && error);
    if (input)
        fputs(input, in);
    fflush(in);
    rewind(in);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fileno(in), 0);
        dup2(fileno(out), 1);
        dup2(fileno(error), 2);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    while (waitpid(pid, &state, 0) < 0)
        assert_int_equal(errno, EINTR);
    if (ret_stdout)
        *ret_stdout = stream_text(out);
    if (ret_stderr)
        *ret_stderr = stream_text(error);
    fclose(in);
    fclose(out);
    fclose(error);
    return WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state);
}

double rel_rms_f64(const double *a, const double *b, size_t count)
{
    double difference = 0;
    double size = 0;

    for (size_t i = 0; i < count; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        difference += (a[i] - b[i]) * (a[i] - b[i]);
        size += b[i] * b[i];
    }
    if (difference == 0)
        return 0;
    return size == 0 ? INFINITY : sqrt(difference / size);
}

double rel_rms(const float *a, const float *b, size_t count)
{
    double difference = 0;
    double size = 0;

    for (size_t i = 0; i < count; i++) {
        if (!isfinite(a[i]) || !isfinite(b[i]))
            return INFINITY;
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        size += (double)b[i] * b[i];
    }
    if (difference == 0)
        return 0;
    return size == 0 ? INFINITY : sqrt(difference / size);
}

double max_abs_diff(const float *a, const float *b, size_t count)
{
    double most = 0;

    for (size_t i = 0; i < count; i++) {
        double difference = fabs((double)a[i] - b[i]);
        if (!(difference <= most))
            most = isnan(difference) ? INFINITY : difference;
    }
    return most;
}

void assert_close(const char *what, const float *a, const float *b, size_t count, double limit)
{
    double found = rel_rms(a, b, count);

    if (!(found <= limit))
        fail_msg("%s: relative rms error %.3g exceeds %.3g", what, found, limit);
}

static void *json_block_new(size_t size)
{
    return hm_alloc(HM_MEM_OTHER, size);
}

unsigned oom_sweep(int (*attempt)(void *context, struct hm_error *err), void *context)
{
    const unsigned limit = 100000;
    json_malloc_t old_malloc;
    json_free_t old_free;

    json_get_alloc_funcs(&old_malloc, &old_free);
    json_set_alloc_funcs(json_block_new, hm_free);
    uint64_t before = hm_mem_total_bytes();
    for (unsigned failures = 0; failures < limit; failures++) {
        struct hm_error err = { 0 };
        hm_alloc_fail_after(failures);
        int status = attempt(context, &err);
        hm_alloc_fail_after(-1);
        uint64_t after = hm_mem_total_bytes();
        if (after != before)
            fail_msg("with allocation %u failing, %lld bytes were left behind (status %d)",
                     failures, (long long)(after - before), status);
        if (status == HM_OK) {
            json_set_alloc_funcs(old_malloc, old_free);
            return failures;
        }
        /* jansson's lexer takes a failed allocation for a syntax error; nothing outside can tell */
        bool by_jansson = status == HM_ERR_FORMAT && strstr(err.text, ": not JSON at ");
        if ((status != HM_ERR_NOMEM && !by_jansson) || err.text[0] == '\0')
            fail_msg("with allocation %u failing: status %d, '%s'", failures, status, err.text);
    }
    fail_msg("still failing after %u allocations", limit);
    return 0;
}
