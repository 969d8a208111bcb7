"""How long a run may take, and how that is shared: among experiments by weight, in one of them by what a turn costs."""

import time
from collections.abc import Mapping, Sequence

__all__ = ["Clock", "level"]


class Clock:
    """The time of a run, shared among the experiments that are still to be made.

    Parameters
    ----------
    seconds: of the whole run from now on. weights: the experiments to come, each with its share.
    """

    def __init__(self, seconds: float, weights: Mapping[str, float]) -> None:
        self._end = time.monotonic() + seconds
        self._left = dict(weights)

    def deadline(self, key: str) -> float:
        """Return the moment, by time.monotonic, at which an experiment is to be over; what others left is in it."""
        now = time.monotonic()
        weight = self._left.pop(key, 0.0)
        others = sum(self._left.values())
        share = weight / (weight + others) if weight else 0.0
        return now + max(0.0, self._end - now) * share

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be begun."""
        return time.monotonic() >= self._end


def level(needs: Sequence[float], seconds: float) -> float:
    """Return how much each may have at most, so that all together have so many seconds.

    Who needs less than an equal part leaves the rest to the others.
    """
    waiting = sorted(needs)
    for place, need in enumerate(waiting):
        part = max(0.0, seconds) / (len(waiting) - place)
        if need > part:
            return part
        seconds -= need
    return float("inf")
