"""Kernel settings that let packets pass between containers and the rest of the world, in this thread's namespace."""

import os
from typing import Final

from pyrtc.errors import NetworkError, reason

__all__ = ["devices", "is_on", "let_in_local", "turn_off", "turn_on", "unforwarding"]

_SETTINGS = "/proc/sys/net"
_SWITCH: Final = {4: "ipv4/conf/all/forwarding", 6: "ipv6/conf/all/forwarding"}
_NO_DEVICES = ("all", "default", "lo")


def devices(family: int) -> list[str]:
    """Return the names of the network devices that have settings for a family, 4 or 6: none without that family."""
    try:
        names = os.listdir(f"{_SETTINGS}/ipv{family}/conf")
    except FileNotFoundError:
        return []
    return sorted(name for name in names if name not in _NO_DEVICES)


def is_on(family: int) -> bool:
    """Say whether this host forwards packets of a family."""
    try:
        return _read(_SWITCH[family]) != "0"
    except FileNotFoundError as error:
        raise NetworkError(f"this kernel has no IPv{family}: {error.filename} is missing") from None


def unforwarding(family: int) -> list[str]:
    """Return the devices whose packets are not forwarded now."""
    return [name for name in devices(family) if _read(f"ipv{family}/conf/{name}/forwarding") == "0"]


def turn_on(family: int) -> None:
    """Let this host forward packets of a family.

    A host that forwards IPv6 takes its own routes from routers' advertisements no more, unless it is told to: so it
    is, wherever it did.
    """
    if family == 6:
        for name in ("default", *devices(6)):
            setting = f"ipv6/conf/{name}/accept_ra"
            if _read(setting) == "1":
                _write(setting, "2")
    _write(_SWITCH[family], "1")


def turn_off(family: int) -> None:
    """Let this host forward nothing of a family, as it did before `turn_on`."""
    _write(_SWITCH[family], "0")


def let_in_local(device: str) -> None:
    """Let answers to packets that went from 127.0.0.1 to a container come back through its bridge."""
    setting = f"ipv4/conf/{device}/route_localnet"
    if _read(setting) != "1":
        _write(setting, "1")


def _read(setting: str) -> str:
    with open(f"{_SETTINGS}/{setting}") as file:
        return file.read().strip()


def _write(setting: str, value: str) -> None:
    try:
        with open(f"{_SETTINGS}/{setting}", "w") as file:
            file.write(value)
    except OSError as error:
        name = f"net.{setting.replace('/', '.')}"
        raise NetworkError(
            f"cannot set {name} to {value}, which a network of containers needs: {reason(error.errno or 0)}; have root "
            f"of this machine do it: sysctl -w {name}={value}"
        ) from None
