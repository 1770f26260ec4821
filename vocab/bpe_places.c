/* SPDX-License-Identifier: MIT */
/*
 * Where pairs are: their places found by looking through all slots, into the lists that bpe_lists.c
 * makes. When the best pair has no list, all lists are dropped and made again for the pairs that
 * come first then; counts are exact for all.
 *
 * Before that, slots are made smaller: every symbol shrinks to one slot, and segments are cut where
 * a pair is dead. That is exact: whatever grows from the two sides of such a place is at most as
 * frequent as the dead pair, and at least as long. Only where a pair was refused because its text
 * exists may something live grow. Slots are handled in stripes, one to a thread.
 */
#include <inttypes.h>
#include <string.h>

#include "bpe_internal.h"
#include "hanmix/base/parallel.h"

#define MOST_STRIPES  16u
#define STRIPE_SLOTS  65536u /* at least */
#define STOP_EVERY    1048576u
#define AHEAD         16u /* slots between fetching a pair's line and using it */
#define STRIPES_SHARE 4u  /* of what memory is left, for counting by stripes */
#define DEAD_SHARE    8u  /* pairs are compacted when one in so many is dead */

union place {
    uint64_t n;     /* places of a pair in a stripe */
    uint32_t *next; /* where the next goes; NULL: not listed */
};

struct stripe {
    uint32_t first, after; /* slots; first begins a segment */
    uint32_t kept;         /* slots left of them */
    size_t first_class, after_class;
    union place *place; /* [n_pairs] */
};

struct finding {
    struct bpe_trainer *trainer;
    struct stripe stripe[MOST_STRIPES];
    size_t n_stripes;
    uint32_t *order; /* [n_pairs] scratch */
    _Atomic bool stopped;
};

static bool is_alive(const struct bpe_trainer *trainer, const struct bpe_pair *pair)
{
    return !pair->dead && pair->count >= trainer->floor;
}

/* --- smaller slots, and how many places each pair has ----------------------------------------- */

/* Whether pieces may grow over the place between two symbols; counts it for a pair alive. */
static inline bool place_count(const struct bpe_trainer *trainer, struct stripe *stripe,
                               uint32_t left, uint32_t right)
{
    uint32_t number = bpe_pair_find(trainer, left, right);
    const struct bpe_pair *pair = &trainer->pair[number];

    if (!is_alive(trainer, pair))
        return pair->refused;
    stripe->place[number].n++;
    return true;
}

/* Write the stretches of the segment at `read` from `write` on; *write <= read. Returns the slot
 * behind the segment's separator. */
BPE_INLINE uint32_t segment_shrink(const struct bpe_trainer *trainer, struct stripe *stripe,
                                   uint32_t read, uint32_t *write, bool wide)
{
    void *slot = trainer->slot;
    uint32_t start = *write; /* of the stretch */
    uint32_t end = start;
    uint32_t left = 0;
    uint32_t id;

    for (; (id = bpe_slot_get(slot, read, wide)) != 0; read += trainer->width[id]) {
        uint32_t right = bpe_slot_symbol(trainer, id);
        if (read + AHEAD + 1 < trainer->n_slots)
            bpe_pair_prefetch(trainer,
                              bpe_slot_symbol(trainer, bpe_slot_get(slot, read + AHEAD, wide)),
                              bpe_slot_symbol(trainer, bpe_slot_get(slot, read + AHEAD + 1, wide)));
        if (left && !place_count(trainer, stripe, left, right)) {
            if (end - start == 1) {
                end = start;
            } else if (end < read) { /* else there is no room for a separator: it stays whole */
                bpe_slot_set(slot, end++, 0, wide);
                start = end;
            }
        }
        bpe_slot_set(slot, end++, id, wide);
        left = right;
    }
    if (end - start == 1)
        end = start;
    else if (end > start)
        bpe_slot_set(slot, end++, 0, wide);
    *write = end;
    return read + 1;
}

BPE_INLINE void stripe_shrink(struct finding *finding, struct stripe *stripe, bool wide)
{
    struct bpe_trainer *trainer = finding->trainer;
    size_t class = hm_bpe_class_find(trainer, stripe->first);
    uint32_t read = stripe->first;
    uint32_t write = read;
    uint32_t look = read;

    stripe->first_class = class;
    while (read < stripe->after) {
        if (read >= look) {
            if (hm_ctl_stopped(trainer->ctl)) {
                atomic_store(&finding->stopped, true);
                break;
            }
            look = stripe->after - read > STOP_EVERY ? read + STOP_EVERY : stripe->after;
        }
        read = segment_shrink(trainer, stripe, read, &write, wide);
        while (class < trainer->n_weight_classes && trainer->weight_class[class].end == read)
            trainer->weight_class[class ++].end = write;
    }
    stripe->after_class = class;
    stripe->kept = write - stripe->first;
}

static void shrink_unit(void *context, size_t index, int worker)
{
    struct finding *finding = context;

    (void)worker;
    if (finding->trainer->wide)
        stripe_shrink(finding, &finding->stripe[index], true);
    else
        stripe_shrink(finding, &finding->stripe[index], false);
}

/* Equal stripes that begin where segments do; as many as there are threads and memory for. */
static void stripes_cut(struct finding *finding)
{
    const struct bpe_trainer *trainer = finding->trainer;
    uint32_t n_slots = trainer->n_slots;
    size_t n =
        hm_least(hm_least((size_t)hm_threads(), MOST_STRIPES), hm_units(n_slots, STRIPE_SLOTS));
    uint64_t room = hm_bpe_room(trainer) / STRIPES_SHARE;
    uint32_t first = 1;

    n = hm_least(n, hm_units(room, trainer->n_pairs * sizeof(union place)));
    finding->n_stripes = n;
    for (size_t i = 0; i < n; i++) {
        uint64_t after = (uint64_t)n_slots * (i + 1) / n;
        if (after < first)
            after = first;
        while (after < n_slots && bpe_slot_get(trainer->slot, after - 1, trainer->wide) != 0)
            after++;
        finding->stripe[i].first = first;
        finding->stripe[i].after = first = (uint32_t)after;
    }
}

/* Move what is left of the stripes together. */
static int stripes_join(struct finding *finding, struct hm_error *err)
{
    struct bpe_trainer *trainer = finding->trainer;
    char *slot = trainer->slot;
    uint32_t end = 1;

    for (size_t i = 0; i < finding->n_stripes; i++) {
        struct stripe *stripe = &finding->stripe[i];
        uint32_t shift = stripe->first - end;
        if (shift > 0)
            memmove(slot + bpe_slot_bytes(trainer, end),
                    slot + bpe_slot_bytes(trainer, stripe->first),
                    bpe_slot_bytes(trainer, stripe->kept));
        for (size_t class = stripe->first_class; class < stripe->after_class; class ++)
            trainer->weight_class[class].end -= shift;
        stripe->first = end;
        end += stripe->kept;
        stripe->after = end;
    }
    memset(trainer->width, 1, trainer->cap_symbols);
    void *smaller = hm_bpe_resize(trainer, slot, bpe_slot_bytes(trainer, trainer->n_slots),
                                  bpe_slot_bytes(trainer, end), err);
    if (!smaller)
        return err->code;
    trainer->slot = smaller;
    trainer->n_slots = end;
    return HM_OK;
}

/* Places of every pair alive; a stripe's places begin behind those of the stripes before. Returns
 * the sum. */
static uint64_t places_sum(struct finding *finding)
{
    struct bpe_trainer *trainer = finding->trainer;
    uint64_t total = 0;

    for (size_t i = 1; i < trainer->n_pairs; i++) {
        uint64_t sum = 0;
        for (size_t s = 0; s < finding->n_stripes; s++) {
            uint64_t here = finding->stripe[s].place[i].n;
            finding->stripe[s].place[i].n = sum;
            sum += here;
        }
        trainer->pair[i].n_positions = (uint32_t)sum;
        total += sum;
    }
    return total;
}

/* --- the lists -------------------------------------------------------------------------------- */

/* Where the places of every pair listed go; afterwards slots are read once more. */
static void fill_begin(struct finding *finding)
{
    const struct bpe_trainer *trainer = finding->trainer;

    for (size_t s = 0; s < finding->n_stripes; s++)
        for (size_t i = 1; i < trainer->n_pairs; i++) {
            union place *place = &finding->stripe[s].place[i];
            place->next = trainer->pair[i].position ? trainer->pair[i].position + place->n : NULL;
        }
}

BPE_INLINE void stripe_fill(struct finding *finding, struct stripe *stripe, bool wide)
{
    const struct bpe_trainer *trainer = finding->trainer;
    const void *slot = trainer->slot;
    uint32_t left = 0;

    for (uint32_t at = stripe->first; at < stripe->after; at++) {
        uint32_t right = bpe_slot_symbol(trainer, bpe_slot_get(slot, at, wide));
        if (at % STOP_EVERY == 0 && hm_ctl_stopped(trainer->ctl)) {
            atomic_store(&finding->stopped, true);
            break;
        }
        if (at + AHEAD + 1 < trainer->n_slots)
            bpe_pair_prefetch(trainer,
                              bpe_slot_symbol(trainer, bpe_slot_get(slot, at + AHEAD, wide)),
                              bpe_slot_symbol(trainer, bpe_slot_get(slot, at + AHEAD + 1, wide)));
        if (left && right) {
            union place *place = &stripe->place[bpe_pair_find(trainer, left, right)];
            if (place->next)
                *place->next++ = at - 1;
        }
        left = right;
    }
}

static void fill_unit(void *context, size_t index, int worker)
{
    struct finding *finding = context;

    (void)worker;
    if (finding->trainer->wide)
        stripe_fill(finding, &finding->stripe[index], true);
    else
        stripe_fill(finding, &finding->stripe[index], false);
}

static int stop_check(const struct finding *finding, struct hm_error *err)
{
    if (atomic_load(&finding->stopped))
        return hm_fail(err, HM_ERR_STOPPED, "vocabulary training was stopped");
    return HM_OK;
}

static int find(struct finding *finding, uint32_t best, struct hm_error *err)
{
    struct bpe_trainer *trainer = finding->trainer;

    hm_parallel_for(finding->n_stripes, shrink_unit, finding);
    HM_TRY(stop_check(finding, err));
    HM_TRY(stripes_join(finding, err));
    uint64_t total = places_sum(finding);
    if (trainer->pair[best].n_positions == 0)
        return hm_fail(err, HM_ERR_FORMAT,
                       "the counts of pairs are not those of the Han runs: the files that these "
                       "were kept in were changed by another program");
    HM_TRY(hm_bpe_lists_open(trainer, best, finding->order, total, err));
    fill_begin(finding);
    hm_parallel_for(finding->n_stripes, fill_unit, finding);
    return stop_check(finding, err);
}

int hm_bpe_places_find(struct bpe_trainer *trainer, uint32_t *best, struct hm_error *err)
{
    struct finding finding = { .trainer = trainer };

    hm_bpe_places_drop(trainer);
    if (trainer->n_dead > trainer->n_pairs / DEAD_SHARE)
        hm_bpe_pairs_compact(trainer, best);
    size_t place_bytes = trainer->n_pairs * sizeof(union place);
    size_t order_bytes = trainer->n_pairs * sizeof(uint32_t);
    stripes_cut(&finding);
    finding.order = hm_bpe_resize(trainer, NULL, 0, order_bytes, err);
    int status = finding.order ? HM_OK : err->code;
    for (size_t s = 0; status == HM_OK && s < finding.n_stripes; s++) {
        finding.stripe[s].place = hm_bpe_zeroed(trainer, place_bytes, err);
        status = finding.stripe[s].place ? HM_OK : err->code;
    }
    if (status == HM_OK)
        status = find(&finding, *best, err);
    for (size_t s = 0; s < finding.n_stripes; s++)
        hm_bpe_drop(trainer, finding.stripe[s].place, place_bytes);
    hm_bpe_drop(trainer, finding.order, order_bytes);
    return status;
}

int hm_bpe_places_list(struct bpe_trainer *trainer, struct hm_error *err)
{
    size_t n_blocks = BPE_LIST_BLOCKS + trainer->wanted + 1;

    trainer->block = hm_bpe_zeroed(trainer, n_blocks * sizeof(*trainer->block), err);
    if (!trainer->block)
        return err->code;
    for (uint32_t i = 1; i < trainer->n_pairs; i++)
        hm_bpe_pair_queue(trainer, i);
    return HM_OK;
}
