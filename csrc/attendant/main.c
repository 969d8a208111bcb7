/*
 * The beginning of an attendant: the block is checked, everything of the caller's left behind, every
 * capability dropped, and the caller told that the container is attended.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define SIGNAL_CHILD 17
#define MAX_DESCRIPTOR (1 << 20)
#define MAX_BLOCK                                                                                  \
    (sizeof(struct attendant_block) + ATTENDANT_MAX_PROXIES * sizeof(struct attendant_proxy) +     \
     ATTENDANT_MAX_HELD * sizeof(int32_t))

static struct attendant attendant; /* zeroed pages take no memory until they are used */

struct described {
    struct attendant_block *block;
    struct attendant_proxy *proxies;
    int32_t *held;
    uint64_t size;
};

static bool map_block(long fd, struct described *described)
{
    long size = sys_call(__NR_lseek, fd, 0, 2 /* SEEK_END */);

    if (size < (long)sizeof(struct attendant_block) || size > (long)MAX_BLOCK)
        return false;
    long address = sys_call(__NR_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (address < 0 && address > -4096)
        return false;
    struct attendant_block *block = (void *)address;
    if (block->magic != ATTENDANT_MAGIC || block->version != ATTENDANT_VERSION ||
        block->proxy_count > ATTENDANT_MAX_PROXIES || block->held_count > ATTENDANT_MAX_HELD ||
        (uint64_t)size != sizeof(*block) + block->proxy_count * sizeof(struct attendant_proxy) +
                              block->held_count * sizeof(int32_t))
        return false;
    described->block = block;
    described->size = (uint64_t)size;
    described->proxies = (struct attendant_proxy *)(block + 1);
    described->held = (int32_t *)(described->proxies + block->proxy_count);
    return true;
}

static long tell(int control, const struct attendant_started *started, int self)
{
    struct iovec part = {(void *)started, sizeof(*started)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control_data = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (self >= 0) {
        message.msg_control = control_data.bytes;
        message.msg_controllen = sizeof(control_data.bytes);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        *(int *)CMSG_DATA(rights) = self;
    }
    return sys_call(__NR_sendmsg, control, &message, MSG_NOSIGNAL);
}

__attribute__((noreturn)) static void refuse(int control, long code, const char *call)
{
    struct attendant_started started = {.code = (int32_t)-code};
    size_t used = 0;

    text_append(started.call, sizeof(started.call), &used, call);
    tell(control, &started, -1);
    leave(125);
}

/* ---- descriptors */

static uint64_t kept[MAX_DESCRIPTOR / 64] __attribute__((aligned(PAGE)));

/* Out of the way of 0, 1 and 2. */
static long keep(int32_t *fd)
{
    if (*fd < 0)
        return 0;
    long moved = *fd < 3 ? sys_call(__NR_fcntl, *fd, F_DUPFD_CLOEXEC, 3) : *fd;
    if (moved < 0)
        return moved;
    if (moved >= MAX_DESCRIPTOR)
        return -EMFILE;
    *fd = (int32_t)moved;
    kept[moved / 64] |= 1ULL << moved % 64;
    return 0;
}

/* All that the caller had open, and did not mean to be had by others. */
static void close_others(void)
{
    int begin = 0;

    for (int i = 0; i < MAX_DESCRIPTOR / 64; i++)
        for (uint64_t left = kept[i]; left; left &= left - 1) {
            int fd = i * 64 + __builtin_ctzll(left);
            if (fd > begin)
                sys_call(__NR_close_range, begin, fd - 1, 0);
            begin = fd + 1;
        }
    sys_call(__NR_close_range, begin, ~0U, 0);
    sys_call(__NR_madvise, kept, sizeof(kept), MADV_DONTNEED);
}

static long leave_caller(struct described *described)
{
    struct attendant_block *block = described->block;
    int32_t *const own[] = {&block->control_fd,  &block->container_fd, &block->datagram_fd,
                            &block->listen_fd,   &block->directory_fd, &block->names_fd,
                            &block->door_fds[0], &block->door_fds[1]};
    long result = 0;

    for (size_t i = 0; i < sizeof(own) / sizeof(*own) && result >= 0; i++)
        result = keep(own[i]);
    for (uint32_t i = 0; i < block->proxy_count && result >= 0; i++)
        result = keep(&described->proxies[i].listen_fd);
    for (uint32_t i = 0; i < block->held_count && result >= 0; i++)
        result = keep(&described->held[i]);
    if (result < 0)
        return result;
    close_others();
    long null = sys_call(__NR_openat, AT_FDCWD, "/dev/null", O_RDWR, 0);
    if (null < 0)
        return null;
    for (int fd = 0; fd < 3; fd++)
        if (null != fd)
            sys_call(__NR_dup3, null, fd, 0);
    if (null > 2)
        path_close(null);
    sys_call(__NR_chdir, "/");
    return 0;
}

/* ---- rights */

static long drop_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}, {0}};

    sys_call(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    return sys_call(__NR_capset, &header, none);
}

static void raise_descriptor_limit(void)
{
    struct rlimit64 limit;

    if (sys_call(__NR_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        sys_call(__NR_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
    }
}

/* ---- what is served */

static long prepare(struct attendant *it, const struct described *described)
{
    const struct attendant_block *block = described->block;

    /* One by one: what is not written takes no memory. */
    it->container = block->container_fd;
    it->datagram = block->datagram_fd;
    it->names.directory = block->directory_fd;
    it->names.networks_directory = block->names_fd;
    it->doors = (struct doors){{block->door_fds[0], block->door_fds[1]}};
    it->epoll = (int)sys_call(__NR_epoll_create1, O_CLOEXEC);
    if (it->epoll < 0)
        return it->epoll;
    it->forward.epoll = it->streams.epoll = it->proxies.epoll = it->epoll;
    it->forward.datagram = it->datagram;
    it->forward.names = it->streams.names = &it->names;
    it->forward.doors = it->streams.doors = &it->doors;
    it->forward.due = it->streams.due = NEVER;
    it->streams.listener = block->listen_fd;
    it->proxies.pairs_due = it->proxies.sessions_due = NEVER;
    it->proxies.count = block->proxy_count;
    it->proxies.all = described->proxies;
    long result = watch(it->epoll, it->container, EPOLLIN, event_of(PART_CONTAINER, 0, 0));
    if (result >= 0 && it->datagram >= 0)
        result = watch(it->epoll, it->datagram, EPOLLIN, event_of(PART_DATAGRAM, 0, 0));
    if (result >= 0 && block->listen_fd >= 0)
        result = watch(it->epoll, block->listen_fd, EPOLLIN, event_of(PART_LISTENER, 0, 0));
    for (uint32_t i = 0; i < block->proxy_count && result >= 0; i++) {
        if (described->proxies[i].datagrams)
            session_prepare(described->proxies[i].listen_fd);
        result =
            watch(it->epoll, described->proxies[i].listen_fd, EPOLLIN, event_of(PART_PROXY, i, 0));
    }
    return result;
}

__attribute__((noreturn)) static void begin(struct described *described)
{
    struct attendant_started started = {.pid = (int32_t)sys_call(__NR_getpid, 0)};
    int32_t *control = &described->block->control_fd;

    long result = leave_caller(described);
    if (result < 0)
        refuse(*control, result, "leave the caller");
    raise_descriptor_limit();
    result = prepare(&attendant, described);
    if (result < 0)
        refuse(*control, result, "watch the container and its sockets");
    long self = sys_call(__NR_pidfd_open, started.pid, 0);
    if (self < 0)
        refuse(*control, self, "open its own pidfd");
    sys_call(__NR_prctl, PR_SET_NAME, "pyrtc-attendant", 0, 0, 0);
    /* Its descriptors and memory are nobody's business, the container's least of all. */
    sys_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    result = drop_capabilities();
    if (result < 0)
        refuse(*control, result, "drop capabilities");
    result = restrict_calls();
    if (result < 0)
        refuse(*control, result, "restrict system calls (seccomp)");
    tell(*control, &started, (int)self);
    path_close(self);
    close_fd(control);
    attend(&attendant);
}

/* The launcher is the caller's child and ends at once, so that the attendant is nobody's, as a
 * monitor is. Signals are blocked since the caller cloned, and stay so. */
__attribute__((noreturn)) static void launch(long block_fd)
{
    struct clone_args arguments = {.exit_signal = SIGNAL_CHILD};
    struct described described;

    if (!map_block(block_fd, &described))
        leave(125);
    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid < 0)
        refuse(described.block->control_fd, pid, "start the attendant (clone3)");
    if (pid)
        leave(0);
    sys_call(__NR_setsid, 0);
    begin(&described);
}

__attribute__((noreturn, used)) void start(long *stack);
void start(long *stack)
{
    char **arguments = (char **)(stack + 1);

    if (stack[0] == 2)
        launch(text_number(arguments[1]));
    leave(125);
}

ENTRY_POINT(start)
