/* SPDX-License-Identifier: MIT */
/*
 * Digests beside reading. SHA-256 takes a file from its first byte to its last, so of each file the
 * longest chain of ranges is chosen whose offsets rise in the order of reading. What lies between
 * its links (headers, and tensors that an order of layers or types sets apart) is read here, and a
 * file of which that is more than a GAP_SHARE-th is left to whoever wants its digest, as is one
 * that cannot be read.
 */
#include "read_digest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "hanmix/base/parallel.h"

#define GAP_BYTES (256u << 10) /* read at once */
enum { GAP_SHARE = 4, MOST_RANGES = 1 << 14 };

struct digested {
    int fd;
    const char *path;   /* borrowed */
    uint64_t bytes, at; /* at: digested so far */
    size_t last;        /* range of its chain */
    struct hm_sha256 sha;
    bool whole; /* so far, then at the end */
    char hex[HM_SHA256_HEX_BYTES];
};

struct hm_read_digest {
    struct digested *file;
    size_t n_files;
    size_t n_ranges;
    size_t *of_range; /* index of file */
    bool *chained;    /* by range */
    uint8_t *gap;
};

/* The file of a descriptor; neighbours in the order of reading mostly share it. */
static struct digested *find_file(struct hm_read_digest *digest, const struct hm_read_range *range,
                                  size_t hint)
{
    struct stat info;

    if (hint < digest->n_files && digest->file[hint].fd == range->fd)
        return &digest->file[hint];
    for (size_t i = 0; i < digest->n_files; i++)
        if (digest->file[i].fd == range->fd)
            return &digest->file[i];
    struct digested *file = &digest->file[digest->n_files++];
    bool known = fstat(range->fd, &info) == 0 && S_ISREG(info.st_mode);
    (void)posix_fadvise(range->fd, 0, 0, POSIX_FADV_RANDOM); /* links come past the page cache */
    *file = (struct digested){ .fd = range->fd,
                               .path = range->path,
                               .bytes = known ? (uint64_t)info.st_size : 0,
                               .last = digest->n_ranges,
                               .whole = known };
    return file;
}

struct link { /* of the chain of most bytes that ends with a range */
    uint64_t bytes;
    size_t before; /* the range before it; its own index: none */
};

/* Marks the chain of most bytes of each file: of ranges read one behind the other, those whose
 * offsets rise. */
static void choose(struct hm_read_digest *digest, const struct hm_read_range *ranges, size_t n,
                   struct link *link)
{
    for (size_t i = 0; i < n; i++) {
        struct digested *file = find_file(digest, &ranges[i], i ? digest->of_range[i - 1] : 0);
        size_t last = file->last;
        digest->of_range[i] = (size_t)(file - digest->file);
        link[i] = (struct link){ 0, i };
        for (size_t j = 0; j < i; j++)
            if (digest->of_range[j] == digest->of_range[i] && link[j].bytes > link[i].bytes &&
                ranges[j].offset + ranges[j].bytes <= ranges[i].offset)
                link[i] = (struct link){ link[j].bytes, j };
        link[i].bytes += ranges[i].bytes;
        if (last == n || link[last].bytes < link[i].bytes)
            file->last = i;
    }
    for (size_t f = 0; f < digest->n_files; f++) {
        struct digested *file = &digest->file[f];
        file->whole =
            file->whole && link[file->last].bytes >= file->bytes - file->bytes / GAP_SHARE;
        for (size_t i = file->last; file->whole; i = link[i].before) {
            digest->chained[i] = true;
            if (link[i].before == i)
                break;
        }
    }
}

int hm_read_digest_new(const struct hm_read_range *ranges, size_t n,
                       struct hm_read_digest **ret_digest)
{
    struct hm_read_digest *digest = hm_calloc(HM_MEM_OTHER, 1, sizeof *digest);
    struct link *link = hm_alloc_array(HM_MEM_OTHER, n + 1, sizeof *link);
    int status = HM_OK;

    if (!digest || !link) {
        hm_free(digest);
        hm_free(link);
        return HM_ERR_NOMEM;
    }
    digest->n_ranges = n;
    digest->file = hm_calloc(HM_MEM_OTHER, n + 1, sizeof *digest->file);
    digest->of_range = hm_calloc(HM_MEM_OTHER, n + 1, sizeof *digest->of_range);
    digest->chained = hm_calloc(HM_MEM_OTHER, n + 1, sizeof *digest->chained);
    digest->gap = hm_alloc(HM_MEM_OTHER, GAP_BYTES);
    if (!digest->file || !digest->of_range || !digest->chained || !digest->gap)
        status = HM_ERR_NOMEM;
    if (status == HM_OK && n <= MOST_RANGES) /* each is compared with all before it */
        choose(digest, ranges, n, link);
    hm_free(link);
    for (size_t i = 0; i < digest->n_files && status == HM_OK; i++)
        if (digest->file[i].whole)
            status = hm_sha256_init(&digest->file[i].sha, NULL);
    if (status == HM_OK)
        *ret_digest = digest;
    else
        hm_read_digest_free(digest);
    return status;
}

/* What lies before `end`. */
static void add_gap(struct hm_read_digest *digest, struct digested *file, uint64_t end)
{
    while (file->whole && file->at < end) {
        size_t most = hm_least(end - file->at, GAP_BYTES);
        ssize_t got = pread(file->fd, digest->gap, most, (off_t)file->at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            file->whole = false;
            return;
        }
        hm_sha256_add(&file->sha, digest->gap, (size_t)got);
        file->at += (uint64_t)got;
    }
}

void hm_read_digest_add(struct hm_read_digest *digest, size_t range, uint64_t offset,
                        const uint8_t *data, size_t len)
{
    struct digested *file = &digest->file[digest->of_range[range]];

    if (!digest->chained[range])
        return;
    add_gap(digest, file, offset);
    if (!file->whole)
        return;
    hm_sha256_add(&file->sha, data, len);
    file->at += len;
}

void hm_read_digest_end(struct hm_read_digest *digest)
{
    for (size_t i = 0; i < digest->n_files; i++) {
        struct digested *file = &digest->file[i];
        add_gap(digest, file, file->bytes);
        if (file->whole)
            hm_sha256_finish(&file->sha, file->hex);
    }
}

int hm_read_digest_tell(struct hm_read_digest *digest, struct hm_file_digests *digests,
                        struct hm_error *err)
{
    for (size_t i = 0; i < digest->n_files; i++)
        if (digest->file[i].whole && digest->file[i].hex[0])
            HM_TRY(hm_file_digests_add(digests, digest->file[i].path, digest->file[i].hex, err));
    return HM_OK;
}

void hm_read_digest_free(struct hm_read_digest *digest)
{
    if (!digest)
        return;
    for (size_t i = 0; i < digest->n_files; i++)
        hm_sha256_release(&digest->file[i].sha);
    hm_free(digest->file);
    hm_free(digest->of_range);
    hm_free(digest->chained);
    hm_free(digest->gap);
    hm_free(digest);
}
