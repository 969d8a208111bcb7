"""Which manifest of an index is meant: indexes may hold indexes, attestations, and many platforms."""

from collections.abc import Callable, Sequence

from pyrtc.errors import ImageError
from pyrtc.image import model
from pyrtc.image.platform import Platform

__all__ = ["choose", "flatten"]


def flatten(
    descriptors: Sequence[model.Descriptor],
    read: Callable[[model.Descriptor, str], bytes],
    what: str,
    *,
    most_reads: int = model.MAX_MANIFESTS,
) -> list[model.Descriptor]:
    """Follow indexes down and return every manifest in them, in order, attestations left out.

    Parameters
    ----------
    read: returns the verified content of an index; the second word is its name for errors. what: has the indexes, for
    errors. most_reads: how many indexes may be read.

    Raises
    ------
    ImageError: too many manifests or indexes, or too deep.
    """
    return _Walk(read, what, most_reads).flatten(descriptors, 1)


class _Walk:
    def __init__(self, read: Callable[[model.Descriptor, str], bytes], what: str, most_reads: int) -> None:
        self._read = read
        self._what = what
        self._reads_left = most_reads
        self._seen: set[str] = set()

    def flatten(self, descriptors: Sequence[model.Descriptor], depth: int) -> list[model.Descriptor]:
        found: list[model.Descriptor] = []
        for descriptor in descriptors:
            if descriptor.is_attestation or descriptor.digest in self._seen:
                continue
            if len(self._seen) >= model.MAX_MANIFESTS:
                raise ImageError(f"{self._what}'s indexes list more than {model.MAX_MANIFESTS} manifests")
            self._seen.add(descriptor.digest)
            if descriptor.media_type not in model.INDEX_TYPES:
                found.append(descriptor)
                continue
            if depth >= model.MAX_INDEX_DEPTH:
                raise ImageError(f"{self._what}'s indexes are nested more than {model.MAX_INDEX_DEPTH} deep")
            if not self._reads_left:
                raise ImageError(f"{self._what} consists of too many indexes")
            self._reads_left -= 1
            what = f"the index {descriptor.digest}"
            index = model.decode_index(self._read(descriptor, what), what)
            found += self.flatten(index.manifests, depth + 1)
        return found


def choose(candidates: Sequence[model.Descriptor], wanted: Platform, what: str) -> model.Descriptor:
    """Return the manifest that fits a platform best.

    A single manifest whose index does not say what it is for is taken: its config says, and is looked at.

    Raises
    ------
    ImageError: nothing fits; the text says what there is.
    """
    best: tuple[int, model.Descriptor] | None = None
    offered = []
    for candidate in candidates:
        if candidate.platform is None:
            if len(candidates) == 1:
                return candidate
            continue
        offer = Platform(candidate.platform.os, candidate.platform.architecture, candidate.platform.variant or "")
        offered.append(str(offer))
        rank = wanted.rank(offer)
        if rank is not None and (best is None or rank < best[0]):
            best = (rank, candidate)
    if best is None:
        offers = ", ".join(sorted(set(offered))) or "no platforms"
        raise ImageError(f"no image for {wanted} in {what}; it has {offers}")
    return best[1]
