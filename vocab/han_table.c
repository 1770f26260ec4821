/* SPDX-License-Identifier: MIT */
/*
 * Which code points form Chinese runs, by sentencepiece's script table (Unicode 9.0): what it
 * treats as Han is Han itself, Hiragana, Katakana and U+30FC. Later additions to Unicode are not in
 * that table (they count as Common there) and so not here: pieces must be comparable with the
 * library's.
 */
#include "hanmix/vocab/bpe_train.h"

struct code_range {
    uint32_t first, last;
};

static const struct code_range han_class[] = {
    { 0x2e80, 0x2e99 },   { 0x2e9b, 0x2ef3 },   { 0x2f00, 0x2fd5 },   { 0x3005, 0x3005 },
    { 0x3007, 0x3007 },   { 0x3021, 0x3029 },   { 0x3038, 0x303b },   { 0x3041, 0x3096 },
    { 0x309d, 0x309f },   { 0x30a1, 0x30fa },   { 0x30fc, 0x30ff },   { 0x31f0, 0x31ff },
    { 0x32d0, 0x32fe },   { 0x3300, 0x3357 },   { 0x3400, 0x4db5 },   { 0x4e00, 0x9fd5 },
    { 0xf900, 0xfa6d },   { 0xfa70, 0xfad9 },   { 0xff66, 0xff6f },   { 0xff71, 0xff9d },
    { 0x1b000, 0x1b001 }, { 0x1f200, 0x1f200 }, { 0x20000, 0x2a6d6 }, { 0x2a700, 0x2b734 },
    { 0x2b740, 0x2b81d }, { 0x2b820, 0x2cea1 }, { 0x2f800, 0x2fa1d },
};

/* Unicode's property Ideographic within the table above: no radicals, no kana, no iteration mark.
 */
static const struct code_range ideographs[] = {
    { 0x3007, 0x3007 },   { 0x3021, 0x3029 },   { 0x3038, 0x303a },   { 0x3400, 0x4db5 },
    { 0x4e00, 0x9fd5 },   { 0xf900, 0xfa6d },   { 0xfa70, 0xfad9 },   { 0x20000, 0x2a6d6 },
    { 0x2a700, 0x2b734 }, { 0x2b740, 0x2b81d }, { 0x2b820, 0x2cea1 }, { 0x2f800, 0x2fa1d },
};

static bool in_ranges(const struct code_range *range, size_t count, uint32_t code)
{
    size_t low = 0;
    size_t high = count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (code > range[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < count && code >= range[low].first;
}

bool hm_is_han_class(uint32_t code)
{
    if (code >= 0x4e00 && code <= 0x9fd5) /* nearly all of Chinese text */
        return true;
    return code >= 0x2e80 && in_ranges(han_class, sizeof(han_class) / sizeof(han_class[0]), code);
}

bool hm_is_ideograph(uint32_t code)
{
    if (code >= 0x4e00 && code <= 0x9fd5)
        return true;
    return code >= 0x3007 &&
           in_ranges(ideographs, sizeof(ideographs) / sizeof(ideographs[0]), code);
}
