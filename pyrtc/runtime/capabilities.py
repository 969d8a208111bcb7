"""Which capabilities a container's processes may ever have: names in, a bit mask out.

Numbers are those of linux/capability.h, the default set is Docker's (moby daemon/pkg/oci/caps/defaults.go).
"""

from collections.abc import Iterable
from functools import cache

from pyrtc.errors import UnsupportedError, UsageError

__all__ = ["DEFAULT", "NAMES", "names_of", "own_bounding_set", "resolve"]

#: The name of capability number N is NAMES[N].
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)

#: What a container has unless it is told otherwise.
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

_NUMBERS = {name: number for number, name in enumerate(NAMES)}


def resolve(
    add: Iterable[str] = (),
    drop: Iterable[str] = (),
    *,
    privileged: bool = False,
    last_cap: int | None = None,
    own: int | None = None,
    user_namespace: bool = False,
) -> int:
    """Return the bounding set of a container as a bit mask.

    The meaning is Docker's: what is dropped leaves the default set, then what is added joins it. With ALL added,
    everything but what is dropped remains; with ALL dropped, only what is added. The default set and ALL mean what this
    kernel knows and the caller can pass on. Unlike Docker's, `privileged` (which adds ALL) does not ignore what is
    dropped.

    Parameters
    ----------
    add, drop: names in any case, with or without CAP_, or ALL.
    last_cap: the highest number that the kernel knows; default: /proc/sys/kernel/cap_last_cap.
    own: what the caller can pass on; default: its own bounding set.
    user_namespace: the container gets a user namespace of its own, in which the kernel grants all capabilities anew, so
        the caller's bounding set is no limit.

    Raises
    ------
    UsageError: no capability has this name.
    UnsupportedError: an added one that this kernel does not know, or that the caller itself cannot have.
    """
    known = (1 << ((_last_cap() if last_cap is None else last_cap) + 1)) - 1 & (1 << len(NAMES)) - 1
    bounding = known if user_namespace else known & (own_bounding_set() if own is None else own)
    added, add_all = _parse(add)
    dropped, drop_all = _parse(drop)
    for number, name in enumerate(NAMES):
        if not added >> number & 1 or bounding >> number & 1:
            continue
        if not known >> number & 1:
            raise UnsupportedError(f"cannot add {name}: this kernel is too old to know it")
        raise UnsupportedError(f"cannot add {name}: this process does not have it in its own bounding set")
    if privileged or add_all:
        return bounding & ~dropped
    if drop_all:
        return added
    return _mask(DEFAULT) & bounding & ~dropped | added


def names_of(mask: int) -> tuple[str, ...]:
    """Return the names of the capabilities in a bit mask, in the order of their numbers."""
    return tuple(name for number, name in enumerate(NAMES) if mask >> number & 1)


@cache
def own_bounding_set() -> int:
    """Return this process's bounding set, which limits what any descendant can have in the same user namespace."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16)
    raise UnsupportedError("cannot read this process's capabilities: /proc/self/status does not show them")


@cache
def _last_cap() -> int:
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return int(file.read())


def _mask(names: Iterable[str]) -> int:
    mask = 0
    for name in names:
        mask |= 1 << _NUMBERS[name]
    return mask


def _parse(words: Iterable[str]) -> tuple[int, bool]:
    """Return the mask of what is named, and whether ALL is."""
    mask, everything = 0, False
    for word in words:
        name = word.strip().upper()
        if name in ("ALL", "CAP_ALL"):
            everything = True
            continue
        number = _NUMBERS.get(name if name.startswith("CAP_") else f"CAP_{name}")
        if number is None:
            raise UsageError(f"there is no capability {word!r}{_near(name)}")
        mask |= 1 << number
    return mask, everything


def _near(name: str) -> str:
    from difflib import get_close_matches

    short = [known.removeprefix("CAP_") for known in NAMES]
    near = get_close_matches(name.removeprefix("CAP_"), short, n=3, cutoff=0.5)
    return f"; near it: {', '.join(near)}" if near else "; man 7 capabilities lists them"
