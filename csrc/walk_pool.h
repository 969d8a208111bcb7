/*
 * The short queue between the thread that walks over a tree and those that work on what it finds.
 */
#ifndef PYRTC_WALK_POOL_H
#define PYRTC_WALK_POOL_H

#include "walk.h"

/* Names first..end of one directory. Holds a reference to each of the three. */
struct walk_batch {
    struct walk_dir *dir;
    struct walk_fds *fds;
    struct listing *listing;
    size_t first;
    size_t end;
};

struct walk_pool;

/* Threads are started when there is work for them, never more than threads. NULL when memory is
 * short. */
struct walk_pool *walk_pool_new(unsigned threads);

/* Have batch done, by another thread or, where none is free, by worker at once. Takes over its
 * references. */
int walk_pool_submit(struct walk_pool *pool, struct walk_worker *worker, struct walk_batch *batch);

/* Some thread failed or ended the walk. */
int walk_pool_stopped(struct walk_pool *pool);

/* Work off the queue (unless result is an early end), wait for the threads, add up their counts in
 * worker, free the pool and return the outcome of the walk, with the first failure in *error. */
int walk_pool_end(struct walk_pool *pool, struct walk_worker *worker, int result,
                  struct pyrtc_error *error);

/* Of walk.c: do a batch; give up its references. */
int walk_run_batch(struct walk_worker *worker, const struct walk_batch *batch);
void walk_release_batch(struct walk_batch *batch);

#endif
