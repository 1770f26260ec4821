/* SPDX-License-Identifier: MIT */
/*
 * Tile instructions (AMX-TILE, AMX-BF16) by tile number, a literal 0 to 7; rows in memory follow
 * each other every 64 bytes. The intrinsics of gcc 12 name no memory operand (loads are moved over
 * the stores they need), so they stand here as assembly that does. With HM_TILE_EMULATION the same
 * calls are plain C.
 */
#ifndef HANMIX_KERNELS_X86_TILE_H
#define HANMIX_KERNELS_X86_TILE_H

#include <stddef.h>
#include <stdint.h>

#define TILE_BYTES 1024u /* 16 rows of 64 bytes: 512 bf16 or 256 f32 values */
#define TILE_BF16  512u
#define TILE_F32   256u

struct tile_config { /* the memory operand of LDTILECFG */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tile_config) == 64, "LDTILECFG reads 64 bytes");

#if defined(HM_TILE_EMULATION)
#include "tile_emulation.h"
#else

struct tile_bytes { /* what a load or store touches */
    uint8_t byte[TILE_BYTES];
} __attribute__((may_alias, aligned(1)));

#define tile_configure(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(config)))
#define tile_release()         __asm__ volatile("tilerelease")
#define tile_zero(t)           __asm__ volatile("tilezero %%tmm" #t : :)
#define tile_load(t, base)                           \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t \
                     :                               \
                     : "r"(base), "r"((size_t)64), "m"(*(const struct tile_bytes *)(base)))
#define tile_store(t, base)                               \
    __asm__ volatile("tilestored %%tmm" #t ", (%1,%2,1)"  \
                     : "=m"(*(struct tile_bytes *)(base)) \
                     : "r"(base), "r"((size_t)64))
/* c (f32) += a (rows of bf16) times b (row i: pairs of rows 2i, 2i + 1). */
#define tile_dot(c, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c : :)

#endif

#endif
