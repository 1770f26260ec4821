/* SPDX-License-Identifier: MIT */
/*
 * recipes/engine: a recipe as text. What parses must be in an order in which needs come first.
 * Stages are those of tests/support/test_stages.c.
 */
#include "fuzz/fuzz.h"

#include "hanmix/recipes/recipe.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    static const char *const overrides[] = { "zh.set.bytes=2K", "zh.in.text.en=[a.txt, b.txt]" };
    struct hm_recipe recipe = { 0 };
    struct hm_error err = { 0 };
    struct hm_str text = { (const char *)data, size };

    for (size_t n = 0; n <= 2; n += 2) {
        int status = hm_recipe_parse(text, "r.yaml", overrides, n, "run", &recipe, &err);
        HM_BUG(status < 0 && status != HM_ERR_USAGE && status != HM_ERR_NOMEM);
        HM_BUG(status < 0 && err.text[0] == '\0');
        for (size_t i = 0; status == HM_OK && i < recipe.n_stages; i++)
            for (size_t k = 0; k < recipe.stage[i].n_needs; k++)
                HM_BUG(recipe.stage[i].needs[k] >= i);
        if (status == HM_OK)
            hm_recipe_release(&recipe);
    }
    return 0;
}
