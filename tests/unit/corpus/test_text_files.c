/* SPDX-License-Identifier: MIT */
/*
 * Text sources: every ending, broken lines against the limit, broken frames, sets mixed by weight,
 * epochs, duplicates, samples, lines that cross buffers. Expected documents are written out here;
 * compressed files come from the tools.
 */
#include "support/support.h"

#include <zlib.h>

#include "hanmix/corpus/text_files.h"

/* All documents joined as "set:text;", or the error's status. */
static int read_all(const struct hm_text_set *sets, size_t n, const struct hm_text_options *options,
                    char *out, size_t size, struct hm_text_stats *ret_stats, struct hm_error *err)
{
    struct hm_text_source source;
    struct hm_doc doc;
    size_t len = 0;

    out[0] = '\0';
    int r = hm_text_files_open(sets, n, options, &source, err);
    if (r < 0)
        return r;
    while ((r = source.next(source.context, &doc, err)) == 1)
        len += (size_t)snprintf(out + len, size - len, "%s:%.*s;", doc.set, (int)doc.text.len,
                                doc.text.ptr);
    if (ret_stats)
        *ret_stats = hm_text_files_stats(&source);
    source.close(source.context);
    return r;
}

static const char *put(const char *name, const char *text)
{
    const char *path = tmp_path(test_dir, "%s", name);
    file_put(path, text, strlen(text));
    return path;
}

static struct hm_text_set set_of(const char *name, char **file)
{
    return (struct hm_text_set){
        .name = (char *)(uintptr_t)name, .file = file, .n_files = 1, .epochs = 1
    };
}

static void compress_zst(const char *path)
{
    const char *argv[] = { "zstd", "-q", "-f", "--rm", path, NULL };
    assert_int_equal(program_run(argv, NULL, NULL, NULL), 0);
}

static void test_endings(void **state)
{
    (void)state;
    static const char json[] = "{\"text\": \"\\u4f60\\u597d\", \"id\": 1}\n\n{\"text\": "
                               "\"b\"}\r\n{\"text\":\"\"}\n{\"text\":\"c\"}";
    struct hm_text_options options = { 0 };
    struct hm_error err = { 0 };
    char out[512];
    char *file[1];

    file[0] = (char *)(uintptr_t)put("a.jsonl", json);
    struct hm_text_set set = set_of("s", file);
    assert_ok(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "s:\xe4\xbd\xa0\xe5\xa5\xbd;s:b;s:c;");

    compress_zst(put("b.jsonl", json));
    file[0] = (char *)(uintptr_t)tmp_path(test_dir, "b.jsonl.zst");
    assert_ok(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "s:\xe4\xbd\xa0\xe5\xa5\xbd;s:b;s:c;");

    file[0] = (char *)(uintptr_t)tmp_path(test_dir, "c.jsonl.gz");
    for (int member = 0; member < 2; member++) { /* two members in one file */
        gzFile gz = gzopen(file[0], "ab");
        gzputs(gz, "{\"text\":\"x\"}\n");
        gzclose(gz);
    }
    assert_ok(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "s:x;s:x;");

    file[0] = (char *)(uintptr_t)put("d.txt", "one\ntwo\n\nthree");
    assert_ok(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "s:one;s:two;s:three;");
}

static void test_bad_lines(void **state)
{
    (void)state;
    struct hm_text_options options = { 0 };
    struct hm_text_stats stats;
    struct hm_error err = { 0 };
    char out[512];
    char *file[1];

    file[0] = (char *)(uintptr_t)put(
        "bad.jsonl", "{\"text\": \"a\"}\n{\"text\": \nnope\n{\"other\": 1}\n{\"text\": 5}\n"
                     "{\"text\": \"\xff\"}\n[1]\n{\"text\": \"z\"}\n");
    struct hm_text_set set = set_of("s", file);
    assert_fails(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), HM_ERR_FORMAT,
                 "bad.jsonl:2", err);
    options.max_bad_lines = 5;
    assert_fails(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), HM_ERR_FORMAT,
                 "bad.jsonl:7': the line is not a JSON object; 6 bad lines", err);
    options.max_bad_lines = 6;
    assert_ok(read_all(&set, 1, &options, out, sizeof(out), &stats, &err), err);
    assert_string_equal(out, "s:a;s:z;");
    assert_int_equal(stats.bad_lines, 6);
    assert_non_null(strstr(stats.first_bad, "bad.jsonl:2"));
    options.max_bad_lines = 0;
    file[0] = (char *)(uintptr_t)put("bad.txt", "good\nb\x80"
                                                "d\n");
    assert_fails(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), HM_ERR_FORMAT,
                 "not UTF-8 at byte 1", err);
    file[0] = (char *)(uintptr_t)tmp_path(test_dir, "absent.jsonl");
    assert_fails(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), HM_ERR_USAGE,
                 "absent.jsonl", err);
}

static void test_bad_frames(void **state)
{
    (void)state;
    struct hm_text_options options = { 0 };
    struct hm_error err = { 0 };
    char *text = hm_calloc(HM_MEM_OTHER, 1, 200000);
    char *out = hm_alloc(HM_MEM_OTHER, 400000);
    char *file[1];
    size_t len = 0;

    for (unsigned i = 0; len < 150000; i++)
        len += (size_t)sprintf(text + len, "{\"text\": \"%u %u\"}\n", i, i * 2654435761u);
    compress_zst(put("t.jsonl", text));
    file[0] = (char *)(uintptr_t)tmp_path(test_dir, "t.jsonl.zst");
    struct hm_text_set set = set_of("s", file);
    size_t size = 0;
    char *bytes = file_get(file[0], &size);
    file_put(file[0], bytes, size - 3);
    assert_fails(read_all(&set, 1, &options, out, 400000, NULL, &err), HM_ERR_FORMAT, "cut off",
                 err);
    bytes[size / 2] ^= 0x55;
    file_put(file[0], bytes, size);
    assert_fails(read_all(&set, 1, &options, out, 400000, NULL, &err), HM_ERR_FORMAT, "t.jsonl.zst",
                 err);
    file_put(file[0], "not zstd at all", 15);
    assert_fails(read_all(&set, 1, &options, out, 400000, NULL, &err), HM_ERR_FORMAT,
                 "zstd cannot decode", err);
    file[0] = (char *)(uintptr_t)put("t.jsonl.gz", "\x1f\x8b\x08");
    assert_fails(read_all(&set, 1, &options, out, 400000, NULL, &err), HM_ERR_FORMAT, "cut off",
                 err);
    hm_free(bytes);
    hm_free(text);
    hm_free(out);
}

static void test_long_lines(void **state)
{
    (void)state;
    const size_t long_len = (3u << 20) + 17; /* crosses the buffer twice */
    struct hm_text_options options = { 0 };
    struct hm_error err = { 0 };
    char *text = hm_alloc(HM_MEM_OTHER, long_len + 16);
    char *out = hm_alloc(HM_MEM_OTHER, long_len + 64);
    char *file[1];

    memset(text, 'a', long_len);
    memcpy(text + long_len, "\nb\n", 4);
    file[0] = (char *)(uintptr_t)put("long.txt", text);
    struct hm_text_set set = set_of("s", file);
    assert_ok(read_all(&set, 1, &options, out, long_len + 64, NULL, &err), err);
    assert_int_equal(strlen(out), 2 + long_len + 1 + 4);
    assert_string_equal(out + 2 + long_len, ";s:b;");
    assert_int_equal(hm_text_long_line(file[0], 9u << 20), 9u << 20);
    assert_int_equal(hm_text_long_line(file[0], UINT64_MAX), HM_LINE_MAX_BYTES);
    text[(1u << 20) - 1] = '\n';
    assert_int_equal(hm_text_long_line(put("short.txt", text), 9u << 20), 0);
    assert_int_equal(hm_text_long_line("absent.txt", 9u << 20), 0);
    hm_free(text);
    hm_free(out);
}

static void test_sets(void **state)
{
    (void)state;
    struct hm_text_options options = { 0 };
    struct hm_text_stats stats;
    struct hm_error err = { 0 };
    char out[512];
    char *zh[1] = { (char *)(uintptr_t)put("zh.txt", "1\n2\n3\n4\n") };
    char *en[1] = { (char *)(uintptr_t)put("en.txt", "a\nb\na\n") };
    struct hm_text_set sets[2] = { set_of("zh", zh), set_of("en", en) };

    assert_ok(read_all(sets, 2, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "zh:1;zh:2;zh:3;zh:4;en:a;en:b;en:a;");
    sets[0].weight = 2;
    assert_ok(read_all(sets, 2, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "zh:1;en:a;zh:2;zh:3;en:b;zh:4;en:a;");
    sets[0].weight = 0;
    sets[1].epochs = 2;
    options.dedup = HM_DEDUP_DROP;
    assert_ok(read_all(sets, 2, &options, out, sizeof(out), &stats, &err), err);
    assert_string_equal(out, "zh:1;zh:2;zh:3;zh:4;en:a;en:b;");
    assert_int_equal(stats.duplicates, 4);
    options.dedup = HM_DEDUP_COUNT;
    assert_ok(read_all(sets, 2, &options, out, sizeof(out), &stats, &err), err);
    assert_int_equal(stats.documents, 10);
    assert_int_equal(stats.duplicates, 4);
    options.dedup = HM_DEDUP_OFF;
    sets[1].epochs = 1.5;
    assert_ok(read_all(sets, 2, &options, out, sizeof(out), &stats, &err), err);
    assert_true(stats.documents >= 7 && stats.documents <= 10);
}

/* Hashes outgrow their part of the limit; the limit that is named will do. */
static void test_dedup_limit(void **state)
{
    (void)state;
    struct hm_text_options options = { .dedup = HM_DEDUP_DROP, .memory_bytes = 4 * 200000 };
    struct hm_text_stats stats;
    struct hm_error err = { 0 };
    static char text[160000], out[160000];
    size_t len = 0;
    unsigned megabytes = 0;

    for (int i = 0; i < 12000; i++)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%d\n", i % 10000);
    char *file[1] = { (char *)(uintptr_t)put("many.txt", text) };
    struct hm_text_set set = set_of("s", file);
    assert_int_equal(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), HM_ERR_NOFIT);
    const char *named = strstr(err.text, "set.memory=");
    assert_non_null(named);
    assert_int_equal(sscanf(named, "set.memory=%uM will do", &megabytes), 1);
    options.memory_bytes = (uint64_t)megabytes << 20;
    assert_ok(read_all(&set, 1, &options, out, sizeof(out), &stats, &err), err);
    assert_int_equal(stats.documents, 10000);
    assert_int_equal(stats.duplicates, 2000);
}

static int number_order(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* The numbers of a sample, ascending; returns how many. */
static size_t sample_of(const struct hm_text_set *sets, size_t n_sets,
                        const struct hm_text_options *options, int *number)
{
    struct hm_text_source source;
    struct hm_error err = { 0 };
    struct hm_doc doc;
    size_t n = 0;

    assert_ok(hm_text_files_open(sets, n_sets, options, &source, &err), err);
    while (source.next(source.context, &doc, &err) == 1)
        number[n++] = (int)strtol(doc.text.ptr, NULL, 10);
    source.close(source.context);
    qsort(number, n, sizeof(*number), number_order);
    return n;
}

/* A sample follows from the documents alone: not from their order, nor from files and sets. */
static void test_sample_of_any_cut(void **state)
{
    (void)state;
    enum { N = 3000 };
    struct hm_text_options options = { .sample_bytes = 4000, .seed = 7 };
    static int whole[N], cut[N], other[N];
    char *one[1] = { (char *)(uintptr_t)tmp_path(test_dir, "one.txt") };
    char *three[3];
    FILE *file[4];

    file[3] = fopen(one[0], "w");
    for (size_t i = 0; i < 3; i++) {
        three[i] = (char *)(uintptr_t)tmp_path(test_dir, "part%zu.txt", i);
        file[i] = fopen(three[i], "w");
    }
    for (int i = 0; i < N; i++) { /* each number twice; backwards in the parts */
        fprintf(file[3], "%d\n", i / 2);
        fprintf(file[i * 7 % 3], "%d\n", (N - 1 - i) / 2);
    }
    for (size_t i = 0; i < 4; i++)
        fclose(file[i]);
    struct hm_text_set all = set_of("s", one);
    struct hm_text_set parts[2] = { set_of("a", three + 1), set_of("b", three) };
    parts[0].n_files = 2; /* parts 1, 2 before part 0 */
    parts[0].weight = 3;  /* mixed */
    for (int dedup = 0; dedup < 2; dedup++) {
        options.dedup = dedup ? HM_DEDUP_DROP : HM_DEDUP_OFF;
        size_t n = sample_of(&all, 1, &options, whole);
        assert_in_range(n, 500, 1500);
        assert_int_equal(sample_of(parts, 2, &options, cut), n);
        assert_memory_equal(whole, cut, n * sizeof(int));
        options.seed++;
        size_t n_other = sample_of(&all, 1, &options, other);
        assert_true(n_other != n || memcmp(whole, other, n * sizeof(int)) != 0);
    }
}

static void test_set_field_and_sample(void **state)
{
    (void)state;
    struct hm_text_options options = { .field = "content", .set_field = "meta.source" };
    struct hm_text_stats stats;
    struct hm_error err = { 0 };
    char out[512];
    char *file[1] = { (char *)(uintptr_t)put(
        "f.jsonl", "{\"content\":\"a\",\"meta\":{\"source\":\"web\"}}\n{\"content\":\"b\"}\n"
                   "{\"content\":\"c\",\"meta\":{\"source\":\"web\"}}\n") };
    struct hm_text_set set = set_of("s", file);

    assert_ok(read_all(&set, 1, &options, out, sizeof(out), NULL, &err), err);
    assert_string_equal(out, "web:a;s:b;web:c;");

    char *many = hm_calloc(HM_MEM_OTHER, 1, 60000);
    char *big = hm_alloc(HM_MEM_OTHER, 120000);
    for (unsigned i = 0; i < 5000; i++)
        sprintf(many + strlen(many), "%08u\n", i);
    file[0] = (char *)(uintptr_t)put("many.txt", many);
    options = (struct hm_text_options){ .sample_bytes = 10000, .seed = 3 };
    assert_ok(read_all(&set, 1, &options, big, 120000, &stats, &err), err);
    assert_true(stats.bytes > 8500 && stats.bytes < 11500);
    hm_free(many);
    hm_free(big);
}

/* Bytes that come of the text under a bound. */
static double bytes_under(struct hm_text_set *sets, size_t n_sets, struct hm_text_bound *bound)
{
    struct hm_text_options options = { .field = "text", .bound = bound };
    struct hm_text_source source;
    struct hm_error err = { 0 };
    struct hm_doc doc;
    double bytes = 0, of_set[2] = { 0 };
    int r;

    assert_ok(hm_text_files_open(sets, n_sets, &options, &source, &err), err);
    while ((r = source.next(source.context, &doc, &err)) == 1) {
        bytes += (double)doc.text.len;
        of_set[doc.set_index] += (double)doc.text.len;
    }
    assert_ok(r, err);
    source.close(source.context);
    if (n_sets == 2) /* both alike */
        assert_true(of_set[0] > 0.3 * bytes && of_set[1] > 0.3 * bytes);
    return bytes;
}

/* A bound takes from all sets and tells the share that it was: of small files by a sample, of large
 * ones by where reading ended. */
static void test_bound(void **state)
{
    (void)state;
    static const size_t line_count[] = { 5000, 160000 };
    for (size_t c = 0; c < 2; c++) {
        const size_t size = line_count[c] * 128;
        char *many = hm_alloc(HM_MEM_OTHER, size + 1);
        for (size_t i = 0; i < line_count[c]; i++)
            snprintf(many + i * 128, 129, "%0127zu\n", i);
        char *first[1] = { hm_strdup(HM_MEM_OTHER, put("first.txt", many)) };
        char *second[1] = { hm_strdup(HM_MEM_OTHER, put("second.txt", many)) };
        struct hm_text_set sets[2] = { set_of("a", first), set_of("b", second) };
        const double whole = 2 * 127.0 * (double)line_count[c];
        struct hm_text_bound bound = { .bytes = (uint64_t)(whole / 4), .share = 1 };
        double bytes = bytes_under(sets, 2, &bound);
        assert_true(bytes > 0.22 * whole && bytes < 0.28 * whole);
        assert_true(bound.share > 0.9 * bytes / whole && bound.share < 1.1 * bytes / whole);
        bound = (struct hm_text_bound){ .bytes = (uint64_t)(3 * whole), .share = 0.5 };
        assert_true(bytes_under(sets, 2, &bound) == whole);
        assert_true(bound.share == 1);
        hm_free(first[0]);
        hm_free(second[0]);
        hm_free(many);
    }
}

static int attempt(void *context, struct hm_error *err)
{
    char out[512];
    struct hm_text_options options = { .field = "text", .dedup = HM_DEDUP_DROP };

    return read_all(context, 1, &options, out, sizeof(out), NULL, err);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    char *file[1] = { (char *)(uintptr_t)put("oom.jsonl", "{\"text\": \"a\"}\n") };
    struct hm_text_set set = set_of("s", file);

    assert_true(oom_sweep(attempt, &set) > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_endings, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_bad_lines, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_bad_frames, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_long_lines, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_sets, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_dedup_limit, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_sample_of_any_cut, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_set_field_and_sample, test_dir_setup,
                                        test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_bound, test_dir_setup, test_dir_teardown),
        cmocka_unit_test_setup_teardown(test_allocation_failures, test_dir_setup,
                                        test_dir_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
