/* SPDX-License-Identifier: MIT */
/*
 * TensorBoard event files: TFRecord frames (length, masked CRC-32C of the length, data, masked
 * CRC-32C of the data) around protobuf Event messages. One file a folder with a fixed name,
 * appended to across resumes.
 */
#include "hanmix/recipes/report.h"

#include "hanmix/base/bytes.h"
#include "hanmix/base/file.h"
#include "tb_event.pb-c.h"

#define TB_FILE           "events.out.tfevents.0.hanmix"
#define TB_MAX_FILE_BYTES (1ull << 32)
#define TB_FRAME_BYTES    16 /* u64 length, u32 crc, ..., u32 crc */

struct hm_tb_writer {
    char *path;
};

/* CRC-32C (Castagnoli), reflected polynomial 0x82f63b78, bit by bit: records are small and few. */
static uint32_t crc32c(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
    }
    return ~crc;
}

/* TFRecord rotates the CRC right by 15 bits and adds a constant, so that a CRC of CRCs stays
 * meaningful. */
static uint32_t masked_crc(const uint8_t *data, size_t len)
{
    uint32_t crc = crc32c(data, len);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static int append_record(struct hm_buf *out, const HmTb__Event *event, struct hm_error *err)
{
    size_t len = hm_tb__event__get_packed_size(event);
    HM_TRY(hm_buf_reserve(out, len + TB_FRAME_BYTES, err));
    uint8_t *frame = (uint8_t *)out->ptr + out->len;
    hm_le_put(frame, len, 8);
    hm_le_put(frame + 8, masked_crc(frame, 8), 4);
    hm_tb__event__pack(event, frame + 12);
    hm_le_put(frame + 12 + len, masked_crc(frame + 12, len), 4);
    out->len += len + TB_FRAME_BYTES;
    return HM_OK;
}

static int write_header(const char *path, struct hm_error *err)
{
    struct hm_buf record = { 0 };
    char version[] = "brain.Event:2";
    HmTb__Event event = HM_TB__EVENT__INIT;
    event.file_version = version;
    int r = append_record(&record, &event, err);
    if (r == HM_OK)
        r = hm_file_write(path, record.ptr, record.len, err);
    hm_buf_release(&record);
    return r;
}

int hm_tb_open(const char *dir, struct hm_tb_writer **ret_writer, struct hm_error *err)
{
    struct hm_tb_writer *writer = hm_calloc(HM_MEM_OTHER, 1, sizeof *writer);
    int r = HM_OK;
    if (writer == NULL)
        return hm_fail_nomem(err, "for the TensorBoard writer");
    r = hm_dir_make(dir, err);
    if (r < 0)
        goto out;
    r = hm_path_join(&writer->path, dir, TB_FILE, err);
    if (r < 0)
        goto out;
    if (!hm_path_exists(writer->path))
        r = write_header(writer->path, err);
out:
    if (r < 0) {
        hm_tb_close(writer);
        return r;
    }
    *ret_writer = writer;
    return HM_OK;
}

void hm_tb_close(struct hm_tb_writer *writer)
{
    if (writer == NULL)
        return;
    hm_free(writer->path);
    hm_free(writer);
}

int hm_tb_scalar(struct hm_tb_writer *writer, const char *tag, uint64_t step, double wall_time,
                 double value, struct hm_error *err)
{
    struct hm_buf record = { 0 };
    HmTb__Value scalar = HM_TB__VALUE__INIT;
    HmTb__Value *scalars[] = { &scalar };
    HmTb__Summary summary = HM_TB__SUMMARY__INIT;
    HmTb__Event event = HM_TB__EVENT__INIT;
    char *tag_copy = hm_strdup(HM_MEM_OTHER, tag); /* protobuf-c's fields are not const */
    if (tag_copy == NULL)
        return hm_fail_nomem(err, "for a TensorBoard tag");
    scalar.tag = tag_copy;
    scalar.simple_value = (float)value;
    summary.n_value = 1;
    summary.value = scalars;
    event.wall_time = wall_time;
    event.step = (int64_t)step;
    event.summary = &summary;

    int r = append_record(&record, &event, err);
    if (r == HM_OK)
        r = hm_file_append(writer->path, record.ptr, record.len, err);
    hm_buf_release(&record);
    hm_free(tag_copy);
    return r;
}

/* Length of the whole frame at data, or 0 when it is cut off or its checksums disagree. */
static size_t frame_bytes(const uint8_t *data, size_t left)
{
    if (left < TB_FRAME_BYTES || masked_crc(data, 8) != (uint32_t)hm_le_get(data + 8, 4))
        return 0;
    uint64_t len = hm_le_get(data, 8);
    if (len > left - TB_FRAME_BYTES)
        return 0;
    if (masked_crc(data + 12, (size_t)len) != (uint32_t)hm_le_get(data + 12 + len, 4))
        return 0;
    return (size_t)len + TB_FRAME_BYTES;
}

int hm_tb_cut(const char *dir, uint64_t keep_step, struct hm_error *err)
{
    char *path = NULL;
    struct hm_buf old = { 0 }, kept = { 0 };
    int r = hm_path_join(&path, dir, TB_FILE, err);
    if (r < 0)
        goto out;
    if (!hm_path_exists(path))
        goto out;
    r = hm_file_read(path, TB_MAX_FILE_BYTES, &old, err);
    size_t offset = 0, len = 0;
    while (r == HM_OK &&
           (len = frame_bytes((const uint8_t *)old.ptr + offset, old.len - offset)) > 0) {
        const uint8_t *frame = (const uint8_t *)old.ptr + offset;
        HmTb__Event *event = hm_tb__event__unpack(NULL, len - TB_FRAME_BYTES, frame + 12);
        bool keep = event != NULL && (uint64_t)event->step <= keep_step;
        if (event != NULL)
            hm_tb__event__free_unpacked(event, NULL);
        if (keep)
            r = hm_buf_append(&kept, frame, len, err);
        offset += len;
    }
    if (r == HM_OK && kept.len != old.len)
        r = hm_file_write(path, kept.ptr, kept.len, err);
out:
    hm_buf_release(&old);
    hm_buf_release(&kept);
    hm_free(path);
    return r;
}
