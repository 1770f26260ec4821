/* SPDX-License-Identifier: MIT */
/*
 * Stop flag, deadline and reports of long work. A NULL control never stops and listens to nothing.
 */
#include <stdarg.h>
#include <stdio.h>

#include "hanmix/base/ctl.h"
#include "hanmix/base/file.h"
#include "hanmix/base/str.h"

bool hm_ctl_stopped(const struct hm_ctl *ctl)
{
    if (!ctl)
        return false;
    if (ctl->stop && *ctl->stop)
        return true;
    return ctl->deadline_seconds > 0 && hm_clock_seconds() >= ctl->deadline_seconds;
}

void hm_ctl_progress(const struct hm_ctl *ctl, const struct hm_progress *progress)
{
    if (ctl && ctl->progress)
        ctl->progress(ctl->context, progress);
}

void hm_ctl_message(const struct hm_ctl *ctl, const char *format, ...)
{
    char sentence[HM_ERROR_TEXT_BYTES];
    va_list args;

    if (!ctl || !ctl->message)
        return;
    va_start(args, format);
    vsnprintf(sentence, sizeof(sentence), format, args);
    va_end(args);
    hm_text_clean(sentence);
    ctl->message(ctl->context, sentence);
}
