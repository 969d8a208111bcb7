/*
 * A directory read whole, in the order in which its inodes lie on the disk.
 */
#ifndef PYRTC_LISTING_H
#define PYRTC_LISTING_H

#include "error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct listing_entry {
    uint64_t inode;
    size_t name;        /* offset into names */
    unsigned char type; /* DT_*; never DT_UNKNOWN */
};

struct listing {
    atomic_uint references;
    struct listing_entry *entries; /* first what is not a directory, then the directories */
    size_t count;
    size_t files; /* how many are not directories */
    char *names;
};

/* Read the directory behind fd from its start. NULL with errno set when it cannot be read. */
struct listing *listing_read(int fd);

void listing_release(struct listing *listing);

static inline const char *listing_name(const struct listing *listing, size_t index)
{
    return listing->names + listing->entries[index].name;
}

#endif
