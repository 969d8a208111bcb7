#include "tar_write.h"

#include "error.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STEP "write the tar stream"

/* What readers accept in front of one entry; untar.c and Go refuse more. */
enum { MAX_PAX_BYTES = 1 << 20 };

/* Offsets and sizes of ustar's fields (POSIX, pax, "ustar Interchange Format"). */
enum {
    NAME = 0,
    NAME_SIZE = 100,
    MODE = 100,
    UID = 108,
    GID = 116,
    SIZE = 124,
    MTIME = 136,
    CHECKSUM = 148,
    TYPE = 156,
    LINK = 157,
    LINK_SIZE = 100,
    MAGIC = 257,
    MAJOR = 329,
    MINOR = 337,
    PREFIX = 345,
    PREFIX_SIZE = 155,
    SHORT_NUMBER = 8, /* seven digits and a NUL */
    LONG_NUMBER = 12,
};

#define MAX_SHORT 07777777ull
#define MAX_LONG 077777777777ull

int sink_open(struct tar_sink *sink, int fd, struct pyrtc_error *error)
{
    *sink = (struct tar_sink){.fd = fd, .buffer = malloc(TAR_SINK_BUFFER)};
    return sink->buffer ? 0 : pyrtc_fail(error, ENOMEM, STEP, "%s", "");
}

void sink_close(struct tar_sink *sink)
{
    free(sink->buffer);
}

int sink_flush(struct tar_sink *sink, struct pyrtc_error *error)
{
    for (size_t done = 0; done < sink->used;) {
        ssize_t count = write(sink->fd, sink->buffer + done, sink->used - done);
        if (count < 0 && errno != EINTR)
            return pyrtc_fail(error, errno, STEP, "%s", "");
        if (count > 0)
            done += (size_t)count;
    }
    sink->used = 0;
    return 0;
}

int sink_room(struct tar_sink *sink, uint8_t **room, size_t *size, struct pyrtc_error *error)
{
    if (sink->used == TAR_SINK_BUFFER && sink_flush(sink, error) < 0)
        return -1;
    *room = sink->buffer + sink->used;
    *size = TAR_SINK_BUFFER - sink->used;
    return 0;
}

void sink_took(struct tar_sink *sink, size_t size)
{
    sink->used += size;
    sink->offset += size;
}

int sink_write(struct tar_sink *sink, const void *data, size_t size, struct pyrtc_error *error)
{
    const uint8_t *from = data;

    while (size) {
        uint8_t *room;
        size_t part;
        if (sink_room(sink, &room, &part, error) < 0)
            return -1;
        if (part > size)
            part = size;
        memcpy(room, from, part);
        sink_took(sink, part);
        from += part;
        size -= part;
    }
    return 0;
}

int sink_zeros(struct tar_sink *sink, uint64_t size, struct pyrtc_error *error)
{
    while (size) {
        uint8_t *room;
        size_t part;
        if (sink_room(sink, &room, &part, error) < 0)
            return -1;
        if (part > size)
            part = (size_t)size;
        memset(room, 0, part);
        sink_took(sink, part);
        size -= part;
    }
    return 0;
}

/* The length counts its own digits. */
int tar_add_record(struct tar_text *records, const char *key, const void *value, size_t size,
                   struct pyrtc_error *error)
{
    size_t rest = 1 + strlen(key) + 1 + size + 1, length = rest + 1;

    while ((size_t)snprintf(NULL, 0, "%zu", length) + rest != length)
        length = rest + (size_t)snprintf(NULL, 0, "%zu", length);
    if (length > MAX_PAX_BYTES || records->size > MAX_PAX_BYTES - length)
        return pyrtc_fail(error, 0, STEP, "more than %d bytes of names and extended attributes",
                          MAX_PAX_BYTES);
    if (tar_text_reserve(records, records->size + length, error) < 0)
        return -1;
    char *at = records->data + records->size;
    at += sprintf(at, "%zu %s=", length, key);
    memcpy(at, value, size);
    at[size] = '\n';
    at[size + 1] = 0;
    records->size += length;
    return 0;
}

static int add_text(struct tar_text *records, const char *key, const char *text,
                    struct pyrtc_error *error)
{
    return tar_add_record(records, key, text, strlen(text), error);
}

static int add_number(struct tar_text *records, const char *key, uint64_t value,
                      struct pyrtc_error *error)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return add_text(records, key, text, error);
}

/* Seconds with a fraction, as short as it goes; the sign is that of the whole number, so -0.5 is
 * half a second before 1970. */
static int add_time(struct tar_text *records, struct timespec time, struct pyrtc_error *error)
{
    long long seconds = time.tv_sec, nanoseconds = time.tv_nsec;
    bool negative = seconds < 0;
    char text[48];

    if (negative && nanoseconds) {
        seconds = -(seconds + 1);
        nanoseconds = 1000000000 - nanoseconds;
    } else if (negative) {
        seconds = -seconds;
    }
    int size =
        snprintf(text, sizeof(text), "%s%lld.%09lld", negative ? "-" : "", seconds, nanoseconds);
    while (text[size - 1] == '0')
        text[--size] = 0;
    if (text[size - 1] == '.')
        text[--size] = 0;
    return add_text(records, "mtime", text, error);
}

/* Say whether text is UTF-8 (RFC 3629), which is what PAX takes names for. */
static bool is_utf8(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;

    while (*at) {
        uint8_t first = *at++;
        int more = first < 0x80 ? 0 : first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
        uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (first >= 0x80 && (first < 0xc2 || first > 0xf4))
            return false;
        for (; more; more--, at++) {
            if (*at < low || *at > high)
                return false;
            low = 0x80;
            high = 0xbf;
        }
    }
    return true;
}

static void put_number(uint8_t *block, size_t field, size_t size, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%0*llo", (int)size - 1, (unsigned long long)value);
    memcpy(block + field, text, size);
}

/* Put a path into the name field, or split at a slash into prefix and name. False where neither
 * holds it. */
static bool put_path(uint8_t *block, const char *path)
{
    size_t length = strlen(path);

    if (length <= NAME_SIZE) {
        memcpy(block + NAME, path, length);
        return true;
    }
    for (size_t at = length - NAME_SIZE - 1; at <= PREFIX_SIZE && at + 1 < length; at++) {
        if (path[at] != '/' || at == 0)
            continue;
        memcpy(block + PREFIX, path, at);
        memcpy(block + NAME, path + at + 1, length - at - 1);
        return true;
    }
    return false;
}

static void put_rest(uint8_t *block, char type)
{
    uint32_t sum = 0;

    block[TYPE] = (uint8_t)type;
    memcpy(block + MAGIC, "ustar\00000", 8);
    memset(block + CHECKSUM, ' ', SHORT_NUMBER);
    for (size_t i = 0; i < TAR_BLOCK_SIZE; i++)
        sum += block[i];
    snprintf((char *)block + CHECKSUM, SHORT_NUMBER, "%06o", sum);
}

static int write_pax(struct tar_sink *sink, const struct tar_text *records,
                     struct pyrtc_error *error)
{
    uint8_t block[TAR_BLOCK_SIZE] = {0};

    memcpy(block + NAME, "PaxHeader", 9);
    put_number(block, MODE, SHORT_NUMBER, 0);
    put_number(block, UID, SHORT_NUMBER, 0);
    put_number(block, GID, SHORT_NUMBER, 0);
    put_number(block, SIZE, LONG_NUMBER, records->size);
    put_number(block, MTIME, LONG_NUMBER, 0);
    put_rest(block, 'x');
    if (sink_write(sink, block, sizeof(block), error) < 0 ||
        sink_write(sink, records->data, records->size, error) < 0)
        return -1;
    return sink_zeros(sink, -(uint64_t)records->size % TAR_BLOCK_SIZE, error);
}

/* Put a number, or 0 and a record where it does not fit. */
static int put_or_add(uint8_t *block, size_t field, size_t size, uint64_t value,
                      struct tar_text *records, const char *key, struct pyrtc_error *error)
{
    bool fits = value <= (size == LONG_NUMBER ? MAX_LONG : MAX_SHORT);

    put_number(block, field, size, fits ? value : 0);
    return fits ? 0 : add_number(records, key, value, error);
}

int tar_write_item(struct tar_sink *sink, const struct tar_item *item, struct tar_text *scratch,
                   struct pyrtc_error *error)
{
    uint8_t block[TAR_BLOCK_SIZE] = {0};
    bool path_fits = put_path(block, item->path);
    bool link_fits = !item->link || strlen(item->link) <= LINK_SIZE;

    scratch->size = 0;
    if ((!path_fits && !is_utf8(item->path)) || (!link_fits && !is_utf8(item->link))) {
        if (add_text(scratch, "hdrcharset", "BINARY", error) < 0)
            return -1;
    }
    if (!path_fits) {
        memcpy(block + NAME, item->path, NAME_SIZE);
        if (add_text(scratch, "path", item->path, error) < 0)
            return -1;
    }
    if (item->link)
        memcpy(block + LINK, item->link, link_fits ? strlen(item->link) : LINK_SIZE);
    if (!link_fits && add_text(scratch, "linkpath", item->link, error) < 0)
        return -1;
    put_number(block, MODE, SHORT_NUMBER, item->mode & 07777);
    put_number(block, MAJOR, SHORT_NUMBER, item->major);
    put_number(block, MINOR, SHORT_NUMBER, item->minor);
    bool time_fits = item->mtime.tv_sec >= 0 && (uint64_t)item->mtime.tv_sec <= MAX_LONG;
    put_number(block, MTIME, LONG_NUMBER, time_fits ? (uint64_t)item->mtime.tv_sec : 0);
    if (put_or_add(block, SIZE, LONG_NUMBER, item->size, scratch, "size", error) < 0 ||
        put_or_add(block, UID, SHORT_NUMBER, item->uid, scratch, "uid", error) < 0 ||
        put_or_add(block, GID, SHORT_NUMBER, item->gid, scratch, "gid", error) < 0)
        return -1;
    if ((!time_fits || item->mtime.tv_nsec) && add_time(scratch, item->mtime, error) < 0)
        return -1;
    if (item->attributes && item->attributes->size) {
        size_t size = item->attributes->size;
        if (scratch->size + size > MAX_PAX_BYTES)
            return pyrtc_fail(error, 0, STEP, "more than %d bytes of names and extended attributes",
                              MAX_PAX_BYTES);
        if (tar_text_reserve(scratch, scratch->size + size, error) < 0)
            return -1;
        memcpy(scratch->data + scratch->size, item->attributes->data, size);
        scratch->size += size;
    }
    put_rest(block, item->type);
    if (scratch->size && write_pax(sink, scratch, error) < 0)
        return -1;
    return sink_write(sink, block, sizeof(block), error);
}
