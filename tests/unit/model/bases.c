/* SPDX-License-Identifier: MIT */
/*
 * Recorded models for tests of adapters; see bases.h.
 */
#include "bases.h"

#include "support/support.h"

struct hm_checkpoint ckpt, tied;

int bases_setup(void **state)
{
    struct hm_error err = { 0 };

    assert_ok(hm_checkpoint_open(golden_path("mixtral/model"), &ckpt, &err), err);
    assert_ok(hm_checkpoint_open(golden_path("llama/tied-model"), &tied, &err), err);
    return test_dir_setup(state);
}

int bases_teardown(void **state)
{
    hm_checkpoint_close(&ckpt);
    hm_checkpoint_close(&tied);
    return test_dir_teardown(state);
}
