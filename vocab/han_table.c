/* SPDX-License-Identifier: MIT */
/*
 * Which code points form Chinese runs, by sentencepiece's script table (Unicode 9.0): what it
 * treats as Han is Han itself, Hiragana, Katakana and U+30FC. Later additions to Unicode are not in
 * that table (they count as Common there) and so not here: pieces must be comparable with the
 * library's. Punctuation joins runs only where that is asked for.
 */
#include "han_store.h"

#define FIRST_BLOCK     0x4e00u /* nearly all of Chinese text */
#define LAST_BLOCK      0x9fd5u
#define COUNT_OF(table) (sizeof(table) / sizeof((table)[0]))

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

/* Punctuation of Chinese text alone: no “”‘’—…· of other languages' text. */
static const struct code_range han_marks[] = {
    { 0x3001, 0x3002 }, { 0x3008, 0x3011 }, { 0xff01, 0xff01 }, { 0xff08, 0xff09 },
    { 0xff0c, 0xff0c }, { 0xff0e, 0xff0e }, { 0xff1a, 0xff1b }, { 0xff1f, 0xff1f },
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
    if (code >= FIRST_BLOCK && code <= LAST_BLOCK)
        return true;
    /* the punctuation of Chinese text without a search */
    if (code - 0xff00 < 0x66 || code - 0x3000 < 0x5 || code - 0x3008 < 0x19)
        return false;
    return code >= 0x2e80 && in_ranges(han_class, COUNT_OF(han_class), code);
}

bool hm_is_ideograph(uint32_t code)
{
    if (code >= FIRST_BLOCK && code <= LAST_BLOCK)
        return true;
    return code >= 0x3007 && in_ranges(ideographs, COUNT_OF(ideographs), code);
}

bool hm_is_han_mark(uint32_t code)
{
    return code >= 0x3001 && in_ranges(han_marks, COUNT_OF(han_marks), code);
}

/* The place of a code point in ranges one after another, FIRST_BLOCK passed over; *index grows by
 * it, or by all that they hold. */
static bool range_place(const struct code_range *range, size_t count, uint32_t code,
                        uint32_t *index)
{
    for (size_t i = 0; i < count; i++) {
        if (range[i].first == FIRST_BLOCK)
            continue;
        if (code >= range[i].first && code <= range[i].last) {
            *index += code - range[i].first;
            return true;
        }
        *index += range[i].last - range[i].first + 1;
    }
    return false;
}

static bool range_code(const struct code_range *range, size_t count, uint32_t *left,
                       uint32_t *ret_code)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t codes = range[i].last - range[i].first + 1;
        if (range[i].first == FIRST_BLOCK)
            continue;
        if (*left < codes) {
            *ret_code = range[i].first + *left;
            return true;
        }
        *left -= codes;
    }
    return false;
}

uint32_t hm_han_index(uint32_t code)
{
    uint32_t index = LAST_BLOCK - FIRST_BLOCK + 2;

    if (code >= FIRST_BLOCK && code <= LAST_BLOCK)
        return code - FIRST_BLOCK + 1;
    if (range_place(han_class, COUNT_OF(han_class), code, &index) ||
        range_place(han_marks, COUNT_OF(han_marks), code, &index))
        return index;
    return 0;
}

uint32_t hm_han_code(uint32_t index)
{
    uint32_t left = index - (LAST_BLOCK - FIRST_BLOCK + 2), code = 0;

    if (index == 0)
        return 0;
    if (index <= LAST_BLOCK - FIRST_BLOCK + 1)
        return FIRST_BLOCK + index - 1;
    if (range_code(han_class, COUNT_OF(han_class), &left, &code) ||
        range_code(han_marks, COUNT_OF(han_marks), &left, &code))
        return code;
    return 0;
}
