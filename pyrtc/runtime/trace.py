"""Where the time of a start goes: what the caller did, and each operation of the first process."""

import os
import time

from pyrtc._core import lib
from pyrtc.runtime.plan import Plan, operation, words
from pyrtc.values import dataclass

__all__ = ["Step", "Tracing"]

_PLACE = 8  # bytes of a time
_SHOWN = 40  # characters of a target


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a start.

    where: ``caller``, the process that asked, or ``container``, its first process; the two work side by side. begin,
    microseconds: when it began after the request, and how long it took, both in microseconds.
    """

    where: str
    name: str
    begin: float
    microseconds: float


class Tracing:
    """The trace of one start, while it is being made."""

    def __init__(self) -> None:
        self._begin = time.monotonic_ns()
        self._marks: list[tuple[str, int]] = []
        self._fd = -1
        self._names: list[str] = []
        self._told: list[tuple[str, int, int]] = []

    def mark(self, name: str) -> None:
        """Say that a step of the caller has come to its end; the next begins."""
        self._marks.append((name, time.monotonic_ns()))

    def join(self, plan: Plan) -> None:
        """Have the first process tell when each of its operations begins."""
        self._fd = os.memfd_create("pyrtc-trace", os.MFD_CLOEXEC)
        plan.operations.insert(0, operation(lib.PLAN_TRACE, slot=len(plan.slots)))
        plan.slots.append(self._fd)
        os.ftruncate(self._fd, _PLACE * len(plan.operations))
        self._names = [_name(one) for one in plan.operations]

    def collect(self) -> None:
        """Take what the first process told, now that its command runs."""
        end = time.monotonic_ns()
        self._marks.append(("wait for the command to run", end))
        content = os.pread(self._fd, _PLACE * len(self._names), 0)
        times = [int.from_bytes(content[place : place + _PLACE], "little") for place in range(0, len(content), _PLACE)]
        known = [(name, begin) for name, begin in zip(self._names, times, strict=True) if begin]
        ends = [begin for _name, begin in known[1:]] + [end]
        self._told = [(name, begin, end) for (name, begin), end in zip(known, ends, strict=True)]
        self.close()

    def close(self) -> None:
        """Give the memory back that the first process writes to."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def steps(self) -> tuple[Step, ...]:
        """Return what was traced, in the order of its beginning."""
        found, before = [], self._begin
        for name, end in self._marks:
            found.append(self._step("caller", name, before, end))
            before = end
        found += [self._step("container", name, begin, end) for name, begin, end in self._told]
        return tuple(sorted(found, key=lambda step: step.begin))

    def _step(self, where: str, name: str, begin: int, end: int) -> Step:
        return Step(where, name, (begin - self._begin) / 1000, (end - begin) / 1000)


def _name(one: bytes) -> str:
    """An operation with what it is about, for people."""
    name, strings = words(one)
    if name == "exec":
        return "exec"
    about = strings[1] if name in ("mount", "bind", "device", "symlink") and len(strings) > 1 else ""
    about = about or (strings[0] if strings and name not in ("root_overlay", "sysctl") else "")
    return f"{name.removesuffix('_slot').replace('_', ' ')} {about[:_SHOWN]}".strip()
