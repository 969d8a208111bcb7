#include "overlay.h"

#include "mountapi.h"
#include "plan.h"

#include <errno.h>

/* "/proc/self/fd/N": how a directory is named where a descriptor cannot be handed over. */
static void descriptor_path(char out[32], int fd)
{
    static const char prefix[] = "/proc/self/fd/";
    char digits[12];
    unsigned length = 0, at = sizeof(prefix) - 1;

    for (unsigned i = 0; i < at; i++)
        out[i] = prefix[i];
    do
        digits[length++] = (char)('0' + fd % 10);
    while (fd /= 10);
    while (length)
        out[at++] = digits[--length];
    out[at] = '\0';
}

/* By descriptor (6.13), else by its /proc name. */
static long set_directory(long fs, const char *key, int fd)
{
    char path[32];
    long result = mount_option_fd(fs, key, fd);

    if (result != -EINVAL)
        return result;
    descriptor_path(path, fd);
    return mount_option(fs, key, path);
}

static long set_writable(long fs, const struct overlay *overlay, const char **call)
{
    *call = "overlay upperdir";
    long result = set_directory(fs, "upperdir", overlay->upper_fd);
    if (result < 0)
        return result;
    *call = "overlay workdir";
    return set_directory(fs, "workdir", overlay->work_fd);
}

static long configure(long fs, const struct overlay *overlay, const char **call)
{
    long result;

    *call = "overlay lowerdir+";
    for (uint32_t i = 0; i < overlay->lower_count; i++) {
        result = set_directory(fs, "lowerdir+", overlay->lower_fds[i]);
        if (result < 0)
            return i == 0 && result == -EINVAL ? -EOPNOTSUPP : result;
    }
    result = overlay->upper_fd < 0 ? 0 : set_writable(fs, overlay, call);
    if (result < 0)
        return result;
    if (overlay->flags & PLAN_USERXATTR) {
        *call = "overlay userxattr";
        result = mount_option(fs, "userxattr", NULL);
    } else {
        /* Layers are foreign: a redirect in one would show a directory that its image did not stack
         * there. */
        *call = "overlay redirect_dir";
        result = mount_option(fs, "redirect_dir", "nofollow");
    }
    if (result < 0)
        return result;
    *call = "overlay metacopy";
    result = mount_option(fs, "metacopy", "off");
    if (result >= 0 && overlay->flags & PLAN_VOLATILE) {
        /* Its identity is of no use to a mount that will not come again, and would be written into
         * the upper directory. A kernel without this option mounts all the same. */
        mount_option(fs, "uuid", "off");
        *call = "overlay volatile";
        result = mount_option(fs, "volatile", NULL);
    }
    return result;
}

/* Every directory is given as a descriptor, so no name is looked up again between the check and the
 * mount. */
long overlay_mount(const struct overlay *overlay, const char **call)
{
    *call = "fsopen overlay";
    long fs = mount_open("overlay");
    if (fs < 0)
        return fs;
    long result = configure(fs, overlay, call);
    if (result >= 0) {
        *call = "mount overlay";
        result = mount_create(fs, overlay->attributes);
    }
    sys_call(__NR_close, fs);
    return result;
}
