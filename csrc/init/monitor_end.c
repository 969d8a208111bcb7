/*
 * The end of a monitor: how the container ended is written and told to who is attached, then the
 * monitor becomes the command that cleans up, where there is one.
 */
#include "monitor_state.h"

#include <fcntl.h>
#include <sys/socket.h>

#define SET_MASK 2
#define RECORD_ROOM 256

/* The number in the line "oom_kill N". */
uint64_t read_oom_kills(int fd)
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

static long open_record(const struct monitor *it)
{
    return sys_call(__NR_openat, it->directory, "exit.tmp",
                    O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
}

void reserve_record(const struct monitor *it)
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

void end_watch(struct monitor *it)
{
    log_close(&it->log);
    write_record(it, read_oom_kills(it->oom) - it->oom_kills);
    tell_exit(it);
    if (it->abandoned || it->attach.claimed || !it->block->argument_count)
        leave(0);
    become_end_command(it->block, it->umask);
}
