/* SPDX-License-Identifier: MIT */
/*
 * The tables of a stage for people: `hanmix stage NAME --help` and docs/RECIPES.md.
 */
#include <stdio.h>

#include "fields.h"
#include "hanmix/recipes/recipe.h"

#define TEXT_COLUMN 46 /* where the sentences begin */

/* "from 1 to 4096", or "" */
static const char *range_text(const struct hm_field *field, char *buf, size_t size)
{
    if (field->min == 0 && field->max == 0)
        return "";
    snprintf(buf, size, "from %.15g to %.15g", field->min, field->max);
    return buf;
}

/* "none|new|all", or the name of the type */
static const char *type_text(const struct hm_field *field, char *buf, size_t size)
{
    size_t used = 0;

    if (field->type != HM_FIELD_CHOICE)
        return hm_field_type_name(field->type);
    for (int i = 0; field->choices[i] && used < size; i++)
        used +=
            (size_t)snprintf(buf + used, size - used, "%s%s", i == 0 ? "" : "|", field->choices[i]);
    return buf;
}

static const char *default_text(const struct hm_field *field)
{
    if (!field->fallback)
        return "-";
    return field->fallback[0] ? field->fallback : "\"\"";
}

/* "tokenizer (adapter/), model" */
static int products(const struct hm_stage *stage, struct hm_buf *text, struct hm_error *err)
{
    bool any = false;

    for (int i = 0; i < 3; i++) {
        if (!stage->product_path[i])
            continue;
        HM_TRY(hm_buf_printf(text, err, "%s%s", any ? ", " : "",
                             hm_input_type_name(stage->product[i])));
        if (stage->product_path[i][0])
            HM_TRY(hm_buf_printf(text, err, " (%s)", stage->product_path[i]));
        any = true;
    }
    return any ? HM_OK : hm_buf_text(text, "-", err);
}

static const char *input_note(const struct hm_input *input)
{
    if (input->many)
        return input->required ? "one, list or named sets" : "optional; one, list or named sets";
    return input->required ? "" : "optional";
}

/* --- for a terminal --- */

static int help_line(struct hm_buf *text, const char *left, const char *sentence, const char *note,
                     struct hm_error *err)
{
    return hm_buf_printf(text, err, "  %-*s  %s%s%s%s\n", TEXT_COLUMN - 4, left,
                         sentence ? sentence : "", *note ? " (" : "", note, *note ? ")" : "");
}

static int help_fields(const struct hm_field *fields, size_t n, struct hm_buf *text,
                       struct hm_error *err)
{
    char left[256], types[160], range[80];

    for (size_t i = 0; i < n; i++) {
        const struct hm_field *field = &fields[i];
        snprintf(left, sizeof(left), "set.%s=%s  %s", field->name, default_text(field),
                 type_text(field, types, sizeof(types)));
        HM_TRY(help_line(text, left, field->help, range_text(field, range, sizeof(range)), err));
    }
    return HM_OK;
}

int hm_stage_help(const struct hm_stage *stage, struct hm_buf *text, struct hm_error *err)
{
    char left[256];

    HM_TRY(hm_buf_printf(text, err, "%s: %s\n\n", stage->name, stage->summary));
    HM_TRY(hm_buf_printf(text, err,
                         "usage: hanmix stage %s in.KEY=VALUE ... set.KEY=VALUE ... --out DIR\n\n",
                         stage->name));
    HM_TRY(hm_buf_text(text, "inputs:\n", err));
    for (size_t i = 0; i < stage->n_inputs; i++) {
        const struct hm_input *input = &stage->inputs[i];
        snprintf(left, sizeof(left), "in.%s  %s", input->name, hm_input_type_name(input->type));
        HM_TRY(help_line(text, left, input->help, input_note(input), err));
    }
    HM_TRY(hm_buf_text(text, "settings and their defaults:\n", err));
    HM_TRY(help_fields(stage->fields, stage->n_fields, text, err));
    HM_TRY(help_fields(hm_common_fields, HM_COMMON_FIELDS, text, err));
    HM_TRY(hm_buf_printf(text, err, "writes: %s\nserves as: ", stage->writes));
    HM_TRY(products(stage, text, err));
    return hm_buf_text(text, "\n", err);
}

/* --- docs/RECIPES.md --- */

/* A cell: no line breaks and no bar. */
static int cell(struct hm_buf *text, const char *value, bool code, struct hm_error *err)
{
    HM_TRY(hm_buf_text(text, code ? " `" : " ", err));
    for (const char *c = value ? value : ""; *c; c++)
        HM_TRY(*c == '|' ? hm_buf_text(text, code ? "/" : "\\|", err)
                         : hm_buf_append(text, *c == '\n' ? " " : c, 1, err));
    return hm_buf_text(text, code ? "` |" : " |", err);
}

static int field_rows(const struct hm_field *fields, size_t n, struct hm_buf *text,
                      struct hm_error *err)
{
    char types[160], range[80];

    for (size_t i = 0; i < n; i++) {
        const struct hm_field *field = &fields[i];
        HM_TRY(hm_buf_text(text, "|", err));
        HM_TRY(cell(text, field->name, true, err));
        HM_TRY(cell(text, type_text(field, types, sizeof(types)), false, err));
        HM_TRY(cell(text, default_text(field), field->fallback != NULL, err));
        HM_TRY(cell(text, range_text(field, range, sizeof(range)), false, err));
        HM_TRY(cell(text, field->help, false, err));
        HM_TRY(hm_buf_text(text, "\n", err));
    }
    return HM_OK;
}

#define FIELD_HEADER "| set | type | default | range | what |\n|---|---|---|---|---|\n"

static int stage_markdown(const struct hm_stage *stage, struct hm_buf *text, struct hm_error *err)
{
    HM_TRY(hm_buf_printf(text, err, "\n## %s\n\n%s\n\n", stage->name, stage->summary));
    HM_TRY(hm_buf_text(text, "| in | type | | what |\n|---|---|---|---|\n", err));
    for (size_t i = 0; i < stage->n_inputs; i++) {
        const struct hm_input *input = &stage->inputs[i];
        HM_TRY(hm_buf_text(text, "|", err));
        HM_TRY(cell(text, input->name, true, err));
        HM_TRY(cell(text, hm_input_type_name(input->type), false, err));
        HM_TRY(cell(text, input_note(input), false, err));
        HM_TRY(cell(text, input->help, false, err));
        HM_TRY(hm_buf_text(text, "\n", err));
    }
    HM_TRY(hm_buf_text(text, "\n" FIELD_HEADER, err));
    HM_TRY(field_rows(stage->fields, stage->n_fields, text, err));
    HM_TRY(hm_buf_printf(text, err, "\nWrites: %s\n\nServes as: ", stage->writes));
    HM_TRY(products(stage, text, err));
    return hm_buf_text(text, "\n", err);
}

static const char preface[] =
    "# Recipes\n"
    "\n"
    "<!-- Made by `hanmix help --markdown` from the tables of the stages; do not edit. -->\n"
    "\n"
    "```yaml\n"
    "run_dir: runs/name     # relative to the working directory; default runs/<name of the "
    "recipe>\n"
    "seed: 1\n"
    "stages:\n"
    "  - {id: zh, stage: vocab.train, in: {text: \"zh*.jsonl.zst\"}, set: {pieces: 25000}}\n"
    "  - {id: merged, stage: vocab.merge, in: {base: base/tokenizer.model, extra: $zh}}\n"
    "```\n"
    "\n"
    "- Paths in a recipe are relative to its folder, or to `base_dir` when it is given; `run_dir`, "
    "overrides and the\n"
    "  command line to the working directory. Put quotes around a value that begins with `*`.\n"
    "- `$id` is what the stage with that id makes: its only product of the type the input expects. "
    "`$id/file` is one file.\n"
    "- Several inputs: a list, a pattern (sorted), or named sets: `{zh: {files: \"zh*.zst\", "
    "weight: 2, epochs: 1}, en: en.txt}`.\n"
    "- Text: `.jsonl`, `.jsonl.zst`, `.jsonl.gz`, `.txt`, `.txt.zst`; where merges are learned "
    "also "
    "`.tsv` and `.tsv.zst`, counted text.\n"
    "- Overrides: `hanmix run RECIPE lora.set.rank=8 zh.in.text.zh=more.txt seed=2`; lists as "
    "`[a,b]` or `a,b`.\n"
    "- Sizes: `64K`, `2M`, `24G` (binary). Counts: `25000`, `1e6`.\n"
    "- `external:` names paths that do not come with the recipe, and what they are: `validate` and "
    "`plan` do without them.\n"
    "  `{base: {what: \"the base model\", config: base.config.json}}` gives a config.json to plan "
    "with.\n"
    "- Other keys: `about` (one sentence), `base_dir`.\n"
    "- A stage writes `RUN_DIR/ID/`, with `stage.json` and `report.json`. It is skipped when "
    "version, settings, seed and the\n"
    "  digests of its inputs are those of last time. Threads and memory limits do not count.\n"
    "\n"
    "Every stage takes:\n"
    "\n";

int hm_stages_markdown(struct hm_buf *text, struct hm_error *err)
{
    HM_TRY(hm_buf_text(text, preface, err));
    HM_TRY(hm_buf_text(text, FIELD_HEADER, err));
    HM_TRY(field_rows(hm_common_fields, HM_COMMON_FIELDS, text, err));
    for (size_t i = 0; i < hm_stage_count(); i++)
        HM_TRY(stage_markdown(hm_stage_at(i), text, err));
    return HM_OK;
}
