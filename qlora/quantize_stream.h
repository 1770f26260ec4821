/* SPDX-License-Identifier: MIT */
/*
 * One weight as a stream of blocks, rounded to the type it is stored in, and its two ways out:
 * 4-bit codes or dense values. Private to qlora/. Thread class: owner thread; works in parallel
 * inside.
 */
#ifndef HANMIX_QLORA_QUANTIZE_STREAM_H
#define HANMIX_QLORA_QUANTIZE_STREAM_H

#include "hanmix/checkpoint/weight.h"

struct hm_stream;

/* Buffers for hm_threads() workers and weights of at most largest_values; blocksize divides the
 * grain. model_dir is borrowed, for messages. */
int hm_stream_new(const struct hm_kernels *kernels, const char *model_dir, enum hm_dtype dtype,
                  uint32_t blocksize, uint64_t largest_values, struct hm_stream **ret_stream,
                  struct hm_error *err);
void hm_stream_free(struct hm_stream *stream);
uint64_t hm_stream_bytes(int threads, uint64_t largest_values); /* of its buffers */
uint64_t hm_stream_window_values(void); /* of a weight that are resident at once */

/* Weight to read from now on; name is for messages and borrowed like weight. With a reader its
   values are the reader's next ones, in pieces of hm_stream_window_values; else they are read from
   the mapping. */
void hm_stream_bind(struct hm_stream *stream, const struct hm_weight *weight, const char *name,
                    struct hm_reader *reader);

/* Per block of the quantised weight: what its error is made of once the final scale s is known:
   sum (w - s c)^2 = energy - 2 s product + s^2 square. */
struct hm_block_sums {
    double energy, product, square;
};

/*
 * absmax[ceil(n / blocksize)] and sums[] of the bound weight, and its codes into the writer's
 * current tensor when writer is not NULL. NaN or Inf: HM_ERR_FORMAT naming the weight.
 */
int hm_stream_encode(struct hm_stream *stream, struct hm_folder_writer *writer, float *absmax,
                     struct hm_block_sums *sums, struct hm_error *err);
/* The bound weight's values, in the stream's type, into the writer's current tensor. */
int hm_stream_dense(struct hm_stream *stream, struct hm_folder_writer *writer,
                    struct hm_error *err);

#endif
