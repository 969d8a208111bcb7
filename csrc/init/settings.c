/*
 * Settings of the new namespaces. What goes through /proc goes through a procfs that is known to be
 * one: a file bound over a /proc path by a shared volume would otherwise receive the write
 * (CVE-2025-52881).
 */
#include "init.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <sys/socket.h>

/* The container's own procfs once it is mounted, the host's before. */
static long trusted_proc(struct state *state)
{
    struct file_system about;

    if (state->proc_fd >= 0)
        return 0;
    state->call = "open";
    state->detail = "/proc";
    long fd = sys_call(__NR_openat, AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fd;
    state->call = "fstatfs";
    long result = sys_call(__NR_fstatfs, fd, &about);
    if (result >= 0 && about.type != PROC_SUPER_MAGIC)
        result = -ENOTSUP;
    if (result < 0)
        return result;
    state->proc_fd = (int)fd;
    return 0;
}

static long write_proc(struct state *state, const char *path, const char *value)
{
    struct open_how how = {
        .flags = O_WRONLY | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long result = trusted_proc(state);

    if (result < 0)
        return result;
    state->call = "openat2";
    state->detail = path;
    long file = sys_call(__NR_openat2, state->proc_fd, path, &how, sizeof(how));
    if (file < 0)
        return file;
    state->call = "write";
    result = sys_call(__NR_write, file, value, text_length(value));
    path_close(file);
    return result < 0 ? result : 0;
}

long set_hostname(struct state *state, const struct plan_op *op)
{
    const char *name = plan_string(op, 0);

    state->call = "sethostname";
    state->detail = name;
    return sys_call(__NR_sethostname, name, text_length(name));
}

long set_domainname(struct state *state, const struct plan_op *op)
{
    const char *name = plan_string(op, 0);

    state->call = "setdomainname";
    state->detail = name;
    return sys_call(__NR_setdomainname, name, text_length(name));
}

long set_loopback(struct state *state, const struct plan_op *op)
{
    struct ifreq request = {.ifr_name = "lo"};

    (void)op;
    state->call = "socket";
    state->detail = "lo";
    long result, socket = sys_call(__NR_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0)
        return socket;
    state->call = "ioctl SIOCSIFFLAGS";
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    result = sys_call(__NR_ioctl, socket, SIOCSIFFLAGS, &request);
    path_close(socket);
    return result < 0 ? result : 0;
}

long set_sysctl(struct state *state, const struct plan_op *op)
{
    char path[256];
    size_t used = 0;

    if (!text_append(path, sizeof(path), &used, "sys/") ||
        !text_append(path, sizeof(path), &used, plan_string(op, 0)))
        return -ENAMETOOLONG;
    long result = write_proc(state, path, plan_string(op, 1));
    state->detail = plan_string(op, 0);
    return result;
}

/* /proc/self is a magic link and never followed; the number is this process's in the procfs that is
 * used. */
long set_oom_score(struct state *state, const struct plan_op *op)
{
    char self[16], path[48];
    size_t used = 0;

    long result = trusted_proc(state);
    if (result < 0)
        return result;
    state->call = "readlinkat";
    state->detail = "/proc/self";
    long length = sys_call(__NR_readlinkat, state->proc_fd, "self", self, sizeof(self) - 1);
    if (length < 0)
        return length;
    self[length] = '\0';
    text_append(path, sizeof(path), &used, self);
    text_append(path, sizeof(path), &used, "/oom_score_adj");
    result = write_proc(state, path, plan_string(op, 0));
    state->detail = "/proc/self/oom_score_adj";
    return result;
}
