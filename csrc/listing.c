#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    READ_SIZE = 32768,
};

/* What getdents64 writes; glibc's struct dirent64 has the same layout but a name of fixed size. */
struct record {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
};

struct room {
    struct listing *listing;
    size_t entries; /* allocated */
    size_t names;   /* used */
    size_t space;   /* allocated */
};

static int reserve(struct room *room, size_t name_size)
{
    struct listing *listing = room->listing;

    if (listing->count == room->entries) {
        size_t wanted = room->entries ? 2 * room->entries : 32;
        void *grown = reallocarray(listing->entries, wanted, sizeof(*listing->entries));
        if (!grown)
            return -1;
        listing->entries = grown;
        room->entries = wanted;
    }
    if (room->space - room->names < name_size) {
        size_t wanted = 2 * room->space + 512 + name_size;
        void *grown = realloc(listing->names, wanted);
        if (!grown)
            return -1;
        listing->names = grown;
        room->space = wanted;
    }
    return 0;
}

/* Some file systems do not say in a directory what a name is. */
static int look_up_type(int fd, const char *name, unsigned char *type)
{
    struct stat status;

    if (fstatat(fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    *type = IFTODT(status.st_mode);
    return 0;
}

static int add(struct room *room, int fd, const struct record *record)
{
    struct listing *listing = room->listing;
    size_t size = strlen(record->name) + 1;
    unsigned char type = record->type;

    if (strcmp(record->name, ".") == 0 || strcmp(record->name, "..") == 0)
        return 0;
    if (type == DT_UNKNOWN && look_up_type(fd, record->name, &type) < 0)
        return errno == ENOENT ? 0 : -1;
    if (reserve(room, size) < 0)
        return -1;
    memcpy(listing->names + room->names, record->name, size);
    listing->entries[listing->count++] = (struct listing_entry){
        .inode = record->inode,
        .name = room->names,
        .type = type,
    };
    room->names += size;
    if (type != DT_DIR)
        listing->files++;
    return 0;
}

static int compare(const void *left, const void *right)
{
    const struct listing_entry *a = left;
    const struct listing_entry *b = right;

    if ((a->type == DT_DIR) != (b->type == DT_DIR))
        return a->type == DT_DIR ? 1 : -1;
    return a->inode < b->inode ? -1 : a->inode > b->inode;
}

static int fill(struct room *room, int fd)
{
    _Alignas(struct record) char buffer[READ_SIZE];
    long size;

    while ((size = syscall(SYS_getdents64, fd, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < size;) {
            const struct record *record = (const struct record *)(buffer + at);
            if (add(room, fd, record) < 0)
                return -1;
            at += record->size;
        }
    }
    return size < 0 ? -1 : 0;
}

/* Everything is read before anything is done with it, because what a directory still lists while
 * names are taken out of it is left to each file system. Sorted by inode number, files lie next to
 * each other in the inode tables and mostly on the disk; hash-ordered directories (ext4) would
 * otherwise be read criss-cross. */
struct listing *listing_read(int fd)
{
    struct listing *listing = calloc(1, sizeof(*listing));
    struct room room = {.listing = listing};

    if (!listing)
        return NULL;
    atomic_init(&listing->references, 1);
    if (fill(&room, fd) < 0) {
        int code = errno;
        listing_release(listing);
        errno = code;
        return NULL;
    }
    if (listing->count > 1)
        qsort(listing->entries, listing->count, sizeof(*listing->entries), compare);
    return listing;
}

void listing_release(struct listing *listing)
{
    if (!listing || atomic_fetch_sub(&listing->references, 1) > 1)
        return;
    free(listing->entries);
    free(listing->names);
    free(listing);
}
