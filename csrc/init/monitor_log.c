/*
 * The log of a container, in the format of Kubernetes' CRI: one line each for what was read,
 * "<RFC 3339 time> stdout|stderr F|P <text>". P is a piece whose newline has not come: nothing is
 * held back to wait for it, so a prompt is seen at once and an endless line takes no memory.
 *
 * A disk that is full stops neither the container nor the log: what could not be written is counted,
 * and the count is the first line that can be written again. A file never ends in half a line.
 */
#include "monitor.h"

#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define PARTS 256
#define HEADER_ROOM 48 /* time, stream, mark, three spaces */

uint64_t clock_now(int clock)
{
    struct {
        int64_t seconds, nanoseconds;
    } now = {0, 0};

    sys_call(__NR_clock_gettime, clock, &now);
    return (uint64_t)now.seconds * SECOND + (uint64_t)now.nanoseconds;
}

static char *put_digits(char *at, uint64_t number, int digits)
{
    for (int i = digits - 1; i >= 0; i--, number /= 10)
        at[i] = (char)('0' + number % 10);
    return at + digits;
}

/* Days since 1970 to a date, by the era of 400 years that begins on 1 March. */
void log_time(char text[31], uint64_t time)
{
    uint64_t seconds = time / SECOND, days = seconds / 86400 + 719468, second = seconds % 86400;
    uint64_t era = days / 146097, day = days % 146097;
    uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    uint64_t day_of_year = day - (365 * year + year / 4 - year / 100);
    uint64_t part = (5 * day_of_year + 2) / 153, month = part < 10 ? part + 3 : part - 9;
    const struct {
        uint64_t number;
        int digits;
        char end;
    } fields[] = {
        {year + era * 400 + (month <= 2), 4, '-'},
        {month, 2, '-'},
        {day_of_year - (153 * part + 2) / 5 + 1, 2, 'T'},
        {second / 3600, 2, ':'},
        {second / 60 % 60, 2, ':'},
        {second % 60, 2, '.'},
        {time % SECOND, 9, 'Z'},
    };
    char *at = text;

    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        at = put_digits(at, fields[i].number, fields[i].digits);
        *at++ = fields[i].end;
    }
    *at = '\0';
}

static void open_file(struct log *log)
{
    struct stat about;
    long fd = sys_call(__NR_openat, log->directory, "log",
                       O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

    log->fd = fd < 0 ? -1 : (int)fd;
    log->error = fd < 0 ? -fd : 0;
    log->size = 0;
    if (fd >= 0 && sys_call(__NR_fstat, fd, &about) == 0)
        log->size = (uint64_t)about.st_size;
}

void log_open(struct log *log, int directory, uint32_t files, uint64_t limit)
{
    *log = (struct log){.directory = directory, .fd = -1, .files = files, .limit = limit};
    if (files)
        open_file(log);
}

static void name_of(char name[24], uint32_t number)
{
    size_t used = 0;

    text_append(name, 24, &used, "log");
    if (number) {
        text_append(name, 24, &used, ".");
        text_append_number(name, 24, &used, number);
    }
}

/* log.2 goes, log.1 becomes log.2, log becomes log.1. With one file its content goes. */
static void rotate(struct log *log)
{
    char from[24], to[24];

    if (log->files == 1) {
        if (sys_call(__NR_ftruncate, log->fd, 0) == 0)
            log->size = 0;
        return;
    }
    for (uint32_t number = log->files - 1; number; number--) {
        name_of(from, number - 1);
        name_of(to, number);
        sys_call(__NR_renameat, log->directory, from, log->directory, to);
    }
    sys_call(__NR_close, log->fd);
    open_file(log);
}

/* Write all of it or nothing: a short write, which is how a full disk begins, is taken back. */
static bool write_parts(struct log *log, struct iovec *parts, int count, uint64_t size)
{
    if (log->fd < 0)
        open_file(log);
    if (log->fd < 0)
        return false;
    long written = sys_call(__NR_writev, log->fd, parts, count);
    if (written == (long)size) {
        log->size += size;
        return true;
    }
    log->error = written < 0 ? -written : ENOSPC;
    if (written > 0 && sys_call(__NR_ftruncate, log->fd, log->size) < 0)
        log->size += (uint64_t)written;
    return false;
}

#define NOTE_ROOM 160

/* A line of the monitor's own, on stderr. */
static size_t put_note(char text[NOTE_ROOM], const struct log *log, const char *time)
{
    size_t used = 0;

    text_append(text, NOTE_ROOM, &used, time);
    text_append(text, NOTE_ROOM, &used, " stderr F [pyrtc: ");
    text_append_number(text, NOTE_ROOM, &used, log->lost);
    text_append(text, NOTE_ROOM, &used,
                " bytes of output are not in this log: writing it failed, errno ");
    text_append_number(text, NOTE_ROOM, &used, (uint64_t)log->error);
    text_append(text, NOTE_ROOM, &used, "]\n");
    return used;
}

struct batch {
    struct iovec parts[1 + PARTS]; /* the first is the note's */
    int count;
    uint64_t size;
    uint64_t payload;
};

/* The note goes with the first output that can be written again; a full disk is asked once a second,
 * or it would be filled with notes. */
static void flush(struct log *log, struct batch *batch, const char *time)
{
    char note[NOTE_ROOM];
    size_t noted = 0;

    if (!batch->count)
        return;
    bool possible = !log->lost || clock_now(MONOTONIC) >= log->retry_at;
    if (log->lost)
        noted = put_note(note, log, time);
    batch->parts[0] = (struct iovec){note, noted};
    if (possible && write_parts(log, batch->parts, 1 + batch->count, noted + batch->size)) {
        log->lost = 0;
    } else {
        log->lost += batch->payload;
        if (possible)
            log->retry_at = clock_now(MONOTONIC) + SECOND;
    }
    batch->count = 0;
    batch->size = batch->payload = 0;
}

void log_close(struct log *log)
{
    char time[31], note[NOTE_ROOM];

    if (!log->lost)
        return;
    log_time(time, clock_now(REALTIME));
    struct iovec part = {note, put_note(note, log, time)};
    write_parts(log, &part, 1, part.iov_len);
}

static void add(struct batch *batch, const char *bytes, size_t size)
{
    batch->parts[1 + batch->count++] = (struct iovec){(char *)bytes, size};
    batch->size += size;
}

static size_t line_length(const char *bytes, size_t size, bool *whole)
{
    size_t length = 0;

    while (length < size && bytes[length] != '\n')
        length++;
    *whole = length < size;
    return length + *whole;
}

void log_write(struct log *log, enum stream stream, const char *bytes, size_t size)
{
    static struct batch batch;
    char time[31], header[HEADER_ROOM];
    size_t used = 0;

    if (!log->files)
        return;
    log_time(time, clock_now(REALTIME));
    text_append(header, sizeof(header), &used, time);
    text_append(header, sizeof(header), &used,
                stream == STREAM_STDOUT ? " stdout F " : " stderr F ");
    while (size) {
        bool whole;
        size_t length = line_length(bytes, size, &whole);
        uint64_t line = used + length + !whole + (log->lost ? NOTE_ROOM : 0);

        if (!whole) {
            flush(log, &batch, time); /* its header differs */
            header[used - 2] = 'P';
        }
        if (batch.count + 3 > PARTS)
            flush(log, &batch, time);
        if (log->limit && log->size + batch.size + line > log->limit) {
            flush(log, &batch, time);
            if (log->fd >= 0 && log->size)
                rotate(log);
        }
        add(&batch, header, used);
        add(&batch, bytes, length);
        if (!whole)
            add(&batch, "\n", 1);
        batch.payload += length;
        bytes += length;
        size -= length;
    }
    flush(log, &batch, time);
}
