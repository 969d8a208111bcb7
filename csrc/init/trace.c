/*
 * When each operation of a plan began, for who asks where the time of a start goes. The times are
 * in a memfd of the caller's, which the command does not see: the mapping ends with exec.
 */
#include "init.h"

#include <errno.h>
#include <linux/mman.h>
#include <linux/time.h>

long set_trace(struct state *state, const struct plan_op *op)
{
    uint64_t size = state->plan.header->op_count * sizeof(*state->trace);

    state->call = "map the trace";
    if (op->slot < 0)
        return -EINVAL;
    int fd = state->plan.slots[op->slot];
    /* Writing beyond the end of the file would kill this process. */
    if (sys_call(__NR_lseek, fd, 0, 2 /* SEEK_END */) < (long)size)
        return -EINVAL;
    long address = sys_call(__NR_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (address < 0 && address > -4096)
        return address;
    state->trace = (uint64_t *)address;
    return 0;
}

void trace_operation(struct state *state)
{
    struct {
        int64_t seconds, nanoseconds;
    } now;

    sys_call(__NR_clock_gettime, CLOCK_MONOTONIC, &now);
    state->trace[state->op] = (uint64_t)now.seconds * 1000000000 + (uint64_t)now.nanoseconds;
}
