/* SPDX-License-Identifier: MIT */
/*
 * Runs on their way into counts: the units of some text one after another, the runs in them with
 * hashes, then ordered by the part they belong to. What a list holds is of the counts' budget; its
 * memory is kept from one text to the next.
 */
#include "han_store.h"

void hm_han_list_clear(struct hm_han_list *list)
{
    list->n_units = 0;
    list->n_items = 0;
}

void hm_han_list_release(struct hm_han_list *list)
{
    uint64_t bytes = list->cap_units * sizeof(*list->unit) +
                     (list->cap_items + list->cap_sorted) * sizeof(*list->item);

    if (list->budget)
        atomic_fetch_sub(&list->budget->used_bytes, bytes);
    hm_free(list->unit);
    hm_free(list->item);
    hm_free(list->sorted);
    *list = (struct hm_han_list){ .budget = list->budget };
}

/* Grow an array to `need` elements at least; *cap counts what the budget was asked for. */
static void *array_grow(struct hm_han_list *list, void *block, size_t *cap, size_t need,
                        size_t size, struct hm_error *err)
{
    size_t wanted = need > 2 * *cap ? need : 2 * *cap;

    if (hm_han_budget_take(list->budget, (wanted - *cap) * size, err) < 0)
        return NULL;
    void *grown = hm_realloc(HM_MEM_VOCAB, block, wanted * size);
    if (!grown) {
        atomic_fetch_sub(&list->budget->used_bytes, (wanted - *cap) * size);
        hm_fail_nomem(err, "for a list of %zu Han runs", wanted);
        return NULL;
    }
    *cap = wanted;
    return grown;
}

int hm_han_list_reserve(struct hm_han_list *list, size_t more_units, struct hm_error *err)
{
    size_t need = list->n_units + more_units;

    if (need <= list->cap_units)
        return HM_OK;
    if (need > UINT32_MAX)
        return hm_fail(err, HM_ERR_FORMAT, "a document of more than %zu Han characters is too long",
                       list->n_units);
    uint16_t *unit = array_grow(list, list->unit, &list->cap_units, need, sizeof(*unit), err);
    if (!unit)
        return err->code;
    list->unit = unit;
    return HM_OK;
}

int hm_han_list_end_run(struct hm_han_list *list, size_t first, uint64_t count,
                        struct hm_error *err)
{
    if (list->n_items == list->cap_items) {
        struct hm_han_item *item =
            array_grow(list, list->item, &list->cap_items, list->n_items + 64, sizeof(*item), err);
        if (!item)
            return err->code;
        list->item = item;
    }
    uint32_t n_units = (uint32_t)(list->n_units - first);
    list->item[list->n_items++] = (struct hm_han_item){ hm_run_hash(list->unit + first, n_units),
                                                        count, (uint32_t)first, n_units };
    return HM_OK;
}

static size_t part_of(const struct hm_han_item *item)
{
    return item->hash >> 40 & (HM_HAN_PARTS - 1);
}

int hm_han_list_sort(struct hm_han_list *list, struct hm_error *err)
{
    size_t next[HM_HAN_PARTS] = { 0 };

    if (list->n_items > list->cap_sorted) {
        struct hm_han_item *sorted =
            array_grow(list, list->sorted, &list->cap_sorted, list->n_items, sizeof(*sorted), err);
        if (!sorted)
            return err->code;
        list->sorted = sorted;
    }
    for (size_t i = 0; i < list->n_items; i++)
        next[part_of(&list->item[i])]++;
    for (size_t p = 0, sum = 0; p < HM_HAN_PARTS; p++) {
        list->start[p] = sum;
        sum += next[p];
        next[p] = list->start[p];
    }
    list->start[HM_HAN_PARTS] = list->n_items;
    for (size_t i = 0; i < list->n_items; i++)
        list->sorted[next[part_of(&list->item[i])]++] = list->item[i];
    return HM_OK;
}
