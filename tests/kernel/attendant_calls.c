/*
 * One call of the kernel under the attendant's filter: `attendant_calls NAME FILE`. Exits with 0 when the kernel was
 * asked, whatever it answered; a filter that forbids the call kills it.
 */
#include "../../csrc/attendant/parts.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <sys/socket.h>

static void call(const char *name, const char *file)
{
    if (text_equal(name, "open"))
        sys_call(__NR_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
    if (text_equal(name, "open-write"))
        sys_call(__NR_openat, AT_FDCWD, file, O_WRONLY, 0);
    if (text_equal(name, "open-create"))
        sys_call(__NR_openat, AT_FDCWD, file, O_RDONLY | O_CREAT, 0600);
    if (text_equal(name, "open-truncate"))
        sys_call(__NR_openat, AT_FDCWD, file, O_RDONLY | O_TRUNC, 0);
    if (text_equal(name, "map"))
        sys_call(__NR_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (text_equal(name, "map-execute"))
        sys_call(__NR_mmap, NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (text_equal(name, "socket"))
        sys_call(__NR_socket, AF_INET, SOCK_DGRAM, 0);
    if (text_equal(name, "socket-6"))
        sys_call(__NR_socket, AF_INET6, SOCK_STREAM, 0);
    if (text_equal(name, "socket-unix"))
        sys_call(__NR_socket, AF_UNIX, SOCK_STREAM, 0);
    if (text_equal(name, "socket-netlink"))
        sys_call(__NR_socket, AF_NETLINK, SOCK_RAW, 0);
    if (text_equal(name, "write"))
        sys_call(__NR_write, 2, "x", 1);
    if (text_equal(name, "kill"))
        sys_call(__NR_kill, 0, 0);
    if (text_equal(name, "execute"))
        sys_call(__NR_execve, file, NULL, NULL);
    if (text_equal(name, "take"))
        sys_call(__NR_pidfd_getfd, 0, 0, 0);
}

int main(int count, char **arguments)
{
    if (count != 3 || restrict_calls() < 0)
        leave(1);
    call(arguments[1], arguments[2]);
    leave(0);
}
