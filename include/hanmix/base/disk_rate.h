/* SPDX-License-Identifier: MIT */
/*
 * How fast a disk is, by writing a file and reading it back. Thread class: owner thread.
 */
#ifndef HANMIX_BASE_DISK_RATE_H
#define HANMIX_BASE_DISK_RATE_H

#include <stdint.h>

#include "hanmix/base/status.h"

struct hm_disk_rates {
    double write,
        read;         /* bytes a second; the file is synced, its pages dropped before it is read */
    double read_work; /* seconds that the reading thread computes for each byte */
};
/* With a file of so many bytes in `dir`, which leaves no trace. HM_ERR_IO where it cannot be
 * written. */
int hm_disk_rates_measure(const char *dir, uint64_t bytes, struct hm_disk_rates *ret_rates,
                          struct hm_error *err);

#endif
