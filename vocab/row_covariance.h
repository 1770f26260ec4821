/* SPDX-License-Identifier: MIT */
/*
 * Rows drawn from a normal distribution with the mean and covariance of a matrix's rows
 * (row_covariance.c). Private to vocab/.
 */
#ifndef HANMIX_VOCAB_ROW_COVARIANCE_H
#define HANMIX_VOCAB_ROW_COVARIANCE_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/rng.h"
#include "hanmix/checkpoint/checkpoint.h"
#include "hanmix/kernels/kernels.h"

/*
 * L [D][D] with L L^T = C, the covariance of the first n_rows rows of `tensor` [][D] around `mean`
 * [D] (sums over n_rows, divided by n_rows). *ret_factor is for hm_free, or NULL when C is not
 * positive definite, as far as f32 can tell. The same for any number of threads.
 */
int hm_row_covariance(const struct hm_checkpoint *ckpt, const struct hm_tensor *tensor,
                      uint64_t n_rows, const double *mean, const struct hm_kernels *kernels,
                      const struct hm_ctl *ctl, float **ret_factor, struct hm_error *err);
/*
 * out[n][D] = sqrt(scale) * L z for rows first_row .. first_row + n - 1; z[n][D] is scratch. z of a
 * row and column depends on (key, row * D + column) alone.
 */
void hm_row_draw(const float *factor, size_t dim, double scale, struct hm_rng_key key,
                 uint64_t first_row, size_t n, const struct hm_kernels *kernels, float *z,
                 float *out);
/* Heap that hm_row_covariance takes, the factor included. */
uint64_t hm_row_covariance_bytes(uint64_t dim);

#endif
