/* SPDX-License-Identifier: MIT */
/*
 * The heap: a header of one cache line before each block holds its size, tag and the pointer that
 * malloc gave. Counters are atomic; the peak is kept by a compare-and-swap loop.
 *
 * Alignment is done by hand rather than with posix_memalign: glibc fragments under repeated aligned
 * requests, and realloc of a large block can then move pages instead of bytes.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/status.h"

#if defined(__SANITIZE_ADDRESS__)
#define ALLOC_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALLOC_ASAN 1
#endif
#endif
#ifdef ALLOC_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define ALIGN_BYTES  64u
#define HEADER_BYTES 64u
#define ADVISED_FROM 65536u /* smaller blocks are not worth a call */
#define PAGE_BYTES   4096u
#define HUGE_BYTES   ((uintptr_t)2 << 20)
#define SLACK_BYTES  (HEADER_BYTES + ALIGN_BYTES - 1)
#define HEADER_MAGIC 0x68616e6d69783031u

struct header {
    uint64_t magic;
    void *raw;
    size_t size;
    enum hm_mem_tag tag;
};
_Static_assert(sizeof(struct header) <= HEADER_BYTES, "the header must fit in its line");

static _Atomic uint64_t current_bytes[HM_MEM_TAGS];
static _Atomic uint64_t peak_bytes[HM_MEM_TAGS];
static _Atomic int64_t fail_after = -1;

static bool failure_due(void)
{
    int64_t left = atomic_load_explicit(&fail_after, memory_order_relaxed);

    while (left > 0)
        if (atomic_compare_exchange_weak(&fail_after, &left, left - 1))
            return false;
    return left == 0;
}

static void count_add(enum hm_mem_tag tag, size_t size)
{
    uint64_t now = atomic_fetch_add(&current_bytes[tag], size) + size;
    uint64_t peak = atomic_load_explicit(&peak_bytes[tag], memory_order_relaxed);

    while (peak < now && !atomic_compare_exchange_weak(&peak_bytes[tag], &peak, now))
        ;
}

static struct header *header_of(void *block)
{
    struct header *header = (struct header *)((char *)block - HEADER_BYTES);

    HM_BUG(header->magic != HEADER_MAGIC);
    return header;
}

static void *block_in(void *raw)
{
    return (void *)(((uintptr_t)raw + SLACK_BYTES) & ~(uintptr_t)(ALIGN_BYTES - 1));
}

/* Put the header before the block; under ASan close the bytes between its end and the end of raw.
 */
static void *block_finish(void *raw, enum hm_mem_tag tag, size_t size)
{
    void *block = block_in(raw);
    struct header *header = (struct header *)((char *)block - HEADER_BYTES);

    *header = (struct header){ HEADER_MAGIC, raw, size, tag };
#ifdef ALLOC_ASAN
    char *end = (char *)block + size;
    ASAN_POISON_MEMORY_REGION(end, (size_t)((char *)raw + size + SLACK_BYTES - end));
#endif
    count_add(tag, size);
    return block;
}

static void *block_new(enum hm_mem_tag tag, size_t size, bool zero)
{
    HM_BUG((unsigned)tag >= HM_MEM_TAGS);
    if (size > PTRDIFF_MAX - SLACK_BYTES || failure_due())
        return NULL;
    void *raw = zero ? calloc(1, size + SLACK_BYTES) : malloc(size + SLACK_BYTES);
    return raw ? block_finish(raw, tag, size) : NULL;
}

void *hm_alloc(enum hm_mem_tag tag, size_t size)
{
    return block_new(tag, size, false);
}

void *hm_calloc(enum hm_mem_tag tag, size_t count, size_t size)
{
    size_t bytes;

    return __builtin_mul_overflow(count, size, &bytes) ? NULL : block_new(tag, bytes, true);
}

void *hm_alloc_array(enum hm_mem_tag tag, size_t count, size_t size)
{
    size_t bytes;

    return __builtin_mul_overflow(count, size, &bytes) ? NULL : block_new(tag, bytes, false);
}

void *hm_realloc(enum hm_mem_tag tag, void *block, size_t size)
{
    if (!block)
        return hm_alloc(tag, size);
    if (size > PTRDIFF_MAX - SLACK_BYTES || failure_due())
        return NULL;

    struct header old = *header_of(block);
    size_t old_offset = (size_t)((char *)block - (char *)old.raw);
    size_t kept = old.size < size ? old.size : size;
#ifdef ALLOC_ASAN
    ASAN_UNPOISON_MEMORY_REGION(old.raw, old.size + SLACK_BYTES);
#endif
    void *raw = realloc(old.raw, size + SLACK_BYTES);
    if (!raw) {
#ifdef ALLOC_ASAN
        char *end = (char *)block + old.size;
        ASAN_POISON_MEMORY_REGION(end, (size_t)((char *)old.raw + old.size + SLACK_BYTES - end));
#endif
        return NULL;
    }
    void *moved = block_in(raw);
    size_t offset = (size_t)((char *)moved - (char *)raw);
    if (offset != old_offset)
        memmove(moved, (char *)raw + old_offset, kept);
    atomic_fetch_sub(&current_bytes[old.tag], old.size);
    return block_finish(raw, old.tag, size);
}

char *hm_strndup(enum hm_mem_tag tag, const char *text, size_t len)
{
    char *copy = len == SIZE_MAX ? NULL : hm_alloc(tag, len + 1);

    if (copy) {
        if (len > 0)
            memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}

char *hm_strdup(enum hm_mem_tag tag, const char *text)
{
    return hm_strndup(tag, text, strlen(text));
}

void hm_free(void *block)
{
    if (!block)
        return;
    struct header *header = header_of(block);
    void *raw = header->raw;

    atomic_fetch_sub(&current_bytes[header->tag], header->size);
    header->magic = 0;
#ifdef ALLOC_ASAN
    ASAN_UNPOISON_MEMORY_REGION(raw, header->size + SLACK_BYTES);
#endif
    free(raw);
}

const char *hm_mem_tag_name(enum hm_mem_tag tag)
{
    static const char *const name[HM_MEM_TAGS] = {
#define X(name, text) text,
        HM_MEM_TABLE(X)
#undef X
    };

    HM_BUG((unsigned)tag >= HM_MEM_TAGS);
    return name[tag];
}

uint64_t hm_mem_current_bytes(enum hm_mem_tag tag)
{
    return atomic_load(&current_bytes[tag]);
}

uint64_t hm_mem_peak_bytes(enum hm_mem_tag tag)
{
    return atomic_load(&peak_bytes[tag]);
}

uint64_t hm_mem_total_bytes(void)
{
    uint64_t total = 0;

    for (int tag = 0; tag < HM_MEM_TAGS; tag++)
        total += atomic_load(&current_bytes[tag]);
    return total;
}

void hm_mem_peak_reset(void)
{
    for (int tag = 0; tag < HM_MEM_TAGS; tag++)
        atomic_store(&peak_bytes[tag], atomic_load(&current_bytes[tag]));
}

void hm_alloc_fail_after(int64_t count)
{
    atomic_store(&fail_after, count);
}

/* A hint that the kernel does not know or cannot follow changes nothing. */
static void pages_advise(void *block, size_t size, uintptr_t page_bytes, int advice)
{
    uintptr_t first = ((uintptr_t)block + page_bytes - 1) & ~(page_bytes - 1);
    uintptr_t after = ((uintptr_t)block + size) & ~(page_bytes - 1);

    if (size >= ADVISED_FROM && first < after)
        (void)madvise((void *)first, after - first, advice);
}

void hm_alloc_populate(void *block, size_t size)
{
    pages_advise(block, size, PAGE_BYTES, MADV_POPULATE_WRITE);
}

void hm_alloc_huge(void *block, size_t size)
{
    pages_advise(block, size, HUGE_BYTES, MADV_HUGEPAGE);
}
