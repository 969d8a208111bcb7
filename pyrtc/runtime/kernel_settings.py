"""What a container's processes find set in the kernel: sysctls, resource limits, the score of the OOM killer."""

import resource
from functools import cache

from pyrtc.errors import UsageError
from pyrtc.options import RunOptions

__all__ = ["decide_oom_score", "decide_sysctls", "decide_ulimit"]

_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def decide_sysctls(
    options: RunOptions, *, own_net: bool, own_ipc: bool, user_namespace: bool
) -> tuple[tuple[str, str], ...]:
    """Return the settings of /proc/sys, by path; raises UsageError for one that is not the container's own."""
    merged: dict[str, str] = {}
    if own_net:
        merged["net/ipv4/ip_unprivileged_port_start"] = "0"
        if not user_namespace:
            merged["net/ipv4/ping_group_range"] = "0 2147483647"
    for name, value in options.sysctls:
        dotted = name.replace("/", ".")
        if "\0" in dotted + value or "\n" in value or ".." in dotted:
            raise UsageError(f"sysctl {name!r} is not a setting")
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            allowed, why = own_ipc, "--ipc host shares it with the host"
        elif dotted.startswith("net."):
            allowed, why = own_net, "--network host shares it with the host"
        else:
            allowed, why = False, "it is not separate for each container"
        if not allowed:
            raise UsageError(f"sysctl {name!r} cannot be set: {why}")
        merged[dotted.replace(".", "/")] = value
    return tuple(merged.items())


def decide_ulimit(name: str, soft: int, hard: int) -> tuple[str, int, int, int]:
    """Return name, number, soft and hard limit; raises UsageError where there is none of the name."""
    number = getattr(resource, f"RLIMIT_{name.upper()}", None) if name.isalpha() else None
    if number is None:
        raise UsageError(f"unknown ulimit {name!r}; known are {', '.join(_ulimit_names())}")
    unlimited = (1 << 64) - 1
    if min(soft, hard) < -1 or max(soft, hard) > unlimited:
        raise UsageError(f"ulimit {name}={soft}:{hard}: a limit is a number from 0 on, or -1 for unlimited")
    limits = (unlimited if soft == -1 else soft, unlimited if hard == -1 else hard)
    if limits[0] > limits[1]:
        raise UsageError(f"ulimit {name}={soft}:{hard}: the soft limit is above the hard limit")
    return name, number, *limits


@cache
def _ulimit_names() -> tuple[str, ...]:
    return tuple(sorted(name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_")))


def decide_oom_score(score: int | None) -> int | None:
    """Return what oom_score_adj becomes, None for what it is; raises UsageError where it cannot be."""
    if score is not None and not -1000 <= score <= 1000:
        raise UsageError(f"oom_score_adj={score}: it is from -1000 to 1000")
    if score is None and _own_oom_score() < 0:
        return 0  # that this program is to be spared is no reason to spare what runs in a container
    return score


@cache
def _own_oom_score() -> int:
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            return int(file.read())
    except OSError:
        return 0
