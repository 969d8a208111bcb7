/*
 * What the writer of layers knows of a tree besides the entry at hand: which file had which inode,
 * and what may be said of a file's extended attributes.
 */
#ifndef PYRTC_TARDIFF_TREE_H
#define PYRTC_TARDIFF_TREE_H

#include "pyrtc.h"
#include "tar_header.h"

#include <stdbool.h>
#include <sys/stat.h>

/* The first name of every file with several, until all of them were seen. */
struct first_names {
    void *index; /* tsearch(3) */
    void *spent; /* the entry that was found last, if that was its last use */
    uint64_t bytes;
};

/* Returns the name under which the inode was seen before, or NULL after taking note of this one; <
 * 0 in *failed. The name is valid until the next call. */
const char *first_name(struct first_names *names, const struct stat *status, const char *path,
                       int *failed, struct pyrtc_error *error);
void first_names_free(struct first_names *names);

/* Room for attributes, allocated once. */
struct attribute_room {
    char *names;
    char *value;
    const char **sorted;
};

int attribute_room_open(struct attribute_room *room, struct pyrtc_error *error);
void attribute_room_close(struct attribute_room *room);

struct attribute_source {
    int fd;           /* of the file, or of its directory when name is set */
    const char *name; /* what has no descriptor of its own: devices, FIFOs */
};

/* Write what an image may say of a file's attributes as PAX records, in the order of their names.
 * *left_out counts those that it may not, except overlayfs's own. */
int attributes_read(struct attribute_room *room, const struct attribute_source *source,
                    struct tar_text *records, uint64_t *left_out, struct pyrtc_error *error);

/* Whether overlayfs lets nothing of the layers below show in this directory. Returns 0, 1 or < 0.
 */
int attributes_opaque(int fd, bool rootless, struct pyrtc_error *error);

#endif
