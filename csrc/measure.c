/*
 * What a tree takes on the disk: what the file system would have back if it were removed.
 */
#include "pyrtc_tree.h"

#include "util.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <string.h>
#include <sys/stat.h>

#define STEP "measure a tree"

/* Files with several names, by inode, so that each is counted once. */
struct seen {
    pthread_mutex_t lock;
    void *index; /* tsearch(3) */
    uint64_t count;
};

enum { MAX_SEEN = 1 << 24 };

struct inode {
    dev_t device;
    ino_t number;
};

static int compare(const void *left, const void *right)
{
    const struct inode *a = left, *b = right;

    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    return a->number < b->number ? -1 : a->number > b->number;
}

/* Returns 1 for a file that was not seen before, 0 for one that was, or < 0. */
static int claim(struct seen *seen, const struct stat *status)
{
    struct inode *inode = malloc(sizeof(*inode));
    int result = -1;

    if (!inode)
        return -1;
    *inode = (struct inode){.device = status->st_dev, .number = status->st_ino};
    pthread_mutex_lock(&seen->lock);
    struct inode **found = seen->count < MAX_SEEN ? tsearch(inode, &seen->index, compare)
                                                  : tfind(inode, &seen->index, compare);
    if (found) {
        result = *found == inode;
        seen->count += (uint64_t)result;
    }
    pthread_mutex_unlock(&seen->lock);
    if (result != 1)
        free(inode);
    return result;
}

static int measure_file(struct walk_worker *worker, struct walk_dir *dir,
                        const struct walk_fds *fds, const char *name, unsigned char type)
{
    struct stat status;
    int fresh = 1;

    (void)type;
    if (fstatat(fds->source, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        if (errno == ENOENT)
            return WALK_GO_ON; /* somebody works in the tree */
        return walk_fail(worker, errno, STEP, dir, name);
    }
    if (status.st_nlink > 1)
        fresh = claim(walk_context(worker), &status);
    if (fresh < 0)
        return walk_fail(worker, ENOMEM, STEP, dir, name);
    if (fresh)
        worker->bytes += (uint64_t)status.st_blocks * 512;
    return WALK_GO_ON;
}

/* A directory takes room itself. One on which a file system is mounted is left out with what is in it. */
static int measure_dir(struct walk_worker *worker, struct walk_dir *dir,
                       const struct walk_fds *parent, struct walk_fds *fds)
{
    struct stat status;

    fds->source = walk_open(parent->source, dir->name, O_RDONLY | O_DIRECTORY);
    if (fds->source < 0 && (errno == ENOENT || errno == EXDEV))
        return WALK_LEAVE_OUT;
    if (fds->source < 0 || fstat(fds->source, &status) < 0)
        return walk_fail(worker, errno, STEP, dir, NULL);
    worker->bytes += (uint64_t)status.st_blocks * 512;
    worker->entries++;
    return WALK_GO_ON;
}

int pyrtc_measure_tree(int32_t parent_fd, const char *name, struct pyrtc_measure_result *result,
                       struct pyrtc_error *error)
{
    static const struct walk_operations operations = {.enter = measure_dir, .file = measure_file};
    struct seen seen = {0};
    struct walk_worker totals = {0};
    struct stat status;
    owned_fd int root = walk_open(parent_fd, name, O_RDONLY | O_DIRECTORY);

    if (root < 0 || fstat(root, &status) < 0)
        return pyrtc_fail(error, errno, STEP, "%.200s", name);
    pthread_mutex_init(&seen.lock, NULL);
    int outcome = walk_tree(&operations, &seen, root, -1, walk_spare_threads(), &totals, error);
    while (seen.index) {
        struct inode *inode = *(struct inode **)seen.index;
        tdelete(inode, &seen.index, compare);
        free(inode);
    }
    pthread_mutex_destroy(&seen.lock);
    *result = (struct pyrtc_measure_result){
        .entries = totals.entries,
        .allocated = totals.bytes + (uint64_t)status.st_blocks * 512,
    };
    return outcome < 0 ? -1 : 0;
}
