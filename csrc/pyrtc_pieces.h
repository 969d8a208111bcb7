/*
 * A stream that goes from one thread to another in pieces, which nobody copies.
 */
#ifndef PYRTC_INTERFACE_PIECES_H
#define PYRTC_INTERFACE_PIECES_H

#include "pyrtc.h"

/* ---- pieces.c */

struct pyrtc_pieces;

/* Make a stream of which at most `most` pieces are under way. */
int pyrtc_pieces_open(uint32_t most, struct pyrtc_pieces **made, struct pyrtc_error *error);
void pyrtc_pieces_close(struct pyrtc_pieces *pieces); /* neither end uses it any more */

/* The writer's. `put` waits for room, and returns 1 where the reader wants no more. A piece stays where it is until
 * `most` others were put after it, or the stream is closed. */
int pyrtc_pieces_put(struct pyrtc_pieces *pieces, const uint8_t *data, uint64_t size);
void pyrtc_pieces_end(struct pyrtc_pieces *pieces);

/* The reader's, from any thread: it takes no more, and the writer need not wait. */
void pyrtc_pieces_stop(struct pyrtc_pieces *pieces);

#endif
