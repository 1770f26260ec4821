/* SPDX-License-Identifier: MIT */
/*
 * vocab/segment_merge.h on its worst cases, counted instead of timed: pairs looked up stay below 4
 * a symbol, each behind at most one way up or down the tournament tree, so that merging is n log n;
 * memory stays below a fixed number of bytes a symbol. Chains of merges with falling and rising
 * ranks, one character, alternating pieces, longest pieces cut short, random symbols.
 */
#include "tiny_model.h"

#include "../../../vocab/segment_merge.h"
#include "hanmix/base/rng.h"

#define PAIRS_A_SYMBOL 4u
#define BYTES_A_SYMBOL 32u /* 2 links of 4, a tree of at most 4 nodes of 4, and what rounds up */

/* Below it a segment is searched from end to end for each merge, which is not counted. */
_Static_assert(HM_SHORT_SYMBOLS <= 64, "the scan of a short segment is bounded");

struct counting {
    const struct hm_piece_table *table;
    size_t pairs, merges;
};

static uint32_t counting_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    struct counting *counting = (struct counting *)(uintptr_t)context;

    counting->pairs++;
    return hm_piece_table_merge(counting->table, left, right, ret_result);
}

static void counting_merged(void *context, int32_t left, int32_t right, int32_t result)
{
    struct counting *counting = context;

    (void)left, (void)right, (void)result;
    counting->merges++;
}

static const struct hm_segment_rule rule = { counting_rank, counting_merged, NULL };

/* The text over and over, up to n symbols. */
static void check_size(const struct hm_piece_table *table, const char *text, size_t n)
{
    struct counting counting = { .table = table };
    int32_t *symbol = hm_alloc_array(HM_MEM_OTHER, n, sizeof(*symbol));
    struct hm_error err = { 0 };
    size_t left = n, at = 0;
    uint32_t code = 0;

    for (size_t i = 0; i < n; i++) {
        at += hm_utf8_decode(text + at, strlen(text) - at, &code);
        symbol[i] = hm_piece_table_symbol(table, code);
        assert_true(symbol[i] >= 0);
        at = text[at] ? at : 0;
    }
    hm_mem_peak_reset();
    uint64_t before = hm_mem_current_bytes(HM_MEM_SCRATCH);
    assert_ok(hm_segment_merge(rule, &counting, symbol, &left, &err), err);
    assert_int_equal(counting.merges, n - left);
    if (counting.pairs > PAIRS_A_SYMBOL * n)
        fail_msg("'%.20s', %zu symbols: %zu pairs looked up", text, n, counting.pairs);
    assert_true(hm_mem_peak_bytes(HM_MEM_SCRATCH) - before <= BYTES_A_SYMBOL * n);
    assert_int_equal(hm_mem_current_bytes(HM_MEM_SCRATCH), before);
    for (size_t i = 0; i + 1 < left; i++) { /* nothing that merges is left */
        int32_t result;
        assert_int_equal(hm_piece_table_merge(table, symbol[i], symbol[i + 1], &result),
                         HM_NO_RANK);
    }
    hm_free(symbol);
}

static void check_pieces(const char *const *pieces, const char *const *texts)
{
    struct hm_buf bytes = tiny_model(pieces, false);
    struct hm_spm_model model = { 0 };
    struct hm_piece_table table = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_parse(buf_str(&bytes), "chains", &model, &err), err);
    assert_ok(hm_piece_table_make(&model, &table, &err), err);
    for (size_t t = 0; texts[t]; t++)
        for (size_t n = 49; n <= 1u << 20; n = n * 5 + 3)
            check_size(&table, texts[t], n);
    hm_piece_table_release(&table);
    hm_spm_model_release(&model);
    hm_buf_release(&bytes);
}

/* Every piece ranks below its halves: rounds of merges over the whole segment. */
static void test_falling_ranks(void **state)
{
    static const char *const pieces[] = {
        "a", "b", "aa", "ab", "ba", "aaaa", "abab", "aaaaaaaa", "abababab", "aaaaaaaaaaaaaaaa", NULL
    };
    static const char *const texts[] = { "a", "ab", "aab", "abb", "aaaaaaaaaaaaaaab", NULL };

    (void)state;
    check_pieces(pieces, texts);
}

/* The longer, the better: each merge makes the next one due, from one end to the other. */
static void test_rising_ranks(void **state)
{
    static const char *const pieces[] = { "aaaaaaaaaaaaaaaa",
                                          "aaaaaaaaaaaaaaa",
                                          "aaaaaaaaaaaaaa",
                                          "aaaaaaaaaaaaa",
                                          "aaaaaaaaaaaa",
                                          "aaaaaaaaaaa",
                                          "aaaaaaaaaa",
                                          "aaaaaaaaa",
                                          "aaaaaaaa",
                                          "aaaaaaa",
                                          "aaaaaa",
                                          "aaaaa",
                                          "aaaa",
                                          "aaa",
                                          "aa",
                                          "abababab",
                                          "ababab",
                                          "abab",
                                          "ab",
                                          "ba",
                                          "a",
                                          "b",
                                          NULL };
    static const char *const texts[] = { "a", "ab", "aaaaaaaaaaaaaaab", "abababa", NULL };

    (void)state;
    check_pieces(pieces, texts);
}

/* Real ranks: runs, text without spaces, longest pieces without their ends, random symbols. */
static void test_real_vocabulary(void **state)
{
    static char cut[4096], random_text[4096];
    static const char *const texts[] = { "=",
                                         "哈",
                                         "-",
                                         "的",
                                         "▁",
                                         "a",
                                         "e",
                                         "在线视频",
                                         cut,
                                         random_text,
                                         "thequickbrownfoxjumpsoverthelazydog",
                                         "ab",
                                         "的人",
                                         NULL };
    struct hm_rng_key key = { 3, 1 };
    struct hm_spm_model model = { 0 };
    struct hm_piece_table table = { 0 };
    struct hm_error err = { 0 };
    size_t n_cut = 0, n_random = 0;

    (void)state;
    assert_ok(
        hm_spm_model_load(golden_path("tokenizers/models/mistral-v1-32000.model"), &model, &err),
        err);
    assert_ok(hm_piece_table_make(&model, &table, &err), err);
    for (size_t i = 300; i < model.count && n_cut < 4000; i++) {
        struct hm_str piece = model.piece[i].text;
        if (piece.len < 14 || hm_utf8_count(piece) != piece.len)
            continue;
        memcpy(cut + n_cut, piece.ptr, piece.len - 1);
        n_cut += piece.len - 1;
    }
    for (uint64_t i = 0; n_random < 4000; i++)
        random_text[n_random++] = (char)('!' + hm_rng_below(key, i, 94));
    for (size_t t = 0; texts[t]; t++)
        for (size_t n = 49; n <= 1u << 18; n = n * 5 + 3)
            check_size(&table, texts[t], n);
    hm_piece_table_release(&table);
    hm_spm_model_release(&model);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_falling_ranks),
                                        cmocka_unit_test(test_rising_ranks),
                                        cmocka_unit_test(test_real_vocabulary) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
