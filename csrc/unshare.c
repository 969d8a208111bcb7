/*
 * New namespaces for this process itself. Only for a program of its own: a new user namespace
 * takes a process without threads.
 */
#include "pyrtc_mount.h"

#include "error.h"

#include <errno.h>
#include <sched.h>

int pyrtc_unshare(uint64_t flags, struct pyrtc_error *error)
{
    if (unshare((int)flags) < 0)
        return pyrtc_fail(error, errno, "make namespaces for this process (unshare)", "");
    return 0;
}
