/*
 * The health of a container: a command that is executed in it again and again, and what follows from
 * how it ends.
 *
 * A probe is a plan of exec (join.c) in a pyrtc-init of its own. The monitor is the parent of both
 * that and the process in the container, and is told of the latter over the status socket; it
 * believes only the pyrtc-init that it started, which nobody in the container can reach. What a
 * probe has started ends with it: a hostile one piles nothing up.
 *
 * The rules are Docker's (moby, daemon/health.go).
 */
#include "monitor.h"

#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <sys/socket.h>

#define SIGNAL_CHILD 17
#define SLOTS_AT sizeof(struct plan_header)
#define FIRST_SLOT 3         /* the pidfd of process 1, then the tasks files */
#define PENDING (SECOND / 5) /* until a kill counts: process 1 takes all with it, and is last */
/* What was made and not reported ends when its socket does, and process 1 cannot end before it is
 * reaped. */
#define SWEEP (SECOND / 20)
#define SWEEPS 40
#define MAX_GROUPS 8 /* whose processes were killed and are not gone */

static const char *const status_names[] = {
    [HEALTH_STARTING] = "starting",
    [HEALTH_HEALTHY] = "healthy",
    [HEALTH_UNHEALTHY] = "unhealthy",
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        path_close(*fd);
    *fd = -1;
}

/* ---- what the caller says ---------------------------------------------------------------------- */

static bool is_sound(const struct monitor_health *wanted, uint32_t count)
{
    uint32_t expected = 1 + (wanted->flags & HEALTH_FROZEN_FILE ? 1 : 0) +
                        (wanted->flags & HEALTH_CGROUP ? 1 : 0) + wanted->tasks;

    return wanted->tasks <= HEALTH_MAX_TASKS && count == expected && wanted->interval &&
           wanted->timeout && wanted->start_interval && wanted->retries &&
           wanted->interval <= HEALTH_LONGEST && wanted->timeout <= HEALTH_LONGEST &&
           wanted->start_period <= HEALTH_LONGEST && wanted->start_interval <= HEALTH_LONGEST;
}

/* The plan's slots become the numbers that the descriptors have here: a probe is a copy of this
 * process that executes another program. */
static bool fill_slots(struct health *health, int container_fd)
{
    int32_t slots[1 + HEALTH_MAX_TASKS] = {container_fd};
    long size = (long)((1 + health->wanted.tasks) * sizeof(*slots));

    for (uint32_t i = 0; i < health->wanted.tasks; i++)
        slots[1 + i] = health->tasks[i];
    return sys_call(__NR_pwrite64, health->plan, slots, size,
                    SLOTS_AT + FIRST_SLOT * sizeof(*slots)) == size;
}

void health_hear(struct health *health, const struct monitor_health *wanted, const int *fds,
                 uint32_t count, int container_fd, int directory)
{
    uint32_t next = 0;

    if (health->known || !is_sound(wanted, count)) {
        for (uint32_t i = 0; i < count; i++)
            path_close(fds[i]);
        return;
    }
    health->plan = health->frozen = health->cgroup = -1;
    health->status_fd = health->output_fd = health->group_fd = -1;
    health->joiner_fd = health->process_fd = -1;
    health->due = NEVER;
    health->wanted = *wanted;
    health->directory = directory;
    health->container_fd = container_fd;
    health->plan = fds[next++];
    if (wanted->flags & HEALTH_FROZEN_FILE)
        health->frozen = fds[next++];
    if (wanted->flags & HEALTH_CGROUP)
        health->cgroup = fds[next++];
    for (uint32_t i = 0; i < wanted->tasks; i++)
        health->tasks[i] = fds[next++];
    health->known = fill_slots(health, container_fd);
}

static uint64_t next_interval(const struct health *health, uint64_t now)
{
    if (health->status == HEALTH_STARTING && now - health->steady < health->wanted.start_period)
        return health->wanted.start_interval;
    return health->wanted.interval;
}

void health_begin(struct health *health, uint64_t now)
{
    if (!health->known)
        return;
    health->steady = now;
    health->due = now + next_interval(health, now);
}

/* ---- what is written --------------------------------------------------------------------------- */

struct writer {
    int fd;
    bool failed;
    size_t used;
    char bytes[4096];
};

static void flush(struct writer *writer)
{
    size_t done = 0;

    while (done < writer->used && !writer->failed) {
        long written = sys_call(__NR_write, writer->fd, writer->bytes + done, writer->used - done);
        if (written <= 0)
            writer->failed = true;
        else
            done += (size_t)written;
    }
    writer->used = 0;
}

static void put(struct writer *writer, char byte)
{
    if (writer->used == sizeof(writer->bytes))
        flush(writer);
    writer->bytes[writer->used++] = byte;
}

static void put_text(struct writer *writer, const char *text)
{
    while (*text)
        put(writer, *text++);
}

static void put_number(struct writer *writer, const char *name, uint64_t number)
{
    char digits[24];
    size_t used = 0;

    text_append_number(digits, sizeof(digits), &used, number);
    put_text(writer, name);
    put_text(writer, digits);
}

/* ASCII on one line: everything else, and the backslash, is \xHH. */
static void put_escaped(struct writer *writer, const char *bytes, size_t size)
{
    static const char hexadecimal[] = "0123456789abcdef";

    for (size_t i = 0; i < size; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        if (byte >= ' ' && byte < 0x7f && byte != '\\') {
            put(writer, bytes[i]);
            continue;
        }
        put_text(writer, "\\x");
        put(writer, hexadecimal[byte >> 4]);
        put(writer, hexadecimal[byte & 15]);
    }
}

static void put_result(struct writer *writer, const struct health_result *result)
{
    put_number(writer, "start=", result->start);
    put_number(writer, " end=", result->end);
    if (result->code < 0)
        put_text(writer, " code=-1");
    else
        put_number(writer, " code=", (uint64_t)result->code);
    put_text(writer, " output=");
    put_escaped(writer, result->note, text_length(result->note));
    put_escaped(writer, result->output, result->size);
    put(writer, '\n');
}

static bool write_file(const struct health *health, uint32_t results)
{
    static struct writer writer;

    writer.used = 0;
    writer.failed = false;
    writer.fd =
        (int)sys_call(__NR_openat, health->directory, "health.tmp",
                      O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (writer.fd < 0)
        return false;
    put_text(&writer, "status=");
    put_text(&writer, status_names[health->status]);
    put_number(&writer, " streak=", health->streak);
    put(&writer, '\n');
    for (uint32_t i = 0; i < results; i++)
        put_result(&writer, &health->results[(health->first + i) % HEALTH_RESULTS]);
    flush(&writer);
    path_close(writer.fd);
    return !writer.failed && sys_call(__NR_renameat, health->directory, "health.tmp",
                                      health->directory, "health") == 0;
}

/* Where the disk is full the verdict counts more than the outputs; no verdict is better than one
 * that no longer holds. */
static void write_health(const struct health *health)
{
    if (write_file(health, health->count) || write_file(health, 0))
        return;
    sys_call(__NR_unlinkat, health->directory, "health.tmp", 0);
    sys_call(__NR_unlinkat, health->directory, "health", 0);
}

/* ---- a verdict --------------------------------------------------------------------------------- */

static void judge(struct health *health, const struct health_result *result)
{
    if (result->code == 0) {
        health->streak = 0;
        health->status = HEALTH_HEALTHY;
        return;
    }
    if (health->status == HEALTH_STARTING &&
        health->began - health->steady < health->wanted.start_period)
        return;
    if (health->streak < UINT32_MAX)
        health->streak++;
    if (health->streak >= health->wanted.retries)
        health->status = HEALTH_UNHEALTHY;
}

static struct health_result *new_result(struct health *health)
{
    if (health->count == HEALTH_RESULTS)
        health->first = (health->first + 1) % HEALTH_RESULTS;
    else
        health->count++;
    return &health->results[(health->first + health->count - 1) % HEALTH_RESULTS];
}

/* The note that is in health->note and the output that was read are the result's. */
static void conclude(struct health *health, int32_t code)
{
    struct health_result *result = new_result(health);
    uint64_t now = clock_now(MONOTONIC);

    result->start = health->started;
    result->end = health->ended;
    result->code = code;
    result->size = health->size;
    for (size_t i = 0; i < sizeof(result->note); i++)
        result->note[i] = health->note[i];
    for (uint32_t i = 0; i < health->size; i++)
        result->output[i] = health->output[i];
    judge(health, result);
    write_health(health);
    health->due = health->next = now + next_interval(health, now);
    if (health->sweeps && health->due > now + SWEEP)
        health->due = now + SWEEP;
}

static void note(struct health *health, const char *text)
{
    text_append(health->note, sizeof(health->note), &health->noted, text);
}

static void note_number(struct health *health, uint64_t number)
{
    text_append_number(health->note, sizeof(health->note), &health->noted, number);
}

static void note_error(struct health *health, const char *call, const char *detail, int32_t code)
{
    note(health, "cannot execute the health check: ");
    note(health, call);
    if (*detail) {
        note(health, " ");
        note(health, detail);
    }
    if (code == ENOENT) {
        note(health, ": no such file or directory");
    } else if (code == EACCES) {
        note(health, ": permission denied");
    } else {
        note(health, ": errno ");
        note_number(health, (uint64_t)code);
    }
}

static void note_timeout(struct health *health)
{
    bool seconds = health->wanted.timeout % SECOND == 0;

    note(health, "Health check exceeded timeout (");
    note_number(health, health->wanted.timeout / (seconds ? SECOND : SECOND / 1000));
    note(health, seconds ? "s)" : "ms)");
    if (health->size)
        note(health, ": ");
}

/* ---- one probe --------------------------------------------------------------------------------- */

static bool is_frozen(const struct health *health)
{
    char first = '0';

    if (health->frozen < 0 || sys_call(__NR_pread64, health->frozen, &first, 1, 0) != 1)
        return false;
    return first == '1' || first == 'F'; /* cgroup.freeze; freezer.state: FROZEN, FREEZING */
}

static void name_of_group(char name[32], uint64_t number)
{
    size_t used = 0;

    text_append(name, 32, &used, "health-");
    text_append_number(name, 32, &used, number);
}

static void remove_groups(struct health *health)
{
    char name[32];

    for (; health->first_group < health->next_group; health->first_group++) {
        name_of_group(name, health->first_group);
        if (sys_call(__NR_unlinkat, health->cgroup, name, AT_REMOVEDIR) == -EBUSY)
            return;
    }
}

/* A group below the container's, to find what the probe starts; a new one each time, because some
 * kernels kill what is born in one that was killed before. Without one the probe is in the
 * container's, and its session is what is found. */
static void make_group(struct health *health)
{
    char name[32];

    if (health->cgroup < 0)
        return;
    remove_groups(health);
    if (health->next_group - health->first_group >= MAX_GROUPS)
        return;
    name_of_group(name, health->next_group);
    if (sys_call(__NR_mkdirat, health->cgroup, name, 0755) < 0)
        return;
    health->next_group++;
    long fd = sys_call(__NR_openat, health->cgroup, name,
                       O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    health->group_fd = fd < 0 ? -1 : (int)fd;
}

static void kill_group(const struct health *health)
{
    if (health->group_fd < 0)
        return;
    long fd = sys_call(__NR_openat, health->group_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    sys_call(__NR_write, fd, "1", 1);
    path_close(fd);
}

static void kill_probe(const struct health *health)
{
    kill_group(health);
    if (health->process_fd >= 0) {
        sys_call(__NR_kill, -health->process, SIGNAL_KILL); /* its session; not reaped yet */
        sys_call(__NR_pidfd_send_signal, health->process_fd, SIGNAL_KILL, NULL, 0);
    }
    if (health->joiner_fd >= 0)
        sys_call(__NR_pidfd_send_signal, health->joiner_fd, SIGNAL_KILL, NULL, 0);
}

static void close_probe(struct health *health)
{
    close_fd(&health->status_fd);
    close_fd(&health->output_fd);
    close_fd(&health->joiner_fd);
    close_fd(&health->process_fd);
    close_fd(&health->group_fd);
    if (health->cgroup >= 0)
        remove_groups(health);
    health->running = false;
}

/* Children whose end nobody waited for: of probes that were killed on their way. Process 1 is the
 * monitor's to reap. */
static void reap_strays(long container)
{
    for (;;) {
        struct {
            int signal, error, code, padding, pid;
            int rest[27];
        } about = {0};
        int status;
        if (sys_call(__NR_waitid, P_ALL, 0, &about, WEXITED | WNOHANG | WNOWAIT, NULL) < 0 ||
            about.pid == 0 || about.pid == container ||
            sys_call(__NR_wait4, about.pid, &status, WNOHANG, NULL) <= 0)
            return;
    }
}

__attribute__((noreturn)) static void become_probe(const struct health *health, int status,
                                                   int output)
{
    char plan_text[24], status_text[24];
    const char *arguments[] = {"pyrtc-init", plan_text, status_text, NULL}, *environment[] = {NULL};
    size_t used = 0;

    text_append_number(plan_text, sizeof(plan_text), &used, (uint64_t)health->plan);
    used = 0;
    text_append_number(status_text, sizeof(status_text), &used, (uint64_t)status);
    sys_call(__NR_dup3, output, 1, 0);
    sys_call(__NR_dup3, output, 2, 0);
    sys_call(__NR_fcntl, health->plan, F_SETFD, 0);
    sys_call(__NR_fcntl, status, F_SETFD, 0);
    sys_call(__NR_fcntl, health->container_fd, F_SETFD, 0);
    for (uint32_t i = 0; i < health->wanted.tasks; i++)
        sys_call(__NR_fcntl, health->tasks[i], F_SETFD, 0);
    /* A program of its own: nothing of the monitor's memory comes near the container. */
    sys_call(__NR_execve, "/proc/self/exe", arguments, environment);
    leave(125);
}

static long clone_probe(struct health *health, int status, int output)
{
    int pidfd = -1;
    struct clone_args arguments = {
        .flags = CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGNAL_CHILD,
    };
    int into = health->group_fd >= 0 ? health->group_fd : health->cgroup;

    if (into >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)into;
    }
    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid == 0)
        become_probe(health, status, output);
    health->joiner = pid;
    health->joiner_fd = pid < 0 ? -1 : pidfd;
    return pid;
}

static void begin_probe(struct health *health, uint64_t now, long container)
{
    int status[2], output[2], yes = 1;
    const char *call = "socketpair";

    reap_strays(container);
    health->sweeps = 0;
    health->started = clock_now(REALTIME);
    health->began = now;
    health->size = 0;
    health->note[0] = '\0';
    health->noted = 0;
    health->truncated = health->failed = health->timed_out = false;
    long result = sys_call(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status);
    if (result >= 0) {
        call = "pipe2";
        sys_call(__NR_setsockopt, status[0], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
        result = sys_call(__NR_pipe2, output, O_CLOEXEC);
        if (result < 0) {
            path_close(status[0]);
            path_close(status[1]);
        }
    }
    if (result >= 0) {
        call = "clone3";
        make_group(health);
        result = clone_probe(health, status[1], output[1]);
        path_close(status[1]);
        path_close(output[1]);
        health->status_fd = status[0];
        health->output_fd = output[0];
        sys_call(__NR_fcntl, output[0], F_SETFL, O_NONBLOCK);
    }
    if (result < 0) {
        close_probe(health);
        note_error(health, call, "", (int32_t)-result);
        health->ended = clock_now(REALTIME);
        conclude(health, -1);
        return;
    }
    health->running = true;
    health->due = now + health->wanted.timeout;
}

/* The first bytes are kept, as Docker keeps them; the rest is read, or the probe would wait. False:
 * there is no more now. */
static bool read_output(struct health *health)
{
    static const char more[] = "...";
    char dropped[1024];
    bool full = health->size >= HEALTH_OUTPUT;

    if (health->output_fd < 0)
        return false;
    long size = full ? sys_call(__NR_read, health->output_fd, dropped, sizeof(dropped))
                     : sys_call(__NR_read, health->output_fd, health->output + health->size,
                                HEALTH_OUTPUT - health->size);
    if (size == -EAGAIN || size == -EINTR)
        return false;
    if (size <= 0) {
        close_fd(&health->output_fd);
        return false;
    }
    if (!full) {
        health->size += (uint32_t)size;
    } else if (!health->truncated) {
        for (size_t i = 0; i < sizeof(more) - 1; i++)
            health->output[health->size++] = more[i];
        health->truncated = true;
    }
    return !full;
}

/* One report. False: there is none now. */
static bool hear_probe(struct health *health)
{
    struct report report;
    struct iovec part = {&report, sizeof(report)};
    union {
        char bytes[CMSG_SPACE(3 * sizeof(int)) + CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int fd = -1;
    long sender = -1;

    if (health->status_fd < 0)
        return false;
    long size =
        sys_call(__NR_recvmsg, health->status_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size == -EAGAIN || size == -EINTR)
        return false;
    if (size <= 0) { /* the command is executing, or its start has failed */
        close_fd(&health->status_fd);
        return false;
    }
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET)
            continue;
        if (header->cmsg_type == SCM_CREDENTIALS)
            sender = *(int *)CMSG_DATA(header);
        else if (header->cmsg_type == SCM_RIGHTS) {
            for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
                if (fd >= 0)
                    path_close(fd);
                fd = *(int *)((char *)header + at);
            }
        }
    }
    bool whole = size == (long)sizeof(report);
    if (whole && report.kind == REPORT_PROCESS && fd >= 0 && health->process_fd < 0 &&
        sender == health->joiner) {
        health->process = report.code;
        health->process_fd = fd;
        return true;
    }
    if (fd >= 0)
        path_close(fd);
    if (whole && report.kind == REPORT_FAILED && !health->failed) {
        report.call[sizeof(report.call) - 1] = report.detail[sizeof(report.detail) - 1] = '\0';
        health->failed = true;
        note_error(health, report.call, report.detail, report.code);
    }
    return true;
}

static int32_t code_of(int status)
{
    return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

/* The command begins when pyrtc-init is gone, which a limit of processes would count. */
static void let_go(struct health *health)
{
    int status;

    sys_call(__NR_wait4, health->joiner, &status, WNOHANG, NULL);
    close_fd(&health->joiner_fd);
    if (health->status_fd >= 0)
        sys_call(__NR_sendto, health->status_fd, "+", 1, MSG_NOSIGNAL, NULL, 0);
}

static void finish_probe(struct health *health)
{
    int status = 0;
    bool process = health->process_fd >= 0;
    int32_t code = -1;

    kill_probe(health);
    while (read_output(health))
        ;
    bool reaped = sys_call(__NR_wait4, process ? health->process : health->joiner, &status, WNOHANG,
                           NULL) > 0;
    if (health->timed_out) {
        health->noted = 0;
        note_timeout(health);
    } else if (health->failed || !reaped) {
        if (!health->failed)
            note(health, "the end of the health check is not known");
    } else if (process) {
        code = code_of(status);
    } else {
        note(health, "the health check did not come into the container: pyrtc-init ended with ");
        note_number(health, (uint64_t)code_of(status));
    }
    close_probe(health);
    health->ended = clock_now(REALTIME);
    health->sweeps = process ? 0 : SWEEPS;
    if (process && code == 128 + SIGNAL_KILL) { /* it may be the container that ends */
        health->pending = true;
        health->due = clock_now(MONOTONIC) + PENDING;
    } else {
        conclude(health, code);
    }
}

/* ---- the monitor's turns ----------------------------------------------------------------------- */

void health_gather(const struct health *health, struct pollfd entries[HEALTH_ENTRIES])
{
    int waited = health->joiner_fd >= 0 ? health->joiner_fd : health->process_fd;

    entries[0] = (struct pollfd){health->running ? health->status_fd : -1, POLLIN, 0};
    entries[1] = (struct pollfd){health->running ? waited : -1, POLLIN, 0};
    entries[2] = (struct pollfd){health->running ? health->output_fd : -1, POLLIN, 0};
}

void health_serve(struct health *health, const struct pollfd entries[HEALTH_ENTRIES], uint64_t now,
                  long container)
{
    if (!health->running) {
        if (now < health->due)
            return;
        if (health->pending) {
            health->pending = false;
            conclude(health, 128 + SIGNAL_KILL);
        } else if (health->sweeps && now < health->next) {
            reap_strays(container);
            health->sweeps--;
            health->due = health->sweeps && now + SWEEP < health->next ? now + SWEEP : health->next;
        } else if (is_frozen(health))
            health->due = health->next = now + next_interval(health, now);
        else
            begin_probe(health, now, container);
        return;
    }
    if (entries[2].fd >= 0 && entries[2].revents)
        read_output(health);
    if (entries[0].fd >= 0 && entries[0].revents)
        hear_probe(health);
    if (entries[1].fd >= 0 && entries[1].revents) {
        while (hear_probe(health))
            ;
        if (health->joiner_fd < 0 || health->process_fd < 0) {
            finish_probe(health);
            return;
        }
        let_go(health);
    }
    if (now < health->due)
        return;
    if (is_frozen(health)) {
        health->due = now + health->wanted.timeout;
        return;
    }
    health->timed_out = true;
    health->due = NEVER;
    kill_probe(health);
}

void health_end(struct health *health)
{
    if (health->running) {
        kill_probe(health);
        close_probe(health);
    }
    health->known = health->pending = false;
    health->due = NEVER;
}
