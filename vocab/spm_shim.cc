/* SPDX-License-Identifier: MIT */
/*
 * libsentencepiece behind C functions: the only C++ of the project. No exception leaves this file.
 * The library keeps ids as int and sizes as size_t; texts reach it in parts of bounded size
 * (tokenizer.c), so neither overflows.
 */
#include "spm_shim.h"

#include <exception>
#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

using sentencepiece::SentencePieceProcessor;

static int fail_status(struct hm_error *err, const char *action,
                       const sentencepiece::util::Status &status)
{
    return hm_fail(err, HM_ERR_FORMAT, "libsentencepiece cannot %s: %s", action,
                   status.error_message());
}

/* Run body, which returns an hm_status, and turn what it throws into one. */
template <typename Body>
static int guarded(struct hm_error *err, const char *action, Body body) noexcept
{
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return hm_fail_nomem(err, "in libsentencepiece: cannot %s", action);
    } catch (const std::exception &e) {
        return hm_fail(err, HM_ERR_FORMAT, "libsentencepiece cannot %s: %s", action, e.what());
    } catch (...) {
        return hm_fail(err, HM_ERR_FORMAT, "libsentencepiece cannot %s", action);
    }
}

int hm_spm_shim_open(struct hm_str model, const char *what, void **ret_processor,
                     struct hm_error *err)
{
    int result = guarded(err, "load a model", [&] {
        auto processor = std::make_unique<SentencePieceProcessor>();
        const auto status = processor->LoadFromSerializedProto({ model.ptr, model.len });
        if (!status.ok())
            return fail_status(err, "load a model", status);
        *ret_processor = processor.release();
        return static_cast<int>(HM_OK);
    });
    if (result < 0)
        hm_error_prefix(err, "'%s'", what);
    return result;
}

void hm_spm_shim_close(void *processor)
{
    delete static_cast<SentencePieceProcessor *>(processor);
}

int hm_spm_shim_encode(const void *processor, struct hm_str text, struct hm_ids *ids,
                       struct hm_error *err)
{
    return guarded(err, "encode a text", [&] {
        std::vector<int> found;
        const auto status = static_cast<const SentencePieceProcessor *>(processor)->Encode(
            { text.ptr ? text.ptr : "", text.len }, &found);
        if (!status.ok())
            return fail_status(err, "encode a text", status);
        return hm_ids_append(ids, found.data(), found.size(), err);
    });
}

int hm_spm_shim_decode(const void *processor, const int32_t *ids, size_t n, struct hm_buf *text,
                       struct hm_error *err)
{
    return guarded(err, "decode ids", [&] {
        std::string found;
        const auto status = static_cast<const SentencePieceProcessor *>(processor)->Decode(
            std::vector<int>(ids, ids + n), &found);
        if (!status.ok())
            return fail_status(err, "decode ids", status);
        return hm_buf_append(text, found.data(), found.size(), err);
    });
}
