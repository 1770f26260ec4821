/* SPDX-License-Identifier: MIT */
/*
 * Documents cut into longest stretches of Han-class characters, equal runs counted once with a
 * 64-bit count. Runs lie as UTF-16 records in chunks that never move; an open-addressing table of
 * record references (48 bits, 16 bits of hash beside them) finds them. Invariants: at most 5/8 of
 * the table is taken; a record is [u64 count][u32 units][units, padded to 4 bytes]; after a failure
 * only hm_han_counts_free is meaningful. Work is linear in the bytes added.
 */
#include <inttypes.h>
#include <string.h>

#include "bpe_internal.h"

#define CHUNK_BITS    22u
#define CHUNK_BYTES   ((size_t)1 << CHUNK_BITS)
#define RECORD_HEADER 12u /* count and number of units */
#define TABLE_FIRST   4096u
#define BATCH_RUNS    64u   /* looked up together, so that their cache misses overlap */
#define BATCH_UNITS   8192u /* a batch is flushed beyond this; one run may be longer */
#define REF_BITS      48u
#define REF_MASK      (((uint64_t)1 << REF_BITS) - 1)

struct waiting_run {
    uint64_t hash;
    size_t first; /* in batch_unit */
    size_t n_units;
    uint64_t count;
};

struct hm_han_counts {
    uint8_t **chunk;
    size_t n_chunks, cap_chunks;
    size_t chunk_used; /* of the last chunk */
    size_t chunk_size; /* of the last chunk */
    uint64_t *table;   /* 0 or tag << 48 | (chunk index << CHUNK_BITS | offset) + 1 */
    size_t table_size; /* power of two */
    uint16_t *batch_unit;
    size_t batch_used, batch_cap;
    struct waiting_run batch[BATCH_RUNS];
    size_t n_batch;
    uint64_t limit_bytes; /* 0 = none */
    uint64_t used_bytes;
    uint64_t seen[0x110000 / 64]; /* characters met in runs */
    struct hm_han_totals totals;
};

/* Take `bytes` more within the limit. */
static int budget_take(struct hm_han_counts *counts, uint64_t bytes, struct hm_error *err)
{
    uint64_t need = counts->used_bytes + bytes;

    if (counts->limit_bytes && need > counts->limit_bytes)
        return hm_fail(err, HM_ERR_NOFIT,
                       "counting Han runs needs more than %" PRIu64 " bytes after %" PRIu64
                       " documents and the limit is %" PRIu64
                       ": raise the memory limit or sample the text",
                       need, counts->totals.documents, counts->limit_bytes);
    counts->used_bytes = need;
    return HM_OK;
}

int hm_han_counts_new(struct hm_han_counts **ret_counts, struct hm_error *err)
{
    struct hm_han_counts *counts = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*counts));

    if (!counts)
        goto out;
    counts->table_size = TABLE_FIRST;
    counts->table = hm_calloc(HM_MEM_VOCAB, counts->table_size, sizeof(*counts->table));
    counts->batch_cap = BATCH_UNITS;
    counts->batch_unit = hm_alloc_array(HM_MEM_VOCAB, counts->batch_cap, sizeof(uint16_t));
    if (!counts->table || !counts->batch_unit)
        goto out;
    counts->used_bytes = sizeof(*counts) + counts->table_size * sizeof(*counts->table) +
                         counts->batch_cap * sizeof(uint16_t);
    *ret_counts = counts;
    return HM_OK;
out:
    hm_han_counts_free(counts);
    return hm_fail(err, HM_ERR_NOMEM, "out of memory for counting Han runs");
}

void hm_han_counts_free(struct hm_han_counts *counts)
{
    if (!counts)
        return;
    for (size_t i = 0; i < counts->n_chunks; i++)
        hm_free(counts->chunk[i]);
    hm_free(counts->chunk);
    hm_free(counts->table);
    hm_free(counts->batch_unit);
    hm_free(counts);
}

void hm_han_counts_limit(struct hm_han_counts *counts, uint64_t bytes)
{
    counts->limit_bytes = bytes;
}

uint64_t hm_han_counts_bytes(const struct hm_han_counts *counts)
{
    return counts->used_bytes;
}

static uint8_t *record_at(const struct hm_han_counts *counts, uint64_t ref)
{
    return counts->chunk[ref >> CHUNK_BITS] + (ref & (CHUNK_BYTES - 1));
}

static uint64_t record_count(const uint8_t *record)
{
    uint64_t count;

    memcpy(&count, record, sizeof(count));
    return count;
}

static uint32_t record_units(const uint8_t *record)
{
    uint32_t n_units;

    memcpy(&n_units, record + 8, sizeof(n_units));
    return n_units;
}

static size_t record_bytes(size_t n_units)
{
    return RECORD_HEADER + ((n_units * sizeof(uint16_t) + 3) & ~(size_t)3);
}

static uint64_t unit_hash(const uint16_t *unit, size_t n_units)
{
    return hm_hash64(unit, n_units * sizeof(*unit), 0);
}

/* The record at *cursor, which moves behind it; false at the end. */
static bool record_next(const struct hm_han_counts *counts, uint64_t *cursor, uint64_t *ret_ref)
{
    size_t chunk = *cursor >> CHUNK_BITS;
    size_t offset = *cursor & (CHUNK_BYTES - 1);

    for (; chunk < counts->n_chunks; chunk++, offset = 0) {
        const uint8_t *record = counts->chunk[chunk] + offset;
        /* A full chunk ends where a header no longer fits or holds no units. */
        bool there = chunk + 1 == counts->n_chunks
                         ? offset < counts->chunk_used
                         : offset + RECORD_HEADER <= CHUNK_BYTES && record_units(record) > 0;
        if (!there)
            continue;
        size_t after = offset + record_bytes(record_units(record));
        *ret_ref = (uint64_t)chunk << CHUNK_BITS | offset;
        /* A record that fills a chunk, or is longer than one, has it for itself. */
        *cursor =
            after < CHUNK_BYTES ? *ret_ref - offset + after : (uint64_t)(chunk + 1) << CHUNK_BITS;
        return true;
    }
    return false;
}

bool hm_han_counts_next(const struct hm_han_counts *counts, uint64_t *cursor,
                        struct hm_run *ret_run)
{
    uint64_t ref = 0;

    if (!record_next(counts, cursor, &ref))
        return false;
    const uint8_t *record = record_at(counts, ref);
    ret_run->unit = (const uint16_t *)(const void *)(record + RECORD_HEADER);
    ret_run->n_units = record_units(record);
    ret_run->count = record_count(record);
    return true;
}

static int chunk_add(struct hm_han_counts *counts, size_t bytes, struct hm_error *err)
{
    size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;

    if (counts->n_chunks >= REF_MASK >> CHUNK_BITS)
        return hm_fail(err, HM_ERR_NOFIT, "more Han runs than can be addressed");
    HM_TRY(budget_take(counts, size, err));
    if (counts->n_chunks == counts->cap_chunks) {
        size_t cap = counts->cap_chunks ? 2 * counts->cap_chunks : 64;
        uint8_t **chunk = hm_realloc(HM_MEM_VOCAB, counts->chunk, cap * sizeof(*chunk));
        if (!chunk)
            return hm_fail(err, HM_ERR_NOMEM, "out of memory for %zu chunks of Han runs", cap);
        counts->chunk = chunk;
        counts->cap_chunks = cap;
    }
    uint8_t *block = hm_alloc(HM_MEM_VOCAB, size);
    if (!block)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for %zu bytes of Han runs", size);
    counts->chunk[counts->n_chunks++] = block;
    counts->chunk_used = 0;
    counts->chunk_size = size;
    return HM_OK;
}

/* Append a record; *ret_ref is where it lies. */
static int record_new(struct hm_han_counts *counts, const uint16_t *unit, size_t n_units,
                      uint64_t count, uint64_t *ret_ref, struct hm_error *err)
{
    size_t bytes = record_bytes(n_units);
    uint32_t stored = (uint32_t)n_units;

    if (n_units > UINT32_MAX)
        return hm_fail(err, HM_ERR_FORMAT, "a Han run of %zu units is too long", n_units);
    if (counts->n_chunks == 0 || counts->chunk_used + bytes > counts->chunk_size) {
        if (counts->n_chunks > 0 && counts->chunk_used + RECORD_HEADER <= counts->chunk_size)
            memset(counts->chunk[counts->n_chunks - 1] + counts->chunk_used, 0, RECORD_HEADER);
        HM_TRY(chunk_add(counts, bytes, err));
    }
    *ret_ref = (uint64_t)(counts->n_chunks - 1) << CHUNK_BITS | counts->chunk_used;
    uint8_t *record = record_at(counts, *ret_ref);
    memcpy(record, &count, sizeof(count));
    memcpy(record + 8, &stored, sizeof(stored));
    memcpy(record + RECORD_HEADER, unit, n_units * sizeof(*unit));
    counts->chunk_used += bytes;
    return HM_OK;
}

static void table_put(uint64_t *table, size_t size, uint64_t hash, uint64_t ref)
{
    size_t at = hash & (size - 1);

    while (table[at])
        at = (at + 1) & (size - 1);
    table[at] = hash >> REF_BITS << REF_BITS | (ref + 1);
}

static int table_grow(struct hm_han_counts *counts, struct hm_error *err)
{
    size_t size = 2 * counts->table_size;
    uint64_t cursor = 0;
    uint64_t ref = 0;

    HM_TRY(budget_take(counts, size * sizeof(uint64_t), err));
    uint64_t *table = hm_calloc(HM_MEM_VOCAB, size, sizeof(*table));
    if (!table)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for a table of %zu Han runs", size);
    while (record_next(counts, &cursor, &ref)) {
        const uint8_t *record = record_at(counts, ref);
        const void *unit = record + RECORD_HEADER;
        table_put(table, size, unit_hash(unit, record_units(record)), ref);
    }
    hm_free(counts->table);
    counts->used_bytes -= counts->table_size * sizeof(*table);
    counts->table = table;
    counts->table_size = size;
    return HM_OK;
}

static void seen_mark(struct hm_han_counts *counts, const uint16_t *unit, size_t n_units)
{
    for (uint32_t i = 0; i < n_units;) {
        uint32_t code = hm_run_code(unit, &i);
        uint64_t bit = (uint64_t)1 << code % 64;
        if (!(counts->seen[code / 64] & bit)) {
            counts->seen[code / 64] |= bit;
            counts->totals.distinct_characters++;
        }
    }
}

static int run_add(struct hm_han_counts *counts, const uint16_t *unit, size_t n_units,
                   uint64_t hash, uint64_t count, struct hm_error *err)
{
    uint64_t ref = 0;

    for (size_t at = hash & (counts->table_size - 1); counts->table[at];
         at = (at + 1) & (counts->table_size - 1)) {
        if ((counts->table[at] ^ hash) >> REF_BITS)
            continue;
        uint8_t *record = record_at(counts, (counts->table[at] & REF_MASK) - 1);
        if (record_units(record) == n_units &&
            memcmp(record + RECORD_HEADER, unit, n_units * sizeof(*unit)) == 0) {
            uint64_t sum = record_count(record) + count;
            memcpy(record, &sum, sizeof(sum));
            counts->totals.runs += count;
            return HM_OK;
        }
    }
    if ((counts->totals.distinct_runs + 1) * 8 > counts->table_size * 5)
        HM_TRY(table_grow(counts, err));
    HM_TRY(record_new(counts, unit, n_units, count, &ref, err));
    table_put(counts->table, counts->table_size, hash, ref);
    seen_mark(counts, unit, n_units);
    counts->totals.distinct_runs++;
    counts->totals.runs += count;
    return HM_OK;
}

int hm_han_counts_flush(struct hm_han_counts *counts, struct hm_error *err)
{
    struct waiting_run *waiting = counts->batch;

    for (size_t i = 0; i < counts->n_batch; i++) {
        waiting[i].hash = unit_hash(counts->batch_unit + waiting[i].first, waiting[i].n_units);
        __builtin_prefetch(&counts->table[waiting[i].hash & (counts->table_size - 1)]);
    }
    for (size_t i = 0; i < counts->n_batch; i++) {
        uint64_t entry = counts->table[waiting[i].hash & (counts->table_size - 1)];
        if (entry)
            __builtin_prefetch(record_at(counts, (entry & REF_MASK) - 1));
    }
    for (size_t i = 0; i < counts->n_batch; i++)
        HM_TRY(run_add(counts, counts->batch_unit + waiting[i].first, waiting[i].n_units,
                       waiting[i].hash, waiting[i].count, err));
    counts->n_batch = 0;
    counts->batch_used = 0;
    return HM_OK;
}

/* The run from `first` to batch_used is complete. */
static int batch_end_run(struct hm_han_counts *counts, size_t first, uint64_t count,
                         struct hm_error *err)
{
    counts->batch[counts->n_batch++] = (struct waiting_run){ .first = first,
                                                             .n_units = counts->batch_used - first,
                                                             .count = count };
    if (counts->n_batch == BATCH_RUNS || counts->batch_used >= BATCH_UNITS / 2)
        return hm_han_counts_flush(counts, err);
    return HM_OK;
}

static int batch_reserve(struct hm_han_counts *counts, size_t n_units, struct hm_error *err)
{
    size_t cap = counts->batch_cap;

    while (counts->batch_used + n_units > cap)
        cap *= 2;
    if (cap == counts->batch_cap)
        return HM_OK;
    HM_TRY(budget_take(counts, (cap - counts->batch_cap) * sizeof(uint16_t), err));
    uint16_t *unit = hm_realloc(HM_MEM_VOCAB, counts->batch_unit, cap * sizeof(*unit));
    if (!unit)
        return hm_fail(err, HM_ERR_NOMEM, "out of memory for a Han run of %zu units", cap);
    counts->batch_unit = unit;
    counts->batch_cap = cap;
    return HM_OK;
}

static int batch_put(struct hm_han_counts *counts, uint32_t code, struct hm_error *err)
{
    if (counts->batch_used + 2 > counts->batch_cap)
        HM_TRY(batch_reserve(counts, 2, err));
    if (code >= 0x10000) {
        counts->batch_unit[counts->batch_used++] = (uint16_t)(0xd7c0 + (code >> 10));
        counts->batch_unit[counts->batch_used++] = (uint16_t)(0xdc00 | (code & 0x3ff));
    } else {
        counts->batch_unit[counts->batch_used++] = (uint16_t)code;
    }
    return HM_OK;
}

int hm_han_counts_add_units(struct hm_han_counts *counts, const uint16_t *unit, size_t n_units,
                            uint64_t count, struct hm_error *err)
{
    size_t first = counts->batch_used;

    HM_TRY(batch_reserve(counts, n_units, err));
    memcpy(counts->batch_unit + first, unit, n_units * sizeof(*unit));
    counts->batch_used += n_units;
    return batch_end_run(counts, first, count, err);
}

/* Length of the code point at text; a malformed byte counts as one character of no script. */
static inline unsigned code_next(const unsigned char *text, size_t left, uint32_t *ret_code)
{
    if (left >= 3 && text[0] >= 0xe3 && text[0] <= 0xe9 && (text[1] & 0xc0) == 0x80 &&
        (text[2] & 0xc0) == 0x80) { /* nearly all of Chinese text */
        *ret_code = (text[0] & 0xfu) << 12 | (text[1] & 0x3fu) << 6 | (text[2] & 0x3fu);
        return 3;
    }
    unsigned len = hm_utf8_decode((const char *)text, left, ret_code);
    if (len == 0)
        *ret_code = 0;
    return len ? len : 1;
}

int hm_han_counts_add(struct hm_han_counts *counts, struct hm_str document, struct hm_error *err)
{
    const unsigned char *text = (const unsigned char *)document.ptr;
    uint64_t characters = 0;
    uint64_t han_characters = 0;
    size_t first = counts->batch_used; /* of the run being read */

    for (size_t i = 0; i < document.len;) {
        uint32_t code;
        unsigned len = code_next(text + i, document.len - i, &code);
        characters++;
        i += len;
        if (hm_is_han_class(code)) {
            han_characters++;
            HM_TRY(batch_put(counts, code, err));
        } else if (counts->batch_used > first) {
            HM_TRY(batch_end_run(counts, first, 1, err));
            first = counts->batch_used;
        }
    }
    if (counts->batch_used > first)
        HM_TRY(batch_end_run(counts, first, 1, err));
    HM_TRY(hm_han_counts_flush(counts, err));
    counts->totals.documents++;
    counts->totals.bytes += document.len;
    counts->totals.characters += characters;
    counts->totals.han_characters += han_characters;
    return HM_OK;
}

int hm_han_counts_add_run(struct hm_han_counts *counts, struct hm_str run, uint64_t count,
                          struct hm_error *err)
{
    uint64_t characters = 0;

    for (size_t i = 0; i < run.len; characters++) {
        uint32_t code;
        unsigned len = hm_utf8_decode(run.ptr + i, run.len - i, &code);
        if (len == 0 || !hm_is_han_class(code)) {
            counts->batch_used = 0;
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%.*s' is not a Han run: byte %zu begins no Han character",
                           (int)(run.len < 100 ? run.len : 100), run.ptr, i);
        }
        HM_TRY(batch_put(counts, code, err));
        i += len;
    }
    if (characters == 0)
        return HM_OK;
    if (count == 0) {
        counts->batch_used = 0;
        return HM_OK;
    }
    HM_TRY(batch_end_run(counts, 0, count, err));
    HM_TRY(hm_han_counts_flush(counts, err));
    counts->totals.bytes += run.len * count;
    counts->totals.characters += characters * count;
    counts->totals.han_characters += characters * count;
    return HM_OK;
}

int hm_han_counts_merge(struct hm_han_counts *counts, const struct hm_han_counts *other,
                        struct hm_error *err)
{
    uint64_t cursor = 0;
    struct hm_run run;

    while (hm_han_counts_next(other, &cursor, &run))
        HM_TRY(hm_han_counts_add_units(counts, run.unit, run.n_units, run.count, err));
    HM_TRY(hm_han_counts_flush(counts, err));
    counts->totals.documents += other->totals.documents;
    counts->totals.bytes += other->totals.bytes;
    counts->totals.characters += other->totals.characters;
    counts->totals.han_characters += other->totals.han_characters;
    return HM_OK;
}

struct hm_han_totals hm_han_counts_totals(const struct hm_han_counts *counts)
{
    return counts->totals;
}
