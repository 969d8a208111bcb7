/*
 * A child that borrows this memory enters the namespaces, works there with raw system calls, and
 * is gone. No thread of the caller ever changes a namespace: a process of many threads and event
 * loops notices nothing.
 */
#include "place.h"

#include "borrow.h"
#include "sys.h"

#include <errno.h>
#include <linux/sched.h>

struct errand {
    struct place place;
    long (*work)(void *argument);
    void *argument;
    const char **step;
    long result;
};

/* The user namespace first: it gives the rights over its network namespaces. */
long enter_place(struct place place, const char **step)
{
    long result = 0;

    if (place.userns_fd >= 0) {
        *step = "enter the user namespace";
        result = sys_call(__NR_setns, place.userns_fd, CLONE_NEWUSER);
    }
    if (result >= 0 && place.netns_fd >= 0) {
        *step = "enter the network namespace";
        result = sys_call(__NR_setns, place.netns_fd, CLONE_NEWNET);
    }
    return result;
}

static void errand_child(void *argument)
{
    struct errand *errand = argument;

    errand->result = enter_place(errand->place, errand->step);
    if (errand->result >= 0)
        errand->result = errand->work(errand->argument);
    for (;;)
        sys_call(__NR_exit, 0);
}

long work_at(struct place place, long (*work)(void *argument), void *argument, const char **step)
{
    struct errand errand = {
        .place = place, .work = work, .argument = argument, .step = step, .result = -EIO};
    int32_t pidfd;

    *step = "start a process that works in another namespace (clone3)";
    long pid = borrow(CLONE_FILES, -1, errand_child, &errand, &pidfd);
    if (pid < 0)
        return pid;
    borrow_end(pidfd);
    return errand.result;
}
