/* SPDX-License-Identifier: MIT */
/*
 * All heap of the library: tagged by purpose, counted, and able to fail on demand.
 *
 * Every block is 64-byte aligned. The counters feed the "memory by purpose" of stage reports and of
 * `plan`. Thread class: thread safe (atomic counters). Ownership: the caller frees with hm_free.
 */
#ifndef HANMIX_BASE_ALLOC_H
#define HANMIX_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

#define HM_MEM_TABLE(X)                 \
    X(HM_MEM_OTHER, "other")            \
    X(HM_MEM_TEXT, "text")              \
    X(HM_MEM_VOCAB, "vocabulary")       \
    X(HM_MEM_TENSOR, "tensors")         \
    X(HM_MEM_WEIGHT, "weights")         \
    X(HM_MEM_ADAPTER, "adapter")        \
    X(HM_MEM_GRADIENT, "gradients")     \
    X(HM_MEM_OPTIMIZER, "optimizer")    \
    X(HM_MEM_ACTIVATION, "activations") \
    X(HM_MEM_SCRATCH, "scratch")

enum hm_mem_tag {
#define X(name, text) name,
    HM_MEM_TABLE(X)
#undef X
        HM_MEM_TAGS
};

/* size 0 gives a valid block. NULL when memory is out or a failure was injected. */
void *hm_alloc(enum hm_mem_tag tag, size_t size);
void *hm_calloc(enum hm_mem_tag tag, size_t count, size_t size);      /* overflow checked, zeroed */
void *hm_alloc_array(enum hm_mem_tag tag, size_t count, size_t size); /* overflow checked */
/* block NULL allocates; contents kept */
void *hm_realloc(enum hm_mem_tag tag, void *block, size_t size);
char *hm_strdup(enum hm_mem_tag tag, const char *text);
char *hm_strndup(enum hm_mem_tag tag, const char *text, size_t len);
void hm_free(void *block); /* NULL is fine */

/* Hints, for the whole pages of a block: all will be written soon, so the kernel gives them at once
 * rather than one by one; the block will be read at random, so large pages serve it best. */
void hm_alloc_populate(void *block, size_t size);
void hm_alloc_huge(void *block, size_t size);

const char *hm_mem_tag_name(enum hm_mem_tag tag);
uint64_t hm_mem_current_bytes(enum hm_mem_tag tag);
uint64_t hm_mem_peak_bytes(enum hm_mem_tag tag);
uint64_t hm_mem_total_bytes(void);
void hm_mem_peak_reset(void);

/* Test hook: let `count` allocations succeed, then fail every one. Negative: never fail (the
 * default). */
void hm_alloc_fail_after(int64_t count);

#endif
