/* SPDX-License-Identifier: MIT */
/*
 * Linked in the place of base/cpu_leaves.c: this CPU with AMX added and enabled, whose kernel
 * refuses the tiles.
 */
#include <errno.h>

#include "base/internal.h"

bool real_leaves_read(struct hm_cpu_leaves *ret_leaves);
int real_tiles_request(void);
#define hm_cpu_leaves_read   real_leaves_read
#define hm_cpu_tiles_request real_tiles_request
#include "base/cpu_leaves.c"
#undef hm_cpu_leaves_read
#undef hm_cpu_tiles_request

bool hm_cpu_leaves_read(struct hm_cpu_leaves *ret_leaves)
{
    if (!real_leaves_read(ret_leaves))
        return false;
    ret_leaves->d7 |= 1u << 22 | 1u << 24; /* amx-bf16, amx-tile */
    ret_leaves->xcr0 |= 0x60000u;
    return true;
}

int hm_cpu_tiles_request(void)
{
    return EPERM;
}
