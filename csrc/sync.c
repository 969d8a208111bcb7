#include "error.h"
#include "pyrtc_tree.h"

#include <errno.h>
#include <unistd.h>

/*
 * Write everything the file system of fd holds in memory to its disk. For tens of thousands of new
 * files this is one journal commit, where an fsync of each would be one for every file and
 * directory.
 */
int pyrtc_sync_filesystem(int32_t fd, struct pyrtc_error *error)
{
    if (syncfs(fd) < 0)
        return pyrtc_fail(error, errno, "write the store to the disk", "%s", "");
    return 0;
}
