"""Starting the attendant of a container: what its network needs and the kernel does not do."""

from collections.abc import Sequence

from pyrtc._core import ffi, lib
from pyrtc.core.error import check
from pyrtc.errors import StartError
from pyrtc.values import dataclass

__all__ = ["Proxy", "start_attendant"]


@dataclass(frozen=True, slots=True)
class Proxy:
    """A socket whose connections or datagrams go to the container.

    listen_fd is a TCP socket that listens or a bound UDP socket; address is 4 or 16 bytes, port the container's.
    """

    listen_fd: int
    address: bytes
    port: int
    datagrams: bool = False


def start_attendant(
    program_fd: int,
    container_fd: int,
    *,
    datagram_fd: int = -1,
    listen_fd: int = -1,
    directory_fd: int = -1,
    names_fd: int = -1,
    door_fds: tuple[int, int] = (-1, -1),
    proxies: Sequence[Proxy] = (),
    held: Sequence[int] = (),
    netns_fd: int = -1,
    userns_fd: int = -1,
) -> tuple[int, int]:
    """Start the attendant (see csrc/attendant/) and return its pid and pidfd when it serves.

    Parameters
    ----------
    program_fd: pyrtc-attendant, open for reading. container_fd: the container's pidfd; the attendant ends with it.
    datagram_fd, listen_fd: UDP and TCP socket of the name server. directory_fd, names_fd: of the file ``dns``, and of
        the networks' directories. door_fds: marked UDP sockets of IPv4 and IPv6, for addresses that the container may
        connect to once they are known; see csrc/attendant/allowed.c. held: sockets that it keeps open. Everything stays
        open here, too.
    netns_fd, userns_fd: where it is, and connects and asks from; -1: where this thread is.

    Raises
    ------
    StartError: the kernel refuses a process, or the attendant what it was given.
    """
    error, pid = ffi.new("struct pyrtc_error *"), ffi.new("int32_t *")
    proxy_array, held_array = ffi.new("struct pyrtc_proxy[]", len(proxies)), ffi.new("int32_t[]", list(held))
    for index, proxy in enumerate(proxies):
        entry = proxy_array[index]
        entry.listen_fd, entry.port, entry.datagrams = proxy.listen_fd, proxy.port, proxy.datagrams
        entry.family = 4 if len(proxy.address) == 4 else 6
        ffi.buffer(entry.address)[: len(proxy.address)] = proxy.address
    request = ffi.new(
        "struct pyrtc_attend *",
        {
            "program_fd": program_fd,
            "container_fd": container_fd,
            "datagram_fd": datagram_fd,
            "listen_fd": listen_fd,
            "directory_fd": directory_fd,
            "names_fd": names_fd,
            "door4_fd": door_fds[0],
            "door6_fd": door_fds[1],
            "userns_fd": userns_fd,
            "netns_fd": netns_fd,
            "proxies": proxy_array,
            "proxy_count": len(proxies),
            "held_count": len(held),
            "held": held_array,
        },
    )
    pidfd = check(lib.pyrtc_start_attendant(request, pid, error), error, StartError)
    return pid[0], pidfd
