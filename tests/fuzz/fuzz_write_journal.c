/* SPDX-License-Identifier: MIT */
/*
 * checkpoint/write_journal.c: of any journal what is told whole was told by a line that holds its
 * check, once; what is kept of the file tells the same again.
 */
#include "fuzz/fuzz.h"

#include <string.h>

#include "write_journal.h"

enum { COUNT = 8 };

static const char key[HM_SHA256_HEX_BYTES] =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

struct told {
    bool whole[COUNT];
    struct hm_whole_tensor tensor[COUNT];
};

static bool open_once(const char *dir, struct told *told)
{
    struct hm_write_journal journal;

    *told = (struct told){ 0 };
    if (hm_write_journal_open(dir, key, told->whole, told->tensor, COUNT, &journal, NULL) < 0)
        return false;
    hm_write_journal_release(&journal);
    return true;
}

int hm_fuzz_one(const uint8_t *data, size_t size)
{
    const char *dir = fuzz_folder_file(data, size, HM_WRITE_JOURNAL_FILE);
    struct told first, second;

    if (!open_once(dir, &first))
        return 0;
    for (size_t i = 0; i < COUNT; i++) {
        HM_BUG(memchr(first.tensor[i].sha256, 0, sizeof first.tensor[i].sha256) == NULL);
        HM_BUG(memchr(first.tensor[i].note, 0, sizeof first.tensor[i].note) == NULL);
    }
    if (!open_once(dir, &second))
        return 0;
    for (size_t i = 0; i < COUNT; i++) {
        const struct hm_whole_tensor *one = &first.tensor[i], *two = &second.tensor[i];
        HM_BUG(first.whole[i] != second.whole[i] || one->bytes != two->bytes);
        HM_BUG(strcmp(one->sha256, two->sha256) != 0 || strcmp(one->note, two->note) != 0);
    }
    return 0;
}
