/* SPDX-License-Identifier: MIT */
/*
 * eval/loss_windows.c over a model whose loss tells what a token was scored with: 1000 times its id
 * plus the tokens seen before it.
 */
#include "support/support.h"
#include "support/text_fixture.h"

#include <math.h>

#include "hanmix/eval/eval.h"

struct hm_model {
    struct hm_arch arch;
    uint64_t calls, longest;
    bool fail;
};

const struct hm_arch *hm_model_arch(const struct hm_model *model)
{
    return &model->arch;
}

int hm_workspace_new(struct hm_model *model, uint32_t rows, uint32_t seq_len, bool backward,
                     bool recompute, struct hm_workspace **ret, struct hm_error *err)
{
    (void)model;
    assert_true(!backward && !recompute && rows == 1);
    *ret = hm_alloc(HM_MEM_SCRATCH, seq_len);
    return *ret ? HM_OK : hm_fail(err, HM_ERR_NOMEM, "out of memory for a workspace");
}

void hm_workspace_free(struct hm_workspace *workspace)
{
    hm_free(workspace);
}

int hm_model_step(struct hm_model *model, struct hm_workspace *workspace,
                  const struct hm_batch *batch, const struct hm_step_options *options,
                  struct hm_step_result *ret_result, struct hm_error *err)
{
    uint32_t seen = 0;

    (void)workspace;
    if (model->fail)
        return hm_fail(err, HM_ERR_NUMERIC, "the loss is NaN");
    assert_true(!options->backward && !options->train);
    for (uint32_t t = 0; t < batch->seq_len; t++) {
        assert_true(batch->ids[t] >= 0 && batch->ids[t] < FIXTURE_VOCAB);
        seen = batch->doc_start[t] ? 1 : seen + 1;
        options->token_loss_out[t] = t + 1 < batch->seq_len ? 1000.0 * batch->ids[t + 1] + seen : 0;
    }
    model->calls++;
    if (batch->seq_len > model->longest)
        model->longest = batch->seq_len;
    *ret_result = (struct hm_step_result){ 0 };
    return HM_OK;
}

static const char *const text[] = { "a first text that needs several windows when these are short",
                                    "\xe4\xb8\xad\xe6\x96\x87",
                                    "",
                                    "the other set has one",
                                    "and another one here",
                                    "x" };
static const char *const set_name[] = { "en", "zh", "zh", "more", "more", "more" };
#define N_TEXTS 6

struct expected {
    double loss;
    uint64_t tokens, bytes, chars, documents;
};

/* By definition: token i of a document (bos is token 0) is seen with the most context that a window
 * has for it. */
static struct expected expect(const char *set, uint32_t window, uint32_t step)
{
    struct expected sum = { 0 };

    for (size_t i = 0; i < N_TEXTS; i++) {
        size_t len = strlen(text[i]), n = len > 0 ? len + 2 : 1;
        if (strcmp(set_name[i], set) != 0)
            continue;
        for (size_t t = 1; t < n; t++) {
            int32_t id = t == 1 || text[i][t - 2] == ' ' ? FIXTURE_SPACE
                                                         : FIXTURE_BYTE0 + (uint8_t)text[i][t - 2];
            size_t first = 0;
            while (first + window <= t) /* the first window that holds it */
                first += step;
            sum.loss += 1000.0 * id + (double)(t - first);
            sum.tokens++;
        }
        sum.bytes += len;
        sum.chars += hm_utf8_count(hm_str_of(text[i]));
        sum.documents++;
    }
    return sum;
}

static void check_set(const struct hm_loss_set *found, const char *name, uint32_t window,
                      uint32_t step)
{
    struct expected want = expect(name, window, step);

    assert_string_equal(found->name, name);
    assert_int_equal(found->documents, want.documents);
    assert_int_equal(found->tokens, want.tokens);
    assert_int_equal(found->bytes, want.bytes);
    assert_int_equal(found->chars, want.chars);
    assert_true(fabs(found->nats_per_token - want.loss / (double)want.tokens) < 1e-6);
    assert_true(fabs(found->bits_per_byte - want.loss / log(2) / (double)want.bytes) < 1e-6);
    assert_true(fabs(found->bits_per_char - want.loss / log(2) / (double)want.chars) < 1e-6);
    assert_true(found->low <= found->bits_per_byte && found->bits_per_byte <= found->high);
}

static int score(struct hm_model *model, uint32_t window, uint32_t stride, size_t count,
                 struct hm_loss_set **ret_sets, size_t *ret_n, const struct hm_ctl *ctl,
                 struct hm_error *err)
{
    struct fixture_texts texts = { text, set_name, count, 0, 0 };
    struct hm_text_source source = fixture_source(&texts);
    struct hm_text_encoder encoder = fixture_encoder();

    return hm_eval_loss_text(model, &source, &encoder, window, stride, ctl, ret_sets, ret_n, err);
}

static void test_every_token_once(void **state)
{
    static const uint32_t cases[][3] = { /* window, stride, step between windows */
                                         { 1000, 500, 500 }, { 16, 8, 8 },  { 16, 15, 15 },
                                         { 16, 16, 15 },     { 7, 1, 1 },   { 2, 1, 1 },
                                         { 62, 10, 10 },     { 63, 10, 10 }
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct hm_model model = { .arch = { .vocab_size = FIXTURE_VOCAB } };
        struct hm_loss_set *sets = NULL;
        struct hm_error err = { 0 };
        size_t n = 0;
        assert_ok(score(&model, cases[i][0], cases[i][1], N_TEXTS, &sets, &n, NULL, &err), err);
        assert_int_equal(n, 3);
        check_set(&sets[0], "en", cases[i][0], cases[i][2]);
        check_set(&sets[1], "zh", cases[i][0], cases[i][2]);
        check_set(&sets[2], "more", cases[i][0], cases[i][2]);
        assert_true(model.longest <= hm_eval_sequence(cases[i][0]));
        if (cases[i][0] == 1000)
            assert_int_equal(model.calls, 1); /* short documents side by side */
        hm_loss_sets_free(sets, n);
    }
}

static void test_packed(void **state)
{
    char *dir = tmp_new();
    struct fixture_texts texts = { text, NULL, N_TEXTS, 0, 0 };
    struct hm_text_source source = fixture_source(&texts);
    struct hm_text_encoder encoder = fixture_encoder();
    struct hm_pack_options options = { .seq_len = 20, .bos = true };
    struct hm_pack_report report;
    struct hm_model model = { .arch = { .vocab_size = FIXTURE_VOCAB } };
    struct hm_loss_set set;
    struct hm_packed packed;
    struct hm_error err = { 0 };
    double loss = 0;
    uint64_t bytes = 0, chars = 0;

    (void)state;
    assert_ok(hm_pack(&source, &encoder, &options, "", dir, NULL, &report, &err), err);
    assert_ok(hm_packed_open(dir, &packed, &err), err);
    for (uint64_t i = 0; i < packed.windows; i++) {
        int32_t ids[20];
        struct hm_window window;
        assert_ok(hm_packed_window(&packed, i, ids, NULL, &window, &err), err);
        for (int t = 1; t < 20; t++)
            loss += 1000.0 * ids[t] + t;
        bytes += window.utf8_bytes;
        chars += window.chars;
    }
    assert_ok(hm_eval_loss_packed(&model, &packed, "valid", NULL, &set, &err), err);
    assert_string_equal(set.name, "valid");
    assert_int_equal(set.documents, packed.windows);
    assert_int_equal(set.tokens, packed.windows * 19);
    assert_int_equal(set.bytes, bytes);
    assert_int_equal(set.chars, chars);
    assert_true(fabs(set.nats_per_token - loss / (double)(packed.windows * 19)) < 1e-6);
    assert_true(fabs(set.bits_per_byte - loss / log(2) / (double)bytes) < 1e-6);
    hm_free(set.name);
    model.fail = true;
    assert_fails(hm_eval_loss_packed(&model, &packed, "valid", NULL, &set, &err), HM_ERR_NUMERIC,
                 "windows 0 to 4: the loss is NaN", err);
    model.arch.vocab_size = 100;
    assert_fails(hm_eval_loss_packed(&model, &packed, "valid", NULL, &set, &err), HM_ERR_FORMAT,
                 "vocabulary of 260 pieces, the model embeds 100", err);
    hm_packed_close(&packed);
    tmp_release(dir);
}

static void test_refusals(void **state)
{
    struct hm_model model = { .arch = { .vocab_size = FIXTURE_VOCAB } };
    struct hm_text_encoder encoder = fixture_encoder();
    struct fixture_texts texts = { text, set_name, N_TEXTS, 0, 3 };
    struct hm_text_source source = fixture_source(&texts);
    struct hm_loss_set *sets = NULL;
    struct hm_error err = { 0 };
    sig_atomic_t stop = 1;
    struct hm_ctl ctl = { .stop = &stop };
    size_t n = 0;

    (void)state;
    assert_fails(score(&model, 1, 1, N_TEXTS, &sets, &n, NULL, &err), HM_ERR_USAGE, "window is 1",
                 err);
    assert_fails(score(&model, 8, 0, N_TEXTS, &sets, &n, NULL, &err), HM_ERR_USAGE, "stride is 0",
                 err);
    assert_fails(score(&model, 8, 8, 0, &sets, &n, NULL, &err), HM_ERR_FORMAT, "holds no document",
                 err);
    assert_fails(score(&model, 8, 8, N_TEXTS, &sets, &n, &ctl, &err), HM_ERR_STOPPED, "stopped",
                 err);
    assert_fails(hm_eval_loss_text(&model, &source, &encoder, 8, 8, NULL, &sets, &n, &err),
                 HM_ERR_FORMAT, "document 3 is broken", err);
    encoder.bos_id = -1;
    assert_fails(hm_eval_loss_text(&model, &source, &encoder, 8, 8, NULL, &sets, &n, &err),
                 HM_ERR_USAGE, "no bos", err);
    model.arch.vocab_size = 200;
    assert_fails(score(&model, 8, 8, N_TEXTS, &sets, &n, NULL, &err), HM_ERR_FORMAT,
                 "'tokenizer' has a vocabulary of 260", err);
    assert_null(sets);
}

static int oom_attempt(void *context, struct hm_error *err)
{
    struct hm_model model = { .arch = { .vocab_size = FIXTURE_VOCAB } };
    struct hm_loss_set *sets = NULL;
    size_t n = 0;

    (void)context;
    HM_TRY(score(&model, 9, 4, N_TEXTS, &sets, &n, NULL, err));
    hm_loss_sets_free(sets, n);
    return HM_OK;
}

static void test_out_of_memory(void **state)
{
    (void)state;
    assert_true(oom_sweep(oom_attempt, NULL) > 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_token_once),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_out_of_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
