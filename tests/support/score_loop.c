/* SPDX-License-Identifier: MIT */
/*
 * The loop: characters as symbols, a heap of neighbours whose joined text is a piece, best score
 * first, then leftmost; a popped pair counts when both sides are still what they were. In the end a
 * symbol is its piece, the two symbols it was last seen to be made of, or its bytes.
 */
#include "score_loop.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct symbol {
    const char *text;
    size_t size;
    long before, after; /* neighbours, -1 none */
};

struct bigram {
    long left, right;
    float score;
    size_t size;
};

struct loop {
    const struct hm_spm_model *model;
    struct symbol *symbol;
    struct bigram *heap;
    size_t n, n_heap;
    struct hm_ids *ids;
};

static void *memory(size_t count, size_t size)
{
    void *block = calloc(count ? count : 1, size);

    if (!block)
        abort();
    return block;
}

static bool comes_first(const struct bigram *a, const struct bigram *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
}

static void heap_push(struct loop *loop, struct bigram bigram)
{
    size_t at = loop->n_heap++;

    for (; at > 0 && comes_first(&bigram, &loop->heap[(at - 1) / 2]); at = (at - 1) / 2)
        loop->heap[at] = loop->heap[(at - 1) / 2];
    loop->heap[at] = bigram;
}

static struct bigram heap_pop(struct loop *loop)
{
    struct bigram top = loop->heap[0];
    struct bigram last = loop->heap[--loop->n_heap];
    size_t at = 0;

    for (size_t child; (child = 2 * at + 1) < loop->n_heap; at = child) {
        if (child + 1 < loop->n_heap && comes_first(&loop->heap[child + 1], &loop->heap[child]))
            child++;
        if (!comes_first(&loop->heap[child], &last))
            break;
        loop->heap[at] = loop->heap[child];
    }
    loop->heap[at] = last;
    return top;
}

static void try_bigram(struct loop *loop, long left, long right)
{
    if (left < 0 || right < 0)
        return;
    struct hm_str joined = { loop->symbol[left].text,
                             loop->symbol[left].size + loop->symbol[right].size };
    int32_t id = hm_spm_model_find(loop->model, joined);
    if (id >= 0)
        heap_push(loop, (struct bigram){ left, right, loop->model->piece[id].score, joined.len });
}

static void put_byte(struct loop *loop, unsigned char byte)
{
    char name[8];

    snprintf(name, sizeof(name), "<0x%02X>", byte);
    int32_t id = hm_spm_model_find(loop->model, hm_str_of(name));
    if (hm_ids_append(loop->ids, &id, 1, NULL) < 0)
        abort();
}

static void put_symbol(struct loop *loop, const struct symbol *symbol)
{
    int32_t id = hm_spm_model_find(loop->model, (struct hm_str){ symbol->text, symbol->size });

    if (id >= 0) {
        if (hm_ids_append(loop->ids, &id, 1, NULL) < 0)
            abort();
        return;
    }
    for (size_t i = 0; i < symbol->size; i++)
        put_byte(loop, (unsigned char)symbol->text[i]);
}

static size_t character_size(unsigned char first)
{
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static void split(struct loop *loop, const char *text, size_t len)
{
    for (size_t at = 0; at < len;) {
        size_t size = character_size((unsigned char)text[at]);
        size = size < len - at ? size : len - at;
        long index = (long)loop->n;
        loop->symbol[loop->n++] =
            (struct symbol){ text + at, size, index - 1, at + size < len ? index + 1 : -1 };
        at += size;
    }
}

static void merge(struct loop *loop)
{
    for (size_t i = 1; i < loop->n; i++)
        try_bigram(loop, (long)i - 1, (long)i);
    while (loop->n_heap > 0) {
        struct bigram best = heap_pop(loop);
        struct symbol *left = &loop->symbol[best.left];
        struct symbol *right = &loop->symbol[best.right];
        if (left->size == 0 || right->size == 0 || left->size + right->size != best.size)
            continue;
        left->size += right->size;
        right->size = 0;
        left->after = right->after;
        if (right->after >= 0)
            loop->symbol[right->after].before = best.left;
        try_bigram(loop, left->before, best.left);
        try_bigram(loop, best.left, left->after);
    }
}

void score_loop_encode(const struct hm_spm_model *model, struct hm_str text, struct hm_ids *ids)
{
    struct loop loop = { .model = model, .ids = ids };
    const size_t space = strlen(HM_SPM_SPACE);
    char *escaped = memory(text.len + 1, space);
    size_t len = 0;

    if (text.len > 0 && model->add_dummy_prefix) {
        memcpy(escaped, HM_SPM_SPACE, space);
        len = space;
    }
    for (size_t i = 0; i < text.len; i++) {
        bool is_space = text.ptr[i] == ' ';
        memcpy(escaped + len, is_space ? HM_SPM_SPACE : text.ptr + i, is_space ? space : 1);
        len += is_space ? space : 1;
    }
    loop.symbol = memory(len, sizeof(*loop.symbol));
    loop.heap = memory(3 * len, sizeof(*loop.heap)); /* each merge pushes two */
    split(&loop, escaped, len);
    merge(&loop);
    for (long i = len > 0 ? 0 : -1; i >= 0; i = loop.symbol[i].after)
        put_symbol(&loop, &loop.symbol[i]);
    free(escaped);
    free(loop.symbol);
    free(loop.heap);
}
