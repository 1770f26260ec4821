/* SPDX-License-Identifier: MIT */
/*
 * Normalisation form C (Unicode Annex 15): characters are decomposed, marks put in the order of
 * their classes, and what composes is composed again. Text of ASCII and unified ideographs, and all
 * else below U+0300, is passed through by one comparison a character.
 */
#include "unicode_nfc.h"

#include <string.h>

#define FIRST_MARK   0x300u /* nothing below changes or joins what is before it */
#define LOW          0x1fffffu
#define HANGUL       0xac00u
#define HANGUL_COUNT 11172u
#define LEAD         0x1100u
#define VOWEL        0x1161u
#define TRAIL        0x11a7u
#define VOWELS       21u
#define TRAILS       28u

struct codes {
    uint32_t *code;
    size_t n, cap;
};

static unsigned class_of(uint32_t code)
{
    size_t low = 0, high = hm_nfc_classes;

    if (code < FIRST_MARK)
        return 0;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (hm_nfc_class[middle] >> 8 <= code)
            low = middle;
        else
            high = middle;
    }
    return hm_nfc_class[low] & 255;
}

/* 0 when the character is its own decomposition. */
static uint64_t parts_of(uint32_t code)
{
    size_t low = 0, high = hm_nfc_n_parts;

    while (low < high) {
        size_t middle = (low + high) / 2;
        uint32_t found = hm_nfc_parts[middle] >> 42 & LOW;
        if (found == code)
            return hm_nfc_parts[middle];
        if (found < code)
            low = middle + 1;
        else
            high = middle;
    }
    return 0;
}

/* Characters that are no marks and compose with the one before lie in scripts of India and near. */
static bool may_be_second(uint32_t code)
{
    return (code >= 0x9be && code <= 0x1b35) || (code >= 0x11000 && code <= 0x16fff);
}

/* 0 when they do not compose. Text that gets here is rare, so the table is searched through. */
static uint32_t composed(uint32_t first, uint32_t second)
{
    uint64_t both = (uint64_t)first << 21 | second;

    if (first - LEAD < 19 && second - VOWEL < VOWELS)
        return HANGUL + ((first - LEAD) * VOWELS + second - VOWEL) * TRAILS;
    if (first - HANGUL < HANGUL_COUNT && (first - HANGUL) % TRAILS == 0 && second > TRAIL &&
        second - TRAIL < TRAILS)
        return first + second - TRAIL;
    if (class_of(second) == 0 && !may_be_second(second))
        return 0;
    for (size_t i = 0; i < hm_nfc_n_parts; i++)
        if (hm_nfc_parts[i] >> 63 && (hm_nfc_parts[i] & (((uint64_t)1 << 42) - 1)) == both)
            return hm_nfc_parts[i] >> 42 & LOW;
    return 0;
}

/* Characters that stay as they are before and behind whatever there is. */
static bool is_inert(uint32_t code)
{
    return code < FIRST_MARK || (code >= 0x2010 && code <= 0x2064) ||
           (code >= 0x3000 && code <= 0x3020) || (code >= 0x3400 && code <= 0x9fff) ||
           (code >= 0xff00 && code <= 0xffef);
}

bool hm_nfc_is_plain(struct hm_str text)
{
    uint32_t code = 0;

    for (size_t at = 0; at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        if (!is_inert(code))
            return false;
        at += len ? len : 1;
    }
    return true;
}

static int code_add(struct codes *codes, uint32_t code, struct hm_error *err)
{
    if (codes->n == codes->cap) {
        size_t cap = codes->cap ? 2 * codes->cap : 256;
        uint32_t *grown = hm_realloc(HM_MEM_SCRATCH, codes->code, cap * sizeof(*grown));
        if (!grown)
            return hm_fail_nomem(err, "for %zu characters", cap);
        codes->code = grown, codes->cap = cap;
    }
    codes->code[codes->n++] = code;
    return HM_OK;
}

static int decompose(struct codes *codes, uint32_t code, struct hm_error *err)
{
    if (code - HANGUL < HANGUL_COUNT) {
        uint32_t at = code - HANGUL;
        HM_TRY(code_add(codes, LEAD + at / TRAILS / VOWELS, err));
        HM_TRY(code_add(codes, VOWEL + at / TRAILS % VOWELS, err));
        return at % TRAILS ? code_add(codes, TRAIL + at % TRAILS, err) : (int)HM_OK;
    }
    uint64_t parts = code < 0xc0 ? 0 : parts_of(code);
    if (!parts)
        return code_add(codes, code, err);
    HM_TRY(decompose(codes, parts >> 21 & LOW, err)); /* chains are at most three deep */
    return parts & LOW ? decompose(codes, parts & LOW, err) : (int)HM_OK;
}

/* A stable order by class of each run of marks. Runs are sorted by counting, in time of their
 * length. */
static int order(struct codes *codes, struct hm_error *err)
{
    uint32_t *sorted = hm_alloc_array(HM_MEM_SCRATCH, codes->n + 1, sizeof(*sorted));
    size_t end = 0;

    if (!sorted)
        return hm_fail_nomem(err, "for %zu characters", codes->n);
    for (size_t at = 0; at<codes->n; at = end> at ? end : at + 1) {
        for (end = at; end < codes->n && class_of(codes->code[end]) > 0;)
            end++;
        if (end - at < 2)
            continue;
        size_t place[257] = { 0 };
        for (size_t i = at; i < end; i++)
            place[class_of(codes->code[i]) + 1]++;
        for (size_t i = 1; i < 257; i++)
            place[i] += place[i - 1];
        for (size_t i = at; i < end; i++)
            sorted[place[class_of(codes->code[i])]++] = codes->code[i];
        memcpy(codes->code + at, sorted, (end - at) * sizeof(*sorted));
    }
    hm_free(sorted);
    return HM_OK;
}

static void compose(struct codes *codes)
{
    size_t starter = SIZE_MAX, n = 0;
    unsigned last = 0; /* class of the character before, behind the starter */

    for (size_t i = 0; i < codes->n; i++) {
        uint32_t code = codes->code[i];
        unsigned class = class_of(code);
        bool blocked = starter == SIZE_MAX || (n - starter > 1 && last >= class);
        uint32_t whole = blocked ? 0 : composed(codes->code[starter], code);
        if (whole) {
            codes->code[starter] = whole;
            continue;
        }
        if (class == 0)
            starter = n;
        last = class;
        codes->code[n++] = code;
    }
    codes->n = n;
}

int hm_nfc_append(struct hm_str text, struct hm_buf *buf, struct hm_error *err)
{
    struct codes codes = { 0 };
    uint32_t code = 0;
    char bytes[4];
    int status = HM_OK;

    for (size_t at = 0; status == HM_OK && at < text.len;) {
        unsigned len = hm_utf8_decode(text.ptr + at, text.len - at, &code);
        status = decompose(&codes, code, err);
        at += len ? len : 1;
    }
    if (status == HM_OK)
        status = order(&codes, err);
    if (status == HM_OK)
        compose(&codes);
    for (size_t i = 0; status == HM_OK && i < codes.n; i++)
        status = hm_buf_append(buf, bytes, hm_utf8_encode(codes.code[i], bytes), err);
    hm_free(codes.code);
    return status;
}
