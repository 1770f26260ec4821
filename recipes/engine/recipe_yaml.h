/* SPDX-License-Identifier: MIT */
/*
 * YAML to recipe nodes. Private to recipes/.
 */
#ifndef HANMIX_RECIPES_ENGINE_RECIPE_YAML_H
#define HANMIX_RECIPES_ENGINE_RECIPE_YAML_H

#include "recipe_node.h"

#define HM_RECIPE_MAX_BYTES (1u << 20)
#define HM_RECIPE_MAX_DEPTH 16
#define HM_RECIPE_MAX_NODES 100000u

/*
 * One YAML document into *ret_root (zeroed by the caller, hm_node_release in every case). `file` is
 * borrowed by the nodes and named in errors with the line; NULL means the command line. Anchors,
 * aliases, tags, duplicate keys and a second document are refused.
 */
int hm_yaml_parse(struct hm_str text, const char *file, struct hm_node *ret_root,
                  struct hm_error *err);

#endif
