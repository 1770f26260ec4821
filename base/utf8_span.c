/* SPDX-License-Identifier: MIT */
/*
 * UTF-8 in bulk: how far bytes are well formed, how far a JSON string goes without anything that
 * ends or escapes it, and how many characters a text has. Eight bytes at a time: two characters of
 * three bytes (nearly all of Chinese text), or eight of ASCII; all else goes through
 * hm_utf8_decode, which alone knows the rules.
 */
#include <endian.h>
#include <string.h>

#include "hanmix/base/str.h"

#define EACH_BYTE(value) (0x0101010101010101ull * (value))

static inline uint64_t load_u64(const char *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return le64toh(word); /* the first byte lowest */
}

/* Do the first bytes of the word, by mask, look like 1110xxxx 10xxxxxx 10xxxxxx, and begin neither
 * with E0 nor with ED, whose second byte is bound by more? */
static inline bool is_triple(uint64_t word)
{
    uint64_t lead = word & 0x0f;

    return (word & 0xc0c0f0) == 0x8080e0 && lead != 0x0 && lead != 0xd;
}

static inline bool is_two_triples(uint64_t word)
{
    const uint64_t low = 0x0f00000f, top = 0x80000080;
    uint64_t lead = word & low;

    /* adding 0x7f carries into the top bit of each byte that is not 0 */
    uint64_t not_e0 = lead + 0x7f00007f;
    uint64_t not_ed = (lead ^ 0x0d00000d) + 0x7f00007f;
    return (word & 0xc0c0f0c0c0f0) == 0x8080e08080e0 && (not_e0 & not_ed & top) == top;
}

/* The number of ASCII bytes at the front of the word; of a JSON string, of plain ones. */
static inline unsigned ascii_front(uint64_t word, bool in_string)
{
    uint64_t stop = word;

    if (in_string) { /* a byte that is below 0x20, or a quote or backslash, borrows; the lowest
                        tells */
        uint64_t quote = word ^ EACH_BYTE('"'), escape = word ^ EACH_BYTE('\\');
        stop |= (word - EACH_BYTE(0x20)) | (quote - EACH_BYTE(1)) | (escape - EACH_BYTE(1));
    }
    stop &= EACH_BYTE(0x80);
    return stop ? (unsigned)__builtin_ctzll(stop) / 8 : 8;
}

static inline bool ends_string(unsigned char byte)
{
    return byte < 0x20 || byte == '"' || byte == '\\';
}

/* Bytes at the front that are well formed and, of a JSON string, plain. */
static inline size_t span(struct hm_str text, bool in_string)
{
    const char *at = text.ptr, *end = text.ptr + text.len;

    while (at < end) {
        uint32_t code;
        while (end - at >= 8) {
            uint64_t word = load_u64(at);
            if (is_two_triples(word)) {
                at += 6;
                continue;
            }
            unsigned ascii = ascii_front(word, in_string);
            if (ascii == 0 && !is_triple(word))
                break;
            at += ascii ? ascii : 3;
        }
        if (at == end || (in_string && ends_string((unsigned char)*at)))
            break;
        unsigned used = hm_utf8_decode(at, (size_t)(end - at), &code);
        if (used == 0)
            break;
        at += used;
    }
    return (size_t)(at - text.ptr);
}

bool hm_utf8_valid(struct hm_str text, size_t *ret_bad_offset)
{
    size_t valid = span(text, false);

    if (valid < text.len && ret_bad_offset)
        *ret_bad_offset = valid;
    return valid == text.len;
}

size_t hm_utf8_string_span(struct hm_str text)
{
    return span(text, true);
}

size_t hm_utf8_begun(struct hm_str text)
{
    const uint64_t low = EACH_BYTE(1);
    size_t at = 0, within = 0;

    while (text.len - at >= 8) {
        uint64_t each = 0; /* the sum of each byte's place, at most 255 words of it */
        for (unsigned i = 0; i < 255 && text.len - at >= 8; i++, at += 8) {
            uint64_t word = load_u64(text.ptr + at);
            each += (word >> 7) & ~(word >> 6) & low;
        }
        const uint64_t half = 0x00ff00ff00ff00ffull;
        each = (each & half) + ((each >> 8) & half);
        within += (size_t)((each * 0x0001000100010001ull) >> 48);
    }
    for (; at < text.len; at++)
        within += ((unsigned char)text.ptr[at] & 0xc0) == 0x80;
    return text.len - within;
}
