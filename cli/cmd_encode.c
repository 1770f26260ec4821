/* SPDX-License-Identifier: MIT */
/*
 * Verbs encode and decode: lines of text to lines of token ids on the standard streams, and back,
 * with any tokenizer that vocab.measure reads.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "hanmix/vocab/any_tokenizer.h"

struct codec {
    struct hm_any_tokenizer *tokenizer;
    bool pieces, bos;
    struct hm_ids ids;
    struct hm_buf text;
};

/* A piece as it stands in the vocabulary; a space in it would break the line apart. */
static int print_piece(struct codec *codec, struct hm_str piece, struct hm_error *err)
{
    hm_buf_clear(&codec->text);
    HM_TRY(hm_buf_word(&codec->text, piece, err));
    for (size_t i = 0; i < codec->text.len; i++)
        if (codec->text.ptr[i] == ' ')
            fputs("\\x20", stdout);
        else
            putchar(codec->text.ptr[i]);
    return HM_OK;
}

static int encode_line(struct codec *codec, struct hm_str line, struct hm_error *err)
{
    hm_ids_clear(&codec->ids);
    if (codec->bos)
        HM_TRY(hm_ids_append(&codec->ids, &codec->tokenizer->spm->model.bos_id, 1, err));
    HM_TRY(hm_any_tokenizer_encode(codec->tokenizer, line, &codec->ids, err));
    for (size_t i = 0; i < codec->ids.count; i++) {
        if (i > 0)
            putchar(' ');
        if (codec->pieces)
            HM_TRY(print_piece(
                codec, hm_any_tokenizer_text(codec->tokenizer, (size_t)codec->ids.id[i]), err));
        else
            printf("%d", (int)codec->ids.id[i]);
    }
    return HM_OK;
}

static int parse_ids(struct codec *codec, const char *line, struct hm_error *err)
{
    hm_ids_clear(&codec->ids);
    for (;;) {
        char *end;
        line += strspn(line, " \t\r");
        if (*line == '\0')
            return HM_OK;
        errno = 0;
        long value = strtol(line, &end, 10);
        if (end == line || errno || value < 0 || (size_t)value >= codec->tokenizer->count)
            return hm_fail(err, HM_ERR_FORMAT, "'%.*s' is not a token id: 0 to %zu",
                           (int)strcspn(line, " \t\r"), line, codec->tokenizer->count - 1);
        int32_t id = (int32_t)value;
        HM_TRY(hm_ids_append(&codec->ids, &id, 1, err));
        line = end;
    }
}

static int decode_line(struct codec *codec, struct hm_str line, struct hm_error *err)
{
    if (memchr(line.ptr, '\0', line.len))
        return hm_fail(err, HM_ERR_FORMAT, "a NUL byte among token ids");
    HM_TRY(parse_ids(codec, line.ptr, err));
    hm_buf_clear(&codec->text);
    HM_TRY(hm_any_tokenizer_decode(codec->tokenizer, codec->ids.id, codec->ids.count, &codec->text,
                                   err));
    if (codec->text.len > 0)
        fwrite(codec->text.ptr, 1, codec->text.len, stdout);
    return HM_OK;
}

/* A last line without an end stays one, so that decoding gives the bytes that were encoded. */
static int each_line(struct codec *codec,
                     int (*one)(struct codec *, struct hm_str, struct hm_error *),
                     struct hm_error *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t got;
    uint64_t number = 0;
    int status = HM_OK;

    while (status == HM_OK && (got = getline(&line, &cap, stdin)) >= 0) {
        number++;
        bool ended = got > 0 && line[got - 1] == '\n';
        if (ended)
            line[--got] = '\0';
        status = one(codec, (struct hm_str){ line, (size_t)got }, err);
        if (status == HM_OK && ended)
            putchar('\n');
        if (status < 0)
            hm_error_prefix(err, "line %llu", (unsigned long long)number);
        else if (ferror(stdout))
            status = hm_print_flush(err);
    }
    if (status == HM_OK && !feof(stdin))
        status = hm_fail(err, HM_ERR_IO, "cannot read standard input: %s", strerror(errno));
    free(line);
    return status == HM_OK ? hm_print_flush(err) : status;
}

static int run_codec(int argc, char **argv, bool encoding, struct hm_error *err)
{
    const char *path = NULL;
    struct codec codec = { 0 };
    bool quiet = false;
    const struct hm_arg table[] = { { "tokenizer", HM_ARG_TEXT, &path },
                                    { "quiet", HM_ARG_FLAG, &quiet },
                                    { "pieces", HM_ARG_FLAG, &codec.pieces },
                                    { "bos", HM_ARG_FLAG, &codec.bos } };
    size_t words;

    HM_TRY(hm_args_take(argc, argv, table, encoding ? 4 : 2, &words, err));
    HM_TRY(hm_args_count(argv[0], words, 0, 0, err));
    if (!path)
        return hm_fail(err, HM_ERR_USAGE, "%s: --tokenizer FILE is missing", argv[0]);
    HM_TRY(hm_any_tokenizer_open(path, &codec.tokenizer, err));
    int status = HM_OK;
    if (codec.bos && (!codec.tokenizer->spm || codec.tokenizer->spm->model.bos_id < 0))
        status =
            hm_fail(err, HM_ERR_USAGE, "--bos: '%s' names no beginning-of-sentence token", path);
    if (status == HM_OK)
        status = each_line(&codec, encoding ? encode_line : decode_line, err);
    hm_ids_release(&codec.ids);
    hm_buf_release(&codec.text);
    hm_any_tokenizer_free(codec.tokenizer);
    return status;
}

int hm_cmd_encode(int argc, char **argv, struct hm_error *err)
{
    return run_codec(argc, argv, true, err);
}

int hm_cmd_decode(int argc, char **argv, struct hm_error *err)
{
    return run_codec(argc, argv, false, err);
}
