#include "pyrtc_tree.h"

#include "util.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FEW = 1024, /* names: up to here threads are not worth their start */
};

struct removal {
    int parallel;    /* this pass leaves the directories to the next */
    uint64_t budget; /* names after which the pass ends early; 0: none */
};

/* Say what the kernel keeps to itself: EPERM for the immutable attribute, EBUSY for a mount. */
static int explain(struct walk_worker *worker, const struct walk_dir *dir, const char *name, int fd,
                   int code)
{
    const uint64_t kept = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND;
    struct statx own = {0}, of_dir = {0};

    if (code == EBUSY)
        return walk_fail(worker, code, "remove, because a file system is mounted there", dir, name);
    if (code == EPERM) {
        if (statx(fd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0, &own) == 0 &&
            own.stx_attributes & kept)
            return walk_fail(worker, code, "remove what chattr +i or +a protects", dir, name);
        if (statx(fd, "", AT_EMPTY_PATH, 0, &of_dir) == 0 && of_dir.stx_attributes & kept)
            return walk_fail(worker, code, "remove from a directory with chattr +i or +a", dir,
                             name);
    }
    return walk_fail(worker, code, "remove", dir, name);
}

static int remove_file(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds,
                       const char *name, unsigned char type)
{
    const struct removal *removal = walk_context(worker);

    (void)type;
    if (removal->budget && worker->entries >= removal->budget)
        return WALK_STOP;
    if (unlinkat(fds->source, name, 0) < 0 && errno != ENOENT)
        return explain(worker, dir, name, fds->source, errno);
    return WALK_GO_ON;
}

/* Give the caller, its owner, the rights to list and empty a directory that has lost them (mode
 * 000). The path names the descriptor of a directory that was opened without following a link. */
static int unlock(int parent, const char *name)
{
    char path[32];
    owned_fd int fd = walk_open(parent, name, O_PATH | O_DIRECTORY);

    if (fd < 0)
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return chmod(path, 0700);
}

static int open_dir(int parent, const char *name)
{
    const uint64_t flags = O_RDONLY | O_DIRECTORY;
    struct stat status;
    owned_fd int fd = walk_open(parent, name, flags | O_NOATIME);

    if (fd < 0 && errno == EPERM)
        fd = walk_open(parent, name, flags);
    if (fd < 0 && errno == EACCES && unlock(parent, name) == 0)
        fd = walk_open(parent, name, flags);
    if (fd < 0)
        return -1;
    if (geteuid() != 0 && fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
        (status.st_mode & S_IRWXU) != S_IRWXU && fchmod(fd, 0700) < 0)
        return -1;
    return steal_fd(&fd);
}

static int enter_dir(struct walk_worker *worker, struct walk_dir *dir,
                     const struct walk_fds *parent, struct walk_fds *fds)
{
    fds->source = open_dir(parent->source, dir->name);
    if (fds->source >= 0)
        return WALK_GO_ON;
    if (errno == ENOENT)
        return WALK_LEAVE_OUT;
    if (errno == EXDEV)
        return explain(worker, dir, NULL, parent->source, EBUSY);
    return walk_fail(worker, errno, "open the directory to remove", dir, NULL);
}

static int leave_dir(struct walk_worker *worker, struct walk_dir *dir,
                     const struct walk_fds *parent)
{
    const struct removal *removal = walk_context(worker);

    if (removal->parallel)
        return WALK_GO_ON;
    if (unlinkat(parent->source, dir->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
        return explain(worker, dir->parent, dir->name, parent->source, errno);
    return WALK_GO_ON;
}

static int pass(int root, struct removal removal, struct pyrtc_error *error)
{
    static const struct walk_operations operations = {
        .enter = enter_dir,
        .file = remove_file,
        .leave = leave_dir,
    };
    struct walk_worker totals = {0};
    unsigned threads = removal.parallel ? walk_spare_threads() : 0;

    return walk_tree(&operations, &removal, root, -1, threads, &totals, error);
}

/* A small tree is removed in one pass. A large one in three: the first finds out that it is large,
 * the second removes with all threads what is no directory, where the work is; the third goes
 * through the emptied directories from the bottom up, which one thread does as fast as several. */
static int empty(int root, struct pyrtc_error *error)
{
    int result = pass(root, (struct removal){.budget = FEW}, error);

    if (result != WALK_STOP)
        return result;
    if (pass(root, (struct removal){.parallel = 1}, error) < 0)
        return -1;
    return pass(root, (struct removal){0}, error);
}

int pyrtc_remove_tree(int32_t parent_fd, const char *name, struct pyrtc_error *error)
{
    owned_fd int root = -1;

    if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return pyrtc_fail(error, EINVAL, "remove what is not one name", "%s", name);
    root = open_dir(parent_fd, name);
    if (root < 0 && errno == ENOENT)
        return 0;
    if (root < 0 && errno == EXDEV)
        return pyrtc_fail(error, EBUSY, "remove, because a file system is mounted there", "%s",
                          name);
    if (root < 0 && errno != ENOTDIR && errno != ELOOP)
        return pyrtc_fail(error, errno, "open the directory to remove", "%s", name);
    if (root >= 0 && empty(root, error) < 0)
        return -1;
    if (unlinkat(parent_fd, name, root < 0 ? 0 : AT_REMOVEDIR) < 0 && errno != ENOENT)
        return pyrtc_fail(error, errno, "remove", "%s", name);
    return 0;
}
