/* SPDX-License-Identifier: MIT */
/*
 * A program of one's own on libhanmix: how many tokens a tokenizer needs for the documents of a
 * file.
 *
 *   cc count_tokens.c $(pkg-config --cflags --libs hanmix) -o count_tokens
 *   ./count_tokens tokenizer.model text.jsonl.zst
 */
#include <inttypes.h>
#include <stdio.h>

#include <hanmix/corpus/text_files.h>
#include <hanmix/vocab/tokenizer.h>

static int count(const char *tokenizer_path, char *text_path, struct hm_error *err)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_text_source source = { 0 };
    char name[] = "text";
    struct hm_text_set set = { .name = name, .file = &text_path, .n_files = 1, .epochs = 1 };
    struct hm_text_options options = { .field = "text" };
    struct hm_ids ids = { 0 };
    struct hm_doc doc;
    uint64_t documents = 0, bytes = 0, tokens = 0;
    int more = 0;
    int status = hm_tokenizer_open(tokenizer_path, &tokenizer, err);

    if (status == HM_OK)
        status = hm_text_files_open(&set, 1, &options, &source, err);
    while (status == HM_OK && (more = source.next(source.context, &doc, err)) > 0) {
        hm_ids_clear(&ids);
        status = hm_tokenizer_encode(tokenizer, doc.text, &ids, err);
        documents++;
        bytes += doc.text.len;
        tokens += ids.count;
    }
    if (more < 0)
        status = more;
    if (status == HM_OK)
        printf("%" PRIu64 " documents, %" PRIu64 " bytes, %" PRIu64 " tokens\n", documents, bytes,
               tokens);
    hm_ids_release(&ids);
    if (source.close)
        source.close(source.context);
    hm_tokenizer_free(tokenizer);
    return status;
}

int main(int argc, char **argv)
{
    struct hm_error err = { 0 };

    if (argc != 3) {
        fprintf(stderr, "usage: count_tokens TOKENIZER TEXT\n");
        return 2;
    }
    int status = count(argv[1], argv[2], &err);
    if (status < 0)
        fprintf(stderr, "count_tokens: %s\n", err.text);
    return hm_status_exit_code(status);
}
