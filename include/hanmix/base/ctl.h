/* SPDX-License-Identifier: MIT */
/*
 * How long work talks to its caller: a stop flag to poll and a progress report. The library never
 * prints. A NULL control means "never stops, nobody listens".
 * Thread class: polled and called from the thread that works; the flag may be set
 * by a signal handler or another thread.
 */
#ifndef HANMIX_BASE_CTL_H
#define HANMIX_BASE_CTL_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct hm_progress {
    const char *what; /* "read text", "train" */
    const char *unit; /* "bytes", "steps", "tensors" */
    uint64_t done;
    uint64_t total;     /* 0 when unknown */
    const char *detail; /* may be NULL: "loss 3.21  412 tok/s" */
};

struct hm_ctl {
    const volatile sig_atomic_t *stop; /* may be NULL */
    double deadline_seconds;           /* hm_clock_seconds value after which work stops; 0 = none */
    void (*progress)(void *context, const struct hm_progress *progress); /* may be NULL */
    void (*message)(void *context, const char *sentence); /* may be NULL: notes and warnings */
    void *context;
};

bool hm_ctl_stopped(const struct hm_ctl *ctl);
void hm_ctl_progress(const struct hm_ctl *ctl, const struct hm_progress *progress);
void hm_ctl_message(const struct hm_ctl *ctl, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
