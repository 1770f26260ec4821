/* SPDX-License-Identifier: MIT */
/*
 * The reading thread and what it decides; see weight_stream.h. Time is counted in places of the
 * passes: the order of all units is known for this pass and the next, so every unit has a next use.
 * The thread reads the unit of nearest use that is absent, and drops the one of farthest use to
 * make room, never one that is used sooner than what it would make room for (Belady 1966): where
 * the passes turn, layers stay. What units are is weight_units.c's. One mutex guards all but the
 * reading itself.
 */
#include "weight_stream.h"

#include <pthread.h>
#include <signal.h>

#include "hanmix/base/file.h"
#include "weight_units.h"

#define NEVER INT64_MAX

struct hm_stream {
    struct hm_weight_units units;
    uint64_t budget;

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

/* --- the reading thread ----------------------------------------------------------------------- */

/* Places from now until the unit is used next. */
static int64_t next_use(const struct hm_stream *s, size_t unit)
{
    int64_t place = hm_weight_units_place(&s->units, unit, s->pass),
            left = hm_weight_units_pass_places(&s->units, s->pass) - s->now;

    if (place >= s->now && s->units.unit[unit].done_in != s->serial)
        return place - s->now;
    place = hm_weight_units_place(&s->units, unit, s->next);
    if (place >= 0)
        return left + place;
    return left + hm_weight_units_pass_places(&s->units, s->next) +
           hm_weight_units_place(&s->units, unit, HM_PASS_FORWARD);
}

/* The absent unit of nearest use; n_units: none that should be read. */
static size_t absent_nearest(const struct hm_stream *s)
{
    size_t best = s->units.n_units;
    int64_t best_use = NEVER;

    if (s->wanted < s->units.n_units && s->units.unit[s->wanted].state == HM_UNIT_ABSENT)
        return s->wanted;
    for (size_t i = 0; i < s->units.n_units && s->serial > 0; i++) {
        bool expert =
            i + 1 < s->units.n_units && i % (size_t)hm_weight_units_layer_places(&s->units) != 0;
        if (s->units.unit[i].state != HM_UNIT_ABSENT || (expert && !s->ahead))
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
    size_t best = s->units.n_units;
    int64_t best_use = -1;

    for (size_t i = 0; i < s->units.n_units; i++) {
        int64_t use = next_use(s, i);
        if (s->units.unit[i].state == HM_UNIT_RESIDENT && !s->units.unit[i].held &&
            use > best_use) {
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

    while (s->units.resident + hm_weight_units_missing(&s->units, unit) > s->budget) {
        size_t victim = resident_farthest(s);
        if (victim == s->units.n_units)
            return wanted;
        if (!wanted && next_use(s, victim) <= next_use(s, unit))
            return false;
        hm_weight_units_drop(&s->units, victim);
    }
    return true;
}

static void *reader_run(void *context)
{
    struct hm_stream *s = context;

    pthread_mutex_lock(&s->mutex);
    while (!s->stop) {
        size_t unit = absent_nearest(s);
        if (unit == s->units.n_units || !room_make(s, unit)) {
            pthread_cond_wait(&s->work, &s->mutex);
            continue;
        }
        struct hm_error err = { 0 };
        uint64_t bytes = 0;
        s->units.unit[unit].state = HM_UNIT_READING;
        hm_weight_units_count(&s->units, unit);
        pthread_mutex_unlock(&s->mutex);
        double start = hm_clock_seconds();
        int status = hm_weight_units_read(&s->units, unit, &bytes, &err);
        double seconds = hm_clock_seconds() - start;
        pthread_mutex_lock(&s->mutex);
        s->units.unit[unit].state = HM_UNIT_RESIDENT;
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
    s->budget = budget_bytes;
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->work, NULL);
    pthread_cond_init(&s->ready, NULL);
    int status = hm_weight_units_open(ckpt, plan, budget_bytes, &s->units, err);
    s->wanted = s->units.n_units;
    if (status == HM_OK)
        status = thread_start(s, err);
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
    hm_weight_units_release(&s->units);
    hm_free(s);
}

/* --- the owner's side ------------------------------------------------------------------------- */

void hm_stream_pass(struct hm_stream *s, enum hm_pass pass, enum hm_pass next, bool ahead)
{
    if (pass == HM_PASS_FORWARD)
        hm_weight_units_embed_forget(&s->units);
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
    s->units.unit[unit].held = true;
    s->now = hm_weight_units_place(&s->units, unit, s->pass) /
             hm_weight_units_layer_places(&s->units) * hm_weight_units_layer_places(&s->units);
    if (s->units.unit[unit].state != HM_UNIT_RESIDENT) {
        double start = hm_clock_seconds();
        s->wanted = unit;
        pthread_cond_signal(&s->work);
        while (s->units.unit[unit].state != HM_UNIT_RESIDENT)
            pthread_cond_wait(&s->ready, &s->mutex);
        s->wanted = s->units.n_units;
        s->counts.wait_seconds += hm_clock_seconds() - start;
    }
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->mutex);
}

void hm_stream_done(struct hm_stream *s, size_t unit)
{
    pthread_mutex_lock(&s->mutex);
    s->units.unit[unit].held = false;
    s->units.unit[unit].done_in = s->serial;
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
