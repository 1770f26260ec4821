/* SPDX-License-Identifier: MIT */
/*
 * Writing the gradients of a step for comparison with other tools. Private to qlora/.
 */
#ifndef HANMIX_QLORA_GRADIENT_DUMP_H
#define HANMIX_QLORA_GRADIENT_DUMP_H

#include "hanmix/model/adapter.h"

int hm_gradient_dump(const char *path, const struct hm_adapter *adapter, double loss,
                     struct hm_error *err);

#endif
