/* SPDX-License-Identifier: MIT */
/*
 * The recorded models that tests of adapters stand on, open while a group of tests runs, and a
 * folder (test_dir).
 */
#ifndef HANMIX_TESTS_BASES_H
#define HANMIX_TESTS_BASES_H

#include "hanmix/checkpoint/checkpoint.h"

extern struct hm_checkpoint ckpt, tied; /* Mixtral; LLaMA with a tied head */

int bases_setup(void **state);
int bases_teardown(void **state);

#endif
