/* SPDX-License-Identifier: MIT */
/*
 * The table of element types, one row each, and the conversions of float types to and from f32.
 * The scalar conversions are those of kernels/convert.h; hot paths go through the kernel table.
 */
#include <string.h>
#include <strings.h>

#include "hanmix/checkpoint/dtype.h"
#include "hanmix/kernels/convert.h"

static const struct {
    const char *name;
    const char *hf_name;
    size_t bytes;
} dtypes[HM_DTYPE_COUNT] = {
    [HM_DTYPE_BOOL] = { "BOOL", "bool", 1 },
    [HM_DTYPE_U8] = { "U8", "uint8", 1 },
    [HM_DTYPE_I8] = { "I8", "int8", 1 },
    [HM_DTYPE_F8_E5M2] = { "F8_E5M2", "float8_e5m2", 1 },
    [HM_DTYPE_F8_E4M3] = { "F8_E4M3", "float8_e4m3fn", 1 },
    [HM_DTYPE_I16] = { "I16", "int16", 2 },
    [HM_DTYPE_U16] = { "U16", "uint16", 2 },
    [HM_DTYPE_F16] = { "F16", "float16", 2 },
    [HM_DTYPE_BF16] = { "BF16", "bfloat16", 2 },
    [HM_DTYPE_I32] = { "I32", "int32", 4 },
    [HM_DTYPE_U32] = { "U32", "uint32", 4 },
    [HM_DTYPE_F32] = { "F32", "float32", 4 },
    [HM_DTYPE_F64] = { "F64", "float64", 8 },
    [HM_DTYPE_I64] = { "I64", "int64", 8 },
    [HM_DTYPE_U64] = { "U64", "uint64", 8 },
};

const char *hm_dtype_name(enum hm_dtype dtype)
{
    HM_BUG((unsigned)dtype >= HM_DTYPE_COUNT);
    return dtypes[dtype].name;
}

const char *hm_dtype_hf_name(enum hm_dtype dtype)
{
    HM_BUG((unsigned)dtype >= HM_DTYPE_COUNT);
    return dtypes[dtype].hf_name;
}

size_t hm_dtype_bytes(enum hm_dtype dtype)
{
    HM_BUG((unsigned)dtype >= HM_DTYPE_COUNT);
    return dtypes[dtype].bytes;
}

int hm_dtype_parse(const char *name, enum hm_dtype *ret_dtype, struct hm_error *err)
{
    for (int i = 0; i < HM_DTYPE_COUNT; i++) {
        if (strcasecmp(name, dtypes[i].name) == 0 || strcmp(name, dtypes[i].hf_name) == 0) {
            *ret_dtype = (enum hm_dtype)i;
            return HM_OK;
        }
    }
    return hm_fail(err, HM_ERR_FORMAT, "element type '%s' is not known", name);
}

bool hm_dtype_is_weight(enum hm_dtype dtype)
{
    return dtype == HM_DTYPE_F32 || dtype == HM_DTYPE_F16 || dtype == HM_DTYPE_BF16;
}

static int not_float(enum hm_dtype dtype, struct hm_error *err)
{
    return hm_fail(err, HM_ERR_FORMAT, "element type %s is not one of F16, BF16, F32, F64",
                   hm_dtype_name(dtype));
}

static uint16_t load_u16(const uint8_t *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof bits);
    return bits;
}

int hm_dtype_to_f32(enum hm_dtype dtype, const void *data, size_t count, float *out,
                    struct hm_error *err)
{
    const uint8_t *in = data;

    switch (dtype) {
    case HM_DTYPE_F16:
        for (size_t i = 0; i < count; i++)
            out[i] = hm_f16_to_f32(load_u16(in + 2 * i));
        return HM_OK;
    case HM_DTYPE_BF16:
        for (size_t i = 0; i < count; i++)
            out[i] = hm_bf16_to_f32(load_u16(in + 2 * i));
        return HM_OK;
    case HM_DTYPE_F32:
        if (count > 0)
            memcpy(out, in, count * sizeof(float));
        return HM_OK;
    case HM_DTYPE_F64:
        for (size_t i = 0; i < count; i++) {
            double value;
            memcpy(&value, in + sizeof value * i, sizeof value);
            out[i] = (float)value;
        }
        return HM_OK;
    default:
        return not_float(dtype, err);
    }
}

int hm_dtype_from_f32(enum hm_dtype dtype, const float *values, size_t count, void *out,
                      struct hm_error *err)
{
    uint8_t *to = out;

    switch (dtype) {
    case HM_DTYPE_F16:
    case HM_DTYPE_BF16:
        for (size_t i = 0; i < count; i++) {
            uint16_t bits =
                dtype == HM_DTYPE_F16 ? hm_f32_to_f16(values[i]) : hm_f32_to_bf16(values[i]);
            memcpy(to + sizeof bits * i, &bits, sizeof bits);
        }
        return HM_OK;
    case HM_DTYPE_F32:
        if (count > 0)
            memcpy(to, values, count * sizeof(float));
        return HM_OK;
    case HM_DTYPE_F64:
        for (size_t i = 0; i < count; i++) {
            double value = values[i];
            memcpy(to + sizeof value * i, &value, sizeof value);
        }
        return HM_OK;
    default:
        return not_float(dtype, err);
    }
}

void hm_floats_load(enum hm_dtype dtype, const void *data, size_t count, float *out)
{
    int status = hm_dtype_to_f32(dtype, data, count, out, NULL);

    HM_BUG(status < 0);
}

void hm_floats_store(enum hm_dtype dtype, const float *values, size_t count, void *out)
{
    int status = hm_dtype_from_f32(dtype, values, count, out, NULL);

    HM_BUG(status < 0);
}
