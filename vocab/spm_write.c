/* SPDX-License-Identifier: MIT */
/*
 * Writing SentencePiece models: records appended to a base file, whose bytes stay a prefix of the
 * result (repeated fields accumulate on the wire), and whole files made from a list of pieces.
 */
#include <math.h>
#include <string.h>

#include "spm.pb-c.h"
#include "spm_private.h"

struct wire_out {
    ProtobufCBuffer base; /* first: protobuf-c hands back a pointer to it */
    struct hm_buf *buf;
};

/* Room for the whole message is reserved before packing, so this cannot fail. */
static void wire_append(ProtobufCBuffer *base, size_t len, const uint8_t *data)
{
    struct wire_out *out = (struct wire_out *)base;
    int status = hm_buf_append(out->buf, data, len, NULL);

    HM_BUG(status < 0);
}

static int pack(const ProtobufCMessage *message, struct hm_buf *buf, struct hm_error *err)
{
    struct wire_out out = { { wire_append }, buf };

    HM_TRY(hm_buf_reserve(buf, protobuf_c_message_get_packed_size(message), err));
    protobuf_c_message_pack_to_buffer(message, &out.base);
    return HM_OK;
}

static int check_piece(const struct hm_piece *piece, size_t number, struct hm_error *err)
{
    if (piece->text.len == 0 || !hm_utf8_valid(piece->text, NULL) ||
        memchr(piece->text.ptr, '\0', piece->text.len))
        return hm_fail(err, HM_ERR_FORMAT, "piece %zu to write is not a text of UTF-8 without NUL",
                       number);
    if (!isfinite(piece->score))
        return hm_fail(err, HM_ERR_FORMAT, "piece %zu to write has a score that is not finite",
                       number);
    return HM_OK;
}

/* Field 1 of the model, length-delimited: what a message with this one piece packs to. */
static int pack_piece(const struct hm_piece *piece, size_t number, struct hm_buf *buf,
                      struct hm_error *err)
{
    Hm__Spm__Piece record = HM__SPM__PIECE__INIT;
    Hm__Spm__Piece *records[1] = { &record };
    Hm__Spm__Model model = HM__SPM__MODEL__INIT;

    HM_TRY(check_piece(piece, number, err));
    record.has_piece = true;
    record.piece = (ProtobufCBinaryData){ piece->text.len, (uint8_t *)(uintptr_t)piece->text.ptr };
    record.has_score = true;
    record.score = piece->score;
    record.has_type = piece->type != HM_PIECE_NORMAL;
    record.type = piece->type;
    model.n_pieces = 1;
    model.pieces = records;
    return pack(&model.base, buf, err);
}

int hm_spm_model_append(const struct hm_spm_model *base, const struct hm_piece *pieces, size_t n,
                        struct hm_buf *ret_bytes, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    int status = hm_buf_append(&buf, base->bytes.ptr, base->bytes.len, err);

    for (size_t i = 0; status == HM_OK && i < n; i++)
        status = pack_piece(&pieces[i], i, &buf, err);
    if (status == HM_OK)
        *ret_bytes = buf;
    else
        hm_buf_release(&buf);
    return status;
}

static int pack_settings(size_t n, bool byte_fallback, struct hm_buf *buf, struct hm_error *err)
{
    Hm__Spm__TrainerSpec trainer = HM__SPM__TRAINER_SPEC__INIT;
    Hm__Spm__NormalizerSpec normalizer = HM__SPM__NORMALIZER_SPEC__INIT;
    Hm__Spm__Model model = HM__SPM__MODEL__INIT;
    static char identity[] = "identity";

    trainer.has_model_type = trainer.has_vocab_size = true;
    trainer.model_type = HM_SPM_BPE;
    trainer.vocab_size = (int32_t)n;
    trainer.has_split_digits = trainer.split_digits = true;
    trainer.has_byte_fallback = true;
    trainer.byte_fallback = byte_fallback;
    normalizer.has_name = true;
    normalizer.name = (ProtobufCBinaryData){ strlen(identity), (uint8_t *)identity };
    normalizer.has_add_dummy_prefix = normalizer.has_remove_extra_whitespaces = true;
    normalizer.add_dummy_prefix = normalizer.remove_extra_whitespaces = false;
    model.trainer_spec = &trainer;
    model.normalizer_spec = &normalizer;
    return pack(&model.base, buf, err);
}

int hm_spm_model_build(const struct hm_piece *pieces, size_t n, bool byte_fallback,
                       struct hm_buf *ret_bytes, struct hm_error *err)
{
    struct hm_buf buf = { 0 };
    int status = HM_OK;

    if (n > HM_SPM_MAX_PIECES)
        return hm_fail(err, HM_ERR_USAGE, "a model of %zu pieces; at most %d are written", n,
                       HM_SPM_MAX_PIECES);
    for (size_t i = 0; status == HM_OK && i < n; i++)
        status = pack_piece(&pieces[i], i, &buf, err);
    if (status == HM_OK)
        status = pack_settings(n, byte_fallback, &buf, err);
    if (status == HM_OK)
        *ret_bytes = buf;
    else
        hm_buf_release(&buf);
    return status;
}
