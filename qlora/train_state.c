/* SPDX-License-Identifier: MIT */
/*
 * State folders: state.json (cursor and identity), state.safetensors (state_tensors.c), and DONE,
 * written last, with the digests of both. A folder without DONE was never finished; one whose
 * digests differ is damaged and passed over.
 */
#include "train_state.h"

#include <inttypes.h>
#include <string.h>

#include "state_tensors.h"

#define STATE_VERSION  1
#define STATE_JSON_MAX (1u << 20)
#define TENSORS_MAX    5 /* of one parameter */

static const char *const state_file[] = { "state.json", "state.safetensors" };
#define STATE_FILES 2

/* --- the cursor ------------------------------------------------------------------------------- */

static int cursor_save(const struct hm_train_cursor *cursor,
                       const struct hm_train_identity *identity, const char *dir,
                       struct hm_error *err)
{
    json_t *value =
        json_pack("{s:i, s:I, s:I, s:I, s:b, s:f, s:s, s:s}", "version", STATE_VERSION, "step",
                  (json_int_t)cursor->step, "tokens", (json_int_t)cursor->tokens, "position",
                  (json_int_t)cursor->position, "evaluated", cursor->evaluated, "loss",
                  cursor->loss, "kernels", identity->kernels, "config", identity->config_digest);
    int status = hm_json_save_in(dir, state_file[0], value, err);

    json_decref(value);
    return status;
}

struct state_info {
    struct hm_train_cursor cursor;
    char kernels[HM_KERNELS_NAME_BYTES];
    char config[HM_SHA256_HEX_BYTES];
};

static int short_text(const json_t *value, const char *key, const char *path, char *out,
                      size_t size, struct hm_error *err)
{
    const char *text;

    HM_TRY(hm_json_text(value, key, path, &text, err));
    if (strlen(text) >= size)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': %s is longer than %zu bytes", path, key,
                       size - 1);
    strcpy(out, text);
    return HM_OK;
}

static int info_parse(const json_t *value, const char *path, struct state_info *info,
                      struct hm_error *err)
{
    uint64_t version;

    HM_TRY(hm_json_u64(value, "version", path, &version, err));
    if (version != STATE_VERSION)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': version %" PRIu64 ", this program reads %d", path,
                       version, STATE_VERSION);
    HM_TRY(hm_json_u64(value, "step", path, &info->cursor.step, err));
    HM_TRY(hm_json_u64(value, "tokens", path, &info->cursor.tokens, err));
    HM_TRY(hm_json_u64(value, "position", path, &info->cursor.position, err));
    HM_TRY(hm_json_bool_opt(value, "evaluated", path, &info->cursor.evaluated, err));
    HM_TRY(hm_json_f64(value, "loss", path, &info->cursor.loss, err));
    HM_TRY(short_text(value, "kernels", path, info->kernels, sizeof(info->kernels), err));
    return short_text(value, "config", path, info->config, sizeof(info->config), err);
}

static int info_load(const char *dir, struct state_info *ret, struct hm_error *err)
{
    struct state_info info = { 0 };
    json_t *value = NULL;
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, state_file[0], err));
    int status = hm_json_load(path, STATE_JSON_MAX, &value, err);
    if (status == HM_OK)
        status = info_parse(value, path, &info, err);
    if (status == HM_OK)
        *ret = info;
    json_decref(value);
    hm_free(path);
    return status;
}

/* --- DONE ------------------------------------------------------------------------------------- */

/* "<sha256>  <name>" per file, as sha256sum prints it. */
static int digests_text(const char *dir, struct hm_buf *buf, struct hm_error *err)
{
    for (size_t i = 0; i < STATE_FILES; i++) {
        char hex[HM_SHA256_HEX_BYTES];
        char *path = NULL;
        HM_TRY(hm_path_join(&path, dir, state_file[i], err));
        int status = hm_sha256_file(path, NULL, hex, err);
        hm_free(path);
        HM_TRY(status);
        HM_TRY(hm_buf_printf(buf, err, "%s  %s\n", hex, state_file[i]));
    }
    return HM_OK;
}

static int done_write(const char *dir, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    int status = digests_text(dir, &text, err);

    if (status == HM_OK)
        status = hm_file_write_in(dir, "DONE", text.ptr, text.len, err);
    hm_buf_release(&text);
    return status;
}

static int done_check(const char *dir, struct hm_error *err)
{
    struct hm_buf want = { 0 }, found = { 0 };
    char *path = NULL;
    int status = hm_path_join(&path, dir, "DONE", err);

    if (status == HM_OK)
        status = hm_file_read(path, STATE_JSON_MAX, &want, err);
    if (status == HM_OK)
        status = digests_text(dir, &found, err);
    if (status == HM_OK && (want.len != found.len || memcmp(want.ptr, found.ptr, want.len) != 0))
        status = hm_fail(err, HM_ERR_FORMAT,
                         "'%s': its files are not those that were written (digests differ)", dir);
    hm_free(path);
    hm_buf_release(&want);
    hm_buf_release(&found);
    return status;
}

/* --- folders ---------------------------------------------------------------------------------- */

struct state_entry {
    uint64_t step;
    char *dir; /* owned */
    bool done;
};
struct state_list { /* newest first */
    struct state_entry *entry;
    size_t count;
};

static void state_list_release(struct state_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        hm_free(list->entry[i].dir);
    hm_free(list->entry);
}

static int newer_first(const void *a, const void *b)
{
    uint64_t x = ((const struct state_entry *)a)->step, y = ((const struct state_entry *)b)->step;

    return x < y ? 1 : x > y ? -1 : 0;
}

/* "state-120" and no other spelling of it. */
static bool state_name(const char *name, uint64_t *ret_step)
{
    char again[32];

    if (sscanf(name, "state-%" SCNu64, ret_step) != 1)
        return false;
    snprintf(again, sizeof(again), "state-%" PRIu64, *ret_step);
    return strcmp(name, again) == 0;
}

static int state_entry_add(struct state_list *list, const char *state_dir, const char *name,
                           uint64_t step, struct hm_error *err)
{
    struct state_entry entry = { .step = step };
    char *done = NULL;

    HM_TRY(hm_path_join(&entry.dir, state_dir, name, err));
    int status = hm_path_join(&done, entry.dir, "DONE", err);
    if (status < 0) {
        hm_free(entry.dir);
        return status;
    }
    entry.done = hm_path_exists(done);
    hm_free(done);
    list->entry[list->count++] = entry;
    return HM_OK;
}

static int states_find(const char *state_dir, struct state_list *ret, struct hm_error *err)
{
    struct state_list list = { 0 };
    struct hm_names names = { 0 };
    int status = HM_OK;
    uint64_t step;

    if (hm_path_is_dir(state_dir))
        status = hm_dir_list(state_dir, &names, err);
    if (status == HM_OK && names.count > 0) {
        list.entry = hm_alloc_array(HM_MEM_OTHER, names.count, sizeof(*list.entry));
        if (!list.entry)
            status = hm_fail_nomem(err, "listing '%s'", state_dir);
    }
    for (size_t i = 0; i < names.count && status == HM_OK; i++)
        if (state_name(names.item[i], &step))
            status = state_entry_add(&list, state_dir, names.item[i], step, err);
    hm_names_release(&names);
    if (status < 0) {
        state_list_release(&list);
        return status;
    }
    if (list.count > 1)
        qsort(list.entry, list.count, sizeof(*list.entry), newer_first);
    *ret = list;
    return HM_OK;
}

static int states_prune(const char *state_dir, uint64_t step, uint64_t keep, struct hm_error *err)
{
    struct state_list list = { 0 };
    uint64_t kept = 0;

    HM_TRY(states_find(state_dir, &list, err));
    int status = HM_OK;
    for (size_t i = 0; i < list.count && status == HM_OK; i++) {
        bool stays = list.entry[i].step > step || (list.entry[i].done && kept < keep);
        kept += list.entry[i].step <= step && stays;
        if (!stays)
            status = hm_dir_remove(list.entry[i].dir, err);
    }
    state_list_release(&list);
    return status;
}

static int state_write(const char *dir, const struct hm_optimizer *optimizer,
                       const struct hm_train_cursor *cursor,
                       const struct hm_train_identity *identity, bool last, struct hm_error *err)
{
    char *tensors_path = NULL;
    int status = hm_dir_remove(dir, err); /* what an interrupted attempt left */

    if (status == HM_OK)
        status = hm_dir_make(dir, err);
    if (status == HM_OK)
        status = hm_path_join(&tensors_path, dir, state_file[1], err);
    if (status == HM_OK)
        status = cursor_save(cursor, identity, dir, err);
    if (status == HM_OK)
        status = hm_state_tensors_save(optimizer, tensors_path, last, err);
    if (status == HM_OK)
        status = done_write(dir, err);
    hm_free(tensors_path);
    return status;
}

int hm_train_state_save(const char *state_dir, const struct hm_optimizer *optimizer,
                        const struct hm_train_cursor *cursor,
                        const struct hm_train_identity *identity, uint64_t keep, bool last,
                        struct hm_error *err)
{
    char *dir = NULL;

    HM_TRY(hm_format(&dir, err, "%s/state-%" PRIu64, state_dir, cursor->step));
    int status = state_write(dir, optimizer, cursor, identity, last, err);
    if (status == HM_OK)
        status = hm_dir_sync(state_dir, err);
    if (status == HM_OK && keep > 0)
        status = states_prune(state_dir, cursor->step, keep, err);
    hm_free(dir);
    return status;
}

/* --- resuming --------------------------------------------------------------------------------- */

static int identity_check(const char *dir, const struct state_info *info,
                          const struct hm_train_identity *identity, struct hm_error *err)
{
    if (strcmp(info->config, identity->config_digest) != 0)
        return hm_fail(
            err, HM_ERR_USAGE,
            "'%s' belongs to other settings or inputs (%.12s..., now %.12s...): continue "
            "with those, or remove it to start over",
            dir, info->config, identity->config_digest);
    if (strcmp(info->kernels, identity->kernels) != 0 && !identity->allow_kernel_change)
        return hm_fail(
            err, HM_ERR_USAGE,
            "'%s' was made with the kernel path '%s', this run uses '%s': run where that "
            "path is available (HM_CPU), or set allow_kernel_change and lose bitwise "
            "reproducibility",
            dir, info->kernels, identity->kernels);
    return HM_OK;
}

static int state_load(const struct state_entry *entry, struct hm_optimizer *optimizer,
                      const struct hm_train_identity *identity, struct hm_train_cursor *ret_cursor,
                      struct hm_error *err)
{
    struct state_info info;
    char *path = NULL;

    HM_TRY(info_load(entry->dir, &info, err));
    if (info.cursor.step != entry->step)
        return hm_fail(err, HM_ERR_FORMAT, "'%s' says that it is of step %" PRIu64, entry->dir,
                       info.cursor.step);
    HM_TRY(identity_check(entry->dir, &info, identity, err));
    HM_TRY(hm_path_join(&path, entry->dir, state_file[1], err));
    int status = hm_state_tensors_load(optimizer, path, err);
    hm_free(path);
    if (status < 0)
        return status;
    optimizer->updates = info.cursor.step;
    *ret_cursor = info.cursor;
    return HM_OK;
}

int hm_train_state_load(const char *state_dir, struct hm_optimizer *optimizer,
                        const struct hm_train_identity *identity, const struct hm_ctl *ctl,
                        struct hm_train_cursor *ret_cursor, struct hm_error *err)
{
    struct hm_train_cursor cursor = { 0 };
    struct state_list list = { 0 };
    struct hm_error why = { 0 };
    int status = HM_OK;

    HM_TRY(states_find(state_dir, &list, err));
    for (size_t i = 0; i < list.count && status == HM_OK && cursor.step == 0; i++) {
        if (!list.entry[i].done)
            continue;
        status = done_check(list.entry[i].dir, &why);
        if (status == HM_ERR_FORMAT || status == HM_ERR_USAGE) { /* other bytes, or no file */
            hm_ctl_message(ctl, "state passed over: %s", why.text);
            status = HM_OK;
            continue;
        }
        if (status == HM_OK) /* the bytes are those written: what fails now is no damage */
            status = state_load(&list.entry[i], optimizer, identity, &cursor, &why);
    }
    state_list_release(&list);
    if (status < 0)
        return hm_error_pass(err, &why);
    *ret_cursor = cursor;
    return HM_OK;
}

int hm_train_state_kernels(const char *state_dir, char ret_name[HM_KERNELS_NAME_BYTES],
                           struct hm_error *err)
{
    struct state_list list = { 0 };
    struct state_info info = { 0 };

    HM_TRY(states_find(state_dir, &list, err));
    int status = HM_OK;
    bool found = false;
    for (size_t i = 0; i < list.count && !found && status != HM_ERR_NOMEM; i++) {
        if (!list.entry[i].done)
            continue;
        status = info_load(list.entry[i].dir, &info, err);
        found = status == HM_OK;
    }
    state_list_release(&list);
    if (status == HM_ERR_NOMEM)
        return status;
    strcpy(ret_name, found ? info.kernels : "");
    return HM_OK;
}
