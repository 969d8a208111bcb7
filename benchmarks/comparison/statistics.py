"""Numbers from samples: quartiles, and how sure a ratio of medians is."""

import random
import statistics
from collections.abc import Sequence

from pyrtc.values import dataclass

__all__ = ["Ratio", "quartiles", "ratio"]

RESAMPLES = 2000
COVERAGE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of two medians, with the interval in which 95 of 100 such measurements would find it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as the report shows it."""
        return f"{_short(self.value)} ({_short(self.low)} to {_short(self.high)})"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the values that a quarter, a half and three quarters of the samples do not exceed."""
    ordered = sorted(values)
    if len(ordered) == 1:
        return ordered[0], ordered[0], ordered[0]
    first, middle, third = statistics.quantiles(ordered, n=4, method="inclusive")
    return first, middle, third


def ratio(values: Sequence[float], base: Sequence[float]) -> Ratio:
    """Return the ratio of the medians, with its interval by the bootstrap: both samples are drawn from again and again.

    The draws are the same for the same numbers of samples, so that a report can be made again.
    """
    draws = random.Random(len(values) * 1000 + len(base))  # noqa: S311  (no secrets)
    found = sorted(
        statistics.median(draws.choices(values, k=len(values))) / statistics.median(draws.choices(base, k=len(base)))
        for _ in range(RESAMPLES)
    )
    cut = int(RESAMPLES * (1 - COVERAGE) / 2)
    return Ratio(statistics.median(values) / statistics.median(base), found[cut], found[-1 - cut])


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
