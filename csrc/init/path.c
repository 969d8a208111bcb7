/*
 * Paths inside the container's root. The tree is the image's and hostile: every look-up is the
 * kernel's, confined to the root by openat2(RESOLVE_IN_ROOT), and ends in a descriptor that is then
 * used instead of the path (CVE-2021-30465).
 */
#include "init.h"

#include <errno.h>

#define MAX_LINKS 40

long path_open(struct state *state, const char *path, uint64_t how_flags, uint64_t extra_resolve)
{
    struct open_how how = {
        .flags = how_flags | O_CLOEXEC,
        .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | extra_resolve,
    };

    state->call = "openat2";
    state->detail = path;
    while (*path == '/')
        path++;
    return open_confined(state->root_fd, *path ? path : ".", &how);
}

static long open_in(int directory, const char *name, uint64_t flags)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
    };
    return open_confined(directory, name, &how);
}

/* Make the missing name in parent and open it. *link is set when a dangling symbolic link has the
 * name. */
static long make_missing(struct state *state, long parent, const char *name, bool directory,
                         bool *link)
{
    long result;

    if (directory) {
        state->call = "mkdirat";
        result = sys_call(__NR_mkdirat, parent, name, 0755);
    } else {
        state->call = "mknodat";
        result = sys_call(__NR_mknodat, parent, name, 0100644, 0);
    }
    *link = result == -EEXIST;
    if (result < 0 && result != -EEXIST)
        return result;
    state->call = "openat2";
    result = open_in((int)parent, name, O_PATH);
    *link = *link && result == -ELOOP;
    return result;
}

/* What the dangling link at `text`+cut (its name, in parent) leads to, put in place of the path
 * walked so far. */
static long follow_dangling(long parent, char *text, size_t start, size_t cut, char saved)
{
    char value[PATH_SIZE], rebuilt[PATH_SIZE];
    size_t used = 0;
    long length = sys_call(__NR_readlinkat, parent, text + start, value, sizeof(value) - 1);

    if (length <= 0)
        return length < 0 ? length : -EINVAL;
    value[length] = '\0';
    rebuilt[0] = '\0';
    char kept = text[start];
    if (value[0] != '/') {
        text[start] = '\0';
        if (!text_append(rebuilt, sizeof(rebuilt), &used, text))
            return -ENAMETOOLONG;
        text[start] = kept;
    }
    text[cut] = saved;
    if (!text_append(rebuilt, sizeof(rebuilt), &used, value) ||
        !text_append(rebuilt, sizeof(rebuilt), &used, text + cut))
        return -ENAMETOOLONG;
    used = 0;
    text_append(text, PATH_SIZE, &used, rebuilt);
    return 0;
}

/* One pass over the path: each prefix is opened by the kernel from the root; the first missing one
 * and those after it are made one below the other. Returns a descriptor, an error, or -EAGAIN after
 * the path was rewritten by a link. */
static long walk_making(struct state *state, char *text, bool directory, uint64_t extra_resolve)
{
    long current = path_open(state, "/", O_PATH | O_DIRECTORY, 0);
    bool missing = false;
    size_t at = 0;

    while (current >= 0) {
        while (text[at] == '/')
            at++;
        if (!text[at])
            return current;
        size_t start = at;
        while (text[at] && text[at] != '/')
            at++;
        size_t after = at;
        while (text[after] == '/')
            after++;
        bool last = !text[after], link = false;
        char saved = text[at];
        text[at] = '\0';
        long next = missing ? -ENOENT : path_open(state, text, O_PATH, extra_resolve);
        if (next == -ENOENT) {
            next = make_missing(state, current, text + start, directory || !last, &link);
            missing = true;
        }
        if (link) {
            bool follow = !(extra_resolve & RESOLVE_NO_SYMLINKS);
            long result = follow ? follow_dangling(current, text, start, at, saved) : -ELOOP;
            path_close(current);
            return result < 0 ? result : -EAGAIN;
        }
        text[at] = saved;
        path_close(current);
        current = next;
    }
    return current;
}

long path_target(struct state *state, const char *path, bool directory, uint64_t extra_resolve)
{
    char text[PATH_SIZE];
    size_t used = 0;
    long result = path_open(state, path, O_PATH, extra_resolve);

    if (result != -ENOENT)
        return result;
    if (!text_append(text, sizeof(text), &used, path))
        return -ENAMETOOLONG;
    for (int links = 0; links < MAX_LINKS; links++) {
        result = walk_making(state, text, directory, extra_resolve);
        state->detail = path;
        if (result != -EAGAIN)
            return result;
    }
    return -ELOOP;
}
