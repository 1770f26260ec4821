/* SPDX-License-Identifier: MIT */
/*
 * What a run needs to go on exactly: folders state-<step>/ with weights, moments and the cursor.
 * Layout in docs/FORMATS.md. A folder counts once its DONE is there, which is written last. Private
 * to qlora/.
 */
#ifndef HANMIX_QLORA_TRAIN_STATE_H
#define HANMIX_QLORA_TRAIN_STATE_H

#include "hanmix/base/ctl.h"
#include "hanmix/qlora/trainer.h"
#include "optimizer.h"

struct hm_train_cursor {
    uint64_t step;     /* updates done: the schedule's position too */
    uint64_t tokens;   /* seen so far */
    uint64_t position; /* samples taken so far */
    bool evaluated;    /* whether an evaluation due after `step` is done */
    double loss;       /* of `step` */
};

struct hm_train_identity { /* what a state must share with the run that goes on from it */
    const char *config_digest;
    const char *kernels;
    bool allow_kernel_change;
};

/* Write state-<step>/ and remove older ones beyond the newest `keep` (0: remove none). last: no
 * update follows; see hm_state_tensors_save. */
int hm_train_state_save(const char *state_dir, const struct hm_optimizer *optimizer,
                        const struct hm_train_cursor *cursor,
                        const struct hm_train_identity *identity, uint64_t keep, bool last,
                        struct hm_error *err);

/*
 * Load the newest complete state into parameters, moments and cursor; without one the cursor's step
 * is 0. A damaged state is passed over with a message; one of other settings, inputs or kernels is
 * refused by name.
 */
int hm_train_state_load(const char *state_dir, struct hm_optimizer *optimizer,
                        const struct hm_train_identity *identity, const struct hm_ctl *ctl,
                        struct hm_train_cursor *ret_cursor, struct hm_error *err);

#endif
