/*
 * What one entry of a tree becomes in a layer's tar: header, attributes, data. tardiff.c walks.
 */
#ifndef PYRTC_TARDIFF_ENTRY_H
#define PYRTC_TARDIFF_ENTRY_H

#include "pyrtc_layer.h"
#include "tar_write.h"
#include "tardiff_tree.h"

#define TARDIFF_STEP "write a layer"

struct level;

struct tardiff {
    const struct pyrtc_tardiff_options *options;
    struct pyrtc_tardiff_result *result;
    struct tar_sink sink;
    struct first_names names;
    struct attribute_room room;
    struct tar_text attributes;
    struct tar_text records;
    struct tar_text path; /* of the entry at hand, relative to the root */
    struct level *levels;
    size_t depth, space;
};

/* Make the path of the entry at hand: base bytes of what it is, name, end. */
int tardiff_set_path(struct tardiff *diff, size_t base, const char *name, const char *end,
                     struct pyrtc_error *error);
/* Write the header of the entry at hand. source: where its extended attributes are; NULL: it has
 * none. */
int tardiff_write_header(struct tardiff *diff, char type, const struct stat *status,
                         const char *link, const struct attribute_source *source,
                         struct pyrtc_error *error);
/* Write a whiteout: an empty file whose name, prefix and name behind base bytes of the path, says
 * all. */
int tardiff_write_whiteout(struct tardiff *diff, size_t base, const char *prefix, const char *name,
                           struct pyrtc_error *error);
/* found: what fstatat(2) said; a file that is opened is looked at again. */
int tardiff_write_file(struct tardiff *diff, int directory, const char *name,
                       const struct stat *found, struct pyrtc_error *error);
int tardiff_write_symlink(struct tardiff *diff, int directory, const char *name,
                          const struct stat *status, struct pyrtc_error *error);
/* Open without leaving a trace in the access time, where the caller may. */
int tardiff_open(int directory, const char *name, uint64_t flags);

#endif
