/* SPDX-License-Identifier: MIT */
/*
 * vocab/run_blocks.c: of any scratch file, blocks lie within it, and a block that passes its check
 * holds whole runs of Han characters with counts. The check is a hash: so that mutated records are
 * reached, the data stand as the records of one block whose header is made here as well.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "../../vocab/run_blocks.h"

static void walk(const char *path, uint64_t size)
{
    struct hm_han_budget budget = { 0 };
    struct run_reader reader = { .fd = -1 };
    struct run_block block[4];
    struct hm_run run;
    struct hm_error err = { 0 };
    size_t n = 1;

    if (hm_run_reader_open(path, size, 4096, &budget, &reader, &err) < 0)
        return;
    while (n > 0 && hm_run_reader_next(&reader, block, 4, &n, &err) == HM_OK)
        for (size_t i = 0; i < n; i++) {
            HM_BUG(block[i].offset + 2 * block[i].n_words > size);
            if (hm_run_block_check(&block[i], path, &err) < 0)
                continue;
            for (size_t at = 0; hm_run_block_next(&block[i], &at, &run);) {
                HM_BUG(at > block[i].n_words || run.n_units == 0 || run.count == 0);
                for (uint32_t k = 0; k < run.n_units;)
                    HM_BUG(!hm_is_han_class(hm_run_code(run.unit, &k)));
            }
        }
    hm_run_reader_close(&reader);
    HM_BUG(budget.used_bytes != 0);
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_han_budget budget = { 0 };
    struct run_words words = { .budget = &budget };
    struct run_file file = { .fd = -1 };
    struct hm_error err = { 0 };
    const char *dir = fuzz_folder_file(data, size, "plain");
    char path[512];

    snprintf(path, sizeof(path), "%s/plain", dir);
    walk(path, size);
    /* the same bytes as records behind a good header */
    uint16_t *copy = hm_alloc(HM_MEM_OTHER, size + 2);
    struct hm_run room = { .unit = copy, .n_units = (uint32_t)(size / 2), .count = 1 };
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    if (size >= 2 && hm_run_words_put(&words, &room, &err) == HM_OK) {
        memcpy(words.word + HM_BLOCK_HEADER_WORDS, copy, size / 2 * 2);
        words.n = HM_BLOCK_HEADER_WORDS + size / 2;
        if (hm_run_file_create(dir, "block", &file, &err) == HM_OK) {
            snprintf(path, sizeof(path), "%s/block", dir);
            (void)hm_run_file_put(&file, &words, &err);
            walk(path, file.bytes);
            hm_run_file_remove(&file);
        }
    }
    hm_run_words_release(&words);
    hm_free(copy);
    return 0;
}
