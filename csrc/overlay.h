/*
 * Mounting overlayfs through descriptors; compiled into the extension and into pyrtc-init.
 */
#ifndef PYRTC_OVERLAY_H
#define PYRTC_OVERLAY_H

#include <stdint.h>

struct overlay {
    const int32_t *lower_fds; /* top first */
    uint32_t lower_count;
    int32_t upper_fd; /* -1: no R/W layer, and no work_fd */
    int32_t work_fd;
    uint32_t flags;      /* PLAN_VOLATILE, PLAN_USERXATTR */
    uint64_t attributes; /* MOUNT_ATTR_* of the new mount */
};

/* Returns the descriptor of a detached mount, or -errno with the name of the refused step in *call.
 * -EOPNOTSUPP means that this kernel has no lowerdir+ option (before 6.7). */
long overlay_mount(const struct overlay *overlay, const char **call);

#endif
