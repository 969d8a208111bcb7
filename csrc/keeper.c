/*
 * Starting a program that serves a container, pasta for example, under a keeper (init/keeper.c):
 * it is nobody's child and ends with the container, whoever is killed first.
 */
#include "pyrtc_serve.h"

#include "error.h"
#include "keeper.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define NAME "pyrtc-keeper"

static int write_block(const struct pyrtc_keep *request, struct keeper_block *block,
                       struct pyrtc_error *error)
{
    struct iovec parts[] = {
        {block, sizeof(*block)},
        {(void *)request->strings, request->strings_size},
    };
    uint64_t size = sizeof(*block) + request->strings_size;

    if (size > KEEPER_MAX_SIZE || request->string_count > KEEPER_MAX_STRINGS)
        return pyrtc_fail(error, E2BIG, "describe the program to its keeper",
                          "its arguments are too long");
    block->magic = KEEPER_MAGIC;
    block->version = KEEPER_VERSION;
    block->size = (uint32_t)size;
    return write_sealed(NAME, parts, 2, error);
}

int pyrtc_keep(const struct pyrtc_keep *request, struct pyrtc_kept *result,
               struct pyrtc_error *error)
{
    int32_t inherited[KEEPER_MAX_HELD + 8];
    int control[2], ready[2], errors[2];
    uint32_t count = 0;

    if (request->held_count > KEEPER_MAX_HELD)
        return pyrtc_fail(error, E2BIG, "start the keeper", "too many descriptors to hold");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        return pyrtc_fail(error, errno, "make the control socket", "");
    owned_fd int our_control = control[0];
    owned_fd int their_control = control[1];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return pyrtc_fail(error, errno, "make a pipe", "");
    owned_fd int our_ready = ready[0];
    owned_fd int their_ready = ready[1];
    if (pipe2(errors, O_CLOEXEC) < 0)
        return pyrtc_fail(error, errno, "make a pipe", "");
    owned_fd int our_errors = errors[0];
    owned_fd int their_errors = errors[1];
    struct keeper_block block = {
        .argument_count = request->argument_count,
        .string_count = request->string_count,
        .ready_number = request->ready_number,
        .watched_fd = request->watched_fd,
        .control_fd = their_control,
        .ready_fd = their_ready,
        .error_fd = their_errors,
        .drain_fd = our_errors,
        .held = {-1, -1, -1, -1},
    };
    if (request->held_count)
        memcpy(block.held, request->held, request->held_count * sizeof(int32_t));
    const int32_t *first = &block.watched_fd, *last = &block.held[KEEPER_MAX_HELD - 1];
    owned_fd int described = write_block(request, &block, error);
    if (described < 0)
        return -1;
    inherited[count++] = described;
    for (const int32_t *fd = first; fd <= last; fd++)
        inherited[count++] = *fd;
    if (launch_aside(NAME, HERE, request->helper_fd, described, inherited, count, error) < 0)
        return -1;
    result->control_fd = steal_fd(&our_control);
    result->ready_fd = steal_fd(&our_ready);
    result->error_fd = steal_fd(&our_errors);
    return 0;
}
