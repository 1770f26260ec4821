/* SPDX-License-Identifier: MIT */
/*
 * The reading thread and what it decides; see weight_stream.h. Time is counted in places of the
 * passes: the order of all units is known for this pass and the next, so every unit has a next use.
 * The thread reads the unit of nearest use that is absent, and drops the one of farthest use to
 * make room, never one that is used sooner than what it would make room for (Belady 1966): where
 * the passes turn, layers stay.
 *
 * Files are cut into blocks of equal size, counted by the resident units that touch them, because
 * units do not end at pages. One mutex guards all but the reading itself.
 */
#include "weight_stream.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/file.h"

#define BLOCK_MAX   ((uint64_t)2 << 20) /* a large page */
#define BLOCK_MIN   ((uint64_t)4096)
#define BLOCKS      128u /* the budget is at least so many blocks, or they are smallest */
#define AHEAD_BYTES ((uint64_t)8 << 20) /* what the kernel may have read beyond a range */
#define NEVER       INT64_MAX

enum unit_state { ABSENT, READING, RESIDENT };

struct range {
    uint32_t file;
    uint64_t first, end; /* blocks */
};

struct unit {
    struct range *range; /* in stream->range */
    size_t n_ranges;
    enum unit_state state;
    bool held;
    uint64_t done_in; /* the pass that last used it */
};

struct hm_stream {
    const struct hm_checkpoint *ckpt;
    uint32_t layers, experts;
    struct unit *unit;
    size_t n_units;
    struct range *range;
    struct hm_weight_place embed[HM_WEIGHT_PLACES]; /* read by rows */
    size_t n_embed;
    uint16_t **users; /* [files][blocks] resident units that touch a block */
    uint64_t block, budget, resident;

    enum hm_pass pass, next;
    uint64_t serial; /* of the pass, from 1 */
    bool ahead;
    int64_t now;   /* place in this pass */
    size_t wanted; /* the owner waits for it; n_units: for none */
    int status;    /* first error of the thread */
    struct hm_error err;
    struct hm_stream_counts counts;

    pthread_mutex_t mutex;
    pthread_cond_t work, ready;
    pthread_t thread;
    bool started, stop;
};

/* --- blocks ----------------------------------------------------------------------------------- */

static const struct hm_map *map_of(const struct hm_stream *s, const struct range *range)
{
    return &s->ckpt->file[range->file].map;
}

/* Bytes that would become resident with the unit. */
static uint64_t unit_missing(const struct hm_stream *s, const struct unit *unit)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < unit->n_ranges; i++)
        for (uint64_t b = unit->range[i].first; b < unit->range[i].end; b++)
            blocks += s->users[unit->range[i].file][b] == 0;
    return blocks * s->block;
}

static void unit_count(struct hm_stream *s, const struct unit *unit)
{
    s->resident += unit_missing(s, unit);
    for (size_t i = 0; i < unit->n_ranges; i++)
        for (uint64_t b = unit->range[i].first; b < unit->range[i].end; b++)
            s->users[unit->range[i].file][b]++;
}

/* Gives back blocks first .. end-1 and what was read beyond them and nobody uses. */
static void blocks_forget(const struct hm_stream *s, uint32_t file, uint64_t first, uint64_t end)
{
    const struct hm_map *map = &s->ckpt->file[file].map;
    const uint64_t ahead = AHEAD_BYTES / s->block, blocks = map->size_bytes / s->block + 1;
    uint64_t from = first, to = end;

    while (from > 0 && first - from < ahead && s->users[file][from - 1] == 0)
        from--;
    while (to < blocks && to - end < ahead && s->users[file][to] == 0)
        to++;
    hm_map_forget(map, from * s->block, (to - from) * s->block);
}

static void unit_drop(struct hm_stream *s, struct unit *unit)
{
    for (size_t i = 0; i < unit->n_ranges; i++) {
        const struct range *range = &unit->range[i];
        uint16_t *users = s->users[range->file];
        for (uint64_t b = range->first; b < range->end; b++)
            s->resident -= --users[b] == 0 ? s->block : 0;
        for (uint64_t b = range->first; b < range->end;) {
            uint64_t first = b;
            while (b < range->end && users[b] == 0)
                b++;
            if (b > first)
                blocks_forget(s, range->file, first, b);
            while (b < range->end && users[b] > 0)
                b++;
        }
    }
    unit->state = ABSENT;
}

/* --- when a unit is used next ----------------------------------------------------------------- */

static int64_t layer_places(const struct hm_stream *s)
{
    return (int64_t)s->experts + 1;
}

/* The head has a place after the layers of a forward pass. */
static int64_t pass_places(const struct hm_stream *s, enum hm_pass pass)
{
    return s->layers * layer_places(s) + (pass == HM_PASS_FORWARD);
}

static int64_t place_in(const struct hm_stream *s, size_t unit, enum hm_pass pass)
{
    const int64_t each = layer_places(s);
    const int64_t layer = (int64_t)unit / each, within = (int64_t)unit % each;

    if (pass == HM_PASS_FORWARD)
        return (int64_t)unit; /* they are numbered so */
    return layer == s->layers ? -1 : (s->layers - 1 - layer) * each + within;
}

static int64_t next_use(const struct hm_stream *s, size_t unit)
{
    int64_t place = place_in(s, unit, s->pass), left = pass_places(s, s->pass) - s->now;

    if (place >= s->now && s->unit[unit].done_in != s->serial)
        return place - s->now;
    place = place_in(s, unit, s->next);
    if (place >= 0)
        return left + place;
    return left + pass_places(s, s->next) + place_in(s, unit, HM_PASS_FORWARD);
}

/* --- the reading thread ----------------------------------------------------------------------- */

/* The absent unit of nearest use; n_units: none that should be read. */
static size_t absent_nearest(const struct hm_stream *s)
{
    size_t best = s->n_units;
    int64_t best_use = NEVER;

    if (s->wanted < s->n_units && s->unit[s->wanted].state == ABSENT)
        return s->wanted;
    for (size_t i = 0; i < s->n_units && s->serial > 0; i++) {
        bool expert = i + 1 < s->n_units && i % (size_t)layer_places(s) != 0;
        if (s->unit[i].state != ABSENT || (expert && !s->ahead))
            continue;
        int64_t use = next_use(s, i);
        if (use < best_use) {
            best = i;
            best_use = use;
        }
    }
    return best;
}

/* The resident unit of farthest use that may go; n_units: none. */
static size_t resident_farthest(const struct hm_stream *s)
{
    size_t best = s->n_units;
    int64_t best_use = -1;

    for (size_t i = 0; i < s->n_units; i++) {
        int64_t use = next_use(s, i);
        if (s->unit[i].state == RESIDENT && !s->unit[i].held && use > best_use) {
            best = i;
            best_use = use;
        }
    }
    return best;
}

/* Drops units until `unit` fits; false when what would have to go is used sooner. What the owner
 * waits for goes in whatever the budget says. */
static bool room_make(struct hm_stream *s, size_t unit)
{
    const bool wanted = unit == s->wanted;

    while (s->resident + unit_missing(s, &s->unit[unit]) > s->budget) {
        size_t victim = resident_farthest(s);
        if (victim == s->n_units)
            return wanted;
        if (!wanted && next_use(s, victim) <= next_use(s, unit))
            return false;
        unit_drop(s, &s->unit[victim]);
    }
    return true;
}

/* Without the mutex. What cannot be read becomes zeros, so that the owner gets on to where it asks
 * for the error. */
static int unit_read(const struct hm_stream *s, const struct unit *unit, uint64_t *bytes,
                     struct hm_error *err)
{
    int status = HM_OK;

    *bytes = 0;
    for (size_t i = 0; i < unit->n_ranges; i++) {
        const struct range *range = &unit->range[i];
        const struct hm_map *map = map_of(s, range);
        uint64_t at = range->first * s->block, size = (range->end - range->first) * s->block;
        struct hm_error own = { 0 };
        int r = hm_map_fetch(map, s->ckpt->file[range->file].path, at, size, &own);
        *bytes += size;
        if (r == HM_OK)
            continue;
        if (status == HM_OK) {
            status = r;
            *err = own;
        }
        hm_map_blank(map, at, size, NULL);
    }
    return status;
}

static void *reader_run(void *context)
{
    struct hm_stream *s = context;

    pthread_mutex_lock(&s->mutex);
    while (!s->stop) {
        size_t unit = absent_nearest(s);
        if (unit == s->n_units || !room_make(s, unit)) {
            pthread_cond_wait(&s->work, &s->mutex);
            continue;
        }
        struct hm_error err = { 0 };
        uint64_t bytes = 0;
        s->unit[unit].state = READING;
        unit_count(s, &s->unit[unit]);
        pthread_mutex_unlock(&s->mutex);
        double start = hm_clock_seconds();
        int status = unit_read(s, &s->unit[unit], &bytes, &err);
        double seconds = hm_clock_seconds() - start;
        pthread_mutex_lock(&s->mutex);
        s->unit[unit].state = RESIDENT;
        s->counts.read_bytes += bytes;
        s->counts.read_seconds += seconds;
        if (status < 0 && s->status == HM_OK) {
            s->status = status;
            s->err = err;
        }
        pthread_cond_broadcast(&s->ready);
    }
    pthread_mutex_unlock(&s->mutex);
    return NULL;
}

/* --- opening ---------------------------------------------------------------------------------- */

static int compare_range(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* The ranges of one unit, sorted, what touches joined; returns how many. */
static size_t ranges_make(const struct hm_stream *s, const struct hm_weight *const *weight,
                          size_t n_weights, struct range *range)
{
    struct hm_weight_place place[HM_WEIGHT_PLACES];
    size_t n = 0, kept = 0;

    for (size_t w = 0; w < n_weights; w++) {
        size_t places = hm_weight_places(weight[w], place);
        for (size_t i = 0; i < places; i++)
            if (place[i].bytes > 0)
                range[n++] =
                    (struct range){ place[i].file, place[i].offset / s->block,
                                    (place[i].offset + place[i].bytes - 1) / s->block + 1 };
    }
    qsort(range, n, sizeof *range, compare_range);
    for (size_t i = 0; i < n; i++) {
        struct range *last = kept > 0 ? &range[kept - 1] : NULL;
        if (last && last->file == range[i].file && range[i].first <= last->end)
            last->end = range[i].end > last->end ? range[i].end : last->end;
        else
            range[kept++] = range[i];
    }
    return kept;
}

static int tables_make(struct hm_stream *s, const struct hm_stream_plan *plan, struct hm_error *err)
{
    const size_t n_files = s->ckpt->n_files, n_weights = plan->first[s->n_units];
    size_t at = 0;

    s->unit = hm_calloc(HM_MEM_WEIGHT, s->n_units, sizeof *s->unit);
    s->range = hm_alloc_array(HM_MEM_WEIGHT, n_weights * HM_WEIGHT_PLACES, sizeof *s->range);
    s->users = hm_calloc(HM_MEM_WEIGHT, n_files, sizeof *s->users);
    if (!s->unit || !s->range || !s->users)
        return hm_fail_nomem(err, "for the order of reading %zu weights", n_weights);
    for (size_t f = 0; f < n_files; f++) {
        const struct hm_map *map = &s->ckpt->file[f].map;
        s->users[f] = hm_calloc(HM_MEM_WEIGHT, map->size_bytes / s->block + 2, sizeof(uint16_t));
        if (!s->users[f])
            return hm_fail_nomem(err, "for the order of reading %zu weights", n_weights);
    }
    for (size_t u = 0; u < s->n_units; u++) {
        s->unit[u].range = s->range + at;
        s->unit[u].n_ranges = ranges_make(s, plan->weight + plan->first[u],
                                          plan->first[u + 1] - plan->first[u], s->unit[u].range);
        at += s->unit[u].n_ranges;
    }
    return HM_OK;
}

/* The whole mapping empty, and advice: long stretches in large pages, the embedding by rows. */
static void maps_prepare(const struct hm_stream *s)
{
    enum hm_map_access access = s->block == BLOCK_MAX ? HM_MAP_LARGE : HM_MAP_SMALL;

    for (size_t f = 0; f < s->ckpt->n_files; f++) {
        const struct hm_map *map = &s->ckpt->file[f].map;
        hm_map_forget(map, 0, map->size_bytes);
        hm_map_advise(map, 0, map->size_bytes, access);
    }
    for (size_t i = 0; i < s->n_embed; i++)
        hm_map_advise(&s->ckpt->file[s->embed[i].file].map, s->embed[i].offset, s->embed[i].bytes,
                      HM_MAP_ROWS);
}

static void embed_forget(const struct hm_stream *s)
{
    for (size_t i = 0; i < s->n_embed; i++)
        hm_map_forget(&s->ckpt->file[s->embed[i].file].map, s->embed[i].offset, s->embed[i].bytes);
}

/* All of a layer, or the head: a round of experts may hold every expert. */
static uint64_t least_bytes(struct hm_stream *s)
{
    const size_t each = (size_t)layer_places(s);
    uint64_t least = 0;

    for (size_t u = 0; u < s->n_units; u += each) {
        uint64_t bytes = 0;
        for (size_t i = u; i < u + each && i < s->n_units; i++)
            bytes += unit_missing(s, &s->unit[i]);
        least = bytes > least ? bytes : least;
    }
    return least;
}

static int thread_start(struct hm_stream *s, struct hm_error *err)
{
    sigset_t all, before;

    sigfillset(&all); /* signals are the owner's */
    sigdelset(&all, SIGBUS);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    s->started = pthread_create(&s->thread, NULL, reader_run, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return s->started ? HM_OK
                      : hm_fail(err, HM_ERR_IO, "cannot start the thread that reads weights");
}

int hm_stream_open(const struct hm_checkpoint *ckpt, const struct hm_stream_plan *plan,
                   uint64_t budget_bytes, struct hm_stream **ret_stream, struct hm_error *err)
{
    struct hm_stream *s = hm_calloc(HM_MEM_WEIGHT, 1, sizeof *s);

    if (!s)
        return hm_fail_nomem(err, "for reading weights ahead");
    s->ckpt = ckpt;
    s->layers = plan->layers;
    s->experts = plan->experts;
    s->n_units = HM_STREAM_UNITS(plan->layers, plan->experts);
    s->wanted = s->n_units;
    s->budget = budget_bytes;
    s->block = BLOCK_MAX;
    while (s->block > BLOCK_MIN && s->block * BLOCKS > budget_bytes)
        s->block /= 2;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->ready, NULL);
    s->n_embed = plan->embed ? hm_weight_places(plan->embed, s->embed) : 0;
    int status = tables_make(s, plan, err);
    if (status == HM_OK && least_bytes(s) > budget_bytes)
        status =
            hm_fail(err, HM_ERR_NOFIT,
                    "'%s': %.1f MiB are left for weights, one layer and its experts take "
                    "%.1f MiB",
                    ckpt->dir, (double)budget_bytes / 1048576, (double)least_bytes(s) / 1048576);
    if (status == HM_OK) {
        maps_prepare(s);
        status = thread_start(s, err);
    }
    if (status == HM_OK)
        *ret_stream = s;
    else
        hm_stream_close(s);
    return status;
}

void hm_stream_close(struct hm_stream *s)
{
    if (!s)
        return;
    if (s->started) {
        pthread_mutex_lock(&s->mutex);
        s->stop = true;
        pthread_cond_signal(&s->work);
        pthread_mutex_unlock(&s->mutex);
        pthread_join(s->thread, NULL);
    }
    pthread_mutex_destroy(&s->mutex);
    pthread_cond_destroy(&s->work);
    pthread_cond_destroy(&s->ready);
    for (size_t f = 0; s->users && f < s->ckpt->n_files; f++)
        hm_free(s->users[f]);
    hm_free(s->users);
    hm_free(s->range);
    hm_free(s->unit);
    hm_free(s);
}

/* --- the owner's side ------------------------------------------------------------------------- */

void hm_stream_pass(struct hm_stream *s, enum hm_pass pass, enum hm_pass next, bool ahead)
{
    if (pass == HM_PASS_FORWARD)
        embed_forget(s);
    pthread_mutex_lock(&s->mutex);
    s->pass = pass;
    s->next = next;
    s->ahead = ahead;
    s->serial++;
    s->now = 0;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

void hm_stream_need(struct hm_stream *s, size_t unit)
{
    pthread_mutex_lock(&s->mutex);
    s->unit[unit].held = true;
    s->now = place_in(s, unit, s->pass) / layer_places(s) * layer_places(s);
    if (s->unit[unit].state != RESIDENT) {
        double start = hm_clock_seconds();
        s->wanted = unit;
        pthread_cond_signal(&s->work);
        while (s->unit[unit].state != RESIDENT)
            pthread_cond_wait(&s->ready, &s->mutex);
        s->wanted = s->n_units;
        s->counts.wait_seconds += hm_clock_seconds() - start;
    }
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

void hm_stream_done(struct hm_stream *s, size_t unit)
{
    pthread_mutex_lock(&s->mutex);
    s->unit[unit].held = false;
    s->unit[unit].done_in = s->serial;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

int hm_stream_check(struct hm_stream *s, struct hm_error *err)
{
    pthread_mutex_lock(&s->mutex);
    int status = s->status;
    if (status < 0 && err)
        *err = s->err;
    pthread_mutex_unlock(&s->mutex);
    return status;
}

void hm_stream_counts(struct hm_stream *s, struct hm_stream_counts *ret_counts)
{
    pthread_mutex_lock(&s->mutex);
    *ret_counts = s->counts;
    pthread_mutex_unlock(&s->mutex);
}
