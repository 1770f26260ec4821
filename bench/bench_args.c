/* SPDX-License-Identifier: MIT */
/*
 * The one loop over the command line of a bench; see bench_args.h.
 */
#include "bench_args.h"

#include <string.h>

#include "hanmix/base/str.h"

static const struct bench_option *find(const struct bench_option *option, size_t n,
                                       const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(option[i].name, name) == 0)
            return &option[i];
    return NULL;
}

static int take(const struct bench_option *option, const char *value, struct hm_error *err)
{
    uint64_t count = 0;

    if (option->text) {
        *option->text = value;
        return HM_OK;
    }
    if (option->real)
        return hm_parse_double(value, option->real, err);
    HM_TRY(hm_parse_count(value, &count, err));
    if (option->count)
        *option->count = count;
    else if (count > UINT32_MAX)
        return hm_fail(err, HM_ERR_USAGE, "%s %s is too large", option->name, value);
    else
        *option->number = (uint32_t)count;
    return HM_OK;
}

int bench_args(int argc, char **argv, const struct bench_option *option, size_t n,
               size_t *ret_words, struct hm_error *err)
{
    size_t words = 0;

    for (int i = 1; i < argc; i++) {
        const struct bench_option *found = find(option, n, argv[i]);
        if (!found && ret_words && strncmp(argv[i], "--", 2) != 0) {
            argv[++words] = argv[i];
            continue;
        }
        if (!found)
            return hm_fail(err, HM_ERR_USAGE, "unknown option '%s'", argv[i]);
        if (found->flag) {
            *found->flag = true;
            continue;
        }
        if (i + 1 == argc)
            return hm_fail(err, HM_ERR_USAGE, "'%s' needs a value", argv[i]);
        HM_TRY(take(found, argv[++i], err));
    }
    if (ret_words)
        *ret_words = words;
    return HM_OK;
}
