/* SPDX-License-Identifier: MIT */
/*
 * The verb recipes: those installed with the program, or standing in the source tree it was built
 * from.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "hanmix/base/file.h"
#include "hanmix/recipes/recipe.h"

#define RECIPE_MAX_BYTES (1u << 20)

/* The first of: the installed folder, the source tree. HANMIX_RECIPES overrides both. */
static const char *recipes_dir(void)
{
    const char *named = getenv("HANMIX_RECIPES");

    if (named && *named)
        return named;
    return hm_path_is_dir(HM_RECIPES_INSTALLED) ? HM_RECIPES_INSTALLED : HM_RECIPES_SOURCE;
}

/* The value of "about:" without reading the recipe's stages. */
static void print_about(const char *path)
{
    struct hm_buf text = { 0 };
    const char *line = NULL;

    if (hm_file_read(path, RECIPE_MAX_BYTES, &text, NULL) == HM_OK && text.len > 0)
        line = hm_text_starts(text.ptr, "about:") ? text.ptr : strstr(text.ptr, "\nabout:");
    if (line) {
        line += strcspn(line, ":") + 1;
        line += strspn(line, " \"'");
        printf("%.*s", (int)strcspn(line, "\"\n"), line);
    }
    hm_buf_release(&text);
}

static int list(const char *dir, struct hm_error *err)
{
    struct hm_names names = { 0 };

    HM_TRY(hm_dir_list(dir, &names, err));
    for (size_t i = 0; i < names.count; i++) {
        char *path = NULL;
        size_t len = strlen(names.item[i]);
        if (!hm_text_ends(names.item[i], ".yaml") ||
            hm_path_join(&path, dir, names.item[i], NULL) < 0)
            continue;
        printf("%-24.*s ", (int)(len - 5), names.item[i]);
        print_about(path);
        putchar('\n');
        hm_free(path);
    }
    hm_names_release(&names);
    return hm_print_flush(err);
}

static int fail_no_recipe(const char *dir, const char *name, struct hm_error *err)
{
    struct hm_names names = { 0 };
    const char *known[64];
    size_t n = 0;

    HM_TRY(hm_dir_list(dir, &names, err));
    for (size_t i = 0; i < names.count; i++) {
        if (!hm_text_ends(names.item[i], ".yaml") || n == 64)
            continue;
        names.item[i][strlen(names.item[i]) - 5] = '\0';
        known[n++] = names.item[i];
    }
    int status = hm_fail_unknown(err, "recipes", "recipe", name, known, n);
    hm_names_release(&names);
    return status;
}

static int read_recipe(const char *dir, const char *name, struct hm_buf *text, struct hm_error *err)
{
    char *path = NULL;

    if (strchr(name, '/'))
        return fail_no_recipe(dir, name, err);
    HM_TRY(hm_format(&path, err, "%s/%s%s", dir, name, hm_text_ends(name, ".yaml") ? "" : ".yaml"));
    int status = hm_path_exists(path) ? hm_file_read(path, RECIPE_MAX_BYTES, text, err)
                                      : fail_no_recipe(dir, name, err);
    hm_free(path);
    return status;
}

static int show(const char *dir, const char *name, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    int status = read_recipe(dir, name, &text, err);

    if (status == HM_OK)
        return hm_print_buf(&text, err);
    hm_buf_release(&text);
    return status;
}

/* The copy says where its relative paths begin, so that it works from anywhere. */
static int copy(const char *dir, const char *name, const char *to, struct hm_error *err)
{
    struct hm_buf text = { 0 }, out = { 0 };
    char *path = NULL, *full = realpath(dir, NULL);
    int status = full ? read_recipe(dir, name, &text, err)
                      : hm_fail(err, HM_ERR_USAGE, "'%s' is not there", dir);

    if (status == HM_OK)
        status =
            to ? hm_format(&path, err, "%s", to)
               : hm_format(&path, err, "%s%s", name, hm_text_ends(name, ".yaml") ? "" : ".yaml");
    if (status == HM_OK && hm_path_exists(path))
        status = hm_fail(err, HM_ERR_USAGE, "'%s' exists; name another file", path);
    if (status == HM_OK && !strstr(text.ptr, "\nbase_dir:"))
        status = hm_buf_printf(&out, err, "base_dir: \"%s\" # where relative paths begin\n", full);
    if (status == HM_OK)
        status = hm_buf_append(&out, text.ptr, text.len, err);
    if (status == HM_OK)
        status = hm_file_write(path, out.ptr, out.len, err);
    if (status == HM_OK) {
        printf("%s\n", path);
        status = hm_print_flush(err);
    }
    hm_buf_release(&text);
    hm_buf_release(&out);
    hm_free(path);
    free(full);
    return status;
}

int hm_cmd_recipes(int argc, char **argv, struct hm_error *err)
{
    static const char *const forms[] = { "list", "show", "copy" };
    const char *dir = recipes_dir();
    size_t words;

    HM_TRY(hm_args_take(argc, argv, NULL, 0, &words, err));
    const char *form = words > 0 ? argv[1] : "list";
    if (strcmp(form, "list") == 0) {
        HM_TRY(hm_args_count(argv[0], words, 0, 1, err));
        return list(dir, err);
    }
    if (strcmp(form, "show") == 0) {
        HM_TRY(hm_args_count(argv[0], words, 2, 2, err));
        return show(dir, argv[2], err);
    }
    if (strcmp(form, "copy") == 0) {
        HM_TRY(hm_args_count(argv[0], words, 2, 3, err));
        return copy(dir, argv[2], words == 3 ? argv[3] : NULL, err);
    }
    return hm_fail_unknown(err, "recipes", "word", form, forms, 3);
}
