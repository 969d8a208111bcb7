/*
 * What stacked layers show together, read-only, as a directory descriptor: for filling volumes and copying roots.
 *
 * An ordinary user may mount overlayfs only inside a user namespace. A child that borrows this memory and shares the
 * descriptor table makes the namespaces, mounts, and is gone; the detached mount stays behind as a descriptor here.
 */
#include "pyrtc.h"

#include "borrow.h"
#include "error.h"
#include "mountapi.h"
#include "overlay.h"
#include "plan.h"
#include "util.h"

#include <errno.h>
#include <linux/sched.h>
#include <stdio.h>
#include <unistd.h>

#define MAX_LAYERS 500

struct view {
    const char *const *layers;
    uint32_t count;
    char map[32];
    const char *call;
    long result;
};

static long write_file(const char *path, const char *text, size_t size)
{
    long fd = sys_call(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long result = sys_call(__NR_write, fd, text, size);
    sys_call(__NR_close, fd);
    return result;
}

static size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

static long mount_layers(struct view *view)
{
    int32_t lowers[MAX_LAYERS];
    struct overlay overlay = {.lower_fds = lowers,
                              .upper_fd = -1,
                              .work_fd = -1,
                              .flags = PLAN_USERXATTR,
                              .attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV};
    long result = 0;

    view->call = "open a layer";
    for (; overlay.lower_count < view->count && result >= 0; overlay.lower_count++) {
        result = sys_call(__NR_openat, AT_FDCWD, view->layers[overlay.lower_count],
                          O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        if (result < 0)
            break;
        lowers[overlay.lower_count] = (int32_t)result;
    }
    if (result >= 0)
        result = overlay_mount(&overlay, &view->call);
    for (uint32_t i = 0; i < overlay.lower_count; i++)
        sys_call(__NR_close, lowers[i]);
    return result;
}

static void view_child(void *argument)
{
    struct view *view = argument;

    view->call = "write the id map";
    view->result = write_file("/proc/self/setgroups", "deny", 4);
    if (view->result >= 0)
        view->result = write_file("/proc/self/uid_map", view->map, length_of(view->map));
    if (view->result >= 0)
        view->result = mount_layers(view);
    for (;;)
        sys_call(__NR_exit, 0);
}

int pyrtc_mount_view(const char *const *layers, uint32_t count, struct pyrtc_error *error)
{
    struct view view = {.layers = layers, .count = count, .call = "", .result = -EIO};
    int32_t pidfd;

    if (count > MAX_LAYERS)
        return pyrtc_fail(error, E2BIG, "stack the layers", "more than %d", MAX_LAYERS);
    snprintf(view.map, sizeof(view.map), "0 %u 1", (unsigned)geteuid());
    long pid = borrow(CLONE_NEWUSER | CLONE_NEWNS | CLONE_FILES, -1, view_child, &view, &pidfd);
    if (pid < 0)
        return pyrtc_fail(error, (int)-pid, "make a user namespace (clone3)", "");
    borrow_end(pidfd);
    if (view.result == -EOPNOTSUPP)
        return pyrtc_fail(error, EOPNOTSUPP, view.call, "this needs Linux 6.8 or newer");
    if (view.result < 0)
        return pyrtc_fail(error, (int)-view.result, view.call, "");
    return (int)view.result;
}
