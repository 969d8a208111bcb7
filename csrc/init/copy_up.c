/*
 * Copying files of lower layers up before the command runs: a file that is opened for writing is
 * copied by overlayfs, with everything that it has, and the first write to it costs nothing then.
 * The tree is the image's and hostile: nothing but regular files is opened, no link is followed
 * below the path that was asked for, depth is bounded.
 */
#include "init.h"

#include <errno.h>
#include <linux/stat.h>

#define MAX_DEPTH 64

struct entry { /* struct linux_dirent64 */
    uint64_t inode;
    int64_t next;
    uint16_t length;
    uint8_t kind;
    char name[];
};

enum { KIND_DIRECTORY = 4, KIND_REGULAR = 8, KIND_UNKNOWN = 0 };

static long open_below(long directory, const char *name, uint64_t flags)
{
    struct open_how how = {
        .flags = flags | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    return open_confined((int)directory, name, &how);
}

/* The mode of what a descriptor is of, or -errno. */
static long mode_of(long fd)
{
    struct statx status;
    long result = sys_call(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &status);

    return result < 0 ? result : status.stx_mode & S_IFMT;
}

/* A file that changed its kind since it was looked at may be a FIFO: then opening fails instead of
 * waiting. What is mounted over one is no part of a layer. */
static long copy_file(struct state *state, long directory, const char *name)
{
    state->call = "open for writing";
    long fd = open_below(directory, name, O_WRONLY | O_NONBLOCK);
    if (fd == -EXDEV)
        return 0;
    if (fd < 0)
        return fd;
    sys_call(__NR_close, fd);
    return 0;
}

static long copy_below(struct state *state, long directory, int depth);

static long copy_entry(struct state *state, long directory, const struct entry *entry, int depth)
{
    const char *name = entry->name;
    bool dots = name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));

    if (dots)
        return 0;
    if (entry->kind == KIND_REGULAR)
        return copy_file(state, directory, name);
    if (entry->kind != KIND_DIRECTORY)
        return entry->kind == KIND_UNKNOWN ? -EOPNOTSUPP : 0;
    state->call = "open";
    long below = open_below(directory, name, O_RDONLY | O_DIRECTORY);
    if (below == -EXDEV)
        return 0;
    if (below < 0)
        return below;
    long result = copy_below(state, below, depth + 1);
    sys_call(__NR_close, below);
    return result;
}

static long copy_below(struct state *state, long directory, int depth)
{
    union {
        char bytes[4096];
        struct entry align;
    } block;
    long size = 0;

    if (depth > MAX_DEPTH)
        return -ELOOP;
    do {
        state->call = "getdents64";
        size = sys_call(__NR_getdents64, directory, &block, sizeof(block));
        for (long at = 0; at < size;) {
            const struct entry *entry = (const struct entry *)(block.bytes + at);
            long result = copy_entry(state, directory, entry, depth);
            if (result < 0)
                return result;
            at += entry->length;
        }
    } while (size > 0);
    return size;
}

long copy_up(struct state *state, const struct plan_op *op)
{
    const char *path = plan_string(op, 0);
    long found = path_open(state, path, O_PATH, 0), result;

    if (found < 0)
        return found;
    long mode = mode_of(found);
    if (mode != S_IFREG && mode != S_IFDIR) {
        sys_call(__NR_close, found);
        return mode < 0 ? mode : -EINVAL;
    }
    sys_call(__NR_close, found);
    uint64_t flags = mode == S_IFDIR ? O_RDONLY | O_DIRECTORY : O_WRONLY | O_NONBLOCK;
    long fd = path_open(state, path, flags, 0);
    if (fd < 0)
        return fd;
    result = mode == S_IFDIR ? copy_below(state, fd, 0) : 0;
    sys_call(__NR_close, fd);
    return result;
}
