#include "tar_stream.h"

#include "error.h"
#include "tar_header.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define STEP "read the tar stream"

int stream_open(struct tar_stream *stream, int fd, struct pyrtc_error *error)
{
    *stream = (struct tar_stream){.fd = fd, .buffer = malloc(TAR_STREAM_BUFFER)};
    return stream->buffer ? 0 : pyrtc_fail(error, ENOMEM, STEP, "%s", "");
}

void stream_close(struct tar_stream *stream)
{
    free(stream->buffer);
}

int stream_truncated(struct pyrtc_error *error)
{
    return pyrtc_fail(error, 0, STEP, "it is truncated");
}

ssize_t stream_peek(struct tar_stream *stream, size_t wanted, const uint8_t **data,
                    struct pyrtc_error *error)
{
    if (stream->end - stream->start < wanted && stream->start + wanted > TAR_STREAM_BUFFER) {
        memmove(stream->buffer, stream->buffer + stream->start, stream->end - stream->start);
        stream->end -= stream->start;
        stream->start = 0;
    }
    while (stream->end - stream->start < wanted && !stream->ended) {
        if (stream->start == stream->end)
            stream->start = stream->end = 0;
        ssize_t count =
            read(stream->fd, stream->buffer + stream->end, TAR_STREAM_BUFFER - stream->end);
        if (count < 0 && errno != EINTR)
            return pyrtc_fail(error, errno, STEP, "%s", "");
        if (count > 0)
            stream->end += (size_t)count;
        stream->ended = count == 0;
    }
    *data = stream->buffer + stream->start;
    return (ssize_t)(stream->end - stream->start);
}

void stream_take(struct tar_stream *stream, size_t size)
{
    stream->start += size;
    stream->offset += size;
}

int stream_block(struct tar_stream *stream, const uint8_t **block, struct pyrtc_error *error)
{
    ssize_t have = stream_peek(stream, TAR_BLOCK_SIZE, block, error);

    if (have <= 0)
        return (int)have;
    if (have < TAR_BLOCK_SIZE)
        return stream_truncated(error);
    stream_take(stream, TAR_BLOCK_SIZE);
    return 1;
}

int stream_read(struct tar_stream *stream, void *target, size_t size, struct pyrtc_error *error)
{
    uint8_t *to = target;

    while (size) {
        const uint8_t *data;
        ssize_t have = stream_peek(stream, 1, &data, error);
        if (have <= 0)
            return have < 0 ? -1 : stream_truncated(error);
        size_t part = (size_t)have < size ? (size_t)have : size;
        memcpy(to, data, part);
        stream_take(stream, part);
        to += part;
        size -= part;
    }
    return 0;
}

int stream_skip(struct tar_stream *stream, uint64_t size, struct pyrtc_error *error)
{
    while (size) {
        const uint8_t *data;
        ssize_t have = stream_peek(stream, 1, &data, error);
        if (have <= 0)
            return have < 0 ? -1 : stream_truncated(error);
        size_t part = (uint64_t)have < size ? (size_t)have : (size_t)size;
        stream_take(stream, part);
        size -= part;
    }
    return 0;
}

int stream_drain(struct tar_stream *stream, struct pyrtc_error *error)
{
    const uint8_t *data;
    ssize_t have;

    while ((have = stream_peek(stream, 1, &data, error)) > 0)
        stream_take(stream, (size_t)have);
    return (int)have;
}
