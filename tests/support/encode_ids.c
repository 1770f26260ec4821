/* SPDX-License-Identifier: MIT */
/*
 * encode_ids MODEL: documents of any bytes to ids, by hm_tokenizer_encode, for tests/interop.
 * Standard input: of each document its length (32 bits) and its bytes. Standard output: of each the
 * number of its ids (32 bits) and they (32 bits each). Native byte order. A model that is left to
 * libsentencepiece ends it with 3: versions of the library differ where unigram scores tie.
 */
#include <stdio.h>
#include <stdlib.h>

#include "hanmix/vocab/tokenizer.h"

/* 1, or 0 at the end of the input. */
static int document_read(char **text, uint32_t *room, uint32_t *ret_len)
{
    if (fread(ret_len, sizeof(*ret_len), 1, stdin) != 1)
        return 0;
    if (*ret_len >= *room) {
        free(*text);
        *room = *ret_len + 1;
        *text = malloc(*room);
        if (!*text)
            return 0;
    }
    return fread(*text, 1, *ret_len, stdin) == *ret_len;
}

int main(int argc, char **argv)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_error err = { 0 };
    struct hm_ids ids = { 0 };
    char *text = NULL;
    uint32_t room = 0, len = 0;

    if (argc != 2 || hm_tokenizer_open(argv[1], &tokenizer, &err) < 0) {
        fprintf(stderr, "usage: encode_ids MODEL < documents: %s\n", err.text);
        return 2;
    }
    const char *obstacle = hm_tokenizer_obstacle(&tokenizer->model);
    if (obstacle) {
        fprintf(stderr, "encode_ids: left to libsentencepiece: %s\n", obstacle);
        return 3;
    }
    while (document_read(&text, &room, &len)) {
        hm_ids_clear(&ids);
        if (hm_tokenizer_encode(tokenizer, (struct hm_str){ text, len }, &ids, &err) < 0) {
            fprintf(stderr, "encode_ids: %s\n", err.text);
            return 1;
        }
        uint32_t count = (uint32_t)ids.count;
        fwrite(&count, sizeof(count), 1, stdout);
        fwrite(ids.id, sizeof(*ids.id), ids.count, stdout);
    }
    hm_ids_release(&ids);
    hm_tokenizer_free(tokenizer);
    free(text);
    return fflush(stdout) != 0;
}
