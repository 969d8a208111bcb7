"""pasta (passt.top): the network of an ordinary user's container, as sockets of a program of that user.

The container gets the addresses and routes of the host. What it sends pasta sends with sockets of its own; published
ports are listened to by pasta, and the container sees the client's address. Written for the pasta of Debian 12 (March
2023): every option below is in it and in those that followed.
"""

import os
import re
from collections.abc import Sequence
from functools import lru_cache

from pyrtc.errors import UnsupportedError
from pyrtc.options import Port

__all__ = ["FORWARDED_DNS", "HOST", "READY", "SILENT", "SYSCTLS", "arguments", "can_map_host", "hint", "is_silent"]

READY = 1  # the descriptor of its pid file: newer ones close everything above 2 when they start
# What a container asks where the host's resolvers cannot be reached from another network namespace: link-local, so
# nobody's on any route.
FORWARDED_DNS = "169.254.1.1"
HOST = "169.254.1.2"  # what the container calls the host by, whose address it has itself
# What the container may have on its way to pasta. With more than pasta's own sockets take (tcp_wmem of the host) pasta
# drops segments, and an upload of gigabits a second becomes one of megabits or less. That way takes a tenth of a
# millisecond, so this is no limit of its own.
SYSCTLS = (("net.ipv4.tcp_wmem", "4096 16384 262144"),)
SILENT = (
    "this pasta tells the container of a connection to a published port only when the client has said something, so "
    "that ssh, SMTP and databases do not answer other machines: install a newer passt, or slirp4netns"
)
_SPEAKS_SINCE = 20230321  # as a version is written: 2023_03_21.1ee2f7c, 0.0~git20250503.587980c
_PATIENCE = 10.0  # seconds for it to tell of itself
_NEWER = b"--map-host-loopback"  # an option, for those who do not know their version, as that of Debian 12


def arguments(
    program: str, pid: int, ports: Sequence[Port], *, forward_dns: bool, map_host: bool = False, mac: str = ""
) -> list[str]:
    """Return the command that serves the network of process pid.

    Parameters
    ----------
    ports: with numbers chosen. forward_dns: `FORWARDED_DNS` leads to the host's resolver. map_host: `HOST` leads to the
        host. mac: of the container's device, "" for a random one.

    Raises
    ------
    UnsupportedError: pasta has no words for these ports.
    """
    words = [
        program,
        "--config-net",
        "--foreground",
        "--quiet",
        "--ns-ifname",
        "eth0",
        "--pid",
        f"/proc/self/fd/{READY}",
    ]
    # Without these the container would reach what listens on the host's loopback, through the address of its gateway
    # and through its own loopback; and it configures itself, by nobody's word but pasta's.
    words += ["--no-map-gw", "-T", "none", "-U", "none", "--no-dhcp", "--no-dhcpv6", "--no-ra"]
    # Its keeper knows better, and newer ones may not look where the container's first process is another id's.
    words.append("--no-netns-quit")
    if forward_dns:
        words += ["--dns-forward", FORWARDED_DNS]
    if map_host:
        words += ["--map-guest-addr", HOST]
    if mac:
        words += ["--ns-mac-addr", mac]
    _check(ports)
    for protocol, option in (("tcp", "-t"), ("udp", "-u")):
        said = [_spec(port) for port in ports if port.protocol == protocol]
        for spec in said or ["none"]:
            words += [option, spec]
    return [*words, "--userns", f"/proc/{pid}/ns/user", "--netns", f"/proc/{pid}/ns/net"]


def _spec(port: Port) -> str:
    return f"{port.ip}/{port.host}:{port.container}" if port.ip else f"{port.host}:{port.container}"


def _check(ports: Sequence[Port]) -> None:
    """Pasta keeps one target for each port of the host, whatever the address."""
    targets: dict[tuple[str, int], int] = {}
    for port in ports:
        if targets.setdefault((port.protocol, port.host), port.container) != port.container:
            raise UnsupportedError(
                f"pasta cannot lead port {port.host}/{port.protocol} of two addresses to two ports of the container: "
                "publish different ports of the host"
            )


def is_silent(program: str) -> bool:
    """Whether this pasta leaves a published port's connection half open until the client sends data."""
    version = re.search(rb"(20\d\d)_?(\d\d)_?(\d\d)", _says(program, "--version"))
    if version is not None:
        return int(b"".join(version.groups())) < _SPEAKS_SINCE
    return _NEWER not in _says(program, "--help")


def can_map_host(program: str) -> bool:
    """Whether this pasta can give the host an address in the container (2024_08_21)."""
    return b"--map-guest-addr" in _says(program, "--help")


def _says(program: str, option: str) -> bytes:
    try:
        changed = os.stat(program).st_mtime_ns
    except OSError:
        return b""  # starting it will say why
    return _ask(program, option, changed)


@lru_cache(maxsize=8)
def _ask(program: str, option: str, _changed: int) -> bytes:
    import subprocess

    try:
        done = subprocess.run(
            [program, option], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""  # starting it will say why
    return done.stdout + done.stderr


def hint(said: str) -> str:
    """Return what to do about an error of pasta's, "" where nobody knows."""
    if "nrecognized option" in said or "nvalid option" in said:
        return ": this pasta is too old; the one of Debian 12 (passt 0.0~git20230309) or newer is needed"
    if "routable interface" in said or "nterface not usable" in said:
        return ": the host has no default route, and this pasta needs one; use --network slirp4netns, or none"
    return ""
