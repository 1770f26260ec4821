/* SPDX-License-Identifier: MIT */
/*
 * Which weights become 4-bit: every linear, experts included, except those named to be skipped. The
 * test of a name is transformers' (integrations/bitsandbytes.py), so that a folder loads there with
 * the same modules replaced.
 */
#include "quantize_rules.h"

#include <string.h>

bool hm_skip_matches(const char *skip, const char *module)
{
    const char *leaf = strrchr(module, '.');
    size_t len = strlen(skip);

    if (strcmp(skip, module) == 0 || strcmp(skip, leaf ? leaf + 1 : module) == 0)
        return true;
    for (const char *at = module; len && (at = strstr(at, skip)); at++)
        if (at[len] == '.') /* `key + "." in path`: not bound to a component's start there either */
            return true;
    return false;
}

static bool is_default(const char *skip)
{
    return strcmp(skip, "lm_head") == 0 || strcmp(skip, "embed_tokens") == 0 ||
           strcmp(skip, "gate") == 0;
}

int hm_quantize_select(const struct hm_arch *arch, char *const *skip, size_t n_skip, bool *nf4,
                       struct hm_error *err)
{
    size_t slots = hm_arch_slot_count(arch);
    struct hm_weight_slot slot;
    char module[HM_SLOT_NAME_BYTES];

    for (size_t i = 0; i < slots; i++) {
        hm_arch_slot(arch, i, &slot, module);
        nf4[i] = hm_weight_kind_is_linear(slot.kind);
    }
    for (size_t s = 0; s < n_skip; s++) {
        bool matched = is_default(skip[s]);
        for (size_t i = 0; i < slots; i++) {
            hm_arch_slot(arch, i, &slot, module);
            if (hm_skip_matches(skip[s], module)) {
                nf4[i] = false;
                matched = true;
            }
        }
        if (!matched)
            return hm_fail(err, HM_ERR_USAGE,
                           "skip '%.200s' names no module: expected names such as lm_head, "
                           "embed_tokens, gate, q_proj or a path like model.layers.0",
                           skip[s]);
    }
    return HM_OK;
}
