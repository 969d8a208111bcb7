/*
 * Buffered reading of a tar stream. Data is handed out where it lies in the buffer, so that a
 * file's contents are copied once, by write(2).
 */
#ifndef PYRTC_TAR_STREAM_H
#define PYRTC_TAR_STREAM_H

#include "pyrtc_pieces.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/types.h>

struct tar_stream {
    int fd;
    struct pyrtc_pieces *pieces; /* where it comes from instead of fd; or NULL */
    const uint8_t *piece;        /* of the last one, what is not at hand yet */
    size_t piece_size;
    uint8_t *buffer;
    const uint8_t *data; /* what is at hand: in the buffer, or in a piece */
    size_t start, end;   /* of it, what was not yet taken */
    uint64_t offset;     /* of start in the stream */
    bool ended;
};

enum { TAR_STREAM_BUFFER = 1 << 20 };

int stream_open(struct tar_stream *stream, int fd, struct pyrtc_pieces *pieces,
                struct pyrtc_error *error);
void stream_close(struct tar_stream *stream);

/* Have `wanted` bytes (at most TAR_STREAM_BUFFER) lie at *data. Returns how many there are, which
 * may be more, and is fewer only at the end of the stream. */
ssize_t stream_peek(struct tar_stream *stream, size_t wanted, const uint8_t **data,
                    struct pyrtc_error *error);
void stream_take(struct tar_stream *stream, size_t size);

/* Read the next block. Returns 1, or 0 where the stream ends; a part of a block is an error. */
int stream_block(struct tar_stream *stream, const uint8_t **block, struct pyrtc_error *error);
/* Copy the next bytes out of the stream. */
int stream_read(struct tar_stream *stream, void *target, size_t size, struct pyrtc_error *error);
int stream_skip(struct tar_stream *stream, uint64_t size, struct pyrtc_error *error);
/* Read what is behind the archive's end: the caller hashes all of it. */
int stream_drain(struct tar_stream *stream, struct pyrtc_error *error);

int stream_truncated(struct pyrtc_error *error);

#endif
