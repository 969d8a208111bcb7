"""Containers under a monitor without a store: one layer with one program, a directory of their own."""

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyrtc.api import make_options
from pyrtc.ids import IdMaps, ordinary_user
from pyrtc.image.config import ImageConfig
from pyrtc.options import LogOptions
from pyrtc.runtime.assembly import OverlayRoot, Resources, assemble
from pyrtc.runtime.attach import Attachment, attach
from pyrtc.runtime.monitor import EndCommand, Watched, open_streams, start_watched
from pyrtc.runtime.spec import decide
from pyrtc.values import replace

DEFAULT_LOG = LogOptions()
PATIENCE = 20.0  # seconds for what takes milliseconds on a machine that is not busy


def readable(fd: int, seconds: float = PATIENCE) -> bool:
    """Whether a descriptor, such as that of a process, becomes readable."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


class WatchedContainer:
    """A container under a monitor, and what it leaves in its directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in ("upper", "work"):
            (place / name).mkdir(parents=True, exist_ok=True)
        self.directory_fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.watched: Watched | None = None

    def start(
        self,
        layer: Path,
        *words: str,
        on_created: Callable[[Watched], object] = lambda _watched: None,
        log: LogOptions = DEFAULT_LOG,
        end_command: EndCommand | None = None,
        kill_fd: int | None = None,
        cgroup_fd: int | None = None,
        tasks_fds: tuple[int, ...] = (),
        oom_fd: int | None = None,
        entrusted: bool = False,
        interactive: bool = False,
        tty: bool = False,
        terminal_size: tuple[int, int] = (0, 0),
        maps: IdMaps | None = None,
        **options: Any,
    ) -> Watched:
        """Start /workload with these words. options: keywords of `pyrtc.run`."""
        asked = replace(make_options(("/workload", *words), **options), tty=tty, interactive=interactive)
        rootless = os.geteuid() != 0
        spec = decide("0" * 64, ImageConfig(), (str(layer),), asked, ordinary_user() if rootless else maps)
        upper, work = str(self.place / "upper"), str(self.place / "work")
        root = OverlayRoot((str(layer),), upper, work, volatile=False, userxattr=rootless)
        streams = open_streams(tty=tty, interactive=interactive)
        resources = Resources(root=root, tasks_fds=tasks_fds, terminal_size=terminal_size)
        plan = assemble(spec, resources, streams.container)
        self.watched = start_watched(
            spec,
            plan,
            streams,
            directory_fd=self.directory_fd,
            on_created=on_created,
            log=log,
            end_command=end_command,
            cgroup_fd=cgroup_fd,
            kill_fd=kill_fd,
            oom_fd=oom_fd,
            entrusted=entrusted,
        )
        return self.watched

    def attach(self, **options: Any) -> Attachment:
        """Attach to it; see `pyrtc.runtime.attach.attach`."""
        attachment = attach(self.directory_fd, **options)
        assert attachment is not None
        return attachment

    def end(self, seconds: float = PATIENCE) -> dict[str, int]:
        """Wait until the monitor has ended, and return what it recorded."""
        assert self.watched is not None
        assert readable(self.watched.pidfd, seconds), "the container still runs"
        assert readable(self.watched.monitor_pidfd, seconds), "the monitor still runs"
        return self.exit()

    def exit(self) -> dict[str, int]:
        """What the monitor recorded."""
        text = (self.place / "exit").read_text()
        assert text.endswith("\n")
        return {name: int(value) for name, value in (word.split("=") for word in text.split())}

    def log(self, name: str = "log") -> list[tuple[str, str, bytes]]:
        """The lines of a log file: stream, F or P, text; their times are looked at, too."""
        lines = []
        before = ""
        for line in (self.place / name).read_bytes().split(b"\n")[:-1]:
            moment, stream, mark, text = line.split(b" ", 3)
            stamp = moment.decode()
            assert len(stamp) == 30 and stamp.endswith("Z") and stamp >= before, stamp
            assert mark in (b"F", b"P") and stream in (b"stdout", b"stderr"), line
            before = stamp
            lines.append((stream.decode(), mark.decode(), text))
        return lines

    def output(self, stream: str = "stdout", *names: str) -> bytes:
        """What was written to a stream, put together again."""
        pieces = [line for name in names or ("log",) for line in self.log(name) if line[0] == stream]
        return b"".join(text + (b"\n" if mark == "F" else b"") for _stream, mark, text in pieces)

    def close(self) -> None:
        """Kill what still runs."""
        if self.watched is not None:
            for pidfd in (self.watched.pidfd, self.watched.monitor_pidfd):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                readable(pidfd, 5)
            self.watched.close()
            self.watched = None
        if self.directory_fd >= 0:
            os.close(self.directory_fd)
            self.directory_fd = -1


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> bool:
    """Whether something becomes true."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
