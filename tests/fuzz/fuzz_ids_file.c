/* SPDX-License-Identifier: MIT */
/*
 * model/ids_file.c: whatever opens gives rows whose values are in range, or refuses them.
 */
#include "fuzz/fuzz.h"

#include "hanmix/model/ids_file.h"
#include "hanmix/model/model.h"

#define ROWS_READ 64

static void row_check(const struct hm_ids_file *file, const struct hm_ids_row *row)
{
    for (uint32_t t = 0; t < file->seq_len; t++) {
        HM_BUG(row->ids[t] < 0 || (row->has_mask && row->mask[t] > 1));
        HM_BUG(row->has_labels && row->labels[t] < 0 && row->labels[t] != HM_LABEL_IGNORE);
    }
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_ids_file file;

    if (hm_ids_file_open(fuzz_file(data, size, ".safetensors"), &file, NULL) < 0)
        return 0;
    struct hm_ids_row row = {
        .ids = hm_alloc_array(HM_MEM_OTHER, file.seq_len, sizeof(int32_t)),
        .labels = hm_alloc_array(HM_MEM_OTHER, file.seq_len, sizeof(int32_t)),
        .mask = hm_alloc(HM_MEM_OTHER, file.seq_len),
    };
    for (uint64_t i = 0; i < file.rows && i < ROWS_READ && row.ids && row.labels && row.mask; i++)
        if (hm_ids_file_row(&file, i, i % 2 == 0, &row, NULL) == HM_OK)
            row_check(&file, &row);
    hm_free(row.ids);
    hm_free(row.labels);
    hm_free(row.mask);
    hm_ids_file_close(&file);
    return 0;
}
