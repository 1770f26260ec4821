/* SPDX-License-Identifier: MIT */
/*
 * Some real steps of the training loop on the first layers of a model, timed: the same kernels,
 * buffers, logs and states as a run, in a scratch folder.
 */
#ifndef HANMIX_RECIPES_TRAIN_PROBE_H
#define HANMIX_RECIPES_TRAIN_PROBE_H

#include "train_config.h"

#define TRAIN_PROBE_STEPS 127u

struct train_probe {
    /* what to time */
    const struct train_forecast *forecast; /* borrowed */
    const char *model_dir;                 /* borrowed; may hold fewer layers than the forecast */
    uint32_t layers, rows, seq_len;        /* of the model, of a micro-batch */
    uint32_t eval_seq_len;                 /* 0: no evaluation */
    uint64_t steps; /* at most, TRAIN_PROBE_STEPS; then how many were timed */
    uint64_t least; /* as many even when `ends` is over */
    double ends;    /* on the clock: no further step begins */
    bool own_data;  /* the stage's samples, else drawn ones */
    bool save;      /* the last step's state */
    /* what was found; seconds */
    double open;       /* model, adapter, buffers */
    double micro;      /* a micro-batch of one step */
    double head;       /* the part of it that does not grow with the layers */
    double optimizer;  /* the update of one step, with the norm before it */
    double evaluation; /* a micro-batch of an evaluation */
    double saving;     /* one state */
    uint64_t parameters;
};

/* Files go to `dir`, which is emptied again. */
int hm_train_probe(const struct hm_stage_run *run, struct train_probe *probe, const char *dir,
                   struct hm_error *err);

#endif
