/* SPDX-License-Identifier: MIT */
/*
 * eval.logits: a few rows of ids at a time through the model, logits streamed out. What a file of
 * tensors in name order wants later (losses, router logits) is kept until then; it is small beside
 * the logits.
 */
#include <inttypes.h>

#include "hanmix/eval/eval.h"
#include "hanmix/model/ids_file.h"

#define LOGITS_BYTES ((uint64_t)256 << 20)

struct logits_run {
    struct hm_model *model;
    const struct hm_arch *arch;
    struct hm_ids_file ids;
    struct hm_workspace *workspace;
    struct hm_st_writer *writer;
    struct hm_tensor_spec *spec; /* [n_specs]: logits, loss, router logits of each layer */
    size_t *order;               /* [n_specs], as the file wants them */
    size_t n_specs;
    uint32_t batch_rows;   /* R: at a time */
    struct hm_ids_row row; /* [R][T] of each */
    float *logits;         /* [R][T][V] */
    double *token_loss;    /* [R][T] */
    float *loss;           /* [B][T-1] */
    float *router;         /* [L][B*T][E], NULL when dense */
    float **router_row;    /* [L] into router, for the rows under way */
};

static void run_release(struct logits_run *run)
{
    hm_st_writer_abort(run->writer);
    hm_workspace_free(run->workspace);
    for (size_t i = 0; run->spec && i < run->n_specs; i++)
        hm_free(run->spec[i].name);
    hm_free(run->spec);
    hm_free(run->order);
    hm_free(run->row.ids);
    hm_free(run->row.labels);
    hm_free(run->row.mask);
    hm_free(run->logits);
    hm_free(run->token_loss);
    hm_free(run->loss);
    hm_free(run->router);
    hm_free(run->router_row);
    hm_ids_file_close(&run->ids);
}

uint32_t hm_eval_rows(uint32_t seq_len, uint32_t vocab_size)
{
    uint64_t by_logits = LOGITS_BYTES / ((uint64_t)seq_len * vocab_size * sizeof(float));
    uint64_t rows = HM_EVAL_TOKENS / seq_len;

    rows = by_logits < rows ? by_logits : rows;
    return rows > 1 ? (uint32_t)rows : 1;
}

static size_t router_layers(const struct hm_arch *arch)
{
    return arch->experts > 1 ? arch->layers : 0;
}

static int specs_make(struct logits_run *run, struct hm_error *err)
{
    uint64_t rows = run->ids.rows, seq_len = run->ids.seq_len;
    size_t layers = router_layers(run->arch);

    run->spec = hm_calloc(HM_MEM_TENSOR, 2 + layers, sizeof(*run->spec));
    run->order = hm_alloc_array(HM_MEM_TENSOR, 2 + layers, sizeof(*run->order));
    if (!run->spec || !run->order)
        return hm_fail_nomem(err, "for the list of tensors");
    run->n_specs = 2 + layers;
    run->spec[0] = (struct hm_tensor_spec){ .dtype = HM_DTYPE_F32,
                                            .n_dims = 3,
                                            .shape = { rows, seq_len, run->arch->vocab_size } };
    run->spec[1] = (struct hm_tensor_spec){ .dtype = HM_DTYPE_F32,
                                            .n_dims = 2,
                                            .shape = { rows, seq_len - 1 } };
    for (size_t i = 0; i < layers; i++)
        run->spec[2 + i] = (struct hm_tensor_spec){
            .dtype = HM_DTYPE_F32, .n_dims = 2, .shape = { rows * seq_len, run->arch->experts }
        };
    HM_TRY(hm_format(&run->spec[0].name, err, "logits"));
    HM_TRY(hm_format(&run->spec[1].name, err, "loss"));
    for (size_t i = 0; i < layers; i++)
        HM_TRY(hm_format(&run->spec[2 + i].name, err, "router_logits.%zu", i));
    return HM_OK;
}

static int buffers_make(struct logits_run *run, struct hm_error *err)
{
    uint64_t rows = run->ids.rows, seq_len = run->ids.seq_len;
    size_t layers = router_layers(run->arch);

    run->batch_rows = hm_eval_rows(run->ids.seq_len, run->arch->vocab_size);
    if (rows < run->batch_rows)
        run->batch_rows = rows > 0 ? (uint32_t)rows : 1;
    uint64_t tokens = run->batch_rows * seq_len;
    run->row.ids = hm_alloc_array(HM_MEM_OTHER, tokens, sizeof(*run->row.ids));
    run->row.labels = hm_alloc_array(HM_MEM_OTHER, tokens, sizeof(*run->row.labels));
    run->row.mask = hm_alloc(HM_MEM_OTHER, tokens);
    run->logits = hm_alloc_array(HM_MEM_ACTIVATION, tokens * run->arch->vocab_size, sizeof(float));
    run->token_loss = hm_alloc_array(HM_MEM_ACTIVATION, tokens, sizeof(double));
    run->loss = hm_alloc_array(HM_MEM_ACTIVATION, rows * (seq_len - 1), sizeof(float));
    run->router = hm_alloc_array(HM_MEM_ACTIVATION, rows * seq_len * run->arch->experts,
                                 layers * sizeof(float));
    run->router_row = hm_alloc_array(HM_MEM_ACTIVATION, layers, sizeof(*run->router_row));
    if (!run->row.ids || !run->row.labels || !run->row.mask || !run->logits || !run->token_loss ||
        !run->loss || !run->router || !run->router_row)
        return hm_fail_nomem(err, "for the logits of %" PRIu64 " tokens over %u pieces", tokens,
                             run->arch->vocab_size);
    return hm_workspace_new(run->model, run->batch_rows, (uint32_t)seq_len, false, false,
                            &run->workspace, err);
}

/* n rows: their ids, and whether the file has labels and masks. */
static int rows_read(struct logits_run *run, uint64_t first, uint32_t n, struct hm_error *err)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t at = (size_t)i * run->ids.seq_len;
        struct hm_ids_row row = { .ids = run->row.ids + at,
                                  .labels = run->row.labels + at,
                                  .mask = run->row.mask + at };
        HM_TRY(hm_ids_file_row(&run->ids, first + i, false, &row, err));
        run->row.has_labels = row.has_labels;
        run->row.has_mask = row.has_mask;
    }
    return HM_OK;
}

/* n rows: their logits into the file, their losses and router logits into memory. */
static int rows_run(struct logits_run *run, uint64_t first, uint32_t n, struct hm_error *err)
{
    size_t seq_len = run->ids.seq_len, layers = router_layers(run->arch);
    size_t row_router = seq_len * run->arch->experts;
    struct hm_step_result result;

    HM_TRY(rows_read(run, first, n, err));
    for (size_t i = 0; i < layers; i++)
        run->router_row[i] = run->router + (i * run->ids.rows + first) * row_router;
    struct hm_batch batch = { .rows = n,
                              .seq_len = (uint32_t)seq_len,
                              .ids = run->row.ids,
                              .labels = run->row.has_labels ? run->row.labels : NULL,
                              .mask = run->row.has_mask ? run->row.mask : NULL };
    struct hm_step_options options = { .logits_out = run->logits,
                                       .token_loss_out = run->token_loss,
                                       .router_logits_out = layers > 0 ? run->router_row : NULL };
    int status = hm_model_step(run->model, run->workspace, &batch, &options, &result, err);
    if (status < 0) {
        hm_error_prefix(err, "rows %" PRIu64 " to %" PRIu64, first, first + n - 1);
        return status;
    }
    for (size_t i = 0; i < n; i++)
        for (size_t t = 0; t + 1 < seq_len; t++)
            run->loss[(first + i) * (seq_len - 1) + t] = (float)run->token_loss[i * seq_len + t];
    return hm_st_writer_data(run->writer, run->logits,
                             n * seq_len * run->arch->vocab_size * sizeof(float), err);
}

static int file_write(struct logits_run *run, const char *out_path, const struct hm_ctl *ctl,
                      struct hm_error *err)
{
    uint64_t rows = run->ids.rows;

    HM_TRY(
        hm_st_writer_open(out_path, run->spec, run->n_specs, NULL, &run->writer, run->order, err));
    HM_BUG(run->order[0] != 0 || run->order[1] != 1); /* names sort this way */
    for (uint64_t row = 0; row < rows;) {
        uint32_t n = rows - row < run->batch_rows ? (uint32_t)(rows - row) : run->batch_rows;
        if (hm_ctl_stopped(ctl))
            return hm_fail(err, HM_ERR_STOPPED, "stopped after %" PRIu64 " of %" PRIu64 " rows",
                           row, rows);
        HM_TRY(rows_run(run, row, n, err));
        row += n;
        hm_ctl_progress(ctl, &(struct hm_progress){
                                 .what = "logits", .unit = "rows", .done = row, .total = rows });
    }
    for (size_t i = 1; i < run->n_specs; i++) {
        size_t which = run->order[i];
        size_t count = hm_tensor_spec_bytes(&run->spec[which]) / sizeof(float);
        const float *data = which == 1 ? run->loss : run->router + (which - 2) * count;
        HM_TRY(hm_st_writer_data(run->writer, data, count * sizeof(float), err));
    }
    int status = hm_st_writer_commit(run->writer, err);
    run->writer = NULL; /* freed in every case */
    return status;
}

int hm_eval_logits(struct hm_model *model, const char *ids_path, const char *out_path,
                   const struct hm_ctl *ctl, struct hm_error *err)
{
    struct logits_run run = { .model = model, .arch = hm_model_arch(model) };

    HM_TRY(hm_ids_file_open(ids_path, &run.ids, err));
    int status = hm_ids_file_check(&run.ids, run.arch->vocab_size, err);
    if (status == HM_OK)
        status = specs_make(&run, err);
    if (status == HM_OK)
        status = buffers_make(&run, err);
    if (status == HM_OK)
        status = file_write(&run, out_path, ctl, err);
    run_release(&run);
    return status;
}
