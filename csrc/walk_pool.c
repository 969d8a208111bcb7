#include "walk_pool.h"

#include <signal.h>
#include <stdlib.h>

enum {
    QUEUE_SIZE = 16,
    STACK_SIZE = 262144,
};

struct pool_thread {
    struct walk_pool *pool;
    pthread_t thread;
    struct walk_worker worker;
};

struct walk_pool {
    pthread_mutex_t lock;
    pthread_cond_t work; /* something was queued, or closed */
    struct walk_batch queue[QUEUE_SIZE];
    unsigned first;
    unsigned count;
    unsigned idle; /* threads that wait for work */
    int closed;    /* nothing more will be queued */
    int result;    /* of the walk: the first that is not WALK_GO_ON */
    struct pyrtc_error error;
    atomic_int stopped;
    unsigned wanted;
    unsigned running;
    struct pool_thread threads[];
};

struct walk_pool *walk_pool_new(unsigned threads)
{
    struct walk_pool *pool = calloc(1, sizeof(*pool) + threads * sizeof(struct pool_thread));

    if (!pool)
        return NULL;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pool->wanted = threads;
    return pool;
}

int walk_pool_stopped(struct walk_pool *pool)
{
    return atomic_load_explicit(&pool->stopped, memory_order_relaxed);
}

/* Keep the first outcome that ends the walk. */
static void note(struct walk_pool *pool, const struct walk_worker *worker, int result)
{
    if (result == WALK_GO_ON)
        return;
    pthread_mutex_lock(&pool->lock);
    if (pool->result == WALK_GO_ON) {
        pool->result = result;
        pool->error = worker->error;
    }
    pthread_mutex_unlock(&pool->lock);
    atomic_store(&pool->stopped, 1);
}

static int run(struct walk_pool *pool, struct walk_worker *worker, struct walk_batch *batch)
{
    int result = WALK_STOP;

    if (!walk_pool_stopped(pool))
        result = walk_run_batch(worker, batch);
    walk_release_batch(batch);
    return result;
}

/* Take the oldest batch; the lock is held. */
static struct walk_batch take(struct walk_pool *pool)
{
    struct walk_batch batch = pool->queue[pool->first];

    pool->first = (pool->first + 1) % QUEUE_SIZE;
    pool->count--;
    return batch;
}

static void *thread_main(void *argument)
{
    struct pool_thread *self = argument;
    struct walk_pool *pool = self->pool;

    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct walk_batch batch;

        pool->idle++;
        while (pool->count == 0 && !pool->closed)
            pthread_cond_wait(&pool->work, &pool->lock);
        pool->idle--;
        if (pool->count == 0)
            break;
        batch = take(pool);
        pthread_mutex_unlock(&pool->lock);
        note(pool, &self->worker, run(pool, &self->worker, &batch));
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Start one more thread. It takes no signals: they are for the threads that the process made
 * itself. Where the machine grants no thread, the walk does without it. */
static void start_thread(struct walk_pool *pool, struct walk *walk)
{
    struct pool_thread *thread = &pool->threads[pool->running];
    pthread_attr_t attributes;
    sigset_t all, before;

    thread->pool = pool;
    thread->worker.walk = walk;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread->thread, &attributes, thread_main, thread) == 0)
        pool->running++;
    else
        pool->wanted = pool->running;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
}

int walk_pool_submit(struct walk_pool *pool, struct walk_worker *worker, struct walk_batch *batch)
{
    unsigned waiting;
    int wake;

    if (pool->wanted == 0)
        return run(pool, worker, batch);
    pthread_mutex_lock(&pool->lock);
    if (pool->count == QUEUE_SIZE) {
        pthread_mutex_unlock(&pool->lock);
        return run(pool, worker, batch);
    }
    pool->queue[(pool->first + pool->count++) % QUEUE_SIZE] = *batch;
    waiting = pool->count;
    wake = pool->idle > 0;
    pthread_mutex_unlock(&pool->lock);
    if (wake)
        pthread_cond_signal(&pool->work);
    else if (pool->running < pool->wanted && waiting > 2)
        start_thread(pool, worker->walk);
    return WALK_GO_ON;
}

int walk_pool_end(struct walk_pool *pool, struct walk_worker *worker, int result,
                  struct pyrtc_error *error)
{
    note(pool, worker, result);
    pthread_mutex_lock(&pool->lock);
    while (pool->count > 0) {
        struct walk_batch batch = take(pool);
        pthread_mutex_unlock(&pool->lock);
        note(pool, worker, run(pool, worker, &batch));
        pthread_mutex_lock(&pool->lock);
    }
    pool->closed = 1;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned index = 0; index < pool->running; index++) {
        struct walk_worker *other = &pool->threads[index].worker;
        pthread_join(pool->threads[index].thread, NULL);
        worker->entries += other->entries;
        worker->bytes += other->bytes;
        worker->reflinked += other->reflinked;
        free(other->scratch);
    }
    free(worker->scratch);
    worker->scratch = NULL;
    result = pool->result;
    if (result < 0)
        *error = pool->error;
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return result;
}
