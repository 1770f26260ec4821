/* SPDX-License-Identifier: MIT */
/*
 * Whether an existing path can be what an input asks for, by its name and by the files in it.
 * Contents are for the modules that read them.
 */

#include "run_internal.h"

/* Those of counted text come last. */
static const char *const text_ending[] = { ".jsonl",   ".jsonl.zst", ".jsonl.gz", ".txt",
                                           ".txt.zst", ".tsv",       ".tsv.zst" };
#define TEXT_ENDINGS    (sizeof(text_ending) / sizeof(text_ending[0]))
#define COUNTED_ENDINGS 2u

static bool is_text_name(const struct hm_input *input, const char *path)
{
    for (size_t i = 0; i < TEXT_ENDINGS - (input->counted ? 0 : COUNTED_ENDINGS); i++)
        if (hm_text_ends(path, text_ending[i]))
            return true;
    return false;
}

/* What a folder of this type must hold; *ret_found is true for types that are no folders. */
static int find_content(const struct hm_input *input, const char *path, bool *ret_found,
                        struct hm_error *err)
{
    switch (input->type) {
    case HM_INPUT_TOKENIZER:
        HM_TRY(hm_dir_holds(path, "tokenizer.model", ret_found, err));
        return *ret_found || !input->json ? (int)HM_OK
                                          : hm_dir_holds(path, "tokenizer.json", ret_found, err);
    case HM_INPUT_MODEL:
        return hm_dir_holds(path, "config.json", ret_found, err);
    case HM_INPUT_PACKED:
        return hm_dir_holds_ending(path, ".hmp", ret_found, err);
    case HM_INPUT_ADAPTER:
        return hm_dir_holds(path, "adapter_config.json", ret_found, err);
    default:
        *ret_found = true;
        return HM_OK;
    }
}

/* What is wrong with the path for this input; NULL: nothing. */
static const char *fault(const struct hm_input *input, const char *path, bool is_dir, bool found)
{
    switch (input->type) {
    case HM_INPUT_TEXT:
        if (is_dir)
            return "is a folder; name the text files in it, as in 'folder/*.jsonl.zst'";
        if (is_text_name(input, path))
            return NULL;
        return input->counted ? "is not a text file: it must end with .jsonl, .jsonl.zst, "
                                ".jsonl.gz, .txt, .txt.zst, .tsv or .tsv.zst"
                              : "is not a text file: it must end with .jsonl, .jsonl.zst, "
                                ".jsonl.gz, .txt or .txt.zst";
    case HM_INPUT_TOKENIZER:
        if (is_dir && !found)
            return input->json ? "has no tokenizer.model in it, nor a tokenizer.json"
                               : "has no tokenizer.model in it";
        return input->json || !hm_text_ends(path, ".json")
                   ? NULL
                   : "is a tokenizer.json; what is asked for is SentencePiece's tokenizer.model";
    case HM_INPUT_MODEL:
        if (!is_dir)
            return "is not a model folder";
        return found ? NULL : "is not a model folder: no config.json in it";
    case HM_INPUT_PACKED:
        if (is_dir)
            return found ? NULL : "is not packed data: no .hmp file in it";
        return hm_text_ends(path, ".hmp") || hm_text_ends(path, ".safetensors")
                   ? NULL
                   : "is not packed data: it must be a .hmp file, or .safetensors with ids";
    case HM_INPUT_ADAPTER:
        return is_dir && found ? NULL : "is not an adapter folder: no adapter_config.json in it";
    case HM_INPUT_IDS:
        return !is_dir && hm_text_ends(path, ".safetensors") ? NULL : "is not a .safetensors file";
    default:
        return is_dir ? "is a folder, not a file" : NULL;
    }
}

int hm_name_check(const char *path, struct hm_error *err)
{
    if (hm_utf8_valid(hm_str_of(path), NULL))
        return HM_OK;
    return hm_fail(err, HM_ERR_USAGE, "the name '%s' is not UTF-8; rename the file or folder",
                   path);
}

int hm_input_check(const struct hm_input *input, const char *path, struct hm_error *err)
{
    bool is_dir = hm_path_is_dir(path), found = false;

    HM_TRY(hm_name_check(path, err));
    if (is_dir)
        HM_TRY(find_content(input, path, &found, err));
    else
        HM_TRY(hm_regular_check(path, err));
    const char *what = fault(input, path, is_dir, found);
    return what ? hm_fail(err, HM_ERR_USAGE, "'%s' %s", path, what) : (int)HM_OK;
}
