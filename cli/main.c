/* SPDX-License-Identifier: MIT */
/*
 * The program: the table of verbs, help, and the exit code.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "hanmix/recipes/recipe.h"

const struct hm_verb hm_verbs[] = {
    { "run", "run the stages of a recipe; finished ones are skipped, a stopped run continues",
      "run RECIPE [key=value ...] [--run-dir DIR] [--until ID] [--only ID] [--dry-run] [--threads "
      "N] "
      "[--quiet]",
      "key=value overrides by path: stage id, then in or set, then key.\n"
      "example: hanmix run recipes/quickstart.yaml lora.set.rank=4 --run-dir runs/r4\n",
      hm_cmd_run },
    { "plan", "tell order, skips, memory by purpose and disk; nothing is written",
      "plan RECIPE [key=value ...] [--run-dir DIR] [--memory 24G] [--bench] [--ranks 1] [--json]",
      "--memory 24G: exit 3 when a stage needs more, with the cheapest change that would make it "
      "fit.\n"
      "--bench: run real training steps for up to a minute, predict seconds per step and the "
      "finish.\n"
      "example: hanmix plan recipes/quickstart.yaml --memory 2G\n",
      hm_cmd_plan },
    { "validate", "check keys, values, references, paths and cycles of a recipe",
      "validate RECIPE [key=value ...]", "example: hanmix validate recipes/quickstart.yaml\n",
      hm_cmd_validate },
    { "stage", "run one stage alone, or tell its inputs and settings",
      "stage NAME in.KEY=VALUE ... set.KEY=VALUE ... --out DIR [--threads N] [--dry-run] "
      "[--quiet]\n"
      "stage NAME --help\n"
      "stage",
      "Without a name: all stages.\n"
      "example: hanmix stage vocab.train in.text='zh*.jsonl.zst' set.pieces=8000 --out zh\n",
      hm_cmd_stage },
    { "status", "tell the state of the stages of a run folder", "status RUN_DIR [--json]",
      "example: hanmix status runs/quickstart\n", hm_cmd_status },
    { "verify", "compare every file of a run folder with the SHA-256 in its manifest",
      "verify RUN_DIR", "Exit 1 when a file differs or is missing.\n", hm_cmd_verify },
    { "recipes", "list, show or copy the recipes that come with the program",
      "recipes [list | show NAME | copy NAME [FILE]]", "example: hanmix recipes copy quickstart\n",
      hm_cmd_recipes },
    { "inspect",
      "describe a model, safetensors file, adapter, tokenizer, packed data or run folder",
      "inspect PATH [--json] [--tensors]",
      "example: hanmix inspect runs/quickstart/nf4 --tensors\n", hm_cmd_inspect },
    { "encode", "turn lines of text into lines of token ids",
      "encode --tokenizer FILE [--pieces] [--bos] < TEXT",
      "FILE is a .model file, a tokenizer.json, or a folder with one of them; "
      "--pieces prints pieces instead of ids.\n",
      hm_cmd_encode },
    { "decode", "turn lines of token ids into lines of text", "decode --tokenizer FILE < IDS", "",
      hm_cmd_decode },
    { "generate", "continue a prompt, with or without an adapter",
      "generate --model DIR [--adapter DIR] [--tokenizer FILE] (--prompt TEXT | --prompt-file "
      "FILE) "
      "[--max-tokens N] [--temperature T] [--top-k K] [--top-p P] [--seed S] "
      "[--compute bf16|f32] [--threads N] [--ram SIZE] [--json] [--quiet]",
      "Greedy by default (--temperature 0), 128 tokens or as many as the model has positions left; "
      "the\n"
      "tokenizer is the model's own; products in bf16 for 4-bit models, else in f32.\n"
      "Sampling takes from softmax(logits / temperature), cut to the K most likely tokens and then "
      "to the\n"
      "fewest that hold P of those; the same seed gives the same text.\n"
      "--ram SIZE keeps the process within so many bytes: weights are read when they are needed.\n"
      "--json: one object with text, prompt_tokens, ids, logprobs (temperature 1, all tokens), "
      "finish,\n"
      "prompt_tokens_per_s and tokens_per_s. The rates also end standard error, unless --quiet.\n"
      "example: hanmix generate --model runs/quickstart/out --prompt '春天来了' --temperature 0.8 "
      "--top-p 0.9\n",
      hm_cmd_generate },
    { "doctor", "tell cores, instruction sets, memory and its limits, and measured rates",
      "doctor [--json]", "", hm_cmd_doctor },
    { "help", "explain a verb", "help [VERB]", "", hm_cmd_help },
};
const size_t hm_verb_count = sizeof(hm_verbs) / sizeof(hm_verbs[0]);

static const struct hm_verb *find_verb(const char *name)
{
    for (size_t i = 0; i < hm_verb_count; i++)
        if (strcmp(hm_verbs[i].name, name) == 0)
            return &hm_verbs[i];
    return NULL;
}

static int fail_verb(const char *name, struct hm_error *err)
{
    const char *names[32];
    size_t n = 0;

    for (; n < hm_verb_count && n < 32; n++)
        names[n] = hm_verbs[n].name;
    return hm_fail_unknown(err, "command line", "verb", name, names, n);
}

static void print_overview(FILE *stream)
{
    fprintf(stream, "hanmix %s: extend Mixtral-like models with a Chinese vocabulary, on CPUs\n\n",
            HM_VERSION);
    for (size_t i = 0; i < hm_verb_count; i++)
        fprintf(stream, "  %-9s %s\n", hm_verbs[i].name, hm_verbs[i].summary);
    fprintf(stream,
            "\nhanmix help VERB explains a verb, hanmix stage NAME --help a stage.\n"
            "Exit codes: 0 ok, 1 a check failed, 2 usage or recipe, 3 will not fit, 4 bad data,\n"
            "5 not a number, 6 input/output, 75 stopped and resumable.\n");
}

static void print_verb(const struct hm_verb *verb)
{
    printf("%s: %s\n\n", verb->name, verb->summary);
    for (const char *form = verb->usage; *form; form += *form == '\n') {
        size_t len = strcspn(form, "\n");
        printf("  hanmix %.*s\n", (int)len, form);
        form += len;
    }
    if (verb->details[0])
        printf("\n%s", verb->details);
}

int hm_cmd_help(int argc, char **argv, struct hm_error *err)
{
    bool markdown = false;
    const struct hm_arg table[] = { { "markdown", HM_ARG_FLAG, &markdown } };
    struct hm_buf text = { 0 };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, TABLE(table), &words, err));
    if (markdown) { /* docs/RECIPES.md */
        int status = hm_stages_markdown(&text, err);
        if (status == HM_OK)
            return hm_print_buf(&text, err);
        hm_buf_release(&text);
        return status;
    }
    const struct hm_verb *verb = words > 0 ? find_verb(argv[1]) : NULL;
    if (verb)
        print_verb(verb);
    else
        print_overview(stdout);
    if (words > 0 && !verb)
        HM_TRY(fail_verb(argv[1], err));
    return hm_print_flush(err);
}

static bool wants_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

static int dispatch(int argc, char **argv, struct hm_error *err)
{
    const char *name = argc < 2 ? "--help" : argv[1];
    if (strcmp(name, "--version") == 0) {
        printf("hanmix %s\n", HM_VERSION);
        return hm_print_flush(err);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        print_overview(stdout);
        return hm_print_flush(err);
    }
    const struct hm_verb *verb = find_verb(name);
    if (!verb)
        return fail_verb(name, err);
    if (verb->run != hm_cmd_stage && wants_help(argc - 1, argv + 1)) {
        print_verb(verb);
        return hm_print_flush(err);
    }
    return verb->run(argc - 1, argv + 1, err);
}

/*
 * libgomp's threads spin for milliseconds at the end of every loop. Where other processes want the
 * same cores, the spinning takes them from those that work (measured: eight times slower). It reads
 * the policy when it is loaded, so the program starts itself again with waiting threads asleep,
 * unless the user has set how they wait. If that fails, it goes on as it is.
 * One token of generate is hundreds of loops, of some microseconds each where the model is small:
 * there they spin for about as long as waking takes (405 tokens/s in place of 264 on `small`).
 */
static void wait_asleep(int argc, char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (argc > 1 && strcmp(argv[1], "generate") == 0 && setenv("GOMP_SPINCOUNT", "5000", 0) != 0)
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 0) == 0)
        execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    struct hm_error err = { 0 };

    wait_asleep(argc, argv);
    hm_process_begin();
    int status = dispatch(argc, argv, &err);
    if (status < 0)
        fprintf(stderr, "hanmix: %s\n", err.text[0] ? err.text : hm_status_text(status));
    return hm_status_exit_code(status);
}
