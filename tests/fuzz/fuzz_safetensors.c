/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/safetensors_read.c: what opens has views within the file that cover its buffer, and is
 * found by name; writing it again gives a file that opens.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "hanmix/checkpoint/safetensors.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_safetensors file = { 0 }, again = { 0 };
    const char *path = fuzz_file(data, size, ".safetensors");
    volatile uint8_t last = 0;
    uint64_t covered = 0;

    if (hm_safetensors_open(path, &file, NULL) < 0)
        return 0;
    for (size_t i = 0; i < file.count; i++) {
        const struct hm_tensor *tensor = &file.tensor[i];
        HM_BUG(hm_safetensors_find(&file, tensor->name) != tensor);
        HM_BUG(tensor->data < file.map.data + 10 ||
               tensor->data + tensor->size_bytes > file.map.data + file.map.size_bytes);
        if (tensor->size_bytes > 0)
            last = tensor->data[tensor->size_bytes - 1];
        covered += tensor->size_bytes;
    }
    (void)last;
    HM_BUG(covered > file.map.size_bytes - 10);
    const char *out = fuzz_file(data, 0, ".again");
    if (hm_safetensors_write(out, file.tensor, file.count, file.metadata, NULL) == HM_OK &&
        hm_safetensors_open(out, &again, NULL) == HM_OK) {
        HM_BUG(again.count != file.count);
        for (size_t i = 0; i < file.count; i++)
            HM_BUG(strcmp(again.tensor[i].name, file.tensor[i].name) != 0 ||
                   memcmp(again.tensor[i].data, file.tensor[i].data, file.tensor[i].size_bytes));
        hm_safetensors_close(&again);
    }
    hm_safetensors_close(&file);
    return 0;
}
