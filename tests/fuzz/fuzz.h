/* SPDX-License-Identifier: MIT */
/*
 * A fuzz target is one file fuzz_<name>.c that defines hm_fuzz_one, with seeds in corpus/<name>/;
 * both are named once in meson.build. The same file serves two programs: with -Dfuzz=libfuzzer a
 * fuzzer, and always a plain test that replays the corpus and fixed mutations of it, allocation
 * failures included (replay.c).
 */
#ifndef HANMIX_TESTS_FUZZ_H
#define HANMIX_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/*
 * Feed the bytes to the parser under test and release what it made. Any status is fine; what must
 * not happen is a crash, a sanitizer report, a leak, or a broken promise (abort on it by HM_BUG).
 * Returns 0.
 */
int hm_fuzz_one(const uint8_t *data, size_t size);

/* The bytes as a file whose name ends with suffix, for parsers that take a path. Valid until the
 * next call. */
const char *fuzz_file(const uint8_t *data, size_t size, const char *suffix);

/* The bytes as a file of this name, for parsers of folders: returns the folder. */
const char *fuzz_folder_file(const uint8_t *data, size_t size, const char *name);

#endif
