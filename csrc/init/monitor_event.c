/*
 * Telling the store that the health of a container has changed: one line of JSON in its file
 * `events`, by the rules of pyrtc's events.py, which is who writes all others.
 *
 * What the line says but for the time and the status is in the container's file `health.event`,
 * decided where names and labels are known. Its first line comes before the status, the rest after.
 */
#include "monitor_health.h"

#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>

#define EVENTS "../../events" /* containers/<id> is the directory */
#define EARLIER "../../events.1"
#define MAX_LINE 4095
#define MAX_SIZE (4 << 20)
#define LOCK_SHARED 1
#define LOCK_ALONE 2
#define LOCK_TRY 4
/* Whoever renames the file holds it for some microseconds; the container's output does not wait
 * for one that was stopped in between. */
#define ATTEMPTS 100
#define PAUSE (SECOND / 1000)

/* The whole line; 0 where it is not known what to say. */
static size_t compose(const struct health *health, char line[MAX_LINE + 1])
{
    char words[MAX_LINE + 1];
    char *rest = words;
    size_t used = 0;

    long fd = sys_call(__NR_openat, health->directory, HEALTH_EVENT,
                       O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return 0;
    long size = sys_call(__NR_read, fd, words, MAX_LINE);
    path_close(fd);
    if (size <= 0)
        return 0;
    words[size] = '\0';
    while (*rest && *rest != '\n')
        rest++;
    if (!*rest)
        return 0;
    *rest++ = '\0';
    bool fits = text_append(line, MAX_LINE + 1, &used, "{\"time\":") &&
                text_append_number(line, MAX_LINE + 1, &used, clock_now(REALTIME)) &&
                text_append(line, MAX_LINE + 1, &used, words) &&
                text_append(line, MAX_LINE + 1, &used, health_status_name(health->status)) &&
                text_append(line, MAX_LINE + 1, &used, rest);
    return fits ? used : 0;
}

/* Whether the log's name means this file; its size. */
static bool is_named(const struct health *health, long fd, uint64_t *size)
{
    struct statx named, opened;

    if (sys_call(__NR_statx, health->directory, EVENTS, AT_SYMLINK_NOFOLLOW, STATX_INO, &named) ||
        sys_call(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_INO | STATX_SIZE, &opened))
        return false;
    *size = opened.stx_size;
    return named.stx_ino == opened.stx_ino && named.stx_dev_major == opened.stx_dev_major &&
           named.stx_dev_minor == opened.stx_dev_minor;
}

/* Append the line, to a file that was opened just now and is to be closed. False: its name was given
 * to another, or is about to be. */
static bool append(const struct health *health, long fd, const char *line, size_t length)
{
    uint64_t size;

    if (sys_call(__NR_flock, fd, LOCK_SHARED | LOCK_TRY) || !is_named(health, fd, &size))
        return false;
    if (size >= MAX_SIZE && sys_call(__NR_flock, fd, LOCK_ALONE | LOCK_TRY) == 0) {
        if (is_named(health, fd, &size))
            sys_call(__NR_renameat, health->directory, EVENTS, health->directory, EARLIER);
        return false;
    }
    /* The shared lock is lost when the other is refused. */
    if (size >= MAX_SIZE &&
        (sys_call(__NR_flock, fd, LOCK_SHARED | LOCK_TRY) || !is_named(health, fd, &size)))
        return false;
    long written = sys_call(__NR_write, fd, line, length);
    if (written > 0 &&
        written < (long)length) /* the disk is full: the next line is one of its own */
        sys_call(__NR_write, fd, "\n", 1);
    return true;
}

void health_tell(const struct health *health)
{
    static char line[MAX_LINE + 1];
    const struct {
        int64_t seconds, nanoseconds;
    } pause = {0, PAUSE};
    size_t length = compose(health, line);

    for (int attempt = 0; length && attempt < ATTEMPTS; attempt++) {
        long fd = sys_call(__NR_openat, health->directory, EVENTS,
                           O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
            return;
        bool done = append(health, fd, line, length);
        path_close(fd); /* and with it the lock */
        if (done)
            return;
        sys_call(__NR_nanosleep, &pause, NULL);
    }
}
