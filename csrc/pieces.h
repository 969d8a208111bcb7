/*
 * The reading end of a stream of pieces.
 */
#ifndef PYRTC_PIECES_H
#define PYRTC_PIECES_H

#include "pyrtc_pieces.h"

#include <stddef.h>

/* Give the piece before back, and wait for the next one. Returns how many bytes there are at *data, none at the end of
 * the stream. */
size_t pieces_next(struct pyrtc_pieces *pieces, const uint8_t **data);

#endif
