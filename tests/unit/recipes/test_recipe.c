/* SPDX-License-Identifier: MIT */
/*
 * recipes/engine: reading recipes, their mistakes by line and key, overrides, references and order,
 * config values, allocation failures. Stages are those of tests/support/test_stages.c.
 */
#include "support/support.h"

#include "hanmix/recipes/recipe.h"

static int parse(const char *text, const char *const *overrides, size_t n, struct hm_recipe *recipe,
                 struct hm_error *err)
{
    return hm_recipe_parse(hm_str_of(text), "dir/r.yaml", overrides, n, NULL, recipe, err);
}

static void fails(const char *text, const char *part)
{
    struct hm_recipe recipe = { 0 };
    struct hm_error err = { 0 };

    assert_fails(parse(text, NULL, 0, &recipe, &err), HM_ERR_USAGE, part, err);
    assert_null(recipe.stage);
}

static void override_fails(const char *override, const char *part)
{
    static const char text[] = "stages: [{id: zh, stage: test.make}]";
    struct hm_recipe recipe = { 0 };
    struct hm_error err = { 0 };

    assert_fails(parse(text, &override, 1, &recipe, &err), HM_ERR_USAGE, part, err);
}

static void test_yaml_mistakes(void **state)
{
    (void)state;
    fails("stages: [", ": not valid YAML: did not find");
    fails("a: 1\na: 2\n", "dir/r.yaml:2: key 'a' is given twice");
    fails("a: &x 1\n", "anchors and aliases");
    fails("a: &x 1\nb: *x\n", "dir/r.yaml:1: anchors");
    fails("text: *.zst\n", "put quotes around a value that begins with *");
    fails("a: !!str 1\n", "dir/r.yaml:1: tags");
    fails("a: 1\n---\nb: 1\n", "dir/r.yaml:2: a second document");
    fails("[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]", "16 levels deep");
    fails("a: \xff\n", "not valid UTF-8");
    fails("\"a\\0b\": 1\n", "NUL");
    fails("", "a recipe is a map with 'stages'");
    fails("- a\n", "a recipe is a map");
    fails("? [a]\n: 1\n", "a key must be one word");
}

static void test_shape_mistakes(void **state)
{
    (void)state;
    fails("stags: []\n", "dir/r.yaml:1: unknown key of a recipe 'stags'; did you mean 'stages'?");
    fails("stages: []\n", "'stages' must be a list of 1 to");
    fails("seed: -1\nstages: [{id: a, stage: test.make}]\n",
          "dir/r.yaml:1: seed: '-1' is not a count");
    fails("stages: [a]\n", "dir/r.yaml:1: a stage must be");
    fails("stages: [{id: a}]\n", "a stage needs 'stage'");
    fails("stages: [{stage: test.make}]\n", "a stage needs 'id'");
    fails("stages: [{id: a/b, stage: test.make}]\n", "stage id 'a/b' must be");
    fails("stages:\n- {id: a, stage: test.make}\n- {id: a, stage: test.make}\n",
          "dir/r.yaml:3: stage id 'a' is used twice, first in line 2");
    fails("stages:\n- id: a\n  stage: test.mak\n",
          "dir/r.yaml:3: unknown stage 'test.mak'; did you mean 'test.make'?");
    fails("stages:\n- id: a\n  stage: test.make\n  set:\n    byts: 3\n",
          "dir/r.yaml:5: unknown key in a.set of test.make: 'byts'; did you mean 'bytes'?");
    fails("stages:\n- id: a\n  stage: test.make\n  set: {zzzzzz: 3}\n", "valid: bytes, slow_ms");
    fails("stages:\n- id: a\n  stage: test.make\n  in: {txt: 3}\n", "did you mean 'text'?");
    fails("stages:\n- id: a\n  stage: test.make\n  sett: {}\n",
          "unknown key of a stage 'sett'; did you mean 'set'?");
    fails("stages:\n- id: a\n  stage: test.make\n  set: [1]\n",
          "'set' must be a map, it is a list");
}

static void test_value_mistakes(void **state)
{
    static const struct {
        const char *set, *part;
    } cases[] = {
        { "bytes: 3X", "a.set.bytes: '3X' is not a size" },
        { "bytes: 0", "a.set.bytes: 0 is out of range: from 1 to 1000000000000" },
        { "bytes: [1]", "must be one value (size), it is a list" },
        { "pieces: 1.5", "a.set.pieces: '1.5' is not a count" },
        { "share: 1.5", "a.set.share: 1.5 is out of range: from 0 to 1" },
        { "share: nan", "is not a finite number" },
        { "fail: never", "'never' is not one of: none, check, numeric" },
        { "flag: maybe", "is not a truth value" },
        { "list: {a: 1}", "must be a list, it is a map" },
        { "list: [[1]]", "item 1 must be one value, it is a list" },
        { "pairs: [1]", "must be a map, it is a list" },
        { "pairs: abc", "'abc' is not KEY=VALUE" },
    };
    char text[300];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(text, sizeof(text), "stages:\n- id: a\n  stage: test.make\n  set: {%s}\n",
                 cases[i].set);
        fails(text, cases[i].part);
        fails(text, "dir/r.yaml:4: ");
    }
}

static void test_reference_mistakes(void **state)
{
    (void)state;
    fails("stages:\n- {id: a, stage: test.use, in: {tokenizer: $zh}}\n- {id: zhs, stage: "
          "test.make}\n",
          "dir/r.yaml:2: unknown stage id 'zh'; did you mean 'zhs'?");
    fails("stages:\n- {id: a, stage: test.use}\n",
          "dir/r.yaml:2: stage 'a' (test.use): input 'tokenizer' (tokenizer) is missing");
    fails("stages:\n- {id: z, stage: test.make}\n- {id: a, stage: test.use, in: {tokenizer: $z, "
          "adapter: $z}}\n",
          "dir/r.yaml:3: a.in.adapter must be of type adapter, but stage 'z' (test.make) makes "
          "tokenizer");
    fails(
        "stages:\n- {id: z, stage: test.twice}\n- {id: a, stage: test.use, in: {tokenizer: $z}}\n",
        "two candidates of type tokenizer, 'a.model' and 'b.model'; write $z/a.model or "
        "$z/b.model");
    fails("stages:\n- {id: z, stage: test.make}\n- {id: a, stage: test.use, in: {tokenizer: "
          "$z/../x}}\n",
          "leaves the folder of stage 'z'");
    fails("stages:\n- {id: z, stage: test.make}\n- {id: a, stage: test.use, in: {tokenizer: [$z, "
          "$z]}}\n",
          "a.in.tokenizer must be one path, it is a list");
    fails("stages:\n- {id: a, stage: test.use, in: {tokenizer: $b/x}}\n- {id: b, stage: test.use, "
          "in: {tokenizer: $c/x}}\n"
          "- {id: c, stage: test.use, in: {tokenizer: $b/x}}\n",
          "a cycle: ");
    fails("stages:\n- {id: a, stage: test.use, in: {tokenizer: $a/x}}\n",
          "dir/r.yaml:2: a cycle: a needs a");
    fails("stages:\n- {id: a, stage: test.make, in: {text: {zh: {file: x.txt}}}}\n",
          "unknown key of a set 'file'; did you mean 'files'?");
    fails("stages:\n- {id: a, stage: test.make, in: {text: {zh: {files: x.txt, weight: 0}}}}\n",
          "weight: '0' must be above 0");
    fails("stages:\n- {id: a, stage: test.make, in: {text: []}}\n", "it is an empty list");
}

static void test_overrides(void **state)
{
    static const char *const overrides[] = { "use.in.tokenizer=$b", "b.set.word=x=y",
                                             "b.set.list=[1, 2]",   "b.set.pairs={q: 4}",
                                             "b.set.bytes=2K",      "b.in.text.zh=a.txt,b.txt",
                                             "b.set.pairs.w1.x=5",  "seed=7" };
    struct hm_recipe recipe = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(parse("stages:\n- {id: use, stage: test.use, in: {tokenizer: $a}}\n- {id: a, stage: "
                    "test.make}\n"
                    "- {id: b, stage: test.make, in: {text: old.txt}}\n",
                    overrides, 8, &recipe, &err),
              err);
    assert_int_equal(recipe.seed, 7);
    assert_int_equal(recipe.n_stages, 3); /* a and b before use, which needs b */
    assert_string_equal(recipe.stage[0].id, "a");
    assert_string_equal(recipe.stage[1].id, "b");
    assert_string_equal(recipe.stage[2].id, "use");
    assert_int_equal(recipe.stage[2].n_needs, 1);
    assert_int_equal(recipe.stage[2].needs[0], 1);
    assert_string_equal(recipe.base_dir, "dir/");
    assert_string_equal(recipe.run_dir, "runs/r");
    hm_recipe_release(&recipe);

    override_fails("zh.bytes=3", "is not STAGE.in.KEY=VALUE");
    override_fails("zh", "is not STAGE.in.KEY=VALUE");
    override_fails("zy.set.bytes=3", "command line: unknown stage id 'zy'; did you mean 'zh'?");
    override_fails(
        "zh.set.byte=3",
        "command line: unknown key in zh.set of test.make: 'byte'; did you mean 'bytes'?");
    override_fails("zh.set.bytes=x", "command line: zh.set.bytes: 'x' is not a size");
    override_fails("zh.set.list=[1", "command line: not valid YAML");
    override_fails("zh.set.word=\xff", "is not UTF-8 text");
}

static void test_single(void **state)
{
    static const char *const settings[] = { "set.bytes=3", "in.text=x.txt" };
    static const char *const unknown[] = { "set.byte=3" };
    struct hm_recipe recipe = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_ok(hm_recipe_single("test.make", settings, 2, "out/zh.v1/", &recipe, &err), err);
    assert_true(recipe.single);
    assert_string_equal(recipe.stage[0].id, "zh.v1");
    assert_string_equal(recipe.run_dir, "out/");
    hm_recipe_release(&recipe);
    assert_fails(hm_recipe_single("test.make", unknown, 1, "out", &recipe, &err), HM_ERR_USAGE,
                 "did you mean 'bytes'", err);
    assert_fails(hm_recipe_single("test.make", NULL, 0, "..", &recipe, &err), HM_ERR_USAGE,
                 "no name of a new folder", err);
    assert_fails(hm_recipe_single("test.use", NULL, 0, "out", &recipe, &err), HM_ERR_USAGE,
                 "command line: stage 'out' (test.use): input 'tokenizer'", err);
}

static int attempt(void *context, struct hm_error *err)
{
    static const char *const overrides[] = { "b.set.list=[1, 2]", "b.in.text.zh=a.txt" };
    struct hm_recipe recipe = { 0 };

    (void)context;
    HM_TRY(parse("external: {base: {what: w, config: c.json}}\nstages:\n- {id: use, stage: "
                 "test.use, in: {tokenizer: $b}}\n"
                 "- {id: b, stage: test.make, set: {pairs: {a: 1}, from: f.txt}}\n",
                 overrides, 2, &recipe, err));
    hm_recipe_release(&recipe);
    return HM_OK;
}

static void test_allocation_failures(void **state)
{
    (void)state;
    assert_true(oom_sweep(attempt, NULL) > 20);
}

static void test_texts(void **state)
{
    const struct hm_stage *stage = NULL;
    struct hm_buf text = { 0 };
    struct hm_error err = { 0 };

    (void)state;
    assert_fails(hm_stage_find("test.mak", "here", &stage, &err), HM_ERR_USAGE,
                 "here: unknown stage 'test.mak'; did you mean 'test.make'?", err);
    assert_null(stage);
    assert_ok(hm_stage_find("test.make", "here", &stage, &err), err);
    assert_ok(hm_stage_help(stage, &text, &err), err);
    assert_non_null(strstr(text.ptr, "set.fail=none  none|check|numeric"));
    assert_non_null(strstr(text.ptr, "set.threads=0  count"));
    hm_buf_clear(&text);
    assert_ok(hm_stages_markdown(&text, &err), err);
    assert_non_null(strstr(text.ptr, "\n## test.train\n"));
    assert_non_null(strstr(text.ptr, "| `share` | number | `0.5` | from 0 to 1 | a share |"));
    hm_buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml_mistakes),       cmocka_unit_test(test_shape_mistakes),
        cmocka_unit_test(test_value_mistakes),      cmocka_unit_test(test_reference_mistakes),
        cmocka_unit_test(test_overrides),           cmocka_unit_test(test_single),
        cmocka_unit_test(test_allocation_failures), cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
