/* SPDX-License-Identifier: MIT */
/*
 * What makes a training run need less memory or disk, the cheapest first: fewer kept states,
 * recomputation, smaller micro-batches of the same step, streamed weights, 8-bit moments, the state
 * in a file, new rows in place of all, lower ranks, shorter windows. Only changes of settings are
 * named; whether one suffices the engine finds out by planning with it.
 */
#include <inttypes.h>
#include <stdio.h>

#include "train_config.h"

#define RANK_LEAST    4u
#define SEQ_LEN_LONG  4096u /* shorter windows are offered from half of this */
#define SEQ_LEN_LEAST 256u
#define ROWS_ALL      2 /* of train_embeddings and train_head */

struct offers {
    char *text; /* [HM_SMALLER_BYTES], of the one that is asked for */
    size_t wanted, count;
};

/* True when the next offer is the one that is asked for. */
static bool next(struct offers *offers)
{
    return offers->count++ == offers->wanted;
}

static void batch_offers(struct offers *offers, const struct train_settings *s)
{
    for (uint64_t divisor = 2; divisor <= s->micro_batch; divisor *= 2)
        if (s->micro_batch % divisor == 0 && next(offers))
            snprintf(offers->text, HM_SMALLER_BYTES,
                     "set.micro_batch=%" PRIu64 " set.accumulate=%" PRIu64,
                     s->micro_batch / divisor, s->accumulate * divisor);
}

static void state_offers(struct offers *offers, const struct train_settings *s)
{
    if (s->optimizer == 0 && next(offers))
        snprintf(offers->text, HM_SMALLER_BYTES, "set.optimizer=adamw8bit");
    if (next(offers))
        snprintf(offers->text, HM_SMALLER_BYTES, "set.state=file");
    if (s->train_embeddings == ROWS_ALL && s->train_head == ROWS_ALL && next(offers))
        snprintf(offers->text, HM_SMALLER_BYTES, "set.train_embeddings=new set.train_head=new");
    if (s->train_embeddings == ROWS_ALL && s->train_head != ROWS_ALL && next(offers))
        snprintf(offers->text, HM_SMALLER_BYTES, "set.train_embeddings=new");
    if (s->train_head == ROWS_ALL && s->train_embeddings != ROWS_ALL && next(offers))
        snprintf(offers->text, HM_SMALLER_BYTES, "set.train_head=new");
    for (uint64_t rank = s->rank / 2; !s->train_all && rank >= RANK_LEAST; rank /= 2)
        if (next(offers))
            snprintf(offers->text, HM_SMALLER_BYTES, "set.rank=%" PRIu64, rank);
}

bool hm_train_smaller(const struct hm_stage_run *run, size_t index, uint64_t limit_bytes,
                      char text[HM_SMALLER_BYTES])
{
    const struct train_settings *s = run->config;
    struct offers offers = { .text = text, .wanted = index };

    text[0] = '\0';
    if (s->keep > 1 && next(&offers)) /* disk alone */
        snprintf(text, HM_SMALLER_BYTES, "set.keep=1");
    if (!s->recompute && next(&offers))
        snprintf(text, HM_SMALLER_BYTES, "set.recompute=true");
    batch_offers(&offers, s);
    if (limit_bytes > 0 && (s->ram == 0 || s->ram > limit_bytes) && next(&offers))
        snprintf(text, HM_SMALLER_BYTES, "set.ram=%" PRIu64 "M", limit_bytes >> 20);
    state_offers(&offers, s);
    for (uint32_t seq_len = SEQ_LEN_LONG / 2; seq_len >= SEQ_LEN_LEAST; seq_len /= 2)
        if (next(&offers))
            snprintf(text, HM_SMALLER_BYTES, ">set.seq_len=%u", seq_len);
    return offers.count > index;
}
