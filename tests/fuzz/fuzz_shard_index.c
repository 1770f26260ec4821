/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/checkpoint.c: a model.safetensors.index.json over two small shards.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "hanmix/checkpoint/checkpoint.h"

static void put(const char *name, const char *text, size_t len)
{
    (void)fuzz_folder_file((const uint8_t *)text, len, name);
}

/* A shard of two tensors of one byte; the header of n bytes is the text. */
static void put_shard(const char *name, const char *header)
{
    char bytes[256] = { 0 };
    size_t len = strlen(header);

    bytes[0] = (char)len;
    memcpy(bytes + 8, header, len);
    put(name, bytes, 8 + len + 2);
}

static void put_rest(void)
{
    static const char config[] =
        "{\"model_type\": \"llama\", \"hidden_size\": 2, \"intermediate_size\": 2,"
        " \"num_hidden_layers\": 1, \"num_attention_heads\": 1, \"vocab_size\": 2,"
        " \"max_position_embeddings\": 8, \"rms_norm_eps\": 1e-5}";

    put("config.json", config, sizeof config - 1);
    put_shard("1.safetensors", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                               "\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}");
    put_shard("2.safetensors", "{\"c\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}");
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    static bool there;
    struct hm_checkpoint ckpt = { 0 };

    if (!there)
        put_rest();
    there = true;
    const char *dir = fuzz_folder_file(data, size, "model.safetensors.index.json");
    if (hm_checkpoint_open(dir, &ckpt, NULL) < 0)
        return 0;
    HM_BUG(ckpt.count == 0 || ckpt.count > 3);
    for (size_t i = 0; i < ckpt.count; i++)
        HM_BUG(hm_checkpoint_find(&ckpt, ckpt.tensor[i]->name) != ckpt.tensor[i]);
    hm_checkpoint_close(&ckpt);
    return 0;
}
