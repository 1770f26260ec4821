/* SPDX-License-Identifier: MIT */
/*
 * Counting symbols for many vocabularies in one pass over text. A segment is merged once with all
 * pieces; each merge enters the row of the first cut that still does it. Segments that hold a
 * character not all vocabularies have are merged once for each set of its characters.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/parallel.h"
#include "line_batch.h"
#include "segment_merge.h"
#include "sweep_internal.h"

#define REPLACEMENT 0xfffdu
#define FIRST_ROOM  256u /* symbols */

struct event { /* a merge */
    int32_t left, right, result;
};

struct worker {
    const struct hm_sweep_union *all;
    struct hm_sweep_lane *lane;
    size_t n_lanes;
    int32_t *symbol, *work; /* a segment, and what is left of it while it is merged */
    struct event *event;
    size_t n, cap, n_events;
    uint32_t n_singles; /* of the vocabulary that merges */
    uint64_t *same; /* [symbols] what all vocabularies share: characters, merges below all cuts */
    uint64_t lines, chars;
    int status;
    struct hm_error error;
};

struct reading {
    struct hm_line_batch batch;
    struct worker *worker;
    size_t n_workers;
};

/* --- lanes ------------------------------------------------------------------------------------ */

static int lane_init(struct hm_sweep_lane *lane, uint32_t n_singles, size_t cap_cuts,
                     struct hm_error *err)
{
    lane->n_singles = n_singles;
    lane->cut = hm_alloc_array(HM_MEM_VOCAB, cap_cuts, sizeof(*lane->cut));
    return lane->cut ? HM_OK : hm_fail_nomem(err, "for the counts of a sweep");
}

static void cut_insert(struct hm_sweep_lane *lane, uint32_t cut)
{
    size_t at = lane->n_cuts;

    while (at > 0 && lane->cut[at - 1] > cut)
        at--;
    if (at > 0 && lane->cut[at - 1] == cut)
        return;
    memmove(&lane->cut[at + 1], &lane->cut[at], (lane->n_cuts - at) * sizeof(*lane->cut));
    lane->cut[at] = cut;
    lane->n_cuts++;
}

static int by_singles(const void *left, const void *right)
{
    const struct hm_sweep_cut *a = left, *b = right;

    return (a->n_singles > b->n_singles) - (a->n_singles < b->n_singles);
}

int hm_sweep_counts_new(const struct hm_sweep_union *all, const struct hm_sweep_cut *cut, size_t n,
                        struct hm_sweep_counts *ret_counts, struct hm_error *err)
{
    struct hm_sweep_cut *order = hm_alloc_array(HM_MEM_VOCAB, n, sizeof(*order));
    int r = HM_OK;

    ret_counts->lane = hm_calloc(HM_MEM_VOCAB, n + 1, sizeof(*ret_counts->lane));
    if (!order || !ret_counts->lane) {
        r = hm_fail_nomem(err, "for the counts of a sweep");
        goto out;
    }
    memcpy(order, cut, n * sizeof(*order));
    qsort(order, n, sizeof(*order), by_singles);
    r = lane_init(&ret_counts->lane[ret_counts->n_lanes++], order[0].n_singles, n, err);
    for (size_t i = 0; r == HM_OK && i < n; i++) {
        if (i == 0 || order[i].n_singles != order[i - 1].n_singles)
            r = lane_init(&ret_counts->lane[ret_counts->n_lanes++], order[i].n_singles, n, err);
        if (r < 0)
            break;
        cut_insert(&ret_counts->lane[0], order[i].cut);
        cut_insert(&ret_counts->lane[ret_counts->n_lanes - 1], order[i].cut);
    }
    for (size_t i = 0; r == HM_OK && i < ret_counts->n_lanes; i++) {
        struct hm_sweep_lane *lane = &ret_counts->lane[i];
        lane->row = hm_calloc(HM_MEM_VOCAB, (1 + lane->n_cuts) * all->symbols, sizeof(*lane->row));
        if (!lane->row)
            r = hm_fail_nomem(err, "for %zu counts of %zu pieces", lane->n_cuts, all->symbols);
    }
out:
    hm_free(order);
    return r;
}

void hm_sweep_counts_release(struct hm_sweep_counts *counts)
{
    for (size_t i = 0; counts->lane && i < counts->n_lanes; i++) {
        hm_free(counts->lane[i].cut);
        hm_free((void *)counts->lane[i].row);
    }
    hm_free(counts->lane);
    *counts = (struct hm_sweep_counts){ 0 };
}

/* --- one segment ------------------------------------------------------------------------------ */

static uint32_t rule_rank(const void *context, int32_t left, int32_t right, int32_t *ret_result)
{
    const struct worker *worker = context;
    uint32_t rank = hm_piece_table_merge(&worker->all->table, left, right, ret_result);

    if (rank != HM_NO_RANK && worker->all->single[*ret_result] > worker->n_singles)
        return HM_NO_RANK;
    return rank;
}

static void rule_merged(void *context, int32_t left, int32_t right, int32_t result)
{
    struct worker *worker = context;

    worker->event[worker->n_events++] = (struct event){ left, right, result };
}

static int segment_merge(struct worker *worker, uint32_t n_singles)
{
    const struct hm_segment_rule rule = { rule_rank, rule_merged, NULL };
    size_t n = worker->n;

    memcpy(worker->work, worker->symbol, n * sizeof(*worker->work));
    worker->n_events = 0;
    worker->n_singles = n_singles;
    return hm_segment_merge(rule, worker, worker->work, &n, &worker->error);
}

static void count_add(_Atomic uint64_t *count, uint64_t value)
{
    atomic_fetch_add_explicit(count, value, memory_order_relaxed);
}

/* Characters and merges of the segment into a lane; `same`, or NULL: where those go that all cuts
   have. */
static void lane_count(const struct worker *worker, struct hm_sweep_lane *lane, uint64_t *same)
{
    const size_t symbols = worker->all->symbols;
    uint32_t latest = 0;
    size_t place = 0; /* the first cut that does the merge */

    for (size_t i = 0; i < worker->n; i++) {
        if (same)
            same[worker->symbol[i]]++;
        else
            count_add(&lane->row[worker->symbol[i]], 1);
    }
    for (size_t i = 0; i < worker->n_events; i++) {
        const struct event *event = &worker->event[i];
        uint32_t cut = worker->all->merge[event->result];
        for (latest = cut > latest ? cut : latest; place < lane->n_cuts;)
            if (lane->cut[place] >= latest)
                break;
            else
                place++;
        if (place == lane->n_cuts)
            return;
        if (same && place == 0) {
            same[event->left]--, same[event->right]--, same[event->result]++;
            continue;
        }
        _Atomic uint64_t *row = lane->row + (1 + place) * symbols;
        count_add(&row[event->left], UINT64_MAX);
        count_add(&row[event->right], UINT64_MAX);
        count_add(&row[event->result], 1);
    }
}

static int segment_count(struct worker *worker)
{
    const uint32_t *single = worker->all->single;
    uint32_t most = 0, before = 0;

    if (worker->n == 0)
        return HM_OK;
    for (size_t i = 0; i < worker->n; i++)
        most = single[worker->symbol[i]] > most ? single[worker->symbol[i]] : most;
    if (most <= worker->lane[0].n_singles) {
        HM_TRY(segment_merge(worker, worker->lane[0].n_singles));
        lane_count(worker, &worker->lane[0], worker->same);
        worker->n = 0;
        return HM_OK;
    }
    for (size_t j = 1; j < worker->n_lanes; before = worker->lane[j++].n_singles) {
        bool other = j == 1;
        for (size_t i = 0; i < worker->n && !other; i++)
            other = single[worker->symbol[i]] > before &&
                    single[worker->symbol[i]] <= worker->lane[j].n_singles;
        if (other)
            HM_TRY(segment_merge(worker, worker->lane[j].n_singles));
        lane_count(worker, &worker->lane[j], NULL);
    }
    worker->n = 0;
    return HM_OK;
}

/* --- lines ------------------------------------------------------------------------------------ */

static int rooms_grow(struct worker *worker)
{
    size_t cap = worker->cap ? 2 * worker->cap : FIRST_ROOM;
    int32_t *symbol = hm_realloc(HM_MEM_SCRATCH, worker->symbol, cap * sizeof(*symbol));
    worker->symbol = symbol ? symbol : worker->symbol;
    int32_t *work = hm_realloc(HM_MEM_SCRATCH, worker->work, cap * sizeof(*work));
    worker->work = work ? work : worker->work;
    struct event *event = hm_realloc(HM_MEM_SCRATCH, worker->event, cap * sizeof(*event));
    worker->event = event ? event : worker->event;

    if (!symbol || !work || !event)
        return hm_fail_nomem(&worker->error, "for %zu characters in a row", cap);
    worker->cap = cap;
    return HM_OK;
}

/* A character that is in no piece. */
static void bytes_count(struct worker *worker, uint32_t code)
{
    char bytes[4];
    unsigned len = hm_utf8_encode(code, bytes);

    for (unsigned i = 0; i < len; i++)
        worker->same[worker->all->byte_id[(unsigned char)bytes[i]]]++;
}

static int line_count(struct worker *worker, struct hm_str line)
{
    const struct hm_sweep_union *all = worker->all;
    bool prefix = all->model.add_dummy_prefix;
    uint32_t before = HM_SPM_SPACE_CODE;

    worker->lines++;
    for (size_t at = 0; at < line.len || prefix;) {
        uint32_t code = HM_SPM_SPACE_CODE;
        if (!prefix) {
            unsigned len = hm_utf8_decode(line.ptr + at, line.len - at, &code);
            at += len ? len : 1;
            code = len == 0 ? REPLACEMENT : code == ' ' ? HM_SPM_SPACE_CODE : code;
            worker->chars++;
        }
        prefix = false;
        int32_t symbol = hm_piece_table_symbol(&all->table, code);
        if (worker->n > 0 && (symbol < 0 || !hm_span_joins(&all->cuts, before, code)))
            HM_TRY(segment_count(worker));
        if (symbol < 0) {
            bytes_count(worker, code);
        } else {
            if (worker->n == worker->cap)
                HM_TRY(rooms_grow(worker));
            worker->symbol[worker->n++] = symbol;
        }
        before = code;
    }
    return segment_count(worker);
}

static void count_unit(void *context, size_t index, int number)
{
    struct reading *reading = context;
    struct worker *worker = &reading->worker[number];
    const struct hm_line_unit *unit = &reading->batch.now.unit[index];

    for (size_t at = unit->begin; at < unit->end && worker->status == HM_OK;) {
        struct hm_str line = hm_line_next(&reading->batch, unit, &at);
        if (line.len > 0)
            worker->status = line_count(worker, line);
    }
}

static int batches_count(struct reading *reading, struct hm_text_source *source,
                         const struct hm_ctl *ctl, struct hm_error *err)
{
    bool more = true;

    while (more) {
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "the sweep stopped after %" PRIu64 " documents",
                           reading->batch.documents);
        HM_TRY(hm_line_batch_gather(source, &reading->batch, &more, err));
        hm_line_batch_for(source, &reading->batch, count_unit, reading);
        for (size_t i = 0; i < reading->n_workers; i++)
            if (reading->worker[i].status < 0) /* of memory: whichever came first */
                return hm_error_pass(err, &reading->worker[i].error);
        hm_text_progress(ctl, "sweep", source);
    }
    return HM_OK;
}

static int workers_make(struct reading *reading, struct hm_sweep_counts *counts,
                        const struct hm_sweep_union *all, struct hm_error *err)
{
    reading->n_workers = (size_t)hm_threads();
    reading->worker = hm_calloc(HM_MEM_VOCAB, reading->n_workers, sizeof(*reading->worker));
    if (!reading->worker)
        return hm_fail_nomem(err, "for a sweep");
    for (size_t i = 0; i < reading->n_workers; i++) {
        struct worker *worker = &reading->worker[i];
        *worker = (struct worker){ .all = all, .lane = counts->lane, .n_lanes = counts->n_lanes };
        worker->same = hm_calloc(HM_MEM_VOCAB, all->symbols, sizeof(*worker->same));
        if (!worker->same)
            return hm_fail_nomem(err, "for a sweep");
    }
    return HM_OK;
}

/* What the workers hold goes into the first row of lane 0. */
static void workers_join(struct reading *reading, struct hm_sweep_counts *counts, size_t symbols)
{
    counts->text.documents += reading->batch.documents;
    for (size_t i = 0; i < reading->n_workers; i++) {
        struct worker *worker = &reading->worker[i];
        counts->text.lines += worker->lines;
        counts->text.chars += worker->chars;
        for (size_t s = 0; s < symbols; s++)
            count_add(&counts->lane[0].row[s], worker->same[s]);
    }
}

int hm_sweep_counts_read(struct hm_sweep_counts *counts, const struct hm_sweep_union *all,
                         struct hm_text_source *source, const struct hm_ctl *ctl,
                         struct hm_error *err)
{
    struct reading reading = { 0 };
    int r = workers_make(&reading, counts, all, err);

    if (r == HM_OK)
        r = batches_count(&reading, source, ctl, err);
    if (r == HM_OK)
        workers_join(&reading, counts, all->symbols);
    for (size_t i = 0; reading.worker && i < reading.n_workers; i++) {
        hm_free(reading.worker[i].symbol);
        hm_free(reading.worker[i].work);
        hm_free(reading.worker[i].event);
        hm_free(reading.worker[i].same);
    }
    hm_free(reading.worker);
    hm_line_batch_release(&reading.batch);
    return r;
}
