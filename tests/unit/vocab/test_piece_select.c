/* SPDX-License-Identifier: MIT */
/*
 * Choosing pieces from a trained list: every rule for single characters, merges over characters
 * that are not chosen, pieces the base has, lists too short. Expected choices are written out by
 * hand from the rule of the header.
 */
#include "support/support.h"

#include "hanmix/vocab/piece_select.h"

static struct hm_bpe_piece merge[] = {
    { { "一二", 6 }, 90, false },
    { { "三四", 6 }, 50, false },
    { { "一二三", 9 }, 20, false },
    { { "五六", 6 }, 4, false },
};
static struct hm_bpe_piece single[] = {
    { { "一", 3 }, 100, true }, { { "二", 3 }, 95, true }, { { "三", 3 }, 60, true },
    { { "四", 3 }, 55, true },  { { "五", 3 }, 9, true },  { { "六", 3 }, 5, true },
};
static const struct hm_bpe_result trained = {
    .merge = merge, .n_merges = 4, .single = single, .n_singles = 6
};

/* "merges|singles" of a choice, each piece followed by a space; or the error's sentence. */
static int choose(const struct hm_spm_model *base, struct hm_select_options options, char *out,
                  size_t size, struct hm_error *err)
{
    struct hm_selection selection = { 0 };
    size_t len = 0;

    int r = hm_piece_select(&trained, base, &options, &selection, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < selection.n_merges + selection.n_singles; i++)
        len +=
            (size_t)snprintf(out + len, size - len, "%s%.*s ", i == selection.n_merges ? "|" : "",
                             (int)selection.piece[i].text.len, selection.piece[i].text.ptr);
    hm_selection_release(&selection);
    return HM_OK;
}

static void test_auto(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    char out[256];

    /* after the merge at 50 characters from 25 on are in; at 20 from 10 on; at 4 from 2 on */
    assert_ok(choose(NULL, (struct hm_select_options){ .pieces = 6 }, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 三四 |一 二 三 四 ");
    assert_ok(choose(NULL, (struct hm_select_options){ .pieces = 7 }, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 三四 一二三 |一 二 三 四 ");
    assert_ok(choose(NULL, (struct hm_select_options){ .pieces = 10 }, out, sizeof(out), &err),
              err);
    assert_string_equal(out, "一二 三四 一二三 五六 |一 二 三 四 五 六 ");
    assert_fails(choose(NULL, (struct hm_select_options){ .pieces = 11 }, out, sizeof(out), &err),
                 HM_ERR_FORMAT, "11 pieces are wanted", err);
}

/* Where the list ends while the text has more pairs, what is left is not filled with characters:
 * the choice fails until more is trained. Of a text whose pairs are all merged it is filled. */
static void test_auto_at_the_end(void **state)
{
    (void)state;
    static const struct hm_piece pieces[] = { { { "<unk>", 5 }, 0, HM_PIECE_UNKNOWN },
                                              { { "一", 3 }, -1, HM_PIECE_NORMAL },
                                              { { "二", 3 }, -2, HM_PIECE_NORMAL },
                                              { { "一二", 6 }, -3, HM_PIECE_NORMAL },
                                              { { "三四", 6 }, -4, HM_PIECE_NORMAL } };
    struct hm_bpe_result part = { .merge = merge, .n_merges = 2, .single = single, .n_singles = 6 };
    struct hm_select_options three = { .pieces = 3 };
    struct hm_selection selection = { 0 };
    struct hm_spm_model base = { 0 };
    struct hm_buf bytes = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_spm_model_build(pieces, 5, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, "base", &base, &err),
              err);
    assert_fails(hm_piece_select(&part, &base, &three, &selection, &err), HM_ERR_FORMAT,
                 "the text yields only 0 merges", err);
    part.n_merges = 4; /* 一二三 at 20: 三 and 四, not 五 at 9 */
    assert_ok(hm_piece_select(&part, &base, &three, &selection, &err), err);
    assert_int_equal(selection.n_merges, 1);
    assert_int_equal(selection.n_singles, 2);
    hm_selection_release(&selection);
    part.n_merges = 0;
    part.whole = true;
    assert_ok(hm_piece_select(&part, NULL, &three, &selection, &err), err);
    assert_int_equal(selection.n_merges, 0);
    assert_int_equal(selection.n_singles, 3);
    hm_selection_release(&selection);
    hm_spm_model_release(&base);
    hm_buf_release(&bytes);
}

static void test_count_and_all(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    char out[256];

    struct hm_select_options two = { .pieces = 3, .singles = HM_SINGLES_COUNT, .n_singles = 2 };
    assert_ok(choose(NULL, two, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 |一 二 ");
    two.pieces = 6;
    two.n_singles = 3;
    assert_fails(choose(NULL, two, out, sizeof(out), &err), HM_ERR_FORMAT,
                 "6 pieces are wanted, 3 of them single characters; the text yields only 2 merges",
                 err);
    two.pieces = 5; /* 三四 is passed over: 四 is no piece */
    assert_ok(choose(NULL, two, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 一二三 |一 二 三 ");
    two.n_singles = 7;
    assert_fails(choose(NULL, two, out, sizeof(out), &err), HM_ERR_FORMAT, "the text has 6", err);
    two.n_singles = 6;
    assert_fails(choose(NULL, two, out, sizeof(out), &err), HM_ERR_USAGE, "more than pieces", err);
    struct hm_select_options all = { .pieces = 8, .singles = HM_SINGLES_ALL };
    assert_ok(choose(NULL, all, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 三四 |一 二 三 四 五 六 ");
}

static void test_list(void **state)
{
    (void)state;
    struct hm_error err = { 0 };
    char out[256];
    struct hm_select_options list = { .pieces = 4,
                                      .singles = HM_SINGLES_LIST,
                                      .list = hm_str_of("三 一\n龙a三"),
                                      .list_name = "few" };

    assert_fails(choose(NULL, list, out, sizeof(out), &err), HM_ERR_FORMAT,
                 "4 pieces are wanted, 3 of them", err);
    list.list = hm_str_of("龙二一");
    assert_ok(choose(NULL, list, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 |龙 二 一 ");
    list.list =
        hm_str_of("# 三四五 remarks are no characters\n龙#二\n#\n一"); /* # within a line: none */
    assert_ok(choose(NULL, list, out, sizeof(out), &err), err);
    assert_string_equal(out, "一二 |龙 二 一 ");
    list.list = hm_str_of("一二三四五");
    assert_fails(choose(NULL, list, out, sizeof(out), &err), HM_ERR_USAGE,
                 "5 single characters of the list are more than pieces, 4", err);
    list.list = hm_str_of("\xff");
    assert_fails(choose(NULL, list, out, sizeof(out), &err), HM_ERR_FORMAT,
                 "'few': the list of single characters is not UTF-8 at byte 0", err);
}

/* The list that is shipped: three levels of the standard, in its order, no character twice; those
 * the text never shows are pieces of count 0. */
static void test_standard(void **state)
{
    (void)state;
    static const size_t level[] = { 3500, 3000, 1605 };
    size_t len = 0, n = 0, in_level[4] = { 0 };
    char *text = file_get(STANDARD_CHARACTERS, &len);
    struct hm_selection selection = { 0 };
    struct hm_error err = { 0 };
    struct hm_select_options options = { .pieces = 8109,
                                         .singles = HM_SINGLES_LIST,
                                         .list = { text, len } };

    for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
        struct hm_str row = { line, strcspn(line, "\n") };
        if (strncmp(line, "# ", 2) != 0)
            in_level[n] += hm_utf8_count(row);
        else if (strstr(line, ", level ") && strstr(line, ", level ") < line + row.len)
            n++;
    }
    assert_int_equal(n, 3);
    assert_int_equal(in_level[0], 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(in_level[i + 1], level[i]);
    assert_ok(hm_piece_select(&trained, NULL, &options, &selection, &err), err);
    assert_int_equal(selection.n_merges, 4);
    assert_int_equal(selection.n_singles, 8105);
    const struct hm_bpe_piece *first = selection.piece + 4;
    assert_true(hm_str_equal(first[0].text, hm_str_of("一")));
    assert_int_equal(first[0].count, 100);
    assert_true(hm_str_equal(first[1].text, hm_str_of("乙")));
    assert_int_equal(first[1].count, 0);
    assert_true(hm_str_equal(first[8104].text, hm_str_of("\xe8\xa0\xbc")));
    hm_selection_release(&selection);
    options.pieces = 8000;
    assert_fails(hm_piece_select(&trained, NULL, &options, &selection, &err), HM_ERR_USAGE,
                 "8105 single characters of the list are more than pieces, 8000", err);
    hm_free(text);
}

static void test_base(void **state)
{
    (void)state;
    static const struct hm_piece pieces[] = { { { "<unk>", 5 }, 0, HM_PIECE_UNKNOWN },
                                              { { "一", 3 }, -1, HM_PIECE_NORMAL },
                                              { { "二", 3 }, -2, HM_PIECE_NORMAL },
                                              { { "一二", 6 }, -3, HM_PIECE_NORMAL } };
    struct hm_spm_model base = { 0 };
    struct hm_error err = { 0 };
    struct hm_buf bytes = { 0 };
    char out[256];

    assert_ok(hm_spm_model_build(pieces, 4, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, "base", &base, &err),
              err);
    assert_ok(choose(&base, (struct hm_select_options){ .pieces = 4 }, out, sizeof(out), &err),
              err);
    assert_string_equal(out, "三四 一二三 |三 四 ");
    hm_spm_model_release(&base);
    hm_buf_release(&bytes);
}

/* Kana are of the Han class and so are trained; the merge into a base drops them, so with one they
 * count towards nothing. */
static void test_kana(void **state)
{
    (void)state;
    static struct hm_bpe_piece kana_merge[] = {
        { { "ライ", 6 }, 90, false },   { { "の中", 6 }, 80, false },
        { { "ライ中", 9 }, 70, false }, /* of ライ, which a base drops, and 中 */
        { { "一二", 6 }, 50, false },   { { "ソ一", 6 }, 20, false },
    };
    static struct hm_bpe_piece kana_single[] = { { { "ソ", 3 }, 99, true },
                                                 { { "一", 3 }, 60, true },
                                                 { { "二", 3 }, 55, true },
                                                 { { "中", 3 }, 50, true } };
    static const struct hm_bpe_result of_kana = {
        .merge = kana_merge, .n_merges = 5, .single = kana_single, .n_singles = 4
    };
    static const struct hm_piece pieces[] = { { { "<unk>", 5 }, 0, HM_PIECE_UNKNOWN },
                                              { { "ラ", 3 }, -1, HM_PIECE_NORMAL },
                                              { { "イ", 3 }, -2, HM_PIECE_NORMAL },
                                              { { "の", 3 }, -3, HM_PIECE_NORMAL } };
    static const struct hm_select_options options[] = {
        { .pieces = 5, .singles = HM_SINGLES_AUTO },
        { .pieces = 5, .singles = HM_SINGLES_ALL },
        { .pieces = 5, .singles = HM_SINGLES_COUNT, .n_singles = 3 },
        { .pieces = 5, .singles = HM_SINGLES_LIST, .list = { "ソ一二中ー", 15 } },
    };
    struct hm_spm_model base = { 0 };
    struct hm_selection selection = { 0 };
    struct hm_error err = { 0 };
    struct hm_buf bytes = { 0 };

    assert_ok(hm_spm_model_build(pieces, 4, false, &bytes, &err), err);
    assert_ok(hm_spm_model_parse((struct hm_str){ bytes.ptr, bytes.len }, "base", &base, &err),
              err);
    for (size_t i = 0; i < 4; i++) {
        assert_ok(hm_piece_select(&of_kana, &base, &options[i], &selection, &err), err);
        assert_int_equal(selection.n_merges, 2);
        assert_int_equal(selection.n_singles, 3);
        assert_true(hm_str_equal(selection.piece[0].text, hm_str_of("の中")));
        assert_true(hm_str_equal(selection.piece[1].text, hm_str_of("一二")));
        assert_true(hm_str_equal(selection.piece[2].text, hm_str_of("一")));
        hm_selection_release(&selection);
    }
    const struct hm_select_options alone = { .pieces = 6, .singles = HM_SINGLES_ALL };
    assert_ok(hm_piece_select(&of_kana, NULL, &alone, &selection, &err), err);
    assert_int_equal(selection.n_singles, 4); /* no base: the library's list as it is */
    assert_true(hm_str_equal(selection.piece[2].text, hm_str_of("ソ")));
    hm_selection_release(&selection);
    kana_merge[1].text = hm_str_of("イ中"); /* another cut of ライ中, taken before it */
    assert_ok(hm_piece_select(&of_kana, &base,
                              &(struct hm_select_options){
                                  .pieces = 5, .singles = HM_SINGLES_COUNT, .n_singles = 3 },
                              &selection, &err),
              err);
    assert_true(hm_str_equal(selection.piece[1].text, hm_str_of("ライ中")));
    hm_selection_release(&selection);
    hm_spm_model_release(&base);
    hm_buf_release(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto),          cmocka_unit_test(test_auto_at_the_end),
        cmocka_unit_test(test_count_and_all), cmocka_unit_test(test_list),
        cmocka_unit_test(test_standard),      cmocka_unit_test(test_base),
        cmocka_unit_test(test_kana),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
