/*
 * Files, links and directories that the container gets besides its mounts.
 */
#include "init.h"

#include <errno.h>

static long write_all(long fd, const char *bytes, uint32_t size)
{
    while (size) {
        long written = sys_call(__NR_write, fd, bytes, size);
        if (written < 0)
            return written;
        bytes += written;
        size -= (uint32_t)written;
    }
    return 0;
}

/* A file with this content is bound over target: the image's own file, and the layer below it, stay
 * as they are. */
long file_content(struct state *state, const struct plan_op *op)
{
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
    const char *target = plan_string(op, 0);
    char name[12];
    size_t used = 0;

    text_append(name, sizeof(name), &used, "f");
    text_append_number(name, sizeof(name), &used, state->files++);
    state->call = "open";
    state->detail = target;
    long file = sys_call(__NR_openat, state->scratch_fd, name,
                         O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, op->mode);
    if (file < 0)
        return file;
    state->call = "write";
    long result = write_all(file, plan_blob(op), op->blob_size);
    path_close(file);
    if (result < 0)
        return result;
    state->call = "open_tree";
    long mount = mount_clone(state->scratch_fd, name, 0);
    if (mount < 0)
        return mount;
    state->call = "mount_setattr";
    result = mount_attributes((int)mount, 0, &attributes);
    if (result >= 0)
        result = mount_to(state, mount, target, false, 0);
    path_close(mount);
    return result < 0 ? result : 0;
}

/* The last component of an absolute path, with the length of what is before it. */
static const char *last_name(const char *path, size_t *parent)
{
    size_t at = 0;

    for (size_t i = 0; path[i]; i++)
        if (path[i] == '/')
            at = i + 1;
    *parent = at;
    return path + at;
}

/* What is before the last component, reached without links. */
static long open_parent(struct state *state, const char *path, size_t length)
{
    char text[4096];
    size_t used = 0;

    text[0] = '\0';
    if (length >= sizeof(text) || !text_append(text, sizeof(text), &used, path))
        return -ENAMETOOLONG;
    text[length] = '\0';
    return path_open(state, text, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
}

long file_symlink(struct state *state, const struct plan_op *op)
{
    const char *target = plan_string(op, 1);
    size_t length;
    const char *name = last_name(target, &length);

    long parent = open_parent(state, target, length);
    if (parent < 0)
        return parent;
    state->call = "symlinkat";
    state->detail = target;
    long result = sys_call(__NR_symlinkat, plan_string(op, 0), parent, name);
    path_close(parent);
    return result;
}

static long set_attributes(struct state *state, long fd, const struct plan_op *op)
{
    state->call = "fchown";
    long result = sys_call(__NR_fchown, fd, op->a, op->b);
    if (result >= 0 && op->mode) {
        state->call = "fchmod";
        result = sys_call(__NR_fchmod, fd, op->mode);
    }
    return result;
}

long file_directory(struct state *state, const struct plan_op *op)
{
    const char *target = plan_string(op, 0);
    long at = path_open(state, target, O_PATH | O_DIRECTORY, 0);

    if (at != -ENOENT) {
        if (at >= 0)
            path_close(at);
        return at < 0 ? at : 0;
    }
    at = path_target(state, target, true, 0);
    if (at < 0)
        return at;
    state->call = "openat";
    long result, made = sys_call(__NR_openat, at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    path_close(at);
    if (made < 0)
        return made;
    result = set_attributes(state, made, op);
    path_close(made);
    return result < 0 ? result : 0;
}
