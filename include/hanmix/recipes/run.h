/* SPDX-License-Identifier: MIT */
/*
 * Planning and running a recipe, and what a run folder tells afterwards.
 *
 * RUN_DIR/<id>/ is the finished output of a stage; RUN_DIR/<id>.partial/ what is being written.
 * stage.json in it holds identity (settings, digests of inputs, versions) and measurements;
 * RUN_DIR/manifest.json lists all files with their SHA-256. One process at a time holds
 * RUN_DIR/.lock. Thread class: owner thread.
 */
#ifndef HANMIX_RECIPES_RUN_H
#define HANMIX_RECIPES_RUN_H

#include "hanmix/recipes/recipe.h"

enum hm_decision {
    HM_DECIDE_SKIP,     /* finished with the same identity */
    HM_DECIDE_RUN,      /* nothing there, or it differs: see reason */
    HM_DECIDE_CONTINUE, /* a stopped, resumable stage with the same identity */
    HM_DECIDE_WAIT      /* an earlier stage runs first; its product decides */
};
const char *hm_decision_name(enum hm_decision decision); /* "skip" */

struct hm_planned_stage {
    enum hm_decision decision;
    char *reason; /* "set.rank: 8 -> 16"; "" when there is nothing to say */
    struct hm_stage_plan plan;
    /* sum of plan.memory, and the part of it that may be evicted */
    uint64_t memory_bytes, mapped_bytes;
};
struct hm_run_plan {
    struct hm_planned_stage *stage; /* as recipe->stage */
    size_t n_stages;
    uint64_t memory_bytes;          /* the largest of the stages that will run */
    uint64_t memory_unmapped_bytes; /* the same without pages that may be evicted */
    size_t memory_stage;            /* which stage that is */
    uint64_t disk_bytes;            /* sum over the stages that will run */
    uint64_t read_bytes;            /* the same, of what they read; 0 where not known */
    char **missing;                 /* "PATH: what it is", external paths that are not there */
    size_t n_missing;
};
/* Inputs are checked as far as they exist; a path that is missing and not `external` is
 * HM_ERR_USAGE. Writes nothing. */
int hm_run_plan_make(const struct hm_recipe *recipe, int threads, const struct hm_ctl *ctl,
                     struct hm_run_plan *ret_plan, struct hm_error *err);
void hm_run_plan_release(struct hm_run_plan *plan);

struct hm_fit_limits {
    uint64_t memory_bytes; /* of a process, pages of files included; 0: none */
    bool machine;          /* also what this process may take without those, and the free disk */
    size_t first, last;    /* stages to look at */
};
/* HM_ERR_NOFIT naming the stage and its largest purposes, or the disk. */
int hm_run_plan_fits(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                     const struct hm_fit_limits *limits, struct hm_error *err);
/*
 * After HM_ERR_NOFIT of hm_run_plan_make or _fits: add to the sentence the cheapest change of
 * settings with which the recipe, planned again, fits.
 */
void hm_run_plan_advise(const struct hm_recipe *recipe, int threads,
                        const struct hm_fit_limits *limits, struct hm_error *err);

/* Predictions of the stages of a plan that will run. */
struct hm_plan_bench {
    struct hm_stage_bench *stage; /* as recipe->stage; empty where nothing is predicted */
    size_t n_stages;
    double seconds;               /* of all that is predicted */
    size_t unpredicted;           /* stages that will run, of which nothing is known */
    double read_rate, write_rate; /* bytes a second of the disk of the run folder; 0 unknown */
};
/*
 * Time parts of the stages that will run, about `seconds` long in all. Works in a folder of its own
 * beside the run folder, else in $TMPDIR, which is gone afterwards. Stop request: HM_ERR_STOPPED.
 */
int hm_run_plan_bench(const struct hm_recipe *recipe, const struct hm_run_plan *plan, int threads,
                      double seconds, const struct hm_ctl *ctl, struct hm_plan_bench *ret_bench,
                      struct hm_error *err);
void hm_plan_bench_release(struct hm_plan_bench *bench);

/* The plan for programs. */
int hm_run_plan_json(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                     json_t **ret_json, struct hm_error *err);

struct hm_run_options {
    const char *until, *only; /* stage ids; NULL: all */
    int threads;              /* 0: as the machine has */
    const struct hm_ctl *ctl; /* message() tells every decision; may be NULL */
};
/*
 * Run what is not finished. Stages finished with the same identity are skipped. The status of the
 * first stage that fails is returned; HM_ERR_CHECK means its folder is complete with state
 * "failed".
 */
int hm_run(const struct hm_recipe *recipe, const struct hm_run_options *options,
           struct hm_error *err);

struct hm_stage_status {
    char *id, *stage, *state; /* "done", "failed", "running", "stopped", "partial", "waiting" */
    double wall_seconds;      /* NaN when unknown */
    uint64_t peak_rss_bytes;  /* 0 when unknown */
    char *detail;             /* "step 120 loss 3.21"; may be "" */
};
struct hm_run_status {
    char *recipe;
    bool busy; /* another process holds the lock */
    struct hm_stage_status *stage;
    size_t n_stages;
};
int hm_run_status_read(const char *run_dir, struct hm_run_status *ret_status, struct hm_error *err);
void hm_run_status_release(struct hm_run_status *status);

struct hm_verify_report {
    uint64_t files, bytes, differ, missing;
};
/* Digest every file the manifest lists; message() names each that differs. HM_ERR_CHECK names the
 * first. */
int hm_run_verify(const char *run_dir, const struct hm_ctl *ctl,
                  struct hm_verify_report *ret_report, struct hm_error *err);

#endif
