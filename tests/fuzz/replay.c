/* SPDX-License-Identifier: MIT */
/*
 * Replays a corpus folder through hm_fuzz_one: each file as it is, then a fixed number of mutations
 * of it, the same in every run; every fourth mutation also lets a random allocation fail. A leak or
 * a crash names the file and the mutation, and leaves the bytes in hanmix-fuzz-input.
 *
 * usage: replay CORPUS_FOLDER [MUTATIONS_PER_FILE [ONLY_FILE]]
 */
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/file.h"
#include "hanmix/base/hash.h"
#include "hanmix/base/rng.h"

#define INPUT_MAX_BYTES (1u << 20)

struct input {
    uint8_t *data; /* INPUT_MAX_BYTES of room */
    size_t size;
};

struct draws { /* a stream of random numbers */
    struct hm_rng_key key;
    uint64_t counter;
};

static struct input current; /* for the crash handler */
static char current_name[512];

static uint64_t draw(struct draws *draws, uint64_t bound)
{
    return hm_rng_below(draws->key, draws->counter++, bound);
}

static void tell(const char *why)
{
    int fd = open("hanmix-fuzz-input", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    ssize_t ignored = fd >= 0 ? write(fd, current.data, current.size) : 0;

    ignored += write(2, why, strlen(why));
    ignored += write(2, current_name, strlen(current_name));
    ignored += write(2, "\n", 1);
    (void)ignored;
}

static void on_crash(int number)
{
    tell("crash on ");
    signal(number, SIG_DFL);
    raise(number);
}

/* Replace `cut` bytes at `at` by `len` bytes; too large a result is left as it was. */
static void input_splice(struct input *input, size_t at, size_t cut, const uint8_t *data,
                         size_t len)
{
    if (input->size - cut + len > INPUT_MAX_BYTES)
        return;
    memmove(input->data + at + len, input->data + at + cut, input->size - at - cut);
    memcpy(input->data + at, data, len);
    input->size += len - cut;
}

static void mutate_once(struct input *input, const struct input *other, struct draws *draws)
{
    static const uint8_t odd[] = { 0x00, 0x01, 0x7f, 0x80, 0xff, '"', '\\',
                                   '{',  '[',  '0',  '9',  '-',  '\n' };
    size_t at = input->size ? draw(draws, input->size) : 0;
    size_t rest = input->size - at;
    uint8_t bytes[64];
    size_t len = draw(draws, 9);

    switch (draw(draws, 7)) {
    case 0: /* flip a bit */
        if (rest > 0)
            input->data[at] ^= (uint8_t)(1u << draw(draws, 8));
        break;
    case 1: /* an odd byte */
        if (rest > 0)
            input->data[at] = odd[draw(draws, sizeof(odd))];
        break;
    case 2: /* cut the end off */
        input->size = at;
        break;
    case 3: /* take a piece out */
        input_splice(input, at, len < rest ? len : rest, bytes, 0);
        break;
    case 4: /* put random bytes in */
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)draw(draws, 256);
        input_splice(input, at, 0, bytes, len);
        break;
    case 5: /* an extreme little-endian word: lengths and offsets */
        memset(bytes, draw(draws, 2) ? 0xff : 0x00, 8);
        bytes[draw(draws, 8)] = odd[draw(draws, 5)];
        input_splice(input, at, rest < 8 ? rest : 8, bytes, 8);
        break;
    default: /* a piece of another seed */
        if (other->size > 0) {
            size_t from = draw(draws, other->size);
            len = 1 + draw(draws, sizeof(bytes));
            if (len > other->size - from)
                len = other->size - from;
            memcpy(bytes, other->data + from, len);
            input_splice(input, at, draw(draws, 2) && rest >= len ? len : 0, bytes, len);
        }
    }
}

static int run_once(bool fail_allocation, struct draws *draws)
{
    uint64_t before = hm_mem_total_bytes();

    if (fail_allocation)
        hm_alloc_fail_after((int64_t)draw(draws, 40));
    /* A copy of exactly this size, so that reading past the end is seen. */
    uint8_t *exact = malloc(current.size ? current.size : 1);
    if (!exact)
        return 1;
    memcpy(exact, current.data, current.size);
    hm_fuzz_one(exact, current.size);
    free(exact);
    hm_alloc_fail_after(-1);
    if (hm_mem_total_bytes() == before)
        return 0;
    tell("leak on ");
    return 1;
}

static int load(const char *dir, const char *name, struct input *ret, struct hm_error *err)
{
    char *path = NULL;
    struct hm_buf buf = { 0 };

    HM_TRY(hm_path_join(&path, dir, name, err));
    int status = hm_file_read(path, INPUT_MAX_BYTES, &buf, err);
    if (status == HM_OK) {
        memcpy(ret->data, buf.ptr, buf.len);
        ret->size = buf.len;
    }
    hm_buf_release(&buf);
    hm_free(path);
    return status;
}

static int replay_file(const char *dir, const struct hm_names *names, size_t index,
                       uint64_t mutations)
{
    struct input seed = { malloc(INPUT_MAX_BYTES), 0 };
    struct input other = { malloc(INPUT_MAX_BYTES), 0 };
    const char *name = names->item[index];
    struct draws draws = { { hm_hash64(name, strlen(name), 0), 1 }, 0 };
    struct hm_error err = { 0 };
    int failed = !seed.data || !other.data;

    if (!failed && load(dir, name, &seed, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        failed = 1;
    }
    for (uint64_t round = 0; !failed && round <= mutations; round++) {
        snprintf(current_name, sizeof(current_name), "%.400s, mutation %u", name, (unsigned)round);
        memcpy(current.data, seed.data, seed.size);
        current.size = seed.size;
        if (round > 0) {
            if (round % 16 == 1 &&
                load(dir, names->item[draw(&draws, names->count)], &other, &err) < 0)
                other.size = 0;
            for (uint64_t times = 1 + draw(&draws, 4); times > 0; times--)
                mutate_once(&current, &other, &draws);
        }
        failed = run_once(round % 4 == 3, &draws);
    }
    free(seed.data);
    free(other.data);
    return failed;
}

int main(int argc, char **argv)
{
    struct hm_names names = { 0 };
    struct hm_error err = { 0 };
    uint64_t mutations = 300;
    int failed = 0;

    if (argc < 2 || (argc > 2 && hm_parse_count(argv[2], &mutations, &err) < 0)) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER [MUTATIONS_PER_FILE [ONLY_FILE]]\n", argv[0]);
        return 2;
    }
    if (hm_dir_list(argv[1], &names, &err) < 0 || names.count == 0) {
        fprintf(stderr, "no seeds: %s %s\n", argv[1], err.text);
        return 1;
    }
    current.data = malloc(INPUT_MAX_BYTES);
    if (!current.data)
        return 1;
    signal(SIGSEGV, on_crash);
    signal(SIGABRT, on_crash);
    signal(SIGFPE, on_crash);
    for (size_t i = 0; i < names.count; i++)
        if (argc < 4 || strcmp(argv[3], names.item[i]) == 0)
            failed |= replay_file(argv[1], &names, i, mutations);
    printf("%zu seeds, %u mutations of each\n", names.count, (unsigned)mutations);
    hm_names_release(&names);
    free(current.data);
    return failed;
}
