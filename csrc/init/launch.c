/*
 * The beginning of what stays with a container and is nobody's child (monitor_start.c, keeper.c):
 * the block that tells it what to do, and the descriptors that it has of its caller.
 */
#include "init.h"

#include <linux/mman.h>

const void *launch_map(long fd, uint64_t least, uint64_t most, uint64_t *size)
{
    long end = sys_call(__NR_lseek, fd, 0, 2 /* SEEK_END */);

    if (end < (long)least || end > (long)most)
        return NULL;
    long address = sys_call(__NR_mmap, NULL, end, PROT_READ, MAP_PRIVATE, fd, 0);
    if (address < 0 && address > -4096)
        return NULL;
    *size = (uint64_t)end;
    return (const void *)address;
}

bool launch_has_strings(const char *at, const char *end, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        while (at < end && *at)
            at++;
        if (at++ == end)
            return false;
    }
    return true;
}

void launch_keep_only(const int32_t *kept, size_t count)
{
    int below = -1;

    for (;;) {
        int next = -1;
        for (size_t i = 0; i < count; i++)
            if (kept[i] > below && (next < 0 || kept[i] < next))
                next = kept[i];
        if (next < 0)
            break;
        if (next > below + 1)
            sys_call(__NR_close_range, below + 1, next - 1, 0);
        below = next;
    }
    sys_call(__NR_close_range, below + 1, ~0U, 0);
}
