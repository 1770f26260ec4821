/* SPDX-License-Identifier: MIT */
/*
 * A Hugging Face model folder as one namespace of tensors: single or sharded safetensors, the index
 * verified (every mapped tensor exists in its file; extra tensors and missing shards are errors
 * naming them), config.json parsed. Also the writer of such a folder: tensors planned first, cut
 * into shards, streamed, index written last. Thread class: reader immutable after open; writer
 * owner thread.
 */
#ifndef HANMIX_CHECKPOINT_CHECKPOINT_H
#define HANMIX_CHECKPOINT_CHECKPOINT_H

#include "hanmix/checkpoint/model_arch.h"
#include "hanmix/checkpoint/safetensors.h"

#define HM_MODEL_FILE       "model.safetensors" /* all weights of a folder, or: */
#define HM_MODEL_INDEX_FILE "model.safetensors.index.json"
#define HM_RECORD_FILE      "hanmix.json" /* what only this program knows of a folder */
#define HM_RECORD_MAX_BYTES (1u << 20)
#define HM_RECORD_VERSION   1u

struct hm_checkpoint {
    char *dir;
    struct hm_safetensors *file;
    size_t n_files;
    const struct hm_tensor **tensor; /* sorted by name, over all files */
    size_t count;
    json_t *config; /* config.json as read */
    struct hm_arch arch;
};

int hm_checkpoint_open(const char *dir, struct hm_checkpoint *ret_ckpt, struct hm_error *err);
void hm_checkpoint_close(struct hm_checkpoint *ckpt);
/* or NULL */
const struct hm_tensor *hm_checkpoint_find(const struct hm_checkpoint *ckpt, const char *name);
int hm_checkpoint_need(const struct hm_checkpoint *ckpt, const char *name,
                       const struct hm_tensor **ret, struct hm_error *err);
void hm_checkpoint_drop(const struct hm_checkpoint *ckpt, const struct hm_tensor *tensor,
                        uint64_t offset, uint64_t bytes);
/* SHA-256 over sorted "name dtype shape" lines and every file's size: cheap identity; full = also
 * all tensor bytes. */
int hm_checkpoint_fingerprint(const struct hm_checkpoint *ckpt, bool full,
                              char hex[HM_SHA256_HEX_BYTES], struct hm_error *err);

struct hm_folder_writer;
/*
 * Plan a folder: specs in the order the caller will write them (canonical: embed, layers, norm,
 * head). Shards are cut at shard_bytes in that order (model.safetensors when one suffices, else
 * model-0000N-of-0000M.safetensors + index). The writer reports the order to produce the data in:
 * within a shard file order is safetensors' own.
 */
int hm_folder_writer_open(const char *dir, const struct hm_tensor_spec *specs, size_t n,
                          uint64_t shard_bytes, struct hm_folder_writer **ret_writer,
                          struct hm_error *err);
/* Next tensor to write: index into specs, or n when all are done. A fully written shard is
 * committed by itself. */
size_t hm_folder_writer_next(const struct hm_folder_writer *writer);
int hm_folder_writer_data(struct hm_folder_writer *writer, const void *data, size_t len,
                          struct hm_error *err);
/* Commits the last shard, writes the index, and digests.tsv (tensor, dtype, shape, sha256) when
 * asked. Frees. */
int hm_folder_writer_finish(struct hm_folder_writer *writer, bool digests, struct hm_error *err);
void hm_folder_writer_abort(struct hm_folder_writer *writer);

/*
 * A folder that takes long: written past the page cache, and continued tensor by tensor when the
 * same plan is begun again after a stop or a kill. What is whole is recorded in a journal beside
 * the shards, at times, after it was synced; the finished folder keeps it until
 * hm_folder_journal_remove.
 */
#define HM_WRITE_JOURNAL_FILE ".whole.journal"
#define HM_WRITE_NOTE_BYTES   160
struct hm_folder_options {
    uint64_t shard_bytes;
    bool digests;        /* take SHA-256 of tensors: what digests.tsv needs */
    uint64_t sync_bytes; /* record after so many bytes, or some seconds; 0: the default */
};
int hm_folder_writer_open_large(const char *dir, const struct hm_tensor_spec *specs, size_t n,
                                const struct hm_folder_options *options,
                                struct hm_folder_writer **ret_writer, struct hm_error *err);
/* The tensors that are still to be written, in the order they will be asked for if none is skipped;
   order has room for all. */
int hm_folder_writer_order(const struct hm_folder_writer *writer, size_t *order, size_t *ret_count,
                           struct hm_error *err);
/* Is tensor i whole, by this writer or an earlier one; if so and ret_note is not NULL, what was
   noted with it (borrowed). */
bool hm_folder_writer_whole(const struct hm_folder_writer *writer, size_t i, const char **ret_note);
/* Is tensor i in the shard being written, and not whole. */
bool hm_folder_writer_ahead(const struct hm_folder_writer *writer, size_t i);
/* A note of one line to record with the current tensor, given before its last byte; digits, letters
   and blanks. */
void hm_folder_writer_note(struct hm_folder_writer *writer, const char *note);
/* Leave the next tensor to hm_folder_writer_fill, before the shard ends. */
int hm_folder_writer_skip(struct hm_folder_writer *writer, struct hm_error *err);
int hm_folder_writer_fill(struct hm_folder_writer *writer, size_t i, const void *data,
                          const char *note, struct hm_error *err);
/* The next tensor, of one dimension, has fewer elements than planned; those of its name order must
   come behind all that were skipped. */
void hm_folder_writer_shorten(struct hm_folder_writer *writer, uint64_t elements);
/* Ends a folder that is not finished: keeps what is whole for a later run when `keep` and something
   was recorded, else removes all files it wrote. */
void hm_folder_writer_leave(struct hm_folder_writer *writer, bool keep);
void hm_folder_journal_remove(const char *dir);

/* Copy what travels with a model besides weights and config: tokenizer files,
 * generation_config.json, hanmix.json. Absent ones are skipped. */
int hm_model_files_copy(const char *from_dir, const char *to_dir, struct hm_error *err);
/* One such file by name; absent is fine. */
int hm_model_file_copy(const char *from_dir, const char *to_dir, const char *name,
                       struct hm_error *err);
/* hanmix.json of a model folder: vocab.resize's record. Absent file: old = new = arch.vocab_size,
 * empty digests. */
struct hm_vocab_record {
    uint64_t old_vocab_size, new_vocab_size;
    char old_tokenizer[HM_SHA256_HEX_BYTES], new_tokenizer[HM_SHA256_HEX_BYTES];
    bool present;
};
int hm_vocab_record_read(const char *dir, uint64_t vocab_size, struct hm_vocab_record *ret,
                         struct hm_error *err);
/* The "vocab_resize" block; new reference, NULL when memory is out. */
json_t *hm_vocab_record_json(const struct hm_vocab_record *record);
/* The "version" member of hanmix.json is the one known here. */
int hm_record_version_check(const json_t *root, const char *path, struct hm_error *err);
int hm_vocab_record_write(const char *dir, const struct hm_vocab_record *record,
                          struct hm_error *err);

#endif
