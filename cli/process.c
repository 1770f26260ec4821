/* SPDX-License-Identifier: MIT */
/*
 * What the process needs before any verb runs: three open standard streams, and a sentence instead
 * of a crash when a mapped file loses its pages under us.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/*
 * A stream that is closed would give its number to the first file opened, and what is printed would
 * go into that file. The stand-in cannot be used in the stream's direction, so that its use is
 * told.
 */
static void streams_open(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
            _exit(6);
}

static void put(const char *text, size_t len)
{
    ssize_t done = write(STDERR_FILENO, text, len);
    (void)done;
}

/* "7f00-7f10 r--p 0 08:01 12 /path": does the line hold the address? Only plain arithmetic. */
static const char *mapping_path(char *line, uintptr_t address)
{
    uintptr_t bound[2] = { 0, 0 };
    char *c = line;

    for (int i = 0; i < 2; i++, c++)
        for (; (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'f'); c++)
            bound[i] = bound[i] << 4 | (uintptr_t)(*c <= '9' ? *c - '0' : *c - 'a' + 10);
    return address >= bound[0] && address < bound[1] ? strchr(c, '/') : NULL;
}

/* The file mapped at the address, from /proc/self/maps, read a byte at a time. */
static const char *mapped_file(uintptr_t address, char *line, size_t size)
{
    const char *found = NULL;
    size_t len = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && !found && read(fd, line + len, 1) == 1) {
        if (line[len] != '\n' && len + 1 < size) {
            len++;
            continue;
        }
        line[len] = '\0';
        found = mapping_path(line, address);
        len = 0;
    }
    if (fd >= 0)
        close(fd);
    return found;
}

/* SIGBUS: a page of a mapped file cannot be read any more. Only async-signal-safe calls. */
static void on_lost_page(int number, siginfo_t *info, void *context)
{
    static char line[4096];
    static const char before[] = "hanmix: '", unknown[] = "a mapped file",
                      after[] = "' was cut short or cannot be read any more; whoever replaces a "
                                "file in use must rename, not overwrite\n";
    const char *path = mapped_file((uintptr_t)info->si_addr, line, sizeof(line));

    (void)number;
    (void)context;
    put(before, sizeof(before) - 1);
    put(path ? path : unknown, path ? strlen(path) : sizeof(unknown) - 1);
    put(after, sizeof(after) - 1);
    _exit(6);
}

void hm_process_outlive_reader(void)
{
    signal(SIGPIPE, SIG_IGN);
}

void hm_process_begin(void)
{
    struct sigaction action = { .sa_sigaction = on_lost_page, .sa_flags = SA_SIGINFO };

    streams_open();
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the file size limit is an error like any other */
}
