/* SPDX-License-Identifier: MIT */
/*
 * Paths and folders: existence, joining, making, removing, renaming, globs, listings, free space.
 * Lists are in byte order, whatever the locale.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "hanmix/base/alloc.h"
#include "internal.h"

#define REMOVE_DEPTH_MAX 64
#define FOLDER_DEPTH_MAX 32
#define FOLDERS_MAX      10000 /* links that lead back up would make a walk without end */

bool hm_path_exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 ||
           (errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG);
}

bool hm_path_is_dir(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

const char *hm_path_tail(const char *path, int names)
{
    const char *end = path + strlen(path);

    for (const char *c = end; c > path; c--) {
        if (c[-1] == '/' && c != end && --names == 0)
            return c;
    }
    return path;
}

int hm_path_join(char **ret_path, const char *dir, const char *name, struct hm_error *err)
{
    size_t len = strlen(dir);

    if (name[0] == '/' || len == 0)
        return hm_format(ret_path, err, "%s", name);
    return hm_format(ret_path, err, "%s%s%s", dir, dir[len - 1] == '/' ? "" : "/", name);
}

/* The folder that holds path, as an owned string ("." for a plain name). */
static int path_parent(char **ret_dir, const char *path, struct hm_error *err)
{
    size_t len = strlen(path);

    while (len > 1 && path[len - 1] == '/')
        len--;
    while (len > 0 && path[len - 1] != '/')
        len--;
    while (len > 1 && path[len - 1] == '/')
        len--;
    return len == 0 ? hm_format(ret_dir, err, ".")
                    : hm_format(ret_dir, err, "%.*s", (int)len, path);
}

int hm_dir_make(const char *path, struct hm_error *err)
{
    char *part = hm_strdup(HM_MEM_TEXT, path);
    int status = HM_OK;

    if (!part)
        return hm_fail_nomem(err, "for '%s'", path);
    for (char *at = part + 1; status == HM_OK && part[0]; at++) {
        bool last = *at == '\0';
        if (!last && *at != '/')
            continue;
        *at = '\0';
        if (mkdir(part, 0777) < 0 && !(errno == EEXIST && hm_path_is_dir(part)))
            status = errno == EEXIST
                         ? hm_fail(err, HM_ERR_USAGE, "'%s' is a file, a folder is needed", part)
                         : hm_fail_errno(err, "make folder", part);
        if (last)
            break;
        *at = '/';
    }
    hm_free(part);
    return status;
}

int hm_dir_sync(const char *path, struct hm_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return hm_fail_errno_reading(err, "open", path);
    int status = HM_OK;
    if (fsync(fd) < 0 && errno != EINVAL &&
        errno != EROFS) /* some file systems cannot sync folders */
        status = hm_fail_errno(err, "sync", path);
    close(fd);
    return status;
}

/* 1 and the next name in the folder but "." and "..", 0 at the end. The name lives until the next
 * call. */
static int next_name(DIR *dir, const char *path, const char **ret_name, struct hm_error *err)
{
    for (;;) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry)
            return errno ? hm_fail_errno(err, "read folder", path) : 0;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            *ret_name = entry->d_name;
            return 1;
        }
    }
}

/* Remove everything in the open folder; takes over fd. The path is for messages only. */
static int remove_entries(int fd, const char *path, int depth, struct hm_error *err)
{
    DIR *dir = fdopendir(fd);
    const char *name;
    int status;

    if (!dir) {
        status = hm_fail_errno(err, "read folder", path);
        close(fd);
        return status;
    }
    while ((status = next_name(dir, path, &name, err)) > 0) {
        if (unlinkat(dirfd(dir), name, 0) == 0)
            continue;
        int child = openat(dirfd(dir), name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (child < 0) {
            status = hm_fail_errno(err, "remove from folder", path);
        } else if (depth >= REMOVE_DEPTH_MAX) {
            status = hm_fail(err, HM_ERR_IO, "cannot remove '%s': folders more than %d deep", path,
                             REMOVE_DEPTH_MAX);
            close(child);
        } else {
            status = remove_entries(child, name, depth + 1, err);
            if (status == HM_OK && unlinkat(dirfd(dir), name, AT_REMOVEDIR) < 0)
                status = hm_fail_errno(err, "remove", name);
        }
        if (status < 0)
            break;
    }
    closedir(dir);
    return status;
}

int hm_dir_remove(const char *path, struct hm_error *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        if (errno == ENOENT)
            return HM_OK;
        if ((errno == ENOTDIR || errno == ELOOP) && unlink(path) == 0)
            return HM_OK;
        return hm_fail_errno(err, "remove", path);
    }
    HM_TRY(remove_entries(fd, path, 0, err));
    if (rmdir(path) < 0)
        return hm_fail_errno(err, "remove", path);
    return HM_OK;
}

int hm_path_rename(const char *from, const char *to, struct hm_error *err)
{
    char *parent = NULL;

    HM_TRY(path_parent(&parent, to, err));
    int status = HM_OK;
    if (rename(from, to) < 0)
        status =
            hm_fail(err, HM_ERR_IO, "cannot rename '%s' to '%s': %s", from, to, strerror(errno));
    else
        status = hm_dir_sync(parent, err);
    hm_free(parent);
    return status;
}

int hm_disk_free(const char *path, uint64_t *ret_bytes, struct hm_error *err)
{
    struct statvfs info;
    char *at = hm_strdup(HM_MEM_TEXT, path);
    int status = at ? HM_OK : hm_fail_nomem(err, "for '%s'", path);

    /* The folder may not be made yet: ask its parent. */
    while (status == HM_OK && statvfs(at, &info) < 0) {
        char *parent = NULL;
        if (errno != ENOENT || strcmp(at, ".") == 0 || strcmp(at, "/") == 0) {
            status = hm_fail_errno(err, "ask the free space of", path);
            break;
        }
        status = path_parent(&parent, at, err);
        hm_free(at);
        at = parent;
    }
    if (status == HM_OK)
        *ret_bytes = (uint64_t)info.f_bavail * info.f_frsize;
    hm_free(at);
    return status;
}

/* Append an owned copy of text. */
static int names_add(struct hm_names *names, const char *text, struct hm_error *err)
{
    if ((names->count & (names->count - 1)) == 0) { /* at every power of two the array doubles */
        size_t cap = names->count ? 2 * names->count : 1;
        char **item = hm_realloc(HM_MEM_TEXT, names->item, cap * sizeof(*item));
        if (!item)
            return hm_fail_nomem(err, "for a list of names");
        names->item = item;
    }
    char *copy = hm_strdup(HM_MEM_TEXT, text);
    if (!copy)
        return hm_fail_nomem(err, "for a list of names");
    names->item[names->count++] = copy;
    return HM_OK;
}

static int name_compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void names_sort(struct hm_names *names)
{
    if (names->count > 1)
        qsort(names->item, names->count, sizeof(*names->item), name_compare);
}

void hm_names_release(struct hm_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        hm_free(names->item[i]);
    hm_free(names->item);
    *names = (struct hm_names){ 0 };
}

int hm_glob(const char *pattern, struct hm_names *ret_names, struct hm_error *err)
{
    struct hm_names names = { 0 };
    int status = HM_OK;

    if (hm_path_exists(pattern)) { /* a plain path, or a name that itself holds * or [ */
        status = names_add(&names, pattern, err);
    } else {
        glob_t found;
        int result = glob(pattern, GLOB_NOSORT, NULL, &found);
        if (result == GLOB_NOSPACE)
            status = hm_fail_nomem(err, "for '%s'", pattern);
        else if (result == GLOB_NOMATCH || found.gl_pathc == 0)
            status = hm_fail(err, HM_ERR_USAGE, "no file matches '%s'", pattern);
        else if (result != 0)
            status = hm_fail(err, HM_ERR_IO, "cannot list '%s'", pattern);
        for (size_t i = 0; status == HM_OK && i < found.gl_pathc; i++)
            status = names_add(&names, found.gl_pathv[i], err);
        globfree(&found);
        names_sort(&names);
    }
    if (status < 0)
        hm_names_release(&names);
    else
        *ret_names = names;
    return status;
}

int hm_dir_list(const char *path, struct hm_names *ret_names, struct hm_error *err)
{
    struct hm_names names = { 0 };
    DIR *dir = opendir(path);
    const char *name;
    int status;

    if (!dir)
        return hm_fail_errno_reading(err, "read folder", path);
    while ((status = next_name(dir, path, &name, err)) > 0) {
        status = names_add(&names, name, err);
        if (status < 0)
            break;
    }
    closedir(dir);
    if (status < 0) {
        hm_names_release(&names);
        return status;
    }
    names_sort(&names);
    *ret_names = names;
    return HM_OK;
}

struct walk {
    const char *root;
    struct hm_names *names;
    size_t folders;
};

/* Add the files below root/relative to names, as paths relative to root. */
static int folder_walk(struct walk *walk, const char *relative, int depth, struct hm_error *err)
{
    struct hm_names here = { 0 };
    char *path = NULL;
    int status = hm_path_join(&path, walk->root, relative, err);

    if (status == HM_OK && (depth > FOLDER_DEPTH_MAX || ++walk->folders > FOLDERS_MAX))
        status = hm_fail(err, HM_ERR_FORMAT,
                         "'%s' holds folders more than %d deep or more than %d of them; is there "
                         "a link that leads back up?",
                         walk->root, FOLDER_DEPTH_MAX, FOLDERS_MAX);
    if (status == HM_OK)
        status = hm_dir_list(path, &here, err);
    for (size_t i = 0; status == HM_OK && i < here.count; i++) {
        char *child = NULL;
        char *full = NULL;
        status = hm_path_join(&child, relative, here.item[i], err);
        if (status == HM_OK)
            status = hm_path_join(&full, walk->root, child, err);
        if (status == HM_OK && hm_path_is_dir(full))
            status = folder_walk(walk, child, depth + 1, err);
        else if (status == HM_OK)
            status = names_add(walk->names, child, err);
        hm_free(full);
        hm_free(child);
    }
    hm_names_release(&here);
    hm_free(path);
    return status;
}

int hm_dir_files(const char *path, struct hm_names *ret_names, struct hm_error *err)
{
    struct hm_names names = { 0 };
    struct walk walk = { .root = path, .names = &names };
    int status = folder_walk(&walk, "", 0, err);

    if (status < 0) {
        hm_names_release(&names);
        return status;
    }
    names_sort(&names);
    *ret_names = names;
    return HM_OK;
}

int hm_dir_holds(const char *dir, const char *name, bool *ret_found, struct hm_error *err)
{
    char *path = NULL;

    HM_TRY(hm_path_join(&path, dir, name, err));
    *ret_found = hm_path_exists(path);
    hm_free(path);
    return HM_OK;
}

int hm_dir_holds_ending(const char *dir, const char *ending, bool *ret_found, struct hm_error *err)
{
    struct hm_names names = { 0 };

    HM_TRY(hm_dir_list(dir, &names, err));
    *ret_found = false;
    for (size_t i = 0; i < names.count; i++)
        *ret_found |= hm_text_ends(names.item[i], ending);
    hm_names_release(&names);
    return HM_OK;
}
