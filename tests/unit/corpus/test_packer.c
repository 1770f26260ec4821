/* SPDX-License-Identifier: MIT */
/*
 * corpus/packer.c: what goes into the windows, byte and character counts, the split, the order,
 * stops and failures.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include "hanmix/base/parallel.h"
#include "hanmix/corpus/packed.h"

#define N_DOCS 700

static char *text[N_DOCS];

static int setup(void **state)
{
    for (size_t i = 0; i < N_DOCS; i++) {
        struct hm_buf buf = { 0 };
        struct hm_error err = { 0 };
        assert_ok(hm_buf_printf(&buf, &err, "doc %zu \xe4\xb8\xad", i), err);
        for (size_t k = 0; k < i * 37 % 23; k++)
            assert_ok(hm_buf_text(&buf, k % 3 ? "\xe6\x96\x87" : "ab ", &err), err);
        text[i] = buf.ptr;
    }
    *state = tmp_new();
    return 0;
}

static int teardown(void **state)
{
    for (size_t i = 0; i < N_DOCS; i++)
        hm_free(text[i]);
    tmp_release(*state);
    return 0;
}

static struct hm_pack_options defaults(void)
{
    return (struct hm_pack_options){ .seq_len = 32, .bos = true, .eos = true, .seed = 5 };
}

static int pack(const char *dir, const struct hm_pack_options *options, size_t n_docs,
                struct hm_pack_report *ret_report, struct hm_error *err)
{
    struct fixture_texts texts = { (const char *const *)text, NULL, n_docs, 0, 0 };
    struct hm_text_source source = fixture_source(&texts);
    struct hm_text_encoder encoder = fixture_encoder();
    char digest[HM_SHA256_HEX_BYTES];

    HM_TRY(hm_sha256_of("text", 4, digest, err));
    return hm_pack(&source, &encoder, options, digest, dir, NULL, ret_report, err);
}

/* The stream of a file joined again; returns the number of tokens. */
static size_t stream_of(const char *path, int32_t *ids, uint8_t *starts, uint64_t *ret_bytes,
                        uint64_t *ret_chars)
{
    struct hm_packed packed = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_packed_open(path, &packed, &err), err);
    assert_ok(hm_packed_verify(&packed, &err), err);
    *ret_bytes = *ret_chars = 0;
    for (uint64_t i = 0; i < packed.windows; i++) {
        struct hm_window window;
        assert_ok(hm_packed_window(&packed, i, ids + i * packed.seq_len,
                                   starts + i * packed.seq_len, &window, &err),
                  err);
        *ret_bytes += window.utf8_bytes;
        *ret_chars += window.chars;
    }
    size_t count = packed.windows * packed.seq_len;
    hm_packed_close(&packed);
    return count;
}

static void test_stream_is_the_documents(void **state)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report = { 0 };
    struct hm_error err = { 0 };
    int32_t *ids = hm_calloc(HM_MEM_OTHER, 65536, sizeof(*ids));
    uint8_t *starts = hm_calloc(HM_MEM_OTHER, 65536, 1);
    uint64_t bytes, chars, want_bytes = 0, want_chars = 0, seen_docs = 0;
    size_t at = 0;

    options.verify = 3;
    assert_ok(pack(*state, &options, N_DOCS, &report, &err), err);
    size_t count = stream_of(tmp_path(*state, "train.hmp"), ids, starts, &bytes, &chars);
    assert_int_equal(count, report.windows * 32);
    assert_int_equal(count + report.dropped_tokens, report.tokens);
    assert_true(report.dropped_tokens < 32);
    for (size_t i = 0; i < N_DOCS; i++) {
        size_t len = strlen(text[i]);
        want_bytes += len;
        want_chars += hm_utf8_count(hm_str_of(text[i]));
        for (size_t k = 0; k < len + 3 && at < count; k++, at++) {
            bool space = k == 1 || (k >= 2 && k < len + 2 && text[i][k - 2] == ' ');
            int32_t want = k == 0         ? FIXTURE_BOS
                           : k == len + 2 ? FIXTURE_EOS
                           : space        ? FIXTURE_SPACE
                                          : FIXTURE_BYTE0 + (uint8_t)text[i][k - 2];
            assert_int_equal(ids[at], want);
            assert_int_equal(starts[at], k == 0);
        }
        seen_docs++;
    }
    assert_int_equal(report.documents, seen_docs);
    assert_int_equal(report.bytes, want_bytes);
    assert_int_equal(report.chars, want_chars);
    /* the sum over windows: the text without what the first tokens of windows and the remainder
     * stand for */
    uint64_t not_counted = 0, chars_not_counted = 0, dummies = 0;
    for (size_t i = 0; i < count; i += 32) {
        dummies = ids[i] == FIXTURE_SPACE && i > 0 && ids[i - 1] == FIXTURE_BOS;
        not_counted += ids[i] >= FIXTURE_BYTE0 && !dummies;
        chars_not_counted +=
            ids[i] >= FIXTURE_BYTE0 && !dummies && ((ids[i] - FIXTURE_BYTE0) & 0xc0) != 0x80;
    }
    const char *last = text[N_DOCS - 1];
    assert_true(report.dropped_tokens <= strlen(last)); /* eos and bytes of the last document */
    uint64_t rest = report.dropped_tokens - 1;
    assert_int_equal(bytes + not_counted + rest, want_bytes);
    assert_int_equal(chars + chars_not_counted + hm_utf8_count(hm_str_of(last)) -
                         hm_utf8_count((struct hm_str){ last, strlen(last) - rest }),
                     want_chars);
    hm_free(ids);
    hm_free(starts);
}

static void test_same_bytes_for_any_thread_count(void **state)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report[2];
    struct hm_error err = { 0 };
    char *file[2][2];
    size_t len[2][2];

    options.shuffle = true;
    options.shuffle_buffer = 50;
    options.valid_fraction = 0.2;
    for (int i = 0; i < 2; i++) {
        const char *dir = tmp_path(*state, "%d", i);
        hm_threads_set(i + 1);
        assert_ok(pack(dir, &options, N_DOCS, &report[i], &err), err);
        file[i][0] = file_get(tmp_path(dir, "train.hmp"), &len[i][0]);
        file[i][1] = file_get(tmp_path(dir, "valid.hmp"), &len[i][1]);
    }
    assert_memory_equal(&report[0], &report[1], sizeof(report[0]));
    for (int k = 0; k < 2; k++) {
        assert_int_equal(len[0][k], len[1][k]);
        assert_memory_equal(file[0][k], file[1][k], len[0][k]);
        hm_free(file[0][k]);
        hm_free(file[1][k]);
    }
    double share =
        (double)report[0].valid_windows / (double)(report[0].windows + report[0].valid_windows);
    assert_true(share > 0.13 && share < 0.27);
    hm_threads_set(0);
}

/* Documents are told apart by their number, which the text holds: "doc N ". */
static size_t doc_numbers(const char *path, int *number)
{
    int32_t *ids = hm_calloc(HM_MEM_OTHER, 65536, sizeof(*ids));
    uint8_t *starts = hm_calloc(HM_MEM_OTHER, 65536, 1);
    uint64_t bytes, chars;
    size_t n = 0;

    size_t count = stream_of(path, ids, starts, &bytes, &chars);
    for (size_t i = 0; i + 9 < count; i++) {
        if (ids[i] != FIXTURE_BOS)
            continue;
        number[n] = 0;
        for (size_t k = i + 6; ids[k] != FIXTURE_SPACE; k++)
            number[n] = number[n] * 10 + ids[k] - FIXTURE_BYTE0 - '0';
        n++;
    }
    hm_free(ids);
    hm_free(starts);
    return n;
}

static void test_shuffle_and_split(void **state)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report;
    struct hm_error err = { 0 };
    int train[N_DOCS], valid[N_DOCS], valid_again[N_DOCS];
    uint8_t seen[N_DOCS] = { 0 };
    size_t moved = 0;

    options.shuffle = true;
    options.shuffle_buffer = 100;
    options.valid_fraction = 0.2;
    const char *dir = tmp_path(*state, "shuffled");
    assert_ok(pack(dir, &options, N_DOCS, &report, &err), err);
    size_t n_train = doc_numbers(tmp_path(dir, "train.hmp"), train);
    size_t n_valid = doc_numbers(tmp_path(dir, "valid.hmp"), valid);
    assert_true(n_train + n_valid >= N_DOCS - 4);
    for (size_t i = 0; i < n_train + n_valid; i++) {
        int number = i < n_train ? train[i] : valid[i - n_train];
        assert_int_equal(seen[number]++, 0);
    }
    for (size_t i = 1; i < n_train; i++)
        moved += train[i] < train[i - 1];
    assert_true(moved > n_train / 4);
    for (size_t i = 1; i < n_valid; i++)
        assert_true(valid[i] > valid[i - 1]);
    /* another seed: another order, the same split */
    options.seed = 6;
    dir = tmp_path(*state, "other");
    assert_ok(pack(dir, &options, N_DOCS, &report, &err), err);
    assert_int_equal(doc_numbers(tmp_path(dir, "valid.hmp"), valid_again), n_valid);
    assert_memory_equal(valid, valid_again, n_valid * sizeof(*valid));
}

static void test_without_bos_and_eos(void **state)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report;
    struct hm_error err = { 0 };
    int32_t ids[32];
    uint8_t starts[32];
    struct hm_packed packed;
    struct hm_window window;

    options.bos = options.eos = false;
    assert_ok(pack(*state, &options, 20, &report, &err), err);
    assert_ok(hm_packed_open(*state, &packed, &err), err);
    assert_int_equal(packed.vocab_size, FIXTURE_VOCAB);
    assert_int_equal(packed.token_bytes, 2);
    assert_int_equal(strlen(packed.tokenizer), 64);
    assert_int_equal(strlen(packed.text), 64);
    assert_ok(hm_packed_window(&packed, 0, ids, starts, &window, &err), err);
    assert_int_equal(ids[0], FIXTURE_SPACE);
    assert_int_equal(ids[1], FIXTURE_BYTE0 + 'd');
    assert_int_equal(starts[0], 1);
    assert_int_equal(starts[1], 0);
    hm_packed_close(&packed);
}

static void test_refusals(void **state)
{
    struct hm_pack_options options = defaults();
    struct fixture_texts texts = { (const char *const *)text, NULL, N_DOCS, 0, 0 };
    struct hm_text_source source = fixture_source(&texts);
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_pack_report report;
    struct hm_error err = { 0 };

    assert_fails(pack(*state, &options, 0, &report, &err), HM_ERR_FORMAT,
                 "less than one window of seq_len 32 (0 documents", err);
    assert_fails(pack(*state, &options, 1, &report, &err), HM_ERR_FORMAT, "less than one window",
                 err);
    options.valid_fraction = 1e-9;
    assert_fails(pack(*state, &options, N_DOCS, &report, &err), HM_ERR_FORMAT, "valid.hmp", err);
    options.valid_fraction = 1;
    assert_fails(pack(*state, &options, N_DOCS, &report, &err), HM_ERR_USAGE, "below 1", err);
    options.valid_fraction = 0;
    options.seq_len = 1;
    assert_fails(pack(*state, &options, N_DOCS, &report, &err), HM_ERR_USAGE, "seq_len is 1", err);
    options.seq_len = 32;
    encoder.bos_id = -1;
    assert_fails(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err),
                 HM_ERR_USAGE, "bos: false", err);
    encoder.bos_id = FIXTURE_BOS;
    encoder.vocab_size = 100;
    assert_fails(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err),
                 HM_ERR_CHECK, "its vocabulary has 100", err);
    encoder.vocab_size = FIXTURE_VOCAB;
    texts = (struct fixture_texts){ (const char *const *)text, NULL, N_DOCS, 0, 300 };
    assert_fails(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err),
                 HM_ERR_FORMAT, "document 300 is broken", err);
    sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    texts.at = 0;
    assert_fails(hm_pack(&source, &encoder, &options, "", *state, &ctl, &report, &err),
                 HM_ERR_STOPPED, "stopped", err);
    assert_false(hm_path_exists(tmp_path(*state, "train.hmp.tmp")));
    assert_fails(pack("/proc/none", &options, N_DOCS, &report, &err), HM_ERR_IO, "/proc/none", err);
}

/* The first of its ids is wrong in one document: what set.verify is there for. */
static int broken_encode(void *context, struct hm_str doc_text, struct hm_ids *ids,
                         struct hm_error *err)
{
    struct hm_text_encoder encoder = fixture_encoder();

    (void)context;
    HM_TRY(encoder.encode(encoder.context, doc_text, ids, err));
    if (strncmp(doc_text.ptr, "doc 100 ", 8) == 0)
        ids->id[3] = 5;
    return HM_OK;
}

static void test_verify_sees_a_broken_encoder(void **state)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report = { 0 };
    struct hm_error err = { 0 };

    for (uint32_t every = 3; every <= 50; every++) { /* 100 is one of every 2, 4, 5, 10, ... */
        struct fixture_texts texts = { (const char *const *)text, NULL, 200, 0, 0 };
        struct hm_text_source source = fixture_source(&texts);
        struct hm_text_encoder encoder = fixture_encoder();
        encoder.encode = broken_encode;
        options.verify = every;
        options.bpe_dropout = every % 3 ? 0 : 0.3; /* the plain ids are what is verified */
        if (100 % every == 0) {
            assert_fails(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err),
                         HM_ERR_CHECK, "document 100: token 3 differs", err);
        } else {
            assert_ok(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err), err);
            assert_int_equal(report.verified, (200 + every - 1) / every);
        }
    }
}

/* Tokens, and the bytes of both files, with dropout at this rate and seed on so many threads. */
static uint64_t dropped(const char *dir, double rate, uint64_t seed, int threads,
                        uint64_t *ret_hash)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report = { 0 };
    struct hm_error err = { 0 };
    size_t len[2];

    options.bpe_dropout = rate;
    options.seed = seed;
    options.valid_fraction = 0.3;
    hm_threads_set(threads);
    assert_ok(pack(dir, &options, N_DOCS, &report, &err), err);
    hm_threads_set(0);
    char *train = file_get(tmp_path(dir, "train.hmp"), &len[0]);
    char *valid = file_get(tmp_path(dir, "valid.hmp"), &len[1]);
    ret_hash[0] = hm_hash64(train, len[0], 0);
    ret_hash[1] = hm_hash64(valid, len[1], 0);
    hm_free(train);
    hm_free(valid);
    return report.tokens;
}

/* The same bytes for any number of threads, others for another seed; never in valid.hmp. */
static void test_dropout(void **state)
{
    uint64_t plain[2], one[2], three[2], other[2];
    uint64_t without = dropped(*state, 0, 5, 1, plain);
    uint64_t with = dropped(*state, 0.5, 5, 1, one);

    assert_true(with > without * 5 / 4 && with < without * 8 / 5);
    assert_int_equal(dropped(*state, 0.5, 5, 3, three), with);
    assert_memory_equal(one, three, sizeof(one));
    dropped(*state, 0.5, 6, 1, other);
    assert_true(one[0] != other[0] && one[0] != plain[0]);
    assert_true(one[1] == plain[1] && other[1] == plain[1]);
}

static void test_dropout_needs_merges(void **state)
{
    struct hm_pack_options options = defaults();
    struct fixture_texts texts = { (const char *const *)text, NULL, 200, 0, 0 };
    struct hm_text_source source = fixture_source(&texts);
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_pack_report report;
    struct hm_error err = { 0 };

    encoder.encode_dropout = NULL;
    options.bpe_dropout = 0.1;
    assert_fails(hm_pack(&source, &encoder, &options, "", *state, NULL, &report, &err),
                 HM_ERR_USAGE, "bpe_dropout is 0.1", err);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_pack_options options = defaults();
    struct hm_pack_report report;

    options.shuffle = true;
    options.shuffle_buffer = 4;
    options.valid_fraction = 0.5;
    options.verify = 4;
    return pack(context, &options, 12, &report, err);
}

static void test_out_of_memory(void **state)
{
    hm_threads_set(1);
    assert_true(oom_sweep(oom_attempt, *state) > 20);
    hm_threads_set(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_stream_is_the_documents, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_bytes_for_any_thread_count, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shuffle_and_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_bos_and_eos, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_verify_sees_a_broken_encoder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dropout_needs_merges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_out_of_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
