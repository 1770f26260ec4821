/* SPDX-License-Identifier: MIT */
/*
 * The sweep over sizes against making every vocabulary and encoding every line with it: alone and
 * merged into a base, characters by number, by `auto` and all; the same bits for any number of
 * threads; what is refused; out of memory.
 */
#include <math.h>
#include <string.h>

#include "tiny_model.h"

#include "hanmix/base/parallel.h"
#include "hanmix/vocab/piece_merge.h"
#include "hanmix/vocab/size_sweep.h"

#define LINES  400u
#define POINTS 7u

static size_t n_documents = LINES; /* that are read */
static struct hm_buf text[LINES];  /* documents of three lines, one of them empty */
static struct hm_bpe_result trained;
static struct hm_spm_model base;

static uint32_t below(uint32_t n)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 33) % n;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Characters fall in frequency; some stand side by side more often than chance. */
static void line_fill(struct hm_buf *line)
{
    struct hm_error err = { 0 };
    char bytes[4];

    for (unsigned i = 0; i < 60; i++) {
        uint32_t code = 0x4e00 + least(below(40), least(below(40), below(40)));
        if (below(12) == 0)
            code = below(2) ? ' ' : 'a' + below(3);
        if (below(40) == 0)
            code = 0x3042; /* a Hiragana: Han class, but no ideograph */
        unsigned len = hm_utf8_encode(code, bytes);
        assert_ok(hm_buf_append(line, bytes, len, &err), err);
        if (code == 0x4e02)
            assert_ok(hm_buf_text(line, "丅丆", &err), err);
        if (below(200) == 0)
            assert_ok(hm_buf_text(line,
                                  "丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄"
                                  "丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄丄",
                                  &err),
                      err);
    }
}

static int setup(void **state)
{
    static const char *const pieces[] = { "一", "丂", "一丂", "a", "b", "ab", HM_SPM_SPACE, NULL };
    struct hm_bpe_options options = { .merges = 400, .max_piece_chars = 4, .allow_fewer = true };
    struct hm_buf bytes = tiny_model(pieces, true);
    struct hm_han_counts *counts = NULL;
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_han_counts_new(&counts, &err), err);
    for (size_t i = 0; i < LINES; i++) {
        line_fill(&text[i]);
        assert_ok(hm_buf_text(&text[i], "\n\n", &err), err);
        line_fill(&text[i]);
        assert_ok(hm_han_counts_add(counts, buf_str(&text[i]), &err), err);
    }
    assert_ok(hm_bpe_train(counts, &options, NULL, &trained, &err), err);
    hm_han_counts_free(counts);
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "base", &base, &err), err);
    hm_buf_release(&bytes);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < LINES; i++)
        hm_buf_release(&text[i]);
    hm_bpe_result_release(&trained);
    hm_spm_model_release(&base);
    return 0;
}

static int text_next(void *context, struct hm_doc *ret_doc, struct hm_error *err)
{
    uint64_t *next = context;

    (void)err;
    if (*next == n_documents)
        return 0;
    *ret_doc = (struct hm_doc){ buf_str(&text[*next]), "all", 0, *next };
    ++*next;
    return 1;
}

static uint64_t text_position(void *context)
{
    return *(uint64_t *)context;
}

static int sweep(const struct hm_spm_model *with, struct hm_sweep_point points[POINTS],
                 struct hm_sweep_text *ret_text, struct hm_error *err)
{
    static const struct hm_sweep_point asked[POINTS] = {
        { .pieces = 60, .rule = HM_SINGLES_AUTO },
        { .pieces = 130, .rule = HM_SINGLES_AUTO },
        { .pieces = 12, .rule = HM_SINGLES_COUNT, .n_singles = 12 },
        { .pieces = 100, .rule = HM_SINGLES_COUNT, .n_singles = 20 },
        { .pieces = 40, .rule = HM_SINGLES_COUNT, .n_singles = 20 },
        { .pieces = 150, .rule = HM_SINGLES_ALL },
        { .pieces = 40, .rule = HM_SINGLES_COUNT, .n_singles = 7 },
    };
    uint64_t next = 0;
    struct hm_text_source source = {
        .context = &next, .next = text_next, .position_bytes = text_position, .total_bytes = LINES
    };

    memcpy(points, asked, sizeof(asked));
    return hm_size_sweep(&trained, with, points, POINTS, &source, NULL, ret_text, err);
}

/* The tokenizer that a point stands for. */
static struct hm_tokenizer *tokenizer_of(const struct hm_spm_model *with,
                                         const struct hm_sweep_point *point)
{
    const struct hm_select_options options = { .pieces = point->pieces,
                                               .singles = point->rule,
                                               .n_singles = point->n_singles };
    const struct hm_merge_options merge = { 0 };
    struct hm_merge_result merged = { 0 };
    struct hm_selection selection = { 0 };
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_spm_model extra = { 0 };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_piece_select(&trained, with, &options, &selection, &err), err);
    assert_int_equal(point->singles, selection.n_singles);
    assert_int_equal(point->merges, selection.n_merges);
    assert_ok(hm_selection_model(&selection, &bytes, &err), err);
    if (with) {
        assert_ok(hm_spm_model_parse(buf_str(&bytes), "extra", &extra, &err), err);
        assert_ok(hm_piece_merge(with, &extra, &merge, &merged, &err), err);
        assert_ok(hm_tokenizer_open_bytes(buf_str(&merged.model_bytes), "merged", &tokenizer, &err),
                  err);
    } else {
        assert_ok(hm_tokenizer_open_bytes(buf_str(&bytes), "alone", &tokenizer, &err), err);
    }
    hm_merge_result_release(&merged);
    hm_spm_model_release(&extra);
    hm_selection_release(&selection);
    hm_buf_release(&bytes);
    return tokenizer;
}

static void lines_encode(const struct hm_tokenizer *tokenizer, struct hm_ids *ids)
{
    struct hm_error err = { 0 };

    for (size_t i = 0; i < LINES; i++)
        for (const char *at = text[i].ptr, *end = at + text[i].len; at < end;) {
            const char *stop = memchr(at, '\n', (size_t)(end - at));
            size_t len = stop ? (size_t)(stop - at) : (size_t)(end - at);
            assert_ok(hm_tokenizer_encode(tokenizer, (struct hm_str){ at, len }, ids, &err), err);
            at += len + 1;
        }
}

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("%.17g, expected %.17g", got, want);
}

static void point_check(const struct hm_spm_model *with, const struct hm_sweep_point *point)
{
    struct hm_tokenizer *tokenizer = tokenizer_of(with, point);
    const size_t pieces = tokenizer->model.count;
    uint64_t *count = calloc(pieces, sizeof(*count));
    struct hm_ids ids = { 0 };
    double entropy = 0, power = 0;
    uint64_t byte_tokens = 0, rare = 0;

    lines_encode(tokenizer, &ids);
    for (size_t i = 0; i < ids.count; i++)
        count[ids.id[i]]++;
    for (size_t i = 0; i < pieces; i++) {
        double p = (double)count[i] / (double)ids.count;
        byte_tokens += tokenizer->model.piece[i].type == HM_PIECE_BYTE ? count[i] : 0;
        rare += i >= (with ? with->count : HM_SELECTION_META) && count[i] < HM_SWEEP_RARE;
        entropy -= p > 0 ? p * log(p) : 0;
        power += pow(p, 2.5);
    }
    assert_int_equal(point->vocab_size, pieces);
    assert_int_equal(point->tokens, ids.count);
    assert_int_equal(point->byte_tokens, byte_tokens);
    assert_int_equal(point->rare, rare);
    near(point->entropy, entropy);
    near(point->tokens_per_line, (double)ids.count / (2 * LINES));
    near(point->alp, -(double)ids.count / (2 * LINES) * entropy);
    near(point->renyi, log(power) / -1.5 / log((double)pieces));
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    free(count);
}

static void test_naive(void **state)
{
    const struct hm_spm_model *with[] = { NULL, &base };
    struct hm_sweep_point points[POINTS];
    struct hm_sweep_text found = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    for (size_t b = 0; b < 2; b++) {
        assert_ok(sweep(with[b], points, &found, &err), err);
        assert_int_equal(found.documents, LINES);
        assert_int_equal(found.lines, 2 * LINES);
        for (size_t i = 0; i < POINTS; i++)
            point_check(with[b], &points[i]);
    }
}

static void test_threads(void **state)
{
    static const int threads[] = { 2, 3, 5 };
    struct hm_sweep_point one[POINTS], more[POINTS];
    struct hm_sweep_text found = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    hm_threads_set(1);
    assert_ok(sweep(&base, one, &found, &err), err);
    for (size_t t = 0; t < 3; t++) {
        hm_threads_set(threads[t]);
        assert_ok(sweep(&base, more, &found, &err), err);
        for (size_t i = 0; i < POINTS; i++) {
            assert_int_equal(one[i].tokens, more[i].tokens);
            assert_memory_equal(&one[i].alp, &more[i].alp, sizeof(one[i].alp));
            assert_memory_equal(&one[i].renyi, &more[i].renyi, sizeof(one[i].renyi));
        }
    }
    hm_threads_set(0);
}

static void test_refused(void **state)
{
    static const char *const pieces[] = { "一", "a", NULL };
    struct hm_sweep_point points[POINTS];
    struct hm_buf bytes = tiny_model(pieces, false);
    struct hm_spm_model no_bytes = { 0 };
    struct hm_sweep_text found = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_spm_model_parse(buf_str(&bytes), "base", &no_bytes, &err), err);
    assert_fails(sweep(&no_bytes, points, &found, &err), HM_ERR_FORMAT, "byte fallback", err);
    assert_fails(hm_size_sweep(&trained, NULL, points, 0, NULL, NULL, &found, &err), HM_ERR_USAGE,
                 "0 vocabularies", err);
    points[0] = (struct hm_sweep_point){ .pieces = 100000 };
    assert_fails(hm_size_sweep(&trained, NULL, points, 1, NULL, NULL, &found, &err), HM_ERR_FORMAT,
                 "100000 pieces are wanted", err);
    hm_spm_model_release(&no_bytes);
    hm_buf_release(&bytes);
}

static int sweep_once(void *context, struct hm_error *err)
{
    struct hm_sweep_point points[POINTS];
    struct hm_sweep_text found = { 0 };

    (void)context;
    return sweep(&base, points, &found, err);
}

static void test_oom(void **state)
{
    (void)state;
    n_documents = 10;
    oom_sweep(sweep_once, NULL);
    n_documents = LINES;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_oom),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
