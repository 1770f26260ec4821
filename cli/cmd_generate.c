/* SPDX-License-Identifier: MIT */
/*
 * The verb generate: a prompt continued on standard output, token by token or as one JSON object,
 * with or without an adapter; how fast it went on standard error.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/model/generate.h"
#include "hanmix/vocab/tokenizer.h"

#define VOCAB_BYTES      ((uint64_t)24 << 20) /* the tokenizer in memory */
#define PROMPT_MAX_BYTES (16u << 20)
#define UNSET            UINT64_MAX
#define MAX_TOKENS       128u /* unless told, or fewer where the model has fewer positions left */

struct generation {
    const char *model_dir, *adapter_dir, *tokenizer_path, *prompt, *prompt_file, *compute;
    uint64_t max_tokens, top_k, seed, threads, ram;
    double temperature, top_p;
    bool json, quiet;
    enum hm_round round;
    struct hm_kernels table;
    struct hm_model *model;
    struct hm_adapter *adapter;
    struct hm_tokenizer *tokenizer;
    struct hm_ids ids;         /* prompt and what came after */
    size_t n_prompt, made;     /* made: the end of the text counts */
    double *logprob;           /* [max_tokens] */
    double began, first, last; /* seconds; of the first and the last token made */
    struct hm_buf text;        /* of ids, as far as printed */
    size_t printed;
    struct hm_error *err; /* of the callback */
    int status;
};

static void generation_release(struct generation *run)
{
    hm_adapter_free(run->adapter);
    hm_model_free(run->model);
    hm_tokenizer_free(run->tokenizer);
    hm_ids_release(&run->ids);
    hm_buf_release(&run->text);
    hm_free(run->logprob);
}

/* How much of the text is whole characters: byte tokens may leave the last one open. */
static size_t whole_bytes(struct hm_str text)
{
    for (size_t back = 1; back <= 3 && back <= text.len; back++) {
        unsigned char c = (unsigned char)text.ptr[text.len - back];
        if ((c & 0xc0) == 0x80)
            continue;
        size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        return length > back ? text.len - back : text.len;
    }
    return text.len;
}

/* Decode all ids again and print what is new: spaces depend on what stands before. */
static int show(struct generation *run, bool all, struct hm_error *err)
{
    hm_buf_clear(&run->text);
    HM_TRY(hm_tokenizer_decode(run->tokenizer, run->ids.id, run->ids.count, &run->text, err));
    if (run->json)
        return HM_OK;
    size_t end = all ? run->text.len : whole_bytes((struct hm_str){ run->text.ptr, run->text.len });
    if (end > run->printed) {
        fwrite(run->text.ptr + run->printed, 1, end - run->printed, stdout);
        run->printed = end;
        return hm_print_flush(err);
    }
    return HM_OK;
}

static int on_token(void *context, int32_t id, double logprob)
{
    struct generation *run = context;

    run->last = hm_clock_seconds();
    if (run->made == 0)
        run->first = run->last;
    run->logprob[run->made++] = logprob;
    if (id == run->tokenizer->model.eos_id)
        return 0;
    run->status = hm_ids_append(&run->ids, &id, 1, run->err);
    if (run->status == HM_OK && !run->json)
        run->status = show(run, false, run->err);
    return run->status < 0;
}

/* --compute, or what the weights are made for: bf16 for 4 bits, else f32. */
static int round_choose(struct generation *run, struct hm_error *err)
{
    struct hm_checkpoint ckpt;

    if (run->compute) {
        run->round = strcmp(run->compute, "bf16") == 0 ? HM_ROUND_BF16 : HM_ROUND_NONE;
        return HM_OK;
    }
    HM_TRY(hm_checkpoint_open(run->model_dir, &ckpt, err));
    run->round = ckpt.arch.quant.present ? HM_ROUND_BF16 : HM_ROUND_NONE;
    hm_checkpoint_close(&ckpt);
    return HM_OK;
}

static int open_all(struct generation *run, struct hm_error *err)
{
    HM_TRY(round_choose(run, err));
    HM_TRY(hm_kernels_choose(&run->table, NULL, err));
    struct hm_model_options options = { .kernels = &run->table,
                                        .round = run->round,
                                        .check_finite = true };
    HM_TRY(hm_model_open(run->model_dir, &options, &run->model, err));
    HM_TRY(hm_tokenizer_open(run->tokenizer_path ? run->tokenizer_path : run->model_dir,
                             &run->tokenizer, err));
    HM_TRY(hm_arch_vocab_check(hm_model_arch(run->model), run->tokenizer->model.count,
                               run->tokenizer->model.path, err));
    if (!run->adapter_dir)
        return HM_OK;
    HM_TRY(hm_adapter_load(run->adapter_dir, hm_model_checkpoint(run->model), false, &run->adapter,
                           err));
    hm_model_attach(run->model, run->adapter);
    return HM_OK;
}

static int read_prompt(struct generation *run, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    int32_t bos = run->tokenizer->model.bos_id;
    int status = HM_OK;

    if (bos >= 0)
        HM_TRY(hm_ids_append(&run->ids, &bos, 1, err));
    if (run->prompt_file)
        status = hm_file_read(run->prompt_file, PROMPT_MAX_BYTES, &text, err);
    else
        status = hm_buf_text(&text, run->prompt, err);
    if (status == HM_OK)
        status = hm_tokenizer_encode(run->tokenizer, (struct hm_str){ text.ptr, text.len },
                                     &run->ids, err);
    hm_buf_release(&text);
    if (status == HM_OK && run->ids.count == 0)
        status = hm_fail(err, HM_ERR_USAGE, "the prompt is empty");
    return status;
}

/* --ram: weights that do not fit beside the rest are read ahead and dropped behind. */
static int ram_limit(const struct generation *run, struct hm_error *err)
{
    const struct hm_arch *arch = hm_model_arch(run->model);
    uint64_t adapter = run->adapter ? hm_adapter_param_count(run->adapter) * sizeof(float) : 0;
    struct hm_memory_plan plan;

    if (run->ram == 0)
        return HM_OK;
    HM_TRY(hm_memory_plan_generate(arch, run->ids.count, (uint32_t)run->max_tokens,
                                   hm_model_packs(&run->table, run->round), hm_threads(), &plan,
                                   err));
    uint64_t least =
        hm_memory_plan_limit(&plan, arch, run->ids.count, false, adapter + VOCAB_BYTES, run->ram);
    if (least > run->ram)
        return hm_fail(err, HM_ERR_NOFIT,
                       "'%s': --ram allows %.1f MiB, at least %.1f MiB are needed; raise it to "
                       "%" PRIu64 "M or leave it out",
                       run->model_dir, (double)run->ram / 1048576, (double)least / 1048576,
                       (least >> 20) + 1);
    return plan.weights_budget > 0 ? hm_model_stream(run->model, plan.weights_budget, err) : HM_OK;
}

/* How many tokens are made, and that the model has positions for them. */
static int positions_check(struct generation *run, struct hm_error *err)
{
    const uint64_t positions = hm_model_arch(run->model)->max_positions;
    const size_t n = run->ids.count;

    if (n >= positions)
        return hm_fail(err, HM_ERR_USAGE,
                       "'%s': the prompt has %zu tokens, the model %" PRIu64
                       " positions (max_position_embeddings); at least one must be left",
                       run->model_dir, n, positions);
    if (run->max_tokens == UNSET)
        run->max_tokens = hm_least(MAX_TOKENS, positions - n);
    if (run->max_tokens > positions - n)
        return hm_fail(err, HM_ERR_USAGE,
                       "'%s': a prompt of %zu tokens and %" PRIu64
                       " new ones do not fit the model's %" PRIu64
                       " positions (max_position_embeddings); --max-tokens: at most %" PRIu64,
                       run->model_dir, n, run->max_tokens, positions, positions - n);
    return HM_OK;
}

/* --- results ---------------------------------------------------------------------------------- */

/* Tokens a second, up to the first one made and after it; 0 where none was. */
static double prompt_rate(const struct generation *run)
{
    return run->made > 0 ? (double)run->n_prompt / (run->first - run->began) : 0;
}

static double made_rate(const struct generation *run)
{
    return run->made > 1 ? (double)(run->made - 1) / (run->last - run->first) : 0;
}

static void print_speed(const struct generation *run)
{
    if (run->quiet || run->made == 0)
        return;
    fprintf(stderr, "prompt: %zu tokens, %.1f tokens/s", run->n_prompt, prompt_rate(run));
    if (run->made > 1)
        fprintf(stderr, "; generated: %zu tokens, %.1f tokens/s", run->made, made_rate(run));
    fputc('\n', stderr);
}

/* The text as far as it is characters: an end that was cut within one is left out. */
static int print_result(struct generation *run, struct hm_error *err)
{
    const bool ended = run->ids.count < run->n_prompt + run->made;
    json_t *ids = json_array(), *logprobs = json_array();
    struct hm_str text = { run->text.ptr, run->text.len };
    size_t bad = text.len;
    int failed = !ids || !logprobs;

    for (size_t i = run->n_prompt; i < run->ids.count && !failed; i++)
        failed = json_array_append_new(ids, json_integer(run->ids.id[i])) ||
                 json_array_append_new(logprobs, json_real(run->logprob[i - run->n_prompt]));
    if (!hm_utf8_valid(text, &bad))
        text.len = bad;
    json_t *value =
        failed ? NULL
               : json_pack("{s:s%, s:I, s:O, s:O, s:s, s:f, s:f}", "text", text.ptr ? text.ptr : "",
                           text.len, "prompt_tokens", (json_int_t)run->n_prompt, "ids", ids,
                           "logprobs", logprobs, "finish", ended ? "end_of_text" : "max_tokens",
                           "prompt_tokens_per_s", prompt_rate(run), "tokens_per_s", made_rate(run));
    json_decref(ids);
    json_decref(logprobs);
    return value ? hm_print_json(value, err) : hm_fail_nomem(err, "for the result");
}

/* --- the verb --------------------------------------------------------------------------------- */

/* The prompt is a copy: ids grow while it is read. */
static int run_prompt(struct generation *run, const struct hm_ctl *ctl, struct hm_error *err)
{
    const struct hm_generate_options options = {
        .max_tokens = (uint32_t)run->max_tokens,
        .temperature = run->temperature,
        .top_k = (uint32_t)run->top_k,
        .top_p = run->top_p,
        .seed = run->seed,
        .eos_id = run->tokenizer->model.eos_id,
    };
    int32_t *prompt = hm_alloc_array(HM_MEM_TEXT, run->n_prompt, sizeof(*prompt));

    run->logprob = hm_alloc_array(HM_MEM_TEXT, run->max_tokens + 1, sizeof(*run->logprob));
    if (!prompt || !run->logprob) {
        hm_free(prompt);
        return hm_fail_nomem(err, "for a prompt of %zu tokens", run->n_prompt);
    }
    memcpy(prompt, run->ids.id, run->n_prompt * sizeof(*prompt));
    run->err = err;
    run->began = hm_clock_seconds();
    int status = hm_generate(run->model, prompt, run->n_prompt, &options, on_token, run, ctl, err);
    hm_free(prompt);
    return run->status < 0 ? run->status : status;
}

static int generate(struct generation *run, const struct hm_ctl *ctl, struct hm_error *err)
{
    HM_TRY(open_all(run, err));
    HM_TRY(read_prompt(run, err));
    HM_TRY(positions_check(run, err));
    HM_TRY(ram_limit(run, err));
    HM_TRY(show(run, false, err));
    run->n_prompt = run->ids.count;
    int status = run_prompt(run, ctl, err);
    if (run->status < 0)
        return status;
    if (status == HM_OK)
        status = show(run, true, err);
    if (!run->json)
        putchar('\n');
    HM_TRY(status);
    HM_TRY(run->json ? print_result(run, err) : hm_print_flush(err));
    print_speed(run);
    return HM_OK;
}

static int check(const struct generation *run, struct hm_error *err)
{
    if (!run->model_dir)
        return hm_fail(err, HM_ERR_USAGE, "generate: --model DIR is missing");
    if (!run->prompt == !run->prompt_file)
        return hm_fail(err, HM_ERR_USAGE, "generate: give --prompt TEXT or --prompt-file FILE");
    if (run->max_tokens != UNSET && run->max_tokens > 1000000)
        return hm_fail(err, HM_ERR_USAGE, "--max-tokens: at most 1000000");
    if (run->top_k > UINT32_MAX)
        return hm_fail(err, HM_ERR_USAGE, "--top-k: at most %" PRIu32 " (0: all tokens)",
                       UINT32_MAX);
    if (run->temperature < 0 || run->temperature > 100)
        return hm_fail(err, HM_ERR_USAGE, "--temperature: from 0 (greedy) to 100");
    if (run->top_p <= 0 || run->top_p > 1)
        return hm_fail(err, HM_ERR_USAGE, "--top-p: above 0 and at most 1");
    if (run->compute && strcmp(run->compute, "bf16") != 0 && strcmp(run->compute, "f32") != 0)
        return hm_fail(err, HM_ERR_USAGE, "--compute: '%s' is neither bf16 nor f32", run->compute);
    if (run->threads > 4096)
        return hm_fail(err, HM_ERR_USAGE, "--threads: at most 4096");
    return HM_OK;
}

int hm_cmd_generate(int argc, char **argv, struct hm_error *err)
{
    struct hm_terminal terminal = { 0 };
    struct hm_ctl ctl = hm_terminal_ctl(&terminal);
    struct generation run = { .max_tokens = UNSET, .seed = 1, .top_p = 1 };
    const struct hm_arg table[] = {
        { "model", HM_ARG_TEXT, &run.model_dir },
        { "adapter", HM_ARG_TEXT, &run.adapter_dir },
        { "tokenizer", HM_ARG_TEXT, &run.tokenizer_path },
        { "prompt", HM_ARG_TEXT, &run.prompt },
        { "prompt-file", HM_ARG_TEXT, &run.prompt_file },
        { "max-tokens", HM_ARG_COUNT, &run.max_tokens },
        { "temperature", HM_ARG_DOUBLE, &run.temperature },
        { "top-k", HM_ARG_COUNT, &run.top_k },
        { "top-p", HM_ARG_DOUBLE, &run.top_p },
        { "seed", HM_ARG_COUNT, &run.seed },
        { "compute", HM_ARG_TEXT, &run.compute },
        { "threads", HM_ARG_COUNT, &run.threads },
        { "ram", HM_ARG_SIZE, &run.ram },
        { "json", HM_ARG_FLAG, &run.json },
        { "quiet", HM_ARG_FLAG, &run.quiet },
    };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    HM_TRY(hm_args_count(argv[0], words, 0, 0, err));
    HM_TRY(check(&run, err));
    hm_threads_set((int)run.threads);
    terminal.quiet = run.quiet;
    ctl.progress = NULL; /* the text itself is the progress */
    int status = generate(&run, &ctl, err);
    generation_release(&run);
    return status;
}
