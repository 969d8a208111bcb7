"""Showing a pull or push: one live line a layer on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyrtc.image.registry.progress import OnTransfer, TransferEvent

__all__ = ["showing"]

SHORT_ID = 12
WORDS = {
    "waiting": "Waiting",
    "exists": "Already exists",
    "downloading": "Downloading",
    "retrying": "Retrying",
    "downloaded": "Download complete",
    "unpacking": "Extracting",
    "done": "Pull complete",
    "checking": "Preparing",
    "mounted": "Mounted from",
    "uploading": "Pushing",
    "uploaded": "Pushed",
}
# What a log wants to know; the rest is movement.
MILESTONES = frozenset({"exists", "retrying", "downloaded", "done", "mounted", "uploaded"})
BAR_WIDTH = 36


@contextmanager
def showing(*, quiet: bool) -> "Iterator[OnTransfer | None]":
    """Give what takes the events; quiet: nothing is shown."""
    if quiet or sys.stdout is None:
        yield None
    elif sys.stdout.isatty():
        live = _Live()
        try:
            yield live.take
        finally:
            live.close()
    else:
        yield _print_line


def _short(digest: str) -> str:
    return digest.partition(":")[2][:SHORT_ID]


def _text(event: "TransferEvent") -> str:
    from pyrtc.cli.tables import printable

    words = WORDS[event.phase]
    if event.phase in ("retrying", "mounted"):
        words = f"{words}{':' if event.phase == 'retrying' else ''} {printable(event.text)}"
    return words


def _print_line(event: "TransferEvent") -> None:
    if event.phase in MILESTONES:
        # One call, so that lines of several threads do not mix.
        sys.stdout.write(f"{_short(event.digest)}: {_text(event)}\n")
        sys.stdout.flush()


class _Live:
    """The lines of a terminal, made when there is something to show: an image that is up to date needs none."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._tasks: dict[str, Any] = {}

    def take(self, event: "TransferEvent") -> None:
        """Show an event."""
        if self._progress is None:
            self._begin()
        moving = event.phase in ("downloading", "unpacking", "uploading")
        task = self._tasks.get(event.digest)
        if task is None:
            task = self._tasks[event.digest] = self._progress.add_task(_short(event.digest), total=None, words="")
        self._progress.update(
            task,
            words=_text(event),
            completed=event.current,
            total=event.total or None,
            moving=moving,
        )

    def _begin(self) -> None:
        from rich.progress import Progress, ProgressColumn, Task
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        class Words(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.description}: {task.fields['words']}", no_wrap=True, overflow="ellipsis")

        class Bar(ProgressColumn):
            def render(self, task: Task) -> ProgressBar | Text:
                if not task.fields.get("moving"):
                    return Text("")
                return ProgressBar(total=task.total, completed=task.completed, width=BAR_WIDTH)

        class Size(ProgressColumn):
            def render(self, task: Task) -> Text:
                if not task.fields.get("moving") or task.total is None:
                    return Text("")
                return Text(f"{task.completed / 1e6:.1f}/{task.total / 1e6:.1f} MB")

        self._progress = Progress(Words(), Bar(), Size(), refresh_per_second=10)
        self._progress.start()

    def close(self) -> None:
        """Leave the last state on the terminal."""
        if self._progress is not None:
            self._progress.stop()
