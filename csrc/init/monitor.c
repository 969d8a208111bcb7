/*
 * The monitor of a container that outlives its caller: parent of process 1, owner of its standard
 * streams, its log and its attach socket.
 *
 * Until the caller has said that the command executes, the container is the caller's: if the control
 * socket ends before, the monitor kills what it started. From then on it holds nothing of the
 * caller's, and the caller nothing of it. When process 1 has ended, the monitor writes how, tells
 * the clients, and becomes the command that cleans up, where there is one.
 *
 * monitor_start.c begins it, monitor_end.c is what follows the end of process 1.
 */
#include "monitor_state.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mman.h>
#include <sys/socket.h>

#define FIXED (6 + HEALTH_ENTRIES) /* poll entries before those of the clients */
#define DRAIN SECOND               /* for what is still in the pipes once process 1 has ended */
#define DRAIN_MOST (10 * SECOND)   /* with clients that hold it back */

void kill_container(const struct monitor *it)
{
    sys_call(__NR_pidfd_send_signal, it->pidfd, SIGNAL_KILL, NULL, 0);
    if (it->kill >= 0)
        sys_call(__NR_write, it->kill, "1", 1);
}

/* The slave that is held here keeps the master from telling of an end when the container merely
 * closes its terminal. */
static void adopt_terminal(struct monitor *it, int master)
{
    sys_call(__NR_fcntl, master, F_SETFD, 1);
    make_nonblocking(master);
    it->output[0] = it->attach.input = master;
    it->attach.terminal = true;
    it->slave = (int)sys_call(__NR_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
}

static void hear_caller(struct monitor *it)
{
    struct monitor_health said; /* the longest message; others are of one byte */
    struct iovec part = {&said, sizeof(said)};
    union {
        char bytes[CMSG_SPACE((3 + HEALTH_MAX_TASKS) * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};

    long size = sys_call(__NR_recvmsg, it->control, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size == -EAGAIN || size == -EINTR)
        return;
    struct cmsghdr *rights = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (rights && rights->cmsg_type == SCM_RIGHTS) {
        if (size == (long)sizeof(said))
            health_hear(&it->health, &said, (const int *)CMSG_DATA(rights),
                        (uint32_t)((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int)), it->pidfd,
                        it->directory);
        else if (!it->attach.terminal)
            adopt_terminal(it, *(int *)CMSG_DATA(rights));
        return;
    }
    if (size > 0) {
        it->steady = true;
        /* What has ended before its caller said so began when it was made, not after its end. */
        if (!it->ended) {
            it->started = clock_now(REALTIME);
            health_begin(&it->health, clock_now(MONOTONIC));
        }
        if (it->block->timeout)
            it->deadline = clock_now(MONOTONIC) + it->block->timeout;
    } else {
        it->abandoned = true;
        kill_container(it);
    }
    path_close(it->control);
    it->control = -1;
}

static void end_output(struct monitor *it, int stream)
{
    if (it->attach.input == it->output[stream])
        it->attach.input = -1;
    path_close(it->output[stream]);
    it->output[stream] = -1;
}

/* The reader of a pipe that others can open for reading, too, must not wait for what poll(2)
 * announced. */
static void read_output(struct monitor *it, enum stream stream, uint64_t now)
{
    long size = sys_call(__NR_read, it->output[stream], it->chunk + 1, MONITOR_CHUNK);

    if (size == -EAGAIN || size == -EINTR)
        return;
    if (size <= 0) { /* of a terminal: EIO */
        end_output(it, stream);
        return;
    }
    log_write(&it->log, stream, it->chunk + 1, (size_t)size);
    it->chunk[0] = stream == STREAM_STDOUT ? ATTACH_STDOUT : ATTACH_STDERR;
    attach_send(&it->attach, it->chunk, (size_t)size + 1, false, now);
}

/* The signal that process 1 says its command was killed by (reaper.c), which its parent sees until it
 * is reaped; 0: none. */
static int told_signal(long pid)
{
    char path[32], expected[16], name[16];
    size_t used = 0;

    text_append(path, sizeof(path), &used, "/proc/");
    text_append_number(path, sizeof(path), &used, (uint64_t)pid);
    text_append(path, sizeof(path), &used, "/comm");
    long fd = sys_call(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    long size = sys_call(__NR_read, fd, name, sizeof(name));
    path_close((int)fd);
    if (size <= 1)
        return 0;
    name[size - 1] = '\0'; /* for the end of the line */
    for (int number = 1; number <= 64; number++) {
        used = 0;
        text_append(expected, sizeof(expected), &used, KILLED_BY);
        text_append_number(expected, sizeof(expected), &used, (uint64_t)number);
        if (text_equal(name, expected))
            return number;
    }
    return 0;
}

/* Without a pid namespace others may outlive process 1; they are the container's all the same. */
static void reap(struct monitor *it, uint64_t now)
{
    int told = told_signal(it->pid);

    if (sys_call(__NR_wait4, it->pid, &it->status, 0, &it->usage) != it->pid)
        return;
    if (told && it->status == (128 + told) << 8)
        it->status = told;
    it->ended = true;
    if (it->health.known)
        health_end(&it->health);
    it->finished = clock_now(REALTIME);
    it->drained_by = now + DRAIN;
    it->drained_by_most = now + DRAIN_MOST;
    if (it->kill >= 0)
        sys_call(__NR_write, it->kill, "1", 1);
    close_if_open(it->slave);
    it->slave = -1;
    path_close(it->pidfd);
    it->pidfd = -1;
}

/* A command may end before its caller has said that it executes. */
static bool is_ending(const struct monitor *it)
{
    return it->ended && (it->steady || it->abandoned);
}

static bool is_over(const struct monitor *it, uint64_t now)
{
    if (!is_ending(it))
        return false;
    if (now >= it->drained_by_most)
        return true;
    if (it->attach.owed)
        return false;
    return (it->output[0] < 0 && it->output[1] < 0) || now >= it->drained_by;
}

/* Nanoseconds to whatever comes first. */
static uint64_t patience(const struct monitor *it, uint64_t now)
{
    uint64_t until = NEVER;

    if (it->attach.owed)
        until = it->attach.deadline;
    if (it->attach.listen_after && it->attach.count < MAX_CLIENTS &&
        it->attach.listen_after < until)
        until = it->attach.listen_after;
    if (is_ending(it) && !it->attach.owed && it->drained_by < until)
        until = it->drained_by;
    if (is_ending(it) && it->drained_by_most < until)
        until = it->drained_by_most;
    if (it->used && now + SECOND < until)
        until = now + SECOND;
    if (it->deadline && it->deadline < until)
        until = it->deadline;
    if (it->health.known && it->health.due < until)
        until = it->health.due;
    if (until == NEVER)
        return NEVER;
    return until > now ? until - now : 0;
}

/* A container that is quiet needs no buffers. */
static void give_back(struct monitor *it)
{
    if (it->attach.owed || it->attach.input_at < it->attach.input_end)
        return;
    sys_call(__NR_madvise, it->chunk, sizeof(it->chunk), MADV_DONTNEED);
    sys_call(__NR_madvise, it->attach.buffer, sizeof(it->attach.buffer), MADV_DONTNEED);
    it->used = false;
}

static bool ready(const struct pollfd *entry)
{
    return entry->fd >= 0 && entry->revents;
}

/* One turn: clients before output, so that who has said hello before the container wrote gets it. */
static void turn(struct monitor *it, uint64_t now)
{
    static struct pollfd entries[FIXED + MAX_CLIENTS];
    struct attach *attach = &it->attach;
    bool pending = attach->input_at < attach->input_end;
    bool listening = attach->count < MAX_CLIENTS && now >= attach->listen_after;
    int reading[2] = {attach->owed ? -1 : it->output[0], attach->owed ? -1 : it->output[1]};
    uint64_t wait = patience(it, now), before = now;
    struct {
        int64_t seconds, nanoseconds;
    } timeout = {(int64_t)(wait / SECOND), (int64_t)(wait % SECOND)};
    uint32_t owed = attach->owed;

    if (listening)
        attach->listen_after = 0;
    entries[0] = (struct pollfd){it->control, POLLIN, 0};
    entries[1] = (struct pollfd){it->pidfd, POLLIN, 0};
    entries[2] = (struct pollfd){listening ? attach->listener : -1, POLLIN, 0};
    entries[3] = (struct pollfd){reading[0], POLLIN, 0};
    entries[4] = (struct pollfd){reading[1], POLLIN, 0};
    entries[5] = (struct pollfd){pending ? attach->input : -1, POLLOUT, 0};
    bool checked = it->health.known; /* else its code is not even read into memory */
    for (size_t i = 0; i < HEALTH_ENTRIES; i++)
        entries[6 + i] = (struct pollfd){-1, 0, 0};
    if (checked)
        health_gather(&it->health, entries + 6);
    uint32_t clients = attach_gather(attach, entries + FIXED);
    long count =
        sys_call(__NR_ppoll, entries, FIXED + clients, wait == NEVER ? NULL : &timeout, NULL, 8);
    if (count < 0)
        return;
    if (count)
        it->used = true;
    else if (it->used)
        give_back(it);
    now = clock_now(MONOTONIC);
    if (owed && it->ended) /* the time that clients took is not the container's */
        it->drained_by += now - before;
    if (ready(&entries[0]))
        hear_caller(it);
    attach_serve(attach, entries + FIXED, clients, now);
    if (ready(&entries[2]))
        attach_accept(attach, now);
    if (ready(&entries[5]))
        attach_flush_input(attach);
    for (int stream = 0; stream < 2; stream++)
        if (ready(&entries[3 + stream]) && !attach->owed && it->output[stream] >= 0)
            read_output(it, stream, now);
    if (ready(&entries[1]))
        reap(it, now);
    if (checked && !it->ended)
        health_serve(&it->health, entries + 6, now, it->pid);
    if (it->ended) {
        it->deadline = 0;
    } else if (it->deadline && now >= it->deadline) {
        it->deadline = 0;
        it->timed_out = true;
        kill_container(it);
    }
}

void watch_container(struct monitor *it)
{
    uint64_t now = clock_now(MONOTONIC);

    while (!is_over(it, now)) {
        turn(it, now);
        now = clock_now(MONOTONIC);
    }
}
