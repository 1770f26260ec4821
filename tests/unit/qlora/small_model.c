/* SPDX-License-Identifier: MIT */
/*
 * Writes the folder of small_model.h through the folder writer of checkpoint/.
 */
#include "small_model.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"

#include "hanmix/base/hash.h"

enum { EXPERTS = 3, LAYERS = 2, TENSORS = 64 };

struct piece { /* tensor = its weights one after another */
    struct hm_weight_slot slot[2 * EXPERTS];
    size_t n;
};

static void fill(const struct hm_arch *arch, const struct small_model *model,
                 const struct hm_weight_slot *slot, struct hm_folder_writer *writer)
{
    struct hm_error err = { 0 };
    char name[HM_SLOT_NAME_BYTES];
    size_t count = (size_t)slot->rows * slot->cols;
    float *values = hm_alloc_array(HM_MEM_OTHER, count, sizeof(float));
    void *stored = hm_alloc_array(HM_MEM_OTHER, count, sizeof(float));

    hm_arch_slot_name(arch, slot, name);
    for (size_t i = 0; i < count; i++)
        values[i] =
            (float)((double)(hm_hash64(name, strlen(name), i) >> 40) / 16777216.0 - 0.5) * 0.25F;
    if (model->poison && strcmp(model->poison, name) == 0)
        values[3] = model->poison_value;
    assert_ok(hm_dtype_from_f32(model->dtype, values, count, stored, &err), err);
    assert_ok(hm_folder_writer_data(writer, stored, count * hm_dtype_bytes(model->dtype), &err),
              err);
    hm_free(values);
    hm_free(stored);
}

static size_t add(struct hm_tensor_spec *spec, struct piece *piece, size_t n, enum hm_dtype dtype,
                  const char *name, const struct hm_weight_slot *slot)
{
    struct hm_error err = { 0 };

    assert_true(n < TENSORS);
    spec[n] = (struct hm_tensor_spec){ .dtype = dtype,
                                       .n_dims = slot->cols > 1 ? 2 : 1,
                                       .shape = { slot->rows, slot->cols } };
    assert_ok(hm_format(&spec[n].name, &err, "%s", name), err);
    piece[n] = (struct piece){ { *slot }, 1 };
    return n + 1;
}

/* gate_up_proj [E, 2F, D] (w1 above w3) and down_proj [E, D, F] of the layer that slot (expert 0's
 * w1) is of. */
static size_t add_fused(struct hm_tensor_spec *spec, struct piece *piece, size_t n,
                        enum hm_dtype dtype, const struct hm_weight_slot *w1)
{
    char name[HM_SLOT_NAME_BYTES];

    for (int down = 0; down < 2; down++, n++) {
        struct hm_weight_slot slot = *w1;
        snprintf(name, sizeof name, "model.layers.%u.mlp.experts.%s", w1->layer,
                 down ? "down_proj" : "gate_up_proj");
        add(spec, piece, n, dtype, name, w1);
        spec[n].n_dims = 3;
        spec[n].shape[0] = EXPERTS;
        spec[n].shape[1] = down ? w1->cols : 2 * w1->rows;
        spec[n].shape[2] = down ? w1->rows : w1->cols;
        piece[n].n = 0;
        for (slot.expert = 0; slot.expert < EXPERTS; slot.expert++) {
            slot.kind = down ? HM_WEIGHT_W2 : HM_WEIGHT_W1;
            slot.rows = down ? w1->cols : w1->rows;
            slot.cols = down ? w1->rows : w1->cols;
            piece[n].slot[piece[n].n++] = slot;
            slot.kind = HM_WEIGHT_W3;
            if (!down)
                piece[n].slot[piece[n].n++] = slot;
        }
    }
    return n;
}

void small_model_write(const char *dir, const struct small_model *model)
{
    const struct hm_arch arch = {
        .family = model->mixtral ? HM_FAMILY_MIXTRAL : HM_FAMILY_LLAMA,
        .hidden = model->hidden,
        .ffn = model->ffn,
        .layers = LAYERS,
        .heads = 2,
        .kv_heads = 1,
        .head_dim = model->hidden / 2,
        .experts = model->mixtral ? EXPERTS : 1,
        .top_k = model->mixtral ? 2 : 1,
        .vocab_size = 40,
        .max_positions = 64,
        .norm_eps = 1e-5,
        .rope_theta = 1e4,
        .tied = model->tied,
        .bos_id = 1,
        .eos_id = 2,
        .dtype = model->dtype,
    };
    struct hm_tensor_spec spec[TENSORS];
    struct piece piece[TENSORS];
    struct hm_folder_writer *writer = NULL;
    struct hm_error err = { 0 };
    json_t *config = NULL;
    size_t n = 0, next;

    for (size_t i = 0; i < hm_arch_slot_count(&arch); i++) {
        struct hm_weight_slot slot;
        char name[HM_SLOT_NAME_BYTES], tensor[200];
        hm_arch_slot(&arch, i, &slot, name);
        bool expert =
            slot.kind == HM_WEIGHT_W1 || slot.kind == HM_WEIGHT_W2 || slot.kind == HM_WEIGHT_W3;
        snprintf(tensor, sizeof tensor, "%s.weight", name);
        if (model->fused && slot.kind == HM_WEIGHT_GATE)
            snprintf(tensor, sizeof tensor, "model.layers.%u.mlp.gate.weight", slot.layer);
        if (!model->fused || !expert)
            n = add(spec, piece, n, model->dtype, tensor, &slot);
        else if (slot.kind == HM_WEIGHT_W1 && slot.expert == 0)
            n = add_fused(spec, piece, n, model->dtype, &slot);
    }
    assert_ok(
        hm_folder_writer_open(dir, spec, n, model->one_file ? UINT64_MAX : 20000, &writer, &err),
        err);
    while ((next = hm_folder_writer_next(writer)) < n)
        for (size_t i = 0; i < piece[next].n; i++)
            fill(&arch, model, &piece[next].slot[i], writer);
    assert_ok(hm_folder_writer_finish(writer, false, &err), err);
    assert_ok(hm_arch_config_new(&arch, &config, &err), err);
    assert_ok(hm_config_write(config, dir, &err), err);
    json_decref(config);
    for (size_t i = 0; i < n; i++)
        hm_free(spec[i].name);
}

static unsigned left; /* calls until the end; in the child */

static void on_progress(void *context, const struct hm_progress *progress)
{
    (void)context;
    (void)progress;
    if (--left == 0)
        raise(SIGKILL);
}

/* A line without its end. */
static void tear_journal(const char *dir)
{
    char *path = NULL;
    struct hm_error err = { 0 };

    assert_ok(hm_path_join(&path, dir, HM_WRITE_JOURNAL_FILE, &err), err);
    if (hm_path_exists(path))
        assert_ok(hm_file_append(path, "3 77 - - 01", 11, &err), err);
    hm_free(path);
}

unsigned kill_and_continue(int (*attempt)(const struct hm_ctl *ctl), unsigned calls,
                           const char *dir)
{
    const struct hm_ctl ctl = { .progress = on_progress };
    int state = 0;

    for (unsigned killed = 0; killed < 1000; killed++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            hm_threads_set(1); /* a fork takes no threads along */
            left = calls;
            _exit(attempt(&ctl) == HM_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &state, 0), child);
        if (WIFEXITED(state)) {
            assert_int_equal(WEXITSTATUS(state), 0);
            return killed;
        }
        tear_journal(dir);
    }
    fail_msg("does not come to an end");
    return 0;
}

void assert_same_files(const char *a, const char *b)
{
    struct hm_names x = { 0 }, y = { 0 };
    struct hm_error err = { 0 };

    assert_ok(hm_dir_list(a, &x, &err), err);
    assert_ok(hm_dir_list(b, &y, &err), err);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) {
        size_t n, m;
        assert_string_equal(x.item[i], y.item[i]);
        char *one = file_get(tmp_path(a, "%s", x.item[i]), &n);
        char *two = file_get(tmp_path(b, "%s", y.item[i]), &m);
        assert_int_equal(n, m);
        assert_memory_equal(one, two, n);
        hm_free(one);
        hm_free(two);
    }
    hm_names_release(&x);
    hm_names_release(&y);
}

const struct small_model small_model_digested = {
    .mixtral = true, .dtype = HM_DTYPE_BF16, .hidden = 128, .ffn = 1024, .one_file = true
};

void assert_digested(struct hm_file_digests *digests, const char *dir)
{
    struct hm_error err = { 0 };
    char path[512], hex[HM_SHA256_HEX_BYTES];

    snprintf(path, sizeof path, "%s/%s", dir, HM_MODEL_FILE);
    assert_int_equal(digests->count, 1);
    assert_string_equal(digests->item[0].path, path);
    assert_ok(hm_sha256_file(path, NULL, hex, &err), err);
    assert_string_equal(digests->item[0].hex, hex);
    hm_file_digests_release(digests);
}
