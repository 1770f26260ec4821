/* SPDX-License-Identifier: MIT */
/*
 * Names: the fields every stage has, looking up a field, and the sentence for a name nobody knows.
 */
#include <stdio.h>
#include <string.h>

#include "fields.h"

const struct hm_field hm_common_fields[HM_COMMON_FIELDS] = {
    { .name = "threads",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct hm_common_config, threads),
      .fallback = "0",
      .max = 4096,
      .neutral = true,
      .help = "threads; 0: as many as the cores this process may use" },
    { .name = "memory",
      .type = HM_FIELD_SIZE,
      .offset = offsetof(struct hm_common_config, memory),
      .fallback = "0",
      .neutral = true,
      .help = "memory the stage may take, such as 8G; 0: no limit" },
    { .name = "seed",
      .type = HM_FIELD_COUNT,
      .offset = offsetof(struct hm_common_config, seed),
      .help = "seed of random choices; default: the recipe's seed" },
};

const char *hm_input_type_name(enum hm_input_type type)
{
    static const char *const name[] = {
        [HM_INPUT_TEXT] = "text",       [HM_INPUT_TOKENIZER] = "tokenizer",
        [HM_INPUT_MODEL] = "model",     [HM_INPUT_PACKED] = "packed",
        [HM_INPUT_ADAPTER] = "adapter", [HM_INPUT_IDS] = "ids",
        [HM_INPUT_FILE] = "file",
    };
    return name[type];
}

static size_t common_prefix(const char *a, const char *b)
{
    size_t n = 0;

    while (a[n] && a[n] == b[n])
        n++;
    return n;
}

/* The nearest of the names if it is near enough to be meant; of equally near ones that which begins
 * most like it. */
static const char *nearest_name(const char *name, const char *const *names, size_t n)
{
    const char *best = NULL;
    unsigned best_distance = 0;

    for (size_t i = 0; i < n; i++) {
        unsigned distance = hm_edit_distance(name, names[i]);
        if (!best || distance < best_distance ||
            (distance == best_distance &&
             common_prefix(name, names[i]) > common_prefix(name, best))) {
            best = names[i];
            best_distance = distance;
        }
    }
    size_t longest = best && strlen(best) > strlen(name) ? strlen(best) : strlen(name);
    return best && 2 * best_distance <= longest + 1 ? best : NULL;
}

int hm_fail_unknown(struct hm_error *err, const char *place, const char *what, const char *name,
                    const char *const *names, size_t n)
{
    char valid[600] = "";
    size_t used = 0;
    const char *nearest = nearest_name(name, names, n);

    if (nearest)
        return hm_fail(err, HM_ERR_USAGE, "%s: unknown %s '%.100s'; did you mean '%s'?", place,
                       what, name, nearest);
    for (size_t i = 0; i < n && used < sizeof(valid); i++)
        used += (size_t)snprintf(valid + used, sizeof(valid) - used, "%s%s", i == 0 ? "" : ", ",
                                 names[i]);
    return hm_fail(err, HM_ERR_USAGE, "%s: unknown %s '%.100s'; valid: %s", place, what, name,
                   n == 0 ? "none" : valid);
}

static bool is_field(const struct hm_stage *stage, const char *name)
{
    for (size_t i = 0; i < stage->n_fields; i++)
        if (strcmp(stage->fields[i].name, name) == 0)
            return true;
    for (size_t i = 0; i < HM_COMMON_FIELDS; i++)
        if (strcmp(hm_common_fields[i].name, name) == 0)
            return true;
    return false;
}

#define STAGE_MAX_KEYS 128

int hm_stage_check_keys(const struct hm_stage *stage, const struct hm_node *map, const char *prefix,
                        struct hm_error *err)
{
    const char *names[STAGE_MAX_KEYS];
    char place[HM_NODE_PLACE_BYTES], what[160];
    size_t n = 0;

    for (size_t i = 0; i < stage->n_fields && n < STAGE_MAX_KEYS - HM_COMMON_FIELDS; i++)
        names[n++] = stage->fields[i].name;
    for (size_t i = 0; i < HM_COMMON_FIELDS; i++)
        names[n++] = hm_common_fields[i].name;
    for (size_t i = 0; map && i < map->count; i++) {
        const struct hm_node *node = &map->item[i];
        if (is_field(stage, node->key))
            continue;
        snprintf(what, sizeof(what), "key in %s of %s:", prefix, stage->name);
        return hm_fail_unknown(err, hm_node_place(node, place), what, node->key, names, n);
    }
    return HM_OK;
}
