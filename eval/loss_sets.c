/* SPDX-License-Identifier: MIT */
/*
 * From sums to nats per token, bits per byte and per character, with the interval over documents.
 */
#include "loss_sets.h"

#include <math.h>
#include <string.h>

void hm_sums_release(struct hm_sums *sums)
{
    for (size_t i = 0; i < sums->count; i++) {
        hm_free(sums->set[i].name);
        hm_free(sums->set[i].scored);
    }
    hm_free(sums->set);
    *sums = (struct hm_sums){ 0 };
}

void hm_loss_sets_free(struct hm_loss_set *sets, size_t n)
{
    for (size_t i = 0; sets && i < n; i++)
        hm_free(sets[i].name);
    hm_free(sets);
}

int hm_sums_set(struct hm_sums *sums, const char *name, size_t *ret_set, struct hm_error *err)
{
    for (size_t i = 0; i < sums->count; i++) {
        if (strcmp(sums->set[i].name, name) == 0) {
            *ret_set = i;
            return HM_OK;
        }
    }
    struct hm_set_sums *grown =
        hm_realloc(HM_MEM_OTHER, sums->set, (sums->count + 1) * sizeof(*grown));
    if (grown)
        sums->set = grown;
    char *copy = hm_strdup(HM_MEM_OTHER, name);
    if (!grown || !copy) {
        hm_free(copy);
        return hm_fail_nomem(err, "for set '%s'", name);
    }
    sums->set[sums->count] = (struct hm_set_sums){ .name = copy };
    *ret_set = sums->count++;
    return HM_OK;
}

int hm_sums_document(struct hm_sums *sums, size_t set_index, uint64_t bytes, uint64_t chars,
                     size_t *ret_at, struct hm_error *err)
{
    struct hm_set_sums *set = &sums->set[set_index];

    if (set->n_scored == set->cap) {
        size_t cap = set->cap == 0 ? 64 : 2 * set->cap;
        struct hm_scored *grown = hm_realloc(HM_MEM_OTHER, set->scored, cap * sizeof(*grown));
        if (!grown)
            return hm_fail_nomem(err, "for %zu documents of '%s'", cap, set->name);
        set->scored = grown;
        set->cap = cap;
    }
    set->scored[set->n_scored] = (struct hm_scored){ .bytes = bytes };
    set->chars += chars;
    *ret_at = set->n_scored++;
    return HM_OK;
}

static int set_report(const struct hm_set_sums *set, struct hm_loss_set *ret, struct hm_error *err)
{
    struct hm_loss_set result = { .documents = set->n_scored,
                                  .tokens = set->targets,
                                  .chars = set->chars };
    double loss = 0, low = 0, high = 0;

    for (size_t i = 0; i < set->n_scored; i++) {
        loss += set->scored[i].loss;
        result.bytes += set->scored[i].bytes;
    }
    if (set->targets == 0)
        return hm_fail(err, HM_ERR_FORMAT, "set '%s' has no token to score", set->name);
    HM_TRY(hm_bootstrap_ratio(set->scored, set->n_scored, &low, &high, err));
    result.nats_per_token = loss / (double)set->targets;
    result.bits_per_byte = result.bytes > 0 ? loss / (double)result.bytes / M_LN2 : NAN;
    result.bits_per_char = result.chars > 0 ? loss / (double)result.chars / M_LN2 : NAN;
    result.low = result.bytes > 0 ? low / M_LN2 : NAN;
    result.high = result.bytes > 0 ? high / M_LN2 : NAN;
    result.name = hm_strdup(HM_MEM_OTHER, set->name);
    if (!result.name)
        return hm_fail_nomem(err, "for set '%s'", set->name);
    *ret = result;
    return HM_OK;
}

int hm_sums_report(const struct hm_sums *sums, struct hm_loss_set **ret_sets, size_t *ret_n,
                   struct hm_error *err)
{
    struct hm_loss_set *sets = NULL;
    int status = HM_OK;

    if (sums->count == 0)
        return hm_fail(err, HM_ERR_FORMAT, "the text to score holds no document");
    sets = hm_calloc(HM_MEM_OTHER, sums->count, sizeof(*sets));
    if (!sets)
        return hm_fail_nomem(err, "for %zu sets", sums->count);
    for (size_t i = 0; i < sums->count && status == HM_OK; i++)
        status = set_report(&sums->set[i], &sets[i], err);
    if (status < 0) {
        hm_loss_sets_free(sets, sums->count);
        return status;
    }
    *ret_sets = sets;
    *ret_n = sums->count;
    return HM_OK;
}
