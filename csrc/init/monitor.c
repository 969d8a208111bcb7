/*
 * The monitor of a container that outlives its caller: parent of process 1, owner of its standard
 * streams, its log and its attach socket.
 *
 * Until the caller has said that the command executes, the container is the caller's: if the control
 * socket ends before, the monitor kills what it started. From then on it holds nothing of the
 * caller's, and the caller nothing of it. When process 1 has ended, the monitor writes how, tells
 * the clients, and becomes the command that cleans up, where there is one.
 */
#include "monitor.h"

#include "init.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/mman.h>
#include <linux/sched.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define SIGNAL_CHILD 17
#define SET_MASK 2
#define FIXED (6 + HEALTH_ENTRIES) /* poll entries before those of the clients */
#define DRAIN SECOND               /* for what is still in the pipes once process 1 has ended */
#define DRAIN_MOST (10 * SECOND)   /* with clients that hold it back */

struct monitor {
    const struct monitor_block *block;
    long pid;
    int pidfd;
    int control;
    int directory;
    int output[2]; /* stdout or the terminal, stderr; -1: ended */
    int slave; /* of the terminal: while it is open, others may close theirs and open it again */
    int kill;
    int oom;
    bool steady;
    bool abandoned; /* the caller is gone, or has given up */
    bool ended;
    bool timed_out;     /* and was killed for it */
    uint64_t deadline;  /* when the command must have ended; 0: never */
    uint64_t oom_kills; /* before */
    uint64_t started;
    uint64_t finished;
    uint64_t drained_by; /* when what comes out no longer matters */
    uint64_t drained_by_most;
    int status; /* as wait4(2) tells it */
    long umask; /* the caller's */
    struct rusage usage;
    struct log log;
    struct attach attach;
    bool used;                                                    /* the buffers have been */
    char chunk[1 + MONITOR_CHUNK] __attribute__((aligned(PAGE))); /* kind, bytes */
    struct health health; /* the last: it takes no memory where nothing is checked */
};

static struct monitor monitor; /* zeroed pages take no memory until they are used */

/* ---- the block ------------------------------------------------------------------------------- */

static const char *strings_of(const struct monitor_block *block)
{
    return (const char *)(block + 1);
}

static const struct monitor_block *map_block(long fd)
{
    long size = sys_call(__NR_lseek, fd, 0, 2 /* SEEK_END */);

    if (size < (long)sizeof(struct monitor_block) || size > MONITOR_MAX_SIZE)
        return NULL;
    long address = sys_call(__NR_mmap, NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address < 0 && address > -4096)
        return NULL;
    const struct monitor_block *block = (const void *)address;
    const char *at = strings_of(block), *end = (const char *)block + size;
    if (block->magic != MONITOR_MAGIC || block->version != MONITOR_VERSION ||
        block->size != (uint64_t)size || block->string_count > MONITOR_MAX_STRINGS ||
        block->argument_count > block->string_count)
        return NULL;
    for (uint32_t i = 0; i < block->string_count; i++) {
        while (at < end && *at)
            at++;
        if (at++ == end)
            return NULL;
    }
    return block;
}

/* ---- starting -------------------------------------------------------------------------------- */

/* The number in the line "oom_kill N". */
static uint64_t read_oom_kills(int fd)
{
    static const char word[] = "oom_kill ";
    char text[1024];
    uint64_t number = 0;

    if (fd < 0)
        return 0;
    long size = sys_call(__NR_pread64, fd, text, sizeof(text), 0);
    for (long at = 0; at < size; at++) {
        long i = 0;
        if (at && text[at - 1] != '\n')
            continue;
        while (word[i] && at + i < size && text[at + i] == word[i])
            i++;
        if (word[i])
            continue;
        for (at += i; at < size && text[at] >= '0' && text[at] <= '9'; at++)
            number = number * 10 + (uint64_t)(text[at] - '0');
        return number;
    }
    return 0;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        path_close(fd);
}

/* In the child: what is the monitor's would go on existing with process 1, and nobody would notice
 * the end of the other side. It executes nothing, so that there is no other program in between
 * either. */
__attribute__((noreturn)) static void become_process_1(const struct monitor_block *block,
                                                       char *name)
{
    static const char new_name[] = "pyrtc-init";
    int plan = block->plan_fd, status = block->status_fd;

    close_if_open(block->control_fd);
    close_if_open(block->listen_fd);
    close_if_open(block->stdin_fd);
    close_if_open(block->stdout_fd);
    close_if_open(block->stderr_fd);
    /* With --init this process stays, and the container may look into it. */
    sys_call(__NR_munmap, block, block->size);
    for (size_t i = 0; i < sizeof("pyrtc-monitor"); i++)
        name[i] = i < sizeof(new_name) ? new_name[i] : '\0';
    sys_call(__NR_prctl, PR_SET_NAME, new_name, 0, 0, 0);
    run(plan, status);
}

static long clone_process_1(const struct monitor_block *block, int *pidfd)
{
    struct clone_args arguments = {
        .flags = block->clone_flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGNAL_CHILD,
    };

    if (block->cgroup_fd >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)block->cgroup_fd;
    }
    return sys_call(__NR_clone3, &arguments, sizeof(arguments));
}

static long send_started(int control, const struct monitor_started *started, int pidfd, int self)
{
    struct iovec part = {(void *)started, sizeof(*started)};
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control_data = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (!started->code) {
        message.msg_control = control_data.bytes;
        message.msg_controllen = sizeof(control_data.bytes);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(2 * sizeof(int));
        ((int *)CMSG_DATA(rights))[0] = pidfd;
        ((int *)CMSG_DATA(rights))[1] = self;
    }
    return sys_call(__NR_sendmsg, control, &message, MSG_NOSIGNAL);
}

/* Close every descriptor but those in the list; -1 in it is none. */
static void keep_only(int *const *kept, size_t count)
{
    int below = -1;

    for (;;) {
        int next = -1;
        for (size_t i = 0; i < count; i++)
            if (*kept[i] > below && (next < 0 || *kept[i] < next))
                next = *kept[i];
        if (next < 0)
            break;
        if (next > below + 1)
            sys_call(__NR_close_range, below + 1, next - 1, 0);
        below = next;
    }
    sys_call(__NR_close_range, below + 1, ~0U, 0);
}

/* Instead of the container: which call was refused. The caller must not wait for more. */
__attribute__((noreturn)) static void refuse(int control, long code, const char *call)
{
    struct monitor_started started = {.code = (int32_t)-code};
    size_t used = 0;

    text_append(started.call, sizeof(started.call), &used, call);
    send_started(control, &started, -1, -1);
    leave(125);
}

/* Nothing of the caller's stays: no directory, no descriptor, no terminal. 0, 1 and 2 are /dev/null,
 * also for the end command. */
static long settle(struct monitor *it)
{
    int *const kept[] = {&it->pidfd,           &it->control,   &it->directory,
                         &it->attach.listener, &it->kill,      &it->oom,
                         &it->output[0],       &it->output[1], &it->attach.input};

    for (size_t i = 0; i < sizeof(kept) / sizeof(*kept); i++) {
        if (*kept[i] < 0)
            continue;
        /* Out of the way of 0, 1 and 2, and not for the end command. */
        if (*kept[i] < 3) {
            long moved = sys_call(__NR_fcntl, *kept[i], F_DUPFD_CLOEXEC, 3);
            if (moved < 0)
                return moved;
            *kept[i] = (int)moved;
        } else {
            sys_call(__NR_fcntl, *kept[i], F_SETFD, 1);
        }
    }
    keep_only(kept, sizeof(kept) / sizeof(*kept));
    long null = sys_call(__NR_openat, AT_FDCWD, "/dev/null", O_RDWR);
    if (null < 0)
        return null;
    for (int fd = 0; fd < 3; fd++)
        if (null != fd)
            sys_call(__NR_dup3, null, fd, 0);
    if (null > 2)
        path_close(null);
    sys_call(__NR_chdir, "/");
    sys_call(__NR_prctl, PR_SET_NAME, "pyrtc-monitor", 0, 0, 0);
    /* Its descriptors and memory are nobody's business, the container's least of all. */
    return sys_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void make_nonblocking(int fd)
{
    if (fd >= 0)
        sys_call(__NR_fcntl, fd, F_SETFL, sys_call(__NR_fcntl, fd, F_GETFL, 0) | O_NONBLOCK);
}

/* ---- while it runs --------------------------------------------------------------------------- */

static void kill_container(struct monitor *it)
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
        it->started = clock_now(REALTIME);
        if (it->block->timeout)
            it->deadline = clock_now(MONOTONIC) + it->block->timeout;
        if (!it->ended)
            health_begin(&it->health, clock_now(MONOTONIC));
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

/* Without a pid namespace others may outlive process 1; they are the container's all the same. */
static void reap(struct monitor *it, uint64_t now)
{
    if (sys_call(__NR_wait4, it->pid, &it->status, 0, &it->usage) != it->pid)
        return;
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

/* ---- the end --------------------------------------------------------------------------------- */

static int signal_of(const struct monitor *it)
{
    return it->status & 0x7f;
}

/* As a shell tells it. */
static int code_of(const struct monitor *it)
{
    return signal_of(it) ? 128 + signal_of(it) : it->status >> 8 & 0xff;
}

static void append_field(char *text, size_t size, size_t *used, const char *name, uint64_t number)
{
    text_append(text, size, used, name);
    text_append_number(text, size, used, number);
}

#define RECORD_ROOM 256

static long open_record(const struct monitor *it)
{
    return sys_call(__NR_openat, it->directory, "exit.tmp",
                    O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
}

/* The place of the record is taken at the start: the disk may be full at the end. */
static void reserve_record(const struct monitor *it)
{
    static const char nothing[RECORD_ROOM];
    long fd = open_record(it);

    if (fd < 0)
        return;
    sys_call(__NR_write, fd, nothing, sizeof(nothing));
    path_close(fd);
}

static uint64_t microseconds(const struct timeval *time)
{
    return (uint64_t)time->tv_sec * 1000000 + (uint64_t)time->tv_usec;
}

/* Written beside and renamed: who sees the file sees all of it. */
static void write_record(const struct monitor *it, uint64_t oom_kills)
{
    char text[RECORD_ROOM];
    size_t used = 0;

    append_field(text, sizeof(text), &used, "code=", (uint64_t)code_of(it));
    append_field(text, sizeof(text), &used, " signal=", (uint64_t)signal_of(it));
    append_field(text, sizeof(text), &used, " oom=", oom_kills);
    append_field(text, sizeof(text), &used, " finished=", it->finished);
    append_field(text, sizeof(text), &used, " started=", it->started);
    append_field(text, sizeof(text), &used, " timeout=", it->timed_out && signal_of(it));
    append_field(text, sizeof(text), &used, " user_us=", microseconds(&it->usage.ru_utime));
    append_field(text, sizeof(text), &used, " system_us=", microseconds(&it->usage.ru_stime));
    text_append(text, sizeof(text), &used, "\n");
    long fd = open_record(it);
    if (fd < 0)
        return;
    long written = sys_call(__NR_pwrite64, fd, text, used, 0);
    if (written == (long)used && sys_call(__NR_ftruncate, fd, used) == 0)
        sys_call(__NR_renameat, it->directory, "exit.tmp", it->directory, "exit");
    path_close(fd);
}

/* To everybody who is connected, or was about to be. */
static void tell_exit(struct monitor *it)
{
    static struct pollfd entries[MAX_CLIENTS];
    struct attach *attach = &it->attach;
    uint64_t now = clock_now(MONOTONIC);
    int32_t words[2] = {code_of(it), signal_of(it)};
    struct {
        int64_t seconds, nanoseconds;
    } none = {0, 0};

    if (attach->listener >= 0)
        attach_accept(attach, now);
    attach->deadline = 0;
    attach_expire(attach, now); /* who still is owed output has had its time */
    /* A claim that was sent before the end counts. */
    attach->input_at = attach->input_end = 0;
    for (int round = 0; round < 1024; round++) {
        for (uint32_t i = 0; i < attach->count; i++)
            attach->clients[i].waiting = false;
        uint32_t count = attach_gather(attach, entries);
        if (!count || sys_call(__NR_ppoll, entries, count, &none, NULL, 8) <= 0)
            break;
        attach_serve(attach, entries, count, now);
        attach->input_at = attach->input_end = 0;
    }
    it->chunk[0] = ATTACH_EXIT;
    for (size_t i = 0; i < sizeof(words); i++)
        it->chunk[1 + i] = ((const char *)words)[i];
    attach_send(attach, it->chunk, 1 + sizeof(words), true, now);
    while (attach->owed) {
        uint64_t left = attach->deadline > now ? attach->deadline - now : 0;
        struct {
            int64_t seconds, nanoseconds;
        } timeout = {(int64_t)(left / SECOND), (int64_t)(left % SECOND)};
        uint32_t count = attach_gather(attach, entries);
        sys_call(__NR_ppoll, entries, count, &timeout, NULL, 8);
        now = clock_now(MONOTONIC);
        attach_serve(attach, entries, count, now);
        attach->input_at = attach->input_end = 0;
    }
}

/* What came while all signals were blocked was the monitor's: SIGPIPE of input that the container
 * did not take, or what somebody sent. The end command must not die of it. */
static void discard_signals(void)
{
    uint64_t all = ~0UL;
    struct {
        int64_t seconds, nanoseconds;
    } none = {0, 0};

    while (sys_call(__NR_rt_sigtimedwait, &all, NULL, &none, sizeof(all)) > 0)
        ;
}

/* As a new program expects it: no signal is blocked, 0, 1 and 2 are /dev/null, all else closes. */
__attribute__((noreturn)) static void become_end_command(const struct monitor_block *block,
                                                         long umask)
{
    static const char *room[MONITOR_MAX_STRINGS + 2];
    const char *at = strings_of(block);
    uint32_t arguments = block->argument_count;
    uint64_t none = 0;

    for (uint32_t i = 0; i < block->string_count; i++) {
        room[i < arguments ? i : i + 1] = at;
        at += text_length(at) + 1;
    }
    discard_signals();
    sys_call(__NR_rt_sigprocmask, SET_MASK, &none, NULL, sizeof(none));
    sys_call(__NR_umask, umask);
    sys_call(__NR_execve, room[0], room, room + arguments + 1);
    leave(127);
}

/* ---- entry ----------------------------------------------------------------------------------- */

__attribute__((noreturn)) static void watch(struct monitor *it)
{
    uint64_t now = clock_now(MONOTONIC);

    while (!is_over(it, now)) {
        turn(it, now);
        now = clock_now(MONOTONIC);
    }
    log_close(&it->log);
    write_record(it, read_oom_kills(it->oom) - it->oom_kills);
    tell_exit(it);
    if (it->abandoned || it->attach.claimed || !it->block->argument_count)
        leave(0);
    become_end_command(it->block, it->umask);
}

/* The caller gets the pidfds of process 1 and of the monitor. */
static long hand_over(const struct monitor *it)
{
    struct monitor_started started = {.pid = (int32_t)it->pid};

    started.monitor_pid = (int32_t)sys_call(__NR_getpid, 0);
    long self = sys_call(__NR_pidfd_open, started.monitor_pid, 0);
    if (self < 0)
        return self;
    long sent = send_started(it->control, &started, it->pidfd, (int)self);
    path_close((int)self);
    return sent;
}

__attribute__((noreturn)) static void begin(const struct monitor_block *block, char *name)
{
    struct monitor *it = &monitor;

    /* One by one: what is not written takes no memory. */
    it->block = block;
    it->pidfd = it->slave = -1;
    it->control = block->control_fd;
    it->directory = block->directory_fd;
    it->output[0] = block->stdout_fd;
    it->output[1] = block->stderr_fd;
    it->kill = block->kill_fd;
    it->oom = block->oom_fd;
    it->attach.listener = block->listen_fd;
    it->attach.input = block->stdin_fd;
    it->oom_kills = read_oom_kills(it->oom);
    it->pid = clone_process_1(block, &it->pidfd);
    if (it->pid == 0)
        become_process_1(block, name);
    if (it->pid < 0)
        refuse(it->control, it->pid, "make the namespaces (clone3)");
    it->started = clock_now(REALTIME);
    long result = settle(it);
    if (result < 0) {
        kill_container(it);
        refuse(it->control, result, "leave the caller");
    }
    make_nonblocking(it->output[0]);
    make_nonblocking(it->output[1]);
    make_nonblocking(it->attach.input);
    make_nonblocking(it->attach.listener);
    log_open(&it->log, it->directory, block->log_files, block->log_size);
    reserve_record(it);
    result = hand_over(it);
    if (result < 0) {
        kill_container(it);
        refuse(it->control, result, "hand the container over");
    }
    watch(it);
}

/* The launcher is the caller's child and ends at once, so that the monitor is nobody's: neither does
 * its end disturb a program that waits for children, nor does it stay a zombie. Signals are blocked
 * since the caller cloned, and stay so. */
void monitor_launch(long block_fd, char *name)
{
    struct clone_args arguments = {.exit_signal = SIGNAL_CHILD};
    const struct monitor_block *block = map_block(block_fd);

    if (!block)
        leave(125);
    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid < 0)
        refuse(block->control_fd, pid, "start the monitor (clone3)");
    if (pid)
        leave(0);
    sys_call(__NR_setsid, 0);
    monitor.umask = sys_call(__NR_umask, 0077);
    reset_signals();
    begin(block, name);
}
