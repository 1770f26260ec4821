/* SPDX-License-Identifier: MIT */
/*
 * The optimizer's passes against memory bandwidth, and at the size of a recipe. Without arguments:
 * copy, sum of squares, AdamW and AdamW with 8-bit moments over arrays beyond every cache, csv
 * "pass,values,gvalues_s,gb_s,of_copy"; gb_s counts the bytes a pass must read and write, copy's
 * too. With --updates N: N updates over the trained values of an architecture, gradients made and
 * given back layer by layer as a backward pass does; --store FOLDER keeps them in a scratch file
 * there.
 */
#include <math.h>
#include <string.h>

#include "bench_args.h"
#include "bench_preset.h"
#include "hanmix/base/alloc.h"
#include "hanmix/base/cpu.h"
#include "hanmix/base/file.h"
#include "hanmix/base/parallel.h"
#include "hanmix/qlora/trainer.h"
#include "model/adapter_layout.h"
#include "qlora/optimizer.h"

#define VALUES  ((size_t)96 << 20)
#define CUT     ((size_t)64 << 10)
#define REPEATS 5
#define PAIRS   1000003u /* values of a made gradient */

struct settings {
    const char *preset, *store, *rows, *moments;
    uint32_t layers, vocab, old_vocab, rank, updates;
};

/* --- against a copy --- */

struct arrays {
    struct hm_kernels kernels;
    struct hm_map8 map[2];
    float *value, *grad, *m, *v;
    double *sum;
};

static const struct hm_adamw_step any_step = { 1e-6, 0.9, 0.999, 1e-8, 0.1, 0.5, 0.5, 1.0f };

static void copy_unit(void *context, size_t index, int worker)
{
    const struct arrays *a = context;

    (void)worker;
    memcpy(a->value + index * CUT, a->grad + index * CUT, CUT * sizeof(float));
}

static void norm_unit(void *context, size_t index, int worker)
{
    const struct arrays *a = context;

    (void)worker;
    a->sum[index] = a->kernels.sum_squares(a->grad + index * CUT, CUT);
}

static void adamw_unit(void *context, size_t index, int worker)
{
    const struct arrays *a = context;
    size_t at = index * CUT;

    (void)worker;
    a->kernels.adamw(a->value + at, a->grad + at, a->m + at, a->v + at, CUT, &any_step);
}

static void adamw8_unit(void *context, size_t index, int worker)
{
    const struct arrays *a = context;
    size_t at = index * CUT;
    uint8_t *codes = (uint8_t *)a->m;
    struct hm_moments8 moments = { &a->map[1],      &a->map[0],
                                   codes + at,      codes + VALUES + at,
                                   a->v + at / 256, a->v + VALUES / 256 + at / 256 };

    (void)worker;
    a->kernels.adamw8(a->value + at, a->grad + at, &moments, CUT, &any_step);
}

static double best_seconds(void (*unit)(void *, size_t, int), struct arrays *arrays)
{
    double best = INFINITY;

    for (int i = 0; i < REPEATS; i++) {
        double begin = hm_clock_seconds();
        hm_parallel_for(VALUES / CUT, unit, arrays);
        best = fmin(best, hm_clock_seconds() - begin);
    }
    return best;
}

static int passes_print(void)
{
    static const struct {
        const char *name;
        double bytes; /* read and written for a value */
        void (*unit)(void *, size_t, int);
    } pass[] = { { "copy", 8, copy_unit },
                 { "sum_squares", 4, norm_unit },
                 { "adamw", 28, adamw_unit },
                 { "adamw8", 16 + 4.0 * sizeof(float) / 256, adamw8_unit } };
    struct arrays a = { .value = hm_calloc(HM_MEM_OTHER, VALUES, sizeof(float)),
                        .grad = hm_calloc(HM_MEM_OTHER, VALUES, sizeof(float)),
                        .m = hm_calloc(HM_MEM_OTHER, VALUES, sizeof(float)),
                        .v = hm_calloc(HM_MEM_OTHER, VALUES, sizeof(float)),
                        .sum = hm_calloc(HM_MEM_OTHER, VALUES / CUT, sizeof(double)) };
    double copy = 0;

    if (!a.value || !a.grad || !a.m || !a.v || !a.sum)
        return 6;
    hm_kernels_init(&a.kernels, hm_cpu_flags());
    hm_map8_init(false, &a.map[0]);
    hm_map8_init(true, &a.map[1]);
    for (size_t i = 0; i < VALUES; i++)
        a.grad[i] = 1e-3f * (float)((double)(i * 2654435761u % 65536) / 65536 - 0.5);
    printf("pass,values,gvalues_s,gb_s,of_copy\n");
    for (size_t i = 0; i < sizeof(pass) / sizeof(pass[0]); i++) {
        double rate = (double)VALUES / best_seconds(pass[i].unit, &a) / 1e9;
        copy = i == 0 ? rate * pass[i].bytes : copy;
        printf("%s,%zu,%.3f,%.1f,%.2f\n", pass[i].name, VALUES, rate, rate * pass[i].bytes,
               rate * pass[i].bytes / copy);
        fflush(stdout);
    }
    hm_free(a.value);
    hm_free(a.grad);
    hm_free(a.m);
    hm_free(a.v);
    hm_free(a.sum);
    return 0;
}

/* --- at the size of a recipe --- */

struct made {
    const struct hm_kernels *kernels;
    const float *pattern; /* [PAIRS] */
    const struct hm_param *param;
};

static void made_unit(void *context, size_t index, int worker)
{
    const struct made *made = context;
    size_t count = hm_param_values(made->param), at = index * CUT;

    (void)worker;
    made->kernels->add(made->pattern + index % (PAIRS - CUT), count - at < CUT ? count - at : CUT,
                       made->param->grad + at);
}

/* As in a backward pass: last layer first, each given back. */
static void gradients_make(const struct hm_adapter *adapter, struct made *made)
{
    for (size_t i = adapter->n_params; i-- > 0;) {
        made->param = &adapter->param[i];
        hm_parallel_for(hm_units(hm_param_values(made->param), CUT), made_unit, made);
        hm_adapter_param_done(adapter, made->param);
    }
}

static int updates_print(const struct settings *s, struct hm_adapter *adapter,
                         const struct hm_kernels *kernels, struct hm_error *err)
{
    const struct hm_optimizer_config config = { .beta1 = 0.9,
                                                .beta2 = 0.999,
                                                .eps = 1e-8,
                                                .clip = 1,
                                                .coded = strcmp(s->moments, "8bit") == 0 };
    struct hm_optimizer *optimizer = NULL;
    double norm = 0;
    float *pattern = hm_alloc_array(HM_MEM_OTHER, PAIRS, sizeof(float));
    struct made made = { kernels, pattern, NULL };

    if (!pattern)
        return hm_fail_nomem(err, "for gradients");
    for (size_t i = 0; i < PAIRS; i++)
        pattern[i] = 1e-3f * (float)((double)(i * 2654435761u % 65536) / 65536 - 0.5);
    int status = hm_optimizer_new(adapter, kernels, &config, &optimizer, err);
    printf(
        "preset,layers,vocab,rank,rows,moments,place,parameters,state_gb,update,zero_s,gradients_s,"
        "norm_s,update_s,peak_rss_mib\n");
    for (uint32_t i = 0; i < s->updates && status == HM_OK; i++) {
        double at[5] = { hm_clock_seconds() };
        hm_adapter_zero_grad(adapter);
        at[1] = hm_clock_seconds();
        gradients_make(adapter, &made);
        at[2] = hm_clock_seconds();
        status = hm_optimizer_norm(optimizer, &norm, err);
        at[3] = hm_clock_seconds();
        if (status == HM_OK)
            hm_optimizer_update(optimizer, 1e-4, norm);
        at[4] = hm_clock_seconds();
        uint64_t parameters = hm_adapter_param_count(adapter);
        double bytes = (double)(parameters * 8 + hm_train_moments_bytes(adapter, config.coded));
        printf("%s,%u,%u,%u,%s,%s,%s,%llu,%.1f,%u,%.2f,%.2f,%.2f,%.2f,%.0f\n", s->preset, s->layers,
               s->vocab, s->rank, s->rows, s->moments, s->store ? "file" : "memory",
               (unsigned long long)parameters, bytes / 1e9, i + 1, at[1] - at[0], at[2] - at[1],
               at[3] - at[2], at[4] - at[3], (double)hm_rss_peak_bytes() / 1048576);
        fflush(stdout);
    }
    hm_optimizer_free(optimizer);
    hm_free(pattern);
    return status;
}

static int recipe_run(struct settings *s, struct hm_error *err)
{
    char all[] = "all-linear", *target[] = { all };
    enum hm_rows rows = strcmp(s->rows, "new") == 0 ? HM_ROWS_NEW : HM_ROWS_ALL;
    struct hm_adapter_config config = {
        .rank = s->rank, .alpha = 16, .target = target, .n_targets = 1, .embed = rows, .head = rows
    };
    struct hm_scratch *store = NULL;
    struct hm_adapter *adapter = NULL;
    struct hm_kernels kernels;
    struct hm_arch arch = { 0 };

    hm_kernels_init(&kernels, hm_cpu_flags());
    HM_TRY(bench_preset(s->preset, &arch, err));
    s->layers = arch.layers = s->layers > 0 ? s->layers : arch.layers;
    s->vocab = arch.vocab_size = s->vocab > 0 ? s->vocab : arch.vocab_size;
    HM_TRY(hm_adapter_plan(&arch, &config, s->old_vocab, &adapter, err));
    bool coded = strcmp(s->moments, "8bit") == 0;
    int status = HM_OK;
    if (s->store)
        status = hm_scratch_new(s->store, hm_train_store_bytes(adapter, coded), &store, err);
    adapter->config.store = store;
    if (status == HM_OK)
        status = hm_adapter_allocate(adapter, true, err);
    if (status == HM_OK)
        status = updates_print(s, adapter, &kernels, err);
    hm_adapter_free(adapter);
    hm_scratch_free(store);
    return status;
}

int main(int argc, char **argv)
{
    struct settings settings = {
        .preset = "mixtral-8x7b", .rows = "all", .moments = "f32", .old_vocab = 32000, .rank = 64
    };
    struct hm_error err = { 0 };

    const struct bench_option option[] = {
        { "--preset", .text = &settings.preset },
        { "--store", .text = &settings.store },
        { "--rows", .text = &settings.rows },
        { "--moments", .text = &settings.moments },
        { "--layers", .number = &settings.layers },
        { "--vocab", .number = &settings.vocab },
        { "--rank", .number = &settings.rank },
        { "--old-vocab", .number = &settings.old_vocab },
        { "--updates", .number = &settings.updates },
    };

    if (bench_args(argc, argv, option, sizeof(option) / sizeof(option[0]), NULL, &err) < 0) {
        fprintf(stderr,
                "%s\nusage: optimizer [--updates N [--preset P] [--layers N] [--vocab N] "
                "[--old-vocab N] [--rank N] [--rows all|new] [--moments f32|8bit] "
                "[--store FOLDER]]\n",
                err.text);
        return 2;
    }
    fprintf(stderr, "# %s, %d threads\n", hm_cpu_model(), hm_threads());
    if (settings.updates == 0)
        return passes_print();
    int status = recipe_run(&settings, &err);
    if (status < 0)
        fprintf(stderr, "optimizer: %s\n", err.text);
    return status < 0 ? hm_status_exit_code(status) : 0;
}
