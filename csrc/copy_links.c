#include "copyup.h"

#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

/* A file with more than one link: the name that it got first in the target. */
struct link {
    struct link *next;
    dev_t device;
    ino_t inode;
    uint32_t remaining; /* links that were not seen yet; at 0 it is forgotten */
    struct walk_dir *dir;
    char name[];
};

/* Held from copy_links_claim() to copy_links_settle(), so that a thread that finds the second link
 * waits until the first exists, which is one open(O_CREAT) later; the data follows without the
 * lock. */
struct copy_links {
    pthread_mutex_t lock;
    struct link **buckets;
    size_t size; /* a power of two */
    size_t count;
};

struct copy_links *copy_links_new(void)
{
    struct copy_links *links = calloc(1, sizeof(*links));

    if (links)
        pthread_mutex_init(&links->lock, NULL);
    return links;
}

static void forget(struct link *link)
{
    walk_release(link->dir);
    free(link);
}

void copy_links_free(struct copy_links *links)
{
    if (!links)
        return;
    for (size_t index = 0; index < links->size; index++) {
        for (struct link *link = links->buckets[index], *next; link; link = next) {
            next = link->next;
            forget(link);
        }
    }
    free(links->buckets);
    pthread_mutex_destroy(&links->lock);
    free(links);
}

static dev_t device_of(const struct statx *status)
{
    return ((dev_t)status->stx_dev_major << 32) | status->stx_dev_minor;
}

/* Inode numbers of a hostile tree may be chosen to collide in their low bits, so all of them are
 * mixed. */
static size_t bucket_of(const struct copy_links *links, dev_t device, ino_t inode)
{
    uint64_t hash = (inode ^ (device << 17)) * UINT64_C(0x9e3779b97f4a7c15);

    hash ^= hash >> 32;
    return hash & (links->size - 1);
}

static int grow(struct copy_links *links)
{
    size_t size = links->size ? 2 * links->size : 256;
    struct link **old = links->buckets;
    size_t old_size = links->size;
    struct link **buckets = calloc(size, sizeof(*buckets));

    if (!buckets)
        return -1;
    links->buckets = buckets;
    links->size = size;
    for (size_t index = 0; index < old_size; index++) {
        for (struct link *link = old[index], *next; link; link = next) {
            size_t bucket = bucket_of(links, link->device, link->inode);
            next = link->next;
            link->next = buckets[bucket];
            buckets[bucket] = link;
        }
    }
    free(old);
    return 0;
}

/* Return where the link to this file is, or would be, chained. */
static struct link **find(struct copy_links *links, const struct statx *status)
{
    size_t bucket = bucket_of(links, device_of(status), status->stx_ino);
    struct link **at = &links->buckets[bucket];

    while (*at && ((*at)->inode != status->stx_ino || (*at)->device != device_of(status)))
        at = &(*at)->next;
    return at;
}

/* Open a directory of the target by its path, which may be longer than the kernel takes in one
 * piece. */
static int open_dir(int root, const struct walk_dir *dir)
{
    enum { PIECE = 4000 };
    struct open_how how = {
        .flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
    };
    owned char *path = walk_path(dir);
    owned_fd int fd = -1;

    if (!path)
        return -1;
    for (char *piece = path, *next; piece; piece = next) {
        int deeper;

        next = NULL;
        if (strlen(piece) > PIECE) {
            next = piece + PIECE;
            while (*next != '/')
                next--;
            *next++ = '\0';
        }
        deeper = (int)syscall(SYS_openat2, fd < 0 ? root : fd, piece, &how, sizeof(how));
        if (deeper < 0)
            return -1;
        close_owned(&fd);
        fd = deeper;
    }
    return steal_fd(&fd);
}

static int make_link(const struct copy_subject *subject, const struct walk_fds *fds,
                     const struct link *link)
{
    const struct copy *copy = walk_context(subject->worker);
    owned_fd int other = -1;

    if (link->dir != subject->dir) {
        other = open_dir(copy->target, link->dir);
        if (other < 0 && copy->into && errno == EXDEV)
            return LINK_ALONE;
        if (other < 0)
            return copy_fail(subject, "find the first hard link");
    }
    int from = other < 0 ? fds->target : other;
    const char *name = copy_target_name(subject);
    if (linkat(from, link->name, fds->target, name, 0) == 0)
        return LINK_MADE;
    if (copy->into && errno == EEXIST && copy_make_way(fds->target, name) == 0 &&
        linkat(from, link->name, fds->target, name, 0) == 0)
        return LINK_MADE;
    if (copy->into && errno == EXDEV)
        return LINK_ALONE;
    return copy_fail(subject, "make the hard link");
}

int copy_links_claim(const struct copy_subject *subject, const struct walk_fds *fds,
                     const struct statx *status)
{
    const struct copy *copy = walk_context(subject->worker);
    struct copy_links *links = copy->links;
    struct link **at, *link;
    int result;

    pthread_mutex_lock(&links->lock);
    if (links->count >= links->size && grow(links) < 0) {
        pthread_mutex_unlock(&links->lock);
        return walk_fail(subject->worker, ENOMEM, "note the hard link", subject->dir,
                         subject->name);
    }
    at = find(links, status);
    link = *at;
    if (!link)
        return LINK_FIRST;
    result = make_link(subject, fds, link);
    if (--link->remaining == 0) {
        *at = link->next;
        links->count--;
        forget(link);
    }
    pthread_mutex_unlock(&links->lock);
    return result;
}

int copy_links_settle(const struct copy_subject *subject, const struct statx *status, int made)
{
    const struct copy *copy = walk_context(subject->worker);
    struct copy_links *links = copy->links;
    struct link *link = NULL;

    if (made) {
        const char *name = copy_target_name(subject);
        size_t size = strlen(name) + 1;

        link = malloc(sizeof(*link) + size);
        if (link) {
            struct link **at = find(links, status);

            *link = (struct link){
                .device = device_of(status),
                .inode = status->stx_ino,
                .remaining = status->stx_nlink - 1,
                .dir = (struct walk_dir *)subject->dir,
            };
            memcpy(link->name, name, size);
            walk_hold(link->dir);
            *at = link;
            links->count++;
        }
    }
    pthread_mutex_unlock(&links->lock);
    if (made && !link)
        return walk_fail(subject->worker, ENOMEM, "note the hard link", subject->dir,
                         subject->name);
    return 0;
}
