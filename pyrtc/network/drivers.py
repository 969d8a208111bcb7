"""What a user says of a new network, checked: names, drivers and their options, in Docker's words."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyrtc.errors import UsageError
from pyrtc.store.network_records import PREDEFINED, Network
from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.network.addresses import Pool

__all__ = ["DRIVERS", "MTU_OPTIONS", "WantedNetwork", "check_mtu", "check_name", "decide"]

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}"
_DEVICE = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}"  # IFNAMSIZ of <linux/if.h>, less the NUL
# What `--network` and `-p` read otherwise.
_RESERVED = (*PREDEFINED, "default", "pasta", "slirp4netns")
DRIVERS = ("bridge", "macvlan", "overlay")
MTU_OPTIONS = ("mtu", "com.docker.network.driver.mtu")
_BRIDGE_NAME = "com.docker.network.bridge.name"
_PARENT, _MODE = "parent", "macvlan_mode"
_MODES = ("bridge", "private", "vepa", "passthru")
_OPTIONS = {
    "bridge": (*MTU_OPTIONS, _BRIDGE_NAME),
    "macvlan": (*MTU_OPTIONS, _PARENT, _MODE),
}
_LOWEST_MTU, _LOWEST_MTU6, _HIGHEST_MTU = 68, 1280, 65535  # RFC 791, RFC 8200 5., the kernel's bridges
_MOST_WORDS, _LONGEST_WORD = 256, 4096  # labels, options


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedNetwork:
    """A network as a user asks for it; subnets, gateways, ranges and addresses are of either family, in any order."""

    name: str
    driver: str = "bridge"
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    auxiliary: tuple[tuple[str, str], ...] = ()
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()


def check_name(name: str) -> None:
    """Refuse a name that a new network cannot have.

    Raises
    ------
    UsageError: it breaks the rules, or means something else.
    """
    if name in _RESERVED:
        raise UsageError(f"operation is not permitted on predefined {name} network")
    if not re.fullmatch(_NAME, name):
        raise UsageError(
            f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 128 characters at most"
        )


def decide(wanted: WantedNetwork, created: float) -> Network:
    """Return a new network, with an id and without subnets.

    Raises
    ------
    UsageError: a name, a driver or an option that cannot be, or that the driver has no use for.
    """
    check_name(wanted.name)
    if wanted.driver in ("host", "null", "none"):
        raise UsageError(f"only one instance of {wanted.driver} network is allowed: it is there")
    if wanted.driver not in DRIVERS:
        raise UsageError(f"unknown network driver {wanted.driver!r}: there are {', '.join(DRIVERS)}")
    if wanted.attachable and wanted.driver != "overlay":
        raise UsageError(
            f"--attachable is for overlay networks; containers can always join one of driver {wanted.driver}"
        )
    if wanted.internal and wanted.driver == "macvlan":
        raise UsageError("--internal is not for macvlan: such a network is that of the device which it stands on")
    _check_words("label", wanted.labels)
    _check_words("option", wanted.options)
    network_id = os.urandom(32).hex()
    options = dict(wanted.options)
    known = _OPTIONS.get(wanted.driver)
    for name in options:
        if known is not None and name not in known:
            raise UsageError(f"unknown option {name} of driver {wanted.driver}: there are {', '.join(known)}")
    device = f"pyrtc-{network_id[:8]}"
    if wanted.driver == "macvlan":
        device = _parent(options)
    elif _BRIDGE_NAME in options:
        device = _device_name(_BRIDGE_NAME, options[_BRIDGE_NAME])
    return Network(
        network_id,
        wanted.name,
        wanted.driver,
        created,
        device,
        mtu=_mtu(options),
        internal=wanted.internal,
        attachable=wanted.attachable,
        labels=tuple(dict(wanted.labels).items()),
        options=tuple(options.items()),
    )


def check_mtu(network: Network, pools: "Mapping[int, Pool]") -> None:
    """Refuse an MTU that IPv6 cannot live with."""
    if 6 in pools and 0 < network.mtu < _LOWEST_MTU6:
        raise UsageError(f"invalid MTU {network.mtu}: IPv6 needs {_LOWEST_MTU6} bytes (RFC 8200)")


def _check_words(what: str, words: tuple[tuple[str, str], ...]) -> None:
    if len(words) > _MOST_WORDS:
        raise UsageError(f"more than {_MOST_WORDS} {what}s for one network")
    for name, value in words:
        if not name:
            raise UsageError(f"a {what} without a name: ={value}")
        if len(name) + len(value) > _LONGEST_WORD:
            raise UsageError(f"the {what} {name[:32]}... is longer than {_LONGEST_WORD} characters")


def _mtu(options: Mapping[str, str]) -> int:
    said = {options[name] for name in MTU_OPTIONS if name in options}
    if not said:
        return 0
    if len(said) > 1:
        raise UsageError(f"two different MTUs: {', '.join(sorted(said))}")
    word = said.pop()
    if not (word.isascii() and word.isdecimal()) or not _LOWEST_MTU <= int(word[:6]) <= _HIGHEST_MTU:
        raise UsageError(f"invalid MTU {word}: write a number from {_LOWEST_MTU} to {_HIGHEST_MTU}")
    return int(word)


def _device_name(option: str, name: str) -> str:
    if not re.fullmatch(_DEVICE, name):
        raise UsageError(f"invalid {option} {name!r}: no device can be called that")
    return name


def _parent(options: Mapping[str, str]) -> str:
    if _PARENT not in options:
        raise UsageError("a macvlan network stands on a device of the host: say which with --opt parent=DEVICE")
    mode = options.get(_MODE, "bridge")
    if mode not in _MODES:
        raise UsageError(f"unknown macvlan_mode {mode}: there are {', '.join(_MODES)}")
    return _device_name(_PARENT, options[_PARENT])
