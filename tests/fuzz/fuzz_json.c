/* SPDX-License-Identifier: MIT */
/*
 * base/json.c: what parses must be written and parse again to the same value.
 */
#include "fuzz/fuzz.h"

#include "hanmix/base/json.h"

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    struct hm_buf line = { 0 };
    json_t *value = NULL;
    json_t *again = NULL;
    uint64_t number;

    if (hm_json_parse((struct hm_str){ (const char *)data, size }, "input", &value, NULL) < 0)
        return 0;
    if (hm_json_dump(value, &line, NULL) == HM_OK) {
        struct hm_error err = { 0 };
        int status = hm_json_parse((struct hm_str){ line.ptr, line.len }, "output", &again, &err);
        HM_BUG(status == HM_ERR_FORMAT);
        HM_BUG(status == HM_OK && !json_equal(value, again));
        (void)hm_json_u64_opt(value, "a", "input", &number, NULL);
    }
    json_decref(value);
    json_decref(again);
    hm_buf_release(&line);
    return 0;
}
