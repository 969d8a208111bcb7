"""Whether a container is well: which check its options and its image ask for, and what its monitor found out.

The monitor (csrc/init/monitor_health.c) writes ``health`` in the container's directory, which appears whole, by a
rename. The first line is ``status=starting|healthy|unhealthy streak=N``, where N is the number of failures in a row;
then comes one line for each of the last checks, five at most, the oldest first:
``start=NS end=NS code=N output=TEXT``. Times are nanoseconds since the epoch; code is -1 where the check came to no
exit code; in TEXT a backslash and what is not printable ASCII are written as ``\\xHH``.
"""

import os
import re
from typing import TYPE_CHECKING, Literal

from pyrtc.options import HealthCheck
from pyrtc.states import is_alive
from pyrtc.values import dataclass, replace

if TYPE_CHECKING:
    from pyrtc.image.config import Healthcheck
    from pyrtc.store.container_rows import ContainerRecord

__all__ = [
    "FILE",
    "STARTING",
    "Health",
    "HealthResult",
    "HealthStatus",
    "merged",
    "parse",
    "read_health",
    "read_status",
]

HealthStatus = Literal["starting", "healthy", "unhealthy"]

FILE = "health"
STARTING = b"status=starting streak=0\n"
MAX_RESULTS = 5
_MAX_SIZE = 1 << 17  # five results of 4.4 kB, of which every byte may take four
_FIRST = re.compile(rb"status=(starting|healthy|unhealthy) streak=([0-9]{1,10})")
_RESULT = re.compile(rb"start=([0-9]{1,20}) end=([0-9]{1,20}) code=(-1|[0-9]{1,3}) output=(.*)", re.DOTALL)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class HealthResult:
    """One check. start, end: seconds since the epoch. returncode: 0 is well, -1: it was not executed to its end.

    output: what it wrote, 4096 bytes at most, then ``...``; before it, why it was not executed to its end.
    """

    start: float
    end: float
    returncode: int
    output: str


@dataclass(frozen=True, slots=True)
class Health:
    """How a container is. failing_streak: failures in a row. log: the last five checks, the latest last."""

    status: HealthStatus
    failing_streak: int = 0
    log: tuple[HealthResult, ...] = ()


def merged(asked: HealthCheck | None, image: "Healthcheck | None") -> HealthCheck | None:
    """Return what the caller asks, with the image's word for what it leaves open; None where nobody asks anything."""
    if image is None:
        return asked
    if asked is None:
        asked = HealthCheck()
    if asked.test[:1] == ("NONE",):
        return asked
    return HealthCheck(
        test=asked.test or image.test,
        interval=asked.interval or image.interval,
        timeout=asked.timeout or image.timeout,
        start_period=asked.start_period or image.start_period,
        start_interval=asked.start_interval or image.start_interval,
        retries=asked.retries or image.retries,
    )


def parse(text: bytes) -> Health | None:
    """Return what a monitor wrote; None of what is no monitor's."""
    first, *lines = text.split(b"\n")
    match = _FIRST.fullmatch(first)
    if match is None or not lines or lines.pop() or len(lines) > MAX_RESULTS:
        return None
    log = []
    for line in lines:
        result = _RESULT.fullmatch(line)
        if result is None:
            return None
        output = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), result[4])
        log.append(
            HealthResult(int(result[1]) / 1e9, int(result[2]) / 1e9, int(result[3]), output.decode(errors="replace"))
        )
    status: HealthStatus = match[1].decode()  # type: ignore[assignment]
    return Health(status, int(match[2]), tuple(log))


def read_health(record: "ContainerRecord") -> Health | None:
    """Return how a container is, None where nothing checks it. One that does not run is unhealthy, as in Docker."""
    found = parse(_read(record))
    if found is None or (record.state == "running" and is_alive(record)):
        return found
    return replace(found, status="unhealthy")


def read_status(record: "ContainerRecord") -> str:
    """Return the first word of `read_health` of a container that runs, ``none`` for None."""
    match = _FIRST.match(_read(record, 64))
    return match[1].decode() if match else "none"


def _read(record: "ContainerRecord", most: int = _MAX_SIZE) -> bytes:
    if record.directory is None or not record.detached:
        return b""
    try:
        fd = os.open(f"{record.directory}/{FILE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, most)
    finally:
        os.close(fd)
