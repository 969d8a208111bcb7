"""slirp4netns: where pasta is missing, a TCP/IP stack in a program of the user, behind which the container is hidden.

Ports are published through a socket on which it takes orders in JSON. libslirp keeps the client's address, but for
clients on the host's loopback, which the container sees as 10.0.2.2.
"""

import json
from collections.abc import Sequence

from pyrtc.errors import StartError, UnsupportedError
from pyrtc.options import Port
from pyrtc.values import replace

__all__ = ["ADDRESS", "DNS", "READY", "SYSCTLS", "arguments", "heard", "publish"]

READY = 3
DNS = "10.0.2.3"  # it forwards to the host's resolver, wherever that listens
ADDRESS = "10.0.2.100"
SYSCTLS = (("net.ipv4.tcp_wmem", "4096 16384 1048576"),)  # with less to sort out libslirp is two or three times as fast
_EVERY = "0.0.0.0"  # noqa: S104  (what publishing without an address means)
_PATIENCE = 30.0  # seconds for an answer


def arguments(program: str, pid: int, socket_path: str, mac: str = "") -> list[str]:
    """Return the command that serves the network of process pid.

    Parameters
    ----------
    socket_path: where it takes orders, "" for nowhere. mac: of the container's device, "" for a random one.
    """
    words = [program, "--configure", "--mtu=65520", f"--ready-fd={READY}", "--enable-ipv6", "--disable-host-loopback"]
    words += ["--enable-sandbox", "--enable-seccomp"]
    if socket_path:
        words.append(f"--api-socket={socket_path}")
    if mac:
        words.append(f"--macaddress={mac}")
    # By its id, and not by paths: with those the sandbox is made outside of the user namespace, and refused (1.2.0).
    return [*words, str(pid), "eth0"]


def heard(ports: Sequence[Port]) -> tuple[Port, ...]:
    """Return the ports as slirp4netns listens to them: of all addresses, those of IPv4.

    Raises
    ------
    UnsupportedError: a port of an IPv6 address.
    """
    for port in ports:
        if ":" in port.ip:
            raise UnsupportedError(
                f"slirp4netns publishes ports of IPv4 addresses only, not of {port.ip}: install pasta, apt-get install "
                "passt"
            )
    return tuple(port if port.ip else replace(port, ip=_EVERY) for port in ports)


def publish(socket_path: str, ports: Sequence[Port]) -> None:
    """Have it listen on the host's ports, as `heard` returned them; each order is a connection of its own.

    Raises
    ------
    StartError: it refuses one.
    """
    import socket

    for port in ports:
        order = {
            "execute": "add_hostfwd",
            "arguments": {
                "proto": port.protocol,
                "host_addr": port.ip,
                "host_port": port.host,
                "guest_addr": ADDRESS,
                "guest_port": port.container,
            },
        }
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(_PATIENCE)
            try:
                asked.connect(socket_path)
                asked.sendall(json.dumps(order).encode())
                asked.shutdown(socket.SHUT_WR)
                said = asked.recv(4096)
            except OSError as error:
                raise StartError(f"cannot speak with slirp4netns: {error.strerror or error}", step="network") from None
        _check_answer(said, port)


def _check_answer(said: bytes, port: Port) -> None:
    try:
        answer = json.loads(said)
    except ValueError:
        answer = {"error": {"desc": said.decode(errors="replace") or "no answer"}}
    if isinstance(answer, dict) and "return" in answer:
        return
    error = answer.get("error") if isinstance(answer, dict) else answer
    words = error.get("desc", error) if isinstance(error, dict) else error
    raise StartError(f"cannot publish port {port.host}/{port.protocol}: slirp4netns: {words}", step="network")
