/* SPDX-License-Identifier: MIT */
/*
 * What a stage is: a row of the stage table with inputs, a field table, plan() and run().
 *
 * docs/RECIPES.md is generated from these tables; docs/ADDING.md says how to add one. A stage is
 * glue: the work is in its module. Thread class: owner thread.
 */
#ifndef HANMIX_RECIPES_STAGE_H
#define HANMIX_RECIPES_STAGE_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/json.h"
#include "hanmix/base/str.h"

enum hm_field_type {
    HM_FIELD_BOOL,
    HM_FIELD_COUNT /* uint64_t, 1e6 */,
    HM_FIELD_SIZE /* uint64_t bytes, 24G */,
    HM_FIELD_DOUBLE,
    HM_FIELD_TEXT /* char *, owned */,
    HM_FIELD_CHOICE /* int index into choices */,
    HM_FIELD_LIST /* struct hm_text_list */,
    HM_FIELD_MAP /* struct hm_text_map: rank_pattern and the like */
};
struct hm_text_list {
    char **item;
    size_t count;
    bool given;
};
struct hm_text_map {
    char **key, **value;
    size_t count;
};

struct hm_field {
    const char *name;
    enum hm_field_type type;
    size_t offset;              /* into the stage's config struct */
    const char *fallback;       /* default as text, parsed like input; NULL = zero/absent */
    double min, max;            /* inclusive; for counts, sizes, doubles; both 0 = unchecked */
    const char *const *choices; /* NULL-terminated, for CHOICE */
    const char *help;           /* one sentence with units */
    bool neutral; /* changes no byte of the output (a time limit, how often to log): not part of the
                     stage's identity */
    bool path;    /* TEXT: a value that is none of `choices` and no number is a file, relative as
                     inputs are, and digested */
};
/* CHOICE also takes true for "all" or "on" and false for "none" or "off", where there are such
   choices. Every stage has threads, memory and seed besides its own fields: see hm_stage_run. */

enum hm_input_type {
    HM_INPUT_TEXT,
    HM_INPUT_TOKENIZER,
    HM_INPUT_MODEL,
    HM_INPUT_PACKED,
    HM_INPUT_ADAPTER,
    HM_INPUT_IDS,
    HM_INPUT_FILE
};
struct hm_input {
    const char *name;
    enum hm_input_type type;
    bool required;
    bool many;    /* a list or named sets */
    bool shares;  /* named sets may have a weight and epochs */
    bool counted; /* TEXT: also .tsv and .tsv.zst, lines of text, tab, count */
    bool json;    /* TOKENIZER: also tokenizer.json */
    const char *help;
};

struct hm_input_set { /* one named set of a resolved input */
    char *name;       /* "" when the recipe named none */
    char **path; /* globs expanded and sorted; at least one (empty when the producing stage has not
                    run yet: `pending`) */
    size_t n_paths;
    double weight, epochs; /* as given: 0 and 1 when not */
    bool pending; /* product of a stage that has not run yet (plan, validate), or an `external` path
                     that is not there */
    const json_t *facts; /* pending products: what plan() of the producing stage foretold
                            (hm_stage_plan.facts); else NULL */
};
struct hm_input_value {
    const struct hm_input *input;
    struct hm_input_set *set;
    size_t n_sets;
};

struct hm_plan_line {
    char *purpose;
    uint64_t bytes;
    bool mapped;
};
struct hm_stage_plan { /* filled by plan(): nothing is written, inputs are checked as far as they
                          exist */
    struct hm_plan_line *memory;
    size_t n_memory; /* by purpose; the sum is the planned peak of the process */
    uint64_t disk_bytes;
    uint64_t work;
    const char *work_unit;   /* steps, bytes, tensors; 0 unknown */
    double flops;            /* of matrix products, for `plan --bench`; 0 unknown */
    uint64_t weights_budget; /* of mapped weights that stay resident; 0: all, nothing is streamed */
    /* From disk: in all, inputs counted once, and again in each step; 0 unknown. */
    uint64_t read_bytes, read_bytes_per_step;
    uint64_t write_bytes_per_step; /* to a state in a file */
    json_t *facts; /* object, owned; what later plans need of a product that does not exist yet:
                      "config" (config.json to be, an object), "vocab_size", "windows", "seq_len";
                      NULL = nothing. hm_stage_plan_release drops it. */
};
int hm_stage_plan_memory(struct hm_stage_plan *plan, const char *purpose, uint64_t bytes,
                         struct hm_error *err);
/* The same for pages of mapped files: part of the peak, but the system may evict them. The engine
 * adds the program itself. */
int hm_stage_plan_mapped(struct hm_stage_plan *plan, const char *purpose, uint64_t bytes,
                         struct hm_error *err);
/* steals value */
int hm_stage_plan_fact(struct hm_stage_plan *plan, const char *name, json_t *value,
                       struct hm_error *err);
void hm_stage_plan_release(struct hm_stage_plan *plan);

struct hm_bench_limits {          /* what `plan --bench` grants one stage */
    double seconds;               /* about this long at most */
    const char *scratch_dir;      /* empty folder, removed with all it holds afterwards */
    double read_rate, write_rate; /* bytes a second of the disk that holds it; 0 unknown */
    double read_work;             /* seconds of a core for each byte read */
};
#define HM_SMALLER_BYTES 160
#define HM_BENCH_PARTS   8
struct hm_bench_part {
    const char *what; /* "step", "evaluation", "save", "start", "end"; static */
    double seconds, times;
};
struct hm_stage_bench { /* filled by bench(): a prediction from what was timed on this machine */
    struct hm_bench_part part[HM_BENCH_PARTS]; /* what a run will spend its time on */
    size_t n_parts;
    double measured_seconds; /* what the timing itself took */
    char how[160];           /* "2 of 32 layers, 1 x 2048 tokens"; "" when there is no prediction */
};
/* times x seconds; HM_BENCH_PARTS at most. */
void hm_stage_bench_add(struct hm_stage_bench *bench, const char *what, double seconds,
                        double times);
double hm_stage_bench_seconds(const struct hm_stage_bench *bench); /* all parts together */
/* Seconds of one of the parts of that name; 0 when there is none. */
double hm_stage_bench_part(const struct hm_stage_bench *bench, const char *what);

struct hm_text_bound; /* corpus/text_files.h */

struct hm_stage_run {   /* what plan() and run() see */
    const char *id;     /* stage id, for messages */
    const void *config; /* the stage's own struct, filled from the field table */
    const struct hm_input_value *inputs;
    size_t n_inputs;
    const char *out_dir;       /* <id>.partial while running: write here */
    const char *run_dir;       /* where out_dir is or will be; may not exist while planning */
    const char *config_digest; /* identity of effective config + input digests */
    uint64_t seed;             /* set.seed, else the recipe's seed */
    int threads;
    uint64_t memory_bytes; /* set.memory or 0 */
    const struct hm_ctl *ctl;
    const json_t *digests; /* "inputs" of stage.json: by input, sets of paths with their SHA-256
                              (run only) */
    struct hm_file_digests *read_digests; /* receives digests of files of the inputs that were read
                               whole; NULL: known already (run only) */
    json_t *report;                       /* report.json object to fill (run only) */
    json_t *stage_info;     /* extra members for stage.json: kernel path, formats (run only) */
    uint64_t planned_bytes; /* sum of plan().memory */
    struct hm_text_bound *text_bound; /* timing: text inputs end early; NULL: all is read */
    const void *set_node;             /* private: settings as written, for hm_stage_given */
};
/* True when the setting was written in the recipe or on the command line. */
bool hm_stage_given(const struct hm_stage_run *run, const char *setting);
/* Whether what is written can be on the file system of `path`, so that files need not be copied. */
bool hm_stage_on_file_system_of(const struct hm_stage_run *run, const char *path);
/* HM_ERR_USAGE "set.NAME: WHY" for the first of the settings that was written; NULL ends them. */
int hm_stage_refuse_given(const struct hm_stage_run *run, const char *const *settings,
                          const char *why, struct hm_error *err);
/* The resolved input by name; NULL when optional and absent. */
const struct hm_input_value *hm_stage_input(const struct hm_stage_run *run, const char *name);
/* Its single path ("" and false `pending` never): HM_ERR_USAGE when there are several. A pending
 * one is the path to be. */
int hm_stage_path(const struct hm_stage_run *run, const char *name, const char **ret_path,
                  struct hm_error *err);

struct hm_stage {
    const char *name;    /* "vocab.train" */
    const char *summary; /* one sentence */
    size_t config_bytes;
    const struct hm_input *inputs;
    size_t n_inputs;
    const struct hm_field *fields;
    size_t n_fields;
    const char *writes;            /* "tokenizer.model, pieces.tsv, report.json" */
    enum hm_input_type product[3]; /* types that `$id` can serve as, with where: */
    const char *product_path[3]; /* "" = the folder itself, "adapter" = a subfolder; NULL = none */
    bool own_memory;             /* keeps within set.memory by itself; its plan may be above that */
    bool resumable;              /* a .partial folder is kept and continued; else cleared */
    bool rehearsed; /* `plan --bench` runs it on the beginning of its text, without text as a whole
                     */
    bool digests_inputs; /* fills read_digests: large files are not read once more for it */
    /* settings that exclude each other; may be NULL */
    int (*check)(const struct hm_stage_run *run, struct hm_error *err);
    int (*plan)(const struct hm_stage_run *run, struct hm_stage_plan *ret_plan,
                struct hm_error *err);
    /*
     * Changes with which the stage needs less, the cheapest first: the index-th as words
     * "set.KEY=VALUE" parted by blanks ("" when it is none here), ">set.KEY=VALUE" for the stages
     * that make its packed inputs; false after the last. limit_bytes: what the process may take, 0
     * when that is not what it exceeds. Reads the settings alone. May be NULL.
     */
    bool (*smaller)(const struct hm_stage_run *run, size_t index, uint64_t limit_bytes,
                    char text[HM_SMALLER_BYTES]);
    /* Time parts of the work and predict the whole; may be NULL. After plan(), within the limits;
     * what cannot be timed yet leaves *ret_bench empty. HM_ERR_STOPPED when asked to. */
    int (*bench)(const struct hm_stage_run *run, const struct hm_bench_limits *limits,
                 struct hm_stage_bench *ret_bench, struct hm_error *err);
    /* HM_ERR_CHECK: folder is completed, state failed */
    int (*run)(const struct hm_stage_run *run, struct hm_error *err);
};

size_t hm_stage_count(void);
const struct hm_stage *hm_stage_at(size_t i);
/* HM_ERR_USAGE after `place` with the nearest name when unknown. */
int hm_stage_find(const char *name, const char *place, const struct hm_stage **ret_stage,
                  struct hm_error *err);

#endif
