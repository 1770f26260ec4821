/* SPDX-License-Identifier: MIT */
/*
 * Whether an existing path can be what an input asks for, by its name and by the files in it.
 * Contents are for the modules that read them.
 */

#include "run_internal.h"

static bool is_text_name(const char *path)
{
    static const char *const ending[] = { ".jsonl", ".jsonl.zst", ".jsonl.gz", ".txt", ".txt.zst" };

    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        if (hm_text_ends(path, ending[i]))
            return true;
    return false;
}

/* What a folder of this type must hold; *ret_found is true for types that are no folders. */
static int find_content(enum hm_input_type type, const char *path, bool *ret_found,
                        struct hm_error *err)
{
    switch (type) {
    case HM_INPUT_TOKENIZER:
        return hm_dir_holds(path, "tokenizer.model", ret_found, err);
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

/* What is wrong with the path for this type; NULL: nothing. */
static const char *fault(enum hm_input_type type, const char *path, bool is_dir, bool found)
{
    switch (type) {
    case HM_INPUT_TEXT:
        if (is_dir)
            return "is a folder; name the text files in it, as in 'folder/*.jsonl.zst'";
        return is_text_name(path) ? NULL
                                  : "is not a text file: it must end with .jsonl, .jsonl.zst, "
                                    ".jsonl.gz, .txt or .txt.zst";
    case HM_INPUT_TOKENIZER:
        return !is_dir || found ? NULL : "has no tokenizer.model in it";
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

int hm_input_check(enum hm_input_type type, const char *path, struct hm_error *err)
{
    bool is_dir = hm_path_is_dir(path), found = false;

    HM_TRY(hm_name_check(path, err));
    if (is_dir)
        HM_TRY(find_content(type, path, &found, err));
    else
        HM_TRY(hm_regular_check(path, err));
    const char *what = fault(type, path, is_dir, found);
    return what ? hm_fail(err, HM_ERR_USAGE, "'%s' %s", path, what) : (int)HM_OK;
}
