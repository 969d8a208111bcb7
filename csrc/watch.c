#include "error.h"
#include "pyrtc_tree.h"

#include <errno.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

/*
 * Hear of what happens to the entries of one directory (inotify(7)). The directory is a descriptor,
 * so that nothing can lead the watch elsewhere. Returns the watch's descriptor, which does not block.
 */
int pyrtc_watch_directory(int32_t directory_fd, uint32_t mask, struct pyrtc_error *error)
{
    char path[sizeof("/proc/self/fd/-2147483648")];
    const char *step = "watch a directory";

    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0 && errno == EMFILE)
        return pyrtc_fail(
            error, errno, step, "%s",
            "this user watches as many directories as allowed, or has too many files open; see "
            "/proc/sys/fs/inotify/max_user_instances and ulimit -n");
    if (fd < 0)
        return pyrtc_fail(error, errno, step, "%s", "");
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", (int)directory_fd);
    if (inotify_add_watch(fd, path, mask | IN_ONLYDIR) >= 0)
        return fd;
    int code = errno;
    close(fd);
    return pyrtc_fail(error, code, step, "%s",
                      code == ENOSPC ? "this user has too many watches; see "
                                       "/proc/sys/fs/inotify/max_user_watches"
                                     : "");
}
