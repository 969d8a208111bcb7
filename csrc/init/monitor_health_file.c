/*
 * What is said of a health check: the file `health`, which pyrtc's health.py reads, and the words
 * that stand for an exit code where a probe has none.
 */
#include "monitor_health.h"

#include "init.h"

#include <errno.h>
#include <fcntl.h>

static const char *const status_names[] = {
    [HEALTH_STARTING] = "starting",
    [HEALTH_HEALTHY] = "healthy",
    [HEALTH_UNHEALTHY] = "unhealthy",
};

const char *health_status_name(enum health_status status)
{
    return status_names[status];
}

/* ---- the file ---------------------------------------------------------------------------------- */

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
    put_text(&writer, health_status_name(health->status));
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
void health_write(const struct health *health)
{
    if (write_file(health, health->count) || write_file(health, 0))
        return;
    sys_call(__NR_unlinkat, health->directory, "health.tmp", 0);
    sys_call(__NR_unlinkat, health->directory, "health", 0);
}

/* ---- words ------------------------------------------------------------------------------------- */

void note(struct health *health, const char *text)
{
    text_append(health->note, sizeof(health->note), &health->noted, text);
}

void note_number(struct health *health, uint64_t number)
{
    text_append_number(health->note, sizeof(health->note), &health->noted, number);
}

void note_error(struct health *health, const char *call, const char *detail, int32_t code)
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

void note_timeout(struct health *health)
{
    bool seconds = health->wanted.timeout % SECOND == 0;

    note(health, "Health check exceeded timeout (");
    note_number(health, health->wanted.timeout / (seconds ? SECOND : SECOND / 1000));
    note(health, seconds ? "s)" : "ms)");
    if (health->size)
        note(health, ": ");
}
