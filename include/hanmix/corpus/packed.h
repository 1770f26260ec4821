/* SPDX-License-Identifier: MIT */
/*
 * Packed token files (*.hmp): fixed windows of seq_len tokens cut from the stream of documents
 * (bos/eos as asked, joined end to end, the remainder dropped), with UTF-8 bytes and characters per
 * window, document boundaries, and the digests of tokenizer and text. Layout in docs/FORMATS.md.
 * Reader: mapped, hostile-safe, immutable after open.
 * Thread class: reader immutable after open, writer owner thread with parallel loops inside.
 */
#ifndef HANMIX_CORPUS_PACKED_H
#define HANMIX_CORPUS_PACKED_H

#include "hanmix/base/ctl.h"
#include "hanmix/base/file.h"
#include "hanmix/base/text.h"

struct hm_pack_options {
    uint32_t seq_len;        /* 2048 */
    bool bos, eos;           /* bos true, eos true */
    bool shuffle;            /* documents leave a buffer in random order, by seed */
    uint64_t shuffle_buffer; /* documents held, within a bound on their tokens */
    double valid_fraction;   /* share of documents (by hash) written to valid.hmp */
    uint64_t seed;
    uint32_t verify; /* verify the ids of one document in N, read the files back; 0 none */
    /* BPE-dropout of documents for training, keyed by seed and document number: another epoch's
     * copy is another document. The share kept for validation is encoded plainly. */
    double bpe_dropout;
};
struct hm_pack_report {
    uint64_t documents, bytes, chars; /* of the text read */
    /* bos and eos included: (windows + valid_windows) * seq_len + dropped_tokens */
    uint64_t tokens;
    uint64_t windows, valid_windows, dropped_tokens;
    uint64_t verified; /* documents */
};
/* Writes out_dir/train.hmp and, when valid_fraction > 0, out_dir/valid.hmp. text_digest: identity
 * of the input for the header. */
int hm_pack(struct hm_text_source *source, const struct hm_text_encoder *encoder,
            const struct hm_pack_options *options, const char *text_digest, const char *out_dir,
            const struct hm_ctl *ctl, struct hm_pack_report *ret_report, struct hm_error *err);

struct hm_packed {
    struct hm_map map;
    char *path;
    uint32_t seq_len;
    uint64_t windows;
    uint32_t vocab_size;
    uint32_t token_bytes; /* 2 or 4 */
    char tokenizer[HM_SHA256_HEX_BYTES];
    char text[HM_SHA256_HEX_BYTES];
    const uint8_t *records_view; /* private: of the mapping */
    size_t record_bytes;         /* private */
};
struct hm_window {
    uint64_t utf8_bytes, chars; /* of the text the window's target tokens stand for */
};
/* a .hmp file, or a folder with train.hmp or one .hmp */
int hm_packed_open(const char *path, struct hm_packed *ret_packed, struct hm_error *err);
void hm_packed_close(struct hm_packed *packed);
/* Reads the whole file and compares its digest; every window is checked on its own when it is read.
 */
int hm_packed_verify(const struct hm_packed *packed, struct hm_error *err);
/* ids[seq_len]; doc_start[seq_len] (may be NULL): 1 where a document begins. Token ids are checked
 * against vocab_size. */
int hm_packed_window(const struct hm_packed *packed, uint64_t index, int32_t *ids,
                     uint8_t *doc_start, struct hm_window *ret_window, struct hm_error *err);

/*
 * Order of training samples: a permutation of 0..n-1 per epoch, computed from (seed, epoch,
 * position) without a table (Feistel network with cycle walking), so the cursor is one number.
 * shuffle false: identity.
 */
uint64_t hm_sample_index(uint64_t n, uint64_t seed, bool shuffle, uint64_t position);

#endif
