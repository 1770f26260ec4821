/* SPDX-License-Identifier: MIT */
/*
 * Tokens of a text before it is packed; see token_forecast.h. Without a tokenizer the estimate is
 * made of two measured curves: bytes of Latin text per piece grow with the logarithm of the
 * vocabulary, tokens per Chinese character fall with that of the pieces added for it. It is good to
 * some ten percent, which is enough to tell how long evaluations take.
 */
#include "token_forecast.h"

#include <math.h>

#include "hanmix/base/alloc.h"

#define SAMPLE_BYTES  (2u << 20)   /* read */
#define ENCODED_BYTES (256u << 10) /* and encoded */

struct sample {
    double narrow, wide; /* bytes of ASCII; characters of three bytes and more */
    double bytes, documents;
    double encoded_bytes, encoded_tokens;
};

static double tokens_of(const struct sample *s, uint64_t pieces)
{
    double v = pieces > 300 ? (double)pieces : 300;

    if (s->encoded_bytes > 0)
        return s->encoded_tokens * s->bytes / s->encoded_bytes;
    double narrow_bytes = v < 8000 ? 1.8 : fmin(0.28 * log2(v), 4.6);
    double added = v > 33000 ? v - 32000 : v; /* beside the vocabulary that LLaMA's have */
    double per_wide = fmin(fmax(1.17 - 0.284 * log(added / 4000), 0.5), 2.5);
    return s->narrow / narrow_bytes + s->wide * per_wide;
}

static void count(struct hm_str text, struct sample *s)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char byte = (unsigned char)text.ptr[i];
        s->narrow += byte < 0x80;
        s->wide += byte >= 0xe0;
    }
    s->bytes += (double)text.len;
    s->documents++;
}

static int sample_read(struct hm_text_source *source, const struct hm_text_encoder *encoder,
                       struct sample *s)
{
    struct hm_ids ids = { 0 };
    struct hm_doc doc;
    int r = 1;

    while (s->bytes < SAMPLE_BYTES && (r = source->next(source->context, &doc, NULL)) == 1) {
        count(doc.text, s);
        if (!encoder || s->encoded_bytes > ENCODED_BYTES)
            continue;
        hm_ids_clear(&ids);
        r = encoder->encode(encoder->context, doc.text, &ids, NULL);
        if (r < 0)
            break;
        s->encoded_tokens += (double)ids.count;
        s->encoded_bytes += (double)doc.text.len;
    }
    hm_ids_release(&ids);
    return r;
}

uint64_t hm_tokens_forecast(const struct hm_stage_run *run, const struct stage_text *text,
                            uint64_t pieces, unsigned per_document)
{
    struct hm_tokenizer *tokenizer = NULL;
    struct hm_text_source source = { 0 };
    struct hm_text_encoder encoder;
    struct sample s = { 0 };
    double share = 1;

    if (hm_stage_pending(run, "text") ||
        hm_stage_text_open(run, "text", text, &source, NULL) != HM_OK)
        return 0;
    if (!hm_stage_pending(run, "tokenizer") &&
        hm_stage_tokenizer_open(run, "tokenizer", &tokenizer, NULL) == HM_OK)
        encoder = hm_tokenizer_encoder(tokenizer);
    int r = sample_read(&source, tokenizer ? &encoder : NULL, &s);
    if (r == 1 && source.position_bytes && source.total_bytes > 0)
        share = (double)source.position_bytes(source.context) / (double)source.total_bytes;
    if (source.close)
        source.close(source.context);
    hm_tokenizer_free(tokenizer);
    if (r < 0 || s.bytes <= 0 || !(share > 0))
        return 0;
    return (uint64_t)((tokens_of(&s, pieces) + per_document * s.documents) / fmin(share, 1));
}
