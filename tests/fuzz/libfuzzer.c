/* SPDX-License-Identifier: MIT */
/*
 * The entry point that libFuzzer looks for.
 */
#include "fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return hm_fuzz_one(data, size);
}
