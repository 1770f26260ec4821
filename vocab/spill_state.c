/* SPDX-License-Identifier: MIT */
/*
 * What remains of the first pass beside the file of runs: the counts of characters and of pairs, in
 * a file of 64-bit words: [magic][characters][pairs], then pairs (as the table holds them), then
 * [index][count] of each character, last a hash of all. The file is hostile until it was read to
 * its end.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "han_spill.h"
#include "hanmix/base/file.h"

#define MAGIC      0x317372696170686du
#define WORDS      8192u /* of one piece */
#define INDEX_BITS 17u
#define COUNT_BITS 30u
#define COUNT_MASK (((uint64_t)1 << COUNT_BITS) - 1)
#define HEADER     3u
#define MAX_CHARS  HM_HAN_INDICES

/* --- writing ---------------------------------------------------------------------------------- */

struct words_out {
    struct hm_out_file file;
    uint64_t word[WORDS];
    size_t n;
    uint64_t hash;
};

static int out_flush(struct words_out *out, struct hm_error *err)
{
    out->hash = hm_hash64(out->word, out->n * sizeof(uint64_t), out->hash);
    HM_TRY(hm_out_write(&out->file, out->word, out->n * sizeof(uint64_t), err));
    out->n = 0;
    return HM_OK;
}

static int out_put(struct words_out *out, uint64_t word, struct hm_error *err)
{
    if (out->n == WORDS)
        HM_TRY(out_flush(out, err));
    out->word[out->n++] = word;
    return HM_OK;
}

static int pairs_put(const struct pair_table *table, struct words_out *out, struct hm_error *err)
{
    uint64_t cursor = 0;
    struct han_pair pair;

    while (hm_pair_table_next(table, &cursor, &pair)) {
        uint64_t key = (uint64_t)pair.left << INDEX_BITS | pair.right;
        if (pair.right == 0)
            continue;
        HM_TRY(out_put(out, key << COUNT_BITS | (pair.count <= COUNT_MASK ? pair.count : 0), err));
        if (pair.count > COUNT_MASK)
            HM_TRY(out_put(out, pair.count, err));
    }
    return HM_OK;
}

static int state_put(const struct han_spill *spill, struct words_out *out, struct hm_error *err)
{
    HM_TRY(out_put(out, MAGIC, err));
    HM_TRY(out_put(out, spill->n_characters, err));
    HM_TRY(out_put(out, spill->n_pairs, err));
    HM_TRY(pairs_put(&spill->pairs, out, err));
    for (size_t i = 0; i < spill->n_characters; i++) {
        HM_TRY(out_put(out, hm_han_index(spill->character[i].code), err));
        HM_TRY(out_put(out, spill->character[i].count, err));
    }
    HM_TRY(out_flush(out, err));
    return hm_out_write(&out->file, &out->hash, sizeof(out->hash), err);
}

/* Characters are what begins their pairs, the end of a run included. */
static int characters_find(struct han_spill *spill, struct hm_error *err)
{
    uint64_t *count = hm_calloc(HM_MEM_VOCAB, HM_HAN_INDICES, sizeof(*count));
    uint64_t cursor = 0;
    struct han_pair pair;
    size_t n = 0;

    if (!count)
        return hm_fail_nomem(err, "for counting Han characters");
    spill->n_pairs = 0;
    while (hm_pair_table_next(&spill->pairs, &cursor, &pair)) {
        n += count[pair.left] == 0;
        count[pair.left] += pair.count;
        spill->n_pairs += pair.right != 0;
    }
    spill->character = hm_calloc(HM_MEM_VOCAB, n, sizeof(*spill->character));
    for (uint32_t i = 1; spill->character && i < HM_HAN_INDICES; i++)
        if (count[i])
            spill->character[spill->n_characters++] =
                (struct han_character){ hm_han_code(i), count[i] };
    hm_free(count);
    return spill->character ? HM_OK : hm_fail_nomem(err, "for %zu Han characters", n);
}

int hm_spill_pairs_save(struct han_spill *spill, struct hm_error *err)
{
    struct words_out *out = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*out));
    int status = HM_OK;

    if (!out)
        return hm_fail_nomem(err, "for saving counts of Han characters");
    status = characters_find(spill, err);
    if (status == HM_OK)
        status = hm_out_open_in(spill->options.dir, HM_SPILL_PAIRS, &out->file, err);
    if (status == HM_OK) {
        status = state_put(spill, out, err);
        spill->pairs_bytes = out->file.written_bytes;
        status = hm_out_end(&out->file, status, err);
    }
    hm_free(out);
    return status;
}

/* --- reading ---------------------------------------------------------------------------------- */

struct words_in {
    int fd;
    char *path;
    uint64_t left; /* words not yet read, the hash aside */
    uint64_t word[WORDS];
    size_t at, n;
    uint64_t hash;
};

static int fail_damaged(struct hm_error *err, const char *path, const char *what)
{
    return hm_fail(err, HM_ERR_FORMAT, "'%s': %s: the scratch file is damaged", path, what);
}

static int read_all(struct words_in *in, void *data, size_t bytes, struct hm_error *err)
{
    uint8_t *to = data;

    while (bytes > 0) {
        ssize_t got = read(in->fd, to, bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return hm_fail(err, HM_ERR_IO, "cannot read '%s': %s", in->path, strerror(errno));
        if (got == 0)
            return fail_damaged(err, in->path, "it ends too early");
        to += got;
        bytes -= (size_t)got;
    }
    return HM_OK;
}

static int in_get(struct words_in *in, uint64_t *ret_word, struct hm_error *err)
{
    if (in->at == in->n) {
        in->at = 0;
        in->n = in->left < WORDS ? (size_t)in->left : WORDS;
        if (in->n == 0)
            return fail_damaged(err, in->path, "it ends too early");
        HM_TRY(read_all(in, in->word, in->n * sizeof(uint64_t), err));
        in->hash = hm_hash64(in->word, in->n * sizeof(uint64_t), in->hash);
        in->left -= in->n;
    }
    *ret_word = in->word[in->at++];
    return HM_OK;
}

static int pair_get(struct words_in *in, struct han_pair *ret_pair, struct hm_error *err)
{
    uint64_t word = 0, count = 0;

    HM_TRY(in_get(in, &word, err));
    count = word & COUNT_MASK;
    if (count == 0)
        HM_TRY(in_get(in, &count, err));
    ret_pair->left = (uint32_t)(word >> COUNT_BITS >> INDEX_BITS);
    ret_pair->right = (uint32_t)(word >> COUNT_BITS) & ((1u << INDEX_BITS) - 1);
    ret_pair->count = count;
    if (count == 0 || hm_han_code(ret_pair->left) == 0 || hm_han_code(ret_pair->right) == 0)
        return fail_damaged(err, in->path, "a pair of no Han characters");
    return HM_OK;
}

static int in_open(const struct han_spill *spill, struct words_in *in, uint64_t header[HEADER],
                   struct hm_error *err)
{
    uint64_t bytes = 0;

    HM_TRY(hm_path_join(&in->path, spill->options.dir, HM_SPILL_PAIRS, err));
    HM_TRY(hm_file_size(in->path, &bytes, err));
    if (bytes != spill->pairs_bytes || bytes % sizeof(uint64_t) != 0 ||
        bytes < (HEADER + 1) * sizeof(uint64_t))
        return fail_damaged(err, in->path, "it has another size than was written");
    in->left = bytes / sizeof(uint64_t) - 1;
    in->fd = open(in->path, O_RDONLY | O_CLOEXEC);
    if (in->fd < 0)
        return hm_fail(err, HM_ERR_IO, "cannot read '%s': %s", in->path, strerror(errno));
    for (size_t i = 0; i < HEADER; i++)
        HM_TRY(in_get(in, &header[i], err));
    if (header[0] != MAGIC || header[1] > MAX_CHARS || header[2] > in->left + in->n)
        return fail_damaged(err, in->path, "it is none of ours");
    return HM_OK;
}

static int in_end(struct words_in *in, struct hm_error *err)
{
    uint64_t hash = 0;

    if (in->left > 0 || in->at != in->n)
        return fail_damaged(err, in->path, "it holds more than was written");
    HM_TRY(read_all(in, &hash, sizeof(hash), err));
    return hash == in->hash ? HM_OK : fail_damaged(err, in->path, "it has changed");
}

static int characters_get(struct words_in *in, size_t n, struct han_character *character,
                          struct hm_error *err)
{
    uint64_t last = 0, index = 0, count = 0;

    for (size_t i = 0; i < n; i++, last = index) {
        HM_TRY(in_get(in, &index, err));
        HM_TRY(in_get(in, &count, err));
        if (index <= last || index >= HM_HAN_INDICES || hm_han_code((uint32_t)index) == 0)
            return fail_damaged(err, in->path, "no Han character");
        if (character)
            character[i] = (struct han_character){ hm_han_code((uint32_t)index), count };
    }
    return HM_OK;
}

typedef int pair_visit(void *context, const struct han_pair *pair, struct hm_error *err);

/* All of the file; each and character may be NULL. */
static int state_read(const struct han_spill *spill, pair_visit *each, void *context,
                      struct han_character **ret_character, uint64_t header[HEADER],
                      struct hm_error *err)
{
    struct words_in *in = hm_calloc(HM_MEM_VOCAB, 1, sizeof(*in));
    struct han_character *character = NULL;
    struct han_pair pair;
    int status = HM_OK;

    if (!in)
        return hm_fail_nomem(err, "for counts of Han characters");
    in->fd = -1;
    status = in_open(spill, in, header, err);
    for (uint64_t i = 0; status == HM_OK && i < header[2]; i++) {
        status = pair_get(in, &pair, err);
        if (status == HM_OK && each)
            status = each(context, &pair, err);
    }
    if (status == HM_OK && ret_character) {
        character = hm_calloc(HM_MEM_VOCAB, header[1], sizeof(*character));
        if (!character)
            status = hm_fail_nomem(err, "for %" PRIu64 " Han characters", header[1]);
    }
    if (status == HM_OK)
        status = characters_get(in, (size_t)header[1], character, err);
    if (status == HM_OK)
        status = in_end(in, err);
    if (in->fd >= 0)
        close(in->fd);
    hm_free(in->path);
    hm_free(in);
    if (status == HM_OK && ret_character)
        *ret_character = character;
    else
        hm_free(character);
    return status;
}

int hm_spill_pairs_walk(const struct han_spill *spill, pair_visit *each, void *context,
                        struct hm_error *err)
{
    uint64_t header[HEADER];

    return state_read(spill, each, context, NULL, header, err);
}

int hm_spill_characters_read(struct han_spill *spill, struct hm_error *err)
{
    uint64_t header[HEADER];

    HM_TRY(state_read(spill, NULL, NULL, &spill->character, header, err));
    spill->n_characters = (size_t)header[1];
    spill->n_pairs = header[2];
    return HM_OK;
}
