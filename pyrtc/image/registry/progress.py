"""What a pull or push tells while it goes on, and what it says at its end."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pyrtc.values import dataclass

if TYPE_CHECKING:
    from pyrtc.store import Image

__all__ = ["BlobTransfer", "LayerTransfer", "OnTransfer", "PullResult", "PushResult", "Reporter", "TransferEvent"]

Phase = Literal[
    "waiting",
    "exists",
    "downloading",
    "retrying",
    "downloaded",
    "unpacking",
    "done",
    "checking",
    "mounted",
    "uploading",
    "uploaded",
]
_INTERVAL = 0.1  # seconds between two reports of the same layer's bytes


@dataclass(frozen=True, slots=True)
class TransferEvent:
    """What happens to one layer.

    digest: of its compressed form. phase: of a pull ``waiting``, ``exists`` (nothing to do), ``downloading``,
    ``retrying``, ``downloaded``, ``unpacking``, ``done``; of a push ``checking``, ``exists``, ``mounted``,
    ``uploading``, ``retrying``, ``uploaded``. current, total: bytes moved in this phase and in all. text: why, or where
    from.
    """

    digest: str
    phase: Phase
    current: int = 0
    total: int = 0
    text: str = ""


# Called from the threads that do the work, one at a time. What it raises ends the transfer.
OnTransfer = Callable[[TransferEvent], None]


class Reporter:
    """Hands events on, one at a time, and not every byte."""

    def __init__(self, on_event: OnTransfer | None) -> None:
        self._on_event = on_event
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}

    def tell(self, event: TransferEvent) -> None:
        """Hand on."""
        if self._on_event is not None:
            with self._lock:
                self._on_event(event)

    def bytes(self, digest: str, phase: Phase, current: int, total: int) -> None:
        """Tell how far it is, ten times a second at most."""
        if self._on_event is None:
            return
        now = time.monotonic()
        if now - self._last.get(digest, 0.0) >= _INTERVAL:
            self._last[digest] = now
            self.tell(TransferEvent(digest, phase, current, total))


@dataclass(frozen=True, slots=True)
class LayerTransfer:
    """One layer of a pull.

    size: bytes of the compressed form. fetched: bytes that came over the network for it, what had to come twice
    counted twice. origin: ``fetched``; ``reused``: the store had the layer; ``shared``: another command brought it
    while this one waited. resumed: bytes that a pull that was interrupted had fetched before.
    """

    digest: str
    diff_id: str
    size: int
    fetched: int
    origin: Literal["fetched", "reused", "shared"]
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class PullResult:
    """What a pull did.

    image: as it is in the store now. name: familiar, with its tag or digest. digest: of the manifest or index that the
    name has at the registry. source: the registry or mirror that answered; empty when none had to be asked.
    up_to_date: the store had it, nothing was fetched. layers: bottom first; empty when up to date.
    """

    image: "Image"
    name: str
    digest: str
    source: str
    up_to_date: bool
    layers: tuple[LayerTransfer, ...]
    seconds: float

    @property
    def bytes_fetched(self) -> int:
        """Bytes of layers that came over the network."""
        return sum(layer.fetched for layer in self.layers)

    @property
    def bytes_resumed(self) -> int:
        """Bytes of layers that pulls that were interrupted had fetched before."""
        return sum(layer.resumed for layer in self.layers)

    @property
    def bytes_reused(self) -> int:
        """Compressed bytes of layers that the store had."""
        return sum(layer.size for layer in self.layers if layer.origin == "reused")

    @property
    def bytes_shared(self) -> int:
        """Compressed bytes of layers that another command brought meanwhile."""
        return sum(layer.size for layer in self.layers if layer.origin == "shared")


@dataclass(frozen=True, slots=True)
class BlobTransfer:
    """One layer of a push.

    sent: bytes that went over the network for it. origin: ``sent``; ``present``: the repository had it; ``mounted``:
    the registry took it over from another repository.
    """

    digest: str
    size: int
    sent: int
    origin: Literal["sent", "present", "mounted"]


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push did.

    name: familiar. digest, size: of the manifest. layers: bottom first, each once. changed: how what was pushed differs
    from what the store's image came as, see `pyrtc.image.export.ExportedImage`.
    """

    name: str
    digest: str
    size: int
    layers: tuple[BlobTransfer, ...]
    changed: str
    seconds: float

    @property
    def bytes_sent(self) -> int:
        """Bytes of layers that went over the network."""
        return sum(layer.sent for layer in self.layers)
