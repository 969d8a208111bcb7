/*
 * The last operation: become the command.
 */
#include "init.h"

#include <errno.h>
#include <linux/prctl.h>

#define MAX_STRINGS 65536

struct vectors {
    const char **arguments;
    const char **environment;
};

/* `room` has a place for every string, and for the NULL at the end of each vector. */
static long make_vectors(const struct plan_op *op, const char **room, struct vectors *vectors)
{
    const char *at = (const char *)(op + 1);

    if (op->string_count > MAX_STRINGS || op->a > op->string_count || op->a == 0)
        return -E2BIG;
    for (uint32_t i = 0; i < op->string_count; i++) {
        room[i < op->a ? i : i + 1] = at;
        at += text_length(at) + 1;
    }
    room[op->a] = room[op->string_count + 1] = NULL;
    *vectors = (struct vectors){.arguments = room, .environment = room + op->a + 1};
    return 0;
}

static const char *search_path(const char *const *environment)
{
    for (; *environment; environment++) {
        const char *at = *environment;
        if (at[0] == 'P' && at[1] == 'A' && at[2] == 'T' && at[3] == 'H' && at[4] == '=')
            return at + 5;
    }
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}

/* ENOENT of a program that is there means that its interpreter is not. */
static long try(struct state *state, const char *path, const struct vectors *vectors)
{
    long result = sys_call(__NR_execve, path, vectors->arguments, vectors->environment);

    if (result == -ENOENT && sys_call(__NR_faccessat, AT_FDCWD, path, 0) == 0) {
        state->call = "interpreter";
        state->detail = path;
    }
    return result;
}

/* As execvp(3) does it, with the container's PATH: the first program that can be executed; when
 * none can, a program that was found but refused tells more than the ones that were not. */
static long search(struct state *state, const struct vectors *vectors)
{
    static char path[PATH_SIZE]; /* a report may name it after the return */
    const char *name = vectors->arguments[0], *at = search_path(vectors->environment);
    long worst = -ENOENT;

    for (;;) {
        size_t used = 0, length = 0;
        while (at[length] && at[length] != ':')
            length++;
        if (length && used + length < sizeof(path)) {
            for (; used < length; used++)
                path[used] = at[used];
            path[used] = '\0';
            if (text_append(path, sizeof(path), &used, "/") &&
                text_append(path, sizeof(path), &used, name)) {
                long result = try(state, path, vectors);
                if (result == -EACCES)
                    worst = -EACCES;
                else if (result != -ENOENT && result != -ENOTDIR)
                    return result;
                else if (text_equal(state->call, "interpreter"))
                    return -ENOENT;
            }
        }
        if (!at[length])
            return worst;
        at += length + 1;
    }
}

static long move_status(struct state *state)
{
    if (state->status_fd == 3)
        return 0;
    state->call = "dup3";
    long result = sys_call(__NR_dup3, state->status_fd, 3, O_CLOEXEC);
    if (result < 0)
        return result;
    state->status_fd = 3;
    return 0;
}

/* A terminal's master that stays goes up before the status socket takes what may be its number. */
static long move_master(struct state *state, long *moved)
{
    *moved = -1;
    if (state->master_fd < 0)
        return 0;
    state->call = "fcntl F_DUPFD";
    *moved = sys_call(__NR_fcntl, state->master_fd, F_DUPFD, 5);
    return *moved < 0 ? *moved : 0;
}

long keep_status(struct state *state)
{
    unsigned first = 4;
    long moved, result = move_master(state, &moved);

    if (result >= 0)
        result = move_status(state);
    if (result >= 0 && moved >= 0) {
        state->call = "dup3";
        state->master_fd = 4;
        first = 5;
        result = sys_call(__NR_dup3, moved, 4, O_CLOEXEC);
    }
    if (result < 0)
        return result;
    state->call = "close_range";
    result = sys_call(__NR_close_range, first, ~0U, 0);
    if (result < 0)
        return result;
    state->root_fd = state->scratch_fd = state->proc_fd = state->dev_fd = -1;
    return 0;
}

/* Nothing of the caller's goes on into the command: no descriptor above 2 but the status socket,
 * which closes on exec, and no blocked signal. */
static long clean(struct state *state)
{
    uint64_t none = 0;
    long result = keep_status(state);

    if (result < 0)
        return result;
    state->call = "rt_sigprocmask";
    return sys_call(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &none, NULL, sizeof(none));
}

long execute(struct state *state, const struct plan_op *op)
{
    static const char *room[MAX_STRINGS + 2]; /* half a megabyte: RLIMIT_STACK is the command's */
    struct vectors vectors;
    bool slash = false;

    state->call = "execve";
    long result = make_vectors(op, room, &vectors);
    if (result < 0)
        return result;
    if (state->reaper) {
        result = become_reaper(state);
        if (result < 0)
            return result;
    }
    result = clean(state);
    if (result < 0)
        return result;
    state->call = "execve";
    state->detail = vectors.arguments[0];
    for (const char *at = vectors.arguments[0]; *at; at++)
        slash |= *at == '/';
    if (!*vectors.arguments[0])
        return -ENOENT;
    return slash ? try(state, vectors.arguments[0], &vectors) : search(state, &vectors);
}
