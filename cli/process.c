/* SPDX-License-Identifier: MIT */
/*
 * What the process needs before any verb runs: three open standard streams, and signals that would
 * end it without a word.
 */
#include <fcntl.h>
#include <signal.h>
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

void hm_process_outlive_reader(void)
{
    signal(SIGPIPE, SIG_IGN);
}

void hm_process_begin(void)
{
    streams_open();
    hm_lost_page_catch();
    signal(SIGXFSZ, SIG_IGN); /* a write beyond the file size limit is an error like any other */
}
