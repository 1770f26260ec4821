/* SPDX-License-Identifier: MIT */
/*
 * Equal runs counted, in parts: UTF-16 records in chunks that never move, an open-addressing table
 * of references (32 bits, in steps of 4 bytes: 16 GiB of records in a part) with the low 32 bits of
 * the hash above them. Places follow the order of those bits, so that a table grows by one walk
 * through it and never by the records. Invariants: at most 5/8 of the table is taken; a record is
 * [u64 count][u32 units][units, padded to 4 bytes]; a record that fills a chunk has it for itself.
 * A run belongs to the part that the high half of its hash names. After a failure only release is
 * meaningful.
 */
#include <inttypes.h>
#include <string.h>

#include "han_store.h"
#include "hanmix/base/parallel.h"

#define CHUNK_BITS    18u
#define CHUNK_BYTES   ((size_t)1 << CHUNK_BITS)
#define RECORD_HEADER 12u /* count and number of units */
#define TABLE_FIRST   512u
#define REF_BITS      32u
#define REF_MASK      (((uint64_t)1 << REF_BITS) - 1)
#define REF_STEP      4u
#define CHUNKS_MAX    (REF_MASK * REF_STEP >> CHUNK_BITS)
#define PART_SHIFT    58u                  /* of a walking cursor: part above, place below */
#define LISTS_BYTES   ((uint64_t)32 << 20) /* of runs and pairs on their way */
#define AHEAD_TABLE   16u                  /* runs between fetching a table line and using it */
#define AHEAD_RECORD  8u

int hm_han_budget_take(struct hm_han_budget *budget, uint64_t bytes, struct hm_error *err)
{
    uint64_t need = atomic_fetch_add(&budget->used_bytes, bytes) + bytes;

    if (!budget->limit_bytes || need <= budget->limit_bytes)
        return HM_OK;
    atomic_fetch_sub(&budget->used_bytes, bytes);
    /* tables grow to the double, and lists of runs and pairs beside them */
    return hm_fail(err, HM_ERR_NOFIT,
                   "counting Han runs does not fit in %" PRIu64 " bytes, %" PRIu64
                   " will do: raise the memory limit or sample the text",
                   budget->limit_bytes, 2 * need + LISTS_BYTES);
}

void hm_han_budget_give(struct hm_han_budget *budget, uint64_t bytes)
{
    atomic_fetch_sub(&budget->used_bytes, bytes);
}

static int part_take(struct hm_han_part *part, uint64_t bytes, struct hm_error *err)
{
    HM_TRY(hm_han_budget_take(part->budget, bytes, err));
    part->held_bytes += bytes;
    return HM_OK;
}

int hm_han_part_init(struct hm_han_part *part, struct hm_han_budget *budget, struct hm_error *err)
{
    part->budget = budget;
    part->table_size = TABLE_FIRST;
    part->table = hm_calloc(HM_MEM_VOCAB, part->table_size, sizeof(*part->table));
    if (!part->table)
        return hm_fail_nomem(err, "for counting Han runs");
    return part_take(part, part->table_size * sizeof(*part->table), err);
}

void hm_han_part_release(struct hm_han_part *part)
{
    for (size_t i = 0; i < part->n_chunks; i++)
        hm_free(part->chunk[i]);
    hm_free(part->chunk);
    hm_free(part->table);
    if (part->budget)
        hm_han_budget_give(part->budget, part->held_bytes);
    *part = (struct hm_han_part){ .budget = part->budget };
}

static uint8_t *record_at(const struct hm_han_part *part, uint64_t ref)
{
    return part->chunk[ref >> CHUNK_BITS] + (ref & (CHUNK_BYTES - 1));
}

/* Where the record of a table's entry lies. */
static uint64_t entry_ref(uint64_t entry)
{
    return ((entry & REF_MASK) - 1) * REF_STEP;
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

static const uint16_t *record_unit(const uint8_t *record)
{
    return (const uint16_t *)(const void *)(record + RECORD_HEADER);
}

static size_t record_bytes(size_t n_units)
{
    return RECORD_HEADER + ((n_units * sizeof(uint16_t) + 3) & ~(size_t)3);
}

static inline uint64_t units_word(const uint16_t *unit)
{
    uint64_t word;

    memcpy(&word, unit, sizeof(word));
    return word;
}

/* Mixed as hm_hash64 does, four units at once and no loop over bytes. */
static inline uint64_t hash_step(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9fb21c651e98df25u;
    return hash ^ hash >> 29;
}

uint64_t hm_run_hash(const uint16_t *unit, size_t n_units)
{
    uint64_t hash = n_units * 0x9e3779b97f4a7c15u, last = 0;
    size_t i = 0;

    for (; i + 4 <= n_units; i += 4)
        hash = hash_step(hash, units_word(unit + i));
    if (i > 0 && i < n_units)
        last = units_word(unit + n_units - 4);
    else
        for (; i < n_units; i++)
            last = last << 16 | unit[i];
    return hm_mix64(hash_step(hash, last));
}

static inline bool units_equal(const uint16_t *a, const uint16_t *b, size_t n_units)
{
    if (n_units < 4) {
        for (size_t i = 0; i < n_units; i++)
            if (a[i] != b[i])
                return false;
        return true;
    }
    for (size_t i = 0; i + 4 < n_units; i += 4)
        if (units_word(a + i) != units_word(b + i))
            return false;
    return units_word(a + n_units - 4) == units_word(b + n_units - 4);
}

/* The record at *cursor, which moves behind it; false at the end. */
static bool record_next(const struct hm_han_part *part, uint64_t *cursor, uint64_t *ret_ref)
{
    size_t chunk = *cursor >> CHUNK_BITS;
    size_t offset = *cursor & (CHUNK_BYTES - 1);

    for (; chunk < part->n_chunks; chunk++, offset = 0) {
        const uint8_t *record = part->chunk[chunk] + offset;
        /* A full chunk ends where a header no longer fits or holds no units. */
        bool there = chunk + 1 == part->n_chunks
                         ? offset < part->chunk_used
                         : offset + RECORD_HEADER <= CHUNK_BYTES && record_units(record) > 0;
        if (!there)
            continue;
        size_t after = offset + record_bytes(record_units(record));
        *ret_ref = (uint64_t)chunk << CHUNK_BITS | offset;
        *cursor =
            after < CHUNK_BYTES ? *ret_ref - offset + after : (uint64_t)(chunk + 1) << CHUNK_BITS;
        return true;
    }
    return false;
}

bool hm_han_part_next(const struct hm_han_part *part, uint64_t *cursor, struct hm_run *ret_run)
{
    uint64_t ref = 0;

    if (!record_next(part, cursor, &ref))
        return false;
    const uint8_t *record = record_at(part, ref);
    ret_run->unit = record_unit(record);
    ret_run->n_units = record_units(record);
    ret_run->count = record_count(record);
    return true;
}

static int chunk_add(struct hm_han_part *part, size_t bytes, struct hm_error *err)
{
    size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;

    if (part->n_chunks >= CHUNKS_MAX)
        return hm_fail(err, HM_ERR_NOFIT, "more Han runs than can be addressed");
    HM_TRY(part_take(part, size, err));
    if (part->n_chunks == part->cap_chunks) {
        size_t cap = part->cap_chunks ? 2 * part->cap_chunks : 64;
        uint8_t **chunk = hm_realloc(HM_MEM_VOCAB, part->chunk, cap * sizeof(*chunk));
        if (!chunk)
            return hm_fail_nomem(err, "for %zu chunks of Han runs", cap);
        part->chunk = chunk;
        part->cap_chunks = cap;
    }
    uint8_t *block = hm_alloc(HM_MEM_VOCAB, size);
    if (!block)
        return hm_fail_nomem(err, "for %zu bytes of Han runs", size);
    hm_alloc_populate(block, size);
    part->chunk[part->n_chunks++] = block;
    part->chunk_used = 0;
    part->chunk_size = size;
    return HM_OK;
}

/* Append a record; *ret_ref is where it lies. */
static int record_new(struct hm_han_part *part, const uint16_t *unit, uint32_t n_units,
                      uint64_t count, uint64_t *ret_ref, struct hm_error *err)
{
    size_t bytes = record_bytes(n_units);

    if (part->n_chunks == 0 || part->chunk_used + bytes > part->chunk_size) {
        if (part->n_chunks > 0 && part->chunk_used + RECORD_HEADER <= part->chunk_size)
            memset(part->chunk[part->n_chunks - 1] + part->chunk_used, 0, RECORD_HEADER);
        HM_TRY(chunk_add(part, bytes, err));
    }
    *ret_ref = (uint64_t)(part->n_chunks - 1) << CHUNK_BITS | part->chunk_used;
    uint8_t *record = record_at(part, *ret_ref);
    memcpy(record, &count, sizeof(count));
    memcpy(record + 8, &n_units, sizeof(n_units));
    memcpy(record + RECORD_HEADER, unit, n_units * sizeof(*unit));
    part->chunk_used += bytes;
    return HM_OK;
}

/* Where a search begins: the low half of the hash scaled to the table. */
static inline size_t table_home(size_t size, uint64_t tag)
{
    return (size_t)(tag * size >> REF_BITS);
}

static inline uint64_t hash_tag(uint64_t hash)
{
    return hash & REF_MASK;
}

static void table_put(uint64_t *table, size_t size, uint64_t entry)
{
    size_t at = table_home(size, entry >> REF_BITS);

    while (table[at])
        at = (at + 1) & (size - 1);
    table[at] = entry;
}

static int table_grow(struct hm_han_part *part, struct hm_error *err)
{
    size_t size = 2 * part->table_size;

    HM_TRY(part_take(part, size * sizeof(uint64_t), err));
    uint64_t *table = hm_calloc(HM_MEM_VOCAB, size, sizeof(*table));
    if (!table)
        return hm_fail_nomem(err, "for a table of %zu Han runs", size);
    hm_alloc_huge(table, size * sizeof(*table));
    hm_alloc_populate(table, size * sizeof(*table));
    for (size_t i = 0; i < part->table_size; i++)
        if (part->table[i])
            table_put(table, size, part->table[i]);
    hm_free(part->table);
    hm_han_budget_give(part->budget, part->table_size * sizeof(*table));
    part->held_bytes -= part->table_size * sizeof(*table);
    part->table = table;
    part->table_size = size;
    return HM_OK;
}

static int run_add(struct hm_han_part *part, const uint16_t *unit, const struct hm_han_item *item,
                   struct hm_error *err)
{
    uint64_t ref = 0, tag = hash_tag(item->hash);
    size_t mask = part->table_size - 1;

    for (size_t at = table_home(part->table_size, tag); part->table[at]; at = (at + 1) & mask) {
        if (part->table[at] >> REF_BITS != tag)
            continue;
        uint8_t *record = record_at(part, entry_ref(part->table[at]));
        if (record_units(record) == item->n_units &&
            units_equal(record_unit(record), unit, item->n_units)) {
            uint64_t sum = record_count(record) + item->count;
            memcpy(record, &sum, sizeof(sum));
            return HM_OK;
        }
    }
    if ((part->distinct_runs + 1) * 8 > part->table_size * 5)
        HM_TRY(table_grow(part, err));
    HM_TRY(record_new(part, unit, item->n_units, item->count, &ref, err));
    table_put(part->table, part->table_size, tag << REF_BITS | (ref / REF_STEP + 1));
    part->distinct_runs++;
    return HM_OK;
}

static const uint64_t *item_entry(const struct hm_han_part *part, const struct hm_han_item *item)
{
    return &part->table[table_home(part->table_size, hash_tag(item->hash))];
}

int hm_han_part_add(struct hm_han_part *part, size_t number, const struct hm_han_list *list,
                    struct hm_error *err)
{
    size_t first = list->start[number], after = list->start[number + 1];

    for (size_t i = first; i < after && i < first + AHEAD_TABLE; i++)
        __builtin_prefetch(item_entry(part, &list->sorted[i]));
    for (size_t i = first; i < after; i++) {
        if (i + AHEAD_TABLE < after)
            __builtin_prefetch(item_entry(part, &list->sorted[i + AHEAD_TABLE]));
        if (i + AHEAD_RECORD < after) {
            uint64_t entry = *item_entry(part, &list->sorted[i + AHEAD_RECORD]);
            if (entry)
                __builtin_prefetch(record_at(part, entry_ref(entry)));
        }
        HM_TRY(run_add(part, list->unit + list->sorted[i].first, &list->sorted[i], err));
    }
    return HM_OK;
}

uint64_t hm_han_part_growth(const struct hm_han_part *part, uint64_t runs, uint64_t units)
{
    uint64_t table = part->table_size;
    uint64_t records = units * sizeof(uint16_t) + runs * (RECORD_HEADER + 3);

    while ((part->distinct_runs + runs) * 8 > table * 5)
        table *= 2;
    if (part->n_chunks > 0 && records <= part->chunk_size - part->chunk_used)
        records = 0;
    return (records > 0 ? records + CHUNK_BYTES : 0) +
           (table > part->table_size ? table * sizeof(uint64_t) : 0);
}

/* --- all parts -------------------------------------------------------------------------------- */

int hm_han_sums_new(struct hm_han_sums **ret_sums, struct hm_error *err)
{
    struct hm_han_sums *sums = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*sums));
    int status = HM_OK;

    if (!sums)
        return hm_fail_nomem(err, "for counting Han runs");
    atomic_init(&sums->budget.used_bytes, sizeof(*sums));
    for (size_t p = 0; status == HM_OK && p < HM_HAN_PARTS; p++)
        status = hm_han_part_init(&sums->part[p], &sums->budget, err);
    if (status == HM_OK)
        *ret_sums = sums;
    else
        hm_han_sums_free(sums);
    return status;
}

void hm_han_sums_free(struct hm_han_sums *sums)
{
    for (size_t p = 0; sums && p < HM_HAN_PARTS; p++)
        hm_han_part_release(&sums->part[p]);
    hm_free(sums);
}

bool hm_han_sums_next(const struct hm_han_sums *sums, uint64_t *cursor, struct hm_run *ret_run)
{
    size_t number = *cursor >> PART_SHIFT;
    uint64_t within = *cursor & (((uint64_t)1 << PART_SHIFT) - 1);

    for (; number < HM_HAN_PARTS; number++, within = 0) {
        if (hm_han_part_next(&sums->part[number], &within, ret_run)) {
            *cursor = (uint64_t)number << PART_SHIFT | within;
            return true;
        }
    }
    return false;
}

uint64_t hm_han_sums_bytes(const struct hm_han_sums *sums)
{
    return atomic_load(&sums->budget.used_bytes);
}

uint64_t hm_han_sums_growth(const struct hm_han_sums *sums, const struct hm_han_list *list,
                            size_t n_lists)
{
    uint64_t bytes = 0;

    for (size_t p = 0; p < HM_HAN_PARTS; p++) {
        uint64_t runs = 0, units = 0;
        for (size_t i = 0; i < n_lists; i++)
            for (size_t k = list[i].start[p]; k < list[i].start[p + 1]; k++) {
                runs++;
                units += list[i].sorted[k].n_units;
            }
        bytes += hm_han_part_growth(&sums->part[p], runs, units);
    }
    return bytes;
}

struct pour {
    struct hm_han_sums *sums;
    const struct hm_han_list *list;
    size_t n_lists;
    struct hm_error err[HM_HAN_PARTS];
};

static void pour_unit(void *context, size_t number, int worker)
{
    struct pour *pour = context;
    int status = HM_OK;

    (void)worker;
    for (size_t i = 0; status == HM_OK && i < pour->n_lists; i++)
        status =
            hm_han_part_add(&pour->sums->part[number], number, &pour->list[i], &pour->err[number]);
}

static int pour_run(struct pour *pour, struct hm_error *err)
{
    hm_parallel_for(HM_HAN_PARTS, pour_unit, pour);
    for (size_t p = 0; p < HM_HAN_PARTS; p++)
        if (pour->err[p].code < 0)
            return hm_error_pass(err, &pour->err[p]);
    return HM_OK;
}

int hm_han_sums_pour(struct hm_han_sums *sums, const struct hm_han_list *list, size_t n_lists,
                     struct hm_error *err)
{
    struct pour *pour = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*pour));

    if (!pour)
        return hm_fail_nomem(err, "for counting Han runs");
    *pour = (struct pour){ .sums = sums, .list = list, .n_lists = n_lists };
    int status = pour_run(pour, err);
    hm_free(pour);
    return status;
}
