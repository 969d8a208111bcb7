#include "walk.h"

#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "walk_pool.h"

enum {
    OPEN_LEVELS = 8, /* directories kept open above the current one */
    BATCH_SIZE = 64, /* names */
    MAX_THREADS = 3, /* besides the calling one: more only wait for the journal */
};

struct walk {
    const struct walk_operations *operations;
    void *context;
    struct walk_pool *pool;
    struct walk_worker *main;
    struct walk_dir **stack;
    size_t depth;
    size_t space;
};

void *walk_context(const struct walk_worker *worker)
{
    return worker->walk->context;
}

int walk_open(int fd, const char *name, uint64_t flags)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC | O_NOFOLLOW,
        .resolve = RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS,
    };
    return (int)syscall(SYS_openat2, fd, name, &how, sizeof(how));
}

int walk_open_across(int fd, const char *name, uint64_t flags)
{
    struct open_how how = {
        .flags = flags | O_CLOEXEC | O_NOFOLLOW,
        .resolve = RESOLVE_NO_SYMLINKS,
    };
    return (int)syscall(SYS_openat2, fd, name, &how, sizeof(how));
}

unsigned walk_spare_threads(void)
{
    cpu_set_t set;
    int count;

    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    count = CPU_COUNT(&set) - 1;
    return count > MAX_THREADS ? MAX_THREADS : (unsigned)count;
}

void walk_hold(struct walk_dir *dir)
{
    atomic_fetch_add(&dir->references, 1);
}

/* A loop, because the last name in a deep directory may be all that kept its ancestors. */
void walk_release(struct walk_dir *dir)
{
    while (dir && atomic_fetch_sub(&dir->references, 1) == 1) {
        struct walk_dir *parent = dir->parent;
        listing_release(dir->listing);
        free(dir);
        dir = parent;
    }
}

static void release_fds(struct walk_fds *fds)
{
    if (!fds || atomic_fetch_sub(&fds->references, 1) > 1)
        return;
    close_owned(&fds->source);
    close_owned(&fds->target);
    free(fds);
}

static struct walk_fds *new_fds(int source, int target)
{
    struct walk_fds *fds = malloc(sizeof(*fds));

    if (fds) {
        atomic_init(&fds->references, 1);
        fds->source = source;
        fds->target = target;
    }
    return fds;
}

char *walk_path(const struct walk_dir *dir)
{
    size_t size = 0;
    char *path, *at;

    for (const struct walk_dir *up = dir; up->parent; up = up->parent)
        size += strlen(up->name) + 1;
    if (size == 0)
        return strdup(".");
    path = malloc(size);
    if (!path)
        return NULL;
    at = path + size;
    *--at = '\0';
    for (const struct walk_dir *up = dir; up->parent; up = up->parent) {
        size_t length = strlen(up->name);
        at -= length;
        memcpy(at, up->name, length);
        if (at > path)
            *--at = '/';
    }
    return path;
}

int walk_fail(struct walk_worker *worker, int code, const char *step, const struct walk_dir *dir,
              const char *name)
{
    enum { SHOWN = 400 };
    owned char *path = dir ? walk_path(dir) : NULL;
    owned char *whole = NULL;
    size_t length;

    if (!path)
        return pyrtc_fail(&worker->error, code, step, "%s", name ? name : "");
    if (!name)
        whole = strdup(path);
    else if (!dir->parent)
        whole = strdup(name);
    else if (asprintf(&whole, "%s/%s", path, name) < 0)
        whole = NULL;
    if (!whole)
        return pyrtc_fail(&worker->error, code, step, "%s", name ? name : "");
    length = strlen(whole);
    if (length > SHOWN)
        return pyrtc_fail(&worker->error, code, step, "...%s", whole + length - SHOWN);
    return pyrtc_fail(&worker->error, code, step, "%s", whole);
}

static int push(struct walk *walk, struct walk_dir *dir)
{
    if (walk->depth == walk->space) {
        size_t wanted = walk->space ? 2 * walk->space : 64;
        void *grown = reallocarray(walk->stack, wanted, sizeof(*walk->stack));
        if (!grown)
            return -1;
        walk->stack = grown;
        walk->space = wanted;
    }
    walk->stack[walk->depth++] = dir;
    return 0;
}

static struct walk_dir *new_dir(struct walk_dir *parent, const char *name)
{
    size_t size = strlen(name) + 1;
    struct walk_dir *dir = calloc(1, sizeof(*dir) + size);

    if (!dir)
        return NULL;
    memcpy(dir->name, name, size);
    atomic_init(&dir->references, 1);
    atomic_init(&dir->unfinished, 1);
    dir->parent = parent;
    if (parent)
        walk_hold(parent);
    return dir;
}

static int identify(int fd, struct walk_identity *identity)
{
    struct stat status;

    if (fd < 0)
        return 0;
    if (fstat(fd, &status) < 0)
        return -1;
    *identity = (struct walk_identity){.device = status.st_dev, .inode = status.st_ino};
    return 0;
}

/* Close a directory that is far above the current one, and note what it was. */
static int close_far(struct walk *walk, struct walk_dir *dir)
{
    if (identify(dir->fds->source, &dir->source_identity) < 0 ||
        identify(dir->fds->target, &dir->target_identity) < 0)
        return walk_fail(walk->main, errno, "examine the directory", dir, NULL);
    release_fds(dir->fds);
    dir->fds = NULL;
    return 0;
}

static int open_up(const struct walk *walk, int fd, const struct walk_identity *expected)
{
    struct walk_identity found = {0};
    owned_fd int up = walk->operations->across ? walk_open_across(fd, "..", O_RDONLY | O_DIRECTORY)
                                               : walk_open(fd, "..", O_RDONLY | O_DIRECTORY);

    if (up < 0 || identify(up, &found) < 0)
        return -1;
    if (found.device != expected->device || found.inode != expected->inode) {
        errno = ESTALE;
        return -1;
    }
    return steal_fd(&up);
}

/* Open a directory that close_far() closed from the one below it. Whoever moves directories about
 * meanwhile could make ".." lead anywhere, so it must be the directory that it was. */
static int reopen(struct walk *walk, struct walk_dir *dir, const struct walk_fds *below)
{
    owned_fd int source = open_up(walk, below->source, &dir->source_identity);
    owned_fd int target = -1;

    if (source >= 0 && below->target >= 0)
        target = open_up(walk, below->target, &dir->target_identity);
    if (source < 0 || (below->target >= 0 && target < 0))
        return walk_fail(walk->main, errno, "go back to the directory", dir, NULL);
    dir->fds = new_fds(source, target);
    if (!dir->fds)
        return walk_fail(walk->main, ENOMEM, "go back to the directory", dir, NULL);
    steal_fd(&source);
    steal_fd(&target);
    return 0;
}

/* One part of dir is done; with the last one everything that makes it complete can follow. */
static int part_done(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds)
{
    const struct walk_operations *operations = worker->walk->operations;

    if (atomic_fetch_sub(&dir->unfinished, 1) > 1 || !operations->finish)
        return WALK_GO_ON;
    return operations->finish(worker, dir, fds);
}

int walk_run_batch(struct walk_worker *worker, const struct walk_batch *batch)
{
    const struct walk_operations *operations = worker->walk->operations;
    const struct listing *listing = batch->listing;

    for (size_t index = batch->first; index < batch->end; index++) {
        int result = operations->file(worker, batch->dir, batch->fds, listing_name(listing, index),
                                      listing->entries[index].type);
        if (result != WALK_GO_ON)
            return result;
        worker->entries++;
    }
    return part_done(worker, batch->dir, batch->fds);
}

void walk_release_batch(struct walk_batch *batch)
{
    listing_release(batch->listing);
    release_fds(batch->fds);
    walk_release(batch->dir);
}

/* Read dir and hand out what is no directory. The count of unfinished parts rises before a batch is
 * handed out, so that no thread takes itself for the last one too early. */
static int list(struct walk *walk, struct walk_dir *dir)
{
    dir->listing = listing_read(dir->fds->source);
    if (!dir->listing)
        return walk_fail(walk->main, errno, "read the directory", dir, NULL);
    dir->next = dir->listing->files;
    for (size_t first = 0; first < dir->listing->files; first += BATCH_SIZE) {
        size_t left = dir->listing->files - first;
        struct walk_batch batch = {
            .dir = dir,
            .fds = dir->fds,
            .listing = dir->listing,
            .first = first,
            .end = first + (left < BATCH_SIZE ? left : BATCH_SIZE),
        };
        int result;

        walk_hold(dir);
        atomic_fetch_add(&dir->fds->references, 1);
        atomic_fetch_add(&dir->listing->references, 1);
        atomic_fetch_add(&dir->unfinished, 1);
        result = walk_pool_submit(walk->pool, walk->main, &batch);
        if (result != WALK_GO_ON)
            return result;
    }
    return WALK_GO_ON;
}

static int enter(struct walk *walk, struct walk_dir *parent, const char *name)
{
    struct walk_fds *fds = new_fds(-1, -1);
    struct walk_dir *dir = new_dir(parent, name);
    int result = -1;

    if (!fds || !dir)
        walk_fail(walk->main, ENOMEM, "enter the directory", parent, name);
    else
        result = walk->operations->enter(walk->main, dir, parent->fds, fds);
    if (result == WALK_GO_ON && push(walk, dir) < 0)
        result = walk_fail(walk->main, ENOMEM, "enter the directory", parent, name);
    if (result != WALK_GO_ON) {
        release_fds(fds);
        walk_release(dir);
        return result == WALK_LEAVE_OUT ? WALK_GO_ON : result;
    }
    walk->main->entries++;
    dir->fds = fds;
    if (walk->depth > OPEN_LEVELS) {
        struct walk_dir *far = walk->stack[walk->depth - 1 - OPEN_LEVELS];
        if (far->parent && far->fds)
            return close_far(walk, far);
    }
    return WALK_GO_ON;
}

/* Go up one level. The parent is opened before dir is finished, while nobody can have taken away
 * the rights for it. */
static int leave(struct walk *walk, struct walk_dir *dir)
{
    struct walk_dir *parent = walk->depth > 1 ? walk->stack[walk->depth - 2] : NULL;
    int result = WALK_GO_ON;

    if (parent && !parent->fds)
        result = reopen(walk, parent, dir->fds);
    if (result == WALK_GO_ON)
        result = part_done(walk->main, dir, dir->fds);
    if (result == WALK_GO_ON && parent && walk->operations->leave)
        result = walk->operations->leave(walk->main, dir, parent->fds);
    walk->depth--;
    release_fds(dir->fds);
    dir->fds = NULL;
    listing_release(dir->listing);
    dir->listing = NULL;
    walk_release(dir);
    return result;
}

static int step(struct walk *walk)
{
    struct walk_dir *dir = walk->stack[walk->depth - 1];

    if (walk_pool_stopped(walk->pool))
        return WALK_STOP;
    if (!dir->listing)
        return list(walk, dir);
    if (dir->next == dir->listing->count)
        return leave(walk, dir);
    return enter(walk, dir, listing_name(dir->listing, dir->next++));
}

/* After an early end: give up what the stack holds. */
static void unwind(struct walk *walk)
{
    while (walk->depth > 0) {
        struct walk_dir *dir = walk->stack[--walk->depth];
        release_fds(dir->fds);
        dir->fds = NULL;
        walk_release(dir);
    }
    free(walk->stack);
}

/* A duplicate would share its position with every other walk over the same directory. */
static int open_again(int fd)
{
    int again = walk_open(fd, ".", O_RDONLY | O_DIRECTORY | O_NOATIME);

    return again < 0 && errno == EPERM ? walk_open(fd, ".", O_RDONLY | O_DIRECTORY) : again;
}

static int start(struct walk *walk, int source, int target)
{
    struct walk_dir *root = new_dir(NULL, "");
    owned_fd int own_source = open_again(source);
    owned_fd int own_target = target < 0 ? -1 : open_again(target);

    if (own_source >= 0 && (target < 0 || own_target >= 0) && root) {
        root->fds = new_fds(own_source, own_target);
        if (root->fds) {
            steal_fd(&own_source);
            steal_fd(&own_target);
            if (push(walk, root) == 0)
                return 0;
            release_fds(root->fds);
        }
        errno = ENOMEM;
    }
    walk_fail(walk->main, errno, "start the walk over the tree", NULL, NULL);
    walk_release(root);
    return -1;
}

int walk_tree(const struct walk_operations *operations, void *context, int source, int target,
              unsigned threads, struct walk_worker *totals, struct pyrtc_error *error)
{
    struct walk walk = {.operations = operations, .context = context, .main = totals};
    int result;

    totals->walk = &walk;
    walk.pool = walk_pool_new(threads);
    if (!walk.pool)
        return pyrtc_fail(error, ENOMEM, "start the walk over the tree", "%s", "");
    result = start(&walk, source, target);
    while (result == WALK_GO_ON && walk.depth > 0)
        result = step(&walk);
    result = walk_pool_end(walk.pool, totals, result, error);
    unwind(&walk);
    return result;
}

int walk_one(const struct walk_operations *operations, void *context, int source, int target,
             const char *name, unsigned char type, struct walk_worker *totals,
             struct pyrtc_error *error)
{
    struct walk walk = {.operations = operations, .context = context, .main = totals};
    struct walk_dir *root = new_dir(NULL, "");
    struct walk_fds fds = {.source = source, .target = target};
    int result;

    if (!root)
        return pyrtc_fail(error, ENOMEM, "start the copy", "%s", "");
    atomic_init(&fds.references, 1);
    totals->walk = &walk;
    result = operations->file(totals, root, &fds, name, type);
    if (result < 0)
        *error = totals->error;
    else
        totals->entries++;
    free(totals->scratch);
    totals->scratch = NULL;
    walk_release(root);
    return result;
}
