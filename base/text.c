/* SPDX-License-Identifier: MIT */
/*
 * What all readers of text share: progress by the source's position, and the growing array of token
 * ids that encoders fill.
 */
#include <string.h>

#include "hanmix/base/text.h"

void hm_text_progress(const struct hm_ctl *ctl, const char *what,
                      const struct hm_text_source *source)
{
    struct hm_progress progress = { .what = what, .unit = "bytes", .total = source->total_bytes };

    if (source->position_bytes)
        progress.done = source->position_bytes(source->context);
    hm_ctl_progress(ctl, &progress);
}

int hm_ids_append(struct hm_ids *ids, const int32_t *id, size_t count, struct hm_error *err)
{
    if (count > SIZE_MAX / (4 * sizeof(int32_t)) - ids->count)
        return hm_fail(err, HM_ERR_NOMEM, "too many token ids: %zu and %zu more", ids->count,
                       count);
    if (ids->count + count > ids->cap) {
        size_t cap = ids->cap < 64 ? 64 : ids->cap + ids->cap / 2;
        if (cap < ids->count + count)
            cap = ids->count + count;
        int32_t *grown = hm_realloc(HM_MEM_TEXT, ids->id, cap * sizeof(int32_t));
        if (!grown)
            return hm_fail_nomem(err, "for %zu token ids", cap);
        ids->id = grown;
        ids->cap = cap;
    }
    if (count > 0)
        memcpy(ids->id + ids->count, id, count * sizeof(int32_t));
    ids->count += count;
    return HM_OK;
}

void hm_ids_clear(struct hm_ids *ids)
{
    ids->count = 0;
}

void hm_ids_release(struct hm_ids *ids)
{
    hm_free(ids->id);
    *ids = (struct hm_ids){ 0 };
}
