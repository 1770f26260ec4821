/* SPDX-License-Identifier: MIT */
/*
 * Tokens by expert of a training run; see expert_load.h.
 */
#include "expert_load.h"

#include <inttypes.h>
#include <string.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/recipes/report.h"

int hm_expert_load_open(struct hm_model *model, struct expert_load *ret_load, struct hm_error *err)
{
    const struct hm_arch *arch = hm_model_arch(model);

    *ret_load = (struct expert_load){ 0 };
    if (arch->experts < 2)
        return HM_OK;
    ret_load->counts =
        hm_calloc(HM_MEM_OTHER, 2 * (size_t)arch->layers * arch->experts, sizeof(uint64_t));
    if (!ret_load->counts)
        return hm_fail_nomem(err, "counting tokens by expert");
    ret_load->model = model;
    return HM_OK;
}

void hm_expert_load_release(struct expert_load *load)
{
    hm_free(load->counts);
    *load = (struct expert_load){ 0 };
}

void hm_expert_load_take(struct expert_load *load, bool evaluation)
{
    if (!load->model)
        return;
    const struct hm_arch *arch = hm_model_arch(load->model);
    size_t count = (size_t)arch->layers * arch->experts;

    hm_model_expert_counts(load->model, load->counts + count, true);
    if (load->evaluated && !evaluation)
        return;
    memcpy(load->counts, load->counts + count, count * sizeof(*load->counts));
    load->evaluated = evaluation;
}

static int csv_write(const struct expert_load *load, const double *share, const char *dir,
                     struct hm_error *err)
{
    const struct hm_arch *arch = hm_model_arch(load->model);
    struct hm_out_file file = { 0 };

    HM_TRY(hm_out_open_in(dir, "expert_load.csv", &file, err));
    int r = hm_out_printf(&file, err, "layer,expert,tokens,share\n");
    for (size_t i = 0; r == HM_OK && i < (size_t)arch->layers * arch->experts; i++)
        r = hm_out_printf(&file, err, "%zu,%zu,%" PRIu64 ",%.6f\n", i / arch->experts,
                          i % arch->experts, load->counts[i], share[i]);
    return hm_out_end(&file, r, err);
}

static void shares(const struct expert_load *load, double *share)
{
    const struct hm_arch *arch = hm_model_arch(load->model);

    for (size_t l = 0; l < arch->layers; l++) {
        const uint64_t *row = load->counts + l * arch->experts;
        uint64_t sum = 0;
        for (size_t e = 0; e < arch->experts; e++)
            sum += row[e];
        for (size_t e = 0; e < arch->experts; e++)
            share[l * arch->experts + e] = sum ? (double)row[e] / (double)sum : 0;
    }
}

int hm_expert_load_write(const struct expert_load *load, const char *plots_dir,
                         struct hm_error *err)
{
    struct hm_buf svg = { 0 };
    double *share = NULL;

    if (!load->model)
        return HM_OK;
    const struct hm_arch *arch = hm_model_arch(load->model);
    share = hm_alloc_array(HM_MEM_OTHER, (size_t)arch->layers * arch->experts, sizeof(*share));
    if (!share)
        return hm_fail_nomem(err, "for the picture of expert load");
    shares(load, share);
    int r = csv_write(load, share, plots_dir, err);
    if (r == HM_OK)
        r = hm_svg_heat("Share of each layer's tokens by expert", "layer", "expert", share,
                        arch->layers, arch->experts, &svg, err);
    if (r == HM_OK)
        r = hm_file_write_in(plots_dir, "expert_load.svg", svg.ptr, svg.len, err);
    hm_buf_release(&svg);
    hm_free(share);
    return r;
}
