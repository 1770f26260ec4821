/* SPDX-License-Identifier: MIT */
/*
 * What the verbs share: the table of verbs, arguments, progress on stderr, the stop flag. The
 * program prints and exits; the library does neither.
 */
#ifndef HANMIX_CLI_CLI_H
#define HANMIX_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>

#include "hanmix/base/ctl.h"
#include "hanmix/base/json.h"
#include "hanmix/base/status.h"
#include "hanmix/base/str.h"
#include "hanmix/kernels/kernels.h"

/* A table and its length, as two arguments. */
#define TABLE(rows) (rows), sizeof(rows) / sizeof((rows)[0])

struct hm_verb {
    const char *name;
    const char *summary; /* one sentence */
    const char *usage;   /* what follows "hanmix "; lines after the first are further forms */
    const char *details; /* lines of options and an example; may be "" */
    /* argv[0] is the verb. The status becomes the exit code; err is printed by main. */
    int (*run)(int argc, char **argv, struct hm_error *err);
};

extern const struct hm_verb hm_verbs[];
extern const size_t hm_verb_count;

int hm_cmd_run(int argc, char **argv, struct hm_error *err);
int hm_cmd_plan(int argc, char **argv, struct hm_error *err);
int hm_cmd_validate(int argc, char **argv, struct hm_error *err);
int hm_cmd_stage(int argc, char **argv, struct hm_error *err);
int hm_cmd_status(int argc, char **argv, struct hm_error *err);
int hm_cmd_verify(int argc, char **argv, struct hm_error *err);
int hm_cmd_recipes(int argc, char **argv, struct hm_error *err);
int hm_cmd_inspect(int argc, char **argv, struct hm_error *err);
int hm_cmd_encode(int argc, char **argv, struct hm_error *err);
int hm_cmd_decode(int argc, char **argv, struct hm_error *err);
int hm_cmd_generate(int argc, char **argv, struct hm_error *err);
int hm_cmd_doctor(int argc, char **argv, struct hm_error *err);
int hm_cmd_help(int argc, char **argv, struct hm_error *err);

/* --- args.c --- */

enum hm_arg_kind { HM_ARG_FLAG, HM_ARG_TEXT, HM_ARG_COUNT, HM_ARG_SIZE, HM_ARG_DOUBLE };
struct hm_arg {
    const char *name; /* without "--" */
    enum hm_arg_kind kind;
    void *target; /* bool, const char *, uint64_t, uint64_t, double; untouched when not given */
};
/*
 * Take the options of the table, in any place, as --name VALUE or --name=VALUE; "--" ends them.
 * What is left is moved to the front: argv[1..*ret_count]. An unknown option is HM_ERR_USAGE with
 * the nearest name.
 */
int hm_args_take(int argc, char **argv, const struct hm_arg *table, size_t n, size_t *ret_count,
                 struct hm_error *err);
/* HM_ERR_USAGE with the verb's usage line when there are fewer or more words than that. */
int hm_args_count(const char *verb, size_t count, size_t least, size_t most, struct hm_error *err);

/* --- terminal.c --- */

struct hm_terminal { /* where progress goes; zero for defaults */
    bool quiet;
    double shown_at, began_at; /* private from here */
    uint64_t began_done, done;
    const char *what;
    bool line_open;
};
/* A control whose progress and messages go to stderr and whose stop flag follows SIGINT, SIGTERM,
 * SIGUSR1. */
struct hm_ctl hm_terminal_ctl(struct hm_terminal *terminal);
void hm_terminal_close(struct hm_terminal *terminal); /* ends an open progress line */
/* 90 -> "1:30", 4000 -> "1:06:40" */
const char *hm_time_text(double seconds, char *buf, size_t size);
/* "12.3 ms", "4.56 s" */
const char *hm_seconds_text(double seconds, char *buf, size_t size);
/* "12.3 MiB" */
const char *hm_bytes_text(uint64_t bytes, char *buf, size_t size);

/* --- process.c, lost_page.c --- */

void hm_process_begin(void); /* once, first */
/* A sentence and an exit code when a page of a mapped file cannot be read any more. */
void hm_lost_page_catch(void);
/* Work that goes on when nobody reads its progress any more: a pipe without reader is an error like
 * any other. */
void hm_process_outlive_reader(void);

/* --- cmd_doctor.c --- */

/* f32 products a second on all threads, measured with square matrices of *ret_size; 0: out of
 * memory. */
double hm_machine_gflops(const struct hm_kernels *kernels, uint32_t *ret_size);

/* --- output.c --- */

int hm_print_json(json_t *value, struct hm_error *err);     /* takes the reference; indented */
int hm_print_buf(struct hm_buf *buf, struct hm_error *err); /* releases buf */
int hm_print_flush(struct hm_error *err); /* standard output is written and whole */

#endif
