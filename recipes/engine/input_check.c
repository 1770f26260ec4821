/* SPDX-License-Identifier: MIT */
/*
 * Whether an existing path can be what an input asks for, by its name and by the files in it.
 * Contents are for the modules that read them.
 */
#include <string.h>

#include "run_internal.h"

static bool has_file(const char *dir, const char *name)
{
    char *path = NULL;
    bool found = hm_path_join(&path, dir, name, NULL) == HM_OK && hm_path_exists(path);

    hm_free(path);
    return found;
}

static bool has_ending(const char *dir, const char *ending)
{
    struct hm_names names = { 0 };
    bool found = false;

    if (hm_dir_list(dir, &names, NULL) < 0)
        return false;
    for (size_t i = 0; i < names.count; i++)
        found |= hm_text_ends(names.item[i], ending);
    hm_names_release(&names);
    return found;
}

static bool is_text_name(const char *path)
{
    static const char *const ending[] = { ".jsonl", ".jsonl.zst", ".jsonl.gz", ".txt", ".txt.zst" };

    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        if (hm_text_ends(path, ending[i]))
            return true;
    return false;
}

/* What is wrong with the path for this type; NULL: nothing. */
static const char *fault(enum hm_input_type type, const char *path, bool is_dir)
{
    switch (type) {
    case HM_INPUT_TEXT:
        if (is_dir)
            return "is a folder; name the text files in it, as in 'folder/*.jsonl.zst'";
        return is_text_name(path) ? NULL
                                  : "is not a text file: it must end with .jsonl, .jsonl.zst, "
                                    ".jsonl.gz, .txt or .txt.zst";
    case HM_INPUT_TOKENIZER:
        return !is_dir || has_file(path, "tokenizer.model") ? NULL : "has no tokenizer.model in it";
    case HM_INPUT_MODEL:
        if (!is_dir)
            return "is not a model folder";
        return has_file(path, "config.json") ? NULL : "is not a model folder: no config.json in it";
    case HM_INPUT_PACKED:
        if (!is_dir)
            return hm_text_ends(path, ".hmp") || hm_text_ends(path, ".safetensors")
                       ? NULL
                       : "is not packed data: it must be a .hmp file, or .safetensors with ids";
        return has_ending(path, ".hmp") ? NULL : "is not packed data: no .hmp file in it";
    case HM_INPUT_ADAPTER:
        return is_dir && has_file(path, "adapter_config.json")
                   ? NULL
                   : "is not an adapter folder: no adapter_config.json in it";
    case HM_INPUT_IDS:
        return !is_dir && hm_text_ends(path, ".safetensors") ? NULL : "is not a .safetensors file";
    default:
        return is_dir ? "is a folder, not a file" : NULL;
    }
}

int hm_input_check(enum hm_input_type type, const char *path, struct hm_error *err)
{
    const char *what = fault(type, path, hm_path_is_dir(path));

    if (what)
        return hm_fail(err, HM_ERR_USAGE, "'%s' %s", path, what);
    return HM_OK;
}
