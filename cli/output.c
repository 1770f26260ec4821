/* SPDX-License-Identifier: MIT */
/*
 * Results on standard output, and the proof that they arrived there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli.h"

int hm_print_flush(struct hm_error *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return hm_fail(err, HM_ERR_IO, "cannot write to standard output: %s", strerror(errno));
    return HM_OK;
}

int hm_print_json(json_t *value, struct hm_error *err)
{
    int failed = json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);

    json_decref(value);
    if (failed && !ferror(stdout))
        return hm_fail(err, HM_ERR_NOMEM, "cannot print the result as JSON");
    putchar('\n');
    return hm_print_flush(err);
}

int hm_print_buf(struct hm_buf *buf, struct hm_error *err)
{
    if (buf->len > 0)
        fwrite(buf->ptr, 1, buf->len, stdout);
    hm_buf_release(buf);
    return hm_print_flush(err);
}
