/* SPDX-License-Identifier: MIT */
/*
 * Shapes of the measured rivals' models and of the whole Mixtral, and folders made of them; see
 * bench_preset.h.
 */
#include "bench_preset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "hanmix/checkpoint/synthetic.h"

int bench_preset(const char *name, struct hm_arch *ret_arch, struct hm_error *err)
{
    static const struct {
        const char *name;
        uint32_t layers, hidden, ffn, heads, kv_heads, vocab;
    } preset[] = {
        { "tiny", 2, 256, 896, 4, 2, 2000 },
        { "small", 4, 1024, 3584, 16, 4, 8000 },
        { "wide1", 1, 4096, 14336, 32, 8, 8000 },
        { "mixtral-8x7b", 32, 4096, 14336, 32, 8, 57000 },
    };
    static char head[] = "lm_head", gate[] = "gate";
    static char *skip[] = { head, gate };

    for (size_t i = 0; i < sizeof(preset) / sizeof(preset[0]); i++) {
        if (strcmp(name, preset[i].name) != 0)
            continue;
        *ret_arch = (struct hm_arch){
            .family = HM_FAMILY_MIXTRAL,
            .hidden = preset[i].hidden,
            .ffn = preset[i].ffn,
            .layers = preset[i].layers,
            .heads = preset[i].heads,
            .kv_heads = preset[i].kv_heads,
            .head_dim = preset[i].hidden / preset[i].heads,
            .experts = 8,
            .top_k = 2,
            .vocab_size = preset[i].vocab,
            .max_positions = 32768,
            .norm_eps = 1e-5,
            .rope_theta = 1e6,
            .aux_coef = 0.001,
            .bos_id = 1,
            .eos_id = 2,
            .dtype = HM_DTYPE_BF16,
            .quant = { true, true, HM_DTYPE_BF16, HM_DTYPE_U8, skip, 2 },
        };
        return HM_OK;
    }
    return hm_fail(err, HM_ERR_USAGE, "no preset '%s': tiny, small, wide1 or mixtral-8x7b", name);
}

int bench_folder_open(struct bench_folder *folder, const char *dir, const struct hm_arch *arch,
                      struct hm_error *err)
{
    bool found = false;

    *folder = (struct bench_folder){ .dir = dir };
    if (!dir) {
        strcpy(folder->own, "/tmp/hanmix-bench-XXXXXX");
        if (!(folder->dir = mkdtemp(folder->own))) {
            folder->own[0] = '\0';
            return hm_fail(err, HM_ERR_IO, "cannot make a folder in /tmp: %s", strerror(errno));
        }
    } else if (hm_path_is_dir(dir)) {
        HM_TRY(hm_dir_holds(dir, "config.json", &found, err));
    }
    int status = found ? HM_OK : hm_synthetic_make(folder->dir, arch, 1, NULL, err);
    if (status < 0)
        bench_folder_close(folder);
    return status;
}

void bench_folder_close(struct bench_folder *folder)
{
    if (folder->own[0])
        (void)hm_dir_remove(folder->own, NULL);
}
