#include "tar_stream.h"

#include "error.h"
#include "pieces.h"
#include "tar_header.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define STEP "read the tar stream"

int stream_open(struct tar_stream *stream, int fd, struct pyrtc_pieces *pieces,
                struct pyrtc_error *error)
{
    *stream = (struct tar_stream){.fd = fd, .pieces = pieces, .buffer = malloc(TAR_STREAM_BUFFER)};
    stream->data = stream->buffer;
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

/* Have what is at hand lie in the buffer, with room for `wanted` bytes. */
static void gather(struct tar_stream *stream, size_t wanted)
{
    size_t have = stream->end - stream->start;

    if (stream->data == stream->buffer &&
        (have == 0 || stream->start + wanted <= TAR_STREAM_BUFFER))
        return;
    memmove(stream->buffer, stream->data + stream->start, have);
    stream->data = stream->buffer;
    stream->start = 0;
    stream->end = have;
}

/* Have more at hand, of a file. */
static int read_more(struct tar_stream *stream, size_t wanted, struct pyrtc_error *error)
{
    gather(stream, wanted);
    if (stream->start == stream->end)
        stream->start = stream->end = 0;
    ssize_t count = read(stream->fd, stream->buffer + stream->end, TAR_STREAM_BUFFER - stream->end);
    if (count < 0 && errno != EINTR)
        return pyrtc_fail(error, errno, STEP, "%s", "");
    if (count > 0)
        stream->end += (size_t)count;
    stream->ended = count == 0;
    return 0;
}

/* Have more at hand, of a stream of pieces. Only what lies across the border of two is copied. */
static void take_piece(struct tar_stream *stream, size_t wanted)
{
    size_t have = stream->end - stream->start;

    if (!stream->piece_size) {
        if (have)
            gather(stream, wanted); /* the piece goes back */
        stream->piece_size = pieces_next(stream->pieces, &stream->piece);
        if (!stream->piece_size) {
            stream->ended = true;
            return;
        }
    }
    size_t part = stream->piece_size;
    if (!have) {
        stream->data = stream->piece;
        stream->start = 0;
        stream->end = part;
    } else {
        gather(stream, wanted);
        part = part < wanted - have ? part : wanted - have;
        memcpy(stream->buffer + stream->end, stream->piece, part);
        stream->end += part;
    }
    stream->piece += part;
    stream->piece_size -= part;
}

ssize_t stream_peek(struct tar_stream *stream, size_t wanted, const uint8_t **data,
                    struct pyrtc_error *error)
{
    while (stream->end - stream->start < wanted && !stream->ended) {
        if (stream->pieces)
            take_piece(stream, wanted);
        else if (read_more(stream, wanted, error) < 0)
            return -1;
    }
    *data = stream->data + stream->start;
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
