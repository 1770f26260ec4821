/* SPDX-License-Identifier: MIT */
/*
 * Checks a SentencePiece normaliser's precompiled_charsmap before the library may walk it: u32 size
 * of the trie, a Darts-clone double array of u32 units, then the texts it maps to, each ending in a
 * NUL. The library trusts every offset in it; nothing here interprets the map.
 */
#include <inttypes.h>

#include "hanmix/base/bytes.h"

#include "spm_private.h"

static uint32_t unit_at(struct hm_str trie, size_t index)
{
    return (uint32_t)hm_le_get(trie.ptr + 4 * index, 4);
}

/*
 * A unit whose top bit is set is a leaf. Any other leads to index ^ offset ^ label for a byte label
 * and, with its leaf flag (bit 8), to a value at index ^ offset: the low 31 bits there, whatever
 * kind of unit that is.
 */
int hm_spm_charsmap_check(struct hm_str charsmap, const char *what, struct hm_error *err)
{
    if (charsmap.len < 4)
        return hm_fail(err, HM_ERR_FORMAT, "'%s': the normaliser's character map has %zu bytes",
                       what, charsmap.len);
    uint32_t trie_bytes = unit_at(charsmap, 0);
    if (trie_bytes > charsmap.len - 4 || trie_bytes < 1024 || trie_bytes % 4 != 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the normaliser's character map of %zu bytes claims a trie of %" PRIu32
                       " bytes",
                       what, charsmap.len, trie_bytes);
    struct hm_str trie = { charsmap.ptr + 4, trie_bytes };
    struct hm_str pool = { trie.ptr + trie_bytes, charsmap.len - 4 - trie_bytes };
    if (pool.len == 0 || pool.ptr[pool.len - 1] != '\0')
        return hm_fail(err, HM_ERR_FORMAT,
                       "'%s': the texts of the normaliser's character map do not end in a NUL",
                       what);
    size_t units = trie_bytes / 4;
    for (size_t i = 0; i < units; i++) {
        uint32_t unit = unit_at(trie, i);
        if (unit >> 31)
            continue;
        size_t to = i ^ ((size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6));
        if ((to | 0xff) >= units)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': unit %zu of the normaliser's character map leads outside its %zu "
                           "units",
                           what, i, units);
        if ((unit & 0x100) && (unit_at(trie, to) & 0x7fffffffu) >= pool.len)
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': unit %zu of the normaliser's character map points behind its "
                           "%zu bytes of text",
                           what, i, pool.len);
    }
    return HM_OK;
}
