/* SPDX-License-Identifier: MIT */
/*
 * tokenizer_config.json and special_tokens_map.json. A base folder's files are copied byte for byte
 * (they hold integers beyond 64 bits, chat templates and whatever comes next); without one the
 * settings of the LLaMA line in its legacy form are written.
 */
#include <stdlib.h>
#include <string.h>

#include "hanmix/base/file.h"
#include "tokenizer_files.h"

#define CONFIG_MAX_BYTES (16u << 20)

/* "added_tokens_decoder": {"0": {"content": "<unk>", ...}} must agree with the model. */
static int check_decoder(const struct hm_spm_model *model, const char *path, json_t *root,
                         struct hm_error *err)
{
    json_t *tokens = json_object_get(root, "added_tokens_decoder");
    const char *key;
    json_t *token;

    json_object_foreach(tokens, key, token)
    {
        const json_t *content = json_object_get(token, "content");
        char *end;
        long long id = strtoll(key, &end, 10);
        if (*key == '\0' || *end != '\0' || !json_is_string(content))
            return hm_fail(err, HM_ERR_FORMAT,
                           "'%s': added_tokens_decoder: '%s' is no id with a content", path, key);
        struct hm_str text = { json_string_value(content), json_string_length(content) };
        HM_TRY(hm_added_token_check(model, path, id, text, err));
    }
    return HM_OK;
}

/*
 * model_max_length is commonly 10^30, more than an integer of the parser holds. Only ids are looked
 * at here, so runs of digits outside strings are cut to nine in the copy that is parsed.
 */
static void shorten_numbers(struct hm_buf *text)
{
    size_t digits = 0;
    size_t kept = 0;
    bool in_string = false;

    for (size_t i = 0; i < text->len; i++) {
        char c = text->ptr[i];
        bool escaped = in_string && c == '\\' && i + 1 < text->len;
        digits = !in_string && c >= '0' && c <= '9' ? digits + 1 : 0;
        in_string ^= c == '"';
        if (digits > 9)
            continue;
        text->ptr[kept++] = c;
        if (escaped)
            text->ptr[kept++] = text->ptr[++i];
    }
    text->len = kept;
}

static int check_config(const struct hm_spm_model *model, const char *path, struct hm_error *err)
{
    struct hm_buf text = { 0 };
    json_t *root = NULL;

    HM_TRY(hm_file_read(path, CONFIG_MAX_BYTES, &text, err));
    shorten_numbers(&text);
    int status = hm_json_parse((struct hm_str){ text.ptr, text.len }, path, &root, err);
    if (status == HM_OK)
        status = check_decoder(model, path, root, err);
    json_decref(root);
    hm_buf_release(&text);
    return status;
}

static int quoted_meta(const struct hm_spm_model *model, int32_t id, const char *before,
                       const char *after, struct hm_buf *buf, struct hm_error *err)
{
    HM_TRY(hm_buf_text(buf, before, err));
    if (id < 0)
        HM_TRY(hm_buf_text(buf, "null", err));
    else
        HM_TRY(hm_json_quote(buf, model->piece[id].text, err));
    return hm_buf_text(buf, after, err);
}

#define TOKEN_FLAGS_TEXT \
    "\"lstrip\": false, \"normalized\": false, \"rstrip\": false, \"single_word\": false"

static int decoder_text(const struct hm_spm_model *model, struct hm_buf *buf, struct hm_error *err)
{
    bool first = true;

    for (size_t i = 0; i < model->count; i++) {
        enum hm_piece_type type = model->piece[i].type;
        if (type != HM_PIECE_UNKNOWN && type != HM_PIECE_CONTROL && type != HM_PIECE_USER)
            continue;
        HM_TRY(hm_buf_printf(buf, err, "%s\n    \"%zu\": {\"content\": ", first ? "" : ",", i));
        HM_TRY(hm_json_quote(buf, model->piece[i].text, err));
        HM_TRY(hm_buf_printf(buf, err, ", " TOKEN_FLAGS_TEXT ", \"special\": %s}",
                             type == HM_PIECE_USER ? "false" : "true"));
        first = false;
    }
    return HM_OK;
}

static int config_text(const struct hm_spm_model *model, struct hm_buf *buf, struct hm_error *err)
{
    HM_TRY(hm_buf_printf(buf, err,
                         "{\n  \"add_bos_token\": %s,\n  \"add_eos_token\": false,\n"
                         "  \"added_tokens_decoder\": {",
                         model->bos_id >= 0 ? "true" : "false"));
    HM_TRY(decoder_text(model, buf, err));
    HM_TRY(quoted_meta(model, model->bos_id, "\n  },\n  \"bos_token\": ",
                       ",\n  \"clean_up_tokenization_spaces\": false", buf, err));
    HM_TRY(quoted_meta(model, model->eos_id, ",\n  \"eos_token\": ", ",\n  \"legacy\": true", buf,
                       err));
    HM_TRY(quoted_meta(model, model->pad_id,
                       ",\n  \"model_max_length\": 1000000000000000019884624838656,\n"
                       "  \"pad_token\": ",
                       ",\n  \"sp_model_kwargs\": {},\n  \"tokenizer_class\": \"LlamaTokenizer\"",
                       buf, err));
    return quoted_meta(model, model->unk_id,
                       ",\n  \"unk_token\": ", ",\n  \"use_default_system_prompt\": false\n}\n",
                       buf, err);
}

static int special_text(const struct hm_spm_model *model, struct hm_buf *buf, struct hm_error *err)
{
    const struct {
        const char *name;
        int32_t id;
    } tokens[] = { { "bos_token", model->bos_id },
                   { "eos_token", model->eos_id },
                   { "pad_token", model->pad_id },
                   { "unk_token", model->unk_id } };
    bool first = true;

    HM_TRY(hm_buf_text(buf, "{", err));
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
        if (tokens[i].id < 0)
            continue;
        HM_TRY(hm_buf_printf(buf, err, "%s\n  \"%s\": {\"content\": ", first ? "" : ",",
                             tokens[i].name));
        HM_TRY(hm_json_quote(buf, model->piece[tokens[i].id].text, err));
        HM_TRY(hm_buf_text(buf, ", " TOKEN_FLAGS_TEXT "}", err));
        first = false;
    }
    return hm_buf_text(buf, "\n}\n", err);
}

static int write_one(const struct hm_spm_model *model, const char *base_dir, const char *out_dir,
                     const char *name,
                     int (*text)(const struct hm_spm_model *, struct hm_buf *, struct hm_error *),
                     struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    char *from = NULL;
    char *to = NULL;
    int status = hm_path_join(&to, out_dir, name, err);

    if (status == HM_OK && base_dir)
        status = hm_path_join(&from, base_dir, name, err);
    if (status < 0)
        goto out;
    if (from && hm_path_exists(from)) {
        status = check_config(model, from, err);
        if (status == HM_OK)
            status = hm_file_copy(from, to, err);
        goto out;
    }
    status = text(model, &buf, err);
    if (status == HM_OK)
        status = hm_file_write(to, buf.ptr, buf.len, err);
out:
    hm_buf_release(&buf);
    hm_free(from);
    hm_free(to);
    return status;
}

int hm_tokenizer_config_write(const struct hm_spm_model *model, const char *base_dir_or_null,
                              const char *out_dir, struct hm_error *err)
{
    HM_TRY(write_one(model, base_dir_or_null, out_dir, "tokenizer_config.json", config_text, err));
    return write_one(model, base_dir_or_null, out_dir, "special_tokens_map.json", special_text,
                     err);
}
