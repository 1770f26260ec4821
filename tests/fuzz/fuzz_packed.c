/* SPDX-License-Identifier: MIT */
/*
 * corpus/packed_file.c: what opens must read within its bounds, window by window.
 */
#include "fuzz/fuzz.h"

#include "hanmix/base/alloc.h"
#include "hanmix/corpus/packed.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_packed packed;
    struct hm_window window;

    if (hm_packed_open(fuzz_file(data, size, ".hmp"), &packed, NULL) < 0)
        return 0;
    int32_t *ids = hm_alloc_array(HM_MEM_OTHER, packed.seq_len, sizeof(*ids));
    uint8_t *starts = hm_alloc(HM_MEM_OTHER, packed.seq_len);
    for (uint64_t i = 0; ids && starts && i < packed.windows && i < 64; i++) {
        if (hm_packed_window(&packed, i, ids, starts, &window, NULL) < 0)
            continue;
        for (uint32_t t = 0; t < packed.seq_len; t++)
            HM_BUG(ids[t] < 0 || (uint32_t)ids[t] >= packed.vocab_size || starts[t] > 1);
    }
    (void)hm_packed_verify(&packed, NULL);
    hm_free(ids);
    hm_free(starts);
    hm_packed_close(&packed);
    return 0;
}
