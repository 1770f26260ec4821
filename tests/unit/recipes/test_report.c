/* SPDX-License-Identifier: MIT */
/*
 * The report writers: event records cut after a resume, curves from a log, pictures that hold what
 * they were given, the page of a small run.
 */
#include "support/support.h"

#include <math.h>

#include "hanmix/recipes/report.h"

static char *dir;

static int set_up(void **state)
{
    (void)state;
    dir = tmp_new();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tmp_release(dir);
    return 0;
}

static void put_text(const char *path, const char *text)
{
    file_put(path, text, strlen(text));
}

static void has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void test_events_cut(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    struct hm_tb_writer *writer = NULL;
    const char *path = tmp_path(dir, "tb/events.out.tfevents.0.hanmix");
    size_t header, two, three;
    assert_ok(hm_tb_open(tmp_path(dir, "tb"), &writer, &err), err);
    hm_free(file_get(path, &header));
    for (uint64_t step = 1; step <= 3; step++) {
        assert_ok(hm_tb_scalar(writer, "train/loss", step, 1000.0, 3.0 / (double)step, &err), err);
        if (step == 2)
            hm_free(file_get(path, &two));
    }
    hm_tb_close(writer);
    hm_free(file_get(path, &three));
    assert_true(header > 24 && two > header && three > two);

    assert_ok(hm_tb_cut(tmp_path(dir, "tb"), 2, &err), err);
    char *bytes = file_get(path, &three);
    assert_int_equal(three, two);
    /* A torn last record, as a kill leaves it, is dropped too. */
    file_put(path, bytes, three - 5);
    hm_free(bytes);
    assert_ok(hm_tb_cut(tmp_path(dir, "tb"), 2, &err), err);
    hm_free(file_get(path, &three));
    assert_true(three < two && three > header);
}

static void test_plots(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    const char *metrics = tmp_path(dir, "metrics.jsonl");
    put_text(
        metrics,
        "{\"step\": 0, \"eval\": {\"zh\": {\"nats_per_token\": 4.0, \"bits_per_byte\": 2.5}}}\n"
        "{\"step\": 1, \"loss\": 3.5, \"lr\": 0.0}\n"
        "{\"step\": 2, \"loss\": 3.25, \"lr\": 0.001}\n");
    assert_ok(hm_plots_from_metrics(metrics, tmp_path(dir, "plots"), &err), err);
    char *csv = file_get(tmp_path(dir, "plots/loss.csv"), NULL);
    assert_string_equal(csv, "series,step,loss\ntrain,1,3.5\ntrain,2,3.25\n");
    hm_free(csv);
    char *svg = file_get(tmp_path(dir, "plots/bits_per_byte.svg"), NULL);
    has(svg, "<svg ");
    has(svg, "</svg>");
    hm_free(svg);
}

static void test_text_is_escaped(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    struct hm_buf svg = { 0 };
    struct hm_bar bars[] = { { "a<b & \"c\"", NULL, 1.5, 1.0, 2.0 },
                             { "d", NULL, -0.5, NAN, NAN } };
    assert_ok(hm_svg_bars("x < y", "tokens", bars, 2, &svg, &err), err);
    has(svg.ptr, "a&lt;b &amp; &quot;c&quot;");
    has(svg.ptr, "x &lt; y");
    assert_null(strstr(svg.ptr, "nan"));
    hm_buf_release(&svg);
}

static void test_degenerate_charts(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    struct hm_buf svg = { 0 };
    double x[] = { 1.0, 1.0 }, y[] = { NAN, 2.0 }, heat[] = { 0.0, 0.0 };
    struct hm_series series[] = { { "one", x, y, 2 }, { "none", NULL, NULL, 0 } };
    struct hm_chart chart = {
        .title = "t", .x_label = "x", .y_label = "y", .series = series, .n_series = 2
    };
    assert_ok(hm_svg_lines(&chart, &svg, &err), err);
    chart.n_series = 0;
    assert_ok(hm_svg_lines(&chart, &svg, &err), err);
    assert_ok(hm_svg_bars("empty", "", NULL, 0, &svg, &err), err);
    assert_ok(hm_svg_heat("zero", "layer", "expert", heat, 1, 2, &svg, &err), err);
    assert_null(strstr(svg.ptr, "nan"));
    assert_null(strstr(svg.ptr, "inf"));
    hm_buf_release(&svg);
}

static void test_run_report(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    assert_ok(hm_dir_make(tmp_path(dir, "run/eff"), &err), err);
    put_text(tmp_path(dir, "run/manifest.json"),
             "{\"hanmix\": \"0.1.0\", \"recipe\": \"recipes/q.yaml\", \"stages\": ["
             "{\"id\": \"eff\", \"stage\": \"vocab.measure\", \"state\": \"done\"}]}");
    put_text(tmp_path(dir, "run/eff/report.json"),
             "{\"tokenizers\": [{\"path\": \"a/b/c.model\", \"vocab_size\": 512, \"sets\": "
             "[{\"name\": \"zh\", \"tokens\": 10,"
             "\"tokens_per_char\": 2.5, \"bytes_per_token\": 1.2, \"reduction_vs_first\": 0, "
             "\"low\": 0, \"high\": 0}]}]}");
    put_text(tmp_path(dir, "run/eff/efficiency.svg"), "<svg id=\"picture\"></svg>");
    assert_ok(hm_run_report_write(tmp_path(dir, "run"), &err), err);
    char *page = file_get(tmp_path(dir, "run/index.html"), NULL);
    has(page, "<svg id=\"picture\"></svg>");
    has(page, "<td>b/c.model</td>");
    hm_free(page);
    char *markdown = file_get(tmp_path(dir, "run/report.md"), NULL);
    has(markdown, "| b/c.model | 512 | zh | 10 | 2.5000 |");
    hm_free(markdown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events_cut, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_plots, set_up, tear_down),
        cmocka_unit_test(test_text_is_escaped),
        cmocka_unit_test(test_degenerate_charts),
        cmocka_unit_test_setup_teardown(test_run_report, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
