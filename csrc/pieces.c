/*
 * One thread makes a stream and another one uses it. A pipe between them would copy every byte twice, and take and free
 * a page for each 4096: for what is unpacked that is a tenth of all work. Here the pieces stay where they are, and only
 * who may look at them changes.
 */
#include "pieces.h"

#include "error.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct piece {
    const uint8_t *data;
    size_t size;
};

struct pyrtc_pieces {
    pthread_mutex_t lock;
    pthread_cond_t came; /* a piece, or the end */
    pthread_cond_t went; /* a piece was given back, or no more are wanted */
    uint32_t most;
    uint32_t first; /* where the oldest is */
    uint32_t count; /* under way, with the one that is being read */
    bool reading;   /* the oldest is at the reader */
    bool ended;
    bool stopped;
    struct piece ring[];
};

int pyrtc_pieces_open(uint32_t most, struct pyrtc_pieces **made, struct pyrtc_error *error)
{
    struct pyrtc_pieces *pieces = calloc(1, sizeof(*pieces) + most * sizeof(*pieces->ring));

    if (!pieces)
        return pyrtc_fail(error, ENOMEM, "pass a stream on", "%u pieces", most);
    pthread_mutex_init(&pieces->lock, NULL);
    pthread_cond_init(&pieces->came, NULL);
    pthread_cond_init(&pieces->went, NULL);
    pieces->most = most;
    *made = pieces;
    return 0;
}

void pyrtc_pieces_close(struct pyrtc_pieces *pieces)
{
    pthread_mutex_destroy(&pieces->lock);
    pthread_cond_destroy(&pieces->came);
    pthread_cond_destroy(&pieces->went);
    free(pieces);
}

int pyrtc_pieces_put(struct pyrtc_pieces *pieces, const uint8_t *data, uint64_t size)
{
    pthread_mutex_lock(&pieces->lock);
    while (pieces->count == pieces->most && !pieces->stopped)
        pthread_cond_wait(&pieces->went, &pieces->lock);
    bool wanted = !pieces->stopped;
    if (wanted && size) {
        uint32_t at = (pieces->first + pieces->count++) % pieces->most;
        pieces->ring[at] = (struct piece){.data = data, .size = size};
        pthread_cond_signal(&pieces->came);
    }
    pthread_mutex_unlock(&pieces->lock);
    return wanted ? 0 : 1;
}

void pyrtc_pieces_end(struct pyrtc_pieces *pieces)
{
    pthread_mutex_lock(&pieces->lock);
    pieces->ended = true;
    pthread_cond_signal(&pieces->came);
    pthread_mutex_unlock(&pieces->lock);
}

void pyrtc_pieces_stop(struct pyrtc_pieces *pieces)
{
    pthread_mutex_lock(&pieces->lock);
    pieces->stopped = true;
    pthread_cond_signal(&pieces->went);
    pthread_mutex_unlock(&pieces->lock);
}

size_t pieces_next(struct pyrtc_pieces *pieces, const uint8_t **data)
{
    size_t size = 0;

    pthread_mutex_lock(&pieces->lock);
    if (pieces->reading) {
        pieces->reading = false;
        pieces->first = (pieces->first + 1) % pieces->most;
        pieces->count--;
        pthread_cond_signal(&pieces->went);
    }
    while (!pieces->count && !pieces->ended)
        pthread_cond_wait(&pieces->came, &pieces->lock);
    if (pieces->count) {
        *data = pieces->ring[pieces->first].data;
        size = pieces->ring[pieces->first].size;
        pieces->reading = true;
    }
    pthread_mutex_unlock(&pieces->lock);
    return size;
}
