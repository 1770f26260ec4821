/* SPDX-License-Identifier: MIT */
/*
 * The tables of hanmix/kernels/map8.h. The midpoint of two neighbours is their f32 mean, as in
 * bitsandbytes; a value on it takes the lower code.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/status.h"
#include "hanmix/kernels/map8.h"

static int compare_float(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* Entry i of torch.linspace(0.1, 1, n): from the nearer end, each with one rounding. */
static float linspace(int i, int n)
{
    float step = (1.0f - 0.1f) / (float)(n - 1);

    return i < n / 2 ? fmaf(step, (float)i, 0.1f) : fmaf(-step, (float)(n - i - 1), 1.0f);
}

void hm_dynamic_map(bool with_sign, float map[256])
{
    static const float power[7] = { 1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f };
    size_t n = 0;

    for (int e = 0; e < 7; e++) {
        int edges = (with_sign ? 1 << e : 2 << e) + 1;
        for (int i = 0; i + 1 < edges; i++) {
            float middle = (linspace(i, edges) + linspace(i + 1, edges)) / 2.0f;
            map[n++] = power[e] * middle;
            if (with_sign)
                map[n++] = -power[e] * middle;
        }
    }
    map[n++] = 0.0f;
    map[n++] = 1.0f;
    HM_BUG(n != 256);
    qsort(map, n, sizeof *map, compare_float);
}

static float from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* The nearest entry to x from low_code on, the lower one on a tie. */
static int nearest(const struct hm_map8 *map, float x)
{
    int code = map->low_code;

    while (code < 255 && x > (map->value[code] + map->value[code + 1]) / 2.0f)
        code++;
    return code;
}

/* Piece entries of one sign (flip 0 or 255), from the magnitude 2^-24 on. */
static void pieces_fill(struct hm_map8 *map, int32_t *piece, int flip)
{
    uint32_t width = 1u << map->shift;

    for (uint32_t at = HM_MAP8_LOWEST_BITS; at <= HM_MAP8_ONE_BITS; at += width) {
        float sign = flip ? -1.0f : 1.0f;
        int code = nearest(map, sign * from_bits(at));
        uint32_t low = 0, high = width; /* the next code holds from an offset in (low, high] on */
        while (high - low > 1) {
            uint32_t middle = (low + high) / 2;
            if (nearest(map, sign * from_bits(at + middle)) == code)
                low = middle;
            else
                high = middle;
        }
        *piece++ = (int32_t)(high << 8 | (uint32_t)(code ^ flip));
    }
}

/* Runs of the codes from low_code, or from zero on: that of zero alone where it is given, one for
   each power of ten, and 1 alone. */
static void runs_fill(struct hm_map8 *map, bool with_sign)
{
    struct hm_map8_runs *runs = &map->runs;
    int code = with_sign ? 127 : 1, n = 0, first[17];

    runs->least = with_sign ? from_bits(HM_MAP8_LOWEST_BITS) : map->value[code];
    if (with_sign) { /* zero */
        runs->offset[n] = runs->most[n] = 256.0f + (float)code + 0.5f;
        first[n++] = code++;
    }
    for (int e = 0; e < 7; e++) {
        int count = with_sign ? 1 << e : 2 << e;
        double power = pow(10.0, e - 6);
        runs->scale[n] = (float)(count / (0.9 * power));
        runs->offset[n] = (float)(256 + code - count / 9.0 + 0x1p-13);
        runs->most[n] = 256.0f + (float)(code + count) - 0.5f;
        first[n++] = code;
        code += count;
    }
    runs->offset[n] = runs->most[n] = 256.0f + 255.5f;
    first[n++] = 255;
    for (uint32_t at = HM_MAP8_LOWEST_BITS >> 23, run = 0; at < (HM_MAP8_LOWEST_BITS >> 23) + 32;
         at++) {
        float end = from_bits((at + 1) << 23), turn = INFINITY;
        runs->run[at & 31] = (int32_t)run;
        if ((int)run + 1 < n)
            turn = (map->value[first[run + 1] - 1] + map->value[first[run + 1]]) / 2.0f;
        runs->turn[at & 31] = turn < end ? turn : INFINITY;
        run += turn < end;
    }
}

static void halves_fill(struct hm_map8 *map)
{
    for (int i = 0; i < 256; i++) {
        uint32_t bits;
        memcpy(&bits, &map->value[i], sizeof(bits));
        map->half[0][i] = (uint16_t)bits;
        map->half[1][i] = (uint16_t)(bits >> 16);
    }
}

void hm_map8_init(bool with_sign, struct hm_map8 *ret_map)
{
    struct hm_map8 map = { .low = with_sign ? -1.0f : 0.0f,
                           .low_code = !with_sign,
                           .shift = with_sign ? 17 : 16 };

    map.negative = ((HM_MAP8_ONE_BITS - HM_MAP8_LOWEST_BITS) >> map.shift) + 1;
    hm_dynamic_map(with_sign, map.value);
    halves_fill(&map);
    runs_fill(&map, with_sign);
    pieces_fill(&map, map.piece, 0);
    if (with_sign)
        pieces_fill(&map, map.piece + map.negative, 255);
    *ret_map = map;
}
