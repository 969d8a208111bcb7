"""The default route in the network namespace of a container that runs, over raw netlink.

pyroute2 would enter the namespace in a child of the caller; a socket that was opened there needs nobody to go.
"""

import errno
import socket
import struct

from pyrtc.core.network import open_in
from pyrtc.errors import NetworkError, reason
from pyrtc.ip import number

__all__ = ["add_default_route"]

# <linux/rtnetlink.h>, <linux/netlink.h>, <linux/sockios.h>
_RTM_NEWROUTE, _NLMSG_ERROR = 24, 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_RT_TABLE_MAIN, _RTPROT_BOOT, _RTN_UNICAST = 254, 3, 1
_RTA_OIF, _RTA_GATEWAY = 4, 5
_SIOCGIFINDEX = 0x8933
_PATIENCE = 5.0  # seconds for an answer of the kernel


def add_default_route(netns_fd: int, device: str, gateway: str, userns_fd: int = -1) -> None:
    """Have everything that goes outside go over a device, unless there is a default route of the gateway's family.

    A container with NET_ADMIN that has given its device another name cares for its routes itself. userns_fd: who may
    enter the namespace; -1: this process.

    Raises
    ------
    NetworkError: the kernel refuses.
    """
    index = _index(netns_fd, device, userns_fd)
    if not index:
        return
    family, value = number(gateway)
    address = value.to_bytes(4 if family == 4 else 16)
    af = socket.AF_INET if family == 4 else socket.AF_INET6
    payload = struct.pack("=BBBBBBBBI", af, 0, 0, 0, _RT_TABLE_MAIN, _RTPROT_BOOT, 0, _RTN_UNICAST, 0)
    payload += _attribute(_RTA_GATEWAY, address) + _attribute(_RTA_OIF, struct.pack("=I", index))
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_EXCL | _NLM_F_CREATE
    message = struct.pack("=IHHII", 16 + len(payload), _RTM_NEWROUTE, flags, 1, 0) + payload
    with socket.socket(fileno=open_in(netns_fd, socket.AF_NETLINK, socket.SOCK_RAW, userns_fd=userns_fd)) as kernel:
        kernel.settimeout(_PATIENCE)
        kernel.send(message)
        code = _answer(kernel)
    if code not in (0, errno.EEXIST):
        raise NetworkError(f"cannot set the default route to {gateway} over {device}: {reason(code)}")


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value


def _index(netns_fd: int, device: str, userns_fd: int) -> int:
    """Return the index of a device, 0 where there is none of this name."""
    import fcntl

    made = open_in(netns_fd, socket.AF_INET, socket.SOCK_DGRAM, userns_fd=userns_fd)
    with socket.socket(fileno=made) as any_socket:
        request = struct.pack("=16si12x", device.encode(), 0)
        try:
            answer = fcntl.ioctl(any_socket.fileno(), _SIOCGIFINDEX, request)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return 0
            raise NetworkError(f"cannot look for device {device}: {reason(error.errno or 0)}") from error
    index: int = struct.unpack("=16si12x", answer)[1]
    return index


def _answer(kernel: socket.socket) -> int:
    """Return the errno of the kernel's answer, 0 for success."""
    try:
        raw = kernel.recv(8192)
    except TimeoutError:
        raise NetworkError("the kernel does not answer about a route") from None
    kind = struct.unpack_from("=IHHII", raw)[1]
    if kind != _NLMSG_ERROR:
        raise NetworkError(f"the kernel answers about a route with a message of type {kind}")
    code: int = struct.unpack_from("=i", raw, 16)[0]
    return -code
