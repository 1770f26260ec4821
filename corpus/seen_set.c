/* SPDX-License-Identifier: MIT */
/*
 * The set of text hashes behind `dedup`; see seen_set.h.
 */
#include "seen_set.h"

#include <inttypes.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/hash.h"

#define FIRST_CAP 4096u

static size_t slot_find(const struct seen_set *set, uint64_t low, uint64_t high)
{
    size_t at = (size_t)low & (set->cap - 1);

    while ((set->slot[at][0] | set->slot[at][1]) != 0 &&
           (set->slot[at][0] != low || set->slot[at][1] != high))
        at = (at + 1) & (set->cap - 1);
    return at;
}

uint64_t hm_seen_set_bytes(uint64_t texts)
{
    uint64_t cap = FIRST_CAP;

    while (texts / 3 > cap / 4)
        cap *= 2;
    return (cap + cap / 2) * sizeof(uint64_t[2]);
}

static int grow(struct seen_set *set, struct hm_error *err)
{
    struct seen_set bigger = { .cap = set->cap ? 2 * set->cap : FIRST_CAP,
                               .count = set->count,
                               .max_bytes = set->max_bytes };

    if (set->max_bytes && (set->cap + bigger.cap) * sizeof(*bigger.slot) > set->max_bytes)
        return hm_fail(err, HM_ERR_NOFIT,
                       "dedup: the hashes of more than %zu texts do not fit in %" PRIu64 " bytes",
                       set->count, set->max_bytes);
    bigger.slot = hm_calloc(HM_MEM_TEXT, bigger.cap, sizeof(*bigger.slot));
    if (!bigger.slot)
        return hm_fail_nomem(err, "for the hashes of %zu texts", set->count);
    for (size_t i = 0; i < set->cap; i++) {
        uint64_t *from = set->slot[i];
        if ((from[0] | from[1]) != 0) {
            size_t at = slot_find(&bigger, from[0], from[1]);
            bigger.slot[at][0] = from[0];
            bigger.slot[at][1] = from[1];
        }
    }
    hm_free(set->slot);
    *set = bigger;
    return HM_OK;
}

int hm_seen_set_add(struct seen_set *set, struct hm_str text, bool *ret_new, struct hm_error *err)
{
    uint64_t low = hm_hash64(text.ptr, text.len, 1);
    uint64_t high = hm_hash64(text.ptr, text.len, 2) | 1; /* never {0, 0} */

    if (4 * (set->count + 1) > 3 * set->cap)
        HM_TRY(grow(set, err));
    size_t at = slot_find(set, low, high);
    *ret_new = (set->slot[at][0] | set->slot[at][1]) == 0;
    if (*ret_new) {
        set->slot[at][0] = low;
        set->slot[at][1] = high;
        set->count++;
    }
    return HM_OK;
}

void hm_seen_set_release(struct seen_set *set)
{
    hm_free(set->slot);
    *set = (struct seen_set){ .max_bytes = set->max_bytes };
}
