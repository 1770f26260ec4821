/* SPDX-License-Identifier: MIT */
/*
 * Passes that are whole on the disk, told to a later process: counting.json says what the first
 * left (files, sizes, totals), cut.json what the second did. Both name the key of what was counted;
 * they are written last, so what they name is there. Anything else found is as if it were not:
 * that pass starts over.
 */
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "bpe_cut.h"
#include "hanmix/base/file.h"

#define COUNTING_FILE  HM_SPILL_NAME "json"
#define CUT_FILE       HM_SPILL_NAME "cut.json"
#define FORMAT         1u
#define FILE_MAX_BYTES (1u << 20)

static const char *const total_name[] = { "documents", "bytes", "characters", "han_characters" };

static void totals_of(struct hm_han_counts *counts, uint64_t *total[4])
{
    total[0] = &counts->documents;
    total[1] = &counts->bytes;
    total[2] = &counts->characters;
    total[3] = &counts->han_characters;
}

static int put_u64(json_t *object, const char *key, uint64_t value)
{
    return json_object_set_new(object, key, json_integer((json_int_t)value));
}

static json_t *head_new(const struct han_spill *spill)
{
    return json_pack("{s:i, s:s}", "format", (int)FORMAT, "key", spill->options.key);
}

/* The file, if it is there and of this key: else NULL. */
static json_t *state_load(const struct han_spill *spill, const char *name)
{
    char *path = NULL;
    json_t *value = NULL;
    const char *key = NULL;
    uint64_t format = 0;

    if (hm_path_join(&path, spill->options.dir, name, NULL) < 0)
        return NULL;
    if (!hm_path_exists(path) || hm_json_load(path, FILE_MAX_BYTES, &value, NULL) < 0 ||
        hm_json_u64(value, "format", path, &format, NULL) < 0 ||
        hm_json_text(value, "key", path, &key, NULL) < 0 || format != FORMAT ||
        strcmp(key, spill->options.key) != 0) {
        json_decref(value);
        value = NULL;
    }
    hm_free(path);
    return value;
}

/* --- the first pass --------------------------------------------------------------------------- */

int hm_spill_counting_save(const struct hm_han_counts *counts, json_t *note, struct hm_error *err)
{
    const struct han_spill *spill = counts->spill;
    uint64_t *total[4];
    json_t *value = head_new(spill);
    int failed = value ? 0 : -1;

    totals_of((struct hm_han_counts *)(uintptr_t)counts, total);
    if (value && note)
        failed |= json_object_set(value, "note", note);
    for (size_t i = 0; value && i < 4; i++)
        failed |= put_u64(value, total_name[i], *total[i]);
    if (value) {
        failed |= put_u64(value, "runs", counts->runs);
        failed |= put_u64(value, "runs_bytes", spill->runs_bytes);
        failed |= put_u64(value, "pairs_bytes", spill->pairs_bytes);
    }
    int status = failed ? hm_fail_nomem(err, "for the record of a count")
                        : hm_json_save_in(spill->options.dir, COUNTING_FILE, value, err);
    json_decref(value);
    return status;
}

static bool file_has(const struct han_spill *spill, const char *name, uint64_t bytes)
{
    char *path = NULL;
    uint64_t size = 0;
    bool has = hm_path_join(&path, spill->options.dir, name, NULL) == HM_OK &&
               hm_path_exists(path) && hm_file_size(path, &size, NULL) == HM_OK && size == bytes;

    hm_free(path);
    return has;
}

static bool counting_read(struct hm_han_counts *counts, const json_t *value)
{
    struct han_spill *spill = counts->spill;
    uint64_t *total[4];
    bool good = true;

    totals_of(counts, total);
    for (size_t i = 0; good && i < 4; i++)
        good = hm_json_u64(value, total_name[i], "", total[i], NULL) == HM_OK;
    return good && hm_json_u64(value, "runs", "", &counts->runs, NULL) == HM_OK &&
           hm_json_u64(value, "runs_bytes", "", &spill->runs_bytes, NULL) == HM_OK &&
           hm_json_u64(value, "pairs_bytes", "", &spill->pairs_bytes, NULL) == HM_OK &&
           file_has(spill, HM_SPILL_RUNS, spill->runs_bytes) &&
           file_has(spill, HM_SPILL_PAIRS, spill->pairs_bytes);
}

int hm_han_counts_resume(struct hm_han_counts *counts, bool *ret_resumed, json_t **ret_note,
                         struct hm_error *err)
{
    struct han_spill *spill = counts->spill;
    json_t *value = spill ? state_load(spill, COUNTING_FILE) : NULL;
    struct hm_error why = { 0 };
    int status = HM_OK;

    *ret_resumed = false;
    if (ret_note)
        *ret_note = NULL;
    if (value && counting_read(counts, value))
        status = hm_spill_characters_read(spill, &why);
    else
        status = HM_ERR_FORMAT;
    if (status == HM_OK) {
        spill->begun = spill->whole = true;
        spill->report.spilled_bytes = spill->runs_bytes;
        spill->report.passes = 1;
        if (ret_note)
            *ret_note = json_incref(json_object_get(value, "note"));
        *ret_resumed = true;
    }
    json_decref(value);
    if (status == HM_OK)
        return HM_OK;
    counts->documents = counts->bytes = counts->characters = counts->han_characters = 0;
    counts->runs = 0;
    if (!spill)
        return HM_OK;
    spill->runs_bytes = spill->pairs_bytes = 0;
    if (status != HM_ERR_FORMAT)
        return hm_error_pass(err, &why);
    return hm_han_spill_remove(spill->options.dir, err);
}

bool hm_han_spill_whole(const char *dir)
{
    bool found = false;

    return hm_dir_holds(dir, COUNTING_FILE, &found, NULL) == HM_OK && found;
}

int hm_han_spill_remove(const char *dir, struct hm_error *err)
{
    struct hm_names names = { 0 };
    int status = hm_dir_list(dir, &names, err);

    for (size_t i = 0; status == HM_OK && i < names.count; i++) {
        char *path = NULL;
        if (strncmp(names.item[i], HM_SPILL_NAME, strlen(HM_SPILL_NAME)) != 0)
            continue;
        status = hm_path_join(&path, dir, names.item[i], err);
        if (status == HM_OK)
            unlink(path);
        hm_free(path);
    }
    hm_names_release(&names);
    return status;
}

/* --- the second ------------------------------------------------------------------------------- */

int hm_spill_cut_save(const struct han_spill *spill, const struct cut_parts *parts, uint64_t floor,
                      struct hm_error *err)
{
    json_t *value = head_new(spill);
    json_t *bytes = value ? json_array() : NULL;
    int failed = bytes ? json_object_set(value, "bytes", bytes) : -1;

    for (size_t i = 0; !failed && i < parts->n; i++)
        failed |= json_array_append_new(bytes, json_integer((json_int_t)parts->part[i].bytes));
    failed |= failed ? 0 : put_u64(value, "floor", floor);
    int status = failed ? hm_fail_nomem(err, "for the record of a count")
                        : hm_json_save_in(spill->options.dir, CUT_FILE, value, err);
    json_decref(bytes);
    json_decref(value);
    return status;
}

void hm_spill_cut_forget(const struct han_spill *spill)
{
    char *path = NULL;

    if (hm_path_join(&path, spill->options.dir, CUT_FILE, NULL) == HM_OK)
        unlink(path);
    hm_free(path);
}

uint64_t hm_spill_cut_floor(const struct han_spill *spill)
{
    json_t *value = state_load(spill, CUT_FILE);
    uint64_t floor = 0;

    if (value && hm_json_u64(value, "floor", "", &floor, NULL) < 0)
        floor = 0;
    json_decref(value);
    return floor;
}

static bool part_there(const struct han_spill *spill, size_t number, const json_t *bytes)
{
    char name[HM_CUT_NAME_BYTES];

    hm_cut_segments_name(name, number);
    return json_is_integer(bytes) && json_integer_value(bytes) >= 0 &&
           file_has(spill, name, (uint64_t)json_integer_value(bytes));
}

int hm_spill_cut_load(const struct han_spill *spill, struct hm_han_budget *budget, uint64_t floor,
                      struct cut_parts **ret_parts, struct hm_error *err)
{
    json_t *value = hm_spill_cut_floor(spill) == floor ? state_load(spill, CUT_FILE) : NULL;
    json_t *bytes = json_object_get(value, "bytes");
    size_t n = json_array_size(bytes);
    bool there = n >= HM_HAN_PARTS && n <= HM_CUT_PARTS_MAX && (n & (n - 1)) == 0;
    int status = HM_OK;

    *ret_parts = NULL;
    for (size_t i = 0; there && i < n; i++)
        there = part_there(spill, i, json_array_get(bytes, i));
    if (there)
        status = hm_cut_parts_found(spill->options.dir, n, budget, ret_parts, err);
    for (size_t i = 0; status == HM_OK && there && i < n; i++)
        (*ret_parts)->part[i].bytes = (uint64_t)json_integer_value(json_array_get(bytes, i));
    json_decref(value);
    return status;
}
