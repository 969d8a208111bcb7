/*
 * Layers of images: between their tar and a directory tree.
 */
#ifndef PYRTC_INTERFACE_LAYER_H
#define PYRTC_INTERFACE_LAYER_H

#include "pyrtc_pieces.h"

/* ---- layer tar -> directory tree: untar.c */

struct pyrtc_untar_options {
    int32_t stream_fd; /* the uncompressed tar stream: pipe, socket or file; read to its end */
    struct pyrtc_pieces
        *pieces;     /* the stream, if another thread of this process makes it; else NULL */
    int32_t root_fd; /* empty directory that becomes the layer */
    const int32_t
        *lower_fds; /* layers below, top first: implied parents take their attributes from there */
    uint32_t lower_count;
    uint32_t rootless; /* 1: no chown, no devices, user.overlay.* instead of trusted.overlay.* */
    uint32_t
        keep_owners; /* 1: chown all the same: the caller is root of a user namespace that maps the ids */
    uint32_t plain; /* 1: a plain tree, names like .wh.x are ordinary files */
    uint32_t
        alone; /* 1: give up, and return 1, at the first decision that depends on layers below */
    uint64_t max_entries;
    uint64_t max_bytes;     /* of file data, holes not counted */
    uint64_t max_file_size; /* apparent size of one file */
    uint32_t max_depth;     /* components of one path */
    uint32_t max_pax_bytes; /* extended headers of one entry */
};

struct pyrtc_untar_result {
    uint64_t entries;
    uint64_t bytes;        /* file data written */
    uint64_t stream_bytes; /* consumed from the stream, padding and trailer included */
    uint64_t skipped;      /* entries left out with a reason: vendor types, devices when rootless */
    uint64_t depends; /* decisions taken from the layers below: implied parents, links into them;
                       * with no lower_fds: that would have been, so 0 means that the tree is right
                       * above any layers */
    uint64_t attributes_skipped; /* extended attributes and ACLs left out: overlayfs's own, the
                                  * host's labels, what this kind of file or user cannot have */
};

/* Returns 0, or 1 where it gave up as `alone` asks; then neither the tree nor the stream is
 * finished. */
int pyrtc_untar(const struct pyrtc_untar_options *options, struct pyrtc_untar_result *result,
                struct pyrtc_error *error);

/* ---- directory tree -> layer tar: tardiff.c */

struct pyrtc_tardiff_options {
    int32_t root_fd;   /* the tree, with whiteouts and opaque directories as overlayfs has them */
    int32_t stream_fd; /* where the uncompressed tar goes. A pipe's reader must read to the end of
                          the file: writing without a reader is a signal, which may be deadly */
    int64_t latest;    /* with clamp: seconds since the epoch; later times are written as this */
    uint32_t clamp;
    uint32_t
        rootless; /* 1: opaque directories are marked with user.overlay.* instead of trusted.* */
    uint32_t no_owners; /* 1: everything is written as id 0's */
    uint32_t
        headers_only; /* 1: no data and no end: something to hash, to see whether a tree is still
                              what it was */
    uint32_t plain;   /* 1: a plain tree: no whiteouts, and names like .wh.x are ordinary files */
    const char *const *left_out; /* paths relative to the root that are not the layer's */
    uint32_t left_out_count;
    uint64_t max_entries;
    uint64_t max_bytes; /* of file data, holes counted */
};

struct pyrtc_tardiff_result {
    uint64_t entries;            /* headers written */
    uint64_t bytes;              /* file data */
    uint64_t stream_bytes;       /* written to the stream */
    uint64_t skipped;            /* sockets */
    uint64_t attributes_skipped; /* extended attributes that an image has no business with */
    uint64_t opaque;             /* directories that let nothing below show */
    uint64_t whiteouts;
};

int pyrtc_tardiff(const struct pyrtc_tardiff_options *options, struct pyrtc_tardiff_result *result,
                  struct pyrtc_error *error);

#endif
