"""Bringing an image here: what its name means at the registry, which layers are missing, and those only."""

import time
from collections.abc import Sequence

from pyrtc.errors import ImageError, ImageNotFound, PyrtcError, RegistryBusy, RegistryError, RegistryUnreachable
from pyrtc.events import emit
from pyrtc.image.platform import Platform
from pyrtc.image.reference import Reference
from pyrtc.image.registry.client import NotThere, Repository
from pyrtc.image.registry.patience import Patience, Stop
from pyrtc.image.registry.progress import OnTransfer, PullResult, Reporter
from pyrtc.image.registry.settings import Settings
from pyrtc.image.registry.transport import Transport
from pyrtc.store import Image, Store
from pyrtc.values import replace

__all__ = ["DOWNLOADS", "pull"]

DOWNLOADS = 4  # layers that are fetched at once


def pull(
    store: Store,
    reference: Reference,
    *,
    platform: Platform | None = None,
    on_event: OnTransfer | None = None,
    downloads: int = DOWNLOADS,
    settings: Settings | None = None,
    patience: Patience | None = None,
    stop: Stop | None = None,
) -> PullResult:
    """Pull an image; see `pyrtc.image.images.Images.pull`.

    Parameters
    ----------
    downloads: how many layers are fetched at once. settings, patience: None for the machine's, and the usual ones.
    stop: ends it early.
    """
    result = _pull(store, reference, platform, on_event, downloads, settings, patience, stop)
    emit(store, "image", "pull", result.name, {"name": result.name})
    return result


def _pull(
    store: Store,
    reference: Reference,
    platform: Platform | None,
    on_event: OnTransfer | None,
    downloads: int,
    settings: Settings | None,
    patience: Patience | None,
    stop: Stop | None,
) -> PullResult:
    begin = time.monotonic()
    reference = reference.with_default_tag()
    # As Docker has it: with a digest the tag is for the reader.
    name = replace(reference, tag=None) if reference.digest else reference
    endpoints = (settings or Settings.load()).to_pull(reference)
    known = _known(store, name, platform)
    if known is not None and name.digest is not None:
        return PullResult(known[0], name.familiar, known[1], "", True, (), time.monotonic() - begin)
    failures: list[PyrtcError] = []
    positions, again = list(range(len(endpoints))), set[int]()
    while positions:
        position = positions.pop(0)
        resumed = 0
        transport = Transport(patience)
        if stop is not None:
            stop.on_set(transport.abort)
        try:
            repositories = [Repository(transport, endpoint) for endpoint in endpoints[position:]]
            if known is not None and repositories[0].head_manifest(name.tag or "") == known[1]:
                seconds = time.monotonic() - begin
                return PullResult(known[0], name.familiar, known[1], repositories[0].name, True, (), seconds)
            from pyrtc.image.registry.fetch import Fetch  # nothing of it is needed to see that nothing is new

            fetch = Fetch(store, name, platform, Reporter(on_event), downloads, repositories)
            try:
                return fetch.run(begin)
            finally:
                resumed = fetch.resumed
        except (RegistryError, ImageError) as error:
            if resumed and position not in again and not isinstance(error, (RegistryUnreachable, RegistryBusy)):
                # What was there from before may have been what is wrong, and is gone now.
                positions.insert(0, position)
                again.add(position)
                continue
            failures.append(error)
        finally:
            transport.close()
    raise _failure(reference, failures)


def _failure(reference: Reference, failures: Sequence[PyrtcError]) -> PyrtcError:
    """Return the registry's own failure, with those of its mirrors in its text."""
    last = failures[-1]
    before = "".join(f"; before that, {failure}" for failure in failures[:-1])
    if isinstance(last, NotThere):
        return ImageNotFound(f"{reference.familiar}: no such image at the registry: {last}{before}")
    if before:
        last.args = (f"{last}{before}", *last.args[1:])
    return last


def _known(store: Store, name: Reference, platform: Platform | None) -> tuple[Image, str] | None:
    """Return the image that a name has here and the digest it had at its registry, if that is what is wanted now."""
    row = store.images.target(name)
    if row is None:
        return None
    image_id, target = row
    image = store.image(image_id)
    if platform is None and target == image.manifest:
        return image, target  # the name means this one image, whatever it is for
    wanted = platform or Platform.host()
    exact = wanted.rank(Platform(image.os, image.architecture, image.variant)) == 0
    return (image, target) if exact else None
