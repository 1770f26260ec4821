/* SPDX-License-Identifier: MIT */
/*
 * Predictions of what a run spends on digests: inputs are read once before the stage that takes
 * them, unless that stage digests what it reads, and results once for the manifest. Files whose
 * digest is remembered cost nothing. The rate is that of the same code on a file of its own.
 */
#include <stdio.h>

#include "hanmix/base/hash.h"
#include "run_internal.h"

#define SAMPLE_BYTES ((size_t)64 << 20)

/* Bytes a second of a file that was just written; 0 unknown. */
static double rate_measure(const char *dir)
{
    char *sample = hm_calloc(HM_MEM_OTHER, SAMPLE_BYTES, 1), *path = NULL;
    char hex[HM_SHA256_HEX_BYTES];
    double took = 0;

    if (sample && hm_path_join(&path, dir, "digest", NULL) == HM_OK &&
        hm_file_write(path, sample, SAMPLE_BYTES, NULL) == HM_OK) {
        double start = hm_clock_seconds();
        if (hm_sha256_file(path, NULL, hex, NULL) == HM_OK)
            took = hm_clock_seconds() - start;
        (void)remove(path);
    }
    hm_free(path);
    hm_free(sample);
    return took > 0 ? (double)SAMPLE_BYTES / took : 0;
}

/* Bytes of the inputs that are there and whose digest is not. */
static int inputs_count(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                        size_t stage, struct hm_digest_cache *cache, uint64_t *ret_bytes,
                        struct hm_error *err)
{
    const struct hm_resolver resolver = { recipe, plan->stage, false, NULL, NULL };
    const struct hm_stage *row = recipe->stage[stage].stage;
    struct hm_input_value *inputs = NULL;
    uint64_t bytes = 0;

    HM_TRY(hm_inputs_resolve(&resolver, stage, &inputs, err));
    int status = HM_OK;
    for (size_t i = 0; i < row->n_inputs; i++)
        for (size_t s = 0; s < inputs[i].n_sets; s++)
            for (size_t p = 0; !inputs[i].set[s].pending && p < inputs[i].set[s].n_paths; p++)
                if (status == HM_OK)
                    status = hm_digest_unread_bytes(cache, inputs[i].set[s].path[p], &bytes, err);
    hm_inputs_release(inputs, row->n_inputs);
    *ret_bytes = row->digests_inputs ? 0 : bytes; /* counted all the same: known from now on */
    return status;
}

int hm_plan_digests(const struct hm_recipe *recipe, const struct hm_run_plan *plan,
                    const char *scratch, struct hm_plan_bench *bench, struct hm_error *err)
{
    struct hm_digest_cache cache = { 0 };
    double rate = rate_measure(scratch);
    char *path = NULL;

    HM_TRY(hm_run_path(recipe, ".digests.json", "", &path, err));
    int status = hm_digest_cache_load(recipe->single ? NULL : path, &cache, err);
    for (size_t i = 0; status == HM_OK && rate > 0 && i < plan->n_stages; i++) {
        uint64_t bytes = 0;
        if (plan->stage[i].decision == HM_DECIDE_SKIP)
            continue;
        status = inputs_count(recipe, plan, i, &cache, &bytes, err);
        if (bench->stage[i].n_parts == 0) /* it stays one of which nothing is known */
            continue;
        bytes += recipe->single ? 0 : plan->stage[i].plan.disk_bytes;
        double seconds = (double)bytes / rate;
        if (bytes > 0)
            hm_stage_bench_add(&bench->stage[i], "digest", seconds, 1);
        bench->seconds += bytes > 0 ? seconds : 0;
    }
    hm_digest_cache_release(&cache);
    hm_free(path);
    return status;
}
