/*
 * The health of a container: a command that is executed in it again and again (monitor_probe.c), and
 * what follows from how it ends. The rules are Docker's (moby, daemon/health.go).
 */
#include "monitor_health.h"

#include "init.h"

#define SLOTS_AT sizeof(struct plan_header)
#define FIRST_SLOT 3         /* the pidfd of process 1, then the tasks files */
#define PENDING (SECOND / 5) /* until a kill counts: process 1 takes all with it, and is last */
/* What was made and not reported ends when its socket does, and process 1 cannot end before it is
 * reaped. */
#define SWEEP (SECOND / 20)
#define SWEEPS 40

/* ---- what the caller says ---------------------------------------------------------------------- */

static bool is_sound(const struct monitor_health *wanted, uint32_t count)
{
    uint32_t expected = 1 + (wanted->flags & HEALTH_FROZEN_FILE ? 1 : 0) +
                        (wanted->flags & HEALTH_CGROUP ? 1 : 0) + wanted->tasks;

    return wanted->tasks <= HEALTH_MAX_TASKS && count == expected && wanted->interval &&
           wanted->timeout && wanted->start_interval && wanted->retries &&
           wanted->interval <= HEALTH_LONGEST && wanted->timeout <= HEALTH_LONGEST &&
           wanted->start_period <= HEALTH_LONGEST && wanted->start_interval <= HEALTH_LONGEST;
}

/* The plan's slots become the numbers that the descriptors have here: a probe is a copy of this
 * process that executes another program. */
static bool fill_slots(struct health *health, int container_fd)
{
    int32_t slots[1 + HEALTH_MAX_TASKS] = {container_fd};
    long size = (long)((1 + health->wanted.tasks) * sizeof(*slots));

    for (uint32_t i = 0; i < health->wanted.tasks; i++)
        slots[1 + i] = health->tasks[i];
    return sys_call(__NR_pwrite64, health->plan, slots, size,
                    SLOTS_AT + FIRST_SLOT * sizeof(*slots)) == size;
}

void health_hear(struct health *health, const struct monitor_health *wanted, const int *fds,
                 uint32_t count, int container_fd, int directory)
{
    uint32_t next = 0;

    if (health->known || !is_sound(wanted, count)) {
        for (uint32_t i = 0; i < count; i++)
            path_close(fds[i]);
        return;
    }
    health->plan = health->frozen = health->cgroup = -1;
    health->status_fd = health->output_fd = health->group_fd = -1;
    health->joiner_fd = health->process_fd = -1;
    health->due = NEVER;
    health->wanted = *wanted;
    health->directory = directory;
    health->container_fd = container_fd;
    health->plan = fds[next++];
    if (wanted->flags & HEALTH_FROZEN_FILE)
        health->frozen = fds[next++];
    if (wanted->flags & HEALTH_CGROUP)
        health->cgroup = fds[next++];
    for (uint32_t i = 0; i < wanted->tasks; i++)
        health->tasks[i] = fds[next++];
    health->known = fill_slots(health, container_fd);
}

static uint64_t next_interval(const struct health *health, uint64_t now)
{
    if (health->status == HEALTH_STARTING && now - health->steady < health->wanted.start_period)
        return health->wanted.start_interval;
    return health->wanted.interval;
}

void health_begin(struct health *health, uint64_t now)
{
    if (!health->known)
        return;
    health->steady = now;
    health->due = now + next_interval(health, now);
}

/* ---- a verdict --------------------------------------------------------------------------------- */

static void judge(struct health *health, const struct health_result *result)
{
    if (result->code == 0) {
        health->streak = 0;
        health->status = HEALTH_HEALTHY;
        return;
    }
    if (health->status == HEALTH_STARTING &&
        health->began - health->steady < health->wanted.start_period)
        return;
    if (health->streak < UINT32_MAX)
        health->streak++;
    if (health->streak >= health->wanted.retries)
        health->status = HEALTH_UNHEALTHY;
}

static struct health_result *new_result(struct health *health)
{
    if (health->count == HEALTH_RESULTS)
        health->first = (health->first + 1) % HEALTH_RESULTS;
    else
        health->count++;
    return &health->results[(health->first + health->count - 1) % HEALTH_RESULTS];
}

/* The note that is in health->note and the output that was read are the result's. */
static void conclude(struct health *health, int32_t code)
{
    struct health_result *result = new_result(health);
    enum health_status before = health->status;
    uint64_t now = clock_now(MONOTONIC);

    result->start = health->started;
    result->end = health->ended;
    result->code = code;
    result->size = health->size;
    for (size_t i = 0; i < sizeof(result->note); i++)
        result->note[i] = health->note[i];
    for (uint32_t i = 0; i < health->size; i++)
        result->output[i] = health->output[i];
    judge(health, result);
    health_write(health);
    if (health->status != before)
        health_tell(health);
    health->due = health->next = now + next_interval(health, now);
    if (health->sweeps && health->due > now + SWEEP)
        health->due = now + SWEEP;
}

/* ---- one probe --------------------------------------------------------------------------------- */

static bool is_frozen(const struct health *health)
{
    char first = '0';

    if (health->frozen < 0 || sys_call(__NR_pread64, health->frozen, &first, 1, 0) != 1)
        return false;
    return first == '1' || first == 'F'; /* cgroup.freeze; freezer.state: FROZEN, FREEZING */
}

static void begin_probe(struct health *health, uint64_t now, long container)
{
    const char *call;

    probe_reap_strays(container);
    health->sweeps = 0;
    health->started = clock_now(REALTIME);
    health->began = now;
    health->size = 0;
    health->note[0] = '\0';
    health->noted = 0;
    health->truncated = health->failed = health->timed_out = false;
    long result = probe_begin(health, &call);
    if (result < 0) {
        note_error(health, call, "", (int32_t)-result);
        health->ended = clock_now(REALTIME);
        conclude(health, -1);
        return;
    }
    health->running = true;
    health->due = now + health->wanted.timeout;
}

static int32_t code_of(int status)
{
    return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

static void finish_probe(struct health *health)
{
    int status = 0;
    bool process = health->process_fd >= 0;
    int32_t code = -1;

    probe_kill(health);
    while (probe_read(health))
        ;
    bool reaped = probe_reap(health, &status);
    if (health->timed_out) {
        health->noted = 0;
        note_timeout(health);
    } else if (health->failed || !reaped) {
        if (!health->failed)
            note(health, "the end of the health check is not known");
    } else if (process) {
        code = code_of(status);
    } else {
        note(health, "the health check did not come into the container: pyrtc-init ended with ");
        note_number(health, (uint64_t)code_of(status));
    }
    probe_close(health);
    health->ended = clock_now(REALTIME);
    health->sweeps = process ? 0 : SWEEPS;
    if (process && code == 128 + SIGNAL_KILL) { /* it may be the container that ends */
        health->pending = true;
        health->due = clock_now(MONOTONIC) + PENDING;
    } else {
        conclude(health, code);
    }
}

/* ---- the monitor's turns ----------------------------------------------------------------------- */

void health_gather(const struct health *health, struct pollfd entries[HEALTH_ENTRIES])
{
    int waited = health->joiner_fd >= 0 ? health->joiner_fd : health->process_fd;

    entries[0] = (struct pollfd){health->running ? health->status_fd : -1, POLLIN, 0};
    entries[1] = (struct pollfd){health->running ? waited : -1, POLLIN, 0};
    entries[2] = (struct pollfd){health->running ? health->output_fd : -1, POLLIN, 0};
}

void health_serve(struct health *health, const struct pollfd entries[HEALTH_ENTRIES], uint64_t now,
                  long container)
{
    if (!health->running) {
        if (now < health->due)
            return;
        if (health->pending) {
            health->pending = false;
            conclude(health, 128 + SIGNAL_KILL);
        } else if (health->sweeps && now < health->next) {
            probe_reap_strays(container);
            health->sweeps--;
            health->due = health->sweeps && now + SWEEP < health->next ? now + SWEEP : health->next;
        } else if (is_frozen(health))
            health->due = health->next = now + next_interval(health, now);
        else
            begin_probe(health, now, container);
        return;
    }
    if (entries[2].fd >= 0 && entries[2].revents)
        probe_read(health);
    if (entries[0].fd >= 0 && entries[0].revents)
        probe_hear(health);
    if (entries[1].fd >= 0 && entries[1].revents) {
        while (probe_hear(health))
            ;
        if (health->joiner_fd < 0 || health->process_fd < 0) {
            finish_probe(health);
            return;
        }
        probe_let_go(health);
    }
    if (now < health->due)
        return;
    if (is_frozen(health)) {
        health->due = now + health->wanted.timeout;
        return;
    }
    health->timed_out = true;
    health->due = NEVER;
    probe_kill(health);
}

void health_end(struct health *health)
{
    if (health->running) {
        probe_kill(health);
        probe_close(health);
    }
    health->known = health->pending = false;
    health->due = NEVER;
}
