/* SPDX-License-Identifier: MIT */
/*
 * Progress and messages on standard error: one line that renews itself on a terminal, now and then
 * a plain line elsewhere (and with NO_COLOR or TERM=dumb). Also the stop flag: the first signal
 * asks for a safe stop, the second of the same kind ends the program.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli.h"
#include "hanmix/base/file.h"

#define TERMINAL_SECONDS 0.2 /* between renewals of the line */
#define PLAIN_SECONDS    5.0 /* between plain lines, unless HM_PROGRESS_SECONDS tells */
#define ETA_FROM_SECONDS 2.0

static volatile sig_atomic_t stop_flag;

static void ask_stop(int number)
{
    stop_flag = 1;
    signal(number, SIG_DFL);
}

static bool is_terminal(void)
{
    const char *term = getenv("TERM");
    const char *no_color = getenv("NO_COLOR");

    return isatty(STDERR_FILENO) && !(no_color && *no_color) &&
           !(term && strcmp(term, "dumb") == 0);
}

const char *hm_bytes_text(uint64_t bytes, char *buf, size_t size)
{
    static const char *const unit[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double value = (double)bytes;
    size_t i = 0;

    while (value >= 1024 && i + 1 < sizeof(unit) / sizeof(unit[0])) {
        value /= 1024;
        i++;
    }
    snprintf(buf, size, i == 0 ? "%.0f %s" : "%.1f %s", value, unit[i]);
    return buf;
}

const char *hm_time_text(double seconds, char *buf, size_t size)
{
    uint64_t s = seconds < 0 ? 0 : (uint64_t)seconds;

    if (s >= 86400)
        snprintf(buf, size, "%" PRIu64 "d %02" PRIu64 "h", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(buf, size, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(buf, size, "%" PRIu64 ":%02" PRIu64, s / 60, s % 60);
    return buf;
}

const char *hm_seconds_text(double seconds, char *buf, size_t size)
{
    if (seconds < 1)
        snprintf(buf, size, "%.1f ms", 1e3 * seconds);
    else
        snprintf(buf, size, "%.2f s", seconds);
    return buf;
}

static const char *amount_text(const struct hm_progress *progress, double amount, char *buf,
                               size_t size)
{
    if (strcmp(progress->unit, "bytes") == 0)
        return hm_bytes_text((uint64_t)amount, buf, size);
    snprintf(buf, size, amount < 10 && amount != (double)(uint64_t)amount ? "%.2f" : "%.0f",
             amount);
    return buf;
}

static double plain_seconds(void)
{
    const char *text = getenv("HM_PROGRESS_SECONDS");
    char *end = NULL;
    double seconds = text ? strtod(text, &end) : 0;

    return text && end != text && *end == '\0' && seconds >= 0 ? seconds : PLAIN_SECONDS;
}

/* "train: 120 of 400 steps (30 %), 1.2 steps/s, 3:53 left, loss 3.21" */
static void progress_line(const struct hm_terminal *terminal, const struct hm_progress *progress,
                          double now, double eta_from, char *line, size_t size)
{
    char done[40], total[40], rate[40], left[40];
    bool bytes = strcmp(progress->unit, "bytes") == 0;
    double seconds = now - terminal->began_at;
    double advance =
        (double)progress->done - (double)terminal->began_done; /* a resumed run's own */
    double per_second = seconds > 0 && advance > 0 ? advance / seconds : 0;
    size_t used = 0;

    used += (size_t)snprintf(line, size, "%s: %s", progress->what,
                             amount_text(progress, (double)progress->done, done, sizeof(done)));
    if (progress->total > 0)
        used +=
            (size_t)snprintf(line + used, size - used, " of %s",
                             amount_text(progress, (double)progress->total, total, sizeof(total)));
    used += (size_t)snprintf(line + used, size - used, "%s%s", bytes ? "" : " ",
                             bytes ? "" : progress->unit);
    if (progress->total > 0)
        used += (size_t)snprintf(line + used, size - used, " (%.0f %%)",
                                 100.0 * (double)progress->done / (double)progress->total);
    if (per_second > 0)
        used += (size_t)snprintf(line + used, size - used, ", %s%s%s/s",
                                 amount_text(progress, per_second, rate, sizeof(rate)),
                                 bytes ? "" : " ", bytes ? "" : progress->unit);
    if (per_second > 0 && progress->total > progress->done && seconds >= eta_from)
        used +=
            (size_t)snprintf(line + used, size - used, ", %s left",
                             hm_time_text((double)(progress->total - progress->done) / per_second,
                                          left, sizeof(left)));
    if (progress->detail && used < size)
        snprintf(line + used, size - used, ", %s", progress->detail);
}

/* Bytes of the line that fit the window: never in the middle of a character. */
static int fitting(const char *line)
{
    struct winsize window = { 0 };
    size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1
                         ? window.ws_col - 1u
                         : 79;
    size_t len = strlen(line);

    if (len <= columns)
        return (int)len;
    while (columns > 0 && ((unsigned char)line[columns] & 0xc0) == 0x80)
        columns--;
    return (int)columns;
}

static void on_progress(void *context, const struct hm_progress *progress)
{
    struct hm_terminal *terminal = context;
    bool terminal_line = is_terminal();
    double now = hm_clock_seconds();
    char line[512];

    bool begins = !terminal->what || strcmp(terminal->what, progress->what) != 0 ||
                  progress->done < terminal->done; /* the next stage's, of the same name */
    terminal->done = progress->done;
    if (begins) {
        terminal->what = progress->what;
        terminal->began_at = now;
        terminal->began_done = progress->done;
        if (terminal_line || terminal->shown_at == 0)
            terminal->shown_at = now;
        if (!terminal_line) /* there is no rate yet */
            return;
    }
    bool last = progress->total > 0 && progress->done >= progress->total;
    double pause = terminal_line ? TERMINAL_SECONDS : plain_seconds();
    if (terminal->quiet || (now - terminal->shown_at < pause && !(last && terminal->line_open)))
        return;
    terminal->shown_at = now;
    double eta_from = pause < ETA_FROM_SECONDS && !terminal_line ? pause : ETA_FROM_SECONDS;
    progress_line(terminal, progress, now, eta_from, line, sizeof(line));
    if (!terminal_line) {
        fprintf(stderr, "%s\n", line);
        return;
    }
    fprintf(stderr, "\r\033[K%.*s", fitting(line), line);
    fflush(stderr);
    terminal->line_open = true;
}

static void line_clear(struct hm_terminal *terminal)
{
    if (terminal->line_open)
        fputs("\r\033[K", stderr);
    terminal->line_open = false;
}

void hm_terminal_close(struct hm_terminal *terminal)
{
    line_clear(terminal);
    terminal->what = NULL;
}

static void on_message(void *context, const char *sentence)
{
    struct hm_terminal *terminal = context;

    line_clear(terminal);
    if (!terminal->quiet)
        fprintf(stderr, "%s\n", sentence);
}

struct hm_ctl hm_terminal_ctl(struct hm_terminal *terminal)
{
    static const int numbers[] = { SIGINT, SIGTERM, SIGUSR1 };
    struct sigaction action = { .sa_handler = ask_stop, .sa_flags = SA_RESTART };

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaction(numbers[i], &action, NULL);
    return (struct hm_ctl){
        .stop = &stop_flag, .progress = on_progress, .message = on_message, .context = terminal
    };
}
