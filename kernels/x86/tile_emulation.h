/* SPDX-License-Identifier: MIT */
/*
 * The tile instructions in plain C, so that kernels/x86/frozen_amx.c runs on CPUs without them:
 * LDTILECFG, TILEZERO, TILELOADD, TILESTORED, TDPBF16PS and TILERELEASE as the Intel SDM defines
 * them (palette 1; products by fused steps of the even and of the odd halves, joined before they
 * meet the sum; subnormals are zero). What the CPU answers with #GP or #UD ends the process with a
 * message. For tests alone: thousands of times slower. One set of tiles a thread, as in the CPU.
 */
#ifndef HANMIX_KERNELS_X86_TILE_EMULATION_H
#define HANMIX_KERNELS_X86_TILE_EMULATION_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/kernels/convert.h"

#define TILE_COUNT     8u
#define TILE_ROWS      16u
#define TILE_ROW_BYTES 64u

static _Thread_local struct {
    struct tile_config config; /* palette 0: no tiles */
    uint8_t row[TILE_COUNT][TILE_ROWS][TILE_ROW_BYTES];
} tiles;

static inline void tile_require(int good, const char *instruction, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "tile emulation: %s: %s\n", instruction, what);
    abort();
}

static inline void tile_configure(const struct tile_config *config)
{
    static const uint8_t zero[14];

    tile_require(config->palette == 1, "ldtilecfg", "palette is not 1");
    tile_require(config->start_row == 0, "ldtilecfg", "start row is not 0");
    tile_require(memcmp(config->reserved, zero, sizeof(zero)) == 0, "ldtilecfg", "reserved bytes");
    for (unsigned i = 0; i < 16; i++) {
        unsigned rows = config->rows[i], bytes = config->row_bytes[i];
        tile_require(i < TILE_COUNT || (rows == 0 && bytes == 0), "ldtilecfg", "tile above 7");
        tile_require(rows <= TILE_ROWS && bytes <= TILE_ROW_BYTES, "ldtilecfg", "tile too large");
        tile_require((rows == 0) == (bytes == 0), "ldtilecfg", "rows without columns");
    }
    tiles.config = *config;
    memset(tiles.row, 0, sizeof(tiles.row));
}

static inline void tile_release(void)
{
    memset(&tiles, 0, sizeof(tiles));
}

static inline void tile_usable(unsigned t, const char *instruction)
{
    tile_require(tiles.config.palette == 1, instruction, "tiles are not configured");
    tile_require(t < TILE_COUNT && tiles.config.rows[t] > 0, instruction, "tile is not configured");
}

static inline void tile_zero(unsigned t)
{
    tile_usable(t, "tilezero");
    memset(tiles.row[t], 0, sizeof(tiles.row[t]));
}

static inline void tile_load(unsigned t, const void *base)
{
    tile_usable(t, "tileloadd");
    memset(tiles.row[t], 0, sizeof(tiles.row[t])); /* the rest of a row and the rows behind */
    for (unsigned r = 0; r < tiles.config.rows[t]; r++)
        memcpy(tiles.row[t][r], (const uint8_t *)base + r * TILE_ROW_BYTES,
               tiles.config.row_bytes[t]);
}

static inline void tile_store(unsigned t, void *base)
{
    tile_usable(t, "tilestored");
    for (unsigned r = 0; r < tiles.config.rows[t]; r++)
        memcpy((uint8_t *)base + r * TILE_ROW_BYTES, tiles.row[t][r], tiles.config.row_bytes[t]);
}

static inline float tile_flush(float value)
{
    return fpclassify(value) == FP_SUBNORMAL ? copysignf(0.0f, value) : value;
}

static inline float tile_bf16(unsigned t, unsigned row, unsigned i)
{
    uint16_t bits;

    memcpy(&bits, &tiles.row[t][row][2 * i], sizeof(bits));
    return tile_flush(hm_bf16_to_f32(bits));
}

/* One row of C: C[n] += (sum over k of even products) + (sum over k of odd products). */
static inline void tile_dot_row(unsigned c, unsigned a, unsigned b, unsigned row)
{
    for (unsigned n = 0; n < tiles.config.row_bytes[c] / 4u; n++) {
        float even = 0.0f, odd = 0.0f, sum;
        for (unsigned k = 0; k < tiles.config.row_bytes[a] / 4u; k++) {
            even = tile_flush(fmaf(tile_bf16(a, row, 2 * k), tile_bf16(b, k, 2 * n), even));
            odd = tile_flush(fmaf(tile_bf16(a, row, 2 * k + 1), tile_bf16(b, k, 2 * n + 1), odd));
        }
        memcpy(&sum, &tiles.row[c][row][4 * n], sizeof(sum));
        sum = tile_flush(tile_flush(sum) + tile_flush(even + odd));
        memcpy(&tiles.row[c][row][4 * n], &sum, sizeof(sum));
    }
}

static inline void tile_dot(unsigned c, unsigned a, unsigned b)
{
    const char *name = "tdpbf16ps";

    tile_usable(a, name);
    tile_usable(b, name);
    tile_usable(c, name);
    tile_require(a != b && b != c && a != c, name, "operands are not three tiles");
    tile_require(tiles.config.rows[a] == tiles.config.rows[c], name, "rows of A and C");
    tile_require(tiles.config.row_bytes[b] == tiles.config.row_bytes[c], name, "columns of B, C");
    tile_require(tiles.config.row_bytes[a] == 4u * tiles.config.rows[b], name, "inner sides");
    for (unsigned row = 0; row < tiles.config.rows[c]; row++)
        tile_dot_row(c, a, b, row);
}

#endif
