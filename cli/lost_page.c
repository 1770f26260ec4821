/* SPDX-License-Identifier: MIT */
/*
 * A sentence instead of a crash when a page of a mapped file cannot be read any more (SIGBUS):
 * which file, which tensor of a safetensors file, and whether it was cut short (bad data) or the
 * disk failed (environment). States and results are written beside and renamed, so nothing is lost
 * by ending here. Everything runs inside a signal handler: open, read, write and plain arithmetic
 * on static memory only.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

#define LENGTH_BYTES 8u /* of a safetensors header, before it */

static void put(const char *text)
{
    ssize_t done = write(STDERR_FILENO, text, strlen(text));
    (void)done;
}

/* --- which file, where in it ------------------------------------------------------------------ */

struct place {
    const char *path; /* NULL: unknown */
    uint64_t offset;  /* in the file */
};

static const char *hex_read(const char *c, uint64_t *ret)
{
    *ret = 0;
    for (; (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'f'); c++)
        *ret = *ret << 4 | (uint64_t)(*c <= '9' ? *c - '0' : *c - 'a' + 10);
    return c;
}

/* "7f00-7f10 r--s 00001000 08:01 12 /path": whether the line holds the address. */
static bool line_holds(const char *line, uint64_t address, struct place *ret_place)
{
    uint64_t first, end, offset;
    const char *c = hex_read(line, &first);

    if (*c != '-')
        return false;
    c = hex_read(c + 1, &end);
    if (address < first || address >= end || strlen(c) < 6) /* " r--s " */
        return false;
    hex_read(c + 6, &offset);
    *ret_place = (struct place){ strchr(c, '/'), offset + (address - first) };
    return true;
}

/* From /proc/self/maps, read a byte at a time. */
static struct place place_find(uint64_t address)
{
    static char line[4096 + 128];
    struct place place = { 0 };
    size_t len = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    while (fd >= 0 && read(fd, line + len, 1) == 1) {
        if (line[len] != '\n' && len + 1 < sizeof(line)) {
            len++;
            continue;
        }
        line[len] = '\0';
        if (line_holds(line, address, &place))
            break;
        len = 0;
    }
    if (fd >= 0)
        close(fd);
    return place;
}

/* --- which tensor ----------------------------------------------------------------------------- */

struct scan { /* of {"name": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}, ...} */
    char text[256], name[256]; /* the last string, the last key of the outer object */
    size_t len;
    int depth;
    bool in_string, escaped, offsets;
    uint64_t number[2];
    int n;
};

static void string_char(struct scan *s, char c)
{
    if (!s->escaped && c == '"') {
        s->in_string = false;
    } else if (!s->escaped && c == '\\') {
        s->escaped = true;
        return;
    } else if (s->len + 1 < sizeof(s->text)) {
        s->text[s->len++] = (unsigned char)c < ' ' ? '?' : c;
    }
    s->escaped = false;
    s->text[s->len] = '\0';
}

/* True when the entry that ends here covers byte `at` of the buffer. */
static bool scan_char(struct scan *s, char c, uint64_t at)
{
    if (s->in_string) {
        string_char(s, c);
        return false;
    }
    if (c == '"') {
        s->in_string = true;
        s->len = 0;
    } else if (c == '{' || c == '}') {
        s->depth += c == '{' ? 1 : -1;
    } else if (c == ':' && s->depth == 1) {
        memcpy(s->name, s->text, sizeof(s->name));
    } else if (c == ':') {
        s->offsets = strcmp(s->text, "data_offsets") == 0;
        s->number[0] = s->number[1] = 0;
        s->n = 0;
    } else if (c >= '0' && c <= '9' && s->n < 2) {
        s->number[s->n] = s->number[s->n] * 10 + (uint64_t)(c - '0');
    } else if (c == ',' && s->offsets) {
        s->n++;
    } else if (c == ']' && s->offsets) {
        s->offsets = false;
        return at >= s->number[0] && at < s->number[1];
    }
    return false;
}

/* Name of the tensor at an offset of the file; NULL: not safetensors, or none there. */
static const char *tensor_find(int fd, uint64_t offset)
{
    static struct scan scan;
    static unsigned char block[4096];
    uint64_t header = 0;
    ssize_t got = pread(fd, block, LENGTH_BYTES, 0);

    if (got != LENGTH_BYTES)
        return NULL;
    for (size_t i = LENGTH_BYTES; i-- > 0;)
        header = header << 8 | block[i];
    if (offset < LENGTH_BYTES || offset - LENGTH_BYTES < header)
        return NULL;
    for (uint64_t at = 0; at < header; at += (uint64_t)got) {
        got = pread(fd, block, sizeof(block), (off_t)(LENGTH_BYTES + at));
        if (got <= 0)
            return NULL;
        for (ssize_t i = 0; i < got && at + (uint64_t)i < header; i++)
            if (scan_char(&scan, (char)block[i], offset - LENGTH_BYTES - header))
                return scan.name;
    }
    return NULL;
}

/* --- the handler ------------------------------------------------------------------------------ */

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), tail = strlen(end);

    return len >= tail && strcmp(text + len - tail, end) == 0;
}

static void on_lost_page(int number, siginfo_t *info, void *context)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    struct stat file = { 0 };
    const char *tensor = NULL;

    (void)number;
    (void)context;
    while (atomic_flag_test_and_set(&told)) /* another thread has met it too, and ends us */
        pause();
    struct place place = place_find((uint64_t)(uintptr_t)info->si_addr);
    int fd = place.path ? open(place.path, O_RDONLY | O_CLOEXEC) : -1;
    bool cut = fd >= 0 && fstat(fd, &file) == 0 && (uint64_t)file.st_size <= place.offset;
    if (fd >= 0 && ends_with(place.path, ".safetensors"))
        tensor = tensor_find(fd, place.offset);
    put("hanmix: '");
    put(place.path ? place.path : "a mapped file");
    put(cut ? "' was cut short while in use" : "' cannot be read any more");
    put(tensor ? ", at tensor '" : "");
    put(tensor ? tensor : "");
    put(tensor ? "'" : "");
    put(cut ? "; whoever replaces a file in use must rename, not overwrite\n"
            : "; the disk or the network behind it fails\n");
    _exit(hm_status_exit_code(cut ? HM_ERR_FORMAT : HM_ERR_IO));
}

void hm_lost_page_catch(void)
{
    struct sigaction action = { .sa_sigaction = on_lost_page, .sa_flags = SA_SIGINFO };

    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
