/* SPDX-License-Identifier: MIT */
/*
 * What planning and running share: resolved inputs, identities, the files of a run folder. Private
 * to recipes/engine.
 */
#ifndef HANMIX_RECIPES_ENGINE_RUN_INTERNAL_H
#define HANMIX_RECIPES_ENGINE_RUN_INTERNAL_H

#include "digest_cache.h"
#include "engine.h"
#include "hanmix/recipes/run.h"

#define HM_STAGE_JSON_MAX_BYTES (64ull << 20)

/* --- input_resolve.c --- */

struct hm_resolver {
    const struct hm_recipe *recipe;
    const struct hm_planned_stage *planned; /* per stage; NULL: every needed stage has finished */
    bool need_external;                     /* a missing external path is an error */
    struct hm_run_plan *plan;               /* receives `missing`; may be NULL */
    /* Results of rehearsals by stage, taken for tokenizers that do not exist yet; may be NULL. */
    const char *stand_ins;
};
/* One value per input of the stage's table, in its order; absent ones have no sets. */
int hm_inputs_resolve(const struct hm_resolver *resolver, size_t stage,
                      struct hm_input_value **ret_values, struct hm_error *err);
void hm_inputs_release(struct hm_input_value *values, size_t n);

/* --- stage_identity.c --- */

struct hm_identity {
    json_t *identity; /* stage, versions, seed, config, digests of inputs: what is compared */
    json_t *inputs;   /* per input: paths and digests, for people */
    char digest[HM_SHA256_HEX_BYTES]; /* of `identity` without versions: config_digest of stages */
    bool unread; /* large files of the inputs by inode, size and time, until the stage has read them
                  */
};
/* Digests all inputs; none may be pending. With `unread` large ones are left for later, if they can
 * be. */
int hm_identity_make(const struct hm_recipe_stage *stage, const struct hm_input_value *inputs,
                     bool unread, struct hm_digest_cache *cache, const struct hm_ctl *ctl,
                     struct hm_identity *ret_identity, struct hm_error *err);
/* As the stage is to be decided about: nothing is read ahead of a stage that digests its inputs
 * itself, unless there is an earlier result to compare with. */
int hm_identity_begin(const struct hm_recipe *recipe, size_t stage,
                      const struct hm_input_value *inputs, struct hm_digest_cache *cache,
                      const struct hm_ctl *ctl, struct hm_identity *ret_identity,
                      struct hm_error *err);
/* After the stage: an unread identity becomes a full one, from what the stage has read and, where
 * it has not, by reading. HM_ERR_IO: an input is no longer what it was when the stage began. */
int hm_identity_complete(const struct hm_recipe_stage *stage, const struct hm_input_value *inputs,
                         const struct hm_file_digests *read, int64_t since_ns,
                         struct hm_digest_cache *cache, const struct hm_ctl *ctl,
                         struct hm_identity *identity, struct hm_error *err);
void hm_identity_release(struct hm_identity *identity);
/* True when equal; else *ret_reason ("set.rank: 8 -> 16", hm_free). `inputs` of the older one may
 * be NULL. */
int hm_identity_compare(const json_t *was, const json_t *is, bool *ret_same, char **ret_reason,
                        struct hm_error *err);

/* --- run_folder.c --- */

int hm_run_path(const struct hm_recipe *recipe, const char *id, const char *suffix, char **ret_path,
                struct hm_error *err);
/* The longest part of `path` that exists as a folder, "." when none does; hm_free. */
int hm_existing_parent(const char *path, char **ret_dir, struct hm_error *err);
/* stage.json of a folder: NULL when there is none or it cannot be read. */
json_t *hm_stage_json_load(const char *folder);
/* Something is there to continue from besides the record of who began it. */
bool hm_partial_has_state(const char *partial_dir);
/* A folder of the stage's name that no stage made is somebody's data: HM_ERR_USAGE. One whose
 * stage.json is damaged: HM_ERR_FORMAT. */
int hm_stage_name_check(const struct hm_recipe *recipe, const char *id, struct hm_error *err);
const char *hm_stage_json_state(const json_t *stage_json); /* "" when NULL */

/* The manifest of a run in memory. */
struct hm_manifest {
    json_t *root;
    char *path;
};
/* From the recipe; what an older manifest says of stages that are still there is kept. */
int hm_manifest_open(const struct hm_recipe *recipe, struct hm_manifest *ret_manifest,
                     struct hm_error *err);
int hm_manifest_save(const struct hm_manifest *manifest, struct hm_error *err);
void hm_manifest_release(struct hm_manifest *manifest);
/* State of a stage; with `cache` its files are digested and listed. Saved at once. */
int hm_manifest_set(struct hm_manifest *manifest, const struct hm_recipe *recipe, size_t stage,
                    const char *state, const char *why, struct hm_digest_cache *cache,
                    const struct hm_ctl *ctl, struct hm_error *err);

/* --- run_plan.c --- */

/* What is to be done about a stage whose inputs are all there. */
int hm_stage_decide(const struct hm_recipe *recipe, size_t stage,
                    const struct hm_identity *identity, enum hm_decision *ret_decision,
                    char **ret_reason, struct hm_error *err);
/* Fill what plan() and run() see; out_dir is borrowed. */
void hm_stage_run_fill(const struct hm_recipe *recipe, size_t stage, int threads,
                       const struct hm_input_value *inputs, const struct hm_ctl *ctl,
                       struct hm_stage_run *ret_run);
/* plan() with the program itself added and summed up. */
int hm_stage_plan_make(const struct hm_stage *stage, const struct hm_stage_run *run,
                       struct hm_planned_stage *planned, struct hm_error *err);

/* --- plan_rehearse.c --- */

/* Runs the stage on parts of its text into run->out_dir, for about so many seconds at most. A stage
 * that does not end within them, or fails, leaves *ret_bench empty. HM_ERR_STOPPED when asked to.
 */
int hm_stage_rehearse(const struct hm_stage *stage, const struct hm_stage_run *run, double seconds,
                      struct hm_stage_bench *ret_bench, struct hm_error *err);

/* --- plan_digest.c --- */

/* Adds the part "digest" to the stages that are predicted, and to the sum. */
int hm_plan_digests(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                    const char *scratch, struct hm_plan_bench *bench, struct hm_error *err);

/* --- stage_exec.c --- */

struct hm_stage_turn { /* all borrowed */
    size_t stage;
    enum hm_decision decision;
    int threads;
    const struct hm_input_value *inputs;
    struct hm_identity *identity; /* completed on the way */
    struct hm_digest_cache *cache;
};
/* Run one stage from start to rename. HM_ERR_CHECK: the folder is complete, state "failed". */
int hm_stage_exec(const struct hm_recipe *recipe, const struct hm_stage_turn *turn,
                  const struct hm_ctl *ctl, struct hm_error *err);

/* The sentence for a stage that needs more than limit_bytes: how much, what most of it is for.
 * Pages of files count or not; `by` names the setting that limits, or NULL. HM_ERR_NOFIT. */
int hm_fail_memory(struct hm_error *err, const char *id, const struct hm_planned_stage *planned,
                   bool with_mapped, uint64_t limit_bytes, const char *by);

#endif
