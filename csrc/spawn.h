/*
 * What starting a container and starting a monitor share: the plan's memfd, and the child that
 * executes pyrtc-init.
 */
#ifndef PYRTC_SPAWN_H
#define PYRTC_SPAWN_H

#include "pyrtc.h"

#include <stdbool.h>

/* What the child needs to reach exec, prepared before the clone; the child writes only exec_error.
 */
struct launch {
    const int32_t *inherited;
    uint32_t inherited_count;
    int32_t helper_fd;
    char *const *arguments;
    bool keep_capabilities;
    long exec_error;
};

/* Entry for borrow(): argument is a struct launch. */
void launch_child(void *argument);

/* Return a memfd with the plan: header, slot table with the real descriptor numbers, operations. */
int write_plan(const struct pyrtc_spawn *request, struct pyrtc_error *error);

/* Return a memfd with these bytes. */
struct iovec;
int write_memfd(const char *name, const struct iovec *parts, int count, uint64_t size,
                struct pyrtc_error *error);

#endif
